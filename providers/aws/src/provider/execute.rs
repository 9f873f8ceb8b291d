//! Makes the calls of a plan, and says what a failure means for the Service.

use std::time::Duration;

use ballast_provider::{ProviderError, Reason, Refusal};
use tokio::time::Instant;
use tracing::{debug, info};

use super::records::Record;
use super::retarget::INVALID_TARGET;
use super::{Inner, PATIENCE};
use crate::call::Call;
use crate::client::{Answer, CallError, Cause, Client, Ids, Manner};
use crate::effect;

/// The pauses between two tries to delete what AWS says is in use: network interfaces of a load
/// balancer stay for about a minute after it.
const CLEANUP: (Duration, Duration) = (Duration::from_secs(15), Duration::from_mins(1));

/// What is left of a clean-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cleaned {
    /// Nothing.
    All,
    /// Something is still in use; try again after this time.
    InUse(Duration),
}

/// How a plan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All calls succeeded.
    Done,
    /// What is there is not what the plan was made for: read it, and plan again.
    Stale,
    /// A failure.
    Failed(CallError),
}

/// What a failed call means for the Service.
pub(super) fn error(why: &CallError) -> ProviderError {
    match why.cause {
        Cause::Throttled { retry_after } => ProviderError::Throttled { retry_after },
        Cause::Protected => ProviderError::Refused(Refusal::new(
            Reason::Invalid,
            format!(
                "AWS refuses {why}. The load balancer has deletion protection: switch it off in AWS, or with the attribute deletion_protection.enabled=false"
            ),
        )),
        Cause::Quota
        | Cause::Denied
        | Cause::Invalid
        | Cause::Duplicate
        | Cause::NotFound
        | Cause::InUse
        | Cause::Credentials
        | Cause::Unreachable
        | Cause::Cloud => ProviderError::transient(format!("AWS: {why}")),
    }
}

// === impl Inner ===

impl Inner {
    /// Makes calls in order and records the effect of each. Ends with the first that fails.
    pub(super) async fn execute(
        &self,
        client: &Client,
        record: &mut Record,
        calls: &[Call],
        vpc: &str,
    ) -> Ended {
        let mut ids = Ids {
            vpc: vpc.to_owned(),
            ..Ids::default()
        };
        for call in calls {
            match make(client, record, call, &ids).await {
                Ok(answer) => {
                    if let (Some(name), Some(id)) = (call.makes(), &answer.id) {
                        ids.made.insert(name.to_owned(), id.clone());
                        info!(id, "{} made {name}", call.action());
                    }
                    effect::apply(&mut record.observed, call, &ids, &answer);
                }
                Err(why) if is_done(call, &why) => {
                    effect::apply(&mut record.observed, call, &ids, &Answer::default());
                }
                Err(why) if why.code == INVALID_TARGET => {
                    let Call::RegisterTargets {
                        target_group,
                        targets,
                    } = call
                    else {
                        return Ended::Failed(why);
                    };
                    match self.register(client, target_group, targets, &ids).await {
                        Ok(made) => made.iter().for_each(|call| {
                            effect::apply(&mut record.observed, call, &ids, &Answer::default());
                        }),
                        Err(why) => {
                            if why.cause.uncertain() {
                                record.doubt();
                            }
                            return Ended::Failed(why);
                        }
                    }
                }
                Err(why) => {
                    if why.cause.uncertain() || why.cause == Cause::Duplicate {
                        record.tried(call);
                        record.doubt();
                    }
                    if matches!(why.cause, Cause::Duplicate | Cause::NotFound) {
                        debug!(call = call.action(), error = %why, "AWS has something else; reading it");
                        record.doubt();
                        return Ended::Stale;
                    }
                    return Ended::Failed(why);
                }
            }
        }
        Ended::Done
    }

    /// Deletes what nothing uses. What AWS still uses waits, and holds up nothing. `paced`: not
    /// before the pause after the last try has passed.
    pub(super) async fn clean_up(
        &self,
        client: &Client,
        record: &mut Record,
        calls: &[Call],
        paced: bool,
    ) -> Result<Cleaned, ProviderError> {
        if calls.is_empty() {
            record.cleanup = None;
            return Ok(Cleaned::All);
        }
        if paced
            && let Some((due, _)) = record.cleanup
            && let Some(left) = due.checked_duration_since(Instant::now())
            && !left.is_zero()
        {
            return Ok(Cleaned::InUse(left));
        }
        let ids = Ids::default();
        let mut in_use = false;
        for call in calls {
            match make(client, record, call, &ids).await {
                Ok(answer) => effect::apply(&mut record.observed, call, &ids, &answer),
                Err(why) if is_done(call, &why) => {
                    effect::apply(&mut record.observed, call, &ids, &Answer::default());
                }
                Err(why) if why.cause == Cause::InUse => in_use = true,
                Err(why) => {
                    if why.cause.uncertain() {
                        record.doubt();
                    }
                    return Err(error(&why));
                }
            }
        }
        if !in_use {
            record.cleanup = None;
            return Ok(Cleaned::All);
        }
        let before = record.cleanup.map(|(_, pause)| pause * 2);
        let pause = before.unwrap_or(CLEANUP.0).min(CLEANUP.1);
        record.cleanup = Some((Instant::now() + pause, pause));
        Ok(Cleaned::InUse(pause))
    }
}

/// Makes one call of a Service. If it must wait, the Service keeps its place until its next turn.
async fn make(
    client: &Client,
    record: &mut Record,
    call: &Call,
    ids: &Ids,
) -> Result<Answer, CallError> {
    let manner = Manner::new(call.urgency(), PATIENCE).keeping(record.place.take());
    let made = client.call_in(call, ids, manner).await;
    record.place = made.as_ref().err().and_then(|why| why.place);
    made
}

/// Whether a failure says that there is nothing left to do: what is to be deleted is gone, or
/// nothing of a target is registered.
fn is_done(call: &Call, why: &CallError) -> bool {
    let gone = why.cause == Cause::NotFound;
    match call {
        Call::DeleteLoadBalancer { .. }
        | Call::DeleteTargetGroup { .. }
        | Call::DeleteSecurityGroup { .. }
        | Call::DeleteListener { .. } => gone,
        Call::DeregisterTargets { .. } => why.code == INVALID_TARGET,
        _ => false,
    }
}
