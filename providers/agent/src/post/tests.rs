use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket as Socket};
use std::sync::atomic::AtomicBool;
use std::thread;

use ballast_announce::io::Body;
use ballast_announce::membership::Stamp;
use ballast_link::Links;
use ballast_link::testbed::{self, Host};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

/// A time-out for anything that should happen.
const SOON: Duration = Duration::from_mins(1);
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn node(name: &str) -> NodeName {
    NodeName::new(name)
}

/// A process of an announcer.
struct Agent {
    name: NodeName,
    post: Arc<Post>,
    counters: Arc<Counters>,
    inbox: UnboundedReceiver<Mail>,
    work: JoinHandle<()>,
    incarnation: u64,
}

impl Agent {
    fn new(name: &str, incarnation: u64) -> Self {
        Self::with(name, incarnation, 0, &keyring(ONE))
    }

    fn with(name: &str, incarnation: u64, number: u16, keyring: &Arc<Keyring>) -> Self {
        let counters = Arc::new(Counters::default());
        let post = Post::bind(node(name), number, keyring.clone(), counters.clone()).unwrap();
        let post = Arc::new(post);
        let (sink, inbox) = unbounded_channel();
        let work = tokio::spawn({
            let post = post.clone();
            async move { post.run(move |mail| drop(sink.send(mail))).await }
        });
        Self {
            name: node(name),
            post,
            counters,
            inbox,
            work,
            incarnation,
        }
    }

    fn port(&self) -> u16 {
        self.post.port().unwrap()
    }

    fn message(&self, sequence: u64) -> Message {
        Message {
            from: self.name.clone(),
            stamp: Stamp {
                incarnation: self.incarnation,
                sequence,
            },
            body: Body::Vouch { host: node("host") },
        }
    }

    fn send(&self, to: &Agent, sequence: u64) {
        self.send_by(to, (LOCAL, to.port()).into(), sequence);
    }

    fn send_by(&self, to: &Agent, at: SocketAddr, sequence: u64) {
        self.post.send(&to.name, at, &self.message(sequence));
    }

    async fn next(&mut self) -> (Option<u32>, Message) {
        match timeout(SOON, self.inbox.recv()).await {
            Ok(Some(Mail { via, message, .. })) => (via, message),
            other => panic!("no message: {other:?}"),
        }
    }

    /// Waits for one of these messages. Earlier ones may arrive again.
    async fn hears(&mut self, stamp: Stamp) {
        while self.next().await.1.stamp != stamp {}
    }

    /// Both know each other.
    async fn meets(&mut self, other: &mut Agent) {
        self.send(other, 1);
        other.hears(self.message(1).stamp).await;
        other.send(self, 1);
        self.hears(other.message(1).stamp).await;
    }

    async fn ends(self) {
        self.work.abort();
        let _ = self.work.await;
    }
}

fn keyring(key: &str) -> Arc<Keyring> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("key");
    std::fs::write(&path, key).unwrap();
    Arc::new(Keyring::open_file(path).unwrap())
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Waits until a counter has a value, and panics if it exceeds it.
async fn counts(counter: &AtomicU64, expected: u64) {
    reaches(counter, expected).await;
    assert_eq!(get(counter), expected);
}

async fn reaches(counter: &AtomicU64, expected: u64) {
    let reached = async {
        while get(counter) < expected {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, reached).await.unwrap();
}

fn socket() -> Socket {
    let socket = Socket::bind((LOCAL, 0)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

#[tokio::test]
async fn a_message_arrives_with_its_interface() {
    let (one, mut two) = (Agent::new("one", 1), Agent::new("two", 1));
    let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
    for (sequence, at) in [(1, LOCAL), (2, Ipv6Addr::LOCALHOST.into())] {
        one.send_by(&two, (at, two.port()).into(), sequence);
        loop {
            let (via, message) = two.next().await;
            assert_eq!(via, Some(loopback), "{at}");
            if message == one.message(sequence) {
                break;
            }
        }
    }
}

/// What was sent before the processes knew each other is not lost, and nobody waits for the
/// next beat.
#[tokio::test]
async fn the_first_messages_of_a_process_arrive_at_once() {
    let (mut one, mut two) = (Agent::new("one", 1), Agent::new("two", 1));
    for sequence in 1..=3 {
        one.send(&two, sequence);
    }
    let mut heard = [false; 3];
    while heard != [true; 3] {
        let sequence = two.next().await.1.stamp.sequence;
        heard[usize::try_from(sequence).unwrap() - 1] = true;
    }
    one.meets(&mut two).await;
    let port = one.port();
    one.ends().await;
    let one = Agent::with("one", 2, port, &keyring(ONE));
    one.send(&two, 1);
    two.hears(one.message(1).stamp).await;
}

#[tokio::test]
async fn what_does_not_open_is_dropped_and_counted() {
    let (mut one, mut two) = (Agent::new("one", 1), Agent::new("two", 1));
    one.meets(&mut two).await;
    let stranger = socket();
    let lengths = [0, 1, OVERHEAD - 1, OVERHEAD, 200, MAX_DATAGRAM + 1, 65_000];
    for length in lengths {
        let garbage = vec![1; length];
        stranger.send_to(&garbage, (LOCAL, two.port())).unwrap();
    }
    let foreign = Agent::with("one", 1, 0, &keyring(TWO));
    foreign.send(&two, 2);
    let other = node("three");
    let at = SocketAddr::from((LOCAL, two.port()));
    one.post.send(&other, at, &one.message(2));
    let greeting = keyring(ONE).seal(b"m", &two.name, Purpose::Cable, None);
    stranger.send_to(&greeting.unwrap(), at).unwrap();
    let refused = u64::try_from(lengths.len()).unwrap() + 3;
    counts(&two.counters.not_opened, refused).await;

    one.send(&two, 3);
    two.hears(one.message(3).stamp).await;
    assert_eq!(get(&two.counters.malformed), 0);
}

#[tokio::test]
async fn what_opens_and_is_no_message_is_dropped_and_counted() {
    let mut one = Agent::new("one", 1);
    let mut two = Agent::new("two", 1);
    let at = SocketAddr::from((LOCAL, two.port()));
    let letter = |from: &str, message: &[u8]| {
        let (mine, yours) = (1, 1);
        let letter = Letter {
            from,
            mine,
            yours,
            message,
        };
        postcard::to_extend(&letter, Vec::new()).unwrap()
    };
    let other = wire::encode(&one.message(1)).unwrap();
    let long = "n".repeat(MAX_NAME + 1);
    let letters = [
        vec![],
        vec![0xff; 100],
        letter("one", b"nonsense"),
        letter("other", &other),
        letter("", b""),
        letter(&long, b""),
        [letter("one", b""), vec![0]].concat(),
    ];
    for letter in &letters {
        let sealed = keyring(ONE).seal(letter, &two.name, Purpose::Post, None);
        socket().send_to(&sealed.unwrap(), at).unwrap();
    }
    counts(
        &two.counters.malformed,
        u64::try_from(letters.len()).unwrap(),
    )
    .await;
    one.meets(&mut two).await;
    assert_eq!(get(&two.counters.not_opened), 0);
}

/// Passes datagrams between two agents, and keeps those to the second one.
struct Recorder {
    socket: Socket,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    work: Option<thread::JoinHandle<()>>,
}

impl Recorder {
    fn new(one: &Agent, two: &Agent) -> Self {
        let (one, two) = (one.port(), two.port());
        let outside = socket();
        let (kept, stop) = (
            Arc::<Mutex<Vec<_>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let work = thread::spawn({
            let (socket, kept, stop) = (outside.try_clone().unwrap(), kept.clone(), stop.clone());
            move || {
                let mut buffer = vec![0; MAX_DATAGRAM];
                while !stop.load(Ordering::Relaxed) {
                    let (length, from) = socket.recv_from(&mut buffer).unwrap();
                    let datagram = &buffer[..length];
                    if from.port() == one {
                        kept.lock().unwrap().push(datagram.to_vec());
                        socket.send_to(datagram, (LOCAL, two)).unwrap();
                    } else {
                        socket.send_to(datagram, (LOCAL, one)).unwrap();
                    }
                }
            }
        });
        Self {
            socket: outside,
            kept,
            stop,
            work: Some(work),
        }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = socket().send_to(b"", self.address());
        let _ = self.work.take().map(thread::JoinHandle::join);
    }
}

#[tokio::test]
async fn recorded_messages_of_a_former_process_are_not_delivered() {
    let (one, mut two) = (Agent::new("one", 1), Agent::new("two", 1));
    let recorder = Recorder::new(&one, &two);
    for sequence in 1..=20 {
        one.send_by(&two, recorder.address(), sequence);
        two.hears(one.message(sequence).stamp).await;
    }
    let kept = recorder.kept.lock().unwrap().clone();
    assert!(kept.len() >= 20);
    drop(recorder);
    one.ends().await;

    let mut one = Agent::new("one", 2);
    one.meets(&mut two).await;
    let before = get(&two.counters.not_fresh);
    for datagram in &kept {
        socket().send_to(datagram, (LOCAL, two.port())).unwrap();
    }
    let all = before + u64::try_from(kept.len()).unwrap();
    counts(&two.counters.not_fresh, all).await;
    one.send(&two, 9);
    while let (_, message) = two.next().await
        && message.stamp.sequence != 9
    {
        assert_eq!(message.stamp.incarnation, 2);
    }
    // Nor by a new process of the receiver.
    two.ends().await;
    let mut two = Agent::new("two", 2);
    for datagram in &kept {
        socket().send_to(datagram, (LOCAL, two.port())).unwrap();
    }
    counts(&two.counters.not_fresh, u64::try_from(kept.len()).unwrap()).await;
    one.send(&two, 10);
    assert_eq!(two.next().await.1.stamp.incarnation, 2);
}

/// The flood ends only when enough good messages have arrived.
#[tokio::test]
async fn a_flood_of_garbage_does_not_stop_good_messages() {
    let (mut one, mut two) = (Agent::new("one", 1), Agent::new("two", 1));
    one.meets(&mut two).await;
    let stop = Arc::new(AtomicBool::new(false));
    let flood = thread::spawn({
        let (stop, to) = (stop.clone(), (LOCAL, two.port()));
        move || {
            let (socket, garbage) = (socket(), [1; 200]);
            while !stop.load(Ordering::Relaxed) {
                let _ = socket.send_to(&garbage, to);
            }
        }
    });
    reaches(&two.counters.not_opened, 1000).await;
    let (mut sequence, mut heard) = (1, 0);
    let until = Instant::now() + SOON;
    while heard < 20 {
        assert!(Instant::now() < until, "{heard} of {sequence} messages");
        sequence += 1;
        one.send(&two, sequence);
        if timeout(Duration::from_millis(5), two.inbox.recv())
            .await
            .is_ok()
        {
            heard += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
}

#[tokio::test]
async fn what_cannot_be_sent_is_counted() {
    let (mut one, mut two) = (Agent::new("one", 1), Agent::new("two", 1));
    one.send_by(&two, (LOCAL, 0).into(), 1);
    assert_eq!(get(&one.counters.not_sent), 1, "no such port");
    let host = node(&"n".repeat(MAX_NAME + 1));
    let long = Message {
        body: Body::Vouch { host },
        ..one.message(2)
    };
    one.post.send(&two.name, (LOCAL, two.port()).into(), &long);
    assert_eq!(get(&one.counters.not_sent), 2, "too long");
    one.meets(&mut two).await;
}

/// On two hosts: the interface of the message is the one of the receiver.
#[test]
fn a_message_from_another_host_arrives_with_its_interface() {
    for (here, there) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        let (here, there): (IpAddr, IpAddr) = (here.parse().unwrap(), there.parse().unwrap());
        let (sender, receiver) = testbed::segment();
        let arrived = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| on(&sender, here, async |_| send_until(&arrived, there).await));
            on(&receiver, there, async |eth0| {
                let mut two = Agent::with("two", 1, PORT, &keyring(ONE));
                let (via, message) = two.next().await;
                arrived.store(true, Ordering::Relaxed);
                assert_eq!((via, message.from), (Some(eth0), node("one")));
            });
        });
    }
}

/// Of agents in their own namespaces.
const PORT: u16 = 4000;

/// The receiver may not have its address yet.
async fn send_until(arrived: &AtomicBool, to: IpAddr) {
    let one = Agent::with("one", 1, PORT, &keyring(ONE));
    let until = Instant::now() + SOON;
    for sequence in 1.. {
        let message = one.message(sequence);
        one.post.send(&node("two"), (to, PORT).into(), &message);
        sleep(Duration::from_millis(20)).await;
        if arrived.load(Ordering::Relaxed) {
            return;
        }
        assert!(Instant::now() < until, "it never arrived");
    }
}

/// Runs `work` on a host whose `eth0` has this address.
fn on<T: Send>(host: &Host, address: IpAddr, work: impl AsyncFnOnce(u32) -> T + Send) -> T {
    testbed::on(host, async || {
        let eth0 = testbed::eth0(&Links::connect().unwrap()).await.index;
        let handle = testbed::netlink();
        let length = if address.is_ipv4() { 24 } else { 64 };
        handle
            .address()
            .add(eth0, address, length)
            .execute()
            .await
            .unwrap();
        work(eth0).await
    })
}
