//! Services that another controller gave their addresses, as after a migration: a class
//! becomes the default, and the status is all that tells of them.

use serde_json::json;

use super::{SIX, TWO, given, lan, waits};
use crate::support::api::{Kind, Svc};
use crate::support::lab::{Lab, crash_everywhere, simulate};

/// A Service without a class, with the address that somebody else gave it.
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
        // The oldest has none; a moment of freedom of the others' would be enough for it.
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
        // Nobody gets an address that is still published, though it rests for no time.
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
