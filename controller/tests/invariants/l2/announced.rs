//! What Services report of the nodes that announce their addresses: when they are programmed, what
//! a move costs, and which events it causes.

use serde_json::{Value, json};

use super::{LAN, WEB, create, given, lan, svc};
use crate::support::api::{Kind, Port, Svc};
use crate::support::journal::Target;
use crate::support::lab::{Lab, crash_everywhere, simulate};

fn says(lab: &Lab, key: &str) -> String {
    let announced = lab.condition(key, "Announced").unwrap_or_default();
    announced["message"].as_str().unwrap_or_default().to_owned()
}

fn notes(lab: &Lab) -> Vec<String> {
    let events = lab.effects(0, Target::Event).into_iter();
    let moved = events.filter(|it| it.detail.starts_with("\"LoadBalancerMoved\""));
    moved
        .map(|it| {
            let note = it.detail.split_once(' ').unwrap().1;
            note.trim_matches('"').to_owned()
        })
        .collect()
}

/// Services of the class `lan` with these names, announced by `node-1`.
async fn announced(lab: &mut Lab, count: usize) -> Vec<(String, String)> {
    lan(lab, "203.0.113.0/24", &json!({}));
    lab.start();
    lab.led().await;
    let mut all = Vec::new();
    for number in 0..count {
        let key = format!("shop/web-{number:03}");
        lab.api.create_service(&svc(&key));
        all.push((key.clone(), given(lab, &key).await));
    }
    claim(lab, "node-1", &all, 1, "New");
    lab.settle().await;
    all
}

fn claim(lab: &Lab, node: &str, of: &[(String, String)], epoch: u64, cause: &str) {
    let claims: Vec<(&str, u64)> = of.iter().map(|(_, ip)| (ip.as_str(), epoch)).collect();
    lab.api.claim(node, &claims, cause);
}

fn withdraw(lab: &Lab, node: &str, of: &[(String, String)]) {
    let addresses: Vec<&str> = of.iter().map(|(_, ip)| ip.as_str()).collect();
    lab.api.withdraw(node, &addresses);
}

#[test]
fn a_service_is_programmed_when_a_node_announces_its_address() {
    simulate(101, async |lab| {
        let all = announced(lab, 3).await;
        let (key, ip) = &all[0];
        assert_eq!(says(lab, key), format!("{ip} by node-1 on eth0"));
        assert_eq!(
            lab.effects(0, Target::Service).len(),
            2 * 3,
            "{}",
            lab.dump()
        );
        lab.rest(5).await;
        let expected = all
            .iter()
            .map(|(key, _)| format!("EnsuredLoadBalancer {key}"));
        let (mut events, expected) = (lab.api.events(), expected.collect::<Vec<_>>());
        events.sort();
        assert_eq!(events, expected);
        // Also not after another leader has begun.
        lab.assert_steady().await;
        assert_eq!(lab.api.events().len(), 3, "{:?}", lab.api.events());
    });
}

#[test]
fn a_move_costs_one_patch_and_one_event_with_its_cause() {
    simulate(102, async |lab| {
        let all = announced(lab, 20).await;
        lab.rest(12).await;
        let mark = lab.journal.mark();
        claim(lab, "node-2", &all[..15], 2, "HostDown");
        lab.settle().await;
        // The old holder learns of it later.
        withdraw(lab, "node-1", &all[..15]);
        lab.rest(30).await;
        assert_eq!(
            lab.effects(mark, Target::Service).len(),
            15,
            "{}",
            lab.dump()
        );
        let mut notes = notes(lab);
        notes.sort();
        let mut expected: Vec<String> = all[..15]
            .iter()
            .map(|(_, ip)| format!("{ip} moved from node-1 to node-2: the host did not answer"))
            .collect();
        expected.sort();
        assert_eq!(notes, expected);
        lab.assert_steady().await;
        assert_eq!(
            super::announced::notes(lab).len(),
            15,
            "a new leader repeats nothing"
        );
    });
}

#[test]
fn a_move_while_no_controller_runs_is_told_by_the_next_one() {
    simulate(103, async |lab| {
        let all = announced(lab, 10).await;
        lab.stop().await;
        claim(lab, "node-2", &all[..1], 2, "NotEligible");
        withdraw(lab, "node-1", &all[..1]);
        lab.start();
        lab.settle().await;
        lab.rest(30).await;
        let (_, ip) = &all[0];
        let expected = format!("{ip} moved from node-1 to node-2: the node is no longer eligible");
        assert_eq!(notes(lab), [expected]);
    });
}

/// The status of an older version of Ballast names no node.
#[test]
fn what_was_there_before_is_no_move() {
    simulate(104, async |lab| {
        let all = announced(lab, 10).await;
        lab.stop().await;
        for (key, _) in &all {
            lab.api.edit(Kind::Service, key, |service| {
                let conditions = service["status"]["conditions"].as_array_mut().unwrap();
                conditions.retain(|it| it["type"] != "ballast.dev/Announced");
            });
        }
        claim(lab, "node-2", &all, 2, "HostDown");
        let mark = lab.journal.mark();
        lab.start();
        lab.settle().await;
        lab.rest(30).await;
        assert_eq!(lab.effects(mark, Target::Event).len(), 0, "{}", lab.dump());
    });
}

#[test]
fn the_higher_epoch_counts_whatever_the_order() {
    simulate(105, async |lab| {
        let all = announced(lab, 1).await;
        let (key, ip) = &all[0];
        lab.api.claim("node-2", &[(ip, 3)], "Healed");
        lab.settle().await;
        assert_eq!(says(lab, key), format!("{ip} by node-2 on eth0"));
        lab.rest(12).await;
        let mark = lab.journal.mark();
        lab.api.claim("node-1", &[(ip, 2)], "HostDown");
        lab.rest(30).await;
        lab.assert_quiet(mark);
    });
}

#[test]
fn a_dead_node_announces_nothing() {
    simulate(106, async |lab| {
        let all = announced(lab, 3).await;
        let (key, ip) = &all[0];
        lab.api.set_reporting("node-1", false);
        lab.settle().await;
        let lost = format!(
            "No node announces {ip} (last: node-1); node-1 announced it and does not report to the API server any more"
        );
        assert_eq!(says(lab, key), lost);
        lab.rest(5).await;
        let told = format!("UnAvailableLoadBalancer {key}");
        assert!(lab.api.events().contains(&told), "{:?}", lab.api.events());
        // It comes back; another one takes the first address over.
        lab.api.set_reporting("node-1", true);
        lab.settle().await;
        assert_eq!(notes(lab), [] as [String; 0]);
        lab.api.set_reporting("node-1", false);
        lab.settle().await;
        lab.api.claim("node-2", &[(ip, 2)], "LeaseExpired");
        lab.settle().await;
        lab.rest(5).await;
        let moved = format!("{ip} moved from node-1 to node-2: the Lease of the announcer expired");
        assert_eq!(notes(lab), [moved]);
        // The Node is deleted, and its Announcer is still there.
        lab.api.claim("node-1", &[(ip, 3)], "New");
        lab.api.set_reporting("node-1", true);
        lab.settle().await;
        lab.api.delete(Kind::Node, "node-1");
        lab.until("node-2 announces it", |lab| {
            says(lab, key) == format!("{ip} by node-2 on eth0")
        })
        .await;
    });
}

/// Its Node is well, and nobody takes over. A restart takes less time.
#[test]
fn an_announcer_that_ended_announces_nothing() {
    simulate(114, async |lab| {
        let all = announced(lab, 1).await;
        let (key, ip) = &all[0];
        let renew = |lab: &Lab, beat| {
            lab.api
                .renew_foreign_lease("kube-system/announcer-node-1", "node-1", beat);
        };
        let well = format!("{ip} by node-1 on eth0");
        for beat in 0..12 {
            renew(lab, beat);
            lab.rest(5).await;
            assert_eq!(says(lab, key), well);
        }
        lab.rest(25).await;
        assert_eq!(says(lab, key), well, "it may restart");
        let lost = format!(
            "No node announces {ip} (last: node-1); node-1 announced it and does not report to the API server any more"
        );
        lab.until("the end is told", |lab| says(lab, key) == lost)
            .await;
        renew(lab, 99);
        lab.until("it is back", |lab| says(lab, key) == well).await;
    });
}

/// A restart of an announcer, and an object that somebody deletes and the announcer creates again.
#[test]
fn a_loss_that_does_not_last_is_not_written() {
    simulate(107, async |lab| {
        let all = announced(lab, 10).await;
        lab.rest(12).await;
        let before = lab.api.get(Kind::Announcer, "node-1").unwrap()["status"].clone();
        let mark = lab.journal.mark();
        lab.api.announcer("node-1", |status| {
            for holding in status["holdings"].as_array_mut().unwrap() {
                holding.as_object_mut().unwrap().remove("interface");
            }
        });
        lab.rest(3).await;
        lab.api
            .announcer("node-1", |status| *status = before.clone());
        lab.rest(60).await;
        lab.api.delete(Kind::Announcer, "node-1");
        lab.rest(3).await;
        lab.api.announcer("node-1", |status| *status = before);
        lab.rest(60).await;
        lab.assert_quiet(mark);
        withdraw(lab, "node-1", &all[..1]);
        lab.settle().await;
        assert_eq!(
            lab.effects(mark, Target::Service).len(),
            1,
            "{}",
            lab.dump()
        );
    });
}

#[test]
fn both_families_must_be_announced() {
    simulate(108, async |lab| {
        lab.api.create_l2_class("lan", &json!({}));
        lab.api
            .create_pool("front", &["203.0.113.1", "2001:db8::1"], &json!({}));
        let dual = svc(WEB)
            .with("ipFamilies", json!(["IPv4", "IPv6"]))
            .with("ipFamilyPolicy", "RequireDualStack".into());
        lab.api.create_service(&dual);
        lab.start();
        given(lab, WEB).await;
        lab.api.claim("node-1", &[("203.0.113.1", 1)], "New");
        lab.settle().await;
        assert_eq!(
            says(lab, WEB),
            "203.0.113.1 by node-1 on eth0; No node announces 2001:db8::1"
        );
        lab.api.claim("node-2", &[("2001:db8::1", 1)], "New");
        lab.settle().await;
        lab.served(WEB).await;
        lab.assert_steady().await;
    });
}

/// A node with many addresses fails: who comes then does not wait for all of them.
#[test]
fn a_move_of_many_addresses_delays_nobody_else() {
    simulate(109, async |lab| {
        let all = announced(lab, 100).await;
        lab.rest(12).await;
        let mark = lab.journal.mark();
        claim(lab, "node-2", &all, 2, "HostDown");
        // They are known, and the first ones are written.
        lab.until("it has begun", |lab| {
            lab.effects(mark, Target::Service).len() > 10
        })
        .await;
        lab.api.create_service(&svc("shop/new"));
        lab.api.create_service(&Svc::new("shop/other"));
        lab.settle().await;
        let written = lab.effects(mark, Target::Service);
        let place = |key: &str| written.iter().position(|it| it.subject == key).unwrap();
        for key in ["shop/new", "shop/other"] {
            assert!(place(key) < 50, "{key} is number {}", place(key));
        }
        lab.until("each move is told", |lab| notes(lab).len() == 100)
            .await;
    });
}

#[test]
fn the_first_announcer_ends_the_hint_that_there_is_none() {
    simulate(110, async |lab| {
        lan(lab, "203.0.113.0/24", &json!({}));
        create(lab, &[WEB]).await;
        lab.start();
        let ip = given(lab, WEB).await;
        let programmed = |lab: &Lab| {
            let it = lab.condition(WEB, "Programmed").unwrap();
            it["message"].as_str().unwrap().to_owned()
        };
        let assigned = format!("Address {ip} is assigned, but no node announces it");
        let none = "no announcer runs in this cluster";
        assert_eq!(programmed(lab), format!("{assigned}; {none}"));
        assert_eq!(says(lab, WEB), format!("No node announces {ip}; {none}"));
        lab.api.announcer("node-1", |_| {});
        lab.until("the hint is gone", |lab| programmed(lab) == assigned)
            .await;
        lab.settle().await;
    });
}

/// Also while the class is drained, the Service is released, and the type changes.
#[test]
fn the_condition_goes_with_the_address() {
    simulate(111, async |lab| {
        let all = announced(lab, 2).await;
        let (key, _) = &all[0];
        lab.api.set_type(key, "ClusterIP", None);
        lab.until("nothing of ours is left", |lab| {
            let all = lab.service(key)["status"]["conditions"].clone();
            all.as_array().is_none_or(Vec::is_empty)
        })
        .await;
        lab.api.drain("lan", true);
        lab.settle().await;
        assert_eq!(lab.condition(&all[1].0, "Announced"), None);
        lab.api.drain("lan", false);
        lab.settle().await;
        lab.assert_steady().await;
    });
}

#[test]
fn a_crash_at_any_effect_hides_no_announcement() {
    crash_everywhere(async |lab| {
        lan(lab, "203.0.113.0/29", &json!({}));
        lab.api.create_service(&Svc::new(WEB).class(LAN));
        lab.start();
        lab.until("it has an address", |lab| !lab.addresses(WEB).is_empty())
            .await;
        let ip = lab.addresses(WEB).remove(0);
        lab.api.claim("node-1", &[(&ip, 1)], "New");
        lab.served(WEB).await;
        lab.api.claim("node-2", &[(&ip, 2)], "Rebalanced");
        lab.until("node-2 announces it", |lab| {
            says(lab, WEB).starts_with(&format!("{ip} by node-2"))
        })
        .await;
    });
}

/// A refused edit keeps the address, and it can still move.
#[test]
fn a_refused_service_reports_moves_too() {
    simulate(112, async |lab| {
        let all = announced(lab, 1).await;
        let (key, ip) = &all[0];
        lab.api.set_ports(key, &[Port(80, "TCP"), Port(90, "SCTP")]);
        lab.until("it is refused", |lab| {
            lab.condition(key, "Accepted")
                .is_some_and(|it: Value| it["status"] == "False")
        })
        .await;
        lab.rest(5).await;
        lab.api.claim("node-2", &[(ip, 2)], "EndpointsMoved");
        lab.until("it says where it is", |lab| {
            says(lab, key) == format!("{ip} by node-2 on eth0")
        })
        .await;
    });
}
