//! What holds for load balancers that are taken over: whose they are, what is refused before anything is marked, where
//! listeners go, and what is left. How a take-over goes is in `adopt`.

use std::time::Duration;

use ballast_aws::adopt::ADOPT;
use ballast_aws::settings::Allowed;
use ballast_aws_fake::Fault;
use ballast_aws_fake::state::listeners::Change;
use ballast_aws_fake::state::seed::NODE_GROUP;
use ballast_aws_fake::state::{Snapshot, Tags};
use ballast_provider::{
    Key, Listener, Observed, Protocol, Provider, ProviderError, Released, Removal, ServiceId,
};

use super::{ONE, targets_of_listener};
use crate::adopt_preview::preview_by;
use crate::bed::{
    Bed, SECOND_GROUP, certificate, delete, ensure, ports, service, settle, with, with_pods, writes,
};
use crate::former::{Former, Maker, adopting, marked};
use crate::support::{balancer, settle_all};

/// What LBC has made for these ports.
fn former(ports: &[u16]) -> Former<'_> {
    Former {
        ports,
        ..Former::of(Maker::Lbc)
    }
}

fn message(ended: &Result<Observed, ProviderError>) -> String {
    let why = ended.as_ref().err();
    why.map_or(String::new(), ToString::to_string)
}

/// The names of Ballast's own target groups and security groups.
fn own_groups(all: &Snapshot) -> Vec<&str> {
    let groups = all.target_groups.values().map(|one| &one.name);
    let groups = groups.chain(all.security_groups.values().map(|one| &one.name));
    let own = groups.filter(|name| name.starts_with("bl-"));
    own.map(String::as_str).collect()
}

/// A load balancer that Services share is nobody's to take over, also not for the oldest of them, whose UID is in its
/// tags: the listeners of the others stay.
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
    let oldest = shared("oldest", "shop", 81);
    let other = shared("other", "shop", 443);
    settle_all(&provider, &[oldest.clone(), other.clone()])
        .await
        .unwrap();
    let all = bed.fake.snapshot().load_balancers;
    let arn = all.keys().next().unwrap().clone();
    let mut alone = oldest.clone();
    alone.share_key = None;
    alone.settings.insert(ADOPT.into(), arn.clone());
    let ended = settle(&provider, &alone).await;
    assert!(
        ports(&bed).contains(&443),
        "the listener of the other one is gone: {ended:?}"
    );
}

/// A load balancer is marked only if the rest can be done. One whose Service is refused has no mark, and whoever
/// deletes that Service deletes no load balancer.
#[tokio::test]
async fn what_is_refused_is_not_marked() {
    let ungrouped = Former {
        groups: &[],
        ..former(&[80])
    };
    let (bed, arn) = ungrouped.bed().await;
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
    let (bed, arn) = former(&[80]).bed().await;
    let provider = bed.start().await.unwrap();
    // The backend group belongs to the class, and may be made for whatever asks first.
    settle(&provider, &service("other", &[(80, 30_081)]))
        .await
        .unwrap();
    let web = with(
        adopting(&arn, &[80]),
        "private-ipv4-addresses",
        "10.0.0.50,10.0.1.50",
    );
    let preview = preview_by(&provider, &bed, &web).await;
    let (ended, calls) = bed.calls_of(settle(&provider, &web)).await;
    assert!(preview.is_err() && ended.is_err(), "{preview:?}; {ended:?}");
    assert!(!marked(&bed, &arn), "{calls:?}");
    assert_eq!(writes(&calls), [""; 0]);
}

/// docs/security.md: a class that allows an empty list of annotations allows none.
#[tokio::test]
async fn a_class_that_allows_no_annotation_allows_no_adoption() {
    let (mut bed, arn) = former(&[80]).bed().await;
    bed.class.allowed = Some(Allowed::of([]).unwrap());
    let provider = bed.start().await.unwrap();
    let ended = settle(&provider, &adopting(&arn, &[80])).await;
    assert!(ended.is_err() && !marked(&bed, &arn), "{ended:?}");
}

/// docs/security.md: messages name no Service of another namespace.
#[tokio::test]
async fn a_refusal_names_no_service_of_another_namespace() {
    let (bed, arn) = former(&[80]).bed().await;
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

/// A Service whose security groups are given, and for which Ballast manages no rules, does not depend on what the
/// nodes admit.
#[tokio::test]
async fn who_needs_no_rule_does_not_wait_for_the_nodes() {
    let (bed, arn) = former(&[80]).bed().await;
    bed.second_group();
    let provider = bed.start().await.unwrap();
    // Another Service needs the backend group.
    let _ = settle(&provider, &service("other", &[(80, 30_081)])).await;
    let web = with(adopting(&arn, &[80]), "security-groups", SECOND_GROUP);
    let web = with(web, "manage-backend-security-group-rules", "false");
    let ended = settle(&provider, &web).await;
    assert!(ended.is_ok(), "{ended:?}");
}

/// A protocol that Ballast does not know may be on a port that the Service wants: that is no reason to plan what AWS
/// cannot do.
#[tokio::test]
async fn a_listener_with_an_unknown_protocol_is_no_endless_contradiction() {
    let (bed, arn) = former(&[80, 443]).bed().await;
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

/// A listener moves to a target group only when it is known what its targets are.
#[tokio::test]
async fn listeners_do_not_move_to_target_groups_without_known_targets() {
    let (bed, arn) = former(&[80]).bed().await;
    let provider = bed.start().await.unwrap();
    let web = with_pods(adopting(&arn, &[80]), &[ONE]);
    let mut unknown = balancer(&provider, &[web]);
    unknown.members[0].endpoints = None;
    for _ in 0..3 {
        let _ = provider.ensure(&unknown).await;
    }
    assert!(
        targets_of_listener(&bed) > 0,
        "the listener forwards to an empty group"
    );
}

/// A load balancer that somebody has deleted is said to be gone. Without the annotation nothing of it is left behind.
#[tokio::test]
async fn deleted_by_hand_and_given_up() {
    let (bed, arn) = former(&[80]).bed().await;
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
    assert_eq!(own_groups(&left), [""; 0]);
}

/// The annotation may change to another load balancer that was made for this Service, too. The one before serves
/// until that one does, and neither is left.
#[tokio::test]
async fn another_arn() {
    let (bed, arn) = former(&[80]).bed().await;
    let other = Former {
        name: "k8s-shop-web-02",
        ..former(&[80])
    };
    let other = other.make(&bed);
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
    assert_eq!(own_groups(&left), [""; 0]);
}

/// A load balancer with the mark goes with its Service, also if the process died before it did the rest.
#[tokio::test]
async fn half_taken_over_and_deleted() {
    let (bed, arn) = former(&[80]).bed().await;
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

/// Whatever the listeners of the former owner are like (weights, TLS, UDP), those of the Service then forward to
/// Ballast's target groups only, the others go, and a process that starts has nothing to do.
#[tokio::test]
async fn weighted_tls_and_udp() {
    let (bed, arn) = former(&[80, 81]).bed().await;
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
    let web = with(web, "ssl-cert", &certificate("one"));
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

/// The first Service of a class needs no second turn for ports that the load balancer does not have.
#[tokio::test]
async fn taken_over_with_more_ports() {
    let (bed, arn) = former(&[80]).bed().await;
    let provider = bed.start().await.unwrap();
    let ended = ensure(&provider, &adopting(&arn, &[80, 443, 8_443])).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(ports(&bed), [80, 443, 8_443].into());
}

/// A call that changes tags has at most 20 objects, and a load balancer may have more listeners.
#[tokio::test]
async fn a_load_balancer_with_many_listeners_is_taken_over_and_kept() {
    let all: Vec<u16> = (1..=25).collect();
    let (bed, arn) = former(&all).bed().await;
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

/// A call that marks may have done so without an answer. If the Service is deleted at once, the load balancer goes.
#[tokio::test]
async fn what_may_be_marked_is_looked_for_when_its_service_goes() {
    let (bed, arn) = former(&[80]).bed().await;
    let provider = bed.start().await.unwrap();
    bed.fake.fault(Fault::on("AddTags").dropped(true));
    let web = adopting(&arn, &[80]);
    let _ = settle(&provider, &web).await;
    bed.fake.clear_faults();
    assert!(marked(&bed, &arn));
    delete(&bed, &provider, &web).await;
    assert!(bed.fake.snapshot().load_balancers.is_empty());
}
