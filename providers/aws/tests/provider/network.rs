//! What the class looks up and has in common: the groups of nodes, the backend group, the tag that names
//! the targets. EC2 that fails or is slow stops nothing that Elastic Load Balancing can do.

use std::sync::Arc;
use std::time::Duration;

use ballast_aws_fake::Fault;
use ballast_aws_fake::state::security_groups::{Permission, SecurityGroup, Source};
use ballast_aws_fake::state::seed::{NODE_GROUP, VPC};
use ballast_provider::mark::{RETAINED, SERVICE};
use ballast_provider::{
    Cause, Key, LoadBalancer, Provider, ProviderError, Reason, Released, Removal, State,
};
use tokio::time::timeout;

use crate::bed::{Bed, delete, instance, registered, service, settle, with};
use crate::quiet::Quiet;

/// A security group of the user's.
const FIREWALL: &str = "sg-00000000000fire";

/// The EC2 actions that a running process uses.
const EC2: [&str; 8] = [
    "DescribeInstances",
    "DescribeSubnets",
    "DescribeSecurityGroups",
    "CreateSecurityGroup",
    "AuthorizeSecurityGroupIngress",
    "RevokeSecurityGroupIngress",
    "CreateTags",
    "DeleteTags",
];

fn from(group: &str) -> Permission {
    Permission {
        protocol: "tcp".into(),
        from: Some(30_000),
        to: Some(32_767),
        source: Source::Group(group.into()),
    }
}

/// A group of Ballast's; without `of` the backend group.
fn group(bed: &Bed, of: Option<&str>) -> SecurityGroup {
    let all = bed.fake.snapshot().security_groups;
    let own = |one: &&SecurityGroup| {
        one.name.starts_with("bl") && one.tags.get(SERVICE).map(String::as_str) == of
    };
    all.values().find(own).unwrap().clone()
}

fn let_in(bed: &Bed, source: &str) {
    let rule = vec![(from(source), None)];
    let added = bed
        .fake
        .edit(|cloud, _| cloud.authorize_ingress(NODE_GROUP, rule));
    added.unwrap();
}

fn shut_out(bed: &Bed, source: &str) {
    let removed = bed
        .fake
        .edit(|cloud, _| cloud.revoke_ingress(NODE_GROUP, &[from(source)]));
    removed.unwrap();
}

/// Another group of nodes, which the last of three nodes has.
fn second_group(bed: &Bed, id: &str, tags: &[(&str, &str)], instead: bool) {
    bed.fake.edit(|cloud, _| {
        let mut more = cloud.security_groups.get(NODE_GROUP).unwrap().clone();
        more.id = id.into();
        more.name = id.into();
        more.tags = tags
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect();
        cloud.security_groups.put(more.id.clone(), more);
        let node = cloud.instances.get_mut(&instance(3)).unwrap();
        if instead {
            node.groups.clear();
        }
        node.groups.push(id.into());
    });
}

/// Whoever follows the advice to let the backend group in has a rule that names it. The last Service does
/// not wait for ever for what belongs to the class.
#[tokio::test]
async fn a_rule_of_somebody_else_holds_up_no_service_and_the_group_goes_later() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    let backend = group(&bed, None).id;
    let_in(&bed, &backend);
    delete(&bed, &provider, &web).await;
    assert!(!bed.is_empty());
    provider.look().await;
    let remarks = provider.remarks();
    let [remark] = &remarks[..] else {
        panic!("{remarks:?}");
    };
    for word in [&backend, NODE_GROUP, "DependencyViolation"] {
        assert!(remark.contains(word), "{remark}");
    }
    provider.look().await;
    assert_eq!(provider.remarks(), remarks);
    // The next process goes on, and a Service that comes opens the nodes again.
    let provider = bed.start().await.unwrap();
    provider.look().await;
    assert!(!bed.is_empty());
    settle(&provider, &web).await.unwrap();
    assert_eq!(group(&bed, None).id, backend);
    let rules = |bed: &Bed| {
        bed.fake.snapshot().security_groups[NODE_GROUP]
            .ingress
            .len()
    };
    assert_eq!(rules(&bed), 2);
    delete(&bed, &provider, &web).await;
    let provider = bed.start().await.unwrap();
    assert_eq!(rules(&bed), 1);
    shut_out(&bed, &backend);
    provider.look().await;
    assert!(bed.is_empty(), "{:?}", bed.fake.snapshot());
    assert_eq!(provider.remarks(), Vec::<String>::new());
}

/// A Service's own group is its own: it says what keeps it.
#[tokio::test]
async fn a_client_group_that_somebody_uses_is_named() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    let clients = group(&bed, Some("shop/web")).id;
    let_in(&bed, &clients);
    let key = Key::alone(&web.id);
    let release = || provider.release(&web.id, &key, Removal::Delete);
    let mut said = Vec::new();
    for _ in 0..10 {
        match release().await {
            Ok(Released::InProgress { .. }) => {}
            Ok(Released::Gone) => panic!("it is in use"),
            Err(why) => said.push(why.to_string()),
        }
        bed.fake.advance(Duration::from_mins(1));
    }
    assert!((3..8).contains(&said.len()), "{said:?}");
    said.dedup();
    let [why] = &said[..] else {
        panic!("{said:?}");
    };
    assert!(
        why.contains(&clients) && why.contains("DependencyViolation"),
        "{why}"
    );
    shut_out(&bed, &clients);
    delete(&bed, &provider, &web).await;
    assert!(bed.is_empty(), "{:?}", bed.fake.snapshot());
}

/// A load balancer that does not reach some nodes says so in each turn, until it does.
#[tokio::test]
async fn a_rule_that_aws_refuses_is_said_and_holds_up_no_other() {
    let bed = Bed::new().await;
    second_group(&bed, "sg-0000000000000more", &[], true);
    let provider = bed.start().await.unwrap();
    let authorize = || Fault::on("AuthorizeSecurityGroupIngress");
    bed.fake
        .fault(authorize().error("UnauthorizedOperation", "You are not authorized."));
    let web = service("web", &[(80, 30_080)]);
    let observed = settle(&provider, &web).await.unwrap();
    let says = |remarks: &[String]| {
        let words = ["sg-0000000000000more", "ec2:AuthorizeSecurityGroupIngress"];
        (remarks.iter()).any(|remark| words.iter().all(|word| remark.contains(word)))
    };
    assert!(says(&observed.remarks), "{observed:?}");
    let rules = |id: &str| bed.fake.snapshot().security_groups[id].ingress.len();
    assert_eq!((rules("sg-0000000000000more"), rules(NODE_GROUP)), (0, 1));
    let (observed, calls) = bed.calls_of(settle(&provider, &web)).await;
    assert!(says(&observed.unwrap().remarks));
    assert_eq!(calls, Vec::<String>::new());
    assert!(says(&provider.remarks()), "{:?}", provider.remarks());
    // The right came meanwhile.
    let changes = provider.look().await;
    assert!(changes.iter().any(|it| it.id == web.id), "{changes:?}");
    assert_eq!(rules("sg-0000000000000more"), 1);
    let observed = settle(&provider, &web).await.unwrap();
    assert!(!says(&observed.remarks), "{observed:?}");
    assert_eq!(provider.remarks(), Vec::<String>::new());
}

/// The tag on the backend group is a note for the next process; targets do not wait for it.
#[tokio::test]
async fn targets_follow_while_ec2_fails() {
    let mut bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    bed.add_node();
    let fail = |bed: &Bed| {
        for action in EC2 {
            let fault = Fault::on(action).always();
            bed.fake
                .fault(fault.error_with_status(503, "Unavailable", "EC2 is down"));
        }
    };
    fail(&bed);
    bed.retarget(&provider).await.unwrap();
    let targets = |bed: &Bed| {
        let groups = bed.fake.snapshot().target_groups;
        registered(groups.values().next().unwrap()).len()
    };
    assert_eq!(targets(&bed), 4);
    // The tag still names the former nodes. The same process does not believe it.
    bed.nodes -= 1;
    bed.retarget(&provider).await.unwrap();
    assert_eq!(targets(&bed), 3);
    bed.nodes += 1;
    bed.retarget(&provider).await.unwrap();
    assert_eq!(targets(&bed), 4);
    bed.fake.clear_faults();
    provider.look().await;
    drop(provider);
    let (provider, calls) = bed.calls_of(bed.start()).await;
    provider.unwrap();
    assert!(
        !calls.iter().any(|call| call == "DescribeTargetHealth"),
        "{calls:?}"
    );
}

/// A background look-up that hangs holds up no Service and no wave.
#[tokio::test]
async fn a_slow_look_in_the_background_delays_nobody() {
    let mut bed = Bed::new().await;
    let provider = Arc::new(bed.start().await.unwrap());
    settle(&*provider, &service("web", &[(80, 30_080)]))
        .await
        .unwrap();
    bed.fake
        .fault(Fault::on("DescribeSecurityGroups").hold_before());
    let looking = tokio::spawn({
        let provider = Arc::clone(&provider);
        async move { provider.look().await }
    });
    bed.fake.held().await;
    bed.add_node();
    let work = async {
        let other = service("other", &[(80, 30_081)]);
        settle(&*provider, &other).await.unwrap();
        bed.retarget(&provider).await.unwrap();
    };
    let done = timeout(Duration::from_secs(10), work).await;
    bed.fake.release();
    looking.await.unwrap();
    done.expect("they do not wait for it");
    let groups = bed.fake.snapshot().target_groups;
    assert!(groups.values().all(|group| registered(group).len() == 4));
}

/// A Service that has the user's security group beside the class's.
fn guarded(name: &str) -> LoadBalancer {
    let given = with(service(name, &[(80, 30_080)]), "security-groups", FIREWALL);
    with(given, "manage-backend-security-group-rules", "true")
}

/// The next Service does not rely on a group of which nobody knows whether it is there.
#[tokio::test]
async fn a_deletion_of_the_backend_group_without_an_answer_harms_no_service() {
    for after in [true, false] {
        let bed = Bed::new().await;
        second_group(&bed, FIREWALL, &[], false);
        let provider = bed.start().await.unwrap();
        settle(&provider, &guarded("web")).await.unwrap();
        let key = Key::alone(&guarded("web").id);
        let id = guarded("web").id;
        let release = || provider.release(&id, &key, Removal::Delete);
        // Its load balancer's interfaces use it for a while.
        assert!(matches!(release().await, Ok(Released::InProgress { .. })));
        bed.fake.advance(Duration::from_mins(10));
        bed.fake
            .fault(Fault::on("DeleteSecurityGroup").dropped(after));
        release().await.unwrap();
        let web = service("other", &[(80, 30_081)]);
        settle(&provider, &web).await.unwrap();
        assert_eq!(bed.fake.snapshot().load_balancers.len(), 1);
        delete(&bed, &provider, &web).await;
        let left = bed.fake.snapshot().security_groups;
        assert!(!left.values().any(|one| one.name.starts_with("bl")));
    }
}

/// Somebody deletes the class's group while no load balancer uses it.
#[tokio::test]
async fn a_backend_group_that_somebody_deletes_is_made_again() {
    for looks in [true, false] {
        let bed = Bed::new().await;
        second_group(&bed, FIREWALL, &[], false);
        let provider = bed.start().await.unwrap();
        let only = with(
            service("only", &[(80, 30_082)]),
            "security-groups",
            FIREWALL,
        );
        let web = service("web", &[(80, 30_080)]);
        settle(&provider, &only).await.unwrap();
        settle(&provider, &web).await.unwrap();
        delete(&bed, &provider, &web).await;
        let backend = group(&bed, None).id;
        bed.fake.edit(|cloud, now| {
            let mut nodes = cloud.security_groups.get(NODE_GROUP).unwrap().clone();
            nodes.ingress.clear();
            cloud.security_groups.put(NODE_GROUP.into(), nodes);
            cloud.security_groups.remove(&backend, now);
        });
        if looks {
            provider.look().await;
        } else {
            settle(&provider, &web).await.unwrap_err();
        }
        settle(&provider, &web).await.unwrap();
        assert_ne!(group(&bed, None).id, backend);
        let nodes = bed.fake.snapshot().security_groups[NODE_GROUP].clone();
        assert_eq!(nodes.ingress.len(), 1);
    }
}

/// The lists at a start may lag behind.
#[tokio::test]
async fn a_backend_group_that_a_start_has_not_seen_is_deleted_later() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    let backend = group(&bed, None);
    delete(&bed, &provider, &web).await;
    drop(provider);
    let provider = bed.start().await.unwrap();
    bed.fake.edit(|cloud, _| {
        cloud
            .security_groups
            .put(backend.id.clone(), backend.clone());
    });
    provider.look().await;
    provider.look().await;
    assert!(bed.is_empty(), "{:?}", bed.fake.snapshot());
}

/// People mend it in AWS, and nobody tells the controller: the Service must try again.
#[tokio::test]
async fn what_is_wrong_in_aws_is_no_refusal() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let named = |name, value| with(service("web", &[(80, 30_080)]), name, value);
    for web in [named("subnets", "none"), named("security-groups", "none")] {
        let why = settle(&provider, &web).await.unwrap_err();
        let ProviderError::Transient { reason, message } = &why else {
            panic!("{why:?}");
        };
        assert_eq!(*reason, Reason::Invalid);
        assert!(message.contains("\"none\""), "{message}");
    }
    bed.fake.edit(|cloud, _| {
        for subnet in cloud.subnets.values_mut() {
            subnet.tags.clear();
        }
        cloud.route_tables.clear();
    });
    let provider = bed.start().await.unwrap();
    let public = named("scheme", "internet-facing");
    let why = settle(&provider, &public).await.unwrap_err();
    let ProviderError::Transient { reason, message } = &why else {
        panic!("{why:?}");
    };
    assert_eq!(*reason, Reason::Invalid);
    assert!(message.contains("no subnet fits"), "{message}");
}

/// What EC2 has said before is enough for what exists.
#[tokio::test(start_paused = true)]
async fn a_service_with_names_is_served_while_ec2_fails() {
    let named = |name| {
        let web = service(name, &[(80, 30_080)]);
        let web = with(web, "subnets", "subnet-private-a,subnet-private-b");
        with(web, "security-groups", "firewall")
    };
    let quiet = Quiet::of(vec![named("web"), named("new")]).await;
    let tags = [("Name", "firewall")];
    second_group(&quiet.bed, FIREWALL, &tags, false);
    let provider = quiet.bed.start().await.unwrap();
    settle(&provider, &named("web")).await.unwrap();
    quiet.follow(&provider, Duration::from_mins(12)).await;
    for action in EC2 {
        let fault = Fault::on(action).always();
        let fault = fault.error_with_status(503, "Unavailable", "EC2 is down");
        quiet.bed.fake.fault(fault);
    }
    for _ in 0..3 {
        let observed = settle(&provider, &named("web")).await.unwrap();
        assert_eq!(observed.state, State::Programmed);
        tokio::time::advance(Duration::from_mins(5)).await;
    }
    // Others are made when EC2 is back.
    settle(&provider, &named("new")).await.unwrap_err();
    quiet.bed.fake.clear_faults();
    settle(&provider, &named("new")).await.unwrap();
}

/// A Service that is in use keeps what somebody has marked as kept.
#[tokio::test]
async fn a_tag_that_says_kept_freezes_no_service_that_is_in_use() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    let marks = |bed: &Bed| {
        let all = bed.fake.snapshot().load_balancers;
        let tags = all.values().map(|one| one.tags.contains_key(RETAINED));
        tags.collect::<Vec<_>>()
    };
    bed.fake.edit(|cloud, _| {
        let arn = cloud.load_balancers.all().keys().next().unwrap().clone();
        let one = cloud.load_balancers.get_mut(&arn).unwrap();
        one.tags.insert(RETAINED.into(), "yesterday".into());
    });
    assert_eq!(marks(&bed), [true]);
    let changes = provider.look().await;
    assert!(changes.iter().any(|it| it.id == web.id), "{changes:?}");
    settle(&provider, &web).await.unwrap();
    assert_eq!(marks(&bed), [false]);
}

/// AWS never changes an address, so the Service says what it keeps.
#[tokio::test]
async fn other_addresses_are_refused_aloud() {
    const ADDRESSES: &str = "private-ipv4-addresses";
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = || service("web", &[(80, 30_080)]);
    let first = with(web(), ADDRESSES, "10.0.100.77,10.0.101.77,10.0.102.77");
    let observed = settle(&provider, &first).await.unwrap();
    assert_eq!(observed.objection, None);
    let other = with(web(), ADDRESSES, "10.0.100.77,10.0.101.78,10.0.102.77");
    for _ in 0..2 {
        let observed = settle(&provider, &other).await.unwrap();
        let objection = observed.objection.unwrap();
        assert_eq!(objection.reason, Reason::Unsupported);
        let says = &objection.message;
        assert!(says.contains("10.0.101.77"), "{says}");
        assert!(says.contains("10.0.101.78"), "{says}");
    }
    let observed = settle(&provider, &first).await.unwrap();
    assert_eq!(observed.objection, None);
    // The same after a restart.
    let provider = bed.start().await.unwrap();
    let observed = settle(&provider, &first).await.unwrap();
    assert_eq!(observed.objection, None);
    let observed = settle(&provider, &other).await.unwrap();
    assert!(observed.objection.is_some());
}

/// Lists are older than what a turn has done since they were begun.
#[tokio::test]
async fn our_own_work_is_no_drift() {
    let bed = Bed::new().await;
    let provider = Arc::new(bed.start().await.unwrap());
    let (web, gone) = (
        service("web", &[(80, 30_080)]),
        service("gone", &[(80, 30_082)]),
    );
    for one in [&web, &gone] {
        settle(&*provider, one).await.unwrap();
    }
    // The first look at groups asks for the rules of the nodes, the second one is the last of the lists.
    bed.fake
        .fault(Fault::on("DescribeSecurityGroups").nth(2).hold_before());
    let looking = tokio::spawn({
        let provider = Arc::clone(&provider);
        async move { provider.look().await }
    });
    bed.fake.held().await;
    settle(&*provider, &service("web", &[(80, 30_080), (443, 30_443)]))
        .await
        .unwrap();
    settle(&*provider, &service("new", &[(80, 30_081)]))
        .await
        .unwrap();
    delete(&bed, &*provider, &gone).await;
    bed.fake.release();
    let changes = looking.await.unwrap();
    let drift = [Cause::Drifted, Cause::Gone, Cause::Appeared];
    assert!(
        !changes.iter().any(|it| drift.contains(&it.cause)),
        "{changes:?}"
    );
    let left = provider.inventory().await.unwrap();
    assert!(
        !left.iter().any(|one| one.services.contains(&gone.id)),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_turn_with_groups_by_name_costs_no_call() {
    let bed = Bed::new().await;
    second_group(&bed, FIREWALL, &[("Name", "firewall")], false);
    let provider = bed.start().await.unwrap();
    let web = with(
        service("web", &[(80, 30_080)]),
        "security-groups",
        "firewall",
    );
    settle(&provider, &web).await.unwrap();
    let (_, calls) = bed.calls_of(settle(&provider, &web)).await;
    assert_eq!(calls, Vec::<String>::new());
    // A name that nobody has is asked for again later, not in each turn.
    let other = with(service("other", &[(80, 30_081)]), "security-groups", "none");
    settle(&provider, &other).await.unwrap_err();
    let (refused, calls) = bed.calls_of(settle(&provider, &other)).await;
    assert!(refused.unwrap_err().to_string().contains("\"none\""));
    assert_eq!(calls, Vec::<String>::new());
}

/// The tags of nodes say which subnets are the cluster's, also if the class names the VPC.
#[tokio::test]
async fn a_class_that_names_its_vpc_finds_subnets() {
    let mut bed = Bed::new().await;
    bed.class.vpc = Some(VPC.into());
    let provider = bed.start().await.unwrap();
    settle(&provider, &service("web", &[(80, 30_080)]))
        .await
        .unwrap();
}
