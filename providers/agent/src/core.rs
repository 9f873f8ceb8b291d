//! The core thread: owns the [`Node`], gives it the time and everything that happens, and carries
//! out what it says.
//!
//! ```text
//!   events (bounded) ──▶ handle ──▶ Node ──▶ outputs ──▶ frames, messages
//!  50, 150 ms ──▶ tick ──▶            │
//!                                     └──▶ published: what the packet thread knows, groups,
//!                                          cables, the report
//! ```
//!
//! It has a thread of its own, so that no other work of the process delays a tick. When it wakes
//! up late it ticks first, and then looks at what arrived: after a stop of the process the node
//! must notice the gap before it judges what arrived meanwhile. What frames show waits for a tick,
//! except for claims of other hosts, so that a quiet node wakes up little more often than it ticks.
//! Frames to own addresses wait in sockets of their own, so that they wake no thread at all. A tick
//! that is a little late has the time at which it was due ([`on_time`]).
//!
//! It never waits for a socket: a frame or a message that cannot be sent is dropped, and the
//! protocols repeat what matters. Multicast groups, for which the kernel may let it wait, come last
//! in each turn, and a few at a time.

mod network;
mod outbox;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use ballast_announce::claim::Claim;
use ballast_announce::io::{Message, Method, Output, Problem, Target};
use ballast_announce::membership::Process;
use ballast_announce::responder::Table;
use ballast_announce::timing::{LATE, PEERS, TICK};
use ballast_announce::view::{Interface, View};
use ballast_announce::{Input, Node, NodeName, Time};
use ballast_link::HostInterface;
use tokio::sync::watch;

use crate::clock;
use crate::core::network::Network;
use crate::directory::Directory;
use crate::event::Event;
use crate::frames::{self, Frame, Known, Sighting};
use crate::post::Mail;
use crate::report::{self, Announced, Report, ReportedInterface, Usable};
use crate::shared::{News, Shared};
use crate::sources::Sources;

/// Events that are handled between two looks at the clock.
const BATCH: usize = 1024;
/// Requests to rebalance that are reported. The Announcer object has room for as many.
const REQUESTS: usize = 8;
/// The time between two looks at what is only for people: problems and old clients. Whoever makes
/// problems come and go causes at most one write of the Announcer object in this time.
const SLOW: Duration = Duration::from_secs(5);

/// Sends messages to other agents: the receiver, its address, and the message. Never waits.
pub(crate) type Deliver = Box<dyn Fn(&NodeName, IpAddr, &Message) + Send>;

/// The nodes to which cables are kept, each with its address.
pub(crate) type Peers = BTreeMap<NodeName, IpAddr>;

/// The claims of this node.
type Recorded = Vec<(IpAddr, Claim)>;

/// The core thread.
pub(crate) struct Core {
    pub(crate) node: Node,
    pub(crate) shared: Arc<Shared>,
    pub(crate) events: Receiver<Event>,
    /// `None`: Leases only.
    pub(crate) deliver: Option<Deliver>,
    pub(crate) report: watch::Sender<Option<Arc<Report>>>,
    pub(crate) cables: watch::Sender<Peers>,
    pub(crate) work: Work,
}

/// What the thread keeps between two turns.
#[derive(Default)]
pub(crate) struct Work {
    network: Network,
    view: Option<Arc<View>>,
    directory: Arc<Directory>,
    /// Where messages of nodes came from: the way to answer while the view is not known.
    senders: BTreeMap<NodeName, IpAddr>,
    sources: Sources,
    table: Arc<Table>,
    usable: Usable,
    problems: BTreeSet<Problem>,
    /// The claims to record; `None` before the node says so.
    claims: Option<Arc<Recorded>>,
    announced: Arc<BTreeMap<IpAddr, Announced>>,
    /// What was reported last.
    report: Report,
    outputs: Vec<Output>,
    sightings: Vec<(u32, Sighting)>,
    /// The packet thread must learn of a change.
    stale: bool,
    /// When [`Core::look_around`] looked last.
    looked: Time,
}

// === impl Core ===

impl Core {
    /// Runs until [`Shared::end`], or until nobody can send events any more.
    pub(crate) fn run(mut self) {
        while !self.shared.has_ended() {
            let due = self.node.next_tick();
            let event = match self.events.recv_timeout(due.since(clock::now())) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let now = on_time(due, clock::now());
            // After a stop of the process the node must notice the gap first.
            let (is_due, late) = (now >= due, now.since(due) > LATE);
            if !late {
                self.look_at_sightings(is_due, now);
            }
            if is_due {
                self.tick(now);
            }
            if late {
                self.shared.counters.late_ticks.add();
                self.look_at_sightings(true, now);
            }
            self.handle_all(event, now);
            self.carry_out();
            self.publish();
            // Last: the kernel may let it wait, and nothing depends on it.
            let work = &mut self.work;
            if work.network.is_behind(now) {
                work.network.join(&work.table, now);
            }
        }
        self.shared.end();
    }

    /// What frames showed. Those to own addresses are read in ticks alone.
    fn look_at_sightings(&mut self, own: bool, now: Time) {
        let mut sightings = std::mem::take(&mut self.work.sightings);
        self.shared.take_waiting(&mut sightings);
        if own {
            self.read_own(&mut sightings, now);
        }
        for (interface, sighting) in sightings.drain(..) {
            self.sight(interface, sighting, now);
        }
        // Its room is used again.
        self.work.sightings = sightings;
    }

    fn read_own(&self, sightings: &mut Vec<(u32, Sighting)>, now: Time) {
        let known = self.shared.known();
        for port in self.work.network.ports() {
            let flood = port.drain_own(|bytes| {
                if let Some(frame) = Frame::parse(bytes) {
                    // The kernel answers for own addresses.
                    let seen = frames::read(&known, port.index, &frame).sightings;
                    sightings.extend(seen.into_iter().map(|it| (port.index, it)));
                }
            });
            if flood {
                self.shared.flooded(now);
            }
        }
    }

    fn tick(&mut self, now: Time) {
        let work = &mut self.work;
        self.node.tick(now, &mut work.outputs);
        // Only now: before, the packet thread must not answer for what the node may give up.
        self.publish_table();
        self.shared.ticked(now);
        if now.since(self.work.looked) >= SLOW {
            self.work.looked = now;
            self.look_around(now);
        }
        if let Some(interfaces) = self.work.network.retry(now) {
            self.set_interfaces(interfaces, now);
        }
        self.publish_report(now);
    }

    /// What need not be known at once.
    fn look_around(&mut self, now: Time) {
        if self.work.network.witnesses_mut().expire(now) {
            self.pass_witnesses(now);
        }
        self.work.problems = self.node.problems(now);
        let (mut alive, mut silent, mut unknown) = (0, 0, 0);
        for process in self.node.members(now) {
            match process {
                Process::Alive => alive += 1,
                Process::Silent { .. } => silent += 1,
                Process::Unknown => unknown += 1,
            }
        }
        let counters = &self.shared.counters;
        counters.members_alive.set(alive);
        counters.members_silent.set(silent);
        counters.members_unknown.set(unknown);
    }

    fn handle_all(&mut self, first: Option<Event>, now: Time) {
        // If the queue was full, no event tells of them.
        self.handle_news(now);
        let Some(first) = first else { return };
        self.handle(first, now);
        for _ in 0..BATCH {
            match self.events.try_recv() {
                Ok(event) => self.handle(event, now),
                Err(_) => return,
            }
        }
    }

    fn handle(&mut self, event: Event, now: Time) {
        match event {
            Event::Input(input) => {
                let view = match &input {
                    Input::View(view) => Some(Arc::clone(view)),
                    _ => None,
                };
                self.input(input, now);
                if let Some(view) = view {
                    self.work.view = Some(view);
                    self.replace_directory();
                }
            }
            Event::Sighting {
                interface,
                sighting,
            } => self.sight(interface, sighting, now),
            Event::News => self.handle_news(now),
            Event::Look(answer) => drop(answer.send(self.node.snapshot(now))),
            Event::Mail(Mail {
                via,
                source,
                message,
            }) => {
                let senders = &mut self.work.senders;
                if senders.len() < PEERS || senders.contains_key(&message.from) {
                    senders.insert(message.from.clone(), source);
                }
                self.input(Input::Message { via, message }, now);
            }
        }
    }

    fn handle_news(&mut self, now: Time) {
        let News {
            interfaces,
            replaced,
        } = self.shared.take_news();
        if let Some(interfaces) = interfaces {
            self.set_interfaces(interfaces, now);
        }
        if let Some(replaced) = replaced {
            self.input(Input::Replaced { replaced }, now);
        }
    }

    fn input(&mut self, input: Input, now: Time) {
        self.node.handle(now, input, &mut self.work.outputs);
    }

    fn sight(&mut self, interface: u32, sighting: Sighting, now: Time) {
        let input = match sighting {
            Sighting::Answer { from, mac } => {
                if let Target::Host(address) = from {
                    let witnesses = self.work.network.witnesses_mut();
                    witnesses.learn(interface, address, mac);
                }
                Input::Answer {
                    interface,
                    from,
                    method: Method::Neighbour,
                }
            }
            Sighting::Probed { by } => Input::Probed { interface, by },
            Sighting::Heard { address, mac } => {
                let contradicts = self.work.table.contradicts(interface, &address, mac);
                if contradicts && self.work.directory.agent(mac).is_none() {
                    self.shared.counters.foreign_claims.add();
                }
                Input::Heard {
                    interface,
                    address,
                    mac,
                }
            }
            Sighting::Client { address, mac } => {
                let witnesses = self.work.network.witnesses_mut();
                if witnesses.asked(interface, address, mac, now) {
                    self.pass_witnesses(now);
                }
                return;
            }
        };
        self.input(input, now);
    }

    fn set_interfaces(&mut self, interfaces: Vec<HostInterface>, now: Time) {
        let ports = self.work.network.replace(interfaces, now);
        self.shared.set_ports(ports);
        self.work.network.table_changed();
        let interfaces = self.work.network.interfaces().to_vec();
        self.work.usable.retain(|index| {
            let mut known = interfaces.iter();
            known.any(|interface| interface.index == index)
        });
        self.input(Input::Interfaces(interfaces), now);
        self.replace_directory();
        self.pass_witnesses(now);
    }

    fn pass_witnesses(&mut self, now: Time) {
        self.work.stale = true;
        let all: Vec<_> = self.work.network.witnesses().hosts().collect();
        for (interface, hosts) in all {
            self.input(Input::Witnesses { interface, hosts }, now);
        }
    }

    fn replace_directory(&mut self) {
        let view = self.work.view.as_deref();
        if let Some(view) = view {
            let senders = &mut self.work.senders;
            senders.retain(|node, _| view.nodes.contains_key(node));
        }
        let interfaces = self.work.network.interfaces();
        let directory = Directory::new(self.node.name(), view, interfaces);
        self.work.directory = Arc::new(directory);
        self.work.stale = true;
    }

    /// Publishes what changed, besides the report.
    fn publish(&mut self) {
        self.publish_table();
        // This runs in each turn: nothing is copied while nothing changed.
        if !self.dials_all(&self.cables.borrow()) {
            let cables = self.node.cables().iter();
            let cables = cables.filter_map(|node| Some((node.clone(), self.work.address(node)?)));
            let cables = cables.collect();
            self.cables.send_replace(cables);
        }
    }

    /// Whether these are the nodes to which the node wants cables.
    fn dials_all(&self, peers: &Peers) -> bool {
        let cables = self.node.cables().iter();
        let cables = cables.filter_map(|node| Some((node, self.work.address(node)?)));
        cables.eq(peers.iter().map(|(node, address)| (node, *address)))
    }

    fn publish_table(&mut self) {
        let work = &mut self.work;
        let table = self.node.table();
        if table.revision() != work.table.revision() {
            work.table = Arc::new(table.clone());
            work.network.table_changed();
            work.stale = true;
            let announced = report::announced(table, work.network.interfaces());
            if announced != *work.announced {
                work.announced = Arc::new(announced);
            }
        }
        if std::mem::take(&mut work.stale) {
            self.shared.set_known(Known {
                table: Arc::clone(&work.table),
                view: work.view.clone(),
                directory: Arc::clone(&work.directory),
                witnesses: Arc::new(work.network.witnesses().clone()),
            });
        }
    }

    fn publish_report(&mut self, now: Time) {
        let work = &mut self.work;
        if !work.network.is_known() {
            return;
        }
        let mut usable = |interface: &Interface| {
            let usable = self.node.usable(interface.index, now);
            work.usable.publish(interface.index, usable, now)
        };
        let interfaces = work.network.interfaces();
        let reported = &work.report;
        // This runs in each tick: nothing is copied while nothing changed.
        let same = interfaces.len() == reported.interfaces.len()
            && interfaces
                .iter()
                .zip(&reported.interfaces)
                .all(|(interface, reported)| reported.shows(interface, usable(interface)))
            && same_claims(work.claims.as_ref(), reported.claims.as_ref())
            && Arc::ptr_eq(&work.announced, &reported.announced)
            && Arc::ptr_eq(work.sources.all(), &reported.sources)
            && self.node.is_replaced() == reported.replaced
            && work.problems == reported.problems
            && latest(self.node.requests(now)).eq(reported.requests.iter().rev().copied());
        if same {
            return;
        }
        let interfaces = interfaces
            .iter()
            .map(|interface| ReportedInterface::new(interface, usable(interface)));
        let report = Report {
            interfaces: interfaces.collect(),
            claims: work.claims.clone(),
            announced: Arc::clone(&work.announced),
            sources: Arc::clone(work.sources.all()),
            replaced: self.node.is_replaced(),
            problems: work.problems.clone(),
            requests: {
                let mut requests: Vec<_> = latest(self.node.requests(now)).collect();
                requests.reverse();
                requests
            },
        };
        if report != work.report {
            work.report = report.clone();
            self.report.send_replace(Some(Arc::new(report)));
        }
    }
}

// === impl Work ===

impl Work {
    /// Where messages for a node go: as the view says, or where its own came from.
    fn address(&self, node: &NodeName) -> Option<IpAddr> {
        let known = self.directory.post(node).first();
        known.or_else(|| self.senders.get(node)).copied()
    }
}

/// The requests to rebalance that are reported, latest first.
fn latest<T>(requests: impl DoubleEndedIterator<Item = T>) -> impl Iterator<Item = T> {
    requests.rev().take(REQUESTS)
}

fn same_claims(one: Option<&Arc<Recorded>>, other: Option<&Arc<Recorded>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// The time of a turn. A tick that is only a little late has the time at which it was due: otherwise
/// a duration of some ticks would take one more whenever a tick came a moment sooner than the
/// one before it.
fn on_time(due: Time, now: Time) -> Time {
    if now.since(due) < TICK / 2 {
        due.min(now)
    } else {
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_that_is_a_little_late_keeps_its_time() {
        let at = |ms| Time::after_start(Duration::from_millis(ms));
        assert_eq!(on_time(at(100), at(99)), at(99), "an event before it");
        assert_eq!(on_time(at(100), at(100)), at(100));
        assert_eq!(on_time(at(100), at(124)), at(100));
        assert_eq!(on_time(at(100), at(125)), at(125));
        assert_eq!(on_time(at(100), at(3000)), at(3000));
    }
}
