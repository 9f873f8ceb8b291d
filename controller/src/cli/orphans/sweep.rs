//! Deletes what a plan says, each load balancer after another look at it. Does I/O.
//!
//! It can be stopped at any time: nothing is remembered, and the next run finds what is left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ballast_provider::mark::{CLASS, CLUSTER, KEEP, LAST_SEEN, RETAINED, Sign};
use ballast_provider::{
    Inventory, Key, Kind, Life, Mark, Owned, Provider, ProviderError, Released, Removal, ServiceId,
};
use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::choose::Plan;
use super::report::{Item, Report};

/// So many are deleted at the same time. The cloud's own limits are the provider's concern.
const AT_ONCE: usize = 16;
/// The longest pause between two looks at a deletion that is in progress.
const PAUSE: Duration = Duration::from_secs(15);
/// The first pause after an error; it doubles up to [`PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);

const LATE: &str = "the time is over; run the command again";

/// How to delete.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// Neither signs of life nor targets that serve matter.
    pub force_live: bool,
    /// When to stop, whatever is left.
    pub deadline: Instant,
    /// Whether a sign of life says that the cluster exists.
    pub is_alive: &'a (dyn Fn(Option<Timestamp>) -> bool + Sync),
    /// All clouds that were looked at: a cluster of which anything serves in one of them exists.
    pub everywhere: &'a [(&'a dyn Inventory, &'a Report)],
}

/// What became of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The names of load balancers that are gone.
    pub deleted: Vec<String>,
    /// The names of those that are left, and why.
    pub left: Vec<(String, String)>,
}

/// What became of one.
enum End {
    Deleted,
    Left(String),
}

/// Deletes. `stop`: completes when the user wants to stop.
pub async fn sweep(
    cloud: &dyn Inventory,
    plan: &Plan,
    terms: &Terms<'_>,
    say: &(dyn Fn(&str) + Sync),
    stop: impl Future<Output = ()> + Send,
) -> Swept {
    let mut swept = Swept::default();
    tokio::pin!(stop);
    let all: Vec<&Item> = plan.items.iter().collect();
    let serves = timeout_at(terms.deadline, serves(plan, terms));
    let serves = tokio::select! {
        biased;
        () = &mut stop => Some("stopped".to_owned()),
        serves = serves => serves.unwrap_or_else(|_| Some(LATE.to_owned())),
    };
    if let Some(why) = serves {
        swept.leave(&all, &why);
        return swept;
    }
    let mut classes: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    for item in &plan.items {
        classes.entry(&item.owner.class).or_default().push(item);
    }
    let mut stopped = false;
    for items in classes.into_values() {
        let Some(owner) = items.first().map(|item| &item.owner) else {
            continue;
        };
        if stopped {
            swept.leave(&items, "stopped");
            continue;
        }
        let class = Class {
            cloud,
            owner,
            is_current: plan.cluster.is_current,
            terms,
            say,
        };
        tokio::select! {
            biased;
            () = &mut stop => {
                stopped = true;
                swept.leave(&items, "stopped");
            }
            () = class.sweep(&items, &mut swept) => {}
        }
    }
    swept
}

/// Whether anything of a cluster that counts as gone serves: then the cluster exists, and what does not
/// serve there may be about to. What cannot be read says nothing, and stays by itself.
async fn serves(plan: &Plan, terms: &Terms<'_>) -> Option<String> {
    if terms.force_live || plan.cluster.is_current {
        return None;
    }
    let clusters = terms.everywhere.iter().flat_map(|(cloud, report)| {
        let same = report.clusters.iter();
        let same = same.filter(|one| one.uid == plan.cluster.uid);
        same.map(move |one| (cloud, one))
    });
    let balancers = clusters.flat_map(|(cloud, one)| {
        let objects = one.items.iter().flat_map(|item| &item.objects);
        let balancers = objects.filter(|it| it.kind == Kind::LoadBalancer);
        balancers.map(move |it| (*cloud, it))
    });
    let lives = balancers.map(|(cloud, it)| async move { (&it.name, cloud.life(it).await) });
    let mut lives = futures::stream::iter(lives).buffer_unordered(AT_ONCE);
    while let Some((name, life)) = lives.next().await {
        if let Ok(Life::Serves(why) | Life::Runs(why)) = life {
            return Some(format!("its cluster exists, because {name} serves: {why}"));
        }
    }
    None
}

/// What is deleted with one provider.
struct Class<'a> {
    cloud: &'a dyn Inventory,
    owner: &'a Mark,
    /// Its cluster is the one that `--compare` has read.
    is_current: bool,
    terms: &'a Terms<'a>,
    say: &'a (dyn Fn(&str) + Sync),
}

// === impl Class ===

impl Class<'_> {
    async fn sweep(&self, items: &[&Item], swept: &mut Swept) {
        let provider = match self.provider().await {
            Ok(provider) => provider,
            Err(error) => {
                let why = format!("cannot read the class {}: {error}", self.owner.class);
                swept.leave(items, &why);
                return;
            }
        };
        let provider = provider.as_ref();
        let (class_wide, items): (Vec<&Item>, Vec<&Item>) =
            items.iter().partition(|item| item.key.is_none());
        let all = items
            .iter()
            .map(|item| async move { (item.name(), self.delete(item, provider).await) });
        let mut all = futures::stream::iter(all).buffer_unordered(AT_ONCE);
        while let Some((name, end)) = all.next().await {
            self.end(name, end, swept);
        }
        drop(all);
        for item in class_wide {
            self.end(item.name(), self.close(item, provider).await, swept);
        }
    }

    fn end(&self, name: &str, end: End, swept: &mut Swept) {
        match end {
            End::Deleted => {
                (self.say)(&format!("deleted {name}"));
                swept.deleted.push(name.to_owned());
            }
            End::Left(why) => {
                (self.say)(&format!("{name} stays: {why}"));
                swept.left.push((name.to_owned(), why));
            }
        }
    }

    /// The provider knows what its class has.
    async fn provider(&self) -> Result<Arc<dyn Provider>, ProviderError> {
        let provider = self.cloud.provider(self.owner.clone())?;
        let mut pause = FIRST_PAUSE;
        loop {
            match provider.restore(Vec::new()).await {
                Ok(()) => return Ok(provider),
                Err(error) if Instant::now() + pause >= self.terms.deadline => return Err(error),
                Err(error) => pause = self.rest(&error, pause).await,
            }
        }
    }

    async fn delete(&self, item: &Item, provider: &dyn Provider) -> End {
        let Some(key) = &item.key else {
            return End::Left("its tags name no Service".to_owned());
        };
        if let Err(why) = self.still(item).await {
            return End::Left(why);
        }
        for id in &item.services {
            if let Err(why) = self.release(id, key, provider).await {
                return End::Left(why);
            }
        }
        let still = "the cloud still has it: its tags have changed, or somebody keeps it";
        self.outcome(item, still).await
    }

    /// What serves the whole class goes with the release of the last Service, or of none.
    async fn close(&self, item: &Item, provider: &dyn Provider) -> End {
        let nobody = ServiceId {
            namespace: "".into(),
            name: "".into(),
            uid: "none".into(),
        };
        let key = Key::alone(&nobody);
        if let Err(why) = self.release(&nobody, &key, provider).await {
            return End::Left(why);
        }
        let still = "other load balancers of its class use it";
        self.outcome(item, still).await
    }

    /// What became of it after its release. `still`: why the cloud may still have it.
    async fn outcome(&self, item: &Item, still: &str) -> End {
        match self.is_there(item).await {
            Ok(false) => End::Deleted,
            Ok(true) => End::Left(still.to_owned()),
            Err(error) => End::Left(format!("cannot tell whether it is gone: {error}")),
        }
    }

    /// Reads it again: it is what the plan was made for, nobody wants to keep it, and nothing of it
    /// serves. What cannot be read stays.
    async fn still(&self, item: &Item) -> Result<(), String> {
        for object in &item.objects {
            let tags = self.cloud.tags(object).await;
            let tags = tags.map_err(|error| format!("its tags cannot be read: {error}"))?;
            let Some(tags) = tags else {
                continue;
            };
            if tags.get(CLUSTER) != Some(&self.owner.cluster)
                || tags.get(CLASS) != Some(&self.owner.class)
            {
                return Err("its tags name another owner now".to_owned());
            }
            for tag in [KEEP, RETAINED] {
                if tags.contains_key(tag) {
                    return Err(format!("it has the tag {tag}"));
                }
            }
            let seen = Sign::of(&tags, LAST_SEEN).map(|sign| sign.at);
            if !self.terms.force_live && (self.terms.is_alive)(seen) {
                return Err("its cluster has given a sign of life".to_owned());
            }
            let life = self.cloud.life(object).await;
            match life.map_err(|error| format!("its targets cannot be read: {error}"))? {
                Life::Silent => {}
                // A Service may have come after its list was read.
                Life::Runs(_) if self.is_current => {}
                Life::Serves(_) | Life::Runs(_) if self.terms.force_live && !self.is_current => {}
                Life::Serves(why) | Life::Runs(why) => return Err(format!("it serves: {why}")),
                Life::Protected(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Releases until it is gone, or the time is over.
    async fn release(
        &self,
        id: &ServiceId,
        key: &Key,
        provider: &dyn Provider,
    ) -> Result<(), String> {
        let mut pause = FIRST_PAUSE;
        loop {
            let call = provider.release(id, key, Removal::Delete);
            let why = match timeout_at(self.terms.deadline, call).await {
                Ok(Ok(Released::Gone)) => return Ok(()),
                Ok(Ok(Released::InProgress {
                    retry_after,
                    waits_for,
                })) => {
                    let until = Instant::now() + retry_after.min(PAUSE);
                    tokio::time::sleep_until(until.min(self.terms.deadline)).await;
                    let waits_for = waits_for.map_or_else(String::new, |it| format!(": {it}"));
                    format!("it is still being deleted{waits_for}; run the command again")
                }
                Ok(Err(error @ ProviderError::Refused(_))) => return Err(error.to_string()),
                Ok(Err(error)) => {
                    pause = self.rest(&error, pause).await;
                    error.to_string()
                }
                Err(_) => LATE.to_owned(),
            };
            if Instant::now() >= self.terms.deadline {
                return Err(why);
            }
        }
    }

    /// Waits after an error, and returns the next pause.
    async fn rest(&self, error: &ProviderError, pause: Duration) -> Duration {
        let wait = match error {
            ProviderError::Throttled { retry_after } => *retry_after,
            ProviderError::Refused(_) | ProviderError::Transient { .. } => pause,
        };
        tokio::time::sleep_until((Instant::now() + wait).min(self.terms.deadline)).await;
        (pause * 2).min(PAUSE)
    }

    /// Whether the cloud has any of it.
    async fn is_there(&self, item: &Item) -> Result<bool, ProviderError> {
        for object in &item.objects {
            if self.exists(object).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn exists(&self, object: &Owned) -> Result<bool, ProviderError> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.cloud.tags(object).await {
                // A security group without its tags, or none.
                Ok(tags) => return Ok(tags.is_some()),
                Err(error) if Instant::now() + pause >= self.terms.deadline => return Err(error),
                Err(error) => pause = self.rest(&error, pause).await,
            }
        }
    }
}

// === impl Swept ===

impl Swept {
    /// Those that have had no end yet stay.
    fn leave(&mut self, items: &[&Item], why: &str) {
        for item in items {
            let name = item.name();
            let ended = self.deleted.iter().any(|it| it == name)
                || self.left.iter().any(|(it, _)| it == name);
            if !ended {
                self.left.push((name.to_owned(), why.to_owned()));
            }
        }
    }

    /// Whether everything of the plan is gone.
    pub fn is_clean(&self) -> bool {
        self.left.is_empty()
    }
}
