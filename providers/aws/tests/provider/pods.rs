//! Pods as targets.

use std::collections::BTreeSet;
use std::time::Duration;

use ballast_aws::provider::AwsProvider;
use ballast_aws_fake::Fault;
use ballast_aws_fake::state::seed::NODE_GROUP;
use ballast_provider::{ExtraKind, LoadBalancer, Provider};

use crate::bed::{Bed, addresses, delete, ensure, registered, service, settle, with, with_pods};
use crate::quiet::Quiet;
use crate::support::{balancer, gated, settle_all};

const ONE: &str = "10.0.100.1";
const TWO: &str = "10.0.100.2";
const THREE: &str = "10.0.100.3";
/// In no subnet of the VPC.
const ELSEWHERE: &str = "192.168.7.7";
/// Targets have private addresses.
const PUBLIC: &str = "198.51.100.7";

fn web(pods: &[&str]) -> LoadBalancer {
    with_pods(service_with_nodes(), pods)
}

fn service_with_nodes() -> LoadBalancer {
    service("web", &[(80, 30_080)])
}

/// The addresses of the only target group.
fn targets(bed: &Bed) -> Vec<String> {
    let all = bed.fake.snapshot().target_groups;
    assert_eq!(all.len(), 1);
    all.values().flat_map(addresses).collect()
}

fn at(pods: &[&str]) -> Vec<String> {
    pods.iter()
        .map(|address| format!("{address}:8080"))
        .collect()
}

async fn prepared(pods: &[&str]) -> (Bed, AwsProvider) {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web(pods)).await.unwrap();
    (bed, provider)
}

#[tokio::test]
async fn a_service_gets_its_pods_and_needs_no_node_port() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let mut service = web(&[ONE, TWO]);
    service.listeners[0].node_port = 0;
    let (made, calls) = bed.calls_of(settle(&provider, &service)).await;
    made.unwrap();
    assert_eq!(targets(&bed), at(&[ONE, TWO]));
    let group = bed
        .fake
        .snapshot()
        .target_groups
        .into_values()
        .next()
        .unwrap();
    assert_eq!(group.target_type, "ip");
    assert_eq!(
        (group.check.protocol.as_str(), group.check.port.as_str()),
        ("TCP", "traffic-port")
    );
    assert_eq!(group.attributes["preserve_client_ip.enabled"], "false");
    // As many calls as with nodes.
    let other = Bed::new().await;
    let with_nodes = other.start().await.unwrap();
    let nodes = service_with_nodes();
    let (_, expected) = other.calls_of(settle(&with_nodes, &nodes)).await;
    assert_eq!(calls, expected);
    delete(&bed, &provider, &service).await;
    assert!(bed.is_empty());
}

#[tokio::test]
async fn pods_that_come_and_go_take_two_calls() {
    let (bed, provider) = prepared(&[ONE, TWO]).await;
    let (_, calls) = bed.calls_of(settle(&provider, &web(&[ONE, TWO]))).await;
    assert_eq!(calls, [""; 0]);
    let (_, calls) = bed.calls_of(settle(&provider, &web(&[TWO, THREE]))).await;
    assert_eq!(calls, ["RegisterTargets", "DeregisterTargets"]);
    assert_eq!(targets(&bed), at(&[TWO, THREE]));
    let (seen, calls) = bed.calls_of(settle(&provider, &web(&[]))).await;
    assert_eq!(calls, ["DeregisterTargets"]);
    let said = seen.unwrap().remarks.join(" ");
    assert!(said.contains("no pod of the Service is ready"), "{said}");
}

/// What a former process has finished is not read again, but which pods it has.
#[tokio::test]
async fn after_a_restart_only_targets_are_read() {
    let (bed, provider) = prepared(&[ONE, TWO]).await;
    drop(provider);
    for (pods, expected) in [
        (&[ONE, TWO][..], &["DescribeTargetHealth"][..]),
        (
            &[TWO, THREE],
            &[
                "DescribeTargetHealth",
                "DescribeSubnets",
                "RegisterTargets",
                "DeregisterTargets",
            ],
        ),
    ] {
        let provider = bed.start().await.unwrap();
        let (_, calls) = bed.calls_of(settle(&provider, &web(pods))).await;
        let calls: Vec<&String> = calls
            .iter()
            .filter(|it| *it != "DescribeInstances")
            .collect();
        assert_eq!(calls, expected, "{pods:?}");
        assert_eq!(targets(&bed), at(pods));
        let (_, calls) = bed.calls_of(settle(&provider, &web(pods))).await;
        assert_eq!(calls, [""; 0]);
    }
}

/// A node that joins is no target of a Service with pods, and the tag that names the nodes of all target groups stays
/// right.
#[tokio::test]
async fn nodes_do_not_concern_them() {
    let (mut bed, provider) = prepared(&[ONE]).await;
    let other = service("other", &[(80, 30_081)]);
    settle(&provider, &other).await.unwrap();
    bed.add_node();
    let (_, calls) = bed.calls_of(bed.retarget(&provider)).await;
    let registers = calls.iter().filter(|it| *it == "RegisterTargets");
    assert_eq!(registers.count(), 1, "{calls:?}");
    let sizes = || {
        let all = bed.fake.snapshot().target_groups;
        let sizes = all
            .values()
            .map(|one| (one.target_type.clone(), registered(one).len()));
        sizes.collect::<BTreeSet<_>>()
    };
    assert_eq!(sizes(), [("instance".into(), 4), ("ip".into(), 1)].into());
    drop(provider);
    // The next process believes the tag, and reads the pods only.
    let (started, calls) = bed.calls_of(bed.start()).await;
    assert!(!calls.contains(&"DescribeTargetHealth".into()), "{calls:?}");
    let provider = started.unwrap();
    let (_, calls) = bed.calls_of(settle(&provider, &other)).await;
    assert_eq!(calls, [""; 0]);
    settle(&provider, &web(&[ONE])).await.unwrap();
    assert_eq!(sizes(), [("instance".into(), 4), ("ip".into(), 1)].into());
}

/// AWS wants to be told that an address is in no zone, and refuses public ones: those hold up no other.
#[tokio::test(start_paused = true)]
async fn what_aws_does_not_accept_holds_up_no_other_pod() {
    let (bed, provider) = prepared(&[ONE]).await;
    let mixed = web(&[ONE, TWO, ELSEWHERE, PUBLIC]);
    let seen = settle(&provider, &mixed).await.unwrap();
    assert_eq!(targets(&bed), at(&[ONE, TWO, ELSEWHERE]));
    let said = seen.remarks.join(" ");
    assert!(said.contains("198.51.100.7:8080"), "{said}");
    // It is not asked again in each turn.
    let (_, calls) = bed.calls_of(settle(&provider, &mixed)).await;
    assert_eq!(calls, [""; 0]);
    tokio::time::advance(Duration::from_mins(6)).await;
    let (_, calls) = bed.calls_of(settle(&provider, &mixed)).await;
    assert!(calls.contains(&"RegisterTargets".into()), "{calls:?}");
    let seen = settle(&provider, &web(&[ONE])).await.unwrap();
    assert!(!seen.remarks.join(" ").contains("198.51"), "{seen:?}");
    assert_eq!(targets(&bed), at(&[ONE]));
}

/// Pods change while the subnets cannot be read: those of the VPC are registered all the same.
#[tokio::test(start_paused = true)]
async fn pods_do_not_wait_for_the_list_of_subnets() {
    let (bed, provider) = prepared(&[ONE]).await;
    tokio::time::advance(Duration::from_hours(2)).await;
    bed.fake.fault(Fault::on("DescribeSubnets").always());
    settle(&provider, &web(&[TWO, ELSEWHERE])).await.unwrap();
    assert_eq!(targets(&bed), at(&[TWO, ELSEWHERE]));
}

#[tokio::test]
async fn services_with_pods_and_with_nodes_share_a_load_balancer() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let shared = |mut one: LoadBalancer| {
        one.share_key = Some("front".into());
        one
    };
    let nodes = shared(service("nodes", &[(443, 30_443)]));
    let members = |pods: &[&str]| [shared(web(pods)), nodes.clone()];
    settle_all(&provider, &members(&[ONE])).await.unwrap();
    let (_, calls) = bed
        .calls_of(settle_all(&provider, &members(&[ONE, TWO])))
        .await;
    assert_eq!(calls, ["RegisterTargets"]);
    drop(provider);
    let provider = bed.start().await.unwrap();
    settle_all(&provider, &members(&[THREE])).await.unwrap();
    let all = bed.fake.snapshot().target_groups;
    let pods = all.values().find(|one| one.target_type == "ip").unwrap();
    assert_eq!(addresses(pods), at(&[THREE]));
    assert_eq!(all.len(), 2);
}

/// Whoever does not know the pods of a Service takes none away.
#[tokio::test]
async fn pods_that_nobody_knows_stay() {
    let (bed, provider) = prepared(&[ONE]).await;
    drop(provider);
    let provider = bed.start().await.unwrap();
    let mut unknown = balancer(&provider, &[web(&[ONE])]);
    unknown.members[0].endpoints = None;
    provider.ensure(&unknown).await.unwrap();
    assert_eq!(targets(&bed), at(&[ONE]));
}

#[tokio::test(start_paused = true)]
async fn the_condition_is_about_pods() {
    let quiet = Quiet::of(vec![web(&[ONE, TWO])]).await;
    let provider = quiet.bed.start().await.unwrap();
    settle(&provider, &web(&[ONE, TWO])).await.unwrap();
    quiet
        .bed
        .fake
        .edit(|cloud, _| cloud.sick.insert(TWO.parse().unwrap()));
    quiet.follow(&provider, Duration::from_mins(10)).await;
    let says = || async {
        let seen = ensure(&provider, &web(&[ONE, TWO])).await.unwrap();
        let mut all = seen.conditions.into_iter();
        let one = all.find(|it| it.kind == ExtraKind::TargetsHealthy).unwrap();
        (one.holds, one.message)
    };
    let (holds, message) = says().await;
    assert_eq!(holds, Some(false));
    assert!(
        message.starts_with("1 of 2 targets are healthy"),
        "{message}"
    );
}

/// The class says it for all its Services, and a Service can say something else.
#[tokio::test]
async fn the_class_chooses_for_services_that_say_nothing() {
    let mut bed = Bed::new().await;
    bed.class.settings.target_type = Some(ballast_aws::target::TargetType::Ip);
    let provider = bed.start().await.unwrap();
    let silent = service("web", &[(80, 30_080)]);
    assert!(provider.uses_endpoints(&silent));
    let other = with(silent.clone(), "nlb-target-type", "instance");
    assert!(!provider.uses_endpoints(&other));
    // A key of an annotation that is wrong changes nothing of that.
    let wrong = with(silent, "shceme", "internal");
    assert!(provider.uses_endpoints(&wrong));
}

/// The load balancer reaches pods as it reaches nodes: through the backend group.
#[tokio::test]
async fn the_nodes_let_the_load_balancer_in() {
    let (bed, _) = prepared(&[ONE]).await;
    let all = bed.fake.snapshot().security_groups;
    assert_eq!(all[NODE_GROUP].ingress.len(), 1);
}

/// Pods that wait for their gate are targets, and the controller hears of each that is healthy, however long the others
/// take.
#[tokio::test(start_paused = true)]
async fn pods_with_a_gate_are_said_when_they_are_healthy() {
    let ports = service("web", &[(80, 30_080), (443, 30_443)]);
    let web = gated(with_pods(ports, &[ONE, TWO]));
    let quiet = Quiet::of(vec![web.clone()]).await;
    let provider = quiet.bed.start().await.unwrap();
    settle(&provider, &web).await.unwrap();
    quiet
        .bed
        .fake
        .edit(|cloud, _| cloud.sick.insert(TWO.parse().unwrap()));
    let healthy = async || {
        let seen = ensure(&provider, &web).await.unwrap();
        let all = seen.healthy.into_iter().flatten();
        all.map(|ip| ip.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(healthy().await, [""; 0]);
    quiet.follow(&provider, Duration::from_secs(605)).await;
    assert_eq!(healthy().await, [ONE]);
    // Long after nobody would wait for a target that stays unhealthy.
    quiet.follow(&provider, Duration::from_secs(3_605)).await;
    quiet.bed.fake.edit(|cloud, _| cloud.sick.clear());
    let (turns, _) = quiet.follow(&provider, Duration::from_secs(125)).await;
    assert!(turns >= 1, "nobody has said so");
    assert_eq!(healthy().await, [ONE, TWO]);
    // Without pods as targets there is nothing to say.
    let nodes = ensure(&provider, &service("web", &[(80, 30_080)]))
        .await
        .unwrap();
    assert_eq!(nodes.healthy, None);
}
