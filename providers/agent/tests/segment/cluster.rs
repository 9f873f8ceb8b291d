//! A cluster without Kubernetes: hosts on a switch, an agent on each, and a table in the place of
//! the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ballast_agent::seal::Keyring;
use ballast_agent::{Agent, Counters, Gossip, Options, Report, ReportedInterface};
use ballast_announce::claim::Claim;
use ballast_announce::io::Problem;
use ballast_announce::view::{Detection, Interface, NodeFacts, Policy, Rebalance, View, Wanted};
use ballast_announce::{Input, NodeName};
use ballast_link::testbed::{self, Host, Lan, add_address, index_of, lan, netlink};
use tempfile::NamedTempFile;

/// How often an agent's thread looks at the table.
const LOOK: Duration = Duration::from_millis(10);
/// How often Leases are renewed.
const RENEW: Duration = Duration::from_secs(1);
/// The key of all agents at first.
pub(crate) const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
/// Each host has a namespace of its own.
const PORT: u16 = 7947;

/// Hosts with agents. The last host is the client.
pub(crate) struct Cluster {
    pub(crate) lan: Lan,
    pub(crate) nodes: usize,
    api: Arc<Mutex<Api>>,
    agents: BTreeMap<usize, Running>,
    /// Agents that another process of their node replaces.
    former: Vec<Running>,
    /// The key file of each node.
    keys: Vec<NamedTempFile>,
    /// Whether agents send each other messages.
    gossip: bool,
}

/// What the API server would say.
#[derive(Default)]
struct Api {
    version: u64,
    wanted: BTreeMap<IpAddr, Arc<Wanted>>,
    nodes: BTreeMap<NodeName, Announcer>,
}

#[derive(Default)]
struct Announcer {
    addresses: Vec<IpAddr>,
    interfaces: Vec<Interface>,
    holdings: Vec<(IpAddr, Claim)>,
    problems: BTreeSet<Problem>,
    /// The interface of each address that it answers for.
    announced: BTreeMap<IpAddr, Arc<str>>,
    /// How many of the node's agents say that they were replaced.
    replaced: usize,
    /// What the node's agent has sent and received.
    counters: Option<Arc<Counters>>,
    /// Late ticks of all of the node's agents.
    late_ticks: u64,
    /// Counts the renewals of the Lease.
    renewed: u64,
    excluded: bool,
}

struct Running {
    node: usize,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

pub(crate) fn name(node: usize) -> NodeName {
    NodeName::new(&format!("node{node}"))
}

fn own(host: usize) -> [IpAddr; 2] {
    let last = u8::try_from(host + 1).unwrap();
    [
        IpAddr::from([192, 0, 2, last]),
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)]),
    ]
}

/// The Nth address of a Service, of either family.
pub(crate) fn vip(n: u8) -> [IpAddr; 2] {
    [
        IpAddr::from([192, 0, 2, 100 + n]),
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100 + u16::from(n)]),
    ]
}

// === impl Cluster ===

impl Cluster {
    /// A cluster with this number of nodes, an agent on each, and this number of Services.
    pub(crate) fn start(nodes: usize, services: u8) -> Self {
        let mut cluster = Self::without_agents(nodes, services);
        for node in 0..nodes {
            cluster.start_agent(node);
        }
        cluster
    }

    /// The same before any agent has started.
    pub(crate) fn without_agents(nodes: usize, services: u8) -> Self {
        Self::on_lan(nodes, services, |_| true)
    }

    /// The same with an agent on each node, where no host and no Service has an IPv4 address.
    pub(crate) fn with_ipv6_alone(nodes: usize, services: u8) -> Self {
        let mut cluster = Self::on_lan(nodes, services, IpAddr::is_ipv6);
        for node in 0..nodes {
            cluster.start_agent(node);
        }
        cluster
    }

    /// Hosts and Services with these of their addresses.
    fn on_lan(nodes: usize, services: u8, has: fn(&IpAddr) -> bool) -> Self {
        let keys = (0..nodes).map(|_| {
            let mut key = NamedTempFile::new().unwrap();
            writeln!(key, "{KEY}").unwrap();
            key
        });
        let lan = lan(nodes + 1);
        for (at, host) in lan.hosts.iter().enumerate() {
            testbed::on(host, async || {
                let eth0 = index_of(&netlink(), "eth0").await;
                let all = own(at).into_iter().zip([24, 64]);
                for (address, prefix) in all.filter(|(address, _)| has(address)) {
                    add_address(eth0, ipnet::IpNet::new(address, prefix).unwrap()).await;
                }
            });
        }
        let mut api = Api::default();
        for n in 0..services {
            for address in vip(n).into_iter().filter(has) {
                api.wanted.insert(address, wanted());
            }
        }
        for node in 0..nodes {
            let announcer = Announcer {
                addresses: own(node).into_iter().filter(has).collect(),
                ..Announcer::default()
            };
            api.nodes.insert(name(node), announcer);
        }
        Self {
            lan,
            nodes,
            api: Arc::new(Mutex::new(api)),
            agents: BTreeMap::new(),
            former: Vec::new(),
            keys: keys.collect(),
            gossip: true,
        }
    }

    /// Agents that start from now on send each other nothing.
    pub(crate) fn without_gossip(mut self) -> Self {
        self.gossip = false;
        self
    }

    /// Replaces the keys of a node, as the kubelet does: the file is another one afterwards.
    pub(crate) fn set_keys(&self, node: usize, keys: &[&str]) {
        let path = self.keys[node].path();
        let next = path.with_extension("next");
        std::fs::write(&next, keys.join("\n")).unwrap();
        std::fs::rename(next, path).unwrap();
    }

    /// What the agent of a node has sent and received.
    pub(crate) fn counters(&self, node: usize) -> Option<Arc<Counters>> {
        let api = self.api.lock().unwrap();
        api.nodes[&name(node)].counters.clone()
    }

    /// Starts an agent; one that runs already becomes the former one of its node.
    pub(crate) fn start_agent(&mut self, node: usize) {
        let stop = Arc::new(AtomicBool::new(false));
        let key = self.gossip.then(|| self.keys[node].path().to_owned());
        let (api, asked) = (Arc::clone(&self.api), Arc::clone(&stop));
        let thread = testbed::spawn_on(&self.lan.hosts[node], move || async move {
            run(node, key, &api, &asked).await;
        });
        let former = self.agents.insert(node, Running { node, stop, thread });
        self.former.extend(former);
    }

    /// Ends all former agents.
    pub(crate) fn end_former_agents(&mut self) {
        for agent in self.former.drain(..) {
            agent.end();
        }
    }

    /// Ends an agent like a crash: all of its sockets close, and nobody is told.
    pub(crate) fn end_agent(&mut self, node: usize) {
        if let Some(agent) = self.agents.remove(&node) {
            agent.end();
        }
        // A former one of the node resumes.
        let resumed = self.former.iter().position(|agent| agent.node == node);
        if let Some(resumed) = resumed {
            self.agents.insert(node, self.former.remove(resumed));
        }
    }

    /// What the agents of a node have said about another process of it, latest last.
    pub(crate) fn replaced(&self, node: usize) -> bool {
        let api = self.api.lock().unwrap();
        api.nodes[&name(node)].replaced > 0
    }

    /// How often an agent of a node was late to look at the clock: this machine was too busy.
    pub(crate) fn late_ticks(&self, node: usize) -> u64 {
        let api = self.api.lock().unwrap();
        api.nodes[&name(node)].late_ticks
    }

    /// Changes the settings of all addresses.
    pub(crate) fn set_wanted(&self, change: impl Fn(&mut Wanted)) {
        let mut api = self.api.lock().unwrap();
        for wanted in api.wanted.values_mut() {
            change(Arc::make_mut(wanted));
        }
        api.version += 1;
    }

    /// Adds a Service with this address.
    pub(crate) fn add_service(&self, address: IpAddr, settings: impl Fn(&mut Wanted)) {
        let mut entry = wanted();
        settings(Arc::make_mut(&mut entry));
        let mut api = self.api.lock().unwrap();
        api.wanted.insert(address, entry);
        api.version += 1;
    }

    /// Where a node's agent reports that it announces an address.
    pub(crate) fn announced_on(&self, address: IpAddr) -> Option<(usize, Arc<str>)> {
        let api = self.api.lock().unwrap();
        (0..self.nodes).find_map(|node| {
            let found = api.nodes[&name(node)].announced.get(&address)?;
            Some((node, Arc::clone(found)))
        })
    }

    pub(crate) fn client(&self) -> &Host {
        &self.lan.hosts[self.nodes]
    }

    /// Sets or removes the exclusion label of a node.
    pub(crate) fn exclude(&self, node: usize, excluded: bool) {
        let mut api = self.api.lock().unwrap();
        api.nodes.get_mut(&name(node)).unwrap().excluded = excluded;
        api.version += 1;
    }

    /// What a node's agent reports to be wrong.
    pub(crate) fn problems(&self, node: usize) -> BTreeSet<Problem> {
        let api = self.api.lock().unwrap();
        api.nodes[&name(node)].problems.clone()
    }

    /// The node and the epoch that the Announcer objects record for an address.
    pub(crate) fn recorded(&self, address: IpAddr) -> Option<(usize, u64)> {
        let api = self.api.lock().unwrap();
        let all = (0..self.nodes).flat_map(|node| {
            let holdings = api.nodes[&name(node)].holdings.iter();
            let here = holdings.filter(move |(other, _)| *other == address);
            here.map(move |(_, claim)| (node, claim.epoch))
        });
        all.max_by_key(|(_, epoch)| *epoch)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let agents = std::mem::take(&mut self.agents).into_values();
        let agents: Vec<_> = agents.chain(self.former.drain(..)).collect();
        for agent in &agents {
            agent.stop.store(true, Ordering::Release);
        }
        for agent in agents {
            let _ = agent.thread.join();
        }
    }
}

fn wanted() -> Arc<Wanted> {
    Arc::new(Wanted {
        policy: Policy::Cluster,
        detection: Detection::Fast,
        nodes: None,
        preferred: None,
        rebalance: Rebalance::default(),
        interfaces: None,
        endpoints: BTreeSet::from([name(0)]),
        refresh: Some(Duration::from_mins(1)),
    })
}

/// One agent with its connection to the table.
async fn run(node: usize, key: Option<PathBuf>, api: &Mutex<Api>, stop: &AtomicBool) {
    let node = name(node);
    let mut tasks = tokio::task::JoinSet::new();
    let gossip = key.map(|key| {
        let keyring = Arc::new(Keyring::open_file(key).unwrap());
        let watched = Arc::clone(&keyring);
        tasks.spawn(async move { watched.watch().await });
        Gossip {
            port: PORT,
            keyring,
        }
    });
    let agent = Agent::start(Options {
        node: node.clone(),
        incarnation: rand::random(),
        gossip,
    })
    .await
    .unwrap();
    let mut report = agent.report();
    {
        let mut api = api.lock().unwrap();
        api.nodes.get_mut(&node).unwrap().counters = Some(agent.counters());
    }
    agent.input(Input::Api { connected: true });
    let (mut seen, mut leases, mut renewed) = (None, BTreeMap::new(), None::<Instant>);
    let (mut replaced, mut late) = (false, 0);
    while !stop.load(Ordering::Acquire) {
        let mut inputs = Vec::new();
        {
            let mut api = api.lock().unwrap();
            let due = renewed.is_none_or(|at| at.elapsed() >= RENEW);
            let own = api.nodes.get_mut(&node).unwrap();
            let late_before = std::mem::replace(&mut late, agent.counters().late_ticks.get());
            own.late_ticks += late - late_before;
            if due {
                own.renewed += 1;
                renewed = Some(Instant::now());
            }
            // Before the first report nothing is published.
            if let Some(said) = report.borrow_and_update().clone() {
                if said.replaced != replaced {
                    replaced = said.replaced;
                    own.replaced = if replaced {
                        own.replaced + 1
                    } else {
                        own.replaced - 1
                    };
                }
                // The newer process writes.
                let changed = !replaced && own.publish(&said);
                api.version += u64::from(changed);
            }
            if seen != Some(api.version) {
                seen = Some(api.version);
                inputs.push(Input::View(Arc::new(api.view())));
                for announcer in api.nodes.values() {
                    inputs.push(Input::Holdings(announcer.holdings.clone()));
                }
            }
            for (other, announcer) in &api.nodes {
                if leases.insert(other.clone(), announcer.renewed) != Some(announcer.renewed) {
                    inputs.push(Input::Lease {
                        node: other.clone(),
                        stamp: announcer.renewed,
                    });
                }
            }
        }
        for input in inputs {
            agent.input(input);
        }
        tokio::time::sleep(LOOK).await;
    }
    let mut api = api.lock().unwrap();
    let own = api.nodes.get_mut(&node).unwrap();
    own.replaced -= usize::from(replaced);
}

fn published(interface: &ReportedInterface) -> Interface {
    Interface {
        index: interface.index,
        name: Arc::clone(&interface.name),
        mac: interface.mac,
        nets: interface.nets.clone(),
        carrier: interface.usable,
    }
}

// === impl Running ===

impl Running {
    fn end(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap();
    }
}

// === impl Announcer ===

impl Announcer {
    /// Returns whether something changed that others read.
    fn publish(&mut self, said: &Report) -> bool {
        self.problems.clone_from(&said.problems);
        let announced = said.announced.iter();
        self.announced = announced
            .map(|(address, it)| (*address, Arc::clone(&it.interface)))
            .collect();
        let interfaces: Vec<_> = said.interfaces.iter().map(published).collect();
        let claims = said.claims.as_deref();
        let changed =
            self.interfaces != interfaces || claims.is_some_and(|claims| self.holdings != *claims);
        self.interfaces = interfaces;
        if let Some(claims) = claims {
            self.holdings.clone_from(claims);
        }
        changed
    }
}

// === impl Api ===

impl Api {
    fn view(&self) -> View {
        let nodes = self.nodes.iter().map(|(name, announcer)| {
            let facts = NodeFacts {
                excluded: announcer.excluded,
                addresses: announcer.addresses.clone(),
                interfaces: announcer.interfaces.clone(),
                ..NodeFacts::default()
            };
            (name.clone(), facts)
        });
        View {
            wanted: self.wanted.clone(),
            nodes: nodes.collect(),
            ..View::default()
        }
    }
}
