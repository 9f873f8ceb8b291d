//! Agent: starts the threads and tasks of an announcer, and ends them.
//!
//! ```text
//!  netlink ──▶ task ──┐                     ┌──▶ packet thread ◀──▶ frames of the segment
//!  UDP ──▶ task ──────┼──▶ events ──▶ core ─┼──▶ UDP
//!  TCP ◀──▶ task ─────┤              thread └──▶ report ──▶ whoever writes the Announcer object
//!  Agent::input ──────┘
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ballast_announce::slip::Slips;
use ballast_announce::snapshot::Snapshot;
use ballast_announce::{Config, Input, Node, NodeName};
use ballast_link::{LinkError, Monitor};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::cable::{Cables, Former};
use crate::clock;
use crate::core::{Core, Deliver, Peers, Work};
use crate::counters::Counters;
use crate::event::Event;
use crate::packets::{Budgets, Packets};
use crate::post::Post;
use crate::report::Report;
use crate::seal::Keyring;
use crate::shared::Shared;

/// Events that wait for the core thread. A tick handles at least [`core`](crate::core)'s batch.
const EVENTS: usize = 4096;
/// How long the core thread may take to say what it does.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause before the interfaces are listed again after an error.
const RETRY: Duration = Duration::from_secs(1);

/// How an agent runs.
#[derive(Debug)]
pub struct Options {
    /// The name of the node.
    pub node: NodeName,
    /// A random number that identifies this process among those of its node.
    pub incarnation: u64,
    /// How agents reach each other; `None`: they do not, and only Leases count.
    pub gossip: Option<Gossip>,
}

/// How agents reach each other.
#[derive(Clone, Debug)]
pub struct Gossip {
    /// The port, UDP and TCP. All agents of a cluster have the same.
    pub port: u16,
    /// The shared keys. Whoever starts the agent calls [`Keyring::watch`].
    pub keyring: Arc<Keyring>,
}

/// A running announcer, without Kubernetes. It ends when dropped.
#[derive(Debug)]
pub struct Agent {
    events: SyncSender<Event>,
    report: watch::Receiver<Option<Arc<Report>>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    _tasks: JoinSet<()>,
}

/// The way to other agents.
struct Exchange {
    port: u16,
    post: Arc<Post>,
    cables: Arc<Cables>,
    /// The former process of this node: it answers until it is asked to end.
    former: Option<Former>,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The interfaces cannot be listed.
    #[error("cannot list the interfaces of this node")]
    Interfaces(#[source] LinkError),
    /// A capability is missing.
    #[error(
        "cannot open packet sockets: the announcer needs the capability NET_RAW. In a pod, add it in securityContext.capabilities.add, in a namespace whose pod security level is privileged; elsewhere run as root, or set AmbientCapabilities=CAP_NET_RAW in the systemd unit"
    )]
    NotPermitted,
    /// The port is taken.
    #[error("cannot open port {0} for messages of other announcers")]
    Port(u16, #[source] io::Error),
    /// A thread or a pipe.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

// === impl Agent ===

impl Agent {
    /// Starts an agent. Must be called within a Tokio runtime.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let mut monitor = Monitor::new().map_err(StartError::Interfaces)?;
        let interfaces = monitor.next().await.map_err(StartError::Interfaces)?;
        for interface in &interfaces {
            let opened = ballast_link::FrameSocket::arp(interface.index);
            if opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
                return Err(StartError::NotPermitted);
            }
        }
        let incarnation = options.incarnation;
        let (shared, woken) = Shared::new(Arc::default()).map_err(StartError::Thread)?;
        let shared = Arc::new(shared);
        let (events, receiver) = sync_channel(EVENTS);
        let (report, reported) = watch::channel(None);
        let (cables, peers) = watch::channel(Peers::new());
        let mut tasks = JoinSet::new();
        let config = Config {
            name: options.node.clone(),
            incarnation,
            gossip: options.gossip.is_some(),
            slips: Slips::default(),
        };
        let deliver = match options.gossip {
            Some(gossip) => {
                let counters = &shared.counters;
                let exchange = Exchange::open(&options.node, incarnation, &gossip, counters);
                let exchange = exchange.await?;
                Some(exchange.start(peers, &shared, &events, &mut tasks))
            }
            None => None,
        };
        let core = Core {
            node: Node::new(config, clock::now()),
            shared: Arc::clone(&shared),
            events: receiver,
            deliver,
            report,
            cables,
            work: Work::default(),
        };
        let packets = Packets {
            shared: Arc::clone(&shared),
            events: events.clone(),
            woken,
            budgets: Budgets::default(),
        };
        shared.tell(|news| news.interfaces = Some(interfaces));
        let _ = events.try_send(Event::News);
        tasks.spawn(watch_interfaces(
            monitor,
            Arc::clone(&shared),
            events.clone(),
        ));
        let threads = vec![
            spawn("announcer-core", || core.run())?,
            spawn("announcer-packet", || packets.run())?,
        ];
        Ok(Self {
            events,
            report: reported,
            shared,
            threads,
            _tasks: tasks,
        })
    }

    /// Passes on what the API server says. It may wait for the core thread, at most as long as
    /// that needs for a batch of events.
    pub fn input(&self, input: Input) {
        // A thread that panics ends the process. One that has ended otherwise no longer ticks, and the
        // liveness probe says so.
        let _ = self.events.send(Event::Input(input));
    }

    /// What to write into the Announcer object; `None` before the interfaces are known. The
    /// channel closes with the agent.
    pub fn report(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.report.clone()
    }

    /// How long ago the agent looked at the clock last. It does so at least six times in a second; much more
    /// than a second means that it is stuck.
    pub fn idle_for(&self) -> Option<Duration> {
        let last = self.shared.last_tick()?;
        Some(clock::now().since(last))
    }

    /// What it knows and does now; `None` if it is too busy.
    pub fn snapshot(&self) -> impl Future<Output = Option<Snapshot>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let asked = self.events.try_send(Event::Look(answer));
        async move {
            asked.ok()?;
            timeout(PATIENCE, answered).await.ok()?.ok()
        }
    }

    /// What it has sent and received.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shared.end();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

// === impl Exchange ===

impl Exchange {
    async fn open(
        me: &NodeName,
        incarnation: u64,
        gossip: &Gossip,
        counters: &Counters,
    ) -> Result<Self, StartError> {
        let taken = |error| StartError::Port(gossip.port, error);
        let keys = || Arc::clone(&gossip.keyring);
        // As long as it has the port alone.
        let former = Former::find(me.clone(), incarnation, gossip.port, keys()).await;
        if former.is_some() {
            info!("another announcer runs on this node; replacing it");
        }
        let (sent, connected) = (Arc::clone(&counters.post), Arc::clone(&counters.cables));
        let post = Post::bind(me.clone(), gossip.port, keys(), sent);
        let cables = Cables::bind(me.clone(), incarnation, gossip.port, keys(), connected);
        Ok(Self {
            port: gossip.port,
            post: Arc::new(post.map_err(taken)?),
            cables: Arc::new(cables.map_err(taken)?),
            former,
        })
    }

    /// Starts the tasks, and returns the way out for messages.
    fn start(
        self,
        mut peers: watch::Receiver<Peers>,
        shared: &Arc<Shared>,
        events: &SyncSender<Event>,
        tasks: &mut JoinSet<()>,
    ) -> Deliver {
        let Self {
            port,
            post,
            cables,
            former,
        } = self;
        tasks.spawn(async move {
            // As long as this process lives.
            let _former = former;
            std::future::pending::<()>().await;
        });
        let receiver = Arc::clone(&post);
        let (counting, mail) = (Arc::clone(shared), events.clone());
        tasks.spawn(async move {
            // A full queue loses messages, as the network does.
            let lost = &counting.counters.post.dropped;
            let sink = |received| pass(lost, &mail, Event::Mail(received));
            receiver.run(sink).await;
        });
        let dialling = Arc::clone(&cables);
        let (telling, ends) = (Arc::clone(shared), events.clone());
        tasks.spawn(async move {
            let sink = move |input| tell(&telling, &ends, input);
            cables.run(sink).await;
        });
        tasks.spawn(async move {
            while peers.changed().await.is_ok() {
                let wanted = peers.borrow_and_update().clone().into_iter();
                let wanted = wanted.map(|(peer, at)| (peer, SocketAddr::new(at, port)));
                dialling.dial(wanted.collect());
            }
        });
        Box::new(move |to, at, message| post.send(to, SocketAddr::new(at, port), message))
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map_err(StartError::Thread)
}

/// Passes an event on, or counts it as lost if too many wait. Never waits: the caller may hold a lock, and the one
/// thread of the runtime also serves health.
fn pass(lost: &AtomicU64, events: &SyncSender<Event>, event: Event) {
    if let Err(TrySendError::Full(_)) = events.try_send(event) {
        lost.fetch_add(1, Relaxed);
    }
}

/// Passes on what cables show.
fn tell(shared: &Shared, events: &SyncSender<Event>, input: Input) {
    match input {
        Input::Replaced { replaced } => {
            shared.tell(|news| news.replaced = Some(replaced));
            // If the queue is full, the core thread looks soon enough.
            let _ = events.try_send(Event::News);
        }
        // What is lost here, beats show 2 s later.
        _ => pass(&shared.counters.cables.dropped, events, Event::Input(input)),
    }
}

/// Passes each list of interfaces on.
async fn watch_interfaces(mut monitor: Monitor, shared: Arc<Shared>, events: SyncSender<Event>) {
    while !shared.has_ended() {
        match monitor.next().await {
            Ok(interfaces) => {
                shared.tell(|news| news.interfaces = Some(interfaces));
                let _ = events.try_send(Event::News);
            }
            Err(error) => {
                warn!(%error, "cannot list the interfaces of this node");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::shared::News;

    /// Cables call this under their lock, on the only thread of the runtime.
    #[test]
    fn nothing_waits_for_a_full_queue_and_what_must_not_be_lost_is_seen() {
        let (shared, _woken) = Shared::new(Arc::default()).unwrap();
        let shared = Arc::new(shared);
        let (events, waiting) = sync_channel(1);
        events.send(Event::News).unwrap();
        let (done, is_done) = mpsc::channel();
        let telling = Arc::clone(&shared);
        std::thread::spawn(move || {
            for replaced in [false, true] {
                tell(&telling, &events, Input::Replaced { replaced });
            }
            let (peer, connected) = (NodeName::new("two"), true);
            tell(&telling, &events, Input::Cable { peer, connected });
            done.send(()).unwrap();
        });
        is_done
            .recv_timeout(Duration::from_mins(1))
            .expect("it waits for room");
        let news = shared.take_news();
        assert_eq!(news.replaced, Some(true), "the latest");
        assert_eq!(shared.take_news(), News::default(), "once");
        assert_eq!(
            shared.counters.cables.dropped.load(Relaxed),
            1,
            "a cable is counted"
        );
        drop(waiting);
    }
}
