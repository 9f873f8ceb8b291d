//! What AWS refuses one Service stops no other that divides its connections with it.

use std::time::Duration;

use ballast_aws_fake::Fault;
use ballast_provider::{Provider, Released, Removal};

use super::{divided, weighted, weights};
use crate::bed::{Bed, dual, essence, ports, registered, with, with_pods, writes};
use crate::sharing::member;
use crate::support::{balancer, settle_all};

/// Whether port 80 sends connections to a target group that has targets.
fn port_80_serves(bed: &Bed) -> bool {
    let all = bed.fake.snapshot();
    let Some(listener) = all.listeners.values().find(|it| it.port == 80) else {
        return false;
    };
    listener.forward.iter().any(|(arn, weight)| {
        weight.unwrap_or(1) > 0 && !registered(&all.target_groups[arn]).is_empty()
    })
}

/// `next` gets all connections, and AWS accepts none of its targets.
#[tokio::test]
async fn who_has_no_targets_gets_no_connections() {
    for code in ["TooManyTargets", "InvalidConfigurationRequest"] {
        let bed = Bed::new().await;
        let provider = bed.start().await.unwrap();
        let web = divided("web", &[("web", 80, 0), ("next", 81, 100)]);
        settle_all(&provider, std::slice::from_ref(&web))
            .await
            .unwrap();
        bed.fake
            .fault(Fault::on("RegisterTargets").always().error(code, "no"));
        // That `next` fails is said to `next`.
        let seen = settle_all(&provider, &[web.clone(), member("next", 81)]).await;
        let found = weights(&bed);
        assert!(port_80_serves(&bed), "{code}: {found:?} {seen:?}");
        bed.fake.clear_faults();
        settle_all(&provider, &[web, member("next", 81)])
            .await
            .unwrap();
        assert_eq!(weights(&bed).len(), 2);
    }
}

/// Both are new, and AWS never makes the target group of one of them.
#[tokio::test]
async fn a_new_pair_of_which_one_is_refused_serves() {
    for attributes in [false, true] {
        a_new_pair(attributes).await;
    }
}

/// With attributes, a listener needs a second call.
async fn a_new_pair(attributes: bool) {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let shares: [(&str, u16, u32); 2] = [("web", 80, 50), ("next", 81, 50)];
    let mut web = divided("web", &shares);
    let mut next = weighted(member("next", 81), "TCP-81", &shares);
    if attributes {
        let idle = "tcp.idle_timeout.seconds=600";
        web = with(web, "listener-attributes.TCP-80", idle);
        next = with(next, "listener-attributes.TCP-81", idle);
    }
    bed.fake.fault(
        Fault::on("CreateTargetGroup")
            .nth(2)
            .times(u64::MAX)
            .error("TooManyTargetGroups", "refused here"),
    );
    let both = balancer(&provider, &[web, next]);
    let mut last = None;
    for _ in 0..3 {
        last = Some(provider.ensure(&both).await);
    }
    assert!(!ports(&bed).is_empty(), "{last:?}");
}

/// The pods of one are not known yet, as in the moment in which it joins.
#[tokio::test]
async fn pods_that_nobody_knows_yet_are_no_fault_of_the_other() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = divided("web", &[("web", 80, 50), ("next", 81, 50)]);
    let web = with_pods(web, &["10.0.100.1"]);
    let next = with_pods(member("next", 81), &["10.0.100.2"]);
    settle_all(&provider, std::slice::from_ref(&web))
        .await
        .unwrap();
    let mut both = balancer(&provider, &[web, next]);
    both.members[1].endpoints = None;
    let seen = provider.ensure(&both).await.unwrap();
    let state = format!("{:?}", seen[0].1.state);
    assert!(!state.contains("Invalid"), "{state}");
    assert!(port_80_serves(&bed));
}

/// One leaves after a restart, before the other one has a turn: its rule goes before its target groups.
#[tokio::test]
async fn who_leaves_after_a_restart_leaves_nothing() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = dual(divided("web", &[("web", 80, 50), ("next", 81, 50)]));
    let next = dual(member("next", 81));
    settle_all(&provider, &[web, next.clone()]).await.unwrap();
    assert_eq!(bed.fake.snapshot().rules.len(), 2);
    drop(provider);
    let provider = bed.start().await.unwrap();
    let key = provider.key(&next);
    let mut last = None;
    for _ in 0..4 {
        last = Some(provider.release(&next.id, &key, Removal::Delete).await);
        if last == Some(Ok(Released::Gone)) {
            break;
        }
        bed.fake.advance(Duration::from_secs(20));
    }
    assert_eq!(last, Some(Ok(Released::Gone)));
    assert_eq!(bed.fake.snapshot().target_groups.len(), 2);
    assert!(port_80_serves(&bed));
}

/// Two Services divide the connections of each other, with both families, and the process dies at each call.
#[tokio::test]
async fn a_crash_at_any_call_changes_nothing_in_the_end() {
    let tls = |one| {
        let certificate = "arn:aws:acm:eu-central-1:123456789012:certificate/one";
        with(one, "ssl-cert", certificate)
    };
    for secure in [false, true] {
        let dress = |one| if secure { tls(dual(one)) } else { dual(one) };
        let pair = |shares: [u32; 4]| {
            let [a, b, c, d] = shares;
            let web = divided("web", &[("web", 80, a), ("next", 81, b)]);
            let next = member("next", 81);
            let next = weighted(next, "TCP-81", &[("web", 80, c), ("next", 81, d)]);
            [dress(web), dress(next)]
        };
        let before = &pair([90, 10, 0, 0])[..1];
        let after = pair([10, 90, 20, 80]);
        let reference = Bed::new().await;
        let provider = reference.start().await.unwrap();
        settle_all(&provider, &after).await.unwrap();
        let expected = essence(&reference.fake.snapshot());
        for (nth, lost) in (1_u64..40).flat_map(|nth| [(nth, true), (nth, false)]) {
            let bed = Bed::new().await;
            let provider = bed.start().await.unwrap();
            settle_all(&provider, before).await.unwrap();
            bed.fake.reset_calls();
            bed.fake
                .fault(Fault::writes().nth(nth).dropped(lost).fatal());
            // It dies.
            let _ = settle_all(&provider, &after).await;
            drop(provider);
            bed.fake.clear_faults();
            let provider = bed.start().await.unwrap();
            settle_all(&provider, &after).await.unwrap();
            let found = essence(&bed.fake.snapshot());
            assert_eq!(found, expected, "{secure} {nth} {lost}");
        }
    }
}

/// `next` has all connections, and is scaled to nothing: `web` gets them in the same turn, also after a restart.
#[tokio::test]
async fn who_loses_its_pods_gets_no_connections() {
    for restart in [false, true] {
        let bed = Bed::new().await;
        let mut provider = bed.start().await.unwrap();
        let web = divided("web", &[("web", 80, 0), ("next", 81, 100)]);
        let web = with_pods(web, &["10.0.100.1"]);
        let next = |all: &[&str]| with_pods(member("next", 81), all);
        let both = [web.clone(), next(&["10.0.100.2"])];
        settle_all(&provider, &both).await.unwrap();
        if restart {
            drop(provider);
            provider = bed.start().await.unwrap();
            // What is as it was costs no call that changes anything.
            let (_, calls) = bed.calls_of(settle_all(&provider, &both)).await;
            assert_eq!(writes(&calls), [""; 0]);
            drop(provider);
            provider = bed.start().await.unwrap();
        }
        settle_all(&provider, &[web, next(&[])]).await.unwrap();
        assert!(port_80_serves(&bed), "restart {restart}");
    }
}
