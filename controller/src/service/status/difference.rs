//! What a Service does not have of the status that it is to have: the unit in which patches are made.

use ballast_provider::{ExtraCondition, Ingress};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::conditions::{CONTESTED, OVERWRITTEN, rfc3339};
use crate::cluster::view::ServiceView;

/// The fields of one condition that are compared and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    pub(super) kind: &'static str,
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: &'a str,
}

/// The parts of a [`Desired`](super::Desired) status that a Service does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference<'a> {
    pub(super) ingress: Option<&'a [Ingress]>,
    pub(super) changed: Vec<Fields<'a>>,
    /// Types of conditions to remove.
    pub(super) removed: Vec<&'a str>,
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(super) const fn of_contest(message: &'a str) -> Self {
        Self {
            kind: CONTESTED,
            status: "True",
            reason: OVERWRITTEN,
            message,
        }
    }

    pub(super) fn of_extra(condition: &'a ExtraCondition) -> Self {
        Self {
            kind: condition.kind.as_str(),
            status: match condition.holds {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            },
            reason: condition.reason,
            message: &condition.message,
        }
    }

    pub(super) fn differs(&self, service: &ServiceView) -> bool {
        service.condition(self.kind).is_none_or(|now| {
            !now.is_exact
                || self.status != now.status
                || self.reason != now.reason
                || self.message != &*now.message
        })
    }

    /// The time changes only with the status.
    pub(super) fn since(&self, service: &ServiceView, now: Timestamp) -> Timestamp {
        let before = service.condition(self.kind);
        let unchanged = before.filter(|before| before.status == self.status);
        unchanged.map_or(now, |before| before.since)
    }

    pub(super) fn to_json(self, service: &ServiceView, now: Timestamp) -> Value {
        let mut condition = json!({
            "type": self.kind,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "lastTransitionTime": rfc3339(self.since(service, now)),
        });
        // A merge keeps the fields that a patch does not name.
        let before = service.condition(self.kind);
        if before.is_some_and(|before| !before.is_exact) {
            condition["observedGeneration"] = Value::Null;
        }
        condition
    }
}

// === impl Difference ===

impl Difference<'_> {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn changes(&self, kind: &str) -> bool {
        self.changed.iter().any(|fields| fields.kind == kind)
    }
}
