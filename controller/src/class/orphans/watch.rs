//! Surveys the cloud of one class again and again, and carries out what [`decide`] chooses. Does I/O.
//!
//! It runs in the task of the class ([`crate::class::instance`]) and can be cancelled at any await:
//! every step is chosen anew from what the next survey shows.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use ballast_provider::mark::{LAST_SEEN, ORPHANED_AT, Sign};
use ballast_provider::{Owned, Provider, ProviderError, Reason, Refusal, ServiceId};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::decide::{Look, Policy, Steps, decide};
use super::memory::Memory;
use super::report::Found;
use crate::class::ClassView;
use crate::class::board::Seat;
use crate::class::instance::{ClassNews, Context};
use crate::cluster::view::Name;

/// The longest time between two surveys.
const SURVEY: Duration = Duration::from_mins(30);
/// Between two surveys of a class that drains and has something.
const DRAINING: Duration = Duration::from_secs(10);
/// Between two tries of a survey that failed.
const AGAIN: Duration = Duration::from_mins(1);
/// A survey of thousands of objects waits for its turns among AWS's limits.
const LONGEST: Duration = Duration::from_mins(15);

/// Looks for load balancers without a Service, for ever.
pub async fn watch(
    context: &Context,
    seat: &Seat,
    class: &str,
    provider: &dyn Provider,
) -> Infallible {
    if !provider.traits().finalizer {
        // The status of a Service is the only record, so nothing outlives it.
        return std::future::pending().await;
    }
    let mut board = context.board.subscribe();
    let classes = context.board.snapshot();
    let published = classes.get(class).and_then(ClassView::published_copy);
    // Nobody knows when the former process saw the last sign, so its time counts anew.
    let published = published.map(|message| {
        let object = Found::object_in(message).to_owned();
        ((context.clock)(), object)
    });
    let mut memory = Memory::new(context.fence.former()).with_foreign(published);
    let mut found = Found::default();
    let mut failed: u32 = 0;
    let mut policy = policy_of(context, class);
    // Deletions wait for the first one.
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {
                let ended = match survey(context, class, provider, policy, &mut memory).await {
                    Ok(steps) => {
                        failed = 0;
                        report(context, class, &found, &steps.found);
                        found = steps.found.clone();
                        seat.surveyed(&found);
                        carry_out(context, class, provider, &steps).await
                    }
                    Err(error) => {
                        failed = failed.saturating_add(1);
                        if failed > patience(&error) {
                            seat.survey_failed(Refusal::new(error.reason(), error.to_string()));
                        }
                        Err(error)
                    }
                };
                let next = interval(context, class, &policy);
                due = Instant::now() + match ended {
                    Ok(()) => next,
                    Err(error) => {
                        context.metrics.failed(class, error.reason().as_str());
                        warn!(class, %error, "cannot look after load balancers without a Service");
                        next.min(AGAIN)
                    }
                };
            }
            Ok(()) = board.changed() => {
                let now = policy_of(context, class);
                if now != policy {
                    policy = now;
                    due = due.min(Instant::now() + interval(context, class, &policy));
                }
            }
        }
    }
}

/// So many failures of this kind in a row end by themselves, and are not worth a word.
fn patience(error: &ProviderError) -> u32 {
    match error.reason() {
        Reason::Throttled => 3,
        Reason::CloudError => 1,
        _ => 0,
    }
}

/// With `orphans: Delete` half the grace, so that whoever has the Service clears the tag within it. A class that
/// drains and still has something is looked at often, because somebody waits.
fn interval(context: &Context, class: &str, policy: &Policy) -> Duration {
    let half = policy.grace.checked_div(2).unwrap_or_default();
    let half = Duration::try_from(half).unwrap_or_default();
    match policy {
        Policy { draining: true, .. } if context.ledger.count(class) > 0 => DRAINING,
        Policy { delete: true, .. } => half.clamp(Duration::from_secs(1), SURVEY),
        Policy { delete: false, .. } => SURVEY,
    }
}

fn policy_of(context: &Context, class: &str) -> Policy {
    let classes = context.board.snapshot();
    classes.get(class).map_or(
        Policy {
            delete: false,
            grace: SignedDuration::MAX,
            draining: false,
        },
        ClassView::orphan_policy,
    )
}

/// One survey, and what follows from it.
async fn survey(
    context: &Context,
    class: &str,
    provider: &dyn Provider,
    policy: Policy,
    memory: &mut Memory,
) -> Result<Steps, ProviderError> {
    let surveyed = timeout(LONGEST, provider.survey()).await;
    let late = || ProviderError::transient("the survey of all load balancers took too long");
    let objects = surveyed.map_err(|_| late())??;
    if context.fence.epoch().is_none() {
        return Err(ProviderError::transient(
            "this process is no longer the leader",
        ));
    }
    forget_what_is_not_there(context, class, &objects);
    let now = (context.clock)();
    Ok(choose(context, class, &objects, policy, memory, now))
}

/// Writes the tags, and releases what has no Service.
async fn carry_out(
    context: &Context,
    class: &str,
    provider: &dyn Provider,
    steps: &Steps,
) -> Result<(), ProviderError> {
    let sign = Sign {
        at: (context.clock)(),
        writer: context.tag_writer.clone(),
    };
    let sign = || Some(sign.to_string());
    // First the signs: whoever wrote the tag that is removed sees who removed it.
    note(provider, &steps.sign, LAST_SEEN, sign()).await?;
    note(provider, &steps.clear, ORPHANED_AT, None).await?;
    note(provider, &steps.tag, ORPHANED_AT, sign()).await?;
    for (id, key) in &steps.gone {
        info!(class, service = %id, uid = %id.uid, %key, "the Service is proven to be gone; releasing what it had");
        context.ledger.record_on(id, class, key);
        context.ledger.gone(id, class);
        context.queue.add(Name::from(id));
    }
    Ok(())
}

/// Somebody has deleted what a missing Service had: its place in the class is free.
fn forget_what_is_not_there(context: &Context, class: &str, objects: &[Owned]) {
    for entry in context.ledger.absents(class) {
        let there = objects
            .iter()
            .any(|object| object.services.contains(&entry.id));
        let name = Name::from(&entry.id);
        let returned = context
            .services
            .get(&name)
            .is_some_and(|it| it.id == entry.id);
        if !there && !returned {
            context.ledger.forget(&entry.id, class);
            context.queue.add(name);
        }
    }
}

/// The Services are read after the survey: one that it shows exists in the store, unless it is gone.
fn choose(
    context: &Context,
    class: &str,
    objects: &[Owned],
    policy: Policy,
    memory: &mut Memory,
    now: Timestamp,
) -> Steps {
    let exists = |id: &ServiceId| {
        let there = context.services.get(&Name::from(id));
        there.is_some_and(|there| there.id.uid == id.uid)
    };
    let look = Look {
        objects,
        exists: &exists,
        going: &|id| context.ledger.is_gone(id, class),
        newest: context.services.all().iter().map(|it| it.created).max(),
        writer: &context.tag_writer,
        policy,
        now,
    };
    decide(&look, memory)
}

/// Writes or removes one tag of these objects.
async fn note(
    provider: &dyn Provider,
    objects: &[Owned],
    key: &str,
    value: Option<String>,
) -> Result<(), ProviderError> {
    if objects.is_empty() {
        return Ok(());
    }
    let tags = BTreeMap::from([(key.to_owned(), value)]);
    let late = || ProviderError::transient("writing tags took too long");
    let written = timeout(LONGEST, provider.tag(objects, &tags)).await;
    written.map_err(|_| late())?
}

/// Says what is news.
fn report(context: &Context, class: &str, before: &Found, now: &Found) {
    if before.orphans.len() != now.orphans.len() && !now.orphans.is_empty() {
        let classes = context.board.snapshot();
        let flags = classes.get(class).map(ClassView::cloud_flags);
        let message = now.message(&flags.unwrap_or_default());
        (context.send_class_event)(class, ClassNews::Orphaned(message));
    }
    if let Some(message) = now.shared_message().filter(|_| before.shared.is_none()) {
        (context.send_class_event)(class, ClassNews::IdentityShared(message));
    }
}
