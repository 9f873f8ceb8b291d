//! The conformance suite on the strict fake.

mod lab;

use ballast_provider::conformance::{CHECKS, Deaf, Field, Lab, Support, documented, run};

use self::lab::AwsLab;

/// Runs these checks, and shows every failure.
async fn pass(checks: &[&str]) {
    let lab = AwsLab::default();
    let mut failures = Vec::new();
    for check in checks {
        let failure = run(&lab, check).await.err();
        failures.extend(failure.map(|failure| failure.to_string()));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Those that crash at each call take longer than all others together, and have tests of their own.
const LONG: [&str; 5] = [
    "a_crash_in_create_converges",
    "a_crash_in_update_converges",
    "a_crash_in_retarget_converges",
    "a_crash_in_release_converges",
    "anything_can_be_released",
];

#[tokio::test]
async fn the_provider_conforms() {
    let names = CHECKS.iter().map(|(name, _)| *name);
    let short: Vec<&str> = names.filter(|name| !LONG.contains(name)).collect();
    assert_eq!(short.len() + LONG.len(), CHECKS.len());
    pass(&short).await;
}

#[tokio::test]
async fn crashes_while_it_creates_converge() {
    pass(&LONG[..1]).await;
}

#[tokio::test]
async fn crashes_while_it_updates_converge() {
    pass(&LONG[1..2]).await;
}

#[tokio::test]
async fn crashes_while_it_retargets_or_releases_converge() {
    pass(&LONG[2..4]).await;
}

#[tokio::test]
async fn it_can_release_anything() {
    pass(&LONG[4..]).await;
}

/// A provider that ignores a field in silence does not pass.
#[tokio::test]
async fn every_field_that_it_ignored_would_be_found() {
    let lab = AwsLab::default();
    for field in Field::ALL {
        // A load balancer of the lab has both families whatever the policy is; `families` has the others.
        if lab.support(field) == Support::Unused || field == Field::FamilyPolicy {
            continue;
        }
        let deaf = Deaf { lab: &lab, field };
        let found = run(&deaf, "every_field_is_honoured_or_named").await;
        println!("{}", found.expect_err(field.as_str()));
    }
}

#[test]
fn the_documented_table_of_fields_is_true() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/providers.md");
    let page = std::fs::read_to_string(page).unwrap();
    documented(&page, "aws", &AwsLab::default()).unwrap_or_else(|wrong| panic!("{wrong}"));
}
