//! A cloud whose state goes back: it was restored from an older copy, or a power failure
//! lost its last commits. What was created since is gone, what was deleted since exists
//! again, and nothing in the cloud says so.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

use super::fixtures;
use super::run::{PATIENCE, Run, addresses, publishes};
use super::{Failure, Lab, Outcome};
use crate::model::{Address, LoadBalancer};
use crate::provider::{Cause, Change, Provider, Removal, State};

/// An instance and the changes it reports, which the controller follows.
struct Followed<'a> {
    run: &'a Run,
    provider: Arc<dyn Provider>,
    changes: BoxStream<'static, Change>,
    told: Vec<Change>,
}

pub(super) async fn the_cloud_forgot_the_last_changes(lab: &dyn Lab) -> Outcome {
    if !lab.goes_back() {
        return Ok(());
    }
    for restart in [false, true] {
        let run = Run::new(lab, "the_cloud_forgot_the_last_changes").await;
        let [old, new, late] = [1, 2, 3].map(fixtures::service);
        let edited = fixtures::edited(old.clone(), 0);
        let mut life = Followed::start(&run, &[]).await?;
        let before = life.ensure(&old, &[]).await?;
        run.harness.keep().await;
        life.ensure(&edited, &before).await?;
        let published = life.ensure(&new, &[]).await?;
        let expected = run.harness.contents().await;
        run.harness.go_back().await;
        if restart {
            let all = [publishes(&old.id, &before), publishes(&new.id, &published)];
            life = Followed::start(&run, &all).await?;
        }
        let others = life.ensure(&late, &[]).await?;
        if others.iter().any(|address| published.contains(address)) {
            return run.fail(format!(
                "{published:?}, which {} publishes, was assigned to {} (by a new instance: {restart})",
                new.id, late.id
            ));
        }
        run.release(&life.provider, &late, Removal::Delete).await?;
        for (service, had) in [(&edited, &before), (&new, &published)] {
            let now = life.ensure(service, had).await?;
            if now != *had {
                return run.fail(format!(
                    "{}: the address was {had:?} and is {now:?}",
                    service.id
                ));
            }
        }
        let when = format!("after the cloud went back (by a new instance: {restart})");
        run.expect_contents(&expected, &when).await?;
    }
    Ok(())
}

pub(super) async fn the_cloud_remembers_what_was_deleted(lab: &dyn Lab) -> Outcome {
    if !lab.goes_back() {
        return Ok(());
    }
    let run = Run::new(lab, "the_cloud_remembers_what_was_deleted").await;
    let [deleted, kept, retained] = [1, 2, 3].map(fixtures::service);
    let mut life = Followed::start(&run, &[]).await?;
    life.ensure(&deleted, &[]).await?;
    life.ensure(&kept, &[]).await?;
    life.ensure(&retained, &[]).await?;
    run.release(&life.provider, &retained, Removal::Retain)
        .await?;
    run.harness.keep().await;
    run.release(&life.provider, &deleted, Removal::Delete)
        .await?;
    let expected = run.harness.contents().await;
    run.harness.go_back().await;
    life.hears(&Change {
        id: deleted.id.clone(),
        key: Some(life.provider.key(&deleted)),
        cause: Cause::Appeared,
        difference: String::new(),
    })
    .await?;
    for other in [&kept, &retained] {
        let appeared = |change: &Change| change.id == other.id && change.cause == Cause::Appeared;
        if life.told.iter().any(appeared) {
            return run.fail(format!("{} is reported as Appeared", other.id));
        }
    }
    run.release(&life.provider, &deleted, Removal::Delete)
        .await?;
    run.expect_contents(&expected, "after what came back was released")
        .await
}

/// Whether the load balancer really exists in the cloud.
async fn is_there(run: &Run, service: &LoadBalancer) -> bool {
    let contents = run.harness.contents().await;
    let uid = Some(&*service.id.uid);
    let mut tags = contents.values().map(|object| &object.tags);
    tags.any(|tags| tags.get(crate::mark::SERVICE_UID).map(String::as_str) == uid)
}

// === impl Followed ===

impl<'a> Followed<'a> {
    async fn start(run: &'a Run, published: &[crate::Published]) -> Result<Self, Failure> {
        let provider = run.start(published).await?;
        Ok(Self {
            run,
            changes: provider.changes(),
            provider,
            told: Vec::new(),
        })
    }

    /// Reads the changes that the instance has reported so far.
    fn listen(&mut self) {
        while let Some(Some(change)) = self.changes.next().now_or_never() {
            self.told.push(change);
        }
    }

    /// Ensures one Service alone until it is Programmed and exists in the cloud, while
    /// following the changes. Returns its addresses.
    async fn ensure(
        &mut self,
        service: &LoadBalancer,
        published: &[Address],
    ) -> Result<Vec<Address>, Failure> {
        let key = self.provider.key(service);
        let balancer = fixtures::alone(key, service.clone(), published);
        let mut last = String::new();
        for _ in 0..PATIENCE {
            self.listen();
            match self.provider.ensure(&balancer).await {
                Ok(observed) => {
                    let all = observed.iter().map(|(_, observed)| observed);
                    if all.clone().all(|it| it.state == State::Programmed)
                        && is_there(self.run, service).await
                    {
                        return Ok(all.flat_map(addresses).collect());
                    }
                    last = format!("{observed:?}");
                }
                Err(error) => last = error.to_string(),
            }
            self.run.harness.pause().await;
        }
        self.run.fail(format!(
            "{} is never served again; last seen: {last}",
            service.id
        ))
    }

    async fn hears(&mut self, change: &Change) -> Outcome {
        for _ in 0..PATIENCE {
            self.listen();
            if self.told.contains(change) {
                return Ok(());
            }
            self.run.harness.pause().await;
        }
        self.run.fail(format!(
            "{change:?} is never reported, only {:?}",
            self.told
        ))
    }
}
