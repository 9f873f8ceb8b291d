//! Sends calls to the mock cloud, with the token, a time-out and a bound on the answer.

use std::error::Error;
use std::time::Duration;

use ballast_provider::causes::causes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{CALL_LIMIT, Failed};
use crate::api::{Code, Problem};
use crate::provider::token::Token;

/// The maximum number of bytes of an answer: a full page of load balancers with 256 listeners
/// each.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The maximum number of bytes of an error answer. A longer one counts as unreadable.
const MAX_PROBLEM: usize = 64 * 1024;

/// How long an idle connection is kept. The cloud closes it after 15 s, and a call at that
/// moment would have to be repeated.
const IDLE: Duration = Duration::from_secs(5);

/// The maximum number of idle connections: a controller with many classes must not take all
/// of the cloud's connections.
const MOST_IDLE: usize = 4;

/// The longest time that the cloud can make the controller wait.
const LONGEST_RETRY: Duration = Duration::from_mins(5);

/// The connections to one cloud.
#[derive(Debug)]
pub(super) struct Transport {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    pub(super) endpoint: String,
    pub(super) token: Token,
}

// === impl Transport ===

impl Transport {
    /// Makes no call. `endpoint` has no slash at its end.
    pub(super) fn new(endpoint: String, token: Token) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CALL_LIMIT));
        connector.set_nodelay(true);
        Self {
            http: HttpClient::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MOST_IDLE)
                .build(connector),
            endpoint,
            token,
        }
    }

    pub(super) async fn call<T: DeserializeOwned>(
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
    pub(super) async fn send(
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
        let unreachable = |error: &(dyn Error + 'static)| {
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
