//! What one Service asks of the pools, and the rule by which two may share an address.
//!
//! # Sharing
//!
//! A Service may join an address if, with every Service that is on it already,
//! 1. both have the same share key, and it is not empty;
//! 2. both are of one namespace, or the pool says `share_across_namespaces` (asked
//!    when a Service joins; companions of old stay when the pool changes its mind);
//! 3. no (protocol, port) is in both;
//! 4. the traffic policies agree: `Cluster` with `Cluster`, since any node serves
//!    either; `Local` only with `Local` and the same endpoints, since an address
//!    lives on one node and that node must have an endpoint of each Service.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

pub use ballast_provider::FamilyPolicy;
use ballast_provider::{Family, Protocol, ServiceId};
use jiff::Timestamp;

use crate::selector::{Labels, Selector};

/// A Service's request, complete; also the order in which Services are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose it is.
    pub id: ServiceId,
    /// `metadata.creationTimestamp`; who waits is served oldest first, ties by id.
    pub created: Timestamp,
    /// Labels of the namespace, for the pools' `namespaceSelector`.
    pub namespace_labels: Arc<Labels>,
    /// Labels of the Service, for the pools' `serviceSelector`.
    pub labels: Arc<Labels>,
    /// `spec.ipFamilies`: one or two, each once; the order of the addresses.
    pub families: Vec<Family>,
    /// `spec.ipFamilyPolicy`
    pub policy: FamilyPolicy,
    /// Addresses asked for by name, at most one per family.
    pub requested: Vec<IpAddr>,
    /// The pool asked for by name.
    pub pool: Option<String>,
    /// The pools of the Service's class; `None`: all.
    pub pools: Option<Arc<PoolFilter>>,
    /// Services of one key may share an address; empty is none.
    pub share_key: Option<String>,
    /// What clients connect to; matters for sharing only.
    pub ports: BTreeSet<(Protocol, u16)>,
    /// Which nodes can serve it; matters for sharing only.
    pub backend: Backend,
    /// What its status publishes. Honoured when the allocator meets the Service for
    /// the first time, ignored later.
    pub published: Vec<IpAddr>,
    /// Those of `published` that our own conditions name. They were assigned by us; the
    /// others were written by somebody else, and are adopted only if they could be
    /// assigned now.
    pub confirmed: BTreeSet<IpAddr>,
    /// What it published earlier, and why that was not adopted.
    pub replaced: Vec<(IpAddr, String)>,
}

/// Some of the pools: those named, and those whose labels are selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolFilter {
    /// By name.
    pub names: BTreeSet<String>,
    /// By labels; `None` selects none.
    pub selector: Option<Selector>,
}

/// Which nodes can serve a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// `externalTrafficPolicy: Cluster`: all.
    Cluster,
    /// `externalTrafficPolicy: Local`: those with one of its endpoints. The text stands
    /// for the set of endpoints (the Service's selector, canonically written; its own
    /// name if it has none) and is only compared.
    Local(String),
}

/// The place in the order in which Services are served: the older first.
pub(crate) type Turn = (Timestamp, ServiceId);

/// The rule of sharing that two Services break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clash {
    /// One of them has no key, or another.
    Key,
    /// Two namespaces, and the pool does not allow it.
    Namespace,
    /// Both have it.
    Port(Protocol, u16),
    /// Traffic policy or endpoints.
    Backend,
}

// === impl Claim ===

impl Claim {
    /// A single-stack IPv4 claim without any wish.
    pub fn new(id: ServiceId, created: Timestamp) -> Self {
        Self {
            id,
            created,
            namespace_labels: Arc::default(),
            labels: Arc::default(),
            families: vec![Family::V4],
            policy: FamilyPolicy::SingleStack,
            requested: Vec::new(),
            pool: None,
            pools: None,
            share_key: None,
            ports: BTreeSet::new(),
            backend: Backend::Cluster,
            published: Vec::new(),
            confirmed: BTreeSet::new(),
            replaced: Vec::new(),
        }
    }

    pub(crate) fn turn(&self) -> Turn {
        (self.created, self.id.clone())
    }

    /// The share key, if it can mean anything.
    pub(crate) fn key(&self) -> Option<&str> {
        self.share_key.as_deref().filter(|key| !key.is_empty())
    }

    /// The families it is to have addresses of, primary first.
    pub(crate) fn wanted(&self) -> &[Family] {
        match self.policy {
            FamilyPolicy::SingleStack => self.families.get(..1).unwrap_or_default(),
            FamilyPolicy::PreferDualStack | FamilyPolicy::RequireDualStack => &self.families,
        }
    }

    pub(crate) fn requested(&self, family: Family) -> Option<IpAddr> {
        let mut requested = self.requested.iter().copied();
        requested.find(|address| Family::of(*address) == family)
    }

    /// The first rule that stands between two Services on one address; `across` is
    /// what the pool says about namespaces.
    pub(crate) fn clash(&self, other: &Self, across: bool) -> Option<Clash> {
        if self.key().is_none() || self.key() != other.key() {
            return Some(Clash::Key);
        }
        if !across && self.id.namespace != other.id.namespace {
            return Some(Clash::Namespace);
        }
        // Look-ups of the shorter list in the longer one: a Service may have thousands.
        let (few, many) = if self.ports.len() < other.ports.len() {
            (&self.ports, &other.ports)
        } else {
            (&other.ports, &self.ports)
        };
        if let Some((protocol, port)) = few.iter().find(|port| many.contains(port)) {
            return Some(Clash::Port(*protocol, *port));
        }
        (self.backend != other.backend).then_some(Clash::Backend)
    }

    /// What is wrong with the claim in itself.
    pub(crate) fn fault(&self) -> Option<String> {
        if self.families.is_empty() {
            return Some("the Service has no IP family".to_owned());
        }
        let one_per_family = |family| {
            let of_family = |address: &&IpAddr| Family::of(**address) == family;
            self.requested.iter().filter(of_family).count() <= 1
        };
        if let Some(family) = [Family::V4, Family::V6]
            .into_iter()
            .find(|f| !one_per_family(*f))
        {
            return Some(format!(
                "more than one {family} address is requested; a Service has one of each family"
            ));
        }
        let alien = |address: &&IpAddr| !self.wanted().contains(&Family::of(**address));
        self.requested.iter().find(alien).map(|address| {
            let family = Family::of(*address);
            format!("{address} is requested, but the Service has no {family}: see its ipFamilies and ipFamilyPolicy")
        })
    }
}

// === impl PoolFilter ===

impl PoolFilter {
    /// Whether a pool is one of them.
    pub fn lets(&self, name: &str, labels: &Labels) -> bool {
        let selected = self.selector.as_ref();
        self.names.contains(name) || selected.is_some_and(|selector| selector.matches(labels))
    }
}
