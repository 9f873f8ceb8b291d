//! What is known of the objects of each load balancer: that of one Service, or of several that share it. No I/O.
//! A Service with target groups of others has notes instead ([`crate::bind`]).
//!
//! ```text
//!             restore                 read                       a call without an answer
//!  (nothing) ────────▶ Names ────────────────▶ Full ────────────────────────▶ Doubtful
//!                        │                      ▲  ▲ effect of a call             │
//!                        │ finished: no call    │  └──┘                            │ read
//!                        └──────────────────    └──────────────────────────────────┘
//! ```
//!
//! After `restore` an absent record means that lists show nothing of the Service. Whoever creates finds out
//! what they do not show yet, because AWS says that a name is taken. Whoever deletes needs more
//! ([`Extent`]), until everything was listed again ([`Records::are_listed`]).
//!
//! AWS does not always say that a name is taken: a target group or a load balancer with the same settings is
//! returned as if it were new. So what is created is read, unless it is known that no former process can have
//! made it ([`Extent::All`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ballast_provider::mark::service_of;
use ballast_provider::{Balancer, Family, Key, ProviderError, ServiceId};
use tokio::time::Instant;

use super::bind::Others;
use super::capacity::Capacity;
use super::ensure::REMAKE;
use super::faults::Faults;
use super::health::{Needs, Watch};
use super::pods::RefusedPods;
use crate::call::Call;
use crate::client::CallError;
use crate::client::values::TargetHealth;
use crate::desired::Source;
use crate::nodes::{Nodes, Selector};
use crate::observed::{Arn, LoadBalancerState, Observed, ObservedTargetGroup};
use crate::plan;
use crate::rate::Ticket;
use crate::target::Backends;

mod all;
mod bound;
mod hearing;
mod serving;

pub(super) use self::all::{Cell, LAG, Records};
use self::serving::is_serving;

/// The least time between two such requests for one Service: the controller may wait between its turns.
const ASK: Duration = Duration::from_secs(30);
/// Between two looks at a load balancer that has not served for long enough to replace another one.
const REPLACING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(10));

/// How much is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Names, tags and states of all objects.
    Names,
    /// Everything.
    Full,
    /// Nobody knows whether a call had an effect.
    Doubtful,
}

/// Which objects of the Service a record has at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    /// Those that a list has shown. It may lag behind what the former process did.
    Listed,
    /// Those whose names follow from the Service, too: this process has read them, or made the load balancer.
    Named,
    /// All that a former process has made: this process has made the first object, or everything was listed
    /// late enough ([`LAG`]). The names of target groups do not follow from the Service alone, so no read by
    /// name says so.
    All,
}

/// Whether a wave could not give a Service its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// It has not failed.
    No,
    /// Its own turn tries again and says why, and nobody has asked for one yet.
    Asks,
    /// The controller was asked once; it makes the pauses.
    Asked,
}

/// The objects of one load balancer.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) key: Key,
    pub(super) depth: Depth,
    pub(super) extent: Extent,
    pub(super) observed: Observed,
    /// Its Services: those that its last turn was for, or those that tags name.
    pub(super) members: BTreeSet<ServiceId>,
    /// Those of them that keep what they have, as of its last turn.
    pub(super) kept: BTreeSet<Arc<str>>,
    /// Whether what its Services do not use any more is deleted, as of its last turn.
    pub(super) deletions: Deletions,
    /// The targets of all target groups of nodes are known, although the rest may not be.
    pub(super) targets_known: bool,
    /// Target groups whose targets were read although that is not known of all: a wave that is cut short
    /// does not read them again.
    pub(super) groups_known: BTreeSet<String>,
    /// Target groups of pods whose targets were read although the rest was not.
    pub(super) pods_known: BTreeSet<String>,
    /// Pods that AWS does not accept as targets.
    pub(super) refused: RefusedPods,
    /// Its Services get target groups for nodes with IPv6 addresses if there are such nodes: whether there were.
    /// `None`: it does not matter.
    pub(super) ipv6_nodes: Option<bool>,
    /// What is known of the target groups of others in which its Service has its targets.
    pub(super) others: Option<Others>,
    /// The names of the notes whose target groups the Service names and may use, as far as its last turn has seen.
    pub(super) notes: BTreeSet<String>,
    /// A Service has left, and nobody has asked for the turn of another one that completes the rest.
    pub(super) left: bool,
    /// What became of it in the last wave.
    pub(super) behind: Behind,
    /// It was kept on purpose, and belongs to nobody.
    pub(super) retained: bool,
    /// What may exist beside what is known.
    pub(super) tried: Tried,
    /// What somebody else has under names that this Service may need, and the error if it does need them.
    pub(super) foreign: BTreeMap<String, ProviderError>,
    /// What nothing uses and could not be deleted yet.
    pub(super) cleanup: Option<Leftover>,
    /// Counts the calls that have changed something: a list that was begun before is older.
    pub(super) changes: u64,
    /// When the last of them was made: a list that was begun soon after may lag behind it.
    pub(super) changed: Option<Instant>,
    /// When a load balancer that AWS could not make was deleted last.
    pub(super) remade: Option<Instant>,
    /// When the controller was last asked for a turn that only time gives a reason for.
    pub(super) asked: Option<Instant>,
    /// What its Services ask for; `None` before their first turn.
    pub(super) wanted: Option<Wanted>,
    /// The health of the targets of the load balancer that it asks for.
    pub(super) health: Watch,
    /// The capacity that it reserves.
    pub(super) capacity: Capacity,
    /// The place of the call that waits for AWS's limits.
    pub(super) place: Option<Ticket>,
    /// What AWS has refused single Services in the last turn.
    pub(super) faults: Faults,
    /// The last call of this turn that showed that something else exists than was known.
    pub(super) contradiction: Option<CallError>,
}

/// Whether objects of a Service that stays may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deletions {
    /// They may.
    Allowed,
    /// They may not ([`Balancer::deletes_nothing`]).
    Forbidden,
}

/// What is left of a clean-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leftover {
    /// When to try again.
    pub(super) due: Instant,
    /// How long to wait after that.
    pub(super) pause: Duration,
    /// The tries so far.
    pub(super) times: u32,
    /// What AWS does not delete, and why; for the owner of the Service. What is only in use for a while is not
    /// here.
    pub(super) refused: Vec<String>,
    /// The first object that is only in use for a while.
    pub(super) in_use: Option<String>,
}

/// What its health depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The name of the load balancer of the scheme that it asks for.
    load_balancer: String,
    /// By the UID of the Service.
    needs: BTreeMap<Arc<str>, Needs>,
}

/// The targets of target groups by ARN, as AWS has answered.
pub(super) type Answers = BTreeMap<Arn, Vec<TargetHealth>>;

/// Names of objects whose creation had no answer, or failed because the name is taken, of those that only a list
/// has shown, and of those that somebody else has. The next read looks for them, too: nothing else names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) load_balancers: BTreeSet<String>,
    pub(super) target_groups: BTreeSet<String>,
    pub(super) security_groups: BTreeSet<String>,
}

/// What was known before a call.
#[derive(Clone, Debug)]
pub(super) struct Before {
    depth: Depth,
    tried: Tried,
    groups_known: BTreeSet<String>,
    pods_known: BTreeSet<String>,
}

// === impl Deletions ===

impl Deletions {
    pub(super) const fn of(balancer: &Balancer) -> Self {
        if balancer.deletes_nothing {
            Self::Forbidden
        } else {
            Self::Allowed
        }
    }
}

// === impl Record ===

impl Record {
    /// Nothing is known to exist.
    pub(super) fn empty(key: Key) -> Self {
        Self {
            key,
            depth: Depth::Full,
            extent: Extent::Listed,
            observed: Observed::default(),
            members: BTreeSet::new(),
            kept: BTreeSet::new(),
            deletions: Deletions::Allowed,
            targets_known: true,
            groups_known: BTreeSet::new(),
            pods_known: BTreeSet::new(),
            refused: RefusedPods::default(),
            ipv6_nodes: None,
            others: None,
            notes: BTreeSet::new(),
            left: false,
            behind: Behind::No,
            retained: false,
            tried: Tried::default(),
            foreign: BTreeMap::new(),
            cleanup: None,
            changes: 0,
            changed: None,
            remade: None,
            asked: None,
            wanted: None,
            health: Watch::default(),
            capacity: Capacity::default(),
            place: None,
            faults: Faults::new(),
            contradiction: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.observed == Observed::default() && self.depth != Depth::Doubtful
    }

    /// When the Service needs a turn although nothing changes: its objects must be read again, something
    /// that was in use may be free, another load balancer has replaced one, one that AWS could not
    /// make is made again, a wave could not give it its targets, or it can reserve capacity. `None`: it does not.
    pub(super) fn turn_at(&self, now: Instant) -> Option<Instant> {
        if self.retained {
            return None;
        }
        let doubtful = (self.depth == Depth::Doubtful).then_some(now);
        let cleanup = self.cleanup.as_ref().map(|left| left.due);
        let mut former = self.former();
        let goes = former.any(|(_, one)| !plan::serves_any(&self.kept, one, &self.observed));
        let replaced = cleanup.is_none() && goes && self.is_replaced(now);
        let replaced = replaced.then_some(now);
        let mut all = self.observed.load_balancers.values();
        let failed = all.any(|one| one.state == LoadBalancerState::Failed);
        let failed = failed && self.deletions == Deletions::Allowed;
        let remake = failed.then(|| self.remade.map_or(now, |at| at + REMAKE));
        let behind = (self.behind == Behind::Asks).then_some(now);
        let left = self.left.then_some(now);
        let capacity = self.capacity.due().filter(|_| is_serving(self.present()));
        let pods = self.refused.due();
        let others = self.others.as_ref().map(|others| others.until);
        let first = [
            doubtful, cleanup, replaced, remake, behind, left, capacity, pods, others,
        ]
        .into_iter()
        .flatten()
        .min()?;
        Some(self.asked.map_or(first, |asked| first.max(asked + ASK)))
    }

    /// The controller is asked for a turn.
    pub(super) fn asks_for_turn(&mut self, now: Instant) {
        self.asked = Some(now);
        self.left = false;
        if self.behind == Behind::Asks {
            self.behind = Behind::Asked;
        }
    }

    /// The Service has a turn, and asks for the load balancer of this name.
    pub(super) fn want(&mut self, load_balancer: String, needs: BTreeMap<Arc<str>, Needs>) {
        let wanted = Wanted {
            load_balancer,
            needs,
        };
        let before = self.wanted.as_ref();
        // It may want back what it had before: its clients have moved away meanwhile.
        if before.is_some_and(|before| before.load_balancer != wanted.load_balancer) {
            self.health = Watch::default();
        }
        self.wanted = Some(wanted);
    }

    /// Whether others than this Service have something here, or are about to. The tags of the load balancer and its
    /// security group do not say so: they may still name one that has left.
    pub(super) fn is_shared_by_others(&self, id: &ServiceId) -> bool {
        let had_turn = self.wanted.is_some();
        let mut asked = self.members.iter().filter(|_| had_turn);
        let is_other = |one: &ServiceId| one.uid != id.uid;
        asked.any(is_other) || served(&self.observed).iter().any(is_other)
    }

    /// What its target groups say of their nodes.
    pub(super) fn selectors(&self) -> impl Iterator<Item = Selector> {
        let groups = self.observed.target_groups.values();
        groups
            .filter(|_| !self.retained)
            .filter_map(|group| match group.backends() {
                Backends::Nodes(selector, _) => Some(selector),
                Backends::Pods(_) => None,
            })
    }

    /// Whether it has target groups for nodes with IPv6 addresses.
    pub(super) fn has_ipv6_nodes(&self) -> bool {
        let mut groups = self.observed.target_groups.values();
        groups.any(|group| group.family == Family::V6 && group.backends().are_nodes())
    }

    /// The prefix lists in the rules of its security groups.
    pub(super) fn prefix_lists(&self) -> BTreeSet<String> {
        let rules = self.observed.groups.values().flat_map(|group| &group.rules);
        let lists = rules.filter_map(|rule| match &rule.source {
            Source::PrefixList(id) => Some(id.clone()),
            Source::Range(_) | Source::Group(_) => None,
        });
        lists.collect()
    }

    /// Whether all its target groups are known to have their nodes, as far as waves change them.
    pub(super) fn has_targets(&self, nodes: &Nodes) -> bool {
        self.retained || self.has_targets_of(nodes)
    }

    /// Whether all its target groups are known to have their nodes.
    pub(super) fn has_targets_of(&self, nodes: &Nodes) -> bool {
        let mut groups = self.observed.target_groups.iter();
        let has = |(name, group): (&String, &ObservedTargetGroup)| match group.backends() {
            // The turn of its Service reads what a note has.
            _ if !self.follows(name, group) => true,
            Backends::Nodes(selector, reached) => group.has(&nodes.selected(&selector, reached)),
            Backends::Pods(_) => true,
        };
        self.targets_known && groups.all(has)
    }

    /// What AWS does not delete for long, and why.
    pub(super) fn stuck(&self) -> Option<&str> {
        let refused = &self.cleanup.as_ref()?.refused;
        refused.first().map(String::as_str)
    }

    /// What a clean-up waits for while all goes as it should.
    pub(super) fn waits_for(&self) -> Option<String> {
        self.cleanup.as_ref()?.in_use.clone()
    }

    /// A creation of which nobody knows what it has made.
    pub(super) fn tried(&mut self, call: &Call) {
        match call {
            Call::CreateTargetGroup { target_group, .. } => {
                self.tried.target_groups.insert(target_group.name.clone());
            }
            Call::CreateSecurityGroup { name, .. } => {
                self.tried.security_groups.insert(name.clone());
            }
            // The names of load balancers follow from the Service.
            _ => {}
        }
    }

    /// A call is about to be made. Until its answer comes, nobody knows what is there: whoever waits for it may
    /// be dropped. Returns what [`Self::answered`] needs.
    pub(super) fn asks(&mut self, call: &Call) -> Before {
        self.changes += 1;
        self.changed = Some(Instant::now());
        let before = Before {
            depth: self.depth,
            tried: self.tried.clone(),
            groups_known: self.groups_known.clone(),
            pods_known: self.pods_known.clone(),
        };
        self.tried(call);
        self.doubt();
        before
    }

    /// The call has an answer.
    pub(super) fn answered(&mut self, before: Before) {
        self.changed = Some(Instant::now());
        self.depth = before.depth;
        self.tried = before.tried;
        self.groups_known = before.groups_known;
        self.pods_known = before.pods_known;
    }

    /// A call is about to make this, and the record knows nothing else: if AWS makes it, there is nothing else,
    /// because AWS makes no security group twice. The exception is a Service whose security groups were given
    /// when the former process was interrupted, and are not any more. Then targets that nobody knows of show when
    /// the health of the new load balancer is asked for ([`Self::misses`]); the rest shows at the full look.
    pub(super) fn is_first(&self, call: &Call) -> bool {
        let makes = matches!(call, Call::CreateSecurityGroup { .. });
        makes && self.is_empty() && self.tried == Tried::default()
    }

    /// A list shows these objects. Those that nobody knew of are read by their names.
    pub(super) fn shown(&mut self, seen: &Observed) {
        let Tried {
            load_balancers,
            target_groups,
            ..
        } = &mut self.tried;
        load_balancers.extend(seen.load_balancers.keys().cloned());
        target_groups.extend(seen.target_groups.keys().cloned());
    }

    /// It has at least these objects.
    pub(super) fn reaches(&mut self, extent: Extent) {
        self.extent = self.extent.max(extent);
    }

    /// Whether a list that was begun then may lag behind what this process has done.
    pub(super) fn is_newer_than(&self, begun: Instant) -> bool {
        self.changed.is_some_and(|at| begun < at + LAG)
    }

    /// A call may have had an effect.
    pub(super) fn doubt(&mut self) {
        self.depth = Depth::Doubtful;
        self.groups_known.clear();
        self.pods_known.clear();
    }
}

/// The Services that the tags name: those of target groups, because the load balancer and its security group name
/// only the oldest one. If there is no target group, that one.
pub(super) fn members(observed: &Observed) -> BTreeSet<ServiceId> {
    let served = served(observed);
    if !served.is_empty() {
        return served;
    }
    let balancers = observed.load_balancers.values().map(|one| &one.tags);
    let security = observed.groups.values().map(|one| &one.tags);
    balancers.chain(security).filter_map(service_of).collect()
}

/// The Services that target groups serve.
fn served(observed: &Observed) -> BTreeSet<ServiceId> {
    let groups = observed.target_groups.values();
    groups.filter_map(|one| service_of(&one.tags)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_asked_for_where_only_time_passes_and_not_too_often() {
        let now = Instant::now();
        let id = ServiceId {
            namespace: "shop".into(),
            name: "web".into(),
            uid: "uid-1".into(),
        };
        let empty = || Record::empty(Key::alone(&id));
        let mut record = empty();
        assert_eq!(record.turn_at(now), None);
        let due = now + Duration::from_secs(15);
        record.cleanup = Some(Leftover {
            times: 1,
            due,
            pause: Duration::from_secs(15),
            refused: Vec::new(),
            in_use: None,
        });
        assert_eq!(record.turn_at(now), Some(due));
        record.doubt();
        assert_eq!(record.turn_at(now), Some(now));
        record.asked = Some(now);
        assert_eq!(record.turn_at(now), Some(now + ASK));
        record.retained = true;
        assert_eq!(record.turn_at(now), None);
        // The controller makes the pauses of a turn that fails.
        let mut record = empty();
        record.behind = Behind::Asks;
        assert_eq!(record.turn_at(now), Some(now));
        record.asks_for_turn(now);
        assert_eq!(record.turn_at(now), None);
    }
}
