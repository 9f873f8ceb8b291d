//! What somebody else does, and what AWS refuses.

use std::time::Duration;

use ballast_aws_fake::Fault;
use ballast_aws_fake::state::security_groups::SecurityGroup;
use ballast_aws_fake::state::seed::{NODE_GROUP, VPC};
use ballast_aws_fake::state::{Snapshot, security_groups, target_groups};
use ballast_provider::mark::{KEEP, SERVICE};
use ballast_provider::{Cause, Provider, ProviderError, Reason, State};

use crate::bed::{Bed, delete, essence, instance, registered, service, settle, with, writes};

/// The ARN of the only load balancer.
fn load_balancer_of(cloud: &Snapshot) -> String {
    let mut arns = cloud.load_balancers.keys().cloned();
    arns.next().unwrap()
}

const PROTECTION: &str = "deletion_protection.enabled";

#[tokio::test]
async fn what_somebody_else_changes_is_seen_and_repaired() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    bed.fake.advance(Duration::from_mins(10));
    provider.look().await;
    settle(&provider, &web).await.unwrap();
    let before = essence(&bed.fake.snapshot());
    let listener = bed.fake.snapshot().listeners.keys().next().unwrap().clone();
    bed.fake
        .edit(|cloud, now| cloud.delete_listener(now, &listener))
        .unwrap();
    let changes = provider.look().await;
    let drift = changes.iter().find(|it| it.cause == Cause::Drifted);
    let says = &drift.unwrap().difference;
    assert!(says.starts_with("load balancer bl-"), "{says}");
    assert!(says.ends_with(": listener 80 is gone"), "{says}");
    settle(&provider, &web).await.unwrap();
    assert_eq!(essence(&bed.fake.snapshot()), before);
    let arn = load_balancer_of(&bed.fake.snapshot());
    bed.fake
        .edit(|cloud, now| cloud.delete_load_balancer(now, &arn))
        .unwrap();
    let changes = provider.look().await;
    let gone = changes.iter().find(|it| it.cause == Cause::Gone);
    assert!(
        gone.unwrap().difference.ends_with(" is gone"),
        "{changes:?}"
    );
    settle(&provider, &web).await.unwrap();
    assert_eq!(essence(&bed.fake.snapshot()), before);
}

/// A node whose instance does not run, or is in another VPC, would otherwise hold up every Service.
#[tokio::test]
async fn an_instance_that_aws_refuses_holds_up_nothing() {
    let mut bed = Bed::new().await;
    bed.add_node();
    bed.add_node();
    let state = |bed: &Bed, state: &str| {
        bed.fake.edit(|cloud, _| {
            cloud.instances.get_mut(&instance(5)).unwrap().state = state.into();
        });
    };
    state(&bed, "stopped");
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    let targets = |bed: &Bed| -> Vec<String> {
        let groups = bed.fake.snapshot().target_groups;
        let group = groups.values().next().unwrap();
        registered(group).into_iter().map(str::to_owned).collect()
    };
    assert_eq!(targets(&bed), [1, 2, 3, 4].map(instance));
    let remarks = provider.remarks();
    assert!(remarks[0].contains(&instance(5)), "{remarks:?}");
    // Nobody tries it again and again.
    let (_, calls) = bed.calls_of(settle(&provider, &web)).await;
    assert_eq!(calls, Vec::<String>::new());
    state(&bed, "running");
    let changes = provider.look().await;
    assert!(changes.iter().any(|it| it.id == web.id), "{changes:?}");
    settle(&provider, &web).await.unwrap();
    assert_eq!(targets(&bed), [1, 2, 3, 4, 5].map(instance));
    assert_eq!(provider.remarks(), Vec::<String>::new());
    // It leaves the cluster while no process runs, and its instance goes on.
    drop(provider);
    bed.nodes -= 1;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web).await.unwrap();
    assert_eq!(targets(&bed), [1, 2, 3, 4].map(instance));
}

/// AWS would refuse the rules of a load balancer that is half made, and would not say why.
#[tokio::test]
async fn prefix_lists_that_do_not_fit_are_refused_by_their_entries() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let entries = |number| bed.set_max_entries("pl-offices", number);
    entries(31);
    let limited = |ports: &[(u16, u16)]| {
        let web = service("web", ports);
        with(web, "security-group-prefix-lists", "pl-offices")
    };
    let two = limited(&[(80, 30_080), (443, 30_443)]);
    let (ended, calls) = bed.calls_of(settle(&provider, &two)).await;
    let why = ended.unwrap_err().to_string();
    assert!(why.contains("need 62 rules"), "{why}");
    assert!(
        why.contains("pl-offices counts as 31 on each port"),
        "{why}"
    );
    assert_eq!(writes(&calls), [""; 0]);
    // Somebody makes the list shorter. Each Service is asked for it, and AWS once.
    entries(30);
    settle(&provider, &two).await.unwrap();
    let mut other = limited(&[(80, 30_081)]);
    other.id = service("other", &[]).id;
    let (ended, calls) = bed.calls_of(settle(&provider, &other)).await;
    ended.unwrap();
    let read = |it: &&String| *it == "DescribeManagedPrefixLists";
    assert_eq!(calls.iter().filter(read).count(), 0, "{calls:?}");
    let gone = with(two.clone(), "security-group-prefix-lists", "pl-gone");
    let why = settle(&provider, &gone).await.unwrap_err().to_string();
    assert!(why.contains("pl-gone does not exist"), "{why}");
    settle(&provider, &two).await.unwrap();
    // A process that starts reads it once for both.
    let provider = bed.start().await.unwrap();
    let ((), calls) = bed
        .calls_of(async {
            settle(&provider, &two).await.unwrap();
            settle(&provider, &other).await.unwrap();
        })
        .await;
    assert_eq!(calls, ["DescribeManagedPrefixLists"]);
}

/// Without the rule, no load balancer reaches a node.
#[tokio::test]
async fn the_rule_of_the_nodes_group_comes_back() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &service("web", &[(80, 30_080)]))
        .await
        .unwrap();
    let rules = || {
        bed.fake.snapshot().security_groups[NODE_GROUP]
            .ingress
            .clone()
    };
    let [rule] = &rules()[..] else {
        panic!("{:?}", rules());
    };
    let permission = std::slice::from_ref(&rule.permission);
    bed.fake
        .edit(|cloud, _| cloud.revoke_ingress(NODE_GROUP, permission))
        .unwrap();
    provider.look().await;
    assert_eq!(rules()[0].permission, rule.permission);
}

#[tokio::test]
async fn another_scheme_serves_before_the_former_load_balancer_goes() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    bed.fake.advance(Duration::from_mins(10));
    provider.look().await;
    let public = with(web, "scheme", "internet-facing");
    settle(&provider, &public).await.unwrap();
    assert_eq!(bed.fake.snapshot().load_balancers.len(), 2);
    provider.look().await;
    settle(&provider, &public).await.unwrap();
    assert_eq!(bed.fake.snapshot().load_balancers.len(), 2);
}

/// Each says why in AWS's words and what to do, and has a reason of its own.
#[tokio::test]
async fn errors_say_what_to_do() {
    for (action, code, message, words, reason) in [
        (
            "CreateLoadBalancer",
            "TooManyLoadBalancers",
            "You have reached the limit",
            ["You have reached the limit", "Have AWS raise it"],
            Reason::QuotaExceeded,
        ),
        (
            "RegisterTargets",
            "TooManyTargets",
            "You have reached the limit on the number of targets.",
            ["number of targets", "ports × nodes: 1 × 3"],
            Reason::QuotaExceeded,
        ),
        (
            "CreateSecurityGroup",
            "UnauthorizedOperation",
            "You are not authorized to perform this operation.",
            ["ec2:CreateSecurityGroup", "ballast iam-policy"],
            Reason::AccessDenied,
        ),
        (
            "CreateLoadBalancer",
            "InvalidSubnet",
            "The subnet has no route to an internet gateway",
            ["no route to an internet gateway", "Change the setting"],
            Reason::Invalid,
        ),
        (
            "CreateLoadBalancer",
            "InvalidClientTokenId",
            "The security token included in the request is invalid",
            ["token included in the request", "Check the role"],
            Reason::AccessDenied,
        ),
        (
            "CreateLoadBalancer",
            "InternalFailure",
            "Internal failure",
            ["Internal failure", "AWS has failed"],
            Reason::CloudError,
        ),
    ] {
        let bed = Bed::new().await;
        let provider = bed.start().await.unwrap();
        bed.fake
            .fault(Fault::on(action).always().error(code, message));
        let web = service("web", &[(80, 30_080)]);
        let why = settle(&provider, &web).await.unwrap_err();
        assert_eq!(why.reason(), reason, "{why}");
        for words in words {
            assert!(why.to_string().contains(words), "{why}");
        }
        assert_eq!(settle(&provider, &web).await.unwrap_err(), why);
        bed.fake.clear_faults();
        settle(&provider, &web).await.unwrap();
    }
}

#[tokio::test]
async fn deletion_protection_is_said_and_not_switched_off() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = with(
        service("web", &[(80, 30_080)]),
        "attributes",
        "deletion_protection.enabled=true",
    );
    settle(&provider, &web).await.unwrap();
    let key = ballast_provider::Key::alone(&web.id);
    let release = || provider.release(&web.id, &key, ballast_provider::Removal::Delete);
    let why = release().await.unwrap_err();
    assert_eq!(why.reason(), Reason::AccessDenied, "{why}");
    // The controller tries again, because it is not the Service that changes.
    assert!(matches!(&why, ProviderError::Transient { .. }), "{why}");
    let says = why.to_string();
    assert!(says.contains("switch it off in AWS"), "{says}");
    // A Service that is deleted sets no attribute any more.
    assert!(!says.contains("deletion_protection.enabled"), "{says}");
    assert_eq!(bed.fake.snapshot().load_balancers.len(), 1);
    bed.fake.edit(|cloud, _| {
        let arn = load_balancer_of(&cloud.snapshot());
        let attributes = [(PROTECTION.to_owned(), "false".to_owned())].into();
        cloud
            .modify_load_balancer_attributes(&arn, &attributes)
            .unwrap();
    });
    delete(&bed, &provider, &web).await;
    assert!(bed.is_empty());
}

/// What AWS refuses to delete is said and tried again, and keeps nothing else from being deleted. The
/// Service is served.
#[tokio::test]
async fn what_cannot_be_deleted_is_said_and_holds_up_nothing() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let three = service("web", &[(80, 30_080), (443, 30_443), (444, 30_444)]);
    settle(&provider, &three).await.unwrap();
    let denied = "You are not authorized to perform: elasticloadbalancing:DeleteTargetGroup";
    bed.fake
        .fault(Fault::on("DeleteTargetGroup").error("AccessDenied", denied));
    let one = service("web", &[(80, 30_080)]);
    for _ in 0..2 {
        let (observed, calls) = bed.calls_of(settle(&provider, &one)).await;
        let [remark] = &observed.unwrap().remarks[..] else {
            panic!("one remark");
        };
        assert!(remark.contains("the target group arn:"), "{remark}");
        assert!(remark.contains("do not permit"), "{remark}");
        assert_eq!(bed.fake.snapshot().target_groups.len(), 2);
        // The second turn comes before the pause has passed.
        let tries = calls.iter().filter(|call| *call == "DeleteTargetGroup");
        let tries = tries.count();
        assert!(tries == 2 || calls.is_empty(), "{calls:?}");
    }
    let changes = provider.look().await;
    assert!(changes.iter().any(|it| it.id == one.id), "{changes:?}");
    let observed = settle(&provider, &one).await.unwrap();
    assert_eq!(observed.remarks, Vec::<String>::new());
    assert_eq!(bed.fake.snapshot().target_groups.len(), 1);
    // Whoever deletes the Service hears of it.
    bed.fake
        .fault(Fault::on("DeleteTargetGroup").error("AccessDenied", denied));
    let key = ballast_provider::Key::alone(&one.id);
    let released = provider.release(&one.id, &key, ballast_provider::Removal::Delete);
    let why = released.await.unwrap_err();
    assert_eq!(why.reason(), Reason::AccessDenied, "{why}");
    delete(&bed, &provider, &one).await;
    assert!(bed.is_empty());
}

/// AWS's own reason is in the status.
#[tokio::test]
async fn a_load_balancer_that_aws_could_not_make_says_why() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    let trouble = |state: &str, reason: &str| {
        bed.fake.edit(|cloud, _| {
            let arn = load_balancer_of(&cloud.snapshot());
            let there = cloud.load_balancers.get_mut(&arn).unwrap();
            there.trouble = Some((state.into(), reason.into()));
        });
    };
    trouble("failed", "Not enough capacity in zone a");
    provider.look().await;
    // The first failure is made up for at once.
    settle(&provider, &web).await.unwrap();
    trouble("failed", "Not enough capacity in zone b");
    provider.look().await;
    let observed = settle(&provider, &web).await.unwrap();
    let says = format!("{:?}", observed.state);
    assert!(says.contains("Not enough capacity in zone b. "), "{says}");
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web).await.unwrap();
    bed.fake.edit(|cloud, _| {
        let arn = load_balancer_of(&cloud.snapshot());
        let there = cloud.load_balancers.get_mut(&arn).unwrap();
        there.trouble = Some(("active_impaired".into(), "Few addresses".into()));
    });
    // Its targets are healthy, so nothing waits for them.
    bed.fake.advance(Duration::from_mins(10));
    provider.look().await;
    let observed = settle(&provider, &web).await.unwrap();
    assert_eq!(observed.state, State::Programmed);
    let says = observed.remarks.join(" ");
    assert!(
        says.contains("cannot scale the load balancer: Few addresses"),
        "{says}"
    );
}

/// Somebody keeps it for a support case.
#[tokio::test]
async fn a_load_balancer_that_aws_could_not_make_stays_if_people_want_to_keep_it() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    let arn = load_balancer_of(&bed.fake.snapshot());
    let keep = |value: Option<&str>| {
        bed.fake.edit(|cloud, _| {
            let there = cloud.load_balancers.get_mut(&arn).unwrap();
            there.trouble = Some(("failed".into(), "Not enough capacity".into()));
            match value {
                Some(value) => there.tags.insert(KEEP.to_owned(), value.to_owned()),
                None => there.tags.remove(KEEP),
            };
        });
    };
    keep(Some("support case"));
    provider.look().await;
    let why = settle(&provider, &web).await.unwrap_err().to_string();
    assert!(why.contains(KEEP), "{why}");
    assert_eq!(load_balancer_of(&bed.fake.snapshot()), arn);
    keep(None);
    settle(&provider, &web).await.unwrap();
    assert_ne!(load_balancer_of(&bed.fake.snapshot()), arn);
}

#[tokio::test]
async fn a_foreign_object_with_a_name_of_ours_is_refused_by_its_arn() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    // Somebody takes the tags away: it is theirs now.
    let arn = load_balancer_of(&bed.fake.snapshot());
    bed.fake.edit(|cloud, _| {
        cloud.load_balancers.get_mut(&arn).unwrap().tags.clear();
    });
    bed.fake.remember_foreign();
    let provider = bed.start().await.unwrap();
    let why = settle(&provider, &web).await.unwrap_err();
    assert!(why.to_string().contains(&arn), "{why}");
    let changes = bed.fake.foreign_changes();
    let on_it: Vec<_> = changes.iter().filter(|line| line.contains(&arn)).collect();
    assert!(on_it.is_empty(), "{on_it:?}");
}

/// The same for objects whose names follow from ports, and nobody else's object holds up a deletion.
#[tokio::test]
async fn foreign_target_groups_and_security_groups_are_named_and_hold_up_no_deletion() {
    let web = service("web", &[(80, 30_080)]);
    let made = {
        let bed = Bed::new().await;
        let provider = bed.start().await.unwrap();
        settle(&provider, &web).await.unwrap();
        bed.fake.snapshot()
    };
    let group = made.target_groups.values().next().unwrap();
    let own = |one: &&SecurityGroup| one.tags.contains_key(SERVICE);
    let clients = made.security_groups.values().find(own).unwrap();
    for foreign in ["target group", "security group"] {
        let bed = Bed::new().await;
        let id = bed.fake.edit(|cloud, now| {
            if foreign == "target group" {
                let create = target_groups::Create {
                    name: group.name.clone(),
                    protocol: Some("TCP".into()),
                    port: Some(1),
                    vpc: Some(VPC.into()),
                    ..target_groups::Create::default()
                };
                cloud.create_target_group(now, create).unwrap().arn
            } else {
                let create = security_groups::Create {
                    name: clients.name.clone(),
                    description: "Another program".into(),
                    vpc: Some(VPC.into()),
                    ..security_groups::Create::default()
                };
                cloud.create_security_group(now, create).unwrap().id
            }
        });
        bed.fake.remember_foreign();
        bed.fake.forget_foreign(NODE_GROUP);
        let provider = bed.start().await.unwrap();
        let why = settle(&provider, &web).await.unwrap_err();
        assert!(why.to_string().contains(&id), "{why}");
        assert_eq!(settle(&provider, &web).await.unwrap_err(), why);
        delete(&bed, &provider, &web).await;
        assert_eq!(bed.fake.foreign_changes(), Vec::<String>::new());
        bed.fake.edit(|cloud, now| match foreign {
            "target group" => cloud.delete_target_group(now, &id).unwrap(),
            _ => cloud.delete_security_group(now, &id).unwrap(),
        });
        assert!(bed.is_empty(), "{foreign}: {:?}", bed.fake.snapshot());
    }
}

#[tokio::test]
async fn an_address_range_is_let_in_and_the_state_is_said() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let mut web = service("web", &[(80, 30_080)]);
    web.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
    let observed = settle(&provider, &web).await.unwrap();
    assert!(matches!(observed.state, State::Pending { .. }));
    let groups = bed.fake.snapshot().security_groups;
    let text = format!("{groups:?}");
    assert!(text.contains("192.0.2.0/24"), "{text}");
}

/// Nobody changes anything after the port was removed: the class itself asks for the turn that deletes
/// what was in use.
#[tokio::test]
async fn what_is_in_use_is_deleted_later() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let two = service("web", &[(80, 30_080), (443, 30_443)]);
    settle(&provider, &two).await.unwrap();
    bed.fake
        .fault(Fault::on("DeleteTargetGroup").error("ResourceInUse", "in use by a listener"));
    let one = service("web", &[(80, 30_080)]);
    settle(&provider, &one).await.unwrap();
    assert_eq!(bed.fake.snapshot().target_groups.len(), 2);
    let changes = provider.look().await;
    assert!(changes.iter().any(|it| it.id == one.id), "{changes:?}");
    settle(&provider, &one).await.unwrap();
    assert_eq!(bed.fake.snapshot().target_groups.len(), 1);
    // Nothing is left to ask for.
    provider.look().await;
    assert_eq!(provider.look().await, []);
}
