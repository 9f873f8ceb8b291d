//! Look: makes a [`Snapshot`].

use super::Node;
use crate::Time;
use crate::snapshot::{HostState, Known, Peer, Port, Snapshot};

impl Node {
    /// What this node knows and does now.
    pub fn snapshot(&self, now: Time) -> Snapshot {
        const MOST: usize = Snapshot::MOST;
        let wanted = |address| self.wanted(address).is_some();
        let claims = self.claims.iter().take(MOST);
        let claims = claims.map(|(address, claim)| Known {
            address: *address,
            claim: claim.clone(),
            state: self.state(address),
            wanted: wanted(address),
        });
        let table = self.table.iter().take(MOST);
        let problems = self.problems(now).into_iter().take(MOST);
        let view = self.view.as_ref();
        Snapshot {
            node: self.config.name.clone(),
            incarnation: self.config.incarnation,
            replaced: self.replaced,
            api_connected: self.members.api_connected(),
            view: view.map(|view| (view.wanted.len(), view.nodes.len())),
            counts: (self.claims.iter().count(), self.table.iter().count()),
            claims: claims.collect(),
            table: table.map(|(address, entry)| (*address, *entry)).collect(),
            peers: self.peer_states(now),
            checks: self.check_states(now),
            ports: self.port_states(now),
            problems: problems.collect(),
            rebalance: self.rebalance.head().cloned(),
        }
    }

    fn peer_states(&self, now: Time) -> Vec<Peer> {
        let peers = self.plan.peers.iter().take(Snapshot::MOST);
        let peers = peers.map(|node| Peer {
            node: node.clone(),
            process: self.members.process(node, now),
            last_sign: self.members.last_sign(node).map(|sign| now.since(sign)),
            lease_expired: self.members.lease_expired(node),
            suspect: self.suspects.contains(node),
            neighbour: self.plan.neighbours.contains(node),
        });
        peers.collect()
    }

    fn check_states(&self, now: Time) -> Vec<HostState> {
        let checks = self.checks.iter().take(Snapshot::MOST);
        let checks = checks.map(|((interface, host), entry)| HostState {
            interface: *interface,
            host: host.clone(),
            state: entry.check.state(),
            proven: now.since(entry.check.proven_at()),
            intercepted: entry.receipts.intercepted(),
        });
        checks.collect()
    }

    fn port_states(&self, now: Time) -> Vec<Port> {
        let ports = self.ports.iter().take(Snapshot::MOST);
        let ports = ports.map(|port| {
            let mut witnesses = self.witnesses(port.interface.index, None);
            witnesses.truncate(Snapshot::MOST);
            Port {
                index: port.interface.index,
                name: port.interface.name.to_string(),
                mac: port.interface.mac,
                carrier: port.carrier(),
                held_down: port.held_down(now),
                cut_off: port.contact.cut_off(now),
                method: port.method,
                answered: port.contact.answered_at().map(|at| now.since(at)),
                witnesses,
            }
        });
        ports.collect()
    }
}
