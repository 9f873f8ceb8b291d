//! Report: what the agent says to whoever writes its Announcer object.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ballast_announce::claim::Claim;
use ballast_announce::holding::Origin;
use ballast_announce::io::Problem;
use ballast_announce::responder::Table;
use ballast_announce::view::Interface;
use ballast_announce::{Mac, NodeName, Time};
use ipnet::IpNet;

/// An interface must be unusable for this long before it is published as such, so that a short
/// loss moves nothing.
const SETTLED_UNUSABLE: Duration = Duration::from_secs(2);

/// What the agent says. A new one is sent only when something changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The addresses that this node holds. `None`: it does not know yet, so what its object
    /// records stays.
    pub claims: Option<Arc<Vec<(IpAddr, Claim)>>>,
    /// Where it answers for each address, while it does.
    pub announced: Arc<BTreeMap<IpAddr, Announced>>,
    /// Why it holds the addresses that this process claimed. Others are held as the object says:
    /// a former process claimed them.
    pub sources: Arc<BTreeMap<IpAddr, Source>>,
    /// Another process of this node has started, and writes the object from now on.
    pub replaced: bool,
    /// Its interfaces.
    pub interfaces: Vec<ReportedInterface>,
    /// What conditions should say.
    pub problems: BTreeSet<Problem>,
    /// The latest requests to rebalance, oldest first, and whether each has ended.
    pub requests: Vec<(u64, bool)>,
}

/// Why a node holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The epoch of the claim.
    pub epoch: u64,
    /// Why.
    pub cause: Origin,
    /// Who held it before.
    pub previous: Option<NodeName>,
    /// When it was announced first; `None` before that.
    pub since: Option<SystemTime>,
}

/// Where an address is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The name of the interface.
    pub interface: Arc<str>,
    /// The MAC in the answers.
    pub mac: Mac,
}

/// An interface that can announce addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedInterface {
    /// Its index on this node.
    pub index: u32,
    /// `eth0`
    pub name: Arc<str>,
    /// Its MAC address.
    pub mac: Mac,
    /// Its networks, each with the node's own address in it.
    pub nets: Vec<IpNet>,
    /// Whether it has a carrier, and other hosts answer there; `false` only after 2 s.
    pub usable: bool,
}

/// Delays the news that an interface cannot serve.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usable(BTreeMap<u32, State>);

#[derive(Clone, Copy, Debug)]
struct State {
    published: bool,
    /// Since when it has been the other way.
    unusable_since: Option<Time>,
}

// === impl ReportedInterface ===

impl ReportedInterface {
    pub(crate) fn new(interface: &Interface, usable: bool) -> Self {
        Self {
            index: interface.index,
            name: Arc::clone(&interface.name),
            mac: interface.mac,
            nets: interface.nets.clone(),
            usable,
        }
    }

    /// Whether it says this about this interface.
    pub(crate) fn shows(&self, interface: &Interface, usable: bool) -> bool {
        self.usable == usable
            && self.index == interface.index
            && self.name == interface.name
            && self.mac == interface.mac
            && self.nets == interface.nets
    }
}

impl From<&ReportedInterface> for Interface {
    /// As others read it.
    fn from(reported: &ReportedInterface) -> Self {
        Self {
            index: reported.index,
            name: Arc::clone(&reported.name),
            mac: reported.mac,
            nets: reported.nets.clone(),
            carrier: reported.usable,
        }
    }
}

/// Where each address of a table is announced.
pub(crate) fn announced(table: &Table, interfaces: &[Interface]) -> BTreeMap<IpAddr, Announced> {
    let all = table.iter().filter_map(|(address, entry)| {
        let mut known = interfaces.iter();
        let interface = known.find(|interface| interface.index == entry.interface)?;
        // A node that stands in answers, but the holder says so.
        let own = entry.answer == entry.own;
        let announced = Announced {
            interface: Arc::clone(&interface.name),
            mac: entry.answer,
        };
        own.then_some((*address, announced))
    });
    all.collect()
}

// === impl Usable ===

impl Usable {
    /// What to publish about an interface. One that is new is published as it is.
    pub(crate) fn publish(&mut self, interface: u32, usable: bool, now: Time) -> bool {
        let state = self.0.entry(interface).or_insert(State {
            published: usable,
            unusable_since: None,
        });
        if usable {
            *state = State {
                published: true,
                unusable_since: None,
            };
        } else {
            let since = *state.unusable_since.get_or_insert(now);
            if now.since(since) >= SETTLED_UNUSABLE {
                state.published = false;
            }
        }
        state.published
    }

    /// Keeps only these interfaces.
    pub(crate) fn retain(&mut self, exists: impl Fn(u32) -> bool) {
        self.0.retain(|interface, _| exists(*interface));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lasting_loss_is_published() {
        let mut usable = Usable::default();
        let at = |ms| Time::after_start(Duration::from_millis(ms));
        for (ms, is, published) in [
            (0, true, true),
            (100, false, true),
            (2000, false, true),
            (2050, true, true),
            (2100, false, true),
            (4099, false, true),
            (4100, false, false),
            (9000, false, false),
            (9050, true, true),
            (9100, false, true),
        ] {
            assert_eq!(usable.publish(2, is, at(ms)), published, "at {ms} ms");
        }
        assert!(!usable.publish(3, false, at(0)), "a new one as it is");
        usable.retain(|interface| interface == 3);
        assert!(!usable.publish(2, false, at(9200)), "a new one again");
    }
}
