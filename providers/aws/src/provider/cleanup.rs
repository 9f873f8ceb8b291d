//! Deletes what nothing uses any more. AWS refuses that for minutes, which must hold up nothing else.

use std::time::Duration;

use ballast_provider::mark::KEEP;
use tokio::time::Instant;
use tracing::warn;

use super::Inner;
use super::execute::is_done;
use super::records::{Deletions, Depth, Leftover, Record};
use crate::call::Call;
use crate::client::{Answer, CallError, Cause, Client, Ids};
use crate::rate::Urgency;
use crate::{effect, plan};

/// The pauses between two tries to delete what AWS says is in use: network interfaces of a load
/// balancer stay for about a minute after it.
const CLEANUP: (Duration, Duration) = (Duration::from_secs(15), Duration::from_mins(1));
/// The longest pause between two tries to delete what AWS refuses to delete.
const REFUSED: Duration = Duration::from_mins(10);
/// So many tries to delete something fail while all goes as it should: together with the pauses between them
/// they take about five minutes.
const USUAL: u32 = 6;

/// Whose clean-up it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cleaning {
    /// A Service goes: it waits for the end. The controller makes the pauses.
    OfRelease,
    /// A Service has changed and has what it wants. The next try is made only after a pause.
    OfLiving,
}

/// How a clean-up ended. Each call of it was made, whatever became of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cleaned {
    /// Something is left; try again after this time.
    pub(super) left: Option<Duration>,
    /// The first failure that is none of something in use.
    pub(super) failed: Option<CallError>,
}

/// The deletions that may be made, and why others may not.
struct Allowed {
    calls: Vec<Call>,
    /// For the owner of the Service.
    refused: Vec<String>,
}

// === impl Cleaning ===

impl Cleaning {
    const fn urgency(self) -> Urgency {
        match self {
            Self::OfRelease => Urgency::Service,
            Self::OfLiving => Urgency::Background,
        }
    }
}

// === impl Inner ===

impl Inner {
    /// What a Service that stays does not use any more can have been given away, or people want to keep it.
    async fn allowed(
        &self,
        client: &Client,
        record: &mut Record,
        calls: &[Call],
    ) -> Result<Allowed, CallError> {
        let stays = |call: &Call, why: &str| {
            let (what, id) = named(call)?;
            Some(format!("{what} {id} is not used any more and stays {why}"))
        };
        if record.deletions == Deletions::Forbidden {
            let why = "until it is certain that no copy of this cluster uses it";
            let refused = calls.iter().filter_map(|call| stays(call, why));
            return Ok(Allowed {
                refused: refused.collect(),
                calls: Vec::new(),
            });
        }
        let urgency = Cleaning::OfLiving.urgency();
        let mut sorted = self.sort_deletions(client, record, calls, urgency).await?;
        let is_balancer = |call: &Call| matches!(call, Call::DeleteLoadBalancer { .. });
        if sorted.kept.iter().any(&is_balancer) {
            // What it uses stays with it.
            sorted.calls.retain(is_balancer);
        }
        let why = format!("as long as it has the tag {KEEP}");
        let kept = sorted.kept.iter();
        Ok(Allowed {
            refused: kept.filter_map(|call| stays(call, &why)).collect(),
            calls: sorted.calls,
        })
    }

    /// Deletes what nothing uses. What AWS does not delete waits, and holds up nothing else.
    pub(super) async fn clean_up(
        &self,
        client: &Client,
        record: &mut Record,
        calls: &[Call],
        cleaning: Cleaning,
    ) -> Cleaned {
        if calls.is_empty() {
            record.cleanup = None;
            return Cleaned::default();
        }
        if let Some(left) = pause_left(record).filter(|_| cleaning == Cleaning::OfLiving) {
            return Cleaned {
                left: Some(left),
                failed: None,
            };
        }
        let ids = Ids::default();
        let mut cleaned = Cleaned::default();
        let mut in_use = None;
        let (first, mut most) = CLEANUP;
        let before = record.cleanup.as_ref();
        let mut pause = before.map_or(first, |before| before.pause * 2);
        let times = before.map_or(1, |before| before.times.saturating_add(1));
        let (mut calls, mut refused) = (calls.to_vec(), Vec::new());
        // The tags of what a release deletes were read a moment ago.
        if cleaning == Cleaning::OfLiving {
            match self.allowed(client, record, &calls).await {
                Ok(allowed) => Allowed { calls, refused } = allowed,
                Err(why) => {
                    calls.clear();
                    if let Cause::Throttled { retry_after } = why.cause {
                        pause = pause.max(retry_after);
                        most = most.max(retry_after);
                    }
                    cleaned.left = Some(pause);
                    cleaned.failed = Some(why);
                }
            }
        }
        if !refused.is_empty() {
            cleaned.left = Some(pause);
            most = REFUSED;
        }
        for call in &calls {
            if plan::is_needed_as_note(call, &record.observed) {
                cleaned.left = Some(pause);
                continue;
            }
            let (_alone, answer) = self
                .make_alone(client, record, call, cleaning.urgency(), &ids)
                .await;
            let why = match answer {
                Ok(answer) => {
                    effect::apply(&mut record.observed, call, &ids, &answer);
                    continue;
                }
                Err(why) if is_done(call, &why) => {
                    effect::apply(&mut record.observed, call, &ids, &Answer::default());
                    continue;
                }
                Err(why) => why,
            };
            cleaned.left = Some(pause);
            if why.cause.uncertain() {
                record.doubt();
            }
            if why.cause == Cause::InUse {
                in_use = in_use.or_else(|| still_used(call));
            }
            if let Some(remark) = remark(call, &why, times) {
                if times == USUAL + 1 {
                    warn!("{remark}");
                }
                refused.push(remark);
                most = REFUSED;
            }
            if let Cause::Throttled { retry_after } = why.cause {
                // The other calls would wait behind this one.
                pause = pause.max(retry_after);
                most = most.max(retry_after);
                cleaned.failed.get_or_insert(why);
                break;
            }
            if why.cause != Cause::InUse {
                cleaned.failed.get_or_insert(why);
            }
        }
        if cleaned.left.is_none() {
            record.cleanup = None;
            return cleaned;
        }
        let pause = pause.min(most);
        // What had no answer is read again in the next turn, and then nothing is in its way.
        let wait = match record.depth {
            Depth::Doubtful => Duration::ZERO,
            Depth::Names | Depth::Full => pause,
        };
        cleaned.left = Some(wait);
        record.cleanup = Some(Leftover {
            due: Instant::now() + wait,
            pause,
            times,
            refused,
            in_use,
        });
        cleaned
    }
}

/// How long the next try to clean up waits.
fn pause_left(record: &Record) -> Option<Duration> {
    let due = record.cleanup.as_ref()?.due;
    let left = due.checked_duration_since(Instant::now())?;
    (!left.is_zero()).then_some(left)
}

/// What a call deletes, in words.
fn named(call: &Call) -> Option<(&'static str, &str)> {
    Some(match call {
        Call::DeleteLoadBalancer { load_balancer } => ("the former load balancer", load_balancer),
        Call::DeleteTargetGroup { target_group } => ("the target group", target_group),
        Call::DeleteSecurityGroup { security_group } => ("the security group", security_group),
        _ => return None,
    })
}

/// What a release waits for while AWS says that it is in use. The same for each try.
fn still_used(call: &Call) -> Option<String> {
    Some(match call {
        Call::DeleteLoadBalancer { load_balancer } => {
            format!("load balancer {load_balancer}: AWS still changes or deletes it")
        }
        Call::DeleteTargetGroup { target_group } => format!(
            "target group {target_group}: AWS says that it is in use, as long as it forgets the load balancer"
        ),
        Call::DeleteSecurityGroup { security_group } => format!(
            "security group {security_group}: AWS says that it is in use. The network interfaces of a deleted load balancer stay for about a minute; after that a rule of another security group may name it"
        ),
        _ => return None,
    })
}

/// What the owner of a Service should know of something that could not be deleted. `None`: nothing; it
/// is in use for a while, as usual, or the next try may know more.
fn remark(call: &Call, why: &CallError, times: u32) -> Option<String> {
    let (what, id) = named(call)?;
    let usual = why.cause == Cause::InUse
        && !matches!(call, Call::DeleteLoadBalancer { .. })
        && times <= USUAL;
    if usual || why.cause.uncertain() || matches!(why.cause, Cause::Throttled { .. }) {
        return None;
    }
    let hint = match why.cause {
        Cause::Protected => {
            ". Switch its deletion protection off in AWS, or set the attribute deletion_protection.enabled=false"
        }
        Cause::InUse if matches!(call, Call::DeleteSecurityGroup { .. }) => {
            ". A rule of another security group may name it: remove that rule"
        }
        _ => "",
    };
    Some(format!(
        "{what} {id} is not used any more and could not be deleted; Ballast tries again: {why}{hint}"
    ))
}
