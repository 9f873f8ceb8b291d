//! What is known of each address that the cloud wants on its interface. Pure.
//!
//! An address goes `Asking` → `Reserved` → `Ours`: asked for on the segment, on the
//! interface and promised to nobody yet, on the interface and part of the state. Invariants:
//! one caller at a time asks for an address, and no other changes what is known of it
//! meanwhile; what is on the interface is `Reserved`, `Ours`, or about to be that.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use ballast_link::Mac;
use tokio::time::Instant;

/// Somebody who has an address of ours is asked about again after this long at the soonest.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// A published address that another host has is waited for this long before the Service
/// gets another: it may be what the cloud's former life left on another node.
const PATIENCE: Duration = super::LIFETIME.saturating_add(Duration::from_secs(30));
/// How long an address is not proposed to anybody after somebody else had it.
const AVOIDED: Duration = Duration::from_mins(5);

/// One address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// What was known before is kept, so that it stays known since when somebody has it.
    Asking {
        before: Option<Foreign>,
    },
    Reserved,
    Ours,
    Foreign(Foreign),
}

/// Somebody else has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    /// Who; nobody says so for IPv6.
    pub(super) mac: Option<Mac>,
    /// When that was found out first, in a row.
    pub(super) since: Instant,
    /// When last.
    pub(super) seen: Instant,
}

/// What is to be done about an address that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it is on the interface.
    Have,
    /// Ask the segment; it is `Asking` now.
    Ask,
    /// Another load balancer is about to get it.
    Busy,
    /// Somebody had it a moment ago.
    Taken(Foreign),
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<IpAddr, Claim>);

// === impl Foreign ===

impl Foreign {
    /// Whether to wait for it rather than to give a published address up.
    pub(super) fn may_go_soon(&self) -> bool {
        self.seen.duration_since(self.since) < PATIENCE
    }
}

// === impl Claims ===

impl Claims {
    /// What a former life has left on the interface.
    pub(super) fn left(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let ours = addresses.into_iter().map(|ip| (ip, Claim::Ours));
        Self(ours.collect())
    }

    /// The address is part of the state.
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

    /// A load balancer that is not part of the state yet would like it.
    pub(super) fn proposed(&mut self, ip: IpAddr, now: Instant) -> Next {
        match self.0.get(&ip) {
            Some(Claim::Reserved) => Next::Busy,
            // Left over, or about to be removed: it is there.
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

    /// Nobody had it, and it is on the interface.
    pub(super) fn reserve(&mut self, ip: IpAddr) {
        self.0.insert(ip, Claim::Reserved);
    }

    /// Somebody has it.
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

    /// What was proposed is not wanted: it is to go as what is left over does, now or, if
    /// that fails, with the next [`Self::settle`].
    pub(super) fn give_up(&mut self, ip: IpAddr) {
        if let Some(claim @ Claim::Reserved) = self.0.get_mut(&ip) {
            *claim = Claim::Ours;
        }
    }

    /// These are on the interface; returns what should be and is not.
    pub(super) fn missing(&mut self, present: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        let lost = |ip: &&IpAddr| !present.contains(ip);
        let missing: Vec<IpAddr> = self.present().iter().filter(lost).copied().collect();
        for ip in &missing {
            self.forget(*ip);
        }
        missing
    }

    /// It is not on the interface, and nothing is known of it.
    pub(super) fn forget(&mut self, ip: IpAddr) {
        self.0.remove(&ip);
    }

    /// The state holds these: what else is on the interface, and promised to nobody, is to
    /// go.
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

    /// What is on the interface.
    pub(super) fn present(&self) -> Vec<IpAddr> {
        let there = |claim: &Claim| matches!(claim, Claim::Reserved | Claim::Ours);
        let present = self.0.iter().filter(|(_, claim)| there(claim));
        present.map(|(ip, _)| *ip).collect()
    }

    /// What is not to be proposed to anybody.
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
    fn who_had_an_address_only_lately_may_let_it_go() {
        let since = Instant::now();
        let seen_after = |time: Duration| Foreign {
            mac: None,
            since,
            seen: since + time,
        };
        assert!(seen_after(Duration::ZERO).may_go_soon());
        assert!(seen_after(PATIENCE / 2).may_go_soon());
        assert!(!seen_after(PATIENCE).may_go_soon());
    }

    #[test]
    fn an_address_is_asked_for_once_and_stays_until_the_state_lets_it_go() {
        let now = Instant::now();
        let mut claims = Claims::default();
        assert_eq!(claims.proposed(IP, now), Next::Ask);
        assert_eq!(claims.proposed(IP, now), Next::Busy, "somebody else asks");
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
        assert_eq!(claims.avoided(now), NONE, "the state knows who has it");
        assert_eq!(claims.settle(&BTreeSet::new()), [IP]);
        assert_eq!(claims.present(), [IP], "until it has been removed");
        claims.forget(IP);
        assert_eq!(claims.present(), NONE);
    }

    #[test]
    fn a_crash_leaves_what_is_taken_over_or_removed() {
        let now = Instant::now();
        let mut claims = Claims::left([IP]);
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

    /// The kernel took it away while the process was stopped: somebody may have it now.
    #[test]
    fn what_is_lost_is_asked_for_again() {
        let now = Instant::now();
        let mut claims = Claims::left([IP]);
        assert_eq!(claims.missing(&held()), NONE);
        assert_eq!(claims.missing(&BTreeSet::new()), [IP]);
        assert_eq!(claims.promised(IP, now), Next::Ask);
    }

    #[test]
    fn who_has_an_address_is_remembered_and_asked_about_again() {
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
