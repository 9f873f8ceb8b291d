//! Witnesses: hosts besides the nodes that show whether this node is connected. Gateways, and
//! clients that asked for an address of a Service within the last minute. Pure.
//!
//! A client is a witness because with two nodes and no gateway nobody else could tell a node
//! whose own cable is broken from one whose peer died.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ballast_announce::io::Target;
use ballast_announce::{Mac, Node, Time};

/// How long a client is a witness after its last request.
const RECENT: Duration = Duration::from_mins(1);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witnesses(BTreeMap<u32, BTreeMap<IpAddr, Host>>);

#[derive(Clone, Copy, Debug)]
struct Host {
    /// Unknown until a frame shows it.
    mac: Option<Mac>,
    /// When a client asked last; `None` is a gateway.
    asked: Option<Time>,
    /// Probes since its last answer.
    unanswered: u8,
}

/// After this many probes without an answer a host is asked by broadcast: it may have another MAC, as a
/// router that was replaced.
const PATIENCE: u8 = 2;

// === impl Witnesses ===

impl Witnesses {
    /// Replaces the gateways of an interface.
    pub(crate) fn set_gateways(&mut self, interface: u32, gateways: &[IpAddr]) {
        let hosts = self.0.entry(interface).or_default();
        hosts.retain(|address, host| host.asked.is_some() || gateways.contains(address));
        for gateway in gateways.iter().take(Node::WITNESSES) {
            let host = hosts.entry(*gateway).or_insert(Host {
                mac: None,
                asked: None,
                unanswered: 0,
            });
            host.asked = None;
        }
    }

    /// Keeps only these interfaces.
    pub(crate) fn retain(&mut self, exists: impl Fn(u32) -> bool) {
        self.0.retain(|interface, _| exists(*interface));
    }

    /// A client asked for an address of a Service. Returns whether the set of hosts changed.
    pub(crate) fn asked(&mut self, interface: u32, address: IpAddr, mac: Mac, now: Time) -> bool {
        let hosts = self.0.entry(interface).or_default();
        if let Some(host) = hosts.get_mut(&address) {
            host.mac = Some(mac);
            host.unanswered = 0;
            host.asked = host.asked.map(|_| now);
            return false;
        }
        if hosts.len() >= Node::WITNESSES {
            // The client that has been silent for the longest time makes room. One that asked a
            // moment ago is as good as this one.
            let clients = hosts
                .iter()
                .filter_map(|(at, host)| Some((host.asked?, *at)));
            let oldest = clients.min();
            let Some((_, oldest)) = oldest.filter(|(asked, _)| now.since(*asked) > RECENT / 2)
            else {
                return false;
            };
            hosts.remove(&oldest);
        }
        let host = Host {
            mac: Some(mac),
            asked: Some(now),
            unanswered: 0,
        };
        hosts.insert(address, host);
        true
    }

    /// Forgets clients that have not asked for a minute. Returns whether there were any.
    pub(crate) fn expire(&mut self, now: Time) -> bool {
        let mut changed = false;
        for hosts in self.0.values_mut() {
            let before = hosts.len();
            hosts.retain(|_, host| host.asked.is_none_or(|asked| now.since(asked) < RECENT));
            changed |= hosts.len() != before;
        }
        changed
    }

    /// A frame shows the MAC of a host.
    pub(crate) fn learn(&mut self, interface: u32, address: IpAddr, mac: Mac) {
        let hosts = self.0.get_mut(&interface);
        if let Some(host) = hosts.and_then(|hosts| hosts.get_mut(&address)) {
            host.mac = Some(mac);
            host.unanswered = 0;
        }
    }

    /// The MAC to which a probe of a host goes now; broadcast if the host's is not known, or may have
    /// changed.
    pub(crate) fn probe(&mut self, interface: u32, address: IpAddr) -> Mac {
        let hosts = self.0.get_mut(&interface);
        let Some(host) = hosts.and_then(|hosts| hosts.get_mut(&address)) else {
            return Mac::BROADCAST;
        };
        let known = host.mac.filter(|_| host.unanswered < PATIENCE);
        host.unanswered = host.unanswered.saturating_add(1);
        known.unwrap_or(Mac::BROADCAST)
    }

    /// The host with this address, if it is a witness.
    pub(crate) fn target(&self, interface: u32, address: IpAddr) -> Option<Target> {
        let known = self.0.get(&interface)?.contains_key(&address);
        known.then_some(Target::Host(address))
    }

    /// The hosts of each interface.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (u32, Vec<IpAddr>)> {
        self.0
            .iter()
            .map(|(interface, hosts)| (*interface, hosts.keys().copied().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const ETH0: u32 = 2;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn at(seconds: u64) -> Time {
        Time::after_start(Duration::from_secs(seconds))
    }

    fn hosts(witnesses: &Witnesses) -> Vec<IpAddr> {
        witnesses.hosts().flat_map(|(_, hosts)| hosts).collect()
    }

    #[test]
    fn gateways_stay_and_clients_expire() {
        let mut witnesses = Witnesses::default();
        witnesses.set_gateways(ETH0, &[ip(1)]);
        assert!(witnesses.asked(ETH0, ip(7), MAC, at(0)));
        assert!(!witnesses.asked(ETH0, ip(7), MAC, at(30)), "known");
        assert!(!witnesses.expire(at(60)));
        assert_eq!(hosts(&witnesses), [ip(1), ip(7)]);
        assert!(witnesses.expire(at(90)));
        assert_eq!(hosts(&witnesses), [ip(1)]);
        witnesses.set_gateways(ETH0, &[ip(2)]);
        assert_eq!(hosts(&witnesses), [ip(2)]);
    }

    #[test]
    fn a_gateway_that_asks_does_not_expire() {
        let mut witnesses = Witnesses::default();
        witnesses.set_gateways(ETH0, &[ip(1)]);
        assert!(!witnesses.asked(ETH0, ip(1), MAC, at(0)));
        assert_eq!(witnesses.probe(ETH0, ip(1)), MAC);
        assert!(!witnesses.expire(at(1000)));
    }

    #[test]
    fn the_number_is_bounded_and_recent_clients_stay() {
        let mut witnesses = Witnesses::default();
        witnesses.set_gateways(ETH0, &[ip(1)]);
        for n in 0..200 {
            witnesses.asked(ETH0, ip(10 + n), MAC, at(u64::from(n) / 20));
        }
        let first: Vec<_> = hosts(&witnesses);
        assert_eq!(first.len(), Node::WITNESSES);
        assert!(first.contains(&ip(1)), "a gateway makes no room");
        assert!(first.contains(&ip(10)), "a flood replaces nobody");
        assert!(
            witnesses.asked(ETH0, ip(250), MAC, at(45)),
            "the oldest made room"
        );
        assert_eq!(hosts(&witnesses).len(), Node::WITNESSES);
    }

    #[test]
    fn an_unknown_mac_is_asked_for_by_broadcast() {
        let mut witnesses = Witnesses::default();
        witnesses.set_gateways(ETH0, &[ip(1)]);
        assert_eq!(witnesses.probe(ETH0, ip(1)), Mac::BROADCAST);
        assert_eq!(witnesses.probe(ETH0, ip(3)), Mac::BROADCAST);
        witnesses.learn(ETH0, ip(1), MAC);
        witnesses.learn(ETH0, ip(2), MAC);
        assert_eq!(witnesses.probe(ETH0, ip(1)), MAC);
        assert_eq!(witnesses.target(ETH0, ip(2)), None);
        assert_eq!(witnesses.target(ETH0, ip(1)), Some(Target::Host(ip(1))));
    }

    /// Otherwise a router that was replaced would never be a witness again.
    #[test]
    fn a_host_that_has_another_mac_is_found() {
        let other = Mac([2, 0, 0, 0, 0, 8]);
        let mut witnesses = Witnesses::default();
        witnesses.set_gateways(ETH0, &[ip(1)]);
        witnesses.learn(ETH0, ip(1), MAC);
        let sent: Vec<_> = (0..5).map(|_| witnesses.probe(ETH0, ip(1))).collect();
        let all = Mac::BROADCAST;
        assert_eq!(sent, [MAC, MAC, all, all, all]);
        witnesses.learn(ETH0, ip(1), other);
        for _ in 0..10 {
            assert_eq!(witnesses.probe(ETH0, ip(1)), other);
            witnesses.learn(ETH0, ip(1), other);
        }
    }

    #[test]
    fn interfaces_that_are_gone_are_forgotten() {
        let mut witnesses = Witnesses::default();
        witnesses.set_gateways(ETH0, &[ip(1)]);
        witnesses.retain(|interface| interface != ETH0);
        assert!(hosts(&witnesses).is_empty());
    }
}
