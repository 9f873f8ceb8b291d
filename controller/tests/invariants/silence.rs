//! Watches that stay open, report no error and miss changes; and a replica that only watches.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::api::{Kind, Port, Svc};
use crate::support::lab::{Lab, simulate};

/// Within this time (in seconds) a silent watch is detected and the missed changes are
/// corrected. It is shorter than the time after which the API server ends a watch.
const HEALED: u64 = 240;

const WEB: &str = "shop/web";

/// The ports that the load balancer of [`WEB`] serves.
fn ports(lab: &Lab) -> Vec<u16> {
    let uid = lab.uid(WEB);
    let mut balancers = lab.cloud.balancers().into_values();
    let web = balancers.find(|lb| lb.is_of(&uid)).and_then(|lb| lb.shape);
    let listeners = web.into_iter().flat_map(|shape| shape.listeners);
    listeners.map(|listener| listener.port).collect()
}

/// A Service that is changed, created or deleted, a class, and a node.
#[test]
fn a_watch_that_is_silent_is_noticed_and_corrected() {
    simulate(91, async |lab| {
        lab.start();
        lab.api.create_service(&Svc::new(WEB));
        lab.api.create_service(&Svc::new("shop/old"));
        lab.served(WEB).await;
        lab.served("shop/old").await;
        lab.api.silence_watches();
        lab.api.set_ports(WEB, &[Port(81, "TCP")]);
        lab.api.strip("shop/old");
        lab.api.delete(Kind::Service, "shop/old");
        lab.api.create_service(&Svc::new("shop/new"));
        lab.api.create_node("node-3", "192.0.2.3");
        lab.api.create_class("second", &json!({}));
        lab.api
            .create_service(&Svc::new("shop/second").class("ballast.dev/second"));
        lab.rest(HEALED).await;
        assert_eq!(ports(lab), [81], "{}", lab.dump());
        // What the list of Services does not have is deleted after the grace.
        lab.settle().await;
    });
}

/// Everything written after the backup is undone: a change, a creation and a deletion. What was created
/// later is deleted only when a younger Service shows that the API server goes on.
#[test]
fn resource_versions_that_go_back_are_noticed_and_corrected() {
    simulate(92, async |lab| {
        lab.start();
        lab.api.create_service(&Svc::new(WEB));
        lab.api.create_service(&Svc::new("shop/old"));
        lab.served(WEB).await;
        lab.served("shop/old").await;
        let backup = lab.api.backup();
        lab.rest(60).await;
        lab.api.set_ports(WEB, &[Port(81, "TCP")]);
        lab.api.delete(Kind::Service, "shop/old");
        lab.api.create_service(&Svc::new("shop/new"));
        lab.settle().await;
        lab.rest(60).await;
        lab.api.restore(backup);
        lab.rest(HEALED).await;
        let uids = |lab: &Lab| crate::support::cloud::uids(&lab.cloud.ours()).len();
        assert_eq!(uids(lab), 3, "{}", lab.dump());
        assert_eq!(ports(lab), [80], "{}", lab.dump());
        lab.api.create_service(&Svc::new("shop/younger"));
        lab.settle().await;
    });
}

/// A follower's queue has no workers: a Service in it would only age, and the process would be
/// restarted for it.
#[test]
fn a_follower_stays_alive_whatever_changes() {
    simulate(93, async |lab| {
        lab.start();
        lab.led().await;
        lab.api.create_service(&Svc::new(WEB));
        lab.served(WEB).await;
        // A port that is free now.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        lab.admin = free.local_addr().unwrap();
        drop(free);
        lab.start();
        lab.rest(30).await;
        lab.api.edit(Kind::Namespace, "shop", |namespace| {
            namespace["metadata"]["labels"] = json!({"tier": "front"});
        });
        lab.api.compact();
        lab.rest(700).await;
        let mut stream = TcpStream::connect(lab.admin).await.unwrap();
        let request = b"GET /livez HTTP/1.1\r\nHost: ballast\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("alive\n"), "{answer}");
    });
}
