//! The events of a Service: one for each transition and each move of an address, none for a
//! repeated state. Pure.

use ballast_provider::Reason;
use ballast_provider::place::{self, Moved};

use super::Desired;
use crate::cluster::conditions::{ACCEPTED, PROGRAMMED};
use crate::cluster::view::ServiceView;

/// The event for a status write; `None` for a change that is no transition.
pub fn transition_event(service: &ServiceView, desired: &Desired) -> Option<Event> {
    let difference = desired.difference(service);
    let refused = desired.accepted.as_ref();
    if let Some(refused) = refused.filter(|condition| condition.status == "False")
        && difference.changes(ACCEPTED)
    {
        // That other Services use the places is no transition.
        let before = service.condition(ACCEPTED);
        if refused.reason == Reason::QuotaExceeded
            && before.is_some_and(|it| it.status == "False" && it.reason == refused.reason.as_str())
        {
            return None;
        }
        return Some(Event::sync_failed(&refused.message));
    }
    let programmed = desired.programmed.as_ref()?;
    let changed = difference.changes(PROGRAMMED);
    let before = service.condition(PROGRAMMED);
    let was_programmed = before.is_some_and(|before| before.status == "True");
    match (programmed.status, programmed.reason) {
        ("True", _) => {
            let ensured = changed && !was_programmed;
            (ensured || difference.ingress.is_some()).then_some(Event::Ensured)
        }
        (_, Reason::NoEligibleNodes) => changed.then_some(Event::Unavailable),
        // The pods of a new Service start when it does.
        (_, Reason::NoEndpoints) => (changed && was_programmed).then_some(Event::NoEndpoints),
        // A new address is not announced at first.
        (_, Reason::NotAnnounced) => (changed && was_programmed).then_some(Event::Unavailable),
        (_, Reason::Provisioning | Reason::Releasing | Reason::Released) => None,
        // Another time at which the wait ends is no transition.
        (_, Reason::Throttled)
            if before.is_some_and(|it| it.reason == Reason::Throttled.as_str()) =>
        {
            None
        }
        ("False" | "Unknown", _) if changed => {
            let verb = if service.is_load_balancer && !service.deleting {
                "ensure"
            } else {
                "delete"
            };
            let message = &programmed.message;
            Some(Event::sync_failed(&format!(
                "failed to {verb} load balancer: {message}"
            )))
        }
        _ => None,
    }
}

/// The event for addresses that another node announces than the status said. A Service whose
/// status did not say it before, such as one of an older version of Ballast, has no event.
pub fn moved_event(service: &ServiceView, desired: &Desired) -> Option<Event> {
    let mut moved = desired.extra.iter().flatten().filter_map(|condition| {
        let before = service.condition(condition.kind.as_str())?;
        place::moves(&condition.places, &before.message)
    });
    moved.next().map(Event::Moved)
}

/// Events with the reasons and messages of the reference controller, where it has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Work that takes longer than a moment.
    Ensuring,
    /// Traffic can flow, or the address has changed.
    Ensured,
    /// A release that takes longer than a moment.
    Deleting,
    /// A release that takes long; the note says what it waits for.
    DeletionWaits(String),
    /// The load balancer is released.
    Deleted,
    /// There are no targets.
    Unavailable,
    /// The targets are pods, and none is ready any more.
    NoEndpoints,
    /// Something failed; the note says what.
    SyncFailed(String),
    /// Somebody else keeps changing what Ballast writes; the note says who.
    Contested(String),
    /// The load balancer is not as it was made; the note says what differs.
    Changed(String),
    /// Another node announces addresses of the Service.
    Moved(Moved),
    /// Of a class: load balancers without a Service; the note says which and what they cost.
    Orphaned(String),
    /// Of a class: a copy of the cluster uses its load balancers.
    IdentityShared(String),
}

// === impl Event ===

impl Event {
    /// The load balancer is not as it was made.
    pub fn changed(what: &str) -> Self {
        Self::Changed(format!(
            "The load balancer differs from what Ballast made: {what}"
        ))
    }

    fn sync_failed(what: &str) -> Self {
        Self::SyncFailed(format!("Error syncing load balancer: {what}"))
    }

    /// `reason`
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Ensuring => "EnsuringLoadBalancer",
            Self::Ensured => "EnsuredLoadBalancer",
            Self::Deleting => "DeletingLoadBalancer",
            Self::DeletionWaits(_) => "LoadBalancerDeletionWaits",
            Self::Deleted => "DeletedLoadBalancer",
            Self::Unavailable | Self::NoEndpoints => "UnAvailableLoadBalancer",
            Self::SyncFailed(_) => "SyncLoadBalancerFailed",
            Self::Contested(_) => "LoadBalancerContested",
            Self::Changed(_) => "LoadBalancerChanged",
            Self::Moved(_) => "LoadBalancerMoved",
            Self::Orphaned(_) => "LoadBalancersOrphaned",
            Self::IdentityShared(_) => "IdentityShared",
        }
    }

    /// `note`
    pub fn message(&self) -> &str {
        match self {
            Self::Ensuring => "Ensuring load balancer",
            Self::Ensured => "Ensured load balancer",
            Self::Deleting => "Deleting load balancer",
            Self::Deleted => "Deleted load balancer",
            Self::Unavailable => "There are no available nodes for LoadBalancer",
            Self::NoEndpoints => "No pod of the Service is ready",
            Self::SyncFailed(message)
            | Self::Contested(message)
            | Self::Changed(message)
            | Self::DeletionWaits(message)
            | Self::Orphaned(message)
            | Self::IdentityShared(message) => message,
            Self::Moved(moved) => &moved.note,
        }
    }

    /// `Normal` or `Warning`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable
            | Self::NoEndpoints
            | Self::SyncFailed(_)
            | Self::Contested(_)
            | Self::Changed(_)
            | Self::DeletionWaits(_)
            | Self::Orphaned(_)
            | Self::IdentityShared(_) => "Warning",
            Self::Moved(moved) if moved.is_failure => "Warning",
            _ => "Normal",
        }
    }
}
