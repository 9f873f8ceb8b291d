//! Services with addresses from another controller, as after a migration: a class becomes the
//! default, and only the status records the addresses.

use serde_json::json;

use super::{SIX, TWO, given, lan, waits};
use crate::support::api::{Kind, Svc};
use crate::support::journal::Target;
use crate::support::lab::{Lab, crash_everywhere, simulate};

/// A Service without a class, with an address from another controller.
fn left(lab: &Lab, key: &str, address: &str) {
    lab.api.create_service(&Svc::new(key).classless());
    lab.api.edit(Kind::Service, key, |service| {
        let ingress = json!([{"ip": address, "ipMode": "VIP"}]);
        service["status"]["loadBalancer"]["ingress"] = ingress;
    });
}

fn becomes_default(lab: &Lab) {
    lab.api.edit(Kind::Class, "lan", |class| {
        class["spec"]["default"] = true.into();
    });
}

#[test]
fn a_class_that_becomes_the_default_takes_services_with_their_addresses() {
    simulate(90, async |lab| {
        lan(lab, TWO, &json!({}));
        // The oldest Service has no address; it would take one of the others if it were free
        // for a moment.
        lab.api.create_service(&Svc::new("shop/waits").classless());
        lab.rest(1).await;
        left(lab, "shop/a", "203.0.113.1");
        left(lab, "shop/b", "203.0.113.2");
        lab.start();
        lab.led().await;
        lab.rest(5).await;
        becomes_default(lab);
        assert_eq!(given(lab, "shop/a").await, "203.0.113.1");
        assert_eq!(given(lab, "shop/b").await, "203.0.113.2");
        waits(lab, "shop/waits", "NoAddressAvailable").await;
        lab.settle().await;
        lab.assert_steady().await;
        assert_eq!(lab.addresses("shop/a"), ["203.0.113.1"]);
        assert_eq!(lab.addresses("shop/b"), ["203.0.113.2"]);
        // A published address is not assigned to another Service, even if addresses do not
        // rest.
        lab.api.delete(Kind::Service, "shop/a");
        assert_eq!(given(lab, "shop/waits").await, "203.0.113.1");
        lab.gone(Kind::Service, "shop/a").await;
    });
}

#[test]
fn a_leader_that_finds_them_at_its_start_takes_them_too() {
    crash_everywhere(async |lab| {
        lan(lab, SIX, &json!({}));
        lab.api.create_service(&Svc::new("shop/waits").classless());
        left(lab, "shop/a", "203.0.113.1");
        becomes_default(lab);
        lab.start();
        assert_eq!(given(lab, "shop/a").await, "203.0.113.1");
        assert_eq!(given(lab, "shop/waits").await, "203.0.113.2");
    });
}

fn says(lab: &Lab, key: &str) -> String {
    let accepted = lab.condition(key, "Accepted");
    accepted.map_or(String::new(), |it| {
        it["message"].as_str().unwrap().to_owned()
    })
}

/// Like the load balancer of k3s, which publishes the nodes' addresses.
#[test]
fn a_published_node_address_is_replaced_and_the_service_and_an_event_say_why() {
    crash_everywhere(async |lab| {
        lan(lab, SIX, &json!({}));
        left(lab, "shop/a", "192.0.2.1");
        lab.api.edit(Kind::Service, "shop/a", |service| {
            let nodes =
                json!([{"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "192.0.2.2", "ipMode": "VIP"}]);
            service["status"]["loadBalancer"]["ingress"] = nodes;
        });
        becomes_default(lab);
        lab.start();
        lab.led().await;
        lab.until("shop/a has an address of the pool", |lab| {
            lab.addresses("shop/a") == ["203.0.113.1"]
                && lab.condition("shop/a", "Accepted").unwrap()["status"] == "True"
        })
        .await;
    });
}

#[test]
fn the_reason_for_another_address_stays_in_the_condition() {
    simulate(94, async |lab| {
        lan(lab, SIX, &json!({}));
        left(lab, "shop/a", "192.0.2.1");
        becomes_default(lab);
        lab.start();
        lab.led().await;
        assert_eq!(given(lab, "shop/a").await, "203.0.113.1");
        lab.settle().await;
        let said = says(lab, "shop/a");
        let why = "192.0.2.1 in the status was not assigned by Ballast and cannot be used: it is the address of a node";
        assert!(said.contains(why), "{said}");
        let events = lab.effects(0, Target::Event);
        assert_eq!(events.len(), 1, "{}", lab.dump());
        assert!(events[0].detail.contains(why), "{:?}", events[0]);
        lab.assert_steady().await;
    });
}

/// A status that another writer changed while there was no leader is not the record.
#[test]
fn an_address_that_is_written_over_a_service_of_ours_is_replaced_too() {
    simulate(95, async |lab| {
        lan(lab, SIX, &json!({}));
        lab.api
            .create_service(&Svc::new("shop/a").class("ballast.dev/lan"));
        lab.start();
        assert_eq!(given(lab, "shop/a").await, "203.0.113.1");
        lab.stop().await;
        lab.api.edit(Kind::Service, "shop/a", |service| {
            let ingress = json!([{"ip": "192.0.2.2", "ipMode": "VIP"}]);
            service["status"]["loadBalancer"]["ingress"] = ingress;
        });
        lab.start();
        lab.until("shop/a has an address of the pool again", |lab| {
            lab.addresses("shop/a")
                .iter()
                .all(|it| it.starts_with("203.0.113."))
        })
        .await;
        lab.settle().await;
        assert!(says(lab, "shop/a").contains("192.0.2.2 in the status was not assigned"));
    });
}

#[test]
fn an_address_that_becomes_a_nodes_stays_and_the_service_says_so() {
    simulate(96, async |lab| {
        lan(lab, SIX, &json!({}));
        lab.api
            .create_service(&Svc::new("shop/a").class("ballast.dev/lan"));
        lab.start();
        lab.led().await;
        assert_eq!(given(lab, "shop/a").await, "203.0.113.1");
        lab.api.create_node("node-9", "203.0.113.1");
        let why = "203.0.113.1 is also the address of a node; the Service keeps it";
        lab.until("shop/a says so", |lab| says(lab, "shop/a").contains(why))
            .await;
        lab.rest(7).await;
        let mark = lab.journal.mark();
        lab.restart().await;
        lab.led().await;
        lab.rest(7).await;
        assert_eq!(lab.addresses("shop/a"), ["203.0.113.1"]);
        assert!(says(lab, "shop/a").contains(why), "{}", says(lab, "shop/a"));
        assert_eq!(
            lab.effects(mark, Target::Service).len(),
            0,
            "{}",
            lab.dump()
        );
        lab.api.delete(Kind::Node, "node-9");
        lab.until("shop/a is accepted", |lab| {
            lab.condition("shop/a", "Accepted").unwrap()["status"] == "True"
        })
        .await;
    });
}
