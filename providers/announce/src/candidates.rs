//! Candidates: which nodes may hold an address, and why a node may not.
//!
//! Two questions with different sources:
//!
//! - [`standing`]: what every node can say about every node, from the API alone. All nodes get
//!   the same answer from the same [`View`](crate::view::View), so they agree on the order of
//!   successors.
//! - [`may_claim`]: what only a node itself knows at this moment: carrier, contact with the
//!   network, its health check node port. A node that may not claim stays silent, and the next
//!   one in the order claims after its stagger.
//!
//! ```text
//! Eligible ── cordoned, no carrier, or Local without an endpoint ──▶ Spare   claims, if no node
//!     │                          is eligible, what nobody holds or whose holder cannot be reached
//!     └─ no agent, excluded, out of service, not selected, no interface ──▶ Never
//! ```
//!
//! A standing never withdraws an address: a holder keeps it until another node has claimed it.

use std::fmt;
use std::net::IpAddr;

use crate::NodeName;
use crate::view::{NodeFacts, Policy, Wanted};

/// Whether a node may hold an address, as far as the API says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Eligible,
    /// It may if no node is eligible, and nobody holds the address or its holder cannot be reached.
    Spare(Reason),
    /// It may not.
    Never(Reason),
}

/// Why a node is no candidate for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The Node object does not exist.
    NodeDeleted,
    /// Its agent's Lease has expired.
    AgentDead,
    /// It has the exclusion label.
    Excluded,
    /// It has the out-of-service taint.
    OutOfService,
    /// The class's `nodeSelector` does not match.
    NotSelected,
    /// No interface is in the subnet of the address.
    NoInterface,
    /// It is cordoned.
    Cordoned,
    /// Policy Local, and it has no serving endpoint.
    NoEndpoint,
    /// Its interface has no carrier, or no host answers it.
    NoCarrier,
    /// Its carrier came up a moment ago.
    HoldDown,
    /// No other host answers it.
    CutOff,
    /// Its `healthCheckNodePort` does not answer 200.
    Unhealthy,
}

/// What a node knows about itself, for one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Own {
    /// The interface of the address has a carrier.
    pub carrier: bool,
    /// The carrier came up less than [`HOLD_DOWN`](crate::timing::HOLD_DOWN) ago.
    pub held_down: bool,
    /// Hosts of the segment are known, and none of them answers.
    pub cut_off: bool,
    /// `healthCheckNodePort` answered 200. Counts only for policy Local, while there are
    /// endpoints: otherwise it answers 503 everywhere, and the address must still be announced.
    pub healthy: bool,
}

/// Whether a node may hold an address, as far as the API says. `agent_alive`: its Lease has not
/// expired.
pub fn standing(
    address: &IpAddr,
    wanted: &Wanted,
    node: &NodeName,
    facts: Option<&NodeFacts>,
    agent_alive: bool,
) -> Standing {
    let Some(facts) = facts else {
        return Standing::Never(Reason::NodeDeleted);
    };
    let selected = wanted
        .nodes
        .as_ref()
        .is_none_or(|nodes| nodes.contains(node));
    let no_endpoint = wanted.policy == Policy::Local && !wanted.endpoints.contains(node);
    let never = [
        (!agent_alive, Reason::AgentDead),
        (facts.excluded, Reason::Excluded),
        (facts.out_of_service, Reason::OutOfService),
        (!selected, Reason::NotSelected),
        (
            facts.serving(address, wanted).is_none(),
            Reason::NoInterface,
        ),
    ];
    let connected = facts
        .serving(address, wanted)
        .is_some_and(|interface| interface.carrier);
    let spare = [
        (facts.cordoned, Reason::Cordoned),
        (!connected, Reason::NoCarrier),
        (no_endpoint, Reason::NoEndpoint),
    ];
    let first = |reasons: &[(bool, Reason)]| {
        let mut reasons = reasons.iter();
        reasons.find(|(holds, _)| *holds).map(|(_, reason)| *reason)
    };
    match (first(&never), first(&spare)) {
        (Some(reason), _) => Standing::Never(reason),
        (None, Some(reason)) => Standing::Spare(reason),
        (None, None) => Standing::Eligible,
    }
}

/// Whether this node may claim an address now, as far as it knows itself. Holds for every
/// cause: a claim by a node that cannot be reached would be a black hole.
pub fn may_claim(wanted: &Wanted, own: &Own) -> Result<(), Reason> {
    let local = wanted.policy == Policy::Local && !wanted.endpoints.is_empty();
    let unhealthy = local && !own.healthy;
    for (holds, reason) in [
        (!own.carrier, Reason::NoCarrier),
        (own.held_down, Reason::HoldDown),
        (own.cut_off, Reason::CutOff),
        (unhealthy, Reason::Unhealthy),
    ] {
        if holds {
            return Err(reason);
        }
    }
    Ok(())
}

// === impl Standing ===

impl Standing {
    /// [`Standing::Eligible`]
    pub fn is_eligible(self) -> bool {
        self == Self::Eligible
    }
}

// === impl Reason ===

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeDeleted => "the node was deleted",
            Self::AgentDead => "no announcer runs on it",
            Self::Excluded => {
                "it has the label node.kubernetes.io/exclude-from-external-load-balancers"
            }
            Self::OutOfService => "it has the taint node.kubernetes.io/out-of-service",
            Self::NotSelected => "the class's nodeSelector does not match it",
            Self::NoInterface => "it has no interface in the subnet of the address",
            Self::Cordoned => "it is cordoned",
            Self::NoEndpoint => "it has no serving endpoint (externalTrafficPolicy: Local)",
            Self::NoCarrier => "its interface has no carrier",
            Self::HoldDown => "its carrier came up a moment ago",
            Self::CutOff => "no other host on the network answers it",
            Self::Unhealthy => "its healthCheckNodePort does not answer 200",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::Mac;
    use crate::view::{Detection, Interface};

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn node(name: &str) -> NodeName {
        NodeName::new(name)
    }

    fn wanted() -> Wanted {
        Wanted {
            policy: Policy::Cluster,
            detection: Detection::Fast,
            nodes: None,
            preferred: None,
            rebalance: crate::view::Rebalance::default(),
            interfaces: None,
            endpoints: BTreeSet::new(),
            refresh: None,
        }
    }

    fn facts() -> NodeFacts {
        let eth0 = Interface {
            index: 2,
            name: "eth0".into(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            nets: vec![
                "192.0.2.1/24".parse().unwrap(),
                "2001:db8::1/64".parse().unwrap(),
            ],
            carrier: true,
        };
        NodeFacts {
            interfaces: vec![eth0],
            ..NodeFacts::default()
        }
    }

    #[test]
    fn the_api_decides_the_standing() {
        use Reason::{
            AgentDead, Cordoned, Excluded, NoEndpoint, NoInterface, NotSelected, OutOfService,
        };
        use Standing::{Eligible, Never, Spare};
        type Change = fn(&mut Wanted, &mut NodeFacts, &mut bool);
        let table: &[(Change, Standing)] = &[
            (|_, _, _| {}, Eligible),
            (|_, _, alive| *alive = false, Never(AgentDead)),
            (|_, facts, _| facts.excluded = true, Never(Excluded)),
            (
                |_, facts, _| facts.out_of_service = true,
                Never(OutOfService),
            ),
            (|_, facts, _| facts.cordoned = true, Spare(Cordoned)),
            (
                |_, facts, _| (facts.cordoned, facts.excluded) = (true, true),
                Never(Excluded),
            ),
            (|_, facts, _| facts.interfaces.clear(), Never(NoInterface)),
            (|_, facts, _| facts.interfaces[0].nets.truncate(1), Eligible),
            (
                |_, facts, _| facts.interfaces[0].nets.retain(|net| net.addr().is_ipv6()),
                Never(NoInterface),
            ),
            (
                |_, facts, _| facts.interfaces[0].carrier = false,
                Spare(Reason::NoCarrier),
            ),
            (
                |wanted, _, _| wanted.nodes = Some([node("b")].into()),
                Never(NotSelected),
            ),
            (
                |wanted, _, _| wanted.nodes = Some([node("a")].into()),
                Eligible,
            ),
            (
                |wanted, _, _| wanted.interfaces = Some(["eth1".into()].into()),
                Never(NoInterface),
            ),
            (
                |wanted, _, _| wanted.interfaces = Some(["eth0".into()].into()),
                Eligible,
            ),
            (
                |wanted, _, _| wanted.policy = Policy::Local,
                Spare(NoEndpoint),
            ),
            (
                |wanted, _, _| {
                    wanted.policy = Policy::Local;
                    wanted.endpoints = [node("a")].into();
                },
                Eligible,
            ),
            (
                |wanted, _, _| {
                    wanted.policy = Policy::Local;
                    wanted.endpoints = [node("b")].into();
                },
                Spare(NoEndpoint),
            ),
        ];
        for (row, (change, expected)) in table.iter().enumerate() {
            let (mut wanted, mut facts, mut alive) = (wanted(), facts(), true);
            change(&mut wanted, &mut facts, &mut alive);
            let standing = standing(&ADDRESS, &wanted, &node("a"), Some(&facts), alive);
            assert_eq!(standing, *expected, "row {row}");
        }
        let gone = standing(&ADDRESS, &wanted(), &node("a"), None, true);
        assert_eq!(gone, Never(Reason::NodeDeleted));
    }

    #[test]
    fn a_node_that_cannot_serve_claims_nothing() {
        let good = Own {
            carrier: true,
            held_down: false,
            cut_off: false,
            healthy: true,
        };
        let local = Wanted {
            policy: Policy::Local,
            endpoints: [node("a")].into(),
            ..wanted()
        };
        let without_endpoints = Wanted {
            policy: Policy::Local,
            ..wanted()
        };
        for (own, cluster, in_local) in [
            (good, Ok(()), Ok(())),
            (
                Own {
                    carrier: false,
                    ..good
                },
                Err(Reason::NoCarrier),
                Err(Reason::NoCarrier),
            ),
            (
                Own {
                    held_down: true,
                    ..good
                },
                Err(Reason::HoldDown),
                Err(Reason::HoldDown),
            ),
            (
                Own {
                    cut_off: true,
                    ..good
                },
                Err(Reason::CutOff),
                Err(Reason::CutOff),
            ),
            (
                Own {
                    healthy: false,
                    ..good
                },
                Ok(()),
                Err(Reason::Unhealthy),
            ),
        ] {
            assert_eq!(may_claim(&wanted(), &own), cluster, "{own:?}");
            assert_eq!(may_claim(&without_endpoints, &own), cluster, "{own:?}");
            assert_eq!(may_claim(&local, &own), in_local, "{own:?}");
        }
    }

    proptest! {
        /// Against the rule in one sentence: a node is eligible if nothing is wrong with it, spare
        /// if only soft reasons are, and never a candidate otherwise. The reason named is true.
        #[test]
        fn a_standing_names_a_reason_that_holds(flags in any::<[bool; 8]>()) {
            let [alive, excluded, out_of_service, cordoned, carrier, selected, local, endpoint] = flags;
            let mut facts = facts();
            facts.excluded = excluded;
            facts.out_of_service = out_of_service;
            facts.cordoned = cordoned;
            facts.interfaces[0].carrier = carrier;
            let mut wanted = wanted();
            if !selected {
                wanted.nodes = Some([node("b")].into());
            }
            if local {
                wanted.policy = Policy::Local;
            }
            wanted.endpoints = if endpoint { [node("a")].into() } else { [node("b")].into() };
            let hard = [
                (Reason::AgentDead, !alive),
                (Reason::Excluded, excluded),
                (Reason::OutOfService, out_of_service),
                (Reason::NotSelected, !selected),
            ];
            let soft = [
                (Reason::Cordoned, cordoned),
                (Reason::NoCarrier, !carrier),
                (Reason::NoEndpoint, local && !endpoint),
            ];
            let any = |reasons: &[(Reason, bool)]| reasons.iter().any(|(_, holds)| *holds);
            let holds = |reasons: &[(Reason, bool)], reason| reasons.contains(&(reason, true));
            match standing(&ADDRESS, &wanted, &node("a"), Some(&facts), alive) {
                Standing::Eligible => prop_assert!(!any(&hard) && !any(&soft)),
                Standing::Spare(reason) => prop_assert!(!any(&hard) && holds(&soft, reason)),
                Standing::Never(reason) => prop_assert!(holds(&hard, reason)),
            }
        }
    }
}
