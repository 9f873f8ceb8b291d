//! Ballast's own image: static programs, certificates, and their bill of materials.
//!
//! It is built without a container engine. Two builds of one commit give the same digest in any
//! folder: paths are removed from the programs, there are no times, and the certificates are
//! those pinned in Cargo.lock, not the machine's.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::image::{Entry, Image};
use crate::images::{library_entries, program_entries};
use crate::progress::Progress;

/// The name without its tag, which is the workspace's version.
const NAME: &str = "docker.io/library/ballast";

/// An arbitrary user, as is common in images without the `/etc/passwd` of a distribution.
const USER: &str = "65532:65532";

/// The target folder of the static build; the ordinary release build has its own.
pub const TARGET: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};

/// The programs of the crate.
const PROGRAMS: [&str; 2] = ["ballast", "ballast-announcer"];

/// The tool that writes the bill of materials.
const SBOM_TOOL: (&str, &str) = ("cargo-cyclonedx", "0.5.7");
/// The file that the tool writes next to the crate's manifest.
const SBOM_NAME: &str = "ballast-image-sbom";

const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// The content of the image.
#[derive(Debug, Clone)]
pub struct Release {
    /// The static programs; containers run the first one unless they say otherwise.
    pub programs: Vec<PathBuf>,
    /// `CycloneDX`, JSON.
    pub sbom: String,
    /// The commit, if the source is a clone.
    pub revision: Option<String>,
}

/// The workspace's version, which is the image's tag.
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// The image's full name.
pub fn reference() -> String {
    format!("{NAME}:{}", version())
}

impl Release {
    /// Builds everything that is missing, from the source in `root`.
    pub fn build(root: &Path) -> Result<Self> {
        let root = root
            .canonicalize()
            .with_context(|| format!("no folder {}", root.display()))?;
        // Two builds at once would remove each other's files.
        let target = target(&root);
        std::fs::create_dir_all(&target)?;
        let lock = File::create(target.join("image.lock"))?;
        let progress = Progress::new(true);
        let waiting = || "waiting for another build of the image".to_owned();
        progress.while_working(waiting, || lock.lock())?;
        // Cargo prints what it compiles, but nothing while it compiles the last crates.
        let compiling =
            || "compiling the static release programs; left: the bill of materials".to_owned();
        let listing = || "writing the bill of materials, the last step".to_owned();
        Ok(Self {
            programs: progress.while_working(compiling, || programs(&root))?,
            sbom: progress.while_working(listing, || sbom(&root))?,
            revision: revision(&root),
        })
    }

    /// An image with programs that were built for this machine only, with the libraries that they
    /// load and without a bill of materials: tests need no release build.
    pub fn for_tests(root: &Path, programs: Vec<PathBuf>) -> Image {
        let libraries = library_entries(&programs);
        let release = Self {
            programs,
            sbom: String::new(),
            revision: revision(root),
        };
        let mut image = release.image();
        image.entries.extend(libraries);
        image
    }

    /// The image to write.
    pub fn image(&self) -> Image {
        Image {
            reference: reference(),
            entrypoint: vec!["/ballast".to_owned()],
            user: USER.to_owned(),
            labels: self.labels(),
            env: vec![format!("SSL_CERT_FILE=/{CERTIFICATES}")],
            entries: self.entries(),
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = vec![
            ("title", "Ballast".to_owned()),
            (
                "description",
                "Load balancers for Kubernetes Services".to_owned(),
            ),
            ("version", version().to_owned()),
            ("licenses", env!("CARGO_PKG_LICENSE").to_owned()),
        ];
        labels.extend(self.revision.clone().map(|commit| ("revision", commit)));
        let label = |(key, value)| (format!("org.opencontainers.image.{key}"), value);
        labels.into_iter().map(label).collect()
    }

    fn entries(&self) -> Vec<Entry> {
        let mut entries = program_entries(&self.programs);
        entries.extend([
            Entry::Folder("etc", 0o755),
            Entry::Text("etc/group", "root:x:0:\nnonroot:x:65532:\n".to_owned()),
            Entry::Text(
                "etc/passwd",
                "root:x:0:0:root:/:/nologin\nnonroot:x:65532:65532:nonroot:/:/nologin\n".to_owned(),
            ),
            Entry::Folder("etc/ssl", 0o755),
            Entry::Folder("etc/ssl/certs", 0o755),
            Entry::Text(CERTIFICATES, certificates()),
            Entry::Folder("tmp", 0o1777),
        ]);
        if !self.sbom.is_empty() {
            entries.extend([
                Entry::Folder("usr", 0o755),
                Entry::Folder("usr/share", 0o755),
                Entry::Folder("usr/share/sbom", 0o755),
                Entry::Text("usr/share/sbom/ballast.cdx.json", self.sbom.clone()),
            ]);
        }
        entries
    }
}

/// The certificate authorities that Mozilla trusts, as pinned in the lock file.
fn certificates() -> String {
    let all = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
    let mut texts: Vec<String> = all.iter().map(|der| to_pem(der)).collect();
    texts.sort();
    texts.concat()
}

fn to_pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}

/// Compiles so that the result contains nothing of this machine: no paths, no shared libraries.
fn programs(root: &Path) -> Result<Vec<PathBuf>> {
    let cargo_home = cargo_home();
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=/ballast", root.display()),
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
    ];
    // Separated by a character that no path contains.
    let status = cargo(root)
        .args(["build", "--locked", "--release", "-p", "ballast"])
        .args(["--target", TARGET])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .env(
            "CFLAGS",
            format!(
                "-ffile-prefix-map={}=/cargo -ffile-prefix-map={}=/ballast",
                cargo_home.display(),
                root.display()
            ),
        )
        .status()
        .context("cargo does not start")?;
    if !status.success() {
        bail!("the static release build failed; its words are above");
    }
    let folder = target(root).join(TARGET).join("release");
    Ok(PROGRAMS.map(|name| folder.join(name)).to_vec())
}

/// The folder of cargo's downloads.
pub(crate) fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME").map_or_else(
        || std::env::home_dir().unwrap_or_default().join(".cargo"),
        PathBuf::from,
    )
}

/// Cargo's target folder.
fn target(root: &Path) -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR");
    root.join(folder.map_or_else(|| PathBuf::from("target"), PathBuf::from))
}

/// Cargo as a user runs it, even from within a test: a test's environment has variables of the
/// tested crate, which build scripts read, and much would be compiled again.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let of_crate = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
        ];
        if of_crate.iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command
}

/// The commit, marked if the source differs from it.
fn revision(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(root)
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() {
        commit
    } else {
        format!("{commit}-modified")
    })
}

/// All crates that are compiled into the binary, in `CycloneDX`.
fn sbom(root: &Path) -> Result<String> {
    let status = Command::new(sbom_tool(root)?)
        .args(["cyclonedx", "--format", "json", "--spec-version", "1.5"])
        .args(["--target", TARGET, "--override-filename", SBOM_NAME])
        .arg("--manifest-path")
        .arg(root.join("controller/Cargo.toml"))
        .current_dir(root)
        .env("CARGO_NET_OFFLINE", "true")
        .env("SOURCE_DATE_EPOCH", "0")
        .stdin(Stdio::null())
        .status()
        .context("cargo-cyclonedx does not start")?;
    if !status.success() {
        bail!("the bill of materials could not be written");
    }
    let text = collect(root)?;
    let mut sbom: Value = serde_json::from_str(&text)?;
    strip(&mut sbom, &root.display().to_string());
    Ok(serde_json::to_string_pretty(&sbom)? + "\n")
}

/// The tool writes a file next to the manifest of every workspace member.
fn collect(root: &Path) -> Result<String> {
    let output = cargo(root)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("no cargo metadata")?;
    let mut text = None;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let file = Path::new(manifest).with_file_name(format!("{SBOM_NAME}.json"));
        if package["name"] == "ballast" {
            text = std::fs::read_to_string(&file).ok();
        }
        let _ = std::fs::remove_file(file);
    }
    text.context("cargo-cyclonedx wrote nothing for the crate ballast")
}

/// Removes everything that differs between builds: the serial number, times, and folders.
fn strip(value: &mut Value, root: &str) {
    match value {
        Value::Object(fields) => {
            for field in ["serialNumber", "timestamp"] {
                fields.remove(field);
            }
            fields.values_mut().for_each(|value| strip(value, root));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| strip(value, root)),
        Value::String(text) => *text = text.replace(root, "/ballast"),
        _ => {}
    }
}

/// Installs it once into the cache.
fn sbom_tool(root: &Path) -> Result<PathBuf> {
    let (name, version) = SBOM_TOOL;
    let cache = crate::cache::root()
        .join("tools")
        .join(format!("{name}-{version}"));
    let tool = cache.join("bin").join(name);
    if tool.exists() {
        return Ok(tool);
    }
    eprintln!("image: building {name} {version} (minutes, once)");
    let status = cargo(root)
        .args(["install", "--locked", "--quiet", "--root"])
        .arg(&cache)
        .arg(format!("{name}@{version}"))
        // Not in the workspace's own target folder, which other builds lock.
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .context("cargo does not start")?;
    if !status.success() {
        bail!("cargo install {name}@{version} failed");
    }
    Ok(tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_without_times_and_folders() {
        let mut bill = serde_json::json!({
            "serialNumber": "urn:uuid:1",
            "metadata": {"timestamp": "2026-01-01T00:00:00Z", "component": {"purl": "pkg:cargo/x?download_url=file:///somewhere/x"}},
            "components": [{"bom-ref": "path+file:///somewhere/x/y#1"}],
        });
        strip(&mut bill, "/somewhere/x");
        let expected = serde_json::json!({
            "metadata": {"component": {"purl": "pkg:cargo/x?download_url=file:///ballast"}},
            "components": [{"bom-ref": "path+file:///ballast/y#1"}],
        });
        assert_eq!(bill, expected);
    }

    #[test]
    fn certificates_are_many_and_in_one_order() {
        let text = certificates();
        assert!(text.matches("BEGIN CERTIFICATE").count() > 100);
        assert_eq!(text, certificates());
    }
}
