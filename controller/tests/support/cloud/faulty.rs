//! A provider without a cloud whose releases fail when a test asks for it.

use std::sync::Arc;

use async_trait::async_trait;
use ballast_provider::{
    Balancer, Change, Key, LoadBalancer, Observed, Owned, Provider, ProviderError, Published,
    Refusal, Released, Removal, ServiceId, TargetSet, Traits,
};
use futures::stream::BoxStream;

use super::{Call, Cloud};

/// The provider, and the cloud with the faults.
pub struct Faulty {
    pub inner: Arc<dyn Provider>,
    pub cloud: Arc<Cloud>,
}

// === impl Faulty ===

#[async_trait]
impl Provider for Faulty {
    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        self.inner.key(load_balancer)
    }

    fn uses_endpoints(&self, load_balancer: &LoadBalancer) -> bool {
        self.inner.uses_endpoints(load_balancer)
    }

    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal> {
        self.inner.validate(balancer)
    }

    async fn restore(&self, published: Vec<Published>) -> Result<(), ProviderError> {
        self.inner.restore(published).await
    }

    async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        self.inner.ensure(balancer).await
    }

    async fn retarget(&self, targets: &TargetSet, keys: &[Key]) -> Result<(), ProviderError> {
        self.inner.retarget(targets, keys).await
    }

    async fn release(
        &self,
        id: &ServiceId,
        key: &Key,
        removal: Removal,
    ) -> Result<Released, ProviderError> {
        self.cloud.fault(Call::Release)?;
        self.inner.release(id, key, removal).await
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        self.inner.inventory().await
    }

    async fn survey(&self) -> Result<Vec<Owned>, ProviderError> {
        self.inner.survey().await
    }

    async fn tag(
        &self,
        objects: &[Owned],
        tags: &std::collections::BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        self.inner.tag(objects, tags).await
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        self.inner.changes()
    }
}
