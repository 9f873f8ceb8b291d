//! What Services and classes name, and leave out: what AWS does not find, and what they may not have.

use ballast_aws::settings::Scheme;
use ballast_aws_fake::Fault;
use ballast_aws_fake::state::seed::NODE_GROUP;
use ballast_provider::mark::SERVICE;
use ballast_provider::{Provider, Reason};

use crate::bed::{Bed, delete, service, settle, with};

/// A name that nothing in AWS has is the author's mistake: AWS's words say so, and it costs the others nothing.
#[tokio::test]
async fn what_a_service_names_and_aws_does_not_find_is_tried_once_a_turn() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    let made = |calls: &[String]| {
        let made = calls.iter().filter(|call| *call == "CreateLoadBalancer");
        made.count()
    };
    // The list of subnets is older than the loss of one.
    bed.fake
        .edit(|cloud, _| cloud.subnets.remove("subnet-private-c"));
    let late = with(
        service("late", &[(80, 30_082)]),
        "subnets",
        "subnet-private-c",
    );
    let (ended, calls) = bed.calls_of(settle(&provider, &late)).await;
    let why = ended.unwrap_err();
    assert_eq!(why.reason(), Reason::Invalid, "{why}");
    assert!(why.to_string().contains("SubnetNotFound"), "{why}");
    assert_eq!(made(&calls), 1, "{calls:?}");
    let (ended, calls) = bed.calls_of(settle(&provider, &late)).await;
    let why = ended.unwrap_err();
    assert!(why.to_string().contains("subnet-private-c"), "{why}");
    assert_eq!(made(&calls), 0, "{calls:?}");
    let public = with(
        service("typo", &[(80, 30_081)]),
        "scheme",
        "internet-facing",
    );
    let typo = with(
        with(public, "subnets", "subnet-public-a"),
        "eip-allocations",
        "eipalloc-typo",
    );
    let (ended, calls) = bed.calls_of(settle(&provider, &typo)).await;
    let why = ended.unwrap_err();
    assert_eq!(why.reason(), Reason::Invalid, "{why}");
    assert!(why.to_string().contains("AllocationIdNotFound"), "{why}");
    assert_eq!(made(&calls), 1, "{calls:?}");
    for one in [&typo, &late, &web] {
        delete(&bed, &provider, one).await;
    }
    assert!(bed.is_empty());
}

/// People of one namespace choose tags, and must not choose the security groups of others by them.
#[tokio::test]
async fn a_name_of_a_security_group_is_never_one_of_ballasts_own() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let corporate = with(
        service("corp", &[(80, 30_080)]),
        "security-groups",
        "corp-web",
    );
    let thief = with(
        service("thief", &[(80, 30_081)]),
        "additional-resource-tags",
        "Name=corp-web",
    );
    settle(&provider, &thief).await.unwrap();
    let why = settle(&provider, &corporate).await.unwrap_err();
    assert!(why.to_string().contains("name one of your own"), "{why}");
    bed.fake.edit(|cloud, _| {
        let nodes = cloud.security_groups.get_mut(NODE_GROUP).unwrap();
        nodes.tags.insert("Name".into(), "corp-web".into());
    });
    drop(provider);
    let provider = bed.start().await.unwrap();
    settle(&provider, &corporate).await.unwrap();
    let all = bed.fake.snapshot();
    let own = all
        .load_balancers
        .values()
        .find(|one| one.tags[SERVICE].ends_with("/corp"));
    assert_eq!(own.unwrap().security_groups[0], NODE_GROUP);
    // By its ID it would keep the other Service from its end.
    let group = all.security_groups.values().find(|one| {
        one.tags
            .get(SERVICE)
            .is_some_and(|name| name.ends_with("/thief"))
    });
    let pinned = with(
        service("pin", &[(80, 30_082)]),
        "security-groups",
        &group.unwrap().id,
    );
    let why = settle(&provider, &pinned).await.unwrap_err();
    assert!(why.to_string().contains("Ballast has made"), "{why}");
    let unknown = with(
        service("no", &[(80, 30_083)]),
        "security-groups",
        "sg-unknown",
    );
    let why = settle(&provider, &unknown).await.unwrap_err();
    assert!(
        why.to_string().contains("sg-unknown does not exist"),
        "{why}"
    );
    // While EC2 fails, only what the load balancer has is believed.
    let away = Fault::on("DescribeSecurityGroups").error("InternalError", "Later");
    bed.fake.fault(away.always());
    let other = with(
        service("corp", &[(80, 30_080)]),
        "security-groups",
        "sg-other",
    );
    let why = settle(&provider, &other).await.unwrap_err();
    assert!(why.to_string().contains("InternalError"), "{why}");
    settle(&provider, &corporate).await.unwrap();
    bed.fake.clear_faults();
    for one in [&thief, &corporate, &pinned, &unknown] {
        delete(&bed, &provider, one).await;
    }
}

#[tokio::test]
async fn a_class_without_a_scheme_says_which_one_it_has() {
    let mut bed = Bed::new().await;
    bed.class.settings.scheme = None;
    let provider = bed.start().await.unwrap();
    let [says] = &provider.remarks()[..] else {
        panic!("{:?}", provider.remarks());
    };
    assert!(says.contains("Load balancers are internal"), "{says}");
    assert!(says.contains("spec.aws.scheme"), "{says}");
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    let all = bed.fake.snapshot().load_balancers;
    assert!(all.values().all(|one| one.scheme == "internal"));
    drop(provider);
    for scheme in [Scheme::Internal, Scheme::InternetFacing] {
        bed.class.settings.scheme = Some(scheme);
        let provider = bed.start().await.unwrap();
        assert_eq!(provider.remarks(), Vec::<String>::new());
    }
}
