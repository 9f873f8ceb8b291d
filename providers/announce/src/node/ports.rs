//! Ports: this node's interfaces, with carrier, hold-down and contact.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Node;
use crate::host_check::Contact;
use crate::io::{Method, Output, Problem, Target};
use crate::slip::slip;
use crate::timing::{HOLD_DOWN, WITNESSES_AT_ONCE};
use crate::view::{Interface, Wanted};
use crate::{NodeName, Time};

/// This node's interfaces.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    ports: BTreeMap<u32, Port>,
    /// The interfaces were listed before.
    listed: bool,
}

/// One interface.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) interface: Interface,
    pub(super) contact: Contact,
    /// How hosts are probed here: with echo requests once a switch was found to answer for them.
    pub(super) method: Method,
    /// When its carrier came up, if this process saw it.
    up_since: Option<Time>,
    hosts: Vec<IpAddr>,
    /// Which witness is asked next.
    cursor: usize,
}

// === impl Port ===

impl Port {
    pub(super) fn carrier(&self) -> bool {
        self.interface.carrier
    }

    /// No host is known that could be a witness, besides the peers.
    pub(super) fn is_alone(&self) -> bool {
        self.hosts.is_empty()
    }

    pub(super) fn held_down(&self, now: Time) -> bool {
        self.up_since.is_some_and(|up| now.since(up) < HOLD_DOWN)
    }
}

// === impl Ports ===

impl Ports {
    pub(super) fn get(&self, index: u32) -> Option<&Port> {
        self.ports.get(&index)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Port> {
        self.ports.get_mut(&index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Port> {
        self.ports.values()
    }

    /// The port that announces an address; one with a carrier if there is one.
    pub(super) fn serving(&self, address: &IpAddr, wanted: &Wanted) -> Option<&Port> {
        let serving = self
            .ports
            .values()
            .filter(|port| port.interface.serves(address, wanted));
        serving.max_by_key(|port| (port.carrier(), std::cmp::Reverse(port.interface.index)))
    }

    /// Replaces the list. Returns the ports whose carrier came up.
    pub(super) fn replace(&mut self, interfaces: Vec<Interface>, now: Time) -> BTreeSet<u32> {
        let mut came_up = BTreeSet::new();
        let mut former = std::mem::take(&mut self.ports);
        for interface in interfaces {
            let index = interface.index;
            let appeared = !former.contains_key(&index);
            let mut port = former.remove(&index).unwrap_or_else(|| Port {
                interface: interface.clone(),
                contact: Contact::default(),
                method: Method::Neighbour,
                up_since: None,
                hosts: Vec::new(),
                cursor: 0,
            });
            // An interface that was absent from the last list is as new as one without a carrier.
            if interface.carrier && (!port.carrier() || appeared && self.listed) {
                port.up_since = Some(now);
                port.contact = Contact::default();
                came_up.insert(index);
            }
            port.interface = interface;
            self.ports.insert(index, port);
        }
        self.listed = true;
        came_up
    }

    pub(super) fn set_hosts(&mut self, index: u32, mut hosts: Vec<IpAddr>) {
        hosts.truncate(Node::WITNESSES);
        if let Some(port) = self.ports.get_mut(&index) {
            port.hosts = hosts;
        }
    }

    pub(super) fn discard(&mut self, now: Time) {
        for port in self.ports.values_mut() {
            port.contact.discard(now);
        }
    }

    pub(super) fn problems(&self, now: Time) -> BTreeSet<Problem> {
        let cut_off = self
            .ports
            .iter()
            .filter(|(_, port)| port.contact.cut_off(now));
        cut_off
            .map(|(&interface, _)| Problem::CutOff { interface })
            .collect()
    }
}

// === impl Node ===

impl Node {
    /// Keeps up contact, and notices when hold-downs end and contact is lost.
    pub(super) fn poll_ports(&mut self, now: Time, out: &mut Vec<Output>) {
        let company = self.members.gossips() && self.members.hears_another(self.name(), now);
        let indices: Vec<u32> = self.ports.ports.keys().copied().collect();
        for index in indices {
            let witnesses = self.witnesses(index, None).len();
            let Some(port) = self.ports.get_mut(index).filter(|port| port.carrier()) else {
                continue;
            };
            let held_down = port.up_since.is_some();
            if held_down && !port.held_down(now) {
                port.up_since = None;
                self.work.all = true;
            }
            let polled = port.contact.poll(now, witnesses, company);
            if polled.ask {
                self.ask_witnesses(index, None, out);
            }
            if polled.lost {
                self.gossip.hurry(now);
            }
        }
    }

    /// A frame of another host arrived on an interface.
    pub(super) fn arrived(&mut self, interface: u32, now: Time) {
        let port = self.ports.get_mut(interface);
        if port.is_some_and(|port| port.contact.heard(now)) {
            self.regained(interface, now);
        }
    }

    /// This node was cut off, and is not any more: another one may have taken over.
    pub(super) fn regained(&mut self, interface: u32, now: Time) {
        // A single node has nobody that could have.
        if self.plan.peers.is_empty() {
            return;
        }
        self.silence(|other| other == interface, now);
        // What was not heard while nobody could be heard proves nothing.
        self.members.discard(now);
        for ((other, _), entry) in &mut self.checks {
            if *other == interface {
                entry.check.restart(now);
            }
        }
        self.work.all = true;
    }

    /// Whether announcements of this interface are held back: a node that is cut off does not know who
    /// else has claimed its addresses. It announces them again after its claim check.
    pub(super) fn holds_back(&self, interface: u32) -> bool {
        let lost = self
            .ports
            .get(interface)
            .is_some_and(|port| port.contact.is_lost());
        lost && !self.plan.peers.is_empty() && !slip!(self.config.slips, AnnounceWhenCutOff)
    }

    /// Probes a few witnesses, other ones each time.
    pub(super) fn ask_witnesses(
        &mut self,
        interface: u32,
        but: Option<&NodeName>,
        out: &mut Vec<Output>,
    ) {
        let witnesses = self.witnesses(interface, but);
        let Some(port) = self.ports.get_mut(interface) else {
            return;
        };
        let count = witnesses.len().min(WITNESSES_AT_ONCE);
        for nth in 0..count {
            let target = witnesses[(port.cursor + nth) % witnesses.len()].clone();
            // Gateways and clients may not answer echo requests.
            let method = match target {
                Target::Node(_) => port.method,
                Target::Host(_) => Method::Neighbour,
            };
            out.push(Output::Probe {
                interface,
                target,
                method,
            });
        }
        port.cursor = port.cursor.wrapping_add(count);
    }

    /// The hosts that can be witnesses on an interface: gateways, clients, and nodes with an agent
    /// in the same network.
    pub(super) fn witnesses(&self, interface: u32, but: Option<&NodeName>) -> Vec<Target> {
        let Some(port) = self.ports.get(interface) else {
            return Vec::new();
        };
        let hosts = port.hosts.iter().map(|host| Target::Host(*host));
        let peers = self.plan.segment(interface).iter();
        let peers = peers.filter(|node| Some(*node) != but);
        hosts.chain(peers.cloned().map(Target::Node)).collect()
    }

    /// What this node knows about itself, for one address.
    pub(super) fn own(&self, address: &IpAddr, port: &Port, now: Time) -> crate::candidates::Own {
        let held_down = port.held_down(now) && !slip!(self.config.slips, NoHoldDown);
        let cut_off = port.contact.cut_off(now) && !slip!(self.config.slips, NoWitness);
        crate::candidates::Own {
            carrier: port.carrier(),
            held_down,
            cut_off,
            healthy: self.healthy.contains(address) || slip!(self.config.slips, ClaimUnhealthy),
        }
    }
}
