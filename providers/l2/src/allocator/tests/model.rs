//! Random histories against a simple model that keeps lists and checks every address.
//!
//! After each step the woken Services are asked again, as in the controller. The model then
//! checks every answer (no forbidden assignment, no free address withheld, no move without a
//! cause), every counter (no leak), and that a second run of the whole history gives the same
//! result.

mod history;
mod world;

use proptest::prelude::*;

use self::history::{Step, step};
use self::world::World;

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_it(steps in prop::collection::vec(step(), 1..40)) {
        let first = run(&steps);
        prop_assert_eq!(first, run(&steps), "the same history, another result");
    }
}

fn run(steps: &[Step]) -> Vec<String> {
    let mut world = World::new();
    for step in steps {
        world.take(step);
    }
    world.log
}
