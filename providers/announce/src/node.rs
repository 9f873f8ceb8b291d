//! Node: one announcer, composed of the cores.
//!
//! The driver owns a `Node`, passes it every [`Input`](crate::Input), and calls [`Node::tick`] every
//! [`TICK`]. Both append [`Output`]s, which the driver carries out. Nothing
//! else happens in between: a node has no task, no socket and no clock.
//!
//! ```text
//!  Input ──▶ view, ports, claims, members, checks      (handle: remember what is new)
//!                         │
//!                         ▼  tick, every 50 ms
//!  own stall? ──▶ checks and contact: judge, probe ──▶ Output::Probe, Send(Doubt)
//!                         │
//!                         ▼  only if something changed
//!  plan: neighbours, cables, probers, placement
//!                         │
//!                         ▼  addresses that changed, or whose time has come
//!  situation ──▶ holding::step ──▶ claims, table ──▶ Output::Query, Send(Beat), Record
//!                         │
//!                         ▼
//!  beats, pacer ──▶ Output::Send, Announce
//! ```
//!
//! Contract with the driver:
//!
//! - If it is late, it calls `tick` before it passes what arrived meanwhile, so that a stall is
//!   noticed before anything is judged.
//! - Its packet thread answers from [`Node::table`], and only while [`Node::may_answer`] holds: a
//!   thread that was stopped with the rest of the process must not answer before the tick.
//! - The clock must advance while the machine is suspended (`CLOCK_BOOTTIME`).

mod balance;
mod decide;
mod failure;
mod gossip;
mod inputs;
mod look;
mod plan;
mod ports;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::claim::{Claim, Claims};
use crate::holding::State;
use crate::host_check::{Check, Receipts, State as CheckState};
use crate::io::{Body, Method, Output, Problem, Target};
use crate::membership::{Membership, Process};
use crate::random::Random;
use crate::rebalance::Rebalance;
use crate::responder::{Pacer, Table, may_answer};
use crate::slip::{Slips, slip};
use crate::timing::{CLAIMS, FORGET_INTERVAL, LATE, QUIET_TICK, STALL, TICK};
use crate::view::View;
use crate::{Mac, NodeName, Time};

use ports::Ports;

/// What does not change in the life of an agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the node.
    pub name: NodeName,
    /// A random number per process.
    pub incarnation: u64,
    /// Whether agents send each other messages. Otherwise only Leases count.
    pub gossip: bool,
    /// Defects, in tests.
    pub slips: Slips,
}

/// One announcer.
#[derive(Clone, Debug)]
pub struct Node {
    config: Config,
    random: Random,
    sequence: u64,

    view: Option<Arc<View>>,
    view_since: Time,
    agent_macs: BTreeMap<Mac, NodeName>,
    ports: Ports,
    healthy: BTreeSet<IpAddr>,

    claims: Claims,
    members: Membership,
    checks: BTreeMap<(u32, NodeName), HostCheck>,
    /// Peers that asked whether a host answers us, until it does.
    doubters: Vec<Doubter>,
    /// Nodes that failed and were not heard since: they are no successors.
    suspects: BTreeSet<NodeName>,
    /// When each node was last known to live on an interface.
    met: BTreeMap<(u32, NodeName), Time>,
    /// Probes received, by prober.
    received: BTreeMap<NodeName, u64>,

    states: BTreeMap<IpAddr, State>,
    table: Table,
    pacer: Pacer,
    heard: BTreeMap<IpAddr, Heard>,
    /// Addresses that this node answers for although a node that it does not reach has a better
    /// claim.
    split: BTreeSet<IpAddr>,
    /// This node's former claims on addresses that it answers for until it reaches their new
    /// holders.
    lost: BTreeMap<IpAddr, Claim>,

    rebalance: Rebalance,
    /// Another process of this node receives the messages.
    replaced: bool,
    plan: plan::Plan,
    work: Work,
    gossip: gossip::Schedule,
    last_tick: Option<Time>,
    /// When the next tick is due.
    due: Time,
    /// When it looked last for claims to forget.
    forgot: Time,
}

/// The check of a host, and what belongs to it.
#[derive(Clone, Debug)]
struct HostCheck {
    check: Check,
    receipts: Receipts,
    /// A peer asked for it, until then.
    requested_until: Option<Time>,
}

#[derive(Clone, Debug)]
struct Doubter {
    asker: NodeName,
    host: NodeName,
    method: Method,
    since: Time,
}

/// The latest frame that named an owner of an address.
#[derive(Clone, Debug)]
struct Heard {
    mac: Mac,
    at: Time,
    /// When this owner was named first, without a long pause.
    first: Time,
    /// The node with this MAC.
    agent: Option<NodeName>,
}

/// What the next tick must look at.
#[derive(Clone, Debug, Default)]
struct Work {
    /// Everything: the view, an interface or a peer changed.
    all: bool,
    /// These addresses changed.
    some: BTreeSet<IpAddr>,
    /// Time alone can change these.
    timed: BTreeSet<IpAddr>,
    /// This node's claims changed since they were recorded.
    record: bool,
    /// The state of the peers when it was last looked at.
    peers: u64,
    /// The addresses of this node that other hosts use.
    refused: usize,
}

// === impl HostCheck ===

impl HostCheck {
    fn is_quiet(&self) -> bool {
        self.check.is_quiet() && self.requested_until.is_none()
    }
}

// === impl Node ===

impl Node {
    /// Witnesses per interface that count, besides the peers.
    pub const WITNESSES: usize = 8;

    /// An agent that has just started and knows nothing.
    pub fn new(config: Config, now: Time) -> Self {
        let pacer = Pacer::new(config.incarnation);
        Self {
            random: Random::new(config.incarnation),
            sequence: 0,
            view: None,
            view_since: now,
            agent_macs: BTreeMap::new(),
            ports: Ports::default(),
            healthy: BTreeSet::new(),
            claims: Claims::with_slips(config.slips),
            members: Membership::new(config.gossip).with_slips(config.slips),
            checks: BTreeMap::new(),
            doubters: Vec::new(),
            suspects: BTreeSet::new(),
            met: BTreeMap::new(),
            received: BTreeMap::new(),
            states: BTreeMap::new(),
            table: Table::default(),
            pacer,
            heard: BTreeMap::new(),
            split: BTreeSet::new(),
            lost: BTreeMap::new(),
            rebalance: Rebalance::new(now),
            replaced: false,
            plan: plan::Plan::default(),
            work: Work::default(),
            gossip: gossip::Schedule::default(),
            last_tick: None,
            due: now,
            forgot: now,
            config,
        }
    }

    /// The name of the node.
    pub fn name(&self) -> &NodeName {
        &self.config.name
    }

    /// The addresses that this node answers for.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Whether the packet thread may answer now: the last tick is not too long ago.
    pub fn may_answer(&self, now: Time) -> bool {
        may_answer(self.last_tick, now) || slip!(self.config.slips, SpeakAfterStall)
    }

    /// Whether an interface can serve: it has a carrier, and some host answers there. The driver
    /// publishes it in the Announcer object.
    pub fn usable(&self, interface: u32, now: Time) -> bool {
        let port = self.ports.get(interface);
        port.is_some_and(|port| port.carrier() && !port.contact.cut_off(now))
    }

    /// The nodes to which this one keeps a TCP connection: the holders that it succeeds first.
    /// The driver dials them, again every second after a failure. None while another process of
    /// this node keeps them.
    pub fn cables(&self) -> &BTreeSet<NodeName> {
        static NONE: BTreeSet<NodeName> = BTreeSet::new();
        if self.replaced {
            &NONE
        } else {
            &self.plan.cables
        }
    }

    /// Whether another process of this node has started and receives all messages.
    pub fn is_replaced(&self) -> bool {
        self.replaced
    }

    /// The best known claims.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What this node does about an address.
    pub fn state(&self, address: &IpAddr) -> State {
        self.states.get(address).copied().unwrap_or_default()
    }

    /// Whether the process of each other agent works.
    pub fn members(&self, now: Time) -> impl Iterator<Item = Process> {
        let peers = self.plan.peers.iter();
        peers.map(move |peer| self.members.process(peer, now))
    }

    /// The recent requests to rebalance, oldest first, and whether each has ended here.
    pub fn requests(&self, now: Time) -> impl DoubleEndedIterator<Item = (u64, bool)> {
        self.rebalance.requests(now)
    }

    /// The hosts that this node probes regularly.
    pub fn probed(&self) -> impl Iterator<Item = &NodeName> {
        let regular = self
            .checks
            .iter()
            .filter(|(_, entry)| entry.requested_until.is_none());
        regular.map(|((_, host), _)| host)
    }

    /// When to call [`Self::tick`] next. An input may bring it forward.
    pub fn next_tick(&self) -> Time {
        self.due
    }

    /// Time passed. Call it when [`Self::next_tick`] says, or earlier.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        let gap = self
            .last_tick
            .map_or(Duration::ZERO, |last| now.since(last));
        self.last_tick = Some(now);
        if now.since(self.due) > LATE {
            self.late(gap, now);
        }
        self.members.poll(now);
        self.poll_ports(now, out);
        self.poll_checks(now, out);
        self.notice_peers(now);
        if now.since(self.forgot) >= FORGET_INTERVAL {
            self.forgot = now;
            self.forget(now);
        }
        if self.work.all {
            self.replan(now);
        }
        self.balance(now);
        self.decide_all(now, out);
        self.concede(out);
        self.gossip(now, out);
        for address in self.pacer.poll(now) {
            let entry = self.table.get(&address);
            if let Some(entry) = entry.filter(|entry| !self.holds_back(entry.interface)) {
                out.push(Output::Announce {
                    interface: entry.interface,
                    address,
                    mac: entry.answer,
                });
            }
        }
        if !self.replaced && std::mem::take(&mut self.work.record) {
            out.push(Output::Record(self.own_claims()));
        }
        self.due = now + if self.is_quiet(now) { QUIET_TICK } else { TICK };
    }

    /// After an input: what follows from it must not wait for a quiet tick.
    fn hasten(&mut self, now: Time) {
        if let Some(last) = self.last_tick
            && !self.is_quiet(now)
        {
            self.due = self.due.min((last + TICK).max(now));
        }
    }

    /// Nothing is under way: hosts answer, messages arrive, and no address waits for a time.
    fn is_quiet(&self, now: Time) -> bool {
        let work = &self.work;
        let decided = !work.all && work.some.is_empty() && work.timed.is_empty() && !work.record;
        decided
            && self.plan.is_quiet()
            && self.gossip.is_quiet()
            && self.pacer.is_quiet(now)
            && self.doubters.is_empty()
            && self.lost.is_empty()
            && self.ports.iter().all(|port| port.contact.is_quiet())
            && self.checks.values().all(HostCheck::is_quiet)
    }

    /// A tick was late: what is under way is void. After a longer stop all suspicions are, and another
    /// node may have taken over.
    fn late(&mut self, gap: Duration, now: Time) {
        for check in self.checks.values_mut() {
            if gap > STALL {
                check.check.discard(now);
            } else {
                check.check.late(now);
            }
        }
        self.ports.discard(now);
        if gap > STALL {
            self.rebalance.unsettle(now);
            self.members.discard(now);
            if !slip!(self.config.slips, SpeakAfterStall) {
                self.silence(|_| true, now);
            }
        }
        self.work.all = true;
    }

    /// Starts claim checks for these addresses.
    fn silence(&mut self, which: impl Fn(u32) -> bool, now: Time) {
        // By state and not by the table: addresses of an interface that was absent are not in the table.
        let speaks = |state: &State| matches!(state, State::Answering | State::StandingIn);
        let all = self.states.iter().filter(|(_, state)| speaks(state));
        let stale = all.filter(|(address, _)| {
            let port = self.port_of(address);
            port.is_some_and(|port| which(port.interface.index))
        });
        let stale: Vec<_> = stale.map(|(address, _)| *address).collect();
        for address in stale {
            let next = match self.state(&address) {
                State::Answering => State::checking(now),
                _ => State::Idle,
            };
            self.enter(address, next);
            self.work.some.insert(address);
        }
    }

    fn poll_checks(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut doubts = Vec::new();
        let mut asks = BTreeSet::new();
        let mut changed = false;
        for ((interface, host), entry) in &mut self.checks {
            let Some(port) = self.ports.get(*interface).filter(|port| port.carrier()) else {
                continue;
            };
            let before = entry.check.state();
            let step = entry.check.poll(now, port.contact.answered_at());
            changed |= (before == CheckState::Dead) != (entry.check.state() == CheckState::Dead);
            if step.probe {
                out.push(Output::Probe {
                    interface: *interface,
                    target: Target::Node(host.clone()),
                    method: port.method,
                });
            }
            if step.witnesses {
                asks.insert((*interface, host.clone()));
            }
            if step.second_opinion {
                let unanswered = now.since(entry.check.proven_at());
                doubts.push((host.clone(), port.method, unanswered));
            }
        }
        for (interface, host) in asks {
            self.ask_witnesses(interface, Some(&host), out);
        }
        for (host, method, unanswered) in doubts {
            let receivers = self.second_opinions(&host);
            for receiver in receivers {
                let host = host.clone();
                let doubt = Body::Doubt {
                    host,
                    method,
                    unanswered,
                };
                self.send(receiver, doubt, out);
            }
        }
        self.work.all |= changed;
    }

    /// What a condition or an event should report.
    pub fn problems(&self, now: Time) -> BTreeSet<Problem> {
        let mut problems = self.ports.problems(now);
        for ((_, host), entry) in &self.checks {
            if entry.receipts.intercepted() {
                problems.insert(Problem::ProbesIntercepted { host: host.clone() });
            }
        }
        let wanted = self.view.as_ref().map_or(0, |view| view.wanted.len());
        if wanted > CLAIMS {
            problems.insert(Problem::TooManyAddresses { wanted });
        }
        let held = self.states.iter().filter(|(_, state)| state.holds());
        for (&address, _) in held {
            let wanted = self
                .view
                .as_ref()
                .and_then(|view| view.wanted.get(&address));
            if wanted.is_some_and(|wanted| wanted.endpoints.is_empty()) {
                problems.insert(Problem::NoEndpoints { address });
            }
            if let Some(heard) = self.foreign(&address, now) {
                problems.insert(Problem::AddressConflict {
                    address,
                    mac: heard.mac,
                    node: heard.agent.clone(),
                });
            }
        }
        problems
    }
}
