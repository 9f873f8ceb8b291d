//! The failures: what happens, for how long, and what may follow (the table in `main.rs`).

use std::net::IpAddr;

use ballast_announce::io::Input;
use ballast_announce::slip::Slips;
use ballast_announce::view::{Detection, Policy, Wanted};

use crate::judge::Allowed;
use crate::world::{Event, Micros, Shape, World, interface, ms, node};

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
    OneWay,
    Noise,
    BusyHosts,
    Cordon,
    Exclusion,
    EndpointMoves,
    Interception,
    AllAgentsRestart,
    NewAddress,
    PairCut,
    Chaos,
}

pub const FAULTS: [Fault; 24] = [
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
    Fault::OneWay,
    Fault::Noise,
    Fault::BusyHosts,
    Fault::Cordon,
    Fault::Exclusion,
    Fault::EndpointMoves,
    Fault::Interception,
    Fault::AllAgentsRestart,
    Fault::NewAddress,
    Fault::PairCut,
    Fault::Chaos,
];

/// Nothing may move, and nobody may notice.
const QUIET: Allowed = Allowed {
    gap: 0,
    dual: 0,
    moves: 0,
    other_moves: 0,
};

/// One cluster's history: settles, then one failure or two.
pub fn history(seed: u64, faults: &[Fault], slips: Slips) -> World {
    let mut random = ballast_announce::random::Random::new(seed ^ 0x5eed);
    let contains = |fault| faults.contains(&fault);
    let nodes = if contains(Fault::SplitAndKilled) {
        // A holder and its three successors: each side has one of them.
        3 + random.below(2)
    } else if contains(Fault::PairCut) {
        3 + random.below(4)
    } else {
        1 + random.below(4)
    };
    let detection = match random.below(8) {
        0 => Detection::Lease,
        1 => Detection::Tolerant,
        _ => Detection::Fast,
    };
    let local = contains(Fault::EndpointMoves);
    let shape = Shape {
        nodes,
        addresses: 1 + random.below(5),
        detection,
        gossip: detection != Detection::Lease,
        // Two nodes alone cannot tell which of them is cut off.
        gateway: nodes <= 2 || random.below(4) > 0,
        policy: if local {
            Policy::Local
        } else {
            Policy::Cluster
        },
        api_on_segment: random.below(2) == 0,
    };
    let mut world = World::new(seed, shape, slips);
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
        world.suffer(*fault);
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
        let mut judge = std::mem::take(&mut self.judge);
        judge.begin(self, name, victim, allowed);
        self.judge = judge;
        self.run(time);
    }

    /// The time within which a dead or unreachable holder is replaced.
    fn failover(&self) -> Micros {
        match self.shape.detection {
            Detection::Fast => ms(1500),
            Detection::Tolerant => ms(7000),
            Detection::Lease => ms(22_000),
        }
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
            dual: ms(300),
            moves: 1,
            other_moves: 0,
        }
    }

    /// A failure is over, and the former holder is back.
    fn back(&self) -> Allowed {
        let alone = self.shape.nodes == 1;
        Allowed {
            gap: if alone { ms(4000) } else { ms(300) },
            dual: if self.shape.gossip {
                ms(1500)
            } else {
                ms(3000)
            },
            moves: 0,
            other_moves: 0,
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm per failure")]
    fn suffer(&mut self, fault: Fault) {
        let victim = self.victim();
        let one = Some(victim);
        let wait = self.failover() + ms(5000);
        match fault {
            Fault::LinkCut => {
                self.set_carrier(victim, false);
                self.phase("link cut", one, wait, self.lost());
                self.set_carrier(victim, true);
                self.phase("link back", one, ms(15_000), self.back());
            }
            Fault::NodeKilled => {
                self.kill(victim);
                self.hosts[victim].powered = false;
                self.phase("node killed", one, wait, self.lost());
                self.power_on(victim);
                let back = Allowed {
                    gap: ms(6000),
                    ..self.back()
                };
                self.phase("node back", one, ms(10_000), back);
            }
            Fault::ShortFreeze => {
                self.hosts[victim].frozen = true;
                let time = ms(300);
                self.phase(
                    "frozen for 0.3 s",
                    one,
                    time,
                    Allowed { gap: time, ..QUIET },
                );
                self.hosts[victim].frozen = false;
                self.phase(
                    "thawed",
                    one,
                    ms(5000),
                    Allowed {
                        gap: ms(300),
                        ..QUIET
                    },
                );
            }
            Fault::Freeze => {
                self.hosts[victim].frozen = true;
                let time = ms(1000) + self.up_to(ms(9000));
                self.phase("frozen", one, time, self.lost());
                self.hosts[victim].frozen = false;
                let moves = 1;
                let thawed = Allowed {
                    gap: self.failover(),
                    dual: ms(50),
                    moves,
                    ..QUIET
                };
                self.phase("thawed", one, ms(10_000), thawed);
            }
            Fault::Suspension => {
                self.hosts[victim].frozen = true;
                let time = ms(3000) + self.up_to(ms(5000));
                self.phase("suspended", one, time, self.lost());
                self.hosts[victim].frozen = false;
                self.set_back(victim, time);
                let moves = 1;
                let back = Allowed {
                    gap: self.failover(),
                    moves,
                    ..self.back()
                };
                self.phase("resumed, its clock stood still", one, ms(10_000), back);
            }
            Fault::AllLinksDown => self.all_links_down(),
            Fault::AgentRestarts => {
                self.kill(victim);
                let time = ms(500) + self.up_to(ms(8000));
                self.after(time, Event::Start(victim));
                self.phase(
                    "agent restarts",
                    one,
                    time + ms(15_000),
                    Allowed {
                        gap: if self.shape.gossip {
                            ms(600)
                        } else {
                            time + ms(1500)
                        },
                        dual: ms(100),
                        ..QUIET
                    },
                );
            }
            Fault::AgentGone => {
                self.kill(victim);
                let gone = self.agent_silent(ms(600));
                self.phase("agent gone", one, ms(30_000), gone);
                self.after(0, Event::Start(victim));
                self.phase("agent back", one, ms(8000), self.back());
            }
            Fault::AgentStopped => {
                self.hosts[victim].stopped = true;
                let time = ms(5000) + self.up_to(ms(25_000));
                let stopped = self.agent_silent(ms(2700));
                self.phase("agent stopped", one, time, stopped);
                self.hosts[victim].stopped = false;
                let moves = 1;
                self.phase(
                    "agent continued",
                    one,
                    ms(8000),
                    Allowed {
                        moves,
                        ..self.back()
                    },
                );
            }
            Fault::ApiOutage => {
                self.api.away = true;
                self.phase("API server away", None, ms(25_000), QUIET);
                self.set_carrier(victim, false);
                let mut lost = self.lost();
                if !self.shape.gossip {
                    // Without messages and Leases nobody can decide.
                    lost.gap = Micros::MAX;
                }
                self.phase("link cut while the API server is away", one, wait, lost);
                self.set_carrier(victim, true);
                let mut back = self.back();
                back.gap = back.gap.max(if self.shape.gossip { 0 } else { ms(4000) });
                self.phase(
                    "link back while the API server is away",
                    one,
                    ms(10_000),
                    back,
                );
                self.api.away = false;
                self.phase("API server back", None, ms(20_000), QUIET);
            }
            Fault::Split => self.split(None),
            Fault::SplitAndKilled => self.split(one),
            Fault::UplinkDead => {
                self.network.ports[victim].passes = false;
                self.phase("uplink dead", one, wait, self.lost());
                self.network.ports[victim].passes = true;
                self.phase("uplink back", one, ms(10_000), self.back());
            }
            Fault::OneWay => {
                let other = self.random.below(self.shape.nodes);
                self.network.cut.insert((victim, other));
                if self.random.below(2) == 0 {
                    self.network.cut = [(other, victim)].into();
                }
                let moves = 1;
                self.phase(
                    "one-way path",
                    one,
                    ms(40_000),
                    Allowed {
                        gap: ms(200),
                        dual: ms(1000),
                        moves,
                        other_moves: 1,
                    },
                );
                self.network.cut.clear();
                self.phase(
                    "path back",
                    None,
                    ms(5000),
                    Allowed {
                        moves: 0,
                        ..self.back()
                    },
                );
            }
            Fault::Noise => {
                self.network.loss_percent = 1 + self.random.below(5) as u64;
                self.network.copies_percent = 10;
                self.network.delay = ms(20);
                self.phase("loss, copies and delay", None, ms(60_000), QUIET);
                self.network.loss_percent = 0;
            }
            Fault::BusyHosts => {
                self.lateness = ms(250);
                self.phase("busy hosts", None, ms(30_000), QUIET);
                self.lateness = ms(5);
            }
            Fault::Cordon | Fault::Exclusion => {
                let facts = self.api.view.nodes.get_mut(&node(victim)).unwrap();
                facts.cordoned = fault == Fault::Cordon;
                facts.excluded = fault == Fault::Exclusion;
                self.api.version += 1;
                let planned = Allowed {
                    gap: 0,
                    dual: ms(700),
                    moves: 1,
                    other_moves: 0,
                };
                self.phase("planned move", one, ms(10_000), planned);
                let facts = self.api.view.nodes.get_mut(&node(victim)).unwrap();
                (facts.cordoned, facts.excluded) = (false, false);
                self.api.version += 1;
                self.phase("node is eligible again", None, ms(5000), QUIET);
            }
            Fault::EndpointMoves => self.endpoint_moves(),
            Fault::Interception => {
                self.network.intercepts = true;
                self.phase("a switch answers ARP", None, ms(15_000), QUIET);
                self.kill(victim);
                self.hosts[victim].powered = false;
                self.phase("node killed behind that switch", one, wait, self.lost());
                self.power_on(victim);
                let back = Allowed {
                    gap: ms(6000),
                    ..self.back()
                };
                self.phase("node back behind that switch", one, ms(10_000), back);
            }
            Fault::AllAgentsRestart => {
                for host in 0..self.shape.nodes {
                    self.kill(host);
                    let delay = ms(1000) + self.up_to(ms(5000));
                    self.after(delay, Event::Start(host));
                }
                self.phase(
                    "all agents restart",
                    None,
                    ms(15_000),
                    Allowed {
                        gap: ms(7500),
                        dual: ms(100),
                        ..QUIET
                    },
                );
            }
            Fault::NewAddress => self.new_address(),
            Fault::PairCut => {
                let other = (victim + 1) % self.shape.nodes;
                self.network.cut = [(victim, other), (other, victim)].into();
                let moves = 0;
                self.phase(
                    "two nodes do not reach each other",
                    one,
                    ms(40_000),
                    Allowed { moves, ..QUIET },
                );
                self.network.cut.clear();
                self.phase("path back", None, ms(5000), Allowed { moves: 0, ..QUIET });
            }
            Fault::Chaos => self.chaos(),
        }
    }

    /// Everything at once for half a minute, then nothing. Addresses may move as often as their
    /// holders fail, but not without end.
    fn chaos(&mut self) {
        let anything = Allowed {
            gap: Micros::MAX,
            dual: Micros::MAX,
            moves: 30,
            other_moves: 30,
        };
        self.phase("chaos", None, 0, anything);
        for _ in 0..12 {
            let host = self.random.below(self.shape.nodes);
            self.disturb(host);
            let time = self.up_to(ms(5000));
            self.run(time);
        }
        self.repair();
        // Agents that restart read the API, hold-downs end, Leases of dead agents expire.
        self.phase(
            "after chaos",
            None,
            ms(30_000),
            Allowed {
                moves: 4,
                other_moves: 4,
                ..anything
            },
        );
        self.phase("quiet after chaos", None, ms(10_000), QUIET);
    }

    fn disturb(&mut self, host: usize) {
        match self.random.below(14) {
            0 | 1 => self.set_carrier(host, false),
            2 => self.set_carrier(host, true),
            3 => self.network.ports[host].passes = false,
            4 => self.network.ports[host].passes = true,
            5 => self.network.ports[host].group ^= 1,
            6 => self.hosts[host].frozen ^= true,
            7 => self.hosts[host].stopped ^= true,
            8 => self.kill(host),
            9 => {
                self.kill(host);
                self.hosts[host].powered = false;
            }
            10 => {
                self.hosts[host].powered = true;
                self.after(ms(500), Event::Start(host));
            }
            11 => self.api.away ^= true,
            12 => {
                let other = self.random.below(self.shape.nodes);
                self.network.cut.insert((host, other));
            }
            _ => {
                self.network.loss_percent = self.random.below(20) as u64;
                self.lateness = ms(self.random.below(600) as u64);
            }
        }
    }

    fn repair(&mut self) {
        self.network.cut.clear();
        self.network.loss_percent = 0;
        self.lateness = ms(5);
        self.api.away = false;
        for host in 0..self.shape.nodes {
            self.network.ports[host].passes = true;
            self.network.ports[host].group = 0;
            let entry = &mut self.hosts[host];
            (entry.powered, entry.frozen, entry.stopped) = (true, false, false);
            self.after(ms(500), Event::Start(host));
            self.set_carrier(host, true);
        }
    }

    /// The agent of the victim is silent, its host lives. `stand_in`: until its successor answers.
    fn agent_silent(&self, stand_in: Micros) -> Allowed {
        Allowed {
            gap: if self.shape.gossip {
                stand_in
            } else {
                ms(22_000)
            },
            dual: ms(300),
            moves: 1,
            other_moves: 0,
        }
    }

    fn all_links_down(&mut self) {
        for host in 0..self.shape.nodes {
            self.set_carrier(host, false);
        }
        self.phase(
            "all links down",
            None,
            ms(20_000),
            Allowed {
                gap: Micros::MAX,
                ..QUIET
            },
        );
        let mut delays: Vec<Micros> = (0..self.shape.nodes)
            .map(|_| self.up_to(ms(5000)))
            .collect();
        // The holder of an address answers at most 3 s after its own port is up.
        self.phase(
            "links come back",
            None,
            0,
            Allowed {
                gap: ms(8000),
                ..QUIET
            },
        );
        let start = self.now;
        while let Some((host, &at)) = delays.iter().enumerate().min_by_key(|(_, at)| **at) {
            if at == Micros::MAX {
                break;
            }
            self.run(start + at - self.now);
            self.set_carrier(host, true);
            delays[host] = Micros::MAX;
        }
        self.run(ms(3000));
        self.phase("links are back", None, ms(25_000), QUIET);
    }

    /// Nodes are on either side at random. With a victim, its death makes both sides claim.
    fn split(&mut self, victim: Option<usize>) {
        let side: Vec<usize> = (0..self.shape.nodes)
            .filter(|_| self.random.below(2) == 0)
            .collect();
        for host in &side {
            self.network.ports[*host].group = 1;
        }
        if let Some(victim) = victim {
            self.kill(victim);
            self.hosts[victim].powered = false;
        }
        // The third successor may be alone on its side.
        let mut allowed_here = Allowed {
            gap: self.failover() + ms(800),
            dual: ms(300),
            moves: 1,
            other_moves: 1,
        };
        if self.shape.detection == Detection::Tolerant && !self.shape.api_on_segment {
            // The holder has recorded successors on its own side before the 5 s are over.
            allowed_here.gap = Micros::MAX;
        }
        if victim.is_some() && !self.shape.api_on_segment {
            // The other side has claimed, and the API server says so.
            allowed_here.gap = Micros::MAX;
        }
        if !self.shape.gossip {
            // The Leases decide. They see no split of a segment on which the API server is not,
            // and nothing at all on the side that has lost it.
            allowed_here.gap = Micros::MAX;
        }
        self.phase(
            "segment split",
            None,
            self.failover() + ms(8000),
            allowed_here,
        );
        for port in &mut self.network.ports {
            port.group = 0;
        }
        self.phase(
            "segment healed",
            None,
            ms(20_000),
            Allowed {
                gap: ms(600),
                dual: ms(3000),
                moves: 1,
                other_moves: 1,
            },
        );
        if let Some(victim) = victim {
            self.power_on(victim);
            let back = Allowed {
                gap: ms(6000),
                ..self.back()
            };
            self.phase("node back after the split", None, ms(20_000), back);
        }
    }

    /// A node boots; its agent starts 3 s later.
    fn power_on(&mut self, host: usize) {
        self.hosts[host].powered = true;
        self.after(ms(3000), Event::Start(host));
    }

    fn endpoint_moves(&mut self) {
        let to = self.random.below(self.shape.nodes);
        for wanted in self.api.view.wanted.values_mut() {
            wanted.endpoints = [node(to)].into();
        }
        self.api.version += 1;
        let planned = Allowed {
            gap: 0,
            dual: ms(700),
            moves: 1,
            other_moves: 1,
        };
        self.phase("endpoint moves", None, ms(4000), planned);
        for address in self.addresses().collect::<Vec<_>>() {
            if self.holder(&address) != Some(to) {
                self.fail(&format!("{address} is not where its endpoint is"));
            }
        }
        for wanted in self.api.view.wanted.values_mut() {
            wanted.endpoints.clear();
        }
        self.api.version += 1;
        self.phase("no endpoints", None, ms(5000), QUIET);
    }

    fn new_address(&mut self) {
        let address = crate::world::address(40 + self.random.below(2));
        let wanted = Wanted {
            policy: Policy::Cluster,
            detection: self.shape.detection,
            nodes: None,
            interfaces: None,
            endpoints: [node(0)].into(),
        };
        self.api.view.wanted.insert(address, wanted);
        self.api.version += 1;
        let new = Allowed {
            gap: ms(1500),
            dual: 0,
            moves: 1,
            other_moves: 1,
        };
        self.phase("new address", None, ms(5000), new);
        self.api.view.wanted.remove(&address);
        self.api.version += 1;
        self.phase("address removed", None, ms(3000), QUIET);
        for host in 0..self.shape.nodes {
            if self
                .answer(host, &address, crate::world::mac(250))
                .is_some()
            {
                self.fail(&format!(
                    "node-{host} answers for {address}, which no Service has"
                ));
            }
        }
    }

    /// All agents that run know the same claims, and writes have ended.
    fn agree(&mut self) {
        let writes = self.api.writes;
        self.phase(
            "at the end",
            None,
            ms(20_000),
            Allowed {
                gap: ms(600),
                dual: ms(200),
                ..QUIET
            },
        );
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

    fn fail(&mut self, text: &str) {
        let mut judge = std::mem::take(&mut self.judge);
        judge.report(self, text);
        self.judge = judge;
    }
}
