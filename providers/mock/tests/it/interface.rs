//! Addresses on a network interface: the cloud on one host, a neighbour at the other end of
//! the wire. Needs root.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::support::{Cloud, call, eventually};
use ballast_link::Links;
use ballast_link::testbed::{Host, eth0, netlink, on, segment};
use ballast_mock::server::{InterfaceChoice, ServerOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The first address that the cloud uses in 192.0.2.0/24.
const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 191);
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 192);
const NODE_V6: &str = "2001:db8::1";
/// The first address that it uses in the node's IPv6 network.
const FIRST_V6: &str = "2001:db8::ffff:ffff:ffff:ff02";

/// Two hosts: the node that runs the cloud, and its neighbour.
fn hosts() -> (Host, Host) {
    let (node, neighbour) = segment();
    on(&node, async || {
        give(NODE.into(), 24).await;
        give(NODE_V6.parse().unwrap(), 64).await;
    });
    on(&neighbour, async || {
        give(NEIGHBOUR.into(), 24).await;
        give("2001:db8::2".parse().unwrap(), 64).await;
    });
    (node, neighbour)
}

/// Adds an address that is not the cloud's.
async fn give(ip: IpAddr, prefix: u8) {
    let links = Links::connect().unwrap();
    let index = eth0(&links).await.index;
    let given = netlink().address().add(index, ip, prefix).execute().await;
    given.unwrap();
    let all = async || links.addresses().await.unwrap();
    eventually("the kernel has asked for the address", async || {
        let all = all().await;
        let it = all.iter().find(|it| it.net.addr() == ip)?;
        (!it.tentative).then_some(())
    })
    .await;
}

/// Removes an address that has the prefix of a single host.
async fn take(ip: IpAddr) {
    let links = Links::connect().unwrap();
    let index = eth0(&links).await.index;
    links.remove(index, ip).await.unwrap();
}

fn options(state: &TempDir) -> ServerOptions {
    let mut options = crate::support::options(state);
    options.addresses = Vec::new();
    options.interface = Some(InterfaceChoice::Named("eth0".into()));
    // As in a cluster: a restarted cloud is recognised by its listen address.
    options.listen = ([127, 0, 0, 1], 8111).into();
    options
}

/// The addresses on the interface that any cloud added.
async fn ours() -> Vec<IpAddr> {
    let all = Links::connect().unwrap().addresses().await.unwrap();
    let ours = all.iter().filter(|it| it.mark.is_some());
    let mut ips: Vec<IpAddr> = ours.map(|it| it.net.addr()).collect();
    ips.sort();
    ips
}

fn desired(families: &Value, port: u16) -> Value {
    let listener = |protocol| json!({"protocol": protocol, "port": port, "nodePort": 30_080});
    json!({
        "families": families,
        "listeners": [listener("TCP"), listener("UDP")],
        "trafficPolicy": "cluster",
        "affinity": "none",
        "targetSet": "nodes",
    })
}

fn body(families: &Value, port: u16) -> Value {
    json!({"desired": desired(families, port)})
}

async fn put(cloud: &Cloud, name: &str, body: Value) -> (u16, Value) {
    let path = format!("/v1/load-balancers/{name}");
    call(cloud, "PUT", &path, Some(body)).await
}

async fn delete(cloud: &Cloud, name: &str) {
    let path = format!("/v1/load-balancers/{name}");
    assert_eq!(call(cloud, "DELETE", &path, None).await.0, 204);
}

fn v4() -> Value {
    json!(["IPv4"])
}

#[test]
fn a_neighbour_reaches_both_families_and_nothing_is_left_at_the_end() {
    let (node, neighbour) = hosts();
    let (up, ready) = std::sync::mpsc::channel();
    let (seen, done) = tokio::sync::oneshot::channel();
    std::thread::scope(|scope| {
        let neighbour = &neighbour;
        let client = scope.spawn(move || {
            let reached: Vec<SocketAddr> = ready.recv().unwrap();
            on(neighbour, async || {
                for address in reached {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    let mut text = String::new();
                    stream.read_to_string(&mut text).await.unwrap();
                    assert_eq!(text, "hello", "{address}");
                }
            });
            seen.send(()).unwrap();
        });
        on(&node, async move || {
            tokio::spawn(backend());
            let state = TempDir::new().unwrap();
            let cloud = Cloud::start(options(&state)).await;
            let targets = json!({"targets": [{"name": "node", "addresses": [NODE, NODE_V6]}]});
            let set = call(&cloud, "PUT", "/v1/target-sets/nodes", Some(targets)).await;
            assert_eq!(set.0, 200, "{}", set.1);
            let (status, made) = put(&cloud, "web", body(&json!(["IPv4", "IPv6"]), 80)).await;
            assert_eq!((status, &made["state"]), (201, &json!("active")), "{made}");
            assert_eq!(made["addresses"], json!([FIRST, FIRST_V6]));
            assert_eq!(
                ours().await,
                [IpAddr::from(FIRST), FIRST_V6.parse().unwrap()]
            );
            up.send(vec![
                (FIRST, 80).into(),
                format!("[{FIRST_V6}]:80").parse().unwrap(),
            ])
            .unwrap();
            done.await.unwrap();
            let (_, other) = put(&cloud, "other", body(&v4(), 80)).await;
            assert_eq!(other["addresses"], json!([SECOND]));
            delete(&cloud, "web").await;
            assert_eq!(ours().await, [IpAddr::from(SECOND)]);
            cloud.stop().await;
            assert_eq!(ours().await, [] as [IpAddr; 0]);
        });
        client.join().unwrap();
    });
}

/// A stand-in for a node port: both families, TCP.
async fn backend() {
    let v4 = TcpListener::bind((NODE, 30_080)).await.unwrap();
    let v6 = TcpListener::bind(format!("[{NODE_V6}]:30080"))
        .await
        .unwrap();
    loop {
        let accepted = tokio::select! { it = v4.accept() => it, it = v6.accept() => it };
        let (mut stream, _) = accepted.unwrap();
        tokio::spawn(async move { stream.write_all(b"hello").await });
    }
}

#[test]
fn an_address_that_a_neighbour_has_is_left_alone() {
    let (node, neighbour) = hosts();
    on(&neighbour, async || {
        give(FIRST.into(), 24).await;
        give(FIRST_V6.parse().unwrap(), 64).await;
    });
    on(&node, async || {
        let state = TempDir::new().unwrap();
        let cloud = Cloud::start(options(&state)).await;
        let (status, made) = put(&cloud, "web", body(&json!(["IPv4", "IPv6"]), 80)).await;
        assert_eq!(status, 201, "{made}");
        let next_v6 = "2001:db8::ffff:ffff:ffff:ff03";
        assert_eq!(made["addresses"], json!([SECOND, next_v6]));
        assert_eq!(
            ours().await,
            [IpAddr::from(SECOND), next_v6.parse().unwrap()]
        );

        let mut wanted = body(&v4(), 80);
        wanted["desired"]["requestedAddresses"] = json!([FIRST]);
        let (status, refused) = put(&cloud, "wants", wanted.clone()).await;
        assert_eq!(
            (status, &refused["code"]),
            (409, &json!("addressInUse")),
            "{refused}"
        );
        let said = refused["message"].as_str().unwrap();
        assert!(
            said.contains("192.0.2.191") && said.contains("MAC address"),
            "{said}"
        );

        wanted["desired"]["requestedAddresses"] = json!([NODE]);
        let mut own = options(&state);
        own.addresses = vec!["192.0.2.1".parse().unwrap()];
        own.state_dir = state.path().join("own");
        own.listen.set_port(8112);
        let another = Cloud::start(own).await;
        let (_, refused) = put(&another, "own", wanted).await;
        let said = refused["message"].as_str().unwrap();
        assert!(said.contains("the node itself"), "{said}");
        another.stop().await;
        cloud.stop().await;
        let all = Links::connect().unwrap().addresses().await.unwrap();
        assert!(all.iter().any(|it| it.net.addr() == IpAddr::from(NODE)));
    });
}

#[test]
fn a_crash_leaves_the_address_to_the_next_life() {
    let (node, _neighbour) = hosts();
    let state = TempDir::new().unwrap();
    on(&node, async || {
        let cloud = Cloud::start(options(&state)).await;
        put(&cloud, "web", body(&v4(), 80)).await;
        assert_eq!(ours().await, [IpAddr::from(FIRST)]);
        // The runtime drops its tasks, and they clean up nothing.
        std::mem::forget(cloud);
    });
    on(&node, async || {
        assert_eq!(ours().await, [IpAddr::from(FIRST)], "after a crash");
        let cloud = Cloud::start(options(&state)).await;
        assert_eq!(ours().await, [IpAddr::from(FIRST)], "taken over");
        TcpStream::connect((FIRST, 80)).await.unwrap();
        std::mem::forget(cloud);
    });
    on(&node, async || {
        let lost = TempDir::new().unwrap();
        let cloud = Cloud::start(options(&lost)).await;
        assert_eq!(ours().await, [] as [IpAddr; 0], "no load balancer has it");
        // Its Service still publishes the address, and gets it again.
        let mut again = body(&v4(), 80);
        again["preferredAddresses"] = json!([SECOND]);
        let (_, made) = put(&cloud, "web", again).await;
        assert_eq!(made["addresses"], json!([SECOND]));
        cloud.stop().await;
    });
}

/// Two installations whose clouds run on one node.
#[test]
fn two_clouds_on_a_node_leave_each_other_alone() {
    let (node, _neighbour) = hosts();
    on(&node, async || {
        let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let mut other = options(&two);
        other.listen.set_port(8112);
        let first = Cloud::start(options(&one)).await;
        put(&first, "web", body(&v4(), 80)).await;
        let second = Cloud::start(other).await;
        assert_eq!(ours().await, [IpAddr::from(FIRST)], "not the second's");
        let (_, made) = put(&second, "web", body(&v4(), 80)).await;
        assert_eq!(made["addresses"], json!([SECOND]));
        second.stop().await;
        assert_eq!(ours().await, [IpAddr::from(FIRST)]);
        first.stop().await;
    });
}

#[test]
fn a_published_address_that_a_former_life_has_elsewhere_is_waited_for() {
    let (node, neighbour) = hosts();
    on(&neighbour, async || give(SECOND.into(), 32).await);
    on(&node, async || {
        let state = TempDir::new().unwrap();
        let cloud = Cloud::start(options(&state)).await;
        let mut published = body(&v4(), 80);
        published["preferredAddresses"] = json!([SECOND]);
        let (status, refused) = put(&cloud, "web", published.clone()).await;
        assert_eq!(status, 409, "{refused}");
        assert_eq!(ours().await, [] as [IpAddr; 0]);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| on(&neighbour, async || take(SECOND.into()).await));
            other.join().unwrap();
        });
        let made = eventually("the address is free", async || {
            let (status, made) = put(&cloud, "web", published.clone()).await;
            (status == 201).then_some(made)
        });
        assert_eq!(made.await["addresses"], json!([SECOND]));
        cloud.stop().await;
    });
}

/// What a daemon of the node does at its start: it listens on all addresses of both families.
async fn daemon(port: u16) -> (TcpListener, UdpSocket) {
    let tcp = TcpListener::bind(("::", port)).await;
    let udp = UdpSocket::bind(("::", port)).await;
    (tcp.unwrap(), udp.unwrap())
}

/// Creates a load balancer whose ports stay closed. Returns the message.
async fn refused(cloud: &Cloud, port: u16) -> String {
    let (_, made) = put(cloud, &format!("on-{port}"), body(&v4(), port)).await;
    assert_eq!(made["state"], "provisioning", "{made}");
    assert_eq!(made["problem"]["code"], "portInUse", "{made}");
    let said = made["problem"]["message"].as_str().unwrap();
    assert!(said.contains(&format!(":{port}")), "{said}");
    said.to_owned()
}

#[test]
fn a_daemon_of_the_node_can_always_start_again() {
    let (node, _neighbour) = hosts();
    on(&node, async || {
        // One program was seen and has ended when its port is requested; another one still
        // runs.
        let seen = daemon(9101).await;
        let running = daemon(9102).await;
        let state = TempDir::new().unwrap();
        let cloud = Cloud::start(options(&state)).await;
        drop(seen);
        for port in [9101, 9102] {
            let said = refused(&cloud, port).await;
            assert!(said.contains("restart"), "{said}");
        }
        // It restarts, and the cloud tries the load balancer's ports in between.
        drop(running);
        let mut again = body(&v4(), 9102);
        again["desired"]["sourceRanges"] = json!(["192.0.2.0/24"]);
        let (_, still) = put(&cloud, "on-9102", again).await;
        assert_eq!(still["state"], "provisioning", "{still}");
        let _back = (daemon(9101).await, daemon(9102).await);
        cloud.stop().await;
    });
}

#[test]
fn a_well_known_port_of_a_node_is_reserved_before_its_daemon_starts() {
    let (node, _neighbour) = hosts();
    on(&node, async || {
        let state = TempDir::new().unwrap();
        let cloud = Cloud::start(options(&state)).await;
        for port in [10_250, 22, 8472, 7946] {
            let said = refused(&cloud, port).await;
            assert!(said.contains("--reserved-ports"), "{said}");
        }
        // kubelet, sshd, and the port that a CNI plugin opens for VXLAN.
        let _kubelet = TcpListener::bind("[::]:10250").await.unwrap();
        let _sshd = TcpListener::bind("0.0.0.0:22").await.unwrap();
        let _vxlan = UdpSocket::bind("0.0.0.0:8472").await.unwrap();
        let _memberlist = daemon(7946).await;
        cloud.stop().await;
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let (node, _neighbour) = hosts();
    on(&node, async || {
        let state = TempDir::new().unwrap();
        let mut wrong = options(&state);
        wrong.interface = Some(InterfaceChoice::Named("eth7".into()));
        let started = ballast_mock::server::Server::start(wrong, CancellationToken::new()).await;
        let error = started.err().unwrap().to_string();
        assert!(error.contains("eth7") && error.contains("eth0"), "{error}");
    });
}
