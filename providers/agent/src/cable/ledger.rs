//! Which processes are connected, so that the node hears of each once.

use std::collections::BTreeMap;

use ballast_announce::NodeName;

/// The process at the other side of a cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) node: NodeName,
    /// A random number per process.
    pub(super) incarnation: u64,
}

/// The latest process of each node that has a cable.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    open: BTreeMap<NodeName, Entry>,
}

#[derive(Debug)]
struct Entry {
    incarnation: u64,
    cables: usize,
    /// One of its cables was closed, which was reported.
    closed: bool,
}

// === impl Ledger ===

impl Ledger {
    /// A cable is connected. Returns whether to report it.
    pub(super) fn connected(&mut self, process: &Process) -> bool {
        let entry = self.open.entry(process.node.clone()).or_insert(Entry {
            incarnation: process.incarnation,
            cables: 0,
            closed: false,
        });
        if entry.incarnation != process.incarnation {
            *entry = Entry {
                incarnation: process.incarnation,
                cables: 0,
                closed: false,
            };
        }
        entry.cables += 1;
        let news = entry.cables == 1 || entry.closed;
        entry.closed = false;
        news
    }

    /// A cable ended; `closed` by the end of the process. Returns whether to report that.
    pub(super) fn ended(&mut self, process: &Process, closed: bool) -> bool {
        let Some(entry) = self.open.get_mut(&process.node) else {
            return false;
        };
        // A former process: there is a newer one.
        if entry.incarnation != process.incarnation {
            return false;
        }
        let news = closed && !entry.closed;
        entry.closed |= closed;
        entry.cables -= 1;
        if entry.cables == 0 {
            self.open.remove(&process.node);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Up(u64),
        Closed(u64),
        Lost(u64),
    }
    use Event::{Closed, Lost, Up};

    #[test]
    fn a_process_is_reported_once() {
        for (what, events, reported) in [
            ("one cable", vec![Up(1), Closed(1)], vec![true, true]),
            (
                "both directions",
                vec![Up(1), Up(1), Closed(1), Closed(1)],
                vec![true, false, true, false],
            ),
            (
                "a broken path",
                vec![Up(1), Lost(1), Up(1)],
                vec![true, false, true],
            ),
            (
                "one of two is lost",
                vec![Up(1), Up(1), Lost(1), Closed(1)],
                vec![true, false, false, true],
            ),
            (
                "a new process before the end of the former one",
                vec![Up(1), Up(2), Closed(1), Closed(2)],
                vec![true, true, false, true],
            ),
            (
                "a connection was reset, and the process lives",
                vec![Up(1), Up(1), Closed(1), Up(1), Closed(1), Closed(1)],
                vec![true, false, true, true, true, false],
            ),
            (
                "a former process, late",
                vec![Up(1), Up(2), Closed(2), Closed(1)],
                vec![true, true, true, false],
            ),
        ] {
            let mut ledger = Ledger::default();
            let process = |incarnation| Process {
                node: NodeName::new("node-1"),
                incarnation,
            };
            let found: Vec<bool> = events
                .iter()
                .map(|event| match event {
                    Up(it) => ledger.connected(&process(*it)),
                    Closed(it) => ledger.ended(&process(*it), true),
                    Lost(it) => ledger.ended(&process(*it), false),
                })
                .collect();
            assert_eq!(found, reported, "{what}");
        }
    }

    #[test]
    fn nothing_is_kept_of_a_process_without_a_cable() {
        let mut ledger = Ledger::default();
        for n in 0..10 {
            let process = Process {
                node: NodeName::new(&format!("node-{n}")),
                incarnation: 1,
            };
            ledger.connected(&process);
            ledger.ended(&process, n % 2 == 0);
        }
        assert!(ledger.open.is_empty());
    }
}
