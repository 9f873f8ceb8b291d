//! Nodes: how their programs start, when they are ready, and how nodes are added and removed.
//!
//! A node's number is never reused in a lab: it determines the name and the addresses, and
//! remains of an old node must not be mistaken for a new one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::Api;
use kube::api::DeleteParams;

use crate::components::Component;
use crate::control::{Control, HUB, Request};
use crate::eventually::eventually;
use crate::hosts::{add_host, api_ready, dead, hosts_file};
use crate::images;
use crate::lab::Lab;
use crate::launch::spawn;
use crate::net::{self, Host, MAX_NODES};

const NODE_TIME: Duration = Duration::from_mins(2);

impl Lab {
    /// Adds a node with the next number, waits until it is Ready, and returns its host.
    pub async fn add_node(&self) -> Result<Host> {
        let used = std::fs::read_dir(self.dir())?.flatten();
        let used = used.filter_map(|entry| Host::named(&entry.file_name().to_string_lossy()));
        // Folders of removed nodes stay, so that numbers (addresses, names) are not reused.
        let last = used
            .filter_map(|host| {
                if let Host::Node(number) = host {
                    Some(number)
                } else {
                    None
                }
            })
            .max();
        let node = last.unwrap_or(0) + 1;
        if node > MAX_NODES {
            bail!("a lab has at most {MAX_NODES} nodes over its life");
        }
        let others = self.nodes();
        self.lock_nodes().push(node);
        std::fs::write(
            self.dir().join("hosts"),
            hosts_file(self.setup.families, &self.nodes()),
        )?;
        node_processes(self, node).await?;
        for other in others {
            let lines = net::pod_routes("replace", node, self.setup.families).join("\n") + "\n";
            let host = Host::Node(other).name();
            self.control
                .exec_with(
                    &host,
                    &["ip", "-batch", "-"],
                    &lines,
                    Duration::from_secs(5),
                )
                .await?
                .ok()?;
        }
        nodes_ready(self, &[node]).await?;
        Ok(Host::Node(node))
    }

    /// Removes a node with its pods, like a power cut, and deletes its Node object.
    pub async fn remove_node(&self, node: Host) -> Result<()> {
        let Host::Node(number) = node else {
            bail!("{} is not a node", node.name())
        };
        if !self.nodes().contains(&number) {
            bail!("there is no {}", node.name());
        }
        // The cable first: a kernel forwards packets until its namespace is gone.
        self.control
            .exec(
                HUB,
                &["ip", "link", "delete", &node.cable()],
                Duration::from_secs(5),
            )
            .await?
            .ok()?;
        let request = Request::RemoveHost { host: node.name() };
        self.control.call::<()>(&request).await?;
        self.lock_nodes().retain(|&other| other != number);
        let nodes: Api<Node> = Api::all(self.kube());
        nodes
            .delete(&node.name(), &DeleteParams::default())
            .await
            .context("its Node object could not be deleted")?;
        Ok(())
    }

    /// Imports image archives (OCI or `docker save`) into every node, including future ones.
    pub async fn import_images(&self, archives: &[PathBuf]) -> Result<()> {
        for archive in archives {
            let archive = keep_image(&self.dir(), archive)?;
            let numbers = self.nodes();
            futures::future::try_join_all(
                numbers
                    .iter()
                    .map(|&node| import(&self.control, node, &archive)),
            )
            .await?;
        }
        Ok(())
    }

    /// Starts a component that was stopped. It waits for components that others need at once:
    /// the API server, containerd, and kubelet (which needs the API server).
    pub async fn start_component(&self, component: Component) -> Result<()> {
        if let Component::Kubelet(node) = component {
            return start_kubelet(self, node).await;
        }
        self.start_again(&component.name()).await?;
        match component {
            Component::ApiServer => api_ready(self).await,
            Component::Containerd(node) => containerd_answers(&self.control, node).await,
            _ => Ok(()),
        }
    }

    /// Stops a component and restarts it.
    pub async fn restart_component(&self, component: Component) -> Result<()> {
        self.stop_component(component).await?;
        self.start_component(component).await
    }
}

/// A node's files, host, containerd, images, kubelet and kube-proxy, in this order.
pub(crate) async fn node_processes(lab: &Lab, node: u8) -> Result<()> {
    let setup = lab.setup.clone();
    tokio::task::spawn_blocking(move || setup.node_files(node)).await??;
    add_host(lab, Host::Node(node)).await?;
    spawn(&lab.control, lab.setup.containerd(node)).await?;
    let own = images::archives(&lab.setup.cache)?
        .into_iter()
        .map(|(_, archive)| archive);
    for archive in own.chain(kept_images(&lab.dir())) {
        import(&lab.control, node, &archive).await?;
    }
    // A kubelet without an API server retries at growing intervals, up to 7 s.
    api_ready(lab).await?;
    spawn(&lab.control, lab.setup.kubelet(node)).await?;
    spawn(&lab.control, lab.setup.proxy(node)).await
}

/// Copies an archive into the lab's folder for future nodes.
fn keep_image(dir: &Path, archive: &Path) -> Result<PathBuf> {
    let folder = dir.join("images");
    std::fs::create_dir_all(&folder)?;
    let name = archive
        .file_name()
        .with_context(|| format!("{} is no file", archive.display()))?;
    let kept = folder.join(name);
    std::fs::copy(archive, &kept)
        .with_context(|| format!("cannot copy the archive {}", archive.display()))?;
    Ok(kept)
}

fn kept_images(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir.join("images"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

/// Imports an archive into a node's containerd, after waiting for it to answer.
async fn import(control: &Control, node: u8, archive: &Path) -> Result<()> {
    let (host, archive) = (Host::Node(node).name(), archive.to_string_lossy());
    containerd_answers(control, node).await?;
    let argv = ["ctr", "--namespace=k8s.io", "images", "import", &archive];
    let said = control.exec(&host, &argv, Duration::from_mins(1)).await?;
    said.ok()
        .with_context(|| format!("cannot import {archive} into {host}"))?;
    Ok(())
}

/// Waits until a node's containerd answers: a kubelet that starts earlier gives up.
async fn containerd_answers(control: &Control, node: u8) -> Result<()> {
    let host = Host::Node(node).name();
    eventually(Duration::from_secs(30), || async {
        control
            .exec(&host, &["ctr", "version"], Duration::from_secs(5))
            .await?
            .ok()
    })
    .await
    .with_context(|| {
        format!("containerd of {host} does not answer; see `lab logs containerd-{node}`")
    })?;
    Ok(())
}

/// Restarts a kubelet that has ended, and waits until it reports its node Ready. Before that,
/// it ends permanently if containerd goes away, because no service manager would restart it.
async fn start_kubelet(lab: &Lab, node: u8) -> Result<()> {
    let nodes: Api<Node> = Api::all(lab.kube());
    let (name, kubelet) = (Host::Node(node).name(), Component::Kubelet(node));
    let heartbeat =
        |node: &Node| condition(node).and_then(|ready| ready.last_heartbeat_time.clone());
    let before = heartbeat(&nodes.get(&name).await?);
    lab.start_again(&kubelet.name()).await?;
    eventually(NODE_TIME, || async {
        if let Some(dead) = dead(lab, &[kubelet]).await? {
            return Ok(Err(dead));
        }
        let node = nodes.get(&name).await?;
        if heartbeat(&node) == before {
            bail!("it has not reported yet");
        }
        ready(&node).map(Ok)
    })
    .await
    .with_context(|| format!("kubelet of {name} does not come back"))?
}

/// Waits until nodes are Ready and their kube-proxy has written its rules.
pub(crate) async fn nodes_ready(lab: &Lab, numbers: &[u8]) -> Result<()> {
    let nodes: Api<Node> = Api::all(lab.kube());
    let of_node = |&n: &u8| {
        [
            Component::Containerd(n),
            Component::Kubelet(n),
            Component::Proxy(n),
        ]
    };
    let needed: Vec<Component> = numbers.iter().flat_map(of_node).collect();
    eventually(NODE_TIME, || async {
        if let Some(dead) = dead(lab, &needed).await? {
            return Ok(Err(dead));
        }
        let list = nodes.list(&kube::api::ListParams::default()).await?;
        for number in numbers {
            let name = Host::Node(*number).name();
            let node = list
                .items
                .iter()
                .find(|node| node.metadata.name.as_ref() == Some(&name));
            let node = node.with_context(|| {
                format!("{name} is not registered; see `lab logs kubelet-{number}`")
            })?;
            ready(node).with_context(|| name.clone())?;
            // Ready does not include kube-proxy; a refused NodePort would make tests flaky.
            let health = format!("/api/v1/nodes/{name}:10256/proxy/healthz");
            let request = http::Request::get(health).body(vec![])?;
            lab.client
                .request_text(request)
                .await
                .with_context(|| format!("kube-proxy of {name} has no rules yet"))?;
        }
        Ok(Ok(()))
    })
    .await
    .context("not all nodes get ready")?
}

/// A node's condition `Ready`.
fn condition(node: &Node) -> Option<&NodeCondition> {
    let mut conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == "Ready")
}

fn ready(node: &Node) -> Result<()> {
    let ready = condition(node).context("no condition Ready yet")?;
    if ready.status != "True" {
        bail!(
            "not Ready: {}",
            ready.message.as_deref().unwrap_or("no reason given")
        );
    }
    let tainted = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten())
        .any(|taint| taint.key.contains("not-ready"));
    if tainted {
        Err(anyhow!("Ready, but its taint is not gone yet"))
    } else {
        Ok(())
    }
}
