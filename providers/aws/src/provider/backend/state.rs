//! What is known of the backend group, and for how long AWS has refused something of it. Makes no calls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::client::CallError;
use crate::client::values::Tags;
use crate::provider::records::LAG;

/// The time between two tries to let load balancers in, if AWS has refused it.
const REOPEN: Duration = Duration::from_mins(1);
/// So many failures in a row are said, also if nobody knows whether the rules are there.
const DOUBTS: u32 = 3;
/// A Service waits for so many of them. One more means that something else uses the group.
const PATIENT: u32 = 9;
/// A Service that cannot be made wants the group in each of its turns, and has nothing meanwhile.
const UNUSED: Duration = Duration::from_mins(10);

/// AWS's codes for a security group that does not exist: Elastic Load Balancing's and EC2's.
const UNKNOWN: [&str; 2] = ["InvalidSecurityGroup", "InvalidGroup.NotFound"];

/// The group, as far as it is known.
#[derive(Debug, Default)]
pub(in crate::provider) struct Backend {
    /// Its ID, if it exists.
    pub(super) id: Option<String>,
    /// The ID that it had, while nobody knows whether it is there.
    former: Option<String>,
    /// It may exist although its ID is not known: its creation or deletion had no answer, or AWS did not
    /// know its ID.
    pub(super) tried: bool,
    /// The groups of nodes that have its rule; `None`: nobody knows.
    pub(super) open: Option<BTreeSet<String>>,
    /// The tags of the groups of nodes with several groups.
    pub(super) tags: BTreeMap<String, Tags>,
    /// Groups of nodes that cannot be told apart.
    pub(super) ambiguous: BTreeSet<String>,
    /// Load balancers may not reach nodes.
    shut: Option<Shut>,
    /// When a Service asked for it last.
    pub(super) wanted: Option<Instant>,
    /// When this process made or deleted it last: lists may lag behind that.
    pub(super) changed: Option<Instant>,
    /// It is being deleted: groups of nodes may have lost its rule.
    pub(super) closing: bool,
    /// How often AWS has refused to delete it, and why.
    pub(super) stuck: Option<(u32, String)>,
}

/// Load balancers may not reach nodes.
#[derive(Debug)]
struct Shut {
    why: String,
    /// AWS has refused a rule. Otherwise nobody knows whether it is there.
    certain: bool,
    /// Failures in a row.
    times: u32,
    /// When to try again.
    again: Instant,
}

// === impl Shut ===

impl Shut {
    /// A cloud that does not answer for a moment changes nothing.
    const fn counts(&self) -> bool {
        self.certain || self.times >= DOUBTS
    }
}

// === impl Backend ===

impl Backend {
    pub(in crate::provider) fn known(id: Option<String>) -> Self {
        Self {
            id,
            ..Self::default()
        }
    }

    pub(in crate::provider) fn id(&self) -> Option<String> {
        self.id.clone()
    }

    /// Its ID, or the one that it had.
    pub(in crate::provider) fn last_id(&self) -> Option<String> {
        self.id.clone().or_else(|| self.former.clone())
    }

    /// It exists, or nobody knows whether it does.
    pub(in crate::provider) const fn may_exist(&self) -> bool {
        self.id.is_some() || self.tried
    }

    /// Somebody may have changed the groups of nodes.
    pub(in crate::provider) fn doubt(&mut self) {
        self.open = None;
        self.tags.clear();
    }

    /// A rule that AWS has refused is tried at the next look.
    pub(in crate::provider) fn hurry(&mut self) {
        if let Some(shut) = &mut self.shut {
            shut.again = Instant::now();
        }
    }

    /// Whether it may be deleted if no Service has anything.
    pub(in crate::provider) fn is_unused(&self, now: Instant) -> bool {
        let wanted = |at: Instant| now.saturating_duration_since(at) < UNUSED;
        self.may_exist() && (self.closing || !self.wanted.is_some_and(wanted))
    }

    /// AWS does not know it any more, or nobody knows whether it is there. Whoever wants it makes it: if
    /// it exists all the same, AWS says so, and it is found by its name.
    pub(in crate::provider) fn lose(&mut self) {
        self.former = self.id.take().or_else(|| self.former.take());
        self.tried = true;
        self.open = None;
    }

    /// What a list says that was begun when its ID was `before`. What has changed since, or shortly before,
    /// is newer. True if it differs.
    pub(in crate::provider) fn compare(
        &mut self,
        found: Option<&str>,
        before: Option<&str>,
        begun: Instant,
    ) -> bool {
        let newer = self.changed.is_some_and(|at| begun < at + LAG);
        if newer || self.id.as_deref() != before || self.id.as_deref() == found {
            return false;
        }
        self.lose();
        self.id = found.map(str::to_owned);
        true
    }

    /// AWS refuses something of a load balancer. The group may be what it does not know.
    pub(in crate::provider) fn blame(&mut self, why: &CallError) {
        let names = |id: &String| why.message.contains(id) || !why.message.contains("sg-");
        if UNKNOWN.contains(&why.code.as_str()) && self.id.as_ref().is_some_and(names) {
            info!(id = ?self.id, "AWS does not know the security group of this class any more");
            self.lose();
        }
    }

    pub(super) fn is_shut(&self, now: Instant) -> bool {
        self.shut.as_ref().is_some_and(|shut| shut.again > now)
    }

    pub(super) fn close(&mut self) {
        *self = Self {
            wanted: self.wanted,
            changed: self.changed,
            ..Self::default()
        };
    }

    /// Load balancers are let in.
    pub(super) fn opened(&mut self) {
        self.shut = None;
    }

    /// Load balancers could not be let in.
    pub(super) fn shut(&mut self, why: String, certain: bool) {
        let again = Instant::now() + REOPEN;
        let times = self.shut.as_ref().map_or(0, |shut| shut.times);
        let times = times.saturating_add(1);
        if let Some(shut) = self.shut.as_mut().filter(|shut| shut.counts() && !certain) {
            // What is known stays said while nobody knows more.
            shut.times = times;
            shut.again = again;
            return;
        }
        let before = self.shut.as_ref();
        let said = before.is_some_and(|shut| shut.counts() && shut.why == why);
        let shut = Shut {
            why,
            certain,
            times,
            again,
        };
        if shut.counts() && !said {
            warn!("{}", shut.why);
        }
        self.shut = Some(shut);
    }

    /// Whether AWS refuses for so long to delete it that something else must use it.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
            .as_ref()
            .is_some_and(|(times, _)| *times > PATIENT)
    }

    /// AWS refuses to delete it.
    pub(super) fn refused(&mut self, why: String) {
        let said = self.is_stuck() && self.stuck.as_ref().is_some_and(|(_, it)| *it == why);
        let times = self.stuck.as_ref().map_or(0, |(times, _)| *times);
        self.stuck = Some((times.saturating_add(1), why));
        if let Some((_, why)) = self.stuck.as_ref().filter(|_| self.is_stuck() && !said) {
            warn!("{why}");
        }
    }

    /// Why load balancers do not reach nodes.
    pub(super) fn why_shut(&self) -> Option<&str> {
        let shut = self.shut.as_ref().filter(|shut| shut.counts());
        shut.map(|shut| shut.why.as_str())
    }

    /// What is wrong with it, for whoever runs the cluster.
    pub(super) fn remarks(&self) -> Vec<String> {
        let stuck = self.stuck.as_ref().filter(|_| self.is_stuck());
        let stuck = stuck.map(|(_, why)| why.as_str());
        let all = self.why_shut().into_iter().chain(stuck);
        all.map(str::to_owned).collect()
    }
}
