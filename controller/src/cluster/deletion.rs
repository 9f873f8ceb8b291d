//! What is said of a deletion that waits, by the controller and by `ballast status`: how to go
//! on, and who else holds a Service. Pure.

use ballast_provider::Reason;

use crate::process::text;

/// So many finalizers are named; anybody who may edit a Service can add thousands.
const NAMED: usize = 3;

/// How to go on with a deletion that waits for this reason.
pub fn next_step(reason: &str, class: &str) -> String {
    let is = |one: Reason| reason == one.as_str();
    if is(Reason::ClassNotFound) {
        format!("Create LoadBalancerClass {class} again, with the settings of its cloud")
    } else if is(Reason::ClassNotReady) {
        format!("Correct LoadBalancerClass {class}: kubectl describe lbclass {class}")
    } else if is(Reason::AccessDenied) {
        "Permit Ballast's credentials what the message names, or remove the protection from the object that it names; Ballast tries again by itself".to_owned()
    } else if is(Reason::CloudError) {
        format!(
            "Ballast tries again by itself; check that the cloud of LoadBalancerClass {class} can be reached"
        )
    } else if is(Reason::Throttled) || is(Reason::QuotaExceeded) {
        "Nothing is to be done: Ballast goes on when the cloud permits it".to_owned()
    } else if is(Reason::Releasing) {
        "Nothing is to be done while the cloud deletes it; if it takes long, look at the object that the message names".to_owned()
    } else if is(Reason::IdentityShared) {
        "Find the other cluster with the same UID: docs/runbooks.md, BallastIdentityShared"
            .to_owned()
    } else if is(Reason::Released) {
        "Ballast is done. The owner of the finalizer must remove it: kubectl get service -o yaml shows metadata.finalizers".to_owned()
    } else {
        format!("Look at the log of the controller and at LoadBalancerClass {class}")
    }
}

/// The finalizers of others, as a message names them. `None` if there are none.
pub fn others<'a>(finalizers: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut named = Vec::new();
    let mut more = 0_usize;
    for finalizer in finalizers {
        if named.len() < NAMED {
            named.push(text::value(finalizer));
        } else {
            more += 1;
        }
    }
    if named.is_empty() {
        return None;
    }
    let list = named.join(", ");
    Some(match more {
        0 => list,
        more => format!("{list} and {more} more"),
    })
}

/// What a Service says that Ballast has released and somebody else holds.
pub fn held_by(others: &str) -> String {
    text::message(&format!(
        "Ballast has released the load balancer; the Service waits for finalizers of others: {others}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_next_step() {
        for (reason, words) in [
            (
                Reason::IdentityShared,
                "the other cluster with the same UID",
            ),
            (Reason::ClassNotFound, "Create LoadBalancerClass edge again"),
            (Reason::ClassNotReady, "kubectl describe lbclass edge"),
            (Reason::AccessDenied, "remove the protection"),
            (Reason::CloudError, "can be reached"),
            (Reason::Throttled, "Nothing is to be done"),
            (Reason::Releasing, "the object that the message names"),
            (Reason::Released, "The owner of the finalizer"),
            (Reason::Invalid, "the log of the controller"),
        ] {
            let said = next_step(reason.as_str(), "edge");
            assert!(said.contains(words), "{reason}: {said}");
        }
    }

    #[test]
    fn finalizers_of_others_are_bounded() {
        let of = |all: &[&str]| others(all.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["a/b"]).as_deref(), Some("a/b"));
        let many = vec!["a/b"; 10_000];
        assert_eq!(of(&many).as_deref(), Some("a/b, a/b, a/b and 9997 more"));
        let long = "x".repeat(100_000);
        assert!(of(&[&long]).is_some_and(|text| text.len() < 100));
        let said = held_by(&of(&[long.as_str(); 9]).unwrap_or_default());
        assert!(said.chars().count() <= text::MESSAGE);
    }
}
