//! The node image, built if it cannot be pulled: a root file system whose containerd has the
//! images of a control plane, imported into a dockerd, whose data folder is then cached. A
//! Docker host starts on a copy of it, so the second start takes seconds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::docker_host::DockerHost;
use super::host::text;
use super::programs::{Programs, kubernetes_version};
use super::root;
use crate::binaries::CNI_PLUGINS;
use crate::cache;
use crate::eventually::eventually;
use crate::image::{Entry, Image, hex};
use crate::images::short;
use crate::progress::Progress;

/// Increase it when the image changes for a reason other than its sources.
const RECIPE: u32 = 3;

const KINDNET: &str = "docker.io/kindest/kindnetd:built";

/// Programs that kube-proxy and kindnet call, in the node's file system.
const NETWORK_PROGRAMS: [&str; 4] = [
    "/usr/sbin/xtables-nft-multi",
    "/usr/sbin/xtables-legacy-multi",
    "/usr/sbin/nft",
    "/usr/sbin/conntrack",
];

/// One program with many names.
const IPTABLES: [&str; 6] = [
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
];

const IMPORT_TIME: Duration = Duration::from_mins(3);

/// The name of the built image.
pub(super) fn reference() -> Result<String> {
    Ok(format!("kindest/node:{}", kubernetes_version()?))
}

/// The data folder of a dockerd with the image; builds it if it is missing.
pub(super) async fn ensure(programs: &Programs, progress: Progress) -> Result<PathBuf> {
    let done = programs.dir().join(format!("docker-{}", key(programs)?));
    if done.exists() {
        return Ok(done);
    }
    let dir = programs.dir().to_owned();
    let waiting = move || cache::lock(&dir, "node.lock", "the node image", progress);
    let lock = tokio::task::spawn_blocking(waiting).await??;
    if !done.exists() {
        let work = programs.dir().join("node.work");
        remove(&work)?;
        build(programs, &work, &done, progress).await?;
        remove(&work)?;
        progress.say(format!("built the image {}", reference()?));
    }
    drop(lock);
    Ok(done)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}

fn key(programs: &Programs) -> Result<String> {
    let dockerd = Command::new("dockerd").arg("--version").output();
    let mut hash = Sha256::new();
    hash.update(format!("{RECIPE} {}", programs.agnhost()?.display()));
    hash.update(dockerd.map(|output| output.stdout).unwrap_or_default());
    for plugin in ["ptp", "host-local"] {
        let path = Path::new(CNI_PLUGINS).join(plugin);
        let file = std::fs::metadata(&path).with_context(|| {
            format!(
                "there is no {}: apt-get install containernetworking-plugins",
                path.display()
            )
        })?;
        hash.update(file.len().to_le_bytes());
    }
    Ok(hex(&hash.finalize())[..16].to_owned())
}

async fn build(programs: &Programs, work: &Path, done: &Path, progress: Progress) -> Result<()> {
    let (root, images) = (work.join("root"), work.join("images"));
    let (own, wanted) = (programs.clone(), control_plane_images(programs)?);
    let paths = (root.clone(), images.clone());
    let files = tokio::task::spawn_blocking(move || -> Result<_> {
        let (root, images) = paths;
        let pause = wanted.iter().find(|name| short(name) == "pause");
        let pause = pause.context("kubeadm names no image pause")?;
        root::make(&own, pause, &root, progress)?;
        progress.say("made the node's file system");
        write_images(&own, &wanted, &root, &images)
    });
    let step = |number, what| format!("building the node image, step {number} of 3: {what}");
    let doing = || {
        step(
            1,
            "the node's file system and the images of the control plane",
        )
    };
    let archives = progress.while_waiting(doing, files).await??;
    progress.say("wrote the images of the control plane");
    let builder = DockerHost::start("node-image", programs, None).await?;
    let made = async {
        let import = import_images(&builder, programs, &root, &archives);
        let doing = || step(2, "importing the images of the control plane");
        progress.while_waiting(doing, import).await?;
        progress.say("imported them");
        let last = async {
            import_root(&builder, &root).await?;
            builder.stop_docker().await
        };
        let doing = || step(3, "importing the node's file system");
        progress.while_waiting(doing, last).await?;
        keep(&builder.data(), work, done)
    }
    .await;
    builder.stop().await?;
    made
}

/// The image names that kubeadm uses.
fn control_plane_images(programs: &Programs) -> Result<Vec<String>> {
    let version = kubernetes_version()?;
    let output = Command::new(programs.program("kubeadm"))
        .args(["config", "images", "list", "--kubernetes-version", &version])
        .output()?;
    if !output.status.success() {
        bail!(
            "kubeadm config images list: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().map(str::to_owned).collect())
}

/// Writes an archive per image. agnhost's archive exists already, and comes first.
fn write_images(
    programs: &Programs,
    wanted: &[String],
    root: &Path,
    into: &Path,
) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(into)?;
    let mut archives = vec![programs.agnhost()?];
    for reference in wanted.iter().map(String::as_str).chain([KINDNET]) {
        let path = into.join(format!("{}.tar", short(reference)));
        image(programs, reference, root)?.write(&path)?;
        archives.push(path);
    }
    Ok(archives)
}

fn image(programs: &Programs, reference: &str, root: &Path) -> Result<Image> {
    let name = short(reference);
    let program = match name {
        "kindnetd" => programs.program("kindnet"),
        "coredns" => programs.program("coredns"),
        _ => programs.kubernetes().program(name),
    };
    let mut entries = vec![
        Entry::Folder("etc", 0o755),
        Entry::Folder("tmp", 0o1777),
        Entry::Folder("usr", 0o755),
        Entry::Folder("var", 0o755),
        Entry::Text("etc/nsswitch.conf", "hosts: files dns\n".to_owned()),
    ];
    // kubeadm's manifests name the program: `coredns` and `pause` by the image's entrypoint,
    // kube-proxy by this path, the others by name.
    let place = match name {
        "coredns" | "pause" => name.to_owned(),
        "kube-proxy" => format!("usr/local/bin/{name}"),
        _ => format!("usr/bin/{name}"),
    };
    if matches!(name, "kube-proxy" | "kindnetd") {
        entries.extend(network_programs(root)?);
    }
    entries.push(Entry::Program(place.clone(), program));
    Ok(Image {
        reference: reference.to_owned(),
        entrypoint: vec![format!("/{place}")],
        user: if name == "pause" {
            "65535:65535".to_owned()
        } else {
            String::new()
        },
        entries,
        ..Image::default()
    })
}

/// Programs of the node's file system with all libraries that they load.
fn network_programs(root: &Path) -> Result<Vec<Entry>> {
    let mut files: BTreeSet<String> = NETWORK_PROGRAMS.map(str::to_owned).into();
    // Libraries that iptables loads by name.
    for folder in std::fs::read_dir(root.join("usr/lib"))?.flatten() {
        let modules = folder.path().join("xtables");
        for module in std::fs::read_dir(modules).into_iter().flatten().flatten() {
            files.insert(format!("/{}", text(module.path().strip_prefix(root)?)));
        }
    }
    let output = Command::new("chroot")
        .arg(root)
        .arg("ldd")
        .args(&files)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // A line that ends in a colon names the program of the following libraries.
    let library = |line: &str| {
        line.split_ascii_whitespace()
            .find(|word| word.starts_with('/') && !word.ends_with(':'))
            .map(str::to_owned)
    };
    files.extend(said.lines().filter_map(library));
    let mut entries: Vec<Entry> = files
        .iter()
        .map(|path| path.trim_start_matches('/'))
        .map(|path| Entry::Program(path.to_owned(), root.join(path)))
        .collect();
    entries.extend(
        IPTABLES
            .map(|name| Entry::Link(format!("usr/sbin/{name}"), "xtables-nft-multi".to_owned())),
    );
    Ok(entries)
}

/// Imports the archives into the node's file system, with a containerd that handles only
/// images.
async fn import_images(
    builder: &DockerHost,
    programs: &Programs,
    root: &Path,
    archives: &[PathBuf],
) -> Result<()> {
    let config = format!(
        "version = 3\nroot = \"{}\"\nstate = \"/run/import\"\n\
         disabled_plugins = [\"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \"io.containerd.grpc.v1.cri\", \"io.containerd.nri.v1.nri\"]\n\
         [grpc]\naddress = \"/run/import.sock\"\n",
        root.join("var/lib/containerd").display()
    );
    let file = builder.dir().join("import.toml");
    std::fs::write(&file, config)?;
    let containerd = text(&programs.program("containerd"));
    builder
        .spawn("containerd", &[&containerd, "--config", &text(&file)])
        .await?;
    let ctr = text(&programs.program("ctr"));
    let ctr = [
        ctr.as_str(),
        "--address",
        "/run/import.sock",
        "--namespace",
        "k8s.io",
    ];
    eventually(Duration::from_secs(20), || async {
        let argv = [&ctr[..], &["version"]].concat();
        builder.exec(&argv, "", IMPORT_TIME).await?.ok().map(drop)
    })
    .await
    .context("containerd does not start to import images")?;
    for archive in archives {
        let archive = text(archive);
        let import = [
            "images",
            "import",
            "--all-platforms",
            "--no-unpack",
            &archive,
        ];
        let argv = [&ctr[..], &import].concat();
        builder.exec(&argv, "", IMPORT_TIME).await?.ok()?;
    }
    builder.stop_process("containerd").await
}

async fn import_root(builder: &DockerHost, root: &Path) -> Result<()> {
    // `import` cannot set systemd's stop signal, so a build follows it.
    let script = "tar --numeric-owner -C \"$0\" -c . | docker import \
        -c 'ENTRYPOINT [\"/usr/local/bin/entrypoint\",\"/sbin/init\"]' -c 'ENV container=docker' - ballast/node-root \
        && printf 'FROM ballast/node-root\\nSTOPSIGNAL SIGRTMIN+3\\n' | DOCKER_BUILDKIT=0 docker build -t \"$1\" -";
    let argv = [
        "bash",
        "-o",
        "pipefail",
        "-c",
        script,
        &text(root),
        &reference()?,
    ];
    builder.exec(&argv, "", IMPORT_TIME).await?.ok().map(drop)
}

/// Keeps only the images of a dockerd's data folder.
fn keep(data: &Path, work: &Path, done: &Path) -> Result<()> {
    let new = work.join("docker");
    std::fs::create_dir_all(&new)?;
    for part in ["image", "overlay2"] {
        let (from, to) = (data.join(part), new.join(part));
        if std::fs::rename(&from, &to).is_err() {
            root::cp(&["-a"], &from, &to)?;
        }
    }
    std::fs::rename(&new, done)?;
    Ok(())
}
