//! The cluster for measurements: one API server and one etcd, two Node objects without
//! machines, and snapshots to restore, so that every contender starts from the same state and
//! thousands of Services need not be deleted.
//!
//! The controller manager and the scheduler are stopped: their work for each Service
//! (`EndpointSlices`) takes processor time that has nothing to do with the contender.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::PostParams;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::terms::CLASS;
use super::usage;
use crate::installation::Installation;
use crate::{Component, Families, Host, Lab, LabOptions, Reach, eventually};

/// How long to wait for an idle API server.
const PATIENCE: Duration = Duration::from_secs(20);
/// The host of the processes and of the API server.
const HERE: Host = Host::ControlPlane;

/// The cluster, ready for measurements.
#[derive(Debug)]
pub struct Bed<'a> {
    /// The lab underneath.
    pub(crate) lab: &'a Lab,
    /// Ballast on it.
    pub(crate) ballast: Installation<'a>,
    /// The program of the reference controller and its kubeconfig.
    pub(crate) reference: (PathBuf, PathBuf),
    /// Ballast's kubeconfig, for the raw loop.
    pub(crate) account: PathBuf,
    administrator: PathBuf,
    jobs: AtomicU32,
}

/// A running job in the lab.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    lab: &'a Lab,
    pub(crate) name: String,
}

/// The options of the lab for [`Bed::make`].
pub fn options(name: &str, audit: bool) -> LabOptions {
    LabOptions {
        name: name.to_owned(),
        nodes: 0,
        families: Families::Ipv4,
        audit,
        progress: false,
        // 5,000 Services with two ports need more than the 2,768 ports of the default.
        api_server_flags: vec!["--service-node-port-range=10000-42767".to_owned()],
        ..LabOptions::default()
    }
}

// === impl Bed ===

impl<'a> Bed<'a> {
    /// Installs what the contenders need; none of them runs yet.
    pub async fn make(lab: &'a Lab, reference: PathBuf) -> Result<Self> {
        let ballast = Installation::new(lab).await?;
        ballast.mock_class(CLASS, "default: true").await?;
        lab.apply(include_str!("reference.yaml")).await?;
        let bed = Self {
            lab,
            ballast,
            reference: (
                reference,
                lab.kubeconfig_for_service_account("bench", "reference", Reach::Inside)
                    .await?,
            ),
            account: lab
                .kubeconfig_for_service_account(
                    "ballast-system",
                    "ballast-controller",
                    Reach::Inside,
                )
                .await?,
            administrator: lab.kubeconfig_for_user("bench", &["system:masters"], Reach::Inside)?,
            jobs: AtomicU32::new(0),
        };
        for name in ["bench-1", "bench-2"] {
            bed.add_node(name).await?;
        }
        lab.stop_component(Component::ControllerManager).await?;
        lab.stop_component(Component::Scheduler).await?;
        Ok(bed)
    }

    /// Adds a Node object.
    pub(crate) async fn add_node(&self, name: &str) -> Result<()> {
        let number = name.rsplit('-').next().unwrap_or_default();
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"providerID": format!("bench://{name}")},
            "status": {"addresses": [
                {"type": "InternalIP", "address": format!("10.89.1.{number}")},
                {"type": "Hostname", "address": name},
            ]},
        }))?;
        let nodes: Api<Node> = Api::all(self.lab.kube());
        nodes.create(&PostParams::default(), &node).await?;
        Ok(())
    }

    /// Saves the present state under a name.
    pub(crate) async fn save(&self, snapshot: &str) -> Result<()> {
        self.lab.back_up(snapshot).await?;
        usage::quiet(self.lab, PATIENCE).await
    }

    /// Restores a saved state, and waits until the API server is idle.
    pub(crate) async fn restore(&self, snapshot: &str) -> Result<()> {
        self.lab.restore_backup(snapshot).await?;
        usage::quiet(self.lab, PATIENCE).await
    }

    /// Runs a job of [`super::inside`] to its end and returns its result.
    pub(crate) async fn run<T: DeserializeOwned>(&self, job: &str, flags: &[&str]) -> Result<T> {
        self.begin(job, flags, &self.administrator)
            .await?
            .result(Duration::from_mins(5))
            .await
    }

    /// Starts a job as the administrator and waits until it is ready.
    pub(crate) async fn user(&self, job: &str, flags: &[&str]) -> Result<Running<'a>> {
        let running = self.begin(job, flags, &self.administrator).await?;
        running.ready().await?;
        Ok(running)
    }

    /// Starts a job.
    pub(crate) async fn begin(
        &self,
        job: &str,
        flags: &[&str],
        kubeconfig: &Path,
    ) -> Result<Running<'a>> {
        let number = self.jobs.fetch_add(1, Ordering::Relaxed);
        let name = format!("{job}-{number}");
        let program = std::env::current_exe()?.display().to_string();
        let argv = [program.as_str(), "inside", job].into_iter();
        let argv = argv.chain(flags.iter().copied());
        let kubeconfig = kubeconfig.display().to_string();
        self.lab
            .spawn(&name, HERE, argv, &[("KUBECONFIG", &kubeconfig)])
            .await?;
        Ok(Running {
            lab: self.lab,
            name,
        })
    }

    /// The response of a process on the control plane's loopback.
    pub(crate) async fn get(&self, url: &str) -> Result<String> {
        let argv = ["curl", "-sf", "--max-time", "5", url];
        self.lab.exec(HERE, argv).await?.ok()
    }
}

// === impl Running ===

impl Running<'_> {
    /// Waits until the job reports that it is ready.
    pub(crate) async fn ready(&self) -> Result<()> {
        eventually(Duration::from_secs(20), || async {
            let log = self.lab.log(&self.name)?;
            ensure!(log.lines().any(|line| line == "ready"), "it said: {log}");
            Ok(())
        })
        .await
        .with_context(|| format!("{} does not get ready", self.name))
    }

    /// Waits for the end of the job and returns its last line.
    pub(crate) async fn result<T: DeserializeOwned>(&self, time: Duration) -> Result<T> {
        let exit = self.lab.wait_exit(&self.name, time).await;
        let log = self.lab.log(&self.name)?;
        let exit = exit.with_context(|| format!("{} said: {log}", self.name))?;
        ensure!(exit.success(), "{}: {exit}: {log}", self.name);
        let last = log.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("{} said: {last}", self.name))
    }
}
