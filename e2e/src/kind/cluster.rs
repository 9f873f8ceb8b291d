//! A kind cluster: how it is created, used, restarted node by node, and deleted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::host::{KindHost, text};
use crate::control::Output;
use crate::eventually::eventually;
use crate::logs;
use crate::net::Families;

/// The label that excludes a node from load balancers.
pub const NODE_LABEL_EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

const CREATE_TIME: Duration = Duration::from_mins(5);
const KUBECTL_TIME: Duration = Duration::from_secs(150);
const LOAD_TIME: Duration = Duration::from_mins(2);
/// A restarted node boots systemd, containerd and kubelet, and reports Ready.
const RESTART_TIME: Duration = Duration::from_mins(3);

/// A cluster to create.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// The number of worker nodes.
    pub workers: u8,
    /// The IP families of pods and Services.
    pub families: Families,
    /// iptables, as in kind, unless set.
    pub proxy: Option<crate::ProxyMode>,
}

/// A cluster on a Docker host. It exists until it or its host is deleted.
#[derive(Debug)]
pub struct Cluster<'h> {
    host: &'h KindHost,
    name: String,
    kubeconfig: PathBuf,
}

/// See [`KindHost::cluster`].
pub(super) async fn create<'h>(
    host: &'h KindHost,
    name: &str,
    options: &ClusterOptions,
) -> Result<Cluster<'h>> {
    let cluster = Cluster {
        host,
        name: name.to_owned(),
        kubeconfig: kubeconfig(&host.dir(), name),
    };
    let there = host.exec(["kind", "get", "clusters"]).await?.ok()?;
    if there.lines().any(|line| line == name) {
        bail!("there is a kind cluster {name} already: end it, or choose another name");
    }
    // Recorded before it starts, so that a partial cluster is known to be ours.
    std::fs::write(&cluster.kubeconfig, "")?;
    let config = serde_json::to_string_pretty(&config(options))?;
    let image = host.image()?;
    let argv = [
        "kind",
        "create",
        "cluster",
        "--name",
        name,
        "--image",
        &image,
        "--config",
        "-",
        "--wait",
        "2m",
        "--kubeconfig",
        &text(&cluster.kubeconfig),
    ];
    {
        let _turn = host.one_at_a_time().await;
        let doing = || format!("kind create cluster --name {name}");
        let create = host.exec_for(argv, &config, CREATE_TIME);
        let created = host.progress().while_waiting(doing, create).await?;
        created.ok().with_context(doing)?;
    }
    let doing = || format!("waiting for the nodes of the kind cluster {name}");
    let ready = cluster.nodes_ready(CREATE_TIME);
    host.progress().while_waiting(doing, ready).await?;
    if !host.is_built() {
        cluster.load(&host.programs().agnhost()?).await?;
    }
    host.progress()
        .say(format!("the kind cluster {name} is up"));
    Ok(cluster)
}

/// See [`KindHost::find_cluster`].
pub(super) async fn find<'h>(host: &'h KindHost, name: &str) -> Result<Cluster<'h>> {
    let there = host.exec(["kind", "get", "clusters"]).await?.ok()?;
    if !there.lines().any(|line| line == name) {
        bail!(
            "there is no kind cluster {name} on the Docker host {}",
            host.name()
        );
    }
    let kubeconfig = kubeconfig(&host.dir(), name);
    if !kubeconfig.exists() {
        // Another program created it, so it must not be deleted with one of our hosts.
        if !host.is_built() {
            bail!("the kind cluster {name} was not made here: use kind itself");
        }
        let argv = [
            "kind",
            "export",
            "kubeconfig",
            "--name",
            name,
            "--kubeconfig",
            &text(&kubeconfig),
        ];
        host.exec(argv).await?.ok()?;
    }
    Ok(Cluster {
        host,
        name: name.to_owned(),
        kubeconfig,
    })
}

/// The clusters that have a kubeconfig in a host's folder.
pub(super) fn made_here(dir: &Path) -> Result<Vec<String>> {
    let names = std::fs::read_dir(dir)?.flatten().filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_suffix(".kubeconfig").map(str::to_owned)
    });
    Ok(names.collect())
}

/// The administrator's kubeconfig.
pub(super) fn kubeconfig(dir: &Path, cluster: &str) -> PathBuf {
    dir.join(format!("{cluster}.kubeconfig"))
}

/// Deletes a cluster, and changes no kubeconfig except its own.
pub(super) fn delete_argv<'a>(name: &'a str, kubeconfig: &'a str) -> [&'a str; 7] {
    [
        "kind",
        "delete",
        "cluster",
        "--name",
        name,
        "--kubeconfig",
        kubeconfig,
    ]
}

/// The configuration for `kind create cluster --config`; JSON is YAML, too.
fn config(options: &ClusterOptions) -> serde_json::Value {
    let mut nodes = vec![json!({"role": "control-plane"})];
    nodes.extend((0..options.workers).map(|_| json!({"role": "worker"})));
    let mut networking = json!({
        "ipFamily": if options.families.both() { "dual" } else { "ipv4" },
    });
    if let Some(proxy) = options.proxy {
        networking["kubeProxyMode"] = json!(proxy.flag());
    }
    // A current kubelet refuses cgroup version 1 unless this is set.
    let kubelet = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nfailCgroupV1: false\n";
    json!({
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": networking,
        "kubeadmConfigPatches": [kubelet],
        "nodes": nodes,
    })
}

impl<'h> Cluster<'h> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its Docker host.
    pub fn host(&self) -> &'h KindHost {
        self.host
    }

    /// The administrator's kubeconfig, for programs on the Docker host.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl on the Docker host as administrator and returns its output.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, "").await
    }

    /// The same, with standard input.
    pub async fn kubectl_with(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        let config = text(&self.kubeconfig);
        let argv = ["kubectl", "--kubeconfig", &config];
        let argv = argv.iter().chain(arguments);
        self.host
            .exec_for(argv, stdin, KUBECTL_TIME)
            .await?
            .ok()
            .with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// Applies YAML of one or more documents (server-side apply, conflicts forced).
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.kubectl_with(&arguments, yaml).await.map(drop)
    }

    /// Imports an image archive into every node.
    pub async fn load(&self, archive: &Path) -> Result<()> {
        let argv = [
            "kind",
            "load",
            "image-archive",
            &text(archive),
            "--name",
            &self.name,
        ];
        self.host
            .exec_for(argv, "", LOAD_TIME)
            .await?
            .ok()
            .map(drop)
    }

    /// Its nodes; each is a container of that name.
    pub async fn nodes(&self) -> Result<Vec<String>> {
        let argv = ["kind", "get", "nodes", "--name", &self.name];
        let said = self.host.exec(argv).await?.ok()?;
        let mut nodes: Vec<String> = said.lines().map(str::to_owned).collect();
        nodes.sort();
        Ok(nodes)
    }

    /// The node of the control plane.
    pub fn control_plane(&self) -> String {
        format!("{}-control-plane", self.name)
    }

    /// Runs a command on a node and returns its output.
    pub async fn node_exec(&self, node: &str, argv: &[&str]) -> Result<Output> {
        let line = ["docker", "exec", node];
        self.host.exec(line.iter().chain(argv)).await
    }

    /// The addresses of a node, IPv4 first.
    pub async fn addresses(&self, node: &str) -> Result<Vec<std::net::IpAddr>> {
        let path =
            "jsonpath={range .status.addresses[?(@.type==\"InternalIP\")]}{.address}{\"\\n\"}{end}";
        let said = self.kubectl(&["get", "node", node, "-o", path]).await?;
        said.lines()
            .map(|line| {
                line.parse()
                    .with_context(|| format!("{line:?} is no address"))
            })
            .collect()
    }

    /// `docker restart` of a node, and waits until it is Ready again.
    pub async fn restart_node(&self, node: &str) -> Result<()> {
        // The API reports the node as Ready for a while; the kubelet's start time shows the
        // restart.
        let before = self.kubelet_started(node).await?;
        self.host.docker(&["restart", node]).await?;
        eventually(RESTART_TIME, || async {
            if self.kubelet_started(node).await? == before {
                bail!("{node} has not come back yet");
            }
            Ok(())
        })
        .await?;
        self.nodes_ready(RESTART_TIME).await
    }

    /// When its kubelet last started, by the node's clock.
    async fn kubelet_started(&self, node: &str) -> Result<String> {
        let show = [
            "systemctl",
            "show",
            "kubelet",
            "-p",
            "ExecMainStartTimestamp",
            "--value",
        ];
        let started = self.node_exec(node, &show).await?.ok()?;
        if started.trim().is_empty() {
            bail!("kubelet of {node} does not run");
        }
        Ok(started)
    }

    /// Waits until every node is Ready.
    pub async fn nodes_ready(&self, time: Duration) -> Result<()> {
        let nodes = self.nodes().await?;
        let timeout = format!("--timeout={}s", time.as_secs().min(120));
        eventually(time, || async {
            let mut arguments = vec!["wait", "--for=condition=Ready", &timeout];
            let names: Vec<String> = nodes.iter().map(|node| format!("node/{node}")).collect();
            arguments.extend(names.iter().map(String::as_str));
            self.kubectl(&arguments).await.map(drop)
        })
        .await
    }

    /// Passes a result on. If it is an error, prints the state of the cluster.
    pub async fn explain<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            let of_ballast = [
                "logs",
                "-n",
                "ballast-system",
                "-l",
                "app.kubernetes.io/name=ballast",
                "--tail=15",
                "--prefix",
            ];
            for arguments in logs::HOW_IT_IS.iter().copied().chain([&of_ballast[..]]) {
                let said = self.kubectl(arguments).await;
                logs::tell(
                    arguments,
                    &said.unwrap_or_else(|error| format!("{error:#}")),
                );
            }
        }
        result
    }

    /// Deletes the cluster.
    pub async fn delete(self) -> Result<()> {
        let config = text(&self.kubeconfig);
        self.host
            .exec(delete_argv(&self.name, &config))
            .await?
            .ok()?;
        let _ = std::fs::remove_file(&self.kubeconfig);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_says_what_was_asked() {
        let options = ClusterOptions {
            workers: 2,
            families: Families::Dual,
            proxy: Some(crate::ProxyMode::Nftables),
        };
        let config = config(&options);
        assert_eq!(config["networking"]["ipFamily"], "dual");
        assert_eq!(config["networking"]["kubeProxyMode"], "nftables");
        assert_eq!(config["nodes"].as_array().map(Vec::len), Some(3));
        let plain = super::config(&ClusterOptions {
            families: Families::Ipv4,
            ..ClusterOptions::default()
        });
        assert_eq!(plain["networking"], json!({"ipFamily": "ipv4"}));
    }
}
