//! Invariant 3: the steady state writes nothing, and changes cause no more writes than
//! necessary.

use std::time::Duration;

use ballast_provider::{ProviderError, Reason};
use serde_json::json;

use crate::support::api::{Kind, Port, Svc};
use crate::support::cloud::Call;
use crate::support::journal::Target;
use crate::support::lab::{Lab, simulate};

const MANY: usize = 50;

fn key(number: usize) -> String {
    format!("shop/web-{number:03}")
}

async fn serve_many(lab: &mut Lab) {
    for number in 0..MANY {
        lab.api.create_service(&Svc::new(&key(number)));
    }
    lab.start();
    lab.until("all are served", |lab| lab.cloud.ours().len() == MANY)
        .await;
    lab.settle().await;
}

#[test]
fn invariant_3_a_restart_writes_nothing_and_a_fresh_service_costs_two_patches_and_an_event() {
    simulate(11, async |lab| {
        serve_many(lab).await;
        lab.until("all events are sent", |lab| lab.api.events().len() == MANY)
            .await;
        assert_eq!(
            lab.effects(0, Target::Service).len(),
            2 * MANY,
            "{}",
            lab.dump()
        );
        assert_eq!(lab.effects(0, Target::Event).len(), MANY);
        // Three calls per Service, and one for the targets.
        assert_eq!(lab.effects(0, Target::Cloud).len(), 3 * MANY + 1);
        lab.assert_steady().await;
    });
}

#[test]
fn invariant_3_a_deletion_costs_one_patch_and_an_event() {
    simulate(12, async |lab| {
        serve_many(lab).await;
        lab.rest(12).await;
        let mark = lab.journal.mark();
        for number in 0..MANY {
            lab.api.delete(Kind::Service, &key(number));
        }
        lab.settle().await;
        lab.until("all events are sent", |lab| {
            lab.api.events().len() == 2 * MANY
        })
        .await;
        assert_eq!(
            lab.effects(mark, Target::Service).len(),
            MANY,
            "{}",
            lab.dump()
        );
        assert_eq!(lab.effects(mark, Target::Event).len(), MANY);
        lab.assert_steady().await;
    });
}

#[test]
fn invariant_3_a_wave_of_nodes_is_one_call_and_no_write() {
    simulate(13, async |lab| {
        serve_many(lab).await;
        lab.rest(12).await;
        let (mark, ensures) = (lab.journal.mark(), lab.cloud.calls("ensure"));
        for number in 10..30 {
            lab.api
                .create_node(&format!("node-{number}"), &format!("192.0.2.{number}"));
        }
        lab.settle().await;
        lab.rest(60).await;
        assert_eq!(
            lab.effects(mark, Target::Cloud).len(),
            1,
            "{:#?}",
            lab.journal.since(mark)
        );
        assert_eq!(lab.journal.since(mark).len(), 1);
        assert_eq!(
            lab.cloud.calls("ensure"),
            ensures,
            "a node touched Services"
        );
    });
}

#[test]
fn invariant_3_what_is_of_no_concern_is_not_written_about() {
    simulate(14, async |lab| {
        serve_many(lab).await;
        lab.rest(12).await;
        let mark = lab.journal.mark();
        lab.api.edit(Kind::Service, &key(0), |service| {
            service["metadata"]["labels"] = json!({"team": "shop"});
            service["spec"]["selector"] = json!({"app": "web"});
        });
        lab.api.edit(Kind::Node, "node-1", |node| {
            node["status"]["images"] = json!(["a", "b"]);
        });
        lab.api.edit(Kind::Class, "local", |class| {
            class["metadata"]["labels"] = json!({"a": "b"});
        });
        lab.rest(60).await;
        lab.assert_quiet(mark);
    });
}

#[test]
fn a_service_that_is_edited_100_times_ends_in_the_last_state_with_few_writes() {
    simulate(15, async |lab| {
        lab.api.create_service(&Svc::new("shop/web"));
        lab.start();
        lab.served("shop/web").await;
        let mark = lab.journal.mark();
        for port in 1..=100 {
            lab.api.set_ports("shop/web", &[Port(1000 + port, "TCP")]);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        lab.settle().await;
        assert_eq!(
            lab.service("shop/web")["status"]["loadBalancer"]["ingress"][0]["ports"][0]["port"],
            1100
        );
        let writes = lab.effects(mark, Target::Service).len();
        assert!(writes <= 40, "{writes} writes");
        lab.assert_steady().await;
    });
}

/// A Service reports that it takes long only if it does.
#[test]
fn work_is_announced_if_it_takes_over_two_seconds() {
    let slow = ["EnsuringLoadBalancer", "EnsuredLoadBalancer"];
    let slowly_gone = ["DeletingLoadBalancer", "DeletedLoadBalancer"];
    for (seconds, made, gone) in [(1, &slow[1..], &slowly_gone[1..]), (3, &slow, &slowly_gone)] {
        simulate(18, async |lab| {
            let takes = Duration::from_secs(seconds);
            lab.cloud.take_time(takes, takes);
            lab.api.create_service(&Svc::new("shop/web"));
            lab.start();
            lab.served("shop/web").await;
            lab.rest(1).await;
            let told = |reasons: &[&str]| -> Vec<String> {
                let reasons = reasons.iter();
                reasons.map(|reason| format!("{reason} shop/web")).collect()
            };
            assert_eq!(lab.api.events(), told(made), "{seconds} s");
            lab.api.delete(Kind::Service, "shop/web");
            lab.gone(Kind::Service, "shop/web").await;
            lab.rest(1).await;
            assert_eq!(
                lab.api.events(),
                told(&[made, gone].concat()),
                "{seconds} s"
            );
        });
    }
}

#[test]
fn a_provider_that_fails_ten_times_is_one_condition_and_one_event() {
    fails_ten_times(&ProviderError::transient("the cloud is down"));
}

/// Nobody tells the controller when somebody mends it in the cloud.
#[test]
fn what_is_wrong_in_the_cloud_is_tried_again() {
    let no_subnet = "no subnet has the tag kubernetes.io/role/internal-elb";
    fails_ten_times(&ProviderError::failed(Reason::Invalid, no_subnet));
}

fn fails_ten_times(error: &ProviderError) {
    simulate(16, async |lab| {
        lab.cloud.fail(Call::Ensure, error, 10);
        lab.api.create_service(&Svc::new("shop/web"));
        lab.start();
        lab.until("it has failed ten times", |lab| {
            lab.cloud.faults_left() == 0
        })
        .await;
        // Finalizer and failure, once each.
        assert_eq!(lab.effects(0, Target::Service).len(), 2, "{}", lab.dump());
        assert_eq!(lab.api.events(), ["SyncLoadBalancerFailed shop/web"]);
        lab.settle().await;
        lab.until("the success is told", |lab| lab.api.events().len() == 2)
            .await;
        assert_eq!(lab.effects(0, Target::Service).len(), 3);
    });
}

#[test]
fn failures_back_off_to_minutes_and_start_anew_after_a_success() {
    simulate(17, async |lab| {
        lab.cloud.fail(
            Call::Ensure,
            &ProviderError::transient("the cloud is down"),
            1000,
        );
        lab.api.create_service(&Svc::new("shop/web"));
        lab.start();
        lab.rest(3600).await;
        let calls = lab.cloud.calls("ensure");
        // 8 in the first 255 s, then one every 150 to 300 s.
        assert!((15..=35).contains(&calls), "{calls} calls in an hour");
        lab.cloud.heal();
        lab.settle().await;
        lab.cloud.fail(
            Call::Ensure,
            &ProviderError::transient("the cloud is down"),
            1,
        );
        let start = tokio::time::Instant::now();
        lab.api.set_ports("shop/web", &[Port(81, "TCP")]);
        lab.settle().await;
        assert!(
            start.elapsed() <= Duration::from_secs(8),
            "{:?}",
            start.elapsed()
        );
    });
}

/// When both are installed together, the controller often starts before the cloud; and a cloud
/// that stays away is asked less often.
#[test]
fn a_cloud_that_starts_with_the_class_is_found_at_once() {
    simulate(21, async |lab| {
        let away = ProviderError::transient("the cloud is not there");
        lab.cloud.fail(Call::Restore, &away, 8);
        lab.api.create_service(&Svc::new("shop/web"));
        lab.start();
        let start = tokio::time::Instant::now();
        lab.served("shop/web").await;
        let took = start.elapsed().as_secs();
        assert!((8..=17).contains(&took), "{took} s");
    });
    simulate(22, async |lab| {
        let away = ProviderError::transient("the cloud is not there");
        lab.cloud.fail(Call::Restore, &away, 1000);
        lab.start();
        lab.rest(3600).await;
        let calls = lab.cloud.calls("restore");
        assert!((100..=260).contains(&calls), "{calls} calls in an hour");
    });
}

/// If a cloud asks to wait, the controller waits, and this does not count as a failure.
#[test]
fn a_throttled_call_waits_as_long_as_it_was_told() {
    simulate(18, async |lab| {
        let error = ProviderError::Throttled {
            retry_after: Duration::from_secs(7),
        };
        lab.cloud.fail(Call::Ensure, &error, 5);
        lab.api.create_service(&Svc::new("shop/web"));
        lab.start();
        let start = tokio::time::Instant::now();
        lab.settle().await;
        let took = start.elapsed().as_secs();
        // The watch event of the condition that reports it may cause one early try.
        assert!((27..=42).contains(&took), "{took} s");
        assert_eq!(lab.effects(0, Target::Service).len(), 3, "{}", lab.dump());
    });
}

/// A long wait is named to the minute. Estimates that differ by seconds are no write each.
#[test]
fn a_service_that_waits_for_minutes_says_once_until_about_when() {
    simulate(27, async |lab| {
        let waits = [600, 596, 604, 590, 600];
        for seconds in waits {
            let error = ProviderError::Throttled {
                retry_after: Duration::from_secs(seconds),
            };
            lab.cloud.fail(Call::Ensure, &error, 1);
        }
        lab.api.create_service(&Svc::new("shop/web"));
        lab.start();
        lab.until("it says that it waits", |lab| {
            let condition = lab.condition("shop/web", "Programmed");
            condition.is_some_and(|condition| condition["reason"] == "Throttled")
        })
        .await;
        let condition = lab.condition("shop/web", "Programmed").unwrap();
        let message = condition["message"].as_str().unwrap();
        assert!(message.contains("Ballast continues at about "), "{message}");
        lab.rest(3600).await;
        lab.settle().await;
        assert_eq!(lab.cloud.faults_left(), 0);
        assert_eq!(lab.effects(0, Target::Service).len(), 3, "{}", lab.dump());
    });
}

/// The same where it does not concern a single Service: at the start of a class, and for its
/// targets.
#[test]
fn a_class_that_is_throttled_waits_as_long_as_it_was_told() {
    let patience = ProviderError::Throttled {
        retry_after: Duration::from_secs(100),
    };
    for call in [Call::Restore, Call::Retarget] {
        simulate(20, async |lab| {
            lab.cloud.fail(call, &patience, 1);
            lab.api.create_service(&Svc::new("shop/web"));
            lab.start();
            let start = tokio::time::Instant::now();
            lab.served("shop/web").await;
            let took = start.elapsed().as_secs();
            assert!((100..=103).contains(&took), "{took} s");
            lab.cloud.fail(Call::Retarget, &patience, 1);
            let (mark, start) = (lab.journal.mark(), tokio::time::Instant::now());
            lab.api.create_node("node-9", "192.0.2.9");
            lab.until("it is a target", |lab| {
                !lab.effects(mark, Target::Cloud).is_empty()
            })
            .await;
            let took = start.elapsed().as_secs();
            assert!((100..=104).contains(&took), "{took} s");
        });
    }
}

/// Failures of the API server do not cause duplicate calls to the cloud.
#[test]
fn writes_that_the_server_refuses_are_tried_again() {
    simulate(19, async |lab| {
        lab.api.refuse_writes(500, 6);
        lab.api.create_service(&Svc::new("shop/web"));
        lab.start();
        lab.settle().await;
        assert_eq!(lab.effects(0, Target::Cloud).len(), 4, "{}", lab.dump());
        lab.assert_steady().await;
    });
}
