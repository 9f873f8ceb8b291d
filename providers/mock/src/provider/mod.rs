//! The provider of a mock class: a client of the mock cloud's HTTP API.
//!
//! The controller creates one per class. It makes no call if nothing differs: `restore` lists
//! the load balancers of the class once, and the stream of changes reports what happened
//! since. Every mutating call has the owner as a precondition, so that foreign objects are not
//! touched even if one got our name a moment ago.

mod cache;
mod changes;
mod client;
mod ensure;
pub(crate) mod remarks;
mod shape;
mod token;
pub(crate) mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_provider::{
    Balancer, Change, Exclusion, Inventory, Key, Kind, Life, LoadBalancer, Mark, Observed, Owned,
    Provider, ProviderError, Published, Refusal, Released, Removal, ServiceId, TargetSet, Traits,
    mark,
};
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::Notify;

use self::cache::{Cache, Known};
use self::changes::Told;
pub use self::client::EndpointError;
use self::client::{Client, Failed, Listed};
pub use self::token::Token;
use crate::api::{
    Code, LifecycleState, LoadBalancerView, Position, Problem, TagPatch, TargetHealth,
    TargetSetBody,
};

/// The time between two checks of a deletion, unless the stream reports its end earlier.
const RELEASE_RETRY: Duration = Duration::from_secs(3);

/// The load balancers of one class on a mock cloud.
pub struct MockProvider {
    inner: Arc<Inner>,
}

/// Lists what a mock cloud holds, whichever cluster and class it belongs to.
pub struct MockInventory {
    client: Client,
    endpoint: String,
    token: Token,
}

struct Inner {
    client: Client,
    mark: Mark,
    cache: Mutex<Cache>,
    /// The desired target set, and the one that the cloud is known to have.
    targets: tokio::sync::Mutex<Targets>,
    /// Notified when one of our calls has ended.
    landed: Notify,
    /// Only one list is requested at a time.
    listing: tokio::sync::Mutex<()>,
    told: Told,
}

#[derive(Default)]
struct Targets {
    desired: Option<TargetSetBody>,
    applied: Option<TargetSetBody>,
}

/// Marks a name as being changed by us, until it is dropped.
struct Flight<'a> {
    inner: &'a Inner,
    name: &'a str,
}

// === impl MockProvider ===

impl MockProvider {
    /// The traits of a load balancer in a cloud. A kind cluster may have a single node, which
    /// is a control plane, so if all nodes are excluded, all are targets.
    pub const TRAITS: Traits = Traits {
        exclusion: Exclusion::UnlessAll,
        ..Traits::CLOUD
    };

    /// The name in the cloud of a Service's load balancer.
    pub fn name_of(mark: &Mark, id: &ServiceId) -> String {
        shape::name_of(mark, id)
    }

    /// A client of the mock cloud at `endpoint`, such as `http://127.0.0.1:8111`. Makes no
    /// call.
    pub fn new(endpoint: &str, token: impl Into<Token>, mark: Mark) -> Result<Self, EndpointError> {
        let inner = Inner {
            client: Client::new(endpoint, token.into(), Some(mark.clone()))?,
            mark,
            cache: Mutex::default(),
            targets: tokio::sync::Mutex::default(),
            landed: Notify::new(),
            listing: tokio::sync::Mutex::default(),
            told: Told::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

#[async_trait]
impl Provider for MockProvider {
    fn traits(&self) -> Traits {
        Self::TRAITS
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        Key::alone(&load_balancer.id)
    }

    fn clouds(&self) -> Vec<String> {
        self.inner.cache().clouds()
    }

    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal> {
        validate::validate(balancer)
    }

    async fn restore(&self, published: Vec<Published>) -> Result<(), ProviderError> {
        let listed = self.inner.client.list().await;
        let listed = listed.map_err(|failed| self.inner.client.error(failed))?;
        let mut cache = self.inner.cache();
        cache.meet(listed.cloud);
        cache.load(listed.items, listed.position, &published);
        Ok(())
    }

    async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        let mut observed = Vec::with_capacity(balancer.members.len());
        for member in &balancer.members {
            let seen = self.inner.ensure(member).await;
            let seen = seen.map_err(|failed| self.inner.client.error(failed))?;
            observed.push((member.load_balancer.id.clone(), seen));
        }
        Ok(observed)
    }

    async fn retarget(&self, targets: &TargetSet, _keys: &[Key]) -> Result<(), ProviderError> {
        let TargetSet {
            nodes: targets,
            addresses,
        } = targets;
        let desired = shape::target_set(&self.inner.mark, targets, addresses);
        self.inner.cache().set_nodes(addresses);
        let put = self.inner.retarget(desired).await;
        put.map_err(|failed| self.inner.client.error(failed))?;
        let freed = self.inner.cache().nodes_are_set();
        self.inner.told.add(freed);
        Ok(())
    }

    async fn release(
        &self,
        id: &ServiceId,
        _key: &Key,
        removal: Removal,
    ) -> Result<Released, ProviderError> {
        let released = match removal {
            Removal::Delete => self.inner.delete(id).await,
            Removal::Retain => self.inner.retain(id).await,
        };
        released.map_err(|failed| self.inner.client.error(failed))
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        let listed = self.inner.client.list().await;
        let listed = listed.map_err(|failed| self.inner.client.error(failed))?;
        Ok(listed.items.into_iter().map(owned).collect())
    }

    async fn tag(
        &self,
        objects: &[Owned],
        tags: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        let patch = TagPatch { tags: tags.clone() };
        for object in objects {
            let tagged = self.inner.tag(&object.name, &patch).await;
            tagged.map_err(|failed| self.inner.client.error(failed))?;
        }
        Ok(())
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        changes::follow(Arc::clone(&self.inner))
    }
}

// === impl MockInventory ===

impl MockInventory {
    /// The inventory of the mock cloud at `endpoint`. Makes no call.
    pub fn new(endpoint: &str, token: impl Into<Token>) -> Result<Self, EndpointError> {
        let token = token.into();
        let client = Client::new(endpoint, token.clone(), None)?;
        Ok(Self {
            client,
            endpoint: endpoint.to_owned(),
            token,
        })
    }
}

#[async_trait]
impl Inventory for MockInventory {
    async fn account(&self) -> Result<String, ProviderError> {
        Ok(format!("mock cloud {}", self.endpoint))
    }

    async fn all(&self) -> Result<Vec<Owned>, ProviderError> {
        let listed = self.client.list().await;
        let listed = listed.map_err(|failed| self.client.error(failed))?;
        let marked = listed.items.into_iter();
        let marked = marked.filter(|view| {
            let mut keys = view.desired.tags.keys();
            keys.any(|key| key.starts_with(mark::PREFIX))
        });
        Ok(marked.map(owned).collect())
    }

    async fn tags(
        &self,
        object: &Owned,
    ) -> Result<Option<BTreeMap<String, String>>, ProviderError> {
        let view = self.client.get(&object.name).await;
        let view = view.map_err(|failed| self.client.error(failed))?;
        Ok(view.map(|view| view.desired.tags))
    }

    async fn life(&self, object: &Owned) -> Result<Life, ProviderError> {
        let health = self.client.health(&object.name).await;
        let health = health.map_err(|failed| self.client.error(failed))?;
        let healthy = health.unwrap_or_default().into_iter();
        let healthy = healthy.filter(|one| one.health == TargetHealth::Healthy);
        let healthy: BTreeSet<String> = healthy.map(|one| one.target).collect();
        Ok(match healthy.first() {
            None => Life::Silent,
            Some(first) if healthy.len() == 1 => {
                Life::Serves(format!("the target {first} is healthy"))
            }
            Some(first) => Life::Serves(format!(
                "{} targets are healthy, {first} among them",
                healthy.len()
            )),
        })
    }

    fn provider(&self, owner: Mark) -> Result<Arc<dyn Provider>, ProviderError> {
        let provider = MockProvider::new(&self.endpoint, self.token.clone(), owner);
        let provider = provider.map_err(|error| ProviderError::transient(error.to_string()))?;
        Ok(Arc::new(provider))
    }
}

/// Each address is one that AWS would bill if it were public.
fn owned(view: LoadBalancerView) -> Owned {
    let billed = crate::billed(&view.addresses);
    let mut owned = Owned::new(
        Kind::LoadBalancer,
        &view.name,
        &view.name,
        view.desired.tags,
    );
    owned.key = owned.services.first().map(Key::alone);
    owned.created = Some(view.created_at);
    owned.billed = billed;
    owned
}

// === impl Inner ===

impl Inner {
    /// Reads a load balancer of this class. Refuses a foreign object with our name.
    async fn look(&self, name: &str) -> Result<Option<LoadBalancerView>, Failed> {
        let view = self.client.get(name).await?;
        match &view {
            Some(view) if self.mark.owns(&view.desired.tags) => self.cache().store(view.clone()),
            Some(_) => {
                let message = format!(
                    "load balancer {name} exists in the mock cloud and belongs to somebody else; delete it there"
                );
                return Err(Failed::Refused {
                    problem: Problem::new(Code::NotOwner, message),
                    retry_after: None,
                });
            }
            None => self.cache().forget(name),
        }
        Ok(view)
    }

    /// Reads it first: people may have asked to keep it a moment ago.
    async fn delete(&self, id: &ServiceId) -> Result<Released, Failed> {
        let name = shape::name_of(&self.mark, id);
        if !self.cache().is_releasing(&name) {
            let there = self.client.get(&name).await?;
            if there.is_some_and(|view| view.desired.tags.contains_key(mark::KEEP)) {
                tracing::info!(name, "has the tag {}; keeping it", mark::KEEP);
                return self.retain(id).await;
            }
        }
        let _flight = self.fly(&name);
        if !self.is_deleted(&name).await? {
            self.cache().releasing(&name);
            return Ok(Released::waits(
                RELEASE_RETRY,
                format!("load balancer {name}: the mock cloud is deleting it"),
            ));
        }
        self.cache().forget(&name);
        self.cache().release(&name, &id.uid);
        Ok(Released::Gone)
    }

    /// Begins a deletion, or looks how far it is: the cloud limits changing calls, and a look is
    /// none. With a call for each look, many deletions would slow each other down.
    async fn is_deleted(&self, name: &str) -> Result<bool, Failed> {
        if self.cache().is_releasing(name) {
            match self.look(name).await {
                Ok(Some(view)) if view.state == LifecycleState::Deleting => return Ok(false),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(true),
                Err(failed) => return self.absent_or(name, failed).map(|()| true),
            }
        }
        match self.client.delete(name).await {
            Ok(gone) => Ok(gone),
            Err(failed) => self.absent_or(name, failed).map(|()| true),
        }
    }

    async fn retain(&self, id: &ServiceId) -> Result<Released, Failed> {
        let name = shape::name_of(&self.mark, id);
        let known = self.cache().known(&name);
        let retained = |view: &LoadBalancerView| view.desired.tags.contains_key(mark::RETAINED);
        if !matches!(&known, Known::Fresh(entry) if retained(&entry.view)) {
            let now = Timestamp::now().to_string();
            let tags = BTreeMap::from([(mark::RETAINED.to_owned(), Some(now))]);
            let _flight = self.fly(&name);
            match self.client.patch_tags(&name, &TagPatch { tags }).await {
                Ok(view) => self.cache().store(view),
                Err(failed) => {
                    self.absent_or(&name, failed)?;
                    self.cache().forget(&name);
                }
            }
        }
        self.cache().release(&name, &id.uid);
        Ok(Released::Gone)
    }

    /// Writes notes. What is gone or no longer ours is left out.
    async fn tag(&self, name: &str, patch: &TagPatch) -> Result<(), Failed> {
        let _flight = self.fly(name);
        match self.client.patch_tags(name, patch).await {
            Ok(view) => self.cache().store(view),
            Err(failed) => self.absent_or(name, failed)?,
        }
        Ok(())
    }

    /// Succeeds if the failure means that no object of ours exists.
    fn absent_or(&self, name: &str, failed: Failed) -> Result<(), Failed> {
        match failed.code() {
            Some(Code::NotFound) => Ok(()),
            Some(Code::NotOwner) => {
                tracing::warn!(
                    name,
                    "another owner has an object with our name; leaving it unchanged"
                );
                Ok(())
            }
            _ => {
                self.cache().doubt(name);
                Err(failed)
            }
        }
    }

    async fn retarget(&self, desired: TargetSetBody) -> Result<(), Failed> {
        let mut targets = self.targets.lock().await;
        targets.desired = Some(desired.clone());
        if targets.applied.as_ref() == Some(&desired) {
            return Ok(());
        }
        let name = shape::target_set_name(&self.mark);
        if targets.applied.take().is_none()
            && self.client.get_targets(&name).await?.as_ref() == Some(&desired)
        {
            targets.applied = Some(desired);
            return Ok(());
        }
        self.client.put_targets(&name, &desired).await?;
        targets.applied = Some(desired);
        Ok(())
    }

    /// Lists all load balancers of the class, compares them with the cache, and sends the
    /// differences to the stream. Does nothing if another task did so since the cloud was at
    /// `since`.
    async fn relist(&self, since: Option<Position>) -> Result<(), Failed> {
        let _one = self.listing.lock().await;
        let epoch = |position: Position| position.epoch;
        let before = self.cache().position().map(epoch);
        if since.is_some() && since.map(epoch) != before {
            return Ok(());
        }
        self.cache().begin_list();
        let Listed {
            items,
            position,
            cloud,
        } = self.client.list().await?;
        self.cache().meet(cloud);
        if before.is_some_and(|before| before != position.epoch) {
            tracing::info!("the mock cloud has restarted; comparing its state with the cache");
            self.retarget_again().await?;
        }
        let changes = self.cache().relist(items, &position);
        self.told.add(changes);
        Ok(())
    }

    /// Sets the targets again after the cloud may have lost its state.
    async fn retarget_again(&self) -> Result<(), Failed> {
        let desired = {
            let mut targets = self.targets.lock().await;
            targets.applied = None;
            targets.desired.clone()
        };
        match desired {
            Some(desired) => self.retarget(desired).await,
            None => Ok(()),
        }
    }

    fn fly<'a>(&'a self, name: &'a str) -> Flight<'a> {
        self.cache().begin(name);
        Flight { inner: self, name }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Each change is one insertion or removal, so a panic leaves a valid cache.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Flight ===

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.inner.cache().end(self.name);
        self.inner.landed.notify_waiters();
    }
}
