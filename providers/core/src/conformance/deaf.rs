//! A provider that does not hear one field: what the suite must find.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::fields::{Field, Support, copy, copy_balancer, copy_target};
use super::{Crash, Harness, Lab, Object, fixtures};
use crate::error::{ProviderError, Refusal};
use crate::inventory::Owned;
use crate::mark::Mark;
use crate::model::{Balancer, Key, LoadBalancer, Member, ServiceId, Settings, TargetSet};
use crate::provider::{Change, Observed, Provider, Published, Released, Removal, State, Traits};

/// A lab whose providers see one field of the suite's first Service and of targets as it was
/// before the change. A test runs the suite on it, to prove that the suite notices that a
/// provider ignores the field.
pub struct Deaf<'a> {
    /// The lab.
    pub lab: &'a dyn Lab,
    /// The field.
    pub field: Field,
}

struct DeafHarness {
    harness: Box<dyn Harness>,
    field: Field,
}

struct DeafProvider {
    provider: Arc<dyn Provider>,
    field: Field,
}

// === impl DeafProvider ===

impl DeafProvider {
    fn heard(&self, balancer: &Balancer) -> Balancer {
        copy_balancer(balancer, |member| self.member(member))
    }

    fn member(&self, member: &Member) -> Member {
        let mut heard = member.clone();
        let base = self.field.base();
        let (id, first) = (&member.load_balancer.id, &base.load_balancer.id);
        if id.uid == first.uid || id.name == first.name {
            copy(self.field, &base, &mut heard);
        }
        heard
    }
}

#[async_trait]
impl Provider for DeafProvider {
    fn traits(&self) -> Traits {
        self.provider.traits()
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        let member = self.member(&fixtures::member(load_balancer.clone()));
        self.provider.key(&member.load_balancer)
    }

    fn uses_endpoints(&self, load_balancer: &LoadBalancer) -> bool {
        self.provider.uses_endpoints(load_balancer)
    }

    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal> {
        self.provider.validate(&self.heard(balancer))
    }

    async fn restore(&self, published: Vec<Published>) -> Result<(), ProviderError> {
        self.provider.restore(published).await
    }

    async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        self.provider.ensure(&self.heard(balancer)).await
    }

    async fn retarget(&self, targets: &TargetSet, keys: &[Key]) -> Result<(), ProviderError> {
        let deaf = targets.nodes.iter().cloned().map(|mut target| {
            copy_target(self.field, &fixtures::target(1), &mut target);
            target
        });
        let mut heard = Field::base_targets();
        heard.nodes = deaf.collect();
        if self.field != Field::NodeAddresses {
            heard.addresses.clone_from(&targets.addresses);
        }
        self.provider.retarget(&heard, keys).await
    }

    async fn release(
        &self,
        id: &ServiceId,
        key: &Key,
        removal: Removal,
    ) -> Result<Released, ProviderError> {
        self.provider.release(id, key, removal).await
    }

    fn remarks(&self) -> Vec<String> {
        self.provider.remarks()
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        self.provider.inventory().await
    }

    async fn survey(&self) -> Result<Vec<Owned>, ProviderError> {
        self.provider.survey().await
    }

    async fn tag(
        &self,
        objects: &[Owned],
        tags: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        self.provider.tag(objects, tags).await
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        self.provider.changes()
    }
}

#[async_trait]
impl Lab for Deaf<'_> {
    async fn cloud(&self) -> Box<dyn Harness> {
        Box::new(DeafHarness {
            harness: self.lab.cloud().await,
            field: self.field,
        })
    }

    fn support(&self, field: Field) -> Support {
        self.lab.support(field)
    }

    fn shares(&self) -> bool {
        self.lab.shares()
    }

    /// The one that it does not hear.
    fn fields(&self) -> Vec<Field> {
        vec![self.field]
    }

    fn setting(&self) -> (String, String) {
        self.lab.setting()
    }

    fn pods(&self) -> Settings {
        self.lab.pods()
    }

    fn goes_back(&self) -> bool {
        self.lab.goes_back()
    }

    fn seed(&self) -> u64 {
        self.lab.seed()
    }
}

#[async_trait]
impl Harness for DeafHarness {
    async fn provider(&self, mark: &Mark) -> Arc<dyn Provider> {
        Arc::new(DeafProvider {
            provider: self.harness.provider(mark).await,
            field: self.field,
        })
    }

    async fn effects(&self) -> u64 {
        self.harness.effects().await
    }

    async fn set_crash(&self, crash: Option<Crash>) {
        self.harness.set_crash(crash).await;
    }

    async fn crashed(&self) -> bool {
        self.harness.crashed().await
    }

    async fn contents(&self) -> BTreeMap<String, Object> {
        self.harness.contents().await
    }

    async fn plant(&self, name: &str, tags: BTreeMap<String, String>) {
        self.harness.plant(name, tags).await;
    }

    async fn pause(&self) {
        self.harness.pause().await;
    }

    fn serves(&self, state: &State) -> bool {
        self.harness.serves(state)
    }

    async fn leave_one_address(&self) {
        self.harness.leave_one_address().await;
    }

    async fn keep(&self) {
        self.harness.keep().await;
    }

    async fn go_back(&self) {
        self.harness.go_back().await;
    }
}
