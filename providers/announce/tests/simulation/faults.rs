//! The failures: what happens, for how long, and what may follow (`limits.rs`).

mod agents;
mod causes;
mod hosts;
mod rebalance;
mod segment;

use std::net::IpAddr;

use ballast_announce::io::Input;
use ballast_announce::slip::Slips;
use ballast_announce::view::{Detection, Policy};

use crate::judge::Allowed;
use crate::limits::{self, QUIET};
use crate::world::{Micros, Other, Shape, World, interface, ms};

pub use rebalance::three_hundred_addresses;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    LinkCut,
    NodeKilled,
    ShortFreeze,
    Freeze,
    Suspension,
    AllLinksDown,
    AgentRestarts,
    AgentGone,
    AgentStopped,
    ApiOutage,
    Split,
    SplitAndKilled,
    UplinkDead,
    DeafPort,
    MutePort,
    OneWay,
    Noise,
    BusyHosts,
    Cordon,
    Exclusion,
    OutOfService,
    EndpointMoves,
    Interception,
    AllAgentsRestart,
    NewAddress,
    PairCut,
    ManySuccessors,
    Rebalance,
    Chaos,
}

pub const FAULTS: [Fault; 29] = [
    Fault::LinkCut,
    Fault::NodeKilled,
    Fault::ShortFreeze,
    Fault::Freeze,
    Fault::Suspension,
    Fault::AllLinksDown,
    Fault::AgentRestarts,
    Fault::AgentGone,
    Fault::AgentStopped,
    Fault::ApiOutage,
    Fault::Split,
    Fault::SplitAndKilled,
    Fault::UplinkDead,
    Fault::DeafPort,
    Fault::MutePort,
    Fault::OneWay,
    Fault::Noise,
    Fault::BusyHosts,
    Fault::Cordon,
    Fault::Exclusion,
    Fault::OutOfService,
    Fault::EndpointMoves,
    Fault::Interception,
    Fault::AllAgentsRestart,
    Fault::NewAddress,
    Fault::PairCut,
    Fault::ManySuccessors,
    Fault::Rebalance,
    Fault::Chaos,
];

/// Failures between two nodes, and moves from one node to another. A single node would not notice them.
const NEED_TWO: [Fault; 7] = [
    Fault::OneWay,
    Fault::Split,
    Fault::Cordon,
    Fault::Exclusion,
    Fault::OutOfService,
    Fault::EndpointMoves,
    Fault::Rebalance,
];

/// One cluster's history: settles, then one failure or two.
pub fn history(seed: u64, faults: &[Fault], slips: Slips) -> World {
    let mut random = ballast_announce::random::Random::new(seed ^ 0x5eed);
    let contains = |fault| faults.contains(&fault);
    let nodes = if contains(Fault::SplitAndKilled) {
        // A holder and its three successors: each side has one of them.
        3 + random.below(2)
    } else if contains(Fault::ManySuccessors) {
        7
    } else if contains(Fault::PairCut) && contains(Fault::Split) {
        3 + random.below(2)
    } else if contains(Fault::PairCut) {
        3 + random.below(4)
    } else if faults.iter().any(|fault| NEED_TWO.contains(fault)) {
        2 + random.below(3)
    } else {
        1 + random.below(4)
    };
    let detection = match random.below(8) {
        0 => Detection::Lease,
        1 => Detection::Tolerant,
        _ => Detection::Fast,
    };
    let local = contains(Fault::EndpointMoves) || contains(Fault::ManySuccessors);
    let shape = Shape {
        nodes,
        addresses: 1 + random.below(5),
        detection,
        gossip: detection != Detection::Lease,
        // Two nodes alone cannot tell which of them is cut off.
        other: match nodes {
            1 | 2 if seed % 4 == 3 => Other::Client,
            1 | 2 => Other::Gateway,
            _ if random.below(4) > 0 => Other::Gateway,
            _ => Other::Nobody,
        },
        policy: if local {
            Policy::Local
        } else {
            Policy::Cluster
        },
        api_on_segment: random.below(2) == 0,
    };
    let mut world = World::new(seed, shape, slips);
    // What two failures cause overlaps.
    world.strict = faults.len() == 1;
    world.network.copies_percent = random.below(3) as u64;
    world.network.delay = ms(1 + random.below(4) as u64);
    world.phase(
        "start",
        None,
        ms(8000),
        Allowed {
            gap: ms(5000),
            dual: ms(200),
            moves: 1,
            other_moves: 1,
        },
    );
    world.phase("quiet", None, ms(2000), QUIET);
    for fault in faults {
        let before = world.traces;
        world.suffer(*fault);
        let effect = world.traces > before;
        world.effects.push((*fault, effect));
    }
    world.agree();
    world
}

// === impl World ===

impl World {
    pub fn phase(
        &mut self,
        name: &'static str,
        victim: Option<usize>,
        time: Micros,
        allowed: Allowed,
    ) {
        if self.trace {
            println!("{:7} ms {name}: {:?}", self.now / 1000, self.network);
        }
        let mut judge = std::mem::take(&mut self.judge);
        judge.begin(self, name, victim, allowed);
        judge.causes = self.causes(name);
        self.judge = judge;
        self.run(time);
    }

    /// Another node than this one.
    pub(super) fn other_than(&mut self, host: usize) -> usize {
        let step = 1 + self.random.below(self.shape.nodes - 1);
        (host + step) % self.shape.nodes
    }

    /// The time within which a dead or unreachable holder is replaced.
    fn failover(&self) -> Micros {
        limits::failover(self.shape.detection)
    }

    /// A holder of an address, or any node if nobody holds one.
    fn victim(&mut self) -> usize {
        let addresses: Vec<IpAddr> = self.addresses().collect();
        let chosen = self.random.below(addresses.len());
        let holder = self.holder(&addresses[chosen]);
        holder.unwrap_or(0)
    }

    fn set_carrier(&mut self, host: usize, carrier: bool) {
        self.network.ports[host].carrier = carrier;
        self.input(host, Input::Interfaces(vec![interface(host, carrier)]));
    }

    fn lost(&self) -> Allowed {
        Allowed {
            gap: self.failover(),
            dual: limits::TAKEOVER_TWO,
            moves: 1,
            other_moves: 0,
        }
    }

    /// A failure is over, and the former holder is back.
    fn back(&self) -> Allowed {
        Allowed {
            gap: if self.shape.nodes == 1 {
                limits::BACK_ALONE
            } else {
                limits::BACK
            },
            dual: if self.shape.gossip {
                limits::BACK_TWO
            } else {
                limits::BACK_TWO_WITHOUT_MESSAGES
            },
            moves: 0,
            other_moves: 0,
        }
    }

    /// The same after a boot of the host.
    fn booted(&self) -> Allowed {
        let alone = self.shape.nodes == 1;
        let back = self.back();
        Allowed {
            gap: if alone {
                limits::BOOTED_ALONE
            } else {
                back.gap
            },
            ..back
        }
    }

    fn suffer(&mut self, fault: Fault) {
        let victim = self.victim();
        match fault {
            Fault::LinkCut => self.link_cut(victim),
            Fault::NodeKilled => self.node_killed(victim),
            Fault::ShortFreeze => self.short_freeze(victim),
            Fault::Freeze => self.freeze(victim),
            Fault::Suspension => self.suspension(victim),
            Fault::AllLinksDown => self.all_links_down(),
            Fault::AgentRestarts => self.agent_restarts(victim),
            Fault::AgentGone => self.agent_gone(victim),
            Fault::AgentStopped => self.agent_stopped(victim),
            Fault::ApiOutage => self.api_outage(victim),
            Fault::Split => self.split(None),
            Fault::SplitAndKilled => self.split(Some(victim)),
            Fault::UplinkDead => self.uplink_dead(victim),
            Fault::DeafPort => self.deaf_port(victim),
            Fault::MutePort => self.mute_port(victim),
            Fault::OneWay => self.one_way(victim),
            Fault::Noise => self.noise(),
            Fault::BusyHosts => self.busy_hosts(),
            Fault::Cordon | Fault::Exclusion | Fault::OutOfService => {
                self.planned_move(victim, fault);
            }
            Fault::EndpointMoves => self.endpoint_moves(victim),
            Fault::Interception => self.interception(victim),
            Fault::AllAgentsRestart => self.all_agents_restart(),
            Fault::NewAddress => self.new_address(),
            Fault::PairCut => self.pair_cut(victim),
            Fault::ManySuccessors => self.many_successors(),
            Fault::Rebalance => self.rebalance(),
            Fault::Chaos => self.chaos(),
        }
    }

    fn agree(&mut self) {
        let quiet = || Allowed {
            gap: ms(600),
            dual: ms(200),
            ..QUIET
        };
        // Each holder records a node that has returned as a successor, once it has heard of it.
        self.phase("all is recorded", None, limits::RECORDED, quiet());
        let writes = self.api.writes;
        self.phase("at the end", None, ms(20_000), quiet());
        if self.api.writes != writes {
            let more = self.api.writes - writes;
            self.fail(&format!("{more} writes while nothing moved"));
        }
        let running: Vec<usize> = (0..self.shape.nodes)
            .filter(|host| self.runs(*host))
            .collect();
        for address in self.addresses().collect::<Vec<_>>() {
            let claims: Vec<_> = running
                .iter()
                .filter_map(|host| self.hosts[*host].agent.as_ref())
                .map(|agent| agent.claims().get(&address).cloned())
                .collect();
            if claims.windows(2).any(|pair| pair[0] != pair[1]) {
                self.fail(&format!("agents disagree on {address}: {claims:?}"));
            }
        }
    }

    pub fn fail(&mut self, text: &str) {
        let mut judge = std::mem::take(&mut self.judge);
        judge.report(self, text);
        self.judge = judge;
    }
}
