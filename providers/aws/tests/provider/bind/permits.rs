//! What the owner of a target group permits, and which target groups nobody can permit.

use ballast_aws::bind::TARGETS_FROM;
use ballast_aws_fake::Fault;
use ballast_provider::Protocol;

use super::{ONE, Theirs, bound, has, later, pods, prepared, web};
use crate::bed::{Bed, delete, ensure, service, settle, writes};

#[tokio::test]
async fn what_the_owner_does_not_permit_is_refused() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let table = [
        (
            Theirs {
                permits: None,
                ..Theirs::of("ip")
            },
            "its owner has not permitted it",
        ),
        (
            Theirs {
                permits: Some("shop/other"),
                ..Theirs::of("ip")
            },
            "its owner has not permitted it",
        ),
        (Theirs::of("instance"), "its target type must be ip"),
    ];
    for (number, (theirs, says)) in table.into_iter().enumerate() {
        let arn = theirs.make(&bed, &format!("theirs-{number}"));
        let (ended, calls) = bed.calls_of(ensure(&provider, &pods(&arn, &[ONE]))).await;
        let why = ended.unwrap_err().to_string();
        assert!(why.contains(says) && why.contains(&arn), "{why}");
        assert_eq!(writes(&calls), [""; 0], "{says}");
    }
    let gone = format!("{}x", Theirs::of("ip").make(&bed, "gone"));
    let why = ensure(&provider, &pods(&gone, &[ONE])).await.unwrap_err();
    assert!(why.to_string().contains("does not find it"), "{why}");
    // A Service that has a load balancer keeps it.
    settle(&provider, &web()).await.unwrap();
    let arn = Theirs::of("instance").make(&bed, "late");
    let why = ensure(&provider, &bound(web(), &arn)).await.unwrap_err();
    assert!(
        why.to_string().contains("has a load balancer of its own"),
        "{why}"
    );
    assert_eq!(has(&bed, &arn), [""; 0]);
}

/// The owner takes the Service's name out of the tag, and its targets leave.
#[tokio::test]
async fn a_permission_that_is_taken_back_ends_the_traffic() {
    let (mut bed, provider, arn) = prepared("instance").await;
    let web = bound(web(), &arn);
    settle(&provider, &web).await.unwrap();
    assert_eq!(has(&bed, &arn).len(), 3);
    let permits = |services: &str| {
        bed.fake.edit(|cloud, _| {
            let group = cloud.target_groups.get_mut(&arn).unwrap();
            group.tags.insert(TARGETS_FROM.into(), services.into());
        });
    };
    permits("blog/web");
    later(&bed, &provider).await;
    let why = ensure(&provider, &web).await.unwrap_err().to_string();
    assert!(why.contains("its owner has not permitted it"), "{why}");
    assert_eq!(has(&bed, &arn), [""; 0]);
    permits("blog/web shop/web");
    later(&bed, &provider).await;
    settle(&provider, &web).await.unwrap();
    assert_eq!(has(&bed, &arn).len(), 3);
    permits("blog/web");
    // Nodes that come while AWS does not permit to deregister anything are no targets.
    bed.fake
        .fault(Fault::on("DeregisterTargets").always().error_with_status(
            403,
            "AccessDenied",
            "not authorized",
        ));
    later(&bed, &provider).await;
    let why = ensure(&provider, &web).await.unwrap_err().to_string();
    assert!(why.contains("its owner has not permitted it"), "{why}");
    bed.add_node();
    bed.retarget(&provider).await.unwrap();
    assert_eq!(has(&bed, &arn).len(), 3);
    bed.fake.clear_faults();
    later(&bed, &provider).await;
    ensure(&provider, &web).await.unwrap_err();
    assert_eq!(has(&bed, &arn), [""; 0]);
    delete(&bed, &provider, &web).await;
    assert_eq!(bed.fake.snapshot().target_groups.len(), 1);
}

/// What was seen a moment ago is judged anew for what the Service asks now.
#[tokio::test]
async fn another_target_type_or_protocol_is_judged_at_once() {
    let (bed, provider, arn) = prepared("instance").await;
    settle(&provider, &bound(web(), &arn)).await.unwrap();
    let why = ensure(&provider, &pods(&arn, &[ONE])).await.unwrap_err();
    assert!(why.to_string().contains("must be ip"), "{why}");
    let mut udp = bound(web(), &arn);
    udp.listeners[0].protocol = Protocol::Udp;
    let why = ensure(&provider, &udp).await.unwrap_err();
    assert!(why.to_string().contains("does not carry"), "{why}");
    assert_eq!(has(&bed, &arn), [""; 0]);
}

/// Ballast's own target groups have their targets from the Services that they were made for.
#[tokio::test]
async fn target_groups_of_ballast_are_no_target_groups_of_others() {
    let (bed, provider, arn) = prepared("instance").await;
    settle(&provider, &bound(web(), &arn)).await.unwrap();
    settle(&provider, &service("other", &[(80, 30_081)]))
        .await
        .unwrap();
    let own = bed.fake.snapshot().target_groups;
    let own = own.keys().filter(|it| **it != arn);
    for target in own {
        bed.fake.edit(|cloud, _| {
            let group = cloud.target_groups.get_mut(target).unwrap();
            group.tags.insert(TARGETS_FROM.into(), "shop/thief".into());
        });
        let thief = bound(service("thief", &[(80, 30_082)]), target);
        let why = ensure(&provider, &thief).await.unwrap_err().to_string();
        assert!(why.contains("Ballast has made it for a Service"), "{why}");
    }
}
