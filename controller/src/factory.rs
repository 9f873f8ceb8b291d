//! Which code serves which provider settings: the only place that knows all providers.

use std::sync::Arc;

use ballast_crds::{L2Settings, ProviderSettings};
use ballast_l2::{Addresses, L2Provider, PoolFilter};
use ballast_mock::{InstantProvider, MockProvider};
use ballast_provider::{Mark, Provider, ProviderError, Reason, Refusal};
use tracing::warn;

use crate::instance::Factory;
use crate::selectors;

/// The providers of this build.
#[derive(Clone, Debug, Default)]
pub struct Providers {
    /// Bearer token for mock clouds that want one.
    pub mock_token: Option<String>,
    /// Who has which address of the pools; one for all `l2` classes.
    pub addresses: Arc<Addresses>,
    /// Mock classes get the in-process provider: no server, no data plane.
    pub simulate: bool,
}

/// The pools of a class; `None`: all.
fn pool_filter(l2: &L2Settings) -> Result<Option<PoolFilter>, String> {
    if l2.address_pools.is_empty() && l2.address_pool_selector.is_none() {
        return Ok(None);
    }
    let selector = l2.address_pool_selector.as_ref();
    Ok(Some(PoolFilter {
        names: l2.address_pools.iter().cloned().collect(),
        selector: selector.map(selectors::parse).transpose()?,
    }))
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
            ProviderSettings::L2(l2) => {
                let pools = pool_filter(l2).map_err(|error| {
                    Refusal::new(
                        Reason::Invalid,
                        format!("spec.l2.addressPoolSelector: {error}"),
                    )
                })?;
                let addresses = Arc::clone(&self.addresses);
                Ok(Arc::new(L2Provider::new(mark.class, pools, addresses)))
            }
            ProviderSettings::Aws(_) => Err(Refusal::new(
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
