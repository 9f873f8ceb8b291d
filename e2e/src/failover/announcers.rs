//! The announcers of a lab as processes: one on each node, in the node's namespaces.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ballast_crds::announcer::{Announcer, Holding};
use kube::Api;
use kube::api::ListParams;

use crate::installation;
use crate::{Host, Lab, Reach, Signal, eventually};

/// The namespace of the Leases.
const NAMESPACE: &str = "ballast-system";
/// The port of the messages between announcers.
const PORT: &str = "7947";
/// Its admin server, on the node's loopback.
const ADMIN: &str = "127.0.0.1:8112";
/// The shared key: 32 bytes in base64, one a line. A lab has no secrets.
const KEY: &str = "YmFsbGFzdC1sYWItbWVzc2FnZXMtb25seS0wMDAwMDE=\n";

/// The announcers.
#[derive(Debug, Clone)]
pub struct Announcers<'a> {
    lab: &'a Lab,
    binary: String,
    key: PathBuf,
    flags: Vec<String>,
}

/// What an announcer says that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The node.
    pub node: Host,
    /// The number of nodes that have held the address.
    pub epoch: i64,
    /// The nodes that would take over, first one first.
    pub successors: Vec<Host>,
}

// === impl Announcers ===

impl<'a> Announcers<'a> {
    /// Writes the shared key. Nothing runs yet.
    pub fn new(lab: &'a Lab, flags: &[&str]) -> Result<Self> {
        let key = lab.dir().join("gossip-key");
        std::fs::write(&key, KEY)?;
        Ok(Self {
            lab,
            binary: installation::announcer()?.display().to_string(),
            key,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        })
    }

    /// The name of a node's announcer among the processes of the lab.
    pub fn process(node: Host) -> String {
        format!("announcer-{}", node.name())
    }

    /// The user of a node's announcer at the API server, as in the audit log.
    pub fn user(node: Host) -> String {
        format!("announcer:{}", node.name())
    }

    /// Starts a node's announcer.
    pub async fn start(&self, node: Host) -> Result<()> {
        self.start_as(&Self::process(node), node).await
    }

    /// Starts an announcer of a node under another name, beside the present one.
    pub async fn start_as(&self, process: &str, node: Host) -> Result<()> {
        self.start_by(&[], process, node).await
    }

    /// The same without the capability `NET_RAW`.
    pub async fn start_without_net_raw(&self, process: &str, node: Host) -> Result<()> {
        let without = [
            "setpriv",
            "--bounding-set=-net_raw",
            "--inh-caps=-net_raw",
            "--",
        ];
        self.start_by(&without, process, node).await
    }

    async fn start_by(&self, by: &[&str], process: &str, node: Host) -> Result<()> {
        let user = Self::user(node);
        let kubeconfig = self
            .lab
            .kubeconfig_for_user(&user, &["system:masters"], Reach::Inside)?;
        let (name, key) = (node.name(), self.key.display().to_string());
        let mut argv = by.to_vec();
        argv.extend([self.binary.as_str(), "announcer", "--node-name", &name]);
        argv.extend(["--namespace", NAMESPACE, "--gossip-port", PORT]);
        argv.extend(["--gossip-key-file", &key, "--admin-address", ADMIN]);
        argv.extend(self.flags.iter().map(String::as_str));
        let env = [("KUBECONFIG", &*kubeconfig.to_string_lossy())];
        self.lab.spawn(process, node, argv, &env).await.map(drop)
    }

    /// Waits until a node's announcer reports that it is ready.
    pub async fn ready(&self, node: Host) -> Result<()> {
        eventually(Duration::from_mins(1), || self.admin(node, "/readyz"))
            .await
            .map(drop)
            .with_context(|| format!("the announcer of {} does not get ready", node.name()))
    }

    /// The response of a node's admin server; an error unless its status is 200.
    pub async fn admin(&self, node: Host, path: &str) -> Result<String> {
        let url = format!("http://{ADMIN}{path}");
        let argv = ["curl", "-gsf", "--max-time", "5", &url];
        self.lab.exec(node, argv).await?.ok()
    }

    /// Sends a signal to a node's announcer.
    pub async fn signal(&self, node: Host, signal: Signal) -> Result<()> {
        self.lab.kill(&Self::process(node), signal).await
    }

    /// Kills a node's announcer, and waits for its end.
    pub async fn kill(&self, node: Host) -> Result<()> {
        self.signal(node, Signal::SIGKILL).await?;
        let time = Duration::from_secs(20);
        self.lab
            .wait_exit(&Self::process(node), time)
            .await
            .map(drop)
    }

    /// Starts a node's announcer again, with the same arguments.
    pub async fn start_again(&self, node: Host) -> Result<()> {
        self.lab.start_again(&Self::process(node)).await.map(drop)
    }

    /// The Announcer objects.
    pub async fn objects(&self) -> Result<Vec<Announcer>> {
        let api: Api<Announcer> = Api::all(self.lab.kube());
        Ok(api.list(&ListParams::default()).await?.items)
    }

    /// The holders of each address, as the Announcer objects say: with several, the highest epoch
    /// is first.
    pub async fn held(&self) -> Result<BTreeMap<IpAddr, Vec<Held>>> {
        let mut all: BTreeMap<IpAddr, Vec<Held>> = BTreeMap::new();
        for object in self.objects().await? {
            let name = object.metadata.name.unwrap_or_default();
            let Some(node) = Host::named(&name) else {
                bail!("an Announcer {name}, which is no node");
            };
            for Holding {
                address,
                epoch,
                successors,
                ..
            } in object.status.unwrap_or_default().holdings
            {
                all.entry(address.parse()?).or_default().push(Held {
                    node,
                    epoch,
                    successors: successors
                        .iter()
                        .filter_map(|it| Host::named(&it.0))
                        .collect(),
                });
            }
        }
        for holders in all.values_mut() {
            holders.sort_by_key(|it| std::cmp::Reverse(it.epoch));
        }
        Ok(all)
    }
}
