//! One tenant writes Services with as many annotations as the API server accepts, all under keys
//! that Ballast could have but does not know. Another tenant's Services are served meanwhile, the
//! controller keeps its Lease, and it stays within the memory limit of the chart.
//!
//! Such Services keep the API server itself busy. `long::hostile` therefore compares Ballast with
//! [`Bare`], a loop without any of Ballast's code that serves Services of its own at the same
//! time. More Services than etcd holds are in a unit test of the watch.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ballast_e2e::bench::usage::Usage;
use ballast_e2e::{Reach, documents, eventually, root};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::common::crowd::{LOCAL, names};
use crate::common::{ACCEPTED, SOON, Site, addresses, condition};

const REPLICA: &str = "ballast-1";
/// What the API server accepts for all annotations of an object.
const MOST_BYTES: usize = 256 * 1024;
/// Concurrent requests of the hostile tenant.
const AT_ONCE: usize = 8;
/// The class of the Services of [`Bare`].
const BARE: &str = "example.com/bare";
/// The least number of peaceful Services in each phase.
const LEAST: usize = 10;

/// How long peaceful Services waited for an address, one after the other: those of Ballast, and
/// those of [`Bare`] at the same time.
pub(crate) struct Waits {
    pub(crate) ballast: Vec<Duration>,
    pub(crate) bare: Vec<Duration>,
}

/// The waits in each phase.
pub(crate) struct Story {
    pub(crate) quiet: Waits,
    pub(crate) created: Waits,
    pub(crate) edited: Waits,
}

/// A loop that watches Services and writes the status of its own, in the two writes that Ballast
/// needs. It has the priority of a controller, and stops when it is dropped.
struct Bare(JoinHandle<Result<()>>);

/// When each Service of the peaceful tenant got its address, as a watch sees it.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<HashMap<String, Instant>>>);

/// Creates and edits `hostile` Services, and checks everything that needs no clock.
pub(crate) async fn test(site: &Site<'_>, hostile: usize) -> Result<Story> {
    // A target without a machine: no traffic flows here.
    site.paper_node("paper", "192.0.2.9").await?;
    let tenants = client_of(site, "tenant", &["tenants"]).await?;
    let _bare = Bare::start(site).await?;
    let seen = Seen::default();
    let watch = tokio::spawn(seen.clone().watch(site.services()));
    site.apply("{apiVersion: v1, kind: Namespace, metadata: {name: hostile}}")
        .await?;
    let transitions = transitions(site).await?;
    let services: Api<Service> = Api::namespaced(tenants.clone(), "hostile");
    let peaceful: Api<Service> = Api::namespaced(tenants, "default");
    let quiet = waits(&peaceful, &seen, "quiet", futures::future::ready(Ok(()))).await?;
    let all = names("hostile", hostile);
    let create = each(&all, |name| create(&services, name));
    let created = waits(&peaceful, &seen, "created", create).await?;
    let edit = each(&all, |name| edit(&services, name));
    let edited = waits(&peaceful, &seen, "edited", edit).await?;

    // The hostile Services are served like all others, and their owner is told.
    let tenant = site.within("hostile");
    for name in &all {
        let service = tenant.programmed(name).await?;
        let message = condition(&service, ACCEPTED).map_or("", |it| &it.message);
        ensure!(message.contains("unknown annotations"), "{message}");
        ensure!(message.len() < 1000, "{} bytes", message.len());
    }
    let peak = Usage::of(site.lab, REPLICA).await?.peak;
    let limit = memory_limit()?;
    println!("{hostile} hostile Services: the controller needed {peak:.1} of {limit:.1} MB");
    ensure!(peak < limit, "{peak:.1} MB of {limit:.1}");
    let running = site.lab.wait_exit(REPLICA, Duration::ZERO).await;
    ensure!(running.is_err(), "the controller restarted");
    let now = self::transitions(site).await?;
    ensure!(now == transitions, "the Lease has had {now} transitions");
    watch.abort();
    Ok(Story {
        quiet,
        created,
        edited,
    })
}

/// Creates pairs of peaceful Services, one pair after the other, until `meanwhile` is done.
async fn waits(
    services: &Api<Service>,
    seen: &Seen,
    phase: &str,
    meanwhile: impl Future<Output = Result<()>>,
) -> Result<Waits> {
    let done = std::cell::Cell::new(false);
    let pairs = async {
        let (mut ballast, mut bare) = (Vec::new(), Vec::new());
        for number in 1.. {
            if number > LEAST && done.get() {
                break;
            }
            let wait = async |kind: &str, class: &str| {
                let name = format!("{kind}-{phase}-{number}");
                create_with(services, &name, class, &BTreeMap::new()).await?;
                let start = Instant::now();
                seen.served(&name, start).await
            };
            let (one, other) = tokio::try_join!(wait("ballast", LOCAL), wait("bare", BARE))?;
            ballast.push(one);
            bare.push(other);
        }
        Ok(Waits { ballast, bare })
    };
    let meanwhile = async {
        let result = meanwhile.await;
        done.set(true);
        result
    };
    let (waits, ()) = tokio::try_join!(pairs, meanwhile)?;
    println!("{phase}: {waits}");
    Ok(waits)
}

async fn each<F>(names: &[String], act: impl Fn(String) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    stream::iter(names.iter().cloned().map(act))
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| async { Ok(()) })
        .await
}

async fn create(services: &Api<Service>, name: String) -> Result<()> {
    create_with(services, &name, LOCAL, &annotations(0)).await
}

async fn edit(services: &Api<Service>, name: String) -> Result<()> {
    let other = Patch::Merge(json!({"metadata": {"annotations": annotations(1)}}));
    let patched = services.patch(&name, &PatchParams::default(), &other).await;
    patched
        .map(drop)
        .with_context(|| format!("cannot edit {name}"))
}

async fn create_with(
    services: &Api<Service>,
    name: &str,
    class: &str,
    annotations: &BTreeMap<String, String>,
) -> Result<()> {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": class,
            "ports": [{"name": "http", "port": 80}],
        },
    }))?;
    let made = services.create(&PostParams::default(), &service).await;
    made.map(drop)
        .with_context(|| format!("cannot create {name}"))
}

/// As many keys of Ballast's family as fit. They have the length of real keys, whose distance to
/// the known ones would be computed. `turn` is the value of the first one.
fn annotations(turn: u8) -> BTreeMap<String, String> {
    let key = |number: usize| format!("ballast.dev/{number:024x}");
    let count = (MOST_BYTES - 1) / key(0).len();
    let mut all: BTreeMap<String, String> = (0..count)
        .map(|number| (key(number), String::new()))
        .collect();
    all.insert(key(0), turn.to_string());
    all
}

/// A client of a user in these groups, with all rights. Unlike the administrator's, its requests
/// are subject to priority and fairness.
async fn client_of(site: &Site<'_>, user: &str, groups: &[&str]) -> Result<Client> {
    let file = site.lab.kubeconfig_for_user(user, groups, Reach::Machine)?;
    let binding = format!("--clusterrole=cluster-admin --user={user}");
    let mut argv = vec!["create", "clusterrolebinding", user];
    argv.extend(binding.split(' '));
    site.lab.kubectl(&argv).await?;
    let kubeconfig = Kubeconfig::read_from(file)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// How often the controller's Lease changed its holder.
async fn transitions(site: &Site<'_>) -> Result<i32> {
    let leases: Api<Lease> = Api::namespaced(site.lab.kube(), "ballast-system");
    let lease = leases.get("ballast-controller").await?;
    let spec = lease.spec.context("the Lease has no spec")?;
    Ok(spec.lease_transitions.unwrap_or_default())
}

/// The memory limit of the controller's container in megabytes of 10^6 bytes, from the values of
/// the chart.
fn memory_limit() -> Result<f64> {
    let values = std::fs::read_to_string(root().join("charts/ballast/values.yaml"))?;
    let values = documents(&values)?;
    let values = values.first().context("no values")?;
    let limit = &values["controller"]["resources"]["limits"]["memory"];
    let mebibytes = limit.as_str().and_then(|text| text.strip_suffix("Mi"));
    let mebibytes = mebibytes.with_context(|| format!("not in Mi: {limit}"))?;
    Ok(mebibytes.parse::<f64>()? * 1.048_576)
}

// === impl Bare ===

impl Bare {
    async fn start(site: &Site<'_>) -> Result<Self> {
        let client = client_of(site, "bare", &["system:serviceaccounts"]).await?;
        let services: Api<Service> = Api::namespaced(client, "default");
        Ok(Self(tokio::spawn(Self::run(services))))
    }

    async fn run(services: Api<Service>) -> Result<()> {
        let mut events = watcher(services.clone(), watcher::Config::default()).boxed();
        let params = PatchParams::default();
        while let Some(event) = events.next().await {
            // One that was created before the first list is part of it.
            let Ok(Event::Apply(service) | Event::InitApply(service)) = event else {
                continue;
            };
            let class = service
                .spec
                .as_ref()
                .and_then(|it| it.load_balancer_class.as_deref());
            let Some(name) = service
                .metadata
                .name
                .as_deref()
                .filter(|_| class == Some(BARE))
            else {
                continue;
            };
            if service.metadata.finalizers.is_some() {
                continue;
            }
            let begun = json!({"metadata": {"finalizers": ["example.com/bare"]}});
            let entry = json!([{"ip": "192.0.2.1", "ipMode": "Proxy"}]);
            let served = json!({"status": {"loadBalancer": {"ingress": entry}}});
            for patch in [begun, served] {
                services
                    .patch_status(name, &params, &Patch::Merge(patch))
                    .await?;
            }
        }
        Ok(())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Seen ===

impl Seen {
    async fn watch(self, services: Api<Service>) {
        let mut events = watcher(services, watcher::Config::default()).boxed();
        while let Some(event) = events.next().await {
            if let Ok(Event::Apply(service) | Event::InitApply(service)) = event
                && !addresses(&service).is_empty()
                && let Some(name) = service.metadata.name
            {
                self.all().entry(name).or_insert_with(Instant::now);
            }
        }
    }

    /// How long after `start` a Service got its address.
    async fn served(&self, name: &str, start: Instant) -> Result<Duration> {
        let at = eventually(2 * SOON, || async {
            let at = self.all().get(name).copied();
            at.with_context(|| format!("{name} has no address"))
        })
        .await?;
        Ok(at.saturating_duration_since(start))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waits ===

impl Waits {
    pub(crate) fn slowest(waits: &[Duration]) -> Duration {
        waits.iter().copied().max().unwrap_or_default()
    }

    pub(crate) fn mean(waits: &[Duration]) -> Duration {
        let count = u32::try_from(waits.len()).unwrap_or(u32::MAX).max(1);
        waits.iter().sum::<Duration>() / count
    }
}

impl std::fmt::Display for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (who, waits) in [("Ballast", &self.ballast), ("the bare loop", &self.bare)] {
            let (mean, slowest) = (Self::mean(waits), Self::slowest(waits));
            write!(
                f,
                "{who} took {mean:.2?} on average and {slowest:.2?} at most; "
            )?;
        }
        write!(f, "{} Services each", self.ballast.len())
    }
}
