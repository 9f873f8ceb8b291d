//! What one Service claims from the pools, and the rule for sharing an address.
//!
//! # Sharing
//!
//! A Service may join an address if, with every Service that has it already,
//! 1. both have the same non-empty share key;
//! 2. both are in one namespace, or the pool has `share_across_namespaces` (checked only when a
//!    Service joins; Services that share stay when the pool changes);
//! 3. no (protocol, port) is in both;
//! 4. the traffic policies agree: `Cluster` with `Cluster`, because any node serves either;
//!    `Local` only with `Local` and the same endpoints, because one node announces an address
//!    and that node must have an endpoint of each Service.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

pub use ballast_provider::FamilyPolicy;
use ballast_provider::{Family, Protocol, ServiceId};
use jiff::Timestamp;

use crate::selector::{Labels, Selector};

/// The complete request of a Service. Its creation time also orders Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The Service.
    pub id: ServiceId,
    /// `metadata.creationTimestamp`; waiting Services are served oldest first, ties by id.
    pub created: Timestamp,
    /// Labels of the namespace, for the pools' `namespaceSelector`.
    pub namespace_labels: Arc<Labels>,
    /// Labels of the Service, for the pools' `serviceSelector`.
    pub labels: Arc<Labels>,
    /// `spec.ipFamilies`: one or two, each once; the order of the addresses.
    pub families: Vec<Family>,
    /// `spec.ipFamilyPolicy`
    pub policy: FamilyPolicy,
    /// Requested addresses, at most one per family.
    pub requested: Vec<IpAddr>,
    /// The requested pool.
    pub pool: Option<String>,
    /// The pools of the Service's class; `None`: all.
    pub pools: Option<Arc<PoolFilter>>,
    /// Services with the same key may share an address; an empty key counts as none.
    pub share_key: Option<String>,
    /// The ports that clients connect to; relevant for sharing only.
    pub ports: BTreeSet<(Protocol, u16)>,
    /// Which nodes can serve it; relevant for sharing only.
    pub backend: Backend,
    /// The addresses in its status. They are used when the allocator first sees the Service,
    /// and ignored later.
    pub published: Vec<IpAddr>,
    /// Those of `published` that our own conditions name. We assigned these. Another writer
    /// added the others, and they are adopted only if they could be assigned now.
    pub confirmed: BTreeSet<IpAddr>,
    /// Addresses that it published earlier and that were not adopted, with the reason.
    pub replaced: Vec<(IpAddr, String)>,
}

/// A subset of the pools: those named, and those whose labels match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolFilter {
    /// Pools by name.
    pub names: BTreeSet<String>,
    /// Pools by labels; `None` selects none.
    pub selector: Option<Selector>,
}

/// Which nodes can serve a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// `externalTrafficPolicy: Cluster`: all nodes.
    Cluster,
    /// `externalTrafficPolicy: Local`: the nodes with one of its endpoints. The text identifies
    /// the set of endpoints (the Service's selector in canonical form, or its own name if it
    /// has none) and is only compared.
    Local(String),
}

/// The position in the order in which Services are served: the oldest first.
pub(crate) type Turn = (Timestamp, ServiceId);

/// The sharing rule that two Services violate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clash {
    /// One of them has no key, or their keys differ.
    Key,
    /// They are in two namespaces, and the pool does not allow that.
    Namespace,
    /// Both use this port.
    Port(Protocol, u16),
    /// Their traffic policies or endpoints differ.
    Backend,
}

// === impl Claim ===

impl Claim {
    /// A single-stack IPv4 claim that asks for nothing in particular.
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

    /// The share key, if it is not empty.
    pub(crate) fn key(&self) -> Option<&str> {
        self.share_key.as_deref().filter(|key| !key.is_empty())
    }

    /// The families of its addresses, primary first.
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

    /// The first rule that two Services on one address violate; `across` is the pool's setting
    /// for namespaces.
    pub(crate) fn clash(&self, other: &Self, across: bool) -> Option<Clash> {
        if self.key().is_none() || self.key() != other.key() {
            return Some(Clash::Key);
        }
        if !across && self.id.namespace != other.id.namespace {
            return Some(Clash::Namespace);
        }
        // Look up the shorter list in the longer one: a Service may have thousands of ports.
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

    /// What is invalid about the claim itself.
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
    /// Whether it includes a pool.
    pub fn allows(&self, name: &str, labels: &Labels) -> bool {
        let selected = self.selector.as_ref();
        self.names.contains(name) || selected.is_some_and(|selector| selector.matches(labels))
    }
}
