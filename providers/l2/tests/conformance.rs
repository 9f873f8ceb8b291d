//! The checks of the conformance suite that concern a provider whose only record is the
//! status of Services.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ballast_l2::{Addresses, Claim, Edges, L2Provider, Pool, Selector, Snapshot, range};
use ballast_provider::conformance::{
    Crash, Deaf, Field, Harness, Lab, Object, Support, documented, run,
};
use ballast_provider::{
    Balancer, Change, Key, LoadBalancer, Mark, Observed, Owned, Provider, ProviderError, Published,
    Reason, Refusal, Released, Removal, ServiceId, State, TargetSet, Traits,
};
use futures::stream::BoxStream;
use jiff::Timestamp;

/// Those that need no object outside of the cluster.
const CHECKS: [&str; 7] = [
    "ensure_twice_is_ensure_once",
    "a_restart_changes_nothing",
    "ensure_works_before_any_retarget",
    "addresses_survive_edits",
    "every_field_is_honoured_or_named",
    "an_unmet_request_blocks_no_edit",
    "a_wish_for_two_families_does_not_block",
];

struct L2Lab;

/// The pools, and the addresses of the newest instance.
struct L2Harness {
    pools: Mutex<Vec<Pool>>,
    current: Mutex<Arc<Addresses>>,
}

/// An instance whose `restore` also does what the controller does before it: it opens the
/// addresses with what Services publish.
struct Opened {
    provider: L2Provider,
    addresses: Arc<Addresses>,
    pools: Vec<Pool>,
}

/// The pools of the suite: one for all Services, one that must be requested, and two whose
/// selectors match the labels that the suite sets.
fn pools() -> Vec<Pool> {
    let pool = |name: &str, entry: &str| Pool {
        entries: range::parse(&[entry]).unwrap(),
        edges: Edges::Use,
        reuse_after: Duration::ZERO,
        ..Pool::new(name, Timestamp::UNIX_EPOCH)
    };
    let chosen = Selector {
        match_labels: [("conformance", "yes")].into(),
        ..Selector::default()
    };
    vec![
        pool("all", "10.5.0.0/24"),
        Pool {
            auto_assign: false,
            ..pool("conformance", "10.5.1.0/24")
        },
        Pool {
            priority: Some(1),
            service_selector: Some(chosen.clone()),
            ..pool("labels", "10.5.2.0/24")
        },
        Pool {
            priority: Some(1),
            namespace_selector: Some(chosen),
            ..pool("namespaces", "10.5.3.0/24")
        },
    ]
}

#[tokio::test]
async fn the_provider_conforms() {
    for check in CHECKS {
        run(&L2Lab, check)
            .await
            .unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// A provider that ignores a field in silence does not pass.
#[tokio::test]
async fn every_field_that_it_ignored_would_be_found() {
    for field in Field::ALL {
        if !matches!(L2Lab.support(field), Support::Honoured | Support::Remark) {
            continue;
        }
        let deaf = Deaf { lab: &L2Lab, field };
        let found = run(&deaf, "every_field_is_honoured_or_named").await;
        println!("{}", found.expect_err(field.as_str()));
    }
}

#[test]
fn the_documented_table_of_fields_is_true() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/providers.md");
    let page = std::fs::read_to_string(page).unwrap();
    documented(&page, "l2", &L2Lab).unwrap_or_else(|wrong| panic!("{wrong}"));
}

// === impl L2Lab ===

#[async_trait]
impl Lab for L2Lab {
    async fn cloud(&self) -> Box<dyn Harness> {
        Box::new(L2Harness {
            pools: Mutex::new(pools()),
            current: Mutex::default(),
        })
    }

    fn support(&self, field: Field) -> Support {
        match field {
            Field::Settings => Support::Remark,
            Field::NodePort
            | Field::TrafficPolicy
            | Field::HealthCheckNodePort
            | Field::Affinity
            | Field::AffinityTimeout
            | Field::SourceRanges
            | Field::TargetName
            | Field::TargetAddresses => Support::Nodes,
            Field::ListenerName
            | Field::Pods
            | Field::TargetProviderId
            | Field::TargetLabels
            | Field::NodeAddresses => Support::Unused,
            Field::Namespace
            | Field::Name
            | Field::Uid
            | Field::Protocol
            | Field::Port
            | Field::Families
            | Field::FamilyPolicy
            | Field::RequestedAddresses
            | Field::ShareKey
            | Field::Published
            | Field::Created
            | Field::Pool
            | Field::Endpoints
            | Field::Labels
            | Field::NamespaceLabels => Support::Honoured,
        }
    }
}

// === impl L2Harness ===

#[async_trait]
impl Harness for L2Harness {
    async fn provider(&self, mark: &Mark) -> Arc<dyn Provider> {
        let addresses = Arc::<Addresses>::default();
        *self.current.lock().unwrap() = Arc::clone(&addresses);
        Arc::new(Opened {
            provider: L2Provider::new(
                mark.class.clone(),
                None,
                Arc::clone(&addresses),
                Arc::default(),
            ),
            addresses,
            pools: self.pools.lock().unwrap().clone(),
        })
    }

    /// There is nothing to call.
    async fn effects(&self) -> u64 {
        0
    }

    async fn set_crash(&self, _: Option<Crash>) {}

    async fn crashed(&self) -> bool {
        false
    }

    /// The pools as objects: how many addresses of each are assigned.
    async fn contents(&self) -> BTreeMap<String, Object> {
        let addresses = Arc::clone(&self.current.lock().unwrap());
        let pools = addresses.pools(0).into_iter().map(|(pool, _)| {
            let object = Object {
                tags: BTreeMap::new(),
                addresses: Vec::new(),
                state: format!("{} {}", pool.v4.assigned, pool.v6.assigned),
            };
            (pool.name.clone(), object)
        });
        let services = addresses.of_class("ours").into_iter().map(|id| {
            let object = Object {
                tags: BTreeMap::new(),
                addresses: Vec::new(),
                state: id.uid.to_string(),
            };
            (id.to_string(), object)
        });
        pools.chain(services).collect()
    }

    async fn plant(&self, _: &str, _: BTreeMap<String, String>) {}

    async fn pause(&self) {}

    /// No node announces addresses here.
    fn serves(&self, state: &State) -> bool {
        let waits = |reason: &Reason| *reason == Reason::NotAnnounced;
        matches!(state, State::Pending { reason, .. } if waits(reason))
    }

    async fn leave_one_address(&self) {
        let mut pools = self.pools.lock().unwrap();
        pools.truncate(1);
        pools[0].entries = range::parse(&["10.5.0.1"]).unwrap();
        let addresses = self.current.lock().unwrap();
        addresses.set_pools(pools.clone(), Timestamp::now());
    }
}

// === impl Opened ===

#[async_trait]
impl Provider for Opened {
    fn traits(&self) -> Traits {
        self.provider.traits()
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        self.provider.key(load_balancer)
    }

    fn uses_endpoints(&self, load_balancer: &LoadBalancer) -> bool {
        self.provider.uses_endpoints(load_balancer)
    }

    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal> {
        self.provider.validate(balancer)
    }

    async fn restore(&self, published: Vec<Published>) -> Result<(), ProviderError> {
        let claim = |record: &Published| Claim {
            published: record.addresses.clone(),
            ..Claim::new(record.id.clone(), Timestamp::UNIX_EPOCH)
        };
        let snapshot = Snapshot {
            pools: self.pools.clone(),
            claims: published.iter().map(claim).collect(),
            ..Snapshot::default()
        };
        let class = |record: &Published| (record.id.clone(), "ours".to_owned());
        let classes: HashMap<ServiceId, String> = published.iter().map(class).collect();
        self.addresses.open(snapshot, classes, Timestamp::now());
        self.provider.restore(published).await
    }

    async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        self.provider.ensure(balancer).await
    }

    async fn retarget(&self, targets: &TargetSet, keys: &[Key]) -> Result<(), ProviderError> {
        self.provider.retarget(targets, keys).await
    }

    async fn release(
        &self,
        id: &ServiceId,
        key: &Key,
        removal: Removal,
    ) -> Result<Released, ProviderError> {
        self.provider.release(id, key, removal).await
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        self.provider.inventory().await
    }

    async fn survey(&self) -> Result<Vec<Owned>, ProviderError> {
        self.provider.survey().await
    }

    async fn tag(
        &self,
        objects: &[Owned],
        tags: &std::collections::BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        self.provider.tag(objects, tags).await
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        self.provider.changes()
    }
}
