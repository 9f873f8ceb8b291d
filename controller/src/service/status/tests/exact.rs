//! What somebody else writes into our part of the status does not stay, although the view of
//! a Service cannot represent it.

use k8s_openapi::api::core::v1::Service;

use super::*;
use crate::cluster::conditions::rfc3339;

/// As the API server has it after a successful ensure.
fn stored() -> Value {
    let fresh = web();
    let desired = Desired::observed(&fresh, "local", &programmed("192.0.2.1"), Backing::Nodes);
    let patch = patch(&fresh, &desired, second(5)).unwrap();
    json!({
        "metadata": {
            "namespace": "shop", "name": "web", "uid": "uid-web",
            "finalizers": ["ballast.dev/local"],
        },
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "ballast.dev/local",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30_080}],
        },
        "status": patch["status"],
    })
}

fn view(service: &Value) -> ServiceView {
    ServiceView::of(&serde_json::from_value::<Service>(service.clone()).unwrap())
}

fn correction(service: &Value) -> Option<Value> {
    let service = view(service);
    let desired = Desired::observed(&service, "local", &programmed("192.0.2.1"), Backing::Nodes);
    let patch = patch(&service, &desired, second(9));
    let applied = desired.applied_to(&service, second(9));
    assert_eq!(super::patch(&applied, &desired, second(10)), None);
    patch
}

#[test]
fn what_we_wrote_is_exact() {
    assert_eq!(correction(&stored()), None);
}

type Edit = fn(&mut Value);

#[test]
fn a_foreign_field_in_the_ingress_is_a_difference() {
    let edits: [(&str, Edit); 9] = [
        ("a hostname", |it| {
            it[0]["hostname"] = "evil.example.com".into();
        }),
        ("another mode", |it| it[0]["ipMode"] = "VIP".into()),
        ("no mode", |it| it[0]["ipMode"] = Value::Null),
        ("an unknown mode", |it| it[0]["ipMode"] = "Tunnel".into()),
        ("a port of another protocol", |it| {
            let port = json!({"port": 80, "protocol": "SCTP"});
            it[0]["ports"].as_array_mut().unwrap().push(port);
        }),
        ("an error on a port", |it| {
            it[0]["ports"][0]["error"] = "example.com/Closed".into();
        }),
        ("an entry without an address", |it| {
            it.as_array_mut().unwrap().push(json!({"ports": []}));
        }),
        ("an entry that is no address", |it| {
            it.as_array_mut().unwrap().push(json!({"ip": "192.0.2"}));
        }),
        ("another spelling", |it| {
            it[0]["ip"] = "::ffff:192.0.2.1".into();
        }),
    ];
    for (what, edit) in edits {
        let mut service = stored();
        edit(&mut service["status"]["loadBalancer"]["ingress"]);
        let patch = correction(&service).unwrap_or_else(|| panic!("{what} stays"));
        assert_eq!(
            patch["status"]["loadBalancer"],
            stored()["status"]["loadBalancer"],
            "{what}"
        );
    }
}

#[test]
fn a_foreign_spelling_of_an_address_is_a_difference() {
    let mut service = stored();
    service["status"]["loadBalancer"]["ingress"][0]["ip"] = "2001:DB8::0:1".into();
    assert!(!view(&service).ingress_is_exact);
}

#[test]
fn a_foreign_field_of_a_condition_is_a_difference() {
    let mut service = stored();
    let conditions = service["status"]["conditions"].as_array_mut().unwrap();
    conditions[1]["observedGeneration"] = 7.into();
    let kind = conditions[1]["type"].clone();
    let patch = correction(&service).unwrap();
    let changed = patch["status"]["conditions"].as_array().unwrap();
    assert_eq!(changed.len(), 1, "{patch}");
    assert_eq!(changed[0]["type"], kind);
    assert_eq!(changed[0].get("observedGeneration"), Some(&Value::Null));
}

/// Entries that the view cannot represent are published all the same.
#[test]
fn what_the_view_cannot_represent_goes_with_a_release() {
    let mut service = stored();
    service["status"]["loadBalancer"] = json!({"ingress": [{"ports": []}]});
    let view = view(&service);
    assert!(view.ingress.is_empty());
    let refusal = refusal("drained");
    let drained = drained_patch(&view, "local", &refusal, second(9)).unwrap();
    assert_eq!(drained["status"]["loadBalancer"], json!({"ingress": null}));
}

/// Somebody's finalizer keeps the object after the release.
#[test]
fn a_deleted_service_that_stays_publishes_nothing() {
    let held = |finalizers: &[&str]| {
        let mut service = stored();
        service["metadata"]["finalizers"] = json!(finalizers);
        service["metadata"]["deletionTimestamp"] = "2025-06-15T15:00:00Z".into();
        view(&service)
    };
    let status = |service: &ServiceView| {
        let patch = released_patch(service, "local", second(9));
        patch.and_then(|patch| patch.get("status").cloned())
    };
    let bare = json!({
        "conditions": [
            {
                "type": PROGRAMMED,
                "status": "False",
                "reason": "Released",
                "message": "Ballast has released the load balancer; the Service waits for finalizers of others: example.com/x",
                "lastTransitionTime": rfc3339(second(9)),
            },
            {"type": ACCEPTED, "$patch": "delete"},
        ],
        "loadBalancer": {"ingress": null},
    });
    for (finalizers, expected) in [
        (&["ballast.dev/local"][..], None),
        (&["ballast.dev/local", STANDARD_FINALIZER], None),
        (&["ballast.dev/local", "example.com/x"], Some(bare.clone())),
        // Of an `l2` class: no finalizer of ours.
        (&["example.com/x"], Some(bare.clone())),
    ] {
        assert_eq!(status(&held(finalizers)), expected, "{finalizers:?}");
    }
    let cleaned = |service: &ServiceView| clean_patch(service, second(9));
    let patch = cleaned(&held(&["example.com/x"])).unwrap();
    assert_eq!(patch["status"], bare);
    // It is said once, and anew when others hold it.
    let mut said =
        Desired::held(&held(&["example.com/x"])).applied_to(&web().deleting(), second(9));
    said.other_finalizers = Some("example.com/x".into());
    assert_eq!(cleaned(&said), None);
    said.other_finalizers = Some("example.com/y".into());
    let patch = cleaned(&said).unwrap();
    let message = &patch["status"]["conditions"][0]["message"];
    assert!(
        message.as_str().unwrap().ends_with("example.com/y"),
        "{patch}"
    );
}
