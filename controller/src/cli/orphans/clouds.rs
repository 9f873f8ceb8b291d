//! Which clouds the command looks at, and how it reaches them.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use ballast_crds::{AwsSettings, MockSettings, ProviderSettings};
use ballast_mock::Token;
use ballast_provider::Inventory;
use clap::Args;

use crate::run::factory::Providers;

/// More regions than AWS has.
const MOST: usize = 64;

/// Where to look.
#[derive(Clone, Debug, Default, Args)]
pub struct CloudArgs {
    /// Look at these regions of AWS, with the credentials of the environment (comma-separated).
    #[arg(long, value_delimiter = ',', value_name = "REGIONS")]
    pub region: Vec<String>,

    /// Look at the mock cloud with this URL.
    #[arg(long, value_name = "URL")]
    pub mock_cloud: Option<String>,

    /// File with the bearer token for the mock cloud.
    #[arg(
        long,
        env = "BALLAST_MOCK_TOKEN_FILE",
        value_name = "FILE",
        requires = "mock_cloud"
    )]
    pub mock_token_file: Option<PathBuf>,
}

/// One cloud.
pub struct Cloud {
    name: String,
    inventory: Arc<dyn Inventory>,
}

// === impl CloudArgs ===

impl CloudArgs {
    /// The clouds. Makes no call.
    pub fn clouds(&self) -> Result<Vec<Cloud>> {
        if self.region.len() > MOST {
            bail!("--region has {} regions; at most {MOST}", self.region.len());
        }
        let aws = self.region.iter().map(|region| {
            let settings = ProviderSettings::Aws(AwsSettings {
                region: region.clone(),
                ..AwsSettings::default()
            });
            (format!("AWS region {region}"), settings)
        });
        let mock = self.mock_cloud.iter().map(|endpoint| {
            let settings = ProviderSettings::Mock(MockSettings {
                endpoint: endpoint.clone(),
            });
            (format!("mock cloud {endpoint}"), settings)
        });
        let providers = Providers {
            mock_token: self
                .mock_token_file
                .clone()
                .map(Token::file)
                .unwrap_or_default(),
            ..Providers::default()
        };
        let mut clouds = Vec::new();
        for (name, settings) in aws.chain(mock) {
            let inventory = providers.inventory(&settings)?;
            clouds.push(Cloud { name, inventory });
        }
        if clouds.is_empty() {
            bail!("no cloud to look at; say --region REGION or --mock-cloud URL");
        }
        Ok(clouds)
    }
}

// === impl Cloud ===

impl Cloud {
    /// What the user called it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Deref for Cloud {
    type Target = dyn Inventory;

    fn deref(&self) -> &Self::Target {
        &*self.inventory
    }
}

impl AsRef<dyn Inventory> for Cloud {
    fn as_ref(&self) -> &(dyn Inventory + 'static) {
        &*self.inventory
    }
}
