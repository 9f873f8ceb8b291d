//! The provider of one class in one instance: the controller's view of the cloud.
//!
//! Every mutating call is checked first: the Service has the finalizer, the object is ours,
//! there is no duplicate, and no other call for the same key is running.

use std::collections::{BTreeMap, HashSet};
use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ballast::class::instance::Factory;
use ballast::run::factory::Providers;
use ballast_crds::ProviderSettings;
use ballast_provider::{
    Balancer, Billed, Cause, Change, IpMode, Key, Kind, LoadBalancer, Mark, Member, Observed,
    Owned, Provider, ProviderError, Published, Reason, Refusal, Released, Removal, ServiceId,
    State, TargetSet, Traits, mark,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::Instant;

use super::faulty::Faulty;
use super::{Call, Cloud, Inner, Lb};
use crate::support::journal::{Dead, Effect, Link, Target};

/// The value of a setting that this cloud refuses.
pub const UNKNOWN: &str = "unknown";

/// Builds providers over one instance's link.
pub struct CloudFactory {
    pub cloud: Arc<Cloud>,
    pub link: Link,
    /// The factory for classes without a cloud.
    pub own: Providers,
}

/// One class's provider in one instance.
struct CloudProvider {
    cloud: Arc<Cloud>,
    link: Link,
    mark: Mark,
    restored: Mutex<bool>,
    listened: Mutex<bool>,
    busy: Mutex<HashSet<String>>,
}

/// A key with a call in progress.
struct Turn<'a> {
    provider: &'a CloudProvider,
    key: String,
}

// === impl CloudFactory ===

impl Factory for CloudFactory {
    fn setting_prefixes(&self) -> &'static [&'static str] {
        self.own.setting_prefixes()
    }

    fn supports(&self, settings: &ProviderSettings) -> Result<Traits, Refusal> {
        self.own.supports(settings)
    }

    fn build(
        &self,
        settings: &ProviderSettings,
        mark: Mark,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        if matches!(settings, ProviderSettings::L2(_)) {
            return Ok(Arc::new(Faulty {
                inner: self.own.build(settings, mark)?,
                cloud: Arc::clone(&self.cloud),
            }));
        }
        Ok(Arc::new(CloudProvider {
            cloud: Arc::clone(&self.cloud),
            link: self.link.clone(),
            mark,
            restored: Mutex::new(false),
            listened: Mutex::new(false),
            busy: Mutex::default(),
        }))
    }
}

// === impl CloudProvider ===

impl CloudProvider {
    /// The steps that every call shares: connection, rules, faults.
    async fn call(&self, call: Call, name: &'static str) -> Result<(), ProviderError> {
        self.link.to_cloud().await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.link.to_cloud().await;
        if call != Call::Restore && !*self.restored.lock().unwrap() {
            self.cloud
                .journal
                .violation(format!("{name} before restore"));
        }
        *self.cloud.lock().calls.entry(name).or_default() += 1;
        self.cloud.fault(call)
    }

    /// One mutating call: it takes effect, or its caller never gets an answer.
    async fn mutate<R>(
        &self,
        verb: &'static str,
        uid: &str,
        detail: String,
        act: impl FnOnce(&mut Inner) -> R + Send,
    ) -> R {
        let effect = Effect::of(
            Target::Cloud,
            verb,
            uid,
            format!("{} {detail}", self.mark.class),
        );
        let result = self
            .cloud
            .journal
            .effect(&self.link, effect, || act(&mut self.cloud.lock()));
        match result {
            Ok(result) => {
                // Other tasks run between two calls.
                tokio::time::sleep(Duration::from_millis(1)).await;
                self.link.to_cloud().await;
                result
            }
            Err(Dead) => pending().await,
        }
    }

    /// Checks invariant 1 before an effect, and invariant 6 for its object.
    fn check(&self, verb: &str, uid: &str, lb: Option<&Lb>, making: bool) {
        let violation = |what: &str| {
            self.cloud
                .journal
                .violation(format!("{} {verb}s for {uid}: {what}", self.link.name()));
        };
        if making && !self.cloud.api.guards(uid, &self.mark.class) {
            violation("the finalizer is not on the Service");
        }
        if lb.is_some_and(|lb| !self.mark.owns(&lb.tags)) {
            violation("not ours");
        }
    }

    fn turn(&self, key: &Key) -> Turn<'_> {
        let key = key.to_string();
        if !self.busy.lock().unwrap().insert(key.clone()) {
            self.cloud
                .journal
                .violation(format!("two calls at once for {key}"));
        }
        Turn {
            provider: self,
            key,
        }
    }

    /// Refuses the whole balancer for a request of one member.
    fn refuse_denied(&self, balancer: &Balancer) -> Result<(), ProviderError> {
        let members = balancer.members.iter();
        let mut requested = members.flat_map(|it| &it.load_balancer.requested_addresses);
        let denied = &self.cloud.lock().denied;
        match requested.find(|address| denied.contains(address)) {
            Some(address) => {
                Err(Refusal::new(Reason::AddressInUse, format!("{address}: no")).into())
            }
            None => Ok(()),
        }
    }

    /// A Service's part of one balancer.
    fn name(&self, key: &Key, uid: &str) -> String {
        match key {
            Key::Service(_) => self.mark.name_of("bl", uid),
            Key::Shared(_) => self.mark.name_of("bl", &format!("{key}: {uid}")),
        }
    }

    /// All of our parts of one balancer.
    fn members(&self, key: &Key) -> Vec<(String, Lb)> {
        let all = self.cloud.balancers().into_iter();
        all.filter(|(_, lb)| self.mark.owns(&lb.tags) && lb.key == *key && !lb.retained())
            .collect()
    }

    /// Brings one member of a balancer from its present state to the wanted one.
    async fn ensure_member(&self, key: &Key, member: &Member) -> Result<Observed, ProviderError> {
        let wanted = &member.load_balancer;
        let name = self.name(key, &wanted.id.uid);
        let mut before = self.cloud.lock().balancers.get(&name).cloned();
        if let Some(gone) = before.as_ref().and_then(|lb| lb.gone_at) {
            // Partly released: the rest is deleted first, and then a new one is created.
            if gone > Instant::now() {
                return Ok(releasing());
            }
            self.check("delete", &wanted.id.uid, before.as_ref(), false);
            self.mutate("delete", &wanted.id.uid, name.clone(), |state| {
                state.balancers.remove(&name)
            })
            .await;
            before = None;
        }
        if before.is_none() {
            self.create(&name, key, wanted, &member.published).await;
        }
        let applied = before.and_then(|lb| lb.tags.get(mark::APPLIED).cloned());
        if applied != Some(digest(wanted)) {
            self.commit(&name, wanted).await;
        }
        let lb = self.cloud.lock().balancers.get(&name).cloned();
        let Some(lb) = lb else {
            return Err(ProviderError::transient("it vanished"));
        };
        Ok(observed(&lb, wanted))
    }

    async fn create(&self, name: &str, key: &Key, wanted: &LoadBalancer, published: &[IpAddr]) {
        let uid = &wanted.id.uid;
        self.check("create", uid, None, true);
        let mut tags = self.mark.tags(&wanted.id);
        tags.extend(self.mark.birth(self.cloud.api.time()));
        self.mutate("create", uid, name.to_owned(), |state| {
            // Two controllers with a class each may overlap: each releases its own objects.
            let same =
                |lb: &Lb| lb.tag(mark::CLASS) == self.mark.class || lb.by == self.link.name();
            let twice = state
                .balancers
                .values()
                .any(|lb| lb.is_of(uid) && lb.key == *key && !lb.retained() && same(lb));
            if twice || state.balancers.contains_key(name) {
                self.cloud
                    .journal
                    .violation(format!("a second load balancer for {uid}"));
            }
            // All members of a balancer have its address.
            let mut others = state.balancers.values();
            let shared =
                others.find(|lb| lb.key == *key && self.mark.owns(&lb.tags) && !lb.retained());
            let addresses = if let Some(other) = shared {
                other.addresses.clone()
            } else if published.is_empty() || taken(state, published) {
                state.last_address += 1;
                vec![IpAddr::V4(Ipv4Addr::from(
                    u32::from(Ipv4Addr::new(198, 51, 100, 0)) + state.last_address,
                ))]
            } else {
                published.to_vec()
            };
            let lb = Lb {
                tags,
                key: key.clone(),
                by: self.link.name().to_owned(),
                addresses,
                shape: None,
                active_at: None,
                gone_at: None,
            };
            state.balancers.insert(name.to_owned(), lb);
        })
        .await;
    }

    async fn commit(&self, name: &str, wanted: &LoadBalancer) {
        let uid = &wanted.id.uid;
        let before = self.cloud.lock().balancers.get(name).cloned();
        self.check("configure", uid, before.as_ref(), true);
        let ports: Vec<u16> = wanted
            .listeners
            .iter()
            .map(|listener| listener.port)
            .collect();
        self.mutate("configure", uid, format!("{ports:?}"), |state| {
            // Someone may have deleted it in the meantime.
            if let Some(lb) = state.balancers.get_mut(name) {
                lb.tags.remove(mark::APPLIED);
                lb.shape = Some(wanted.clone());
            }
        })
        .await;
        let took = self
            .mutate("commit", uid, String::new(), |state| {
                let provisioning = state.provisioning;
                let lb = state.balancers.get_mut(name)?;
                lb.tags.insert(mark::APPLIED.to_owned(), digest(wanted));
                let fresh = lb.active_at.is_none();
                lb.active_at.get_or_insert(Instant::now() + provisioning);
                fresh.then_some(provisioning)
            })
            .await;
        let Some(took) = took.filter(|took| !took.is_zero()) else {
            return;
        };
        let (cloud, name) = (Arc::clone(&self.cloud), name.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(took).await;
            let lb = cloud.lock().balancers.get(&name).cloned();
            if let Some(lb) = lb {
                cloud.tell(&lb, Cause::Active);
            }
        });
    }
}

#[async_trait]
impl Provider for CloudProvider {
    fn traits(&self) -> Traits {
        Traits::CLOUD
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        let shared = load_balancer.share_key.as_deref();
        let shared = shared.map(|key| Key::Shared(key.into()));
        shared.unwrap_or_else(|| Key::alone(&load_balancer.id))
    }

    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal> {
        let wanted = &balancer.members[0].load_balancer;
        if let Some((name, _)) = wanted.settings.iter().find(|(_, it)| *it == UNKNOWN) {
            let why = format!("annotation {name}: this cloud does not know it");
            return Err(Refusal::new(Reason::Unsupported, why));
        }
        match wanted.listeners.len() {
            0..=50 => wanted.require_node_ports(),
            many => Err(Refusal::new(
                Reason::Unsupported,
                format!("spec.ports has {many} entries: this cloud takes 50"),
            )),
        }
    }

    async fn restore(&self, _: Vec<Published>) -> Result<(), ProviderError> {
        self.call(Call::Restore, "restore").await?;
        if std::mem::replace(&mut *self.restored.lock().unwrap(), true) {
            self.cloud.journal.violation("restored twice");
        }
        Ok(())
    }

    async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        let _turn = self.turn(&balancer.key);
        self.call(Call::Ensure, "ensure").await?;
        while self.cloud.lock().hangs(&self.mark.class, &balancer.key) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.refuse_denied(balancer)?;
        let mut all = Vec::new();
        for member in &balancer.members {
            let id = member.load_balancer.id.clone();
            all.push((id, self.ensure_member(&balancer.key, member).await?));
        }
        let listed = |lb: &Lb| {
            let members = balancer.members.iter().map(|it| &it.load_balancer.id);
            members.chain(&balancer.kept).any(|id| lb.is_of(&id.uid))
        };
        for (name, lb) in self.members(&balancer.key) {
            if !listed(&lb) {
                let uid = lb.tag(mark::SERVICE_UID);
                self.check("delete", &uid, Some(&lb), false);
                self.mutate("delete", &uid, format!("{name}, not listed"), |state| {
                    state.balancers.remove(&name)
                })
                .await;
            }
        }
        Ok(all)
    }

    async fn retarget(&self, targets: &TargetSet, _: &[Key]) -> Result<(), ProviderError> {
        self.call(Call::Retarget, "retarget").await?;
        let class = self.mark.class.clone();
        if self.cloud.targets(&class).as_ref() != Some(targets) {
            let detail = format!("{} targets", targets.len());
            self.mutate("retarget", "", detail, |state| {
                state.targets.insert(class, targets.clone())
            })
            .await;
        }
        Ok(())
    }

    async fn release(
        &self,
        id: &ServiceId,
        key: &Key,
        removal: Removal,
    ) -> Result<Released, ProviderError> {
        let _turn = self.turn(key);
        self.call(Call::Release, "release").await?;
        let name = self.name(key, &id.uid);
        let Some(lb) = self
            .cloud
            .lock()
            .balancers
            .get(&name)
            .cloned()
            .filter(|lb| !lb.retained())
        else {
            return Ok(Released::Gone);
        };
        self.check("release", &id.uid, Some(&lb), false);
        if removal == Removal::Retain {
            self.mutate("retain", &id.uid, name.clone(), |state| {
                if let Some(lb) = state.balancers.get_mut(&name) {
                    lb.tags.insert(mark::RETAINED.to_owned(), "true".to_owned());
                }
            })
            .await;
            return Ok(Released::Gone);
        }
        if lb.gone_at.is_none() {
            self.mutate("empty", &id.uid, name.clone(), |state| {
                let gone = Instant::now() + state.deleting;
                if let Some(lb) = state.balancers.get_mut(&name) {
                    lb.gone_at = Some(gone);
                    lb.shape = None;
                }
            })
            .await;
        }
        let gone = self
            .cloud
            .lock()
            .balancers
            .get(&name)
            .and_then(|lb| lb.gone_at);
        if gone.is_some_and(|at| at > Instant::now()) {
            return Ok(Released::waits(
                Duration::from_secs(1),
                format!("load balancer {name}: the cloud is deleting it"),
            ));
        }
        self.mutate("delete", &id.uid, name.clone(), |state| {
            state.balancers.remove(&name)
        })
        .await;
        Ok(Released::Gone)
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        let all = self
            .cloud
            .balancers()
            .into_iter()
            .filter(|(_, lb)| self.mark.owns(&lb.tags));
        Ok(all
            .map(|(name, lb)| Owned {
                key: Some(lb.key),
                billed: Billed {
                    load_balancers: 1,
                    public_addresses: 0,
                },
                ..Owned::new(Kind::LoadBalancer, &name, &name, lb.tags)
            })
            .collect())
    }

    async fn survey(&self) -> Result<Vec<Owned>, ProviderError> {
        self.cloud.fault(Call::Survey)?;
        self.inventory().await
    }

    async fn tag(
        &self,
        objects: &[Owned],
        tags: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        for object in objects {
            let (name, tags) = (object.name.clone(), tags.clone());
            let mark = self.mark.clone();
            let uid = object.tags.get(mark::SERVICE_UID);
            let uid = uid.cloned().unwrap_or_default();
            self.mutate("tag", &uid, name.clone(), move |state| {
                let lb = state.balancers.get_mut(&name);
                let Some(lb) = lb.filter(|lb| mark.owns(&lb.tags)) else {
                    return;
                };
                for (key, value) in tags {
                    match value {
                        Some(value) => lb.tags.insert(key, value),
                        None => lb.tags.remove(&key),
                    };
                }
            })
            .await;
        }
        Ok(())
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        if std::mem::replace(&mut *self.listened.lock().unwrap(), true) {
            self.cloud.journal.violation("changes() twice");
        }
        let (class, link, receive) = (
            self.mark.class.clone(),
            self.link.clone(),
            self.cloud.changes.subscribe(),
        );
        futures::stream::unfold(receive, move |mut receive| {
            let (class, link) = (class.clone(), link.clone());
            async move {
                loop {
                    let (of, change) = receive.recv().await.ok()?;
                    link.to_cloud().await;
                    if of == class {
                        return Some((change, receive));
                    }
                }
            }
        })
        .boxed()
    }
}

// === impl Turn ===

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.provider.busy.lock().unwrap().remove(&self.key);
    }
}

fn observed(lb: &Lb, wanted: &LoadBalancer) -> Observed {
    let ingress = wanted.ingress(lb.addresses.iter().copied(), IpMode::Proxy);
    let state = if lb.is_active() {
        State::Programmed
    } else {
        State::Pending {
            reason: Reason::Provisioning,
            message: "The load balancer is being created".to_owned(),
            retry_after: None,
        }
    };
    Observed::new(ingress, state)
}

/// The previous object is still being deleted.
fn releasing() -> Observed {
    Observed::new(
        Vec::new(),
        State::Pending {
            reason: Reason::Releasing,
            message: "The former load balancer is being removed".to_owned(),
            retry_after: Some(Duration::from_secs(1)),
        },
    )
}

fn digest(wanted: &LoadBalancer) -> String {
    mark::digest([format!("{wanted:?}").as_str()])
}

/// Whether a balancer has one of these addresses.
fn taken(state: &Inner, addresses: &[IpAddr]) -> bool {
    let mut all = state.balancers.values().flat_map(|lb| &lb.addresses);
    all.any(|address| addresses.contains(address))
}
