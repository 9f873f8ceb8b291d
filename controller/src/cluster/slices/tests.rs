use serde_json::{Value, json};

use super::*;
use crate::fixtures::id;

fn slice_of(patch: &Value) -> Option<Slice> {
    let mut slice = json!({
        "metadata": {
            "name": "web-abc", "namespace": "shop", "resourceVersion": "7",
            "labels": {SERVICE_NAME: "web"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": &*id("web").uid}],
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "protocol": "TCP", "port": 8080}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}],
    });
    for (key, value) in patch.as_object().unwrap() {
        slice[key] = value.clone();
    }
    let name = Name::named(Some("shop"), Some("web-abc"));
    Slice::of(&name, &serde_json::from_value(slice).unwrap())
}

/// A Service with the ports 80, which has no name, and 443 and 443/UDP.
fn wanted() -> LoadBalancer {
    let mut wanted = crate::cluster::view::ServiceView::test("web")
        .load_balancer
        .unwrap()
        .unwrap();
    for (name, protocol) in [("https", Protocol::Tcp), ("quic", Protocol::Udp)] {
        wanted.listeners.push(ballast_provider::Listener {
            name: Some(name.to_owned()),
            protocol,
            port: 443,
            node_port: 0,
        });
    }
    wanted.listeners[0].name = None;
    wanted
}

/// The endpoints as `listener address:port readiness`.
fn endpoints_of(patches: &[Value]) -> Vec<String> {
    let slices: Vec<Slice> = patches.iter().filter_map(slice_of).collect();
    let all = endpoints(&id("web"), &wanted(), &slices, &|pod| pod == "gated");
    let text = |it: &Endpoint| {
        let (protocol, port) = it.listener;
        format!(
            "{port}/{protocol} {}:{} {:?}",
            it.address, it.port, it.readiness
        )
    };
    all.iter().map(text).collect()
}

#[test]
fn endpoints_belong_to_ports_by_name_and_protocol() {
    for (what, ports, expected) in [
        (
            "no name",
            json!([{"port": 8080}]),
            vec!["80/TCP 10.0.0.1:8080 Ready"],
        ),
        (
            "all of them",
            json!([
                {"name": "", "protocol": "TCP", "port": 8080},
                {"name": "https", "protocol": "TCP", "port": 8443},
                {"name": "quic", "protocol": "UDP", "port": 8443},
            ]),
            vec![
                "80/TCP 10.0.0.1:8080 Ready",
                "443/TCP 10.0.0.1:8443 Ready",
                "443/UDP 10.0.0.1:8443 Ready",
            ],
        ),
        (
            "a port with two numbers: pods of two versions",
            json!([{"name": "https", "port": 1}, {"name": "https", "port": 2}]),
            vec!["443/TCP 10.0.0.1:1 Ready", "443/TCP 10.0.0.1:2 Ready"],
        ),
        (
            "another name",
            json!([{"name": "metrics", "port": 8080}]),
            vec![],
        ),
        (
            "another protocol",
            json!([{"name": "quic", "protocol": "TCP", "port": 1}]),
            vec![],
        ),
        (
            "SCTP",
            json!([{"name": "", "protocol": "SCTP", "port": 1}]),
            vec![],
        ),
        ("no number", json!([{"name": ""}]), vec![]),
        (
            "not a port",
            json!([{"port": 0}, {"port": 70_000}, {"port": -1}]),
            vec![],
        ),
        ("none", Value::Null, vec![]),
    ] {
        assert_eq!(endpoints_of(&[json!({"ports": ports})]), expected, "{what}");
    }
}

#[test]
fn conditions_that_are_absent_have_a_meaning() {
    for (conditions, expected) in [
        (Value::Null, Readiness::Ready),
        (json!({}), Readiness::Ready),
        (json!({"ready": true}), Readiness::Ready),
        (json!({"ready": false}), Readiness::Unready),
        (
            json!({"ready": false, "serving": false}),
            Readiness::Unready,
        ),
        (json!({"ready": false, "serving": true}), Readiness::Unready),
        (
            json!({"ready": false, "serving": true, "terminating": true}),
            Readiness::Ending,
        ),
        (
            json!({"ready": false, "serving": false, "terminating": true}),
            Readiness::Unready,
        ),
        (
            json!({"ready": false, "terminating": true}),
            Readiness::Unready,
        ),
        // publishNotReadyAddresses
        (
            json!({"ready": true, "serving": false, "terminating": true}),
            Readiness::Ready,
        ),
    ] {
        let slice = json!({"endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}]});
        let expected = format!("80/TCP 10.0.0.1:8080 {expected:?}");
        assert_eq!(endpoints_of(&[slice]), [expected], "{conditions}");
    }
}

#[test]
fn a_pod_that_waits_for_its_gate_is_used() {
    let pod = |kind: &str, name: &str, conditions: Value| {
        json!({"endpoints": [{
            "addresses": ["10.0.0.1"], "conditions": conditions, "targetRef": {"kind": kind, "name": name},
        }]})
    };
    let unready = || json!({"ready": false, "serving": false, "terminating": false});
    for (pod, expected) in [
        (pod("Pod", "gated", unready()), Readiness::Gated),
        (pod("Pod", "other", unready()), Readiness::Unready),
        (pod("Node", "gated", unready()), Readiness::Unready),
        (
            pod("Pod", "gated", json!({"ready": true})),
            Readiness::Ready,
        ),
        (
            pod(
                "Pod",
                "gated",
                json!({"ready": false, "serving": true, "terminating": true}),
            ),
            Readiness::Ending,
        ),
    ] {
        let expected = format!("80/TCP 10.0.0.1:8080 {expected:?}");
        assert_eq!(endpoints_of(&[pod]), [expected]);
    }
}

#[test]
fn slices_of_a_service_make_one_set() {
    let of = |address: &str, ready: bool| json!({"endpoints": [{"addresses": [address], "conditions": {"ready": ready}}]});
    let six = json!({
        "addressType": "IPv6",
        "endpoints": [{"addresses": ["2001:db8::1"]}, {"addresses": ["10.0.0.9"]}],
    });
    let owned_by = |owners: Value| {
        let mut slice = of("10.0.0.3", true);
        slice["metadata"] = json!({
            "name": "x", "namespace": "shop",
            "labels": {SERVICE_NAME: "web"}, "ownerReferences": owners,
        });
        slice
    };
    let owner = |kind: &str, uid: &str| json!([{"apiVersion": "v1", "kind": kind, "name": "web", "uid": uid}]);
    let (one, two) = ("80/TCP 10.0.0.1:8080 Ready", "80/TCP 10.0.0.2:8080 Unready");
    for (what, slices, expected) in [
        (
            "two",
            vec![of("10.0.0.1", true), of("10.0.0.2", false)],
            vec![one, two],
        ),
        (
            "a pod in both",
            vec![of("10.0.0.1", false), of("10.0.0.1", true)],
            vec![one],
        ),
        (
            "both families",
            vec![of("10.0.0.1", true), six],
            vec![one, "80/TCP 2001:db8::1:8080 Ready"],
        ),
        (
            "the first of several addresses",
            vec![
                json!({"endpoints": [{"addresses": ["10.0.0.1", "10.0.0.2"]}, {"addresses": []}, {"addresses": null}]}),
            ],
            vec![one],
        ),
        (
            "names",
            vec![json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.example"]}]})],
            vec![],
        ),
        ("no type", vec![json!({"addressType": null})], vec![]),
        ("nothing", vec![json!({"endpoints": null})], vec![]),
        (
            "of nobody",
            vec![owned_by(Value::Null)],
            vec!["80/TCP 10.0.0.3:8080 Ready"],
        ),
        (
            "of Endpoints",
            vec![owned_by(owner("Endpoints", "u"))],
            vec!["80/TCP 10.0.0.3:8080 Ready"],
        ),
        (
            "of a Service before this one",
            vec![owned_by(owner("Service", "before"))],
            vec![],
        ),
    ] {
        assert_eq!(endpoints_of(&slices), expected, "{what}");
    }
}

#[test]
fn a_slice_without_a_service_is_not_kept() {
    for labels in [json!({}), json!({SERVICE_NAME: ""}), Value::Null] {
        let meta = json!({"name": "x", "namespace": "shop", "labels": labels});
        assert_eq!(slice_of(&json!({"metadata": meta})), None, "{labels}");
    }
}

#[test]
fn addresses_that_nobody_may_name() {
    for (address, off_limits) in [
        ("10.0.0.1", false),
        ("172.31.255.255", false),
        ("192.0.2.1", false),
        ("169.253.255.255", false),
        ("169.255.0.0", false),
        ("223.255.255.255", false),
        ("2001:db8::1", false),
        ("fd00::1", false),
        ("fd00:ec3::254", false),
        ("::ffff:10.0.0.1", false),
        ("127.0.0.1", true),
        ("127.255.255.255", true),
        ("169.254.169.254", true),
        ("169.254.0.0", true),
        ("224.0.0.1", true),
        ("239.255.255.255", true),
        ("255.255.255.255", true),
        ("0.0.0.0", true),
        ("0.1.2.3", true),
        ("::", true),
        ("::1", true),
        ("fe80::1", true),
        ("febf::1", true),
        ("ff02::1", true),
        ("fd00:ec2::254", true),
        ("::ffff:169.254.169.254", true),
        ("::ffff:127.0.0.1", true),
    ] {
        let parsed: IpAddr = address.parse().unwrap();
        assert_eq!(is_off_limits(parsed), off_limits, "{address}");
        let family = if parsed.is_ipv4() { "IPv4" } else { "IPv6" };
        let patch = json!({
            "addressType": family,
            "endpoints": [{"addresses": [address]}, {"addresses": ["10.0.0.1"]}],
        });
        let slice = slice_of(&patch).unwrap();
        let left_out = off_limits.then_some(parsed).into_iter();
        assert_eq!(*slice.off_limits(), left_out.collect());
        let others = usize::from(family == "IPv4");
        assert_eq!(
            slice.pods.len(),
            others + usize::from(!off_limits),
            "{address}"
        );
    }
}

#[test]
fn a_service_has_a_bounded_number_of_endpoints() {
    let pods = |block: u32| {
        let pods = (0..1_500_u32).map(|pod| {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + block * 0x1_0000 + pod);
            json!({"addresses": [address]})
        });
        json!({"endpoints": pods.collect::<Vec<_>>()})
    };
    assert_eq!(endpoints_of(&[pods(0)]).len(), MOST_PODS);
    let many: Vec<Value> = (0..21).map(pods).collect();
    assert_eq!(endpoints_of(&many).len(), MOST_ENDPOINTS);
}
