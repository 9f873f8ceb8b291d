use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicBool;
use std::thread;

use ballast_link::Links;
use ballast_link::testbed::{self, Host};
use rtnetlink::LinkUnspec;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use super::*;

/// A time-out for anything that should happen.
const SOON: Duration = Duration::from_mins(1);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

fn keyring() -> Arc<Keyring> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, ONE).unwrap();
    Arc::new(Keyring::open_file(path).unwrap())
}

fn identity(name: &str, incarnation: u64) -> Identity {
    Identity::new(NodeName::new(name), incarnation, keyring())
}

/// A process of an announcer.
struct Agent {
    name: NodeName,
    cables: Arc<Cables>,
    counters: Arc<Counters>,
    inbox: UnboundedReceiver<Input>,
    work: JoinHandle<()>,
}

impl Agent {
    fn new(name: &str, incarnation: u64) -> Self {
        Self::with(name, incarnation, 0, PATIENCE)
    }

    fn with(name: &str, incarnation: u64, number: u16, patience: Patience) -> Self {
        let name = NodeName::new(name);
        let counters = Arc::new(Counters::default());
        let mut cables = Cables::bind(
            name.clone(),
            incarnation,
            number,
            keyring(),
            counters.clone(),
        )
        .unwrap();
        Arc::get_mut(&mut cables.shared).unwrap().patience = patience;
        let cables = Arc::new(cables);
        let (sink, inbox) = unbounded_channel();
        let work = tokio::spawn({
            let cables = cables.clone();
            async move { cables.run(move |input| drop(sink.send(input))).await }
        });
        Self {
            name,
            cables,
            counters,
            inbox,
            work,
        }
    }

    fn port(&self) -> u16 {
        self.cables.port().unwrap()
    }

    fn dials(&self, others: &[&Agent]) {
        let others = others.iter();
        let others = others.map(|it| (it.name.clone(), (LOCAL, it.port()).into()));
        self.cables.dial(others.collect());
    }

    /// The next report.
    async fn next(&mut self) -> (String, bool) {
        match timeout(SOON, self.inbox.recv()).await {
            Ok(Some(Input::Cable { peer, connected })) => (peer.to_string(), connected),
            other => panic!("no report: {other:?}"),
        }
    }

    async fn connected(&mut self, other: &str) {
        assert_eq!(self.next().await, (other.to_owned(), true));
    }

    async fn closed(&mut self, other: &str) {
        assert_eq!(self.next().await, (other.to_owned(), false));
    }

    /// The kernel closes its sockets.
    async fn dies(self) {
        self.work.abort();
        let _ = self.work.await;
    }
}

async fn reaches(counter: &AtomicU64, expected: u64) {
    let reached = async {
        while counter.load(Ordering::Relaxed) < expected {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, reached).await.unwrap();
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test]
async fn the_end_of_a_process_is_reported_once_to_both_directions() {
    for dialling_side_dies in [false, true] {
        let (mut one, mut two) = (Agent::new("one", 1), Agent::new("two", 1));
        one.dials(&[&two]);
        one.connected("two").await;
        two.connected("one").await;
        let (dying, mut living) = if dialling_side_dies {
            (one, two)
        } else {
            (two, one)
        };
        let (name, number) = (dying.name.clone(), dying.port());
        dying.dies().await;
        living.closed(name.as_str()).await;
        // Nothing else is reported before the next process.
        let mut next = Agent::with(name.as_str(), 2, number, PATIENCE);
        next.dials(&[&living]);
        living.connected(name.as_str()).await;
        next.connected(living.name.as_str()).await;
    }
}

#[tokio::test]
async fn both_sides_dial_each_other_at_once() {
    let (mut one, mut two) = (Agent::new("one", 1), Agent::new("two", 1));
    one.dials(&[&two]);
    two.dials(&[&one]);
    one.connected("two").await;
    two.connected("one").await;
    reaches(&one.counters.connected, 2).await;
    reaches(&two.counters.connected, 2).await;
    two.dies().await;
    one.closed("two").await;
    reaches(&one.counters.closed, 2).await;
    assert!(one.inbox.is_empty(), "each is reported once");
}

/// A peer is no successor any more. Its process lives.
#[tokio::test]
async fn a_cable_that_is_not_wanted_ends_without_a_report() {
    let (mut one, mut two) = (Agent::new("one", 1), Agent::new("two", 1));
    for _ in 0..3 {
        one.dials(&[&two]);
        one.connected("two").await;
        two.connected("one").await;
        one.dials(&[]);
        let ended = async {
            while !two.cables.shared.lock().accepted.is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, ended).await.unwrap();
    }
    assert_eq!(get(&two.counters.closed) + get(&two.counters.lost), 0);
    assert!(one.inbox.is_empty() && two.inbox.is_empty());
}

#[tokio::test]
async fn a_peer_is_dialled_until_it_is_there_and_again_after_its_end() {
    let mut one = Agent::new("one", 1);
    let two = Agent::new("two", 1);
    let number = two.port();
    one.dials(&[&two]);
    one.connected("two").await;
    two.dies().await;
    one.closed("two").await;
    reaches(&one.counters.not_dialled, 1).await;
    let _two = Agent::with("two", 2, number, PATIENCE);
    one.connected("two").await;
}

/// A process that starts before the end of the former one.
#[tokio::test]
async fn the_end_of_a_former_process_is_not_the_end_of_the_new_one() {
    let mut two = Agent::new("two", 1);
    let at = SocketAddr::from((LOCAL, two.port()));
    let mut old = TcpStream::connect(at).await.unwrap();
    let process = identity("one", 1).dial(&mut old, &two.name).await;
    assert_eq!(process.unwrap().incarnation, 1);
    two.connected("one").await;
    let mut new = Agent::new("one", 2);
    new.dials(&[&two]);
    new.connected("two").await;
    two.connected("one").await;
    let ended = timeout(SOON, wait(&mut old, &Notify::new())).await;
    assert_eq!(ended, Ok(End::Goodbye), "it was replaced");
    drop(old);
    new.dies().await;
    two.closed("one").await;
    assert!(two.inbox.is_empty());
}

/// As during an update with surge: from then on the end of the newer process shows at once.
#[tokio::test]
async fn a_newer_process_of_a_peer_has_a_cable_in_a_moment() {
    let mut one = Agent::new("one", 1);
    let old = Agent::new("two", 1);
    let number = old.port();
    one.dials(&[&old]);
    one.connected("two").await;
    let start = Instant::now();
    let found = Former::find(NodeName::new("two"), 2, number, keyring()).await;
    assert!(found.is_some());
    // It says goodbye to those that dial it before the newer one opens the port.
    sleep(2 * DIAL_THE_NEXT).await;
    let new = Agent::with("two", 2, number, PATIENCE);
    reaches(&new.counters.connected, 1).await;
    let took = start.elapsed();
    assert!(took < DIAL_AGAIN_AT_MOST, "connected after {took:?}");
    assert_eq!(get(&one.counters.closed) + get(&one.counters.lost), 0);
    old.dies().await;
    while let Ok(input) = one.inbox.try_recv() {
        assert!(
            matches!(
                input,
                Input::Cable {
                    connected: true,
                    ..
                }
            ),
            "{input:?}"
        );
    }
    new.dies().await;
    one.closed("two").await;
}

/// The peer has welcomed it, and must not take this for the end of its process.
#[tokio::test]
async fn a_side_that_gives_up_a_handshake_says_goodbye() {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let one = Agent::new("one", 1);
    let at = listener.local_addr().unwrap();
    one.cables.dial([(NodeName::new("two"), at)].into());
    let two = identity("two", 1);
    let mut stream = loop {
        let (mut stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        if two.accept(&mut stream).await.is_ok() {
            break stream;
        }
    };
    let end = timeout(SOON, wait(&mut stream, &Notify::new())).await;
    assert_eq!(end, Ok(End::Goodbye));
    assert!(one.inbox.is_empty());
}

/// Until it is ended by the other side.
async fn waits_for_the_end(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap();
}

#[tokio::test]
async fn a_connection_without_a_proof_ends() {
    let two = Agent::new("two", 1);
    let at = SocketAddr::from((LOCAL, two.port()));
    let silent = TcpStream::connect(at).await.unwrap();
    waits_for_the_end(silent).await;
    reaches(&two.counters.refused, 1).await;
    let mut garbage = TcpStream::connect(at).await.unwrap();
    garbage.write_all(&[0; 100]).await.unwrap();
    waits_for_the_end(garbage).await;
    reaches(&two.counters.refused, 2).await;
    assert!(two.inbox.is_empty());
}

/// Here they may say nothing for an hour.
#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let handshake = Duration::from_hours(1);
    let patient = Patience {
        handshake,
        ..PATIENCE
    };
    let mut two = Agent::with("two", 1, 0, patient);
    let at = SocketAddr::from((LOCAL, two.port()));
    let mut silent = Vec::new();
    for _ in 0..3 * MAX_HANDSHAKES {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    let mut one = Agent::new("one", 1);
    one.dials(&[&two]);
    one.connected("two").await;
    two.connected("one").await;
    let bound = u64::try_from(2 * MAX_HANDSHAKES).unwrap();
    assert!(get(&two.counters.too_many) > bound);
    let first = silent.swap_remove(0);
    waits_for_the_end(first).await;
}

#[tokio::test]
async fn the_number_of_accepted_cables_is_bounded() {
    let mut two = Agent::new("two", 1);
    let mut peers: Vec<_> = (0..MAX_ACCEPTED)
        .map(|n| Agent::new(&format!("peer-{n}"), 1))
        .collect();
    for peer in &mut peers {
        peer.dials(&[&two]);
        peer.connected("two").await;
        two.connected(peer.name.clone().as_str()).await;
    }
    let mut late = Agent::new("late", 1);
    late.dials(&[&two]);
    reaches(&late.counters.not_dialled, 1).await;
    reaches(&two.counters.too_many, 1).await;
    assert!(late.inbox.is_empty(), "neither connected nor closed");
    let first = peers.remove(0);
    first.dies().await;
    two.closed("peer-0").await;
    late.connected("two").await;
    two.connected("late").await;
}

/// Ends a broken connection soon.
const IMPATIENT: Patience = Patience {
    handshake: Duration::from_secs(2),
    idle: Duration::from_secs(1),
    interval: Duration::from_secs(1),
    limit: Duration::from_secs(2),
};
const PORT: u16 = 4000;

/// The link goes down; both processes live.
#[test]
fn a_host_that_vanishes_is_never_reported_as_closed() {
    let (here, there) = testbed::segment();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            on(&there, "192.0.2.2", async |_| {
                let mut two = Agent::with("two", 1, PORT, IMPATIENT);
                two.connected("one").await;
                reaches(&two.counters.lost, 1).await;
                assert!(two.inbox.is_empty());
                while !over.load(Ordering::Relaxed) {
                    sleep(Duration::from_millis(1)).await;
                }
            });
        });
        on(&here, "192.0.2.1", async |eth0| {
            let mut one = Agent::with("one", 1, PORT, IMPATIENT);
            let at = SocketAddr::from(([192, 0, 2, 2], PORT));
            one.cables.dial([(NodeName::new("two"), at)].into());
            one.connected("two").await;
            let handle = testbed::netlink();
            let down = LinkUnspec::new_with_index(eth0).down();
            handle.link().set(down.build()).execute().await.unwrap();
            reaches(&one.counters.lost, 1).await;
            assert!(one.inbox.is_empty());
            over.store(true, Ordering::Relaxed);
        });
    });
}

/// Runs `work` on a host whose `eth0` has this address.
fn on<T: Send>(host: &Host, address: &str, work: impl AsyncFnOnce(u32) -> T + Send) -> T {
    let address: IpAddr = address.parse().unwrap();
    testbed::on(host, async || {
        let eth0 = testbed::eth0(&Links::connect().unwrap()).await.index;
        let handle = testbed::netlink();
        let add = handle.address().add(eth0, address, 24);
        add.execute().await.unwrap();
        work(eth0).await
    })
}

impl Agent {
    /// The next report, about another process of its own node.
    async fn replaced(&mut self) -> bool {
        match timeout(SOON, self.inbox.recv()).await {
            Ok(Some(Input::Replaced { replaced })) => replaced,
            other => panic!("no report: {other:?}"),
        }
    }
}

/// As during an update. Its peers must not take the end of their cables for the end of the node's
/// announcer.
#[tokio::test]
async fn a_newer_process_of_the_node_replaces_this_one_until_it_ends() {
    let (mut old, mut peer) = (Agent::new("one", 1), Agent::new("two", 1));
    peer.dials(&[&old]);
    old.connected("two").await;
    peer.connected("one").await;
    let find = |incarnation| Former::find(NodeName::new("one"), incarnation, old.port(), keyring());
    let (first, second) = (find(2), find(3));
    let newer = first.await.unwrap();
    let newest = second.await.unwrap();
    assert!(old.replaced().await);
    let ended = async {
        while !old.cables.shared.lock().accepted.is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, ended).await.unwrap();
    assert_eq!(get(&peer.counters.closed) + get(&peer.counters.lost), 0);
    assert!(peer.inbox.is_empty());
    drop(newer);
    drop(newest);
    assert!(!old.replaced().await, "both have ended");
}

#[tokio::test]
async fn only_another_process_of_this_host_and_node_is_a_former_one() {
    let (one, other) = (Agent::new("one", 1), Agent::new("two", 1));
    let find = |name: &str, port| Former::find(NodeName::new(name), 2, port, keyring());
    assert!(find("one", other.port()).await.is_none(), "another node");
    let free = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    assert!(find("one", port).await.is_none(), "nobody");
    let itself = Former::find(NodeName::new("one"), 1, one.port(), keyring());
    assert!(itself.await.is_none());
    assert!(one.inbox.is_empty() && other.inbox.is_empty());
}

/// Whoever has the key could otherwise silence any node from afar.
#[test]
fn another_host_replaces_no_process() {
    let (here, _there) = testbed::segment();
    on(&here, "192.0.2.1", async |_| {
        let mut one = Agent::new("one", 1);
        let at = SocketAddr::from(([192, 0, 2, 1], one.port()));
        // From an address that other hosts could have.
        let mut stream = TcpStream::connect(at).await.unwrap();
        let dialled = identity("one", 2).dial(&mut stream, &one.name).await;
        assert!(dialled.is_err());
        reaches(&one.counters.refused, 1).await;
        assert!(one.inbox.try_recv().is_err());
    });
}
