//! Pacer: when to announce which address.
//!
//! ```text
//! start ──▶ takeovers (first in, first out) ──▶ repeats: 4 more, 1.1 s apart ──▶ refresh, 60 s ± 10 %
//!             ▲                                                                        │
//!             └────────────────────── again: another node has answered ────────────────┘
//! ```
//!
//! Each poll (one per tick) returns at most [`TAKEOVERS_PER_TICK`] takeovers and then, if none is
//! left, at most [`REPEATS_PER_TICK`] of the rest: 1,000 addresses of a dead host are announced
//! within half a second, and nothing delays them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::Time;
use crate::random::Random;
use crate::timing::{REPEAT_INTERVAL, REPEATS, REPEATS_PER_TICK, TAKEOVERS_PER_TICK};

/// The schedule of announcements.
#[derive(Clone, Debug)]
pub struct Pacer {
    takeovers: VecDeque<IpAddr>,
    due: BTreeSet<(Time, IpAddr)>,
    addresses: BTreeMap<IpAddr, Plan>,
    random: Random,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Announcements of the burst that are left.
    left: u8,
    /// When the next one is due; `None` while the address waits among the takeovers.
    next: Option<Time>,
    /// The pause after the burst; `None` ends the announcements.
    refresh: Option<Duration>,
}

// === impl Pacer ===

impl Pacer {
    /// Announces nothing yet. `seed` is for the jitter of the refresh.
    pub fn new(seed: u64) -> Self {
        Self {
            takeovers: VecDeque::new(),
            due: BTreeSet::new(),
            addresses: BTreeMap::new(),
            random: Random::new(seed),
        }
    }

    /// This node answers for an address from now on. `refresh`: how often the announcement is
    /// repeated after the burst; `None` disables the refresh.
    pub fn start(&mut self, address: IpAddr, refresh: Option<Duration>) {
        let waits = self.addresses.get(&address).map(|plan| plan.next.is_none());
        if waits == Some(true) {
            return;
        }
        self.stop(&address);
        self.takeovers.push_back(address);
        let plan = Plan {
            left: REPEATS,
            next: None,
            refresh,
        };
        self.addresses.insert(address, plan);
    }

    /// Another node has answered for an address too: clients may have its MAC address. While the
    /// address is being announced, nothing changes, so this can be called at any rate.
    pub fn again(&mut self, address: IpAddr) {
        let plan = self.addresses.get(&address);
        if let Some(Plan {
            left: 0, refresh, ..
        }) = plan.copied()
        {
            self.start(address, refresh);
        }
    }

    /// This node does not answer for an address any more.
    pub fn stop(&mut self, address: &IpAddr) {
        match self.addresses.remove(address).map(|plan| plan.next) {
            Some(Some(next)) => drop(self.due.remove(&(next, *address))),
            Some(None) => self.takeovers.retain(|other| other != address),
            None => {}
        }
    }

    /// Whether nothing waits to be announced.
    pub fn is_quiet(&self, now: Time) -> bool {
        let due = self.due.first().is_some_and(|(next, _)| *next <= now);
        self.takeovers.is_empty() && !due
    }

    /// The addresses to announce in this tick.
    pub fn poll(&mut self, now: Time) -> Vec<IpAddr> {
        let mut announced = Vec::new();
        while announced.len() < TAKEOVERS_PER_TICK
            && let Some(address) = self.takeovers.pop_front()
        {
            announced.push(address);
        }
        let more = self.takeovers.is_empty();
        while more
            && announced.len() < REPEATS_PER_TICK
            && let Some(&(next, address)) = self.due.first()
            && next <= now
        {
            self.due.pop_first();
            announced.push(address);
        }
        for address in &announced {
            self.plan(*address, now);
        }
        announced
    }

    fn plan(&mut self, address: IpAddr, now: Time) {
        let Some(plan) = self.addresses.get_mut(&address) else {
            return;
        };
        plan.left = plan.left.saturating_sub(1);
        let pause = match plan.refresh {
            _ if plan.left > 0 => Some(REPEAT_INTERVAL),
            Some(refresh) => Some(jitter(refresh, &mut self.random)),
            None => None,
        };
        let next = pause.map(|pause| now + pause);
        // Without a refresh nothing is due any more, and nothing waits among the takeovers.
        let next = next.unwrap_or(Time::after_start(Duration::MAX));
        plan.next = Some(next);
        if pause.is_some() {
            self.due.insert((next, address));
        }
    }
}

/// Between 90 % and 110 %, so that addresses that were announced together spread.
fn jitter(refresh: Duration, random: &mut Random) -> Duration {
    let thousandths = u32::try_from(random.below(201)).unwrap_or(0);
    refresh * (900 + thousandths) / 1000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REFRESH: Option<Duration> = Some(crate::timing::REFRESH);

    fn at(ms: u64) -> Time {
        Time::after_start(Duration::from_millis(ms))
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n))
    }

    #[test]
    fn a_burst_and_then_a_refresh() {
        let mut pacer = Pacer::new(1);
        pacer.start(address(1), REFRESH);
        let times: Vec<_> = (0..130_000)
            .step_by(50)
            .filter(|ms| !pacer.poll(at(*ms)).is_empty())
            .collect();
        assert_eq!(times[..5], [0, 1100, 2200, 3300, 4400]);
        for pair in times[4..].windows(2) {
            assert!(
                (54_000..=66_050).contains(&(pair[1] - pair[0])),
                "{times:?}"
            );
        }
        assert_eq!(times.len(), 7, "{times:?}");
    }

    #[test]
    fn without_a_refresh_the_burst_is_all() {
        let mut pacer = Pacer::new(1);
        pacer.start(address(1), None);
        let count = (0..500_000)
            .step_by(50)
            .flat_map(|ms| pacer.poll(at(ms)))
            .count();
        assert_eq!(count, usize::from(REPEATS));
        pacer.start(address(1), None);
        assert_eq!(pacer.poll(at(500_000)), [address(1)]);
    }

    #[test]
    fn an_address_is_announced_again_once_its_burst_is_over() {
        for refresh in [REFRESH, None] {
            let mut pacer = Pacer::new(1);
            pacer.again(address(1));
            assert!(pacer.poll(at(0)).is_empty(), "it was never announced");
            pacer.start(address(1), refresh);
            let mut count = |from: u64, until: u64| {
                let mut announced = 0;
                for ms in (from..until).step_by(50) {
                    pacer.again(address(1));
                    announced += pacer.poll(at(ms)).len();
                }
                announced
            };
            assert_eq!(count(0, 4_450), usize::from(REPEATS));
            assert_eq!(count(4_450, 8_900), usize::from(REPEATS));
        }
    }

    #[test]
    fn a_thousand_takeovers_go_out_in_half_a_second_before_anything_else() {
        let mut pacer = Pacer::new(1);
        (0..1000).for_each(|n| pacer.start(address(n), REFRESH));
        let mut ms = 0;
        while !pacer.takeovers.is_empty() {
            pacer.poll(at(ms));
            ms += 50;
        }
        assert!(ms <= 500, "{ms} ms");
        // Their repeats are due, and a new takeover comes first.
        pacer.start(address(5000), REFRESH);
        assert_eq!(pacer.poll(at(2000))[0], address(5000));
        assert_eq!(pacer.poll(at(2050)).len(), REPEATS_PER_TICK);
    }

    proptest! {
        /// Only addresses that were started and not stopped are announced, and all of them are.
        #[test]
        fn announces_what_is_held(events in proptest::collection::vec((0..3u8, 0..6u32), 1..80)) {
            let mut pacer = Pacer::new(7);
            let mut held = BTreeSet::new();
            let mut ms = 0;
            for (event, n) in events {
                ms += 50;
                match event {
                    0 => { pacer.start(address(n), REFRESH); held.insert(address(n)); }
                    1 => { pacer.stop(&address(n)); held.remove(&address(n)); }
                    _ => for announced in pacer.poll(at(ms)) {
                        prop_assert!(held.contains(&announced));
                    }
                }
            }
            let mut announced = BTreeSet::new();
            for ms in (ms..ms + 70_000).step_by(50) {
                announced.extend(pacer.poll(at(ms)));
            }
            prop_assert_eq!(announced, held);
        }
    }
}
