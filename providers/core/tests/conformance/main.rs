//! The suite on itself: a correct provider passes every check, and the check for each kind
//! of defect finds it.
#![allow(clippy::unwrap_used, clippy::panic)] // the toy is test code

mod toy;

use ballast_provider::conformance::{CHECKS, Deaf, Field, Lab, Support, run, run_all};
use toy::{Defect, ToyLab};

#[tokio::test]
async fn a_correct_provider_passes() {
    if let Err(failures) = run_all(&ToyLab(Defect::None)).await {
        let lines: Vec<String> = failures.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"));
    }
}

/// The check that finds each defect. Every check is in the list.
const FOUND_BY: [(&str, Defect); 29] = [
    ("ensure_twice_is_ensure_once", Defect::WritesAlways),
    ("retarget_twice_is_retarget_once", Defect::RetargetsAlways),
    ("a_restart_changes_nothing", Defect::WritesAfterRestart),
    ("a_restart_changes_nothing", Defect::RandomNames),
    (
        "ensure_works_before_any_retarget",
        Defect::NeedsTargetsFirst,
    ),
    ("a_crash_in_create_converges", Defect::RandomNames),
    ("a_crash_in_create_converges", Defect::TrustsHalfMade),
    ("a_crash_in_update_converges", Defect::WritesAlways),
    ("a_crash_in_retarget_converges", Defect::RandomNames),
    ("a_crash_in_release_converges", Defect::RandomNames),
    ("addresses_survive_edits", Defect::AddressOfPorts),
    ("members_join_and_leave_in_any_order", Defect::KeepsLeavers),
    (
        "members_move_between_balancers",
        Defect::OneMemberForAllKeys,
    ),
    ("a_member_stays_until_it_is_released", Defect::LeavesAtOnce),
    ("a_refused_member_keeps_its_part", Defect::DropsRefused),
    ("every_field_is_honoured_or_named", Defect::AsksForNoPods),
    ("an_unmet_request_blocks_no_edit", Defect::BlocksTheRest),
    ("anything_can_be_released", Defect::LeaksOnRelease),
    ("anything_can_be_released", Defect::FailsOnAbsent),
    ("the_inventory_is_complete", Defect::ListsOnlyTheFirst),
    ("the_inventory_is_complete", Defect::ListsForeign),
    ("nothing_foreign_is_touched", Defect::AdoptsByName),
    ("a_release_says_what_it_waits_for", Defect::CountsWaits),
    ("what_is_retained_stays", Defect::DeletesRetained),
    ("what_is_retained_stays", Defect::ForgetsRetained),
    (
        "the_cloud_forgot_the_last_changes",
        Defect::GivesPublishedAway,
    ),
    ("the_cloud_forgot_the_last_changes", Defect::AddressOfPorts),
    (
        "a_wish_for_two_families_does_not_block",
        Defect::RemarksNothing,
    ),
    ("the_cloud_remembers_what_was_deleted", Defect::TellsNothing),
];

#[tokio::test]
async fn every_defect_is_found() {
    for (check, defect) in FOUND_BY {
        let failure = run(&ToyLab(defect), check).await.expect_err(check);
        assert_eq!(failure.check, check);
        assert!(!failure.message.is_empty());
        println!("{defect:?}: {failure}");
    }
}

#[test]
fn every_check_is_proved() {
    for (check, _) in CHECKS {
        assert!(
            FOUND_BY.iter().any(|(found, _)| *found == check),
            "{check} is not proved"
        );
    }
}

#[tokio::test]
async fn an_unknown_check_is_a_failure() {
    assert!(run(&ToyLab(Defect::None), "no_such_check").await.is_err());
}

/// A provider that ignores a field in silence does not pass.
#[tokio::test]
async fn every_ignored_field_is_found() {
    let lab = ToyLab(Defect::None);
    for field in Field::ALL {
        if lab.support(field) == Support::Unused {
            continue;
        }
        let deaf = Deaf { lab: &lab, field };
        let found = run(&deaf, "every_field_is_honoured_or_named").await;
        println!("{}", found.expect_err(field.as_str()));
    }
}

/// The names are unique: the table in `docs/providers.md` has a row for each.
#[test]
fn every_field_is_listed_once() {
    let names: std::collections::BTreeSet<&str> = Field::ALL.map(Field::as_str).into();
    assert_eq!(names.len(), Field::ALL.len());
}
