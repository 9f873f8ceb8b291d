use super::super::convert::{Choice, convert};
use super::super::source::Source;
use super::*;
use serde_json::{Value, json};

fn migration() -> Migration {
    let mut source = Source::default();
    source
        .read(
            "
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: front, namespace: m}, spec: {addresses: [192.0.2.0/28]}}
---
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: back, namespace: m, labels: {a: b}}, spec: {addresses: [192.0.2.16/28]}}
---
{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: front, namespace: m}, spec: {ipAddressPools: [front]}}
---
{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: back, namespace: m}, spec: {ipAddressPoolSelectors: [{matchLabels: {a: b}}], interfaces: [eth1]}}
",
        )
        .unwrap();
    let choice = Choice {
        class: "metallb",
        default: true,
    };
    convert(&source, choice)
}

fn service(class: Option<&str>, finalizers: &[&str], addresses: &[&str]) -> Service {
    let ingress: Vec<Value> = addresses
        .iter()
        .map(|ip| json!({"ip": ip, "ipMode": "VIP"}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "finalizers": finalizers},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": class},
        "status": {"loadBalancer": {"ingress": ingress}},
    }))
    .unwrap()
}

fn outcome(service: Service, lb_class: Option<&str>) -> Option<(Outcome, String)> {
    let mut lines = services(&[service], &migration(), lb_class);
    lines.pop().map(|line| (line.outcome, line.why))
}

#[test]
fn what_becomes_of_a_service() {
    let theirs = Some("metallb.io/metallb");
    for (what, one, lb_class, expected) in [
        (
            "of the main pool",
            service(None, &[], &["192.0.2.3"]),
            None,
            Some(Outcome::Keeps),
        ),
        (
            "of another class's pool",
            service(None, &[], &["192.0.2.17"]),
            None,
            Some(Outcome::KeepsOutside),
        ),
        (
            "of no pool",
            service(None, &[], &["203.0.113.1"]),
            None,
            Some(Outcome::KeepsOutside),
        ),
        (
            "one of two",
            service(None, &[], &["192.0.2.3", "2001:db8::1"]),
            None,
            Some(Outcome::KeepsOutside),
        ),
        (
            "by host name",
            service(None, &[], &[]),
            None,
            Some(Outcome::Gets),
        ),
        (
            "taken",
            service(None, &["ballast.dev/metallb"], &["192.0.2.3"]),
            None,
            Some(Outcome::Served),
        ),
        (
            "of ours",
            service(Some("ballast.dev/metallb"), &[], &["192.0.2.3"]),
            None,
            Some(Outcome::Served),
        ),
        (
            "of another of ours",
            service(Some("ballast.dev/local"), &[], &["192.0.2.3"]),
            None,
            None,
        ),
        (
            "of a class, by its address",
            service(theirs, &[], &["192.0.2.3"]),
            None,
            Some(Outcome::ByHand),
        ),
        (
            "of a class, by the flag",
            service(theirs, &[], &[]),
            theirs,
            Some(Outcome::ByHand),
        ),
        (
            "of a foreign class",
            service(Some("example.com/other"), &[], &["203.0.113.1"]),
            theirs,
            None,
        ),
        (
            "never MetalLB's",
            service(None, &[], &["192.0.2.3"]),
            theirs,
            None,
        ),
    ] {
        let got = outcome(one, lb_class);
        assert_eq!(
            got.as_ref().map(|(outcome, _)| *outcome),
            expected,
            "{what}: {got:?}"
        );
    }
}

#[test]
fn a_class_is_left_by_commands_that_keep_address_and_node_ports() {
    let one = service(Some("metallb.io/metallb"), &[], &["192.0.2.17"]);
    let lines = services(&[one], &migration(), None);
    assert_eq!(
        lines[0].commands,
        [
            "kubectl annotate service web -n shop --overwrite ballast.dev/addresses=192.0.2.17",
            r#"kubectl patch service web -n shop -p '{"spec":{"type":"NodePort"}}'"#,
            r#"kubectl patch service web -n shop -p '{"spec":{"type":"LoadBalancer","loadBalancerClass":"ballast.dev/metallb-back"}}'"#,
        ]
    );
}

#[test]
fn without_a_class_nobody_is_taken() {
    let migration = Migration {
        classes: vec![],
        ..migration()
    };
    assert!(services(&[service(None, &[], &["192.0.2.3"])], &migration, None).is_empty());
}

fn running(deployments: &Value, daemon_sets: &Value, pods: &Value) -> Running {
    Running::of(&Workloads {
        deployments: serde_json::from_value(deployments.clone()).unwrap(),
        daemon_sets: serde_json::from_value(daemon_sets.clone()).unwrap(),
        pods: serde_json::from_value(pods.clone()).unwrap(),
    })
}

fn workload(labels: &Value, image: &str, replicas: i32) -> Value {
    json!({
        "metadata": {"name": "c", "namespace": "m", "labels": labels},
        "spec": {"replicas": replicas, "selector": {}, "template": {"spec": {"containers": [
            {"name": "c", "image": image, "args": ["--port=7472", "--lb-class=metallb.io/x"]},
        ]}}},
    })
}

#[test]
fn metallb_is_known_by_its_labels_and_by_its_images() {
    let manifests = json!({"app": "metallb", "component": "controller"});
    let chart =
        json!({"app.kubernetes.io/name": "metallb", "app.kubernetes.io/component": "controller"});
    let nothing = json!({});
    for (labels, image, replicas, expected) in [
        (&manifests, "mirror.example/lb:1", 1, 1),
        (&chart, "mirror.example/lb:1", 1, 1),
        (&nothing, "quay.io/metallb/controller:v0.15.2", 1, 1),
        (
            &nothing,
            "mirror.example:5000/x/metallb-controller@sha256:00",
            1,
            1,
        ),
        (&manifests, "quay.io/metallb/controller:v0.15.2", 0, 0),
        (&nothing, "quay.io/metallb/metallb-operator:v0.15.2", 1, 0),
        (
            &json!({"app": "web", "component": "controller"}),
            "example/controller:1",
            1,
            0,
        ),
    ] {
        let found = running(
            &json!([workload(labels, image, replicas)]),
            &json!([]),
            &json!([]),
        );
        assert_eq!(
            found.controllers.len(),
            expected,
            "{labels} {image} {replicas}"
        );
        let class = (expected == 1).then(|| "metallb.io/x".to_owned());
        assert_eq!(found.lb_class, class, "{labels} {image}");
    }
}

#[test]
fn the_class_of_metallb_is_read_in_both_spellings() {
    let labels = json!({"app": "metallb", "component": "controller"});
    let of = |arguments: &Value| {
        let mut one = workload(&labels, "x/controller:1", 1);
        one["spec"]["template"]["spec"]["containers"][0]["args"] = arguments.clone();
        running(&json!([one]), &json!([]), &json!([])).lb_class
    };
    let theirs = Some("metallb.io/x".to_owned());
    assert_eq!(of(&json!(["--lb-class=metallb.io/x", "--port=1"])), theirs);
    assert_eq!(of(&json!(["--lb-class", "metallb.io/x"])), theirs);
    for none in [json!(["--lb-class="]), json!(["--lb-class"]), json!([])] {
        assert_eq!(of(&none), None, "{none}");
    }
}

#[test]
fn pods_that_still_stop_count_and_speakers_are_told_apart() {
    let controller = json!({"app": "metallb", "component": "controller"});
    let speaker = json!({"app": "metallb", "component": "speaker"});
    let pod = |name: &str, labels: &Value, phase: &str| json!({"metadata": {"name": name, "namespace": "m", "labels": labels}, "status": {"phase": phase}});
    let found = running(
        &json!([workload(&controller, "x", 0)]),
        &json!([workload(&speaker, "y", 0)]),
        &json!([
            pod("old", &controller, "Failed"),
            pod("stopping", &controller, "Running"),
            pod("s", &speaker, "Running")
        ]),
    );
    assert_eq!(found.controllers, ["Pod m/stopping"]);
    assert_eq!(found.speakers, ["DaemonSet m/c", "Pod m/s"]);
}

#[test]
fn another_default_is_named_if_it_comes_first() {
    let class = |name: &str, default: bool, day: u8| {
        let class: LoadBalancerClass = serde_json::from_value(json!({
            "apiVersion": "ballast.dev/v1alpha1", "kind": "LoadBalancerClass",
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-0{day}T00:00:00Z")},
            "spec": {"default": default, "l2": {}},
        }))
        .unwrap();
        DeserializeGuard(Ok(class))
    };
    for (metallb, local, other) in [
        ((true, 2), (false, 1), None),
        ((true, 2), (true, 1), Some("local")),
        ((true, 1), (true, 2), None),
        ((false, 1), (true, 2), Some("local")),
        ((false, 1), (false, 2), None),
    ] {
        let all = [
            class("metallb", metallb.0, metallb.1),
            class("local", local.0, local.1),
        ];
        let got = other_default(&all, "metallb");
        assert_eq!(got.as_deref(), other, "{metallb:?} {local:?}");
        assert_eq!(is_default(&all, "metallb"), metallb.0);
    }
    let alone = [class("local", true, 1)];
    assert_eq!(other_default(&alone, "metallb").as_deref(), Some("local"));
}

#[test]
fn who_stands_in_the_way() {
    let free = Circumstances {
        runs: Some(false),
        ..Circumstances::default()
    };
    let runs = Circumstances {
        runs: Some(true),
        ..free
    };
    let its_own = Blocked::ClassOfItsOwn("metallb.io/x".to_owned());
    for (now, expected) in [
        (free, None),
        (
            Circumstances {
                default: true,
                ..free
            },
            None,
        ),
        (runs, Some(Blocked::ControllerRuns)),
        (
            Circumstances {
                default: true,
                ..runs
            },
            Some(Blocked::TwoWriters),
        ),
        (Circumstances { runs: None, ..free }, Some(Blocked::Unknown)),
        (
            Circumstances {
                other_default: Some("local"),
                ..free
            },
            Some(Blocked::OtherDefault("local".to_owned())),
        ),
        (
            Circumstances {
                other_default: Some("local"),
                ..runs
            },
            Some(Blocked::ControllerRuns),
        ),
        (
            Circumstances {
                lb_class: Some("metallb.io/x"),
                ..runs
            },
            Some(its_own.clone()),
        ),
    ] {
        assert_eq!(blocked(&now), expected, "{now:?}");
    }
    // Two writers are never acceptable, whatever happened before.
    assert!(Blocked::TwoWriters.is_not_yet(true) && Blocked::ControllerRuns.is_not_yet(false));
    let other = Blocked::OtherDefault(String::new());
    assert!(other.is_not_yet(false) && !other.is_not_yet(true) && !its_own.is_not_yet(false));
}

#[test]
fn what_the_controller_will_refuse_is_said_before() {
    let edited = |change: fn(&mut Value)| {
        let mut one = serde_json::to_value(service(None, &[], &["192.0.2.3"])).unwrap();
        change(&mut one);
        outcome(serde_json::from_value(one).unwrap(), None).unwrap()
    };
    let (sctp, why) =
        edited(|one| one["spec"]["ports"] = json!([{"port": 5060, "protocol": "SCTP"}]));
    assert_eq!(sctp, Outcome::Refused);
    assert!(
        why.contains("Unsupported") && why.contains("5060/SCTP"),
        "{why}"
    );
    let asks = |pool: &str, key: &str| {
        let mut one = serde_json::to_value(service(None, &[], &[])).unwrap();
        one["metadata"]["annotations"] = json!({key: pool});
        outcome(serde_json::from_value(one).unwrap(), None).unwrap()
    };
    let key = "metallb.io/address-pool";
    assert_eq!(asks("front", key).0, Outcome::Gets);
    for pool in ["back", "nowhere"] {
        let (outcome, why) = asks(pool, key);
        assert_eq!(outcome, Outcome::Refused, "{pool}");
        assert!(why.contains(pool) && why.contains("metallb"), "{why}");
    }
    assert_eq!(asks("x", "metallb.io/loadBalancerIPs").0, Outcome::Refused);
}
