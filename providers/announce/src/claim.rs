//! Claims: which node holds an address, and who succeeds it.
//!
//! Each node keeps the best claim on each address that it has heard of, from Announcer objects
//! and from gossip. A better claim always replaces a worse one, in any order of arrival, so
//! nodes that exchange their claims agree:
//!
//! ```text
//! higher epoch  >  (same epoch) lower name of the holder  >  (same holder) higher revision
//! ```
//!
//! A takeover has the epoch of the former claim plus one. The holder alone writes revisions, to
//! record other successors.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::slip::{Slips, slip};
use crate::timing::{CLAIMS, DAMPING, FORGET, FREE_MOVES, MOVES_WINDOW};
use crate::{NodeName, Time};

/// A claim on an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Counts the holders of the address; 1 is the first.
    pub epoch: u64,
    /// The node that answers for the address.
    pub holder: NodeName,
    /// Counts the changes of `successors` within the epoch.
    pub revision: u32,
    /// The nodes that take over if the holder dies, first one first.
    pub successors: Vec<NodeName>,
}

/// The result of [`Claims::merge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// It was better than the known claim and replaced it.
    Better,
    /// It is the known claim.
    Same,
    /// The known claim is better: whoever sent this one should hear of it.
    Worse,
    /// There is no room for another address.
    Full,
}

/// The best known claim on each address.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    records: BTreeMap<IpAddr, Record>,
    slips: Slips,
}

#[derive(Clone, Debug)]
struct Record {
    claim: Claim,
    /// When this node learned of the holder.
    since: Time,
    /// The start of the window in which moves are counted, and the epoch at that time.
    window: (Time, u64),
    unwanted_since: Option<Time>,
}

// === impl Claim ===

impl Claim {
    /// Whether this claim replaces the other one.
    pub fn beats(&self, other: &Self) -> bool {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| other.holder.cmp(&self.holder))
            .then_with(|| self.revision.cmp(&other.revision))
            .is_gt()
    }
}

// === impl Claims ===

impl Claims {
    pub(crate) fn with_slips(slips: Slips) -> Self {
        Self {
            records: BTreeMap::new(),
            slips,
        }
    }

    /// Whether a claim on this address can be kept.
    pub fn has_room_for(&self, address: &IpAddr) -> bool {
        self.records.contains_key(address) || self.records.len() < CLAIMS
    }

    /// Adds a claim that this node heard of or made.
    pub fn merge(&mut self, address: IpAddr, claim: Claim, me: &NodeName, now: Time) -> Merged {
        if !self.has_room_for(&address) {
            return Merged::Full;
        }
        let Some(record) = self.records.get_mut(&address) else {
            let window = (now, claim.epoch);
            self.records.insert(
                address,
                Record {
                    claim,
                    since: now,
                    window,
                    unwanted_since: None,
                },
            );
            return Merged::Better;
        };
        let known = &record.claim;
        let own_wins = slip!(self.slips, OwnClaimWins)
            && known.holder == *me
            && claim.holder != *me
            && claim.epoch == known.epoch;
        if own_wins {
            return Merged::Worse;
        }
        if claim.beats(known) {
            if now.since(record.window.0) > MOVES_WINDOW {
                record.window = (now, known.epoch);
            }
            if (known.epoch, &known.holder) != (claim.epoch, &claim.holder) {
                record.since = now;
            }
            record.claim = claim;
            Merged::Better
        } else if known.beats(&claim) {
            Merged::Worse
        } else {
            Merged::Same
        }
    }

    /// The best known claim on an address.
    pub fn get(&self, address: &IpAddr) -> Option<&Claim> {
        self.records.get(address).map(|record| &record.claim)
    }

    /// When this node learned that the present holder holds an address.
    pub fn since(&self, address: &IpAddr) -> Option<Time> {
        self.records.get(address).map(|record| record.since)
    }

    /// All addresses and their best claims, in the order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&IpAddr, &Claim)> {
        self.records
            .iter()
            .map(|(address, record)| (address, &record.claim))
    }

    /// Claims that follow this address, around the end: for messages that carry a few in turn.
    pub fn after(&self, address: IpAddr, count: usize) -> impl Iterator<Item = (&IpAddr, &Claim)> {
        let later = self.records.range((
            std::ops::Bound::Excluded(address),
            std::ops::Bound::Unbounded,
        ));
        let earlier = self.records.range(..=address);
        later
            .chain(earlier)
            .map(|(address, record)| (address, &record.claim))
            .take(count)
    }

    /// The extra time that the next takeover of this address must wait, because it moved often:
    /// in a network where some pairs of nodes cannot talk, two nodes could take it from each
    /// other forever.
    pub fn damping(&self, address: &IpAddr, now: Time) -> std::time::Duration {
        let Some(record) = self.records.get(address) else {
            return std::time::Duration::ZERO;
        };
        let (start, epoch) = record.window;
        let moves = record.claim.epoch.saturating_sub(epoch);
        if now.since(start) > MOVES_WINDOW || moves < FREE_MOVES {
            return std::time::Duration::ZERO;
        }
        DAMPING
    }

    /// Forgets claims on addresses that no Service has had for a while. Call it only while the
    /// list of Services is known.
    pub fn forget(&mut self, wanted: impl Fn(&IpAddr) -> bool, now: Time) {
        self.records.retain(|address, record| {
            if wanted(address) {
                record.unwanted_since = None;
                return true;
            }
            let since = *record.unwanted_since.get_or_insert(now);
            now.since(since) < FORGET
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(epoch: u64, holder: u8, revision: u32) -> Claim {
        Claim {
            epoch,
            holder: NodeName::new(&format!("node-{holder}")),
            revision,
            successors: Vec::new(),
        }
    }

    fn some_claim() -> impl Strategy<Value = Claim> {
        (1..4u64, 1..4u8, 0..3u32)
            .prop_map(|(epoch, holder, revision)| claim(epoch, holder, revision))
    }

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn at(seconds: u64) -> Time {
        Time::after_start(std::time::Duration::from_secs(seconds))
    }

    #[test]
    fn epoch_then_name_then_revision_decide() {
        for (better, worse) in [
            (claim(2, 3, 0), claim(1, 1, 9)),
            (claim(1, 1, 0), claim(1, 2, 9)),
            (claim(1, 1, 1), claim(1, 1, 0)),
        ] {
            assert!(better.beats(&worse), "{better:?} {worse:?}");
            assert!(!worse.beats(&better), "{worse:?} {better:?}");
        }
        assert!(!claim(1, 1, 1).beats(&claim(1, 1, 1)));
    }

    #[test]
    fn frequent_moves_wait() {
        let mut claims = Claims::default();
        let me = NodeName::new("node-9");
        for epoch in 1..=FREE_MOVES {
            claims.merge(ADDRESS, claim(epoch, 1, 0), &me, at(epoch));
            assert!(
                claims.damping(&ADDRESS, at(epoch)).is_zero(),
                "epoch {epoch}"
            );
        }
        claims.merge(ADDRESS, claim(FREE_MOVES + 1, 1, 0), &me, at(5));
        assert_eq!(claims.damping(&ADDRESS, at(5)), DAMPING);
        assert!(claims.damping(&ADDRESS, at(70)).is_zero());
    }

    #[test]
    fn claims_without_a_service_are_forgotten_later() {
        let mut claims = Claims::default();
        let me = NodeName::new("node-9");
        claims.merge(ADDRESS, claim(1, 1, 0), &me, at(0));
        claims.forget(|_| false, at(1));
        claims.forget(|_| true, at(50));
        claims.forget(|_| false, at(70));
        claims.forget(|_| false, at(100));
        assert!(claims.get(&ADDRESS).is_some(), "it was wanted meanwhile");
        claims.forget(|_| false, at(131));
        assert_eq!(claims.get(&ADDRESS), None);
    }

    #[test]
    fn the_number_of_claims_is_bounded() {
        let mut claims = Claims::default();
        let me = NodeName::new("node-9");
        let nth = |n: usize| IpAddr::V4(std::net::Ipv4Addr::from_bits(u32::try_from(n).unwrap()));
        for n in 0..CLAIMS {
            assert_eq!(
                claims.merge(nth(n), claim(1, 1, 0), &me, at(0)),
                Merged::Better
            );
        }
        assert_eq!(
            claims.merge(nth(CLAIMS), claim(1, 1, 0), &me, at(0)),
            Merged::Full
        );
        assert_eq!(
            claims.merge(nth(0), claim(2, 1, 0), &me, at(0)),
            Merged::Better
        );
    }

    proptest! {
        /// Whatever the order and however often claims arrive, all nodes end with the same one.
        #[test]
        fn nodes_that_hear_the_same_claims_agree(
            heard in proptest::collection::vec(some_claim(), 1..12),
            shuffled in any::<proptest::sample::Index>(),
        ) {
            let me = NodeName::new("node-2");
            let mut one = Claims::default();
            for claim in &heard {
                one.merge(ADDRESS, claim.clone(), &me, at(0));
            }
            let mut other = Claims::default();
            let (late, early) = heard.split_at(shuffled.index(heard.len()));
            for claim in early.iter().chain(late).rev().chain(heard.iter().take(2)) {
                other.merge(ADDRESS, claim.clone(), &NodeName::new("node-3"), at(0));
            }
            prop_assert_eq!(one.get(&ADDRESS), other.get(&ADDRESS));
            for claim in &heard {
                prop_assert!(!claim.beats(one.get(&ADDRESS).unwrap()));
            }
        }
    }
}
