//! When to ask AWS how the targets of a Service are, and what its answers mean. Pure.
//!
//! ```text
//!          something changed             enough are healthy, or many equal answers
//!  (rest) ──────────────────▶ (asks) ──────────────────────────────────────────▶ (rest)
//!                             every 10 s, then less and less often, up to 60 s
//! ```
//!
//! What is read for other reasons is heard, too. It never begins to ask: a node that fails would make every
//! Service of the class ask.
//!
//! A load balancer that has become active carries nothing before the first target is healthy. While
//! AWS still examines the targets, the news that it is active waits for them, for at most a minute: then
//! both are one write to the Service, and whoever waits for `Programmed` finds that traffic flows.
//!
//! If several Services share a load balancer, the polls end when each has enough, and each one's condition is about its
//! own targets.
//!
//! All that is known is about one load balancer. An answer about another one begins anew, so that the
//! health of a load balancer never counts for its successor.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_provider::{ExtraCondition, ExtraKind, TrafficPolicy};
use tokio::time::Instant;

use crate::client::values::{Health, TargetHealth};
use crate::observed::Arn;
use crate::target::TargetId;

const FIRST: Duration = Duration::from_secs(10);
const LAST: Duration = Duration::from_mins(1);
/// After so many equal answers in a row nobody waits for another one: about nine minutes.
const ENOUGH: u32 = 10;
/// Clients remember the name of a load balancer for 60 s (the TTL of its DNS records), and the
/// Service's status and DNS controllers take their time.
const REMEMBERED: Duration = Duration::from_mins(3);
/// How long the news that a load balancer is active waits for its targets.
const SETTLING: Duration = Duration::from_mins(1);
/// For how long a load balancer that is replaced waits for a successor without a healthy target.
const PATIENT: Duration = Duration::from_hours(24);

/// How many targets of a Service must be healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Needs {
    /// Each node serves.
    #[default]
    All,
    /// Only nodes with a pod of the Service serve, and the checks of the others fail on purpose.
    One,
}

/// How the targets of each Service are, by its UID, and what it needs.
pub(super) type Heard = BTreeMap<Arc<str>, (Needs, Summary)>;

/// The health of the targets of one load balancer.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    due: Option<Instant>,
    pause: Duration,
    /// The load balancer that the rest is about; empty before the first answer.
    of: Arn,
    /// Since when there are answers.
    asked_since: Option<Instant>,
    heard: Option<Heard>,
    /// How often this summary was heard again.
    same: u32,
    /// Since when a target has been healthy.
    serves_since: Option<Instant>,
    /// A target was healthy once.
    served: bool,
    /// Until when the news that the load balancer is active waits.
    settling: Option<Instant>,
    /// Nothing has changed since the last answer, so that it still counts for whoever has enough.
    fresh: bool,
    /// Pods become ready only when they are healthy targets.
    gated: bool,
}

/// All targets of all target groups of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    healthy: usize,
    /// Those whose first checks run.
    initial: usize,
    total: usize,
    /// Reasons of those that are not healthy, with how many.
    reasons: BTreeMap<String, usize>,
    /// The pods among them, and whether each is healthy on all its ports.
    pods: BTreeMap<IpAddr, bool>,
}

// === impl Needs ===

impl Needs {
    pub(super) const fn of(policy: TrafficPolicy) -> Self {
        match policy {
            TrafficPolicy::Cluster => Self::All,
            TrafficPolicy::Local { .. } => Self::One,
        }
    }
}

// === impl Watch ===

impl Watch {
    /// Something changed: asks soon.
    pub(super) fn begin(&mut self, now: Instant) {
        self.same = 0;
        self.pause = FIRST;
        // Whoever changes all the time must not put it off.
        self.ask_at(now + FIRST);
        self.fresh = false;
    }

    /// The load balancer has become active: asks at once.
    pub(super) fn activated(&mut self, of: &str, now: Instant) {
        self.turn_to(of);
        self.same = 0;
        self.pause = FIRST / 2;
        self.due = Some(now);
        self.fresh = false;
        self.settling = Some(now + SETTLING);
    }

    /// Whether the news that the load balancer is active waits for its targets.
    pub(super) fn settles(&self, now: Instant) -> bool {
        let sum = |count: fn(&Summary) -> usize| {
            let all = self.heard.iter().flat_map(BTreeMap::values);
            all.map(|(_, summary)| count(summary)).sum::<usize>()
        };
        let examined = || sum(|it| it.healthy) == 0 && sum(|it| it.initial) > 0;
        self.settling.is_some_and(|until| now < until) && (self.heard.is_none() || examined())
    }

    /// AWS does not say how the targets are: asks again after this time, and nothing waits for it.
    pub(super) fn failed(&mut self, now: Instant, pause: Duration) {
        self.settling = None;
        self.pause = FIRST;
        self.due = Some(now + pause);
    }

    /// When to ask next; `None`: not before something changes.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What is known is about this load balancer from now on.
    fn turn_to(&mut self, of: &str) {
        if self.of != of {
            *self = Self {
                of: of.to_owned(),
                due: self.due,
                pause: self.pause,
                settling: self.settling,
                gated: self.gated,
                ..Self::default()
            };
        }
    }

    /// Whether pods become ready only when they are healthy targets: then AWS is asked until they are. True if that
    /// begins now.
    pub(super) fn waits_for_pods(&mut self, gated: bool, now: Instant) -> bool {
        let begins = gated && !self.gated && self.due.is_none();
        if begins {
            self.begin(now);
        }
        self.gated = gated;
        begins
    }

    /// The pods of a Service that are healthy on all their ports; `None` if nobody knows, or something has changed
    /// since: another pod may have the address.
    pub(super) fn healthy_pods(&self, of: &str, uid: &str) -> Option<BTreeSet<IpAddr>> {
        let (_, summary) = self.last_of(of, uid).filter(|_| self.fresh)?;
        let pods = summary.pods.iter();
        Some(pods.filter(|(_, well)| **well).map(|(ip, _)| *ip).collect())
    }

    /// Whether AWS is asked about the targets of this Service when it is asked next. Whoever has enough is left out
    /// until something changes: on a shared load balancer others may never have enough.
    pub(super) fn asks_about(&self, of: &str, uid: &str) -> bool {
        let heard = self.last_of(of, uid);
        !self.fresh || heard.is_none_or(|(needs, summary)| !summary.is_final(*needs))
    }

    /// What was heard last of a Service on this load balancer.
    pub(super) fn last_of(&self, of: &str, uid: &str) -> Option<&(Needs, Summary)> {
        let heard = self.heard.as_ref().filter(|_| self.of == of)?;
        heard.get(uid)
    }

    /// The answers of all target groups of a load balancer. True if there is news to report.
    pub(super) fn heard(&mut self, of: &str, heard: Heard, now: Instant) -> bool {
        self.turn_to(of);
        let unreported = self.settling.is_some();
        self.asked_since.get_or_insert(now);
        let all = || heard.values();
        if all().all(|(_, summary)| summary.healthy == 0) {
            self.serves_since = None;
        } else {
            self.serves_since.get_or_insert(now);
            self.served = true;
        }
        // Whoever waits for pods has heard nothing since something changed.
        let awaited = self.gated && !self.fresh;
        let news = awaited || self.heard.as_ref() != Some(&heard);
        self.same = if news { 0 } else { self.same + 1 };
        self.fresh = true;
        let enough = all().all(|(needs, summary)| summary.is_final(*needs));
        let rests = enough || (self.same >= ENOUGH && !self.gated);
        if rests {
            self.due = None;
        } else if self.due.is_some() {
            // A roll-out waits for pods that are examined.
            let soon = self.gated && all().any(|(_, summary)| summary.initial > 0);
            let longest = if soon { FIRST } else { LAST };
            self.pause = (self.pause * 2).clamp(FIRST, longest);
            self.due = Some(now + self.pause);
        }
        self.heard = Some(heard);
        if self.settles(now) {
            if let Some(until) = self.settling {
                self.ask_at(until);
            }
            return false;
        }
        self.settling = None;
        news || unreported
    }

    /// A former process has published its name.
    pub(super) fn has_published(&mut self, of: &str) {
        self.turn_to(of);
        self.served = true;
    }

    /// Whether a target of this load balancer was healthy once: then its name is published, and stays so.
    pub(super) fn has_served(&self, of: &str) -> bool {
        self.of == of && self.served
    }

    /// Whether there was no answer yet, and nobody waits for one.
    pub(super) const fn is_unheard(&self) -> bool {
        self.heard.is_none() && self.due.is_none()
    }

    /// Asks again at this time, although all is well.
    pub(super) fn ask_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Whether the load balancer that this one replaces can go: clients can have moved here, or it has
    /// waited for long enough.
    pub(super) fn replaces(&self, of: &str, now: Instant) -> bool {
        self.of == of && self.replaces_at().is_some_and(|at| at <= now)
    }

    /// When [`Watch::replaces`] becomes true if nothing happens.
    pub(super) fn replaces_at(&self) -> Option<Instant> {
        let served = self.serves_since.map(|since| since + REMEMBERED);
        served.or_else(|| self.asked_since.map(|since| since + PATIENT))
    }

    /// The condition of a Service; `None` if nobody has asked about its targets on this load balancer.
    pub(super) fn condition(&self, of: &str, uid: &str) -> Option<ExtraCondition> {
        let heard = self.heard.as_ref().filter(|_| self.of == of)?;
        let (needs, summary) = heard.get(uid)?;
        let (reason, message) = summary.words(*needs);
        Some(ExtraCondition {
            kind: ExtraKind::TargetsHealthy,
            holds: Some(summary.is_well(*needs)),
            reason,
            message,
            places: Vec::new(),
        })
    }
}

// === impl Summary ===

impl Summary {
    pub(super) fn add(&mut self, one: &TargetHealth) {
        if let TargetId::Address(address) = &one.target
            && one.health != Health::Draining
        {
            let well = one.health == Health::Healthy;
            let pod = self.pods.entry(address.ip()).or_insert(true);
            *pod &= well;
        }
        match one.health {
            // It was deregistered.
            Health::Draining => return,
            Health::Healthy => self.healthy += 1,
            state => {
                self.initial += usize::from(state == Health::Initial);
                let reason = match (&one.reason, &one.description) {
                    (_, Some(description)) if !description.is_empty() => description.clone(),
                    (Some(reason), _) => reason.clone(),
                    _ => state.as_str().to_owned(),
                };
                *self.reasons.entry(reason).or_default() += 1;
            }
        }
        self.total += 1;
    }

    const fn is_well(&self, needs: Needs) -> bool {
        match needs {
            Needs::All => self.total > 0 && self.healthy == self.total,
            Needs::One => self.healthy > 0,
        }
    }

    /// Well, and no target is about to change it.
    const fn is_final(&self, needs: Needs) -> bool {
        self.is_well(needs) && self.initial == 0
    }

    fn words(&self, needs: Needs) -> (&'static str, String) {
        if self.total == 0 {
            return ("NoTargets", "No target is registered".to_owned());
        }
        let mut parts = vec![format!(
            "{} of {} targets are healthy",
            self.healthy, self.total
        )];
        let reasons = self.reasons.iter().take(3);
        parts.extend(reasons.map(|(reason, count)| format!("{count}: {reason}")));
        if needs == Needs::One && self.healthy < self.total {
            parts.push(
                "with externalTrafficPolicy: Local only nodes with a pod of the Service are healthy"
                    .to_owned(),
            );
        }
        let reason = if self.is_well(needs) {
            "TargetsHealthy"
        } else {
            "TargetsUnhealthy"
        };
        (reason, parts.join("; "))
    }
}

#[cfg(test)]
mod tests;
