//! Why a node announces an address: the words for the causes in Announcer objects.

use ballast_provider::Why;

/// No node announced the address before.
pub const NEW: &str = "New";

/// The cause as the end of a sentence, for people. An unknown one, from a newer announcer, stays as
/// it is.
pub fn words(cause: &str) -> &str {
    match cause {
        NEW => "no node announced it before",
        "HostDown" => "the host did not answer",
        "AnnouncerDown" => "the announcer ended or was stuck",
        "LeaseExpired" => "the Lease of the announcer expired",
        "NotEligible" => "the node is no longer eligible",
        "EndpointsMoved" => "the node has no endpoint that serves",
        "Rebalanced" => "the addresses were rebalanced",
        "Healed" => "two nodes announced it after a network split",
        other => other,
    }
}

/// Whether the address moved because something failed.
pub fn is_failure(cause: &str) -> bool {
    matches!(
        cause,
        "HostDown" | "AnnouncerDown" | "LeaseExpired" | "Healed"
    )
}

/// Why an address moved; `None` if it did not.
pub fn why(cause: &str) -> Option<Why> {
    (cause != NEW).then(|| Why {
        text: words(cause).to_owned(),
        is_failure: is_failure(cause),
    })
}
