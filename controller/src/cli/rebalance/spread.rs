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
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const REQUESTED: Timestamp = Timestamp::UNIX_EPOCH;

    /// What each announcer says about the request.
    fn ended(mut spread: Spread, ended: &[bool]) -> Spread {
        let ended = ended.iter().enumerate();
        spread.ended = ended.map(|(n, it)| (format!("node-{n}"), *it)).collect();
        spread
    }

    fn announcer(
        node: &str,
        usable: bool,
        holdings: &[(&str, i64)],
    ) -> DeserializeGuard<Announcer> {
        let holdings: Vec<Value> = holdings
            .iter()
            .map(|(address, epoch)| json!({"address": address, "epoch": epoch}))
            .collect();
        let object = json!({
            "apiVersion": "ballast.dev/v1alpha1", "kind": "Announcer", "metadata": {"name": node},
            "status": {
                "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "usable": usable}],
                "holdings": holdings,
            },
        });
        DeserializeGuard(Ok(serde_json::from_value(object).unwrap()))
    }

    /// Nodes with this many addresses each.
    fn spread(counts: &[usize]) -> Spread {
        let all = counts.iter().enumerate().map(|(number, count)| {
            let holdings: Vec<String> = (0..*count).map(|n| format!("10.0.{number}.{n}")).collect();
            let holdings: Vec<(&str, i64)> = holdings.iter().map(|it| (it.as_str(), 1)).collect();
            announcer(&format!("node-{number}"), true, &holdings)
        });
        Spread::of(&all.collect::<Vec<_>>(), REQUESTED)
    }

    #[test]
    fn the_best_claim_of_an_address_counts() {
        let announcers = [
            announcer("a", true, &[("192.0.2.1", 1), ("192.0.2.2", 2)]),
            announcer("b", true, &[("192.0.2.1", 2), ("192.0.2.2", 2)]),
            announcer("c", false, &[]),
        ];
        let spread = Spread::of(&announcers, REQUESTED);
        let counts = spread.counts();
        assert_eq!(counts, [("a", 1), ("b", 1)].into(), "c cannot announce");
        assert!(!spread.is_empty());
        assert!(Spread::of(&[], REQUESTED).is_empty());
    }

    #[test]
    fn a_spread_is_even_within_a_third_or_one() {
        for (counts, even) in [
            (&[][..], true),
            (&[5], true),
            (&[0, 1, 1], true),
            (&[0, 2], false),
            (&[100, 130], true),
            (&[100, 131], false),
            (&[3, 4, 4], true),
        ] {
            assert_eq!(spread(counts).is_even(), even, "{counts:?}");
        }
    }

    /// An even spread is no end: the announcers go on until the numbers differ by one at most.
    #[test]
    fn it_ends_when_the_announcers_have_ended() {
        let seconds = Duration::from_secs;
        let mut progress = Progress::begin(spread(&[4, 0]));
        assert_eq!(progress.state(seconds(29)), State::Moving);
        assert_eq!(
            progress.state(seconds(30)),
            State::Ignored,
            "nobody knows it"
        );
        let mut moved = ended(spread(&[4, 0]), &[false, false]);
        moved.addresses.insert("10.0.0.0".into(), "node-1".into());
        progress.observe(moved.clone(), seconds(10));
        assert_eq!(
            progress.line(),
            "1 moved; addresses per node: node-0 3, node-1 1"
        );
        assert!(!progress.has_news());
        assert_eq!(progress.state(seconds(999)), State::Moving, "they go on");
        moved.addresses.insert("10.0.0.1".into(), "node-1".into());
        progress.observe(moved.clone(), seconds(20));
        assert_eq!(progress.state(seconds(20)), State::Moving, "even");
        assert!(progress.has_news());
        progress.observe(ended(moved.clone(), &[true, false]), seconds(31));
        assert_eq!(progress.state(seconds(49)), State::Moving);
        assert_eq!(progress.state(seconds(50)), State::Even, "a node is gone");
        progress.observe(ended(moved, &[true, true]), seconds(31));
        assert_eq!(progress.state(seconds(31)), State::Even);
        let report = Report::of(&progress, State::Even, REQUESTED, &[]);
        assert_eq!((report.moves, report.even), (2, true));
        insta::assert_snapshot!(table(&report), @r"
        NODE     ADDRESSES
        node-0   2
        node-1   2
        ");
        let uneven = Progress::begin(ended(spread(&[4, 0]), &[true, true]));
        assert_eq!(uneven.state(seconds(1)), State::Settled);
    }

    #[test]
    fn an_announcer_that_cannot_announce_is_not_awaited() {
        let ended = |node: &str, usable, ended: bool| {
            let mut announcer = announcer(node, usable, &[]).0.unwrap();
            let requested = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(REQUESTED);
            announcer.status.as_mut().unwrap().rebalances =
                vec![ballast_crds::AnnouncerRebalance { requested, ended }];
            DeserializeGuard(Ok(announcer))
        };
        for (all, expected) in [
            ([ended("a", true, true), ended("b", false, false)], true),
            ([ended("a", true, true), ended("b", true, false)], false),
            ([ended("a", true, true), announcer("b", true, &[])], false),
        ] {
            assert_eq!(Spread::of(&all, REQUESTED).all_ended(), expected);
            let later = REQUESTED + ONE_SECOND;
            assert!(Spread::of(&all, later).ended.is_empty(), "another request");
        }
    }

    /// The clock of this machine does not matter.
    #[test]
    fn a_request_has_the_time_of_the_api_server_and_a_time_of_its_own() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = server_time("Thu, 26 Nov 2026 10:47:16 GMT").unwrap();
        assert_eq!(now, at("2026-11-26T10:47:16Z"));
        assert_eq!(server_time("yesterday"), None);
        for (last, expected) in [
            (None, "2026-11-26T10:47:16Z"),
            (Some("2026-11-26T10:47:15.9Z"), "2026-11-26T10:47:16Z"),
            (Some("2026-11-26T10:47:16Z"), "2026-11-26T10:47:17Z"),
            (Some("2026-11-26T10:48:00Z"), "2026-11-26T10:48:01Z"),
            (Some("2027-11-26T10:47:16Z"), "2026-11-26T10:47:16Z"),
        ] {
            let found = request(at("2026-11-26T10:47:16.5Z"), last.map(at));
            assert_eq!(found, at(expected), "after {last:?}");
        }
    }

    #[test]
    fn classes_are_found_by_name_or_provider() {
        let class = |name: &str, spec: Value| {
            let class = serde_json::from_value(json!({
                "apiVersion": "ballast.dev/v1alpha1", "kind": "LoadBalancerClass",
                "metadata": {"name": name}, "spec": spec,
            }));
            DeserializeGuard(Ok(class.unwrap()))
        };
        let all = [
            class("lan", json!({"l2": {}})),
            class(
                "edge",
                json!({"l2": {"preferredNodes": {"matchLabels": {"a": "b"}}}}),
            ),
            class("cloud", json!({"mock": {"endpoint": "http://127.0.0.1:1"}})),
        ];
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&it| it.to_owned()).collect();
            choose(&all, &names)
        };
        let lan = of(&["lan"]);
        assert_eq!((lan.classes, lan.asked), (vec!["lan".to_owned()], None));
        let every = of(&[]);
        assert_eq!(every.classes, ["edge", "lan"]);
        assert!(every.others.is_empty() && every.missing.is_empty());
        assert_eq!(of(&["cloud"]).others, ["cloud"]);
        assert_eq!(of(&["lan", "nothing"]).missing, ["nothing"]);
    }
}
