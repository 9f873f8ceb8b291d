//! The time-out of calls of a provider.

use std::time::Duration;

use ballast_provider::ProviderError;

/// The time-out of one call of a provider, with all requests that it makes.
const PROVIDER_LIMIT: Duration = Duration::from_secs(30);

/// Ends a call of a provider after [`PROVIDER_LIMIT`]: a provider that hangs must not block a
/// worker. The provider's own requests have shorter time-outs. Safe to cancel if `call` is.
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
