//! Random actions of users, clouds, API servers and random crashes; then all faults end, and
//! the world must become as the users want it. Each case is one seed and prints its actions.

use std::time::Duration;

use ballast_provider::ProviderError;
use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::json;

use crate::support::api::{Kind, Port, Svc};
use crate::support::cloud::Call;
use crate::support::journal::{Cut, Fuse};
use crate::support::lab::{Lab, simulate};

/// The maximum number of Services and nodes.
const NAMES: u8 = 5;

#[derive(Clone, Debug)]
enum Act {
    Create { name: u8, class: u8 },
    Delete { name: u8 },
    Strip { name: u8 },
    ToClusterIp { name: u8 },
    ToLoadBalancer { name: u8, class: u8 },
    Ports { name: u8, first: u16, count: u16 },
    Share { name: u8, key: u8 },
    Spoil { name: u8, spoilt: bool },
    Node { name: u8 },
    Default { on: bool },
    Drain { class: u8, on: bool },
    CutWatches,
    Compact,
    Freeze { frozen: bool },
    CloudFails { times: u8, call: u8 },
    CloudTakes { seconds: u8 },
    ApiFails { times: u8 },
    Vandalise { name: u8 },
    Kill,
    Restart,
    CrashAt { at: u8, after: bool },
    Wait { millis: u32 },
}

fn act() -> impl Strategy<Value = Act> {
    let name = 0..NAMES;
    let class = 0..3_u8;
    prop_oneof![
        4 => (name.clone(), class.clone()).prop_map(|(name, class)| Act::Create { name, class }),
        2 => name.clone().prop_map(|name| Act::Delete { name }),
        1 => name.clone().prop_map(|name| Act::Strip { name }),
        2 => name.clone().prop_map(|name| Act::ToClusterIp { name }),
        2 => (name.clone(), class).prop_map(|(name, class)| Act::ToLoadBalancer { name, class }),
        2 => (name.clone(), 1..2000_u16, 1..4_u16).prop_map(|(name, first, count)| Act::Ports { name, first, count }),
        4 => (name.clone(), 0..3_u8).prop_map(|(name, key)| Act::Share { name, key }),
        1 => (name.clone(), any::<bool>()).prop_map(|(name, spoilt)| Act::Spoil { name, spoilt }),
        1 => name.clone().prop_map(|name| Act::Node { name }),
        1 => any::<bool>().prop_map(|on| Act::Default { on }),
        3 => (0..2_u8, any::<bool>()).prop_map(|(class, on)| Act::Drain { class, on }),
        1 => Just(Act::CutWatches),
        1 => Just(Act::Compact),
        1 => any::<bool>().prop_map(|frozen| Act::Freeze { frozen }),
        1 => (1..6_u8, 0..4_u8).prop_map(|(times, call)| Act::CloudFails { times, call }),
        1 => (0..40_u8).prop_map(|seconds| Act::CloudTakes { seconds }),
        1 => (1..4_u8).prop_map(|times| Act::ApiFails { times }),
        1 => name.prop_map(|name| Act::Vandalise { name }),
        1 => Just(Act::Kill),
        1 => Just(Act::Restart),
        3 => (1..20_u8, any::<bool>()).prop_map(|(at, after)| Act::CrashAt { at, after }),
        6 => (0..30_000_u32).prop_map(|millis| Act::Wait { millis }),
        6 => (0..20_u32).prop_map(|millis| Act::Wait { millis }),
    ]
}

/// 0 and 1 are Ballast's; 2 is no class at all.
fn class(number: u8) -> Option<&'static str> {
    ["ballast.dev/local", "ballast.dev/other"]
        .get(usize::from(number))
        .copied()
}

/// Ports of different Services do not clash, so all of them can share.
fn own_port(name: u8, port: u16) -> u16 {
    u16::from(name) * 3000 + port
}

async fn perform(lab: &mut Lab, act: &Act) {
    let key = |name: &u8| format!("shop/web-{name}");
    match act {
        Act::Create {
            name,
            class: number,
        } => {
            let service = Svc::new(&key(name)).ports(&[Port(own_port(*name, 80), "TCP")]);
            let service = match class(*number) {
                Some(class) => service.class(class),
                None => service.classless(),
            };
            if lab.api.get(Kind::Service, &key(name)).is_none() {
                lab.api.create_service(&service);
            }
        }
        Act::Delete { name } => drop(lab.api.delete(Kind::Service, &key(name))),
        Act::Strip { name } => drop(lab.api.strip(&key(name))),
        Act::ToClusterIp { name } => drop(lab.api.set_type(&key(name), "ClusterIP", None)),
        Act::ToLoadBalancer {
            name,
            class: number,
        } => {
            // The class is immutable while the type is LoadBalancer.
            if lab.service(&key(name))["spec"]["type"] == "ClusterIP" {
                lab.api.set_type(&key(name), "LoadBalancer", class(*number));
            }
        }
        Act::Ports { name, first, count } => {
            let port = |more| Port(own_port(*name, first + more), "TCP");
            let ports: Vec<Port> = (0..*count).map(port).collect();
            lab.api.set_ports(&key(name), &ports);
        }
        Act::Share { name, key: number } => {
            let share_key = ["one", "two"].get(usize::from(*number));
            lab.api.share(&key(name), share_key.copied());
        }
        Act::Spoil { name, spoilt } => {
            let ranges = if *spoilt {
                json!(["nonsense"])
            } else {
                json!([])
            };
            lab.api.edit(Kind::Service, &key(name), |it| {
                it["spec"]["loadBalancerSourceRanges"] = ranges;
            });
        }
        Act::Node { name } => {
            let node = format!("more-{name}");
            if !lab.api.delete(Kind::Node, &node) {
                lab.api
                    .create_node(&node, &format!("192.0.2.{}", 100 + name));
            }
        }
        Act::Default { on } => drop(lab.api.edit(Kind::Class, "local", |it| {
            it["spec"]["default"] = (*on).into();
        })),
        Act::Drain { class, on } => {
            let class = ["local", "other"][usize::from(*class)];
            lab.api.drain(class, *on);
        }
        Act::CutWatches => lab.api.cut_watches(),
        Act::Compact => lab.api.compact(),
        Act::Freeze { frozen } => lab.api.freeze_watches(*frozen),
        Act::CloudFails { times, call } => {
            let call =
                [Call::Restore, Call::Ensure, Call::Retarget, Call::Release][usize::from(*call)];
            lab.cloud.fail(
                call,
                &ProviderError::transient("the cloud is down"),
                usize::from(*times),
            );
        }
        Act::CloudTakes { seconds } => {
            let time = Duration::from_secs(u64::from(*seconds));
            lab.cloud.take_time(time, time / 2);
        }
        Act::ApiFails { times } => lab.api.refuse_writes(500, usize::from(*times)),
        Act::Vandalise { name } => {
            if let Some(uid) = lab.service(&key(name))["metadata"]["uid"].as_str() {
                lab.cloud.vandalise(uid);
            }
        }
        Act::Kill => {
            lab.kill().await;
            lab.start();
        }
        Act::Restart => lab.restart().await,
        Act::CrashAt { at, after } => {
            let cut = if *after { Cut::After } else { Cut::Before };
            lab.journal.arm(Fuse {
                at: usize::from(*at),
                cut,
            });
        }
        Act::Wait { millis } => {
            tokio::time::sleep(Duration::from_millis(u64::from(*millis))).await;
            lab.supervise().await;
        }
    }
}

/// No more faults, and no more invalid Services.
async fn peace(lab: &mut Lab) {
    lab.journal.disarm();
    lab.cloud.heal();
    lab.api.refuse_writes(500, 0);
    lab.api.freeze_watches(false);
    for name in 0..NAMES {
        perform(
            lab,
            &Act::Spoil {
                name,
                spoilt: false,
            },
        )
        .await;
    }
}

/// Every change must pass 50; `make test-long` runs more.
fn cases() -> u32 {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(50)
}

proptest! {
    #![proptest_config(Config { cases: cases(), failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_happens_the_world_comes_to_order_and_to_rest(
        seed: u64,
        acts in prop::collection::vec(act(), 5..60),
    ) {
        simulate(seed, async |lab| {
            lab.api.create_class("other", &json!({}));
            lab.start();
            for act in &acts {
                perform(lab, act).await;
            }
            peace(lab).await;
            // A class whose cloud was down tries again within 30 s; without Services nothing
            // waits for it.
            lab.rest(35).await;
            lab.settle().await;
            lab.assert_steady().await;
        });
    }
}
