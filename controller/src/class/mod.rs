//! The classes and what they claim. Pure.
//!
//! Owns the answers to "which class serves this Service", "which class is the
//! default" and "what does a class report about itself". Invariant 4 lives here: a
//! Service that no class of ours claims is not touched.

pub mod board;
pub mod contender;
pub mod instance;
pub mod patience;
pub mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ballast_crds::{
    DeletionPolicy, Draining, LoadBalancerClass, LoadBalancerClassStatus, ProviderSettings,
    class_of_key,
};
use ballast_provider::{Provider, Reason, Refusal, Removal, Traits};
use jiff::Timestamp;
use kube::core::DeserializeGuard;

use crate::class::instance::Factory;
use crate::cluster::conditions::rfc3339;
use crate::cluster::meta::{created, version};
use crate::cluster::view::ServiceView;

/// The finalizer that a class carries while Services use it.
pub const IN_USE_FINALIZER: &str = "ballast.dev/in-use";

/// A `LoadBalancerClass` as far as we are concerned.
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
    /// The provider, or why the class cannot be understood.
    pub provider: Result<ProviderSettings, String>,
    /// What its provider supports, or why it cannot serve anybody.
    pub traits: Result<Traits, String>,
    /// As published now.
    pub status: LoadBalancerClassStatus,
}

/// The provider instance of a class, as its task reports it.
#[derive(Clone)]
pub enum Instance {
    /// Not yet asked for anything.
    Starting,
    /// It does not answer; the message is stable over retries.
    Failing(String),
    /// Restored and ready for work.
    Ready(Arc<dyn Provider>),
}

/// Which classes this process serves; others' finalizers and Services are not its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every class of the group.
    #[default]
    All,
    /// Only these.
    Only(BTreeSet<String>),
}

/// All classes with their instances, and who else wants to be the default.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    /// By name, in scope or not.
    pub views: BTreeMap<String, Arc<ClassView>>,
    /// Provider instances of classes in scope.
    pub instances: BTreeMap<String, Instance>,
    /// What this process serves.
    pub scope: Scope,
    /// Who else takes Services without a class.
    pub contender: Contender,
}

/// Another service controller in this cluster, which takes Services without a class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Contender {
    /// Nobody has looked yet, or too long ago.
    #[default]
    Unknown,
    /// There is none.
    Nobody,
    /// There is one, called this.
    Present(String),
}

/// Whether a default class takes class-less Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultState {
    /// It takes them.
    Effective,
    /// An older class does.
    Conflict(String),
    /// Another controller does.
    Contested(String),
    /// Whether another controller does will be known in a moment; until then nobody is
    /// taken and nothing said.
    Undecided,
}

// === impl ClassView ===

impl ClassView {
    /// Reads a class; one that cannot be read is a view with an error in it.
    pub fn of(guard: &DeserializeGuard<LoadBalancerClass>, factory: &dyn Factory) -> Self {
        let (meta, class) = match &guard.0 {
            Ok(class) => (&class.metadata, Ok(class)),
            Err(invalid) => (&invalid.metadata, Err(invalid.error.clone())),
        };
        let spec = class.as_ref().ok().map(|class| &class.spec);
        let provider = match &class {
            Ok(class) => class.spec.provider().ok_or_else(|| {
                "exactly one of spec.aws, spec.l2 and spec.mock must be set".to_owned()
            }),
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
            provider,
            traits,
            status: class
                .ok()
                .and_then(|class| class.status.clone())
                .unwrap_or_default(),
        }
    }

    /// It carries [`IN_USE_FINALIZER`]: its settings cannot vanish under a load balancer.
    pub fn is_guarded(&self) -> bool {
        self.finalizers
            .iter()
            .any(|finalizer| finalizer == IN_USE_FINALIZER)
    }

    /// Its addresses come from pools, and the Services' status is the only record of them.
    pub fn uses_pools(&self) -> bool {
        self.traits.as_ref().is_ok_and(|traits| !traits.finalizer)
    }

    /// The drain switch, if it is on.
    pub const fn draining(&self) -> Option<&Draining> {
        self.status.draining.as_ref()
    }

    /// What class and Services say while it is on: by what, and how to undo it.
    pub fn drained(&self) -> Option<Refusal> {
        let Draining { since, reason } = self.draining()?;
        let reason = reason.as_deref().filter(|reason| !reason.is_empty());
        let reason = reason.map_or(String::new(), |reason| format!(" ({reason})"));
        let (name, since) = (&self.name, rfc3339(since.0));
        Some(Refusal::new(
            Reason::Draining,
            format!(
                "ballast teardown{reason} drains LoadBalancerClass {name} since {since}: it gives no load balancers and takes back those it gave, until ballast teardown --undo --classes {name}"
            ),
        ))
    }

    /// Whether Services fare the same under this view as under the other: of a new status
    /// only the drain switch changes anything for them, of a new version nothing.
    fn serves_as(&self, other: &Self) -> bool {
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

    /// Why this class cannot serve anybody, if so.
    pub fn unusable(&self) -> Option<String> {
        self.traits.as_ref().err().cloned()
    }
}

// === impl Instance ===

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("Starting"),
            Self::Failing(message) => f.debug_tuple("Failing").field(message).finish(),
            Self::Ready(_) => f.write_str("Ready"),
        }
    }
}

// === impl Scope ===

impl Scope {
    /// Whether a class is served by this process.
    pub fn owns(&self, class: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(class),
        }
    }
}

// === impl Classes ===

impl Classes {
    /// Whether Services fare the same under these classes as under the others;
    /// instances do not count, they wake their own.
    pub fn claims_as(&self, other: &Self) -> bool {
        self.contender == other.contender
            && self.views.len() == other.views.len()
            && self.views.iter().all(|(name, view)| {
                other
                    .views
                    .get(name)
                    .is_some_and(|before| Arc::ptr_eq(before, view) || before.serves_as(view))
            })
    }

    /// A class by name.
    pub fn get(&self, name: &str) -> Option<&ClassView> {
        self.views.get(name).map(Arc::as_ref)
    }

    /// The provider of a class, once it is ready.
    pub fn provider(&self, name: &str) -> Option<Arc<dyn Provider>> {
        match self.instances.get(name) {
            Some(Instance::Ready(provider)) => Some(Arc::clone(provider)),
            _ => None,
        }
    }

    /// The class that is to serve this Service now; `None`: nobody of ours. A class that
    /// is drained still claims what is its own, so that nobody else takes it meanwhile:
    /// as the default class, too, if it is the oldest.
    pub fn claim<'a>(&'a self, service: &'a ServiceView) -> Option<&'a str> {
        self.claimant(service).filter(|name| self.scope.owns(name))
    }

    /// The same, whichever installation serves the class.
    pub fn claimant<'a>(&'a self, service: &'a ServiceView) -> Option<&'a str> {
        if !service.is_load_balancer || service.deleting {
            return None;
        }
        match &service.class {
            Some(key) => class_of_key(key),
            None => self.classless(service),
        }
    }

    /// A live class-less Service stays where it is, whatever the default is now. The
    /// standard finalizer beside ours says that it was taken without a class.
    fn classless<'a>(&'a self, service: &'a ServiceView) -> Option<&'a str> {
        let holder = service
            .held_by
            .first()
            .filter(|_| service.standard_finalizer);
        match holder {
            Some(class) => Some(class.as_str()),
            None => self.effective_default(),
        }
    }

    /// The class that takes Services without a class.
    pub fn effective_default(&self) -> Option<&str> {
        let oldest = self.oldest_default()?;
        (self.default_state(oldest)? == DefaultState::Effective).then_some(oldest.name.as_str())
    }

    /// Whether it will be known in a moment if this Service is claimed.
    pub fn may_claim(&self, service: &ServiceView) -> bool {
        service.is_load_balancer
            && !service.deleting
            && service.class.is_none()
            && self.claim(service).is_none()
            && self
                .oldest_default()
                .and_then(|class| self.default_state(class))
                == Some(DefaultState::Undecided)
    }

    /// What became of a class's wish to be the default; `None` if it has none.
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
