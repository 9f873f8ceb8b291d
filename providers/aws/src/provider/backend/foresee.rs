//! What would be made so that load balancers reach the nodes. It only reads.

use std::collections::BTreeSet;

use ballast_provider::ProviderError;

use super::from_backend;
use crate::call::{Call, Ref};
use crate::client::Client;
use crate::provider::Inner;
use crate::provider::execute::error;
use crate::rate::Urgency;

// === impl Inner ===

impl Inner {
    /// Looks the group up. If it does not exist, returns the call that would make it; from then on its name stands
    /// for its ID, so the caller must make no call.
    pub(in crate::provider) async fn foresee_backend_group(
        &self,
        client: &Client,
    ) -> Result<Option<Call>, ProviderError> {
        if self.network().backend.id().is_some() {
            return Ok(None);
        }
        let vpc = self.vpc(client).await?;
        let found = self.listed_backend_group(client, &vpc).await?;
        let missing = found.is_none();
        let name = self.backend_name();
        self.network().backend.id = found.or_else(|| Some(name.clone()));
        Ok(missing.then(|| Call::CreateSecurityGroup {
            name,
            tags: self.class_tags(),
        }))
    }

    /// The calls that would make the group, and let it in.
    pub(in crate::provider) async fn opening_calls(
        &self,
        client: &Client,
        id: &str,
        missing: Option<&Call>,
    ) -> Result<Vec<Call>, ProviderError> {
        self.learn_instances(client, Urgency::Service).await?;
        let groups = self.groups_of_nodes(client, Urgency::Service).await;
        let groups = groups.map_err(|why| error(&why))?;
        let open = match missing {
            Some(_) => BTreeSet::new(),
            None => self
                .groups_with_rule(client, id, Urgency::Service)
                .await
                .map_err(|why| error(&why))?,
        };
        let opens = groups
            .difference(&open)
            .map(|group| Call::AuthorizeSecurityGroupIngress {
                security_group: Ref::Known(group.clone()),
                rules: BTreeSet::from([from_backend(id)]),
            });
        Ok(missing.cloned().into_iter().chain(opens).collect())
    }
}
