//! The classes, and which class serves which Service.
//!
//! [`Classes`] answers which class serves a Service and which class is the default. It does
//! no I/O. Beside the classes it reads only the ledger, behind a short lock. Invariant 4 is
//! enforced here: a Service that no class claims is not touched.
//!
//! [`status`] writes the status of classes, [`instance`] runs their providers,
//! [`drain`] keeps the drain of classes that are created again,
//! [`contender`] looks for other service controllers, and [`board`] holds what they report.

pub mod board;
pub mod contender;
pub mod drain;
pub mod instance;
pub mod orphans;
pub mod patience;
pub mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ballast_crds::{
    DeletionPolicy, Draining, LoadBalancerClass, LoadBalancerClassStatus, OrphanPolicy,
    ProviderSettings, class_of_key,
};
use ballast_provider::{LoadBalancer, Provider, Reason, Refusal, Removal, Traits};
use jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;

use crate::class::instance::Factory;
use crate::class::orphans::Found;
use crate::cluster::conditions::rfc3339;
use crate::cluster::ledger::Ledger;
use crate::cluster::meta::{created, version};
use crate::cluster::view::ServiceView;

/// The finalizer that a class carries while Services use it.
pub const IN_USE_FINALIZER: &str = "ballast.dev/in-use";

/// The grace of a class that does not name one.
const DEFAULT_GRACE: SignedDuration = SignedDuration::from_hours(24);

/// The fields of a `LoadBalancerClass` that decisions need.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassView {
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.resourceVersion`
    pub version: u64,
    /// `metadata.creationTimestamp`
    pub created: Timestamp,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `metadata.finalizers`
    pub finalizers: Vec<String>,
    /// `spec.default`
    pub default: bool,
    /// `spec.forceDefault`
    pub force_default: bool,
    /// `spec.maxLoadBalancers`
    pub max: Option<usize>,
    /// `spec.deletionPolicy`
    pub removal: Removal,
    /// `spec.orphans`: load balancers without a Service are deleted after this grace. `None`: they are
    /// only reported.
    pub orphan_grace: Option<SignedDuration>,
    /// The provider settings, or why they are invalid.
    pub provider: Result<ProviderSettings, String>,
    /// The traits of its provider, or why the class cannot serve Services.
    pub traits: Result<Traits, String>,
    /// `status`
    pub status: LoadBalancerClassStatus,
}

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

/// A grace as the class names it, in whole seconds; one that is no time counts as none.
fn grace(period: kube::core::Duration) -> SignedDuration {
    if period.is_negative() {
        return DEFAULT_GRACE;
    }
    SignedDuration::try_from(std::time::Duration::from(period)).unwrap_or(SignedDuration::MAX)
}

/// Whether the targets of a load balancer are pods.
pub fn uses_endpoints(provider: &dyn Provider, load_balancer: &LoadBalancer) -> bool {
    provider.traits().endpoints && provider.uses_endpoints(load_balancer)
}

// === impl ClassView ===

impl ClassView {
    /// Reads a class. A class that cannot be read becomes a view with an error.
    pub fn of(guard: &DeserializeGuard<LoadBalancerClass>, factory: &dyn Factory) -> Self {
        let (meta, class) = match &guard.0 {
            Ok(class) => (&class.metadata, Ok(class)),
            Err(invalid) => (&invalid.metadata, Err(invalid.error.clone())),
        };
        let spec = class.as_ref().ok().map(|class| &class.spec);
        let provider = match &class {
            Ok(class) => class.spec.provider().map_err(|error| error.to_string()),
            Err(error) => Err(format!("the class cannot be read: {error}")),
        };
        let traits = provider
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|settings| {
                let supported = factory.supports(settings);
                supported.map_err(|refusal| refusal.message)
            });
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            version: version(meta),
            created: created(meta),
            deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            default: spec.is_some_and(|spec| spec.default),
            force_default: spec.is_some_and(|spec| spec.force_default),
            max: spec
                .and_then(|spec| spec.max_load_balancers)
                .map(|max| usize::try_from(max).unwrap_or(0)),
            removal: match spec.map(|spec| spec.deletion_policy) {
                // An unreadable class must not delete anything for good.
                None | Some(DeletionPolicy::Retain) => Removal::Retain,
                Some(DeletionPolicy::Delete) => Removal::Delete,
            },
            orphan_grace: spec
                .filter(|spec| spec.orphans == OrphanPolicy::Delete)
                .map(|spec| spec.orphan_grace_period.map_or(DEFAULT_GRACE, grace)),
            provider,
            traits,
            status: class
                .ok()
                .and_then(|class| class.status.clone())
                .unwrap_or_default(),
        }
    }

    /// Since when the class has published that a copy of the cluster uses its load balancers, and the message.
    pub fn published_copy(&self) -> Option<(Timestamp, String)> {
        let mut all = self.status.conditions.iter();
        let shared = all.find(|it| it.type_ == status::IDENTITY_SHARED && it.status == "True")?;
        Some((shared.last_transition_time.0, shared.message.clone()))
    }

    /// What becomes of load balancers without a Service.
    pub fn orphan_policy(&self) -> orphans::Policy {
        orphans::Policy {
            delete: self.orphan_grace.is_some(),
            grace: self.orphan_grace.unwrap_or(DEFAULT_GRACE),
            draining: self.draining().is_some(),
        }
    }

    /// Whether it carries [`IN_USE_FINALIZER`].
    pub fn is_guarded(&self) -> bool {
        self.finalizers
            .iter()
            .any(|finalizer| finalizer == IN_USE_FINALIZER)
    }

    /// Whether its status says that Services use it.
    pub fn reports_use(&self) -> bool {
        status::reports_use(&self.status)
    }

    /// Whether its status says that its provider starts.
    pub fn is_starting(&self) -> bool {
        status::is_starting(&self.status)
    }

    /// Whether its addresses come from pools. Then the status of Services is the only record
    /// of them.
    pub fn uses_pools(&self) -> bool {
        self.traits.as_ref().is_ok_and(|traits| traits.pools)
    }

    /// Whether the targets of its load balancers can be pods.
    fn may_use_endpoints(&self) -> bool {
        self.traits.as_ref().is_ok_and(|traits| traits.endpoints)
    }

    /// The drain switch, if it is on.
    pub const fn draining(&self) -> Option<&Draining> {
        self.status.draining.as_ref()
    }

    /// What the class and its Services report while it is draining.
    pub fn drained(&self) -> Option<Refusal> {
        let Draining { since, reason } = self.draining()?;
        let reason = reason.as_deref().filter(|reason| !reason.is_empty());
        let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
        let (name, since) = (&self.name, rfc3339(since.0));
        Some(Refusal::new(
            Reason::Draining,
            format!(
                "LoadBalancerClass {name} has been draining since {since} (ballast teardown{reason}); it creates no load balancers and releases existing ones. To undo: ballast teardown --undo --classes {name}"
            ),
        ))
    }

    /// Whether two views of a class are the same for Services. Of the status only the drain
    /// switch matters to them.
    fn is_same_for_services(&self, other: &Self) -> bool {
        let of = |view: &Self| Self {
            version: 0,
            status: LoadBalancerClassStatus {
                draining: view.status.draining.clone(),
                ..LoadBalancerClassStatus::default()
            },
            ..view.clone()
        };
        of(self) == of(other)
    }

    /// Why this class cannot serve Services, if it cannot.
    pub fn unusable(&self) -> Option<String> {
        self.traits.as_ref().err().cloned()
    }
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
        self.contender == other.contender
            && surveyed(self) == surveyed(other)
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
            None => self.get(name)?.published_copy()?.1,
        };
        Some(Refusal::new(Reason::IdentityShared, message))
    }

    /// Whether the cloud of a class was surveyed, or need not be: nothing is deleted before, because the survey
    /// shows whether this cluster is a copy.
    pub fn is_surveyed(&self, name: &str) -> bool {
        let outlives = |class: &ClassView| class.traits.as_ref().is_ok_and(|it| it.finalizer);
        self.found.contains_key(name) || !self.get(name).is_some_and(outlives)
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
