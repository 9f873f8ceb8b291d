//! The programs of a kind node and of its Docker host, built from the Go modules in `e2e/kind`
//! and stored in a cache folder that is named after the hash of all sources. Kubernetes' own
//! programs are the lab's ([`Binaries`]), so both run the same ones.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::binaries::{self, Binaries};
use crate::cache;
use crate::go::{GoProgram, go_build};
use crate::helm::Helm;
use crate::image::hex;
use crate::progress::Progress;

/// A program to build.
#[derive(Debug)]
struct Program {
    name: &'static str,
    /// Its folder in `e2e/kind`: a separate Go module, so that versions do not mix.
    module: &'static str,
    package: &'static str,
    tags: &'static str,
}

const fn program(
    name: &'static str,
    module: &'static str,
    package: &'static str,
    tags: &'static str,
) -> Program {
    Program {
        name,
        module,
        package,
        tags,
    }
}

/// Snapshotters that nodes do not use.
const NO_SNAPSHOTTERS: &str = "no_btrfs,no_zfs,no_devmapper";

const PROGRAMS: [Program; 9] = [
    program("kind", "kind", ".", ""),
    program("kubeadm", "kubernetes", "k8s.io/kubernetes/cmd/kubeadm", ""),
    program("coredns", "kubernetes", "./coredns", ""),
    program("kindnet", "kubernetes", "./kindnet", ""),
    program(
        "containerd",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd",
        NO_SNAPSHOTTERS,
    ),
    program(
        "ctr",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/ctr",
        NO_SNAPSHOTTERS,
    ),
    program(
        "containerd-shim-runc-v2",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        NO_SNAPSHOTTERS,
    ),
    program("runc", "runc", "./bounded", ""),
    program(
        "runc.real",
        "runc",
        "github.com/opencontainers/runc",
        "seccomp",
    ),
];

/// The program that users need to create clusters; the others are parts of nodes.
const KIND: &str = "kind";

/// A complete folder of programs.
#[derive(Debug, Clone)]
pub struct Programs {
    dir: PathBuf,
    kubernetes: Binaries,
}

impl Programs {
    /// Builds missing programs. Other processes that need them wait and then use them.
    pub fn ensure(progress: Progress) -> Result<Self> {
        Self::with(Binaries::ensure(progress)?, PROGRAMS.iter(), progress)
    }

    /// Of kind's programs only kind itself, for a machine that pulls the node image from a
    /// registry.
    pub(super) fn kind_alone(progress: Progress) -> Result<Self> {
        let kind = PROGRAMS.iter().filter(|program| program.name == KIND);
        Self::with(Binaries::ensure(progress)?, kind, progress)
    }

    fn with(
        kubernetes: Binaries,
        wanted: impl Iterator<Item = &'static Program>,
        progress: Progress,
    ) -> Result<Self> {
        let source = source();
        let flags = binaries::flags(&binaries::source())?;
        let key = key(&source, &flags, &kubernetes)?;
        let dir = cache::folder("kind", &key, &["bin", "node"])?;
        let own = Self { dir, kubernetes };
        let missing: Vec<_> = wanted
            .filter(|program| !own.program(program.name).exists())
            .collect();
        let links = [
            ("kubectl", own.kubernetes.program("kubectl")),
            ("helm", Helm::ensure(progress)?.program("helm")),
        ];
        if missing.is_empty()
            && links
                .iter()
                .all(|(name, program)| own.is_link(name, program))
        {
            return Ok(own);
        }
        let _lock = cache::lock(&own.dir, "programs.lock", "kind", progress)?;
        own.build(&source, &flags, &missing, progress)?;
        for (name, program) in &links {
            own.link(name, program)?;
        }
        Ok(own)
    }

    /// The archive of an image that every node has, for nodes that come without it.
    pub(super) fn agnhost(&self) -> Result<PathBuf> {
        let archives = crate::images::archives(&self.kubernetes)?;
        let mut found = archives
            .into_iter()
            .filter(|(name, _)| *name == crate::AGNHOST);
        let (_, path) = found
            .next()
            .with_context(|| format!("no archive of {}", crate::AGNHOST))?;
        Ok(path)
    }

    fn is_link(&self, name: &str, program: &Path) -> bool {
        std::fs::read_link(self.bin().join(name)).is_ok_and(|to| to == program)
    }

    /// Adds a program from another folder to the folder with kind.
    fn link(&self, name: &str, program: &Path) -> Result<()> {
        if self.is_link(name, program) {
            return Ok(());
        }
        // A program in use stays until its replacement takes its place.
        let new = self.bin().join(format!("{name}.new"));
        let _ = std::fs::remove_file(&new);
        std::os::unix::fs::symlink(program, &new)?;
        std::fs::rename(new, self.bin().join(name))?;
        Ok(())
    }

    /// Programs of one module with the same tags are built in one run of Go.
    fn build(
        &self,
        source: &Path,
        flags: &str,
        missing: &[&Program],
        progress: Progress,
    ) -> Result<()> {
        let alike = |one: &&Program, other: &&Program| {
            (one.module, one.tags, self.folder(one.name))
                == (other.module, other.tags, self.folder(other.name))
        };
        for programs in missing.chunk_by(alike) {
            let Some(first) = programs.first() else {
                continue;
            };
            let mut arguments = vec!["-ldflags", flags];
            if !first.tags.is_empty() {
                arguments.extend(["-tags", first.tags]);
            }
            let wanted: Vec<GoProgram> = programs
                .iter()
                .map(|program| GoProgram::new(program.package, self.program(program.name)))
                .filter(|program| !program.is_built())
                .collect();
            go_build(&source.join(first.module), &wanted, &arguments, progress)?;
        }
        Ok(())
    }

    /// The path of a program built here.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder(name).join(name)
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.join(if name == KIND { "bin" } else { "node" })
    }

    /// The folder of the programs that users call by name.
    pub(super) fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// The folder of this version.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Kubernetes' own programs.
    pub(super) fn kubernetes(&self) -> &Binaries {
        &self.kubernetes
    }
}

/// The folder of the Go modules.
pub(super) fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kind")
}

/// `v1.36.3`.
pub(super) fn kubernetes_version() -> Result<String> {
    let module = std::fs::read_to_string(binaries::source().join("go.mod"))?;
    let version = binaries::version(&module)
        .context("e2e/kubernetes/go.mod requires no k8s.io/kubernetes")?;
    Ok(version.to_owned())
}

fn key(source: &Path, flags: &str, kubernetes: &Binaries) -> Result<String> {
    let mut hash = Sha256::new();
    let mut files = vec![];
    collect(source, &mut files)?;
    files.sort();
    for file in files {
        let text = std::fs::read(&file)?;
        hash.update(format!(
            "{} {}\n",
            file.strip_prefix(source)?.display(),
            text.len()
        ));
        hash.update(text);
    }
    hash.update(flags);
    hash.update(format!("{PROGRAMS:?}"));
    hash.update(
        kubernetes
            .dir()
            .file_name()
            .unwrap_or_default()
            .as_encoded_bytes(),
    );
    Ok(hex(&hash.finalize())[..16].to_owned())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
    {
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_kind_and_of_the_lab_run_one_kubernetes() {
        let module = std::fs::read_to_string(source().join("kubernetes/go.mod")).unwrap();
        assert_eq!(
            binaries::version(&module),
            Some(kubernetes_version().unwrap().as_str())
        );
    }

    #[test]
    fn every_module_is_pinned_with_sums() {
        for program in &PROGRAMS {
            let module = source().join(program.module);
            assert!(module.join("go.mod").exists(), "{}", program.name);
            assert!(module.join("go.sum").exists(), "{}", program.name);
        }
    }

    #[test]
    fn other_programs_of_kubernetes_are_another_folder() {
        let of = |dir: &str| key(&source(), "", &Binaries::at(dir.into())).unwrap();
        assert_eq!(of("/one/a"), of("/two/a"));
        assert_ne!(of("/one/a"), of("/one/b"));
    }
}
