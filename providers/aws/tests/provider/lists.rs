//! What lists and idempotent creations do not say: what is new, whose it is, and what is gone.

use std::time::Duration;

use ballast_aws_fake::state::seed::NODE_GROUP;
use ballast_aws_fake::{Config, Fault, Time};
use ballast_provider::mark::RETAINED;
use ballast_provider::{Cause, Change, Key, LoadBalancer, Provider, Released, Removal};
use tokio::time::sleep;

use crate::bed::{Bed, certificate, delete, ensure, essence, registered, service, settle, with};
use crate::crashes::{finish, served};
use crate::lag::{LAG, START, lagging};

/// After it a list shows all that was made before, and this process is not suspected any more.
const LATE: Duration = Duration::from_secs(61);

/// Time is tokio's, and lists lag behind.
fn in_time() -> Config {
    let mut config = lagging();
    config.time = Time::Scaled(1.0);
    config
}

fn web() -> LoadBalancer {
    service("web", &[(80, 30_080)])
}

fn more() -> LoadBalancer {
    service("web", &[(80, 30_080), (443, 30_443)])
}

fn crossing(service: LoadBalancer) -> LoadBalancer {
    with(
        service,
        "attributes",
        "load_balancing.cross_zone.enabled=true",
    )
}

fn slow(service: LoadBalancer) -> LoadBalancer {
    with(
        service,
        "target-group-attributes",
        "deregistration_delay.timeout_seconds=30",
    )
}

fn given(service: LoadBalancer) -> LoadBalancer {
    with(service, "security-groups", NODE_GROUP)
}

fn words(changes: &[Change]) -> Vec<&str> {
    let all = changes.iter().map(|change| change.difference.as_str());
    all.filter(|words| !words.is_empty()).collect()
}

/// The name of its target group follows from nothing that the Service still says.
#[tokio::test(start_paused = true)]
async fn what_a_late_list_shows_of_a_service_that_lives_is_read_and_deleted() {
    let bed = Bed::with(in_time()).await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web()).await.unwrap();
    sleep(LATE).await;
    let expected = essence(&bed.fake.snapshot());
    bed.fake.fault(Fault::writes().nth(1).drop_after());
    settle(&provider, &more()).await.unwrap_err();
    drop(provider);
    bed.fake.clear_faults();
    let provider = bed.start().await.unwrap();
    settle(&provider, &web()).await.unwrap();
    assert_eq!(bed.fake.snapshot().target_groups.len(), 2);
    sleep(LATE).await;
    let changes = provider.look().await;
    assert!(
        changes.iter().any(|it| it.cause == Cause::Drifted),
        "{changes:?}"
    );
    assert_eq!(words(&changes), Vec::<&str>::new());
    settle(&provider, &web()).await.unwrap();
    assert_eq!(essence(&bed.fake.snapshot()), expected);
    sleep(LATE).await;
    let changes = provider.look().await;
    assert!(
        changes.iter().all(|it| it.cause == Cause::Active),
        "{changes:?}"
    );
}

/// The former process was interrupted, and the Service wants less then. AWS returns what it has made as if it
/// were new.
#[tokio::test]
async fn a_wish_that_is_taken_back_after_a_crash_leaves_nothing() {
    let rows = [
        ("a new Service", None, crossing(slow(web()))),
        ("given groups", None, given(crossing(slow(web())))),
        ("a port more", Some(web()), crossing(more())),
    ];
    for (what, before, interrupted) in rows {
        let wanted = if what == "given groups" {
            given(web())
        } else {
            web()
        };
        for lag in [Duration::ZERO, LAG] {
            let prepared = async || {
                let mut config = Config::default();
                config.settings.lag = lag;
                let bed = Bed::with(config).await;
                let provider = bed.start().await.unwrap();
                // What serves the class is old.
                settle(&provider, &service("old", &[(80, 30_090)]))
                    .await
                    .unwrap();
                if let Some(before) = &before {
                    settle(&provider, before).await.unwrap();
                }
                drop(provider);
                bed.fake.advance(lag);
                bed
            };
            let mut bed = prepared().await;
            bed.nodes -= 1;
            let expected = finish(&bed, &wanted).await;
            for nth in 1_u64.. {
                let mut bed = prepared().await;
                let provider = bed.start().await.unwrap();
                bed.fake.reset_calls();
                bed.fake.fault(Fault::writes().nth(nth).drop_after());
                let _ = settle(&provider, &interrupted).await;
                drop(provider);
                bed.fake.clear_faults();
                if bed.fake.counts().writes() < nth {
                    assert!(nth > 4, "{what}: {nth}");
                    break;
                }
                bed.nodes -= 1;
                bed.fake.advance(START);
                let provider = bed.start().await.unwrap();
                served(&provider, &bed, &wanted).await;
                let what = format!("{what}: write {nth}, lag: {lag:?}");
                if before.is_none() {
                    // Nobody has looked at everything since.
                    assert_eq!(essence(&bed.fake.snapshot()), expected, "{what}");
                }
                bed.fake.advance(Duration::from_mins(10));
                provider.look().await;
                served(&provider, &bed, &wanted).await;
                assert_eq!(essence(&bed.fake.snapshot()), expected, "{what}");
            }
        }
    }
}

/// A listener that AWS returns as if it were new may have certificates and attributes that nobody wants any more.
#[tokio::test]
async fn a_listener_that_is_there_already_has_what_it_should() {
    let of = |certificates: &[&str]| {
        let all: Vec<String> = certificates.iter().map(|id| certificate(id)).collect();
        let tls = with(more(), "ssl-cert", &all.join(","));
        with(tls, "ssl-ports", "443")
    };
    let idle = with(
        more(),
        "listener-attributes.TCP-443",
        "tcp.idle_timeout.seconds=600",
    );
    for (interrupted, wanted) in [(of(&["one", "two"]), of(&["one"])), (idle, more())] {
        for nth in 1_u64.. {
            let bed = Bed::with(lagging()).await;
            let provider = bed.start().await.unwrap();
            settle(&provider, &web()).await.unwrap();
            bed.fake.advance(LAG);
            bed.fake.reset_calls();
            bed.fake.fault(Fault::writes().nth(nth).drop_after());
            let _ = settle(&provider, &interrupted).await;
            drop(provider);
            bed.fake.clear_faults();
            if bed.fake.counts().writes() < nth {
                assert!(nth > 4, "{nth}");
                break;
            }
            bed.fake.advance(START);
            let provider = bed.start().await.unwrap();
            served(&provider, &bed, &wanted).await;
            for one in bed.fake.snapshot().listeners.values() {
                assert!(one.certificates.is_empty(), "write {nth}: {one:?}");
                let idle = one.attributes.get("tcp.idle_timeout.seconds");
                assert!(idle.is_none_or(|it| it == "350"), "write {nth}: {one:?}");
            }
        }
    }
}

/// Nothing says that the former process has made a target group: its security groups were given. Its targets show
/// when the health of the new load balancer is asked for.
#[tokio::test(start_paused = true)]
async fn targets_of_a_group_that_counts_as_new_show_with_their_health() {
    for nth in 1_u64.. {
        let mut bed = Bed::with(in_time()).await;
        let provider = bed.start().await.unwrap();
        settle(&provider, &service("old", &[(80, 30_090)]))
            .await
            .unwrap();
        sleep(LATE).await;
        bed.fake.reset_calls();
        bed.fake.fault(Fault::writes().nth(nth).drop_after());
        let _ = settle(&provider, &given(web())).await;
        drop(provider);
        bed.fake.clear_faults();
        if bed.fake.counts().writes() < nth {
            assert!(nth > 4, "{nth}");
            break;
        }
        bed.nodes -= 1;
        sleep(START).await;
        let provider = bed.start().await.unwrap();
        served(&provider, &bed, &web()).await;
        sleep(Duration::from_mins(5)).await;
        provider.look().await;
        served(&provider, &bed, &web()).await;
        for group in bed.fake.snapshot().target_groups.values() {
            assert_eq!(registered(group).len(), 2, "write {nth}: {group:?}");
        }
    }
}

/// AWS may say that it has made what somebody else has. Nobody asks if no list shows such a thing.
#[tokio::test]
async fn what_has_no_owner_and_the_same_settings_is_refused_by_its_arn() {
    for (service, given) in [(web(), false), (given(web()), true)] {
        for listed in [true, false] {
            let mut config = lagging();
            config.settings.tags_are_settings = false;
            let bed = Bed::with(config).await;
            let provider = bed.start().await.unwrap();
            settle(&provider, &service).await.unwrap();
            drop(provider);
            bed.fake.advance(Duration::from_mins(10));
            let arn = bed.fake.edit(|cloud, now| {
                let all = cloud.load_balancers.values();
                let arns: Vec<String> = all.map(|one| one.arn.clone()).collect();
                for arn in arns {
                    cloud.delete_load_balancer(now, &arn).unwrap();
                }
                let group = cloud.target_groups.values_mut().next().unwrap();
                group.tags.clear();
                group.arn.clone()
            });
            bed.fake.advance(Duration::from_mins(10));
            bed.fake.edit(|cloud, now| {
                let groups = cloud.security_groups.values();
                let own = groups.filter(|one| one.tags.contains_key("ballast.dev/service"));
                let own: Vec<String> = own.map(|one| one.id.clone()).collect();
                for id in own {
                    cloud.delete_security_group(now, &id).unwrap();
                }
            });
            bed.fake.advance(Duration::from_mins(10));
            if !listed {
                // It has just been made by somebody.
                bed.fake.edit(|cloud, now| {
                    let group = cloud.target_groups.get(&arn).unwrap().clone();
                    cloud.delete_target_group(now, &arn).unwrap();
                    cloud.target_groups.insert(arn.clone(), group, now);
                });
            }
            if !listed && !given {
                // Its security group is new, and so is everything, as far as anybody can know.
                continue;
            }
            let before = bed.fake.snapshot().target_groups;
            let provider = bed.start().await.unwrap();
            for _ in 0..2 {
                let why = settle(&provider, &service).await.unwrap_err().to_string();
                assert!(why.contains(&arn), "{why}");
            }
            delete(&bed, &provider, &service).await;
            let kept = &bed.fake.snapshot().target_groups[&arn];
            assert_eq!(kept.tags, before[&arn].tags);
            // It is gone, and nothing is in the way.
            bed.fake
                .edit(|cloud, now| cloud.delete_target_group(now, &arn))
                .unwrap();
            served(&provider, &bed, &service).await;
        }
    }
}

#[tokio::test]
async fn own_work_is_never_called_somebody_elses_while_lists_lag_behind() {
    let bed = Bed::with(lagging()).await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web()).await.unwrap();
    let changes = provider.look().await;
    assert_eq!(words(&changes), Vec::<&str>::new());
    // The backend group is not lost.
    let other = service("other", &[(80, 30_081)]);
    let (settled, calls) = bed.calls_of(settle(&provider, &other)).await;
    settled.unwrap();
    assert_eq!(calls.len(), 7, "{calls:?}");
    bed.fake.advance(LAG);
    settle(&provider, &more()).await.unwrap();
    let changes = provider.look().await;
    assert_eq!(words(&changes), Vec::<&str>::new());
    for one in [&more(), &other] {
        let (settled, calls) = bed.calls_of(settle(&provider, one)).await;
        settled.unwrap();
        assert_eq!(calls, Vec::<String>::new());
    }
    // Somebody else's work is called so all the same.
    bed.fake.advance(LAG);
    let name = bed.fake.edit(|cloud, now| {
        let one = cloud.load_balancers.values().last().unwrap();
        let (arn, name) = (one.arn.clone(), one.name.clone());
        cloud.delete_load_balancer(now, &arn).unwrap();
        name
    });
    bed.fake.advance(LAG);
    let changes = provider.look().await;
    let says = words(&changes);
    assert!(
        matches!(&says[..], [one] if one.contains(&format!("load balancer {name} is gone"))),
        "{changes:?}"
    );
}

/// Nobody has turns for it, and nobody else would see that it is gone.
#[tokio::test(start_paused = true)]
async fn what_was_kept_and_is_gone_keeps_nothing_of_the_class() {
    let bed = Bed::with(in_time()).await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web()).await.unwrap();
    let key = Key::alone(&web().id);
    let kept = provider.release(&web().id, &key, Removal::Retain).await;
    assert_eq!(kept, Ok(Released::Gone));
    sleep(LATE).await;
    assert_eq!(provider.look().await, []);
    assert_eq!(provider.inventory().await.unwrap().len(), 3);
    bed.fake.edit(|cloud, now| {
        let arn = cloud.load_balancers.values().next().unwrap().arn.clone();
        cloud.delete_load_balancer(now, &arn).unwrap();
        let arn = cloud.target_groups.values().next().unwrap().arn.clone();
        cloud.delete_target_group(now, &arn).unwrap();
    });
    sleep(Duration::from_mins(3)).await;
    // A part of it is there, and so it stays known.
    assert_eq!(provider.look().await, []);
    assert_eq!(provider.inventory().await.unwrap().len(), 1);
    bed.fake.edit(|cloud, now| {
        let groups = cloud.security_groups.values();
        let mut own = groups.filter(|one| one.tags.contains_key("ballast.dev/service"));
        let id = own.next().unwrap().id.clone();
        cloud.delete_security_group(now, &id).unwrap();
    });
    sleep(LATE).await;
    assert_eq!(provider.look().await, []);
    assert_eq!(provider.inventory().await.unwrap(), []);
    sleep(Duration::from_mins(10)).await;
    provider.look().await;
    assert!(bed.is_empty(), "{:?}", bed.fake.snapshot());
    // A Service comes as if it were the first one.
    let observed = ensure(&provider, &web()).await.unwrap();
    assert!(!observed.ingress.is_empty());
}

/// What was Ballast's once stays as somebody has left it.
#[tokio::test]
async fn what_somebody_else_has_is_in_the_way_only_of_who_needs_it() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &more()).await.unwrap();
    let arn = bed.fake.edit(|cloud, _| {
        let mut groups = cloud.target_groups.values_mut();
        let group = groups.find(|one| one.port == 30_443).unwrap();
        group.tags.clear();
        group.arn.clone()
    });
    provider.look().await;
    for process in [&provider, &bed.start().await.unwrap()] {
        for _ in 0..2 {
            let why = settle(process, &more()).await.unwrap_err().to_string();
            assert!(why.contains(&arn), "{why}");
        }
        settle(process, &web()).await.unwrap();
        let (settled, calls) = bed.calls_of(settle(process, &web())).await;
        settled.unwrap();
        assert_eq!(calls, Vec::<String>::new());
        let all = bed.fake.snapshot();
        assert_eq!(all.listeners.len(), 1);
        assert!(all.target_groups[&arn].tags.is_empty());
    }
    let why = settle(&provider, &more()).await.unwrap_err().to_string();
    assert!(why.contains(&arn), "{why}");
    bed.fake
        .edit(|cloud, now| cloud.delete_target_group(now, &arn))
        .unwrap();
    settle(&provider, &more()).await.unwrap();
    assert_eq!(bed.fake.snapshot().listeners.len(), 2);
}

/// AWS may return it as if it were new, and then it would be deleted with the Service.
#[tokio::test]
async fn what_somebody_else_has_stays_theirs_if_the_service_comes_again() {
    for wanted in [web(), given(web())] {
        let mut config = Config::default();
        config.settings.tags_are_settings = false;
        let bed = Bed::with(config).await;
        let provider = bed.start().await.unwrap();
        let old = service("old", &[(80, 30_090)]);
        settle(&provider, &old).await.unwrap();
        settle(&provider, &wanted).await.unwrap();
        let arn = bed.fake.edit(|cloud, _| {
            let mut groups = cloud.target_groups.values_mut();
            let group = groups.find(|one| one.port == 30_080).unwrap();
            group.tags.clear();
            group.arn.clone()
        });
        provider.look().await;
        settle(&provider, &wanted).await.unwrap_err();
        delete(&bed, &provider, &wanted).await;
        provider.look().await;
        let before = bed.fake.snapshot().target_groups[&arn].clone();
        for _ in 0..3 {
            let why = settle(&provider, &wanted).await.unwrap_err().to_string();
            assert!(why.contains(&arn), "{why}");
            delete(&bed, &provider, &wanted).await;
        }
        assert_eq!(bed.fake.snapshot().target_groups[&arn], before);
    }
}

/// Nobody knows that it was kept: no list shows it yet, or the call that marks it had no answer.
#[tokio::test]
async fn what_was_kept_a_moment_ago_is_taken_back() {
    for restart in [true, false] {
        let bed = Bed::with(lagging()).await;
        let provider = bed.start().await.unwrap();
        settle(&provider, &web()).await.unwrap();
        if !restart {
            bed.fake.fault(Fault::on("AddTags").drop_after());
        }
        let key = Key::alone(&web().id);
        let kept = provider.release(&web().id, &key, Removal::Retain).await;
        assert_eq!(kept.is_ok(), restart, "{kept:?}");
        bed.fake.clear_faults();
        bed.fake.advance(START);
        let provider = if restart {
            bed.start().await.unwrap()
        } else {
            provider
        };
        served(&provider, &bed, &web()).await;
        for one in bed.fake.snapshot().load_balancers.values() {
            assert!(!one.tags.contains_key(RETAINED), "{:?}", one.tags);
        }
        bed.fake.advance(LAG);
        let changes = provider.look().await;
        assert_eq!(words(&changes), Vec::<&str>::new());
    }
}
