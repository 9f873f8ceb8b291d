//! Builds providers: the only place that knows all of them.

use std::sync::Arc;

use ballast_aws::client::{Clients, Connection};
use ballast_aws::provider::{AwsInventory, AwsProvider};
use ballast_aws::settings::ClassSettings;
use ballast_crds::{AwsSettings, MockSettings, ProviderSettings};
use ballast_l2::L2Provider;
use ballast_mock::{EndpointError, InstantProvider, MockInventory, MockProvider, Token};
use ballast_provider::{Inventory, Mark, Provider, ProviderError, Reason, Refusal, Traits};
use http::Uri;
use tracing::warn;

use super::aws::class_settings;
use crate::class::instance::Factory;
use crate::pools::{AddressBook, validate_l2};

/// The providers of this build.
#[derive(Clone, Debug, Default)]
pub struct Providers {
    /// The bearer token for mock clouds.
    pub mock_token: Token,
    /// The namespace of the mock clouds that receive the token; `None`: all of them.
    pub mock_token_namespace: Option<String>,
    /// The assigned addresses of the pools; one book for all `l2` classes.
    pub addresses: AddressBook,
    /// The clients of AWS; one for all classes of an account and region.
    pub aws: Clients,
    /// Mock classes use the provider in this process, without a server and a data plane.
    pub simulate: bool,
}

/// The namespace of the Service that a URL names in the form of the cluster's DNS:
/// `NAME.NAMESPACE.svc`, also with the domain `cluster.local`. Other names can lead anywhere.
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

fn invalid_endpoint(mock: &MockSettings, error: &EndpointError) -> Refusal {
    Refusal::new(
        Reason::Invalid,
        format!("spec.mock.endpoint is \"{}\": {error}", mock.endpoint),
    )
}

/// Endpoints and credentials are those of the environment.
fn connection(region: &str) -> Connection {
    Connection {
        region: Some(region.to_owned()),
        ..Connection::default()
    }
}

// === impl Providers ===

impl Providers {
    /// Lists what the cloud of a class holds, whichever cluster and class it belongs to. For
    /// commands that know no cluster.
    pub fn inventory(
        &self,
        settings: &ProviderSettings,
    ) -> Result<Arc<dyn Inventory>, ProviderError> {
        match settings {
            ProviderSettings::Mock(mock) => {
                let token = self.token_for(&mock.endpoint);
                let inventory = MockInventory::new(&mock.endpoint, token);
                let inventory = inventory.map_err(|error| invalid_endpoint(mock, &error))?;
                Ok(Arc::new(inventory))
            }
            ProviderSettings::L2(_) => Err(Refusal::new(
                Reason::Unsupported,
                "spec.l2: nothing exists outside of the cluster; the Services list the addresses",
            )
            .into()),
            ProviderSettings::Aws(aws) => {
                let class = class_settings(aws)?;
                let connection = connection(&class.region);
                Ok(Arc::new(AwsInventory::new(
                    self.aws.clone(),
                    connection,
                    class,
                )))
            }
        }
    }

    /// The settings of an `aws` class in the terms of its provider, for commands that explain them.
    pub fn aws_settings(aws: &AwsSettings) -> Result<ClassSettings, Refusal> {
        class_settings(aws)
    }

    fn token_for(&self, endpoint: &str) -> Token {
        if self.may_know_the_token(endpoint) {
            self.mock_token.clone()
        } else {
            Token::default()
        }
    }

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
            ProviderSettings::Aws(aws) => class_settings(aws).map(|_| AwsProvider::TRAITS),
        }
    }

    /// Only AWS has annotations of its own.
    fn setting_prefixes(&self) -> &'static [&'static str] {
        &[
            ballast_aws::annotations::PREFIX,
            ballast_aws::annotations::ACTIONS,
            ballast_aws::adopt::ADOPT,
        ]
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
                    "simulated: no process listens on the addresses of this class"
                );
                Ok(Arc::new(InstantProvider::new(mark)))
            }
            ProviderSettings::Mock(mock) => {
                let token = self.token_for(&mock.endpoint);
                let provider = MockProvider::new(&mock.endpoint, token, mark);
                let provider = provider.map_err(|error| invalid_endpoint(mock, &error))?;
                Ok(Arc::new(provider))
            }
            ProviderSettings::L2(l2) => {
                let pools = validate_l2(l2)?;
                let addresses = Arc::clone(self.addresses.allocator());
                let announcements = Arc::clone(self.addresses.announcements());
                let provider = L2Provider::new(mark.class, pools, addresses, announcements);
                Ok(Arc::new(provider))
            }
            ProviderSettings::Aws(aws) => {
                let class = class_settings(aws)?;
                let connection = connection(&class.region);
                Ok(Arc::new(AwsProvider::new(
                    &self.aws, connection, class, mark,
                )))
            }
        }
    }
}

/// Settings of classes for tests that need a provider with certain traits, whichever it is.
#[cfg(test)]
pub(crate) mod samples {
    use ballast_crds::{AwsSettings, L2Settings, MockSettings, ProviderSettings};

    /// Load balancers in a cloud.
    pub(crate) fn in_a_cloud() -> ProviderSettings {
        ProviderSettings::Mock(MockSettings {
            endpoint: "http://127.0.0.1:1".into(),
        })
    }

    /// Load balancers in a cloud with another URL.
    pub(crate) fn in_another_cloud() -> ProviderSettings {
        ProviderSettings::Mock(MockSettings {
            endpoint: "http://localhost:1/".into(),
        })
    }

    /// Addresses from pools.
    pub(crate) fn from_pools() -> ProviderSettings {
        let settings: L2Settings = serde_json::from_str("{}").unwrap();
        ProviderSettings::L2(settings)
    }

    /// Settings that no provider accepts.
    pub(crate) fn not_accepted() -> ProviderSettings {
        let attribute = ("idle_timeout.timeout_seconds".into(), "3".into());
        ProviderSettings::Aws(AwsSettings {
            region: "eu-central-1".into(),
            load_balancer_attributes: [attribute].into(),
            ..AwsSettings::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_have_an_inventory_and_the_others_say_why_not() {
        let of = |settings: &str| {
            let settings: ballast_crds::LoadBalancerClassSpec =
                serde_json::from_str(settings).unwrap();
            let inventory = Providers::default().inventory(&settings.provider().unwrap());
            inventory.map(drop).map_err(|error| error.reason())
        };
        for settings in [
            r#"{"mock": {"endpoint": "http://127.0.0.1:1"}}"#,
            r#"{"aws": {"region": "eu-west-1"}}"#,
        ] {
            assert_eq!(of(settings), Ok(()), "{settings}");
        }
        for (settings, reason) in [
            (r#"{"mock": {"endpoint": "127.0.0.1"}}"#, Reason::Invalid),
            (r#"{"l2": {}}"#, Reason::Unsupported),
        ] {
            assert_eq!(of(settings), Err(reason), "{settings}");
        }
    }

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
