//! HTTP calls to the mock cloud: one function per call, each with a time-out. Answers become
//! the provider's errors, whose messages are the same on every retry.

use std::fmt::Write as _;
use std::time::Duration;

use ballast_provider::text::bounded;
use ballast_provider::{Mark, ProviderError, Reason, Refusal, mark};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::token::Token;
use crate::api::{
    ChangesPage, Code, LoadBalancerPage, LoadBalancerView, Position, Problem, PutLoadBalancer,
    TagPatch, TargetSetBody,
};

/// The time-out of a call. A long poll may take its waiting time in addition.
const CALL_LIMIT: Duration = Duration::from_secs(4);

/// The maximum number of bytes of an answer: a full page of load balancers with 256 listeners
/// each.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The maximum number of bytes of an error answer. A longer one counts as unreadable.
const MAX_PROBLEM: usize = 64 * 1024;

/// The maximum number of load balancers in a list of all pages, ten times what a cloud holds
/// by default.
const MOST_LISTED: usize = 100_000;

/// How long an idle connection is kept. The cloud closes it after 15 s, and a call at that
/// moment would have to be repeated.
const IDLE: Duration = Duration::from_secs(5);

/// The maximum number of idle connections: a controller with many classes must not take all
/// of the cloud's connections.
const MOST_IDLE: usize = 4;

/// The time to wait if the cloud sets none.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// The longest time that the cloud can make the controller wait.
const LONGEST_RETRY: Duration = Duration::from_mins(5);

/// The maximum number of causes of an error in a log line.
const DEEPEST: usize = 16;

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
    http: HttpClient<HttpConnector, Full<Bytes>>,
    endpoint: String,
    token: Token,
    mark: Option<Mark>,
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
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CALL_LIMIT));
        connector.set_nodelay(true);
        Ok(Self {
            http: HttpClient::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MOST_IDLE)
                .build(connector),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            mark,
        })
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<LoadBalancerView>, Failed> {
        let path = format!("/v1/load-balancers/{}", encode(name));
        found(self.call(Method::GET, &path, None::<&()>, CALL_LIMIT).await)
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
            .call(Method::PUT, &path, Some(body), CALL_LIMIT)
            .await?;
        Ok(view)
    }

    /// Returns whether it is gone; `false` if the deletion is in progress.
    pub(super) async fn delete(&self, name: &str) -> Result<bool, Failed> {
        let path = format!("/v1/load-balancers/{}{}", encode(name), self.owner());
        let (status, _) = self
            .send(Method::DELETE, &path, None::<&()>, CALL_LIMIT)
            .await?;
        Ok(status != StatusCode::ACCEPTED)
    }

    pub(super) async fn patch_tags(
        &self,
        name: &str,
        change: &TagPatch,
    ) -> Result<LoadBalancerView, Failed> {
        let path = format!("/v1/load-balancers/{}/tags{}", encode(name), self.owner());
        let (_, view) = self
            .call(Method::PATCH, &path, Some(change), CALL_LIMIT)
            .await?;
        Ok(view)
    }

    /// Lists every load balancer of this owner (of all owners, without one), with the position in
    /// the stream of changes after which no change is missed.
    pub(super) async fn list(&self) -> Result<(Vec<LoadBalancerView>, Position), Failed> {
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
                None => return Ok((items, position.clone())),
            }
        }
    }

    pub(super) async fn get_targets(&self, name: &str) -> Result<Option<TargetSetBody>, Failed> {
        let path = format!("/v1/target-sets/{}", encode(name));
        found(self.call(Method::GET, &path, None::<&()>, CALL_LIMIT).await)
    }

    pub(super) async fn put_targets(&self, name: &str, body: &TargetSetBody) -> Result<(), Failed> {
        let path = format!("/v1/target-sets/{}{}", encode(name), self.owner());
        self.send(Method::PUT, &path, Some(body), CALL_LIMIT)
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
        let called = self.call(Method::GET, &path, None::<&()>, CALL_LIMIT + wait);
        match called.await {
            Ok((_, page)) => Ok(Some(page)),
            Err(failed) if failed.code() == Some(Code::SequenceUnknown) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// The error for the controller.
    pub(super) fn error(&self, failed: Failed) -> ProviderError {
        let endpoint = &self.endpoint;
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
        let endpoint = &self.endpoint;
        match self.token.path() {
            Some(path) if !self.token.is_known() => format!(
                "the mock cloud at {endpoint} requires a token, and the controller found none in --mock-token-file {}",
                path.display()
            ),
            None if !self.token.is_known() => format!(
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

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        limit: Duration,
    ) -> Result<(StatusCode, T), Failed> {
        let (status, answer) = self.send(method, path, body, limit).await?;
        let value = serde_json::from_slice(&answer).map_err(|error| {
            let error = causes(&error);
            tracing::warn!(path, error, "cannot read the mock cloud's answer");
            Failed::internal()
        })?;
        Ok((status, value))
    }

    /// Sends the call, and repeats it with another token if the cloud refuses the first one.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Failed> {
        let mut token = self.token.current().await;
        let mut answer = self
            .send_with(token.as_deref(), method.clone(), path, body, limit)
            .await;
        if answer.as_ref().err().and_then(Failed::code) == Some(Code::Unauthorized)
            && let Some(other) = self.token.other_than(token.as_deref()).await
        {
            let other = token.insert(other);
            answer = self
                .send_with(Some(other), method.clone(), path, body, limit)
                .await;
        }
        // The cloud checks the token only in calls that change something.
        if method != Method::GET && answer.is_ok() {
            self.token.accepted(token.as_deref());
        }
        answer
    }

    async fn send_with(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Failed> {
        let shown = method.clone();
        let unreachable = |error: &dyn std::error::Error| {
            let error = causes(error);
            tracing::debug!(method = %shown, path, error, "the mock cloud does not answer");
            Failed::Unreachable
        };
        let request = self.request(token, method.clone(), path, body)?;
        let answered = timeout(limit, async {
            let response = self
                .http
                .request(request)
                .await
                .map_err(|error| unreachable(&error))?;
            let (head, body) = response.into_parts();
            let most = if head.status.is_success() {
                MAX_ANSWER
            } else {
                MAX_PROBLEM
            };
            match Limited::new(body, most).collect().await {
                Ok(body) => Ok((head, body.to_bytes())),
                Err(error) if error.is::<LengthLimitError>() && most == MAX_PROBLEM => {
                    Ok((head, Bytes::new()))
                }
                Err(error) => Err(unreachable(error.as_ref())),
            }
        });
        let (head, body) = answered.await.map_err(|elapsed| unreachable(&elapsed))??;
        if head.status.is_success() {
            return Ok((head.status, body));
        }
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| {
            Problem::new(Code::Internal, format!("HTTP status {}", head.status))
        });
        tracing::debug!(%method, path, status = %head.status, %problem, "the mock cloud refuses");
        let seconds = head.headers.get(header::RETRY_AFTER);
        let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        Err(Failed::Refused {
            problem,
            retry_after: retry_after.map(|wait| wait.min(LONGEST_RETRY)),
        })
    }

    fn request(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Request<Full<Bytes>>, Failed> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|_| Failed::internal())?.unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.endpoint))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body.into()));
        request.map_err(|_| Failed::internal())
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

/// The message of an error with its causes, bounded. The last cause of a failed connection says why it
/// failed.
fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = chain.take(DEEPEST).map(ToString::to_string).collect();
    bounded(&texts.join(": "))
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
