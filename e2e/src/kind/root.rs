//! The file system of a kind node: Debian packages, kind's own base files, the programs, and
//! the configuration that connects them. It is created in a folder, and nothing runs from it
//! yet. Other images also use [`debian`].

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::programs::{Programs, kubernetes_version, source};
use crate::binaries::CNI_PLUGINS;
use crate::cache;
use crate::image::hex;
use crate::progress::Progress;

/// The Debian packages of kind's base image, without those that only storage tests use.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,bash,iproute2,iptables,nftables,conntrack,kmod,\
    procps,util-linux,ethtool,socat,mount,openssl,ca-certificates,jq,hostname,libseccomp2";

/// The CNI plug-ins in kindnet's configuration.
const PLUGINS: [&str; 4] = ["host-local", "loopback", "ptp", "portmap"];

/// Units that start at boot.
const UNITS: [&str; 3] = ["containerd", "kubelet", "undo-mount-hacks"];

/// Creates the node's file system in a folder.
pub(super) fn make(
    programs: &Programs,
    pause: &str,
    root: &Path,
    progress: Progress,
) -> Result<()> {
    debian(PACKAGES, root, progress)?;
    kinds_own_files(root)?;
    install_programs(programs, root)?;
    configure(programs, pause, root)?;
    boot_quickly(root)
}

/// Creates a file system from these packages (separated by commas) and their dependencies.
pub(super) fn debian(packages: &str, root: &Path, progress: Progress) -> Result<()> {
    let archive = archive(packages, progress)?;
    std::fs::create_dir_all(root)?;
    run(Command::new("tar")
        .arg("-xf")
        .arg(&archive)
        .arg("-C")
        .arg(root))
}

/// Fetches the packages of a node into the cache.
pub(super) fn fetch(progress: Progress) -> Result<()> {
    archive(PACKAGES, progress).map(drop)
}

/// An archive of Debian packages, created with the machine's own apt sources and options.
fn archive(packages: &str, progress: Progress) -> Result<PathBuf> {
    let suite = suite()?;
    let name = &hex(&Sha256::digest(format!("{suite} {packages}")))[..16];
    let folder = cache::root().join("kind");
    let path = folder.join(format!("debian-{name}.tar"));
    if path.exists() {
        return Ok(path);
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let _lock = cache::lock(&folder, "debian.lock", "Debian packages", progress)?;
    if path.exists() {
        return Ok(path);
    }
    progress.say("fetching Debian packages");
    let options = folder.join("apt.conf");
    std::fs::write(&options, apt_options()?)?;
    let new = folder.join(format!("debian-{name}.new.tar"));
    let mut fetch = Command::new("mmdebstrap");
    fetch
        .args(["--quiet", "--mode=root", "--variant=minbase"])
        .arg(format!("--aptopt={}", options.display()))
        .arg(format!("--include={packages}"))
        // The image does not reveal where its packages came from.
        .arg("--customize-hook=rm -f \"$1/etc/apt/apt.conf.d/99mmdebstrap\"")
        .arg(suite)
        .arg(&new)
        .args(apt_sources());
    let doing = || "fetching Debian packages with mmdebstrap".to_owned();
    progress.while_working(doing, || run(&mut fetch))?;
    std::fs::rename(&new, &path)?;
    Ok(path)
}

fn suite() -> Result<String> {
    let release = std::fs::read_to_string("/etc/os-release")?;
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned())
        .context("images are made of Debian packages, and this machine is no Debian")
}

/// The machine's apt settings for downloads: proxies, certificates, settings of mirrors.
fn apt_options() -> Result<String> {
    let dump = Command::new("apt-config").arg("dump").output()?;
    let text = String::from_utf8_lossy(&dump.stdout).into_owned();
    let wanted = text.lines().filter(|line| line.starts_with("Acquire::"));
    Ok(wanted.fold(String::new(), |all, line| all + line + "\n"))
}

fn apt_sources() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|kind| kind == "sources" || kind == "list")
        })
        .filter(|path| {
            // Third-party repositories have no systemd.
            std::fs::read_to_string(path).is_ok_and(|text| {
                text.contains("debian-archive-keyring") || text.contains("/debian")
            })
        })
        .collect();
    let list = PathBuf::from("/etc/apt/sources.list");
    if list.exists() {
        found.push(list);
    }
    found.sort();
    found
}

fn kinds_own_files(root: &Path) -> Result<()> {
    let output = Command::new("go")
        .args(["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kind"])
        .current_dir(source().join("kind"))
        .output()
        .context("go does not start")?;
    let module = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || module.is_empty() {
        bail!(
            "go list sigs.k8s.io/kind: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let files = Path::new(&module).join("images/base/files");
    let how = ["-r", "--no-preserve=mode,ownership", "--remove-destination"];
    cp(&how, &files.join("."), root)?;
    for program in ["usr/local/bin", "kind/bin"] {
        for entry in std::fs::read_dir(root.join(program))?.flatten() {
            executable(&entry.path())?;
        }
    }
    Ok(())
}

fn install_programs(programs: &Programs, root: &Path) -> Result<()> {
    let own = |name: &str, folder: &str| (programs.program(name), format!("{folder}/{name}"));
    let kubernetes = |name: &str| {
        (
            programs.kubernetes().program(name),
            format!("usr/bin/{name}"),
        )
    };
    let mut files = vec![
        own("containerd", "usr/local/bin"),
        own("ctr", "usr/local/bin"),
        own("containerd-shim-runc-v2", "usr/local/bin"),
        own("runc", "usr/local/sbin"),
        own("runc.real", "usr/local/sbin"),
        own("kubeadm", "usr/bin"),
        kubernetes("kubelet"),
        kubernetes("kubectl"),
    ];
    files.extend(PLUGINS.map(|name| {
        (
            Path::new(CNI_PLUGINS).join(name),
            format!("opt/cni/bin/{name}"),
        )
    }));
    for (from, to) in files {
        let to = root.join(to);
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        executable(&to)?;
    }
    Ok(())
}

fn configure(programs: &Programs, pause: &str, root: &Path) -> Result<()> {
    edit(&root.join("etc/containerd/config.toml"), |text| {
        text.replace(
            // Not every node may lower its own OOM score.
            "restrict_oom_score_adj = false",
            "restrict_oom_score_adj = true",
        )
        .replace("registry.k8s.io/pause:3.10\"", &format!("{pause}\""))
    })?;
    edit(&root.join("etc/default/kubelet"), |text| {
        format!("{} --fail-cgroupv1=false\n", text.trim_end())
    })?;
    std::fs::write(
        root.join("etc/containerd/cri-base.json"),
        container_template(programs)?,
    )?;
    std::fs::write(root.join("kind/version"), kubernetes_version()?)?;
    std::fs::create_dir_all(root.join("kind/manifests"))?;
    std::fs::copy(
        source().join("node/default-cni.yaml"),
        root.join("kind/manifests/default-cni.yaml"),
    )?;
    std::fs::create_dir_all(root.join("etc/kubernetes/manifests"))?;
    Ok(())
}

/// The runtime specification of containers, as in kind's base image: containerd's default, a
/// hook, and no resource limits.
fn container_template(programs: &Programs) -> Result<String> {
    let output = Command::new(programs.program("ctr"))
        .args(["oci", "spec"])
        .output()?;
    let mut spec: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("ctr oci spec gave no JSON")?;
    spec["hooks"] = serde_json::json!({
        "createContainer": [{"path": "/kind/bin/mount-product-files.sh"}]
    });
    if let Some(process) = spec["process"].as_object_mut() {
        process.remove("rlimits");
    }
    Ok(serde_json::to_string(&spec)?)
}

/// Enables only the units that a node needs, not those that Debian's packages enable.
fn boot_quickly(root: &Path) -> Result<()> {
    let systemd = root.join("etc/systemd/system");
    let wants = systemd.join("multi-user.target.wants");
    let lib = root.join("lib/systemd/system");
    for folder in [
        &wants,
        &lib.join("multi-user.target.wants"),
        &lib.join("local-fs.target.wants"),
    ] {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
    }
    std::fs::create_dir_all(&wants)?;
    for unit in UNITS {
        let unit = format!("{unit}.service");
        symlink(format!("/etc/systemd/system/{unit}"), wants.join(unit))?;
    }
    // These units change things that the whole machine's kernel shares.
    for unit in ["systemd-binfmt.service", "systemd-tmpfiles-setup.service"] {
        let link = systemd.join(unit);
        if link.symlink_metadata().is_err() {
            symlink("/dev/null", link)?;
        }
    }
    edit(&root.join("etc/systemd/journald.conf"), |text| {
        text + "ReadKMsg=no\n"
    })
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) -> Result<()> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let changed = change(text);
    std::fs::write(path, changed)?;
    Ok(())
}

fn executable(path: &Path) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Copies files and folders with `cp` and these flags, because it handles links, owners and
/// sparse files.
pub(super) fn cp(how: &[&str], from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(how).arg(from).arg(to))
        .with_context(|| format!("cannot copy {}", from.display()))
}

/// Runs a command of the machine; if it fails, the error has its standard error.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} does not start", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}",
            command.get_program().display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
