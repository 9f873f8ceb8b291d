//! Calls to AWS: Elastic Load Balancing through the SDK, EC2 through a small client of our own.
//!
//! [`Client`] makes one call or one complete read, with a time-out, and returns plain values
//! ([`values`]) or a [`CallError`] that says what its caller can do. It decides nothing, keeps
//! nothing but connections and credentials, and is safe to use from many tasks. There is one for
//! each account and region in a process ([`Clients`]).
//!
//! ```text
//!  provider ──▶ Client::call, reads ──▶ pace: a turn within the caller's patience
//!                  ▲                      │
//!                  │                      ▼
//!                  └── value or error ◀── credentials ─▶ elb: the SDK, its retries are off
//!                        counts, logs                 └▶ ec2: encode, sign, send, decode
//! ```
//!
//! - Every call waits for its turn ([`crate::pace`]); one that AWS throttles waits again. Nothing
//!   else is ever tried again here: whoever plans the calls looks at what is there and decides.
//! - A call that was dropped may have had its effect, like one without an answer.
//! - [`actions`] lists every action, and the rights that each needs.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use ipnet::IpNet;
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::call::{Call, Ref};
use crate::observed::LoadBalancerState;
use crate::pace::{Pace, Seat};
use crate::rate::{Limits, Owner, Ticket, Urgency};
use crate::target::TargetId;

pub mod actions;
mod counts;
mod credentials;
mod ec2;
mod elb;
mod endpoint;
mod error;
mod http;
mod shared;
pub mod values;

pub use self::actions::{Action, Service};
pub use self::counts::Count;
pub(crate) use self::error::stable;
pub use self::error::{CallError, Cause};
pub use self::shared::Clients;

use self::counts::Counts;
use self::credentials::Cached;
use self::ec2::Ec2;
use self::error::Fault;
use self::http::Http;

/// What a write may take. It must end before another replica may lead: the Lease's duration less
/// its renew deadline, five seconds.
const WRITE: Duration = Duration::from_millis(4_500);
/// The same for one page of a read.
const READ: Duration = Duration::from_secs(15);
/// How often a call is made at most, if AWS throttles it each time.
const MOST_ATTEMPTS: usize = 5;
/// How requests name their sender.
const USER_AGENT: &str = concat!("ballast/", env!("CARGO_PKG_VERSION"));

/// How to reach AWS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// The region; `None` is that of the environment.
    pub region: Option<String>,
    /// Where the services are.
    pub endpoints: Endpoints,
    /// Who calls.
    pub identity: CallerIdentity,
    /// The sizes of the buckets.
    pub limits: Limits,
}

/// URLs instead of AWS's. Without one, the variables `AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2`,
/// `AWS_ENDPOINT_URL_EC2` and `AWS_ENDPOINT_URL` count, and the profile's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Of Elastic Load Balancing.
    pub load_balancing: Option<String>,
    /// Of EC2.
    pub ec2: Option<String>,
}

/// Who calls.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum CallerIdentity {
    /// Whom the SDK's chain finds: environment, shared files, IRSA, EKS Pod Identity, instance.
    #[default]
    Chain,
    /// These keys, for clouds that are not AWS.
    Fixed {
        /// The access key's ID.
        key: String,
        /// The access key.
        secret: String,
    },
}

/// Why there is no client.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// Nobody says which region.
    #[error("no region: set spec.aws.region in the class, or AWS_REGION")]
    Region,
    /// An endpoint is no URL.
    #[error("the endpoint of {service} is not an http or https URL: {url}")]
    Endpoint {
        /// Which.
        service: &'static str,
        /// The URL.
        url: String,
    },
    /// AWS has no such region.
    #[error("no endpoint for region {region}: {reason}")]
    NoEndpoint {
        /// The region.
        region: String,
        /// Why, in the SDK's words.
        reason: String,
    },
    /// The proxy of the environment cannot be used.
    #[error("HTTPS_PROXY or ALL_PROXY: {0}")]
    Proxy(String),
}

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// How soon it must go.
    pub urgency: Urgency,
    /// Until when it may wait for its turns. A read with several pages takes one for each.
    pub deadline: Instant,
    /// What becomes of its place if it does not get a turn by then.
    pub seat: Seat,
    /// For whom it is made.
    pub owner: Owner,
}

/// What a [`Call`] leaves open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// The ID of the VPC of everything that is created.
    pub vpc: String,
    /// The addresses of the subnets of that VPC. Targets elsewhere are of no zone. Empty if nobody knows them.
    pub subnets: Vec<IpNet>,
    /// The IDs and ARNs of what the plan's calls have made, by the names in [`Ref::Made`].
    pub made: BTreeMap<String, String>,
    /// The tags that what is created gets in addition: those of its birth
    /// ([`ballast_provider::Mark::birth`]).
    pub born: BTreeMap<String, String>,
}

/// What a [`Call`] returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The ID or ARN of what it has made. It may have existed before, with the same settings.
    pub id: Option<String>,
    /// Of a load balancer: its DNS name, in lower case.
    pub hostname: Option<String>,
    /// Of a load balancer: its state.
    pub state: Option<LoadBalancerState>,
}

/// Makes calls. Copies share everything.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Inner {
    region: String,
    elb: aws_sdk_elasticloadbalancingv2::Client,
    ec2: Ec2,
    credentials: Arc<Cached>,
    pace: Pace,
}

/// A future on the heap: those of the SDK are large, and the compiler cannot prove of nested ones
/// that they may move between threads.
type Soon<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// What one attempt brings.
struct Answered<T> {
    value: T,
    request: Option<String>,
}

// === impl Client ===

impl Client {
    /// Makes no call to AWS; credentials are looked up with the first one.
    pub async fn connect(connection: &Connection) -> Result<Self, ConnectError> {
        let variable = |name: &str| std::env::var(name).ok();
        let http = Http::new(variable).map_err(|error| ConnectError::Proxy(error.to_string()))?;
        let config = sdk(connection, &http).await;
        let region = config.region().map(ToString::to_string);
        let region = region
            .filter(|region| !region.is_empty())
            .ok_or(ConnectError::Region)?;
        let credentials = Arc::new(Cached::new(config.credentials_provider()));
        let found = endpoint::resolve(&config, &connection.endpoints, &region).await?;
        let provider: Arc<dyn ProvideCredentials> = credentials.clone();
        let elb = aws_sdk_elasticloadbalancingv2::config::Builder::from(&config)
            .credentials_provider(SharedCredentialsProvider::from(provider))
            .identity_cache(IdentityCache::no_cache())
            .endpoint_url(found.load_balancing)
            .build();
        let inner = Inner {
            elb: aws_sdk_elasticloadbalancingv2::Client::from_conf(elb),
            ec2: Ec2::new(&found.ec2, &region, http.connector()),
            region,
            credentials,
            pace: Pace::new(&connection.limits),
        };
        Ok(Self {
            inner: Arc::new(inner),
            counts: Arc::default(),
        })
    }

    /// The same with counters of its own.
    fn with_own_counts(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            counts: Arc::default(),
        }
    }

    /// The region of all calls.
    pub fn region(&self) -> &str {
        &self.inner.region
    }

    /// How many calls were made, by action and result.
    pub fn counts(&self) -> Vec<Count> {
        self.counts.snapshot()
    }

    /// Makes one call of a plan. It waits at most `patience` for its turn.
    pub async fn call(
        &self,
        call: &Call,
        ids: &Ids,
        urgency: Urgency,
        patience: Duration,
    ) -> Result<Answer, CallError> {
        self.call_in(call, ids, Manner::new(urgency, patience))
            .await
    }

    /// The same in this manner.
    pub async fn call_in(
        &self,
        call: &Call,
        ids: &Ids,
        manner: Manner,
    ) -> Result<Answer, CallError> {
        elb::write(self, call, ids, manner).await
    }

    /// Makes a call: credentials, a turn, one attempt with a time-out; again if AWS throttles it.
    async fn perform<'a, T>(
        &'a self,
        action: Action,
        manner: Manner,
        attempt: impl Fn(Credentials) -> Soon<'a, Answered<T>, Fault>,
    ) -> Result<T, CallError> {
        let limit = if action.writes() { WRITE } else { READ };
        let category = action.category();
        let inner = &*self.inner;
        let mut throttled: Option<CallError> = None;
        for _ in 0..MOST_ATTEMPTS {
            let credentials = inner.credentials.get().await;
            let credentials = credentials.map_err(|why| {
                CallError::unmade(
                    action,
                    Cause::Credentials,
                    format!("no credentials for AWS: {why}"),
                )
            })?;
            let Manner {
                urgency,
                deadline,
                seat,
                owner,
            } = manner;
            if let Err(busy) = inner
                .pace
                .turn(category, urgency, deadline, seat, owner)
                .await
            {
                self.counts.postponed(action);
                let retry_after = busy.retry_after;
                let error = throttled.map_or_else(
                    || CallError::postponed(action, retry_after),
                    |error| error.after(retry_after),
                );
                return Err(CallError {
                    place: busy.place,
                    ..error
                });
            }
            let key = credentials.access_key_id().to_owned();
            let made = Instant::now();
            let answer = timeout(limit, attempt(credentials)).await;
            let took = made.elapsed();
            let error = match answer.unwrap_or_else(|_| Err(Fault::late(limit))) {
                Ok(answered) => {
                    self.counts.made(action, Ok(()), took);
                    debug!(
                        action = action.name(),
                        request = answered.request,
                        milliseconds = took.as_millis(),
                        "called AWS"
                    );
                    return Ok(answered.value);
                }
                Err(fault) => CallError::of(action, fault),
            };
            self.counts.made(action, Err(error.cause), took);
            debug!(
                action = action.name(),
                request = error.request,
                milliseconds = took.as_millis(),
                code = error.code,
                "AWS has refused a call, or has not answered: {}",
                error.message
            );
            match error.cause {
                Cause::Throttled { .. } => {
                    inner.pace.throttled(category, made);
                    throttled = Some(error);
                }
                Cause::Credentials => {
                    inner.credentials.refused(&key).await;
                    return Err(error);
                }
                _ => return Err(error),
            }
            if Instant::now() >= manner.deadline {
                break;
            }
        }
        let retry_after = inner.pace.about(category, manner.urgency);
        Err(throttled.map_or_else(
            || CallError::postponed(action, retry_after),
            |error| error.after(retry_after),
        ))
    }

    fn ec2(&self) -> &Ec2 {
        &self.inner.ec2
    }

    fn elb(&self) -> &aws_sdk_elasticloadbalancingv2::Client {
        &self.inner.elb
    }
}

/// The SDK's settings: its chain of credentials, our connections, no retries.
async fn sdk(connection: &Connection, http: &Http) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(http::CONNECT)
        .operation_attempt_timeout(READ)
        .operation_timeout(READ)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http.clone())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if let Ok(name) = AppName::new("ballast") {
        loader = loader.app_name(name);
    }
    if let Some(region) = &connection.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let CallerIdentity::Fixed { key, secret } = &connection.identity {
        loader = loader.credentials_provider(Credentials::new(key, secret, None, None, "ballast"));
    }
    loader.load().await
}

// === impl Manner ===

impl Manner {
    /// It may wait for so long, from now on.
    pub fn new(urgency: Urgency, patience: Duration) -> Self {
        Self {
            urgency,
            deadline: Instant::now() + patience,
            seat: Seat::Lost,
            owner: Owner::default(),
        }
    }

    /// For the people of a namespace: among those that wait, each namespace has its turn.
    #[must_use]
    pub fn of(self, namespace: &str) -> Self {
        let owner = Owner::of(namespace);
        Self { owner, ..self }
    }

    /// Whoever makes this call comes back if there is no turn: its place is kept, from one time to
    /// the next ([`CallError::place`]).
    #[must_use]
    pub const fn keeping(self, place: Option<Ticket>) -> Self {
        Self {
            seat: Seat::Kept(place),
            ..self
        }
    }
}

// === impl Ids ===

impl Ids {
    /// The zone in a call, for a target that is in no subnet of the VPC: AWS finds the others by itself
    /// (`TargetDescription` in the Elastic Load Balancing API Reference).
    fn zone_of(&self, target: &TargetId) -> Option<&'static str> {
        let TargetId::Address(address) = target else {
            return None;
        };
        let inside = |range: &IpNet| range.contains(&address.ip());
        let elsewhere = !self.subnets.is_empty() && !self.subnets.iter().any(inside);
        elsewhere.then_some("all")
    }

    /// The tags of what is created now.
    fn tags(&self, tags: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let born = self.born.iter();
        let born = born.map(|(key, value)| (key.clone(), value.clone()));
        tags.clone().into_iter().chain(born).collect()
    }

    /// The ID or ARN behind a reference. An unknown one is a mistake in the order of the calls.
    fn of(&self, of: &Ref, action: Action) -> Result<String, CallError> {
        let id = match of {
            Ref::Known(id) => Some(id),
            Ref::Made(name) => self.made.get(name),
        };
        id.cloned().ok_or_else(|| {
            let message = format!("the plan uses {of:?} before it is made");
            CallError::unmade(action, Cause::Invalid, message)
        })
    }
}

// === impl Answer ===

impl Answer {
    fn made(id: String) -> Self {
        Self {
            id: Some(id),
            ..Self::default()
        }
    }
}

// === impl CallerIdentity ===

impl fmt::Debug for CallerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain => f.write_str("Chain"),
            Self::Fixed { key, .. } => f
                .debug_struct("Fixed")
                .field("key", key)
                .finish_non_exhaustive(),
        }
    }
}

#[cfg(test)]
mod tests;
