//! Load balancers with IPv6 addresses, and clients of both families.

mod changes;

use std::collections::BTreeSet;
use std::time::Duration;

use ballast_aws_fake::state::Snapshot;
use ballast_aws_fake::state::seed::VPC;
use ballast_provider::{
    Cause, Family, FamilyPolicy, Listener, LoadBalancer, Protocol, Provider, ProviderError,
};

use crate::bed::{
    Bed, addresses, delete, dual, ensure, registered, service, settle, with, with_pods, writes,
};
use crate::support::balancer;

fn web() -> LoadBalancer {
    service("web", &[(80, 30_080)])
}

fn udp(mut service: LoadBalancer) -> LoadBalancer {
    service.listeners.push(Listener {
        name: Some("dns".into()),
        protocol: Protocol::Udp,
        port: 53,
        node_port: 30_053,
    });
    service
}

/// The number of targets for each family of clients of port 80, and whether they see the addresses of clients.
fn of_families(all: &Snapshot) -> Vec<(String, usize, String)> {
    let listener = all.listeners.values().find(|it| it.port == 80).unwrap();
    let rules = all.rules.values().filter(|it| it.listener == listener.arn);
    let rules = rules.map(|it| (it.family.clone(), it.forward.clone()));
    let default = ("default".to_owned(), listener.forward.clone());
    std::iter::once(default)
        .chain(rules)
        .map(|(clients, forward)| {
            let [(arn, _)] = &forward[..] else {
                panic!("{forward:?}");
            };
            let group = &all.target_groups[arn];
            let sees = &group.attributes["preserve_client_ip.enabled"];
            (clients, registered(group).len(), sees.clone())
        })
        .collect()
}

fn both(count: usize, sees: &str) -> Vec<(String, usize, String)> {
    ["default", "ipv6"]
        .map(|clients| (clients.to_owned(), count, sees.to_owned()))
        .into()
}

fn kind(all: &Snapshot) -> (&str, bool) {
    let one = all.load_balancers.values().next().unwrap();
    (&one.ip_address_type, one.source_nat)
}

#[tokio::test]
async fn nodes_see_the_clients_of_both_families() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let seen = settle(&provider, &dual(web())).await.unwrap();
    assert_eq!(seen.remarks, Vec::<String>::new());
    let all = bed.fake.snapshot();
    assert_eq!(kind(&all), ("dualstack", false));
    assert_eq!(of_families(&all), both(3, "true"));
    let rules = all.security_groups.values();
    let rules = rules.filter(|it| it.name.starts_with("bl"));
    let rules: Vec<String> = rules
        .flat_map(|it| &it.ingress)
        .map(|it| format!("{it:?}"))
        .collect();
    assert!(rules.iter().any(|it| it.contains("::/0")), "{rules:?}");
    let (_, calls) = bed.calls_of(settle(&provider, &dual(web()))).await;
    assert_eq!(calls, [""; 0]);
    // The same after a restart.
    drop(provider);
    let provider = bed.start().await.unwrap();
    let (_, calls) = bed.calls_of(settle(&provider, &dual(web()))).await;
    assert_eq!(writes(&calls), [""; 0]);
    delete(&bed, &provider, &web()).await;
    assert!(bed.is_empty());
}

#[tokio::test]
async fn pods_of_each_family_are_targets() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let pods = |all: &[&str]| dual(with_pods(web(), all));
    let (four, six) = ("10.0.100.1", "2001:db8:0:64::1");
    settle(&provider, &pods(&[four, six])).await.unwrap();
    let all = bed.fake.snapshot();
    assert_eq!(of_families(&all), both(1, "false"));
    let targets: BTreeSet<String> = all.target_groups.values().flat_map(addresses).collect();
    let expected = [format!("{four}:8080"), format!("{six}:8080")];
    assert_eq!(targets, expected.into());
    let (_, calls) = bed.calls_of(settle(&provider, &pods(&[four]))).await;
    // Nobody is sent to nothing: clients with IPv6 are translated until a pod has an address.
    let expected = ["RemoveTags", "DeregisterTargets", "DeleteRule", "AddTags"];
    assert_eq!(calls, expected);
    let seen = settle(&provider, &pods(&[four])).await.unwrap();
    let said = seen.remarks.join(" ");
    assert!(said.contains("no target has an IPv6 address"), "{said}");
    settle(&provider, &pods(&[four, six])).await.unwrap();
    assert_eq!(of_families(&bed.fake.snapshot()), both(1, "false"));
}

/// Nodes come and go in the target groups of both families.
#[tokio::test]
async fn waves_follow_nodes_of_both_families() {
    let mut bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &dual(web())).await.unwrap();
    bed.add_node();
    let (_, calls) = bed.calls_of(bed.retarget(&provider)).await;
    let count = |action| calls.iter().filter(|it| *it == action).count();
    assert_eq!(count("RegisterTargets"), 2, "{calls:?}");
    assert_eq!(of_families(&bed.fake.snapshot()), both(4, "true"));
    // While no process runs, too.
    drop(provider);
    bed.add_node();
    let provider = bed.start().await.unwrap();
    settle(&provider, &dual(web())).await.unwrap();
    assert_eq!(of_families(&bed.fake.snapshot()), both(5, "true"));
}

/// One target group then, and a condition that says so, until a node has an address of the family.
#[tokio::test]
async fn without_nodes_of_the_family_its_clients_are_translated() {
    let mut bed = Bed::new().await;
    bed.ipv6 = false;
    let provider = bed.start().await.unwrap();
    let seen = settle(&provider, &dual(web())).await.unwrap();
    assert!(
        seen.remarks
            .join(" ")
            .contains("no node has an IPv6 address"),
        "{seen:?}"
    );
    let all = bed.fake.snapshot();
    assert_eq!(kind(&all), ("dualstack", false));
    assert_eq!(of_families(&all), both(3, "true")[..1]);
    bed.fake.advance(Duration::from_mins(5));
    provider.look().await;
    bed.ipv6 = true;
    bed.retarget(&provider).await.unwrap();
    // The wave asks for a turn, which makes the target groups.
    let asks = provider.look().await;
    let due = asks.iter().any(|it| it.cause == Cause::Due);
    assert!(due, "nobody asks for a turn: {asks:?}");
    let seen = settle(&provider, &dual(web())).await.unwrap();
    assert_eq!(seen.remarks, Vec::<String>::new());
    assert_eq!(of_families(&bed.fake.snapshot()), both(3, "true"));
    bed.retarget(&provider).await.unwrap();
    let asks = provider.look().await;
    assert!(asks.iter().all(|it| it.cause != Cause::Due), "{asks:?}");
}

#[tokio::test]
async fn a_family_is_added_and_removed_in_place() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web()).await.unwrap();
    let hostname = |all: Snapshot| all.load_balancers.into_values().next().unwrap().dns_name;
    let before = hostname(bed.fake.snapshot());
    for (service, expected) in [
        (dual(udp(web())), ("dualstack", true)),
        (dual(web()), ("dualstack", false)),
        (udp(web()), ("ipv4", false)),
        (
            with(web(), "ip-address-type", "dualstack"),
            ("dualstack", false),
        ),
        (
            with(dual(web()), "ip-address-type", "ipv4"),
            ("ipv4", false),
        ),
    ] {
        settle(&provider, &service).await.unwrap();
        let all = bed.fake.snapshot();
        assert_eq!(kind(&all), expected);
        let both = service.families.len() > 1 && expected.0 == "dualstack";
        assert_eq!(of_families(&all).len(), 1 + usize::from(both));
        assert_eq!(hostname(all), before);
    }
}

/// Subnets without IPv6: who can do without it has a load balancer, and the others a reason.
#[tokio::test]
async fn subnets_without_the_family_are_named() {
    let bed = Bed::new().await;
    bed.fake.edit(|cloud, _| {
        let all = cloud.subnets.values_mut();
        for subnet in all.filter(|it| it.vpc == VPC && it.id.ends_with("-b")) {
            subnet.ipv6_cidr = None;
        }
    });
    let provider = bed.start().await.unwrap();
    let seen = settle(&provider, &dual(web())).await.unwrap();
    let said = seen.remarks.join(" ");
    assert!(said.contains("subnet-private-b has none"), "{said}");
    assert_eq!(kind(&bed.fake.snapshot()), ("ipv4", false));
    let only = LoadBalancer {
        families: vec![Family::V6],
        ..service("only", &[(80, 30_081)])
    };
    let named = with(
        service("named", &[(80, 30_082)]),
        "ip-address-type",
        "dualstack",
    );
    for service in [only, named] {
        let why = ensure(&provider, &service).await.unwrap_err().to_string();
        assert!(why.contains("subnet-private-b has none"), "{why}");
        // Somebody can mend it in AWS, so Ballast tries again.
        let why = ensure(&provider, &service).await.unwrap_err();
        assert!(matches!(why, ProviderError::Transient { .. }), "{why:?}");
    }
    let mut requires = balancer(&provider, &[dual(web())]);
    requires.members[0].placement.family_policy = FamilyPolicy::RequireDualStack;
    let why = provider.ensure(&requires).await.unwrap_err().to_string();
    assert!(why.contains("RequireDualStack"), "{why}");
    // The nodes are known when that is asked.
    let elsewhere = with(
        dual(udp(web())),
        "subnets",
        "subnet-private-a,subnet-private-c",
    );
    let mut requires = balancer(&provider, &[elsewhere]);
    requires.members[0].placement.family_policy = FamilyPolicy::RequireDualStack;
    provider.ensure(&requires).await.unwrap();
    let elsewhere = with(dual(web()), "subnets", "subnet-private-a,subnet-private-c");
    settle(&provider, &elsewhere).await.unwrap();
    assert_eq!(kind(&bed.fake.snapshot()), ("dualstack", false));
}

/// Somebody adds a rule, changes one and deletes one: a full look sees it, and a turn undoes it.
#[tokio::test]
async fn changes_of_rules_by_hand_are_undone() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &dual(web())).await.unwrap();
    bed.fake.advance(Duration::from_mins(10));
    for _ in 0..4 {
        provider.look().await;
    }
    settle(&provider, &dual(web())).await.unwrap();
    let expected = crate::bed::essence(&bed.fake.snapshot());
    let changes: [fn(&mut ballast_aws_fake::state::Cloud); 2] = [
        |cloud| {
            let rules: Vec<String> = cloud.rules.values().map(|it| it.arn.clone()).collect();
            for arn in rules {
                cloud.rules.get_mut(&arn).unwrap().family = "ipv4".into();
            }
        },
        |cloud| {
            let listener = cloud.listeners.values().next().unwrap();
            let forward = listener.forward.clone();
            let rules: Vec<String> = cloud.rules.values().map(|it| it.arn.clone()).collect();
            for arn in rules {
                cloud.rules.get_mut(&arn).unwrap().forward = forward.clone();
            }
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        bed.fake.edit(|cloud, _| change(cloud));
        bed.fake.advance(Duration::from_mins(10));
        let mut said = Vec::new();
        for _ in 0..4 {
            said.extend(provider.look().await);
        }
        let seen = said.iter().any(|it| it.difference.contains("listener 80"));
        assert!(seen, "{number}: {said:?}");
        settle(&provider, &dual(web())).await.unwrap();
        let found = crate::bed::essence(&bed.fake.snapshot());
        assert_eq!(found, expected, "{number}");
    }
}
