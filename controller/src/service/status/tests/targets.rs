//! What a Service says of the nodes or pods behind its load balancer.

use super::*;

#[test]
fn no_targets_is_no_traffic() {
    let desired = Desired::observed(&web(), "local", &programmed("192.0.2.1"), Backing::None);
    assert_eq!(
        desired.programmed.as_ref().unwrap().reason,
        Reason::NoEligibleNodes
    );
    assert_eq!(transition_event(&web(), &desired), Some(Event::Unavailable));
    assert_eq!(
        desired.ingress,
        Some(vec![ingress("192.0.2.1", 80)]),
        "the address is published all the same"
    );
}

/// Pods that start are no news; pods that are gone are.
#[test]
fn no_pod_is_no_traffic() {
    let observed = |service: &ServiceView, backing| {
        Desired::observed(service, "local", &programmed("192.0.2.1"), backing)
    };
    let served = settled();
    for (backing, status, reason) in [
        (Backing::Pods, "True", Reason::Programmed),
        (Backing::NoPods, "False", Reason::NoEndpoints),
    ] {
        let desired = observed(&served, backing);
        let programmed = desired.programmed.unwrap();
        assert_eq!((programmed.status, programmed.reason), (status, reason));
        assert_eq!(desired.ingress, Some(vec![ingress("192.0.2.1", 80)]));
    }
    let event =
        |service: &ServiceView| transition_event(service, &observed(service, Backing::NoPods));
    assert_eq!(event(&served), Some(Event::NoEndpoints));
    assert_eq!(event(&web()), None);
}

#[test]
fn that_all_nodes_are_labelled_is_said() {
    let despite = Desired::observed(
        &settled(),
        "local",
        &programmed("192.0.2.1"),
        Backing::DespiteLabel,
    );
    let said = despite.programmed.unwrap();
    assert_eq!(said.status, "True");
    assert!(said.message.contains(crate::cluster::view::EXCLUDE_LABEL));
}
