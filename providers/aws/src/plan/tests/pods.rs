//! Pods as targets.

use ballast_provider::{Endpoint, LoadBalancer, Member, Placement, Protocol, Readiness};

use super::*;
use crate::desired::tests::{of, settings};
use crate::pods::Pods;
use crate::settings::attributes::PRESERVE_CLIENT_IP;
use crate::target::TargetType;

const IP: (&str, &str) = ("nlb-target-type", "ip");

/// The Service has these pods, on all its ports.
fn pods(numbers: &[u8]) -> Situation {
    let endpoints = numbers.iter().map(|number| Endpoint {
        listener: (Protocol::Tcp, 80),
        address: [10, 0, 100, *number].into(),
        port: 8_080,
        readiness: Readiness::Ready,
    });
    let member = Member {
        load_balancer: service(&[WEB]),
        published: Vec::new(),
        placement: Placement::default(),
        endpoints: Some(Arc::new(endpoints.collect())),
    };
    Situation {
        pods: Pods::of([&member]),
        ..with(3)
    }
}

fn group(desired: &Desired) -> &TargetGroup {
    desired.target_groups.values().next().expect("one")
}

#[test]
fn they_follow_the_service_and_not_the_nodes() {
    let desired = desired(&service(&[WEB]), &[IP]);
    let mut cloud = Cloud::default();
    let made = cloud.apply(&desired, &pods(&[1, 2]));
    // AWS does not keep the addresses of clients by default, so that no call says so.
    assert!(!made.contains(&"ModifyTargetGroupAttributes"), "{made:?}");
    let there = &cloud.now.target_groups[&group(&desired).name];
    let targets: Vec<String> = there.targets.iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["10.0.100.1:8080", "10.0.100.2:8080"]);
    assert_eq!(there.target_type, TargetType::Ip);
    assert_eq!(
        cloud.apply(&desired, &pods(&[2, 3])),
        ["RegisterTargets", "DeregisterTargets"]
    );
    let fewer_nodes = Situation {
        nodes: Some(Arc::new(nodes(1))),
        ..pods(&[2, 3])
    };
    assert_eq!(cloud.apply(&desired, &fewer_nodes), [""; 0]);
    // Nobody knows them: they stay.
    assert_eq!(cloud.apply(&desired, &with(3)), [""; 0]);
    assert_eq!(cloud.apply(&desired, &pods(&[])), ["DeregisterTargets"]);
}

#[test]
fn a_service_that_turns_to_pods_has_them_before_its_listener_sends_to_them() {
    let (mut cloud, before) = applied(&[]);
    let after = desired(&service(&[WEB]), &[IP]);
    let calls = cloud.apply(&after, &pods(&[1]));
    let at = |action: &str| calls.iter().position(|it| *it == action);
    assert!(at("RegisterTargets") < at("ModifyListener"), "{calls:?}");
    assert!(at("ModifyListener") < at("DeleteTargetGroup"), "{calls:?}");
    let back = cloud.apply(&before, &with(3));
    assert!(back.contains(&"ModifyListener"), "{back:?}");
}

#[test]
fn a_former_load_balancer_keeps_up_with_pods() {
    let before = desired(&service(&[WEB]), &[IP]);
    let mut cloud = Cloud::default();
    cloud.apply(&before, &pods(&[1]));
    let after = desired(&service(&[WEB]), &[IP, ("scheme", "internet-facing")]);
    let waits = |numbers: &[u8]| Situation {
        successor_serves: false,
        ..pods(numbers)
    };
    cloud.apply(&after, &waits(&[1]));
    assert_eq!(
        cloud.apply(&after, &waits(&[1, 2])),
        ["RegisterTargets", "RegisterTargets"]
    );
}

#[test]
fn a_pod_is_asked_on_its_own_port_and_needs_no_node_port() {
    let web = service(&[(Protocol::Tcp, 80, 0)]);
    let wanted = desired(&web, &[IP]);
    let check = &group(&wanted).check;
    assert_eq!((check.port, check.path.as_deref()), (None, None));
    let asked = desired(&web, &[IP, ("healthcheck-path", "/ready")]);
    let check = &group(&asked).check;
    assert_eq!((check.port, check.path.as_deref()), (None, Some("/ready")));
    let named = [IP, ("healthcheck-port", "http")];
    let refused = of(&web, &named).unwrap_err().to_string();
    assert!(refused.contains("\"http\" must be a number"), "{refused}");
    let settings = settings(&[]);
    let instances = crate::desired::tests::part(&web, &settings);
    assert!(crate::desired::check(&[instances]).is_err());
}

#[test]
fn attributes_and_labels_are_those_of_pods() {
    let web = service(&[WEB]);
    let preserve = |annotations: &[(&str, &str)], service: &LoadBalancer| {
        let all = desired(service, annotations);
        group(&all).attributes.get(PRESERVE_CLIENT_IP).cloned()
    };
    let keep = ("target-group-attributes", "preserve_client_ip.enabled=true");
    assert_eq!(preserve(&[IP], &web).as_deref(), Some("false"));
    assert_eq!(preserve(&[IP, keep], &web).as_deref(), Some("true"));
    assert_eq!(preserve(&[], &web), None);
    let udp = service(&[(Protocol::Udp, 80, 0)]);
    assert_eq!(preserve(&[IP], &udp), None);
    let labelled = of(&web, &[IP, ("target-node-labels", "pool=edge")]).expect("accepted");
    let said = labelled.remarks.join(" ");
    assert!(said.contains("target-node-labels has no effect"), "{said}");
    assert!(
        !group(&labelled.desired)
            .tags
            .contains_key(crate::nodes::NODE_LABELS)
    );
    // Each setting asks for the same.
    for annotations in [
        &[IP][..],
        &[("type", "nlb-ip")],
        &[("type", "external"), IP],
    ] {
        assert_eq!(
            desired(&web, annotations),
            desired(&web, &[IP]),
            "{annotations:?}"
        );
    }
}
