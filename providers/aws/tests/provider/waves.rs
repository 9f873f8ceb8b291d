//! Waves of nodes: what goes wrong with one Service, one instance or the tag holds up no other Service, and
//! never keeps a class from its start.

use std::sync::Arc;
use std::time::Duration;

use ballast_aws_fake::state::Snapshot;
use ballast_aws_fake::state::seed::NODE_GROUP;
use ballast_aws_fake::{Config, Fault, Time};
use ballast_provider::mark::service_of;
use ballast_provider::{LoadBalancer, Provider, ProviderError};
use tokio::time::{sleep, timeout};

use crate::bed::{Bed, ensure, instance, registered, service, settle, with, writes};

/// How many targets each target group of a Service has.
fn targets(all: &Snapshot, of: &LoadBalancer) -> Vec<usize> {
    let groups = all.target_groups.values();
    let own = groups.filter(|group| service_of(&group.tags).is_some_and(|id| id == of.id));
    own.map(|group| registered(group).len()).collect()
}

fn count(calls: &[String], action: &str) -> usize {
    calls.iter().filter(|call| *call == action).count()
}

/// As the controller does: waves until one has reached everything.
async fn follow(bed: &Bed, provider: &impl Provider) {
    let nodes = bed.targets();
    loop {
        let wave = timeout(Duration::from_secs(30), provider.retarget(&nodes, &[])).await;
        match wave.expect("a wave ends itself") {
            Ok(()) => break,
            Err(ProviderError::Throttled { retry_after }) => sleep(retry_after).await,
            Err(why) => panic!("{why}"),
        }
    }
}

/// AWS's quota has no room for the targets of one Service.
#[tokio::test]
async fn a_service_that_is_refused_keeps_no_class_from_its_start() {
    let mut bed = Bed::new().await;
    let quota = |bed: &Bed, most: usize| {
        let set = |cloud: &mut ballast_aws_fake::state::Cloud| {
            cloud.settings.quotas.targets_per_load_balancer = most;
        };
        bed.fake.edit(|cloud, _| set(cloud));
    };
    let wide = service("wide", &[(80, 30_080), (443, 30_443)]);
    let small = service("small", &[(80, 30_081)]);
    let provider = bed.start().await.unwrap();
    for one in [&wide, &small] {
        settle(&provider, one).await.unwrap();
    }
    drop(provider);
    quota(&bed, 7);
    bed.add_node();
    let provider = bed.start().await.unwrap();
    assert_eq!(targets(&bed.fake.snapshot(), &small), [4]);
    // Its own turn is asked for, and says why.
    let changes = provider.look().await;
    let asked = |changes: &[ballast_provider::Change], id| {
        changes.iter().filter(|change| change.id == id).count()
    };
    assert_eq!(asked(&changes, wide.id.clone()), 1, "{changes:?}");
    let why = ensure(&provider, &wide).await.unwrap_err();
    assert!(why.to_string().contains("TooManyTargets"), "{why}");
    // The tag does not say that every target group has its targets.
    drop(provider);
    let (provider, calls) = bed.calls_of(bed.start()).await;
    let provider = provider.unwrap();
    assert!(count(&calls, "DescribeTargetHealth") > 0, "{calls:?}");
    // There is room: the next turn makes it good, and the tag follows.
    quota(&bed, 500);
    settle(&provider, &wide).await.unwrap();
    assert_eq!(targets(&bed.fake.snapshot(), &wide), [4, 4]);
    provider.look().await;
    drop(provider);
    let (provider, calls) = bed.calls_of(bed.start()).await;
    provider.unwrap();
    assert_eq!(count(&calls, "DescribeTargetHealth"), 0, "{calls:?}");
}

/// Somebody deletes a target group between the list of the start and its wave.
#[tokio::test]
async fn a_target_group_that_is_gone_keeps_no_class_from_its_start() {
    let mut bed = Bed::new().await;
    let (web, other) = (
        service("web", &[(80, 30_080)]),
        service("other", &[(80, 30_081)]),
    );
    let provider = bed.start().await.unwrap();
    for one in [&web, &other] {
        settle(&provider, one).await.unwrap();
    }
    drop(provider);
    bed.add_node();
    let code = "TargetGroupNotFound";
    bed.fake
        .fault(Fault::on("DescribeTargetHealth").error(code, "It does not exist."));
    let provider = bed.start().await.unwrap();
    let all = bed.fake.snapshot();
    let mut seen = [targets(&all, &web), targets(&all, &other)].concat();
    seen.sort_unstable();
    assert_eq!(seen, [3, 4]);
    // The Service that lost it has a turn, and gets what it needs.
    for change in provider.look().await {
        let one = [&web, &other].into_iter().find(|one| one.id == change.id);
        settle(&provider, one.unwrap()).await.unwrap();
    }
    let all = bed.fake.snapshot();
    assert_eq!(
        (targets(&all, &web), targets(&all, &other)),
        (vec![4], vec![4])
    );
}

/// AWS does not say which instance of a call it refuses. The search takes long, and is made once.
#[tokio::test(start_paused = true)]
async fn refused_instances_are_looked_for_once_and_a_wave_ends_itself() {
    let config = Config {
        time: Time::Scaled(1.0),
        ..Config::default()
    };
    let mut bed = Bed::with(config).await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    bed.fake.set_latency(Duration::from_secs(1));
    // These have no instance.
    bed.nodes = 20;
    follow(&bed, &provider).await;
    bed.fake.set_latency(Duration::ZERO);
    bed.add_node();
    let (retargeted, calls) = bed.calls_of(bed.retarget(&provider)).await;
    retargeted.unwrap();
    assert_eq!(count(&calls, "RegisterTargets"), 1, "{calls:?}");
    assert_eq!(targets(&bed.fake.snapshot(), &web), [4]);
    let said = provider.remarks().join(" ");
    assert!(said.contains("does not accept"), "{said}");
}

#[tokio::test]
async fn an_instance_is_refused_once_for_all_ports() {
    let mut bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080), (443, 30_443), (53, 30_053)]);
    settle(&provider, &web).await.unwrap();
    // It has no instance.
    bed.nodes += 1;
    let (retargeted, calls) = bed.calls_of(bed.retarget(&provider)).await;
    retargeted.unwrap();
    assert_eq!(count(&calls, "RegisterTargets"), 1, "{calls:?}");
    assert_eq!(targets(&bed.fake.snapshot(), &web), [3, 3, 3]);
}

/// What was registered before a search failed is known.
#[tokio::test]
async fn a_search_that_fails_loses_nothing() {
    let mut bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    // Node 4 does not exist; nodes 5 and 6 do.
    bed.nodes += 1;
    bed.add_node();
    bed.add_node();
    // All three are refused, then the last two are registered, and the first one fails.
    let fault = Fault::on("RegisterTargets").nth(3);
    bed.fake.fault(fault.error("TooManyTargets", "no room"));
    bed.retarget(&provider).await.unwrap();
    assert_eq!(targets(&bed.fake.snapshot(), &web), [5]);
    let (retargeted, calls) = bed.calls_of(bed.retarget(&provider)).await;
    retargeted.unwrap();
    assert_eq!(count(&calls, "RegisterTargets"), 1, "{calls:?}");
}

/// A turn that waits for AWS holds up its own Service only, also if there are more such turns than a wave has
/// Services at once.
#[tokio::test]
async fn services_that_are_busy_hold_up_no_other() {
    const BUSY: usize = 20;
    let mut bed = Bed::new().await;
    let provider = Arc::new(bed.start().await.unwrap());
    let name = |number: usize| format!("busy-{number:02}");
    let port = |number: usize| 30_100 + u16::try_from(number).unwrap();
    let busy = |number| service(&name(number), &[(80, port(number))]);
    let more = |number| {
        service(
            &name(number),
            &[(80, port(number)), (443, port(number + 50))],
        )
    };
    let other = service("other", &[(80, 30_081)]);
    settle(&*provider, &other).await.unwrap();
    for number in 0..BUSY {
        settle(&*provider, &busy(number)).await.unwrap();
    }
    bed.fake.reset_calls();
    let fault = Fault::on("CreateTargetGroup").hold_before();
    bed.fake.fault(fault.times(BUSY as u64));
    let turns: Vec<_> = (0..BUSY)
        .map(|number| {
            let (provider, more) = (Arc::clone(&provider), more(number));
            tokio::spawn(async move { settle(&*provider, &more).await })
        })
        .collect();
    let waits = async {
        let held = || {
            let calls = bed.fake.calls().into_iter();
            calls
                .filter(|call| call.action == "CreateTargetGroup")
                .count()
        };
        while held() < BUSY {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), waits).await.unwrap();
    bed.add_node();
    let wave = tokio::spawn({
        let (provider, nodes) = (Arc::clone(&provider), bed.targets());
        async move { provider.retarget(&nodes, &[]).await }
    });
    let follows = async {
        while targets(&bed.fake.snapshot(), &other) != [4] {
            tokio::task::yield_now().await;
        }
    };
    let followed = timeout(Duration::from_secs(10), follows).await;
    bed.fake.clear_faults();
    bed.fake.release();
    for turn in turns {
        turn.await.unwrap().unwrap();
    }
    let ended = wave.await.unwrap();
    followed.expect("it does not wait for the other ones");
    if ended.is_err() {
        follow(&bed, &*provider).await;
    }
    assert_eq!(targets(&bed.fake.snapshot(), &busy(7)), [4, 4]);
}

/// A turn writes the tag for the former nodes while a wave changes the targets.
#[tokio::test]
async fn a_tag_that_is_written_during_a_wave_is_not_believed() {
    let mut bed = Bed::new().await;
    let provider = Arc::new(bed.start().await.unwrap());
    let web = service("web", &[(80, 30_080)]);
    bed.fake.fault(Fault::on("CreateTags").hold_before());
    let turn = tokio::spawn({
        let (provider, web) = (Arc::clone(&provider), web.clone());
        async move { settle(&*provider, &web).await }
    });
    bed.fake.held().await;
    bed.add_node();
    let wave = timeout(Duration::from_secs(10), bed.retarget(&provider)).await;
    bed.fake.release();
    turn.await.unwrap().unwrap();
    wave.expect("EC2 holds up no wave").unwrap();
    provider.look().await;
    settle(&*provider, &web).await.unwrap();
    assert_eq!(targets(&bed.fake.snapshot(), &web), [4]);
    drop(provider);
    // The new node goes again while nobody looks.
    bed.nodes -= 1;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web).await.unwrap();
    assert_eq!(targets(&bed.fake.snapshot(), &web), [3]);
}

/// Without a backend group nothing carries the tag, so each start asks for the targets of each group.
#[tokio::test]
async fn with_given_groups_each_start_asks_for_the_targets() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let all = [("one", 30_080), ("two", 30_081)]
        .map(|(name, port)| with(service(name, &[(80, port)]), "security-groups", NODE_GROUP));
    for one in &all {
        settle(&provider, one).await.unwrap();
    }
    drop(provider);
    let work = async {
        let provider = bed.start().await.unwrap();
        for one in &all {
            settle(&provider, one).await.unwrap();
        }
    };
    let ((), calls) = bed.calls_of(work).await;
    assert_eq!(count(&calls, "DescribeTargetHealth"), 2, "{calls:?}");
    assert_eq!(writes(&calls), [""; 0]);
}

/// All nodes are replaced, and AWS has no room for the former ones and the new ones together.
#[tokio::test]
async fn former_nodes_leave_first_if_there_is_no_room_for_both() {
    let mut bed = Bed::new().await;
    let web = service("web", &[(80, 30_080), (443, 30_443)]);
    let provider = bed.start().await.unwrap();
    settle(&provider, &web).await.unwrap();
    bed.fake
        .edit(|cloud, _| cloud.settings.quotas.targets_per_load_balancer = 6);
    for _ in 0..3 {
        bed.add_node();
    }
    bed.first_node = 4;
    follow(&bed, &provider).await;
    let seen = || -> Vec<Vec<String>> {
        let all = bed.fake.snapshot();
        let each = all.target_groups.values().map(registered);
        each.map(|ids| ids.into_iter().map(str::to_owned).collect())
            .collect()
    };
    let why = ensure(&provider, &web).await.unwrap_err();
    // AWS counts targets that drain.
    assert!(why.to_string().contains("TooManyTargets"), "{why}");
    assert_eq!(seen(), [Vec::<String>::new(), vec![]]);
    bed.fake.advance(Duration::from_mins(5));
    settle(&provider, &web).await.unwrap();
    let new: Vec<String> = (4..=6).map(instance).collect();
    assert_eq!(seen(), [new.clone(), new]);
}
