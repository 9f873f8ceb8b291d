//! One class, as decisions need it. Pure.

use ballast_crds::{
    DeletionPolicy, Draining, LoadBalancerClass, LoadBalancerClassStatus, OrphanPolicy,
    ProviderSettings,
};
use ballast_provider::{Reason, Refusal, Removal, Traits};
use jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;

use super::instance::Factory;
use super::{orphans, status};
use crate::cluster::conditions::rfc3339;
use crate::cluster::meta::{created, version};

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

/// A grace as the class names it, in whole seconds; one that is no time counts as none.
fn grace(period: kube::core::Duration) -> SignedDuration {
    if period.is_negative() {
        return DEFAULT_GRACE;
    }
    SignedDuration::try_from(std::time::Duration::from(period)).unwrap_or(SignedDuration::MAX)
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

    /// The message of the class that a copy of the cluster uses its load balancers, if its status has one.
    pub fn published_copy(&self) -> Option<&str> {
        let mut all = self.status.conditions.iter();
        let shared = all.find(|it| it.type_ == status::IDENTITY_SHARED && it.status == "True")?;
        Some(&shared.message)
    }

    /// The flags with which `ballast orphans` looks at its cloud. Empty if it has none.
    pub fn cloud_flags(&self) -> String {
        match &self.provider {
            Ok(ProviderSettings::Aws(aws)) => format!("--region {}", aws.region),
            Ok(ProviderSettings::Mock(mock)) => format!("--mock-cloud {}", mock.endpoint),
            Ok(ProviderSettings::L2(_)) | Err(_) => String::new(),
        }
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
    pub(super) fn may_use_endpoints(&self) -> bool {
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
    pub(super) fn is_same_for_services(&self, other: &Self) -> bool {
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
