//! Reads the tags of everything, 20 objects in a call, and writes notes on them.
//!
//! Other programs of the account use AWS's limits, too. Then one try of a start may not have the time for
//! all calls. What it has read is kept, so that the next try goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ballast_provider::{Owned, ProviderError};
use tokio::time::Instant;
use tracing::debug;

use super::Inner;
use super::execute::error;
use super::inventory::manner;
use crate::call::{Call, Ref};
use crate::client::values::Tags;
use crate::client::{CallError, Cause, Client, Ids};
use crate::observed::Arn;
use crate::rate::Urgency;

/// The objects of one call.
const CHUNK: usize = 20;
/// What was read so long ago is read again.
const OLD: Duration = Duration::from_mins(10);

/// The tags that tries of a start have read, and when. Empty after a start that has succeeded.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<Arn, (Instant, Tags)>);

// === impl Kept ===

impl Kept {
    /// Forgets what no list shows any more, and what is old.
    fn prune(&mut self, listed: &[Arn], now: Instant) {
        let listed: BTreeSet<&Arn> = listed.iter().collect();
        self.0
            .retain(|arn, (at, _)| listed.contains(arn) && now.duration_since(*at) < OLD);
    }
}

/// The tags of these objects. Each call waits for itself, because there may be hundreds of them, and nobody ends it.
pub(super) async fn tags_of_all(
    client: &Client,
    arns: &[Arn],
    urgency: Urgency,
) -> Result<BTreeMap<Arn, Tags>, CallError> {
    let mut all = BTreeMap::new();
    for some in arns.chunks(CHUNK) {
        all.extend(client.tags(some, manner(urgency)).await?);
    }
    Ok(all)
}

/// Sets and removes tags, in one call each.
async fn write(
    client: &Client,
    objects: &[Owned],
    tags: &BTreeMap<String, Option<String>>,
) -> Result<(), CallError> {
    let of = || -> Vec<Ref> {
        let ids = objects.iter().map(|one| one.id.clone());
        ids.map(Ref::Known).collect()
    };
    let set = tags.iter();
    let set = set.filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
    let set: Tags = set.collect();
    let unset = tags.iter().filter(|(_, value)| value.is_none());
    let unset: Vec<String> = unset.map(|(key, _)| key.clone()).collect();
    let adds = (!set.is_empty()).then(|| Call::AddTags {
        of: of(),
        tags: set,
    });
    let removes = (!unset.is_empty()).then(|| Call::RemoveTags {
        of: of(),
        keys: unset,
    });
    for call in adds.into_iter().chain(removes) {
        let manner = manner(Urgency::Background);
        client.call_in(&call, &Ids::default(), manner).await?;
    }
    Ok(())
}

/// Whether AWS refuses a call because of one of its objects.
fn is_of_one(why: &CallError) -> bool {
    matches!(why.cause, Cause::NotFound | Cause::Denied)
}

// === impl Inner ===

impl Inner {
    /// The tags of everything that a start has listed. Whoever waits for it may be dropped.
    pub(super) async fn tags_at_start(
        &self,
        client: &Client,
        arns: &[Arn],
    ) -> Result<BTreeMap<Arn, Tags>, CallError> {
        let missing: Vec<Arn> = {
            let mut kept = self.kept();
            kept.prune(arns, Instant::now());
            let new = |arn: &&Arn| !kept.0.contains_key(*arn);
            arns.iter().filter(new).cloned().collect()
        };
        // One deadline for all of them: the controller gives a start its time.
        let manner = manner(Urgency::Service);
        for some in missing.chunks(CHUNK) {
            let read = client.tags(some, manner).await?;
            let now = Instant::now();
            let read = read.into_iter().map(|(arn, tags)| (arn, (now, tags)));
            self.kept().0.extend(read);
        }
        let kept = self.kept();
        let all = kept
            .0
            .iter()
            .map(|(arn, (_, it))| (arn.clone(), it.clone()));
        Ok(all.collect())
    }

    /// The start has succeeded.
    pub(super) fn forget_tags(&self) {
        *self.kept() = Kept::default();
    }

    /// Writes notes on what a survey has shown, 20 objects in a call. AWS refuses a call because of one object that
    /// is gone or has another owner now: then each is asked for alone, and that one is left out.
    pub(super) async fn tag_notes(
        &self,
        objects: &[Owned],
        tags: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        let client = self.client().await?;
        let (mut written, mut denied) = (0, None);
        for some in objects.chunks(CHUNK) {
            let Err(why) = write(client, some, tags).await else {
                written += some.len();
                continue;
            };
            if !is_of_one(&why) {
                return Err(error(&why));
            }
            for one in some {
                match write(client, std::slice::from_ref(one), tags).await {
                    Err(why) if !is_of_one(&why) => return Err(error(&why)),
                    Err(why) => {
                        debug!(id = one.id, error = %why, "no note is written");
                        denied = denied.or((why.cause == Cause::Denied).then_some(why));
                    }
                    Ok(()) => written += 1,
                }
            }
        }
        // One object of somebody else is no fault. If none may be written, the right is missing.
        match denied {
            Some(why) if written == 0 => Err(error(&why)),
            _ => Ok(()),
        }
    }
}
