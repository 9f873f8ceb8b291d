//! Ports that a program of the node has, or had.

use ballast_mock::MockProvider;
use ballast_provider::{Key, LoadBalancer, Protocol, Provider, Reason, Removal, State};
use tokio::net::UdpSocket;

use super::{Lab, local, udp_client};
use crate::support::nodes::{ask, port};
use crate::support::{Cloud, balancer, eventually, id, listener, load_balancer, options};

#[tokio::test]
async fn a_port_in_use_is_named_and_tried_again() {
    let lab = Lab::new(1).await;
    // The first address of the range, with the port in use by a program of the machine.
    let mut probe = lab.web();
    probe.listeners.pop();
    let at = lab.ensure(probe).await;
    lab.provider
        .release(&id("web"), &Key::alone(&id("web")), Removal::Delete)
        .await
        .unwrap();
    let taken = tokio::net::TcpListener::bind(at).await.unwrap();
    let mut web = lab.web();
    web.requested_addresses = vec![at.ip()];
    let web = balancer(web);
    let observed = lab.provider.ensure(&web).await.unwrap().remove(0).1;
    let State::Pending {
        reason, message, ..
    } = observed.state
    else {
        panic!("{observed:?}");
    };
    assert_eq!(reason, Reason::PortInUse);
    assert!(
        message.contains(&at.to_string()) && message.contains("TCP"),
        "{message}"
    );
    // The other port of the same Service is open at that time.
    let udp = udp_client(local(1), at).await;
    eventually("UDP answers", async || ask(&udp, "x").await).await;
    drop(taken);
    eventually("it becomes Programmed", async || {
        let observed = lab.provider.ensure(&web).await.unwrap().remove(0).1;
        (observed.state == State::Programmed).then_some(())
    })
    .await;
    lab.only(at, &["n1"]).await;
}

/// A program and the cloud restart at the same moment.
#[tokio::test]
async fn a_port_that_a_program_had_is_left_to_it_after_a_restart_of_the_cloud() {
    let state = tempfile::tempdir().unwrap();
    let options = options(&state);
    let cloud = Cloud::start(options.clone()).await;
    let provider = cloud.provider();
    provider.restore(Vec::new()).await.unwrap();
    let port = port();
    let everywhere = (std::net::Ipv4Addr::UNSPECIFIED, port);
    let program = tokio::net::TcpListener::bind(everywhere).await.unwrap();
    let web = balancer(load_balancer(
        "web",
        vec![listener(Protocol::Tcp, port, 30_080)],
    ));
    let refused = async |provider: &MockProvider| {
        let observed = provider.ensure(&web).await.unwrap().remove(0).1;
        matches!(observed.state, State::Pending { reason, .. } if reason == Reason::PortInUse)
    };
    assert!(refused(&provider).await);
    cloud.stop().await;
    drop(program);
    let cloud = Cloud::start(options).await;
    let provider = cloud.provider();
    provider.restore(Vec::new()).await.unwrap();
    assert!(refused(&provider).await);
    let _program = tokio::net::TcpListener::bind(everywhere).await.unwrap();
}

/// A program that restarts finds its port free, however often the load balancer retries.
#[tokio::test]
async fn a_port_that_a_program_had_on_all_addresses_is_never_opened() {
    let lab = Lab::new(1).await;
    let everywhere = (std::net::Ipv4Addr::UNSPECIFIED, lab.port);
    let program = tokio::net::TcpListener::bind(everywhere).await.unwrap();
    let datagrams = UdpSocket::bind(everywhere).await.unwrap();
    let mut web = lab.web();
    let pending = async |web: &LoadBalancer| {
        let observed = lab.provider.ensure(&balancer(web.clone())).await;
        let observed = observed.unwrap().remove(0).1;
        let State::Pending {
            reason, message, ..
        } = observed.state
        else {
            panic!("{observed:?}");
        };
        assert_eq!(reason, Reason::PortInUse);
        message
    };
    let said = pending(&web).await;
    assert!(said.contains(&lab.port.to_string()), "{said}");
    drop((program, datagrams));
    web.source_ranges = vec!["127.0.0.0/8".parse().unwrap()];
    assert_eq!(pending(&web).await, said, "after another try");
    let _program = tokio::net::TcpListener::bind(everywhere).await.unwrap();
    let _datagrams = UdpSocket::bind(everywhere).await.unwrap();
}
