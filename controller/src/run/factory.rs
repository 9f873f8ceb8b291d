//! Which code serves which provider settings: the only place that knows all providers.

use std::sync::Arc;

use ballast_crds::ProviderSettings;
use ballast_l2::L2Provider;
use ballast_mock::{InstantProvider, MockProvider, Token};
use ballast_provider::{Mark, Provider, ProviderError, Reason, Refusal, Traits};
use http::Uri;
use tracing::warn;

use crate::class::instance::Factory;
use crate::pools::{AddressBook, validate_l2};

/// The providers of this build.
#[derive(Clone, Debug, Default)]
pub struct Providers {
    /// Bearer token for mock clouds that want one.
    pub mock_token: Token,
    /// The namespace of the mock clouds that get it; `None`: all get it.
    pub mock_token_namespace: Option<String>,
    /// Who has which address of the pools; one for all `l2` classes.
    pub addresses: AddressBook,
    /// Mock classes get the in-process provider: no server, no data plane.
    pub simulate: bool,
}

/// The namespace of a Service in the cluster that a URL names, as the cluster's DNS does:
/// `NAME.NAMESPACE.svc`, also with the domain `cluster.local`. Of other names nobody knows
/// where they lead.
fn namespace_of(endpoint: &str) -> Option<String> {
    let uri: Uri = endpoint.parse().ok()?;
    let labels: Vec<&str> = uri.host()?.split('.').collect();
    match labels[..] {
        [_, namespace, "svc"] | [_, namespace, "svc", "cluster", "local"] => {
            Some(namespace.to_owned())
        }
        _ => None,
    }
}

fn no_such_provider(settings: &ProviderSettings) -> Refusal {
    Refusal::new(
        Reason::Unsupported,
        format!(
            "spec.{}: this build of Ballast has no such provider",
            settings.kind().as_str()
        ),
    )
}

// === impl Providers ===

impl Providers {
    fn may_know_the_token(&self, endpoint: &str) -> bool {
        let own = self.mock_token_namespace.as_ref();
        own.is_none_or(|own| namespace_of(endpoint).as_ref() == Some(own))
    }
}

impl Factory for Providers {
    fn supports(&self, settings: &ProviderSettings) -> Result<Traits, Refusal> {
        match settings {
            ProviderSettings::Mock(_) => Ok(MockProvider::TRAITS),
            ProviderSettings::L2(_) => Ok(L2Provider::TRAITS),
            ProviderSettings::Aws(_) => Err(no_such_provider(settings)),
        }
    }

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
                let token = if self.may_know_the_token(&mock.endpoint) {
                    self.mock_token.clone()
                } else {
                    Token::default()
                };
                let provider = MockProvider::new(&mock.endpoint, token, mark).map_err(|error| {
                    Refusal::new(
                        Reason::Invalid,
                        format!("spec.mock.endpoint is \"{}\": {error}", mock.endpoint),
                    )
                })?;
                Ok(Arc::new(provider))
            }
            ProviderSettings::L2(l2) => {
                let pools = validate_l2(l2)?;
                let addresses = Arc::clone(self.addresses.allocator());
                Ok(Arc::new(L2Provider::new(mark.class, pools, addresses)))
            }
            ProviderSettings::Aws(_) => Err(no_such_provider(settings).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secrets_token_is_for_the_mock_clouds_beside_it() {
        let of = |namespace: Option<&str>| Providers {
            mock_token_namespace: namespace.map(str::to_owned),
            ..Providers::default()
        };
        for (endpoint, expected) in [
            ("http://ballast-mock-cloud.system.svc:8111", true),
            ("http://other.system.svc.cluster.local", true),
            ("http://ballast-mock-cloud.elsewhere.svc:8111", false),
            ("http://ballast-mock-cloud.system.svc.example.com", false),
            ("http://system.svc:8111", false),
            ("http://192.0.2.1:8111", false),
            ("http://[2001:db8::1]:8111", false),
            ("nonsense", false),
        ] {
            assert_eq!(
                of(Some("system")).may_know_the_token(endpoint),
                expected,
                "{endpoint}"
            );
            assert!(of(None).may_know_the_token(endpoint), "{endpoint}");
        }
    }
}
