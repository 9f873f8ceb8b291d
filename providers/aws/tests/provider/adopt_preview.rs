//! The dry run of a take-over: it changes nothing, and says what would be done. And what a take-over needs of
//! whoever installs Ballast: the name of the cluster, and a right.

use std::time::Duration;

use ballast_aws::adopt::{ADOPT, UNNAMED};
use ballast_aws::call::{Call, Ref};
use ballast_aws::client::Clients;
use ballast_aws::provider::AwsProvider;
use ballast_aws::rate::Limits;
use ballast_aws_fake::Fault;
use ballast_aws_fake::state::listeners::Change;
use ballast_aws_fake::state::load_balancers::{Create, Mapping};
use ballast_aws_fake::state::seed::{NODE_GROUP, VPC};
use ballast_aws_fake::state::target_groups::Create as CreateTargetGroup;
use ballast_aws_fake::state::{Cloud, Moment, Tags};
use ballast_provider::{LoadBalancer, Mark, ProviderError, Reason};

use crate::bed::{Bed, instance, service, settle, with, with_pods};
use crate::support::{balancer, connection, mark, provider};

/// What the AWS Load Balancer Controller has made for shop/web: one listener, and a target group without targets.
fn make(cloud: &mut Cloud, now: Moment) -> String {
    let tags: Tags = [
        ("elbv2.k8s.aws/cluster", "prod"),
        ("service.k8s.aws/stack", "shop/web"),
        ("service.k8s.aws/resource", "LoadBalancer"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into_iter()
    .collect();
    let subnets = ["subnet-private-a", "subnet-private-b"].map(|id| Mapping {
        subnet: id.into(),
        ..Mapping::default()
    });
    let made = cloud.create_load_balancer(
        now,
        Create {
            name: "k8s-shop-web-01".into(),
            kind: Some("network".into()),
            scheme: Some("internal".into()),
            ip_address_type: None,
            subnets: subnets.into(),
            security_groups: vec![NODE_GROUP.into()],
            tags: tags.clone(),
        },
    );
    let arn = made.unwrap().arn;
    let create = CreateTargetGroup {
        name: "k8s-shop-web-80".into(),
        protocol: Some("TCP".into()),
        port: Some(30_080),
        vpc: Some(VPC.into()),
        tags: tags.clone(),
        ..CreateTargetGroup::default()
    };
    let group = cloud.create_target_group(now, create).unwrap().arn;
    let listener = Change {
        port: Some(80),
        protocol: Some("TCP".into()),
        forward: Some(vec![(group, None)]),
        ..Change::default()
    };
    cloud.create_listener(now, &arn, listener, tags).unwrap();
    arn
}

async fn prepared() -> (Bed, LoadBalancer) {
    let bed = Bed::new().await;
    let arn = bed.fake.edit(make);
    bed.fake.advance(Duration::from_mins(10));
    let mut web = service("web", &[(80, 30_080)]);
    web.settings.insert(ADOPT.into(), arn);
    (bed, web)
}

/// As the command asks: with a provider that has read nothing. It fails if anything is written.
async fn preview(bed: &Bed, web: &LoadBalancer) -> Result<Vec<Call>, ProviderError> {
    let provider = provider(&bed.fake, Limits::NONE);
    let wanted = balancer(&provider, std::slice::from_ref(web));
    let targets = bed.targets();
    let asking = Box::pin(provider.preview_adoption(&wanted, &targets));
    let (preview, calls) = bed.calls_of(asking).await;
    let written = calls.iter().find(|it| !it.starts_with("Describe"));
    assert_eq!(written, None, "{preview:?}");
    preview
}

/// The actions, in the order of the alphabet: in which order a crash may leave them is not said here.
fn actions<'a>(all: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut all: Vec<String> = all.into_iter().map(str::to_owned).collect();
    all.sort_unstable();
    all
}

/// What is done is what the dry run says.
async fn compare(bed: &Bed, web: &LoadBalancer) {
    let said = preview(bed, web).await.unwrap();
    // The start registers nodes where some are missing.
    let doing = async {
        let provider = bed.start().await?;
        settle(&provider, web).await
    };
    let (seen, made) = bed.calls_of(Box::pin(doing)).await;
    seen.unwrap();
    let made = made.iter().map(String::as_str);
    // The note for the next process.
    let made = made.filter(|it| !it.starts_with("Describe") && *it != "CreateTags");
    assert_eq!(actions(said.iter().map(Call::action)), actions(made));
    assert_eq!(preview(bed, web).await, Ok(vec![]), "it is done");
}

/// The first thing that a migration finds: the class has no load balancer yet.
#[tokio::test]
async fn the_dry_run_of_a_new_class_changes_nothing() {
    let (bed, web) = prepared().await;
    let said = preview(&bed, &web).await.unwrap();
    let made = said.iter().find_map(|call| match call {
        Call::CreateSecurityGroup { name, .. } if name.starts_with("bl-") => Some(name.clone()),
        _ => None,
    });
    let made = made.expect("the group of the class is made");
    let opened = said.iter().any(|call| {
        let nodes = Ref::Known(NODE_GROUP.into());
        matches!(call, Call::AuthorizeSecurityGroupIngress { security_group, .. } if *security_group == nodes)
    });
    assert!(opened, "{said:?}");
    let given = said.iter().find_map(|call| match call {
        Call::SetSecurityGroups {
            security_groups, ..
        } => Some(security_groups.clone()),
        _ => None,
    });
    assert!(
        given.is_some_and(|given| given.contains(&Ref::Made(made))),
        "{said:?}"
    );
    compare(&bed, &web).await;
}

#[tokio::test]
async fn the_dry_run_of_a_class_that_serves_changes_nothing() {
    let (bed, web) = prepared().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &service("other", &[(80, 30_081)]))
        .await
        .unwrap();
    drop(provider);
    let said = preview(&bed, &web).await.unwrap();
    let opens = |call: &&Call| matches!(call, Call::AuthorizeSecurityGroupIngress { security_group: Ref::Known(id), .. } if id == NODE_GROUP);
    assert_eq!(said.iter().find(opens), None, "the nodes admit it already");
    compare(&bed, &web).await;
}

/// A provider that serves goes on as if nobody had asked.
#[tokio::test]
async fn a_provider_that_serves_learns_nothing_from_a_dry_run() {
    let (bed, web) = prepared().await;
    let provider = bed.start().await.unwrap();
    let wanted = balancer(&provider, std::slice::from_ref(&web));
    Box::pin(provider.preview_adoption(&wanted, &bed.targets()))
        .await
        .unwrap();
    settle(&provider, &web).await.unwrap();
    let groups = &bed.fake.snapshot().load_balancers;
    let groups = groups.values().next().unwrap().security_groups.clone();
    assert_eq!(groups.len(), 2);
}

#[tokio::test]
async fn pods_are_targets_in_the_dry_run() {
    let (bed, web) = prepared().await;
    compare(&bed, &with_pods(web, &["10.0.100.1", "10.0.100.2"])).await;
}

/// The process died after the first call, or any other one: the dry run says what is left.
#[tokio::test]
async fn the_dry_run_of_a_half_done_take_over_says_what_is_left() {
    let mut left = Vec::new();
    for action in ["CreateTargetGroup", "RegisterTargets", "ModifyListener"] {
        let (bed, web) = prepared().await;
        let provider = bed.start().await.unwrap();
        bed.fake.fault(
            Fault::on(action)
                .always()
                .error("OperationNotPermitted", "no"),
        );
        let _ = settle(&provider, &web).await;
        bed.fake.clear_faults();
        drop(provider);
        let said = preview(&bed, &web).await.unwrap();
        let moves = |call: &Call| call.action() == "ModifyListener";
        assert!(said.iter().any(moves), "{action}: {said:?}");
        left.push(said.len());
        compare(&bed, &web).await;
    }
    assert!(left.is_sorted_by(|one, other| one > other), "{left:?}");
}

/// What the controller would refuse until people mend it.
#[tokio::test]
async fn the_dry_run_refuses_what_the_controller_refuses() {
    let (bed, web) = prepared().await;
    let missing = with(web.clone(), "security-groups", "sg-missing");
    let said = preview(&bed, &missing).await.unwrap_err().to_string();
    assert!(said.contains("sg-missing"), "{said}");
    // Two groups of one node are alike.
    let more = "sg-0000000000000more";
    bed.fake.edit(|cloud, _| {
        let mut other = cloud.security_groups.get(NODE_GROUP).unwrap().clone();
        (other.id, other.name) = (more.into(), "more".into());
        let node = cloud.instances.get_mut(&instance(1)).unwrap();
        node.groups.push(more.into());
        cloud.security_groups.put(more.into(), other);
    });
    let said = preview(&bed, &web).await.unwrap_err().to_string();
    assert!(said.contains("until the nodes admit Ballast's"), "{said}");
}

/// Many clusters have the name that nobody has chosen, so it says of no load balancer whose it is.
#[tokio::test]
async fn the_default_name_of_the_cluster_permits_nothing() {
    for (name, permitted) in [("shop", true), (UNNAMED, false)] {
        let (bed, web) = prepared().await;
        bed.fake.edit(|cloud, _| {
            let one = cloud.load_balancers.get_mut(&web.settings[ADOPT]).unwrap();
            one.tags
                .insert("elbv2.k8s.aws/cluster".into(), name.to_owned());
        });
        let mark = Mark {
            cluster_name: name.into(),
            ..mark("cluster-1")
        };
        let connection = connection(&bed.fake, Limits::NONE);
        let provider = AwsProvider::new(&Clients::default(), connection, bed.class.clone(), mark);
        let wanted = balancer(&provider, std::slice::from_ref(&web));
        let seen = Box::pin(provider.preview_adoption(&wanted, &bed.targets())).await;
        match seen {
            Ok(_) => assert!(permitted, "{name}"),
            Err(why) => {
                let said = why.to_string();
                assert!(
                    !permitted && said.contains("name the cluster kubernetes"),
                    "{said}"
                );
            }
        }
    }
}

/// The usual policy has no right to mark what other controllers have made.
#[tokio::test]
async fn a_missing_right_to_take_over_is_named() {
    let (bed, web) = prepared().await;
    let provider = bed.start().await.unwrap();
    let denied = Fault::on("AddTags").always();
    bed.fake
        .fault(denied.error_with_status(403, "AccessDenied", "not authorized"));
    let why = settle(&provider, &web).await.unwrap_err();
    assert_eq!(why.reason(), Reason::AccessDenied);
    let said = why.to_string();
    assert!(said.contains("iam-policy --adopt-from-cluster"), "{said}");
}
