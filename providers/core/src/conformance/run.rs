//! The parts of the checks: one cloud, instances on it, and calls that are repeated until the
//! cloud has done what was requested, as the controller does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Crash, Failure, Harness, Lab, Object, fixtures};
use crate::error::ProviderError;
use crate::mark::{self, Mark};
use crate::model::{Address, Balancer, LoadBalancer, ServiceId, TargetSet};
use crate::provider::{Observed, Provider, Published, Released, Removal};

/// The number of attempts after which the cloud counts as hanging.
pub(super) const PATIENCE: usize = 600;

/// One check on one cloud.
pub(super) struct Run {
    check: &'static str,
    pub(super) harness: Box<dyn Harness>,
    pub(super) mark: Mark,
}

/// An operation that the controller requests.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Ensure(LoadBalancer),
    Retarget(TargetSet),
    Release(LoadBalancer, Removal),
}

// === impl Run ===

impl Run {
    pub(super) async fn new(lab: &dyn Lab, check: &'static str) -> Self {
        Self {
            check,
            harness: lab.cloud().await,
            mark: fixtures::mark(),
        }
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Result<T, Failure> {
        Err(Failure {
            check: self.check,
            message: message.into(),
        })
    }

    /// A new instance that has restored what the Services publish.
    pub(super) async fn start(
        &self,
        published: &[Published],
    ) -> Result<Arc<dyn Provider>, Failure> {
        self.start_as(&self.mark, published).await
    }

    pub(super) async fn start_as(
        &self,
        mark: &Mark,
        published: &[Published],
    ) -> Result<Arc<dyn Provider>, Failure> {
        let provider = self.harness.provider(mark).await;
        for _ in 0..PATIENCE {
            match provider.restore(published.to_vec()).await {
                Ok(()) => return Ok(provider),
                Err(ProviderError::Refused(refusal)) => {
                    return self.fail(format!("restore is refused: {refusal}"));
                }
                Err(_) => self.harness.pause().await,
            }
        }
        self.fail("restore never succeeds")
    }

    /// Ensures one Service alone until traffic flows. Returns its published addresses.
    pub(super) async fn ensure(
        &self,
        provider: &Arc<dyn Provider>,
        load_balancer: &LoadBalancer,
        published: &[Address],
    ) -> Result<Vec<Address>, Failure> {
        let key = provider.key(load_balancer);
        let balancer = fixtures::alone(key, load_balancer.clone(), published);
        let observed = self.settle(provider, &balancer).await?;
        Ok(observed
            .into_iter()
            .flat_map(|(_, observed)| addresses(&observed))
            .collect())
    }

    /// Ensures until traffic flows for every member.
    pub(super) async fn settle(
        &self,
        provider: &Arc<dyn Provider>,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, Failure> {
        let mut last = String::new();
        for _ in 0..PATIENCE {
            match provider.ensure(balancer).await {
                Ok(observed) => {
                    self.complete(balancer, &observed)?;
                    let ready =
                        |(_, observed): &(_, Observed)| self.harness.serves(&observed.state);
                    if observed.iter().all(ready) {
                        return Ok(observed);
                    }
                    last = format!("{observed:?}");
                }
                Err(ProviderError::Refused(refusal)) => {
                    return self.fail(format!("ensure of {} is refused: {refusal}", balancer.key));
                }
                Err(error) => last = error.to_string(),
            }
            self.harness.pause().await;
        }
        self.fail(format!(
            "{} never becomes Programmed; last seen: {last}",
            balancer.key
        ))
    }

    /// Checks that the answer has every member once, and that each one publishes all its
    /// ports.
    pub(super) fn complete(
        &self,
        balancer: &Balancer,
        observed: &[(ServiceId, Observed)],
    ) -> Result<(), Failure> {
        let wanted: Vec<_> = balancer
            .members
            .iter()
            .map(|m| &m.load_balancer.id)
            .collect();
        let got: Vec<_> = observed.iter().map(|(id, _)| id).collect();
        if wanted != got {
            return self.fail(format!("ensure of {wanted:?} answers for {got:?}"));
        }
        for (member, (id, observed)) in balancer.members.iter().zip(observed) {
            let ports = member.load_balancer.listeners.iter();
            let ports: Vec<_> = ports.map(|port| (port.protocol, port.port)).collect();
            for ingress in &observed.ingress {
                let got = ingress.ports.iter().map(|port| (port.protocol, port.port));
                if !got.eq(ports.iter().copied()) {
                    return self.fail(format!(
                        "{id}: the ports {ports:?} are published as {ingress:?}"
                    ));
                }
            }
            if self.harness.serves(&observed.state) && observed.ingress.is_empty() {
                return self.fail(format!("{id} is served and has no address"));
            }
        }
        Ok(())
    }

    pub(super) async fn retarget(
        &self,
        provider: &Arc<dyn Provider>,
        targets: &TargetSet,
        services: &[LoadBalancer],
    ) -> Result<(), Failure> {
        let keys: Vec<_> = services
            .iter()
            .map(|service| provider.key(service))
            .collect();
        for _ in 0..PATIENCE {
            match provider.retarget(targets, &keys).await {
                Ok(()) => return Ok(()),
                Err(ProviderError::Refused(refusal)) => {
                    return self.fail(format!("retarget is refused: {refusal}"));
                }
                Err(_) => self.harness.pause().await,
            }
        }
        self.fail("retarget never succeeds")
    }

    pub(super) async fn release(
        &self,
        provider: &Arc<dyn Provider>,
        service: &LoadBalancer,
        removal: Removal,
    ) -> Result<(), Failure> {
        let (id, key) = (&service.id, provider.key(service));
        let mut last = String::new();
        for _ in 0..PATIENCE {
            match provider.release(id, &key, removal).await {
                Ok(Released::Gone) => return Ok(()),
                Err(ProviderError::Refused(refusal)) => {
                    return self.fail(format!("release of {id} is refused: {refusal}"));
                }
                Ok(Released::InProgress { .. }) => "in progress".clone_into(&mut last),
                Err(error) => last = error.to_string(),
            }
            self.harness.pause().await;
        }
        self.fail(format!("release of {id} never ends: {last}"))
    }

    /// Repeats the operation until it is done.
    pub(super) async fn perform(
        &self,
        provider: &Arc<dyn Provider>,
        ask: &Ask,
        published: &[Address],
        services: &[LoadBalancer],
    ) -> Result<Vec<Address>, Failure> {
        match ask {
            Ask::Ensure(service) => self.ensure(provider, service, published).await,
            Ask::Retarget(targets) => {
                self.retarget(provider, targets, services).await?;
                Ok(published.to_vec())
            }
            Ask::Release(service, removal) => {
                self.release(provider, service, *removal).await?;
                Ok(Vec::new())
            }
        }
    }

    /// Repeats the operation until it is done or the crash has happened. Returns whether it
    /// happened. Errors are part of a crash; without one, everything must succeed.
    pub(super) async fn perform_into(
        &self,
        crash: Crash,
        provider: &Arc<dyn Provider>,
        ask: &Ask,
        published: &[Address],
        services: &[LoadBalancer],
    ) -> Result<bool, Failure> {
        self.harness.set_crash(Some(crash)).await;
        for _ in 0..PATIENCE {
            let done = self.attempt(provider, ask, published, services).await;
            if self.harness.crashed().await {
                self.harness.set_crash(None).await;
                return Ok(true);
            }
            match done {
                Ok(true) => {
                    self.harness.set_crash(None).await;
                    return Ok(false);
                }
                Ok(false) => self.harness.pause().await,
                Err(error) => {
                    return self.fail(format!("{ask} fails without a crash: {error}"));
                }
            }
        }
        self.fail(format!("{ask} is never done"))
    }

    /// Tries once. Returns whether the operation is done.
    async fn attempt(
        &self,
        provider: &Arc<dyn Provider>,
        ask: &Ask,
        published: &[Address],
        services: &[LoadBalancer],
    ) -> Result<bool, ProviderError> {
        match ask {
            Ask::Ensure(service) => {
                let balancer = fixtures::alone(provider.key(service), service.clone(), published);
                let observed = provider.ensure(&balancer).await?;
                Ok(observed
                    .iter()
                    .all(|(_, observed)| self.harness.serves(&observed.state)))
            }
            Ask::Retarget(targets) => {
                let keys: Vec<_> = services
                    .iter()
                    .map(|service| provider.key(service))
                    .collect();
                provider.retarget(targets, &keys).await.map(|()| true)
            }
            Ask::Release(service, removal) => {
                let key = provider.key(service);
                let released = provider.release(&service.id, &key, *removal).await?;
                Ok(released == Released::Gone)
            }
        }
    }

    /// Checks that no mutating call was made since `before`.
    pub(super) async fn unchanged_since(&self, before: u64, what: &str) -> Result<(), Failure> {
        let made = self.harness.effects().await - before;
        if made == 0 {
            Ok(())
        } else {
            self.fail(format!(
                "{what} makes {made} mutating calls, but none is allowed"
            ))
        }
    }

    /// Checks that the cloud holds exactly these objects.
    pub(super) async fn expect_contents(
        &self,
        expected: &BTreeMap<String, Object>,
        when: &str,
    ) -> Result<(), Failure> {
        let got = stable(self.harness.contents().await);
        let expected = stable(expected.clone());
        let mut differences = Vec::new();
        for (name, object) in &expected {
            match got.get(name) {
                None => differences.push(format!("{name} is missing")),
                Some(other) if other != object => {
                    differences.push(format!("{name} is {other:?}, not {object:?}"));
                }
                Some(_) => {}
            }
        }
        let extra = got.keys().filter(|name| !expected.contains_key(*name));
        differences.extend(extra.map(|name| format!("{name} is left over or doubled")));
        if differences.is_empty() {
            Ok(())
        } else {
            self.fail(format!("{when}: {}", differences.join("; ")))
        }
    }
}

// === impl Ask ===

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ensure(service) => write!(f, "ensure of {}", service.id),
            Self::Retarget(targets) => write!(f, "retarget to {} nodes", targets.len()),
            Self::Release(service, removal) => {
                write!(f, "release of {} ({removal:?})", service.id)
            }
        }
    }
}

pub(super) fn publishes(id: &ServiceId, addresses: &[Address]) -> Published {
    Published {
        id: id.clone(),
        addresses: fixtures::ips(addresses),
        hostnames: Vec::new(),
    }
}

/// Where clients reach a Service: addresses, or the name of a load balancer.
pub(super) fn addresses(observed: &Observed) -> Vec<Address> {
    let ingress = observed.ingress.iter();
    ingress.map(|entry| entry.address.clone()).collect()
}

/// Removes what may differ between two runs: times, and the choice of addresses.
pub(super) fn stable(contents: BTreeMap<String, Object>) -> BTreeMap<String, (usize, Object)> {
    let stable = |mut object: Object| {
        object
            .tags
            .retain(|key, _| !mark::NOTES.contains(&key.as_str()));
        if let Some(retained) = object.tags.get_mut(mark::RETAINED) {
            retained.clear();
        }
        (std::mem::take(&mut object.addresses).len(), object)
    };
    contents
        .into_iter()
        .map(|(name, object)| (name, stable(object)))
        .collect()
}
