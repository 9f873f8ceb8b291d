//! Why a call failed, sorted by what its caller can do. Pure.
//!
//! AWS has hundreds of error codes. [`cause`] knows those of the actions in
//! [`super::actions`]; a code that it does not know counts by its form and by the HTTP status.
//! Messages are AWS's, without what differs from one retry to the next: they end in conditions,
//! and a condition that changes makes a write to the API server.

use std::error::Error;
use std::time::Duration;
use std::{fmt, io};

use aws_smithy_types::error::ErrorMetadata;

use super::actions::Action;
use crate::rate::Ticket;

/// The most characters of AWS's message.
const LONGEST: usize = 500;
/// AWS refuses a change of subnets during another one with the code of a wrong call. Only the message differs.
const IN_PROGRESS: &str = "in progress";
/// What is said of a call that must wait, whether AWS has said so or we know.
const WAITS: &str = "waits for AWS's limit of calls";

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}{}", action.name(), Code(code))]
pub struct CallError {
    /// What was called.
    pub action: Action,
    /// What its caller can do.
    pub cause: Cause,
    /// AWS's code; empty if the answer had none, or if there was no answer.
    pub code: String,
    /// What went wrong, in AWS's words where there are any. The same for each retry.
    pub message: String,
    /// AWS's ID of the call, only for logs.
    pub request: Option<String>,
    /// The place among the calls that wait for a turn, if it is kept.
    pub place: Option<Ticket>,
}

/// What the caller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Try again later: AWS's limits for calls leave no room. Nothing has happened.
    Throttled {
        /// About when.
        retry_after: Duration,
    },
    /// Look at what is there: an object or rule of this name exists, with other settings.
    Duplicate,
    /// Look at what is there: something that the call names does not exist, or not yet.
    NotFound,
    /// Try again later: something else uses the object.
    InUse,
    /// The object is protected; only its owner can change that.
    Protected,
    /// A quota of the account, or an unchangeable limit of AWS.
    Quota,
    /// The credentials do not permit the call.
    Denied,
    /// AWS will never accept this call as it is.
    Invalid,
    /// There are no valid credentials.
    Credentials,
    /// No answer: nobody knows whether the call had an effect.
    Unreachable,
    /// AWS has failed. The call may have had an effect.
    Cloud,
}

/// A call that failed, before anything is concluded from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fault {
    /// AWS's code.
    pub(super) code: Option<String>,
    /// AWS's message, or what went wrong before there was an answer.
    pub(super) message: String,
    /// AWS's ID of the call.
    pub(super) request: Option<String>,
    /// The HTTP status; `None` if there was no answer.
    pub(super) status: Option<u16>,
}

/// A code in brackets.
struct Code<'a>(&'a str);

// === impl Cause ===

impl Cause {
    /// The label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled { .. } => "throttled",
            Self::Duplicate => "duplicate",
            Self::NotFound => "not_found",
            Self::InUse => "in_use",
            Self::Protected => "protected",
            Self::Quota => "quota",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Credentials => "credentials",
            Self::Unreachable => "unreachable",
            Self::Cloud => "cloud",
        }
    }

    /// Whether the call may have had an effect although it failed.
    pub const fn uncertain(self) -> bool {
        matches!(self, Self::Unreachable | Self::Cloud)
    }
}

// === impl CallError ===

impl CallError {
    /// What follows from a failed call. Answers `Throttling` have no waiting time yet.
    pub(super) fn of(action: Action, fault: Fault) -> Self {
        let code = fault.code.unwrap_or_default();
        let cause = match cause(&code, fault.status) {
            // A zone takes another subnet only after its former one has gone.
            Cause::Invalid
                if action == Action::SetSubnets && fault.message.contains(IN_PROGRESS) =>
            {
                Cause::InUse
            }
            other => other,
        };
        let message = match cause {
            Cause::Throttled { .. } => WAITS.to_owned(),
            Cause::Denied => denied(action, &fault.message),
            _ => stable(&fault.message),
        };
        let message = match message.as_str() {
            "" => "AWS gives no reason".to_owned(),
            _ => message,
        };
        Self {
            action,
            cause,
            code,
            message,
            request: fault.request,
            place: None,
        }
    }

    /// A call that AWS's limits leave no room for.
    pub(super) fn postponed(action: Action, retry_after: Duration) -> Self {
        let cause = Cause::Throttled { retry_after };
        Self::unmade(action, cause, WAITS)
    }

    /// A call that AWS has throttled, with the time of its next turn.
    pub(super) fn after(mut self, retry_after: Duration) -> Self {
        self.cause = Cause::Throttled { retry_after };
        self
    }

    /// An answer to a creation without the created object.
    pub(super) fn nameless(action: Action) -> Self {
        Self::unmade(
            action,
            Cause::Cloud,
            "AWS's answer does not name the new object",
        )
    }

    /// A call that was not made.
    pub(super) fn unmade(action: Action, cause: Cause, message: impl Into<String>) -> Self {
        Self {
            action,
            cause,
            code: String::new(),
            message: message.into(),
            request: None,
            place: None,
        }
    }
}

// === impl Fault ===

impl Fault {
    /// The request could not be made.
    pub(super) fn unsent(message: String) -> Self {
        Self {
            message,
            // Nothing was sent, and the next request would be the same.
            status: Some(400),
            ..Self::default()
        }
    }

    /// There was no answer.
    pub(super) fn unanswered(error: &(dyn Error + 'static)) -> Self {
        let inner = root(error);
        let broken = inner.downcast_ref::<io::Error>().map_or_else(
            // What hyper says of a connection that the other side has closed.
            || inner.to_string().starts_with("connection closed"),
            |error| {
                matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::UnexpectedEof
                )
            },
        );
        let message = if broken {
            "the connection to AWS broke before the answer".to_owned()
        } else {
            format!("no connection to AWS: {}", innermost(error))
        };
        Self {
            message,
            ..Self::default()
        }
    }

    /// There was no answer in time.
    pub(super) fn late(limit: Duration) -> Self {
        Self {
            message: format!("AWS does not answer within {} s", limit.as_secs_f64()),
            ..Self::default()
        }
    }

    /// The answer says that it was done, and cannot be understood.
    pub(super) fn unreadable(message: impl fmt::Display) -> Self {
        Self {
            message: format!("AWS's answer cannot be read: {message}"),
            status: Some(500),
            ..Self::default()
        }
    }
}

/// The text of the innermost cause: the outer ones name layers of this program. Of what AWS
/// itself has answered, it is the message and the code.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let inner = root(error);
    let Some(answer) = inner.downcast_ref::<ErrorMetadata>() else {
        return stable(&inner.to_string());
    };
    let message = stable(answer.message().unwrap_or("AWS gives no reason"));
    format!("{message}{}", Code(answer.code().unwrap_or_default()))
}

fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut inner = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner
}

/// What a code means. Sources: the error lists of each action in the Elastic Load Balancing and
/// EC2 API references, their pages "Common errors", and "Error codes for the Amazon EC2 API".
fn cause(code: &str, status: Option<u16>) -> Cause {
    // EC2's documentation names codes with and without these prefixes.
    let code = code.strip_prefix("Client.").unwrap_or(code);
    let code = code.strip_prefix("Server.").unwrap_or(code);
    match code {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "EC2ThrottledException"
        | "BandwidthLimitExceeded"
        | "SlowDown" => Cause::Throttled {
            retry_after: Duration::ZERO,
        },
        "DuplicateLoadBalancerName"
        | "DuplicateTargetGroupName"
        | "DuplicateListener"
        | "InvalidGroup.Duplicate"
        | "InvalidPermission.Duplicate"
        | "PriorityInUse" => Cause::Duplicate,
        "DependencyViolation"
        | "ResourceInUse"
        | "InvalidGroup.InUse"
        | "InvalidIPAddress.InUse"
        | "Resource.AlreadyAssociated"
        | "IncorrectState"
        | "IncorrectInstanceState"
        | "PriorRequestNotComplete"
        | "CapacityReservationPending" => Cause::InUse,
        "OperationNotPermitted" => Cause::Protected,
        "TargetGroupAssociationLimit" | "InsufficientFreeAddressesInSubnet" => Cause::Quota,
        "AccessDenied"
        | "AccessDeniedException"
        | "UnauthorizedOperation"
        | "NotAuthorized"
        | "OptInRequired"
        | "Blocked"
        | "PendingVerification" => Cause::Denied,
        "AuthFailure"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "UnrecognizedClient"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "RequestTimeTooSkewed" => Cause::Credentials,
        "InternalFailure"
        | "InternalError"
        | "InternalServerError"
        | "InternalServerException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "Unavailable"
        | "HealthUnavailable"
        | "InsufficientCapacity"
        | "InsufficientAddressCapacity"
        | "RequestTimeout"
        | "RequestTimeoutException" => Cause::Cloud,
        _ if code.ends_with("NotFound") || code.ends_with("NotFoundException") => Cause::NotFound,
        _ if code.starts_with("TooMany") || code.ends_with("LimitExceeded") => Cause::Quota,
        _ => match status {
            None => Cause::Unreachable,
            Some(429) => Cause::Throttled {
                retry_after: Duration::ZERO,
            },
            Some(403) => Cause::Denied,
            Some(404) if code.is_empty() => Cause::Cloud,
            Some(400..500) => Cause::Invalid,
            Some(_) => Cause::Cloud,
        },
    }
}

/// Names the action that is denied and why. AWS's own text begins with the name of the caller's
/// session, which changes with each token, and may end with a message that only an administrator
/// can decode.
fn denied(action: Action, message: &str) -> String {
    const PERFORM: &str = "not authorized to perform: ";
    let text = stable(message);
    match text.split_once(PERFORM) {
        Some((_, rest)) => format!("the credentials do not permit {rest}"),
        None if text.is_empty() => format!("the credentials do not permit {}", action.right()),
        None => format!("the credentials do not permit {}: {text}", action.right()),
    }
}

/// AWS's message in one line, without what differs between two equal calls.
pub(crate) fn stable(message: &str) -> String {
    let mut text = message;
    for end in [
        "Encoded authorization failure message",
        "(Service: ",
        "[RequestId",
        "Request ID:",
        "RequestId:",
    ] {
        if let Some((before, _)) = text.split_once(end) {
            text = before;
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    let line = line.trim_end_matches([' ', '(', '.']);
    line.chars()
        .filter(|one| !one.is_control())
        .take(LONGEST)
        .collect()
}

impl fmt::Display for Code<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            code => write!(f, " ({code})"),
        }
    }
}

#[cfg(test)]
mod tests;
