//! Chooses, for each address, the node that announces it. Pure.
//!
//! - **The claim with the higher epoch counts**, and of equal epochs the lower name, as between the
//!   nodes themselves. During a move two nodes report one address for a moment.
//! - **The report of a dead node does not count.** A node that stops can take nothing out of its
//!   object. Other nodes take its addresses over at once if they can; if they cannot, nobody
//!   announces them, although the object still says so.
//! - **Good news counts at once, other news only when it lasts.** A restart of an announcer, a
//!   deleted object that is created again, or a rollout of a Deployment must not change the
//!   conditions of Services. So what is only lost or remarked changes after [`PATIENCE`]: counted since it
//!   differs from what is shown, also if it is something else by then.
//!
//! ```text
//!           another node, or the first one          lost, or another remark
//!  shown ◀──────────────────────────────── fresh ─────────────────────────▶ waiting
//!    ▲                                                                        │
//!    └──────────────────────────── for PATIENCE ──────────────────────────────┘
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_provider::{Place, Spot};

use super::cause::why;
use super::{Holding, Report};

/// How long it must last that an address is not announced any more, or a remark, before Services
/// report it. It is longer than a restart of an announcer takes.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The addresses of which the table keeps something. The CRD allows more than any cluster has.
const MOST: usize = 65_536;

/// What is known of all addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    entries: HashMap<IpAddr, Entry>,
    /// At least one announcer reports.
    announcers: bool,
}

/// What differs between two tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The addresses of which something else is reported.
    pub addresses: BTreeSet<IpAddr>,
    /// The first announcer reports, or the last one no longer does.
    pub announcers: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    shown: Seen,
    /// What is reported now and is not shown yet, and since when.
    waiting: Option<(Seen, Duration)>,
}

/// What reports say of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    by: Option<By>,
    remark: Option<Remark>,
}

/// The node that announces an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct By {
    node: Arc<str>,
    interface: Arc<str>,
    cause: Option<Arc<str>>,
    previous: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Remark {
    /// The host with this MAC address uses it.
    Conflict(Arc<str>),
    /// No other host responds to this node on this interface, on which it announces it.
    CutOff(Arc<str>, Arc<str>),
    /// The Service has no endpoint that serves.
    Idle,
    /// This node announced it, and does not report any more.
    Dead(Arc<str>),
}

// === impl Table ===

impl Table {
    /// The table after these reports; `is_alive`: whether a node reports to the API server.
    #[must_use]
    pub fn next(
        &self,
        reports: &[Arc<Report>],
        is_alive: impl Fn(&str) -> bool,
        now: Duration,
    ) -> Self {
        let mut fresh = fresh(reports, is_alive);
        // Addresses that nobody reports any more.
        for address in self.entries.keys() {
            fresh.entry(*address).or_default();
        }
        let entries = fresh.into_iter().filter_map(|(address, seen)| {
            let entry = match self.entries.get(&address) {
                Some(entry) => entry.next(seen, now),
                None => Entry {
                    shown: seen,
                    waiting: None,
                },
            };
            (entry != Entry::default()).then_some((address, entry))
        });
        Self {
            entries: entries.collect(),
            announcers: !reports.is_empty(),
        }
    }

    /// What Services report otherwise now.
    pub fn change_since(&self, before: &Self) -> Change {
        let nothing = Seen::default();
        let shown = |table: &Self, address: &IpAddr| {
            let entry = table.entries.get(address);
            entry.map_or(nothing.clone(), |entry| entry.shown.clone())
        };
        let all = self.entries.keys().chain(before.entries.keys());
        Change {
            addresses: all
                .filter(|it| !shown(self, it).reads_like(&shown(before, it)))
                .copied()
                .collect(),
            announcers: self.announcers != before.announcers,
        }
    }

    /// When the table changes without another report.
    pub fn due(&self) -> Option<Duration> {
        let waiting = self.entries.values().filter_map(|it| it.waiting.as_ref());
        waiting.map(|(_, since)| *since + PATIENCE).min()
    }

    /// Whether a node announces this address.
    pub fn announces(&self, address: IpAddr) -> bool {
        let entry = self.entries.get(&address);
        entry.is_some_and(|entry| entry.shown.by.is_some())
    }

    /// Where an address is announced.
    pub fn place(&self, address: IpAddr) -> Place {
        let nothing = Entry::default();
        let Seen { by, remark } = &self.entries.get(&address).unwrap_or(&nothing).shown;
        let remark = match remark {
            None if by.is_none() && !self.announcers => {
                Some("no announcer runs in this cluster".to_owned())
            }
            remark => remark.as_ref().map(|it| it.words(address)),
        };
        let spot = by.as_ref().map(|by| Spot {
            node: (*by.node).to_owned(),
            interface: (*by.interface).to_owned(),
            why: by.cause.as_deref().and_then(why),
            previous: by.previous.as_deref().map(str::to_owned),
        });
        Place {
            address,
            spot,
            remark,
        }
    }
}

/// What the reports say now, without what was shown before.
fn fresh(reports: &[Arc<Report>], is_alive: impl Fn(&str) -> bool) -> HashMap<IpAddr, Seen> {
    let (alive, dead): (Vec<&Report>, Vec<&Report>) = reports
        .iter()
        .map(Arc::as_ref)
        .partition(|report| is_alive(&report.node));
    let mut all: HashMap<IpAddr, Seen> = HashMap::new();
    for (address, (report, _)) in best(&dead) {
        let remark = Some(Remark::Dead(Arc::clone(&report.node)));
        all.insert(address, Seen { by: None, remark });
    }
    for (address, (report, holding)) in best(&alive) {
        let by = holding.interface.as_ref().map(|interface| By {
            node: Arc::clone(&report.node),
            interface: Arc::clone(interface),
            cause: holding.cause.clone(),
            previous: holding.previous.clone(),
        });
        let cut_off = by
            .as_ref()
            .filter(|by| report.cut_off.contains(&by.interface));
        let idle = report.idle.contains(&address);
        let remark = match cut_off {
            Some(by) => {
                let (node, interface) = (Arc::clone(&by.node), Arc::clone(&by.interface));
                Some(Remark::CutOff(node, interface))
            }
            None => idle.then_some(Remark::Idle),
        };
        all.insert(address, Seen { by, remark });
    }
    for (address, mac) in alive.iter().flat_map(|report| &report.conflicts) {
        let seen = all.entry(*address).or_default();
        seen.remark = Some(Remark::Conflict(Arc::clone(mac)));
    }
    all
}

/// The best claim of each address, of at most [`MOST`].
fn best<'a>(reports: &[&'a Report]) -> HashMap<IpAddr, (&'a Report, &'a Holding)> {
    let mut all: HashMap<IpAddr, (&Report, &Holding)> = HashMap::new();
    for report in reports {
        for holding in &report.holdings {
            let rank = |(report, holding): &(&'a Report, &'a Holding)| {
                (holding.epoch, Reverse(Arc::clone(&report.node)))
            };
            if all.len() >= MOST && !all.contains_key(&holding.address) {
                continue;
            }
            let claim = (*report, holding);
            let known = all.entry(holding.address).or_insert(claim);
            if rank(&claim) > rank(known) {
                *known = claim;
            }
        }
    }
    all
}

// === impl Entry ===

impl Entry {
    fn next(&self, fresh: Seen, now: Duration) -> Self {
        let at_once = fresh == self.shown || fresh.moved_from(&self.shown);
        let since = match &self.waiting {
            Some((_, since)) => *since,
            None => now,
        };
        if at_once || now >= since + PATIENCE {
            return Self {
                shown: fresh,
                waiting: None,
            };
        }
        Self {
            shown: self.shown.clone(),
            waiting: Some((fresh, since)),
        }
    }
}

// === impl Seen ===

impl Seen {
    /// Whether a node announces the address in another place than before, or for another reason.
    fn moved_from(&self, before: &Self) -> bool {
        self.by.is_some() && self.by != before.by
    }

    /// Whether the conditions of Services are the same.
    fn reads_like(&self, other: &Self) -> bool {
        let place = |seen: &Self| {
            let by = seen.by.as_ref();
            by.map(|by| (Arc::clone(&by.node), Arc::clone(&by.interface)))
        };
        self.remark == other.remark && place(self) == place(other)
    }
}

// === impl Remark ===

impl Remark {
    fn words(&self, address: IpAddr) -> String {
        match self {
            Self::Conflict(mac) => format!("another host on the network uses {address} ({mac})"),
            Self::CutOff(node, interface) => {
                format!("no other host on the network responds to {node} on {interface}")
            }
            Self::Idle => "no endpoint of the Service serves".to_owned(),
            Self::Dead(node) => {
                format!("{node} announced it and does not report to the API server any more")
            }
        }
    }
}

#[cfg(test)]
mod tests;
