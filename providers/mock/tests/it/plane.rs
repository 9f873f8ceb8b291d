//! The data plane with real sockets: clients on loopback, and nodes that answer with their
//! names.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::support::nodes::{Connection, Nodes, ask, port};
use crate::support::{Cloud, balancer, eventually, id, listener, load_balancer, options};
use ballast_mock::MockProvider;
use ballast_mock::server::ServerOptions;
use ballast_provider::{
    Affinity, Family, Key, LoadBalancer, Protocol, Provider, Removal, State, Target, TargetSet,
    TrafficPolicy,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

mod bounds;
mod ports;

/// A server, nodes, and one Service `web` with the same port number for TCP and UDP.
struct Lab {
    cloud: Cloud,
    provider: MockProvider,
    nodes: Nodes,
    port: u16,
    _state: tempfile::TempDir,
}

impl Lab {
    async fn new(count: u8) -> Self {
        Self::with(Nodes::start(count, true).await, |_| {}).await
    }

    async fn with(nodes: Nodes, adjust: impl FnOnce(&mut ServerOptions)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut options = options(&state);
        options.plane.health_port = nodes.health_port;
        adjust(&mut options);
        let cloud = Cloud::start(options).await;
        let provider = cloud.provider();
        provider.restore(Vec::new()).await.unwrap();
        let all: Vec<&str> = nodes.list.iter().map(|node| node.name.as_str()).collect();
        provider.retarget(&nodes.targets(&all), &[]).await.unwrap();
        Self {
            cloud,
            provider,
            nodes,
            port: port(),
            _state: state,
        }
    }

    fn web(&self) -> LoadBalancer {
        let node_port = self.nodes.node_port;
        let ports = vec![
            listener(Protocol::Tcp, self.port, node_port),
            listener(Protocol::Udp, self.port, node_port),
        ];
        load_balancer("web", ports)
    }

    async fn ensure(&self, web: LoadBalancer) -> SocketAddr {
        let observed = self.provider.ensure(&balancer(web)).await.unwrap();
        let (_, observed) = &observed[0];
        assert_eq!(observed.state, State::Programmed, "{observed:?}");
        SocketAddr::new(observed.ingress[0].ip().unwrap(), self.port)
    }

    async fn retarget(&self, names: &[&str]) {
        self.provider
            .retarget(&self.nodes.targets(names), &[])
            .await
            .unwrap();
    }

    /// The nodes that answer this many connections.
    async fn answering(
        &self,
        at: SocketAddr,
        from: Option<IpAddr>,
        count: usize,
    ) -> BTreeSet<String> {
        let mut nodes = BTreeSet::new();
        for _ in 0..count {
            nodes.extend(
                Connection::open(at, from)
                    .await
                    .map(|connection| connection.node),
            );
        }
        nodes
    }

    /// Waits until exactly these nodes answer new connections.
    async fn only(&self, at: SocketAddr, names: &[&str]) {
        let wanted: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
        eventually(&format!("{names:?} answer"), async || {
            (self.answering(at, None, 12).await == wanted).then_some(())
        })
        .await;
    }
}

fn local(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

async fn udp_client(from: IpAddr, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

#[tokio::test]
async fn connections_go_round_over_all_nodes() {
    let lab = Lab::new(3).await;
    let at = lab.ensure(lab.web()).await;
    lab.only(at, &["n1", "n2", "n3"]).await;
}

#[tokio::test]
async fn each_half_of_a_connection_closes_for_itself() {
    let lab = Lab::new(1).await;
    let at = lab.ensure(lab.web()).await;
    let mut client = Connection::open(at, None).await.unwrap().stream;
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "helloend 5\n");
}

#[tokio::test]
async fn much_data_arrives_whole_at_a_slow_reader() {
    let lab = Lab::new(1).await;
    let at = lab.ensure(lab.web()).await;
    let client = Connection::open(at, None).await.unwrap().stream;
    let (mut reader, mut writer) = client.into_split();
    let sent: Vec<u8> = (0..4_000_000_u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let expected = sent.clone();
    let sender = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    let mut chunk = [0; 1000];
    loop {
        let length = reader.read(&mut chunk).await.unwrap();
        if length == 0 {
            break;
        }
        got.extend_from_slice(&chunk[..length]);
        tokio::task::yield_now().await;
    }
    sender.await.unwrap();
    assert_eq!(got.len(), expected.len() + "end 4000000\n".len());
    assert!(got.starts_with(&expected));
}

#[tokio::test]
async fn a_node_port_that_refuses_costs_a_second_try() {
    let lab = Lab::new(1).await;
    // Nothing listens there, and no node is healthy: the load balancer tries both.
    let ip: IpAddr = "127.9.9.9".parse().unwrap();
    let silent = Target {
        name: "n0".into(),
        provider_id: None,
        labels: std::sync::Arc::default(),
        addresses: vec![ip],
    };
    let mut nodes = lab.nodes.targets(&["n1"]).nodes;
    nodes.insert(silent);
    lab.provider
        .retarget(&TargetSet::of_nodes(nodes), &[])
        .await
        .unwrap();
    lab.nodes.set_healthy("n1", false);
    let at = lab.ensure(lab.web()).await;
    eventually("no node is healthy", async || {
        let health = health(&lab).await;
        health
            .iter()
            .all(|view| view["health"] == "unhealthy")
            .then_some(())
    })
    .await;
    for _ in 0..6 {
        assert_eq!(Connection::open(at, None).await.unwrap().node, "n1");
    }
}

#[tokio::test]
async fn an_unhealthy_node_gets_nothing_new_and_drains() {
    let lab = Lab::with(Nodes::start(2, true).await, |options| {
        options.plane.drain = Duration::from_millis(600);
    })
    .await;
    let at = lab.ensure(lab.web()).await;
    lab.only(at, &["n1", "n2"]).await;
    let mut old = eventually("a connection to n1", async || {
        Connection::open(at, None)
            .await
            .filter(|connection| connection.node == "n1")
    })
    .await;
    lab.nodes.set_healthy("n1", false);
    lab.only(at, &["n2"]).await;
    assert!(old.works().await, "it works while it drains");
    // The drain time ends it.
    let ended = tokio::time::timeout(crate::support::DEADLINE, async {
        while old.works().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    ended.await.expect("the connection outlives the drain time");
    lab.nodes.set_healthy("n1", true);
    lab.only(at, &["n1", "n2"]).await;
}

#[tokio::test]
async fn a_removed_node_gets_nothing_new_and_drains() {
    let lab = Lab::new(2).await;
    let at = lab.ensure(lab.web()).await;
    let mut old = eventually("a connection to n1", async || {
        Connection::open(at, None)
            .await
            .filter(|connection| connection.node == "n1")
    })
    .await;
    lab.retarget(&["n2"]).await;
    assert_eq!(
        lab.answering(at, None, 8).await,
        BTreeSet::from(["n2".into()])
    );
    assert!(old.works().await, "30 s of drain have not passed");
}

#[tokio::test]
async fn a_new_node_port_neither_closes_the_socket_nor_resets_connections() {
    let mut lab = Lab::new(1).await;
    let at = lab.ensure(lab.web()).await;
    let mut old = Connection::open(at, None).await.unwrap();
    let (ip, next) = (lab.nodes.list[0].ip, port());
    lab.nodes.serve("moved", ip, next).await;
    let mut edited = lab.web();
    for listener in &mut edited.listeners {
        listener.node_port = next;
    }
    // A client connects all the time and is never refused.
    let connecting = tokio::spawn(async move {
        let mut nodes = Vec::new();
        while nodes.last().is_none_or(|node| node != "moved") {
            nodes.push(Connection::open(at, None).await.expect("refused").node);
        }
    });
    lab.ensure(edited).await;
    tokio::time::timeout(crate::support::DEADLINE, connecting)
        .await
        .unwrap()
        .unwrap();
    assert!(old.works().await);
}

#[tokio::test]
async fn cluster_fails_open_and_local_does_not() {
    let lab = Lab::new(2).await;
    let at = lab.ensure(lab.web()).await;
    lab.only(at, &["n1", "n2"]).await;
    for name in ["n1", "n2"] {
        lab.nodes.set_healthy(name, false);
    }
    eventually("both are unhealthy", async || {
        let health = health(&lab).await;
        health
            .iter()
            .all(|view| view["health"] == "unhealthy")
            .then_some(())
    })
    .await;
    lab.only(at, &["n1", "n2"]).await;
    let mut local = lab.web();
    local.traffic_policy = TrafficPolicy::Local {
        health_check_node_port: lab.nodes.health_port,
    };
    lab.ensure(local).await;
    lab.only(at, &[]).await;
    lab.nodes.set_healthy("n2", true);
    lab.only(at, &["n2"]).await;
}

/// `GET …/targets` of the only load balancer.
async fn health(lab: &Lab) -> Vec<serde_json::Value> {
    let name = &lab.provider.inventory().await.unwrap()[0].name;
    let path = format!("/v1/load-balancers/{name}/targets");
    serde_json::from_value(crate::support::get(&lab.cloud, &path).await.1).unwrap()
}

#[tokio::test]
async fn without_a_health_port_the_node_port_is_tried() {
    let lab = Lab::with(Nodes::start(2, false).await, |_| {}).await;
    let mut nodes = lab.nodes.targets(&["n1", "n2"]).nodes;
    let gone = Target {
        name: "n9".into(),
        provider_id: None,
        labels: std::sync::Arc::default(),
        addresses: vec!["127.9.9.8".parse().unwrap()],
    };
    nodes.insert(gone);
    lab.provider
        .retarget(&TargetSet::of_nodes(nodes), &[])
        .await
        .unwrap();
    let at = lab.ensure(lab.web()).await;
    eventually("n9 is unhealthy, the others are healthy", async || {
        let health = health(&lab).await;
        let right = health.iter().all(|view| {
            let check = view["check"].as_str().unwrap();
            let wanted = if view["target"] == "n9" {
                "unhealthy"
            } else {
                "healthy"
            };
            view["health"] == wanted && check.starts_with("tcp ")
        });
        (health.len() == 6 && right).then_some(())
    })
    .await;
    lab.only(at, &["n1", "n2"]).await;
}

#[tokio::test]
async fn a_client_keeps_its_node_with_affinity_and_not_without() {
    let lab = Lab::new(3).await;
    let at = lab.ensure(lab.web()).await;
    lab.only(at, &["n1", "n2", "n3"]).await;
    let mut sticky = lab.web();
    sticky.affinity = Affinity::ClientIp {
        timeout_seconds: 60,
    };
    lab.ensure(sticky.clone()).await;
    let mut nodes = BTreeSet::new();
    for last in 1..=6 {
        let mine = lab.answering(at, Some(local(last)), 5).await;
        assert_eq!(mine.len(), 1, "client {last} met {mine:?}");
        let udp = udp_client(local(last), at).await;
        let answer = eventually("a UDP answer", async || ask(&udp, "x").await).await;
        assert_eq!(
            answer,
            format!("{} x", mine.first().unwrap()),
            "affinity is the Service's"
        );
        nodes.extend(mine);
    }
    assert_eq!(nodes.len(), 3, "clients are spread");
    lab.ensure(lab.web()).await;
    assert_eq!(lab.answering(at, Some(local(1)), 9).await.len(), 3);
}

#[tokio::test]
async fn source_ranges_hold_for_tcp_and_udp_and_can_be_lifted() {
    let lab = Lab::new(1).await;
    let mut web = lab.web();
    web.source_ranges = vec![
        "127.0.0.2/32".parse().unwrap(),
        "10.0.0.0/8".parse().unwrap(),
    ];
    let at = lab.ensure(web).await;
    lab.only(at, &[]).await;
    assert!(Connection::open(at, Some(local(2))).await.is_some());
    let (inside, outside) = (
        udp_client(local(2), at).await,
        udp_client(local(3), at).await,
    );
    assert_eq!(ask(&inside, "x").await.as_deref(), Some("n1 x"));
    assert_eq!(ask(&outside, "x").await, None);
    lab.ensure(lab.web()).await;
    assert!(Connection::open(at, Some(local(3))).await.is_some());
    assert_eq!(ask(&outside, "y").await.as_deref(), Some("n1 y"));
}

#[tokio::test]
async fn a_udp_client_moves_on_with_the_same_source_port() {
    let lab = Lab::new(2).await;
    let at = lab.ensure(lab.web()).await;
    lab.only(at, &["n1", "n2"]).await;
    let client = udp_client(local(1), at).await;
    // The socket is connected, so it receives answers only from the listener's address.
    let first = ask(&client, "a").await.unwrap();
    for _ in 0..5 {
        assert_eq!(
            ask(&client, "a").await.as_ref(),
            Some(&first),
            "one flow, one node"
        );
    }
    let (mine, other) = if first == "n1 a" {
        ("n1", "n2")
    } else {
        ("n2", "n1")
    };
    lab.nodes.set_healthy(mine, false);
    eventually("the other node answers", async || {
        let answer = ask(&client, "a").await?;
        (answer == format!("{other} a")).then_some(())
    })
    .await;
    lab.nodes.set_healthy(mine, true);
    lab.retarget(&[mine]).await;
    assert_eq!(
        ask(&client, "b").await,
        Some(format!("{mine} b")),
        "the removed one is left"
    );
}

#[tokio::test]
async fn a_udp_target_that_refuses_is_left() {
    let mut lab = Lab::new(2).await;
    let at = lab.ensure(lab.web()).await;
    let next = port();
    let ip = lab.nodes.list[1].ip;
    lab.nodes.serve("n2", ip, next).await;
    let mut edited = lab.web();
    for listener in &mut edited.listeners {
        listener.node_port = next;
    }
    lab.ensure(edited).await;
    // n1 is healthy, but nothing listens on its new node port.
    let client = udp_client(local(1), at).await;
    eventually("n2 answers", async || ask(&client, "a").await).await;
    for _ in 0..5 {
        assert_eq!(ask(&client, "b").await.as_deref(), Some("n2 b"));
    }
}

#[tokio::test]
async fn an_ipv6_listener_reaches_an_ipv4_node() {
    let lab = Lab::with(Nodes::start(1, true).await, |options| {
        options.addresses.push("::1".parse().unwrap());
    })
    .await;
    let mut web = lab.web();
    web.families = vec![Family::V6, Family::V4];
    let at = lab.ensure(web).await;
    assert!(at.is_ipv6());
    lab.only(at, &["n1"]).await;
    let client = udp_client("::1".parse().unwrap(), at).await;
    assert_eq!(ask(&client, "x").await.as_deref(), Some("n1 x"));
}

#[tokio::test]
async fn a_deleted_load_balancer_is_closed_and_its_connections_end() {
    let lab = Lab::new(1).await;
    let at = lab.ensure(lab.web()).await;
    let mut old = Connection::open(at, None).await.unwrap();
    lab.provider
        .release(&id("web"), &Key::alone(&id("web")), Removal::Delete)
        .await
        .unwrap();
    eventually("the port is closed", async || {
        tokio::net::TcpStream::connect(at)
            .await
            .is_err()
            .then_some(())
    })
    .await;
    eventually("the connection has ended", async || {
        (!old.works().await).then_some(())
    })
    .await;
}
