//! Failures of agents and of the API server, and changes of the cluster.

use std::sync::Arc;

use ballast_announce::timing::PROBERS;
use ballast_announce::view::{Policy, Rebalance, Wanted};

use super::Fault;
use crate::judge::Allowed;
use crate::limits::{self, QUIET};
use crate::world::{Event, Micros, World, ms, node};

impl World {
    pub(super) fn agent_restarts(&mut self, victim: usize) {
        let one = Some(victim);
        self.kill(victim);
        let time = ms(500) + self.up_to(ms(8000));
        self.after(time, Event::Start(victim));
        self.phase(
            "agent restarts",
            one,
            time + ms(15_000),
            Allowed {
                gap: if self.shape.gossip {
                    limits::STAND_IN
                } else {
                    time + limits::AGENT_STARTS
                },
                dual: limits::STAND_IN_TWO,
                ..QUIET
            },
        );
    }

    pub(super) fn agent_gone(&mut self, victim: usize) {
        let one = Some(victim);
        self.kill(victim);
        let gone = self.agent_silent(limits::STAND_IN);
        self.phase("agent gone", one, ms(30_000), gone);
        self.after(0, Event::Start(victim));
        self.phase("agent back", one, ms(8000), self.back());
    }

    pub(super) fn agent_stopped(&mut self, victim: usize) {
        let one = Some(victim);
        self.hosts[victim].stopped = true;
        let time = ms(5000) + self.up_to(ms(25_000));
        let stopped = self.agent_silent(limits::STOPPED);
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

    pub(super) fn all_agents_restart(&mut self) {
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
                // They are back after at most 6 s.
                gap: ms(6000) + limits::AGENT_STARTS,
                dual: limits::STAND_IN_TWO,
                ..QUIET
            },
        );
    }

    pub(super) fn api_outage(&mut self, victim: usize) {
        let one = Some(victim);
        let wait = self.failover() + ms(5000);
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
        if !self.shape.gossip {
            back.gap = limits::BACK_WITHOUT_ANYTHING;
        }
        self.phase(
            "link back while the API server is away",
            one,
            ms(10_000),
            back,
        );
        self.api.away = false;
        self.phase("API server back", None, ms(20_000), QUIET);
    }

    pub(super) fn planned_move(&mut self, victim: usize, fault: Fault) {
        let one = Some(victim);
        let facts = self.api.view.nodes.get_mut(&node(victim)).unwrap();
        facts.cordoned = fault == Fault::Cordon;
        facts.excluded = fault == Fault::Exclusion;
        facts.out_of_service = fault == Fault::OutOfService;
        self.api.version += 1;
        let planned = Allowed {
            gap: 0,
            dual: limits::PLANNED_TWO,
            moves: 1,
            other_moves: 0,
        };
        self.phase("planned move", one, ms(10_000), planned);
        let facts = self.api.view.nodes.get_mut(&node(victim)).unwrap();
        (facts.cordoned, facts.excluded, facts.out_of_service) = (false, false, false);
        self.api.version += 1;
        self.phase("node is eligible again", None, ms(5000), QUIET);
    }

    pub(super) fn agent_silent(&self, stand_in: Micros) -> Allowed {
        Allowed {
            gap: if self.shape.gossip {
                stand_in
            } else {
                limits::LEASE
            },
            dual: limits::TAKEOVER_TWO,
            moves: 1,
            other_moves: 0,
        }
    }

    /// Each address of a holder has another successor, so most of them are not its probers: they
    /// learn of its death from the probers.
    pub(super) fn many_successors(&mut self) {
        let anything = Allowed {
            gap: limits::ENDPOINT_MOVED,
            dual: limits::PLANNED_TWO,
            moves: 1,
            other_moves: 1,
        };
        let others = self.shape.nodes - 1;
        self.set_endpoints(|_| vec![0]);
        self.phase("all addresses on one node", None, ms(4000), anything);
        self.set_endpoints(|nth| vec![0, 1 + nth % others]);
        self.phase("endpoints on other nodes, too", None, ms(6000), QUIET);
        let agents = self.hosts.iter().filter_map(|host| host.agent.as_ref());
        let probers = agents.filter(|agent| agent.probed().any(|host| *host == node(0)));
        let probers = probers.count();
        if probers > PROBERS {
            self.fail(&format!("{probers} nodes probe node-0"));
        }
        self.kill(0);
        self.hosts[0].powered = false;
        let lost = self.lost();
        let killed = Allowed {
            gap: lost.gap + limits::SECOND_HAND,
            ..lost
        };
        let wait = self.failover() + ms(5000);
        self.phase("node with many successors killed", Some(0), wait, killed);
        for (nth, address) in self.addresses().collect::<Vec<_>>().into_iter().enumerate() {
            if self.holder(&address) != Some(1 + nth % others) {
                self.fail(&format!("{address} is not where its endpoint is"));
            }
        }
        self.power_on(0);
        let back = self.booted();
        self.phase("node back", Some(0), ms(20_000), back);
    }

    /// Sets the endpoints of the n-th address.
    fn set_endpoints(&mut self, endpoints: impl Fn(usize) -> Vec<usize>) {
        for (nth, wanted) in self.api.view.wanted.values_mut().enumerate() {
            Arc::make_mut(wanted).endpoints = endpoints(nth).into_iter().map(node).collect();
        }
        self.api.version += 1;
    }

    pub(super) fn endpoint_moves(&mut self, victim: usize) {
        let to = self.other_than(victim);
        for wanted in self.api.view.wanted.values_mut() {
            Arc::make_mut(wanted).endpoints = [node(to)].into();
        }
        self.api.version += 1;
        let planned = Allowed {
            gap: limits::ENDPOINT_MOVED,
            dual: limits::PLANNED_TWO,
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
            Arc::make_mut(wanted).endpoints.clear();
        }
        self.api.version += 1;
        self.phase("no endpoints", None, ms(5000), QUIET);
    }

    pub(super) fn new_address(&mut self) {
        let address = crate::world::address(40 + self.random.below(2));
        let wanted = Wanted {
            policy: Policy::Cluster,
            detection: self.shape.detection,
            nodes: None,
            preferred: None,
            rebalance: Rebalance::default(),
            interfaces: None,
            endpoints: [node(0)].into(),
            refresh: Some(ballast_announce::timing::REFRESH),
        };
        self.api.view.wanted.insert(address, wanted.into());
        self.api.version += 1;
        let new = Allowed {
            gap: limits::NEW,
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
}
