use ballast_announce::view::Policy::{Cluster, Local};
use serde_json::{Value, json};

use super::*;

/// Merges one JSON object into another.
fn merged(base: &Value, patch: &Value) -> Value {
    let (Value::Object(base), Value::Object(patch)) = (base, patch) else {
        return patch.clone();
    };
    let mut all = base.clone();
    for (key, value) in patch {
        all.insert(
            key.clone(),
            merged(all.get(key).unwrap_or(&Value::Null), value),
        );
    }
    Value::Object(all)
}

fn read<T: serde::de::DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).unwrap()
}

fn service() -> Value {
    json!({
        "metadata": {
            "name": "web", "namespace": "shop", "resourceVersion": "7",
            "finalizers": ["ballast.dev/metal", "example.com/other"],
            "annotations": {"a": "b"}, "managedFields": [{"manager": "x"}],
        },
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
        "status": {
            "loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"ip": "2001:db8::7", "ipMode": "VIP"}]},
            "conditions": [{"type": "ballast.dev/Accepted", "status": "True"}],
        },
    })
}

fn facts_of_service(patch: &Value) -> Option<ServiceFacts> {
    let name = Name::named(Some("shop"), Some("web"));
    ServiceFacts::of(&name, &read(&merged(&service(), patch)))
}

#[test]
fn a_service_is_announced_if_ballast_published_its_addresses() {
    let facts = facts_of_service(&json!({})).unwrap();
    assert_eq!(facts.classes, ["metal".into()]);
    assert_eq!((facts.policy, facts.health_port), (Cluster, None));
    let addresses: Vec<String> = facts.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.7", "2001:db8::7"]);
    let ingress = |ingress: Value| json!({"status": {"loadBalancer": {"ingress": ingress}}});
    for (what, patch) in [
        ("another type", json!({"spec": {"type": "ClusterIP"}})),
        (
            "finalizers of others",
            json!({"metadata": {"finalizers": ["x/y"]}}),
        ),
        ("neither", json!({"metadata": {"finalizers": null}})),
        ("no condition", json!({"status": {"conditions": []}})),
        (
            "only a condition of others",
            json!({"status": {"conditions": [{"type": "Accepted", "status": "True"}]}}),
        ),
        (
            "nothing published",
            json!({"status": {"loadBalancer": null}}),
        ),
        ("no status", json!({"status": null})),
        (
            "a proxy",
            ingress(json!([{"ip": "192.0.2.7", "ipMode": "Proxy"}])),
        ),
        ("a name", ingress(json!([{"hostname": "lb.example.com"}]))),
        ("no address", ingress(json!([{"ip": "lb"}]))),
    ] {
        assert_eq!(facts_of_service(&patch), None, "{what}");
    }
    // The class that it names needs no finalizer.
    let named = json!({
        "metadata": {"finalizers": null}, "spec": {"loadBalancerClass": "ballast.dev/metal"},
    });
    assert_eq!(facts_of_service(&named), Some(facts.clone()));
    let others =
        json!({"metadata": {"finalizers": null}, "spec": {"loadBalancerClass": "example.com/lb"}});
    assert_eq!(facts_of_service(&others), None, "another implementation");
    // After a change that Ballast refuses, the addresses stay.
    let refused =
        json!({"status": {"conditions": [{"type": "ballast.dev/Accepted", "status": "False"}]}});
    assert_eq!(facts_of_service(&refused), Some(facts));
}

#[test]
fn the_policy_and_the_class_of_a_service() {
    let spec = |spec: Value| facts_of_service(&json!({"spec": spec})).unwrap();
    let local = spec(json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 31_000}));
    assert_eq!((local.policy, local.health_port), (Local, Some(31_000)));
    let cluster = spec(json!({"externalTrafficPolicy": "Cluster", "healthCheckNodePort": 31_000}));
    assert_eq!((cluster.policy, cluster.health_port), (Cluster, None));
    let none = spec(json!({"externalTrafficPolicy": "Local"}));
    assert_eq!((none.policy, none.health_port), (Local, None));
    // While it moves, it has both finalizers.
    let moving = json!({
        "metadata": {"finalizers": ["ballast.dev/a", "ballast.dev/b", "ballast.dev/c"]},
        "spec": {"loadBalancerClass": "ballast.dev/b"},
    });
    let moving = facts_of_service(&moving).unwrap();
    assert_eq!(moving.classes, ["b".into(), "a".into(), "c".into()]);
}

#[test]
fn what_is_kept_of_a_service_is_bounded() {
    let finalizers: Vec<String> = (0..5_000).map(|n| format!("ballast.dev/c{n}")).collect();
    let ingress: Vec<Value> = (0..5_000)
        .map(|n| json!({"ip": format!("fd00::{n:x}")}))
        .collect();
    let hostile = json!({
        "metadata": {"finalizers": finalizers},
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    let facts = facts_of_service(&hostile).unwrap();
    assert_eq!(
        (facts.classes.len(), facts.addresses.len()),
        (MOST_CLASSES, MOST_ADDRESSES)
    );
}

fn facts_of_slice(endpoints: &Value, label: Option<&str>) -> Option<SliceFacts> {
    let labels = label.map(|service| json!({"kubernetes.io/service-name": service}));
    let slice = json!({"metadata": {"labels": labels}, "endpoints": endpoints});
    let name = Name::named(Some("shop"), Some("web-abcde"));
    SliceFacts::of(&name, &read(&slice))
}

#[test]
fn nodes_with_endpoints_that_serve() {
    let on =
        |node: Option<&str>, conditions: Value| json!({"nodeName": node, "conditions": conditions});
    let ends = json!({"ready": false, "serving": true, "terminating": true});
    let dead = json!({"ready": false, "serving": false});
    let names = |nodes: &[&str]| nodes.iter().map(|it| NodeName::new(it)).collect::<Vec<_>>();
    for (endpoints, ready, ending) in [
        (
            json!([
                on(Some("b"), json!({})),
                on(Some("a"), json!({"ready": true}))
            ]),
            &["a", "b"][..],
            &[][..],
        ),
        (
            json!([on(Some("a"), json!({})), on(Some("a"), json!({}))]),
            &["a"],
            &[],
        ),
        (
            json!([on(Some("a"), ends.clone()), on(Some("b"), dead.clone())]),
            &[],
            &["a"],
        ),
        (json!([on(None, json!({}))]), &[], &[]),
        (json!([{"addresses": ["10.0.0.1"]}]), &[], &[]),
    ] {
        let facts = facts_of_slice(&endpoints, Some("web")).unwrap();
        assert_eq!(facts.service, Name::named(Some("shop"), Some("web")));
        assert_eq!(
            (facts.ready, facts.ending),
            (names(ready), names(ending)),
            "{endpoints}"
        );
        assert!(facts.serves);
    }
    let serves = json!([on(Some("a"), json!({}))]);
    for (what, endpoints, label) in [
        (
            "nothing serves",
            json!([on(Some("a"), dead.clone())]),
            Some("web"),
        ),
        (
            "readiness alone",
            json!([on(Some("a"), json!({"ready": false}))]),
            Some("web"),
        ),
        ("no endpoints", Value::Null, Some("web")),
        ("no Service", serves.clone(), None),
        ("an empty name", serves, Some("")),
    ] {
        assert_eq!(facts_of_slice(&endpoints, label), None, "{what}");
    }
}

#[test]
fn what_a_node_says() {
    let plain = json!({
        "metadata": {"name": "node-1", "uid": "u1", "labels": {"zone": "a"}},
        "spec": {},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "192.0.2.11"},
                {"type": "ExternalIP", "address": "203.0.113.11"},
                {"type": "Hostname", "address": "node-1"},
            ],
            "images": [{"names": ["x"]}],
        },
    });
    let facts = |patch: Value| NodeObject::of(&read(&merged(&plain, &patch)));
    let flags = |node: NodeObject| (node.excluded, node.cordoned, node.out_of_service);
    let node = facts(json!({}));
    assert_eq!((node.name.as_str(), &*node.uid), ("node-1", "u1"));
    assert_eq!(node.addresses, ["192.0.2.11".parse::<IpAddr>().unwrap()]);
    assert_eq!(node.labels.get("zone"), Some("a"));
    assert_eq!(flags(node), (false, false, false));
    let label = |value: &str| json!({"metadata": {"labels": {(EXCLUDE_LABEL): value}}});
    let taint = |key: &str| json!({"spec": {"taints": [{"key": "x"}, {"key": key}]}});
    for (patch, expected) in [
        (label(""), (true, false, false)),
        (label("false"), (false, false, false)),
        (
            json!({"spec": {"unschedulable": true}}),
            (false, true, false),
        ),
        (taint(AUTOSCALER_TAINT), (false, true, false)),
        (
            json!({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}}),
            (false, true, false),
        ),
        (taint(OUT_OF_SERVICE), (false, false, true)),
        (taint("node.kubernetes.io/not-ready"), (false, false, false)),
    ] {
        assert_eq!(flags(facts(patch.clone())), expected, "{patch}");
    }
}

fn class(l2: &Value) -> Option<ClassFacts> {
    let class = json!({"metadata": {"name": "metal"}, "spec": {"l2": l2}});
    ClassFacts::of(&"metal".into(), &read(&class))
}

#[test]
fn the_settings_of_a_class() {
    let defaults = class(&json!({})).unwrap();
    assert_eq!(defaults.nodes, None);
    assert!(defaults.interfaces.is_empty());
    assert_eq!(defaults.detection, Detection::Fast);
    assert_eq!(defaults.refresh, Some(Duration::from_mins(1)));
    assert_eq!((&defaults.preferred, defaults.gradual), (&None, false));
    assert!(class(&json!({"rebalance": "Gradual"})).unwrap().gradual);
    let asked = |text: &str| {
        let metadata = json!({"name": "metal", "annotations": {REBALANCE_AT: text}});
        let class = json!({"metadata": metadata, "spec": {"l2": {}}});
        ClassFacts::of(&"metal".into(), &read(&class))
            .unwrap()
            .asked
    };
    assert_eq!(
        asked("2026-01-02T03:04:05Z"),
        "2026-01-02T03:04:05Z".parse().ok()
    );
    assert_eq!(asked("soon"), None);
    for (text, expected) in [
        ("Fast", Detection::Fast),
        ("Tolerant", Detection::Tolerant),
        ("Lease", Detection::Lease),
    ] {
        let class = class(&json!({"failureDetection": text})).unwrap();
        assert_eq!(class.detection, expected);
    }
    for (text, expected) in [
        ("0s", None),
        ("-5s", None),
        ("1ms", Some(1)),
        ("90s", Some(90)),
        ("1h", Some(3_600)),
    ] {
        let class = class(&json!({"refreshInterval": text})).unwrap();
        assert_eq!(class.refresh, expected.map(Duration::from_secs), "{text}");
    }
    let other = json!({"metadata": {"name": "metal"}, "spec": {"mock": {"endpoint": "http://a"}}});
    assert_eq!(ClassFacts::of(&"metal".into(), &read(&other)), None);
    let unreadable = json!({"metadata": {"name": "metal"}, "spec": {"l2": {"interfaces": 7}}});
    assert_eq!(ClassFacts::of(&"metal".into(), &read(&unreadable)), None);
}

#[test]
fn what_is_invalid_in_a_class_matches_nothing() {
    let matches = |pattern: &str, name: &str| {
        let class = class(&json!({"interfaces": [pattern]})).unwrap();
        class.interfaces[0].matches(name)
    };
    assert!(matches("^eth[0-9]+$", "eth0") && matches("eth", "veth1"));
    assert!(!matches("^eth[0-9]+$", "eth0.5"));
    for invalid in ["eth[", "(", "x{1000000}", "(a{1000}){1000}"] {
        assert!(!matches(invalid, "eth0"), "{invalid}");
    }
    let selects = |operator: &str| {
        let selector =
            json!({"matchExpressions": [{"key": "zone", "operator": operator, "values": ["a"]}]});
        let labels = Labels::from([("zone", "a")]);
        let fields = ["nodeSelector", "preferredNodes"];
        let class = fields.map(|field| class(&json!({field: selector})).unwrap());
        let [nodes, preferred] = [&class[0].nodes, &class[1].preferred];
        let matches = [nodes, preferred].map(|it| it.as_ref().unwrap().matches(&labels));
        assert_eq!(matches[0], matches[1]);
        matches[0]
    };
    assert!(selects("In"));
    assert!(!selects("NotIn") && !selects("Is"));
}

#[test]
fn what_an_announcer_says() {
    let object = json!({
        "metadata": {"name": "b"},
        "status": {
            "incarnation": "07",
            "interfaces": [
                {"name": "eth0", "mac": "02:00:00:00:00:0b", "usable": true,
                 "addresses": ["192.0.2.12/24", "2001:db8::12/64", "nonsense"]},
                {"name": "eth1", "mac": "02:00:00:00:00"},
                {"name": "eth2", "mac": "02:00:00:00:00:0c"},
            ],
            "holdings": [
                {"address": "192.0.2.7", "epoch": 3, "revision": 2, "successors": ["c", "a"]},
                {"address": "x", "epoch": 1},
                {"address": "192.0.2.8", "epoch": -1},
            ],
        },
    });
    let (a, b) = (NodeName::new("a"), NodeName::new("b"));
    let facts = AnnouncerFacts::of(&b, &read(&object), &a);
    assert_eq!(facts.incarnation.as_deref(), Some("07"));
    let names: Vec<_> = facts
        .interfaces
        .iter()
        .map(|it| (&*it.name, it.carrier))
        .collect();
    assert_eq!(names, [("eth0", true), ("eth2", false)]);
    assert_eq!(facts.interfaces[0].mac, Mac([2, 0, 0, 0, 0, 0xb]));
    assert_eq!(facts.interfaces[0].nets.len(), 2);
    let claim = Claim {
        epoch: 3,
        holder: b.clone(),
        revision: 2,
        successors: vec![NodeName::new("c"), a],
    };
    assert_eq!(facts.claims, [("192.0.2.7".parse().unwrap(), claim)]);
    assert_eq!(facts.own, None);
    let own = AnnouncerFacts::of(&b, &read(&object), &b).own.unwrap();
    assert_eq!(own.holdings.len(), 3);
    // Without a status, and one that cannot be read.
    for object in [
        json!({"metadata": {}}),
        json!({"metadata": {}, "status": {"holdings": 7}}),
    ] {
        let facts = AnnouncerFacts::of(&b, &read(&object), &b);
        assert!(facts.interfaces.is_empty() && facts.claims.is_empty());
    }
}

#[test]
fn it_is_watched_as_its_kind() {
    use kube::Resource;
    assert_eq!(WatchedService::url_path(&(), None), "/api/v1/services");
    assert_eq!(
        WatchedSlice::url_path(&(), None),
        "/apis/discovery.k8s.io/v1/endpointslices"
    );
    assert_eq!(WatchedNode::url_path(&(), None), "/api/v1/nodes");
    assert_eq!(
        WatchedLease::url_path(&(), Some("x")),
        "/apis/coordination.k8s.io/v1/namespaces/x/leases"
    );
}
