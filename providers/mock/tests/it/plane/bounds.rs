//! Connections and UDP clients are bounded, for each load balancer and in total.

use std::net::SocketAddr;

use super::{Lab, local, udp_client};
use crate::support::nodes::{Connection, Nodes, ask};
use crate::support::{eventually, id};

#[tokio::test]
async fn connections_are_bounded_per_load_balancer() {
    let lab = Lab::with(Nodes::start(1, true).await, |options| {
        options.plane.max_connections = 2;
    })
    .await;
    let at = lab.ensure(lab.web()).await;
    let first = Connection::open(at, None).await.unwrap();
    let _second = Connection::open(at, None).await.unwrap();
    assert!(Connection::open(at, None).await.is_none());
    drop(first);
    eventually("a place is free again", async || {
        Connection::open(at, None).await
    })
    .await;
}

/// A load balancer that uses all connections it can get leaves some for others.
#[tokio::test]
async fn connections_are_bounded_in_total_and_shared() {
    let lab = Lab::with(Nodes::start(1, true).await, |options| {
        options.plane.max_total_connections = 8;
    })
    .await;
    let busy = lab.ensure(lab.web()).await;
    let mut other = lab.web();
    other.id = id("other");
    let other = lab.ensure(other).await;
    let open = async |at: SocketAddr| {
        let mut held = Vec::new();
        while let Some(connection) = Connection::open(at, None).await {
            held.push(connection);
        }
        held
    };
    let held = open(busy).await;
    assert_eq!(held.len(), 4);
    assert_eq!(open(other).await.len(), 2);
    drop(held);
    eventually("places are free again", async || {
        Connection::open(busy, None).await
    })
    .await;
}

/// Many clients with one datagram each do not keep new clients out.
#[tokio::test]
async fn clients_that_sent_one_datagram_make_room_for_others() {
    let lab = Lab::with(Nodes::start(1, true).await, |options| {
        options.plane.max_flows = 16;
    })
    .await;
    let at = lab.ensure(lab.web()).await;
    let first = udp_client(local(1), at).await;
    for text in ["a", "b"] {
        assert_eq!(ask(&first, text).await, Some(format!("n1 {text}")));
    }
    let mut flood = Vec::new();
    for _ in 0..50 {
        let client = udp_client(local(2), at).await;
        client.send(b"x").await.unwrap();
        flood.push(client);
    }
    // New clients are served, and an established client keeps its flow.
    for last in 3..30 {
        let client = udp_client(local(last), at).await;
        let answer = eventually("a newcomer's answer", async || ask(&client, "n").await).await;
        assert_eq!(answer, "n1 n");
    }
    assert_eq!(ask(&first, "c").await.as_deref(), Some("n1 c"));
}

#[tokio::test]
async fn udp_clients_are_bounded_in_total_and_shared() {
    let lab = Lab::with(Nodes::start(1, true).await, |options| {
        options.plane.max_total_flows = 4;
    })
    .await;
    let busy = lab.ensure(lab.web()).await;
    let mut other = lab.web();
    other.id = id("other");
    let other = lab.ensure(other).await;
    // Both sides have sent twice, so the flows are in use.
    let mut held = Vec::new();
    for last in 1..=2 {
        let client = udp_client(local(last), busy).await;
        for text in ["a", "b"] {
            assert_eq!(ask(&client, text).await, Some(format!("n1 {text}")));
        }
        held.push(client);
    }
    let third = udp_client(local(3), busy).await;
    assert_eq!(ask(&third, "x").await, None, "half of all places");
    let client = udp_client(local(4), other).await;
    assert_eq!(ask(&client, "x").await.as_deref(), Some("n1 x"));
}
