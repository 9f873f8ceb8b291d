//! Invariant 5: after a crash between any two effects and a restart, the state converges, with
//! no leaks and no duplicates. Each scenario runs once per effect and per kind of cut.

use std::time::Duration;

use serde_json::json;

use crate::support::api::{Kind, Port, Svc};
use crate::support::journal::Target;
use crate::support::lab::{Lab, crash_everywhere};

const WEB: &str = "shop/web";

async fn serve(lab: &mut Lab) {
    lab.api.create_service(&Svc::new(WEB));
    lab.start();
    lab.served(WEB).await;
}

#[test]
fn while_a_service_is_created() {
    crash_everywhere(serve);
}

#[test]
fn while_a_slow_cloud_makes_and_removes_it() {
    crash_everywhere(async |lab| {
        lab.cloud
            .take_time(Duration::from_secs(90), Duration::from_secs(40));
        serve(lab).await;
        lab.api.delete(Kind::Service, WEB);
        lab.gone(Kind::Service, WEB).await;
    });
}

#[test]
fn while_a_service_without_a_class_is_created_and_deleted() {
    crash_everywhere(async |lab| {
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["default"] = true.into();
        });
        lab.api.create_service(&Svc::new(WEB).classless());
        lab.start();
        lab.settle().await;
        lab.api.delete(Kind::Service, WEB);
        lab.gone(Kind::Service, WEB).await;
    });
}

#[test]
fn while_ports_are_edited() {
    crash_everywhere(async |lab| {
        serve(lab).await;
        let address = lab.addresses(WEB);
        lab.api
            .set_ports(WEB, &[Port(80, "TCP"), Port(443, "TCP"), Port(443, "UDP")]);
        lab.settle().await;
        lab.api.set_ports(WEB, &[Port(443, "UDP")]);
        lab.settle().await;
        assert_eq!(lab.addresses(WEB), address);
    });
}

#[test]
fn while_a_service_is_deleted() {
    crash_everywhere(async |lab| {
        serve(lab).await;
        lab.api.delete(Kind::Service, WEB);
        lab.gone(Kind::Service, WEB).await;
    });
}

#[test]
fn while_a_service_becomes_a_cluster_ip() {
    crash_everywhere(async |lab| {
        serve(lab).await;
        lab.api.set_type(WEB, "ClusterIP", None);
        lab.settle().await;
    });
}

#[test]
fn while_a_service_becomes_a_cluster_ip_and_comes_back() {
    crash_everywhere(async |lab| {
        serve(lab).await;
        lab.api.set_type(WEB, "ClusterIP", None);
        lab.settle().await;
        lab.api
            .set_type(WEB, "LoadBalancer", Some("ballast.dev/local"));
        lab.settle().await;
    });
}

#[test]
fn while_a_service_becomes_a_cluster_ip_and_at_once_comes_back() {
    crash_everywhere(async |lab| {
        serve(lab).await;
        lab.api.set_type(WEB, "ClusterIP", None);
        lab.api
            .set_type(WEB, "LoadBalancer", Some("ballast.dev/local"));
        lab.settle().await;
    });
}

#[test]
fn while_a_service_goes_to_another_class() {
    crash_everywhere(async |lab| {
        lab.api.create_class("other", &json!({}));
        serve(lab).await;
        lab.api.set_type(WEB, "ClusterIP", None);
        lab.api
            .set_type(WEB, "LoadBalancer", Some("ballast.dev/other"));
        lab.settle().await;
    });
}

#[test]
fn while_a_namespace_is_deleted() {
    crash_everywhere(async |lab| {
        lab.api
            .create_service(&Svc::new("shop/db").ports(&[Port(5432, "TCP")]));
        serve(lab).await;
        lab.api.delete_namespace("shop");
        lab.gone(Kind::Service, WEB).await;
        lab.gone(Kind::Service, "shop/db").await;
    });
}

/// The object vanishes in the middle of its release: every later write finds nothing.
#[test]
fn while_a_namespace_is_finalized_by_force() {
    crash_everywhere(async |lab| {
        lab.cloud.take_time(Duration::ZERO, Duration::from_secs(20));
        serve(lab).await;
        lab.api.delete_namespace("shop");
        lab.rest(5).await;
        lab.api.strip(WEB);
        lab.gone(Kind::Service, WEB).await;
        younger_service(lab);
    });
}

#[test]
fn while_a_class_in_use_is_deleted() {
    crash_everywhere(async |lab| {
        serve(lab).await;
        lab.api.delete(Kind::Class, "local");
        lab.rest(30).await;
        assert!(
            lab.api.get(Kind::Class, "local").is_some(),
            "a class in use vanished"
        );
        lab.api.delete(Kind::Service, WEB);
        lab.gone(Kind::Service, WEB).await;
        lab.gone(Kind::Class, "local").await;
    });
}

/// The controller is down when the old Service is deleted, and sees only the new one.
#[test]
fn a_service_is_replaced_by_another_of_its_name_while_down() {
    crash_everywhere(async |lab| {
        serve(lab).await;
        lab.settle().await;
        lab.stop().await;
        lab.api.strip(WEB);
        lab.api.delete(Kind::Service, WEB);
        lab.api
            .create_service(&Svc::new(WEB).ports(&[Port(81, "TCP")]));
        lab.start();
        lab.served(WEB).await;
    });
}

/// The same while the controller is up: writes for the old Service must not change the new one.
#[test]
fn a_service_is_replaced_by_another_of_its_name_while_up() {
    crash_everywhere(async |lab| {
        serve(lab).await;
        lab.api.strip(WEB);
        lab.api.delete(Kind::Service, WEB);
        lab.api
            .create_service(&Svc::new(WEB).ports(&[Port(81, "TCP")]));
        lab.settle().await;
    });
}

#[test]
fn a_service_becomes_a_cluster_ip_while_down() {
    crash_everywhere(async |lab| {
        serve(lab).await;
        lab.stop().await;
        lab.api.set_type(WEB, "ClusterIP", None);
        lab.start();
        lab.settle().await;
    });
}

#[test]
fn finalizers_are_stripped_by_hand_while_up() {
    crash_everywhere(async |lab| {
        serve(lab).await;
        let mark = told(lab).await;
        lab.api.strip(WEB);
        lab.settle().await;
        nothing_is_taken_back(lab, mark);
        lab.api.strip(WEB);
        lab.api.delete(Kind::Service, WEB);
        lab.gone(Kind::Service, WEB).await;
        younger_service(lab);
    });
}

/// If the controller was down, only the cloud knows of the load balancer. It is deleted once a younger
/// Service shows that the API server is not one of before.
fn younger_service(lab: &mut Lab) {
    lab.api.create_service(&Svc::new("elsewhere/younger"));
}

/// A Service that is not being deleted gets its finalizer back.
#[test]
fn finalizers_are_stripped_by_hand_while_down() {
    crash_everywhere(async |lab| {
        serve(lab).await;
        let mark = told(lab).await;
        lab.stop().await;
        lab.api.strip(WEB);
        lab.start();
        lab.settle().await;
        nothing_is_taken_back(lab, mark);
    });
}

/// Waits until the events of everything so far are sent.
async fn told(lab: &mut Lab) -> usize {
    lab.rest(1).await;
    lab.journal.mark()
}

/// Only the finalizer was written, and no event was sent.
fn nothing_is_taken_back(lab: &Lab, mark: usize) {
    for effect in lab.effects(mark, Target::Service) {
        assert!(!effect.detail.contains("conditions"), "{effect:?}");
    }
    let events = lab.effects(mark, Target::Event);
    assert!(events.is_empty(), "{events:?}");
}
