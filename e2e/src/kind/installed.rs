//! Ballast on a kind cluster, installed as users do it: the image is loaded, then the chart
//! installed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::cluster::Cluster;
use crate::eventually::eventually;
use crate::helm::{OF_EVERY_NAMESPACE, leftovers};
use crate::release::Release;
use crate::{Helm, root};

/// The name of the release, and its namespace.
const RELEASE: &str = "ballast";
const NAMESPACE: &str = "ballast-system";
/// The chart's own class.
const LOCAL: &str = "classes.local.mock.enabled=true";
const SOON: Duration = Duration::from_mins(1);
/// Helm waits for hooks, and the hooks wait for load balancers.
const HELM_TIME: Duration = Duration::from_mins(6);

/// The environment variable with the path of an existing archive.
const IMAGE: &str = "BALLAST_IMAGE";

/// The archive of Ballast's image; builds it unless `BALLAST_IMAGE` names one.
pub fn image() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(IMAGE) {
        return PathBuf::from(&path)
            .canonicalize()
            .with_context(|| format!("{IMAGE}: no file {}", path.display()));
    }
    let folder = root().join("target/image");
    std::fs::create_dir_all(&folder)?;
    let archive = folder.join("ballast.tar");
    Release::build(&root())?.image().write(&archive)?;
    Ok(archive.canonicalize()?)
}

/// A release of the chart on a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Installed<'c> {
    cluster: &'c Cluster<'c>,
}

impl<'c> Installed<'c> {
    /// Installs the chart with its class `local`; the image must have been loaded.
    pub async fn install(cluster: &'c Cluster<'c>, flags: &[&str]) -> Result<Self> {
        Self::install_with(cluster, &[&["--set", LOCAL], flags].concat()).await
    }

    /// Installs the chart with these flags alone.
    pub async fn install_with(cluster: &'c Cluster<'c>, flags: &[&str]) -> Result<Self> {
        let installed = Self { cluster };
        let chart = Helm::chart().canonicalize()?;
        let chart = chart.to_string_lossy();
        let arguments = ["install", RELEASE, &chart, "--create-namespace"];
        installed.helm(&[&arguments[..], flags].concat()).await?;
        Ok(installed)
    }

    /// An existing release.
    pub fn at(cluster: &'c Cluster<'c>) -> Self {
        Self { cluster }
    }

    /// Its cluster.
    pub fn cluster(&self) -> &'c Cluster<'c> {
        self.cluster
    }

    /// Uninstalls it. The hook first releases the load balancers.
    pub async fn uninstall(&self) -> Result<String> {
        self.helm(&["uninstall", RELEASE]).await
    }

    async fn helm(&self, arguments: &[&str]) -> Result<String> {
        let config = self.cluster.kubeconfig().to_string_lossy();
        let flags = ["helm", "--kubeconfig", &config, "--namespace", NAMESPACE];
        self.cluster
            .host()
            .exec_for([&flags[..], arguments].concat(), "", HELM_TIME)
            .await?
            .ok()
            .with_context(|| format!("helm {}", arguments.join(" ")))
    }

    /// Waits until traffic can flow, and returns the Service's addresses.
    pub async fn addresses(&self, service: &str) -> Result<Vec<String>> {
        let condition = "--for=condition=ballast.dev/Programmed";
        let name = format!("service/{service}");
        let wait = ["wait", condition, &name, "--timeout=60s"];
        self.cluster.kubectl(&wait).await?;
        let path = "jsonpath={.status.loadBalancer.ingress[*].ip}";
        let said = self
            .cluster
            .kubectl(&["get", "service", service, "-o", path])
            .await?;
        ensure!(
            !said.is_empty(),
            "{service} is Programmed and has no address"
        );
        Ok(said.split(' ').map(str::to_owned).collect())
    }

    /// One of a Service's conditions: status, reason and message.
    pub async fn condition(&self, service: &str, condition: &str) -> Result<String> {
        let of = format!(".status.conditions[?(@.type==\"{condition}\")]");
        let path = format!("jsonpath={{{of}.status}} {{{of}.reason}} {{{of}.message}}");
        self.cluster
            .kubectl(&["get", "service", service, "-o", &path])
            .await
    }

    /// One request from the Docker host; returns the response.
    pub async fn curl(&self, address: &str) -> Result<String> {
        let url = url(address);
        let curl = ["curl", "-gsSf", "--max-time", "2", &url];
        self.cluster
            .host()
            .exec(curl)
            .await?
            .ok()
            .with_context(|| url.clone())
    }

    /// Waits until a server answers at the address.
    pub async fn answers(&self, address: &str) -> Result<String> {
        eventually(SOON, || self.curl(address)).await
    }

    /// The node of the mock cloud's pod.
    pub async fn cloud_node(&self) -> Result<String> {
        let label = "app.kubernetes.io/component=mock-cloud";
        let path = "jsonpath={.items[?(@.status.phase==\"Running\")].spec.nodeName}";
        let get = ["get", "pods", "-n", NAMESPACE, "-l", label, "-o", path];
        let node = self.cluster.kubectl(&get).await?;
        ensure!(
            !node.is_empty() && !node.contains(' '),
            "not exactly one mock cloud runs: {node:?}"
        );
        Ok(node)
    }

    /// Addresses on the nodes' interfaces that are not the nodes' own.
    pub async fn foreign_addresses(&self) -> Result<Vec<String>> {
        let mut found = vec![];
        for node in self.cluster.nodes().await? {
            // Docker gives a node one address per family, even if Kubernetes uses only one
            // family.
            let show =
                "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}";
            let own = self
                .cluster
                .host()
                .docker(&["inspect", "-f", show, &node])
                .await?;
            let argv = [
                "ip", "-o", "address", "show", "dev", "eth0", "scope", "global",
            ];
            let listed = self.cluster.node_exec(&node, &argv).await?.ok()?;
            for line in listed.lines() {
                let address = line.split_ascii_whitespace().nth(3).unwrap_or_default();
                let address = address.split('/').next().unwrap_or_default();
                if !own.split_ascii_whitespace().any(|it| it == address) {
                    found.push(format!("{address} on {node}"));
                }
            }
        }
        Ok(found)
    }

    /// Waits until nothing of the release is left: no objects, no finalizers, no addresses on
    /// nodes.
    pub async fn nothing_is_left(&self) -> Result<()> {
        eventually(SOON, || async {
            let mut left = self.foreign_addresses().await?;
            for arguments in leftovers(RELEASE, NAMESPACE) {
                left.extend(self.names(&arguments).await?);
            }
            left.retain(|name| !OF_EVERY_NAMESPACE.contains(&name.as_str()));
            let path = "jsonpath={.items[*].metadata.finalizers}";
            let finalizers = ["get", "services", "-A", "-o", path];
            let finalizers = self.cluster.kubectl(&finalizers).await?;
            if !finalizers.trim().is_empty() {
                left.push(format!("finalizers {finalizers}"));
            }
            if !left.is_empty() {
                bail!("left: {left:?}");
            }
            Ok(())
        })
        .await
    }

    async fn names(&self, arguments: &[String]) -> Result<Vec<String>> {
        let mut get = vec!["get", "--ignore-not-found", "-o", "name"];
        get.extend(arguments.iter().map(String::as_str));
        let text = self.cluster.kubectl(&get).await?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// Two web servers that answer with their name, and a Service without a class.
pub fn web(policy: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
        - name: web
          image: {image}
          args: [netexec, --http-port=8080]
          readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: LoadBalancer
  ipFamilyPolicy: {policy}
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
",
        image = crate::AGNHOST
    )
}

/// The URL of an address of either family.
pub fn url(address: &str) -> String {
    if address.contains(':') {
        format!("http://[{address}]/hostname")
    } else {
        format!("http://{address}/hostname")
    }
}
