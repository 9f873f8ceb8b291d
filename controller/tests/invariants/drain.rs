//! A draining class: its load balancers are released, the Services stay, no other class serves
//! them, and when the drain ends they get load balancers again.

use std::time::Duration;

use ballast_provider::{ProviderError, mark};
use serde_json::{Value, json};

use crate::support::api::{Kind, Svc, texts};
use crate::support::cloud::Call;
use crate::support::journal::Target;
use crate::support::lab::{Lab, crash_everywhere, simulate};

const WEB: &str = "shop/web";
const FREE: &str = "shop/free";

/// A Service that names the class, and one without a class, which the class serves as the
/// default.
async fn served(lab: &mut Lab) {
    lab.api.edit(Kind::Class, "local", |class| {
        class["spec"]["default"] = true.into();
    });
    lab.api.create_service(&Svc::new(WEB));
    lab.api.create_service(&Svc::new(FREE).classless());
    lab.start();
    lab.settle().await;
}

fn class_condition(lab: &Lab, class: &str, kind: &str) -> Value {
    let class = lab.api.get(Kind::Class, class).unwrap();
    let all = class["status"]["conditions"].as_array().cloned();
    let mut all = all.into_iter().flatten();
    all.find(|it| it["type"] == kind).unwrap_or_default()
}

/// The state that `ballast teardown` waits for.
fn let_go(lab: &Lab, class: &str) -> bool {
    let object = lab.api.get(Kind::Class, class).unwrap();
    let accepted = class_condition(lab, class, "Accepted");
    accepted["reason"] == "Draining" && texts(&object["metadata"]["finalizers"]).is_empty()
}

async fn until_let_go(lab: &mut Lab, class: &str) {
    lab.until("the class is let go", |lab| let_go(lab, class))
        .await;
}

#[test]
fn a_drain_and_its_end_survive_a_crash_anywhere() {
    crash_everywhere(async |lab| {
        served(lab).await;
        lab.api.drain("local", true);
        lab.settle().await;
        until_let_go(lab, "local").await;
        assert!(lab.cloud.balancers().is_empty(), "{}", lab.dump());
        lab.api.drain("local", false);
        lab.settle().await;
        assert_eq!(lab.balanced().len(), 2, "{}", lab.dump());
    });
}

/// One patch and one event per Service, and the class is free at once: a hook waits for it.
#[test]
fn a_drain_costs_one_patch_a_service_and_no_time() {
    simulate(91, async |lab| {
        for number in 0..50 {
            lab.api
                .create_service(&Svc::new(&format!("shop/web-{number}")));
        }
        lab.start();
        lab.settle().await;
        lab.rest(10).await;
        let mark = lab.journal.mark();
        let began = lab.journal.age();
        lab.api.drain("local", true);
        until_let_go(lab, "local").await;
        let took = lab.journal.age().checked_sub(began).unwrap();
        assert!(took < Duration::from_secs(5), "{took:?}");
        lab.settle().await;
        let patches = lab.effects(mark, Target::Service);
        assert_eq!(patches.len(), 50, "{patches:#?}");
        let events = lab.effects(mark, Target::Event);
        let told = |it: &crate::support::journal::Effect| it.detail.contains("DeletedLoadBalancer");
        assert!(events.iter().all(told), "{events:#?}");
        lab.rest(20).await;
        let classes = lab.effects(mark, Target::Class).len();
        assert!(
            classes <= 4,
            "{classes} writes of the class\n{}",
            lab.dump()
        );
        lab.assert_steady().await;
    });
}

/// Services of the draining class are not served by the next default class, nor by a new one.
#[test]
fn services_without_a_class_wait_for_their_own() {
    simulate(92, async |lab| {
        served(lab).await;
        lab.rest(5).await;
        lab.api.create_class("other", &json!({"default": true}));
        lab.rest(10).await;
        lab.api.drain("local", true);
        lab.settle().await;
        lab.api.create_service(&Svc::new("shop/late").classless());
        lab.refusal("shop/late", "Draining").await;
        lab.rest(60).await;
        assert!(lab.cloud.balancers().is_empty(), "{}", lab.dump());
        assert_eq!(
            class_condition(lab, "other", "Default")["reason"],
            "Conflict"
        );
        lab.api.drain("local", false);
        lab.settle().await;
        let of_local = |lab: &Lab| {
            let all = lab.cloud.ours();
            all.iter().all(|it| it.tag(mark::CLASS) == "local")
        };
        assert!(of_local(lab) && lab.balanced().len() == 3, "{}", lab.dump());
        lab.api.drain("local", true);
        lab.settle().await;
        lab.api.delete(Kind::Class, "local");
        lab.gone(Kind::Class, "local").await;
        lab.api.delete(Kind::Service, WEB);
        lab.settle().await;
        assert_eq!(lab.balanced().len(), 2, "with the class the switch is gone");
        lab.assert_steady().await;
    });
}

/// A cloud that fails and then is slow: nothing is forgotten, and everything is reported.
#[test]
fn a_drain_outlasts_a_bad_cloud() {
    simulate(93, async |lab| {
        served(lab).await;
        let down = ProviderError::transient("the cloud is down");
        lab.cloud.fail(Call::Release, &down, 20);
        lab.cloud.take_time(Duration::ZERO, Duration::from_secs(40));
        lab.api.drain("local", true);
        let programmed = |lab: &Lab, reason: &str| {
            let said = lab.condition(WEB, "Programmed").unwrap_or_default();
            let accepted = lab.condition(WEB, "Accepted").unwrap_or_default();
            said["reason"] == reason
                && said["status"] == "Unknown"
                && accepted["reason"] == "Draining"
        };
        lab.until("it says that the cloud is down", |lab| {
            programmed(lab, "CloudError")
        })
        .await;
        assert!(!lab.addresses(WEB).is_empty(), "not gone, not cleared");
        assert!(!let_go(lab, "local"));
        lab.cloud.heal();
        lab.cloud.take_time(Duration::ZERO, Duration::from_secs(40));
        lab.until("it says that it is taken down", |lab| {
            programmed(lab, "Releasing")
        })
        .await;
        lab.settle().await;
        until_let_go(lab, "local").await;
        assert!(lab.cloud.balancers().is_empty(), "{}", lab.dump());
    });
}

#[test]
fn what_is_retained_is_let_go_and_kept() {
    simulate(94, async |lab| {
        served(lab).await;
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["deletionPolicy"] = "Retain".into();
        });
        lab.rest(5).await;
        lab.api.drain("local", true);
        until_let_go(lab, "local").await;
        assert!(lab.problems().is_empty(), "{:#?}", lab.problems());
        let kept = lab.cloud.balancers();
        assert_eq!(kept.len(), 2, "{}", lab.dump());
        assert!(kept.values().all(|lb| lb.tags.contains_key(mark::RETAINED)));
    });
}

/// If the status is the record, an address is free when no status names it any more.
#[test]
fn addresses_of_pools_are_given_back() {
    simulate(95, async |lab| {
        lab.api.create_l2_class("lan", &json!({"default": true}));
        let spec = json!({"reuseAfter": "0s"});
        lab.api
            .create_pool("front", &["203.0.113.1-203.0.113.2"], &spec);
        let lan = |key: &str| Svc::new(key).class("ballast.dev/lan");
        lab.api.create_service(&lan(WEB));
        lab.rest(1).await;
        lab.api.create_service(&Svc::new(FREE).classless());
        lab.start();
        lab.settle().await;
        lab.api.drain("lan", true);
        until_let_go(lab, "lan").await;
        lab.settle().await;
        // Another class may assign them now.
        lab.api.create_l2_class("again", &json!({}));
        for key in ["shop/one", "shop/two"] {
            lab.api
                .create_service(&Svc::new(key).class("ballast.dev/again"));
        }
        lab.settle().await;
        for key in ["shop/one", "shop/two"] {
            lab.api.delete(Kind::Service, key);
        }
        lab.api.drain("lan", false);
        lab.settle().await;
        lab.assert_steady().await;
    });
}

#[test]
fn shared_addresses_go_with_the_last_sharer() {
    crash_everywhere(async |lab| {
        lab.api.create_l2_class("lan", &json!({}));
        let spec = json!({"reuseAfter": "0s"});
        lab.api.create_pool("front", &["203.0.113.1"], &spec);
        for (key, port) in [(WEB, 80), (FREE, 81)] {
            let service = Svc::new(key)
                .class("ballast.dev/lan")
                .ports(&[crate::support::api::Port(port, "TCP")])
                .annotated("ballast.dev/share-key", "front");
            lab.api.create_service(&service);
        }
        lab.start();
        lab.settle().await;
        lab.api.drain("lan", true);
        until_let_go(lab, "lan").await;
        lab.settle().await;
        lab.api.drain("lan", false);
        lab.settle().await;
        assert_eq!(lab.addresses(WEB), lab.addresses(FREE));
    });
}

/// Two installations: the Services of the draining one are served by no other, and the two do
/// not overwrite each other.
#[test]
fn another_installation_lets_the_drained_alone() {
    simulate(96, async |lab| {
        lab.api.edit(Kind::Class, "local", |class| {
            class["spec"]["default"] = true.into();
        });
        lab.rest(2).await;
        lab.api.create_class("other", &json!({"default": true}));
        lab.api.create_service(&Svc::new(FREE).classless());
        lab.start_for(&["local"]);
        lab.start_for(&["other"]);
        lab.settle().await;
        lab.api.drain("local", true);
        lab.settle().await;
        lab.api.create_service(&Svc::new("shop/late").classless());
        lab.refusal("shop/late", "Draining").await;
        lab.rest(12).await;
        let mark = lab.journal.mark();
        lab.rest(60).await;
        lab.assert_quiet(mark);
    });
}
