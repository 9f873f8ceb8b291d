//! Makes the calls of a plan, and says what a failure means for the Service. [`super::cleanup`] deletes what
//! nothing uses after them.

use std::collections::VecDeque;
use std::sync::Arc;

use ballast_provider::{ProviderError, Reason};
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::faults::{Owners, is_of_one};
use super::records::{Extent, Record};
use super::retarget::INVALID_TARGET;
use super::{Inner, PATIENCE};
use crate::call::{Call, Ref};
use crate::client::{Answer, CallError, Cause, Client, Ids, Manner};
use crate::effect;
use crate::rate::Urgency;
use crate::target::TargetId;

/// AWS's code for more targets than a load balancer may have in a zone.
pub(super) const TOO_MANY_TARGETS: &str = "TooManyTargets";
/// AWS's code for more certificates than a load balancer may have.
const TOO_MANY_CERTIFICATES: &str = "TooManyCertificates";
/// AWS's code for a certificate that does not exist, or is not in the list of a listener.
const NO_CERTIFICATE: &str = "CertificateNotFound";
/// AWS's codes for the absence of what a Service or its class names. It is never one of Ballast's own objects.
const GIVEN: [&str; 9] = [
    NO_CERTIFICATE,
    "SSLPolicyNotFound",
    "ALPNPolicyNotFound",
    "SubnetNotFound",
    "AllocationIdNotFound",
    "InvalidSubnetID.NotFound",
    "InvalidAllocationID.NotFound",
    "InvalidPrefixListId.NotFound",
    "InvalidPrefixListID.NotFound",
];
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

/// What a failed call means for the Service: what to do, and AWS's own words. All but throttling is tried
/// again with growing pauses, because what helps may happen in AWS.
pub(super) fn error(why: &CallError) -> ProviderError {
    let (reason, message) = match why.cause {
        Cause::Throttled { retry_after } => return ProviderError::Throttled { retry_after },
        Cause::Quota => (
            Reason::QuotaExceeded,
            format!(
                "a limit of the AWS account is reached: {why}. Have AWS raise it, or delete what is not needed"
            ),
        ),
        Cause::Denied => (
            Reason::AccessDenied,
            format!(
                "AWS does not permit {why}. `ballast iam-policy` prints the rights that the controller needs"
            ),
        ),
        Cause::Protected => (
            Reason::AccessDenied,
            format!(
                "AWS refuses {why}. The load balancer has deletion protection: switch it off in AWS"
            ),
        ),
        Cause::Credentials => (
            Reason::AccessDenied,
            format!(
                "AWS does not accept the controller's credentials: {why}. Check the role of its ServiceAccount, or its keys"
            ),
        ),
        Cause::Invalid => (
            Reason::Invalid,
            format!(
                "AWS does not accept what the Service or its class asks for: {why}. Change the setting that AWS names"
            ),
        ),
        Cause::Unreachable => (Reason::CloudError, format!("AWS does not answer: {why}")),
        Cause::Cloud => (Reason::CloudError, format!("AWS has failed: {why}")),
        Cause::NotFound if GIVEN.contains(&why.code.as_str()) => (
            Reason::Invalid,
            format!("AWS does not find what the Service or its class names: {why}"),
        ),
        Cause::Duplicate | Cause::NotFound | Cause::InUse => {
            (Reason::CloudError, format!("AWS: {why}"))
        }
    };
    ProviderError::failed(reason, message)
}

/// New targets and certificates come before the former ones leave. If AWS has no room for both, those that leave
/// go first, and `refused` is made again after them. False if none is left that could make room. Targets make no
/// room for certificates, and the other way round: what would help nobody stays until its turn.
fn leave_first<'a>(left: &mut VecDeque<&'a Call>, refused: &'a Call, why: &CallError) -> bool {
    let makes_room = |call: &&Call| match why.code.as_str() {
        TOO_MANY_TARGETS => matches!(call, Call::DeregisterTargets { .. }),
        TOO_MANY_CERTIFICATES => matches!(call, Call::RemoveListenerCertificates { .. }),
        _ => false,
    };
    let (leave, mut rest): (VecDeque<_>, VecDeque<_>) = left.drain(..).partition(makes_room);
    let any = !leave.is_empty();
    if any {
        rest.push_front(refused);
    }
    *left = leave.into_iter().chain(rest).collect();
    any
}

/// Pods that AWS had refused may be targets now.
fn accepted(record: &mut Record, call: &Call) {
    if let Call::RegisterTargets { targets, .. } = call {
        record.refused.accept(targets);
    }
}

/// Whether a call names pods.
fn names_addresses(call: &Call) -> bool {
    match call {
        Call::RegisterTargets { targets, .. } | Call::DeregisterTargets { targets, .. } => {
            let mut all = targets.iter();
            all.any(|one| matches!(one, TargetId::Address(_)))
        }
        _ => false,
    }
}

/// AWS refuses a call if it refuses one target of it: which of them it accepts must be found out.
const SEARCHED: [&str; 2] = [INVALID_TARGET, TOO_MANY_TARGETS];

// === impl Inner ===

impl Inner {
    /// Makes calls in order and records the effect of each. Ends with the first that fails. If AWS may have
    /// returned what a former process has made, the record is doubtful at the end: the object is known by its
    /// name only, and so is whose it is.
    pub(super) async fn execute(
        &self,
        client: &Client,
        record: &mut Record,
        calls: &[Call],
        vpc: &str,
    ) -> Ended {
        let mut unread = false;
        let ended = self.make_all(client, record, calls, vpc, &mut unread).await;
        if unread {
            record.doubt();
        }
        ended
    }

    async fn make_all(
        &self,
        client: &Client,
        record: &mut Record,
        calls: &[Call],
        vpc: &str,
        unread: &mut bool,
    ) -> Ended {
        let mut ids = Ids {
            vpc: vpc.to_owned(),
            born: self.mark.birth(Timestamp::now()),
            ..Ids::default()
        };
        if calls.iter().any(names_addresses) {
            ids.subnets = self.subnet_ranges(client).await;
        }
        let mut left: VecDeque<&Call> = calls.iter().collect();
        let owners = Owners::of(calls);
        while let Some(call) = left.pop_front() {
            if may_return_another(call)
                && call.makes().is_some_and(|it| self.records.is_stranger(it))
            {
                // AWS may say that it has made it. Whose it is, and its ARN, a read says.
                record.tried(call);
                record.doubt();
                return Ended::Stale;
            }
            let first = record.is_first(call);
            let (alone, answer) = self
                .make_alone(client, record, call, call.urgency(), &ids)
                .await;
            match answer {
                Ok(answer) => {
                    if first {
                        record.reaches(Extent::All);
                    }
                    if let (Some(name), Some(id)) = (call.makes(), &answer.id) {
                        ids.made.insert(name.to_owned(), id.clone());
                        info!(id, "{} made {name}", call.action());
                    }
                    effect::apply(&mut record.observed, call, &ids, &answer);
                    accepted(record, call);
                    record.capacity.made(call, Instant::now());
                    if matches!(call, Call::CreateLoadBalancer { .. }) {
                        record.reaches(Extent::Named);
                    }
                    if may_return_another(call) && record.extent < Extent::All {
                        *unread = true;
                        record.targets_known = false;
                    }
                }
                Err(why) if is_done(call, &why) => {
                    effect::apply(&mut record.observed, call, &ids, &Answer::default());
                }
                Err(why) if leave_first(&mut left, call, &why) => {}
                // Its owner has deleted it.
                Err(why) if leaves_others(record, call) && why.cause == Cause::NotFound => {
                    effect::apply(&mut record.observed, call, &ids, &Answer::default());
                }
                // What one target group of others does not accept says nothing of the nodes.
                Err(why)
                    if SEARCHED.contains(&why.code.as_str())
                        && !(why.code == INVALID_TARGET && joins_others(record, call)) =>
                {
                    let Call::RegisterTargets {
                        target_group,
                        targets,
                    } = call
                    else {
                        return Ended::Failed(why);
                    };
                    let before = record.asks(call);
                    let registered = if why.code == INVALID_TARGET {
                        self.register(client, target_group, targets, why, &ids)
                            .await
                    } else {
                        self.fill(client, target_group, targets, why, &ids).await
                    };
                    record.answered(before);
                    record.refused.refuse(registered.pods, Instant::now());
                    for call in &registered.made {
                        self.has_registered(record, call, alone.as_ref());
                        effect::apply(&mut record.observed, call, &ids, &Answer::default());
                        accepted(record, call);
                    }
                    if let Err(why) = registered.ended
                        && !isolate(record, &mut left, &owners, call, &why)
                    {
                        return self.gave_up(record, call, why);
                    }
                }
                Err(why) if record.capacity.refused(call, &why, Instant::now()) => {
                    warn!(error = %why, key = %record.key, "AWS reserves no capacity");
                    left.retain(|call| !call.finishes());
                }
                Err(why) if isolate(record, &mut left, &owners, call, &why) => {
                    self.forget_given(&why);
                }
                Err(why) => return self.gave_up(record, call, why),
            }
        }
        Ended::Done
    }

    /// What people name may be there at the next try.
    fn forget_given(&self, why: &CallError) {
        if GIVEN.contains(&why.code.as_str()) {
            self.network().forget_lists(&why.code);
        }
    }

    /// A plan ends with this failure of a call.
    fn gave_up(&self, record: &mut Record, call: &Call, why: CallError) -> Ended {
        if why.cause.uncertain() || why.cause == Cause::Duplicate {
            record.tried(call);
            record.doubt();
        }
        // Somebody has made it before, and perhaps more.
        if why.cause == Cause::Duplicate && makes(call) {
            record.extent = Extent::Listed;
        }
        if GIVEN.contains(&why.code.as_str()) {
            self.forget_given(&why);
            return Ended::Failed(why);
        }
        if matches!(why.cause, Cause::Duplicate | Cause::NotFound) {
            record.contradiction = Some(why.clone());
            debug!(call = call.action(), error = %why, "AWS has something else; reading it");
            record.doubt();
            return Ended::Stale;
        }
        self.network().backend.blame(&why);
        Ended::Failed(self.in_numbers(record, why))
    }

    /// AWS counts targets otherwise than people do.
    fn in_numbers(&self, record: &Record, mut why: CallError) -> CallError {
        if why.code == TOO_MANY_TARGETS {
            let groups = record.observed.target_groups.values();
            let ports = groups.clone().count();
            let nodes = self.targets().nodes().unwrap_or_default();
            let nodes = nodes.ids().count();
            let pods = groups.clone().any(|it| !it.backends().are_nodes());
            let counts = if pods {
                "A pod counts once for each port".to_owned()
            } else {
                format!("A node counts once for each port (ports × nodes: {ports} × {nodes})")
            };
            why.message = format!("{}. {counts}", why.message.trim_end_matches('.'));
        }
        why
    }
}

/// Whether a call that AWS refuses concerns only one of several Services on the load balancer. Then the rest
/// of its calls are left out, and the plan goes on for the others.
fn isolate(
    record: &mut Record,
    left: &mut VecDeque<&Call>,
    owners: &Owners<'_>,
    call: &Call,
    why: &CallError,
) -> bool {
    // What is ours and not found must be read again.
    let stale = why.cause == Cause::NotFound && !GIVEN.contains(&why.code.as_str());
    if record.members.len() < 2 || stale || !is_of_one(why) {
        return false;
    }
    let Some(uid) = owners.owner(call, &record.observed).map(Arc::from) else {
        return false;
    };
    record.faults.insert(uid, error(why));
    left.retain(|call| !owners.is_left_out(call, &record.observed, &record.faults));
    true
}

/// Whether a target group is one that others own.
pub(super) fn is_of_others(record: &Record, target_group: &Ref) -> bool {
    let mut groups = record.observed.target_groups.values();
    groups.any(|one| {
        let bound = one.bound.as_ref().map(|bound| bound.arn.as_str());
        bound.is_some() && bound == target_group.known()
    })
}

/// Whether a call deregisters targets of a target group that others own.
fn leaves_others(record: &Record, call: &Call) -> bool {
    matches!(call, Call::DeregisterTargets { target_group, .. } if is_of_others(record, target_group))
}

/// Whether a call registers targets in a target group that others own.
fn joins_others(record: &Record, call: &Call) -> bool {
    matches!(call, Call::RegisterTargets { target_group, .. } if is_of_others(record, target_group))
}

/// Makes one call for a load balancer. If it must wait, it keeps its place until its next turn. Whoever
/// waits here may be dropped, so the record is doubtful until there is an answer.
pub(super) async fn make(
    client: &Client,
    record: &mut Record,
    call: &Call,
    urgency: Urgency,
    ids: &Ids,
) -> Result<Answer, CallError> {
    let namespace = record.members.first().map_or("", |id| &id.namespace);
    let manner = Manner::new(urgency, PATIENCE).of(namespace);
    let manner = manner.keeping(record.place.take());
    let before = record.asks(call);
    let made = client.call_in(call, ids, manner).await;
    record.answered(before);
    record.place = made.as_ref().err().and_then(|why| why.place);
    made
}

/// Whether AWS returns what there is already as if it were new, if it has the same settings.
pub(super) const fn may_return_another(call: &Call) -> bool {
    matches!(
        call,
        Call::CreateTargetGroup { .. }
            | Call::CreateLoadBalancer { .. }
            | Call::CreateListener { .. }
    )
}

/// Whether AWS refuses it because of an object with the same name.
const fn makes(call: &Call) -> bool {
    matches!(call, Call::CreateSecurityGroup { .. }) || may_return_another(call)
}

/// Whether a failure says that there is nothing left to do: what is to be deleted is gone, nothing of a
/// target is registered, or a certificate is not in the list of its listener.
pub(super) fn is_done(call: &Call, why: &CallError) -> bool {
    let gone = why.cause == Cause::NotFound;
    match call {
        Call::DeleteLoadBalancer { .. }
        | Call::DeleteTargetGroup { .. }
        | Call::DeleteSecurityGroup { .. }
        | Call::DeleteListener { .. }
        | Call::DeleteRule { .. } => gone,
        Call::DeregisterTargets { .. } => why.code == INVALID_TARGET,
        Call::RemoveListenerCertificates { .. } => why.code == NO_CERTIFICATE,
        _ => false,
    }
}
