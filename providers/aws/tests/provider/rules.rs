//! Rules that are easily broken where two parts of the provider meet: what nobody knows changes nothing, what goes
//! wrong stays with its Service, and nobody takes what belongs to others.

use crate::bed::Bed;

mod adoption;
mod pods;

const ONE: &str = "10.0.100.1";
const TWO: &str = "10.0.100.2";

/// How many targets the only listener has.
fn targets_of_listener(bed: &Bed) -> usize {
    let all = bed.fake.snapshot();
    let listener = all.listeners.values().next().unwrap();
    let (group, _) = &listener.forward[0];
    all.target_groups[group].targets.len()
}
