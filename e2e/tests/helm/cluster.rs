//! A lab with Helm, whose nodes have an image of the `ballast` that was just built.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::helm::{OF_EVERY_NAMESPACE, leftovers};
use ballast_e2e::installation::programs;
use ballast_e2e::{Helm, Host, Lab, LabOptions, Progress, eventually, with_libraries};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use crate::common::{PROGRAMMED, addresses, finalizers, pods_yaml, status_of, told};

/// The image that the chart runs.
const IMAGE: &str = "docker.io/library/ballast:lab";
const IMAGE_VALUES: &str = "image.repository=docker.io/library/ballast,image.tag=lab";
/// The spec that selects the web servers.
pub(crate) const WEB: &str = "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]";
/// Pods must start and probes must pass, and another lab may run at the same time.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// The namespace of a release, and its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Release {
    pub(crate) name: &'static str,
    pub(crate) namespace: &'static str,
}

pub(crate) struct Cluster {
    pub(crate) lab: Lab,
    pub(crate) helm: Helm,
}

// === impl Cluster ===

impl Cluster {
    /// Starts it, runs the test on it, reports a failure, and removes everything.
    pub(crate) async fn run(
        name: &str,
        nodes: u8,
        test: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let helm = Helm::ensure(Progress::new(true))?;
        let lab = Lab::start(LabOptions {
            name: name.to_owned(),
            nodes,
            wait_dns: true,
            progress: false,
            ..LabOptions::default()
        })
        .await?;
        let cluster = Self { lab, helm };
        let result = async {
            cluster.image().await?;
            test(&cluster).await
        }
        .await;
        let result = cluster.lab.explain(result).await;
        let down = cluster.lab.down().await;
        result.and(down)
    }

    async fn image(&self) -> Result<()> {
        self.image_as(IMAGE).await
    }

    /// Gives the nodes the same image under another name.
    pub(crate) async fn image_as(&self, name: &str) -> Result<()> {
        let archive = self.lab.dir().join("ballast.tar");
        with_libraries(name, &programs()?, "65532:65532").write(&archive)?;
        self.lab.import_images(&[archive]).await
    }

    /// `install` or `upgrade`; waits until everything runs.
    pub(crate) async fn helm_to(&self, verb: &str, of: Release, flags: &[&str]) -> Result<String> {
        let chart = Helm::chart().display().to_string();
        let mut arguments = vec![verb, of.name, &chart, "--namespace", of.namespace];
        arguments.extend(["--create-namespace", "--wait", "--timeout", "60s"]);
        arguments.extend(["--set", IMAGE_VALUES]);
        if verb == "upgrade" {
            arguments.retain(|&flag| flag != "--create-namespace");
        }
        arguments.extend(flags);
        self.helm.on(&self.lab, &arguments).await
    }

    pub(crate) async fn uninstall(&self, of: Release, flags: &[&str]) -> Result<String> {
        let arguments = ["uninstall", of.name, "--namespace", of.namespace];
        self.helm
            .on(&self.lab, &[&arguments[..], flags].concat())
            .await
    }

    pub(crate) fn services(&self) -> Api<Service> {
        Api::default_namespaced(self.lab.kube())
    }

    /// The pods of a release, by component.
    pub(crate) async fn pods(&self, of: Release, component: &str) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.lab.kube(), of.namespace);
        let label = format!(
            "app.kubernetes.io/instance={},app.kubernetes.io/component={component}",
            of.name
        );
        Ok(api.list(&ListParams::default().labels(&label)).await?.items)
    }

    /// Web servers, ready.
    pub(crate) async fn web_servers(&self) -> Result<()> {
        self.lab.apply(&pods_yaml("web", 2)).await?;
        let ready = ["rollout", "status", "deployment/web", "--timeout=100s"];
        self.lab.kubectl(&ready).await.map(drop)
    }

    /// Waits until traffic can flow, and returns the first address.
    pub(crate) async fn address(&self, service: &str) -> Result<String> {
        eventually(SOON, || async {
            let service = self.services().get(service).await?;
            ensure!(status_of(&service, PROGRAMMED) == "True", told(&service));
            let first = addresses(&service).first().copied();
            Ok(first.with_context(|| told(&service))?.to_string())
        })
        .await
        .with_context(|| service.to_owned())
    }

    /// Waits until a web server answers at the address.
    pub(crate) async fn answers(&self, address: &str) -> Result<()> {
        let url = format!("http://{address}/hostname");
        eventually(SOON, || async {
            let curl = ["curl", "-gsSf", "--max-time", "3", &url];
            self.lab.exec(Host::Client, curl).await?.ok().map(drop)
        })
        .await
        .with_context(|| url.clone())
    }

    /// Names of objects from `kubectl get`.
    pub(crate) async fn names(&self, arguments: &[&str]) -> Result<Vec<String>> {
        let flags = ["--ignore-not-found", "-o", "name"];
        let text = self
            .lab
            .kubectl(&[&["get"], arguments, &flags[..]].concat())
            .await?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Waits until nothing of a release is left, neither in its namespace nor in the cluster.
    /// Addresses on the nodes' interfaces may belong to another release.
    pub(crate) async fn nothing_is_left(&self, of: Release) -> Result<()> {
        eventually(SOON, || async {
            let mut left = vec![];
            for arguments in leftovers(of.name, of.namespace) {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                left.extend(self.names(&arguments).await?);
            }
            left.retain(|name| !OF_EVERY_NAMESPACE.contains(&name.as_str()));
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(())
        })
        .await
    }

    /// Addresses on the interfaces of nodes that are not the nodes' own.
    pub(crate) async fn foreign_addresses(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for node in self.lab.nodes().into_iter().map(Host::Node) {
            let own = self.lab.addresses(node);
            let listed = self.lab.exec(node, ["ip", "-j", "address"]).await?.ok()?;
            let interfaces: Vec<Value> = serde_json::from_str(&listed)?;
            for info in interfaces
                .iter()
                .filter(|it| it["ifname"] == "eth0")
                .flat_map(|it| it["addr_info"].as_array().into_iter().flatten())
                .filter(|it| it["scope"] == "global")
            {
                let address = info["local"].as_str().unwrap_or_default();
                if !own.iter().any(|it| it.to_string() == address) {
                    found.push(format!("{address} on {}", node.name()));
                }
            }
        }
        Ok(found)
    }

    /// The Services exist, without any trace of Ballast.
    pub(crate) async fn services_are_released(&self, names: &[String]) -> Result<()> {
        for name in names {
            let service = self.services().get(name).await?;
            if !finalizers(&service).is_empty() || !addresses(&service).is_empty() {
                bail!("{name} has something left: {}", told(&service));
            }
        }
        Ok(())
    }

    /// Waits until a release has no controller left.
    pub(crate) async fn controllers_are_gone(&self, of: Release) -> Result<()> {
        eventually(SOON, || async {
            let pods = self.pods(of, "controller").await?;
            ensure!(pods.is_empty(), "{} controllers", pods.len());
            Ok(())
        })
        .await
    }
}
