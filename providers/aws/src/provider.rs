//! The provider of an `aws` class: one Network Load Balancer for each Service, or for all Services with the same share
//! key. A Service that names target groups of others has its targets there instead ([`crate::bind`]).
//!
//! It carries out what the pure parts of this crate decide, and keeps what it knows of AWS, so that
//! a Service that has not changed costs no call.
//!
//! ```text
//!  restore ─▶ inventory: names and tags of everything of this class (3 calls and 1 per 20 objects)
//!                 │
//!                 ▼
//!  ensure ─▶ record of its key ─▶ is it finished? ── yes ─▶ its status
//!                 ▲                        │ no
//!                 │ effect of each call    ▼
//!                 └──── client ◀──── plan of calls
//!
//!  retarget ─▶ each record: the targets that differ           follow ─▶ polls: active? healthy? drift?
//! ```
//!
//! - **A crash** between any two calls loses nothing: every object has its tags from its creation
//!   on, and the tag `ballast.dev/applied` says whether a plan was carried out to its end.
//! - **A call without an answer** makes the record of its load balancer doubtful. It is read from AWS
//!   again before the next plan.
//! - **Ownership** is in tags alone. An object with a name of ours and without our tags is refused
//!   by its ARN, and never touched. Of target groups of others Ballast changes targets only: those in its notes,
//!   while a tag of the owner permits it ([`crate::bind`]).
//! - It never waits for AWS to finish something: the controller asks again later, or [`follow`] tells
//!   it.
//!
//! Locks: one for each load balancer ([`Records`]), held while its calls are made; one for each target group of others,
//! held while its targets change ([`notes`]); `opening`, held while the backend group changes ([`backend`]); `looking`,
//! held while a Service waits for a look-up ([`network`]); and `tagging`, held while the tag that names the targets
//! changes ([`settled`]). They are taken in this order, and whoever holds one of the last four takes none of a load
//! balancer. So a call in the background holds up no Service that is not concerned.

mod adopt;
mod backend;
mod bind;
mod capacity;
mod cleanup;
mod decode;
mod drift;
mod ensure;
mod everything;
mod execute;
mod faults;
mod follow;
mod full;
mod health;
mod inventory;
mod keep;
mod lists;
mod named;
mod network;
mod notes;
mod pods;
mod records;
mod release;
mod retarget;
mod said;
mod settled;
mod status;
mod tags;
mod targets;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_provider::{
    Balancer, CallCount, Change, Inventory, Key, Life, LoadBalancer, Mark, Observed, Owned,
    Provider, ProviderError, Published, Refusal, Released, Removal, ServiceId, TargetSet, Traits,
};
use futures::stream::BoxStream;
use tokio::sync::Notify;

use self::network::Network;
use self::records::Records;
use self::said::Asked;
use self::tags::Kept;
use self::targets::Targets;
use crate::call::Call;
use crate::client::{Client, Clients, ConnectError, Connection};
use crate::nodes::Nodes;
use crate::rate::Urgency;
use crate::settings::{ClassSettings, Settings};
use crate::target::TargetType;

/// Said of a class that does not name its scheme.
const UNNAMED_SCHEME: &str = "Load balancers are internal, with addresses of the VPC only, unless a Service asks for an internet-facing one. spec.aws.scheme sets it for all";

/// How long a call waits for its turn. A call of the provider makes several, and ends within 30 s.
const PATIENCE: Duration = Duration::from_secs(4);

/// The load balancers of one class.
pub struct AwsProvider {
    inner: Arc<Inner>,
}

/// Lists what Ballast has made in one region, whichever cluster and class it belongs to.
pub struct AwsInventory {
    clients: Clients,
    connection: Connection,
    class: ClassSettings,
}

struct Inner {
    clients: Clients,
    connection: Connection,
    client: tokio::sync::OnceCell<Client>,
    mark: Mark,
    class: ClassSettings,
    records: Records,
    network: Mutex<Network>,
    /// Held while somebody looks something up for a Service.
    looking: tokio::sync::Mutex<()>,
    /// Held while the backend group, or a rule that names it, is made or deleted.
    opening: tokio::sync::Mutex<()>,
    targets: Mutex<Targets>,
    /// What tries of a start have read.
    kept: Mutex<Kept>,
    /// Held while the tag of the backend group is written or removed.
    tagging: tokio::sync::Mutex<()>,
    /// What notes say of target groups of others.
    notes: Mutex<notes::Notes>,
    /// Wakes [`follow`]: there is something to poll.
    polls: Notify,
}

// === impl AwsProvider ===

impl AwsProvider {
    /// The traits of a load balancer in a cloud.
    pub const TRAITS: Traits = Traits {
        node_labels: true,
        one_listener_per_port: true,
        endpoints: true,
        ..Traits::CLOUD
    };

    /// The calls that would take over the load balancer that a Service names ([`crate::adopt::ADOPT`]) and bring it to
    /// what the Service asks for, if these are the nodes. It only reads, and this provider learns nothing from it.
    pub async fn preview_adoption(
        &self,
        balancer: &Balancer,
        targets: &TargetSet,
    ) -> Result<Vec<Call>, ProviderError> {
        let inner = &self.inner;
        let (class, mark) = (inner.class.clone(), inner.mark.clone());
        let alone = Self::new(&inner.clients, inner.connection.clone(), class, mark);
        alone.inner.targets().replace(Nodes::of(&targets.nodes));
        alone.inner.preview_adoption(balancer).await
    }

    /// The provider of a class. Makes no call. `clients` are those of the process: classes of one account
    /// and region share AWS's limits.
    pub fn new(
        clients: &Clients,
        connection: Connection,
        class: ClassSettings,
        mark: Mark,
    ) -> Self {
        let inner = Inner {
            clients: clients.clone(),
            connection,
            client: tokio::sync::OnceCell::new(),
            mark,
            network: Mutex::new(Network::new(class.vpc.clone())),
            looking: tokio::sync::Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            class,
            records: Records::default(),
            targets: Mutex::default(),
            kept: Mutex::default(),
            tagging: tokio::sync::Mutex::default(),
            notes: Mutex::default(),
            polls: Notify::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Does at once what [`Provider::changes`] does in its time, for tests and benchmarks.
    pub async fn look(&self) -> Vec<Change> {
        follow::look(Arc::clone(&self.inner)).await
    }
}

#[async_trait]
impl Provider for AwsProvider {
    fn traits(&self) -> Traits {
        Self::TRAITS
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        match &load_balancer.share_key {
            // No namespace has an empty name: another setting of the class makes other load balancers.
            Some(text) if self.inner.class.share_everywhere => {
                Key::Shared(format!("/{text}").into())
            }
            Some(text) => Key::Shared(format!("{}/{text}", load_balancer.id.namespace).into()),
            None => Key::alone(&load_balancer.id),
        }
    }

    fn uses_endpoints(&self, load_balancer: &LoadBalancer) -> bool {
        let own = Settings::target_type_of(&load_balancer.settings);
        own.or(self.inner.class.settings.target_type) == Some(TargetType::Ip)
    }

    fn calls(&self) -> Vec<CallCount> {
        let counts = self.inner.client.get().map(Client::counts);
        let counts = counts.unwrap_or_default().into_iter();
        counts
            .map(|count| CallCount {
                action: count.action.name(),
                result: count.result,
                calls: count.calls,
                took: count.took,
            })
            .collect()
    }

    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal> {
        let asked = self.inner.asked(balancer)?;
        crate::desired::check(&asked.iter().map(Asked::part).collect::<Vec<_>>())
    }

    async fn restore(&self, published: Vec<Published>) -> Result<(), ProviderError> {
        self.inner.restore(&published).await
    }

    async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        self.inner.ensure(balancer).await
    }

    async fn retarget(&self, targets: &TargetSet, _keys: &[Key]) -> Result<(), ProviderError> {
        self.inner.retarget(&targets.nodes).await
    }

    async fn release(
        &self,
        id: &ServiceId,
        key: &Key,
        removal: Removal,
    ) -> Result<Released, ProviderError> {
        match removal {
            Removal::Delete => self.inner.delete(id, key).await,
            Removal::Retain => self.inner.retain(id, key).await,
        }
    }

    fn remarks(&self) -> Vec<String> {
        let nodes = self.inner.targets().nodes();
        let nodes = nodes.map_or(Vec::new(), |nodes| nodes.remarks());
        let class = self.inner.remarks_on_class();
        // People who come from other controllers expect the internet.
        let scheme = self.inner.class.settings.scheme.is_none();
        let scheme = scheme.then(|| UNNAMED_SCHEME.to_owned());
        nodes.into_iter().chain(class).chain(scheme).collect()
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        Ok(self.inner.records.owned().await)
    }

    async fn survey(&self) -> Result<Vec<Owned>, ProviderError> {
        let client = self.inner.client().await?;
        let all = everything::everything(client, Urgency::Background).await;
        let mut all = all.map_err(|why| execute::error(&why))?;
        all.retain(|one| self.inner.mark.owns(&one.tags));
        Ok(all)
    }

    async fn tag(
        &self,
        objects: &[Owned],
        tags: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        self.inner.tag_notes(objects, tags).await
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        follow::follow(Arc::clone(&self.inner))
    }
}

// === impl AwsInventory ===

impl AwsInventory {
    /// The inventory of a region. Makes no call. `class`: settings with which [`Inventory::provider`] deletes; they
    /// say nothing of what is there.
    pub const fn new(clients: Clients, connection: Connection, class: ClassSettings) -> Self {
        Self {
            clients,
            connection,
            class,
        }
    }

    async fn client(&self) -> Result<Client, ProviderError> {
        let client = self.clients.client(&self.connection).await;
        client.map_err(|error: ConnectError| ProviderError::transient(error.to_string()))
    }
}

#[async_trait]
impl Inventory for AwsInventory {
    async fn account(&self) -> Result<String, ProviderError> {
        let client = self.client().await?;
        let region = client.region().to_owned();
        let account = everything::account(&client).await;
        Ok(match account.map_err(|why| execute::error(&why))? {
            Some(account) => format!("AWS account {account}, region {region}"),
            None => format!("AWS region {region}"),
        })
    }

    async fn all(&self) -> Result<Vec<Owned>, ProviderError> {
        let client = self.client().await?;
        let all = everything::everything(&client, Urgency::Service).await;
        all.map_err(|why| execute::error(&why))
    }

    async fn tags(
        &self,
        object: &Owned,
    ) -> Result<Option<BTreeMap<String, String>>, ProviderError> {
        let client = self.client().await?;
        let tags = everything::tags(&client, object).await;
        tags.map_err(|why| execute::error(&why))
    }

    async fn life(&self, object: &Owned) -> Result<Life, ProviderError> {
        let client = self.client().await?;
        let life = everything::life(&client, object).await;
        life.map_err(|why| execute::error(&why))
    }

    fn provider(&self, owner: Mark) -> Result<Arc<dyn Provider>, ProviderError> {
        let connection = self.connection.clone();
        let provider = AwsProvider::new(&self.clients, connection, self.class.clone(), owner);
        Ok(Arc::new(provider))
    }
}

// === impl Inner ===

impl Inner {
    async fn client(&self) -> Result<&Client, ProviderError> {
        let connected = self
            .client
            .get_or_try_init(|| self.clients.client(&self.connection))
            .await;
        connected.map_err(|error: ConnectError| ProviderError::transient(error.to_string()))
    }

    fn targets(&self) -> MutexGuard<'_, Targets> {
        // Without a tag that is known to be right, the next process asks AWS.
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // What is in it is true at any time.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
