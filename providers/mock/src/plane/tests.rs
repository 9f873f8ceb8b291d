//! The plane with real sockets on loopback, for what only the inside shows.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::api::{Affinity, Listener, Protocol};

fn config(node_port: u16, port: u16) -> Config {
    Config {
        addresses: vec![[127, 78, 0, 1].into()],
        listeners: vec![Listener {
            name: None,
            protocol: Protocol::Tcp,
            port,
            node_port,
        }],
        policy: TrafficPolicy::Cluster,
        affinity: Affinity::None,
        source_ranges: Vec::new(),
        target_set: "nodes".into(),
    }
}

fn target(name: &str) -> Target {
    Target {
        name: name.into(),
        addresses: vec![[127, 0, 0, 1].into()],
    }
}

/// Says hello and keeps the connection.
async fn node(listener: TcpListener) {
    let mut held = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"!")
            .await
            .unwrap();
        held.push(stream);
    }
}

#[tokio::test]
async fn a_change_of_targets_is_computed_once_however_many_connections_there_are() {
    const CONNECTIONS: usize = 100;
    const CHANGES: u64 = 20;
    let stop = CancellationToken::new();
    let options = PlaneOptions {
        health_interval: Duration::from_hours(1),
        drain: Duration::from_millis(50),
        ..PlaneOptions::default()
    };
    let plane = Plane::start(options, &[], stop.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node_port = listener.local_addr().unwrap().port();
    tokio::spawn(node(listener));
    plane.set_targets("nodes", vec![target("a")]);
    let free = std::net::TcpListener::bind("127.78.0.1:0").unwrap();
    let at = free.local_addr().unwrap();
    drop(free);
    let opened = plane.apply("web", Some(config(node_port, at.port())));
    assert!(opened.is_ok());
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = TcpStream::connect(at).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
        clients.push(client);
    }
    let computed = || plane.shared.computations.load(Ordering::Relaxed);
    let before = computed();
    for number in 0..CHANGES {
        // Somebody else's targets, and one more of these.
        plane.set_targets("other", vec![target(&number.to_string())]);
        plane.set_targets("nodes", vec![target("a"), target(&format!("b{number}"))]);
        for _ in 0..CONNECTIONS {
            tokio::task::yield_now().await;
        }
    }
    let each = (computed() - before).div_ceil(2 * CHANGES);
    assert!(
        (1..=2).contains(&each),
        "{each} computations for one change"
    );
    // They still learn that their target is gone.
    plane.set_targets("nodes", vec![target("c")]);
    for mut client in clients {
        let end = tokio::time::timeout(Duration::from_secs(20), client.read_u8()).await;
        assert!(end.unwrap().is_err(), "reset after the drain time");
    }
    stop.cancel();
}

#[test]
fn the_limit_of_open_files_bounds_connections_and_flows() {
    let options = PlaneOptions::default();
    assert_eq!(within(&options, 1_048_576), (8_192, 8_192));
    assert_eq!(within(&options, 1_024), (256, 256));
}
