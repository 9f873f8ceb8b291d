//! A Service is refused after a restart, when nobody knows what was accepted of it.

use std::collections::{BTreeMap, BTreeSet};

use ballast_aws::provider::AwsProvider;
use ballast_aws_fake::state::Snapshot;
use ballast_provider::mark::{SERVICE, SHARE_KEY};
use ballast_provider::{LoadBalancer, Provider, ProviderError};

use super::{count, leave, member, turn};
use crate::bed::{Bed, ports, registered, service, with};
use crate::support::balancer;

/// Turns of these Services while another one keeps what it has.
async fn turn_beside(
    provider: &AwsProvider,
    members: &[LoadBalancer],
    kept: &LoadBalancer,
) -> Result<(), ProviderError> {
    let mut balancer = balancer(provider, members);
    balancer.kept.insert(kept.id.clone());
    provider.validate(&balancer)?;
    // A new load balancer has its name after the first one, and the rest after the second one.
    for _ in 0..3 {
        let all = provider.ensure(&balancer).await?;
        let ids = members.iter().map(|it| &it.id);
        assert!(all.iter().map(|(id, _)| id).eq(ids), "{all:?}");
    }
    Ok(())
}

/// All that a Service has, its targets included.
fn part(all: &Snapshot, name: &str) -> BTreeMap<String, String> {
    let service = format!("shop/{name}");
    let listeners = all
        .listeners
        .iter()
        .filter(|(_, it)| it.tags[SERVICE] == service);
    let listeners = listeners.map(|(arn, it)| (arn.clone(), format!("{it:?}")));
    let groups = all.target_groups.iter();
    let groups = groups.filter(|(_, it)| it.tags[SERVICE] == service);
    let groups = groups.map(|(arn, it)| {
        let what = format!(
            "{} {:?} {:?} {:?}",
            it.port, it.check, it.attributes, it.tags
        );
        (arn.clone(), format!("{what} {:?}", registered(it)))
    });
    listeners.chain(groups).collect()
}

/// The ports that clients may use.
fn open(bed: &Bed) -> BTreeSet<Option<i32>> {
    let all = bed.fake.snapshot().security_groups;
    let own = all.values().filter(|it| it.tags.contains_key(SHARE_KEY));
    let rules = own.flat_map(|it| &it.ingress);
    rules.map(|rule| rule.permission.from).collect()
}

fn web(ports: &[(u16, u16)]) -> LoadBalancer {
    LoadBalancer {
        share_key: Some("front".into()),
        ..service("web", ports)
    }
}

/// Two Services that share, one of which is refused, in a process that has just started.
async fn refused(bed: &Bed) -> (AwsProvider, LoadBalancer) {
    let provider = bed.start().await.unwrap();
    let timeout = "tcp.idle_timeout.seconds=60";
    let api = with(member("api", 443), "listener-attributes.TCP-443", timeout);
    turn(&provider, &[web(&[(80, 30_080)]), api.clone()])
        .await
        .unwrap();
    let bad = with(
        api.clone(),
        "listener-attributes.TCP-443",
        "tcp.idle_timeout.seconds=1",
    );
    let both = balancer(&provider, &[web(&[(80, 30_080)]), bad]);
    assert!(provider.validate(&both).is_err());
    drop(provider);
    (bed.start().await.unwrap(), api)
}

#[tokio::test]
async fn another_service_changes_beside_it_until_it_is_accepted_again() {
    let mut bed = Bed::new().await;
    let (provider, api) = refused(&bed).await;
    let before = part(&bed.fake.snapshot(), "api");
    assert_eq!(before.len(), 2);
    let more = web(&[(81, 30_081)]);
    turn_beside(&provider, std::slice::from_ref(&more), &api)
        .await
        .unwrap();
    assert_eq!(ports(&bed), BTreeSet::from([81, 443]));
    assert_eq!(open(&bed), BTreeSet::from([Some(81), Some(443)]));
    assert_eq!(part(&bed.fake.snapshot(), "api"), before);
    // Neither another turn nor another process finds anything to do.
    for restarts in [false, true] {
        let provider = if restarts {
            &bed.start().await.unwrap()
        } else {
            &provider
        };
        let beside = turn_beside(provider, std::slice::from_ref(&more), &api);
        let (done, calls) = bed.calls_of(beside).await;
        done.unwrap();
        assert_eq!(calls, [""; 0], "{restarts}");
        // The health of targets is news once.
        provider.look().await;
        assert_eq!(provider.look().await, []);
    }
    // Its nodes come and go.
    bed.add_node();
    bed.retarget(&provider).await.unwrap();
    let all = bed.fake.snapshot().target_groups;
    assert!(all.values().all(|group| registered(group).len() == 4));
    // Another one joins and leaves.
    let dns = member("dns", 53);
    turn_beside(&provider, &[more.clone(), dns.clone()], &api)
        .await
        .unwrap();
    leave(&bed, &provider, &dns).await.unwrap();
    turn_beside(&provider, std::slice::from_ref(&more), &api)
        .await
        .unwrap();
    assert_eq!(ports(&bed), BTreeSet::from([81, 443]));
    // It is accepted again, with other settings.
    let api = with(
        api,
        "listener-attributes.TCP-443",
        "tcp.idle_timeout.seconds=90",
    );
    let (done, calls) = bed
        .calls_of(turn(&provider, &[more.clone(), api.clone()]))
        .await;
    done.unwrap();
    assert_eq!(count(&calls, "ModifyListenerAttributes"), 1, "{calls:?}");
    assert_eq!(count(&calls, "CreateListener"), 0, "{calls:?}");
    let now = part(&bed.fake.snapshot(), "api");
    assert!(now.keys().eq(before.keys()));
    assert!(now.values().any(|it| it.contains("90")), "{now:?}");
    for one in [more, api] {
        leave(&bed, &provider, &one).await.unwrap();
    }
    assert!(bed.is_empty());
}

#[tokio::test]
async fn all_of_it_goes_when_it_is_deleted() {
    let bed = Bed::new().await;
    let (provider, api) = refused(&bed).await;
    let more = web(&[(80, 30_080), (81, 30_081)]);
    turn_beside(&provider, std::slice::from_ref(&more), &api)
        .await
        .unwrap();
    leave(&bed, &provider, &api).await.unwrap();
    assert_eq!(part(&bed.fake.snapshot(), "api"), BTreeMap::new());
    turn(&provider, std::slice::from_ref(&more)).await.unwrap();
    assert_eq!(ports(&bed), BTreeSet::from([80, 81]));
    assert_eq!(open(&bed), BTreeSet::from([Some(80), Some(81)]));
    leave(&bed, &provider, &more).await.unwrap();
    assert!(bed.is_empty());
}

/// The load balancer is not only that of the others.
#[tokio::test]
async fn the_last_one_that_is_accepted_leaves_it_what_it_has() {
    for had_turn in [true, false] {
        let bed = Bed::new().await;
        let (provider, api) = refused(&bed).await;
        let before = part(&bed.fake.snapshot(), "api");
        let web = web(&[(80, 30_080)]);
        if had_turn {
            turn_beside(&provider, std::slice::from_ref(&web), &api)
                .await
                .unwrap();
        }
        leave(&bed, &provider, &web).await.unwrap();
        assert_eq!(ports(&bed), BTreeSet::from([443]));
        assert_eq!(part(&bed.fake.snapshot(), "api"), before);
        turn(&provider, std::slice::from_ref(&api)).await.unwrap();
        assert_eq!(open(&bed), BTreeSet::from([Some(443)]));
        leave(&bed, &provider, &api).await.unwrap();
        assert!(bed.is_empty());
    }
}

/// What the load balancer has once follows the others. Its clients have the former name.
#[tokio::test]
async fn its_load_balancer_stays_when_the_others_ask_for_another_scheme() {
    let bed = Bed::new().await;
    let (provider, api) = refused(&bed).await;
    let before = part(&bed.fake.snapshot(), "api");
    let public = with(web(&[(80, 30_080)]), "scheme", "internet-facing");
    let mut asked = 0;
    for _ in 0..12 {
        turn_beside(&provider, std::slice::from_ref(&public), &api)
            .await
            .unwrap();
        let step = std::time::Duration::from_mins(2);
        bed.fake.advance(step);
        tokio::time::pause();
        tokio::time::advance(step).await;
        tokio::time::resume();
        asked = provider.look().await.len();
    }
    assert_eq!(bed.fake.snapshot().load_balancers.len(), 2);
    assert_eq!(part(&bed.fake.snapshot(), "api"), before);
    assert_eq!(asked, 0, "nothing is left to do");
    let api = with(api, "scheme", "internet-facing");
    turn(&provider, &[public.clone(), api.clone()])
        .await
        .unwrap();
    assert_eq!(bed.fake.snapshot().load_balancers.len(), 1);
    for one in [public, api] {
        leave(&bed, &provider, &one).await.unwrap();
    }
    assert!(bed.is_empty());
}
