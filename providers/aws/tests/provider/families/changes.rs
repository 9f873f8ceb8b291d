//! From one shape of a Service to another: with restarts, lost answers and lists that lag.

use std::time::Duration;

use ballast_aws_fake::state::Tags;
use ballast_aws_fake::state::rules::Change;
use ballast_aws_fake::{Config, Fault};
use ballast_provider::{Family, LoadBalancer, Protocol, Provider};

use super::{udp, web};
use crate::adopt::former;
use crate::bed::{Bed, delete, dual, essence, instance, registered, settle, with, with_pods};
use crate::former::{Maker, adopting};
use crate::sharing::member;
use crate::support::{balancer, settle_all};

const CERTIFICATE: &str = "arn:aws:acm:eu-central-1:123456789012:certificate/one";

fn tls(service: LoadBalancer) -> LoadBalancer {
    with(service, "ssl-cert", CERTIFICATE)
}

/// Pods of both families.
fn pods() -> LoadBalancer {
    with_pods(web(), &["10.0.100.1", "2001:db8:0:64::1"])
}

/// TCP and UDP on port 80.
fn both_protocols() -> LoadBalancer {
    let mut service = web();
    let mut second = service.listeners[0].clone();
    second.protocol = Protocol::Udp;
    service.listeners.push(second);
    service
}

fn shapes() -> Vec<LoadBalancer> {
    vec![
        web(),
        dual(web()),
        pods(),
        dual(pods()),
        dual(tls(web())),
        tls(pods()),
        dual(tls(pods())),
        both_protocols(),
        dual(both_protocols()),
        dual(udp(web())),
        with(web(), "ip-address-type", "dualstack"),
        LoadBalancer {
            families: vec![Family::V6],
            ..web()
        },
        LoadBalancer {
            source_ranges: vec![
                "2001:db8::/32".parse().unwrap(),
                "10.0.0.0/8".parse().unwrap(),
            ],
            ..dual(web())
        },
    ]
}

/// What there is when a Service has always had this shape.
async fn always(shape: &LoadBalancer) -> Vec<String> {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, shape).await.unwrap();
    essence(&bed.fake.snapshot())
}

/// A rule sends nobody to target groups without targets while the default action has some.
fn all_clients_are_served(bed: &Bed) {
    let all = bed.fake.snapshot();
    let count = |forward: &[(String, Option<u32>)]| -> usize {
        let groups = forward.iter().map(|(arn, _)| &all.target_groups[arn]);
        groups.map(|it| registered(it).len()).sum()
    };
    for rule in all.rules.values() {
        let listener = &all.listeners[&rule.listener];
        assert!(
            count(&rule.forward) > 0 || count(&listener.forward) == 0,
            "clients of {} on port {} reach nothing",
            rule.family,
            listener.port
        );
    }
}

/// Whatever the Service was before, in the end it is as if it had always been so, and nothing more is called.
#[tokio::test]
async fn each_shape_becomes_each_other() {
    let all = shapes();
    for to in &all {
        let expected = always(to).await;
        for (number, from) in all.iter().enumerate() {
            for restart in [false, true] {
                let bed = Bed::new().await;
                let mut provider = bed.start().await.unwrap();
                settle(&provider, from).await.unwrap();
                if restart {
                    drop(provider);
                    provider = bed.start().await.unwrap();
                }
                settle(&provider, to).await.unwrap();
                // Former targets drain.
                bed.fake.advance(Duration::from_mins(3));
                settle(&provider, to).await.unwrap();
                let what = format!("from shape {number}, restart {restart}: {to:?}");
                assert_eq!(essence(&bed.fake.snapshot()), expected, "{what}");
                let (_, calls) = bed.calls_of(settle(&provider, to)).await;
                assert_eq!(calls, [""; 0], "{what}");
            }
        }
    }
}

/// One answer of AWS is lost, and the process goes on.
#[tokio::test]
async fn a_lost_answer_changes_nothing_in_the_end() {
    for (number, (from, to)) in [
        (web(), dual(udp(web()))),
        (dual(udp(web())), web()),
        (dual(udp(web())), dual(web())),
        (dual(pods()), dual(web())),
        (dual(tls(web())), dual(web())),
        (dual(web()), dual(tls(web()))),
    ]
    .into_iter()
    .enumerate()
    {
        let expected = always(&to).await;
        for (nth, after) in (1_u64..30).flat_map(|nth| [(nth, true), (nth, false)]) {
            let bed = Bed::new().await;
            let provider = bed.start().await.unwrap();
            settle(&provider, &from).await.unwrap();
            bed.fake.advance(Duration::from_mins(3));
            provider.look().await;
            bed.fake.reset_calls();
            bed.fake.fault(Fault::writes().nth(nth).dropped(after));
            for _ in 0..3 {
                // It may fail: the answer was lost.
                let _ = settle(&provider, &to).await;
            }
            bed.fake.clear_faults();
            bed.fake.advance(Duration::from_mins(3));
            settle(&provider, &to).await.unwrap();
            let found = essence(&bed.fake.snapshot());
            assert_eq!(found, expected, "{number}: {nth} {after}");
        }
    }
}

/// The same while lists do not show for 20 seconds what was made.
#[tokio::test]
async fn a_lost_answer_while_lists_lag_holds_up_nothing_for_long() {
    let to = dual(web());
    let expected = always(&to).await;
    for (nth, after) in (1_u64..22).flat_map(|nth| [(nth, true), (nth, false)]) {
        let mut config = Config::default();
        config.settings.lag = Duration::from_secs(20);
        let bed = Bed::with(config).await;
        let provider = bed.start().await.unwrap();
        let _ = settle(&provider, &web()).await;
        bed.fake.advance(Duration::from_mins(3));
        settle(&provider, &web()).await.unwrap();
        bed.fake.fault(Fault::writes().nth(nth).dropped(after));
        for _ in 0..3 {
            let _ = settle(&provider, &to).await;
            bed.fake.advance(Duration::from_secs(7));
        }
        bed.fake.clear_faults();
        bed.fake.advance(Duration::from_mins(3));
        settle(&provider, &to).await.unwrap();
        bed.fake.advance(Duration::from_mins(3));
        settle(&provider, &to).await.unwrap();
        let found = essence(&bed.fake.snapshot());
        assert_eq!(found, expected, "{nth} {after}");
    }
}

/// Targets of one family alone: clients of the other one are translated instead of lost.
#[tokio::test]
async fn clients_of_a_family_without_targets_are_served() {
    let bed = Bed::new().await;
    // The only node with the label has IPv4 alone.
    bed.fake.edit(|cloud, _| {
        cloud.instances.get_mut(&instance(1)).unwrap().ipv6 = None;
    });
    let provider = bed.start().await.unwrap();
    let edge = with(dual(web()), "target-node-labels", "pool=edge");
    settle(&provider, &edge).await.unwrap();
    all_clients_are_served(&bed);
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &dual(with_pods(web(), &["10.0.100.1"])))
        .await
        .unwrap();
    all_clients_are_served(&bed);
    // The pod of the other family comes.
    settle(&provider, &dual(pods())).await.unwrap();
    assert_eq!(bed.fake.snapshot().rules.len(), 1);
    all_clients_are_served(&bed);
    // It goes, after a restart.
    drop(provider);
    let provider = bed.start().await.unwrap();
    settle(&provider, &dual(with_pods(web(), &["10.0.100.1"])))
        .await
        .unwrap();
    all_clients_are_served(&bed);
}

/// Without any node, as when a node group is replaced, nothing says that the family is not wanted any more.
#[tokio::test]
async fn without_nodes_the_families_stay() {
    let mut bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let dns = dual(udp(web()));
    settle(&provider, &dns).await.unwrap();
    bed.first_node = bed.nodes + 1;
    bed.retarget(&provider).await.unwrap();
    // Why there are no targets is said elsewhere.
    let _ = settle(&provider, &dns).await;
    let all = bed.fake.snapshot();
    let one = all.load_balancers.values().next().unwrap();
    assert_eq!(one.ip_address_type, "dualstack");
}

/// Both load balancers of a change of the scheme have targets of both families, also new ones.
#[tokio::test]
async fn a_change_of_the_scheme_keeps_both_families() {
    let mut bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let one = dual(udp(web()));
    settle(&provider, &one).await.unwrap();
    bed.fake.advance(Duration::from_mins(5));
    provider.look().await;
    let two = with(one, "scheme", "internet-facing");
    settle(&provider, &two).await.unwrap();
    assert_eq!(bed.fake.snapshot().load_balancers.len(), 2);
    bed.add_node();
    bed.retarget(&provider).await.unwrap();
    let all = bed.fake.snapshot();
    for group in all.target_groups.values() {
        assert_eq!(registered(group).len(), 4, "{}", group.name);
    }
    delete(&bed, &provider, &two).await;
    assert!(bed.is_empty());
}

/// What another controller made with IPv4 alone gets the second family, and no listener is deleted.
#[tokio::test]
async fn a_load_balancer_that_is_taken_over_gets_the_family() {
    for maker in Maker::ALL {
        let (bed, arn) = former(maker).bed().await;
        let provider = bed.start().await.unwrap();
        let web = dual(adopting(&arn, &[80, 443]));
        let (ended, calls) = bed.calls_of(settle(&provider, &web)).await;
        ended.unwrap();
        assert!(!calls.iter().any(|it| it == "DeleteListener"), "{calls:?}");
        let all = bed.fake.snapshot();
        assert_eq!(all.load_balancers[&arn].ip_address_type, "dualstack");
        assert_eq!(all.rules.len(), 2);
        all_clients_are_served(&bed);
        drop(provider);
        let provider = bed.start().await.unwrap();
        let (_, calls) = bed.calls_of(settle(&provider, &web)).await;
        assert_eq!(calls, [""; 0], "{maker:?}");
        delete(&bed, &provider, &web).await;
        assert!(bed.fake.snapshot().load_balancers.is_empty());
    }
}

/// A rule of the same priority that nobody has read yet.
#[tokio::test]
async fn a_rule_that_somebody_made_holds_up_nothing() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let before = with(web(), "ip-address-type", "dualstack");
    settle(&provider, &before).await.unwrap();
    bed.fake.edit(|cloud, now| {
        let listener = cloud.listeners.values().next().unwrap().clone();
        let change = Change {
            family: Some("ipv4".into()),
            forward: Some(listener.forward.clone()),
        };
        let made = cloud.create_rule(now, &listener.arn, 1, change, Tags::new());
        made.unwrap();
    });
    settle(&provider, &dual(web())).await.unwrap();
    let all = bed.fake.snapshot();
    let families: Vec<&str> = all.rules.values().map(|it| it.family.as_str()).collect();
    assert_eq!(families, ["ipv6"]);
}

/// One load balancer has one kind of addresses, so its Services must agree.
#[tokio::test]
async fn services_of_one_load_balancer_agree_on_families() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let (one, other) = (dual(member("one", 80)), member("other", 81));
    let why = provider.validate(&balancer(&provider, &[one.clone(), other.clone()]));
    let why = why.unwrap_err();
    assert!(why.message.contains("ip-address-type"), "{why}");
    let other = with(other, "ip-address-type", "dualstack");
    settle_all(&provider, &[one, other]).await.unwrap();
    assert_eq!(bed.fake.snapshot().rules.len(), 1);
}
