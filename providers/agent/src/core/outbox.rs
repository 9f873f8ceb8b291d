//! Outbox: carries out what the node says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ballast_announce::claim::Claim;
use ballast_announce::io::{Method, Output, Target};
use ballast_announce::{Mac, Node};
use tracing::info;

use super::Core;
use crate::clock;
use crate::directory::Neighbour;
use crate::frames;

/// Addresses that a line of the log names.
const NAMED: usize = 3;

impl Core {
    /// Carries out all outputs.
    pub(super) fn carry_out(&mut self) {
        let outputs = std::mem::take(&mut self.work.outputs);
        for output in &outputs {
            match output {
                Output::Probe {
                    interface,
                    target,
                    method,
                } => self.probe(*interface, target, *method),
                Output::Query { interface, address } => {
                    self.shared.counters.queries.add();
                    self.frame(*interface, *address, |own| {
                        Some(frames::query(own, *address))
                    });
                    let source = self.work.directory.own_for(*interface, *address);
                    self.frame(*interface, *address, |own| {
                        frames::signed_query(own, source?, *address)
                    });
                }
                Output::Announce {
                    interface,
                    address,
                    mac,
                } => self.announce(*interface, *address, *mac),
                Output::Send { to, message } => {
                    let address = self.work.address(to);
                    if let (Some(deliver), Some(address)) = (&self.deliver, address) {
                        deliver(to, address, message);
                    }
                }
                // Reported below, together.
                Output::Claimed { .. } => {}
                Output::Healed { address, rival, .. } => {
                    tracing::debug!(%address, %rival, "another node has announced this address, too");
                }
                Output::Record(claims) => {
                    if let Some(before) = &self.work.claims {
                        log_lost(before, &self.node);
                    }
                    self.work.claims = Some(Arc::new(claims.clone()));
                }
            }
        }
        self.note_sources(&outputs);
        log_claims(&outputs);
        // Its room is used again.
        self.work.outputs = outputs;
        self.work.outputs.clear();
    }

    fn note_sources(&mut self, outputs: &[Output]) {
        let (now, wall) = (clock::now(), SystemTime::now());
        for output in outputs {
            let moves = &self.shared.counters.moves;
            self.work.sources.note(output, moves, now, wall);
        }
        if outputs.iter().any(|it| matches!(it, Output::Record(_))) {
            let claims = self.node.claims();
            self.work.sources.retain(self.node.name(), claims);
        }
    }

    fn probe(&mut self, interface: u32, target: &Target, method: Method) {
        let Some(neighbour) = self.neighbour(interface, target) else {
            return;
        };
        self.shared.counters.probes.add();
        match method {
            Method::Neighbour => {
                let address = neighbour.address;
                self.frame(interface, address, |own| frames::probe(own, &neighbour));
            }
            Method::Echo => {
                if let Some(port) = self.work.network.port(interface) {
                    port.echo(neighbour.address, &self.shared.counters);
                }
            }
        }
    }

    fn neighbour(&mut self, interface: u32, target: &Target) -> Option<Neighbour> {
        let directory = &self.work.directory;
        match target {
            Target::Node(node) => directory.node(interface, node).copied(),
            Target::Host(address) => Some(Neighbour {
                address: *address,
                own: directory.own_for(interface, *address)?,
                mac: self.work.network.witnesses_mut().probe(interface, *address),
            }),
        }
    }

    fn frame(&self, interface: u32, address: IpAddr, make: impl FnOnce(Mac) -> Option<Vec<u8>>) {
        let Some(port) = self.work.network.port(interface) else {
            return;
        };
        if let Some(frame) = make(port.own) {
            port.send(address, &frame, &self.shared.counters);
        }
    }

    fn announce(&self, interface: u32, address: IpAddr, mac: Mac) {
        let Some(port) = self.work.network.port(interface) else {
            return;
        };
        let counters = &self.shared.counters;
        for frame in frames::announcements(port.own, address, mac) {
            if port.send(address, &frame, counters) {
                counters.announcements.add();
            }
        }
    }
}

/// One line for all addresses of one holder: 1,000 may move together.
fn log_claims(outputs: &[Output]) {
    let mut moves: BTreeMap<_, Vec<IpAddr>> = BTreeMap::new();
    for output in outputs {
        if let Output::Claimed {
            address,
            former,
            cause,
            ..
        } = output
        {
            let claimed = moves.entry((former.as_ref(), *cause)).or_default();
            claimed.push(*address);
        }
    }
    for ((former, cause), addresses) in moves {
        let count = addresses.len();
        info!(
            addresses = named(&addresses),
            count,
            former = former.map(tracing::field::display),
            %cause,
            "this node has claimed addresses"
        );
    }
}

/// The addresses that this node held, and another one does now.
fn log_lost(before: &[(IpAddr, Claim)], node: &Node) {
    let lost = before.iter().filter_map(|(address, _)| {
        let holder = &node.claims().get(address)?.holder;
        (holder != node.name()).then_some((holder, *address))
    });
    let mut moves: BTreeMap<_, Vec<IpAddr>> = BTreeMap::new();
    for (holder, address) in lost {
        moves.entry(holder).or_default().push(address);
    }
    for (holder, addresses) in moves {
        let count = addresses.len();
        info!(
            addresses = named(&addresses),
            count,
            %holder,
            "another node has claimed addresses of this node"
        );
    }
}

/// The first few addresses.
fn named(addresses: &[IpAddr]) -> String {
    let few: Vec<_> = addresses
        .iter()
        .take(NAMED)
        .map(IpAddr::to_string)
        .collect();
    few.join(", ")
}
