//! Tags that say when something happened or what people wish, and what a region has of all clusters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ballast_aws::client::Clients;
use ballast_aws::provider::{AwsInventory, AwsProvider};
use ballast_aws::rate::Limits;
use ballast_aws_fake::Fault;
use ballast_aws_fake::state::Snapshot;
use ballast_aws_fake::state::target_groups::TargetGroup;
use ballast_provider::mark::{
    CLASS, CLUSTER, CREATED_AT, KEEP, LAST_SEEN, NOTES, ORPHANED_AT, RETAINED, SERVICE,
    SERVICE_UID, Sign,
};
use ballast_provider::{
    Inventory, Key, Kind, Life, LoadBalancer, Owned, Provider, ProviderError, Released, Removal,
};

use jiff::{SignedDuration, Timestamp};

use crate::bed::{Bed, delete, essence, service, settle};
use crate::sharing::{leave, member, turn};
use crate::support::connection;

const PROTECTION: &str = "deletion_protection.enabled";

fn inventory(bed: &Bed) -> AwsInventory {
    let connection = connection(&bed.fake, Limits::NONE);
    AwsInventory::new(Clients::default(), connection, bed.class.clone())
}

fn note(key: &str, value: Option<&str>) -> BTreeMap<String, Option<String>> {
    [(key.to_owned(), value.map(str::to_owned))].into()
}

/// The tags of all objects that can be notes' carriers, by name.
fn tags(bed: &Bed) -> BTreeMap<String, BTreeMap<String, String>> {
    let all = bed.fake.snapshot();
    let balancers = all.load_balancers.values().map(|it| (&it.name, &it.tags));
    let groups = all.target_groups.values().map(|it| (&it.name, &it.tags));
    let security = all.security_groups.values();
    let security = security.filter(|it| it.tags.contains_key(CLUSTER));
    balancers
        .chain(groups)
        .chain(security.map(|it| (&it.name, &it.tags)))
        .map(|(name, tags)| (name.clone(), tags.clone()))
        .collect()
}

fn load_balancer(bed: &Bed) -> String {
    let arns = bed.fake.snapshot().load_balancers;
    arns.keys().next().unwrap().clone()
}

fn edit_tag(bed: &Bed, key: &str, value: Option<&str>) {
    let arn = [load_balancer(bed)];
    bed.fake.edit(|cloud, _| match value {
        Some(value) => cloud
            .add_tags(&arn, &[(key.to_owned(), value.to_owned())].into())
            .unwrap(),
        None => cloud.remove_tags(&arn, &[key.to_owned()]).unwrap(),
    });
}

#[tokio::test]
async fn every_object_has_its_birth_and_a_sign_of_life() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080), (443, 30_443)]);
    settle(&provider, &web).await.unwrap();
    let all = tags(&bed);
    // The load balancer, two target groups, its own security group, and the backend group.
    assert_eq!(all.len(), 5, "{all:?}");
    for (name, tags) in all {
        assert!(tags.contains_key(CREATED_AT), "{name}: {tags:?}");
        let sign = Sign::of(&tags, LAST_SEEN).unwrap();
        assert_eq!(sign.writer, "1", "{name}");
    }
}

/// Otherwise each sign of life would be a drift, and each turn would undo it.
#[tokio::test]
async fn notes_are_no_difference() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    bed.fake.advance(Duration::from_mins(10));
    let survey = provider.survey().await.unwrap();
    assert_eq!(survey.len(), 4, "{survey:?}");
    for key in NOTES {
        provider.tag(&survey, &note(key, Some("2"))).await.unwrap();
    }
    assert!(tags(&bed).values().all(|it| it[KEEP] == "2"));
    let before = essence(&bed.fake.snapshot());
    let (changes, _) = bed.calls_of(provider.look()).await;
    let drift = changes.iter().find(|it| !it.difference.is_empty());
    assert_eq!(drift, None);
    let (observed, calls) = bed.calls_of(settle(&provider, &web)).await;
    observed.unwrap();
    assert_eq!(calls, Vec::<String>::new());
    let next = bed.start().await.unwrap();
    let (observed, calls) = bed.calls_of(settle(&next, &web)).await;
    observed.unwrap();
    assert_eq!(calls, Vec::<String>::new(), "nor for a new process");
    assert_eq!(essence(&bed.fake.snapshot()), before);
    provider.tag(&survey, &note(KEEP, None)).await.unwrap();
    assert!(tags(&bed).values().all(|it| !it.contains_key(KEEP)));
}

/// One object that is gone must not keep the others from their sign.
#[tokio::test]
async fn what_is_gone_or_of_somebody_else_gets_no_note() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    for number in 0..3_u16 {
        let name = format!("web-{number}");
        let web = service(&name, &[(80 + number, 30_080 + number)]);
        settle(&provider, &web).await.unwrap();
    }
    let survey = provider.survey().await.unwrap();
    let gone = survey.iter().find(|it| it.kind == Kind::LoadBalancer);
    let arn = gone.unwrap().id.clone();
    bed.fake
        .edit(|cloud, now| cloud.delete_load_balancer(now, &arn))
        .unwrap();
    provider
        .tag(&survey, &note(ORPHANED_AT, Some("x")))
        .await
        .unwrap();
    let all = tags(&bed);
    assert_eq!(all.len(), survey.len() - 1);
    assert!(all.values().all(|it| it[ORPHANED_AT] == "x"), "{all:?}");
}

#[tokio::test]
async fn a_tag_to_keep_it_wins_over_a_deletion() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    // The provider has no reason to look again before it deletes.
    edit_tag(&bed, KEEP, Some("audit"));
    delete(&bed, &provider, &web).await;
    let all = bed.fake.snapshot();
    assert_eq!(all.load_balancers.len(), 1);
    assert_eq!(all.target_groups.len(), 1);
    assert!(
        all.load_balancers
            .values()
            .all(|it| it.tags.contains_key(RETAINED))
    );
}

/// A target group of one Service, on a load balancer that another one stays on.
#[tokio::test]
async fn a_kept_part_of_a_shared_load_balancer_stays() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let (web, api) = (member("web", 80), member("api", 443));
    turn(&provider, &[web.clone(), api.clone()]).await.unwrap();
    let groups = bed.fake.snapshot().target_groups;
    let of_web =
        |it: &&TargetGroup| it.tags.get(SERVICE_UID).map(String::as_str) == Some(&*web.id.uid);
    let arn = [groups.values().find(of_web).unwrap().arn.clone()];
    let tags = [(KEEP.to_owned(), "audit".to_owned())].into();
    bed.fake
        .edit(|cloud, _| cloud.add_tags(&arn, &tags))
        .unwrap();
    leave(&bed, &provider, &web).await.unwrap();
    let all = bed.fake.snapshot();
    assert_eq!((all.target_groups.len(), all.listeners.len()), (2, 1));
    let kept = &all.target_groups[&arn[0]];
    assert!(!kept.tags.contains_key(CLASS), "it is nobody's: {kept:?}");
    // It holds up nobody who leaves later.
    leave(&bed, &provider, &api).await.unwrap();
    let all = bed.fake.snapshot();
    assert!(all.load_balancers.is_empty());
    assert!(all.target_groups.keys().eq([&arn[0]]));
    assert_eq!(provider.survey().await.unwrap(), []);
}

#[tokio::test]
async fn the_security_group_of_the_class_stays_if_people_want_to_keep_it() {
    for (key, value) in [(KEEP, "audit"), (CLUSTER, "another")] {
        let bed = Bed::new().await;
        let provider = bed.start().await.unwrap();
        let web = service("web", &[(80, 30_080)]);
        settle(&provider, &web).await.unwrap();
        let groups = bed.fake.snapshot().security_groups;
        let mut own = groups.values().filter(|it| it.tags.contains_key(CLASS));
        let group = own
            .find(|it| !it.tags.contains_key(SERVICE))
            .unwrap()
            .id
            .clone();
        let tags = [(key.to_owned(), value.to_owned())].into();
        bed.fake
            .edit(|cloud, _| cloud.create_tags(std::slice::from_ref(&group), &tags))
            .unwrap();
        delete(&bed, &provider, &web).await;
        let all = bed.fake.snapshot();
        assert!(all.load_balancers.is_empty());
        assert!(all.security_groups.contains_key(&group), "{key}");
        let rules = all.security_groups.values().map(|it| it.ingress.len());
        assert_ne!(rules.sum::<usize>(), 0, "nor is it changed: {key}");
    }
}

/// People take the tag away and expect that Ballast does not touch the load balancer any more.
#[tokio::test]
async fn what_has_lost_its_tag_is_not_deleted() {
    for (key, value) in [
        (CLUSTER, None),
        (CLUSTER, Some("another")),
        (CLASS, Some("another")),
    ] {
        let bed = Bed::new().await;
        let provider = bed.start().await.unwrap();
        let web = service("web", &[(80, 30_080)]);
        settle(&provider, &web).await.unwrap();
        edit_tag(&bed, key, value);
        is_given_up(&bed, &provider, &web).await;
        // The same in a new process, which finds only the parts.
        let bed = Bed::new().await;
        let provider = bed.start().await.unwrap();
        settle(&provider, &web).await.unwrap();
        edit_tag(&bed, key, value);
        drop(provider);
        let provider = bed.start().await.unwrap();
        is_given_up(&bed, &provider, &web).await;
    }
}

/// Its Service goes, and it stays with all that it uses.
async fn is_given_up(bed: &Bed, provider: &AwsProvider, web: &LoadBalancer) {
    let key = Key::alone(&web.id);
    let before = bed.fake.snapshot();
    let mut last = None;
    for _ in 0..40 {
        let released = provider.release(&web.id, &key, Removal::Delete).await;
        let gone = matches!(released, Ok(Released::Gone));
        last = Some(released);
        if gone {
            break;
        }
        bed.fake.advance(Duration::from_mins(1));
    }
    assert_eq!(last, Some(Ok(Released::Gone)), "the Service waits for ever");
    let after = bed.fake.snapshot();
    assert_eq!(after.load_balancers, before.load_balancers);
    assert_eq!(after.listeners, before.listeners);
    let names = |all: &Snapshot| -> Vec<String> {
        let groups = all.target_groups.values().map(|it| it.name.clone());
        let security = all.security_groups.values().map(|it| it.name.clone());
        groups.chain(security).collect()
    };
    assert_eq!(names(&after), names(&before));
    // Nobody finds it again as something that a Service has left.
    let left = provider.survey().await.unwrap();
    assert!(left.iter().all(|it| it.key.is_none()), "{left:?}");
    bed.fake.advance(Duration::from_mins(10));
    let changes = provider.look().await;
    assert!(changes.iter().all(|it| it.id != web.id), "{changes:?}");
}

#[tokio::test]
async fn a_region_lists_everything_of_all_clusters() {
    let bed = Bed::new().await;
    for cluster in ["cluster-1", "cluster-2"] {
        let provider = bed.start_for(cluster).await.unwrap();
        let web = service("web", &[(80, 30_080)]);
        settle(&provider, &web).await.unwrap();
    }
    let inventory = inventory(&bed);
    let all = inventory.all().await.unwrap();
    let count = |kind: Kind| all.iter().filter(|it| it.kind == kind).count();
    assert_eq!(count(Kind::LoadBalancer), 2, "{all:?}");
    assert_eq!(
        (count(Kind::TargetGroup), count(Kind::SecurityGroup)),
        (2, 4)
    );
    let balancer = all.iter().find(|it| it.kind == Kind::LoadBalancer).unwrap();
    assert_eq!(balancer.billed.load_balancers, 1);
    assert_eq!(balancer.billed.public_addresses, 0, "it is internal");
    assert!(balancer.created.is_some());
    let account = inventory.account().await.unwrap();
    assert_eq!(account, "AWS account 123456789012, region eu-central-1");
    // Without the tag of its cluster it is still found.
    edit_tag(&bed, CLUSTER, None);
    let all = inventory.all().await.unwrap();
    let lost = all.iter().filter(|it| !it.tags.contains_key(CLUSTER));
    assert_eq!(lost.count(), 1);
}

async fn life(inventory: &AwsInventory) -> Life {
    let all = inventory.all().await.unwrap();
    let balancer = all.iter().find(|it| it.kind == Kind::LoadBalancer).unwrap();
    inventory.life(balancer).await.unwrap()
}

#[tokio::test]
async fn silence_is_not_death() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    bed.fake.advance(Duration::from_mins(10));
    let inventory = inventory(&bed);
    assert!(matches!(life(&inventory).await, Life::Serves(_)));
    let stop = |state: &str| {
        bed.fake.edit(|cloud, _| {
            for node in cloud.instances.values_mut() {
                node.state = state.into();
            }
        });
        bed.fake.advance(Duration::from_mins(10));
    };
    stop("terminated");
    assert_eq!(life(&inventory).await, Life::Silent);
    let arn = load_balancer(&bed);
    bed.fake.edit(|cloud, _| {
        let one = cloud.load_balancers.get_mut(&arn).unwrap();
        one.attributes.insert(PROTECTION.into(), "true".into());
    });
    assert!(matches!(life(&inventory).await, Life::Protected(_)));
}

/// The whole of a cluster, with the provider that the inventory gives.
#[tokio::test]
async fn what_a_cluster_has_left_is_deleted_by_its_owner_alone() {
    let bed = Bed::new().await;
    for cluster in ["cluster-1", "cluster-2"] {
        let provider = bed.start_for(cluster).await.unwrap();
        for (name, port) in [("web", 80), ("api", 81)] {
            let one = service(name, &[(port, 30_000 + port)]);
            settle(&provider, &one).await.unwrap();
        }
    }
    bed.fake.remember_foreign();
    let inventory = inventory(&bed);
    let all = inventory.all().await.unwrap();
    let ours: Vec<&Owned> = all
        .iter()
        .filter(|it| it.tags[CLUSTER] == "cluster-1")
        .collect();
    let owner = ballast_provider::Mark::of(&ours[0].tags).unwrap();
    let provider: Arc<dyn Provider> = inventory.provider(owner).unwrap();
    provider.restore(Vec::new()).await.unwrap();
    let mut released = 0;
    for one in ours.iter().filter(|it| it.kind == Kind::LoadBalancer) {
        let key = one.key.clone().unwrap();
        let id = one.services[0].clone();
        for _ in 0..20 {
            let done = provider.release(&id, &key, Removal::Delete).await.unwrap();
            bed.fake.advance(Duration::from_mins(2));
            if done == Released::Gone {
                released += 1;
                break;
            }
        }
    }
    assert_eq!(released, 2);
    let left = inventory.all().await.unwrap();
    assert!(
        left.iter().all(|it| it.tags[CLUSTER] == "cluster-2"),
        "{left:?}"
    );
    assert_eq!(left.len(), all.len() - ours.len());
}

#[tokio::test]
async fn a_list_that_fails_is_no_list() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    settle(&provider, &web).await.unwrap();
    let fault = Fault::on("DescribeTags").error("InternalFailure", "try again");
    bed.fake.fault(fault);
    let failed = provider.survey().await;
    assert!(
        matches!(failed, Err(ProviderError::Transient { .. })),
        "{failed:?}"
    );
}

/// A cluster dies without a teardown, and is built anew from its manifests: its Services have other UIDs. Nobody may take
/// what still serves, or is of a cluster that was there a moment ago.
#[tokio::test]
async fn what_a_dead_cluster_has_left_goes_to_its_successor_by_its_arn() {
    let bed = Bed::new().await;
    let former = bed.start_for("cluster-0").await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    let before = settle(&former, &web).await.unwrap().ingress;
    bed.fake.advance(Duration::from_mins(10));
    drop(former);
    let arn = load_balancer(&bed);
    let mut again = service("web", &[(80, 30_080)]);
    again.id.uid = "uid-of-the-second".into();
    let adopt = "aws.ballast.dev/adopt";
    again.settings.insert(adopt.into(), arn.clone());
    let provider = bed.start().await.unwrap();
    let refused = async |provider: &AwsProvider| settle(provider, &again).await.unwrap_err();
    let why = refused(&provider).await.to_string();
    assert!(why.contains("cluster-0 already"), "{why}");
    let long_ago = Timestamp::now() - SignedDuration::from_hours(73);
    edit_tag(&bed, LAST_SEEN, Some(&format!("{long_ago}/1")));
    let why = refused(&provider).await.to_string();
    assert!(why.contains("is healthy"), "{why}");
    bed.fake.edit(|cloud, _| {
        for node in cloud.instances.values_mut() {
            node.state = "terminated".into();
        }
    });
    bed.fake.advance(Duration::from_mins(10));
    let mut after = settle(&provider, &again).await.unwrap().ingress;
    for _ in 0..3 {
        bed.fake.advance(Duration::from_mins(2));
        provider.look().await;
        after = settle(&provider, &again).await.unwrap().ingress;
    }
    assert_eq!(after, before, "the hostname stays");
    let all = bed.fake.snapshot();
    assert_eq!(all.load_balancers.keys().collect::<Vec<_>>(), [&arn]);
    assert_eq!(all.target_groups.len(), 1, "the former one is not left");
    assert_eq!(all.load_balancers[&arn].tags[CLUSTER], "cluster-1");
}

/// `deletionPolicy: Retain`, and the Service is made again: it names what was kept.
#[tokio::test]
async fn what_was_retained_is_taken_again_by_its_arn() {
    let bed = Bed::new().await;
    let provider = bed.start().await.unwrap();
    let web = service("web", &[(80, 30_080)]);
    let before = settle(&provider, &web).await.unwrap().ingress;
    let arn = load_balancer(&bed);
    let key = Key::alone(&web.id);
    let released = provider.release(&web.id, &key, Removal::Retain).await;
    assert_eq!(released.unwrap(), Released::Gone);
    let mut again = service("web", &[(80, 30_080)]);
    again.id.uid = "uid-of-the-second".into();
    again
        .settings
        .insert("aws.ballast.dev/adopt".into(), arn.clone());
    let mut other = again.clone();
    other.id.name = "somebody-else".into();
    other.id.uid = "uid-of-somebody-else".into();
    let refused = settle(&provider, &other).await;
    assert!(
        matches!(refused, Err(ProviderError::Transient { .. })),
        "{refused:?}"
    );
    let provider = bed.start().await.unwrap();
    let mut after = settle(&provider, &again).await.unwrap().ingress;
    for _ in 0..3 {
        bed.fake.advance(Duration::from_mins(2));
        provider.look().await;
        after = settle(&provider, &again).await.unwrap().ingress;
    }
    assert_eq!(after, before, "the hostname stays");
    let all = bed.fake.snapshot();
    assert_eq!(all.load_balancers.keys().collect::<Vec<_>>(), [&arn]);
    assert_eq!(all.target_groups.len(), 1, "the former one is not left");
    for (name, tags) in tags(&bed) {
        assert!(!tags.contains_key(RETAINED), "{name}: {tags:?}");
    }
}
