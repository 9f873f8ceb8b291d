//! The shared parts of the end-to-end tests: a lab with Ballast on it, Services and pods, and
//! waits that report what was wrong. One lab per test, removed after it.
//!
//! Nothing here sleeps: tests wait for conditions, and show that something did not happen by a
//! later event that did.

pub(crate) mod command;
pub(crate) mod crowd;
pub(crate) mod grants;
pub(crate) mod judges;
pub(crate) mod outside;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::installation::Installation;
use ballast_e2e::{Host, Lab, LabOptions, ProxyMode, eventually};
use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::Value;

/// The limit for everything that happens by itself. An idle machine needs a few seconds at most; a
/// test must not fail because the machine is busy.
pub(crate) const SOON: Duration = Duration::from_mins(1);
/// The class that a [`Plan`] makes.
pub(crate) const CLASS: &str = "local";
/// The line in a Service's spec that names it.
pub(crate) const OF_CLASS: &str = "loadBalancerClass: ballast.dev/local";
pub(crate) const ACCEPTED: &str = "ballast.dev/Accepted";
pub(crate) const PROGRAMMED: &str = "ballast.dev/Programmed";
/// The component that reports Ballast's events.
const REPORTER: &str = "ballast.dev/controller";
pub(crate) const FINALIZER: &str = "ballast.dev/local";
pub(crate) const STANDARD_FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

/// The starting point of a test.
pub(crate) struct Plan<'a> {
    /// The lab's name, unique among all tests.
    pub(crate) name: &'a str,
    pub(crate) nodes: u8,
    /// Flags of the mock cloud.
    pub(crate) cloud: &'a [&'a str],
    /// Flags of every controller.
    pub(crate) controller: &'a [&'a str],
    /// `ballast-1` to `ballast-N`; 0: the test starts them itself.
    pub(crate) controllers: u8,
    /// The spec of [`CLASS`] apart from its provider; `None`: the test creates its own classes.
    pub(crate) class: Option<&'a str>,
    /// Added to the API server's flags.
    pub(crate) api_server: &'a [&'a str],
    /// The host of the mock cloud; on a node its addresses are on the node's interface.
    pub(crate) cloud_on: Host,
    pub(crate) proxy: ProxyMode,
}

/// Ballast on a lab.
pub(crate) struct Site<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) ballast: Installation<'a>,
    /// The namespace of its Services.
    pub(crate) namespace: String,
}

// === impl Plan ===

impl<'a> Plan<'a> {
    /// Two nodes, a cloud, one controller, one class that is not the default.
    pub(crate) fn new(name: &'a str) -> Self {
        Self {
            name,
            nodes: 2,
            cloud: &[],
            controller: &[],
            controllers: 1,
            class: Some(""),
            api_server: &[],
            cloud_on: Host::Cloud,
            proxy: ProxyMode::default(),
        }
    }

    /// Starts it, runs the test on it, reports a failure, and removes everything.
    pub(crate) async fn run(self, test: impl AsyncFnOnce(&Site<'_>) -> Result<()>) -> Result<()> {
        let lab = Lab::start(LabOptions {
            name: self.name.to_owned(),
            nodes: self.nodes,
            progress: false,
            proxy: self.proxy,
            api_server_flags: self
                .api_server
                .iter()
                .map(|&flag| flag.to_owned())
                .collect(),
            ..LabOptions::default()
        })
        .await?;
        let result = async {
            let site = self.install(&lab).await?;
            test(&site).await
        }
        .await;
        let result = lab.explain(result).await;
        let down = lab.down().await;
        result.and(down)
    }

    async fn install<'l>(&self, lab: &'l Lab) -> Result<Site<'l>> {
        let ballast = Installation::new(lab).await?;
        let ballast = ballast.with_cloud_on(self.cloud_on);
        ballast.start_cloud(self.cloud).await?;
        for number in 1..=self.controllers {
            ballast
                .start_controller(&format!("ballast-{number}"), self.controller)
                .await?;
        }
        if let Some(more) = self.class {
            ballast.mock_class(CLASS, more).await?;
        }
        Ok(Site {
            lab,
            ballast,
            namespace: "default".to_owned(),
        })
    }
}

// === impl Site ===

impl Site<'_> {
    /// The same with the Services of another namespace.
    pub(crate) fn within(&self, namespace: &str) -> Self {
        Self {
            lab: self.lab,
            ballast: self.ballast.clone(),
            namespace: namespace.to_owned(),
        }
    }

    /// Its Services.
    pub(crate) fn services(&self) -> Api<Service> {
        Api::namespaced(self.lab.kube(), &self.namespace)
    }

    pub(crate) async fn apply(&self, yaml: &str) -> Result<()> {
        self.lab.apply(yaml).await
    }

    /// A Node object with this address, without a machine.
    pub(crate) async fn paper_node(&self, name: &str, address: &str) -> Result<()> {
        let node = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n");
        self.apply(&node).await?;
        let status = format!(
            r#"{{"status":{{"addresses":[{{"type":"InternalIP","address":"{address}"}}]}}}}"#
        );
        let argv = ["patch", "node", name, "--subresource=status", "-p", &status];
        self.lab.kubectl(&argv).await.map(drop)
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Service> {
        Ok(self.services().get(name).await?)
    }

    /// Sends a merge patch, like a user.
    pub(crate) async fn patch(&self, name: &str, patch: Value) -> Result<Service> {
        self.services()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .with_context(|| format!("cannot patch {name}"))
    }

    /// Deletes a Service and waits until it is gone.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.services()
            .delete(name, &DeleteParams::default())
            .await?;
        eventually(SOON, || async {
            match self.services().get_opt(name).await? {
                None => Ok(()),
                Some(service) => bail!("{name} is still there: {}", told(&service)),
            }
        })
        .await
    }

    /// Waits until a Service meets a condition; the closure returns what is missing.
    pub(crate) async fn service(
        &self,
        name: &str,
        check: impl Fn(&Service) -> Result<()>,
    ) -> Result<Service> {
        eventually(SOON, || async {
            let service = self.get(name).await?;
            check(&service).with_context(|| told(&service))?;
            Ok(service)
        })
        .await
        .with_context(|| format!("Service {name}"))
    }

    /// Waits until traffic can flow, and returns the Service.
    pub(crate) async fn programmed(&self, name: &str) -> Result<Service> {
        self.service(name, |service| {
            ensure!(status_of(service, PROGRAMMED) == "True", "not Programmed");
            ensure!(
                !addresses(service).is_empty(),
                "Programmed without an address"
            );
            Ok(())
        })
        .await
    }

    /// Waits until traffic can flow, and returns the first address.
    pub(crate) async fn address(&self, name: &str) -> Result<IpAddr> {
        let service = self.programmed(name).await?;
        addresses(&service)
            .first()
            .copied()
            .context("Programmed without an address")
    }

    /// Waits until a condition has this status and reason, and returns its message.
    pub(crate) async fn says(
        &self,
        name: &str,
        kind: &str,
        status: &str,
        reason: &str,
    ) -> Result<String> {
        let service = self
            .service(name, |service| {
                let now = condition(service, kind);
                let fits = now.is_some_and(|now| now.status == status && now.reason == reason);
                ensure!(fits, "{kind} is not {status} with {reason}");
                Ok(())
            })
            .await?;
        Ok(condition(&service, kind).map_or(String::new(), |now| now.message.clone()))
    }

    /// The cloud's load balancer for a Service in `default`.
    pub(crate) async fn in_cloud(&self, name: &str) -> Result<Option<Value>> {
        let wanted = format!("default/{name}");
        let mut all = self.ballast.load_balancers().await?;
        all.retain(|one| one["desired"]["tags"]["ballast.dev/service"] == wanted.as_str());
        ensure!(
            all.len() < 2,
            "{name} has {} load balancers: {all:?}",
            all.len()
        );
        Ok(all.pop())
    }

    /// Waits until the cloud has nothing for a Service.
    pub(crate) async fn not_in_cloud(&self, name: &str) -> Result<()> {
        eventually(SOON, || async {
            match self.in_cloud(name).await? {
                None => Ok(()),
                Some(one) => bail!("{name} still has {one}"),
            }
        })
        .await
    }

    /// Waits until the cloud has nothing at all.
    pub(crate) async fn cloud_is_empty(&self) -> Result<()> {
        eventually(SOON, || async {
            let left = self.ballast.load_balancers().await?;
            ensure!(left.is_empty(), "left in the cloud: {left:?}");
            Ok(())
        })
        .await
    }

    /// `Type Reason: message` of every event of Ballast about a Service of this name, oldest
    /// first. (The API server sends its own events about addresses that it repairs.)
    pub(crate) async fn events(&self, name: &str) -> Result<Vec<String>> {
        let api: Api<Event> = Api::namespaced(self.lab.kube(), &self.namespace);
        let fields = format!("involvedObject.kind=Service,involvedObject.name={name}");
        let mut events = api
            .list(&ListParams::default().fields(&fields))
            .await?
            .items;
        events.retain(|event| event.reporting_component.as_deref() == Some(REPORTER));
        events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        let text = |event: &Event| {
            format!(
                "{} {}: {}",
                event.type_.as_deref().unwrap_or_default(),
                event.reason.as_deref().unwrap_or_default(),
                event.message.as_deref().unwrap_or_default()
            )
        };
        Ok(events.iter().map(text).collect())
    }

    /// Waits until exactly these events are there.
    pub(crate) async fn has_events(&self, name: &str, expected: &[&str]) -> Result<()> {
        eventually(SOON, || async {
            let events = self.events(name).await?;
            ensure!(
                events == expected,
                "events of {name}: {events:#?}, not {expected:#?}"
            );
            Ok(())
        })
        .await
    }

    /// The content of a page; `from` is a host of the lab.
    pub(crate) async fn curl(&self, from: Host, url: &str) -> Result<String> {
        let output = self
            .lab
            .exec(from, ["curl", "-gsSf", "--max-time", "3", url])
            .await?;
        output
            .ok()
            .with_context(|| format!("{url} from {}", from.name()))
    }

    /// Waits until a web server answers at this address, and returns its pod's name.
    pub(crate) async fn answers(&self, from: Host, ip: IpAddr, port: u16) -> Result<String> {
        let url = url(ip, port, "/hostname");
        eventually(SOON, || self.curl(from, &url)).await
    }

    /// Web servers behind the label `app: NAME`, spread over the nodes: HTTP on 8080,
    /// UDP on 8081 (agnhost netexec). Waits until they are ready.
    pub(crate) async fn pods(&self, app: &str, replicas: usize) -> Result<()> {
        self.apply(&pods_yaml(app, replicas)).await?;
        self.rolled_out(app).await
    }

    pub(crate) async fn rolled_out(&self, deployment: &str) -> Result<()> {
        let deployment = format!("deployment/{deployment}");
        self.lab
            .kubectl(&["rollout", "status", &deployment, "--timeout=100s"])
            .await
            .map(drop)
    }
}

/// A Service of type `LoadBalancer` in `default`; `spec` is the content of `{}`.
pub(crate) fn load_balancer(name: &str, spec: &str) -> String {
    annotated(name, "", spec)
}

/// The same with annotations, as `key: value, …`.
pub(crate) fn annotated(name: &str, annotations: &str, spec: &str) -> String {
    service_yaml(name, annotations, &format!("type: LoadBalancer, {spec}"))
}

/// A Service of any type in `default`.
pub(crate) fn service_yaml(name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default, annotations: {{{annotations}}}}}\nspec: {{{spec}}}\n"
    )
}

/// The spec of a Service of [`CLASS`] that sends port 80 to the web servers of an app.
pub(crate) fn web(app: &str) -> String {
    format!("{OF_CLASS}, selector: {{app: {app}}}, ports: [{{port: 80, targetPort: 8080}}]")
}

/// See [`Site::pods`].
pub(crate) fn pods_yaml(app: &str, replicas: usize) -> String {
    format!(
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {app}, namespace: default}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {app}, made-by: {app}}}}}
  template:
    metadata: {{labels: {{app: {app}, made-by: {app}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{matchLabels: {{app: {app}}}}}}}
      containers:
      - name: web
        image: {}
        args: [netexec, --http-port=8080, --udp-port=8081]
        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
",
        ballast_e2e::AGNHOST
    )
}

pub(crate) fn url(ip: IpAddr, port: u16, path: &str) -> String {
    format!("http://{}{path}", std::net::SocketAddr::new(ip, port))
}

pub(crate) fn condition<'s>(service: &'s Service, kind: &str) -> Option<&'s Condition> {
    let all = service.status.as_ref()?.conditions.as_deref()?;
    all.iter().find(|condition| condition.type_ == kind)
}

/// `True`, `False` or `Unknown`; empty if there is no condition.
pub(crate) fn status_of<'s>(service: &'s Service, kind: &str) -> &'s str {
    condition(service, kind).map_or("", |condition| &condition.status)
}

/// The addresses that a Service publishes, in its order.
pub(crate) fn addresses(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref();
    let entries = status
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|load_balancer| load_balancer.ingress.as_deref())
        .unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| entry.ip.as_deref()?.parse().ok())
        .collect()
}

pub(crate) fn finalizers(service: &Service) -> Vec<&str> {
    let all = service.metadata.finalizers.as_deref().unwrap_or_default();
    all.iter().map(String::as_str).collect()
}

pub(crate) fn version(service: &Service) -> &str {
    service
        .metadata
        .resource_version
        .as_deref()
        .unwrap_or_default()
}

/// The state of a Service, for the report of a failed test.
pub(crate) fn told(service: &Service) -> String {
    let status = serde_json::to_string(&service.status).unwrap_or_default();
    format!("finalizers {:?}, status {status}", finalizers(service))
}
