//! Requests of commands that nobody watches: a Job of the chart tries again by itself.

use std::time::Duration;

use tokio::time::Instant;

use super::note;
use crate::process::causes::causes;

/// How long to retry while the API server does not answer.
const TRIES: Duration = Duration::from_secs(30);
/// The time between two tries.
const RETRY: Duration = Duration::from_secs(1);

/// Retries while the API server does not answer or reports an error of its own.
pub(super) async fn retry<T>(mut call: impl AsyncFnMut() -> kube::Result<T>) -> kube::Result<T> {
    let end = Instant::now() + TRIES;
    loop {
        match call().await {
            Err(kube::Error::Api(status)) if !matches!(status.code, 429 | 500..=599) => {
                return Err(kube::Error::Api(status));
            }
            Err(error) if Instant::now() < end => {
                note(format_args!("{}; trying again", causes(&error)));
                tokio::time::sleep(RETRY).await;
            }
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use k8s_openapi::api::core::v1::Secret;
    use kube::Api;
    use serde_json::json;

    use super::*;
    use crate::fixtures::{client, failure, reply};

    /// Asks an API server that answers with these codes first.
    async fn ask(codes: &[u16]) -> kube::Result<Secret> {
        let codes = Arc::new(Mutex::new(codes.to_vec()));
        let client = client(move |_, _| {
            let code = codes.lock().unwrap().pop();
            let secret = json!({"metadata": {"name": "a"}});
            async move { code.map_or_else(|| reply(200, &secret), failure) }
        });
        let api: Api<Secret> = Api::namespaced(client, "shop");
        retry(async || api.get("a").await).await
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_that_may_change_is_asked_for_again() {
        ask(&[500, 503, 429]).await.unwrap();
        let error = ask(&[403]).await.unwrap_err();
        assert!(matches!(error, kube::Error::Api(status) if status.is_forbidden()));
        let began = Instant::now();
        assert!(ask(&[500; 100]).await.is_err());
        assert!(began.elapsed() <= TRIES + RETRY, "{:?}", began.elapsed());
    }
}
