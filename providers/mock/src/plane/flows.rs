//! UDP clients and where their datagrams go. Pure, bounded; generic over what carries
//! a flow, so that it can be tested without sockets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::balance::Candidate;

/// All flows of one socket.
#[derive(Debug)]
pub(super) struct FlowTable<U> {
    capacity: usize,
    idle: Duration,
    flows: HashMap<SocketAddr, Flow<U>>,
}

/// One client.
#[derive(Debug)]
pub(super) struct Flow<U> {
    pub(super) target: Candidate,
    /// Sends to the target, and carries back what it answers.
    pub(super) upstream: U,
    /// Up to which version of the world the target is known to be right.
    pub(super) checked: u64,
    heard: Instant,
}

/// What a flow's carrier knows.
pub(super) trait Upstream {
    /// When the target was last heard of, if ever.
    fn answered(&self) -> Option<Instant>;
    /// Whether the target said that nobody listens.
    fn broken(&self) -> bool;
}

/// The table is full of clients that are not idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

// === impl FlowTable ===

impl<U: Upstream> FlowTable<U> {
    pub(super) fn new(capacity: usize, idle: Duration) -> Self {
        Self {
            capacity,
            idle,
            flows: HashMap::new(),
        }
    }

    /// The client's flow if it can go on: its target did not refuse and is among the
    /// eligible ones (asked only if the world has changed since).
    pub(super) fn current(
        &mut self,
        client: SocketAddr,
        now: Instant,
        version: u64,
        eligible: impl FnOnce() -> Vec<Candidate>,
    ) -> Option<&U> {
        let good = {
            let flow = self.flows.get_mut(&client)?;
            let good = !flow.upstream.broken()
                && (flow.checked == version || eligible().contains(&flow.target));
            if good {
                flow.checked = version;
                flow.heard = now;
            }
            good
        };
        if !good {
            self.flows.remove(&client);
        }
        self.flows.get(&client).map(|flow| &flow.upstream)
    }

    /// The target that refused this client, to be tried last.
    pub(super) fn refused_by(&self, client: SocketAddr) -> Option<&str> {
        let flow = self.flows.get(&client)?;
        flow.upstream.broken().then_some(flow.target.name.as_str())
    }

    /// Whether a new client has room; idle ones make it.
    pub(super) fn room(&mut self, now: Instant) -> Result<(), Full> {
        if self.flows.len() >= self.capacity {
            self.expire(now);
        }
        if self.flows.len() < self.capacity {
            Ok(())
        } else {
            Err(Full)
        }
    }

    /// Takes a new flow.
    pub(super) fn insert(
        &mut self,
        client: SocketAddr,
        target: Candidate,
        upstream: U,
        now: Instant,
        version: u64,
    ) -> &U {
        let flow = Flow {
            target,
            upstream,
            checked: version,
            heard: now,
        };
        &self
            .flows
            .entry(client)
            .insert_entry(flow)
            .into_mut()
            .upstream
    }

    /// Forgets clients between which and their target nothing went for the idle time.
    pub(super) fn expire(&mut self, now: Instant) {
        let idle = self.idle;
        self.flows.retain(|_, flow| {
            let last = flow
                .upstream
                .answered()
                .map_or(flow.heard, |at| at.max(flow.heard));
            now.duration_since(last) < idle
        });
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Fake {
        answered: Option<Instant>,
        broken: bool,
    }

    impl Upstream for Fake {
        fn answered(&self) -> Option<Instant> {
            self.answered
        }

        fn broken(&self) -> bool {
            self.broken
        }
    }

    const IDLE: Duration = Duration::from_mins(1);

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn target(name: &str) -> Candidate {
        Candidate {
            name: name.into(),
            address: "10.0.0.1:30053".parse().unwrap(),
        }
    }

    #[test]
    fn a_flow_goes_on_while_its_target_is_eligible() {
        let mut table = FlowTable::new(4, IDLE);
        let now = Instant::now();
        table.insert(client(1), target("a"), Fake::default(), now, 7);
        let never = || -> Vec<Candidate> { panic!("asked without need") };
        assert!(table.current(client(1), now, 7, never).is_some());
        assert!(
            table
                .current(client(1), now, 8, || vec![target("a")])
                .is_some()
        );
        assert!(
            table
                .current(client(1), now, 9, || vec![target("b")])
                .is_none()
        );
        assert_eq!(table.len(), 0, "the stale flow is gone");
    }

    #[test]
    fn a_target_that_refused_is_named_and_left() {
        let mut table = FlowTable::new(4, IDLE);
        let now = Instant::now();
        let broken = Fake {
            broken: true,
            ..Fake::default()
        };
        table.insert(client(1), target("a"), broken, now, 7);
        assert_eq!(table.refused_by(client(1)), Some("a"));
        assert!(table.current(client(1), now, 7, Vec::new).is_none());
    }

    #[test]
    fn only_silence_of_both_sides_frees_a_place() {
        let mut table = FlowTable::new(2, IDLE);
        let start = Instant::now();
        let answering = Fake {
            answered: Some(start + IDLE),
            ..Fake::default()
        };
        table.insert(client(1), target("a"), answering, start, 0);
        table.insert(client(2), target("a"), Fake::default(), start, 0);
        assert_eq!(table.room(start), Err(Full));
        assert_eq!(table.room(start + IDLE), Ok(()));
        assert_eq!(
            table.len(),
            1,
            "the one whose target answered is still there"
        );
        table.expire(start + IDLE * 2);
        assert_eq!(table.len(), 0);
    }
}
