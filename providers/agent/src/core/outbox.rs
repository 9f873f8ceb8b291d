//! Outbox: carries out what the node says.

use std::net::IpAddr;
use std::sync::Arc;

use ballast_announce::Mac;
use ballast_announce::io::{Method, Output, Target};

use super::Core;
use crate::directory::Neighbour;
use crate::frames;

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
                    self.frame(*interface, *address, |own| {
                        Some(frames::query(own, *address))
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
                Output::Record(claims) => self.work.claims = Some(Arc::new(claims.clone())),
            }
        }
        // Its room is used again.
        self.work.outputs = outputs;
        self.work.outputs.clear();
    }

    fn probe(&self, interface: u32, target: &Target, method: Method) {
        let Some(neighbour) = self.neighbour(interface, target) else {
            return;
        };
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

    fn neighbour(&self, interface: u32, target: &Target) -> Option<Neighbour> {
        let directory = &self.work.directory;
        match target {
            Target::Node(node) => directory.node(interface, node).copied(),
            Target::Host(address) => Some(Neighbour {
                address: *address,
                mac: self.work.network.witnesses().mac(interface, *address),
                own: directory.own_for(interface, *address)?,
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
        for frame in frames::announcements(port.own, address, mac) {
            port.send(address, &frame, &self.shared.counters);
        }
    }
}
