//! Rules of pods as targets and of taking load balancers over, each of which something once broke: what nobody knows
//! changes nothing, what goes wrong stays with its Service, and nobody takes what belongs to others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ballast_aws::adopt::ADOPT;
use ballast_aws::provider::AwsProvider;
use ballast_aws::settings::Allowed;
use ballast_aws_fake::state::listeners::Change;
use ballast_aws_fake::state::load_balancers::{Create, Mapping};
use ballast_aws_fake::state::seed::{NODE_GROUP, VPC};
use ballast_aws_fake::state::target_groups::Create as CreateTargetGroup;
use ballast_aws_fake::state::targets::Description;
use ballast_aws_fake::state::{Cloud, Moment, Tags};
use ballast_aws_fake::{Config, Fault};
use ballast_provider::{
    Endpoint, ExtraKind, Key, Listener, LoadBalancer, Observed, Protocol, Provider, ProviderError,
    Readiness, Released, Removal, ServiceId,
};
use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

use crate::bed::{Bed, addresses, delete, ensure, instance, service, settle, with, with_pods};
use crate::quiet::Quiet;
use crate::support::{balancer, settle_all};

const ONE: &str = "10.0.100.1";
const TWO: &str = "10.0.100.2";

fn lbc_tags(of: &str) -> Tags {
    [
        ("elbv2.k8s.aws/cluster", "prod"),
        ("service.k8s.aws/stack", of),
        ("service.k8s.aws/resource", "LoadBalancer"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// What LBC has made for shop/web on these ports.
fn make(cloud: &mut Cloud, now: Moment, name: &str, groups: &[&str], ports: &[u16]) -> String {
    let subnets = ["subnet-private-a", "subnet-private-b"].map(|id| Mapping {
        subnet: id.into(),
        ..Mapping::default()
    });
    let tags = lbc_tags("shop/web");
    let made = cloud.create_load_balancer(
        now,
        Create {
            name: name.into(),
            kind: Some("network".into()),
            scheme: Some("internal".into()),
            ip_address_type: None,
            subnets: subnets.into(),
            security_groups: groups.iter().map(|&id| id.into()).collect(),
            tags: tags.clone(),
        },
    );
    let arn = made.unwrap().arn;
    for &port in ports {
        let create = CreateTargetGroup {
            name: format!("{name}-{port}"),
            protocol: Some("TCP".into()),
            port: Some(30_000 + port),
            vpc: Some(VPC.into()),
            tags: tags.clone(),
            ..CreateTargetGroup::default()
        };
        let group = cloud.create_target_group(now, create).unwrap().arn;
        let nodes = [1, 2, 3].map(|number| Description {
            id: instance(number),
            port: None,
            zone: None,
        });
        cloud.register_targets(now, &group, &nodes).unwrap();
        let listener = Change {
            port: Some(port),
            protocol: Some("TCP".into()),
            forward: Some(vec![(group, None)]),
            ..Change::default()
        };
        cloud
            .create_listener(now, &arn, listener, tags.clone())
            .unwrap();
    }
    arn
}

async fn prepared(groups: &[&str], ports: &[u16]) -> (Bed, String) {
    let bed = Bed::new().await;
    let arn = bed
        .fake
        .edit(|cloud, now| make(cloud, now, "k8s-shop-web-01", groups, ports));
    bed.fake.advance(Duration::from_mins(10));
    (bed, arn)
}

fn adopting(arn: &str, ports: &[u16]) -> LoadBalancer {
    let ports: Vec<(u16, u16)> = ports.iter().map(|&port| (port, 30_000 + port)).collect();
    let mut web = service("web", &ports);
    web.settings.insert(ADOPT.into(), arn.into());
    web
}

fn ports(bed: &Bed) -> BTreeSet<u16> {
    let all = bed.fake.snapshot();
    all.listeners.values().map(|one| one.port).collect()
}

fn ip_targets(bed: &Bed) -> Vec<String> {
    let all = bed.fake.snapshot().target_groups;
    let ip = all.values().filter(|one| one.target_type == "ip");
    ip.flat_map(addresses).collect()
}

fn marked(bed: &Bed, arn: &str) -> bool {
    let all = bed.fake.snapshot().load_balancers;
    all.get(arn)
        .is_some_and(|one| one.tags.contains_key("ballast.dev/cluster"))
}

fn message(ended: &Result<Observed, ProviderError>) -> String {
    ended
        .as_ref()
        .err()
        .map_or(String::new(), ToString::to_string)
}

// === Taking over
/// The oldest Service of a shared load balancer leaves it and names its ARN: the tags still name its UID, so
/// `is_of` says that it has it already. `must_own` asks for the class only, and the plan then takes away the
/// listeners of all others.
#[tokio::test]
async fn the_oldest_member_does_not_take_the_shared_load_balancer_from_the_others() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let shared = |name: &str, namespace: &str, port: u16| {
        let mut one = service(name, &[(port, 30_000 + port)]);
        one.id.namespace = namespace.into();
        one.share_key = Some("front".into());
        one
    };
    let attacker = shared("attacker", "shop", 81);
    let victim = shared("victim", "shop", 443);
    settle_all(&provider, &[attacker.clone(), victim.clone()])
        .await
        .unwrap();
    let all = bed.fake.snapshot().load_balancers;
    let arn = all.keys().next().unwrap().clone();
    let mut alone = attacker.clone();
    alone.share_key = None;
    alone.settings.insert(ADOPT.into(), arn.clone());
    let ended = settle(&provider, &alone).await;
    assert!(
        ports(&bed).contains(&443),
        "the listener of the victim is gone: {ended:?}"
    );
}

/// The load balancer is marked before anybody knows that the rest can be done. Then the Service is refused, and who
/// takes the annotation away or deletes the Service deletes a load balancer that Ballast never served.
#[tokio::test]
async fn what_is_refused_is_not_marked() {
    let (bed, arn) = prepared(&[], &[80]).await;
    let provider = bed.start().await.unwrap();
    let web = with(adopting(&arn, &[80]), "security-groups", NODE_GROUP);
    let ended = settle(&provider, &web).await;
    assert!(
        message(&ended).contains("without security groups"),
        "{ended:?}"
    );
    let was_marked = marked(&bed, &arn);
    // Whoever gives up.
    let mut removed = false;
    for _ in 0..20 {
        let key = Key::alone(&web.id);
        if provider.release(&web.id, &key, Removal::Delete).await == Ok(Released::Gone) {
            removed = true;
            break;
        }
        bed.fake.advance(Duration::from_secs(20));
    }
    let there = bed.fake.snapshot().load_balancers.contains_key(&arn);
    assert!(
        !was_marked && there,
        "marked: {was_marked}, still there after the Service is deleted ({removed}): {there}"
    );
}

/// What the dry run refuses is not begun.
#[tokio::test]
async fn what_the_dry_run_refuses_is_not_done() {
    let (bed, arn) = prepared(&[NODE_GROUP], &[80]).await;
    let provider = bed.start().await.unwrap();
    let web = with(
        adopting(&arn, &[80]),
        "private-ipv4-addresses",
        "10.0.0.50,10.0.1.50",
    );
    let wanted = balancer(&provider, std::slice::from_ref(&web));
    let preview = Box::pin(provider.preview_adoption(&wanted, &bed.targets())).await;
    let (ended, calls) = bed.calls_of(settle(&provider, &web)).await;
    let changes: Vec<&String> = calls
        .iter()
        .filter(|it| !it.starts_with("Describe"))
        .collect();
    assert!(preview.is_err() && ended.is_err(), "{preview:?}; {ended:?}");
    assert!(!marked(&bed, &arn), "{changes:?}");
}

/// docs/security.md: a class that allows an empty list of annotations allows none.
#[tokio::test]
async fn a_class_that_allows_no_annotation_allows_no_adoption() {
    let (mut bed, arn) = prepared(&[NODE_GROUP], &[80]).await;
    bed.class.allowed = Some(Allowed::of([]).unwrap());
    let provider = bed.start().await.unwrap();
    let ended = settle(&provider, &adopting(&arn, &[80])).await;
    assert!(ended.is_err() && !marked(&bed, &arn), "{ended:?}");
}

/// docs/security.md: messages name no Service of another namespace.
#[tokio::test]
async fn a_refusal_names_no_service_of_another_namespace() {
    let (bed, arn) = prepared(&[NODE_GROUP], &[80]).await;
    let provider = bed.start().await.unwrap();
    let mut spy = adopting(&arn, &[80]);
    spy.id = ServiceId {
        namespace: "spies".into(),
        name: "spy".into(),
        uid: "uid-spy".into(),
    };
    let ended = settle(&provider, &spy).await;
    let said = message(&ended);
    assert!(!said.is_empty() && !said.contains("shop/web"), "{said}");
}

/// A class with a Service for which the rule of the nodes is nobody's business: its groups are given, and Ballast
/// manages no rules for it.
#[tokio::test]
async fn who_needs_no_rule_does_not_wait_for_the_nodes() {
    let (bed, arn) = prepared(&[NODE_GROUP], &[80]).await;
    let more = "sg-0000000000000more";
    bed.fake.edit(|cloud, _| {
        let mut other = cloud.security_groups.get(NODE_GROUP).unwrap().clone();
        (other.id, other.name) = (more.into(), "more".into());
        let node = cloud.instances.get_mut(&instance(1)).unwrap();
        node.groups.push(more.into());
        cloud.security_groups.put(more.into(), other);
    });
    let provider = bed.start().await.unwrap();
    // Another Service needs the backend group.
    let _ = settle(&provider, &service("other", &[(80, 30_081)])).await;
    let web = with(adopting(&arn, &[80]), "security-groups", more);
    let web = with(web, "manage-backend-security-group-rules", "false");
    let ended = settle(&provider, &web).await;
    assert!(ended.is_ok(), "{ended:?}");
}

/// A listener with a protocol that Ballast does not know, on a port that the Service wants.
#[tokio::test]
async fn a_listener_with_an_unknown_protocol_is_no_endless_contradiction() {
    let (bed, arn) = prepared(&[NODE_GROUP], &[80, 443]).await;
    bed.fake.edit(|cloud, _| {
        let quic = cloud.listeners.values().find(|one| one.port == 443);
        let mut one = quic.unwrap().clone();
        one.protocol = "TCP_QUIC".into();
        cloud.listeners.put(one.arn.clone(), one);
    });
    let provider = bed.start().await.unwrap();
    let ended = settle(&provider, &adopting(&arn, &[80, 443])).await;
    let said = message(&ended);
    assert!(
        !said.contains("contradict") && !said.contains("DuplicateListener"),
        "marked: {}: {said}",
        marked(&bed, &arn)
    );
}

/// It moves to target groups whose targets nobody knows: nodes are not known yet.
#[tokio::test]
async fn listeners_do_not_move_to_target_groups_without_known_targets() {
    let (bed, arn) = prepared(&[NODE_GROUP], &[80]).await;
    let provider = bed.start().await.unwrap();
    let web = with_pods(adopting(&arn, &[80]), &[ONE]);
    let mut unknown = balancer(&provider, &[web]);
    unknown.members[0].endpoints = None;
    for _ in 0..3 {
        let _ = provider.ensure(&unknown).await;
    }
    let all = bed.fake.snapshot();
    let listener = all.listeners.values().next().unwrap();
    let (group, _) = &listener.forward[0];
    let targets = all.target_groups[group].targets.len();
    assert!(targets > 0, "the listener forwards to an empty group");
}

/// The same without adoption.
#[tokio::test]
async fn a_switch_to_pods_that_nobody_knows_keeps_the_nodes() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let nodes = service("web", &[(80, 30_080)]);
    settle(&provider, &nodes).await.unwrap();
    let mut unknown = balancer(&provider, &[with_pods(nodes, &[ONE])]);
    unknown.members[0].endpoints = None;
    let seen = provider.ensure(&unknown).await;
    let all = bed.fake.snapshot();
    let listener = all.listeners.values().next().unwrap();
    let (group, _) = &listener.forward[0];
    let targets = all.target_groups[group].targets.len();
    assert!(
        targets > 0,
        "the listener forwards to an empty group: {seen:?}"
    );
}

/// Gone by hand: the Service says so, and without the annotation nothing of it is left behind.
#[tokio::test]
async fn deleted_by_hand_and_given_up() {
    let (bed, arn) = prepared(&[NODE_GROUP], &[80]).await;
    let provider = bed.start().await.unwrap();
    let web = adopting(&arn, &[80]);
    settle(&provider, &web).await.unwrap();
    bed.fake
        .edit(|cloud, now| cloud.delete_load_balancer(now, &arn).unwrap());
    provider.look().await;
    let said = message(&settle(&provider, &web).await);
    assert!(said.contains("does not exist"), "{said}");
    let mut plain = web.clone();
    plain.settings.clear();
    settle(&provider, &plain).await.unwrap();
    bed.fake.advance(Duration::from_mins(5));
    provider.look().await;
    settle(&provider, &plain).await.unwrap();
    delete(&bed, &provider, &plain).await;
    let left = bed.fake.snapshot();
    assert!(left.load_balancers.is_empty());
    let own = left
        .target_groups
        .values()
        .filter(|one| one.name.starts_with("bl-"));
    assert_eq!(own.count(), 0);
    let own = left
        .security_groups
        .values()
        .filter(|one| one.name.starts_with("bl-"));
    assert_eq!(own.count(), 0);
}

/// The annotation is changed to another load balancer that was made for this Service, too.
#[tokio::test]
async fn another_arn() {
    let (bed, arn) = prepared(&[NODE_GROUP], &[80]).await;
    let other = bed
        .fake
        .edit(|cloud, now| make(cloud, now, "k8s-shop-web-02", &[NODE_GROUP], &[80]));
    bed.fake.advance(Duration::from_mins(10));
    let provider = bed.start().await.unwrap();
    settle(&provider, &adopting(&arn, &[80])).await.unwrap();
    let seen = settle(&provider, &adopting(&other, &[80])).await.unwrap();
    let all = bed.fake.snapshot();
    assert!(all.load_balancers.contains_key(&arn), "{seen:?}");
    assert_eq!(all.listeners.len(), 2);
    drop(provider);
    let provider = bed.start().await.unwrap();
    settle(&provider, &adopting(&other, &[80])).await.unwrap();
    delete(&bed, &provider, &adopting(&other, &[80])).await;
    let left = bed.fake.snapshot();
    assert!(left.load_balancers.is_empty());
    let own = left
        .security_groups
        .values()
        .filter(|one| one.name.starts_with("bl-"));
    assert_eq!(own.count(), 0);
}

/// The process dies after the tags are added, and the Service is deleted.
#[tokio::test]
async fn half_taken_over_and_deleted() {
    let (bed, arn) = prepared(&[NODE_GROUP], &[80]).await;
    let provider = bed.start().await.unwrap();
    bed.fake.fault(Fault::on("AddTags").dropped(true));
    let web = adopting(&arn, &[80]);
    let _ = settle(&provider, &web).await;
    drop(provider);
    bed.fake.clear_faults();
    assert!(marked(&bed, &arn));
    let provider = bed.start().await.unwrap();
    delete(&bed, &provider, &web).await;
    assert!(bed.fake.snapshot().load_balancers.is_empty());
}

// === Pods

/// Pods are followed as nodes are, whatever the Service asks for that AWS does not find.
#[tokio::test]
async fn pods_are_followed_while_a_security_group_is_missing() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = |pods: &[&str]| with_pods(service("web", &[(80, 30_080)]), pods);
    settle(&provider, &web(&[ONE])).await.unwrap();
    let ended = settle(
        &provider,
        &with(web(&[TWO]), "security-groups", "sg-0123456789abcdef0"),
    )
    .await;
    assert_eq!(ip_targets(&bed), [format!("{TWO}:8080")], "{ended:?}");
}

#[tokio::test]
async fn pods_are_followed_while_a_subnet_is_missing() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = |pods: &[&str]| with_pods(service("web", &[(80, 30_080)]), pods);
    settle(&provider, &web(&[ONE])).await.unwrap();
    let ended = settle(
        &provider,
        &with(web(&[TWO]), "subnets", "nowhere-a,nowhere-b"),
    )
    .await;
    assert_eq!(ip_targets(&bed), [format!("{TWO}:8080")], "{ended:?}");
}

/// The annotation of a Service that serves names a load balancer that it may not take.
#[tokio::test]
async fn pods_are_followed_while_an_adoption_is_refused() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = |pods: &[&str]| with_pods(service("web", &[(80, 30_080)]), pods);
    settle(&provider, &web(&[ONE])).await.unwrap();
    let all = bed.fake.snapshot().load_balancers;
    let wrong = all.keys().next().unwrap().replace("/net/", "/net/x");
    let mut wanted = web(&[TWO]);
    wanted.settings.insert(ADOPT.into(), wrong);
    let ended = settle(&provider, &wanted).await;
    assert_eq!(ip_targets(&bed), [format!("{TWO}:8080")], "{ended:?}");
}

/// A part of AWS that pods do not need fails: the rules of the security group.
#[tokio::test]
async fn pods_are_followed_while_rules_are_refused() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = |pods: &[&str]| with_pods(service("web", &[(80, 30_080)]), pods);
    settle(&provider, &web(&[ONE])).await.unwrap();
    bed.fake.fault(
        Fault::on("AuthorizeSecurityGroupIngress")
            .always()
            .error("RulesPerSecurityGroupLimitExceeded", "no"),
    );
    let mut wanted = web(&[TWO]);
    wanted.source_ranges = vec!["10.9.0.0/16".parse().unwrap()];
    let ended = settle(&provider, &wanted).await;
    assert_eq!(ip_targets(&bed), [format!("{TWO}:8080")], "{ended:?}");
}

/// TCP and UDP of one port with other ports on the pods: all of them would be targets for both.
#[tokio::test]
async fn tcp_and_udp_on_one_port_go_to_the_right_port_of_pods() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let mut dns = with_pods(service("dns", &[(53, 30_053)]), &[]);
    dns.listeners.push(Listener {
        name: Some("udp".into()),
        protocol: Protocol::Udp,
        port: 53,
        node_port: 30_053,
    });
    let pod = |protocol, port| Endpoint {
        listener: (protocol, 53),
        address: ONE.parse().unwrap(),
        port,
        readiness: Readiness::Ready,
    };
    let mut wanted = balancer(&provider, &[dns]);
    let all = BTreeSet::from([pod(Protocol::Tcp, 5_353), pod(Protocol::Udp, 5_354)]);
    wanted.members[0].endpoints = Some(Arc::new(all));
    let mut ended = provider.ensure(&wanted).await;
    for _ in 0..3 {
        ended = provider.ensure(&wanted).await;
    }
    let targets = ip_targets(&bed);
    let said = format!("{ended:?}");
    assert_eq!(targets, [""; 0]);
    assert!(said.contains("port 53 is TCP and UDP"), "{said}");
}

/// A Service whose pods come and go, and others that are quiet: so a full look seldom comes to it. One pod is sick.
async fn conditions_under_churn(
    pause: Duration,
    restarts: bool,
) -> (usize, BTreeMap<String, u64>, Option<bool>) {
    let others =
        (0..40).map(|number| service(&format!("quiet-{number}"), &[(80, 30_100 + number)]));
    let first = with_pods(service("web", &[(80, 30_080)]), &[ONE, TWO]);
    let quiet = Quiet::of(others.chain([first]).collect()).await;
    let provider = quiet.bed.start().await.unwrap();
    let web = |last: u8| {
        let other = format!("10.0.100.{last}");
        with_pods(service("web", &[(80, 30_080)]), &[ONE, &other])
    };
    for one in quiet.all.values() {
        settle(&provider, one).await.unwrap();
    }
    quiet.follow(&provider, Duration::from_mins(20)).await;
    quiet
        .bed
        .fake
        .edit(|cloud, _| cloud.sick.insert(ONE.parse().unwrap()));
    let provider = if restarts {
        drop(provider);
        quiet.bed.start().await.unwrap()
    } else {
        provider
    };
    quiet.bed.fake.reset_calls();
    let mut changes = provider.changes();
    let mut turns = 0;
    let end = Instant::now() + Duration::from_mins(10);
    let mut last = 2_u8;
    while Instant::now() < end {
        last = 2 + (last - 1) % 50;
        settle(&provider, &web(last)).await.unwrap();
        let until = Instant::now() + pause;
        while let Ok(Some(change)) = timeout_at(until, changes.next()).await {
            turns += 1;
            if change.id.name.as_ref() == "web" {
                settle(&provider, &web(last)).await.unwrap();
            } else {
                settle(&provider, &quiet.all[&change.id]).await.unwrap();
            }
        }
    }
    let seen = ensure(&provider, &web(last)).await.unwrap();
    let mut all = seen.conditions.into_iter();
    let holds = all
        .find(|it| it.kind == ExtraKind::TargetsHealthy)
        .and_then(|it| it.holds);
    (turns, quiet.bed.fake.counts().actions, holds)
}

/// A pod is sick for ten minutes, and others come and go every 8 s. No change puts the question off, also after a
/// restart.
#[tokio::test(start_paused = true)]
async fn health_is_asked_for_while_pods_come_and_go() {
    for restarts in [false, true] {
        let (turns, calls, holds) = conditions_under_churn(Duration::from_secs(8), restarts).await;
        let asked = calls.get("DescribeTargetHealth").copied().unwrap_or(0);
        assert_eq!(
            holds,
            Some(false),
            "asked {asked} times in 10 min, {turns} turns, {calls:?}"
        );
    }
}

/// Where not all pods fit, those that fit are targets.
#[tokio::test]
async fn as_many_pods_as_fit_are_targets() {
    let mut config = Config::default();
    config.settings.quotas.targets = 10;
    let bed = Bed::with(config).await;
    let provider = bed.start().await.unwrap();
    let pods = |from: u8, to: u8| -> LoadBalancer {
        let all: Vec<String> = (from..to).map(|last| format!("10.0.100.{last}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        with_pods(service("web", &[(80, 30_080)]), &all)
    };
    settle(&provider, &pods(10, 18)).await.unwrap();
    // Scaled to 12.
    let ended = settle(&provider, &pods(10, 22)).await;
    let after_scaling = ip_targets(&bed).len();
    // And each of them is replaced, one after the other.
    let mut left = Vec::new();
    for first in 11..22 {
        let _ = settle(&provider, &pods(first, first + 12)).await;
        bed.fake.advance(Duration::from_mins(10));
        left.push(ip_targets(&bed).len());
    }
    // A target that drains takes a place.
    assert!(
        after_scaling == 10 && left.iter().all(|it| *it >= 9),
        "{after_scaling} of 10 after scaling, then {left:?}: {ended:?}"
    );
}

/// Not a fault by itself: 20 pods of an overlay network, for an hour.
#[tokio::test(start_paused = true)]
async fn cost_of_pods_that_aws_never_accepts() {
    let all: Vec<String> = (1..=20).map(|last| format!("198.51.100.{last}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let web = with_pods(service("web", &[(80, 30_080)]), &all);
    let quiet = Quiet::of(vec![web.clone()]).await;
    let provider = quiet.bed.start().await.unwrap();
    settle(&provider, &web).await.unwrap();
    let (turns, calls) = quiet.follow(&provider, Duration::from_hours(1)).await;
    println!("REFUSED 20 pods, 1 h: {turns} turns, {calls:?}");
    let registers = calls.get("RegisterTargets").copied().unwrap_or(0);
    assert!(
        registers <= 60,
        "{registers} RegisterTargets in an hour in which nothing changes"
    );
}

/// 50 Services with pods, an hour in which nothing changes.
#[tokio::test(start_paused = true)]
async fn quiet_hour_with_pods() {
    let all = (0..50).map(|number| {
        let one = service(&format!("web-{number}"), &[(80, 30_100 + number)]);
        with_pods(one, &[ONE, TWO])
    });
    let quiet = Quiet::of(all.collect()).await;
    let provider = quiet.bed.start().await.unwrap();
    for one in quiet.all.values() {
        settle(&provider, one).await.unwrap();
    }
    quiet.follow(&provider, Duration::from_mins(20)).await;
    let (turns, calls) = quiet.follow(&provider, Duration::from_hours(1)).await;
    println!("QUIET 50 Services with pods, 1 h: {turns} turns, {calls:?}");
    assert_eq!(turns, 0);
    assert!(calls.values().sum::<u64>() <= 300, "{calls:?}");
}

/// Throttled in the middle of 1000 pods.
#[tokio::test]
async fn throttled_in_the_middle() {
    let bed = Bed::new().await;
    let provider: AwsProvider = bed.start().await.unwrap();
    bed.fake.edit(|cloud, _| {
        cloud.settings.quotas.targets = 1_000;
        cloud.settings.quotas.targets_per_zone = 1_000;
        cloud.settings.quotas.targets_per_load_balancer = 3_000;
    });
    let all: Vec<String> = (0..1_000_u32)
        .map(|number| format!("10.0.{}.{}", 100 + number / 250, 1 + number % 250))
        .collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let web = with_pods(service("web", &[(80, 30_080)]), &all);
    bed.fake.fault(
        Fault::on("RegisterTargets")
            .nth(3)
            .times(1)
            .error("Throttling", "Rate exceeded"),
    );
    let mut turns = 0;
    for _ in 0..20 {
        turns += 1;
        if settle(&provider, &web).await.is_ok() {
            break;
        }
    }
    let registers = bed
        .fake
        .calls()
        .into_iter()
        .filter(|it| it.action == "RegisterTargets");
    println!(
        "THROTTLED: {turns} turns, {} RegisterTargets",
        registers.count()
    );
    assert_eq!(ip_targets(&bed).len(), 1_000);
}

/// One Service names what AWS does not find, and the pods of all others on the load balancer stay as they were.
/// Targets that are nodes do not depend on turns.
#[tokio::test]
async fn one_member_does_not_freeze_the_pods_of_the_others() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let shared = |mut one: LoadBalancer, namespace: &str| {
        one.share_key = Some("front".into());
        one.id.namespace = namespace.into();
        one
    };
    let victim =
        |pods: &[&str]| shared(with_pods(service("victim", &[(80, 30_080)]), pods), "shop");
    let attacker = shared(service("attacker", &[(443, 30_443)]), "spies");
    settle_all(&provider, &[victim(&[ONE]), attacker.clone()])
        .await
        .unwrap();
    let attacker = with(
        attacker,
        "security-group-prefix-lists",
        "pl-0123456789abcdef0",
    );
    let ended = settle_all(&provider, &[victim(&[TWO]), attacker]).await;
    assert_eq!(ip_targets(&bed), [format!("{TWO}:8080")], "{ended:?}");
}

/// What AWS refuses of the pods of one Service is said to that one only.
#[tokio::test]
async fn refused_pods_are_said_to_their_own_service_only() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let shared = |name: &str, namespace: &str, port: u16, pods: &[&str]| {
        let mut one = with_pods(service(name, &[(port, 30_000 + port)]), pods);
        one.share_key = Some("front".into());
        one.id.namespace = namespace.into();
        one
    };
    let all = [
        shared("web", "shop", 80, &[ONE, "198.51.100.7"]),
        shared("other", "spies", 81, &[TWO]),
    ];
    let seen = settle_all(&provider, &all).await.unwrap();
    let said = seen[1].1.remarks.join(" ");
    assert!(!said.contains("198.51.100.7"), "{said}");
}

/// All pods are ready, and AWS accepts none.
#[tokio::test]
async fn ready_pods_that_aws_refuses_are_not_called_unready() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = with_pods(service("web", &[(80, 30_080)]), &["198.51.100.7"]);
    settle(&provider, &web).await.unwrap();
    let said = settle(&provider, &web).await.unwrap().remarks.join(" ");
    assert!(!said.contains("no pod of the Service is ready"), "{said}");
}

/// UDP only: AWS would check TCP connections to a port on which nothing listens with TCP.
#[tokio::test]
async fn udp_pods_get_a_check_that_can_succeed_or_a_word() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let mut game = with_pods(service("game", &[(53, 30_053)]), &[]);
    game.listeners[0].protocol = Protocol::Udp;
    let seen = settle(&provider, &game).await.unwrap();
    let all = bed.fake.snapshot().target_groups;
    let check = all.values().next().unwrap().check.clone();
    let said = seen.remarks.join(" ");
    assert!(
        check.port == "traffic-port" && said.contains("healthcheck-port"),
        "{} {}: {said}",
        check.protocol,
        check.port
    );
}

/// Pods change while the load balancer is kept; it is taken back.
#[tokio::test]
async fn kept_and_taken_back_with_other_pods() {
    let bed = Bed::new().await;
    let web = |pods: &[&str]| with_pods(service("web", &[(80, 30_080)]), pods);
    for restart in [false, true] {
        let mut provider = bed.start().await.unwrap();
        settle(&provider, &web(&[ONE])).await.unwrap();
        let key = Key::alone(&web(&[]).id);
        let kept = provider.release(&web(&[]).id, &key, Removal::Retain).await;
        assert_eq!(kept, Ok(Released::Gone));
        if restart {
            drop(provider);
            provider = bed.start().await.unwrap();
        }
        settle(&provider, &web(&[TWO])).await.unwrap();
        assert_eq!(ip_targets(&bed), [format!("{TWO}:8080")]);
    }
}

/// A listener that forwards to two weighted groups, one that ends TLS with certificates, and UDP: adopted, restarted,
/// nothing left to do.
#[tokio::test]
async fn weighted_tls_and_udp() {
    let (bed, arn) = prepared(&[NODE_GROUP], &[80, 81]).await;
    bed.fake.edit(|cloud, now| {
        let groups: Vec<String> = cloud
            .target_groups
            .values()
            .map(|it| it.arn.clone())
            .collect();
        let mut one = cloud
            .listeners
            .values()
            .find(|it| it.port == 80)
            .unwrap()
            .clone();
        one.forward.push((groups[1].clone(), Some(1)));
        cloud.listeners.put(one.arn.clone(), one);
        let mut group = cloud.target_groups.get(&groups[0]).unwrap().clone();
        (group.arn, group.name) = (
            group.arn.replace("targetgroup/", "targetgroup/u"),
            "udp".into(),
        );
        group.protocol = "UDP".into();
        let udp = group.arn.clone();
        cloud.target_groups.put(udp.clone(), group);
        let listener = Change {
            port: Some(53),
            protocol: Some("UDP".into()),
            forward: Some(vec![(udp, None)]),
            ..Change::default()
        };
        cloud
            .create_listener(now, &arn, listener, Tags::new())
            .unwrap();
        let mut one = cloud.load_balancers.get(&arn).unwrap().clone();
        one.attributes
            .insert("deletion_protection.enabled".into(), "true".into());
        cloud.load_balancers.put(arn.clone(), one);
    });
    let provider = bed.start().await.unwrap();
    let mut web = adopting(&arn, &[80]);
    web.listeners.push(Listener {
        name: Some("udp".into()),
        protocol: Protocol::Udp,
        port: 53,
        node_port: 30_053,
    });
    let web = with(web, "ssl-cert", &crate::bed::certificate("one"));
    let seen = settle(&provider, &web).await.unwrap();
    let all = bed.fake.snapshot();
    let own = |arn: &String| all.target_groups[arn].name.starts_with("bl-");
    for one in all.listeners.values() {
        assert!(one.forward.iter().all(|(arn, _)| own(arn)), "{one:?}");
    }
    assert_eq!(all.listeners.len(), 2, "{seen:?}");
    drop(provider);
    let provider = bed.start().await.unwrap();
    let (_, calls) = bed.calls_of(settle(&provider, &web)).await;
    assert_eq!(calls, [""; 0]);
}

/// Another scheme, and pods that come and go every 8 s: the new load balancer is heard all the same.
#[tokio::test(start_paused = true)]
async fn a_former_load_balancer_goes_although_pods_come_and_go() {
    let others =
        (0..40).map(|number| service(&format!("quiet-{number}"), &[(80, 30_100 + number)]));
    let web = |last: u8| {
        let other = format!("10.0.100.{last}");
        with_pods(service("web", &[(80, 30_080)]), &[ONE, &other])
    };
    let quiet = Quiet::of(others.chain([web(2)]).collect()).await;
    quiet
        .bed
        .fake
        .edit(|cloud, _| cloud.settings.quotas.load_balancers += 5);
    let provider = quiet.bed.start().await.unwrap();
    for one in quiet.all.values() {
        settle(&provider, one).await.unwrap();
    }
    quiet.follow(&provider, Duration::from_mins(20)).await;
    let mut changes = provider.changes();
    let end = Instant::now() + Duration::from_hours(1);
    let mut last = 2_u8;
    while Instant::now() < end {
        last = 2 + (last - 1) % 50;
        let web = with(web(last), "scheme", "internet-facing");
        settle(&provider, &web).await.unwrap();
        let until = Instant::now() + Duration::from_secs(8);
        while let Ok(Some(change)) = timeout_at(until, changes.next()).await {
            let one = if change.id == web.id {
                &web
            } else {
                &quiet.all[&change.id]
            };
            settle(&provider, one).await.unwrap();
        }
    }
    let all = quiet.bed.fake.snapshot().load_balancers;
    assert_eq!(all.len(), 41, "after an hour the former one is still there");
}

/// A port more than the load balancer has, as the first Service of a class: rounds of one turn are enough.
#[tokio::test]
async fn taken_over_with_more_ports() {
    let (bed, arn) = prepared(&[NODE_GROUP], &[80]).await;
    let provider = bed.start().await.unwrap();
    let ended = ensure(&provider, &adopting(&arn, &[80, 443, 8_443])).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(ports(&bed), [80, 443, 8_443].into());
}

/// A call that changes tags has at most 20 objects.
#[tokio::test]
async fn a_load_balancer_with_many_listeners_is_taken_over_and_kept() {
    let all: Vec<u16> = (1..=25).collect();
    let (bed, arn) = prepared(&[NODE_GROUP], &all).await;
    let provider = bed.start().await.unwrap();
    let web = adopting(&arn, &all);
    settle(&provider, &web).await.unwrap();
    let (again, calls) = bed.calls_of(settle(&provider, &web)).await;
    again.unwrap();
    assert_eq!(calls, [""; 0]);
    let key = Key::alone(&web.id);
    let kept = provider.release(&web.id, &key, Removal::Retain).await;
    assert_eq!(kept, Ok(Released::Gone));
    settle(&provider, &web).await.unwrap();
    assert_eq!(ports(&bed).len(), 25);
}

/// The call that marks it has no answer, and the Service is deleted at once.
#[tokio::test]
async fn what_may_be_marked_is_looked_for_when_its_service_goes() {
    let (bed, arn) = prepared(&[NODE_GROUP], &[80]).await;
    let provider = bed.start().await.unwrap();
    bed.fake.fault(Fault::on("AddTags").dropped(true));
    let web = adopting(&arn, &[80]);
    let _ = settle(&provider, &web).await;
    bed.fake.clear_faults();
    assert!(marked(&bed, &arn));
    delete(&bed, &provider, &web).await;
    assert!(bed.fake.snapshot().load_balancers.is_empty());
}
