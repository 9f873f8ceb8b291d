//! The container image: its size, its files, its metadata, that it contains nothing of the machine
//! that built it, and that it runs with nothing else around it. It is the release image: a debug
//! build says nothing about sizes.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ballast_e2e::release::{Release, reference, version};
use ballast_e2e::root;
use serde_json::Value;

/// A node keeps it so. Whoever makes it larger must notice.
const MOST_BYTES: u64 = 50_000_000;
/// A node pulls it so: registries hold layers compressed. The image must stay below 30 MB; this is less, so
/// that somebody notices long before.
const MOST_COMPRESSED: usize = 20_000_000;
/// Everything that is in it.
const CONTENTS: [&str; 13] = [
    "ballast",
    "ballast-announcer",
    "etc",
    "etc/group",
    "etc/passwd",
    "etc/ssl",
    "etc/ssl/certs",
    "etc/ssl/certs/ca-certificates.crt",
    "tmp",
    "usr",
    "usr/share",
    "usr/share/sbom",
    "usr/share/sbom/ballast.cdx.json",
];
/// The type of a program header in an ELF file: the path of a loader.
const PT_INTERP: u32 = 3;

/// The files of an archive, by path.
fn files(archive: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let mut bytes = vec![];
        entry.read_to_end(&mut bytes)?;
        found.insert(entry.path()?.display().to_string(), bytes);
    }
    Ok(found)
}

fn json(files: &BTreeMap<String, Vec<u8>>, path: &str) -> Result<Value> {
    let bytes = files.get(path).with_context(|| format!("no {path}"))?;
    Ok(serde_json::from_slice(bytes)?)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn the_image_is_small_static_and_says_what_it_is() -> Result<()> {
    let release = Release::build(&root())?;
    let dir = tempfile::tempdir()?;
    let (one, two) = (dir.path().join("one.tar"), dir.path().join("two.tar"));
    let digest = release.image().write(&one)?;
    ensure!(
        digest == release.image().write(&two)?,
        "two archives of one binary differ"
    );
    let archive = std::fs::read(&one)?;
    ensure!(archive == std::fs::read(&two)?, "two archives differ");
    let size = archive.len() as u64;
    println!("{} {digest}, {size} bytes", reference());
    ensure!(size < MOST_BYTES, "{size} bytes");

    let outer = files(&archive)?;
    let docker = json(&outer, "manifest.json")?;
    let path = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let config = &json(&outer, &path(&docker[0]["Config"]))?["config"];
    ensure!(config["User"] == "65532:65532", "{config}");
    ensure!(
        config["Entrypoint"] == serde_json::json!(["/ballast"]),
        "{config}"
    );
    let label = |name: &str| path(&config["Labels"][format!("org.opencontainers.image.{name}")]);
    ensure!(label("version") == version(), "{config}");
    for name in ["title", "description", "licenses"] {
        ensure!(!label(name).is_empty(), "no label {name}");
    }
    ensure!(
        release.revision.as_deref().unwrap_or_default() == label("revision"),
        "{config}"
    );
    let layers = docker[0]["Layers"].as_array().context("no layers")?;
    ensure!(layers.len() == 1, "{layers:?}");
    let name = path(&layers[0]);
    let layer = outer.get(&name).context("no layer")?;
    std::fs::write(dir.path().join("layer.tar"), layer)?;
    let compressed = compressed(&dir.path().join("layer.tar"))?;
    println!("{compressed} bytes when compressed");
    ensure!(compressed < MOST_COMPRESSED, "{compressed} bytes");
    inside(&files(layer)?, &release)
}

/// The size of a file as a container engine sends it to a registry.
fn compressed(file: &Path) -> Result<usize> {
    let gzip = Command::new("gzip")
        .args(["--stdout", "-6"])
        .arg(file)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(gzip.status.success(), "gzip failed");
    Ok(gzip.stdout.len())
}

/// The files of the layer.
fn inside(files: &BTreeMap<String, Vec<u8>>, release: &Release) -> Result<()> {
    let paths: Vec<&str> = files.keys().map(|it| it.trim_end_matches('/')).collect();
    ensure!(paths == CONTENTS, "{paths:?}");
    for name in ["ballast", "ballast-announcer"] {
        let program = files.get(name).with_context(|| format!("no {name}"))?;
        ensure!(!has_loader(program)?, "{name} is not static");
    }
    let root = root().canonicalize()?.display().to_string();
    for (path, bytes) in files {
        ensure!(!contains(bytes, &root), "{path} holds the path {root}");
    }
    let certificates = files
        .get("etc/ssl/certs/ca-certificates.crt")
        .context("no certificates")?;
    ensure!(contains(certificates, "BEGIN CERTIFICATE"));
    let bill = json(files, "usr/share/sbom/ballast.cdx.json")?;
    let names: Vec<&str> = bill["components"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|component| component["name"].as_str())
        .collect();
    for needed in ["kube", "tokio", "rustls", "ballast-crds"] {
        ensure!(
            names.contains(&needed),
            "the bill of materials lacks {needed}"
        );
    }
    for own in ["ballast-e2e", "rcgen"] {
        ensure!(!names.contains(&own), "{own} is not in the binary");
    }
    ensure!(bill.get("serialNumber").is_none());
    release.programs.iter().try_for_each(|it| runs_alone(it))
}

/// Whether an ELF file names a loader, as every dynamically linked one does.
fn has_loader(elf: &[u8]) -> Result<bool> {
    let number = |at: usize, bytes: usize| -> Result<usize> {
        let field = elf.get(at..at + bytes).context("a short ELF file")?;
        Ok(field
            .iter()
            .rev()
            .fold(0, |all, &byte| all << 8 | usize::from(byte)))
    };
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "no 64-bit ELF file");
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for header in 0..count {
        if number(table + header * size, 4)? == PT_INTERP as usize {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Runs in a root folder that contains nothing else.
fn runs_alone(binary: &Path) -> Result<()> {
    let root = tempfile::tempdir()?;
    let name = binary.file_name().context("no name")?;
    std::fs::copy(binary, root.path().join(name))?;
    let output = Command::new("chroot")
        .args(["--userspec=65532:65532"])
        .arg(root.path())
        .args([&Path::new("/").join(name), Path::new("--version")])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success() && said.contains(version()),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
