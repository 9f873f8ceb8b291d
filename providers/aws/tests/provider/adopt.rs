//! Load balancers of other controllers that a Service takes over.

use std::collections::BTreeMap;

use ballast_aws::provider::AwsProvider;
use ballast_aws_fake::Fault;
use ballast_aws_fake::state::Snapshot;
use ballast_aws_fake::state::seed::NODE_GROUP;
use ballast_provider::{Key, LoadBalancer, Provider, ProviderError, Reason, Released, Removal};

use crate::bed::{Bed, SECOND_GROUP, delete, essence, instance, registered, settle, with, writes};
use crate::crashes::served;
use crate::former::{Former, Maker, adopting};

/// What serves two ports. The nodes have the name of the cluster in a tag, and the class knows another one.
pub(crate) fn former(maker: Maker) -> Former<'static> {
    Former {
        cluster: match maker {
            Maker::Lbc => "test",
            Maker::InTree => "prod",
        },
        ports: &[80, 443],
        ..Former::of(maker)
    }
}

fn web(arn: &str) -> LoadBalancer {
    adopting(arn, &[80, 443])
}

fn listeners(all: &Snapshot) -> BTreeMap<u16, String> {
    let those = all.listeners.values();
    those.map(|one| (one.port, one.arn.clone())).collect()
}

fn reason(ended: &Result<impl Sized, ProviderError>) -> Option<(Reason, String)> {
    let why = ended.as_ref().err()?;
    Some((why.reason(), why.to_string()))
}

/// The load balancer and its listeners stay, and so do the target groups of the former owner with their targets: no
/// connection ends. Clients of the future come to target groups of Ballast.
#[tokio::test]
async fn it_keeps_its_name_its_listeners_and_its_connections() {
    for maker in Maker::ALL {
        let (bed, arn) = former(maker).bed().await;
        let before = bed.fake.snapshot();
        let hostname = before.load_balancers[&arn].dns_name.to_lowercase();
        let provider = bed.start().await.unwrap();
        let (seen, calls) = bed.calls_of(settle(&provider, &web(&arn))).await;
        let seen = seen.unwrap();
        assert_eq!(seen.ingress[0].hostname(), Some(hostname.as_str()));
        let gone = calls
            .iter()
            .find(|it| it.starts_with("Delete") || *it == "DeregisterTargets");
        assert_eq!(gone, None, "{maker:?}: {calls:?}");
        let after = bed.fake.snapshot();
        assert_eq!(after.load_balancers.len(), 1);
        assert_eq!(listeners(&after), listeners(&before));
        for former in before.target_groups.values() {
            let now = &after.target_groups[&former.arn];
            assert_eq!(
                (&now.tags, registered(now)),
                (&former.tags, registered(former))
            );
            assert!(
                after
                    .listeners
                    .values()
                    .all(|it| !it.forwards_to(&former.arn))
            );
        }
        // Nobody else takes it for its own any more.
        let tags = &after.load_balancers[&arn].tags;
        assert!(
            tags.keys().all(|key| key.starts_with("ballast.dev/")),
            "{tags:?}"
        );
        let (_, calls) = bed.calls_of(settle(&provider, &web(&arn))).await;
        assert_eq!(calls, [""; 0], "{maker:?}");
        // The next process finds it, although its name is none of Ballast's.
        drop(provider);
        let provider = bed.start().await.unwrap();
        let (_, calls) = bed.calls_of(settle(&provider, &web(&arn))).await;
        assert_eq!(calls, [""; 0], "{maker:?}");
        delete(&bed, &provider, &web(&arn)).await;
        let left = bed.fake.snapshot();
        assert!(left.load_balancers.is_empty());
        assert_eq!(left.target_groups.len(), 2, "those of the former owner");
    }
}

#[tokio::test]
async fn a_load_balancer_without_security_groups_stays_without() {
    let (bed, arn) = former(Maker::InTree).bed().await;
    let provider = bed.start().await.unwrap();
    let mut web = web(&arn);
    let seen = settle(&provider, &web).await.unwrap();
    let said = seen.remarks.join(" ");
    assert!(said.contains("without security groups"), "{said}");
    assert!(!said.contains("source ranges"), "{said}");
    let all = bed.fake.snapshot();
    assert!(all.load_balancers[&arn].security_groups.is_empty());
    // Nodes may admit clients to the node ports only, so that is what AWS checks.
    let own = all
        .target_groups
        .values()
        .filter(|one| one.name.starts_with("bl-"));
    assert!(own.clone().all(|one| one.check.port == "traffic-port"));
    assert_eq!(own.count(), 2);
    web.source_ranges = vec!["10.9.0.0/16".parse().unwrap()];
    let said = settle(&provider, &web).await.unwrap().remarks.join(" ");
    assert!(
        said.contains("the source ranges of the Service have no effect"),
        "{said}"
    );
    let given = with(web, "security-groups", NODE_GROUP);
    let (why, said) = reason(&settle(&provider, &given).await).unwrap();
    assert_eq!(why, Reason::Invalid);
    assert!(said.contains("made without security groups"), "{said}");
}

/// Whoever may create Services must not take what belongs to others.
#[tokio::test]
async fn what_was_made_for_somebody_else_is_not_touched() {
    let bed = Bed::new().await;
    let other = Former {
        service: "other/web",
        ..former(Maker::Lbc)
    };
    let other = other.make(&bed);
    bed.fake.remember_foreign();
    let provider = bed.start().await.unwrap();
    let missing = other.replace("net/", "net/x");
    let elsewhere = other.replace("eu-central-1", "eu-west-1");
    for (arn, expected) in [
        (
            other.as_str(),
            "do not say that it was made for the Service shop/web",
        ),
        (&missing, "it does not exist"),
        (&elsewhere, "it is in the region eu-west-1"),
        ("k8s-shop-web", "must be the ARN of a Network Load Balancer"),
    ] {
        let (seen, calls) = bed.calls_of(settle(&provider, &web(arn))).await;
        let (why, said) = reason(&seen).unwrap();
        assert_eq!(why, Reason::Invalid, "{said}");
        assert!(said.contains(expected), "{said}");
        assert_eq!(writes(&calls), [""; 0]);
    }
    // Another cluster with Ballast has it.
    let tags = [
        ("ballast.dev/cluster", "cluster-2"),
        ("ballast.dev/class", "aws"),
    ];
    bed.fake.edit(|cloud, _| {
        let one = cloud.load_balancers.get_mut(&other).unwrap();
        one.tags = Maker::Lbc.tags("test", "shop/web");
        let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned()));
        one.tags.extend(tags);
    });
    let (_, said) = reason(&settle(&provider, &web(&other)).await).unwrap();
    assert!(
        said.contains("it belongs to a Service of the class aws of the cluster cluster-2"),
        "{said}"
    );
    let mut shared = web(&other);
    shared.share_key = Some("front".into());
    let (why, _) = reason(&settle(&provider, &shared).await).unwrap();
    assert_eq!(why, Reason::Unsupported);
}

/// AWS never changes the scheme, and only this load balancer is meant.
#[tokio::test]
async fn it_stays_internal_whatever_the_class_says() {
    let (mut bed, arn) = former(Maker::Lbc).bed().await;
    bed.class.settings.scheme = Some(ballast_aws::Scheme::InternetFacing);
    let provider = bed.start().await.unwrap();
    let seen = settle(&provider, &web(&arn)).await.unwrap();
    let said = seen.remarks.join(" ");
    assert!(said.contains("stays internal"), "{said}");
    assert_eq!(bed.fake.snapshot().load_balancers.len(), 1);
}

/// Without the annotation the Service asks for a load balancer of Ballast's own. The one that was taken over serves
/// until that one does.
#[tokio::test]
async fn without_the_annotation_another_one_replaces_it() {
    let (bed, arn) = former(Maker::Lbc).bed().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web(&arn)).await.unwrap();
    let mut plain = web(&arn);
    plain.settings.clear();
    settle(&provider, &plain).await.unwrap();
    let all = bed.fake.snapshot().load_balancers;
    assert_eq!(all.len(), 2);
    assert!(all.contains_key(&arn));
}

#[tokio::test]
async fn it_is_kept_and_taken_back() {
    let (bed, arn) = former(Maker::Lbc).bed().await;
    let provider = bed.start().await.unwrap();
    settle(&provider, &web(&arn)).await.unwrap();
    let key = Key::alone(&web(&arn).id);
    let kept = provider.release(&web(&arn).id, &key, Removal::Retain).await;
    assert_eq!(kept, Ok(Released::Gone));
    settle(&provider, &web(&arn)).await.unwrap();
    let all = bed.fake.snapshot().load_balancers;
    assert!(!all[&arn].tags.contains_key("ballast.dev/retained"));
}

#[tokio::test]
async fn a_crash_at_any_call_is_made_up_for_after_lbc() {
    crashes(Maker::Lbc).await;
}

#[tokio::test]
async fn a_crash_at_any_call_is_made_up_for_after_the_in_tree_controller() {
    crashes(Maker::InTree).await;
}

/// The process dies at each call, before or after it; the next one ends as if none had died.
async fn crashes(maker: Maker) {
    let (bed, arn) = former(maker).bed().await;
    let provider = bed.start().await.unwrap();
    bed.fake.reset_calls();
    served(&provider, &bed, &web(&arn)).await;
    let calls: Vec<bool> = (bed.fake.calls().iter())
        .map(|call| !call.action.starts_with("Describe"))
        .collect();
    let expected = essence(&bed.fake.snapshot());
    // Before a read is after the call before it.
    let crashes = (1_u64..).zip(&calls).flat_map(|(nth, writes)| {
        let both = [(nth, true), (nth, false)];
        both.into_iter().take(1 + usize::from(*writes))
    });
    for (nth, after) in crashes {
        let (bed, arn) = former(maker).bed().await;
        let provider = bed.start().await.unwrap();
        bed.fake.fault(Fault::any().nth(nth).dropped(after));
        let _ = settle(&provider, &web(&arn)).await;
        drop(provider);
        bed.fake.clear_faults();
        let provider: AwsProvider = bed.start().await.unwrap();
        served(&provider, &bed, &web(&arn)).await;
        let found = essence(&bed.fake.snapshot());
        assert_eq!(found, expected, "{maker:?}: call {nth}, after: {after}");
    }
}

/// It serves, so it keeps its security groups until the nodes admit those of Ballast.
#[tokio::test]
async fn its_security_groups_wait_for_the_nodes() {
    let (bed, arn) = former(Maker::Lbc).bed().await;
    bed.second_group();
    let provider = bed.start().await.unwrap();
    let (_, said) = reason(&settle(&provider, &web(&arn)).await).unwrap();
    assert!(said.contains("until the nodes admit Ballast's"), "{said}");
    let groups = || {
        bed.fake.snapshot().load_balancers[&arn]
            .security_groups
            .clone()
    };
    assert_eq!(groups(), [NODE_GROUP]);
    bed.fake.edit(|cloud, _| {
        let node = cloud.instances.get_mut(&instance(1)).unwrap();
        node.groups.retain(|group| group != SECOND_GROUP);
    });
    drop(provider);
    let provider = bed.start().await.unwrap();
    settle(&provider, &web(&arn)).await.unwrap();
    assert_eq!(groups().len(), 2);
}
