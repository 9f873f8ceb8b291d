//! The classes, and which class serves which Service.
//!
//! [`Classes`] answers which class serves a Service and which class is the default. It does
//! no I/O. Beside the classes it reads only the ledger, behind a short lock. Invariant 4 is
//! enforced here: a Service that no class claims is not touched. [`ClassView`] is one class, as
//! decisions need it.
//!
//! [`status`] writes the status of classes, [`instance`] runs their providers,
//! [`drain`] keeps the drain of classes that are created again,
//! [`contender`] looks for other service controllers, [`orphans`] for load balancers without a
//! Service, and [`board`] holds what they report.

pub mod board;
pub mod contender;
pub mod drain;
pub mod instance;
pub mod orphans;
pub mod patience;
pub mod status;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ballast_crds::class_of_key;
use ballast_provider::{LoadBalancer, Provider, Reason, Refusal};

pub use self::view::{ClassView, IN_USE_FINALIZER};
use crate::class::orphans::Found;
use crate::cluster::ledger::Ledger;
use crate::cluster::view::ServiceView;

/// The state of a class's provider, as its task reports it.
#[derive(Clone)]
pub enum Instance {
    /// The provider was not called yet.
    Starting,
    /// The provider cannot start. The message is stable over retries.
    Failing(Reason, String),
    /// The provider is restored, and the ledger has what its cloud holds.
    Ready(Arc<dyn Provider>),
}

/// The classes that this process serves. It does not touch Services of other classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every class of the group.
    #[default]
    All,
    /// Only these.
    Only(BTreeSet<String>),
}

/// All classes with their providers, and the other service controllers of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    /// All classes, by name.
    pub views: BTreeMap<String, Arc<ClassView>>,
    /// The providers of the classes in scope.
    pub instances: BTreeMap<String, Instance>,
    /// What surveys of the clouds have found, by class.
    pub found: BTreeMap<String, Arc<Found>>,
    /// Why the last survey failed, by class.
    pub survey_errors: BTreeMap<String, Refusal>,
    /// The classes that this process serves.
    pub scope: Scope,
    /// Another controller that serves Services without a class.
    pub contender: Contender,
    /// Which class has a load balancer of which Service. Shared by the whole process.
    pub ledger: Arc<Ledger>,
}

/// Another service controller in this cluster that serves Services without a class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Contender {
    /// Not known yet.
    #[default]
    Unknown,
    /// There is none.
    Nobody,
    /// There is one, with this name.
    Present(String),
}

/// The holder of a class-less Service, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder<'a> {
    /// This class serves it.
    Class(&'a str),
    /// It publishes an address, and some class was not asked yet whether it has it.
    Undecided,
    /// No class serves it.
    None,
}

/// Whether a default class serves class-less Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultState {
    /// It serves them.
    Effective,
    /// An older default class serves them.
    Conflict(String),
    /// Another controller serves them.
    Contested(String),
    /// It is not known yet whether another controller serves them. Until then no Service is
    /// claimed and no condition is written.
    Undecided,
}

/// Whether the targets of a load balancer are pods.
pub fn uses_endpoints(provider: &dyn Provider, load_balancer: &LoadBalancer) -> bool {
    provider.traits().endpoints && provider.uses_endpoints(load_balancer)
}

// === impl Instance ===

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("Starting"),
            Self::Failing(reason, message) => f
                .debug_tuple("Failing")
                .field(reason)
                .field(message)
                .finish(),
            Self::Ready(_) => f.write_str("Ready"),
        }
    }
}

// === impl Scope ===

impl Scope {
    /// Whether this process serves a class.
    pub fn owns(&self, class: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(class),
        }
    }
}

// === impl Classes ===

impl Classes {
    /// Whether these classes are the same for Services as the others. Providers are not
    /// compared: each wakes its own Services.
    pub fn are_same_for_services(&self, other: &Self) -> bool {
        // Whether a class was surveyed, and whether a copy uses it.
        let surveyed = |of: &Self| -> Vec<(String, bool)> {
            let found = of.found.iter();
            found
                .map(|(name, it)| (name.clone(), it.shared.is_some()))
                .collect()
        };
        // Once a class was surveyed, no Service waits for a survey.
        let unsurveyed = |of: &Self| -> Vec<Refusal> {
            let failed = of.survey_errors.keys();
            failed
                .filter_map(|name| of.refusal_of_a_survey(name))
                .collect()
        };
        self.contender == other.contender
            && surveyed(self) == surveyed(other)
            && unsurveyed(self) == unsurveyed(other)
            && self.views.len() == other.views.len()
            && self.views.iter().all(|(name, view)| {
                other.views.get(name).is_some_and(|before| {
                    Arc::ptr_eq(before, view) || before.is_same_for_services(view)
                })
            })
    }

    /// A class by name.
    pub fn get(&self, name: &str) -> Option<&ClassView> {
        self.views.get(name).map(Arc::as_ref)
    }

    /// Why nothing of a class is deleted, if a copy of this cluster uses the same load balancers. Until the first
    /// survey of this process, what the former one has published counts.
    pub fn refusal_of_a_copy(&self, name: &str) -> Option<Refusal> {
        let message = match self.found.get(name) {
            Some(found) => found.shared_message()?,
            None => self.get(name)?.published_copy()?.to_owned(),
        };
        Some(Refusal::new(Reason::IdentityShared, message))
    }

    /// Whether the cloud of a class was surveyed, or need not be: nothing is deleted before, because the survey
    /// shows whether this cluster is a copy.
    pub fn is_surveyed(&self, name: &str) -> bool {
        let outlives = |class: &ClassView| class.traits.as_ref().is_ok_and(|it| it.finalizer);
        self.found.contains_key(name) || !self.get(name).is_some_and(outlives)
    }

    /// Why a class is not surveyed yet, if that has failed.
    pub fn refusal_of_a_survey(&self, name: &str) -> Option<Refusal> {
        if self.is_surveyed(name) {
            return None;
        }
        let why = self.survey_errors.get(name)?;
        Some(Refusal::new(
            why.reason,
            format!(
                "LoadBalancerClass {name} deletes nothing before its load balancers were listed, and the list fails: {}",
                why.message
            ),
        ))
    }

    /// Whether a copy of this cluster uses the load balancers of a class, or nobody knows yet. Nothing of it is deleted then.
    pub fn may_have_a_copy(&self, name: &str) -> bool {
        !self.is_surveyed(name) || self.refusal_of_a_copy(name).is_some()
    }

    /// Forgets what the task of a class has posted.
    fn forget(&mut self, name: &str) {
        self.instances.remove(name);
        self.found.remove(name);
        self.survey_errors.remove(name);
    }

    /// The provider of a class, once it is ready.
    pub fn provider(&self, name: &str) -> Option<Arc<dyn Provider>> {
        match self.instances.get(name) {
            Some(Instance::Ready(provider)) => Some(Arc::clone(provider)),
            _ => None,
        }
    }

    /// Whether a class of this process can have pods as targets.
    pub fn need_endpoints(&self) -> bool {
        let mut views = self.views.values();
        views.any(|view| self.scope.owns(&view.name) && view.may_use_endpoints())
    }

    /// Whether the targets of a Service are pods, or were before an edit that is refused.
    pub fn use_endpoints(&self, service: &ServiceView) -> bool {
        let provider = self.claim(service).and_then(|class| self.provider(class));
        let of = |provider: Arc<dyn Provider>| {
            let mut shapes = service.shapes();
            shapes.any(|shape| uses_endpoints(provider.as_ref(), shape))
        };
        provider.is_some_and(of)
    }

    /// Whether the load balancers of two classes are in one cloud: they have the same provider
    /// with the same settings, or both clouds report the same identity. One cloud can have
    /// several URLs.
    pub fn share_a_cloud(&self, one: &str, other: &str) -> bool {
        let (Some(a), Some(b)) = (self.get(one), self.get(other)) else {
            return false;
        };
        if a.uses_pools() || b.uses_pools() {
            return false;
        }
        let identities = |name| self.provider(name).map(|it| it.clouds());
        let known = identities(one).unwrap_or_default();
        let same = || {
            let others = identities(other).unwrap_or_default();
            others.iter().any(|it| known.contains(it))
        };
        (a.provider.is_ok() && a.provider == b.provider) || same()
    }

    /// The class of this process that serves this Service. A draining class still claims its
    /// Services, so that no other class takes them; so does a draining default class.
    pub fn claim<'a>(&'a self, service: &'a ServiceView) -> Option<&'a str> {
        self.claimant(service).filter(|name| self.scope.owns(name))
    }

    /// The class that serves this Service, whichever process serves the class.
    pub fn claimant<'a>(&'a self, service: &'a ServiceView) -> Option<&'a str> {
        if !service.is_load_balancer || service.deleting {
            return None;
        }
        match &service.class {
            Some(key) => class_of_key(key),
            None => self.classless(service),
        }
    }

    /// A live class-less Service stays with its class, whatever the default class is now.
    fn classless<'a>(&'a self, service: &'a ServiceView) -> Option<&'a str> {
        match self.holder(service) {
            Holder::Class(class) => Some(class),
            Holder::Undecided => None,
            Holder::None => self.effective_default(),
        }
    }

    /// Which class serves a class-less Service. Anybody who may edit a Service can add and
    /// remove its finalizers, so the ledger and the clouds are asked before them. Only a
    /// Service that publishes an address is looked up: the API server removes the address
    /// when the type changes, and `spec.loadBalancerClass` cannot change without that, so
    /// the Service got the address without a class.
    fn holder<'a>(&'a self, service: &'a ServiceView) -> Holder<'a> {
        // The standard finalizer beside ours says that it was taken without a class.
        let finalizer = service.holders().next();
        let finalizer = finalizer.filter(|_| service.standard_finalizer);
        if !service.ingress.is_empty() {
            let recorded = self.ledger.places_of(&service.id);
            let recorded = recorded.iter().filter_map(|name| self.named(name, service));
            let recorded = recorded.min_by_key(|name| !service.is_held_by(name));
            if let Some(class) = recorded {
                return Holder::Class(class);
            }
            if self.may_be_elsewhere(service, finalizer) {
                return Holder::Undecided;
            }
        }
        finalizer.map_or(Holder::None, Holder::Class)
    }

    /// A name of a class with the lifetime of what is borrowed anyway.
    fn named<'a>(&'a self, name: &str, service: &'a ServiceView) -> Option<&'a str> {
        let class = self
            .views
            .get_key_value(name)
            .map(|(name, _)| name.as_str());
        class.or_else(|| service.holders().find(|held| *held == name))
    }

    /// Whether a class-less Service that publishes an address may have it from a class that
    /// its finalizers do not name, and whose cloud was not listed yet.
    fn may_be_elsewhere(&self, service: &ServiceView, finalizer: Option<&str>) -> bool {
        let waits = |class: &ClassView, even_if_failing: bool| {
            self.scope.owns(&class.name)
                && class.unusable().is_none()
                && match self.instances.get(&class.name) {
                    None | Some(Instance::Starting) => true,
                    Some(Instance::Failing(..)) => even_if_failing,
                    Some(Instance::Ready(_)) => false,
                }
        };
        let mut classes = self.views.values();
        match (finalizer, &service.held_by[..]) {
            // Not ours to judge, or nothing of ours was ever said on it.
            _ if service.holders().any(|class| !self.scope.owns(class)) => false,
            (None, _) if service.conditions.is_empty() => false,
            (None, _) => classes.any(|class| waits(class, true)),
            // Of one that starts nothing is done before its cloud was listed. One with pools
            // has its addresses from the Services themselves.
            (Some(holder), [_]) => {
                let trusted = self
                    .get(holder)
                    .is_none_or(|class| class.uses_pools() || waits(class, true));
                !trusted && classes.any(|class| waits(class, false))
            }
            (Some(_), _) => classes.any(|class| waits(class, false)),
        }
    }

    /// The class that serves Services without a class.
    pub fn effective_default(&self) -> Option<&str> {
        let oldest = self.oldest_default()?;
        (self.default_state(oldest)? == DefaultState::Effective).then_some(oldest.name.as_str())
    }

    /// Whether it is not known yet which class serves this Service.
    pub fn may_claim(&self, service: &ServiceView) -> bool {
        let undecided_default = || {
            let oldest = self.oldest_default();
            oldest.and_then(|class| self.default_state(class)) == Some(DefaultState::Undecided)
        };
        service.is_load_balancer
            && !service.deleting
            && service.class.is_none()
            && match self.holder(service) {
                Holder::Class(_) => false,
                Holder::Undecided => true,
                Holder::None => undecided_default(),
            }
    }

    /// Whether a default class serves class-less Services; `None` for other classes.
    pub fn default_state(&self, class: &ClassView) -> Option<DefaultState> {
        if !class.default || class.deleting {
            return None;
        }
        let oldest = self.oldest_default()?;
        if oldest.name != class.name {
            return Some(DefaultState::Conflict(oldest.name.clone()));
        }
        Some(match &self.contender {
            _ if class.force_default => DefaultState::Effective,
            Contender::Unknown => DefaultState::Undecided,
            Contender::Nobody => DefaultState::Effective,
            Contender::Present(other) => DefaultState::Contested(other.clone()),
        })
    }

    fn oldest_default(&self) -> Option<&ClassView> {
        self.views
            .values()
            .filter(|class| class.default && !class.deleting)
            .min_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)))
            .map(Arc::as_ref)
    }
}

#[cfg(test)]
mod tests;
