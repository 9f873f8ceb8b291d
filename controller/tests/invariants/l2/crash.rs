//! Invariant 5 for addresses: after a crash between any two effects, no address is assigned
//! twice and every Service gets one.

use serde_json::json;

use super::{LAN, SIX, WEB, create, given, lan, svc, waits};
use crate::support::api::{Kind, Svc};
use crate::support::lab::crash_everywhere;

#[test]
fn while_a_service_gets_its_address() {
    crash_everywhere(async |lab| {
        lan(lab, SIX, &json!({}));
        lab.api.create_service(&svc(WEB));
        lab.start();
        given(lab, WEB).await;
    });
}

#[test]
fn while_a_service_without_a_class_comes_and_goes() {
    crash_everywhere(async |lab| {
        lan(lab, SIX, &json!({}));
        lab.api.edit(Kind::Class, "lan", |class| {
            class["spec"]["default"] = true.into();
        });
        lab.api.create_service(&Svc::new(WEB).classless());
        lab.start();
        given(lab, WEB).await;
        lab.api.delete(Kind::Service, WEB);
        lab.gone(Kind::Service, WEB).await;
    });
}

#[test]
fn while_the_last_address_changes_hands() {
    crash_everywhere(async |lab| {
        lan(lab, "203.0.113.1", &json!({}));
        create(lab, &["shop/a", "shop/b", "shop/c"]).await;
        lab.start();
        given(lab, "shop/a").await;
        waits(lab, "shop/b", "NoAddressAvailable").await;
        waits(lab, "shop/c", "NoAddressAvailable").await;
        lab.api.delete(Kind::Service, "shop/a");
        given(lab, "shop/b").await;
        lab.api.set_type("shop/b", "ClusterIP", None);
        given(lab, "shop/c").await;
    });
}

#[test]
fn while_services_move_to_another_pool() {
    crash_everywhere(async |lab| {
        lan(lab, SIX, &json!({}));
        create(lab, &["shop/a", "shop/b"]).await;
        lab.start();
        given(lab, "shop/a").await;
        given(lab, "shop/b").await;
        lab.api.delete(Kind::Pool, "front");
        lab.api
            .create_pool("back", &["198.18.0.0/28"], &json!({"reallocate": true}));
        lab.until("both have moved", |lab| {
            let moved = |key: &&str| {
                lab.addresses(key)
                    .iter()
                    .all(|it| it.starts_with("198.18."))
            };
            ["shop/a", "shop/b"].iter().all(moved)
        })
        .await;
    });
}

#[test]
fn while_a_service_goes_from_a_pool_to_a_cloud_and_back() {
    crash_everywhere(async |lab| {
        lan(lab, SIX, &json!({}));
        lab.api.create_service(&svc(WEB));
        lab.start();
        given(lab, WEB).await;
        lab.api.set_type(WEB, "ClusterIP", None);
        lab.api
            .set_type(WEB, "LoadBalancer", Some("ballast.dev/local"));
        lab.served(WEB).await;
        lab.api.set_type(WEB, "ClusterIP", None);
        lab.settle().await;
        lab.api.set_type(WEB, "LoadBalancer", Some(LAN));
        given(lab, WEB).await;
    });
}
