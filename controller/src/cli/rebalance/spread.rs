//! How many addresses each node announces, and when a rebalance has ended. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use ballast_crds::{Announcer, LoadBalancerClass, REBALANCE_AT};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use serde::Serialize;

use crate::cli::text::{Cell, Look, Table};

/// After this long without a move, an announcer that still carries out the request while others have ended
/// moves nothing: its node may be gone. Announcers move one address per second, give up one that a node does
/// not take after 15 s, and end 10 s after the last one.
const STILL: Duration = Duration::from_secs(30);
/// A former request that is later than this from now has a wrong time.
const NEAR: SignedDuration = SignedDuration::from_mins(30);
const ONE_SECOND: Duration = Duration::from_secs(1);
/// The nodes that a line of progress names.
const NAMED: usize = 8;

/// The classes that a user means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The `l2` classes.
    pub classes: Vec<String>,
    /// Names that no class has.
    pub missing: Vec<String>,
    /// Named classes of other providers.
    pub others: Vec<String>,
    /// The latest request of any of them.
    pub asked: Option<Timestamp>,
}

/// The node of each address that is announced, and the nodes that can announce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    addresses: BTreeMap<String, String>,
    nodes: Vec<String>,
    /// Whether each announcer that knows the request has ended it.
    ended: BTreeMap<String, bool>,
}

/// What has been observed so far.
#[derive(Clone, Debug)]
pub struct Progress {
    now: Spread,
    /// When the last address moved, since the start.
    changed: Duration,
    moves: usize,
    told: usize,
}

/// The state of a rebalance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// The announcers were asked, and the command did not wait.
    Requested,
    /// Addresses move, or may still.
    Moving,
    /// The nodes announce about as many addresses each.
    Even,
    /// The announcers have ended, and the numbers still differ.
    Settled,
    /// No announcer has taken up the request.
    Ignored,
}

/// What `-o json|yaml` prints. Fields may be added, never renamed or removed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// See [`State`].
    pub state: State,
    /// The time of the request, as in the annotation of the classes.
    pub requested: Timestamp,
    /// The classes.
    pub classes: Vec<String>,
    /// How many addresses moved while the command waited.
    pub moves: usize,
    /// Whether the nodes announce about as many addresses each.
    pub even: bool,
    /// Sorted by name.
    pub nodes: Vec<NodeLine>,
}

/// A node that can announce addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeLine {
    /// Its name.
    pub node: String,
    /// The number of addresses that it announces.
    pub addresses: usize,
}

/// The classes that these names mean; no name means all `l2` classes.
pub fn choose(all: &[DeserializeGuard<LoadBalancerClass>], names: &[String]) -> Chosen {
    let mut chosen = Chosen::default();
    let name_of = |guard: &DeserializeGuard<LoadBalancerClass>| {
        let meta = match &guard.0 {
            Ok(class) => &class.metadata,
            Err(broken) => &broken.metadata,
        };
        meta.name.clone().unwrap_or_default()
    };
    let wanted = |name: &String| names.is_empty() || names.contains(name);
    for guard in all {
        let name = name_of(guard);
        let l2 = guard
            .0
            .as_ref()
            .ok()
            .and_then(|class| class.spec.l2.as_ref());
        match l2 {
            Some(_) if wanted(&name) => {
                let asked = guard.0.as_ref().ok().and_then(asked);
                chosen.asked = chosen.asked.max(asked);
                chosen.classes.push(name);
            }
            None if names.contains(&name) => chosen.others.push(name),
            _ => {}
        }
    }
    chosen.classes.sort();
    let exists = |name: &&String| all.iter().any(|guard| name_of(guard) == **name);
    chosen.missing = names.iter().filter(|name| !exists(name)).cloned().collect();
    chosen
}

fn asked(class: &LoadBalancerClass) -> Option<Timestamp> {
    class.annotations().get(REBALANCE_AT)?.parse().ok()
}

/// The time of a new request, in whole seconds: now, but later than the last one of these classes. One that
/// is far in the future comes from a wrong clock, and announcers ignore it.
pub fn request(now: Timestamp, last: Option<Timestamp>) -> Timestamp {
    let whole = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at);
    let now = whole(now);
    let next = last.and_then(|last| whole(last).checked_add(ONE_SECOND).ok());
    let near = next.filter(|next| next.duration_since(now) < NEAR);
    near.map_or(now, |next| next.max(now))
}

/// The time at which the API server answered, as in the `Date` of its answer.
pub fn server_time(date: &str) -> Option<Timestamp> {
    let time = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(time.timestamp())
}

/// A table of the nodes.
pub fn table(report: &Report) -> String {
    let mut table = Table::new(&["NODE", "ADDRESSES"]);
    for line in &report.nodes {
        table.row(vec![
            Cell::new(&line.node),
            Cell::new(line.addresses.to_string()),
        ]);
    }
    table.render(Look::default())
}

/// The last line of the command.
pub fn summary(progress: &Progress, state: State, program: &str) -> String {
    let moves = match progress.moves {
        0 => "no address moved".to_owned(),
        1 => "1 address moved".to_owned(),
        moves => format!("{moves} addresses moved"),
    };
    match state {
        State::Requested => "requested".to_owned(),
        State::Even => format!("the addresses are spread evenly; {moves}"),
        State::Ignored => format!(
            "no announcer took up the request ({moves}): the clocks of the nodes and of the API server may be more than an hour apart, or the announcers are of an older version; see: {program} status --announcers"
        ),
        State::Settled => format!(
            "{moves}, and nothing moves any more: the other nodes may not announce more addresses, or prefer not to; see: {program} status --announcers"
        ),
        State::Moving => format!("{moves} so far; run the command again to wait for the rest"),
    }
}

// === impl Spread ===

impl Spread {
    /// What the announcers report, also about this request. Of several claims of an address, the best one
    /// counts.
    pub fn of(announcers: &[DeserializeGuard<Announcer>], requested: Timestamp) -> Self {
        let mut best: BTreeMap<String, (i64, Reverse<String>)> = BTreeMap::new();
        let mut nodes = Vec::new();
        let mut ended = BTreeMap::new();
        for announcer in announcers.iter().filter_map(|it| it.0.as_ref().ok()) {
            let node = announcer.metadata.name.clone().unwrap_or_default();
            let Some(status) = &announcer.status else {
                continue;
            };
            if status.interfaces.iter().any(|it| it.usable) {
                nodes.push(node.clone());
            }
            let mut requests = status.rebalances.iter();
            if let Some(request) = requests.find(|it| it.requested.0 == requested) {
                ended.insert(node.clone(), request.ended);
            }
            for holding in &status.holdings {
                let claim = (holding.epoch, Reverse(node.clone()));
                let known = best.entry(holding.address.clone());
                let known = known.or_insert_with(|| claim.clone());
                if claim > *known {
                    *known = claim;
                }
            }
        }
        nodes.sort();
        let addresses = best.into_iter();
        Self {
            addresses: addresses
                .map(|(address, (_, Reverse(node)))| (address, node))
                .collect(),
            nodes,
            ended,
        }
    }

    /// Whether all announcers that can announce have ended the request.
    fn all_ended(&self) -> bool {
        let mut nodes = self.nodes.iter();
        !self.nodes.is_empty() && nodes.all(|node| self.ended.get(node) == Some(&true))
    }

    /// Whether one of them has.
    fn some_ended(&self) -> bool {
        self.ended.values().any(|ended| *ended)
    }

    /// Whether no announcer reports.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.addresses.is_empty()
    }

    /// The number of addresses of each node that can announce, or does.
    pub fn counts(&self) -> BTreeMap<&str, usize> {
        let nodes = self.nodes.iter();
        let mut counts: BTreeMap<&str, usize> = nodes.map(|node| (node.as_str(), 0)).collect();
        for node in self.addresses.values() {
            *counts.entry(node).or_default() += 1;
        }
        counts
    }

    /// Whether each node announces about as many addresses as each other one.
    pub fn is_even(&self) -> bool {
        let counts = self.counts();
        let most = counts.values().max().copied().unwrap_or(0);
        let least = counts.values().min().copied().unwrap_or(0);
        most - least <= 1 || most * 10 <= least * 13
    }
}

// === impl Progress ===

impl Progress {
    /// The state when the announcers were asked.
    pub const fn begin(now: Spread) -> Self {
        Self {
            now,
            changed: Duration::ZERO,
            moves: 0,
            told: 0,
        }
    }

    /// Records another state, `at` this time since the start.
    pub fn observe(&mut self, now: Spread, at: Duration) {
        let before = &self.now.addresses;
        let moved = now.addresses.iter().filter(|(address, node)| {
            let former = before.get(*address);
            former.is_some_and(|former| former != *node)
        });
        let moved = moved.count();
        if moved > 0 {
            self.changed = at;
        }
        self.moves += moved;
        self.now = now;
    }

    /// The state at this time since the start. The announcers decide when it has ended.
    pub fn state(&self, at: Duration) -> State {
        let still = at.saturating_sub(self.changed) >= STILL;
        let ended = self.now.all_ended() || still && self.now.some_ended();
        if ended && self.now.is_even() {
            State::Even
        } else if ended {
            State::Settled
        } else if still && self.now.ended.is_empty() {
            State::Ignored
        } else {
            State::Moving
        }
    }

    /// Whether addresses moved since the last [`Self::line`].
    pub const fn has_news(&self) -> bool {
        self.moves > self.told
    }

    /// A line of progress.
    pub fn line(&mut self) -> String {
        self.told = self.moves;
        let counts = self.now.counts();
        let named = counts.iter().take(NAMED);
        let named: Vec<String> = named
            .map(|(node, count)| format!("{node} {count}"))
            .collect();
        let more = match counts.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(", and {more} more nodes"),
        };
        format!(
            "{} moved; addresses per node: {}{more}",
            self.moves,
            named.join(", ")
        )
    }
}

// === impl Report ===

impl Report {
    /// The result.
    pub fn of(progress: &Progress, state: State, requested: Timestamp, classes: &[String]) -> Self {
        let counts = progress.now.counts().into_iter();
        Self {
            state,
            requested,
            classes: classes.to_vec(),
            moves: progress.moves,
            even: progress.now.is_even(),
            nodes: counts
                .map(|(node, addresses)| NodeLine {
                    node: node.to_owned(),
                    addresses,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
