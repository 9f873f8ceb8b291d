//! What tests and `benches/calls` share: Services, a provider on a fake or on moto, and turns as the
//! controller gives them. It returns errors and panics nowhere, because the benchmark is a program.

// Each program uses a part of it.
#![allow(dead_code, missing_docs)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ballast_aws::client::{CallerIdentity, Clients, Connection, Endpoints};
use ballast_aws::provider::AwsProvider;
use ballast_aws::rate::Limits;
use ballast_aws::settings::{ClassSettings, Publish, Scheme, Settings};
use ballast_aws_fake::Front;
use ballast_provider::{
    Affinity, Balancer, Endpoint, Family, Key, Listener, LoadBalancer, Mark, Member, Observed,
    Placement, Protocol, Provider, ProviderError, Readiness, Released, Removal, ServiceId, State,
    Target, TargetSet, TrafficPolicy,
};
use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// The turns at once that a class gets of the controller's 32 workers.
const WORKERS: usize = 16;
/// The most turns in a row of one Service.
const MOST_TURNS: usize = 10_000;

/// A Service with TCP ports and the node ports behind them.
pub(crate) fn service(name: &str, ports: &[(u16, u16)]) -> LoadBalancer {
    let listeners = ports.iter().map(|&(port, node_port)| Listener {
        name: Some(format!("p{port}")),
        protocol: Protocol::Tcp,
        port,
        node_port,
    });
    LoadBalancer {
        id: ServiceId {
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("uid-{name}").into(),
        },
        listeners: listeners.collect(),
        families: vec![Family::V4],
        traffic_policy: TrafficPolicy::Cluster,
        affinity: Affinity::None,
        source_ranges: Vec::new(),
        requested_addresses: Vec::new(),
        share_key: None,
        settings: ballast_provider::Settings::new(),
    }
}

/// Many Services with one port each.
pub(crate) fn services(number: u16) -> Vec<LoadBalancer> {
    let one = |number| service(&format!("web-{number}"), &[(80, 30_100 + number)]);
    (0..number).map(one).collect()
}

/// The same with an annotation.
pub(crate) fn with(mut service: LoadBalancer, name: &str, value: &str) -> LoadBalancer {
    let key = format!("{}{name}", ballast_aws::annotations::PREFIX);
    service.settings.insert(key, value.into());
    service
}

/// A connection to a cloud, with these limits of our own.
pub(crate) fn connection(front: &Front, limits: Limits) -> Connection {
    let (key, secret) = front
        .credentials()
        .first()
        .map(|one| (one.access_key.clone(), one.secret.clone()))
        .unwrap_or_default();
    Connection {
        region: Some(front.region()),
        endpoints: Endpoints {
            load_balancing: Some(front.url()),
            ec2: Some(front.url()),
        },
        identity: CallerIdentity::Fixed { key, secret },
        limits,
    }
}

/// A class that only says its scheme.
pub(crate) fn class(front: &Front) -> ClassSettings {
    ClassSettings {
        region: front.region(),
        vpc: None,
        publish: Publish::WhenCreated,
        share_everywhere: false,
        allowed: None,
        settings: Settings {
            scheme: Some(Scheme::Internal),
            ..Settings::default()
        },
    }
}

/// The mark of a cluster's class.
pub(crate) fn mark(cluster: &str) -> Mark {
    Mark {
        cluster: cluster.into(),
        cluster_name: "prod".into(),
        class: "aws".into(),
        writer: "1".into(),
    }
}

/// The provider of a process that has just started. It has made no call.
pub(crate) fn provider(front: &Front, limits: Limits) -> AwsProvider {
    let connection = connection(front, limits);
    let clients = Clients::default();
    AwsProvider::new(&clients, connection, class(front), mark("cluster-1"))
}

/// What the controller does with a class before any Service has its turn.
pub(crate) async fn start(
    front: &Front,
    limits: Limits,
    nodes: &[String],
) -> Result<AwsProvider, ProviderError> {
    let provider = provider(front, limits);
    provider.restore(Vec::new()).await?;
    provider.inventory().await?;
    retarget(&provider, nodes).await?;
    Ok(provider)
}

/// The nodes are those with these instances.
pub(crate) async fn retarget(
    provider: &AwsProvider,
    nodes: &[String],
) -> Result<(), ProviderError> {
    let node = |id: &String| Target {
        name: format!("node-of-{id}"),
        addresses: Vec::new(),
        provider_id: Some(format!("aws:///zone/{id}")),
        labels: Arc::default(),
    };
    let nodes: BTreeSet<Target> = nodes.iter().map(node).collect();
    provider.retarget(&TargetSet::of_nodes(nodes), &[]).await
}

/// Names the pods of a Service in tests. It has no effect on AWS.
const PODS: &str = "test/pods";

/// The pods become ready when they are healthy targets.
const GATED: &str = "test/gated";

/// The same Service; its pods have the readiness gate.
pub(crate) fn gated(mut service: LoadBalancer) -> LoadBalancer {
    service.settings.insert(GATED.into(), String::new());
    service
}

/// A Service with both families.
pub(crate) fn dual(mut service: LoadBalancer) -> LoadBalancer {
    service.families = vec![Family::V4, Family::V6];
    service
}

/// The same Service, with pods as targets, at these addresses.
pub(crate) fn with_pods(service: LoadBalancer, addresses: &[&str]) -> LoadBalancer {
    let mut service = with(service, "nlb-target-type", "ip");
    service.settings.insert(PODS.into(), addresses.join(","));
    service
}

/// What the controller finds behind a Service of [`with_pods`]: each pod has each port, 8000 higher.
fn endpoints(service: &LoadBalancer) -> Arc<BTreeSet<Endpoint>> {
    let addresses = service.settings.get(PODS).map_or("", String::as_str);
    let addresses = addresses.split(',').filter_map(|it| it.parse().ok());
    let all = addresses.flat_map(|address| {
        service.listeners.iter().map(move |listener| Endpoint {
            listener: (listener.protocol, listener.port),
            address,
            port: 8_000 + listener.port,
            readiness: if service.settings.contains_key(GATED) {
                Readiness::Gated
            } else {
                Readiness::Ready
            },
        })
    });
    Arc::new(all.collect())
}

/// The balancer of these Services, the oldest first.
pub(crate) fn balancer(provider: &impl Provider, members: &[LoadBalancer]) -> Balancer {
    let member = |one: &LoadBalancer| Member {
        load_balancer: one.clone(),
        published: Vec::new(),
        placement: Placement::default(),
        endpoints: provider.uses_endpoints(one).then(|| endpoints(one)),
    };
    let first = members.first().map(|first| provider.key(first));
    Balancer {
        key: first.unwrap_or_else(|| Key::Shared("nobody".into())),
        members: members.iter().map(member).collect(),
        kept: BTreeSet::new(),
        deletes_nothing: false,
    }
}

/// One turn of a Service.
pub(crate) async fn ensure(
    provider: &impl Provider,
    service: &LoadBalancer,
) -> Result<Observed, ProviderError> {
    let balancer = balancer(provider, std::slice::from_ref(service));
    provider.validate(&balancer)?;
    let first = provider.ensure(&balancer).await?.into_iter().next();
    let (_, observed) = first.ok_or_else(|| ProviderError::transient("no answer"))?;
    Ok(observed)
}

/// Turns of Services on one load balancer until the provider asks for no more at once.
pub(crate) async fn settle_all(
    provider: &impl Provider,
    members: &[LoadBalancer],
) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
    let balancer = balancer(provider, members);
    provider.validate(&balancer)?;
    for _ in 0..5 {
        let all = provider.ensure(&balancer).await?;
        if !all.iter().any(|(_, one)| at_once(one)) {
            return Ok(all);
        }
    }
    Err(ProviderError::transient("it asks for turns for ever"))
}

/// Turns until the provider asks for no more at once.
pub(crate) async fn settle(
    provider: &impl Provider,
    service: &LoadBalancer,
) -> Result<Observed, ProviderError> {
    for _ in 0..5 {
        let observed = ensure(provider, service).await?;
        if !at_once(&observed) {
            return Ok(observed);
        }
    }
    Err(ProviderError::transient("it asks for turns for ever"))
}

fn at_once(observed: &Observed) -> bool {
    matches!(observed.state, State::Pending { retry_after: Some(after), .. } if after.is_zero())
}

/// Releases until nothing is left. `pause` lets the cloud's time pass.
pub(crate) async fn delete(
    provider: &AwsProvider,
    service: &LoadBalancer,
    mut pause: impl FnMut(Duration),
) -> Result<(), ProviderError> {
    let key = Key::alone(&service.id);
    for _ in 0..20 {
        match provider.release(&service.id, &key, Removal::Delete).await? {
            Released::Gone => return Ok(()),
            Released::InProgress { retry_after, .. } => pause(retry_after),
        }
    }
    Err(ProviderError::transient("it is never gone"))
}

/// How one of many Services fared.
#[derive(Clone, Debug)]
pub(crate) struct Fared {
    /// When its hostname was known, from the beginning of all.
    pub(crate) named: Duration,
    /// When it had everything.
    pub(crate) done: Duration,
    /// When it was told to wait, and until when, from the beginning of all.
    pub(crate) told: Vec<(Duration, Duration)>,
}

/// Follows the class as the controller does, until it is dropped: it polls.
pub(crate) fn follow(provider: &AwsProvider) -> JoinSet<()> {
    let mut changes = provider.changes();
    let mut follower = JoinSet::new();
    follower.spawn(async move { while changes.next().await.is_some() {} });
    follower
}

/// All Services at once: each has turns until it has everything, and waits as long as it is told.
pub(crate) async fn bring(
    provider: &Arc<AwsProvider>,
    services: &[LoadBalancer],
) -> Result<Vec<Fared>, ProviderError> {
    let began = Instant::now();
    // First come, first served, as the controller's queue.
    let workers = Arc::new(Semaphore::new(WORKERS));
    let mut all = JoinSet::new();
    for service in services {
        let (provider, workers) = (Arc::clone(provider), Arc::clone(&workers));
        let service = service.clone();
        all.spawn(async move {
            let mut fared = Fared {
                named: Duration::MAX,
                done: Duration::MAX,
                told: Vec::new(),
            };
            for _ in 0..MOST_TURNS {
                let worker = workers.acquire().await;
                let ended = ensure(&*provider, &service).await;
                drop(worker);
                match ended {
                    Ok(observed) => {
                        if !observed.ingress.is_empty() {
                            fared.named = fared.named.min(began.elapsed());
                        }
                        if !at_once(&observed) {
                            fared.done = began.elapsed();
                            return Ok(fared);
                        }
                    }
                    Err(ProviderError::Throttled { retry_after }) => {
                        let now = began.elapsed();
                        fared.told.push((now, now + retry_after));
                        sleep(retry_after).await;
                    }
                    Err(other) => return Err(other),
                }
            }
            Err(ProviderError::transient("it asks for turns for ever"))
        });
    }
    let mut fared = Vec::with_capacity(services.len());
    while let Some(one) = all.join_next().await {
        let one = one.map_err(|error| ProviderError::transient(error.to_string()))?;
        fared.push(one?);
    }
    Ok(fared)
}
