//! Crashes before and after every mutating call of one operation: the call is not made, or
//! its answer is lost. Then the same instance or a new one repeats the operation. The
//! result must be the same as without a crash.

use std::collections::BTreeMap;

use super::run::{Ask, Run, publishes};
use super::{Crash, Lab, Object, Outcome, fixtures};
use crate::model::{Address, LoadBalancer};
use crate::provider::Removal;

/// An operation that makes more mutating calls than this is defective.
const MOST_EFFECTS: u64 = 200;

/// The Services that exist before, and the operation that a crash interrupts.
struct Story {
    check: &'static str,
    before: Vec<LoadBalancer>,
    ask: Ask,
}

pub(super) async fn a_crash_in_create_converges(lab: &dyn Lab) -> Outcome {
    let story = Story {
        check: "a_crash_in_create_converges",
        before: Vec::new(),
        ask: Ask::Ensure(fixtures::service(1)),
    };
    everywhere(lab, &story).await
}

pub(super) async fn a_crash_in_update_converges(lab: &dyn Lab) -> Outcome {
    for edit in 0..fixtures::EDITS {
        let story = Story {
            check: "a_crash_in_update_converges",
            before: vec![fixtures::service(1)],
            ask: Ask::Ensure(fixtures::edited(fixtures::service(1), edit)),
        };
        everywhere(lab, &story).await?;
    }
    Ok(())
}

pub(super) async fn a_crash_in_retarget_converges(lab: &dyn Lab) -> Outcome {
    let story = Story {
        check: "a_crash_in_retarget_converges",
        before: vec![fixtures::service(1), fixtures::service(2)],
        ask: Ask::Retarget(fixtures::targets(3)),
    };
    everywhere(lab, &story).await
}

pub(super) async fn a_crash_in_release_converges(lab: &dyn Lab) -> Outcome {
    for removal in [Removal::Delete, Removal::Retain] {
        let story = Story {
            check: "a_crash_in_release_converges",
            before: vec![fixtures::service(1)],
            ask: Ask::Release(fixtures::service(1), removal),
        };
        everywhere(lab, &story).await?;
    }
    Ok(())
}

/// Releases a load balancer that was never created, that exists, that a crashed process
/// left incomplete, or that is already gone, by the instance that created it and by a new
/// one.
pub(super) async fn anything_can_be_released(lab: &dyn Lab) -> Outcome {
    let check = "anything_can_be_released";
    let service = fixtures::service(1);
    let release = |removal| Ask::Release(service.clone(), removal);
    for removal in [Removal::Delete, Removal::Retain] {
        let run = Run::new(lab, check).await;
        let provider = run.start(&[]).await?;
        run.perform(&provider, &release(removal), &[], &[]).await?;
        run.expect_contents(
            &BTreeMap::new(),
            "after the release of a load balancer that was never created",
        )
        .await?;
    }
    for restart in [false, true] {
        let run = Run::new(lab, check).await;
        let mut provider = run.start(&[]).await?;
        let empty = run.harness.contents().await;
        let addresses = run.ensure(&provider, &service, &[]).await?;
        if restart {
            provider = run.start(&[publishes(&service.id, &addresses)]).await?;
        }
        for time in ["the first", "the second"] {
            run.perform(&provider, &release(Removal::Delete), &[], &[])
                .await?;
            let when = format!("after {time} release (by a new instance: {restart})");
            run.expect_contents(&empty, &when).await?;
        }
    }
    for number in 1..=MOST_EFFECTS {
        let mut struck = false;
        for crash in [Crash::Before(number), Crash::After(number)] {
            let run = Run::new(lab, check).await;
            let provider = run.start(&[]).await?;
            let empty = run.harness.contents().await;
            let ask = Ask::Ensure(service.clone());
            struck |= run.perform_into(crash, &provider, &ask, &[], &[]).await?;
            let provider = run.start(&[]).await?;
            run.perform(&provider, &release(Removal::Delete), &[], &[])
                .await?;
            let when = format!("after the release of an incomplete load balancer ({crash:?})");
            run.expect_contents(&empty, &when).await?;
        }
        if !struck {
            break;
        }
    }
    Ok(())
}

async fn everywhere(lab: &dyn Lab, story: &Story) -> Outcome {
    let expected = clean(lab, story).await?;
    for number in 1..=MOST_EFFECTS {
        let mut struck = false;
        for crash in [Crash::Before(number), Crash::After(number)] {
            for restart in [true, false] {
                struck |= once(lab, story, crash, restart, &expected).await?;
            }
        }
        if !struck {
            return Ok(());
        }
    }
    let run = Run::new(lab, story.check).await;
    run.fail(format!(
        "{} makes more than {MOST_EFFECTS} mutating calls",
        story.ask
    ))
}

/// The result without a crash.
async fn clean(lab: &dyn Lab, story: &Story) -> Result<BTreeMap<String, Object>, super::Failure> {
    let run = Run::new(lab, story.check).await;
    let (provider, addresses) = prepare(&run, story).await?;
    let before = run.harness.effects().await;
    run.perform(&provider, &story.ask, &addresses, &story.before)
        .await?;
    if run.harness.effects().await == before {
        return run.fail(format!(
            "{} makes no mutating call: nothing is checked",
            story.ask
        ));
    }
    Ok(run.harness.contents().await)
}

/// Runs the operation with one crash. Returns whether the crash happened.
async fn once(
    lab: &dyn Lab,
    story: &Story,
    crash: Crash,
    restart: bool,
    expected: &BTreeMap<String, Object>,
) -> Result<bool, super::Failure> {
    let run = Run::new(lab, story.check).await;
    let (mut provider, addresses) = prepare(&run, story).await?;
    let services = &story.before;
    let struck = run
        .perform_into(crash, &provider, &story.ask, &addresses, services)
        .await?;
    if restart {
        let published: Vec<_> = services
            .first()
            .map(|service| publishes(&service.id, &addresses))
            .into_iter()
            .collect();
        provider = run.start(&published).await?;
        // The controller tells each new instance the nodes before it asks for anything else.
        if !matches!(story.ask, Ask::Retarget(_)) {
            run.retarget(&provider, &fixtures::targets(2), services)
                .await?;
        }
    }
    let after = run
        .perform(&provider, &story.ask, &addresses, services)
        .await?;
    let when = format!("{}, {crash:?}, by a new instance: {restart}", story.ask);
    run.expect_contents(expected, &when).await?;
    if !addresses.is_empty() && !after.is_empty() && after != addresses {
        return run.fail(format!(
            "{when}: the address was {addresses:?} and is {after:?}"
        ));
    }
    let before = run.harness.effects().await;
    if !matches!(story.ask, Ask::Release(..)) {
        run.perform(&provider, &story.ask, &addresses, services)
            .await?;
        run.unchanged_since(before, &format!("{when}: once more"))
            .await?;
    }
    Ok(struck)
}

/// Creates the Services that exist before. Returns the addresses of the first one.
async fn prepare(
    run: &Run,
    story: &Story,
) -> Result<(std::sync::Arc<dyn crate::Provider>, Vec<Address>), super::Failure> {
    let provider = run.start(&[]).await?;
    let mut addresses = Vec::new();
    run.retarget(&provider, &fixtures::targets(2), &story.before)
        .await?;
    for service in &story.before {
        let published = run.ensure(&provider, service, &[]).await?;
        if addresses.is_empty() {
            addresses = published;
        }
    }
    if !story.before.is_empty() {
        run.retarget(&provider, &fixtures::targets(2), &story.before)
            .await?;
    }
    Ok((provider, addresses))
}
