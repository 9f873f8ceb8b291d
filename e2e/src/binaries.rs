//! The cluster's binaries, built from the Go module in `e2e/kubernetes` and stored in a cache
//! folder that is named after the hash of all sources. A file with its final name is complete
//! and never changes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::go::{GoProgram, go_build};
use crate::progress::Progress;
use crate::{cache, images};

/// Binary and Go package, in build order: the slowest to compile first.
const PROGRAMS: [(&str, &str); 10] = [
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    (
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("coredns", "./coredns"),
    ("pause", "./pause"),
    ("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
];

/// What determines the binaries, apart from the flags.
const SOURCES: [&str; 4] = ["go.mod", "go.sum", "coredns/main.go", "pause/main.go"];

/// Programs of the machine that a lab runs, and the Debian package of each.
const TOOLS: [(&str, &str); 10] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("arping", "arping"),
    ("ndisc6", "ndisc6"),
];

/// Where Debian installs the CNI plug-ins.
pub(crate) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// A complete cache folder.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// A folder that is known to be complete.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Its path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a binary.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// Builds missing programs. Other processes that need them wait and then use them.
    pub fn ensure(progress: Progress) -> Result<Self> {
        let source = source();
        let flags = flags(&source)?;
        let dir = cache::folder("kubernetes", &key(&source, &flags)?, &["bin"])?;
        let cache = Self { dir };
        if !cache.complete()? {
            let _lock = cache::lock(&cache.dir, "lock", "Kubernetes", progress)?;
            cache.build(&source, &flags, progress)?;
            images::ensure(&cache, progress)?;
        }
        Ok(cache)
    }

    /// A file gets its final name only after it is complete.
    fn complete(&self) -> Result<bool> {
        let images = images::archives(self)?;
        Ok(PROGRAMS.iter().all(|(name, _)| self.program(name).exists())
            && images.iter().all(|(_, path)| path.exists()))
    }

    fn build(&self, source: &Path, flags: &str, progress: Progress) -> Result<()> {
        let missing: Vec<GoProgram> = PROGRAMS
            .iter()
            .map(|(name, package)| GoProgram::new(package, self.program(name)))
            .filter(|program| !program.is_built())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        progress.say(format!(
            "building {} programs of Kubernetes (minutes if Go's own cache is cold)",
            missing.len()
        ));
        go_build(source, &missing, &["-ldflags", flags], progress)
    }

    /// The reference service controller of the benchmark. No lab needs it, so it is built only
    /// on request; its name contains the hash of its source.
    pub fn reference(&self, progress: Progress) -> Result<PathBuf> {
        let source = source();
        let text = std::fs::read(source.join("reference/main.go"))
            .context("cannot read e2e/kubernetes/reference/main.go")?;
        let hash = crate::image::hex(&Sha256::digest(text));
        let name = format!("service-controller-{}", &hash[..8]);
        if !self.program(&name).exists() {
            let _lock = cache::lock(&self.dir, "lock", "Kubernetes", progress)?;
            if !self.program(&name).exists() {
                let program = GoProgram::new("./reference", self.program(&name));
                go_build(
                    &source,
                    &[program],
                    &["-ldflags", &flags(&source)?],
                    progress,
                )?;
            }
        }
        Ok(self.program(&name))
    }
}

/// Names missing packages in one line, if any.
pub(crate) fn check_tools() -> Result<()> {
    let mut packages: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, _)| !on_path(tool))
        .map(|(_, package)| *package)
        .collect();
    if !Path::new(CNI_PLUGINS).join("ptp").exists() {
        packages.push("containernetworking-plugins");
    }
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    bail!(
        "the lab needs programs that are not installed: apt-get install {}",
        packages.join(" ")
    )
}

/// Whether a program of that name is in PATH or in the folders of system programs.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .any(|dir| dir.join(program).exists())
}

pub(crate) fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes")
}

/// Sets the version; without it nodes report v0.0.0.
pub(crate) fn flags(source: &Path) -> Result<String> {
    let module = std::fs::read_to_string(source.join("go.mod"))?;
    let version =
        version(&module).context("e2e/kubernetes/go.mod requires no k8s.io/kubernetes")?;
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    Ok(format!(
        "-s -w -X k8s.io/component-base/version.gitVersion={version} -X k8s.io/component-base/version.gitMajor={major} \
         -X k8s.io/component-base/version.gitMinor={minor} -X k8s.io/client-go/pkg/version.gitVersion={version}"
    ))
}

pub(crate) fn version(module: &str) -> Option<&str> {
    module
        .lines()
        .find_map(|line| {
            line.trim()
                .trim_start_matches("require ")
                .strip_prefix("k8s.io/kubernetes ")
        })?
        .split(' ')
        .next()
}

fn key(source: &Path, flags: &str) -> Result<String> {
    let mut hash = Sha256::new();
    for file in SOURCES {
        let text = std::fs::read(source.join(file))
            .with_context(|| format!("cannot read e2e/kubernetes/{file}"))?;
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.update(flags);
    hash.update(format!("{PROGRAMS:?}"));
    Ok(crate::image::hex(&hash.finalize())[..16].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_module() {
        assert_eq!(
            version("require (\n\tk8s.io/kubernetes v1.36.3\n)"),
            Some("v1.36.3")
        );
        assert_eq!(
            version("require k8s.io/kubernetes v1.40.0 // indirect"),
            Some("v1.40.0")
        );
        assert!(flags(&source()).unwrap().contains("gitVersion=v1."));
    }

    #[test]
    fn another_flag_is_another_folder() {
        let of = |flags| key(&source(), flags).unwrap();
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
    }
}
