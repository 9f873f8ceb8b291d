//! What a Service says while its class is drained, and afterwards.

use super::*;

fn drained() -> Refusal {
    Refusal::new(Reason::Draining, "drained")
}

/// As the API server has it after [`drained_patch`].
fn after_the_drain(service: &ServiceView) -> ServiceView {
    let bare = ServiceView {
        ingress: vec![],
        held_by: vec![],
        standard_finalizer: false,
        ..service.clone()
    };
    Desired::refused(&bare, &drained(), false).applied_to(&bare, second(9))
}

#[test]
fn a_drained_service_stays_without_an_address_and_says_why() {
    let patch = drained_patch(&settled(), "local", &drained(), second(9)).unwrap();
    insta::assert_json_snapshot!(patch, @r#"
    {
      "metadata": {
        "$deleteFromPrimitiveList/finalizers": [
          "ballast.dev/local"
        ],
        "uid": "uid-web"
      },
      "status": {
        "conditions": [
          {
            "lastTransitionTime": "1970-01-01T00:00:09Z",
            "message": "drained",
            "reason": "Draining",
            "status": "False",
            "type": "ballast.dev/Accepted"
          },
          {
            "lastTransitionTime": "1970-01-01T00:00:09Z",
            "message": "The Service is not accepted",
            "reason": "Draining",
            "status": "False",
            "type": "ballast.dev/Programmed"
          }
        ],
        "loadBalancer": {
          "ingress": null
        }
      }
    }
    "#);
}

#[test]
fn a_drain_takes_off_what_is_ours_and_only_once() {
    let classless = || settled().class(None);
    for (what, service, expected) in [
        ("a class", settled(), json!(["ballast.dev/local"])),
        (
            "a class, and none before",
            settled().standard(),
            json!(["ballast.dev/local", STANDARD_FINALIZER]),
        ),
        (
            "no class",
            classless().standard(),
            json!(["ballast.dev/local", STANDARD_FINALIZER]),
        ),
        (
            "an address of a pool",
            settled().held_by(&[]),
            serde_json::Value::Null,
        ),
    ] {
        let patch = drained_patch(&service, "local", &drained(), second(9)).unwrap();
        let off = &patch["metadata"]["$deleteFromPrimitiveList/finalizers"];
        assert_eq!(*off, expected, "{what}");
        assert_eq!(
            patch["status"]["loadBalancer"],
            json!({"ingress": null}),
            "{what}"
        );
        let after = after_the_drain(&service);
        assert_eq!(drained_patch(&after, "local", &drained(), second(10)), None);
        let refused = Desired::refused(&after, &drained(), false);
        assert_eq!(
            crate::service::status::patch(&after, &refused, second(10)),
            None,
            "{what}"
        );
    }
}

/// While the cloud takes its time, and when it fails.
#[test]
fn a_drain_that_is_not_done_says_what_it_waits_for() {
    let why = Refusal::new(Reason::CloudError, "the cloud does not answer");
    for (what, desired, reason) in [
        (
            "slow",
            Desired::draining(
                &settled(),
                &drained(),
                "The load balancer is being released".to_owned(),
            ),
            Reason::Releasing,
        ),
        (
            "failed",
            Desired::failed(&settled(), "local", Some("local"), &transient(), second(9))
                .with_refusal(Some(&drained())),
            Reason::CloudError,
        ),
        (
            "cannot begin",
            Desired::waiting(&settled(), "local", Some("local"), &why, Some(&drained())),
            Reason::CloudError,
        ),
    ] {
        let accepted = desired.accepted.unwrap();
        assert_eq!(
            (accepted.status, accepted.reason),
            ("False", Reason::Draining),
            "{what}"
        );
        let programmed = desired.programmed.unwrap();
        assert_eq!(
            (programmed.status, programmed.reason),
            ("Unknown", reason),
            "{what}"
        );
        assert_eq!(desired.ingress, None, "{what}: nobody says that it is gone");
    }
}
