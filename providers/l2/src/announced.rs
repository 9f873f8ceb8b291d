//! Which node announces which address, as the announcers report it.
//!
//! Each node's announcer writes what it announces into an object of its own. [`table`] chooses
//! from all of them: pure, with the time as an argument. [`Announcements`] puts the result behind
//! a lock, for the provider and for metrics. The controller passes in each change, off the path
//! of a failover: nodes never wait for it.

pub mod cause;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_provider::Place;

use self::table::{Change, Table};

/// What the announcer of one node reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The name of the node.
    pub node: Arc<str>,
    /// The addresses that it has claimed.
    pub holdings: Vec<Holding>,
    /// Addresses that other hosts on the network use, with their MAC addresses.
    pub conflicts: Vec<(IpAddr, Arc<str>)>,
    /// Addresses of Services without an endpoint that serves.
    pub idle: Vec<IpAddr>,
    /// Interfaces on which no other host responds.
    pub cut_off: Vec<Arc<str>>,
    /// Nodes whose reports have no valid seal, as this one says. The controller has no key.
    pub untrusted: Vec<Arc<str>>,
}

/// An address that a node has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The address.
    pub address: IpAddr,
    /// Of two nodes, the one with the higher epoch has it.
    pub epoch: u64,
    /// The interface on which the node announces it; `None`: the node has claimed it and does
    /// not announce it now.
    pub interface: Option<Arc<str>>,
    /// Why this node has it; see [`cause`].
    pub cause: Option<Arc<str>>,
    /// The node that had it before.
    pub previous: Option<Arc<str>>,
}

/// The reports in the order of nodes. Of a node that most of all announcers do not trust, nothing is
/// left but that it has one: whoever has the token of one node can neither make the others say so,
/// nor keep them from saying it.
fn believed(mut reports: Vec<Arc<Report>>) -> Vec<Arc<Report>> {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for report in &reports {
        let named: BTreeSet<&str> = report.untrusted.iter().map(|it| &**it).collect();
        for node in named.into_iter().filter(|node| *node != &*report.node) {
            *votes.entry(node).or_default() += 1;
        }
    }
    votes.retain(|_, count| *count > reports.len() / 2);
    let liars: BTreeSet<Arc<str>> = votes.into_keys().map(Arc::from).collect();
    for report in &mut reports {
        if liars.contains(&report.node) {
            *report = Arc::new(Report {
                node: Arc::clone(&report.node),
                ..Report::default()
            });
        }
    }
    // Bounds leave out the same ones each time.
    reports.sort_by(|a, b| a.node.cmp(&b.node));
    reports
}

/// The table of this process; see the module documentation.
#[derive(Debug, Default)]
pub struct Announcements {
    table: Mutex<Option<Arc<Table>>>,
}

// === impl Announcements ===

impl Announcements {
    /// Chooses anew. `is_alive`: whether a node reports to the API server. `now`: a time that
    /// never decreases. Returns what changed, and when to call it again at the latest.
    pub fn update(
        &self,
        reports: Vec<Arc<Report>>,
        is_alive: impl Fn(&str) -> bool,
        now: Duration,
    ) -> (Change, Option<Duration>) {
        let reports = believed(reports);
        // Computed outside of the lock. Only one task updates.
        let before = self.lock().clone().unwrap_or_default();
        let after = before.next(&reports, is_alive, now);
        let change = after.change_since(&before);
        let again = after.due();
        *self.lock() = Some(Arc::new(after));
        (change, again)
    }

    /// Whether the announcers have been read.
    pub fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// Whether a node announces this address.
    pub fn announces(&self, address: IpAddr) -> bool {
        let table = self.lock();
        table.as_ref().is_some_and(|table| table.announces(address))
    }

    /// Where these addresses are announced.
    pub fn places(&self, addresses: &[IpAddr]) -> Vec<Place> {
        let table = self.lock().clone();
        let place = |address: &IpAddr| match &table {
            Some(table) => table.place(*address),
            None => Place {
                address: *address,
                spot: None,
                remark: None,
            },
        };
        addresses.iter().map(place).collect()
    }

    // A table is replaced as a whole, so a panic leaves none half changed.
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Table>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Change ===

impl Change {
    /// Whether something changed that a Service with these addresses reports.
    pub fn concerns(&self, addresses: impl IntoIterator<Item = IpAddr>, unannounced: bool) -> bool {
        let mut addresses = addresses.into_iter();
        (self.announcers && unannounced) || addresses.any(|it| self.addresses.contains(&it))
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        !self.announcers && self.addresses.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: &str, untrusted: &[&str]) -> Arc<Report> {
        Arc::new(Report {
            node: node.into(),
            idle: vec![[192, 0, 2, 1].into()],
            untrusted: untrusted.iter().map(|it| Arc::from(*it)).collect(),
            ..Report::default()
        })
    }

    /// Nodes whose reports are left, of these.
    fn left(reports: &[(&str, &[&str])]) -> String {
        let reports = reports.iter().map(|(node, said)| report(node, said));
        let believed = believed(reports.collect()).into_iter();
        let left = believed.filter(|it| !it.idle.is_empty());
        left.map(|it| it.node.to_string()).collect()
    }

    #[test]
    fn most_announcers_decide_which_one_is_believed() {
        for (reports, expected) in [
            (&[("b", &[][..]), ("a", &[]), ("c", &[])][..], "abc"),
            (&[("a", &["c"]), ("b", &["c"]), ("c", &[])], "ab"),
            // The liar has one voice, whatever it says.
            (
                &[("a", &["c"]), ("b", &["c"]), ("c", &["a", "b", "a", "a"])],
                "ab",
            ),
            (&[("a", &[]), ("b", &[]), ("c", &["a", "b"])], "abc"),
            // One of two is not most of them.
            (&[("a", &["b"]), ("b", &["a"])], "ab"),
            (&[("a", &["a"]), ("b", &[])], "ab"),
            (&[("a", &["z"]), ("b", &["z"])], "ab"),
        ] {
            assert_eq!(left(reports), expected, "{reports:?}");
        }
    }
}
