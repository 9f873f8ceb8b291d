//! What a Service is to say about itself, and the smallest [`patch`](patch()) that makes it
//! say so. Pure: a patch is `None` when nothing differs, so steady state writes nothing.

use ballast_provider::{Ingress, Observed, ProviderError, Reason, Refusal, State};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::conditions::{ACCEPTED, PROGRAMMED, rfc3339};
use crate::cluster::eligibility::Backing;
use crate::cluster::view::{ConditionView, ServiceView};
use crate::process::text;

mod patch;

pub use patch::{clean_patch, drained_patch, finalizer_patch, patch, released_patch};

/// As in a cluster of control planes alone.
const ALL_LABELLED: &str = "The load balancer is active, with all nodes: every one of them carries the label node.kubernetes.io/exclude-from-external-load-balancers";

/// What a Service is to say. `None` leaves what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// `status.loadBalancer.ingress`
    pub ingress: Option<Vec<Ingress>>,
    /// `ballast.dev/Accepted`
    pub accepted: Option<Condition>,
    /// `ballast.dev/Programmed`
    pub programmed: Option<Condition>,
}

/// A condition without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// For machines.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

// === impl Desired ===

impl Desired {
    /// Before the first effect: accepted, and on its way. A Service of which more is known
    /// has lost its finalizer, and nothing else: its load balancer was made long ago.
    pub fn first(service: &ServiceView, class: &str) -> Self {
        if service.condition(PROGRAMMED).is_some() || !service.ingress.is_empty() {
            return Self::default();
        }
        Self {
            accepted: Some(accepted(service, class)),
            programmed: Some(under_way()),
            ingress: None,
        }
    }

    /// A refusal says why; what the Service has stays. How that is is said next if it is
    /// `kept`; otherwise nobody follows it, and nothing is claimed of it any more.
    pub fn refused(service: &ServiceView, refusal: &Refusal, kept: bool) -> Self {
        let said = service.condition(PROGRAMMED);
        let programmed = said.filter(|_| !kept).map(|_| {
            let (status, message) = if service.ingress.is_empty() {
                ("False", "Not while the Service is not accepted")
            } else {
                (
                    "Unknown",
                    "What was there before stays as it was; how that is, is not known while the Service is not accepted",
                )
            };
            Condition {
                status,
                reason: refusal.reason,
                message: message.to_owned(),
            }
        });
        Self {
            accepted: Some(refused(refusal)),
            programmed,
            ingress: None,
        }
    }

    /// The same without another address than the published one: traffic flows there still.
    #[must_use]
    pub fn keeping(self, service: &ServiceView) -> Self {
        Self {
            ingress: self.ingress.filter(|_| service.ingress.is_empty()),
            ..self
        }
    }

    /// The same of a Service that is refused today: its load balancer is that of before.
    #[must_use]
    pub fn despite(self, refusal: Option<&Refusal>) -> Self {
        Self {
            accepted: refusal.map(refused).or(self.accepted),
            ..self
        }
    }

    /// The class is drained, and what the Service has is being taken down.
    pub fn draining(service: &ServiceView, drained: &Refusal) -> Self {
        Self {
            accepted: Some(refused(drained)),
            programmed: Some(Condition {
                status: if service.ingress.is_empty() {
                    "False"
                } else {
                    "Unknown"
                },
                reason: Reason::Releasing,
                message: "The load balancer is being taken down".to_owned(),
            }),
            ingress: None,
        }
    }

    /// Something is missing. A Service whose traffic flows need not say so, unless its load
    /// balancer is to go (`drained`: because of the class) and cannot.
    pub fn waiting(
        service: &ServiceView,
        class: &str,
        why: &Refusal,
        drained: Option<&Refusal>,
    ) -> Self {
        let wanted = service.is_load_balancer && !service.deleting;
        let claimed = wanted && drained.is_none();
        Self {
            accepted: match drained {
                Some(drained) => Some(refused(drained)),
                None => claimed.then(|| accepted(service, class)),
            },
            programmed: (service.ingress.is_empty() || !claimed).then(|| Condition {
                status: if service.ingress.is_empty() {
                    "False"
                } else {
                    "Unknown"
                },
                reason: why.reason,
                message: text::message(&why.message),
            }),
            ingress: None,
        }
    }

    /// What the provider reports is what the Service says (invariant 2).
    pub fn observed(
        service: &ServiceView,
        class: &str,
        observed: &Observed,
        backing: Backing,
    ) -> Self {
        let programmed = match &observed.state {
            State::Programmed if backing == Backing::None => Condition {
                status: "False",
                reason: Reason::NoEligibleNodes,
                message:
                    "No node is eligible: all are excluded, being deleted, or without an InternalIP"
                        .to_owned(),
            },
            State::Programmed => Condition {
                status: "True",
                reason: Reason::Programmed,
                message: match backing {
                    Backing::DespiteLabel => ALL_LABELLED.to_owned(),
                    Backing::None | Backing::Nodes => "The load balancer is active".to_owned(),
                },
            },
            State::Pending {
                reason: Reason::Provisioning,
                ..
            } => under_way(),
            State::Pending {
                reason, message, ..
            } => Condition {
                status: "False",
                reason: *reason,
                message: text::message(message),
            },
        };
        let accepted = match &observed.objection {
            Some(objection) => refused(objection),
            None => remarked(accepted(service, class), &observed.remarks),
        };
        Self {
            accepted: Some(accepted),
            programmed: Some(programmed),
            ingress: (!observed.ingress.is_empty()).then(|| observed.ingress.clone()),
        }
    }

    /// The provider failed. With an address traffic may well flow by the last settings
    /// that were applied: then nobody knows, and the address stays (invariant 2).
    pub fn failed(service: &ServiceView, class: &str, error: &ProviderError) -> Self {
        let status = if service.ingress.is_empty() {
            "False"
        } else {
            "Unknown"
        };
        Self {
            accepted: (service.is_load_balancer && !service.deleting)
                .then(|| accepted(service, class)),
            programmed: Some(Condition {
                status,
                reason: error.reason(),
                message: text::message(&error.to_string()),
            }),
            ingress: None,
        }
    }

    /// The Service as it is after this has been written to it.
    pub fn applied_to(&self, service: &ServiceView, now: Timestamp) -> ServiceView {
        let mut after = service.clone();
        if let Some(ingress) = &self.ingress {
            after.ingress.clone_from(ingress);
        }
        for (kind, condition) in self.conditions() {
            let since = condition.since(kind, service, now);
            after.conditions.retain(|old| old.kind != kind);
            after.conditions.push(ConditionView {
                kind: kind.to_owned(),
                status: condition.status.to_owned(),
                reason: condition.reason.as_str().to_owned(),
                message: condition.message.clone(),
                since,
            });
        }
        after
    }

    fn conditions(&self) -> impl Iterator<Item = (&'static str, &Condition)> {
        let all = [(ACCEPTED, &self.accepted), (PROGRAMMED, &self.programmed)];
        all.into_iter()
            .filter_map(|(kind, condition)| Some((kind, condition.as_ref()?)))
    }

    /// Whether it would publish other addresses than the Service does.
    pub fn claims(&self, service: &ServiceView) -> bool {
        self.difference(service).ingress.is_some()
    }

    /// What of it differs from what the Service says now.
    fn difference(&self, service: &ServiceView) -> Self {
        let differs = |kind: &str, condition: &Condition| {
            service.condition(kind).is_none_or(|now| !condition.is(now))
        };
        Self {
            ingress: self
                .ingress
                .clone()
                .filter(|ingress| *ingress != service.ingress),
            accepted: self.accepted.clone().filter(|it| differs(ACCEPTED, it)),
            programmed: self.programmed.clone().filter(|it| differs(PROGRAMMED, it)),
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The same words before and after the first answer of the provider: no write between.
fn under_way() -> Condition {
    Condition {
        status: "False",
        reason: Reason::Provisioning,
        message: "The load balancer is being made".to_owned(),
    }
}

fn accepted(service: &ServiceView, class: &str) -> Condition {
    let mut message = format!("LoadBalancerClass {class} serves this Service");
    if !service.unknown_annotations.is_empty() {
        message.push_str("; annotations that mean nothing: ");
        message.push_str(&service.unknown_annotations.join(", "));
    }
    Condition {
        status: "True",
        reason: Reason::Accepted,
        message: text::message(&message),
    }
}

fn refused(refusal: &Refusal) -> Condition {
    Condition {
        status: "False",
        reason: refusal.reason,
        message: text::message(&refusal.message),
    }
}

fn remarked(mut condition: Condition, remarks: &[String]) -> Condition {
    for remark in remarks {
        condition.message.push_str("; ");
        condition.message.push_str(remark);
    }
    condition.message = text::message(&condition.message);
    condition
}

// === impl Condition ===

impl Condition {
    fn is(&self, now: &ConditionView) -> bool {
        self.status == now.status
            && self.reason.as_str() == now.reason
            && self.message == now.message
    }

    /// The time moves only when the status does.
    fn since(&self, kind: &str, service: &ServiceView, now: Timestamp) -> Timestamp {
        let before = service
            .condition(kind)
            .filter(|before| before.status == self.status);
        before.map_or(now, |before| before.since)
    }

    fn to_json(&self, kind: &str, service: &ServiceView, now: Timestamp) -> Value {
        json!({
            "type": kind,
            "status": self.status,
            "reason": self.reason.as_str(),
            "message": self.message,
            "lastTransitionTime": rfc3339(self.since(kind, service, now)),
        })
    }
}

/// The event that belongs to a status write; none for a change that is no transition.
pub fn transition_event(service: &ServiceView, desired: &Desired) -> Option<Event> {
    let difference = desired.difference(service);
    if let Some(refused) = difference
        .accepted
        .filter(|condition| condition.status == "False")
    {
        return Some(Event::sync_failed(&refused.message));
    }
    let programmed = desired.programmed.as_ref()?;
    match (programmed.status, programmed.reason) {
        ("True", _) if difference.programmed.is_some() || difference.ingress.is_some() => {
            let was = service
                .condition(PROGRAMMED)
                .is_some_and(|now| now.status == "True");
            (!was || difference.ingress.is_some()).then_some(Event::Ensured)
        }
        (_, Reason::NoEligibleNodes) => difference.programmed.map(|_| Event::Unavailable),
        (_, Reason::Provisioning | Reason::Releasing | Reason::NotAnnounced) => None,
        ("False" | "Unknown", _) => difference.programmed.map(|condition| {
            let doing = if service.is_load_balancer && !service.deleting {
                "ensure"
            } else {
                "delete"
            };
            Event::sync_failed(&format!(
                "failed to {doing} load balancer: {}",
                condition.message
            ))
        }),
        _ => None,
    }
}

/// Events with the reasons and messages of the reference controller, where it has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Work that takes longer than a moment.
    Ensuring,
    /// Traffic can flow, or flows elsewhere.
    Ensured,
    /// A release that takes longer than a moment.
    Deleting,
    /// Nothing is left.
    Deleted,
    /// No targets.
    Unavailable,
    /// It failed; the note says how.
    SyncFailed(String),
}

// === impl Event ===

impl Event {
    fn sync_failed(what: &str) -> Self {
        Self::SyncFailed(format!("Error syncing load balancer: {what}"))
    }

    /// `reason`
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Ensuring => "EnsuringLoadBalancer",
            Self::Ensured => "EnsuredLoadBalancer",
            Self::Deleting => "DeletingLoadBalancer",
            Self::Deleted => "DeletedLoadBalancer",
            Self::Unavailable => "UnAvailableLoadBalancer",
            Self::SyncFailed(_) => "SyncLoadBalancerFailed",
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
            Self::SyncFailed(message) => message,
        }
    }

    /// `Normal` or `Warning`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable | Self::SyncFailed(_) => "Warning",
            _ => "Normal",
        }
    }
}

#[cfg(test)]
mod tests;
