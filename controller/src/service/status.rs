//! The status that a Service is to have, the smallest [`patch`](patch()) that gives it that
//! status, and the event of a transition. A patch is `None` when nothing differs, so steady
//! state writes nothing. What the view of a Service cannot represent counts as a difference.
//! Pure: no I/O and no clock.

use ballast_provider::{
    ExtraCondition, ExtraKind, Ingress, Observed, ProviderError, Reason, Refusal, State, place,
};
use jiff::Timestamp;

use crate::cluster::conditions::{ACCEPTED, CONTESTED, PROGRAMMED};
use crate::cluster::deletion;
use crate::cluster::eligibility::Backing;
use crate::cluster::view::{ConditionView, ServiceView};
use crate::process::text;
use crate::service::deletion::failure;

mod difference;
mod event;
mod patch;
mod wait;

use difference::{Difference, Fields};
pub use event::{Event, moved_event, transition_event};
pub use patch::{
    clean_patch, drained_patch, finalizer_patch, patch, released_patch, with_finalizers,
};

/// For example in a cluster that has only control plane nodes.
const ALL_LABELLED: &str = "The load balancer is active and uses all nodes, because all of them have the label node.kubernetes.io/exclude-from-external-load-balancers";

const NO_ENDPOINTS: &str =
    "The targets are pods, and no pod of the Service is ready (kubectl get endpointslices)";

/// The status that a Service is to have. `None` leaves a part unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// `status.loadBalancer.ingress`
    pub ingress: Option<Vec<Ingress>>,
    /// `ballast.dev/Accepted`
    pub accepted: Option<Condition>,
    /// `ballast.dev/Programmed`
    pub programmed: Option<Condition>,
    /// The conditions that only a provider reports. Any that is not listed is removed.
    pub extra: Option<Vec<ExtraCondition>>,
    /// Of those, the ones that stay as they are.
    pub kept: Vec<ExtraKind>,
    /// The message of `ballast.dev/Contested`. `None` removes that condition.
    pub contested: Option<String>,
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
    /// Before the first effect: accepted and provisioning. A Service that already has a
    /// `Programmed` condition or an address has only lost its finalizer; nothing else changes.
    pub fn first(service: &ServiceView, class: &str) -> Self {
        let contested = service.condition(CONTESTED);
        let unchanged = Self {
            contested: contested.map(|condition| (*condition.message).to_owned()),
            ..Self::default()
        };
        if service.condition(PROGRAMMED).is_some() || !service.ingress.is_empty() {
            return unchanged;
        }
        Self {
            accepted: Some(accepted(service, class)),
            programmed: Some(provisioning()),
            ..unchanged
        }
    }

    /// With the condition that somebody else keeps changing the Service, or without it.
    #[must_use]
    pub fn with_contest(self, message: Option<String>) -> Self {
        Self {
            contested: message,
            ..self
        }
    }

    /// The Service is refused, and its address stays. If the load balancer is `kept` up to
    /// date, its state is published next. Otherwise its state is unknown from now on, and the
    /// conditions say so.
    pub fn refused(service: &ServiceView, refusal: &Refusal, kept: bool) -> Self {
        let before = service.condition(PROGRAMMED);
        let programmed = before.filter(|_| !kept).map(|_| {
            let (status, message) = if service.ingress.is_empty() {
                ("False", "The Service is not accepted")
            } else {
                (
                    "Unknown",
                    "The existing load balancer is unchanged; its state is unknown until the Service is accepted",
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
            extra: (!kept).then(Vec::new),
            ..Self::default()
        }
    }

    /// Leaves a published address unchanged, because traffic still flows through it.
    #[must_use]
    pub fn without_new_address(self, service: &ServiceView) -> Self {
        Self {
            ingress: self.ingress.filter(|_| service.ingress.is_empty()),
            ..self
        }
    }

    /// The Service is refused: its existing load balancer is reported, and not accepted.
    #[must_use]
    pub fn with_refusal(self, refusal: Option<&Refusal>) -> Self {
        Self {
            accepted: refusal.map(refused).or(self.accepted),
            ..self
        }
    }

    /// The class is drained, and the Service's load balancer is being released.
    pub fn draining(service: &ServiceView, drained: &Refusal, message: String) -> Self {
        Self {
            accepted: Some(refused(drained)),
            programmed: Some(releasing(service, message)),
            ..Self::default()
        }
    }

    /// A release takes longer than usual. `claim`: the class that serves the Service now.
    pub fn releasing(
        service: &ServiceView,
        class: &str,
        claim: Option<&str>,
        message: String,
    ) -> Self {
        Self {
            accepted: standing(service, class, claim),
            programmed: Some(releasing(service, message)),
            ..Self::default()
        }
    }

    /// Everything is released. A deleted Service that others hold says so; any other says
    /// nothing.
    pub fn held(service: &ServiceView) -> Self {
        let others = service.other_finalizers.as_deref();
        let held = others.filter(|_| service.deleting).map(|others| Condition {
            status: "False",
            reason: Reason::Released,
            message: deletion::held_by(others),
        });
        Self {
            programmed: held,
            ..Self::default()
        }
    }

    /// A failure of a release says since when and how to go on. `before` is that of the last try.
    #[must_use]
    pub fn explained(mut self, service: &ServiceView, class: &str, now: Timestamp) -> Self {
        let before = service.condition(PROGRAMMED);
        if let Some(it) = &mut self.programmed {
            it.message = failure(before, it.reason, &it.message, class, now);
        }
        self
    }

    /// Something of this class is missing. A Service that has an address reports it only if its
    /// load balancer is to be released and cannot be, because its class is drained (`drained`)
    /// or does not serve it any more. `claim`: the class that serves the Service now.
    pub fn waiting(
        service: &ServiceView,
        class: &str,
        claim: Option<&str>,
        why: &Refusal,
        drained: Option<&Refusal>,
    ) -> Self {
        let serves = claim == Some(class) && drained.is_none();
        Self {
            accepted: match drained {
                Some(drained) => Some(refused(drained)),
                None => standing(service, class, claim),
            },
            programmed: (service.ingress.is_empty() || !serves).then(|| Condition {
                status: if service.ingress.is_empty() {
                    "False"
                } else {
                    "Unknown"
                },
                reason: why.reason,
                message: text::message(&why.message),
            }),
            ..Self::default()
        }
    }

    /// The status is exactly what the provider reports (invariant 2).
    pub fn observed(
        service: &ServiceView,
        class: &str,
        observed: &Observed,
        backing: Backing,
    ) -> Self {
        // A node that announces the address carries its traffic, whatever labels it has.
        let mut reported = observed.conditions.iter();
        let announced =
            reported.any(|it| it.kind == ExtraKind::Announced && it.holds == Some(true));
        let programmed = match &observed.state {
            State::Programmed if backing == Backing::None && !announced => Condition {
                status: "False",
                reason: Reason::NoEligibleNodes,
                message:
                    "No node is eligible: every node is excluded, is being deleted, or has no InternalIP"
                        .to_owned(),
            },
            State::Programmed if backing == Backing::NoPods => Condition {
                status: "False",
                reason: Reason::NoEndpoints,
                message: NO_ENDPOINTS.to_owned(),
            },
            State::Programmed => Condition {
                status: "True",
                reason: Reason::Programmed,
                message: match backing {
                    Backing::DespiteLabel => ALL_LABELLED.to_owned(),
                    _ => "The load balancer is active".to_owned(),
                },
            },
            State::Pending {
                reason: Reason::Provisioning,
                ..
            } => provisioning(),
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
            extra: Some(extra(service, &observed.conditions)),
            kept: observed.unchanged.clone(),
            contested: None,
        }
    }

    /// The provider failed. If there is an address, traffic can still flow with the settings
    /// applied last: the state is `Unknown`, and the address stays (invariant 2). `claim`: the
    /// class that serves the Service now.
    pub fn failed(
        service: &ServiceView,
        class: &str,
        claim: Option<&str>,
        error: &ProviderError,
        now: Timestamp,
    ) -> Self {
        let message = match error {
            ProviderError::Throttled { retry_after } => {
                wait::message(service.condition(PROGRAMMED), *retry_after, now)
            }
            other => other.to_string(),
        };
        let status = if service.ingress.is_empty() {
            "False"
        } else {
            "Unknown"
        };
        Self {
            accepted: standing(service, class, claim),
            programmed: Some(Condition {
                status,
                reason: error.reason(),
                message: text::message(&message),
            }),
            ..Self::default()
        }
    }

    /// The Service after this status has been written to it.
    pub fn applied_to(&self, service: &ServiceView, now: Timestamp) -> ServiceView {
        let mut after = service.clone();
        let difference = self.difference(service);
        if let Some(ingress) = difference.ingress {
            after.ingress = ingress.to_vec();
            after.ingress_is_exact = true;
        }
        let stays = |kind: &str| {
            let mut changed = difference.changed.iter();
            !difference.removed.contains(&kind) && changed.all(|fields| fields.kind != kind)
        };
        after.conditions.retain(|before| stays(&before.kind));
        for fields in &difference.changed {
            after.conditions.push(ConditionView {
                kind: fields.kind.to_owned().into(),
                status: fields.status.to_owned().into(),
                reason: fields.reason.to_owned().into(),
                message: fields.message.into(),
                since: fields.since(service, now),
                is_exact: true,
            });
        }
        after
    }

    fn conditions(&self) -> Vec<Fields<'_>> {
        let accepted = self.accepted.as_ref();
        let programmed = self.programmed.as_ref();
        let mut all = Vec::new();
        all.extend(accepted.map(|condition| condition.fields(ACCEPTED)));
        all.extend(programmed.map(|condition| condition.fields(PROGRAMMED)));
        all.extend(self.contested.as_deref().map(Fields::of_contest));
        all.extend(self.extra.iter().flatten().map(Fields::of_extra));
        all
    }

    /// Whether it publishes other addresses than the Service has now.
    pub fn claims(&self, service: &ServiceView) -> bool {
        self.difference(service).ingress.is_some()
    }

    /// The parts of it that the Service does not have now.
    fn difference<'a>(&'a self, service: &'a ServiceView) -> Difference<'a> {
        let ingress = self.ingress.as_deref();
        let mut changed = self.conditions();
        let listed: Vec<&str> = changed.iter().map(|fields| fields.kind).collect();
        changed.retain(|fields| fields.differs(service));
        let kinds = service.conditions.iter().map(|now| now.kind.as_ref());
        let mut removed: Vec<&str> = kinds
            .filter(|kind| !listed.contains(kind))
            .filter(|kind| match *kind {
                ACCEPTED | PROGRAMMED => false,
                CONTESTED => true,
                kind => self.extra.is_some() && !self.kept.iter().any(|it| it.as_str() == kind),
            })
            .collect();
        removed.sort_unstable();
        removed.dedup();
        Difference {
            ingress: ingress.filter(|it| !service.ingress_is_exact || *it != service.ingress),
            changed,
            removed,
        }
    }
}

/// The provider's own conditions, each type once, with bounded messages.
fn extra(service: &ServiceView, reported: &[ExtraCondition]) -> Vec<ExtraCondition> {
    let of_kind = |kind: ExtraKind| reported.iter().find(|condition| condition.kind == kind);
    let bounded = |condition: &ExtraCondition| {
        let message = match condition.places.as_slice() {
            [] => text::message(&condition.message),
            places => {
                let before = service.condition(condition.kind.as_str());
                let before = before.map_or("", |before| &before.message);
                text::message(&place::message(places, before))
            }
        };
        ExtraCondition {
            message,
            ..condition.clone()
        }
    };
    let all = ExtraKind::ALL.into_iter();
    all.filter_map(of_kind).map(bounded).collect()
}

/// The same message before and after the first answer of the provider, so that the answer
/// needs no write.
fn provisioning() -> Condition {
    Condition {
        status: "False",
        reason: Reason::Provisioning,
        message: "The load balancer is being created".to_owned(),
    }
}

/// Whether a Service is accepted while something concerns this class: the class that serves it
/// now, or one that still has to release it.
fn standing(service: &ServiceView, class: &str, claim: Option<&str>) -> Option<Condition> {
    if !service.is_load_balancer || service.deleting {
        return None;
    }
    Some(match (claim, &service.load_balancer) {
        (Some(_), Some(Err(refusal))) => refused(refusal),
        (Some(claim), _) => accepted(service, claim),
        (None, _) => refused(&Refusal::new(
            Reason::Releasing,
            format!(
                "LoadBalancerClass {class} does not serve this Service any more and has not released its load balancer yet"
            ),
        )),
    })
}

fn releasing(service: &ServiceView, message: String) -> Condition {
    Condition {
        status: if service.ingress.is_empty() {
            "False"
        } else {
            "Unknown"
        },
        reason: Reason::Releasing,
        message,
    }
}

fn accepted(service: &ServiceView, class: &str) -> Condition {
    let mut message = format!("LoadBalancerClass {class} serves this Service");
    if !service.unknown_annotations.is_empty() {
        message.push_str("; unknown annotations: ");
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
    fn fields(&self, kind: &'static str) -> Fields<'_> {
        Fields {
            kind,
            status: self.status,
            reason: self.reason.as_str(),
            message: &self.message,
        }
    }
}

#[cfg(test)]
mod tests;
