use ballast_provider::{Family, Placement, Protocol};

use super::*;
use crate::desired::tests::service;

fn endpoint(port: u16, last: u8) -> Endpoint {
    Endpoint {
        listener: (Protocol::Tcp, port),
        address: [10, 1, 0, last].into(),
        port: 8_000 + port,
        readiness: Readiness::Ready,
    }
}

fn member(ports: &[u16], endpoints: Option<Vec<Endpoint>>) -> Member {
    let ports: Vec<_> = ports.iter().map(|port| (Protocol::Tcp, *port, 0)).collect();
    Member {
        load_balancer: service(&ports),
        published: Vec::new(),
        placement: Placement::default(),
        endpoints: endpoints.map(|all| Arc::new(all.into_iter().collect())),
    }
}

fn tags(port: u16) -> BTreeMap<String, String> {
    let pairs = [
        (SERVICE_UID, "uid-1".to_owned()),
        (LISTENER_PORT, port.to_string()),
    ];
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// The last bytes of the addresses of the targets of port 80.
fn selected(endpoints: Vec<Endpoint>) -> Vec<String> {
    let pods = Pods::of([&member(&[80], Some(endpoints))]);
    let families = [Family::V4, Family::V6];
    let all = families.map(|family| pods.selected(&tags(80), family).unwrap());
    all.iter().flatten().map(ToString::to_string).collect()
}

#[test]
fn ready_pods_are_targets_and_others_only_if_none_is() {
    let pod = |last, readiness| Endpoint {
        readiness,
        ..endpoint(80, last)
    };
    let ready = |last| pod(last, Readiness::Ready);
    let starts = |last| pod(last, Readiness::Unready);
    let ends = |last| pod(last, Readiness::Ending);
    let gated = |last| pod(last, Readiness::Gated);
    let v6 = Endpoint {
        address: "fd00::1".parse().unwrap(),
        ..ready(9)
    };
    let one = &["10.1.0.1:8080"][..];
    let table: [(Vec<Endpoint>, &[&str]); 8] = [
        (vec![], &[]),
        (
            vec![ready(1), ready(2)],
            &["10.1.0.1:8080", "10.1.0.2:8080"],
        ),
        (vec![ready(1), starts(2), ends(3)], one),
        (vec![starts(2), ends(1)], one),
        (vec![starts(2)], &[]),
        (vec![gated(1), starts(2)], one),
        // Each family has its own.
        (
            vec![ready(1), v6.clone()],
            &["10.1.0.1:8080", "[fd00::1]:8080"],
        ),
        (vec![ends(1), v6], &["10.1.0.1:8080", "[fd00::1]:8080"]),
    ];
    for (endpoints, expected) in table {
        assert_eq!(selected(endpoints.clone()), expected, "{endpoints:?}");
    }
}

#[test]
fn each_target_group_has_the_pods_of_its_port() {
    let all = vec![endpoint(80, 1), endpoint(443, 2), endpoint(7, 3)];
    let pods = Pods::of([&member(&[80, 443, 53], Some(all))]);
    let of = |port| {
        let all = pods.selected(&tags(port), Family::V4)?;
        Some(all.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(of(80), Some(vec!["10.1.0.1:8080".into()]));
    assert_eq!(of(443), Some(vec!["10.1.0.2:8443".into()]));
    assert_eq!(of(53), Some(vec![]));
    // The Service does not have it any more.
    assert_eq!(of(7), None);
    let mut other = tags(80);
    other.insert(SERVICE_UID.into(), "uid-2".into());
    assert_eq!(pods.selected(&other, Family::V4), None);
    assert_eq!(pods.selected(&BTreeMap::new(), Family::V4), None);
}

#[test]
fn what_nobody_knows_stays_as_it_is() {
    let pods = Pods::of([&member(&[80], None)]);
    assert_eq!(pods.selected(&tags(80), Family::V4), None);
    assert!(!pods.has_none("uid-1"));
    let none = Pods::of([&member(&[80, 443], Some(vec![]))]);
    assert!(none.has_none("uid-1") && !none.has_none("uid-2"));
    let some = Pods::of([&member(&[80, 443], Some(vec![endpoint(443, 1)]))]);
    assert!(!some.has_none("uid-1"));
}

#[test]
fn both_protocols_of_a_port_share_a_target_group() {
    let mut one = member(&[53], Some(vec![endpoint(53, 1)]));
    one.load_balancer = service(&[(Protocol::Tcp, 53, 0), (Protocol::Udp, 53, 0)]);
    assert_eq!(one.load_balancer.families, [Family::V4]);
    let udp = Endpoint {
        listener: (Protocol::Udp, 53),
        ..endpoint(53, 2)
    };
    one.endpoints = Some(Arc::new([endpoint(53, 1), udp].into()));
    let pods = Pods::of([&one]);
    assert_eq!(pods.selected(&tags(53), Family::V4).unwrap().len(), 0);
    assert!(pods.remark("uid-1").unwrap().contains("port 53"));
    let udp = Endpoint {
        listener: (Protocol::Udp, 53),
        ..endpoint(53, 1)
    };
    one.endpoints = Some(Arc::new([endpoint(53, 1), udp].into()));
    let pods = Pods::of([&one]);
    assert_eq!(pods.selected(&tags(53), Family::V4).unwrap().len(), 1);
    assert_eq!(pods.remark("uid-1"), None);
}
