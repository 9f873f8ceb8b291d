//! The vocabulary of the benchmark.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Serialize;

use self::value::{
    ANSWERED, BACK_FAILED, BACK_MOVES, BACK_TWO, CLAIMS, CORE, CUT_KNOWN, CUT_NEWCOMER, FAILED,
    HEALTHY, KNOWN, KNOWN_MOVES, LOST, MOVES, NEW_FAILED, NEWCOMER, OTHER_SIDE, RATIO, RESET,
    RESIDENT, RETURN, SIDE_OF_HOLDER, STALE, TWO, WRITES,
};

/// What happens in one measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scene {
    /// The link of the holder is cut, and comes back.
    LinkCut,
    /// The holder loses power.
    NodeKilled,
    /// Nothing reaches the holder any more, and what it sends arrives; then all is well again.
    DeafPort,
    /// The holder freezes for 0.3 s.
    Frozen300ms,
    /// The holder freezes for 1 s.
    Frozen1s,
    /// The holder freezes for 3 s.
    Frozen3s,
    /// The holder freezes for 10 s.
    Frozen10s,
    /// All links are down for 60 s, and come back 0 to 5 s apart.
    AllLinks,
    /// The holder's announcer is killed and starts again.
    AgentKilled,
    /// The holder's announcer is killed and stays away.
    AgentGone,
    /// The holder's announcer is stopped with SIGSTOP.
    AgentStopped,
    /// The holder's announcer ends, and another one starts when it has.
    AgentRestarted,
    /// The holder's announcer ends while another one starts.
    AgentUpdated,
    /// The holder is cordoned.
    Drain,
    /// The holder gets the exclusion label.
    Exclusion,
    /// The API server is down for two minutes, with a link cut in between.
    ApiDown,
    /// The segment is split in two, and healed.
    Split,
    /// A node that holds nothing loses its uplink, not its carrier.
    UplinkDead,
    /// The only endpoint of a Service with the policy Local moves to another node.
    EndpointMoves,
    /// 5 % of all frames are lost for 10 minutes.
    Loss,
    /// Four busy processes per core for 10 minutes.
    Busy,
    /// 100 addresses, and nothing happens.
    Idle,
    /// ARP requests while all cores are busy.
    Latency,
}

/// The values of one measurement, by name. Times are seconds.
pub type Values = BTreeMap<&'static str, f64>;

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// What happened.
    pub scene: Scene,
    /// The number of the round, from 1.
    pub round: u32,
    /// What was measured.
    pub values: Values,
}

/// A goal for a value over all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// The name of the value.
    pub value: &'static str,
    /// The limit that it must keep.
    pub limit: Limit,
}

/// A limit for a statistic of all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// The median is at most this.
    Median(f64),
    /// The largest value is at most this.
    Worst(f64),
    /// Every value is exactly this.
    Always(f64),
}

/// The names of values.
pub mod value {
    /// Seconds without an answer for a client that knows the address.
    pub const KNOWN: &str = "known client: outage, s";
    /// Seconds without an answer for a client that asks for the MAC address each time.
    pub const NEWCOMER: &str = "newcomer: outage, s";
    /// Seconds without an answer for a client behind a router.
    pub const FAR: &str = "client behind a router: outage, s";
    /// The longest time between two attempts of a client, because the machine was busy.
    pub const BLIND: &str = "client did not run, s";
    /// Failed connections of a client that knows the address.
    pub const FAILED: &str = "known client: failed connections";
    /// How often the node that answers changed, of the client who saw most changes.
    pub const MOVES: &str = "moves";
    /// How often the node that answers changed for the client that knows the address.
    pub const KNOWN_MOVES: &str = "known client: moves";
    /// Failed connections of a client that asks for the MAC address each time.
    pub const NEW_FAILED: &str = "newcomer: failed connections";
    /// Connections that were established while both nodes answered, and reset.
    pub const RESET: &str = "new connections: reset at the takeover";
    /// Seconds from a takeover's announcement to its first answer, by ARP or neighbour discovery.
    pub const ANSWERED: &str = "takeover to answer, s";
    /// Seconds in which answers named two nodes.
    pub const TWO: &str = "two nodes answer, s";
    /// Failed connections of a client that knows the address, after a link is back.
    pub const BACK_FAILED: &str = "link back: failed connections";
    /// Moves after a link is back.
    pub const BACK_MOVES: &str = "link back: moves";
    /// Seconds from a link's return until all answers name one node.
    pub const BACK_TWO: &str = "link back: until one answers, s";
    /// How often an established connection was lost.
    pub const LOST: &str = "established connection: losses";
    /// The longest time from a link's return to the first answer of its node.
    pub const RETURN: &str = "link up to answer, s";
    /// Nodes that answer on the side of a split segment where the holder is.
    pub const SIDE_OF_HOLDER: &str = "nodes that answer on the holder's side";
    /// Nodes that answer on the other side.
    pub const OTHER_SIDE: &str = "nodes that answer on the other side";
    /// [`KNOWN`] of a link cut while the API server is down.
    pub const CUT_KNOWN: &str = "link cut, known client: outage, s";
    /// [`NEWCOMER`] of a link cut while the API server is down.
    pub const CUT_NEWCOMER: &str = "link cut, newcomer: outage, s";
    /// Frames in which a node claims an address.
    pub const CLAIMS: &str = "claims of the cut-off node";
    /// Seconds from the loss of the uplink to the first of [`CLAIMS`].
    pub const CLAIMED_AFTER: &str = "first claim of the cut-off node after, s";
    /// Neighbour entries of clients that name another node than the holder.
    pub const STALE: &str = "clients that send to another node";
    /// From the health port's 200 to the first answer of the new node.
    pub const HEALTHY: &str = "health port 200 to answer, s";
    /// Resident memory of the largest announcer, in megabytes of 10^6 bytes.
    pub const RESIDENT: &str = "resident, MB";
    /// Processor time of the busiest announcer.
    pub const CORE: &str = "of a core, %";
    /// Writes of all announcers, without Leases.
    pub const WRITES: &str = "API writes";
    /// An announcer's replies compared with those of a thread that does nothing else.
    pub const RATIO: &str = "p99 over that of an echo thread";
    /// An announcer's replies.
    pub const REPLY_P99: &str = "reply p99, ms";
    /// The echo thread's replies.
    pub const ECHO_P99: &str = "echo p99, ms";
}

// === impl Scene ===

impl Scene {
    /// All scenes, in the order of a run.
    pub const ALL: [Self; 23] = [
        Self::LinkCut,
        Self::NodeKilled,
        Self::DeafPort,
        Self::Frozen300ms,
        Self::Frozen1s,
        Self::Frozen3s,
        Self::Frozen10s,
        Self::AgentKilled,
        Self::AgentGone,
        Self::AgentStopped,
        Self::AgentRestarted,
        Self::AgentUpdated,
        Self::Drain,
        Self::Exclusion,
        Self::Split,
        Self::UplinkDead,
        Self::EndpointMoves,
        Self::AllLinks,
        Self::ApiDown,
        Self::Loss,
        Self::Busy,
        Self::Latency,
        Self::Idle,
    ];

    /// Its title in the report.
    pub const fn title(self) -> &'static str {
        match self {
            Self::LinkCut => "link of the holder cut, and back",
            Self::NodeKilled => "node killed",
            Self::DeafPort => "the holder's port sends and receives nothing, and is well again",
            Self::Frozen300ms => "host frozen for 0.3 s",
            Self::Frozen1s => "host frozen for 1 s",
            Self::Frozen3s => "host frozen for 3 s",
            Self::Frozen10s => "host frozen for 10 s",
            Self::AllLinks => "all links down for 60 s, back 0 to 5 s apart",
            Self::AgentKilled => "announcer killed (-9), comes back",
            Self::AgentGone => "announcer killed (-9), stays away",
            Self::AgentStopped => "announcer stopped (SIGSTOP)",
            Self::AgentRestarted => "announcer ends (SIGTERM), then its successor starts",
            Self::AgentUpdated => "announcer ends (SIGTERM) while its successor starts",
            Self::Drain => "drain",
            Self::Exclusion => "exclusion label",
            Self::ApiDown => "API server down for 2 min, link cut meanwhile",
            Self::Split => "segment split and healed",
            Self::UplinkDead => "uplink of another node dead",
            Self::EndpointMoves => "endpoint moves under Local",
            Self::Loss => "5 % loss for 10 min",
            Self::Busy => "4 busy processes per core for 10 min",
            Self::Idle => "100 addresses, idle",
            Self::Latency => "ARP requests with busy cores",
        }
    }

    /// How often it is measured if the user wants this many rounds: some take minutes.
    pub fn rounds(self, wanted: u32) -> u32 {
        match self {
            Self::Loss | Self::Busy | Self::Idle => wanted.min(1),
            Self::ApiDown | Self::AllLinks | Self::Latency => wanted.min(3),
            _ => wanted,
        }
    }

    /// Its goals.
    pub fn goals(self) -> Vec<Goal> {
        let goal = |value, limit| Goal { value, limit };
        let median = |value, at_most| goal(value, Limit::Median(at_most));
        let worst = |value, at_most| goal(value, Limit::Worst(at_most));
        let once = goal(KNOWN_MOVES, Limit::Always(1.0));
        let failover = |value| vec![median(value, 0.8), worst(value, 1.5)];
        // Neighbour discovery, too, after every move.
        let answered = worst(ANSWERED, 1.0);
        let back = vec![
            worst(BACK_FAILED, 0.0),
            worst(BACK_MOVES, 0.0),
            worst(BACK_TWO, 3.0),
        ];
        match self {
            Self::LinkCut => [failover(KNOWN), failover(NEWCOMER), vec![answered], back].concat(),
            // Its messages arrive, so it takes longer until somebody doubts it.
            Self::DeafPort => [
                vec![worst(KNOWN, 2.0), worst(NEWCOMER, 2.0), answered],
                back,
            ]
            .concat(),
            Self::NodeKilled => [failover(KNOWN), failover(NEWCOMER), vec![answered]].concat(),
            Self::Frozen300ms => vec![worst(KNOWN_MOVES, 0.0)],
            Self::Loss | Self::Busy => vec![worst(MOVES, 0.0)],
            Self::Frozen1s => vec![worst(KNOWN_MOVES, 1.0), worst(TWO, 0.2), answered],
            Self::Frozen3s | Self::Frozen10s => vec![once, worst(TWO, 0.2), answered],
            Self::AllLinks => vec![worst(RETURN, 3.0), worst(MOVES, 0.0)],
            Self::AgentKilled | Self::AgentGone | Self::AgentRestarted | Self::AgentUpdated => {
                vec![
                    worst(FAILED, 0.0),
                    worst(NEWCOMER, 0.5),
                    worst(MOVES, 0.0),
                    answered,
                ]
            }
            Self::AgentStopped => vec![
                worst(FAILED, 0.0),
                median(NEWCOMER, 2.5),
                worst(NEWCOMER, 4.0),
                worst(TWO, 0.2),
                answered,
            ],
            Self::Drain | Self::Exclusion => vec![
                worst(FAILED, 0.0),
                worst(NEW_FAILED, 0.0),
                worst(NEWCOMER, 0.2),
                worst(RESET, 2.0),
                worst(LOST, 1.0),
                answered,
            ],
            Self::ApiDown => [
                vec![
                    worst(FAILED, 0.0),
                    worst(NEW_FAILED, 0.0),
                    worst(MOVES, 0.0),
                    answered,
                ],
                failover(CUT_KNOWN),
                failover(CUT_NEWCOMER),
            ]
            .concat(),
            Self::Split => vec![
                goal(SIDE_OF_HOLDER, Limit::Always(1.0)),
                goal(OTHER_SIDE, Limit::Always(1.0)),
                worst(TWO, 3.0),
                worst(STALE, 0.0),
                answered,
            ],
            Self::UplinkDead => vec![worst(CLAIMS, 0.0), worst(MOVES, 0.0)],
            Self::EndpointMoves => vec![worst(HEALTHY, 1.0)],
            Self::Idle => vec![worst(RESIDENT, 15.0), worst(CORE, 0.2), worst(WRITES, 0.0)],
            Self::Latency => vec![worst(RATIO, 3.0)],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_scene_is_in_a_run_once_and_has_a_goal() {
        let all: BTreeSet<Scene> = Scene::ALL.into();
        assert_eq!(all.len(), Scene::ALL.len());
        assert_eq!(all.len(), Scene::value_variants().len());
        for scene in Scene::ALL {
            assert!(!scene.goals().is_empty(), "{scene:?}");
            assert!(scene.rounds(20) >= 1, "{scene:?}");
            assert_eq!(scene.rounds(1), 1, "{scene:?}");
        }
    }
}
