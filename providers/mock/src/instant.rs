//! A provider without a cloud: it runs in process and does no I/O, and every call is O(1)
//! apart from the number of members. For benchmarks and simulations of the controller.
//!
//! Release builds contain it on purpose, without a cargo feature: with `--simulate`,
//! benchmarks measure the released program, and a special build would be a different program.
//! It opens no port, and only that flag enables it.
//!
//! Addresses come from 198.18.0.0/15 (RFC 2544) and `2001:2::/48` (RFC 5180), which are
//! reserved for benchmarks, so that they are not mistaken for reachable ones.
//!
//! An [`InstantCloud`] survives a restart of the controller; an [`InstantProvider`] does
//! not. Invariants: each key has one slot, and so one address per family; a slot exists as
//! long as it has members; a Service is a member of each balancer from which it was not
//! released.
//!
//! An address that could not be assigned is tried again at the next reconcile of the Service:
//! nothing reports that it is free.

mod cloud;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ballast_provider::{
    Balancer, Change, Exclusion, IpMode, Key, LoadBalancer, Mark, Member, Observed, Owned,
    Provider, ProviderError, Published, Refusal, Released, Removal, ServiceId, State, TargetSet,
    Traits,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

pub use self::cloud::{Calls, Fault, InstantCloud, InstantObject};
use self::cloud::{Effect, Place, Slots};
use crate::provider::{remarks, validate};

/// The maximum number of injected changes that wait for the controller.
const CHANGES: usize = 1_024;

/// Load balancers in the memory of this process.
pub struct InstantProvider {
    mark: Mark,
    cloud: Arc<InstantCloud>,
    inject: mpsc::Sender<Change>,
    changes: Mutex<Option<mpsc::Receiver<Change>>>,
}

// === impl InstantProvider ===

impl InstantProvider {
    /// A provider with its own cloud.
    pub fn new(mark: Mark) -> Self {
        Self::on(Arc::default(), mark)
    }

    /// A provider on a cloud that other providers use or have used.
    pub fn on(cloud: Arc<InstantCloud>, mark: Mark) -> Self {
        let (inject, changes) = mpsc::channel(CHANGES);
        Self {
            mark,
            cloud,
            inject,
            changes: Mutex::new(Some(changes)),
        }
    }

    /// The calls on the whole cloud so far.
    pub fn calls(&self) -> Calls {
        self.cloud.calls()
    }

    /// The cloud of this provider.
    pub fn cloud(&self) -> Arc<InstantCloud> {
        Arc::clone(&self.cloud)
    }

    /// Sends a change to the stream. Returns `false` if nothing reads the stream or it is
    /// full.
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

    fn observed(member: &Member, place: &Place) -> Observed {
        let families = member.load_balancer.families.iter();
        let addresses = families.map(|family| cloud::address(*family, place.index));
        let ingress = member.load_balancer.ingress(addresses, IpMode::Proxy);
        let mut observed = Observed::new(ingress, State::Programmed);
        if !member.load_balancer.requested_addresses.is_empty() {
            observed.objection.clone_from(&place.objection);
        }
        observed.remarks = remarks::of(member, &[]);
        observed
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

    /// Uses the share key if there is one: this provider supports shared balancers.
    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        match &load_balancer.share_key {
            Some(share_key) => Key::Shared(share_key.as_str().into()),
            None => Key::alone(&load_balancer.id),
        }
    }

    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal> {
        validate::validate(balancer)
    }

    async fn restore(&self, _: Vec<Published>) -> Result<(), ProviderError> {
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
        let request = cloud::request(balancer);
        let present = {
            let mut slots = self.slots();
            slots.calls.ensure += 1;
            slots.unchanged(&self.mark, balancer, &members, &request)
        };
        let place = if let Some(place) = present {
            place
        } else {
            let put = |slots: &mut Slots| slots.put(&self.mark, balancer, &members, &request);
            self.effect(put)??
        };
        let observed = balancer.members.iter().map(|member| {
            let id = member.load_balancer.id.clone();
            (id, Self::observed(member, &place))
        });
        Ok(observed.collect())
    }

    async fn retarget(&self, targets: &TargetSet, _keys: &[Key]) -> Result<(), ProviderError> {
        let hash = cloud::hash(&targets.nodes);
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
            self.effect(|slots| slots.release(&self.mark, id, key, removal))?;
        }
        Ok(Released::Gone)
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        let mut slots = self.slots();
        slots.calls.inventory += 1;
        Ok(slots.inventory(&self.mark))
    }

    /// Its load balancers have no notes: nothing else uses the cloud.
    async fn tag(
        &self,
        _: &[Owned],
        _: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        Ok(())
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match changes.take() {
            Some(mut changes) => futures::stream::poll_fn(move |cx| changes.poll_recv(cx)).boxed(),
            None => futures::stream::pending().boxed(),
        }
    }
}
