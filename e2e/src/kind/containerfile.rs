//! Builds the `Containerfile` with a real container engine and compares the result with the
//! image that is built without one: from one commit and the same compilers, both have the same
//! files, byte by byte, and the same metadata.
//!
//! The engine is that of a [`KindHost`]. An engine that was built here cannot pull the base
//! image. Its substitute has the same name, Debian packages, and this machine's Rust with the
//! crates that it has fetched. With a machine's own Docker, the results differ unless the
//! machine has the base image's C compiler and library.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::host::{KindHost, text};
use super::root::{cp, debian};
use crate::image::Image;
use crate::progress::Progress;
use crate::release::cargo_home;

/// What a build of Ballast needs from the base image, apart from Rust.
const PACKAGES: &str = "gcc,libc6-dev,git,ca-certificates";
/// Packages whose versions affect the binary: some crates contain C, and the library is linked
/// in.
const COMPILERS: [&str; 2] = ["gcc", "libc6-dev"];
/// Everything is compiled in release mode, possibly on a busy machine.
const BUILD_TIME: Duration = Duration::from_mins(45);
/// Hundreds of megabytes go through a pipe.
const COPY_TIME: Duration = Duration::from_mins(5);
/// Paths that an engine creates in every container, with their content.
const OF_THE_ENGINE: [&str; 8] = [
    ".dockerenv",
    "dev",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
    "proc",
    "sys",
];
/// The commit, which a Containerfile cannot know.
const REVISION: &str = "org.opencontainers.image.revision";

/// A file, a folder or a link: its mode, and its content or target.
type Found = (u32, Option<Vec<u8>>);

/// Builds the Containerfile of a clone, and fails if the result differs from `own`.
pub async fn check(clone: &Path, own: &Image) -> Result<()> {
    let host = KindHost::start("containerfile").await?;
    // It is removed with the host's folder, also after a crash.
    let work = host.dir().join("work");
    let result = build_and_compare(&host, clone, own, &work).await;
    let stopped = host.stop().await;
    result.and(stopped)
}

async fn build_and_compare(host: &KindHost, clone: &Path, own: &Image, work: &Path) -> Result<()> {
    let progress = host.progress();
    let tag = format!("ballast-containerfile:{}", std::process::id());
    let mut build = vec!["docker", "build", "-t", &tag];
    if host.is_built() {
        let base = work.join("base");
        let doing = || "making what stands in for the base image".to_owned();
        let make = make_base(host, clone, &base);
        progress.while_waiting(doing, make).await?;
        progress.say("made what stands in for the base image");
        // The builder that every Docker has; nothing is pulled.
        build.splice(0..0, ["env", "DOCKER_BUILDKIT=0"]);
        build.extend(["--network", "none"]);
    }
    let (file, folder) = (text(&clone.join("Containerfile")), text(clone));
    build.extend(["-f", &file, &folder]);
    let doing = || "docker build (everything is compiled in release mode)".to_owned();
    let build = host.exec_for(build, "", BUILD_TIME);
    progress.while_waiting(doing, build).await?.ok()?;
    progress.say("built the Containerfile");
    let doing = || "comparing the two images".to_owned();
    let compared = compare(host, own, &tag, work);
    let compared = progress.while_waiting(doing, compared).await;
    let removed = host.docker(&["rmi", &tag]).await;
    compared.and(removed.map(drop))
}

/// The base image of the first stage.
fn base_name(clone: &Path) -> Result<String> {
    let text = std::fs::read_to_string(clone.join("Containerfile"))?;
    let mut words = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    words
        .find_map(|words| match words[..] {
            ["FROM", name, "AS", "build"] => Some(name.to_owned()),
            _ => None,
        })
        .context("the Containerfile has no stage `build`")
}

async fn make_base(host: &KindHost, clone: &Path, root: &Path) -> Result<()> {
    let name = base_name(clone)?;
    let (source, folder, progress) = (clone.to_owned(), root.to_owned(), host.progress());
    tokio::task::spawn_blocking(move || fill(&source, &folder, progress)).await??;
    let script = "tar --numeric-owner -C \"$0\" -c . | docker import \
        -c 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        -c 'ENV CARGO_HOME=/usr/local/cargo' -c 'ENV CARGO_NET_OFFLINE=true' - \"$1\"";
    let argv = ["bash", "-euo", "pipefail", "-c", script, &text(root), &name];
    host.exec_for(argv, "", COPY_TIME).await?.ok()?;
    Ok(std::fs::remove_dir_all(root)?)
}

/// The toolchain itself, without rustup: it is the one that the source requires.
fn fill(source: &Path, root: &Path, progress: Progress) -> Result<()> {
    debian(PACKAGES, root, progress)?;
    let (here, there) = (compilers(Path::new("/"))?, compilers(root)?);
    ensure!(
        here == there,
        "this machine has {here:?} and the stand-in {there:?}: what they make differs. Upgrade the \
         machine's packages, or remove debian-*.tar from the cache's folder `kind`"
    );
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(source)
        .output()
        .context("rustc does not start")?;
    ensure!(output.status.success(), "rustc --print sysroot fails");
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let (rust, cargo) = (root.join("usr/local/rust"), root.join("usr/local/cargo"));
    copy(&sysroot, &rust, &["bin", "lib"])?;
    if cargo_home().join("config.toml").exists() {
        copy(&cargo_home(), &cargo, &["config.toml"])?;
    }
    copy(
        &cargo_home().join("registry"),
        &cargo.join("registry"),
        &["index", "cache"],
    )
}

/// Packages and versions from a file system's dpkg.
fn compilers(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("dpkg-query")
        .arg(format!(
            "--admindir={}",
            root.join("var/lib/dpkg").display()
        ))
        .args(["--show", "--showformat=${Package} ${Version}\n"])
        .args(COMPILERS)
        .output()
        .context("dpkg-query does not start")?;
    ensure!(
        output.status.success(),
        "dpkg-query: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().map(str::to_owned).collect())
}

/// Copies some entries of a folder.
fn copy(from: &Path, to: &Path, names: &[&str]) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for name in names {
        cp(&["-aL"], &from.join(name), to)?;
    }
    Ok(())
}

async fn compare(host: &KindHost, own: &Image, tag: &str, work: &Path) -> Result<()> {
    let (ours, theirs) = (work.join("own"), work.join("engine"));
    own.unpack(&ours)?;
    std::fs::create_dir_all(&theirs)?;
    let script = "id=$(docker create \"$1\"); trap 'docker rm \"$id\"' EXIT; docker export \"$id\" | tar -C \"$0\" -xp";
    let argv = [
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script,
        &text(&theirs),
        tag,
    ];
    host.exec_for(argv, "", COPY_TIME).await?.ok()?;
    same_files(&files(&ours)?, &files(&theirs)?)?;
    let inspect = ["inspect", "--format", "{{json .Config}}", tag];
    let config: Value = serde_json::from_str(&host.docker(&inspect).await?)?;
    same_config(own, &config)?;
    let version = host.docker(&["run", "--rm", tag, "--version"]).await?;
    ensure!(version.contains(crate::release::version()), "{version}");
    Ok(())
}

/// Everything below a folder, by its relative path.
fn files(folder: &Path) -> Result<BTreeMap<String, Found>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next)? {
            let path = entry?.path();
            let data = path.symlink_metadata()?;
            let inside = if data.is_dir() {
                open.push(path.clone());
                None
            } else if data.is_symlink() {
                Some(text(&path.read_link()?).into_bytes())
            } else {
                Some(std::fs::read(&path)?)
            };
            let name = text(path.strip_prefix(folder)?);
            found.insert(name, (data.permissions().mode(), inside));
        }
    }
    Ok(found)
}

fn same_files(own: &BTreeMap<String, Found>, engine: &BTreeMap<String, Found>) -> Result<()> {
    ensure!(!own.is_empty(), "the image holds no files");
    let of_engine = |name: &str| {
        let mut parts = Path::new(name).ancestors().map(text);
        parts.any(|part| OF_THE_ENGINE.contains(&part.as_str()))
    };
    let names = own.keys().chain(engine.keys());
    let names = names.filter(|name| !of_engine(name));
    let differ: BTreeSet<&String> = names
        .filter(|&name| own.get(name) != engine.get(name))
        .collect();
    ensure!(
        differ.is_empty(),
        "the Containerfile's image differs from `make image`'s in {differ:?}"
    );
    Ok(())
}

/// The command and user of its containers, and the image's metadata.
fn same_config(own: &Image, config: &Value) -> Result<()> {
    let mut labels = own.labels.clone();
    labels.remove(REVISION);
    let labels = serde_json::to_value(labels)?;
    ensure!(config["Labels"] == labels, "{config}, not {labels}");
    ensure!(config["User"] == own.user, "{config}");
    ensure!(
        config["Entrypoint"] == serde_json::json!(own.entrypoint),
        "{config}"
    );
    for none in ["Cmd", "Volumes", "ExposedPorts"] {
        ensure!(config[none].is_null(), "{none}: {config}");
    }
    let env: Vec<&str> = config["Env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    ensure!(
        own.env.iter().all(|one| env.contains(&one.as_str())),
        "{config}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_what_the_containerfile_names() {
        let name = base_name(&crate::root()).unwrap();
        let (_, version) = name.split_once("/rust:").unwrap();
        let toolchain = crate::root().join("rust-toolchain.toml");
        let toolchain = std::fs::read_to_string(toolchain).unwrap();
        let version = version.split('-').next().unwrap();
        let channel = format!("channel = \"{version}");
        assert!(toolchain.contains(&channel), "{name}: {toolchain}");
    }

    #[test]
    fn whatever_is_another_way_is_a_difference() {
        let file = |text: &str| (0o100_644, Some(text.into()));
        let folder = |mode| (0o40_000_u32 | mode, None);
        let own = BTreeMap::from([
            ("ballast".to_owned(), file("1")),
            ("tmp".to_owned(), folder(0o1777)),
        ]);
        let mut engine = own.clone();
        engine.insert("etc/hosts".to_owned(), file(""));
        engine.insert("dev/pts".to_owned(), folder(0o755));
        same_files(&own, &engine).unwrap();
        for (name, found) in [
            ("ballast", Some(file("2"))),
            ("ballast", None),
            ("tmp", Some(folder(0o777))),
            ("more", Some(folder(0o755))),
        ] {
            let mut engine = engine.clone();
            engine.remove(name);
            engine.extend(found.map(|found| (name.to_owned(), found)));
            let error = same_files(&own, &engine).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
