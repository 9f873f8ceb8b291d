//! The memory of connections and UDP clients that are idle.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Cloud, alone, balancer, eventually, listener, load_balancer, options};
use ballast_mock::server::PlaneOptions;
use ballast_provider::{Protocol, Provider, Target, TargetSet};

const COUNT: usize = 1_000;

/// In this process. The kernel's share, measured with a memory cgroup, is 5.4 KB for the two
/// sockets of a connection and 2.8 KB for the socket of a UDP client.
const MOST_PER_CONNECTION: u64 = 4 * 1_024;
const MOST_PER_FLOW: u64 = 3 * 1_024;

/// The same with the kernel's share, which counts towards a container's limit.
const ALL_OF_A_CONNECTION: usize = 12 * 1_024;
const ALL_OF_A_FLOW: usize = 6 * 1_024;

/// The memory of everything else.
const REST: usize = 96 * 1_024 * 1_024;

/// The anonymous memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib * 1_024
}

/// A node port that counts what arrives and never answers. It uses no runtime, so that its
/// memory does not affect the measurement.
struct Node {
    port: u16,
    connections: Arc<AtomicUsize>,
    datagrams: Arc<AtomicUsize>,
}

impl Node {
    const IP: [u8; 4] = [127, 0, 0, 77];

    fn start() -> Self {
        let tcp = TcpListener::bind((IpAddr::from(Self::IP), 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        let udp = UdpSocket::bind((IpAddr::from(Self::IP), port)).unwrap();
        let node = Self {
            port,
            connections: Arc::default(),
            datagrams: Arc::default(),
        };
        let (connections, datagrams) = (Arc::clone(&node.connections), Arc::clone(&node.datagrams));
        std::thread::spawn(move || {
            let mut held = Vec::with_capacity(2 * COUNT);
            while let Ok((stream, _)) = tcp.accept() {
                held.push(stream);
                connections.fetch_add(1, Ordering::SeqCst);
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while udp.recv_from(&mut buffer).is_ok() {
                datagrams.fetch_add(1, Ordering::SeqCst);
            }
        });
        node
    }
}

async fn all_arrived(count: &AtomicUsize, wanted: usize) {
    eventually("all arrived", async || {
        (count.load(Ordering::SeqCst) >= wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_and_clients_cost_little() {
    if !alone("idle::idle_connections_and_clients_cost_little") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let mut options = options(&state);
    options.plane.health_interval = Duration::from_hours(1);
    options.plane.max_flows = 2 * COUNT;
    let cloud = Cloud::start(options).await;
    let node = Node::start();
    let target = Target {
        name: "n1".into(),
        provider_id: None,
        labels: std::sync::Arc::default(),
        addresses: vec![Node::IP.into()],
    };
    let provider = cloud.provider();
    provider.restore(Vec::new()).await.unwrap();
    let targets = TargetSet::of_nodes(BTreeSet::from([target]));
    provider.retarget(&targets, &[]).await.unwrap();
    let port = crate::support::nodes::port();
    let ports = [Protocol::Tcp, Protocol::Udp].map(|it| listener(it, port, node.port));
    let web = balancer(load_balancer("web", ports.to_vec()));
    let observed = provider.ensure(&web).await.unwrap().remove(0).1;
    let at = SocketAddr::new(observed.ingress[0].ip().unwrap(), port);
    let client = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", at).unwrap();
        socket
    };
    let mut connections = Vec::with_capacity(2 * COUNT);
    let mut clients = Vec::with_capacity(2 * COUNT);

    // The first pages of everything do not count.
    for count in 1..=100 {
        connections.push(TcpStream::connect(at).unwrap());
        clients.push(client());
        all_arrived(&node.connections, count).await;
        all_arrived(&node.datagrams, count).await;
    }

    let before = resident();
    for _ in 0..COUNT {
        connections.push(TcpStream::connect(at).unwrap());
        // The node's queue of connections is short.
        if connections.len().is_multiple_of(50) {
            all_arrived(&node.connections, connections.len()).await;
        }
    }
    let each = resident().saturating_sub(before) / COUNT as u64;
    println!("an idle connection: {each} bytes in this process");
    assert!(each < MOST_PER_CONNECTION, "{each} bytes");

    let before = resident();
    for _ in 0..COUNT {
        clients.push(client());
        all_arrived(&node.datagrams, clients.len()).await;
    }
    let each = resident().saturating_sub(before) / COUNT as u64;
    println!("a UDP client: {each} bytes in this process");
    assert!(each < MOST_PER_FLOW, "{each} bytes");
}

/// The defaults of the flags fit into the memory limit of the chart's container.
#[test]
fn the_limits_fit_the_memory_that_the_chart_allows() {
    let values = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../charts/ballast/values.yaml"
    );
    let values = std::fs::read_to_string(values).unwrap();
    let (_, cloud) = values.split_once("\nmockCloud:").unwrap();
    let (_, limits) = cloud.split_once("    limits:\n").unwrap();
    let memory = limits.lines().next().unwrap().trim();
    let mebibytes = memory
        .strip_prefix("memory: ")
        .unwrap()
        .strip_suffix("Mi")
        .unwrap();
    let allowed = mebibytes.parse::<usize>().unwrap() * 1_024 * 1_024;
    let plane = PlaneOptions::default();
    let connections = plane.max_total_connections * ALL_OF_A_CONNECTION;
    let flows = plane.max_total_flows * ALL_OF_A_FLOW;
    let needed = connections + flows + REST;
    assert!(
        needed <= allowed,
        "{needed} bytes, the chart allows {allowed}"
    );
}
