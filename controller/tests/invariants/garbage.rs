//! Invariant 8: no user input causes a panic or blocks the loop; an invalid object affects only
//! itself.

use serde_json::{Value, json};

use crate::support::api::{Kind, Port, Svc};
use crate::support::journal::Target;
use crate::support::lab::{Lab, simulate};

const GOOD: &str = "shop/good";

fn many_ports() -> Vec<Port> {
    (1..=300).map(|port| Port(port, "TCP")).collect()
}

/// Invalid Services, each with the reason for its refusal.
fn bad_services() -> Vec<(Svc, &'static str, &'static str)> {
    let svc = |name: &str| Svc::new(name);
    let port = |value: Value| json!([value]);
    vec![
        (
            svc("shop/sctp").ports(&[Port(80, "SCTP")]),
            "shop/sctp",
            "Unsupported",
        ),
        (
            svc("shop/mixed").ports(&[Port(80, "TCP"), Port(80, "SCTP")]),
            "shop/mixed",
            "Unsupported",
        ),
        (
            svc("shop/300").ports(&many_ports()),
            "shop/300",
            "Unsupported",
        ),
        (
            svc("shop/no-node-ports").with("allocateLoadBalancerNodePorts", json!(false)),
            "shop/no-node-ports",
            "NodePortsMissing",
        ),
        (
            svc("shop/ranges").with("loadBalancerSourceRanges", json!(["10.0.0.0/33"])),
            "shop/ranges",
            "Invalid",
        ),
        (
            svc("shop/empty-range").with("loadBalancerSourceRanges", json!([""])),
            "shop/empty-range",
            "Invalid",
        ),
        (
            svc("shop/ip").with("loadBalancerIP", json!("300.1.2.3")),
            "shop/ip",
            "Invalid",
        ),
        (
            svc("shop/family").annotated("ballast.dev/addresses", "2001:db8::1"),
            "shop/family",
            "Invalid",
        ),
        (
            svc("shop/addresses").annotated("ballast.dev/addresses", "a,b,,\u{0},c"),
            "shop/addresses",
            "Invalid",
        ),
        (
            svc("shop/class").class("ballast.dev/nowhere"),
            "shop/class",
            "ClassNotFound",
        ),
        (
            svc("shop/no-class").class("ballast.dev/"),
            "shop/no-class",
            "ClassNotFound",
        ),
        (
            svc("shop/deep-class").class("ballast.dev/a/b"),
            "shop/deep-class",
            "ClassNotFound",
        ),
        (
            svc("shop/port").with(
                "ports",
                port(json!({"port": 70_000, "nodePort": 30_000, "protocol": "TCP"})),
            ),
            "shop/port",
            "Invalid",
        ),
        (
            svc("shop/negative").with(
                "ports",
                port(json!({"port": -1, "nodePort": -1, "protocol": "TCP"})),
            ),
            "shop/negative",
            "Invalid",
        ),
        (
            svc("shop/protocol").with("ports", port(json!({"port": 80, "protocol": "tcp"}))),
            "shop/protocol",
            "Unsupported",
        ),
    ]
}

/// Invalid classes: those that no schema should accept, and those whose provider refuses a
/// setting.
fn bad_classes() -> Vec<(&'static str, Value)> {
    vec![
        ("text", json!({"mock": "http://127.0.0.1"})),
        ("nothing", json!({"mock": null})),
        ("both", json!({"aws": {"region": "eu-central-1"}})),
        (
            "aws",
            json!({"mock": null, "aws": {"region": "eu-central-1", "tags": {"ballast.dev/class": "other"}}}),
        ),
        ("number", json!({"maxLoadBalancers": "many"})),
        ("policy", json!({"deletionPolicy": "Perhaps"})),
    ]
}

async fn with_a_good_one(lab: &mut Lab) {
    lab.api.create_service(&Svc::new(GOOD));
    lab.start();
    lab.served(GOOD).await;
}

/// The valid one is served as always.
async fn is_well(lab: &mut Lab) {
    lab.api
        .set_ports(GOOD, &[Port(8080, "TCP"), Port(8081, "UDP")]);
    lab.api.create_service(&Svc::new("shop/late"));
    lab.settle().await;
    lab.assert_steady().await;
}

#[test]
fn invariant_8_bad_services_harm_only_themselves() {
    simulate(41, async |lab| {
        with_a_good_one(lab).await;
        for (service, key, reason) in bad_services() {
            lab.api.create_service(&service);
            lab.refused.insert(key.to_owned(), reason);
        }
        is_well(lab).await;
        // A refusal adds no finalizer, so it delays no deletion.
        for (_, key, _) in bad_services() {
            assert!(
                lab.service(key)["metadata"].get("finalizers").is_none(),
                "{key}"
            );
            lab.api.delete(Kind::Service, key);
            assert!(lab.api.get(Kind::Service, key).is_none(), "{key}");
        }
        lab.settle().await;
    });
}

#[test]
fn invariant_8_bad_classes_harm_only_their_services() {
    simulate(42, async |lab| {
        for (name, spec) in bad_classes() {
            lab.api.create_class(name, &spec);
            let key = format!("shop/of-{name}");
            lab.api
                .create_service(&Svc::new(&key).class(&format!("ballast.dev/{name}")));
            lab.refused.insert(key, "ClassNotReady");
        }
        with_a_good_one(lab).await;
        lab.settle().await;
        lab.restart().await;
        lab.led().await;
        lab.rest(120).await;
        for (name, _) in bad_classes() {
            // The status of an object that cannot be parsed is unknown: one write per process.
            let writes = lab
                .effects(0, Target::Class)
                .iter()
                .filter(|it| it.subject == name)
                .count();
            assert!(writes <= 2, "{writes} writes of {name}");
            let class = lab.api.get(Kind::Class, name).unwrap();
            let told = class["status"]["conditions"].as_array().is_some_and(|all| {
                all.iter()
                    .any(|it| it["type"] == "Accepted" && it["status"] == "False")
            });
            assert!(told, "{class}");
            lab.api.delete(Kind::Class, name);
            lab.gone(Kind::Class, name).await;
        }
    });
}

/// A valid class becomes invalid while it has load balancers: nothing is deleted.
#[test]
fn invariant_8_a_class_that_is_spoilt_takes_nothing_down() {
    simulate(43, async |lab| {
        with_a_good_one(lab).await;
        let (address, uid) = (lab.addresses(GOOD), lab.uid(GOOD));
        let good = lab.api.get(Kind::Class, "local").unwrap()["spec"].clone();
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"] = json!({"mock": 7});
        });
        lab.refusal(GOOD, "ClassNotReady").await;
        lab.rest(60).await;
        assert_eq!(
            (lab.addresses(GOOD), lab.cloud.of(&uid).len()),
            (address.clone(), 1)
        );
        lab.api
            .edit(Kind::Class, "local", |class| class["spec"] = good);
        lab.settle().await;
        assert_eq!(lab.addresses(GOOD), address);
        lab.assert_steady().await;
    });
}

#[test]
fn invariant_8_annotations_that_mean_nothing_are_named() {
    simulate(44, async |lab| {
        lab.api.create_service(
            &Svc::new(GOOD)
                .annotated("ballast.dev/adresses", "x")
                .annotated("other.io/\u{1f980}", "\u{1f980}"),
        );
        lab.start();
        lab.settle().await;
        let message = lab.condition(GOOD, "Accepted").unwrap()["message"].clone();
        assert!(
            message
                .as_str()
                .unwrap()
                .contains("did you mean ballast.dev/addresses?"),
            "{message}"
        );
    });
}

#[test]
fn invariant_8_odd_nodes_are_no_targets_and_no_trouble() {
    simulate(45, async |lab| {
        with_a_good_one(lab).await;
        lab.api.create_node("garbage", "not an address");
        lab.api.create_node("hollow", "");
        lab.rest(10).await;
        assert_eq!(lab.cloud.targets("local").unwrap().len(), 2);
        lab.api.delete(Kind::Node, "garbage");
        lab.api.delete(Kind::Node, "hollow");
        is_well(lab).await;
    });
}

/// A class that appears after its Services serves them.
#[test]
fn a_class_that_comes_late_serves_those_who_wait() {
    simulate(46, async |lab| {
        with_a_good_one(lab).await;
        lab.api
            .create_service(&Svc::new("shop/early").class("ballast.dev/late"));
        lab.refusal("shop/early", "ClassNotFound").await;
        lab.api.create_class("late", &json!({}));
        lab.settle().await;
        lab.assert_steady().await;
    });
}

/// Anybody who may edit a Service can add the finalizer of a class that does not exist. Removing
/// it helps, also if it was there when the leader started.
#[test]
fn a_finalizer_of_a_class_that_does_not_exist_blocks_only_while_it_is_there() {
    simulate(35, async |lab| {
        lab.api.create_service(&Svc::new(GOOD));
        let uid = lab.api.create_service(&Svc::new("shop/gone"));
        for key in [GOOD, "shop/gone"] {
            lab.api.edit(Kind::Service, key, |service| {
                service["metadata"]["finalizers"] = json!(["ballast.dev/ghost"]);
            });
        }
        lab.start();
        lab.until("it says so", |lab| {
            let programmed = lab.condition(GOOD, "Programmed");
            programmed.is_some_and(|it| it["reason"] == "ClassNotFound")
        })
        .await;
        lab.api.delete(Kind::Service, "shop/gone");
        lab.api.strip(GOOD);
        lab.api.strip("shop/gone");
        lab.served(GOOD).await;
        lab.gone(Kind::Service, "shop/gone").await;
        assert_eq!(lab.cloud.of(&uid).len(), 0);
        lab.settle().await;
        // Nothing is left of it: a class of that name is not in use.
        lab.api.create_class("ghost", &json!({}));
        lab.rest(12).await;
        let class = lab.api.get(Kind::Class, "ghost").unwrap();
        assert_eq!(class["metadata"]["finalizers"], Value::Null);
        lab.assert_steady().await;
    });
}
