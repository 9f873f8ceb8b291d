//! Which code serves which provider settings: the only place that knows all providers.

use std::sync::Arc;

use ballast_crds::ProviderSettings;
use ballast_mock::{InstantProvider, MockProvider};
use ballast_provider::{Mark, Provider, ProviderError, Reason, Refusal};
use tracing::warn;

use crate::instance::Factory;

/// The providers of this build.
#[derive(Clone, Debug, Default)]
pub struct Providers {
    /// Bearer token for mock clouds that want one.
    pub mock_token: Option<String>,
    /// Mock classes get the in-process provider: no server, no data plane.
    pub simulate: bool,
}

// === impl Providers ===

impl Factory for Providers {
    fn build(
        &self,
        settings: &ProviderSettings,
        mark: Mark,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        match settings {
            ProviderSettings::Mock(_) if self.simulate => {
                warn!(
                    class = mark.class,
                    "simulated: nothing listens on the addresses of this class"
                );
                Ok(Arc::new(InstantProvider::new(mark)))
            }
            ProviderSettings::Mock(mock) => {
                let provider = MockProvider::new(&mock.endpoint, self.mock_token.clone(), mark)
                    .map_err(|error| {
                        Refusal::new(
                            Reason::Invalid,
                            format!("spec.mock.endpoint is \"{}\": {error}", mock.endpoint),
                        )
                    })?;
                Ok(Arc::new(provider))
            }
            ProviderSettings::Aws(_) | ProviderSettings::L2(_) => Err(Refusal::new(
                Reason::Unsupported,
                format!(
                    "this build of Ballast has no {} provider",
                    settings.kind().as_str()
                ),
            )
            .into()),
        }
    }
}
