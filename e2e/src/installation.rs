//! Ballast on a lab: CRDs, rights, a mock cloud, controllers. The demo and the tests use it, so
//! both run what a user would run: the built binary, as a process, with only the rights of its
//! own `ServiceAccount`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    CLOUD_RANGE_V4, CLOUD_RANGE_V6, Exit, Families, Host, Lab, Output, Reach, Signal, eventually,
};

const RBAC: &str = include_str!("../../deploy/rbac.yaml");
const NAMESPACE: &str = "ballast-system";
const ACCOUNT: &str = "ballast-controller";
const CLOUD_PORT: u16 = 8111;
const ADMIN_PORT: u16 = 8110;
/// The time-out of a command of people.
const COMMAND_TIME: Duration = Duration::from_mins(2);
/// The process name of the mock cloud in the lab.
pub const CLOUD: &str = "mock-cloud";
/// The controller's user name at the API server, as in the audit log.
pub const USER: &str = "system:serviceaccount:ballast-system:ballast-controller";

/// Ballast, installed on a lab.
#[derive(Debug, Clone)]
pub struct Installation<'a> {
    lab: &'a Lab,
    binary: String,
    kubeconfig: String,
    cloud_host: Host,
    /// Variables of every controller.
    environment: Vec<(String, String)>,
}

/// The calls to the mock cloud since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// All calls.
    pub total: u64,
    /// Calls that can change something.
    pub mutating: u64,
}

// === impl Installation ===

impl<'a> Installation<'a> {
    /// Applies the CRDs and the rights. Nothing runs yet.
    pub async fn new(lab: &'a Lab) -> Result<Self> {
        let binary = binary()?;
        let crds = std::process::Command::new(&binary)
            .arg("crds")
            .output()
            .with_context(|| format!("cannot run {} crds", binary.display()))?;
        lab.apply(&String::from_utf8(crds.stdout)?).await?;
        lab.apply(RBAC).await?;
        lab.kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd/loadbalancerclasses.ballast.dev",
        ])
        .await?;
        let kubeconfig = lab
            .kubeconfig_for_service_account(NAMESPACE, ACCOUNT, Reach::Inside)
            .await?;
        Ok(Self {
            lab,
            binary: binary.display().to_string(),
            kubeconfig: kubeconfig.display().to_string(),
            cloud_host: Host::Cloud,
            environment: Vec::new(),
        })
    }

    /// Controllers that start from now on have these variables.
    #[must_use]
    pub fn with_environment(mut self, variables: Vec<(String, String)>) -> Self {
        self.environment = variables;
        self
    }

    /// Puts the mock cloud on another host. On a node the cloud puts its addresses on the
    /// node's interface, as in a cluster.
    #[must_use]
    pub fn with_cloud_on(mut self, host: Host) -> Self {
        self.cloud_host = host;
        self
    }

    /// The URL of the mock cloud, for classes.
    pub fn endpoint(&self) -> String {
        let address = self.lab.addresses(self.cloud_host)[0];
        format!("http://{address}:{CLOUD_PORT}")
    }

    /// Starts the mock cloud on its host and waits until it answers.
    pub async fn start_cloud(&self, flags: &[&str]) -> Result<()> {
        self.start_cloud_through(&[], flags).await
    }

    /// The same, with another program.
    pub async fn start_cloud_through(&self, wrapper: &[&str], flags: &[&str]) -> Result<()> {
        let listen = format!("{}:{CLOUD_PORT}", self.lab.addresses(self.cloud_host)[0]);
        // On another host it finds no earlier state, like a pod that moves.
        let name = match self.cloud_host {
            Host::Cloud => CLOUD.to_owned(),
            host => format!("{CLOUD}-{}", host.name()),
        };
        let state = self.lab.dir().join(name).display().to_string();
        let mut argv = wrapper.to_vec();
        argv.extend([self.binary.as_str(), "mock-cloud", "--listen", &listen]);
        argv.extend(["--state-dir", &state]);
        if self.cloud_host == Host::Cloud {
            argv.extend(["--addresses", CLOUD_RANGE_V4]);
            if self.lab.families() == Families::Dual {
                argv.extend(["--addresses", CLOUD_RANGE_V6]);
            }
        } else {
            argv.extend(["--interface", "auto"]);
        }
        argv.extend(flags);
        self.lab.spawn(CLOUD, self.cloud_host, argv, &[]).await?;
        self.cloud_answers().await
    }

    /// Waits until the mock cloud answers.
    pub async fn cloud_answers(&self) -> Result<()> {
        eventually(Duration::from_secs(40), || async {
            self.cloud("/healthz").await.map(drop)
        })
        .await
        .context("the mock cloud does not answer")
    }

    /// Starts a controller replica and waits until it is ready.
    pub async fn start_controller(&self, replica: &str, flags: &[&str]) -> Result<()> {
        self.spawn_controller(replica, flags).await?;
        self.controller_ready(replica).await
    }

    /// Starts a controller replica.
    pub async fn spawn_controller(&self, replica: &str, flags: &[&str]) -> Result<()> {
        self.spawn_controller_as(replica, Host::ControlPlane, &self.kubeconfig, flags)
            .await
    }

    /// Starts a controller replica on another host or as another user, so that the audit log
    /// tells it from the others. Its admin server can be reached from that host only.
    pub async fn spawn_controller_as(
        &self,
        replica: &str,
        host: Host,
        kubeconfig: &str,
        flags: &[&str],
    ) -> Result<()> {
        let admin = format!("127.0.0.1:{}", admin_port(replica)?);
        let mut argv = vec![
            self.binary.as_str(),
            "controller",
            "--identity",
            replica,
            "--lease-namespace",
            NAMESPACE,
            "--admin-address",
            &admin,
            "--cluster-name",
            self.lab.name(),
        ];
        argv.extend(flags);
        let more = self.environment.iter();
        let more = more.map(|(key, value)| (key.as_str(), value.as_str()));
        let env: Vec<(&str, &str)> = more.chain([("KUBECONFIG", kubeconfig)]).collect();
        self.lab.spawn(replica, host, argv, &env).await?;
        Ok(())
    }

    /// Waits until a replica reports that it is ready.
    pub async fn controller_ready(&self, replica: &str) -> Result<()> {
        eventually(Duration::from_mins(1), || async {
            self.admin(replica, "/readyz").await.map(drop)
        })
        .await
        .with_context(|| format!("controller {replica} does not become ready"))
    }

    /// Waits until one of these replicas leads, and returns its name.
    pub async fn leader<'r>(&self, replicas: &[&'r str]) -> Result<&'r str> {
        eventually(Duration::from_mins(1), || async {
            for replica in replicas {
                let metrics = self.admin(replica, "/metrics").await.unwrap_or_default();
                if metrics.lines().any(|line| line == "ballast_leader 1") {
                    return Ok(*replica);
                }
            }
            bail!("none of {replicas:?} leads")
        })
        .await
    }

    /// Kills a process of the installation at once, so that it cannot clean up.
    pub async fn kill(&self, process: &str) -> Result<()> {
        self.lab.kill(process, Signal::SIGKILL).await?;
        self.lab.wait_exit(process, Duration::from_secs(5)).await?;
        Ok(())
    }

    /// Asks a process to end and returns how it ended.
    pub async fn stop(&self, process: &str) -> Result<Exit> {
        self.lab.stop(process).await
    }

    /// The response of a replica's admin server; an error unless its status is 200.
    pub async fn admin(&self, replica: &str, path: &str) -> Result<String> {
        let url = self.admin_url(replica, path)?;
        self.get(Host::ControlPlane, &url).await
    }

    /// The address of a replica's admin server, on the control plane's loopback.
    pub fn admin_url(&self, replica: &str, path: &str) -> Result<String> {
        Ok(format!("http://127.0.0.1:{}{path}", admin_port(replica)?))
    }

    /// The response of the mock cloud's API; an error unless its status is 200.
    pub async fn cloud(&self, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.endpoint());
        self.get(Host::ControlPlane, &url).await
    }

    /// The same, asked from another host: it works without the cluster.
    pub async fn cloud_from(&self, from: Host, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.endpoint());
        self.get(from, &url).await
    }

    /// What the mock cloud's load balancers would cost on AWS.
    pub async fn meter(&self) -> Result<Value> {
        let meter = self.cloud_from(Host::Client, "/v1/meter").await?;
        Ok(serde_json::from_str(&meter)?)
    }

    /// Runs a command of Ballast on a host without any kubeconfig, and returns its output, whatever
    /// its exit code.
    pub async fn ballast(&self, on: Host, arguments: &[&str]) -> Result<Output> {
        let argv = ["env", "-u", "KUBECONFIG", "HOME=/nonexistent", &self.binary];
        let argv = argv.iter().chain(arguments);
        self.lab.exec_for(on, argv, COMMAND_TIME).await
    }

    /// All load balancers in the mock cloud.
    pub async fn load_balancers(&self) -> Result<Vec<Value>> {
        let page: Value = serde_json::from_str(&self.cloud("/v1/load-balancers").await?)?;
        page["items"]
            .as_array()
            .cloned()
            .context("no items in the cloud's answer")
    }

    /// The number of calls to the mock cloud.
    pub async fn calls(&self) -> Result<Calls> {
        let page: Value = serde_json::from_str(&self.cloud("/v1/calls?since=0").await?)?;
        let count = |field: &str| {
            page[field]
                .as_u64()
                .with_context(|| format!("no {field} in {page}"))
        };
        Ok(Calls {
            total: count("total")?,
            mutating: count("mutating")?,
        })
    }

    async fn get(&self, from: Host, url: &str) -> Result<String> {
        let output = self
            .lab
            .exec(from, ["curl", "-gsf", "--max-time", "5", url])
            .await?;
        output.ok().with_context(|| format!("GET {url}"))
    }

    /// Applies a class of the mock provider; `more` is added to its spec.
    pub async fn mock_class(&self, name: &str, more: &str) -> Result<()> {
        self.lab.apply(&self.mock_class_yaml(name, more)).await
    }

    /// The manifest of a class of the mock provider.
    pub fn mock_class_yaml(&self, name: &str, more: &str) -> String {
        format!(
            "apiVersion: ballast.dev/v1alpha1\nkind: LoadBalancerClass\nmetadata: {{name: {name}}}\nspec: {{mock: {{endpoint: \"{}\"}}, {more}}}\n",
            self.endpoint()
        )
    }
}

/// Each replica has its own port: `ballast-1` has the first.
fn admin_port(replica: &str) -> Result<u16> {
    let number = replica
        .rsplit('-')
        .next()
        .and_then(|number| number.parse::<u16>().ok());
    let number =
        number.with_context(|| format!("a replica is named NAME-NUMBER, not {replica}"))?;
    Ok(ADMIN_PORT + 10 * number)
}

/// The programs of the image, `ballast` first: [`binary`], and the one for nodes, which is beside it.
pub fn programs() -> Result<Vec<PathBuf>> {
    Ok(vec![binary()?, announcer()?])
}

/// The program for nodes.
pub fn announcer() -> Result<PathBuf> {
    let path = binary()?.with_file_name("ballast-announcer");
    anyhow::ensure!(
        path.is_file(),
        "no program {}; run `cargo build --workspace` first",
        path.display()
    );
    Ok(path)
}

/// The `ballast` binary: `BALLAST_BIN`, or the one next to this program.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BALLAST_BIN") {
        return Ok(path.into());
    }
    beside("ballast").context("or set BALLAST_BIN")
}

/// The strict fake of AWS.
pub fn aws_fake() -> Result<PathBuf> {
    beside("aws-fake")
}

/// A program of this workspace.
fn beside(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe().context("this program has no path")?;
    let mut beside = me.ancestors().skip(1).take(2).map(|it| it.join(name));
    let found = beside.find(|path| path.is_file());
    found.with_context(|| {
        format!("no program {name} beside this one; run `cargo build --workspace` first")
    })
}
