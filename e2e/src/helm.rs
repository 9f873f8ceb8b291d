//! Helm and the programs that work on charts, built from the Go module in `e2e/helm` and stored
//! in the cache under the hash of their sources.
//!
//! The tests install the chart with Helm 4, and render it with Helm 3 as well. All programs
//! use the Kubernetes libraries of `e2e/kubernetes`, which are in Go's build cache already.
//! The exception is `alerts`, which evaluates alerts with Prometheus' rule engine: it is a Go
//! module of its own (`e2e/helm/alerts`), because Prometheus needs newer libraries.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::Lab;
use crate::cache;
use crate::go::{GoProgram, go_build};
use crate::progress::Progress;
use crate::root;

/// Helm 3 and its Go package. Its program has the same name as Helm 4's, so `go build` cannot
/// write both into one folder.
const HELM_3: (&str, &str) = ("helm-3", "helm.sh/helm/v3/cmd/helm");

/// The program of the module `e2e/helm/alerts`.
const ALERTS: (&str, &str) = ("alerts", ".");

/// What determines the programs, apart from packages and flags.
const SOURCES: [&str; 5] = [
    "go.mod",
    "go.sum",
    "alerts/go.mod",
    "alerts/go.sum",
    "alerts/main.go",
];

/// Binary and Go package.
const PROGRAMS: [(&str, &str); 4] = [
    ("helm", "helm.sh/helm/v4/cmd/helm"),
    (
        "helm-unittest",
        "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
    ),
    ("helm-docs", "github.com/norwoodj/helm-docs/cmd/helm-docs"),
    (
        "controller-gen",
        "sigs.k8s.io/controller-tools/cmd/controller-gen",
    ),
];

/// The types of the Prometheus Operator, from which its CRDs are generated.
const MONITORING: &str =
    "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1";

/// Helm, ready to run.
#[derive(Debug, Clone)]
pub struct Helm {
    dir: PathBuf,
}

/// Objects that every namespace has.
pub const OF_EVERY_NAMESPACE: [&str; 2] = ["serviceaccount/default", "configmap/kube-root-ca.crt"];

/// The kinds for `kubectl get` that find everything that may be left of a release, including
/// [`OF_EVERY_NAMESPACE`].
pub fn leftovers(release: &str, namespace: &str) -> [Vec<String>; 4] {
    let label = format!("app.kubernetes.io/instance={release}");
    let namespaced = "deployments,daemonsets,jobs,pods,services,serviceaccounts,secrets,leases,configmaps,\
                      roles,rolebindings,poddisruptionbudgets,networkpolicies";
    let everywhere = "clusterroles,clusterrolebindings,loadbalancerclasses,addresspools,\
                      validatingadmissionpolicies,validatingadmissionpolicybindings";
    [
        vec![namespaced, "-n", namespace],
        vec![everywhere, "-l", &label],
        // Only one release of a cluster runs announcers.
        vec!["announcers"],
        vec!["roles,rolebindings", "-n", "kube-system", "-l", &label],
    ]
    .map(|words| words.into_iter().map(str::to_owned).collect())
}

// === impl Helm ===

impl Helm {
    /// Builds missing programs. Other processes that need them wait and then use them.
    pub fn ensure(progress: Progress) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("helm");
        let helm = Self {
            dir: cache::folder("helm", &key(&source)?, &["bin"])?,
        };
        let _lock = cache::lock(&helm.dir, "lock", "Helm", progress)?;
        helm.build(&source, progress)?;
        helm.monitoring(&source, progress)?;
        Ok(helm)
    }

    /// One of the programs: `helm`, `helm-3`, `helm-unittest`, `helm-docs`, `alerts`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// The chart of Ballast.
    pub fn chart() -> PathBuf {
        root().join("charts/ballast")
    }

    /// The CRDs of the Prometheus Operator whose objects the chart contains, as YAML.
    pub fn monitoring_crds(&self) -> Result<String> {
        let names = ["podmonitors", "servicemonitors", "prometheusrules"];
        let files = names.map(|name| {
            let file = self
                .crds()
                .join(format!("monitoring.coreos.com_{name}.yaml"));
            std::fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))
        });
        files.into_iter().collect()
    }

    /// A command without the machine's own Helm settings, plug-ins and caches.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.program(program));
        command
            .current_dir(root())
            .env_remove("KUBECONFIG")
            .env("HELM_CACHE_HOME", self.dir.join("home/cache"))
            .env("HELM_CONFIG_HOME", self.dir.join("home/config"))
            .env("HELM_DATA_HOME", self.dir.join("home/data"))
            .env("HELM_NO_PLUGINS", "1")
            .stdin(Stdio::null());
        command
    }

    /// Renders the chart without a cluster. `flags` are those of `helm template`.
    pub fn template(&self, release: &str, namespace: &str, flags: &[&str]) -> Result<String> {
        let mut command = self.command("helm");
        command.args(["template", release]).arg(Self::chart());
        command.args(["--namespace", namespace]).args(flags);
        said(command)
    }

    /// Runs helm as a lab's administrator and returns its output.
    pub async fn on(&self, lab: &Lab, arguments: &[&str]) -> Result<String> {
        let mut command = self.command("helm");
        command
            .arg("--kubeconfig")
            .arg(lab.kubeconfig())
            .args(arguments);
        tokio::task::spawn_blocking(move || said(command)).await?
    }

    fn build(&self, source: &Path, progress: Progress) -> Result<()> {
        let alerts = source.join("alerts");
        for (folder, programs) in [
            (source, &PROGRAMS[..]),
            (source, &[HELM_3]),
            (&alerts, &[ALERTS]),
        ] {
            let missing: Vec<GoProgram> = programs
                .iter()
                .map(|(name, package)| GoProgram::new(package, self.program(name)))
                .filter(|program| !program.is_built())
                .collect();
            go_build(folder, &missing, &["-ldflags", "-s -w"], progress)?;
        }
        Ok(())
    }

    fn monitoring(&self, source: &Path, progress: Progress) -> Result<()> {
        if self.crds().exists() {
            return Ok(());
        }
        let new = self.dir.join("monitoring.new");
        let mut make = Command::new(self.program("controller-gen"));
        make.arg("crd:crdVersions=v1")
            .arg(format!("paths={MONITORING}"))
            .arg(format!("output:crd:dir={}", new.display()))
            .current_dir(source);
        let doing = || "making the CRDs of the Prometheus Operator".to_owned();
        let written = progress.while_working(doing, || said(make));
        written.context("the CRDs of the Prometheus Operator cannot be made")?;
        std::fs::rename(new, self.crds())?;
        progress.say("made the CRDs of the Prometheus Operator");
        Ok(())
    }

    fn crds(&self) -> PathBuf {
        self.dir.join("monitoring")
    }
}

/// The output of a command; if it failed, an error with its standard error.
pub(crate) fn said(mut command: Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} does not start", program.display()))?;
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(|it| it.to_string_lossy()).collect();
        bail!(
            "{} {}: {}{}",
            program.display(),
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn key(source: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for file in SOURCES {
        let text = std::fs::read(source.join(file))
            .with_context(|| format!("cannot read e2e/helm/{file}"))?;
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.update(format!("{PROGRAMS:?} {HELM_3:?} {ALERTS:?}"));
    Ok(crate::image::hex(&hash.finalize())[..16].to_owned())
}
