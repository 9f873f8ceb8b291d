//! The world: hosts with whole announcers, a segment, an API server, and an event queue.
//!
//! Discrete events, one random generator, no threads and no clocks: a seed is a history.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ballast_announce::io::{Input, Output};
use ballast_announce::random::Random;
use ballast_announce::slip::Slips;
use ballast_announce::view::{Detection, Interface, NodeFacts, Policy, Rebalance, View, Wanted};
use ballast_announce::{Config, Mac, Node, NodeName, Time};

use crate::api::{ApiClient, ApiServer};
use crate::faults::Fault;
use crate::judge::Judge;
use crate::network::{Frame, Network};

/// Prints what changes; set with `HISTORY`.
pub fn trace() -> bool {
    std::env::var("HISTORY").is_ok()
}

/// Microseconds since the start of the world.
pub type Micros = u64;

pub const fn ms(milliseconds: u64) -> Micros {
    milliseconds * 1000
}

/// The index of every host's only interface.
pub const ETH0: u32 = 1;

/// Hosts that are no nodes.
pub const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200));

/// Inputs that the sockets of a stopped agent hold.
const WAITING: usize = 200;

/// A host that is no node, and a witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    Gateway,
    /// It asks all the time.
    Client,
    Nobody,
}

/// The shape of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub nodes: usize,
    pub addresses: usize,
    pub detection: Detection,
    pub gossip: bool,
    pub other: Other,
    pub policy: Policy,
    /// The API server is reached over the segment, through the gateway.
    pub api_on_segment: bool,
}

/// A host with a kernel, an agent, a port and a clock of its own.
pub struct Host {
    pub name: NodeName,
    pub agent: Option<Node>,
    /// The kernel runs.
    pub powered: bool,
    /// The kernel and all processes are stopped; frames are dropped.
    pub frozen: bool,
    /// The agent is stopped (SIGSTOP).
    pub stopped: bool,
    /// Inputs that wait in sockets of a stopped agent.
    waiting: Vec<Input>,
    /// What this host's clock is ahead of the world's, in microseconds.
    clock: u64,
    /// How fast it runs: millionths too fast.
    drift: u64,
    /// The wall clock, for stamps of Leases: seconds ahead.
    pub skew: u64,
    pub api: ApiClient,
    pub lives: u64,
    /// When `healthCheckNodePort` begins to answer 200: kube-proxy has an endpoint on this node.
    healthy_from: BTreeMap<IpAddr, Micros>,
    pub cables: BTreeSet<NodeName>,
}

pub enum Event {
    Tick(usize),
    Poll(usize),
    Deliver(usize, Frame),
    Input(usize, Box<Input>),
    Start(usize),
    Sample,
}

pub struct World {
    pub now: Micros,
    pub shape: Shape,
    pub hosts: Vec<Host>,
    pub network: Network,
    pub api: ApiServer,
    pub random: Random,
    pub judge: Judge,
    pub slips: Slips,
    /// Prints what changes.
    pub trace: bool,
    /// Each phase has its own causes.
    pub strict: bool,
    /// The most that a tick is late.
    pub lateness: Micros,
    /// The same for ticks of one host.
    pub late_host: Option<(usize, Micros)>,
    /// Counts what faults do to the cluster: frames that are lost, hosts and agents that stand still,
    /// ticks that are late, polls of the API server that fail, claims.
    pub traces: u64,
    /// Which faults have changed anything.
    pub effects: Vec<(Fault, bool)>,
    queue: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    count: u64,
}

pub fn node(index: usize) -> NodeName {
    NodeName::new(&format!("node-{index}"))
}

pub fn mac(index: usize) -> Mac {
    Mac([2, 0, 0, 0, 0, u8::try_from(index).unwrap()])
}

pub fn interface(index: usize, carrier: bool) -> Interface {
    Interface {
        index: ETH0,
        name: "eth0".into(),
        mac: mac(index),
        nets: vec![
            format!("192.0.2.{}/24", index + 1).parse().unwrap(),
            format!("2001:db8::{:x}/64", index + 1).parse().unwrap(),
        ],
        carrier,
    }
}

/// Of the first 100 addresses every second one is IPv6, and all others are.
pub fn address(n: usize) -> IpAddr {
    match u8::try_from(n) {
        Ok(n) if n < 100 && n % 2 == 0 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100 + n)),
        Ok(n) if n < 100 => format!("2001:db8::{n}").parse().unwrap(),
        _ => format!("2001:db8::1:{n}").parse().unwrap(),
    }
}

// === impl World ===

impl World {
    pub fn new(seed: u64, shape: Shape, slips: Slips) -> Self {
        let mut random = Random::new(seed);
        let hosts = (0..shape.nodes)
            .map(|index| Host {
                name: node(index),
                agent: None,
                powered: true,
                frozen: false,
                stopped: false,
                waiting: Vec::new(),
                clock: random.number() % 1_000_000_000,
                drift: random.number() % 500,
                skew: random.number() % 120,
                api: ApiClient::default(),
                lives: 0,
                healthy_from: BTreeMap::new(),
                cables: BTreeSet::new(),
            })
            .collect();
        let nodes = (0..shape.nodes).map(|index| {
            let facts = NodeFacts {
                interfaces: vec![interface(index, true)],
                ..NodeFacts::default()
            };
            (node(index), facts)
        });
        let endpoints: BTreeSet<_> = (0..shape.nodes.min(2)).map(node).collect();
        let wanted = (0..shape.addresses).map(|n| {
            let wanted = Wanted {
                policy: shape.policy,
                detection: shape.detection,
                nodes: None,
                preferred: None,
                rebalance: Rebalance::default(),
                interfaces: None,
                endpoints: endpoints.clone(),
                refresh: Some(ballast_announce::timing::REFRESH),
            };
            (address(n), wanted.into())
        });
        let view = View {
            wanted: wanted.collect(),
            nodes: nodes.collect(),
            ..View::default()
        };
        let mut world = Self {
            now: 0,
            shape,
            hosts,
            network: Network::new(shape.nodes),
            api: ApiServer {
                view,
                version: 1,
                ..ApiServer::default()
            },
            random,
            judge: Judge::default(),
            slips,
            trace: trace(),
            strict: false,
            lateness: ms(5),
            late_host: None,
            traces: 0,
            effects: Vec::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            count: 0,
        };
        for index in 0..shape.nodes {
            let delay = world.up_to(ms(500));
            world.after(delay, Event::Start(index));
            world.after(delay + 1, Event::Tick(index));
            world.after(delay + 2, Event::Poll(index));
        }
        world.after(ms(25), Event::Sample);
        world
    }

    pub fn up_to(&mut self, limit: Micros) -> Micros {
        self.random.number() % (limit + 1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.random.number() % 100 < percent
    }

    pub fn after(&mut self, delay: Micros, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.count += 1;
        self.queue
            .push(Reverse((self.now + delay, self.count, slot)));
    }

    /// Runs until this much time has passed.
    pub fn run(&mut self, time: Micros) {
        let end = self.now + time;
        while let Some(&Reverse((at, _, slot))) = self.queue.peek()
            && at <= end
        {
            self.queue.pop();
            self.now = at;
            let event = self.events[slot].take();
            self.free.push(slot);
            match event {
                Some(Event::Tick(host)) => self.tick(host),
                Some(Event::Poll(host)) => self.poll(host),
                Some(Event::Deliver(to, frame)) => self.arrive(to, frame),
                Some(Event::Input(host, input)) => self.input(host, *input),
                Some(Event::Start(host)) => self.start(host),
                Some(Event::Sample) => {
                    self.sample();
                    self.after(ms(25), Event::Sample);
                }
                None => {}
            }
        }
        self.now = end;
    }

    /// A host's own time.
    pub fn clock(&self, host: usize) -> Time {
        let host = &self.hosts[host];
        let micros = host.clock + self.now + self.now * host.drift / 1_000_000;
        Time::after_start(Duration::from_micros(micros))
    }

    /// Sets a host's clock back by this much: the clock of a suspended machine stood still.
    pub fn set_back(&mut self, host: usize, time: Micros) {
        let clock = &mut self.hosts[host].clock;
        *clock = clock.saturating_sub(time);
    }

    /// The agent starts, with a new life and without memory.
    fn start(&mut self, host: usize) {
        let now = self.clock(host);
        let incarnation = self.random.number();
        let (gossip, slips) = (self.shape.gossip, self.slips);
        let carrier = self.network.ports[host].carrier;
        let entry = &mut self.hosts[host];
        if entry.agent.is_some() || !entry.powered {
            return;
        }
        if entry.frozen {
            // Nothing starts on a host that stands still.
            self.after(ms(100), Event::Start(host));
            return;
        }
        entry.lives += 1;
        let config = Config {
            name: entry.name.clone(),
            incarnation,
            gossip,
            slips,
        };
        entry.agent = Some(Node::new(config, now));
        entry.stopped = false;
        entry.waiting.clear();
        entry.api = ApiClient::default();
        entry.cables.clear();
        self.input(host, Input::Interfaces(vec![interface(host, carrier)]));
        let gateway = (self.shape.other == Other::Gateway).then_some(GATEWAY);
        let client = (self.shape.other == Other::Client).then_some(CLIENT);
        let hosts: Vec<IpAddr> = gateway.into_iter().chain(client).collect();
        if !hosts.is_empty() {
            let interface = ETH0;
            self.input(host, Input::Witnesses { interface, hosts });
        }
    }

    /// The agent's process ends; the kernel closes its connections.
    pub fn kill(&mut self, host: usize) {
        let peers = std::mem::take(&mut self.hosts[host].cables);
        self.hosts[host].agent = None;
        let name = self.hosts[host].name.clone();
        let mut others: BTreeSet<usize> = peers.iter().map(|peer| self.index(peer)).collect();
        for other in 0..self.hosts.len() {
            if self.hosts[other].cables.remove(&name) {
                others.insert(other);
            }
        }
        for other in others {
            if self.reaches(host, other) {
                let peer = name.clone();
                let connected = false;
                let input = Box::new(Input::Cable { peer, connected });
                self.after(ms(1), Event::Input(other, input));
            }
        }
    }

    pub fn index(&self, name: &NodeName) -> usize {
        let mut hosts = self.hosts.iter();
        hosts.position(|host| host.name == *name).unwrap()
    }

    pub fn runs(&self, host: usize) -> bool {
        let host = &self.hosts[host];
        host.agent.is_some() && host.powered && !host.frozen && !host.stopped
    }

    fn tick(&mut self, host: usize) {
        if self.runs(host) {
            let now = self.clock(host);
            let mut out = Vec::new();
            let carrier = self.network.ports[host].carrier;
            let entry = &mut self.hosts[host];
            let mut waiting = std::mem::take(&mut entry.waiting);
            if waiting.len() >= WAITING {
                // The driver lists interfaces again after netlink messages were lost.
                waiting.push(Input::Interfaces(vec![interface(host, carrier)]));
            }
            if let Some(agent) = &mut entry.agent {
                if agent.next_tick() <= now {
                    agent.tick(now, &mut out);
                }
                for input in waiting {
                    agent.handle(now, input, &mut out);
                }
            }
            self.perform(host, out);
        }
        let own = self.late_host.filter(|(late, _)| *late == host);
        let late = self.up_to(own.map_or(self.lateness, |(_, lateness)| lateness));
        self.traces += u64::from(late > ms(100));
        self.after(ms(50) + late, Event::Tick(host));
    }

    /// An input for an agent, or for its socket while it is stopped.
    pub fn input(&mut self, host: usize, input: Input) {
        let runs = self.runs(host);
        let now = self.clock(host);
        let entry = &mut self.hosts[host];
        let Some(agent) = entry.agent.as_mut().filter(|_| entry.powered) else {
            return;
        };
        if entry.frozen && !matches!(input, Input::Interfaces(_)) {
            // Frames are lost. What happened to its interfaces the kernel sees when it goes on.
            return;
        }
        if !runs || !entry.waiting.is_empty() {
            if entry.waiting.len() < WAITING {
                entry.waiting.push(input);
            }
            return;
        }
        let mut out = Vec::new();
        agent.handle(now, input, &mut out);
        self.perform(host, out);
    }

    fn perform(&mut self, host: usize, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Record(claims) => self.record(host, claims),
                other => self.transmit(host, other),
            }
        }
    }

    fn sample(&mut self) {
        let without_link = self.network.ports.iter().any(|port| !port.carrier);
        let stopped = (0..self.hosts.len()).any(|host| !self.runs(host));
        self.traces += u64::from(without_link || stopped);
        self.run_proxies();
        let mut judge = std::mem::take(&mut self.judge);
        judge.sample(self);
        self.judge = judge;
    }

    /// kube-proxy of each host learns of endpoints within 0.3 s, whether or not an agent runs.
    fn run_proxies(&mut self) {
        for host in &mut self.hosts {
            for (&address, wanted) in &self.api.view.wanted {
                if !host.powered || !wanted.endpoints.contains(&host.name) {
                    host.healthy_from.remove(&address);
                } else {
                    let from = self.now + ms(300);
                    host.healthy_from.entry(address).or_insert(from);
                }
            }
        }
    }

    /// Whether `healthCheckNodePort` of an address answers 200 on a host.
    pub fn healthy(&self, host: usize, address: &IpAddr) -> bool {
        let from = self.hosts[host].healthy_from.get(address);
        from.is_some_and(|from| *from <= self.now)
    }
}
