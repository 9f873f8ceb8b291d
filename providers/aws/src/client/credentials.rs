//! The credentials of all calls: the chain of the AWS SDK, behind one cache.
//!
//! The chain asks the environment, the shared files, a web identity token (IRSA), the container's
//! endpoint (EKS Pod Identity) and the instance's metadata, in this order. Its answer is used until
//! [`EARLY`] before its end, and while a new one cannot be had, until the end. Only one caller
//! asks the chain at a time; the others wait for it. After a failure the chain is left alone for
//! [`PAUSE`]: a thousand Services without credentials must not flood the source of them.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::error::innermost;

/// New credentials are asked for this long before the end of the present ones.
const EARLY: Duration = Duration::from_mins(5);
/// The time in which a source must answer.
const LIMIT: Duration = Duration::from_secs(8);
/// No source is asked again so soon after a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// The same, while there are others that are still valid.
const LIMIT_EARLY: Duration = Duration::from_secs(2);
/// No source is asked again so soon, if the present credentials are still valid, or if AWS refuses
/// them.
const PAUSE_EARLY: Duration = Duration::from_secs(30);

/// The cache.
#[derive(Debug)]
pub(super) struct Cached {
    /// `None` if nothing is configured.
    source: Option<SharedCredentialsProvider>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    present: Option<Credentials>,
    /// When the source was asked last.
    asked: Option<Instant>,
    /// Its last failure, if it has not answered since.
    failure: Option<String>,
}

// === impl Cached ===

impl Cached {
    pub(super) fn new(source: Option<SharedCredentialsProvider>) -> Self {
        Self {
            source,
            state: Mutex::default(),
        }
    }

    /// Valid credentials, or why there are none.
    pub(super) async fn get(&self) -> Result<Credentials, String> {
        let mut state = self.state.lock().await;
        let left = state.left();
        let valid = left.is_some_and(|left| !left.is_zero());
        if let Some(present) = &state.present
            && left.is_some_and(|left| left > EARLY)
        {
            return Ok(present.clone());
        }
        let (limit, pause) = if valid {
            (LIMIT_EARLY, PAUSE_EARLY)
        } else {
            (LIMIT, PAUSE)
        };
        let resting = state.failure.is_some() && state.asked.is_some_and(|at| at.elapsed() < pause);
        if !resting {
            match self.ask(limit).await {
                Ok(new) => {
                    state.failure = None;
                    state.present = Some(new.clone());
                    state.asked = Some(Instant::now());
                    return Ok(new);
                }
                Err(why) => state.failure = Some(why),
            }
            state.asked = Some(Instant::now());
        }
        match &state.present {
            Some(present) if valid => Ok(present.clone()),
            _ => Err(state.failure.clone().unwrap_or_default()),
        }
    }

    /// AWS has refused these credentials: the source is asked again, if that was not just done.
    pub(super) async fn refused(&self, key: &str) {
        let mut state = self.state.lock().await;
        let same = (state.present.as_ref()).is_some_and(|present| present.access_key_id() == key);
        let recent = state.asked.is_some_and(|at| at.elapsed() < PAUSE_EARLY);
        if same && !recent {
            state.present = None;
        }
    }

    async fn ask(&self, limit: Duration) -> Result<Credentials, String> {
        let Some(source) = &self.source else {
            return Err("none are configured".into());
        };
        match timeout(limit, source.provide_credentials()).await {
            Ok(Ok(new)) => Ok(new),
            Ok(Err(error)) => Err(innermost(&error)),
            Err(_) => Err("their source does not answer".into()),
        }
    }
}

// === impl State ===

impl State {
    /// How long the present credentials are valid; for ever is a long time.
    fn left(&self) -> Option<Duration> {
        let end = self.present.as_ref()?.expiry();
        Some(end.map_or(Duration::MAX, |end| {
            end.duration_since(SystemTime::now()).unwrap_or_default()
        }))
    }
}

/// For the SDK.
impl ProvideCredentials for Cached {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let got: provider::Result = self.get().await.map_err(CredentialsError::not_loaded);
            got
        })
    }
}

#[cfg(test)]
mod tests;
