//! Targets in target groups that others own.

mod faults;
mod notes;
mod permits;

use std::collections::BTreeSet;
use std::time::Duration;

use ballast_aws::bind::{BOUND_TO, TARGET_GROUPS, TARGETS_FROM};
use ballast_aws::provider::AwsProvider;
use ballast_aws_fake::state::Tags;
use ballast_aws_fake::state::listeners::Change as Listener;
use ballast_aws_fake::state::load_balancers::{Create, Mapping};
use ballast_aws_fake::state::seed::VPC;
use ballast_aws_fake::state::target_groups::Create as CreateTargetGroup;
use ballast_aws_fake::state::targets::Description;
use ballast_provider::{
    Cause, Change, ExtraKind, Key, LoadBalancer, Observed, Provider, Released, Removal, State,
};

use crate::bed::{
    Bed, addresses, delete, ensure, instance, service, settle, with, with_pods, writes,
};

const ONE: &str = "10.0.100.1";
const TWO: &str = "10.0.100.2";
const THREE: &str = "10.0.100.3";
/// Another cluster's.
const OTHER: &str = "10.0.100.9";

/// A target group of somebody else, and what it needs.
struct Theirs {
    target_type: &'static str,
    /// The value of [`TARGETS_FROM`].
    permits: Option<&'static str>,
    /// Whether a load balancer sends to it.
    used: bool,
}

// === impl Theirs ===

impl Theirs {
    const fn of(target_type: &'static str) -> Self {
        Self {
            target_type,
            permits: Some("blog/web shop/web"),
            used: true,
        }
    }

    fn make(&self, bed: &Bed, name: &str) -> String {
        let tags = self
            .permits
            .map(|it| (TARGETS_FROM.to_owned(), it.to_owned()));
        let create = CreateTargetGroup {
            name: name.into(),
            protocol: Some("TCP".into()),
            port: Some(80),
            vpc: Some(VPC.into()),
            target_type: Some(self.target_type.into()),
            tags: tags.into_iter().collect(),
            ..CreateTargetGroup::default()
        };
        let arn = bed.fake.edit(|cloud, now| {
            let made = cloud.create_target_group(now, create);
            made.unwrap().arn
        });
        if self.used {
            send_to(bed, &arn, name);
        }
        arn
    }
}

/// Somebody's load balancer sends to it.
fn send_to(bed: &Bed, target_group: &str, name: &str) {
    let create = Create {
        name: format!("front-{name}"),
        kind: Some("network".into()),
        scheme: Some("internal".into()),
        ip_address_type: None,
        subnets: vec![Mapping {
            subnet: "subnet-private-a".into(),
            ..Mapping::default()
        }],
        security_groups: Vec::new(),
        tags: Tags::new(),
    };
    bed.fake.edit(|cloud, now| {
        let balancer = cloud.create_load_balancer(now, create).unwrap().arn;
        let listener = Listener {
            port: Some(443),
            protocol: Some("TCP".into()),
            forward: Some(vec![(target_group.to_owned(), None)]),
            ..Listener::default()
        };
        cloud
            .create_listener(now, &balancer, listener, Tags::new())
            .unwrap();
    });
}

fn bound(mut service: LoadBalancer, arn: &str) -> LoadBalancer {
    service
        .settings
        .insert(TARGET_GROUPS.into(), format!("80={arn}"));
    service
}

fn web() -> LoadBalancer {
    service("web", &[(80, 30_080)])
}

fn pods(arn: &str, all: &[&str]) -> LoadBalancer {
    bound(with_pods(web(), all), arn)
}

/// What a target group has, without what drains.
fn has(bed: &Bed, arn: &str) -> Vec<String> {
    addresses(&bed.fake.snapshot().target_groups[arn])
}

/// What the notes of Ballast say.
fn noted(bed: &Bed) -> Vec<String> {
    let all = bed.fake.snapshot().target_groups;
    let notes = all.values().filter(|one| one.tags.contains_key(BOUND_TO));
    notes.flat_map(addresses).collect()
}

fn at(pods: &[&str]) -> Vec<String> {
    let all: BTreeSet<String> = pods.iter().map(|it| format!("{it}:8080")).collect();
    all.into_iter().collect()
}

/// Another cluster registers a pod of its own.
fn of_another(bed: &Bed, arn: &str) {
    let pod = Description {
        id: OTHER.into(),
        port: Some(8_080),
        zone: None,
    };
    bed.fake
        .edit(|cloud, now| cloud.register_targets(now, arn, &[pod]))
        .unwrap();
}

async fn prepared(target_type: &'static str) -> (Bed, AwsProvider, String) {
    let bed = Bed::new().await;
    let arn = Theirs::of(target_type).make(&bed, "theirs");
    bed.fake.advance(Duration::from_mins(10));
    let provider = bed.start().await.unwrap();
    (bed, provider, arn)
}

fn hostname(seen: &Observed) -> Option<&str> {
    seen.ingress.first().and_then(|one| one.hostname())
}

#[tokio::test]
async fn pods_are_targets_and_the_name_of_the_other_load_balancer_is_published() {
    let (bed, provider, arn) = prepared("ip").await;
    of_another(&bed, &arn);
    let (seen, calls) = bed
        .calls_of(settle(&provider, &pods(&arn, &[ONE, TWO])))
        .await;
    let seen = seen.unwrap();
    assert_eq!(
        writes(&calls),
        ["CreateTargetGroup", "RegisterTargets", "RegisterTargets"]
    );
    assert_eq!(has(&bed, &arn), at(&[ONE, TWO, OTHER]));
    assert_eq!(seen.state, State::Programmed);
    assert!(
        hostname(&seen).is_some_and(|it| it.starts_with("front-theirs")),
        "{seen:?}"
    );
    // Only theirs: Ballast makes none.
    assert_eq!(bed.fake.snapshot().load_balancers.len(), 1);
    let (_, calls) = bed
        .calls_of(settle(&provider, &pods(&arn, &[ONE, TWO])))
        .await;
    assert_eq!(calls, [""; 0]);
    let (_, calls) = bed
        .calls_of(settle(&provider, &pods(&arn, &[TWO, THREE])))
        .await;
    assert_eq!(
        calls,
        [
            "RegisterTargets",
            "RegisterTargets",
            "DeregisterTargets",
            "DeregisterTargets"
        ]
    );
    assert_eq!(has(&bed, &arn), at(&[TWO, THREE, OTHER]));
    delete(&bed, &provider, &pods(&arn, &[])).await;
    assert_eq!(has(&bed, &arn), at(&[OTHER]));
    assert_eq!(noted(&bed), [""; 0]);
    assert_eq!(bed.fake.snapshot().target_groups.len(), 1);
}

/// Its target group has a port of its own, so nodes are registered with theirs.
#[tokio::test]
async fn nodes_are_targets_on_their_node_ports() {
    let (mut bed, provider, arn) = prepared("instance").await;
    settle(&provider, &bound(web(), &arn)).await.unwrap();
    let nodes = |all: &[u16]| -> Vec<String> {
        let all = all
            .iter()
            .map(|number| format!("{}:30080", instance(*number)));
        all.collect()
    };
    assert_eq!(has(&bed, &arn), nodes(&[1, 2, 3]));
    bed.add_node();
    bed.first_node = 2;
    bed.retarget(&provider).await.unwrap();
    assert_eq!(has(&bed, &arn), nodes(&[2, 3, 4]));
    // The same after a restart, while nodes have changed.
    drop(provider);
    bed.first_node = 3;
    let provider = bed.start().await.unwrap();
    settle(&provider, &bound(web(), &arn)).await.unwrap();
    assert_eq!(has(&bed, &arn), nodes(&[3, 4]));
    let (_, calls) = bed.calls_of(settle(&provider, &bound(web(), &arn))).await;
    assert_eq!(writes(&calls), [""; 0]);
    delete(&bed, &provider, &web()).await;
    assert_eq!(has(&bed, &arn), [""; 0]);
}

/// Two clusters register their own targets, and neither touches those of the other.
#[tokio::test]
async fn clusters_share_a_target_group() {
    let (bed, one, arn) = prepared("ip").await;
    let two = bed.start_for("cluster-2").await.unwrap();
    settle(&one, &pods(&arn, &[ONE])).await.unwrap();
    settle(&two, &pods(&arn, &[TWO])).await.unwrap();
    assert_eq!(has(&bed, &arn), at(&[ONE, TWO]));
    settle(&one, &pods(&arn, &[THREE])).await.unwrap();
    settle(&two, &pods(&arn, &[])).await.unwrap();
    assert_eq!(has(&bed, &arn), at(&[THREE]));
    settle(&two, &pods(&arn, &[TWO])).await.unwrap();
    delete(&bed, &one, &pods(&arn, &[])).await;
    assert_eq!(has(&bed, &arn), at(&[TWO]));
}

#[tokio::test]
async fn settings_that_need_a_load_balancer_are_refused() {
    let (_bed, provider, arn) = prepared("instance").await;
    let mut shared = bound(web(), &arn);
    shared.share_key = Some("front".into());
    let mut two = service("web", &[(80, 30_080), (443, 30_443)]);
    two = bound(two, &arn);
    let mut other = web();
    other
        .settings
        .insert(TARGET_GROUPS.into(), format!("81={arn}"));
    for (service, says) in [
        (shared, "ballast.dev/share-key"),
        (two, "no target group for port 443"),
        (other, "has no port 81"),
    ] {
        let why = ensure(&provider, &service).await.unwrap_err().to_string();
        assert!(why.contains(says) && why.contains(TARGET_GROUPS), "{why}");
    }
}

/// Until somebody uses the target group, nobody reaches the Service.
#[tokio::test]
async fn a_target_group_that_nobody_uses_is_named() {
    let bed = Bed::new().await;
    let theirs = Theirs {
        used: false,
        ..Theirs::of("ip")
    };
    let arn = theirs.make(&bed, "theirs");
    let provider = bed.start().await.unwrap();
    let seen = settle(&provider, &pods(&arn, &[ONE])).await.unwrap();
    let State::Pending { message, .. } = &seen.state else {
        panic!("{seen:?}");
    };
    assert!(
        message.contains(&arn) && seen.ingress.is_empty(),
        "{message}"
    );
    assert_eq!(has(&bed, &arn), at(&[ONE]));
    send_to(&bed, &arn, "late");
    let (_, calls) = bed.calls_of(settle(&provider, &pods(&arn, &[ONE]))).await;
    assert_eq!(calls, [""; 0], "it was seen a moment ago");
    // The poller asks for a turn after a minute.
    let changes = later(&bed, &provider).await;
    assert!(
        changes.iter().any(|it| it.cause == Cause::Due),
        "{changes:?}"
    );
    let seen = settle(&provider, &pods(&arn, &[ONE])).await.unwrap();
    assert_eq!(seen.state, State::Programmed);
    assert!(hostname(&seen).is_some());
}

/// Ten minutes pass.
async fn later(bed: &Bed, provider: &AwsProvider) -> Vec<Change> {
    bed.fake.advance(Duration::from_mins(10));
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(10)).await;
    tokio::time::resume();
    provider.look().await
}

/// Nobody would follow nodes and pods there.
#[tokio::test]
async fn targets_of_a_service_that_is_kept_leave_all_the_same() {
    let (bed, provider, arn) = prepared("instance").await;
    settle(&provider, &bound(web(), &arn)).await.unwrap();
    let key = Key::alone(&web().id);
    let kept = provider.release(&web().id, &key, Removal::Retain).await;
    assert_eq!(kept, Ok(Released::Gone));
    assert_eq!(has(&bed, &arn), [""; 0]);
    assert_eq!(bed.fake.snapshot().target_groups.len(), 1);
}

#[tokio::test]
async fn settings_of_a_load_balancer_have_no_effect_and_are_named() {
    let (_bed, provider, arn) = prepared("instance").await;
    let web = with(bound(web(), &arn), "scheme", "internet-facing");
    let web = with(web, "target-node-labels", "pool=edge");
    let seen = settle(&provider, &web).await.unwrap();
    let said = seen.remarks.join(" ");
    assert!(said.contains("scheme have no effect"), "{said}");
    assert!(!said.contains("target-node-labels"), "{said}");
}

/// The health of its own targets only.
#[tokio::test]
async fn its_own_targets_are_counted() {
    let (bed, provider, arn) = prepared("ip").await;
    of_another(&bed, &arn);
    let web = pods(&arn, &[ONE, TWO]);
    settle(&provider, &web).await.unwrap();
    bed.fake.advance(Duration::from_mins(5));
    bed.fake.edit(|cloud, _| {
        cloud.sick.insert(OTHER.parse().unwrap());
    });
    provider.look().await;
    let seen = settle(&provider, &web).await.unwrap();
    let mut conditions = seen.conditions.iter();
    let health = conditions.find(|it| it.kind == ExtraKind::TargetsHealthy);
    let health = health.unwrap_or_else(|| panic!("{seen:?}"));
    assert!(health.message.starts_with("2 of 2 targets"), "{health:?}");
    assert_eq!(seen.healthy.map(|it| it.len()), Some(2));
}

/// What somebody deregisters comes back at the next full look; what others register is theirs.
#[tokio::test]
async fn a_target_that_somebody_deregisters_comes_back() {
    let (bed, provider, arn) = prepared("ip").await;
    let web = pods(&arn, &[ONE, TWO]);
    settle(&provider, &web).await.unwrap();
    let pod = Description {
        id: ONE.into(),
        port: Some(8_080),
        zone: None,
    };
    bed.fake
        .edit(|cloud, now| cloud.deregister_targets(now, &arn, &[pod]))
        .unwrap();
    of_another(&bed, &arn);
    bed.fake.advance(Duration::from_mins(10));
    for _ in 0..4 {
        provider.look().await;
    }
    settle(&provider, &web).await.unwrap();
    assert_eq!(has(&bed, &arn), at(&[ONE, TWO, OTHER]));
}

/// The owner deletes the target group: the Service says so, and can go.
#[tokio::test]
async fn a_target_group_that_is_gone_holds_up_no_deletion() {
    let (bed, provider, arn) = prepared("ip").await;
    let web = pods(&arn, &[ONE]);
    settle(&provider, &web).await.unwrap();
    bed.fake.edit(|cloud, now| {
        let listeners: Vec<String> = cloud.listeners.values().map(|it| it.arn.clone()).collect();
        for listener in listeners {
            cloud.delete_listener(now, &listener).unwrap();
        }
        cloud.delete_target_group(now, &arn).unwrap();
    });
    drop(provider);
    let provider = bed.start().await.unwrap();
    let why = ensure(&provider, &web).await.unwrap_err();
    assert!(why.to_string().contains("does not find it"), "{why}");
    delete(&bed, &provider, &web).await;
    assert_eq!(bed.fake.snapshot().target_groups.len(), 0);
}

/// Without the annotation the Service gets a load balancer, and its targets leave the other target group.
#[tokio::test]
async fn without_the_annotation_it_gets_a_load_balancer() {
    let (bed, provider, arn) = prepared("ip").await;
    of_another(&bed, &arn);
    settle(&provider, &pods(&arn, &[ONE])).await.unwrap();
    let alone = with_pods(web(), &[ONE]);
    settle(&provider, &alone).await.unwrap();
    assert_eq!(has(&bed, &arn), at(&[OTHER]));
    assert_eq!(noted(&bed), [""; 0]);
    assert_eq!(bed.fake.snapshot().load_balancers.len(), 2);
    // Nobody looks at the target group any more.
    let changes = later(&bed, &provider).await;
    let is_due = |it: &&Change| it.cause == Cause::Due;
    assert_eq!(changes.iter().find(is_due), None);
}
