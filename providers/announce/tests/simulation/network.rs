//! The segment: who reaches whom, loss, delay, copies, and a switch that answers for others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ballast_announce::Mac;
use ballast_announce::io::{Input, Message, Method, Output, Target};
use ballast_announce::responder::{Reply, Request};

use crate::world::{CLIENT, ETH0, Event, GATEWAY, Micros, World, mac, ms, node};

/// A host's port at the switch.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Port {
    /// Both ends see the link.
    pub carrier: bool,
    /// Frames pass although both ends see the link.
    pub passes: bool,
    /// Frames pass from the switch to the host.
    pub receives: bool,
    /// Frames pass from the host to the switch.
    pub sends: bool,
    /// Ports of different groups are separated.
    pub group: u8,
}

#[derive(Debug)]
pub struct Network {
    /// One per node, the gateway's, and a client's.
    pub ports: Vec<Port>,
    /// Frames from the first to the second host are lost.
    pub cut: BTreeSet<(usize, usize)>,
    pub loss_percent: u64,
    pub copies_percent: u64,
    pub delay: Micros,
    /// The switch answers ARP and neighbour solicitations, and passes none of them.
    pub intercepts: bool,
    /// What the switch answers for addresses that were announced.
    learned: BTreeMap<IpAddr, Mac>,
}

#[derive(Clone, Debug)]
pub enum Frame {
    Probe { from: usize, method: Method },
    Answer { from: usize, method: Method },
    Query { from: usize, address: IpAddr },
    Names { address: IpAddr, mac: Mac },
    Message(Box<Message>),
}

// === impl Port ===

impl Port {
    /// Frames pass in both directions.
    pub fn connects(self) -> bool {
        self.carrier && self.passes && self.receives && self.sends
    }
}

// === impl Network ===

impl Network {
    pub fn new(nodes: usize) -> Self {
        let port = Port {
            carrier: true,
            passes: true,
            receives: true,
            sends: true,
            group: 0,
        };
        Self {
            ports: vec![port; nodes + 2],
            cut: BTreeSet::new(),
            loss_percent: 0,
            copies_percent: 0,
            delay: ms(1),
            intercepts: false,
            learned: BTreeMap::new(),
        }
    }

    pub fn gateway(&self) -> usize {
        self.ports.len() - 2
    }

    pub fn client(&self) -> usize {
        self.ports.len() - 1
    }

    fn connected(&self, from: usize, to: usize) -> bool {
        let (a, b) = (&self.ports[from], &self.ports[to]);
        let up = [a, b].iter().all(|port| port.carrier && port.passes);
        up && a.sends && b.receives && a.group == b.group && !self.cut.contains(&(from, to))
    }
}

// === impl World ===

impl World {
    fn kernel_runs(&self, host: usize) -> bool {
        let host = self.hosts.get(host);
        host.is_none_or(|host| host.powered && !host.frozen)
    }

    /// Whether a frame from one host would arrive at the other one now, but for loss.
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        self.kernel_runs(from) && self.kernel_runs(to) && self.network.connected(from, to)
    }

    fn frame(&mut self, from: usize, to: usize, frame: Frame) {
        if !self.network.connected(from, to) || self.chance(self.network.loss_percent) {
            self.traces += 1;
            return;
        }
        if self.chance(self.network.copies_percent) {
            let delay = ms(1) + self.up_to(self.network.delay * 3);
            self.after(delay, Event::Deliver(to, frame.clone()));
        }
        let delay = 100 + self.up_to(self.network.delay);
        self.after(delay, Event::Deliver(to, frame));
    }

    fn broadcast(&mut self, from: usize, frame: &Frame) {
        for to in 0..self.hosts.len() {
            if to != from {
                self.frame(from, to, frame.clone());
            }
        }
    }

    pub fn transmit(&mut self, from: usize, output: Output) {
        match output {
            Output::Probe { target, method, .. } => {
                let to = match target {
                    Target::Node(name) => self.index(&name),
                    Target::Host(CLIENT) => self.network.client(),
                    Target::Host(_) => self.network.gateway(),
                };
                let switch = self.network.intercepts && self.network.ports[from].connects();
                if switch && method == Method::Neighbour {
                    let answer = Frame::Answer { from: to, method };
                    self.after(200, Event::Deliver(from, answer));
                } else {
                    self.frame(from, to, Frame::Probe { from, method });
                }
            }
            Output::Query { address, .. } if self.network.intercepts => {
                if self.network.ports[from].connects()
                    && let Some(&mac) = self.network.learned.get(&address)
                {
                    self.after(200, Event::Deliver(from, Frame::Names { address, mac }));
                }
            }
            Output::Query { address, .. } => {
                self.broadcast(from, &Frame::Query { from, address });
            }
            Output::Announce { address, mac, .. } => {
                self.network.learned.insert(address, mac);
                self.announced(from, &address, mac);
                self.broadcast(from, &Frame::Names { address, mac });
            }
            Output::Send { to, message } => {
                let to = self.index(&to);
                self.frame(from, to, Frame::Message(Box::new(message)));
            }
            Output::Claimed { address, cause, .. } => {
                self.claimed(from, &address, cause.origin());
            }
            Output::Healed { .. } => {}
            Output::Record(_) => unreachable!("the API server gets it"),
        }
    }

    pub fn arrive(&mut self, to: usize, frame: Frame) {
        if !self.kernel_runs(to) || !self.network.ports[to].carrier {
            return;
        }
        let via = Some(ETH0);
        match frame {
            Frame::Probe { from, method } => {
                self.frame(to, from, Frame::Answer { from: to, method });
                if to < self.hosts.len() && method == Method::Neighbour {
                    let (interface, by) = (ETH0, node(from));
                    let probed = Input::Probed { interface, by };
                    self.input(to, probed);
                }
            }
            Frame::Answer { from, method } => {
                let from = if from == self.network.gateway() {
                    Target::Host(GATEWAY)
                } else if from == self.network.client() {
                    Target::Host(CLIENT)
                } else {
                    Target::Node(node(from))
                };
                let interface = ETH0;
                self.input(
                    to,
                    Input::Answer {
                        interface,
                        from,
                        method,
                    },
                );
            }
            Frame::Query { from, address } => {
                if let Some(mac) = self.answer(to, &address, mac(from)) {
                    self.frame(to, from, Frame::Names { address, mac });
                }
            }
            Frame::Names { address, mac } => {
                let interface = ETH0;
                self.input(
                    to,
                    Input::Heard {
                        interface,
                        address,
                        mac,
                    },
                );
            }
            Frame::Message(message) => {
                let message = *message;
                self.input(to, Input::Message { via, message });
            }
        }
    }

    /// The MAC with which a host's responder answers a client, if it does.
    pub fn answer(&self, host: usize, address: &IpAddr, client: Mac) -> Option<Mac> {
        let agent = self.hosts.get(host)?.agent.as_ref()?;
        if !self.runs(host) || !agent.may_answer(self.clock(host)) {
            return None;
        }
        let request = match address {
            IpAddr::V4(target) => Request::Arp {
                to: Mac::BROADCAST,
                sender_mac: client,
                sender: "192.0.2.200".parse().unwrap(),
                target: *target,
            },
            IpAddr::V6(target) => Request::Solicitation {
                to: Mac([0x33, 0x33, 0xff, 0, 0, 1]),
                source_mac: client,
                source: "fe80::200".parse().unwrap(),
                target: *target,
                hop_limit: 255,
            },
        };
        match agent.table().answer(ETH0, &request)? {
            Reply::Arp { answer, .. } | Reply::Advertisement { answer, .. } => Some(answer),
        }
    }
}
