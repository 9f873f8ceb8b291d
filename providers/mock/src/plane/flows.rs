//! UDP clients and where their datagrams go. Pure; generic over what carries a flow, so that
//! it can be tested without sockets. Its size is bounded by the places that flows take.
//!
//! A flow is *new*, and becomes *established* when its target has answered and its client has
//! sent again. New flows have a short time-out: an exchange such as a DNS query is over by
//! then, and datagrams with invented sources get no further.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::balance::Candidate;

/// A search for room removes this part of a table (one in 32), so that searches are rare.
const EVICTED_PART: usize = 32;

/// How long a flow lives without a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) new: Duration,
    pub(super) established: Duration,
}

/// All flows of one socket.
#[derive(Debug)]
pub(super) struct FlowTable<U> {
    timeouts: Timeouts,
    flows: HashMap<SocketAddr, Flow<U>>,
}

/// One client.
#[derive(Debug)]
struct Flow<U> {
    target: Candidate,
    /// Sends to the target, and carries back what it answers.
    upstream: U,
    /// The version of the targets for which this flow is known to be right.
    checked: u64,
    /// When the client last sent.
    heard: Instant,
    /// Whether it sent more than once.
    repeated: bool,
}

/// Which flows make room first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Unanswered,
    AnsweredOnce,
    Silent,
}

/// The connection of a flow to its target.
pub(super) trait Upstream {
    /// When the target last sent something, if ever.
    fn answered(&self) -> Option<Instant>;
    /// Whether the target refused (ICMP port unreachable).
    fn broken(&self) -> bool;
}

// === impl FlowTable ===

impl<U: Upstream> FlowTable<U> {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            flows: HashMap::new(),
        }
    }

    /// The client's flow if it can go on: its target did not refuse and is still eligible,
    /// which is asked only if targets have changed since.
    pub(super) fn current(
        &mut self,
        client: SocketAddr,
        now: Instant,
        version: u64,
        eligible: impl FnOnce(&Candidate, &U) -> bool,
    ) -> Option<&U> {
        let good = {
            let flow = self.flows.get_mut(&client)?;
            let good = !flow.upstream.broken()
                && (flow.checked == version || eligible(&flow.target, &flow.upstream));
            if good {
                flow.checked = version;
                flow.heard = now;
                flow.repeated = true;
            }
            good
        };
        if !good {
            self.flows.remove(&client);
        }
        self.flows.get(&client).map(|flow| &flow.upstream)
    }

    /// The target that refused this client, to be tried last.
    pub(super) fn refused_by(&self, client: SocketAddr) -> Option<&Candidate> {
        let flow = self.flows.get(&client)?;
        flow.upstream.broken().then_some(&flow.target)
    }

    /// Takes a new flow.
    pub(super) fn insert(
        &mut self,
        client: SocketAddr,
        target: Candidate,
        upstream: U,
        now: Instant,
        version: u64,
    ) {
        let flow = Flow {
            target,
            upstream,
            checked: version,
            heard: now,
            repeated: false,
        };
        self.flows.insert(client, flow);
    }

    /// Removes flows that have been silent for their time-out.
    pub(super) fn expire(&mut self, now: Instant) {
        let timeouts = self.timeouts;
        self.flows
            .retain(|_, flow| flow.silence(now) < flow.timeout(timeouts));
        // The memory of a flood is not kept.
        self.flows.shrink_to(self.flows.len() * 2);
    }

    /// Removes some flows to make room for new clients: idle ones, then those that matter
    /// least. Established flows that are in use stay. Returns whether there is room now.
    pub(super) fn evict(&mut self, now: Instant) -> bool {
        let before = self.flows.len();
        self.expire(now);
        if self.flows.len() < before {
            return true;
        }
        let new = self.timeouts.new;
        let ranked = self.flows.iter().filter_map(|(client, flow)| {
            let rank = flow.rank(now, new)?;
            Some((rank, flow.heard, *client))
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_unstable();
        ranked.truncate((before / EVICTED_PART).max(1));
        let first = ranked.first().map(|(rank, ..)| *rank);
        ranked.retain(|(rank, ..)| Some(*rank) == first);
        for (_, _, client) in &ranked {
            self.flows.remove(client);
        }
        !ranked.is_empty()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }
}

// === impl Flow ===

impl<U: Upstream> Flow<U> {
    fn silence(&self, now: Instant) -> Duration {
        let answered = self.upstream.answered();
        let last = answered.map_or(self.heard, |at| at.max(self.heard));
        now.duration_since(last)
    }

    fn established(&self) -> bool {
        self.repeated && self.upstream.answered().is_some()
    }

    fn timeout(&self, timeouts: Timeouts) -> Duration {
        if self.established() {
            timeouts.established
        } else {
            timeouts.new
        }
    }

    /// `None` is in use.
    fn rank(&self, now: Instant, new: Duration) -> Option<Rank> {
        if self.upstream.answered().is_none() {
            Some(Rank::Unanswered)
        } else if !self.repeated {
            Some(Rank::AnsweredOnce)
        } else if self.silence(now) >= new {
            Some(Rank::Silent)
        } else {
            None
        }
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

    const TIMEOUTS: Timeouts = Timeouts {
        new: Duration::from_secs(10),
        established: Duration::from_mins(1),
    };

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn target(name: &str) -> Candidate {
        Candidate {
            name: name.into(),
            ip: [10, 0, 0, 1].into(),
        }
    }

    fn answered(at: Instant) -> Fake {
        Fake {
            answered: Some(at),
            ..Fake::default()
        }
    }

    /// A flow whose client sends again.
    fn established(table: &mut FlowTable<Fake>, port: u16, now: Instant) {
        table.insert(client(port), target("a"), answered(now), now, 0);
        assert!(table.current(client(port), now, 0, |_, _| true).is_some());
    }

    #[test]
    fn a_flow_goes_on_while_its_target_is_eligible() {
        let mut table = FlowTable::new(TIMEOUTS);
        let now = Instant::now();
        table.insert(client(1), target("a"), Fake::default(), now, 7);
        let never = |_: &Candidate, _: &Fake| -> bool { panic!("asked without need") };
        assert!(table.current(client(1), now, 7, never).is_some());
        let only_a = |it: &Candidate, _: &Fake| *it == target("a");
        assert!(table.current(client(1), now, 8, only_a).is_some());
        assert!(table.current(client(1), now, 9, |_, _| false).is_none());
        assert_eq!(table.len(), 0, "the stale flow is gone");
    }

    #[test]
    fn a_target_that_refused_is_named_and_left() {
        let mut table = FlowTable::new(TIMEOUTS);
        let now = Instant::now();
        let broken = Fake {
            broken: true,
            ..Fake::default()
        };
        table.insert(client(1), target("a"), broken, now, 7);
        assert_eq!(table.refused_by(client(1)), Some(&target("a")));
        assert!(table.current(client(1), now, 7, |_, _| true).is_none());
    }

    #[test]
    fn the_time_out_is_short_until_both_sides_are_there() {
        let start = Instant::now();
        let just_before = |time: Duration| start + time.saturating_sub(Duration::from_millis(1));
        let mut table = FlowTable::new(TIMEOUTS);
        // Never answered, and answered without another word of the client.
        table.insert(client(1), target("a"), Fake::default(), start, 0);
        table.current(client(1), start, 0, |_, _| true);
        table.insert(client(2), target("a"), answered(start), start, 0);
        established(&mut table, 3, start);
        table.expire(just_before(TIMEOUTS.new));
        assert_eq!(table.len(), 3);
        table.expire(start + TIMEOUTS.new);
        assert_eq!(table.len(), 1);
        table.expire(just_before(TIMEOUTS.established));
        assert_eq!(table.len(), 1);
        table.expire(start + TIMEOUTS.established);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn those_that_matter_least_make_room() {
        let start = Instant::now();
        let mut table = FlowTable::new(TIMEOUTS);
        established(&mut table, 1, start);
        let later = start + TIMEOUTS.new;
        established(&mut table, 2, later);
        table.insert(client(3), target("a"), answered(later), later, 0);
        table.insert(client(4), target("a"), Fake::default(), later, 0);
        let mut left = Vec::new();
        while table.evict(later) {
            let mut ports: Vec<u16> = table.flows.keys().map(SocketAddr::port).collect();
            ports.sort_unstable();
            left.push(ports);
        }
        let (unanswered, once, silent) = (vec![1, 2, 3], vec![1, 2], vec![2]);
        assert_eq!(left, [unanswered, once, silent], "one in use stays");
    }

    #[test]
    fn a_flood_loses_its_oldest_first_and_many_at_a_time() {
        let start = Instant::now();
        let mut table = FlowTable::new(TIMEOUTS);
        for port in 0..1024 {
            let at = start + Duration::from_millis(port.into());
            table.insert(client(port), target("a"), Fake::default(), at, 0);
        }
        assert!(table.evict(start + Duration::from_secs(2)));
        assert_eq!(table.len(), 1024 - 32);
        assert!(!table.flows.contains_key(&client(31)));
        assert!(table.flows.contains_key(&client(32)));
    }
}
