//! What other controllers for AWS got wrong, as their issues say. One test for each row; the numbers
//! are those of the AWS Load Balancer Controller, but for `cloud-provider-aws` where it is named.
//!
//! | row | what went wrong | test |
//! |---|---|---|
//! | defc1c17b | the order of subnets in the annotation was lost, so addresses came into others | [`subnets_keep_the_order_of_the_annotation`] |
//! | 75508ff78 | several subnets with one tag `Name` | [`one_name_may_be_of_several_subnets`] |
//! | #4544 | nodes in a zone without a subnet get no traffic, and nobody says so | [`a_node_in_another_zone_is_said`] |
//! | #4876 | names of target groups collide | [`target_groups_of_all_ports_differ`] |
//! | 672b199e0 | tags that begin with `aws:` | [`tags_of_aws_are_skipped`] |
//! | #4773 | a Service is deleted while no controller runs | [`what_was_deleted_meanwhile_is_found`] |
//! | #2638 | foreign load balancers are deleted | [`foreign_objects_stay_as_they_are`] |
//! | #1181 | nodes with several security groups have no targets | [`nodes_with_several_groups_are_targets`] |
//! | #1462 of `cloud-provider-aws` | the rules of nodes' groups grow with ports and sources | [`nodes_have_one_rule_whatever_the_ports`] |
//! | zonal shift | combinations that AWS permits since September 2026 | [`zonal_shift_with_udp_across_zones`] |
//!
//! Dual stack (#4865, #1219), `EndpointSlices` by family (#4783) and weights (3d390b8d7) are not supported
//! yet, and refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ballast_aws_fake::state::seed::NODE_GROUP;
use ballast_provider::{Protocol, Provider, ServiceId};

use crate::bed::{Bed, delete, instance, registered, service, settle, with};

#[tokio::test]
async fn subnets_keep_the_order_of_the_annotation() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = with(
        with(
            service("web", &[(80, 30_080)]),
            "subnets",
            "subnet-private-c,subnet-private-a",
        ),
        "private-ipv4-addresses",
        "10.0.102.77,10.0.100.77",
    );
    settle(&provider, &web).await.unwrap();
    let all = bed.fake.snapshot().load_balancers;
    let zones = &all.values().next().unwrap().zones;
    let placed: BTreeMap<&str, String> = zones
        .values()
        .map(|it| (it.subnet.as_str(), format!("{:?}", it.private_address)))
        .collect();
    assert!(
        placed["subnet-private-a"].contains("10.0.100.77"),
        "{placed:?}"
    );
    assert!(
        placed["subnet-private-c"].contains("10.0.102.77"),
        "{placed:?}"
    );
}

#[tokio::test]
async fn one_name_may_be_of_several_subnets() {
    let bed = Bed::new().await;
    bed.fake.edit(|cloud, _| {
        for id in ["subnet-private-a", "subnet-private-b"] {
            let subnet = cloud.subnets.get_mut(id).unwrap();
            subnet.tags.insert("Name".into(), "inner".into());
        }
    });
    let provider = bed.start().await.unwrap();
    let web = with(service("web", &[(80, 30_080)]), "subnets", "inner");
    settle(&provider, &web).await.unwrap();
    let all = bed.fake.snapshot().load_balancers;
    let zones = &all.values().next().unwrap().zones;
    let subnets: Vec<&str> = zones.values().map(|it| it.subnet.as_str()).collect();
    assert_eq!(subnets, ["subnet-private-a", "subnet-private-b"]);
}

#[tokio::test]
async fn a_node_in_another_zone_is_said() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = with(
        service("web", &[(80, 30_080)]),
        "subnets",
        "subnet-private-a,subnet-private-b",
    );
    settle(&provider, &web).await.unwrap();
    bed.fake.advance(Duration::from_mins(10));
    provider.look().await;
    let observed = settle(&provider, &web).await.unwrap();
    let [condition] = &observed.conditions[..] else {
        panic!("{observed:?}");
    };
    let says = &condition.message;
    assert!(says.starts_with("2 of 3 targets are healthy"), "{says}");
    assert!(
        says.contains("Availability Zone that is not enabled"),
        "{says}"
    );
    // It is registered all the same, so that it serves as soon as its zone has a subnet.
    let groups = bed.fake.snapshot().target_groups;
    assert_eq!(registered(groups.values().next().unwrap()).len(), 3);
}

#[tokio::test]
async fn target_groups_of_all_ports_differ() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let ports: Vec<(u16, u16)> = (1..=10).map(|n| (8_000 + n, 30_000 + n)).collect();
    settle(&provider, &service("web", &ports)).await.unwrap();
    let all = bed.fake.snapshot();
    assert_eq!((all.target_groups.len(), all.listeners.len()), (10, 10));
}

#[tokio::test]
async fn tags_of_aws_are_skipped() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = with(
        service("web", &[(80, 30_080)]),
        "additional-resource-tags",
        "aws:cloudformation:stack-name=x,team=shop",
    );
    let observed = settle(&provider, &web).await.unwrap();
    assert!(
        observed
            .remarks
            .iter()
            .any(|it| it.contains("aws:cloudformation"))
    );
    let all = bed.fake.snapshot().load_balancers;
    let tags = &all.values().next().unwrap().tags;
    assert_eq!(tags.get("team").map(String::as_str), Some("shop"));
    assert!(!tags.keys().any(|key| key.starts_with("aws:")), "{tags:?}");
}

#[tokio::test]
async fn what_was_deleted_meanwhile_is_found() {
    let bed = Bed::new().await;
    let web = service("web", &[(80, 30_080)]);
    let provider = bed.start().await.unwrap();
    settle(&provider, &web).await.unwrap();
    drop(provider);
    // The controller releases whatever the inventory lists and no Service needs.
    let provider = bed.start().await.unwrap();
    let listed = provider.inventory().await.unwrap();
    let services: BTreeSet<&ServiceId> = listed.iter().flat_map(|one| &one.services).collect();
    assert_eq!(services, [&web.id].into());
    delete(&bed, &provider, &web).await;
    assert!(bed.is_empty(), "{:?}", bed.fake.snapshot());
}

#[tokio::test]
async fn foreign_objects_stay_as_they_are() {
    let bed = Bed::new().await;
    // Everything of another cluster with the same names of classes and Services, and of nobody.
    let web = service("web", &[(80, 30_080)]);
    let theirs = bed.start_for("cluster-2").await.unwrap();
    settle(&theirs, &web).await.unwrap();
    drop(theirs);
    bed.fake.remember_foreign();
    let provider = bed.start().await.unwrap();
    settle(&provider, &web).await.unwrap();
    provider.look().await;
    settle(&provider, &service("web", &[(443, 30_443)]))
        .await
        .unwrap();
    delete(&bed, &provider, &web).await;
    let left = bed.fake.snapshot();
    assert_eq!(
        (left.load_balancers.len(), left.target_groups.len()),
        (1, 1)
    );
    let changes = bed.fake.foreign_changes();
    assert_eq!(changes, Vec::<String>::new());
}

#[tokio::test]
async fn nodes_with_several_groups_are_targets() {
    let bed = Bed::new().await;
    bed.fake.edit(|cloud, _| {
        let mut more = cloud.security_groups.get(NODE_GROUP).unwrap().clone();
        more.id = "sg-0000000000000more".into();
        more.name = "more".into();
        for number in 1..=3 {
            let node = cloud.instances.get_mut(&instance(number)).unwrap();
            node.groups.push(more.id.clone());
        }
        cloud.security_groups.put(more.id.clone(), more);
    });
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    let observed = settle(&provider, &web).await.unwrap();
    let remarks = observed.remarks.join(" ");
    assert!(remarks.contains("sg-0000000000000more"), "{remarks}");
    let groups = bed.fake.snapshot().target_groups;
    assert_eq!(registered(groups.values().next().unwrap()).len(), 3);
}

#[tokio::test]
async fn nodes_have_one_rule_whatever_the_ports() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    for name in ["one", "two"] {
        let ports: Vec<(u16, u16)> = (1..=10).map(|n| (8_000 + n, 30_000 + n)).collect();
        let mut web = service(name, &ports);
        let ranges = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"];
        web.source_ranges = ranges.map(|range| range.parse().unwrap()).to_vec();
        settle(&provider, &web).await.unwrap();
    }
    let all = bed.fake.snapshot().security_groups;
    assert_eq!(all[NODE_GROUP].ingress.len(), 1);
}

#[tokio::test]
async fn zonal_shift_with_udp_across_zones() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let mut dns = with(
        service("dns", &[(53, 30_053)]),
        "attributes",
        "load_balancing.cross_zone.enabled=true,zonal_shift.config.enabled=true",
    );
    dns.listeners[0].protocol = Protocol::Udp;
    settle(&provider, &dns).await.unwrap();
    let all = bed.fake.snapshot().load_balancers;
    let attributes = &all.values().next().unwrap().attributes;
    assert_eq!(attributes["zonal_shift.config.enabled"], "true");
}
