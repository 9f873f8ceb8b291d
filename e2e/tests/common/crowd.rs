//! Many Services at once, and what must hold for all of them whatever fails in the meantime:
//! each has one load balancer, every load balancer belongs to a Service, no address ever
//! changes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::{AuditEvent, Host, eventually};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};

use crate::common::{PROGRAMMED, SOON, Site, addresses, finalizers, status_of, told};

/// Lease times with which a dead leader is replaced within seconds, and a live one on a busy
/// machine is not.
pub(crate) const QUICK: &[&str] = &[
    "--lease-duration",
    "8",
    "--renew-deadline",
    "6",
    "--retry-period",
    "0.5",
];
/// `spec.loadBalancerClass` of [`crate::common::CLASS`].
pub(crate) const LOCAL: &str = "ballast.dev/local";
/// Concurrent calls of a user.
const AT_ONCE: usize = 16;

/// Watches the addresses of all Services, and reports when a published one changes.
pub(crate) struct Witness {
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    published: BTreeMap<String, Vec<IpAddr>>,
    complaints: Vec<String>,
}

// === impl Witness ===

impl Witness {
    pub(crate) fn of(site: &Site<'_>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (api, noted) = (site.services(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let mut stream = watcher(api, watcher::Config::default()).boxed();
            while let Some(event) = stream.next().await {
                if let Ok(Event::Apply(service) | Event::InitApply(service)) = event {
                    noted
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .note(&service);
                }
            }
        });
        Self { seen, task }
    }

    /// Returns how many Services had an address; an error if one has changed.
    pub(crate) fn is_content(&self) -> Result<usize> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(seen.complaints.is_empty(), "{:#?}", seen.complaints);
        ensure!(!seen.published.is_empty(), "it has seen no address at all");
        Ok(seen.published.len())
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn note(&mut self, service: &Service) {
        let wants = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
        let uid = service.metadata.uid.clone().unwrap_or_default();
        if wants != Some("LoadBalancer") {
            self.published.remove(&uid);
            return;
        }
        let now = addresses(service);
        match self.published.get(&uid) {
            Some(before) if *before != now => self.complaints.push(format!(
                "{} had {before:?} and now has {now:?}",
                service.metadata.name.as_deref().unwrap_or_default()
            )),
            None if !now.is_empty() => {
                self.published.insert(uid, now);
            }
            _ => {}
        }
    }
}

// === impl Site ===

impl Site<'_> {
    /// Creates Services of [`LOCAL`], many at once.
    pub(crate) async fn create_all(&self, names: &[String]) -> Result<()> {
        stream::iter(names)
            .map(|name| self.create(name, LOCAL))
            .buffer_unordered(AT_ONCE)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    /// Creates one Service of this class with port 80 and no endpoints.
    pub(crate) async fn create(&self, name: &str, class: &str) -> Result<()> {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "type": "LoadBalancer",
                "loadBalancerClass": class,
                "selector": {"app": "web"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
        }))?;
        self.services()
            .create(&PostParams::default(), &service)
            .await
            .with_context(|| format!("cannot create {name}"))?;
        Ok(())
    }

    /// Requests the deletion of Services, many at once, and does not wait for it.
    pub(crate) async fn delete_all(&self, names: &[String]) -> Result<()> {
        stream::iter(names)
            .map(|name| async move {
                let params = DeleteParams::default();
                self.services().delete(name, &params).await?;
                anyhow::Ok(())
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    /// Waits until there are this many Services of type `LoadBalancer`, each has one active
    /// load balancer with the addresses that it publishes, and the cloud has no others.
    pub(crate) async fn converges(&self, count: usize) -> Result<()> {
        self.converges_within(count, SOON).await
    }

    pub(crate) async fn converges_within(&self, count: usize, time: Duration) -> Result<()> {
        eventually(time, || async {
            let services = self.services().list(&ListParams::default()).await?;
            let mut wanted = BTreeMap::new();
            for service in services {
                let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
                if kind == Some("LoadBalancer") {
                    let programmed = status_of(&service, PROGRAMMED) == "True";
                    let name = service.metadata.name.as_deref().unwrap_or_default();
                    ensure!(programmed, "{name} is not Programmed: {}", told(&service));
                    let uid = service.metadata.uid.clone().unwrap_or_default();
                    wanted.insert(uid, addresses(&service));
                } else {
                    let left = finalizers(&service);
                    ensure!(left.is_empty(), "finalizers are left: {left:?}");
                }
            }
            ensure!(
                wanted.len() == count,
                "{} Services, not {count}",
                wanted.len()
            );
            let balancers = self.ballast.load_balancers().await?;
            matches(&mut wanted, &balancers)
        })
        .await
    }

    /// The holder of a Lease in Ballast's namespace: its name before the random suffix.
    pub(crate) async fn holder(&self, lease: &str) -> Result<String> {
        let api: Api<Lease> = Api::namespaced(self.lab.kube(), "ballast-system");
        let spec = api.get(lease).await?.spec.context("a Lease without spec")?;
        let identity = spec.holder_identity.unwrap_or_default();
        Ok(identity.split('_').next().unwrap_or_default().to_owned())
    }

    /// Waits until one of these processes holds the Lease of that name.
    pub(crate) async fn held_by(&self, lease: &str, who: &[&str]) -> Result<String> {
        eventually(SOON, || async {
            let holder = self.holder(lease).await?;
            ensure!(who.contains(&holder.as_str()), "{lease}: {holder:?}");
            Ok(holder)
        })
        .await
    }

    /// The present end of the audit log.
    pub(crate) fn audited(&self) -> Result<usize> {
        Ok(self.lab.audit()?.len())
    }

    /// The writes of a user since then; renewals of Leases do not count.
    pub(crate) fn writes_since(&self, since: usize, user: &str) -> Result<Vec<AuditEvent>> {
        let mut events = self.lab.audit()?.split_off(since);
        events.retain(|event| event.user == user && event.resource != "leases");
        Ok(events)
    }

    /// The calls to the cloud after this number, oldest first, as `METHOD path`; only those
    /// that can change something.
    pub(crate) async fn cloud_calls(&self, since: u64) -> Result<Vec<String>> {
        let page: Value = serde_json::from_str(
            &self
                .ballast
                .cloud(&format!("/v1/calls?since={since}"))
                .await?,
        )?;
        let items = page["items"].as_array().context("no items")?;
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        Ok(items
            .iter()
            .filter(|call| call["mutating"] == true)
            .map(|call| format!("{} {}", text(&call["method"]), text(&call["path"])))
            .collect())
    }

    /// Sends a request to the cloud's API, like another user of it.
    pub(crate) async fn cloud_send(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let url = format!("{}{path}", self.ballast.endpoint());
        let argv = [
            "curl",
            "-gsSf",
            "-X",
            method,
            "-H",
            "content-type: application/json",
            "-d",
            body,
            &url,
        ];
        self.lab.exec(Host::ControlPlane, argv).await?.ok()
    }

    /// The value of a metric of a replica, with the labels in the name; 0 if it does not exist.
    pub(crate) async fn metric(&self, replica: &str, name: &str) -> Result<f64> {
        let value = self.sample(replica, name).await?;
        Ok(value.parse()?)
    }

    /// The same for a counter or a gauge that counts.
    pub(crate) async fn count(&self, replica: &str, name: &str) -> Result<u64> {
        let value = self.sample(replica, name).await?;
        Ok(value.parse()?)
    }

    /// A metric that a replica has, with any value.
    pub(crate) async fn gauge(&self, replica: &str, name: &str) -> Result<u64> {
        let value = self.find(replica, name).await?;
        Ok(value.with_context(|| format!("no {name}"))?.parse()?)
    }

    async fn sample(&self, replica: &str, name: &str) -> Result<String> {
        let found = self.find(replica, name).await?;
        Ok(found.unwrap_or_else(|| "0".to_owned()))
    }

    async fn find(&self, replica: &str, name: &str) -> Result<Option<String>> {
        let text = self.ballast.admin(replica, "/metrics").await?;
        let mut lines = text.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(found.map(ToOwned::to_owned))
    }
}

fn matches(wanted: &mut BTreeMap<String, Vec<IpAddr>>, balancers: &[Value]) -> Result<()> {
    for balancer in balancers {
        let tags = &balancer["desired"]["tags"];
        let uid = tags["ballast.dev/service-uid"].as_str().unwrap_or_default();
        let Some(published) = wanted.remove(uid) else {
            bail!("nobody's, or a second one: {balancer}")
        };
        ensure!(balancer["state"] == "active", "not active: {balancer}");
        let has: Vec<IpAddr> = serde_json::from_value(balancer["addresses"].clone())?;
        ensure!(has == published, "published {published:?}: {balancer}");
    }
    ensure!(wanted.is_empty(), "without load balancer: {wanted:?}");
    Ok(())
}

/// `PREFIX-1` to `PREFIX-N`.
pub(crate) fn names(prefix: &str, count: usize) -> Vec<String> {
    (1..=count)
        .map(|number| format!("{prefix}-{number}"))
        .collect()
}
