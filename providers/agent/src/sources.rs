//! Sources: why and since when this node announces what this process claimed, and how long each move
//! took. Pure.
//!
//! ```text
//! Claimed ──▶ (cause, previous) ──▶ first announcement: since when, and the move is counted
//! Healed  ──▶ the cause is Healed, the previous node is the rival: no move, so nothing is counted
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ballast_announce::claim::Claims;
use ballast_announce::holding::Origin;
use ballast_announce::{NodeName, Output, Time};

use crate::counters::Moves;
use crate::report::Source;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    all: Arc<BTreeMap<IpAddr, Source>>,
    /// When the moves that were not announced yet began, and why.
    pending: BTreeMap<IpAddr, (Time, Origin)>,
}

// === impl Sources ===

impl Sources {
    pub(crate) fn all(&self) -> &Arc<BTreeMap<IpAddr, Source>> {
        &self.all
    }

    /// The node said something. `wall` is the time for people.
    pub(crate) fn note(&mut self, output: &Output, moves: &Moves, now: Time, wall: SystemTime) {
        match output {
            Output::Claimed {
                address,
                epoch,
                former,
                cause,
                since,
            } => {
                let source = Source {
                    epoch: *epoch,
                    cause: cause.origin(),
                    previous: former.clone(),
                    since: None,
                };
                Arc::make_mut(&mut self.all).insert(*address, source);
                self.pending.insert(*address, (*since, cause.origin()));
            }
            Output::Healed {
                address,
                epoch,
                rival,
            } => self.healed(*address, *epoch, rival),
            Output::Announce { address, .. } => {
                if let Some((began, cause)) = self.pending.remove(address)
                    && let Some(source) = Arc::make_mut(&mut self.all).get_mut(address)
                {
                    source.since = Some(wall);
                    moves.add(cause, now.since(began));
                }
            }
            _ => {}
        }
    }

    fn healed(&mut self, address: IpAddr, epoch: u64, rival: &NodeName) {
        let known = self.all.get(&address).filter(|it| it.epoch == epoch);
        let previous = known.and_then(|it| it.previous.as_ref());
        if known.is_some_and(|it| it.cause == Origin::Healed) && previous == Some(rival) {
            return;
        }
        // A former process may have claimed it: then the time is in the object.
        let source = Source {
            epoch,
            cause: Origin::Healed,
            previous: Some(rival.clone()),
            since: known.and_then(|it| it.since),
        };
        Arc::make_mut(&mut self.all).insert(address, source);
    }

    /// Forgets addresses that this node does not hold any more.
    pub(crate) fn retain(&mut self, me: &NodeName, claims: &Claims) {
        let held = |address: &IpAddr, epoch: u64| {
            let claim = claims.get(address);
            claim.is_some_and(|claim| claim.holder == *me && claim.epoch == epoch)
        };
        if self.all.iter().any(|(at, source)| !held(at, source.epoch)) {
            Arc::make_mut(&mut self.all).retain(|at, source| held(at, source.epoch));
        }
        let all = &self.all;
        self.pending.retain(|address, _| all.contains_key(address));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ballast_announce::Mac;
    use ballast_announce::claim::Claim;
    use ballast_announce::holding::Cause;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn at(ms: u64) -> Time {
        Time::after_start(Duration::from_millis(ms))
    }

    fn claimed(epoch: u64, cause: Cause) -> Output {
        Output::Claimed {
            address: ADDRESS,
            epoch,
            former: Some(NodeName::new("b")),
            cause,
            since: at(1000),
        }
    }

    const ANNOUNCE: Output = Output::Announce {
        interface: 2,
        address: ADDRESS,
        mac: Mac([2, 0, 0, 0, 0, 1]),
    };

    #[test]
    fn a_move_is_counted_at_its_first_announcement() {
        let (mut sources, moves) = (Sources::default(), Moves::default());
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(77);
        sources.note(&claimed(3, Cause::HostDead), &moves, at(1700), wall);
        assert_eq!(sources.all()[&ADDRESS].since, None);
        assert_eq!(moves.of(Origin::HostDown).counts.iter().sum::<u64>(), 0);
        sources.note(&ANNOUNCE, &moves, at(1750), wall);
        let later = wall + Duration::from_mins(1);
        sources.note(&ANNOUNCE, &moves, at(60_000), later);
        let source = Source {
            epoch: 3,
            cause: Origin::HostDown,
            previous: Some(NodeName::new("b")),
            since: Some(wall),
        };
        assert_eq!(sources.all()[&ADDRESS], source);
        let found = moves.of(Origin::HostDown);
        assert_eq!(found.counts[4], 1, "up to 0.75 s");
        assert!((found.sum - 0.75).abs() < 1e-9);
    }

    /// It announced the address before, so no time passed: 0 s would make failovers look fast.
    #[test]
    fn a_rival_that_lost_is_the_previous_node_and_no_move() {
        let (mut sources, moves) = (Sources::default(), Moves::default());
        let wall = SystemTime::UNIX_EPOCH;
        sources.note(&claimed(3, Cause::HostDead), &moves, at(1700), wall);
        sources.note(&ANNOUNCE, &moves, at(1750), wall);
        let heal = |sources: &mut Sources| {
            let healed = Output::Healed {
                address: ADDRESS,
                epoch: 3,
                rival: NodeName::new("c"),
            };
            sources.note(&healed, &moves, at(9000), wall);
        };
        for _ in 0..3 {
            heal(&mut sources);
        }
        let source = &sources.all()[&ADDRESS];
        assert_eq!(source.cause, Origin::Healed);
        assert_eq!(source.previous, Some(NodeName::new("c")));
        assert_eq!(source.since, Some(wall), "it has announced it since then");
        // Also before the first announcement.
        sources.note(&claimed(3, Cause::HostDead), &moves, at(9000), wall);
        heal(&mut sources);
        sources.note(&ANNOUNCE, &moves, at(9050), wall);
        assert_eq!(moves.of(Origin::Healed), crate::Durations::default());
        assert_eq!(moves.of(Origin::HostDown).counts.iter().sum::<u64>(), 2);
    }

    #[test]
    fn what_another_node_holds_is_forgotten() {
        let (mut sources, moves) = (Sources::default(), Moves::default());
        let me = NodeName::new("a");
        sources.note(
            &claimed(3, Cause::First),
            &moves,
            at(0),
            SystemTime::UNIX_EPOCH,
        );
        let mut claims = Claims::default();
        let claim = |epoch, holder: &NodeName| Claim {
            epoch,
            holder: holder.clone(),
            revision: 0,
            successors: Vec::new(),
        };
        claims.merge(ADDRESS, claim(3, &me), &me, at(0));
        sources.retain(&me, &claims);
        assert_eq!(sources.all().len(), 1);
        claims.merge(ADDRESS, claim(4, &NodeName::new("b")), &me, at(1));
        sources.retain(&me, &claims);
        assert!(sources.all().is_empty() && sources.pending.is_empty());
    }
}
