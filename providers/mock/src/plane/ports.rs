//! Which ports the plane leaves to the programs of its own node. Pure.
//!
//! kubelet, sshd and most daemons listen on all addresses of their node (a *wildcard
//! listener*). Linux refuses that while another socket has the same port on any single
//! address. An open load balancer port would therefore keep such a program from starting.
//!
//! Invariants: a reserved port is never opened; a port for which a wildcard listener was ever
//! seen is never opened, also not in the moment in which that program and this one restart
//! (the server stores what is seen); memory does not grow with what is seen.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use super::plan::Socket;
use crate::api::{Family, Protocol};

/// Ports that programs of a Kubernetes node are known to open on all addresses: sshd, DHCP
/// clients, BGP, etcd, Cilium, VXLAN, Calico, Geneve, the API server, `MetalLB`, node-exporter,
/// the supervisor of rke2, kubelet, kube-proxy and the control plane, Talos, `WireGuard`.
pub(crate) const DEFAULT_RESERVED: &str = "22/TCP,68/UDP,179/TCP,546/UDP,2379-2381/TCP,\
4240/TCP,4244/TCP,4789/UDP,5473/TCP,6081/UDP,6443/TCP,7472-7473/TCP,7946,8472/UDP,9100/TCP,\
9345/TCP,10248-10260/TCP,50000-50001/TCP,51820-51821/UDP,51871/UDP";

/// A UDP port that clients draw from counts as a listener's after it was in use this long:
/// a client's socket looks like a listener and lives for one exchange.
const LASTING: Duration = Duration::from_secs(5);

/// UDP ports that are watched for [`LASTING`] at a time.
const MAX_CANDIDATES: usize = 4_096;

/// Ports that load balancers cannot have, such as `22/TCP,7946,10248-10260/TCP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedPorts(Vec<Reserved>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Reserved {
    ports: RangeInclusive<u16>,
    /// `None` is both.
    protocol: Option<Protocol>,
}

/// A port that some program has on all addresses of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Wildcard {
    pub(crate) protocol: Protocol,
    pub(crate) family: Family,
    pub(crate) port: u16,
}

/// Why a port is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is on the list.
    Reserved,
    /// A wildcard listener was seen.
    Listener,
}

/// What is known of the ports of the node.
#[derive(Debug)]
pub(super) struct NodePorts {
    reserved: ReservedPorts,
    /// Ports that the kernel assigns to clients.
    ephemeral: RangeInclusive<u16>,
    seen: HashMap<(Protocol, Family), PortSet>,
    /// Those of `seen` that are not stored yet; each port is once in it.
    new: Vec<Wildcard>,
    /// Since when an ephemeral UDP port has been in use.
    candidates: HashMap<Wildcard, Instant>,
}

/// One bit for each port.
#[derive(Debug)]
struct PortSet(Box<[u64]>);

// === impl ReservedPorts ===

impl ReservedPorts {
    /// Reserves nothing.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    fn contains(&self, protocol: Protocol, port: u16) -> bool {
        self.0.iter().any(|reserved| {
            reserved.ports.contains(&port) && reserved.protocol.is_none_or(|it| it == protocol)
        })
    }
}

impl Default for ReservedPorts {
    fn default() -> Self {
        // A test keeps the list valid.
        DEFAULT_RESERVED.parse().unwrap_or_else(|_| Self::none())
    }
}

impl FromStr for ReservedPorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries = text.split(',').map(str::trim);
        let entries = entries.filter(|entry| !entry.is_empty());
        entries.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Reserved {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || format!("{text:?} is not a port such as 7946, 22/TCP or 10248-10260/TCP");
        let (ports, protocol) = match text.split_once('/') {
            None => (text, None),
            Some((ports, "TCP" | "tcp")) => (ports, Some(Protocol::Tcp)),
            Some((ports, "UDP" | "udp")) => (ports, Some(Protocol::Udp)),
            Some(_) => return Err(invalid()),
        };
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self {
                ports: first..=last,
                protocol,
            }),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for ReservedPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, reserved) in self.0.iter().enumerate() {
            let (first, last) = (reserved.ports.start(), reserved.ports.end());
            f.write_str(if index == 0 { "" } else { "," })?;
            write!(f, "{first}")?;
            if first != last {
                write!(f, "-{last}")?;
            }
            if let Some(protocol) = reserved.protocol {
                write!(f, "/{protocol}")?;
            }
        }
        Ok(())
    }
}

// === impl NodePorts ===

impl NodePorts {
    /// `known`: listeners that an earlier process saw.
    pub(super) fn new(
        reserved: ReservedPorts,
        ephemeral: RangeInclusive<u16>,
        known: &[Wildcard],
    ) -> Self {
        let mut ports = Self {
            reserved,
            ephemeral,
            seen: HashMap::new(),
            new: Vec::new(),
            candidates: HashMap::new(),
        };
        for listener in known {
            ports.remember(*listener);
        }
        ports
    }

    /// The listeners that were seen for the first time since the last call.
    pub(super) fn take_new(&mut self) -> Vec<Wildcard> {
        std::mem::take(&mut self.new)
    }

    /// Returns whether it was unknown.
    fn remember(&mut self, listener: Wildcard) -> bool {
        let key = (listener.protocol, listener.family);
        let seen = self.seen.entry(key).or_insert_with(PortSet::empty);
        seen.insert(listener.port)
    }

    /// Why this socket must not be opened, if so.
    pub(super) fn refusal(&self, socket: Socket) -> Option<Refusal> {
        if self.reserved.contains(socket.protocol, socket.port) {
            return Some(Refusal::Reserved);
        }
        let seen = self.seen.get(&(socket.protocol, Family::of(socket.ip)));
        seen.is_some_and(|seen| seen.contains(socket.port))
            .then_some(Refusal::Listener)
    }

    /// Takes all wildcard listeners of the node as they are now.
    pub(super) fn observe_all(&mut self, listeners: &[Wildcard], now: Instant) {
        for listener in listeners {
            self.observe(*listener, now);
        }
        self.candidates.retain(|it, _| listeners.contains(it));
    }

    /// Takes one wildcard listener that is there now.
    pub(super) fn observe(&mut self, listener: Wildcard, now: Instant) {
        let lasting = match listener.protocol {
            Protocol::Udp if self.ephemeral.contains(&listener.port) => self.lasts(listener, now),
            Protocol::Tcp | Protocol::Udp => true,
        };
        if lasting && self.remember(listener) {
            self.new.push(listener);
        }
    }

    fn lasts(&mut self, listener: Wildcard, now: Instant) -> bool {
        if let Some(since) = self.candidates.get(&listener) {
            return now.duration_since(*since) >= LASTING;
        }
        if self.candidates.len() < MAX_CANDIDATES {
            self.candidates.insert(listener, now);
        }
        false
    }
}

// === impl PortSet ===

impl PortSet {
    fn empty() -> Self {
        Self(vec![0; 1 << 10].into_boxed_slice())
    }

    /// Returns whether it was not in the set.
    fn insert(&mut self, port: u16) -> bool {
        let Some(word) = self.0.get_mut(usize::from(port >> 6)) else {
            return false;
        };
        let bit = 1 << (port & 63);
        let before = std::mem::replace(word, *word | bit);
        before & bit == 0
    }

    fn contains(&self, port: u16) -> bool {
        let word = self.0.get(usize::from(port >> 6));
        word.is_some_and(|word| word & (1 << (port & 63)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "192.0.2.200";
    const V6: &str = "2001:db8::200";

    fn socket(ip: &str, protocol: Protocol, port: u16) -> Socket {
        Socket {
            ip: ip.parse().unwrap(),
            protocol,
            port,
        }
    }

    fn wildcard(protocol: Protocol, port: u16) -> Wildcard {
        Wildcard {
            protocol,
            family: Family::V4,
            port,
        }
    }

    fn ports(reserved: &str) -> NodePorts {
        NodePorts::new(reserved.parse().unwrap(), 32_768..=60_999, &[])
    }

    #[test]
    fn the_default_list_is_valid_and_holds_what_nodes_run() {
        let list: ReservedPorts = DEFAULT_RESERVED.parse().unwrap();
        assert_eq!(list.to_string(), DEFAULT_RESERVED);
        assert_eq!(list, ReservedPorts::default());
        for (protocol, reserved, free) in [
            (
                Protocol::Tcp,
                &[22, 2380, 6443, 7946, 10_250, 10_256][..],
                &[53, 80, 443, 8472],
            ),
            (
                Protocol::Udp,
                &[4789, 6081, 7946, 8472, 51_820],
                &[22, 53, 443, 10_250],
            ),
        ] {
            assert!(reserved.iter().all(|port| list.contains(protocol, *port)));
            assert!(free.iter().all(|port| !list.contains(protocol, *port)));
        }
    }

    #[test]
    fn a_list_is_parsed_or_refused_with_an_example() {
        assert_eq!("".parse(), Ok(ReservedPorts::none()));
        assert_eq!(
            " 1-65535 , 53/udp,"
                .parse::<ReservedPorts>()
                .unwrap()
                .to_string(),
            "1-65535,53/UDP"
        );
        for wrong in [
            "0",
            "65536",
            "9-8",
            "22/SCTP",
            "ssh",
            "22/TCP/TCP",
            "-1",
            "1-",
        ] {
            let error = wrong.parse::<ReservedPorts>().unwrap_err();
            assert!(error.contains("22/TCP") && error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_reserved_port_is_refused_for_its_protocol() {
        let ports = ports("10250/TCP,7946");
        let refusal = |protocol, port| ports.refusal(socket(V4, protocol, port));
        assert_eq!(refusal(Protocol::Tcp, 10_250), Some(Refusal::Reserved));
        assert_eq!(refusal(Protocol::Udp, 10_250), None);
        assert_eq!(refusal(Protocol::Udp, 7946), Some(Refusal::Reserved));
        assert_eq!(refusal(Protocol::Tcp, 80), None);
    }

    #[test]
    fn a_listener_that_was_ever_seen_is_remembered() {
        let mut ports = ports("");
        let now = Instant::now();
        let all: Vec<Wildcard> = [
            (Protocol::Tcp, 9100),
            (Protocol::Tcp, 40_000),
            (Protocol::Udp, 8472),
        ]
        .map(|(protocol, port)| wildcard(protocol, port))
        .to_vec();
        ports.observe_all(&all, now);
        // All are gone.
        ports.observe_all(&[], now + LASTING);
        for (ip, protocol, port, refused) in [
            (V4, Protocol::Tcp, 9100, true),
            (V4, Protocol::Tcp, 40_000, true),
            (V4, Protocol::Udp, 8472, true),
            (V4, Protocol::Udp, 9100, false),
            (V4, Protocol::Tcp, 9101, false),
            // The listener does not conflict with the other family.
            (V6, Protocol::Tcp, 9100, false),
        ] {
            let refusal = ports.refusal(socket(ip, protocol, port));
            assert_eq!(refusal, refused.then_some(Refusal::Listener), "{ip} {port}");
        }
    }

    #[test]
    fn each_new_listener_is_stored_once_and_a_stored_one_is_known() {
        let mut ports = ports("");
        let now = Instant::now();
        let all = [9100, 9200].map(|port| wildcard(Protocol::Tcp, port));
        ports.observe_all(&all[..1], now);
        ports.observe_all(&all, now);
        let stored = ports.take_new();
        assert_eq!(stored, all);
        ports.observe_all(&all, now);
        assert_eq!(ports.take_new(), []);
        let mut again = NodePorts::new(ReservedPorts::none(), 32_768..=60_999, &stored);
        let refusal = again.refusal(socket(V4, Protocol::Tcp, 9200));
        assert_eq!(refusal, Some(Refusal::Listener));
        again.observe_all(&all, now);
        assert_eq!(again.take_new(), []);
    }

    #[test]
    fn a_client_of_udp_is_not_a_listener_and_one_that_stays_is() {
        let mut ports = ports("");
        let start = Instant::now();
        let (client, daemon) = (
            wildcard(Protocol::Udp, 45_000),
            wildcard(Protocol::Udp, 51_000),
        );
        ports.observe_all(&[client, daemon], start);
        ports.observe_all(&[daemon], start + LASTING / 2);
        ports.observe_all(&[client, daemon], start + LASTING);
        let refusal = |port| ports.refusal(socket(V4, Protocol::Udp, port));
        assert_eq!(refusal(45_000), None, "a second client drew the same port");
        assert_eq!(refusal(51_000), Some(Refusal::Listener));
    }

    #[test]
    fn memory_is_bounded() {
        let mut ports = ports("");
        let now = Instant::now();
        for port in 1..=u16::MAX {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                ports.observe(wildcard(protocol, port), now);
            }
        }
        assert_eq!(ports.candidates.len(), MAX_CANDIDATES);
        let bytes = ports.seen.values().map(|set| set.0.len() * 8);
        assert_eq!(bytes.sum::<usize>(), 2 * 8192);
    }
}
