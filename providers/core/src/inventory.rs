//! What a cloud holds with Ballast's tags: for the surveys of a class ([`Provider::survey`]), and for
//! commands that run without a cluster ([`Inventory`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::error::ProviderError;
use crate::mark::{self, Mark, Sign};
use crate::model::{Key, ServiceId};
use crate::prices::Billed;
use crate::provider::Provider;

/// What a cloud holds, for commands that run without a cluster: everything with the mark of any
/// cluster and any class.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// Whose cloud it is, for people: the account and the region, or the URL.
    async fn account(&self) -> Result<String, ProviderError>;

    /// Every object with a tag of Ballast's, from all pages. After an error the list is incomplete
    /// and must not be used.
    async fn all(&self) -> Result<Vec<Owned>, ProviderError>;

    /// The tags of an object, read from the cloud now. `None`: it is gone.
    async fn tags(&self, object: &Owned)
    -> Result<Option<BTreeMap<String, String>>, ProviderError>;

    /// Whether this object serves, read from the cloud now. Only load balancers have targets; the
    /// rest is [`Life::Silent`].
    async fn life(&self, object: &Owned) -> Result<Life, ProviderError>;

    /// The provider of one owner, to delete what is his. It makes no call by itself.
    fn provider(&self, owner: Mark) -> Result<Arc<dyn Provider>, ProviderError>;
}

/// Whether something serves, whatever its tags say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It has a target that is healthy, in words for people.
    Serves(String),
    /// A target is an instance that runs, although none is healthy: in words for people. In a cluster that exists,
    /// nodes run whatever they serve.
    Runs(String),
    /// Nothing says that it is in use.
    Silent,
    /// It cannot be deleted as long as the cloud protects it, in words for people.
    Protected(String),
}

/// What an object in the cloud is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A load balancer, which is billed by the hour.
    LoadBalancer,
    /// Its targets.
    TargetGroup,
    /// The rules of a firewall.
    SecurityGroup,
}

/// One object in the cloud with Ballast's mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// What it is.
    pub kind: Kind,
    /// The cloud's ID of it: an ARN, or its name.
    pub id: String,
    /// When it was created, if its tags or the cloud say so.
    pub created: Option<Timestamp>,
    /// What is billed for it.
    pub billed: Billed,
    /// The balancer that it belongs to; `None` if its tags do not say.
    pub key: Option<Key>,
    /// The Services that it serves, if its tags name them in full.
    pub services: Vec<ServiceId>,
    /// Its name in the cloud.
    pub name: String,
    /// All of its tags.
    pub tags: BTreeMap<String, String>,
}

// === impl Owned ===

impl Owned {
    /// An object of which everything else is in its tags. Nothing is billed for it.
    pub fn new(
        kind: Kind,
        id: impl Into<String>,
        name: impl Into<String>,
        tags: BTreeMap<String, String>,
    ) -> Self {
        Self {
            kind,
            id: id.into(),
            name: name.into(),
            key: mark::key_of(&tags),
            services: mark::service_of(&tags).into_iter().collect(),
            created: mark::created_at(&tags),
            billed: Billed::default(),
            tags,
        }
    }

    /// Whether people want it to stay, whatever happens.
    pub fn is_kept(&self) -> bool {
        self.tags.contains_key(mark::KEEP)
    }

    /// Whether it was kept on purpose when its Service was deleted.
    pub fn is_retained(&self) -> bool {
        self.tags.contains_key(mark::RETAINED)
    }

    /// The last sign of life of its cluster.
    pub fn last_seen(&self) -> Option<Sign> {
        Sign::of(&self.tags, mark::LAST_SEEN)
    }

    /// Since when it has had no Service.
    pub fn orphaned_at(&self) -> Option<Sign> {
        Sign::of(&self.tags, mark::ORPHANED_AT)
    }
}

// === impl Kind ===

impl Kind {
    /// The spelling in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "load balancer",
            Self::TargetGroup => "target group",
            Self::SecurityGroup => "security group",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
