//! Chooses targets: which are eligible, and in which order they are tried. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::api::{Family, Target, TargetHealth, TrafficPolicy};

/// A target that can be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: Arc<str>,
    pub(super) ip: IpAddr,
}

/// The targets that may get new traffic of one listener, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Eligible(Vec<Candidate>);

/// Whether the source ranges admit this client. An empty list admits every client.
pub(super) fn admits(ranges: &[IpNet], client: IpAddr) -> bool {
    let client = client.to_canonical();
    ranges.is_empty() || ranges.iter().any(|range| range.contains(&client))
}

/// A target's address for clients of `listener`: one of the same family if there is one.
/// The proxy makes its own connections, so the other family works too.
pub(super) fn address_for(target: &Target, listener: IpAddr) -> Option<IpAddr> {
    let family = Family::of(listener);
    let same = target
        .addresses
        .iter()
        .find(|ip| Family::of(**ip) == family);
    same.or(target.addresses.first()).copied()
}

/// The healthy targets. If there are none: all targets for `Cluster` (any node can carry
/// the traffic, so wrong health checks cause no outage), none for `Local` (a node without
/// an endpoint drops the traffic).
pub(super) fn eligible(
    targets: &[Target],
    listener: IpAddr,
    policy: TrafficPolicy,
    verdict: impl Fn(&Target) -> TargetHealth,
) -> Eligible {
    let candidate = |target: &Target| {
        address_for(target, listener).map(|ip| Candidate {
            name: target.name.as_str().into(),
            ip,
        })
    };
    let healthy = targets
        .iter()
        .filter(|target| verdict(target) == TargetHealth::Healthy);
    let mut candidates: Vec<Candidate> = healthy.filter_map(candidate).collect();
    if candidates.is_empty() && policy == TrafficPolicy::Cluster {
        candidates = targets.iter().filter_map(candidate).collect();
    }
    candidates.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Eligible(candidates)
}

// === impl Eligible ===

impl Eligible {
    /// Whether a target is still eligible at the same address.
    pub(super) fn contains(&self, target: &Candidate) -> bool {
        self.find(&target.name) == Some(target)
    }

    /// The first targets to try: the client's own target, then round robin from this
    /// listener's turn. The target to avoid comes last.
    pub(super) fn order(
        &self,
        turn: usize,
        sticky: Option<&str>,
        avoid: Option<&str>,
        limit: usize,
    ) -> Vec<Candidate> {
        let avoided = avoid.and_then(|name| self.find(name));
        let sticky = sticky.and_then(|name| self.find(name));
        let sticky = sticky.filter(|it| Some(*it) != avoided);
        let (before, after) = self.0.split_at(turn.checked_rem(self.0.len()).unwrap_or(0));
        let round = after.iter().chain(before);
        let others = round.filter(|it| Some(*it) != sticky && Some(*it) != avoided);
        let ordered = sticky.into_iter().chain(others).chain(avoided);
        ordered.take(limit).cloned().collect()
    }

    fn find(&self, name: &str) -> Option<&Candidate> {
        let found = self.0.binary_search_by(|it| it.name.as_ref().cmp(name));
        self.0.get(found.ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(index: usize) -> Target {
        Target {
            name: format!("n{index}"),
            addresses: vec![IpAddr::from([10, 0, 0, u8::try_from(index).unwrap()])],
        }
    }

    fn names(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|it| it.name.as_ref()).collect()
    }

    const LOCAL: TrafficPolicy = TrafficPolicy::Local {
        health_check_node_port: 32_000,
    };

    #[test]
    fn a_listener_of_one_family_reaches_a_node_of_the_other() {
        let both = Target {
            name: "n".into(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        };
        let v6: IpAddr = "fd77::1".parse().unwrap();
        assert_eq!(address_for(&both, v6), Some("fd00::1".parse().unwrap()));
        assert_eq!(
            address_for(&target(1), v6),
            Some("10.0.0.1".parse().unwrap())
        );
        let none = Target {
            addresses: Vec::new(),
            ..both
        };
        assert_eq!(address_for(&none, v6), None);
    }

    #[test]
    fn source_ranges_know_both_families_and_mapped_clients() {
        let ranges: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (client, admitted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.1.2.3", false),
            ("fd12::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(
                admits(&ranges, client.parse().unwrap()),
                admitted,
                "{client}"
            );
            assert!(admits(&[], client.parse().unwrap()));
        }
    }

    proptest! {
        #[test]
        fn only_healthy_targets_are_eligible_unless_there_is_none(
            health in prop::collection::vec(0u8..3, 0..12),
            local in any::<bool>(),
        ) {
            let targets: Vec<Target> = (0..health.len()).map(target).collect();
            let verdict = |target: &Target| match health[target.name[1..].parse::<usize>().unwrap()] {
                0 => TargetHealth::Healthy,
                1 => TargetHealth::Unhealthy,
                _ => TargetHealth::Initial,
            };
            let policy = if local { LOCAL } else { TrafficPolicy::Cluster };
            let listener = IpAddr::from([127, 0, 0, 1]);
            let eligible = eligible(&targets, listener, policy, verdict);
            let healthy = targets.iter().filter(|target| verdict(target) == TargetHealth::Healthy);
            let healthy = healthy.count();
            let expected = match (healthy, local) {
                (0, false) => targets.len(),
                (healthy, _) => healthy,
            };
            prop_assert_eq!(eligible.0.len(), expected);
            prop_assert!(eligible.0.iter().all(|candidate| eligible.contains(candidate)));
        }

        #[test]
        fn turns_go_round_evenly_and_the_sticky_target_is_first(
            count in 1usize..9,
            rounds in 1usize..4,
            sticky in 0usize..12,
            avoid in 0usize..12,
        ) {
            let candidate = |index| Candidate {
                name: format!("n{index}").into(),
                ip: [10, 0, 0, 1].into(),
            };
            let all = Eligible((0..count).map(candidate).collect());
            let mut hits = vec![0; count];
            for turn in 0..count * rounds {
                let ordered = all.order(turn, None, None, usize::MAX);
                prop_assert_eq!(ordered.len(), count);
                hits[ordered[0].name[1..].parse::<usize>().unwrap()] += 1;

                let (name, last) = (format!("n{sticky}"), format!("n{avoid}"));
                let stuck = all.order(turn, Some(&name), Some(&last), usize::MAX);
                let mut sorted = names(&stuck);
                sorted.sort_unstable();
                prop_assert_eq!(sorted, names(&all.0), "each is there once");
                if avoid < count {
                    prop_assert_eq!(stuck.last().unwrap().name.as_ref(), &last);
                }
                if sticky < count && sticky != avoid {
                    prop_assert_eq!(stuck[0].name.as_ref(), &name);
                }
                let few = all.order(turn, Some(&name), Some(&last), 2);
                prop_assert_eq!(&few[..], &stuck[..count.min(2)]);
            }
            prop_assert!(hits.iter().all(|hit| *hit == rounds));
        }
    }
}
