//! Directory: which host has which address and MAC on which interface of this node.
//!
//! The core thread builds one from the view and the interfaces whenever one of them changes. It
//! says where a probe of a node goes, whose answer a frame is, and where messages for a node are
//! sent. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ballast_announce::io::Target;
use ballast_announce::view::{Interface, View};
use ballast_announce::{Mac, NodeName};
use ipnet::IpNet;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Where a probe of a node goes, by interface.
    nodes: BTreeMap<(u32, NodeName), Neighbour>,
    /// The nodes' addresses in the networks of the interfaces.
    hosts: BTreeMap<(u32, IpAddr), NodeName>,
    /// The agents' MACs.
    agents: BTreeMap<Mac, NodeName>,
    /// Where messages go, best address first.
    post: BTreeMap<NodeName, Vec<IpAddr>>,
    /// This node's own addresses.
    own: BTreeMap<(u32, IpAddr), IpNet>,
}

/// A host on a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// Its own address, in a network of the interface.
    pub(crate) address: IpAddr,
    /// Its MAC.
    pub(crate) mac: Mac,
    /// This node's address in the same network.
    pub(crate) own: IpAddr,
}

// === impl Directory ===

impl Directory {
    /// The directory of node `me` with these interfaces.
    pub(crate) fn new(me: &NodeName, view: Option<&View>, interfaces: &[Interface]) -> Self {
        let mut directory = Self::default();
        for interface in interfaces {
            for net in &interface.nets {
                directory.own.insert((interface.index, net.addr()), *net);
            }
        }
        let nodes = view.into_iter().flat_map(|view| &view.nodes);
        for (node, facts) in nodes.filter(|(node, _)| *node != me) {
            // Messages prefer an interface that the node says is usable.
            let mut theirs: Vec<_> = facts.interfaces.iter().collect();
            theirs.sort_by_key(|interface| !interface.carrier);
            for theirs in theirs {
                directory.agents.insert(theirs.mac, node.clone());
                for ours in interfaces {
                    directory.meet(node, theirs, ours);
                }
            }
            let post = directory.post.entry(node.clone()).or_default();
            for address in &facts.addresses {
                if !post.contains(address) {
                    post.push(*address);
                }
            }
        }
        directory
    }

    /// Adds what a node has in the networks of one of our interfaces, IPv4 first.
    fn meet(&mut self, node: &NodeName, theirs: &Interface, ours: &Interface) {
        let mut nets: Vec<&IpNet> = theirs.nets.iter().collect();
        nets.sort_by_key(|net| net.addr().is_ipv6());
        for net in nets {
            let address = net.addr();
            // Each host may have the same bridge for its containers. It is no common network.
            if self.own.keys().any(|(_, own)| *own == address) {
                continue;
            }
            let Some(own) = ours.nets.iter().find(|own| own.contains(&address)) else {
                continue;
            };
            let neighbour = Neighbour {
                address,
                mac: theirs.mac,
                own: own.addr(),
            };
            let key = (ours.index, node.clone());
            self.nodes.entry(key).or_insert(neighbour);
            self.hosts.insert((ours.index, address), node.clone());
            // Messages do not go where this node cannot send.
            let post = self.post.entry(node.clone()).or_default();
            if ours.carrier && !post.contains(&address) {
                post.push(address);
            }
        }
    }

    /// Where a probe of a node goes.
    pub(crate) fn node(&self, interface: u32, node: &NodeName) -> Option<&Neighbour> {
        self.nodes.get(&(interface, node.clone()))
    }

    /// Who has an address on an interface, if it is a node.
    pub(crate) fn host(&self, interface: u32, address: IpAddr) -> Option<Target> {
        let node = self.hosts.get(&(interface, address))?;
        Some(Target::Node(node.clone()))
    }

    /// The node whose agent has this MAC.
    pub(crate) fn agent(&self, mac: Mac) -> Option<&NodeName> {
        self.agents.get(&mac)
    }

    /// Where messages for a node go, best address first: one on a common segment arrives on the
    /// interface that it proves.
    pub(crate) fn post(&self, node: &NodeName) -> &[IpAddr] {
        self.post.get(node).map_or(&[], Vec::as_slice)
    }

    /// Whether this node has an address itself, on this interface.
    pub(crate) fn is_own(&self, interface: u32, address: IpAddr) -> bool {
        self.own.contains_key(&(interface, address))
    }

    /// This node's address in the network of another one.
    pub(crate) fn own_for(&self, interface: u32, address: IpAddr) -> Option<IpAddr> {
        let ours = self.own.range((interface, first())..);
        let mut ours = ours.take_while(|((index, _), _)| *index == interface);
        ours.find(|(_, net)| net.contains(&address))
            .map(|((_, own), _)| *own)
    }
}

/// The lowest address in the order of [`IpAddr`].
const fn first() -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
}

#[cfg(test)]
mod tests {
    use ballast_announce::view::NodeFacts;

    use super::*;

    const fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    fn interface(index: u32, last: u8, nets: &[&str]) -> Interface {
        Interface {
            index,
            name: format!("eth{index}").into(),
            mac: mac(last),
            nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
            carrier: true,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Node `a` with two networks; `b` has both, `c` only the second one, `d` no agent.
    fn example() -> Directory {
        let mut view = View::default();
        let mut add = |name: &str, interfaces, addresses: &[&str]| {
            let facts = NodeFacts {
                interfaces,
                addresses: addresses.iter().map(|text| ip(text)).collect(),
                ..NodeFacts::default()
            };
            view.nodes.insert(NodeName::new(name), facts);
        };
        let ours = [
            interface(2, 1, &["192.0.2.1/24", "2001:db8::1/64"]),
            interface(3, 11, &["198.51.100.1/24"]),
        ];
        add("a", ours.to_vec(), &["192.0.2.1"]);
        let b = vec![
            interface(7, 2, &["2001:db8::2/64", "192.0.2.2/24"]),
            interface(8, 12, &["198.51.100.2/24"]),
        ];
        add("b", b, &["192.0.2.2", "203.0.113.2"]);
        let c = vec![interface(2, 13, &["198.51.100.3/24"])];
        add("c", c, &["203.0.113.3"]);
        add("d", Vec::new(), &["203.0.113.4"]);
        Directory::new(&NodeName::new("a"), Some(&view), &ours)
    }

    #[test]
    fn a_probe_goes_to_the_address_in_the_network_of_the_interface() {
        let directory = example();
        let found = |interface, node| {
            let neighbour = directory.node(interface, &NodeName::new(node));
            neighbour.map(|it| (it.address.to_string(), it.mac, it.own.to_string()))
        };
        let expected = ("192.0.2.2".to_owned(), mac(2), "192.0.2.1".to_owned());
        assert_eq!(found(2, "b"), Some(expected), "IPv4 first");
        let expected = (
            "198.51.100.2".to_owned(),
            mac(12),
            "198.51.100.1".to_owned(),
        );
        assert_eq!(found(3, "b"), Some(expected));
        assert_eq!(found(2, "c"), None);
        assert_eq!(found(2, "d"), None);
    }

    #[test]
    fn answers_are_assigned_to_nodes() {
        let directory = example();
        let b = Some(Target::Node(NodeName::new("b")));
        assert_eq!(directory.host(2, ip("192.0.2.2")), b);
        assert_eq!(directory.host(2, ip("2001:db8::2")), b);
        assert_eq!(directory.host(3, ip("192.0.2.2")), None);
        assert_eq!(directory.host(2, ip("192.0.2.1")), None);
        assert_eq!(directory.agent(mac(13)), Some(&NodeName::new("c")));
        assert_eq!(directory.agent(mac(1)), None, "our own MAC");
    }

    #[test]
    fn messages_prefer_a_common_segment() {
        let directory = example();
        let post = |node| {
            let addresses = directory.post(&NodeName::new(node)).iter();
            addresses.map(ToString::to_string).collect::<Vec<_>>()
        };
        let b = ["192.0.2.2", "2001:db8::2", "198.51.100.2", "203.0.113.2"];
        assert_eq!(post("b"), b);
        assert_eq!(post("c"), ["198.51.100.3", "203.0.113.3"]);
        assert_eq!(post("d"), ["203.0.113.4"]);
        assert!(post("a").is_empty());
    }

    /// As with Docker: 172.17.0.1 on every host.
    #[test]
    fn an_equal_bridge_on_two_hosts_is_no_common_network() {
        let bridge = |index, last| interface(index, last, &["172.17.0.1/16"]);
        let ours = [bridge(4, 21), interface(2, 1, &["192.0.2.1/24"])];
        let mut view = View::default();
        let theirs = vec![bridge(9, 22), interface(7, 2, &["192.0.2.2/24"])];
        let facts = NodeFacts {
            interfaces: theirs,
            ..NodeFacts::default()
        };
        let b = NodeName::new("b");
        view.nodes.insert(b.clone(), facts);
        let directory = Directory::new(&NodeName::new("a"), Some(&view), &ours);
        assert_eq!(directory.post(&b), [ip("192.0.2.2")]);
        assert_eq!(directory.node(4, &b), None);
    }

    #[test]
    fn an_interface_that_is_not_usable_comes_last() {
        let ours = [
            interface(2, 1, &["192.0.2.1/24"]),
            interface(3, 11, &["198.51.100.1/24"]),
        ];
        let mut dead = interface(7, 2, &["192.0.2.2/24"]);
        dead.carrier = false;
        let facts = NodeFacts {
            interfaces: vec![dead, interface(8, 12, &["198.51.100.2/24"])],
            ..NodeFacts::default()
        };
        let b = NodeName::new("b");
        let mut view = View::default();
        view.nodes.insert(b.clone(), facts);
        let directory = Directory::new(&NodeName::new("a"), Some(&view), &ours);
        assert_eq!(directory.post(&b), [ip("198.51.100.2"), ip("192.0.2.2")]);
    }

    #[test]
    fn own_addresses_are_known_by_interface() {
        let directory = example();
        assert!(directory.is_own(2, ip("192.0.2.1")));
        assert!(!directory.is_own(3, ip("192.0.2.1")));
        assert_eq!(
            directory.own_for(2, ip("192.0.2.77")),
            Some(ip("192.0.2.1"))
        );
        assert_eq!(
            directory.own_for(2, ip("2001:db8::77")),
            Some(ip("2001:db8::1"))
        );
        assert_eq!(directory.own_for(3, ip("192.0.2.77")), None);
    }
}
