//! Which targets may get traffic, and which one gets it. Pure.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::api::{Family, Target, TargetHealth, TrafficPolicy};

/// A target that can be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) address: SocketAddr,
}

/// Whether the source ranges let this client in; none at all let everybody in.
pub(super) fn admits(ranges: &[IpNet], client: IpAddr) -> bool {
    let client = client.to_canonical();
    ranges.is_empty() || ranges.iter().any(|range| range.contains(&client))
}

/// A target's address for clients of `listener`: of the same family if it has one,
/// else any, since the proxy connects by itself.
pub(super) fn address_for(target: &Target, listener: IpAddr) -> Option<IpAddr> {
    let family = Family::of(listener);
    let same = target
        .addresses
        .iter()
        .find(|ip| Family::of(**ip) == family);
    same.or(target.addresses.first()).copied()
}

/// The healthy targets. Where none is, all of them for `Cluster` (a wrong health
/// check then costs nothing: any node may carry the traffic), none for `Local` (a
/// node without an endpoint would drop it).
pub(super) fn eligible(
    targets: &[Target],
    node_port: u16,
    listener: IpAddr,
    policy: TrafficPolicy,
    verdict: impl Fn(&Target) -> TargetHealth,
) -> Vec<Candidate> {
    let candidate = |target: &Target| {
        address_for(target, listener).map(|ip| Candidate {
            name: target.name.clone(),
            address: SocketAddr::new(ip, node_port),
        })
    };
    let healthy: Vec<Candidate> = targets
        .iter()
        .filter(|target| verdict(target) == TargetHealth::Healthy)
        .filter_map(candidate)
        .collect();
    match policy {
        TrafficPolicy::Cluster if healthy.is_empty() => {
            targets.iter().filter_map(candidate).collect()
        }
        _ => healthy,
    }
}

/// The order in which to try them: the client's own target first, then round robin
/// from this listener's turn.
pub(super) fn order(
    mut eligible: Vec<Candidate>,
    turn: usize,
    sticky: Option<&str>,
) -> Vec<Candidate> {
    if eligible.is_empty() {
        return eligible;
    }
    let start = turn % eligible.len();
    eligible.rotate_left(start);
    if let Some(index) =
        sticky.and_then(|name| eligible.iter().position(|candidate| candidate.name == name))
    {
        eligible[..=index].rotate_right(1);
    }
    eligible
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
        candidates
            .iter()
            .map(|candidate| candidate.name.as_str())
            .collect()
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
            let eligible = eligible(&targets, 30_000, listener, policy, verdict);
            let healthy = targets.iter().filter(|target| verdict(target) == TargetHealth::Healthy);
            let healthy = healthy.count();
            let expected = match (healthy, local) {
                (0, false) => targets.len(),
                (healthy, _) => healthy,
            };
            prop_assert_eq!(eligible.len(), expected);
            prop_assert!(eligible.iter().all(|candidate| candidate.address.port() == 30_000));
        }

        #[test]
        fn turns_go_round_evenly_and_the_sticky_target_is_first(
            count in 1usize..9,
            rounds in 1usize..4,
            sticky in 0usize..12,
        ) {
            let all: Vec<Candidate> = (0..count)
                .map(|index| Candidate { name: format!("n{index}"), address: "10.0.0.1:1".parse().unwrap() })
                .collect();
            let mut hits = vec![0; count];
            for turn in 0..count * rounds {
                let ordered = order(all.clone(), turn, None);
                prop_assert_eq!(ordered.len(), count);
                hits[ordered[0].name[1..].parse::<usize>().unwrap()] += 1;

                let name = format!("n{sticky}");
                let stuck = order(all.clone(), turn, Some(&name));
                let mut sorted = names(&stuck);
                sorted.sort_unstable();
                let mut expected = names(&all);
                expected.sort_unstable();
                prop_assert_eq!(sorted, expected, "each is there once");
                if sticky < count {
                    prop_assert_eq!(&stuck[0].name, &name);
                }
            }
            prop_assert!(hits.iter().all(|hit| *hit == rounds));
        }
    }
}
