//! Targets in target groups of others: what is called in which order, and what a crash leaves.

use super::*;
use crate::bind::BOUND_TO;
use crate::observed::Bound;
use crate::target::TargetId;

const THEIRS: &str = "arn:theirs";

/// What the note has, what they have, what is wanted, and the calls.
type Row = (
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

fn targets(all: &[&str]) -> BTreeSet<TargetId> {
    let all = all.iter();
    all.map(|id| TargetId::InstanceAt((*id).to_owned(), 30_080))
        .collect()
}

/// A note with these targets; the target group of others has those of `theirs`.
fn note(ours: &[&str], theirs: &[&str]) -> ObservedTargetGroup {
    let group = &example().target_groups;
    let group = group.values().next().expect("one").clone();
    ObservedTargetGroup {
        arn: "arn:note".into(),
        tags: [(BOUND_TO.to_owned(), THEIRS.to_owned())].into(),
        targets: targets(ours),
        bound: Some(Bound {
            arn: THEIRS.into(),
            targets: targets(theirs),
        }),
        ..group
    }
}

/// The calls, each with what it is about.
fn words(calls: &[Call]) -> Vec<String> {
    let about = |call: &Call| match call {
        Call::RegisterTargets {
            target_group,
            targets,
        } => format!("+ {target_group} {}", targets.len()),
        Call::DeregisterTargets {
            target_group,
            targets,
        } => format!("- {target_group} {}", targets.len()),
        call => call.action().to_owned(),
    };
    calls.iter().map(about).collect()
}

#[test]
fn a_target_is_noted_for_as_long_as_it_may_be_registered() {
    let table: [Row; 6] = [
        (&["a"], &["a"], &["a"], &[]),
        (&[], &[], &["a", "b"], &["+ arn:note 2", "+ arn:theirs 2"]),
        // A crash came before the registration.
        (&["a"], &[], &["a"], &["+ arn:theirs 1"]),
        (
            &["a", "b"],
            &["a", "b"],
            &["b", "c"],
            &[
                "+ arn:note 1",
                "+ arn:theirs 1",
                "- arn:theirs 1",
                "- arn:note 1",
            ],
        ),
        // It was never registered, or somebody has deregistered it.
        (&["a"], &[], &[], &["- arn:note 1"]),
        (&["a"], &["a"], &[], &["- arn:theirs 1", "- arn:note 1"]),
    ];
    for (ours, theirs, wanted, expected) in table {
        let calls = retarget(&note(ours, theirs), &targets(wanted));
        assert_eq!(words(&calls), expected, "{ours:?} {theirs:?} {wanted:?}");
    }
    let many: Vec<String> = (0..=CHUNK).map(|number| format!("i-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let calls = retarget(&note(&[], &[]), &targets(&many));
    let expected = [
        "+ arn:note 200",
        "+ arn:note 1",
        "+ arn:theirs 200",
        "+ arn:theirs 1",
    ];
    assert_eq!(words(&calls), expected);
}

/// What others have registered there is not in the note.
#[test]
fn only_what_the_note_names_is_deregistered_with_it() {
    let mut seen = Observed::default();
    let mut there = note(&["a", "b"], &["a"]);
    there.bound.as_mut().expect("a note").targets = targets(&["a", "x"]);
    seen.target_groups.insert("note".into(), there);
    let expected = ["- arn:theirs 1", "DeleteTargetGroup"];
    assert_eq!(words(&release(&seen)), expected);
    // A Service that gets a load balancer again needs no note.
    let web = desired(&service(&[WEB]), &[]);
    assert_eq!(words(&plan(&web, &with(1), &seen).cleanup), expected);
    let nothing = super::super::bind(&BTreeMap::new(), &with(1), &seen);
    assert_eq!(words(&nothing.cleanup), expected);
}
