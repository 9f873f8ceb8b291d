mod drain;
mod event;
mod exact;
mod extra;
mod targets;

use ballast_crds::class_key;
use ballast_provider::{Address, IpMode, PortStatus, Protocol};
use serde_json::{Value, json};

use super::*;
use crate::cluster::conditions::{ACCEPTED, PROGRAMMED};
use crate::cluster::view::STANDARD_FINALIZER;
use crate::fixtures::{condition, ingress, programmed, second};

fn web() -> ServiceView {
    ServiceView::test("web")
}

/// As it is after a successful ensure.
fn settled() -> ServiceView {
    let fresh = web().held_by(&["local"]);
    Desired::observed(&fresh, "local", &programmed("192.0.2.1"), Backing::Nodes)
        .applied_to(&fresh, second(5))
}

fn transient() -> ProviderError {
    ProviderError::transient("the cloud does not answer")
}

#[test]
fn the_first_patch_claims_and_says_so() {
    let patch = finalizer_patch(&web(), "local", second(7)).unwrap();
    insta::assert_json_snapshot!(patch, @r#"
    {
      "metadata": {
        "finalizers": [
          "ballast.dev/local"
        ],
        "uid": "uid-web"
      },
      "status": {
        "conditions": [
          {
            "lastTransitionTime": "1970-01-01T00:00:07Z",
            "message": "LoadBalancerClass local serves this Service",
            "reason": "Accepted",
            "status": "True",
            "type": "ballast.dev/Accepted"
          },
          {
            "lastTransitionTime": "1970-01-01T00:00:07Z",
            "message": "The load balancer is being created",
            "reason": "Provisioning",
            "status": "False",
            "type": "ballast.dev/Programmed"
          }
        ]
      }
    }
    "#);
}

/// Upstream's `TestAddFinalizer`, and what it does not know.
#[test]
fn finalizers_are_added_once_and_the_standard_one_only_without_a_class() {
    let added = |service: &ServiceView| {
        finalizer_patch(service, "local", second(7))
            .map(|patch| patch["metadata"]["finalizers"].clone())
    };
    let classless = web().class(None);
    assert_eq!(added(&web()), Some(json!(["ballast.dev/local"])));
    assert_eq!(added(&web().held_by(&["local"])), None);
    assert_eq!(
        added(&classless),
        Some(json!(["ballast.dev/local", STANDARD_FINALIZER]))
    );
    assert_eq!(
        added(&classless.clone().held_by(&["local"])),
        Some(json!([STANDARD_FINALIZER]))
    );
    assert_eq!(added(&classless.held_by(&["local"]).standard()), None);
}

#[test]
fn the_second_patch_publishes() {
    let fresh = web();
    let begun = Desired::first(&fresh, "local").applied_to(&fresh, second(7));
    let desired = Desired::observed(&begun, "local", &programmed("192.0.2.1"), Backing::Nodes);
    insta::assert_json_snapshot!(patch(&begun, &desired, second(9)).unwrap(), @r#"
    {
      "metadata": {
        "uid": "uid-web"
      },
      "status": {
        "conditions": [
          {
            "lastTransitionTime": "1970-01-01T00:00:09Z",
            "message": "The load balancer is active",
            "reason": "Programmed",
            "status": "True",
            "type": "ballast.dev/Programmed"
          }
        ],
        "loadBalancer": {
          "ingress": [
            {
              "ip": "192.0.2.1",
              "ipMode": "Proxy",
              "ports": [
                {
                  "port": 80,
                  "protocol": "TCP"
                }
              ]
            }
          ]
        }
      }
    }
    "#);
}

/// Upstream's `TestPatchStatus` and `TestLoadBalancerStatusEqual`, as differences.
type Bend = fn(&mut Observed);

#[test]
fn only_what_differs_is_written() {
    let settled = settled();
    let says = |observed: &Observed| {
        patch(
            &settled,
            &Desired::observed(&settled, "local", observed, Backing::Nodes),
            second(9),
        )
    };
    assert_eq!(says(&programmed("192.0.2.1")), None, "steady state");
    let moved = says(&programmed("192.0.2.2")).unwrap();
    assert_eq!(
        moved["status"]["loadBalancer"]["ingress"][0]["ip"],
        "192.0.2.2"
    );
    assert!(moved["status"].get("conditions").is_none(), "{moved}");
    // Upstream's `LoadBalancerStatusEqual`, one difference each.
    let bends: [(&str, Bend); 7] = [
        ("another mode", |it| {
            it.ingress[0].address = Address::Ip("192.0.2.1".parse().unwrap(), IpMode::Vip);
        }),
        ("a name instead of an address", |it| {
            it.ingress[0].address = Address::Hostname("lb.example.com".to_owned());
        }),
        ("one address more", |it| {
            it.ingress.push(ingress("192.0.2.2", 80));
        }),
        ("one port more", |it| {
            let more = PortStatus {
                port: 443,
                ..it.ingress[0].ports[0].clone()
            };
            it.ingress[0].ports.push(more);
        }),
        ("no ports", |it| it.ingress[0].ports.clear()),
        ("another protocol", |it| {
            it.ingress[0].ports[0].protocol = Protocol::Udp;
        }),
        ("an error on a port", |it| {
            it.ingress[0].ports[0].error = Some("example.com/Closed".to_owned());
        }),
    ];
    for (what, bend) in bends {
        let mut observed = programmed("192.0.2.1");
        bend(&mut observed);
        assert!(says(&observed).is_some(), "{what}");
    }
}

#[test]
fn provisioning_is_said_once_whatever_the_provider_calls_it() {
    let fresh = web();
    let begun = Desired::first(&fresh, "local").applied_to(&fresh, second(7));
    let pending = Observed::new(
        vec![],
        State::Pending {
            reason: Reason::Provisioning,
            message: "step 3 of 7".into(),
            retry_after: None,
        },
    );
    let desired = Desired::observed(&begun, "local", &pending, Backing::Nodes);
    assert_eq!(patch(&begun, &desired, second(9)), None);
}

#[test]
fn errors_never_clear_an_address() {
    for desired in [
        Desired::failed(&settled(), "local", Some("local"), &transient(), second(9)),
        Desired::refused(&settled(), &refusal("no"), false),
        Desired::waiting(
            &settled(),
            "local",
            Some("local"),
            &Refusal::new(Reason::CloudError, "no"),
            None,
        ),
    ] {
        assert_eq!(desired.ingress, None, "{desired:?}");
        assert_eq!(
            desired.applied_to(&settled(), second(9)).ingress,
            settled().ingress
        );
    }
    let silent = Observed {
        ingress: vec![],
        ..programmed("192.0.2.1")
    };
    assert_eq!(
        Desired::observed(&settled(), "local", &silent, Backing::Nodes).ingress,
        None
    );
}

#[test]
fn a_failure_is_false_without_and_unknown_with_an_address() {
    let status = |service: &ServiceView| {
        Desired::failed(service, "local", Some("local"), &transient(), second(9))
            .programmed
            .unwrap()
            .status
    };
    assert_eq!(status(&web()), "False");
    assert_eq!(status(&settled()), "Unknown");
}

fn refusal(message: &str) -> Refusal {
    Refusal::new(Reason::Unsupported, message)
}

#[test]
fn a_refused_service_claims_nothing_that_nobody_looks_at() {
    let programmed = |service: &ServiceView, kept: bool| {
        let refused = Desired::refused(service, &refusal("no"), kept);
        let after = refused.applied_to(service, second(9));
        assert_eq!(after.condition(ACCEPTED).unwrap().status, "False");
        after.condition(PROGRAMMED).map(|it| it.status.clone())
    };
    let provisioning = Desired::first(&web(), "local").applied_to(&web(), second(7));
    for (service, kept, status) in [
        (web(), false, None),
        (provisioning.clone(), false, Some("False")),
        (settled(), false, Some("Unknown")),
        // What it has is brought up to date next, and that is what it will say.
        (settled(), true, Some("True")),
    ] {
        assert_eq!(programmed(&service, kept).as_deref(), status, "{service:?}");
    }
    let gone = Desired::refused(&provisioning, &refusal("no"), false);
    assert_eq!(gone.programmed.unwrap().reason, Reason::Unsupported);
}

#[test]
fn what_a_refused_service_has_is_reported_and_it_stays_refused() {
    let refusal = refusal("no");
    let moved = Desired::observed(&settled(), "local", &programmed("192.0.2.1"), Backing::None);
    let said = moved
        .with_refusal(Some(&refusal))
        .applied_to(&settled(), second(9));
    let accepted = said.condition(ACCEPTED).unwrap();
    assert_eq!(
        (accepted.status.as_ref(), &*accepted.message),
        ("False", "no")
    );
    assert_eq!(
        said.condition(PROGRAMMED).unwrap().reason,
        "NoEligibleNodes"
    );
}

/// Somebody took its finalizer off: that is no reason to take anything else back.
#[test]
fn a_lost_finalizer_is_put_back_and_nothing_else() {
    let stripped = ServiceView {
        held_by: vec![],
        ..settled()
    };
    let patch = finalizer_patch(&stripped, "local", second(9)).unwrap();
    assert_eq!(patch["status"], json!({}));
    assert_eq!(patch["metadata"]["finalizers"], json!([class_key("local")]));
}

#[test]
fn times_move_only_with_the_status() {
    let said = web().saying(&[condition(PROGRAMMED, "False", Reason::Provisioning, "x")]);
    let since = |observed: &Observed| {
        let desired = Desired::observed(&said, "local", observed, Backing::Nodes);
        desired
            .applied_to(&said, second(9))
            .condition(PROGRAMMED)
            .unwrap()
            .since
    };
    assert_eq!(since(&programmed("192.0.2.1")), second(9));
    let refused = Observed::new(
        vec![],
        State::Pending {
            reason: Reason::PortInUse,
            message: "x".into(),
            retry_after: None,
        },
    );
    assert_eq!(since(&refused), second(1));
}

/// Upstream's `TestRemoveFinalizer`, and what it does not know.
#[test]
fn a_release_takes_off_what_is_ours() {
    let finalizers = |service: &ServiceView| {
        released_patch(service, "local", second(9)).unwrap()["metadata"]["$deleteFromPrimitiveList/finalizers"]
            .clone()
    };
    let ours = json!(["ballast.dev/local"]);
    let both = json!(["ballast.dev/local", STANDARD_FINALIZER]);
    let held = web().class(None).held_by(&["local"]).standard();
    assert_eq!(finalizers(&web().held_by(&["local"]).deleting()), ours);
    assert_eq!(finalizers(&held.clone().deleting()), both);
    assert_eq!(finalizers(&held.clone().cluster_ip()), both);
    assert_eq!(
        finalizers(&held),
        ours,
        "a class-less one that somebody else may serve by now"
    );
}

#[test]
fn conditions_go_where_the_object_stays() {
    let dropped = |service: &ServiceView| {
        released_patch(service, "local", second(9))?
            .get("status")
            .cloned()
    };
    assert_eq!(dropped(&settled().held_by(&["local"]).deleting()), None);
    assert_eq!(
        released_patch(&web().deleting(), "local", second(9)),
        None,
        "nothing to take off"
    );
    assert_eq!(
        dropped(&settled().cluster_ip()).unwrap()["conditions"],
        json!([{"type": ACCEPTED, "$patch": "delete"}, {"type": PROGRAMMED, "$patch": "delete"}])
    );
    assert_eq!(
        clean_patch(&settled(), second(9)).unwrap()["status"]["conditions"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn unknown_annotations_are_named_where_people_look() {
    let mut service = web();
    service.unknown_annotations =
        vec!["ballast.dev/adresses (did you mean ballast.dev/addresses?)".into()];
    let message = Desired::first(&service, "local").accepted.unwrap().message;
    assert!(message.contains("ballast.dev/adresses"), "{message}");
}

proptest::proptest! {
    /// Saying it twice is saying it once, whatever was said before (invariant 3).
    #[test]
    fn applying_leaves_nothing_to_write(
        status in "True|False|Unknown", message in ".{0,20}", publishes in proptest::bool::ANY, backing in proptest::sample::select(vec![Backing::None, Backing::Nodes, Backing::DespiteLabel]),
    ) {
        let mut service = web().saying(&[condition(PROGRAMMED, &status, Reason::CloudError, &message)]);
        if publishes { service = service.publishing("192.0.2.9"); }
        for desired in [
            Desired::observed(&service, "local", &programmed("192.0.2.1"), backing),
            Desired::failed(&service, "local", Some("local"), &transient(), second(9)),
            Desired::first(&service, "local"),
        ] {
            let after = desired.applied_to(&service, second(9));
            proptest::prop_assert_eq!(patch(&after, &desired, second(10)), None);
            proptest::prop_assert_eq!(transition_event(&after, &desired), None);
        }
    }
}

/// While another class, or none, serves a Service, the class that still has to release it must
/// not be named as the one that serves it.
#[test]
fn accepted_never_names_a_class_that_does_not_serve_the_service() {
    let old = "old";
    let why = Refusal::new(Reason::CloudError, "the cloud of old does not answer");
    for (claim, service, status, expected) in [
        (Some(old), web(), "True", "LoadBalancerClass old serves"),
        (
            Some("local"),
            web(),
            "True",
            "LoadBalancerClass local serves",
        ),
        (Some("local"), web().refused(Reason::Invalid), "False", "no"),
        (None, web(), "False", "does not serve this Service any more"),
    ] {
        for desired in [
            Desired::waiting(&service, old, claim, &why, None),
            Desired::failed(&service, old, claim, &transient(), second(9)),
        ] {
            let accepted = desired.accepted.unwrap();
            assert_eq!(accepted.status, status, "{claim:?}");
            assert!(accepted.message.contains(expected), "{accepted:?}");
        }
    }
    let settled = settled();
    let moving = Desired::waiting(&settled, old, Some("local"), &why, None);
    assert_eq!(
        moving.programmed.unwrap().status,
        "Unknown",
        "it reports why"
    );
    let deleting = web().deleting();
    assert_eq!(
        Desired::failed(&deleting, old, None, &transient(), second(9)).accepted,
        None
    );
}

/// The condition comes and goes with the contest, whatever else is written.
#[test]
fn contested_is_written_and_removed_with_every_status() {
    let with = |message: Option<&str>| {
        let desired = Desired::observed(
            &settled(),
            "local",
            &programmed("192.0.2.1"),
            Backing::Nodes,
        );
        desired.with_contest(message.map(str::to_owned))
    };
    let written = patch(&settled(), &with(Some("k3s")), second(9)).unwrap();
    insta::assert_json_snapshot!(written["status"]["conditions"], @r#"
    [
      {
        "lastTransitionTime": "1970-01-01T00:00:09Z",
        "message": "k3s",
        "reason": "Overwritten",
        "status": "True",
        "type": "ballast.dev/Contested"
      }
    ]
    "#);
    let contested = with(Some("k3s")).applied_to(&settled(), second(9));
    assert_eq!(patch(&contested, &with(Some("k3s")), second(10)), None);
    let failed = Desired::failed(&contested, "local", Some("local"), &transient(), second(9));
    for desired in [with(None), failed, Desired::default()] {
        let patch = patch(&contested, &desired, second(10)).unwrap();
        let conditions = patch["status"]["conditions"].as_array().unwrap();
        let removal = json!({"type": "ballast.dev/Contested", "$patch": "delete"});
        assert!(conditions.contains(&removal), "{conditions:?}");
    }
    let stripped = ServiceView {
        held_by: vec![],
        ..contested
    };
    let finalizer = finalizer_patch(&stripped, "local", second(10)).unwrap();
    assert_eq!(finalizer["status"], json!({}), "it stays");
}
