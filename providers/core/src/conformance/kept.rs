//! A member of a shared balancer is refused, and nobody knows what was accepted of it, as after a
//! restart of the controller. What it has stays while the others change, join and leave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fixtures;
use super::run::{Run, addresses, publishes, stable};
use super::{Failure, Lab, Object, Outcome};
use crate::mark;
use crate::model::{Address, Balancer, LoadBalancer};
use crate::provider::{Provider, Removal};

/// The Service that is refused. It is never the oldest, which a balancer may name in its tags.
const REFUSED: u16 = 2;

pub(super) async fn a_refused_member_keeps_its_part(lab: &dyn Lab) -> Outcome {
    if !lab.shares() {
        return Ok(());
    }
    let run = Run::new(lab, "a_refused_member_keeps_its_part").await;
    let empty = run.harness.contents().await;
    let provider = run.start(&[]).await?;
    let (one, refused, three) = (
        fixtures::sharing(1),
        fixtures::sharing(REFUSED),
        fixtures::sharing(3),
    );
    let both = together(&provider, &[&one, &refused], &[], false);
    let observed = run.settle(&provider, &both).await?;
    let had = observed.first().map(|(_, seen)| addresses(seen));
    let had = had.unwrap_or_default();
    let part = part(&run).await;
    if part.is_empty() {
        return run.fail("nothing in the cloud names the Service");
    }
    let stays = Stays { part, had };

    let all = [&one, &refused].map(|it| publishes(&it.id, &stays.had));
    let provider = run.start(&all).await?;
    let changed = fixtures::edited(one.clone(), 1);
    stays
        .with(&run, &provider, &[&changed], "another one changes")
        .await?;
    stays
        .with(&run, &provider, &[&changed, &three], "another one joins")
        .await?;
    run.release(&provider, &three, Removal::Delete).await?;
    stays.is_there(&run, "another one is released").await?;
    stays
        .with(&run, &provider, &[&changed], "another one has left")
        .await?;
    run.release(&provider, &changed, Removal::Delete).await?;
    stays.is_there(&run, "the last other one has left").await?;

    let alone = together(&provider, &[&refused], &stays.had, false);
    let observed = run.settle(&provider, &alone).await?;
    let mut now = observed.iter().map(|(_, seen)| addresses(seen));
    if now.next().as_ref() != Some(&stays.had) {
        return run.fail(format!(
            "it is accepted again, and {:?} is lost: {observed:?}",
            stays.had
        ));
    }
    run.release(&provider, &refused, Removal::Delete).await?;
    run.expect_contents(&empty, "after all have left").await
}

/// What a refused Service has.
struct Stays {
    part: BTreeMap<String, Object>,
    had: Vec<Address>,
}

// === impl Stays ===

impl Stays {
    /// The balancer has these members, and it stays; the second time nothing is written.
    async fn with(
        &self,
        run: &Run,
        provider: &Arc<dyn Provider>,
        members: &[&LoadBalancer],
        when: &str,
    ) -> Outcome {
        let balancer = together(provider, members, &self.had, true);
        run.settle(provider, &balancer).await?;
        self.is_there(run, when).await?;
        let before = run.harness.effects().await;
        run.settle(provider, &balancer).await?;
        run.unchanged_since(before, &format!("{when}: the second ensure"))
            .await?;
        let listed: BTreeSet<Arc<str>> = match provider.inventory().await {
            Ok(all) => all.into_iter().flat_map(|it| it.services).map(|it| it.uid),
            Err(error) => return run.fail(format!("cannot read the inventory: {error}")),
        }
        .collect();
        let expected = balancer.kept.iter().chain(members.iter().map(|it| &it.id));
        let expected: BTreeSet<Arc<str>> = expected.map(|id| Arc::clone(&id.uid)).collect();
        if listed != expected {
            return run.fail(format!(
                "{when}: the inventory names {listed:?}, not {expected:?}"
            ));
        }
        Ok(())
    }

    async fn is_there(&self, run: &Run, when: &str) -> Result<(), Failure> {
        let now = stable(part(run).await);
        let before = stable(self.part.clone());
        if now == before {
            return Ok(());
        }
        run.fail(format!(
            "{when}: the refused Service has {now:?}, not {before:?}"
        ))
    }
}

/// All that names the refused Service.
async fn part(run: &Run) -> BTreeMap<String, Object> {
    let uid = fixtures::sharing(REFUSED).id.uid;
    let mut all = run.harness.contents().await;
    all.retain(|_, one| one.tags.get(mark::SERVICE_UID).map(String::as_str) == Some(&*uid));
    all
}

/// The balancer of these members, which publish this.
fn together(
    provider: &Arc<dyn Provider>,
    members: &[&LoadBalancer],
    published: &[Address],
    keeps: bool,
) -> Balancer {
    let refused = fixtures::sharing(REFUSED);
    let mut balancer = fixtures::alone(provider.key(&refused), refused.clone(), published);
    let published = fixtures::ips(published);
    let member = |one: &&LoadBalancer| {
        let mut member = fixtures::member((*one).clone());
        member.published.clone_from(&published);
        member
    };
    balancer.members = members.iter().map(member).collect();
    balancer.kept.extend(keeps.then_some(refused.id));
    balancer
}
