//! A node driven by hand: its clock, its peers, and what it says.

use ballast_announce::claim::Claim;
use ballast_announce::io::{Body, Message, Problem, Target};
use ballast_announce::membership::Stamp;
use ballast_announce::slip::Slips;
use ballast_announce::timing::TICK;
use ballast_announce::view::{Detection, Interface, NodeFacts, Policy, Rebalance, View, Wanted};
use ballast_announce::{Config, Input, Mac, Node, NodeName, Output, Time};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(crate) const FOREIGN: Mac = Mac([2, 0, 0, 0, 0, 0x99]);
pub(crate) const ETH0: u32 = 2;

/// A node with a clock. Its peers exist only in the view.
pub(crate) struct Lone {
    pub(crate) node: Node,
    now: Duration,
    sequence: u64,
    pub(crate) view: View,
    pub(crate) out: Vec<Output>,
}

pub(crate) fn name(n: usize) -> NodeName {
    NodeName::new(&format!("node-{n}"))
}

pub(crate) fn address(n: u32) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0100 + n))
}

pub(crate) fn interface(index: u32, mac: Mac, net: &str) -> Interface {
    Interface {
        index,
        name: format!("eth{}", index - ETH0).into(),
        mac,
        nets: vec![net.parse().unwrap()],
        carrier: true,
    }
}

pub(crate) fn eth0(mac: Mac) -> Interface {
    let net = format!("10.0.0.{}/16", mac.0[5]);
    interface(ETH0, mac, &net)
}

pub(crate) fn wanted(policy: Policy, endpoints: &[NodeName]) -> Arc<Wanted> {
    Arc::new(Wanted {
        policy,
        detection: Detection::Fast,
        nodes: None,
        preferred: None,
        rebalance: Rebalance::default(),
        interfaces: None,
        endpoints: endpoints.iter().cloned().collect(),
        refresh: Some(Duration::from_mins(1)),
    })
}

impl Lone {
    /// A node that has just started, in a cluster of this many nodes, with its interfaces.
    pub(crate) fn start(nodes: usize) -> Self {
        let config = Config {
            name: name(0),
            incarnation: 1,
            gossip: true,
            slips: Slips::default(),
        };
        let mut view = View::default();
        for n in 0..nodes {
            let mac = Mac([2, 0, 0, 0, 0, u8::try_from(n + 1).unwrap()]);
            let facts = NodeFacts {
                interfaces: vec![eth0(mac)],
                ..NodeFacts::default()
            };
            view.nodes.insert(name(n), facts);
        }
        let node = Node::new(config, Time::default());
        let (now, out) = (Duration::ZERO, Vec::new());
        let mut lone = Self {
            node,
            now,
            sequence: 0,
            view,
            out,
        };
        lone.input(Input::Interfaces(vec![eth0(OWN)]));
        lone
    }

    /// The same, with the API server, and Services with these addresses.
    pub(crate) fn with_services(nodes: usize, services: &[(IpAddr, Arc<Wanted>)]) -> Self {
        let mut lone = Self::start(nodes);
        lone.view.wanted = services.iter().cloned().collect();
        lone.input(Input::Api { connected: true });
        lone.see();
        lone
    }

    pub(crate) fn see(&mut self) {
        let view = Arc::new(self.view.clone());
        self.input(Input::View(view));
    }

    pub(crate) fn time(&self) -> Time {
        Time::after_start(self.now)
    }

    pub(crate) fn input(&mut self, input: Input) {
        let now = self.time();
        self.node.handle(now, input, &mut self.out);
    }

    pub(crate) fn hear(&mut self, mac: Mac) {
        let interface = ETH0;
        let address = address(0);
        self.input(Input::Heard {
            interface,
            address,
            mac,
        });
    }

    /// Another number for each message of a peer.
    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Runs for a while; peers and hosts answer all probes. Returns what came out.
    pub(crate) fn run(&mut self, milliseconds: u64) -> Vec<Output> {
        self.run_without(usize::MAX, milliseconds)
    }

    /// The same while the host of one peer is gone.
    pub(crate) fn run_without(&mut self, gone: usize, milliseconds: u64) -> Vec<Output> {
        let gone = Target::Node(name(gone));
        let end = self.now + Duration::from_millis(milliseconds);
        let mut all = Vec::new();
        while self.now < end {
            self.now += TICK;
            let now = self.time();
            self.node.tick(now, &mut self.out);
            let out = std::mem::take(&mut self.out);
            for output in &out {
                if let Output::Probe { target, method, .. } = output
                    && *target != gone
                {
                    self.input(Input::Answer {
                        interface: ETH0,
                        from: target.clone(),
                        method: *method,
                    });
                }
            }
            all.extend(out);
        }
        all
    }

    /// Runs for a while; nobody answers.
    pub(crate) fn cut_off(&mut self, milliseconds: u64) {
        let end = self.now + Duration::from_millis(milliseconds);
        while self.now < end {
            self.now += TICK;
            let now = self.time();
            self.node.tick(now, &mut self.out);
            self.out.clear();
        }
    }

    /// A message of a peer arrives.
    pub(crate) fn beat(&mut self, from: usize, sequence: u64) {
        self.beat_with(from, sequence, Vec::new());
    }

    /// The same with claims.
    pub(crate) fn beat_with(&mut self, from: usize, sequence: u64, claims: Vec<(IpAddr, Claim)>) {
        let stamp = Stamp {
            incarnation: 7,
            sequence,
        };
        let received = 0;
        let body = Body::Beat {
            claims,
            received,
            cut_off: false,
        };
        let message = Message {
            from: name(from),
            stamp,
            body,
        };
        let via = Some(ETH0);
        self.input(Input::Message { via, message });
    }

    pub(crate) fn answers(&self, n: u32) -> bool {
        self.node.table().get(&address(n)).is_some()
    }

    pub(crate) fn problems(&self) -> BTreeSet<Problem> {
        self.node.problems(self.time())
    }
}

pub(crate) fn announced(out: &[Output]) -> Vec<Mac> {
    let announced = out.iter().filter_map(|output| match output {
        Output::Announce { mac, .. } => Some(*mac),
        _ => None,
    });
    announced.collect()
}

/// The claim of a node, with its successors.
pub(crate) fn claim(epoch: u64, holder: usize, successors: &[usize]) -> Claim {
    Claim {
        epoch,
        holder: name(holder),
        revision: 0,
        successors: successors.iter().copied().map(name).collect(),
    }
}

pub(crate) fn cluster() -> Arc<Wanted> {
    wanted(Policy::Cluster, &[name(0)])
}
