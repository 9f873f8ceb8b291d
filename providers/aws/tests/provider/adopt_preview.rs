//! The dry run of a take-over: it changes nothing, and says what would be done. And what a take-over needs of
//! whoever installs Ballast: the name of the cluster, and a right.

use ballast_aws::adopt::{ADOPT, UNNAMED};
use ballast_aws::call::{Call, Ref};
use ballast_aws::client::Clients;
use ballast_aws::provider::AwsProvider;
use ballast_aws::rate::Limits;
use ballast_aws_fake::Fault;
use ballast_aws_fake::state::seed::NODE_GROUP;
use ballast_provider::{LoadBalancer, Mark, Observed, ProviderError, Reason};

use crate::adopt;
use crate::bed::{Bed, service, settle, with, with_pods, writes};
use crate::former::{Former, Maker, adopting};
use crate::support::{balancer, connection, mark, provider};

async fn prepared() -> (Bed, LoadBalancer) {
    let former = Former {
        nodes: &[],
        ..Former::of(Maker::Lbc)
    };
    let (bed, arn) = former.bed().await;
    (bed, adopting(&arn, &[80]))
}

/// As the command asks: with a provider that has read nothing.
async fn preview(bed: &Bed, web: &LoadBalancer) -> Result<Vec<Call>, ProviderError> {
    preview_by(&provider(&bed.fake, Limits::NONE), bed, web).await
}

/// It fails if anything is written.
pub(crate) async fn preview_by(
    provider: &AwsProvider,
    bed: &Bed,
    web: &LoadBalancer,
) -> Result<Vec<Call>, ProviderError> {
    let wanted = balancer(provider, std::slice::from_ref(web));
    let targets = bed.targets();
    let asking = Box::pin(provider.preview_adoption(&wanted, &targets));
    let (preview, calls) = bed.calls_of(asking).await;
    assert_eq!(writes(&calls), [""; 0], "{preview:?}");
    preview
}

/// What is called that a dry run names, in order.
async fn done(
    bed: &Bed,
    doing: impl Future<Output = Result<Observed, ProviderError>>,
) -> Vec<String> {
    let (seen, made) = bed.calls_of(Box::pin(doing)).await;
    seen.unwrap();
    let made = writes(&made).into_iter();
    // The note for the next process.
    let made = made.filter(|it| *it != "CreateTags");
    made.map(str::to_owned).collect()
}

fn actions(all: &[Call]) -> Vec<&str> {
    all.iter().map(Call::action).collect()
}

/// What is done is what the dry run says, in whatever order: a crash may leave them in another one.
async fn compare(bed: &Bed, web: &LoadBalancer) {
    let said = preview(bed, web).await.unwrap();
    // The start registers nodes where some are missing.
    let mut made = done(bed, async {
        let provider = bed.start().await?;
        settle(&provider, web).await
    })
    .await;
    let mut said = actions(&said);
    said.sort_unstable();
    made.sort_unstable();
    assert_eq!(said, made);
    assert_eq!(preview(bed, web).await, Ok(vec![]), "it is done");
}

/// A class that serves takes over what the dry run says, call by call.
#[tokio::test]
async fn a_dry_run_names_the_calls_and_makes_none() {
    for maker in Maker::ALL {
        let former = adopt::former(maker);
        let (bed, arn) = former.bed().await;
        let web = adopting(&arn, former.ports);
        let provider = bed.start().await.unwrap();
        // The class has its backend group already.
        settle(&provider, &service("other", &[(80, 30_081)]))
            .await
            .unwrap();
        let said = preview_by(&provider, &bed, &web).await.unwrap();
        let made = done(&bed, settle(&provider, &web)).await;
        assert_eq!(actions(&said), made, "{maker:?}");
        let again = preview_by(&provider, &bed, &web).await;
        assert_eq!(again, Ok(vec![]), "it is done");
    }
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
    preview_by(&provider, &bed, &web).await.unwrap();
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
    bed.second_group();
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
        match preview_by(&provider, &bed, &web).await {
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
