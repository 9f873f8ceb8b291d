//! A crash at each call while Services join, leave, and move between load balancers.

use std::time::Duration;

use ballast_aws::provider::AwsProvider;
use ballast_aws_fake::{Config, Fault};
use ballast_provider::{LoadBalancer, ProviderError};

use super::{leave, member, turn};
use crate::bed::{Bed, essence};

/// The load balancers, each with its members.
type World = Vec<Vec<LoadBalancer>>;

/// What changes: the load balancers before and after, and who leaves which of the former ones.
struct Row {
    what: &'static str,
    before: World,
    after: World,
    leaves: Vec<LoadBalancer>,
}

fn alone(service: &LoadBalancer) -> LoadBalancer {
    LoadBalancer {
        share_key: None,
        ..service.clone()
    }
}

fn on(service: &LoadBalancer, key: &str) -> LoadBalancer {
    LoadBalancer {
        share_key: Some(key.into()),
        ..service.clone()
    }
}

fn rows() -> Vec<Row> {
    let (web, api) = (member("web", 80), member("api", 443));
    let row = |what,
               before: &[&[&LoadBalancer]],
               after: &[&[&LoadBalancer]],
               leaves: &[&LoadBalancer]| {
        let world = |all: &[&[&LoadBalancer]]| -> World {
            let all = all.iter().map(|one| one.iter().copied().cloned().collect());
            all.collect()
        };
        Row {
            what,
            before: world(before),
            after: world(after),
            leaves: leaves.iter().copied().cloned().collect(),
        }
    };
    let own = alone(&web);
    let back = on(&web, "back");
    vec![
        row("the first one", &[], &[&[&web]], &[]),
        row("both at once", &[], &[&[&web, &api]], &[]),
        row("one joins", &[&[&web]], &[&[&web, &api]], &[]),
        row(
            "the older one leaves",
            &[&[&web, &api]],
            &[&[&api]],
            &[&web],
        ),
        row(
            "the newer one leaves",
            &[&[&web, &api]],
            &[&[&web]],
            &[&api],
        ),
        row("all leave", &[&[&web, &api]], &[], &[&web, &api]),
        row(
            "it shared, and is alone",
            &[&[&web, &api]],
            &[&[&own], &[&api]],
            &[&web],
        ),
        row(
            "it was alone, and shares",
            &[&[&own], &[&api]],
            &[&[&web, &api]],
            &[&own],
        ),
        row(
            "another key",
            &[&[&web, &api]],
            &[&[&back], &[&api]],
            &[&web],
        ),
        row("the last one moves", &[&[&web]], &[&[&back]], &[&web]),
    ]
}

/// As the controller does: what a Service has anew comes before it leaves what it had.
async fn change(bed: &Bed, provider: &AwsProvider, row: &Row) -> Result<(), ProviderError> {
    for members in &row.after {
        turn(provider, members).await?;
    }
    for one in &row.leaves {
        leave(bed, provider, one).await?;
    }
    for members in &row.after {
        turn(provider, members).await?;
    }
    Ok(())
}

/// Until nothing is left to do: what was in use is deleted, and what drifted is repaired.
async fn finish(bed: &Bed, provider: &AwsProvider, row: &Row) -> Vec<String> {
    change(bed, provider, row).await.unwrap();
    bed.fake.advance(Duration::from_mins(10));
    provider.look().await;
    change(bed, provider, row).await.unwrap();
    essence(&bed.fake.snapshot())
}

async fn prepare(row: &Row) -> (Bed, AwsProvider) {
    let bed = Bed::with(Config::default()).await;
    bed.fake.remember_foreign();
    let provider = bed.start().await.unwrap();
    for members in &row.before {
        turn(&provider, members).await.unwrap();
    }
    // It has just started, as after any crash.
    let provider = {
        drop(provider);
        bed.start().await.unwrap()
    };
    (bed, provider)
}

async fn clear(bed: &Bed, provider: &AwsProvider, row: &Row) {
    for one in row.after.iter().flatten() {
        leave(bed, provider, one).await.unwrap();
    }
}

#[tokio::test]
async fn a_crash_at_any_call_is_made_up_for() {
    let mut calls_of_all = 0;
    for row in rows() {
        let what = row.what;
        let (bed, provider) = prepare(&row).await;
        bed.fake.reset_calls();
        change(&bed, &provider, &row).await.unwrap();
        let calls = bed.fake.counts().total();
        calls_of_all += calls;
        let expected = finish(&bed, &provider, &row).await;
        for (nth, after) in (1..=calls).flat_map(|nth| [(nth, true), (nth, false)]) {
            let (bed, provider) = prepare(&row).await;
            bed.fake.fault(Fault::any().nth(nth).dropped(after));
            let _ = change(&bed, &provider, &row).await;
            drop(provider);
            bed.fake.clear_faults();
            let provider = bed.start().await.unwrap();
            let found = finish(&bed, &provider, &row).await;
            assert_eq!(
                found, expected,
                "{what}: call {nth} of {calls}, after: {after}"
            );
            clear(&bed, &provider, &row).await;
            assert!(bed.is_empty(), "{what}: call {nth}, after: {after}");
        }
    }
    assert!(calls_of_all > 60, "{calls_of_all}");
}

/// The same process goes on after an answer that it did not get.
#[tokio::test]
async fn a_lost_answer_at_any_call_is_made_up_for_by_the_same_process() {
    for row in rows() {
        let what = row.what;
        let (bed, provider) = prepare(&row).await;
        bed.fake.reset_calls();
        change(&bed, &provider, &row).await.unwrap();
        let calls = bed.fake.counts().total();
        let expected = finish(&bed, &provider, &row).await;
        for nth in 1..=calls {
            let (bed, provider) = prepare(&row).await;
            bed.fake.fault(Fault::any().nth(nth).drop_after());
            let _ = change(&bed, &provider, &row).await;
            bed.fake.clear_faults();
            let found = finish(&bed, &provider, &row).await;
            assert_eq!(found, expected, "{what}: call {nth} of {calls}");
            clear(&bed, &provider, &row).await;
            assert!(bed.is_empty(), "{what}: call {nth}");
        }
    }
}
