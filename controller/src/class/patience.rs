//! How long a call of a provider may take.

use std::time::Duration;

use ballast_provider::ProviderError;

/// For one call of a provider, with all that it calls in turn.
const PROVIDER_LIMIT: Duration = Duration::from_secs(30);

/// A provider that hangs must not hold a worker for ever; its own calls have shorter limits.
pub async fn in_time<T>(
    call: impl Future<Output = Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    match tokio::time::timeout(PROVIDER_LIMIT, call).await {
        Ok(result) => result,
        Err(_) => Err(ProviderError::transient(format!(
            "the provider did not answer in {} s",
            PROVIDER_LIMIT.as_secs()
        ))),
    }
}
