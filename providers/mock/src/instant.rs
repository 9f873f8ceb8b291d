//! A provider without a cloud: in process, no I/O, every call O(1) but for the members
//! it is given. For benchmarks and simulations of the controller.
//!
//! Release builds contain it on purpose, without a cargo feature: benchmarks measure the
//! program that is released, with `--simulate`, and a build of their own would be another
//! program. It opens no port, and nothing but that flag reaches it.
//!
//! Addresses come from 198.18.0.0/15 (RFC 2544) and `2001:2::/48` (RFC 5180), which are
//! set aside for benchmarks: nobody can mistake them for reachable ones.
//!
//! [`InstantCloud`] is what survives the controller's restart; an [`InstantProvider`]
//! is one life of it. Invariants: one slot, and so one address per family, per key; a
//! slot lives exactly as long as it has members.

mod cloud;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ballast_provider::{
    Balancer, Change, Exclusion, IpMode, Key, LoadBalancer, Mark, Member, Observed, Owned,
    Provider, ProviderError, Recorded, Refusal, Released, Removal, ServiceId, State, TargetSet,
    Traits,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

pub use self::cloud::{Calls, Fault, InstantCloud, InstantObject};
use self::cloud::{Effect, Slots};
use crate::provider::validate;

/// Injected changes that may wait for the controller.
const CHANGES: usize = 1_024;

/// Load balancers in this process's memory.
pub struct InstantProvider {
    mark: Mark,
    cloud: Arc<InstantCloud>,
    inject: mpsc::Sender<Change>,
    changes: Mutex<Option<mpsc::Receiver<Change>>>,
}

// === impl InstantProvider ===

impl InstantProvider {
    /// A provider with a cloud of its own.
    pub fn new(mark: Mark) -> Self {
        Self::on(Arc::default(), mark)
    }

    /// A provider on a cloud that others use, or used, too.
    pub fn on(cloud: Arc<InstantCloud>, mark: Mark) -> Self {
        let (inject, changes) = mpsc::channel(CHANGES);
        Self {
            mark,
            cloud,
            inject,
            changes: Mutex::new(Some(changes)),
        }
    }

    /// What was called so far, on the whole cloud.
    pub fn calls(&self) -> Calls {
        self.cloud.calls()
    }

    /// The cloud behind it.
    pub fn cloud(&self) -> Arc<InstantCloud> {
        Arc::clone(&self.cloud)
    }

    /// Lets the stream of changes say this; `false` if nobody reads it or it is full.
    pub fn inject(&self, change: Change) -> bool {
        self.inject.try_send(change).is_ok()
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.cloud.slots()
    }

    fn effect<T>(&self, effect: impl FnOnce(&mut Slots) -> T + Send) -> Result<T, ProviderError> {
        match self.slots().effect(effect) {
            Effect::Done(value) => Ok(value),
            Effect::Lost => Err(ProviderError::transient("the instant cloud did not answer")),
        }
    }

    fn observed(member: &Member, index: u32) -> Observed {
        let families = member.load_balancer.families.iter();
        let addresses = families.map(|family| cloud::address(*family, index));
        let ingress = member.load_balancer.ingress(addresses, IpMode::Proxy);
        Observed::new(ingress, State::Programmed)
    }
}

#[async_trait]
impl Provider for InstantProvider {
    fn traits(&self) -> Traits {
        Traits {
            exclusion: Exclusion::UnlessAll,
            ..Traits::CLOUD
        }
    }

    /// The share key where there is one: this provider has shared balancers.
    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        match &load_balancer.share_key {
            Some(share_key) => Key::Shared(share_key.clone()),
            None => Key::alone(&load_balancer.id),
        }
    }

    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal> {
        validate::validate(balancer)
    }

    async fn restore(&self, _recorded: Vec<Recorded>) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        let members: Vec<(&ServiceId, u64)> = balancer
            .members
            .iter()
            .map(|member| (&member.load_balancer.id, cloud::hash(&member.load_balancer)))
            .collect();
        let present = {
            let mut slots = self.slots();
            slots.calls.ensure += 1;
            slots.unchanged(&self.mark, &balancer.key, &members)
        };
        let index = if let Some(index) = present {
            index
        } else {
            let ask = cloud::wish(balancer);
            let put = |slots: &mut Slots| slots.put(&self.mark, &balancer.key, &members, ask);
            self.effect(put)??
        };
        let observed = balancer.members.iter().map(|member| {
            let id = member.load_balancer.id.clone();
            (id, Self::observed(member, index))
        });
        Ok(observed.collect())
    }

    async fn retarget(&self, targets: &TargetSet, _keys: &[Key]) -> Result<(), ProviderError> {
        let hash = cloud::hash(targets);
        let same = {
            let mut slots = self.slots();
            slots.calls.retarget += 1;
            slots.targets(&self.mark) == Some(hash)
        };
        if same {
            return Ok(());
        }
        self.effect(|slots| slots.set_targets(&self.mark, hash))
    }

    async fn release(
        &self,
        id: &ServiceId,
        key: &Key,
        removal: Removal,
    ) -> Result<Released, ProviderError> {
        let there = {
            let mut slots = self.slots();
            slots.calls.release += 1;
            slots.has(&self.mark, id, key, removal)
        };
        if there {
            self.effect(|slots| slots.release(&self.mark, id, removal))?;
        }
        Ok(Released::Gone)
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        let mut slots = self.slots();
        slots.calls.inventory += 1;
        Ok(slots.inventory(&self.mark))
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match changes.take() {
            Some(mut changes) => futures::stream::poll_fn(move |cx| changes.poll_recv(cx)).boxed(),
            None => futures::stream::pending().boxed(),
        }
    }
}
