//! Which transitions are worth an event, and its words.

use std::time::Duration;

use super::*;

#[test]
fn one_event_per_transition() {
    let ensured = |service: &ServiceView, ip: &str| {
        transition_event(
            service,
            &Desired::observed(service, "local", &programmed(ip), Backing::Nodes),
        )
    };
    assert_eq!(ensured(&web(), "192.0.2.1"), Some(Event::Ensured));
    assert_eq!(ensured(&settled(), "192.0.2.1"), None, "steady state");
    assert_eq!(
        ensured(&settled(), "192.0.2.2"),
        Some(Event::Ensured),
        "it moved"
    );

    let failure = |service: &ServiceView| {
        transition_event(
            service,
            &Desired::failed(service, "local", Some("local"), &transient(), second(9)),
        )
    };
    let failed = Desired::failed(&web(), "local", Some("local"), &transient(), second(9))
        .applied_to(&web(), second(9));
    assert_eq!(
        failure(&web()).unwrap().message(),
        "Error syncing load balancer: failed to ensure load balancer: the cloud does not answer"
    );
    assert_eq!(failure(&failed), None, "an unchanged failure");
    assert_eq!(
        ensured(&failed, "192.0.2.1"),
        Some(Event::Ensured),
        "healed"
    );
    let leaving = web().held_by(&["local"]).deleting();
    assert!(
        failure(&leaving)
            .unwrap()
            .message()
            .contains("failed to delete load balancer")
    );

    let throttled = |service: &ServiceView, wait| {
        let error = ProviderError::Throttled {
            retry_after: Duration::from_secs(wait),
        };
        Desired::failed(service, "local", Some("local"), &error, second(9))
    };
    let waits = throttled(&web(), 600);
    let event = transition_event(&web(), &waits).unwrap();
    assert!(event.message().ends_with("at about 00:11 UTC"), "{event:?}");
    let waits = waits.applied_to(&web(), second(9));
    let longer = throttled(&waits, 6_000);
    assert!(patch(&waits, &longer, second(9)).is_some());
    assert_eq!(transition_event(&waits, &longer), None, "it still waits");

    let refusal = Desired::refused(&web(), &refusal("SCTP"), false);
    assert_eq!(
        transition_event(&web(), &refusal).unwrap().message(),
        "Error syncing load balancer: SCTP"
    );
    let refused = refusal.applied_to(&web(), second(9));
    assert_eq!(transition_event(&refused, &refusal), None);
}
