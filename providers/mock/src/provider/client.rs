//! The mock cloud's API as functions: one for each call, with a time-out (`transport` sends
//! them). Answers become the provider's errors, whose messages are the same on every retry.

mod transport;

use std::fmt::Write as _;
use std::time::Duration;

use ballast_provider::text::bounded;
use ballast_provider::{Mark, ProviderError, Reason, Refusal, mark};
use http::{Method, StatusCode};

use self::transport::Transport;
use super::token::Token;
use crate::api::{
    ChangesPage, Code, LoadBalancerPage, LoadBalancerView, Position, Problem, PutLoadBalancer,
    TagPatch, TargetHealthView, TargetSetBody,
};

/// The time-out of a call. A long poll may take its waiting time in addition.
const CALL_LIMIT: Duration = Duration::from_secs(4);

/// The maximum number of load balancers in a list of all pages, ten times what a cloud holds
/// by default.
const MOST_LISTED: usize = 100_000;

/// The time to wait if the cloud sets none.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// An invalid endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint {endpoint:?} is not http://HOST:PORT")]
pub struct EndpointError {
    /// The value, bounded.
    pub endpoint: String,
}

/// One cloud, called for one owner; without an owner, only to read.
#[derive(Debug)]
pub(super) struct Client {
    transport: Transport,
    mark: Option<Mark>,
}

/// All pages of a list.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) items: Vec<LoadBalancerView>,
    /// The position in the stream of changes after which no change is missed.
    pub(super) position: Position,
    /// The identity of the cloud; empty if the cloud is older than this program.
    pub(super) cloud: String,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// No answer: the request may have been executed or not.
    Unreachable,
    /// An error answer.
    Refused {
        problem: Problem,
        retry_after: Option<Duration>,
    },
}

// === impl Client ===

impl Client {
    pub(super) fn new(
        endpoint: &str,
        token: Token,
        mark: Option<Mark>,
    ) -> Result<Self, EndpointError> {
        let bad = || EndpointError {
            endpoint: bounded(endpoint),
        };
        let uri: http::Uri = endpoint.parse().map_err(|_| bad())?;
        let plain = uri.path() == "/" || uri.path().is_empty();
        if uri.scheme_str() != Some("http") || uri.authority().is_none() || !plain {
            return Err(bad());
        }
        Ok(Self {
            transport: Transport::new(endpoint.trim_end_matches('/').to_owned(), token),
            mark,
        })
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<LoadBalancerView>, Failed> {
        let path = format!("/v1/load-balancers/{}", encode(name));
        found(
            self.transport
                .call(Method::GET, &path, None::<&()>, CALL_LIMIT)
                .await,
        )
    }

    /// Creates or changes a load balancer. The cloud refuses the call if `life` is not its
    /// current run.
    pub(super) async fn put(
        &self,
        name: &str,
        body: &PutLoadBalancer,
        life: Option<&Position>,
    ) -> Result<LoadBalancerView, Failed> {
        let mut path = format!("/v1/load-balancers/{}{}", encode(name), self.owner());
        if let Some(life) = life {
            // Writing into a String does not fail.
            let _ = write!(path, "&epoch={}", encode(&life.epoch));
        }
        let (_, view) = self
            .transport
            .call(Method::PUT, &path, Some(body), CALL_LIMIT)
            .await?;
        Ok(view)
    }

    /// Returns whether it is gone; `false` if the deletion is in progress.
    pub(super) async fn delete(&self, name: &str) -> Result<bool, Failed> {
        let path = format!("/v1/load-balancers/{}{}", encode(name), self.owner());
        let (status, _) = self
            .transport
            .send(Method::DELETE, &path, None::<&()>, CALL_LIMIT)
            .await?;
        Ok(status != StatusCode::ACCEPTED)
    }

    /// The health of the targets, if the load balancer exists.
    pub(super) async fn health(&self, name: &str) -> Result<Option<Vec<TargetHealthView>>, Failed> {
        let path = format!("/v1/load-balancers/{}/targets", encode(name));
        found(
            self.transport
                .call(Method::GET, &path, None::<&()>, CALL_LIMIT)
                .await,
        )
    }

    pub(super) async fn patch_tags(
        &self,
        name: &str,
        change: &TagPatch,
    ) -> Result<LoadBalancerView, Failed> {
        let path = format!("/v1/load-balancers/{}/tags{}", encode(name), self.owner());
        let (_, view) = self
            .transport
            .call(Method::PATCH, &path, Some(change), CALL_LIMIT)
            .await?;
        Ok(view)
    }

    /// Lists every load balancer of this owner (of all owners, without one).
    pub(super) async fn list(&self) -> Result<Listed, Failed> {
        let filter = self.mark.as_ref().map_or_else(String::new, |mark| {
            let cluster = encode(&format!("{}={}", mark::CLUSTER, mark.cluster));
            let class = encode(&format!("{}={}", mark::CLASS, mark.class));
            format!("tag={cluster}&tag={class}")
        });
        let base = format!("/v1/load-balancers?{filter}");
        let mut path = base.clone();
        let (mut items, mut position) = (Vec::new(), None);
        loop {
            let (_, page): (_, LoadBalancerPage) = self
                .transport
                .call(Method::GET, &path, None::<&()>, CALL_LIMIT)
                .await?;
            let more = !page.items.is_empty();
            items.extend(page.items);
            if items.len() > MOST_LISTED || (!more && page.next_page_token.is_some()) {
                tracing::warn!(items = items.len(), "the mock cloud's list does not end");
                return Err(Failed::internal());
            }
            let position = position.get_or_insert(page.position);
            match page.next_page_token {
                Some(token) => path = format!("{base}&pageToken={}", encode(&token)),
                None => {
                    return Ok(Listed {
                        items,
                        position: position.clone(),
                        cloud: page.cloud,
                    });
                }
            }
        }
    }

    pub(super) async fn get_targets(&self, name: &str) -> Result<Option<TargetSetBody>, Failed> {
        let path = format!("/v1/target-sets/{}", encode(name));
        found(
            self.transport
                .call(Method::GET, &path, None::<&()>, CALL_LIMIT)
                .await,
        )
    }

    pub(super) async fn put_targets(&self, name: &str, body: &TargetSetBody) -> Result<(), Failed> {
        let path = format!("/v1/target-sets/{}{}", encode(name), self.owner());
        self.transport
            .send(Method::PUT, &path, Some(body), CALL_LIMIT)
            .await?;
        Ok(())
    }

    /// Waits for changes after a position. Returns `None` if the cloud no longer knows it.
    pub(super) async fn changes(
        &self,
        since: &Position,
        wait: Duration,
    ) -> Result<Option<ChangesPage>, Failed> {
        let path = format!(
            "/v1/changes?since={}&epoch={}&wait={}",
            since.seq,
            encode(&since.epoch),
            wait.as_secs()
        );
        let called = self
            .transport
            .call(Method::GET, &path, None::<&()>, CALL_LIMIT + wait);
        match called.await {
            Ok((_, page)) => Ok(Some(page)),
            Err(failed) if failed.code() == Some(Code::SequenceUnknown) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// The error for the controller.
    pub(super) fn error(&self, failed: Failed) -> ProviderError {
        let endpoint = &self.transport.endpoint;
        let (problem, retry_after) = match failed {
            Failed::Unreachable => {
                return ProviderError::transient(format!(
                    "the mock cloud at {endpoint} cannot be reached"
                ));
            }
            Failed::Refused {
                problem,
                retry_after,
            } => (problem, retry_after),
        };
        match (problem.code, reason(problem.code)) {
            (Code::Throttled, _) => ProviderError::Throttled {
                retry_after: retry_after.unwrap_or(DEFAULT_RETRY),
            },
            (Code::Unauthorized, _) => ProviderError::transient(self.unauthorized()),
            (Code::Internal | Code::SequenceUnknown, _) => ProviderError::transient(format!(
                "the mock cloud at {endpoint} reports an internal error; see its log"
            )),
            (_, reason) => Refusal::new(reason, problem.message).into(),
        }
    }

    fn unauthorized(&self) -> String {
        let endpoint = &self.transport.endpoint;
        match self.transport.token.path() {
            Some(path) if !self.transport.token.is_known() => format!(
                "the mock cloud at {endpoint} requires a token, and the controller found none in --mock-token-file {}",
                path.display()
            ),
            None if !self.transport.token.is_known() => format!(
                "the mock cloud at {endpoint} requires a token, and the controller has none for it: set --mock-token-file (with --mock-token-namespace it is only for mock clouds of that namespace)"
            ),
            _ => format!(
                "the mock cloud at {endpoint} does not accept the controller's token: --mock-token-file of the controller and --token-file of the cloud must have the same content"
            ),
        }
    }

    fn owner(&self) -> String {
        let owner = self.mark.as_ref().map_or_else(String::new, |mark| {
            let owner = format!("{}/{}", mark.cluster, mark.class);
            format!("owner={}", encode(&owner))
        });
        format!("?{owner}")
    }
}

// === impl Failed ===

impl Failed {
    pub(super) const fn code(&self) -> Option<Code> {
        match self {
            Self::Unreachable => None,
            Self::Refused { problem, .. } => Some(problem.code),
        }
    }

    fn internal() -> Self {
        Self::Refused {
            problem: Problem::new(Code::Internal, "unreadable"),
            retry_after: None,
        }
    }
}

/// The reason a condition shows for a code.
pub(super) const fn reason(code: Code) -> Reason {
    match code {
        Code::QuotaExceeded => Reason::QuotaExceeded,
        Code::AddressInUse => Reason::AddressInUse,
        Code::NoAddressAvailable => Reason::NoAddressAvailable,
        Code::PortInUse => Reason::PortInUse,
        Code::Throttled => Reason::Throttled,
        Code::Invalid => Reason::Invalid,
        Code::Deleting => Reason::Releasing,
        Code::NotFound
        | Code::NotOwner
        | Code::Unauthorized
        | Code::SequenceUnknown
        | Code::Internal => Reason::CloudError,
    }
}

/// Turns "not found" into `None`.
fn found<T>(called: Result<(StatusCode, T), Failed>) -> Result<Option<T>, Failed> {
    match called {
        Ok((_, value)) => Ok(Some(value)),
        Err(failed) if failed.code() == Some(Code::NotFound) => Ok(None),
        Err(failed) => Err(failed),
    }
}

/// Percent-encoding of one part of a path or query.
fn encode(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut encoded, byte| {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    encoded.push(char::from(byte));
                }
                // Writing into a String does not fail.
                _ => drop(write!(encoded, "%{byte:02X}")),
            }
            encoded
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(endpoint: &str) -> Result<Client, EndpointError> {
        let mark = Mark {
            cluster: "c".into(),
            cluster_name: "lab".into(),
            class: "local".into(),
            writer: String::new(),
        };
        Client::new(endpoint, Token::default(), Some(mark))
    }

    #[test]
    fn only_plain_http_endpoints_are_taken() {
        for good in ["http://127.0.0.1:8111", "http://[::1]:8111/", "http://mock"] {
            assert!(client(good).is_ok(), "{good}");
        }
        for bad in [
            "127.0.0.1:8111",
            "https://mock",
            "http://",
            "http://mock/v1",
            "unix:/x",
        ] {
            assert!(client(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_plain_is_encoded() {
        assert_eq!(
            encode("ballast.dev/class=a b"),
            "ballast.dev%2Fclass%3Da%20b"
        );
    }

    #[test]
    fn errors_say_the_same_on_every_retry() {
        let client = client("http://mock:1").unwrap();
        assert_eq!(
            client.error(Failed::Unreachable),
            ProviderError::transient("the mock cloud at http://mock:1 cannot be reached")
        );
        for (code, expected) in [
            (Code::QuotaExceeded, Reason::QuotaExceeded),
            (Code::AddressInUse, Reason::AddressInUse),
            (Code::NoAddressAvailable, Reason::NoAddressAvailable),
            (Code::Invalid, Reason::Invalid),
            (Code::NotOwner, Reason::CloudError),
        ] {
            let failed = Failed::Refused {
                problem: Problem::new(code, "why"),
                retry_after: None,
            };
            let refused = ProviderError::Refused(Refusal::new(expected, "why"));
            assert_eq!(client.error(failed), refused);
        }
    }
}
