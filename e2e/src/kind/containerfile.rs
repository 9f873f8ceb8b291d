//! The `Containerfile`, built by a real container engine and held against the image that needs
//! none: of one commit, both hold the same files, to the byte, and say the same of themselves.
//!
//! The engine is that of a [`KindHost`]. One that was built here cannot pull the base image; what
//! stands in for it has its name, Debian packages, and this machine's Rust with the crates that
//! it has fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::host::{KindHost, text};
use super::root::{debian, run};
use crate::image::Image;
use crate::progress::Progress;
use crate::release::cargo_home;

/// What a build of Ballast needs of the base image, beside Rust.
const PACKAGES: &str = "gcc,libc6-dev,git,ca-certificates";
/// Of the image, on whatever Docker it is.
const TAG: &str = "ballast-containerfile:check";
/// Everything is compiled in release mode, on a machine that may be busy.
const BUILD_TIME: Duration = Duration::from_mins(45);
/// Hundreds of megabytes go through a pipe.
const COPY_TIME: Duration = Duration::from_mins(5);
/// What an engine puts into every container.
const OF_THE_ENGINE: [&str; 5] = [
    ".dockerenv",
    "dev/console",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
];
/// The commit, which a Containerfile cannot know.
const REVISION: &str = "org.opencontainers.image.revision";

/// Builds the Containerfile of a clone, and fails if what comes out is not `own`.
pub async fn check(clone: &Path, own: &Image) -> Result<()> {
    let host = KindHost::start("containerfile").await?;
    let work = tempfile::tempdir()?;
    let result = build_and_compare(&host, clone, own, work.path()).await;
    let stopped = host.stop().await;
    result.and(stopped)
}

async fn build_and_compare(host: &KindHost, clone: &Path, own: &Image, work: &Path) -> Result<()> {
    let progress = host.progress();
    let mut build = vec!["docker", "build", "-t", TAG];
    if host.is_built() {
        make_base(host, &base_name(clone)?, &work.join("base")).await?;
        progress.say("made what stands in for the base image");
        // The builder that every Docker has; and nothing is pulled.
        build.splice(0..0, ["env", "DOCKER_BUILDKIT=0"]);
        build.extend(["--network", "none"]);
    }
    let (file, folder) = (text(&clone.join("Containerfile")), text(clone));
    build.extend(["-f", &file, &folder]);
    host.exec_for(build, "", BUILD_TIME).await?.ok()?;
    progress.say("built the Containerfile");
    let compared = compare(host, own, work).await;
    if !host.is_built() {
        host.docker(&["rmi", TAG]).await?;
    }
    compared
}

/// What the first stage is made from.
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

async fn make_base(host: &KindHost, name: &str, root: &Path) -> Result<()> {
    let (folder, progress) = (root.to_owned(), host.progress());
    tokio::task::spawn_blocking(move || fill(&folder, progress)).await??;
    let script = "tar --numeric-owner -C \"$0\" -c . | docker import \
        -c 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        -c 'ENV CARGO_HOME=/usr/local/cargo' -c 'ENV CARGO_NET_OFFLINE=true' - \"$1\"";
    let argv = ["bash", "-euo", "pipefail", "-c", script, &text(root), name];
    host.exec_for(argv, "", COPY_TIME).await?.ok()?;
    Ok(std::fs::remove_dir_all(root)?)
}

/// The toolchain as it is, without rustup: what the workspace asks for is what its folder has.
fn fill(root: &Path, progress: Progress) -> Result<()> {
    debian(PACKAGES, root, progress)?;
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(crate::root())
        .output()
        .context("rustc does not start")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let (rust, cargo) = (root.join("usr/local/rust"), root.join("usr/local/cargo"));
    copy(&sysroot, &rust, &["bin", "lib"])?;
    copy(&cargo_home(), &cargo, &["config.toml"])?;
    copy(
        &cargo_home().join("registry"),
        &cargo.join("registry"),
        &["index", "cache"],
    )
}

/// Copies some things of a folder, as far as they are there.
fn copy(from: &Path, to: &Path, names: &[&str]) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let names = names.iter().map(|name| from.join(name));
    for path in names.filter(|path| path.exists()) {
        run(Command::new("cp").arg("-aL").arg(path).arg(to))?;
    }
    Ok(())
}

async fn compare(host: &KindHost, own: &Image, work: &Path) -> Result<()> {
    let (ours, theirs) = (work.join("own"), work.join("engine"));
    own.unpack(&ours)?;
    std::fs::create_dir_all(&theirs)?;
    let script =
        "id=$(docker create \"$1\"); docker export \"$id\" | tar -C \"$0\" -x; docker rm \"$id\"";
    let argv = [
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script,
        &text(&theirs),
        TAG,
    ];
    host.exec_for(argv, "", COPY_TIME).await?.ok()?;
    same_files(&files(&ours)?, &files(&theirs)?)?;
    let inspect = ["inspect", "--format", "{{json .Config}}", TAG];
    let config: Value = serde_json::from_str(&host.docker(&inspect).await?)?;
    same_config(own, &config)?;
    let version = host.docker(&["run", "--rm", TAG, "--version"]).await?;
    ensure!(version.contains(crate::release::version()), "{version}");
    Ok(())
}

/// Regular files, by their path in the folder.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() {
                let name = text(path.strip_prefix(folder)?);
                found.insert(name, std::fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

fn same_files(own: &BTreeMap<String, Vec<u8>>, engine: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    ensure!(!own.is_empty(), "the image holds no files");
    let names = own.keys().chain(engine.keys());
    let names = names.filter(|name| !OF_THE_ENGINE.contains(&name.as_str()));
    let differ: BTreeSet<&String> = names
        .filter(|&name| own.get(name) != engine.get(name))
        .collect();
    ensure!(
        differ.is_empty(),
        "the Containerfile's image differs from `make image`'s in {differ:?}"
    );
    Ok(())
}

/// What a container of it runs, as whom, and what the image says of itself.
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
        let channel = format!("channel = \"{version}.");
        assert!(toolchain.contains(&channel), "{name}: {toolchain}");
    }

    #[test]
    fn one_byte_is_a_difference_and_a_file_too_many_is() {
        let files = |all: &[(&str, &str)]| -> BTreeMap<String, Vec<u8>> {
            let of = |&(name, text): &(&str, &str)| (name.to_owned(), text.into());
            all.iter().map(of).collect()
        };
        let own = files(&[("ballast", "1"), ("etc/group", "g")]);
        let mut engine = own.clone();
        engine.insert("etc/hosts".to_owned(), vec![]);
        same_files(&own, &engine).unwrap();
        for (name, text) in [("ballast", "2"), ("more", "")] {
            let mut engine = engine.clone();
            engine.insert(name.to_owned(), text.into());
            let error = same_files(&own, &engine).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
