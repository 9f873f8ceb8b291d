//! What holds for pods that are targets: they are followed whatever else is refused, their health is asked for while
//! they change, those that AWS accepts serve, and each Service hears of its own only. What pods are as targets is in
//! the module `pods` of the provider's tests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ballast_aws::adopt::ADOPT;
use ballast_aws::provider::AwsProvider;
use ballast_aws_fake::{Config, Fault};
use ballast_provider::{
    Endpoint, ExtraKind, Key, Listener, LoadBalancer, Protocol, Provider, Readiness, Released,
    Removal,
};
use tokio::time::Instant;

use super::{ONE, TWO, targets_of_listener};
use crate::bed::{Bed, addresses, ensure, service, settle, with, with_pods};
use crate::quiet::{Changes, Quiet};
use crate::support::{balancer, settle_all};

/// Pods that come and go.
struct Churn {
    quiet: Quiet,
    /// The last part of the address of the pod that is there now.
    last: u8,
    /// How many turns the provider has asked for.
    turns: usize,
}

/// A Service with these pods.
fn web(pods: &[&str]) -> LoadBalancer {
    with_pods(service("web", &[(80, 30_080)]), pods)
}

/// The same, with as many pods as numbers.
fn web_with(numbers: impl IntoIterator<Item = String>) -> LoadBalancer {
    let all: Vec<String> = numbers.into_iter().collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    web(&all)
}

/// One that shares its load balancer with Services of all namespaces.
fn shared(mut one: LoadBalancer, namespace: &str) -> LoadBalancer {
    one.share_key = Some("front".into());
    one.id.namespace = namespace.into();
    one
}

/// The pods that are targets.
fn targets(bed: &Bed) -> Vec<String> {
    let all = bed.fake.snapshot().target_groups;
    let ip = all.values().filter(|one| one.target_type == "ip");
    ip.flat_map(addresses).collect()
}

// === impl Churn ===

impl Churn {
    /// Beside the Service are 40 quiet ones, so that a full look seldom comes to it.
    async fn new() -> Self {
        let others =
            (0..40).map(|number| service(&format!("quiet-{number}"), &[(80, 30_100 + number)]));
        Self {
            quiet: Quiet::of(others.chain([web(&[ONE, TWO])]).collect()).await,
            last: 2,
            turns: 0,
        }
    }

    /// A process that has done everything.
    async fn start(&self) -> AwsProvider {
        let provider = self.quiet.bed.start().await.unwrap();
        for one in self.quiet.all.values() {
            settle(&provider, one).await.unwrap();
        }
        self.quiet.follow(&provider, Duration::from_mins(20)).await;
        provider
    }

    /// One pod stays, the other one is another each time.
    fn web(&self) -> LoadBalancer {
        web(&[ONE, &format!("10.0.100.{}", self.last)])
    }

    /// So long, pods change each time that `pause` has passed. `wanted` is what else the Service wants.
    async fn go_on(
        &mut self,
        provider: &AwsProvider,
        (pause, long): (Duration, Duration),
        wanted: impl Fn(LoadBalancer) -> LoadBalancer,
    ) {
        let mut changes = Changes::of(provider);
        let end = Instant::now() + long;
        while Instant::now() < end {
            self.last = 2 + (self.last - 1) % 50;
            let web = wanted(self.web());
            settle(provider, &web).await.unwrap();
            let until = Instant::now() + pause;
            while let Some(change) = changes.before(until).await {
                self.turns += 1;
                let one = if change.id == web.id {
                    &web
                } else {
                    &self.quiet.all[&change.id]
                };
                settle(provider, one).await.unwrap();
            }
        }
    }
}

/// Pods are followed as nodes are, whatever else of the Service is refused: another pod takes the place of the first
/// one, and `change` makes the turn fail.
async fn pods_are_followed(change: impl FnOnce(&Bed, &mut LoadBalancer)) {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web(&[ONE])).await.unwrap();
    let mut wanted = web(&[TWO]);
    change(&bed, &mut wanted);
    let ended = settle(&provider, &wanted).await;
    assert_eq!(targets(&bed), [format!("{TWO}:8080")], "{ended:?}");
}

#[tokio::test]
async fn pods_are_followed_while_a_security_group_is_missing() {
    let missing = "sg-0123456789abcdef0";
    pods_are_followed(|_, web| *web = with(web.clone(), "security-groups", missing)).await;
}

#[tokio::test]
async fn pods_are_followed_while_a_subnet_is_missing() {
    let missing = "nowhere-a,nowhere-b";
    pods_are_followed(|_, web| *web = with(web.clone(), "subnets", missing)).await;
}

/// The annotation of a Service that serves names a load balancer that it may not take.
#[tokio::test]
async fn pods_are_followed_while_an_adoption_is_refused() {
    pods_are_followed(|bed, web| {
        let all = bed.fake.snapshot().load_balancers;
        let wrong = all.keys().next().unwrap().replace("/net/", "/net/x");
        web.settings.insert(ADOPT.into(), wrong);
    })
    .await;
}

/// Pods do not need the rules of the security group.
#[tokio::test]
async fn pods_are_followed_while_rules_are_refused() {
    pods_are_followed(|bed, web| {
        bed.fake.fault(
            Fault::on("AuthorizeSecurityGroupIngress")
                .always()
                .error("RulesPerSecurityGroupLimitExceeded", "no"),
        );
        web.source_ranges = vec!["10.9.0.0/16".parse().unwrap()];
    })
    .await;
}

/// Pods that nobody knows yet take the place of no nodes.
#[tokio::test]
async fn a_switch_to_pods_that_nobody_knows_keeps_the_nodes() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let nodes = service("web", &[(80, 30_080)]);
    settle(&provider, &nodes).await.unwrap();
    let mut unknown = balancer(&provider, &[with_pods(nodes, &[ONE])]);
    unknown.members[0].endpoints = None;
    let seen = provider.ensure(&unknown).await;
    assert!(
        targets_of_listener(&bed) > 0,
        "the listener forwards to an empty group: {seen:?}"
    );
}

/// AWS has one target group for TCP and UDP of a port. If the pods have another port for each, neither gets targets,
/// and the Service says why.
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
    let targets = targets(&bed);
    let said = format!("{ended:?}");
    assert_eq!(targets, [""; 0]);
    assert!(said.contains("port 53 is TCP and UDP"), "{said}");
}

/// A pod is sick for ten minutes, and others come and go every 8 s. No change puts the question off, also after a
/// restart.
#[tokio::test(start_paused = true)]
async fn health_is_asked_for_while_pods_come_and_go() {
    for restarts in [false, true] {
        let mut churn = Churn::new().await;
        let mut provider = churn.start().await;
        let bed = &churn.quiet.bed;
        bed.fake
            .edit(|cloud, _| cloud.sick.insert(ONE.parse().unwrap()));
        if restarts {
            drop(provider);
            provider = bed.start().await.unwrap();
        }
        bed.fake.reset_calls();
        let long = (Duration::from_secs(8), Duration::from_mins(10));
        churn.go_on(&provider, long, |web| web).await;
        let seen = ensure(&provider, &churn.web()).await.unwrap();
        let mut all = seen.conditions.into_iter();
        let holds = all
            .find(|it| it.kind == ExtraKind::TargetsHealthy)
            .and_then(|it| it.holds);
        let calls = churn.quiet.bed.fake.counts().actions;
        let asked = calls.get("DescribeTargetHealth").copied().unwrap_or(0);
        assert_eq!(
            holds,
            Some(false),
            "asked {asked} times in 10 min, {} turns, {calls:?}",
            churn.turns
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
    let pods = |from: u8, to: u8| web_with((from..to).map(|last| format!("10.0.100.{last}")));
    settle(&provider, &pods(10, 18)).await.unwrap();
    // Scaled to 12.
    let ended = settle(&provider, &pods(10, 22)).await;
    let after_scaling = targets(&bed).len();
    // And each of them is replaced, one after the other.
    let mut left = Vec::new();
    for first in 11..22 {
        let _ = settle(&provider, &pods(first, first + 12)).await;
        bed.fake.advance(Duration::from_mins(10));
        left.push(targets(&bed).len());
    }
    // A target that drains takes a place.
    assert!(
        after_scaling == 10 && left.iter().all(|it| *it >= 9),
        "{after_scaling} of 10 after scaling, then {left:?}: {ended:?}"
    );
}

/// Pods of an overlay network are tried again, but at most once in a minute for all of them.
#[tokio::test(start_paused = true)]
async fn cost_of_pods_that_aws_never_accepts() {
    let web = web_with((1..=20).map(|last| format!("198.51.100.{last}")));
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

/// Also with pods as targets, an hour in which nothing changes takes few calls, and no Service has a turn.
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

/// A turn that AWS throttles in the middle of many pods is gone on with, and all of them become targets.
#[tokio::test]
async fn throttled_in_the_middle() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    bed.fake.edit(|cloud, _| {
        cloud.settings.quotas.targets = 1_000;
        cloud.settings.quotas.targets_per_zone = 1_000;
        cloud.settings.quotas.targets_per_load_balancer = 3_000;
    });
    let address = |number| format!("10.0.{}.{}", 100 + number / 250, 1 + number % 250);
    let web = web_with((0..1_000_u32).map(address));
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
    assert_eq!(targets(&bed).len(), 1_000);
}

/// What one Service asks for and AWS does not find keeps no pods of other Services on the load balancer from being
/// followed.
#[tokio::test]
async fn one_member_does_not_freeze_the_pods_of_the_others() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
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
    assert_eq!(targets(&bed), [format!("{TWO}:8080")], "{ended:?}");
}

/// What AWS refuses of the pods of one Service is said to that one only.
#[tokio::test]
async fn refused_pods_are_said_to_their_own_service_only() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let other = with_pods(service("other", &[(81, 30_081)]), &[TWO]);
    let all = [
        shared(web(&[ONE, "198.51.100.7"]), "shop"),
        shared(other, "spies"),
    ];
    let seen = settle_all(&provider, &all).await.unwrap();
    let said = seen[1].1.remarks.join(" ");
    assert!(!said.contains("198.51.100.7"), "{said}");
}

/// Pods that are ready and that AWS refuses are not said to be unready.
#[tokio::test]
async fn ready_pods_that_aws_refuses_are_not_called_unready() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = web(&["198.51.100.7"]);
    settle(&provider, &web).await.unwrap();
    let said = settle(&provider, &web).await.unwrap().remarks.join(" ");
    assert!(!said.contains("no pod of the Service is ready"), "{said}");
}

/// AWS checks with TCP what serves UDP, on a port on which perhaps nothing listens with TCP: the Service says which
/// annotation helps.
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

/// A load balancer that was kept and is taken back has the pods of now, not those of then.
#[tokio::test]
async fn kept_and_taken_back_with_other_pods() {
    let bed = Bed::new().await;
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
        assert_eq!(targets(&bed), [format!("{TWO}:8080")]);
    }
}

/// Pods that come and go do not keep a former load balancer: that its successor serves is heard all the same.
#[tokio::test(start_paused = true)]
async fn a_former_load_balancer_goes_although_pods_come_and_go() {
    let mut churn = Churn::new().await;
    let fake = &churn.quiet.bed.fake;
    fake.edit(|cloud, _| cloud.settings.quotas.load_balancers += 5);
    let provider = churn.start().await;
    let long = (Duration::from_secs(8), Duration::from_hours(1));
    let public = |web| with(web, "scheme", "internet-facing");
    churn.go_on(&provider, long, public).await;
    let all = churn.quiet.bed.fake.snapshot().load_balancers;
    assert_eq!(all.len(), 41, "after an hour the former one is still there");
}
