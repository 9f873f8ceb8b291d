//! The state of each address that the cloud needs on its interface. Pure.
//!
//! ```text
//!      ┌────────────── forget ──────────────┐
//!      ▼                                    │
//!  (unknown) ── promised, proposed ──▶ Asking ── reserve ──▶ Reserved
//!      ▲                               ▲    │                 │    ▲
//!      │          promised, proposed   │    │ foreign         │    │ proposed
//!      │          after ASK_AGAIN ─────┘    ▼                 ▼    │
//!      ├────── avoided after AVOIDED ─── Foreign              Ours ┘
//!      └──────────────── forget, missing (of Reserved and Ours)
//! ```
//!
//! `promised`, `settle` and `give_up` make an address `Ours` that is `Reserved`.
//!
//! - `Asking`: the network is being probed for the address.
//! - `Reserved`: on the interface, and not part of the state yet.
//! - `Ours`: on the interface, and part of the state, or left to be removed.
//! - `Foreign`: another host uses it. It is probed again after [`ASK_AGAIN`], and forgotten
//!   after [`AVOIDED`].
//!
//! Invariants: one caller at a time probes for an address, and no other changes its state
//! meanwhile; every address on the interface is `Reserved` or `Ours`, or about to be.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use ballast_link::Mac;
use tokio::time::Instant;

/// Time after which a foreign address may be probed again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How long a Service waits for its published address while another host uses it. An earlier
/// process of the cloud may have left it on another node.
const PATIENCE: Duration = super::LIFETIME.saturating_add(Duration::from_secs(30));
/// How long a foreign address is not proposed.
const AVOIDED: Duration = Duration::from_mins(5);

/// One address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// `before` keeps the time since which another host uses it.
    Asking {
        before: Option<Foreign>,
    },
    Reserved,
    Ours,
    Foreign(Foreign),
}

/// Another host uses an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    /// Which host; unknown for IPv6.
    pub(super) mac: Option<Mac>,
    /// When it was first seen, without a gap since.
    pub(super) since: Instant,
    /// When it was last seen.
    pub(super) seen: Instant,
}

/// What to do to get an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: the address is on the interface.
    Have,
    /// Probe the network; the state is `Asking` now.
    Ask,
    /// Nothing: another load balancer is about to get it.
    Busy,
    /// Nothing: another host used it a moment ago.
    Taken(Foreign),
}

/// All addresses.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<IpAddr, Claim>);

// === impl Foreign ===

impl Foreign {
    /// Whether to wait for a published address instead of choosing another.
    pub(super) fn may_be_released_soon(&self) -> bool {
        self.seen.duration_since(self.since) < PATIENCE
    }
}

// === impl Claims ===

impl Claims {
    /// The addresses that an earlier process has left on the interface.
    pub(super) fn left_over(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let ours = addresses.into_iter().map(|ip| (ip, Claim::Ours));
        Self(ours.collect())
    }

    /// Asks for an address that is part of the state.
    pub(super) fn promised(&mut self, ip: IpAddr, now: Instant) -> Next {
        match self.0.get(&ip) {
            Some(Claim::Ours) => Next::Have,
            Some(Claim::Reserved) => {
                self.0.insert(ip, Claim::Ours);
                Next::Have
            }
            _ => self.begin(ip, now),
        }
    }

    /// Asks for an address for a load balancer that is not part of the state yet.
    pub(super) fn proposed(&mut self, ip: IpAddr, now: Instant) -> Next {
        match self.0.get(&ip) {
            Some(Claim::Reserved) => Next::Busy,
            // Left over or about to be removed: it is still on the interface.
            Some(Claim::Ours) => {
                self.0.insert(ip, Claim::Reserved);
                Next::Have
            }
            _ => self.begin(ip, now),
        }
    }

    fn begin(&mut self, ip: IpAddr, now: Instant) -> Next {
        let before = match self.0.get(&ip) {
            Some(Claim::Asking { .. }) => return Next::Busy,
            Some(Claim::Foreign(foreign)) if now.duration_since(foreign.seen) < ASK_AGAIN => {
                return Next::Taken(*foreign);
            }
            Some(Claim::Foreign(foreign)) => Some(*foreign),
            _ => None,
        };
        self.0.insert(ip, Claim::Asking { before });
        Next::Ask
    }

    /// The probe found no holder, and the address is on the interface.
    pub(super) fn reserve(&mut self, ip: IpAddr) {
        self.0.insert(ip, Claim::Reserved);
    }

    /// Another host uses the address.
    pub(super) fn foreign(&mut self, ip: IpAddr, mac: Option<Mac>, now: Instant) -> Foreign {
        let before = match self.0.get(&ip) {
            Some(Claim::Asking { before }) => *before,
            Some(Claim::Foreign(before)) => Some(*before),
            _ => None,
        };
        let recent = before.filter(|before| now.duration_since(before.seen) < AVOIDED);
        let since = recent.map_or(now, |before| before.since);
        let foreign = Foreign {
            mac,
            since,
            seen: now,
        };
        self.0.insert(ip, Claim::Foreign(foreign));
        foreign
    }

    /// A proposed address is not needed. It is removed like one that is left over, at the
    /// latest with the next [`Self::settle`].
    pub(super) fn give_up(&mut self, ip: IpAddr) {
        if let Some(claim @ Claim::Reserved) = self.0.get_mut(&ip) {
            *claim = Claim::Ours;
        }
    }

    /// Returns the addresses that should be on the interface and are not in `present`.
    pub(super) fn missing(&mut self, present: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        let lost = |ip: &&IpAddr| !present.contains(ip);
        let missing: Vec<IpAddr> = self.present().iter().filter(lost).copied().collect();
        for ip in &missing {
            self.forget(*ip);
        }
        missing
    }

    /// Removes the address, which is not on the interface.
    pub(super) fn forget(&mut self, ip: IpAddr) {
        self.0.remove(&ip);
    }

    /// Takes the addresses of the state. Returns those to remove from the interface.
    pub(super) fn settle(&mut self, held: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        for (ip, claim) in &mut self.0 {
            if *claim == Claim::Reserved && held.contains(ip) {
                *claim = Claim::Ours;
            }
        }
        let ours = self.0.iter().filter(|(_, claim)| **claim == Claim::Ours);
        let left = ours.map(|(ip, _)| *ip).filter(|ip| !held.contains(ip));
        left.collect()
    }

    /// The addresses on the interface.
    pub(super) fn present(&self) -> Vec<IpAddr> {
        let there = |claim: &Claim| matches!(claim, Claim::Reserved | Claim::Ours);
        let present = self.0.iter().filter(|(_, claim)| there(claim));
        present.map(|(ip, _)| *ip).collect()
    }

    /// The addresses that must not be proposed.
    pub(super) fn avoided(&mut self, now: Instant) -> Vec<IpAddr> {
        self.0.retain(|_, claim| match claim {
            Claim::Foreign(foreign) => now.duration_since(foreign.seen) < AVOIDED,
            Claim::Asking { .. } | Claim::Reserved | Claim::Ours => true,
        });
        let avoided = self.0.iter().filter(|(_, claim)| **claim != Claim::Ours);
        avoided.map(|(ip, _)| *ip).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 200));

    const NONE: [IpAddr; 0] = [];

    fn held() -> BTreeSet<IpAddr> {
        BTreeSet::from([IP])
    }

    #[test]
    fn a_host_that_uses_an_address_since_a_short_time_may_release_it() {
        let since = Instant::now();
        let seen_after = |time: Duration| Foreign {
            mac: None,
            since,
            seen: since + time,
        };
        assert!(seen_after(Duration::ZERO).may_be_released_soon());
        assert!(seen_after(PATIENCE / 2).may_be_released_soon());
        assert!(!seen_after(PATIENCE).may_be_released_soon());
    }

    #[test]
    fn an_address_is_probed_once_and_stays_until_the_state_releases_it() {
        let now = Instant::now();
        let mut claims = Claims::default();
        assert_eq!(claims.proposed(IP, now), Next::Ask);
        assert_eq!(
            claims.proposed(IP, now),
            Next::Busy,
            "another caller probes"
        );
        assert_eq!(claims.avoided(now), [IP]);
        claims.reserve(IP);
        assert_eq!(
            claims.proposed(IP, now),
            Next::Busy,
            "promised to the first"
        );
        assert_eq!(
            claims.settle(&BTreeSet::new()),
            NONE,
            "not yet in the state"
        );
        assert_eq!(claims.promised(IP, now), Next::Have);
        assert_eq!(claims.settle(&held()), NONE);
        assert_eq!(claims.avoided(now), NONE, "the state contains it");
        assert_eq!(claims.settle(&BTreeSet::new()), [IP]);
        assert_eq!(claims.present(), [IP], "until it has been removed");
        claims.forget(IP);
        assert_eq!(claims.present(), NONE);
    }

    #[test]
    fn what_a_crash_leaves_is_taken_over_or_removed() {
        let now = Instant::now();
        let mut claims = Claims::left_over([IP]);
        assert_eq!(claims.promised(IP, now), Next::Have);
        assert_eq!(claims.settle(&BTreeSet::new()), [IP]);
        // Proposed before it is removed: it is there already.
        assert_eq!(claims.proposed(IP, now), Next::Have);
        assert_eq!(claims.settle(&BTreeSet::new()), NONE);
    }

    #[test]
    fn what_could_not_be_removed_is_swept_later() {
        let now = Instant::now();
        let mut claims = Claims::default();
        claims.proposed(IP, now);
        claims.reserve(IP);
        claims.give_up(IP);
        assert_eq!(claims.settle(&BTreeSet::new()), [IP]);
    }

    /// The kernel removed it while the process was stopped: another host may use it now.
    #[test]
    fn what_is_lost_is_asked_for_again() {
        let now = Instant::now();
        let mut claims = Claims::left_over([IP]);
        assert_eq!(claims.missing(&held()), NONE);
        assert_eq!(claims.missing(&BTreeSet::new()), [IP]);
        assert_eq!(claims.promised(IP, now), Next::Ask);
    }

    #[test]
    fn a_foreign_address_is_remembered_and_probed_again() {
        let start = Instant::now();
        let mut claims = Claims::default();
        claims.promised(IP, start);
        let foreign = claims.foreign(IP, None, start);
        assert_eq!(
            claims.promised(IP, start + ASK_AGAIN / 2),
            Next::Taken(foreign)
        );
        let later = start + ASK_AGAIN;
        assert_eq!(claims.promised(IP, later), Next::Ask);
        assert_eq!(claims.promised(IP, later), Next::Busy, "one asks at a time");
        assert_eq!(claims.proposed(IP, later), Next::Busy);
        let again = claims.foreign(IP, None, later);
        assert_eq!((again.since, again.seen), (start, later));
        assert_eq!(claims.avoided(later), [IP]);
        assert_eq!(claims.avoided(later + AVOIDED), NONE);
        assert_eq!(
            claims.foreign(IP, None, later + AVOIDED).since,
            later + AVOIDED
        );
    }
}
