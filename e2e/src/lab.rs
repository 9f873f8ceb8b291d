//! A running lab, and the operations of tests and users on it. [`crate::boot`] starts it;
//! [`crate::nodes`] adds and removes nodes and restarts components. Both use this module, not
//! the other way round.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};

use crate::audit::{self, AuditEvent};
use crate::components::{Component, Setup};
use crate::control::{Control, Exit, Output, ProcessSpec, Request, Status};
use crate::logs::Collector;
use crate::net::{Families, Host};
use crate::pki::{Credential, inside};
use crate::state::{Place, Record};
use crate::{Signal, objects};

/// The default time-out of a command on a host.
const EXEC_TIME: Duration = Duration::from_mins(1);
/// Longer than any `--timeout` that callers pass to kubectl, so that kubectl reports its own
/// error.
const KUBECTL_TIME: Duration = Duration::from_secs(150);

/// How long a component may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A running lab. With [`crate::LabOptions::die_with_owner`] it ends with this value; if that happens
/// in a panic, logs and objects go to [`crate::LabOptions::artifacts`] first.
pub struct Lab {
    pub(crate) place: Place,
    pub(crate) record: Record,
    pub(crate) setup: Setup,
    pub(crate) control: Control,
    pub(crate) client: Client,
    /// The present nodes, and the highest number ever used, so that no name is used twice.
    pub(crate) nodes: Mutex<Vec<u8>>,
    pub(crate) artifacts: Option<PathBuf>,
    /// The connection whose end stops the lab.
    pub(crate) owner: Option<tokio::net::UnixStream>,
}

/// Where a kubeconfig is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// By programs of the machine, through the forwarded port.
    Machine,
    /// By programs on the lab's hosts ([`Lab::spawn`], [`Lab::exec`]) and in pods.
    Inside,
}

impl Lab {
    /// Its name.
    pub fn name(&self) -> &str {
        self.place.name()
    }

    /// Its state folder.
    pub fn dir(&self) -> PathBuf {
        self.place.dir()
    }

    /// A program of the cluster's own build: `kubectl`, `agnhost`, `etcd`, …
    pub fn program(&self, name: &str) -> PathBuf {
        self.setup.cache.program(name)
    }

    /// The IP families of its nodes, pods and Services.
    pub fn families(&self) -> Families {
        self.setup.families
    }

    /// A client with all rights.
    pub fn kube(&self) -> Client {
        self.client.clone()
    }

    /// The administrator's kubeconfig, for programs of the machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("pki/admin.kubeconfig")
    }

    /// A kubeconfig for a user of that name in these groups. It has the rights that RBAC gives them.
    pub fn kubeconfig_for_user(
        &self,
        user: &str,
        groups: &[&str],
        reach: Reach,
    ) -> Result<PathBuf> {
        let file = format!("user-{}", user.replace([':', '/'], "-"));
        self.setup.pki().issue(&file, user, groups, &[], &[])?;
        self.write_kubeconfig(&file, reach, &Credential::Certificate(&file))
    }

    /// A kubeconfig with a token of a `ServiceAccount`, valid for a day.
    pub async fn kubeconfig_for_service_account(
        &self,
        namespace: &str,
        name: &str,
        reach: Reach,
    ) -> Result<PathBuf> {
        let token = self.token_of_service_account(namespace, name).await?;
        self.write_kubeconfig(
            &format!("sa-{namespace}-{name}"),
            reach,
            &Credential::Token(&token),
        )
    }

    /// A token of a `ServiceAccount` that belongs to no pod, valid for a day.
    pub async fn token_of_service_account(&self, namespace: &str, name: &str) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.kube(), namespace);
        let spec = TokenRequestSpec {
            expiration_seconds: Some(86_400),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec,
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(name, &kube::api::PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for the ServiceAccount {namespace}/{name}"))?;
        Ok(answer.status.context("the API server gave no token")?.token)
    }

    pub(crate) fn write_kubeconfig(
        &self,
        file: &str,
        reach: Reach,
        credential: &Credential<'_>,
    ) -> Result<PathBuf> {
        let (server, suffix) = match reach {
            Reach::Machine => (format!("https://127.0.0.1:{}", self.record.port), ""),
            Reach::Inside => (inside(IpAddr::V4(Host::ControlPlane.v4())), "-inside"),
        };
        self.setup
            .pki()
            .kubeconfig(&format!("{file}{suffix}.kubeconfig"), &server, credential)
    }

    /// Runs the cluster's own kubectl as administrator and returns its output.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let run = tokio::process::Command::new(self.setup.cache.program("kubectl"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(KUBECTL_TIME, run)
            .await
            .with_context(|| {
                format!(
                    "kubectl {} took over {} s",
                    arguments.join(" "),
                    KUBECTL_TIME.as_secs()
                )
            })??;
        if !output.status.success() {
            bail!(
                "kubectl {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Applies YAML of one or more documents (server-side apply, conflicts forced).
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        objects::apply(&self.client, yaml).await
    }

    /// Runs a command on a host and returns its output, whatever its exit code. It is killed
    /// after a minute.
    pub async fn exec<A: AsRef<str>>(
        &self,
        host: Host,
        argv: impl IntoIterator<Item = A>,
    ) -> Result<Output> {
        self.exec_for(host, argv, EXEC_TIME).await
    }

    /// Like [`Lab::exec`], with another time-out.
    pub async fn exec_for<A: AsRef<str>>(
        &self,
        host: Host,
        argv: impl IntoIterator<Item = A>,
        time: Duration,
    ) -> Result<Output> {
        let argv: Vec<A> = argv.into_iter().collect();
        let argv: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
        self.control.exec(&host.name(), &argv, time).await
    }

    /// Starts a process on a host. Its output goes to `logs/NAME.log`; it ends with the lab.
    pub async fn spawn<A: Into<String>>(
        &self,
        name: &str,
        host: Host,
        argv: impl IntoIterator<Item = A>,
        env: &[(&str, &str)],
    ) -> Result<u32> {
        let env: BTreeMap<String, String> = env
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let argv = argv.into_iter().map(Into::into).collect();
        self.control
            .call(&Request::Spawn(ProcessSpec {
                name: name.to_owned(),
                host: host.name(),
                argv,
                env,
            }))
            .await
    }

    /// Sends a signal to a process that [`Lab::spawn`] started, or to a component by its process name.
    pub async fn kill(&self, name: &str, signal: Signal) -> Result<()> {
        self.control
            .call(&Request::Kill {
                name: name.to_owned(),
                signal: signal as i32,
            })
            .await
    }

    /// Waits until a process has ended.
    pub async fn wait_exit(&self, name: &str, timeout: Duration) -> Result<Exit> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.control
            .call(&Request::Wait {
                name: name.to_owned(),
                timeout_ms,
            })
            .await
    }

    /// Stops a process: asks it to end, and kills it if it does not within 5 s. A process that
    /// has ended is left alone.
    pub async fn stop(&self, name: &str) -> Result<Exit> {
        if let Ok(exit) = self.wait_exit(name, Duration::ZERO).await {
            return Ok(exit);
        }
        self.kill(name, Signal::SIGTERM).await?;
        if let Ok(exit) = self.wait_exit(name, GRACE).await {
            return Ok(exit);
        }
        // It may end between the two.
        let _ = self.kill(name, Signal::SIGKILL).await;
        self.wait_exit(name, GRACE).await
    }

    /// Restarts a process that has ended, with the same arguments.
    pub async fn start_again(&self, name: &str) -> Result<u32> {
        self.control
            .call(&Request::Start {
                name: name.to_owned(),
            })
            .await
    }

    /// Stops a process and restarts it.
    pub async fn restart(&self, name: &str) -> Result<()> {
        self.stop(name).await?;
        self.start_again(name).await?;
        Ok(())
    }

    /// The hosts and processes of the lab.
    pub async fn status(&self) -> Result<Status> {
        self.control.call(&Request::Status).await
    }

    /// The path of the log of a process or component.
    pub(crate) fn log_path(&self, name: &str) -> PathBuf {
        self.dir().join("logs").join(format!("{name}.log"))
    }

    /// The output of a process or component so far.
    pub fn log(&self, name: &str) -> Result<String> {
        let path = self.log_path(name);
        let bytes = std::fs::read(&path).with_context(|| format!("no log {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Stops a component.
    pub async fn stop_component(&self, component: Component) -> Result<()> {
        self.stop(&component.name()).await.map(drop)
    }

    /// Pulls a host's cable: its interface loses the carrier.
    pub async fn cut(&self, host: Host) -> Result<()> {
        self.cable(host, "down").await
    }

    /// Plugs a host's cable in again.
    pub async fn restore(&self, host: Host) -> Result<()> {
        self.cable(host, "up").await
    }

    async fn cable(&self, host: Host, state: &str) -> Result<()> {
        self.exec(Host::Hub, ["ip", "link", "set", &host.cable(), state])
            .await?
            .ok()?;
        Ok(())
    }

    /// The numbers of the present nodes.
    pub fn nodes(&self) -> Vec<u8> {
        self.lock_nodes().clone()
    }

    pub(crate) fn lock_nodes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.nodes
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// All writes that the API server has answered so far, in order.
    pub fn audit(&self) -> Result<Vec<AuditEvent>> {
        let mut events = self.audit_with_reads()?;
        events.retain(AuditEvent::is_write);
        Ok(events)
    }

    /// The same, with the reads of accounts in the namespace `ballast-system`.
    pub fn audit_with_reads(&self) -> Result<Vec<AuditEvent>> {
        audit::read(&self.dir().join("audit.log"))
    }

    /// A host's addresses, IPv4 first.
    pub fn addresses(&self, host: Host) -> Vec<IpAddr> {
        host.addresses(self.setup.families)
    }

    /// Writes logs, events, objects and the hosts' network state into a folder.
    pub async fn collect_logs(&self, into: &Path) -> Result<()> {
        let (collector, into) = (self.collector(), into.to_owned());
        tokio::task::spawn_blocking(move || collector.collect(&into)).await?
    }

    /// Stops all processes and keeps the logs, for the analysis of a failure.
    pub(crate) fn fell_over(mut self) -> Result<()> {
        self.owner = None;
        self.place.end()
    }

    /// Passes a result on. If it is an error, prints the state of the cluster, and first
    /// collects logs and objects in [`crate::LabOptions::artifacts`]: for tests that end with
    /// an error instead of a panic.
    pub async fn explain<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            // First, because a CI system may cut the end of a long output.
            eprintln!("{error:?}");
            let collector = self.collector();
            tokio::task::spawn_blocking(move || collector.tell()).await?;
        }
        if result.is_err()
            && let Some(artifacts) = &self.artifacts
        {
            let into = artifacts.join(self.name());
            self.collect_logs(&into).await?;
            return result.with_context(|| format!("logs and objects are in {}", into.display()));
        }
        result
    }

    fn collector(&self) -> Collector {
        Collector {
            dir: self.dir(),
            kubectl: self.setup.cache.program("kubectl"),
            kubeconfig: self.kubeconfig(),
            supervisor: self.record.pid,
        }
    }

    /// Lets the lab continue after this process.
    pub async fn detach(mut self) -> Result<()> {
        self.control.call::<()>(&Request::Detach).await?;
        self.owner = None;
        Ok(())
    }

    /// Stops the lab and removes everything that it left.
    pub async fn down(mut self) -> Result<()> {
        self.owner = None;
        let place = self.place.clone();
        tokio::task::spawn_blocking(move || {
            let _lock = place.lock()?;
            place.destroy().map(drop)
        })
        .await?
    }
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab")
            .field("place", &self.place)
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owner.is_none() {
            return;
        }
        // A successful test stops the lab itself; this is the path of a failing test.
        self.collector().tell();
        if let Some(artifacts) = &self.artifacts {
            let into = artifacts.join(self.name());
            match self.collector().collect(&into) {
                Ok(()) => eprintln!(
                    "logs and objects of lab {} are in {}",
                    self.name(),
                    into.display()
                ),
                Err(error) => eprintln!(
                    "logs of lab {} could not be collected: {error:#}",
                    self.name()
                ),
            }
        }
        if let Err(error) = self.place.destroy() {
            eprintln!("lab {} could not be removed: {error:#}", self.name());
        }
    }
}
