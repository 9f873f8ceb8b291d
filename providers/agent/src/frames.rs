//! Frames: what a frame of the segment means to this node, and how its own frames look.
//!
//! The packet thread calls [`read`] for each frame; the core thread makes probes, queries and
//! announcements. Pure: nothing here has a socket or a clock.

use std::net::IpAddr;
use std::sync::Arc;

use ballast_announce::io::Target;
use ballast_announce::responder::{Reply, Request, Table};
use ballast_announce::view::View;
use ballast_announce::{Mac, NodeName};
use ballast_link::Ethernet;
use ballast_link::arp::{self, Operation};
use ballast_link::ndp::{self, Message};

use crate::directory::{Directory, Neighbour};
use crate::witnesses::Witnesses;

/// What the packet thread knows. The core thread replaces it as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The addresses that this node answers for.
    pub(crate) table: Arc<Table>,
    /// The addresses of Services. `None`: not known yet, so every address may be one.
    pub(crate) view: Option<Arc<View>>,
    /// The nodes and their addresses.
    pub(crate) directory: Arc<Directory>,
    /// Other hosts that are probed.
    pub(crate) witnesses: Arc<Witnesses>,
}

/// A frame that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// ARP.
    Arp(Ethernet, arp::Packet),
    /// Neighbour discovery.
    Neighbour(Message),
}

/// What a frame means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The answer to send.
    pub(crate) reply: Option<Reply>,
    /// What the core thread should learn.
    pub(crate) sightings: Vec<Sighting>,
}

/// Something that a frame shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// A host answered a probe.
    Answer {
        /// Who.
        from: Target,
        /// Its MAC.
        mac: Mac,
    },
    /// An agent probed this node.
    Probed {
        /// Its node.
        by: NodeName,
    },
    /// A host says that it has an address of a Service.
    Heard {
        /// The address.
        address: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
    /// A host asked for an address of a Service, whichever node has it.
    Client {
        /// Its address.
        address: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
}

// === impl Frame ===

impl Frame {
    /// Parses a frame; `None` if it is neither ARP nor neighbour discovery, if it is damaged, or if
    /// it may have crossed a router.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if let Some((ethernet, packet)) = arp::parse(bytes) {
            return Some(Self::Arp(ethernet, packet));
        }
        let message = ndp::parse(bytes)?;
        let hop_limit = match &message {
            Message::Solicitation(asked) => asked.hop_limit,
            Message::Advertisement(said) => said.hop_limit,
        };
        (hop_limit == ndp::HOP_LIMIT).then_some(Self::Neighbour(message))
    }
}

// === impl Known ===

impl Known {
    /// Whether a Service may have an address.
    fn may_be_wanted(&self, address: IpAddr) -> bool {
        let view = self.view.as_ref();
        view.is_none_or(|view| view.wanted.contains_key(&address))
    }

    /// Who was probed at an address.
    fn target(&self, interface: u32, address: IpAddr) -> Option<Target> {
        let node = self.directory.host(interface, address);
        node.or_else(|| self.witnesses.target(interface, address))
    }

    /// "I have this address."
    fn claim(&self, address: IpAddr, mac: Mac) -> Option<Sighting> {
        let said = !address.is_unspecified() && self.may_be_wanted(address);
        said.then_some(Sighting::Heard { address, mac })
    }

    fn probed(&self, interface: u32, target: IpAddr, by: Mac) -> Option<Sighting> {
        let node = self.directory.agent(by)?;
        let own = self.directory.is_own(interface, target);
        own.then(|| Sighting::Probed { by: node.clone() })
    }

    fn answered(&self, interface: u32, to: Mac, address: IpAddr, mac: Mac) -> Option<Sighting> {
        // An announcement to all hosts is no answer.
        let from = self.target(interface, address).filter(|_| !to.is_group())?;
        Some(Sighting::Answer { from, mac })
    }
}

/// What a frame on an interface means.
pub(crate) fn read(known: &Known, interface: u32, frame: &Frame) -> Reading {
    match frame {
        Frame::Arp(ethernet, packet) => read_arp(known, interface, ethernet, packet),
        Frame::Neighbour(Message::Solicitation(asked)) => {
            read_solicitation(known, interface, asked)
        }
        Frame::Neighbour(Message::Advertisement(said)) => {
            let address = IpAddr::V6(said.target);
            let mac = mac(said.target_mac.unwrap_or(said.ethernet.from));
            let to = self::mac(said.ethernet.to);
            let sightings = [
                known.claim(address, mac),
                known.answered(interface, to, address, mac),
            ];
            Reading {
                reply: None,
                sightings: sightings.into_iter().flatten().collect(),
            }
        }
    }
}

fn read_arp(known: &Known, interface: u32, ethernet: &Ethernet, packet: &arp::Packet) -> Reading {
    let (sender, from) = (IpAddr::V4(packet.sender), mac(packet.sender_mac));
    let mut reading = Reading::default();
    reading.sightings.extend(known.claim(sender, from));
    let to = mac(ethernet.to);
    match packet.operation {
        Operation::Reply => {
            let answer = known.answered(interface, to, sender, from);
            reading.sightings.extend(answer);
        }
        Operation::Request => {
            let target = IpAddr::V4(packet.target);
            let probed = known.probed(interface, target, from);
            reading.sightings.extend(probed);
            let request = Request::Arp {
                to,
                sender_mac: from,
                sender: packet.sender,
                target: packet.target,
            };
            reading.answer(known, interface, &request, sender, from);
        }
    }
    reading
}

fn read_solicitation(known: &Known, interface: u32, asked: &ndp::Solicitation) -> Reading {
    let (source, target) = (IpAddr::V6(asked.source), IpAddr::V6(asked.target));
    let from = mac(asked.source_mac.unwrap_or(asked.ethernet.from));
    let mut reading = Reading::default();
    reading.sightings.extend(known.claim(source, from));
    let probed = known.probed(interface, target, from);
    reading.sightings.extend(probed);
    let request = Request::Solicitation {
        to: mac(asked.ethernet.to),
        source_mac: from,
        source: asked.source,
        target: asked.target,
        hop_limit: asked.hop_limit,
    };
    reading.answer(known, interface, &request, source, from);
    reading
}

// === impl Reading ===

impl Reading {
    fn answer(
        &mut self,
        known: &Known,
        interface: u32,
        request: &Request,
        client: IpAddr,
        mac: Mac,
    ) {
        self.reply = known.table.answer(interface, request);
        let target = match request {
            Request::Arp { target, .. } => IpAddr::V4(*target),
            Request::Solicitation { target, .. } => IpAddr::V6(*target),
        };
        // Whoever asks all hosts is heard also where another node answers.
        let asks = known.view.is_some() && known.may_be_wanted(target);
        let foreign = !client.is_unspecified() && known.directory.agent(mac).is_none();
        if asks && foreign {
            let address = client;
            self.sightings.push(Sighting::Client { address, mac });
        }
    }
}

/// The frame of an answer, sent from an interface's own MAC.
pub(crate) fn reply(own: Mac, reply: &Reply) -> Vec<u8> {
    match *reply {
        Reply::Arp {
            to,
            target,
            sender,
            answer,
        } => {
            let packet = arp::Packet {
                operation: Operation::Reply,
                sender_mac: link(answer),
                sender,
                target_mac: link(to),
                target,
            };
            arp::frame(link(to), link(own), &packet).to_vec()
        }
        Reply::Advertisement {
            to,
            destination,
            target,
            answer,
            solicited,
        } => ndp::Advertisement {
            ethernet: ethernet(to, own),
            source: target,
            destination,
            hop_limit: ndp::HOP_LIMIT,
            target,
            target_mac: Some(link(answer)),
            solicited,
            // While an address moves, two nodes answer for a moment. With the flag the second answer would
            // redirect a connection that the first one has begun. Announcements have it. RFC 4861, 7.2.4
            // asks the same of proxies.
            override_: !solicited,
            router: false,
        }
        .encode(),
    }
}

/// The announcements of an address, in both forms that hosts understand (RFC 5227 §3, RFC 4861
/// §7.2.6).
pub(crate) fn announcements(own: Mac, address: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => {
            let all = ballast_link::Mac::BROADCAST;
            let request = arp::Packet::announcement(link(mac), address);
            let reply = arp::Packet::announcement_reply(link(mac), address);
            [request, reply]
                .iter()
                .map(|packet| arp::frame(all, link(own), packet).to_vec())
                .collect()
        }
        IpAddr::V6(address) => {
            vec![ndp::Advertisement::unsolicited(link(own), address, link(mac)).encode()]
        }
    }
}

/// The question who has an address, which claims nothing (RFC 5227 §1.1, RFC 4862 §5.4.2).
pub(crate) fn query(own: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => {
            let packet = arp::Packet::probe(link(own), address);
            arp::frame(ballast_link::Mac::BROADCAST, link(own), &packet).to_vec()
        }
        IpAddr::V6(address) => {
            let nobody = std::net::Ipv6Addr::UNSPECIFIED;
            ndp::Solicitation::multicast(link(own), nobody, address).encode()
        }
    }
}

/// The same question from this node's own address. Some announcers of IPv6 addresses, such as the speaker
/// of `MetalLB`, answer no question without the MAC of who asks, and the other one has none. `None` for
/// IPv4.
pub(crate) fn signed_query(own: Mac, source: IpAddr, address: IpAddr) -> Option<Vec<u8>> {
    match (source, address) {
        (IpAddr::V6(source), IpAddr::V6(address)) => {
            Some(ndp::Solicitation::multicast(link(own), source, address).encode())
        }
        _ => None,
    }
}

/// A question to a host: to its MAC, or to all hosts if that is not known. `None` if the two
/// addresses are of different families.
pub(crate) fn probe(own: Mac, neighbour: &Neighbour) -> Option<Vec<u8>> {
    let (own, to) = (link(own), link(neighbour.mac));
    match (neighbour.own, neighbour.address) {
        (IpAddr::V4(sender), IpAddr::V4(target)) => {
            let packet = arp::Packet::request(own, sender, target);
            Some(arp::frame(to, own, &packet).to_vec())
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let question = if to.is_group() {
                ndp::Solicitation::multicast(own, source, target)
            } else {
                ndp::Solicitation::unicast(own, to, source, target)
            };
            Some(question.encode())
        }
        _ => None,
    }
}

fn ethernet(to: Mac, from: Mac) -> Ethernet {
    Ethernet {
        to: link(to),
        from: link(from),
    }
}

pub(crate) const fn link(mac: Mac) -> ballast_link::Mac {
    ballast_link::Mac(mac.0)
}

pub(crate) const fn mac(mac: ballast_link::Mac) -> Mac {
    Mac(mac.0)
}

#[cfg(test)]
mod tests;
