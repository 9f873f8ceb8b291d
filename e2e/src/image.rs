//! Container images without a container builder: one layer, one OCI archive.
//!
//! Deterministic: the same files give the same digest, on any machine and at any time.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, HistoryBuilder, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest,
};
use sha2::{Digest, Sha256};

/// One entry of an image.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A folder and its mode.
    Folder(&'static str, u32),
    /// An executable file of the machine.
    Program(String, PathBuf),
    /// A readable file of the machine.
    File(String, PathBuf),
    /// A file with this text.
    Text(&'static str, String),
    /// A symbolic link: path and target.
    Link(String, String),
}

/// An image to write.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// The full name with registry and tag, which pods use.
    pub reference: String,
    /// The command of its containers.
    pub entrypoint: Vec<String>,
    /// `uid:gid`, or empty for root.
    pub user: String,
    /// The image's version, as `org.opencontainers.image.version`.
    pub labels: BTreeMap<String, String>,
    /// Added to the environment, as `KEY=value`.
    pub env: Vec<String>,
    /// Its entries, in this order.
    pub entries: Vec<Entry>,
}

impl Image {
    /// Writes the archive in the format of `ctr images import`, `docker load` and
    /// `kind load image-archive`, and returns the digest of its manifest.
    pub fn write(&self, path: &Path) -> Result<String> {
        let layer = self.layer()?;
        let config = self.config(&layer)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, &config)?)
            .layers([descriptor(MediaType::ImageLayer, &layer)?])
            .build()?
            .to_string()?
            .into_bytes();
        let mut described = descriptor(MediaType::ImageManifest, &manifest)?;
        described.set_annotations(Some(HashMap::from([(
            "io.containerd.image.name".to_owned(),
            self.reference.clone(),
        )])));
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests([described])
            .build()?
            .to_string()?
            .into_bytes();

        let new = path.with_extension("new");
        let file = File::create(&new).with_context(|| format!("cannot write {}", new.display()))?;
        let mut archive = tar::Builder::new(BufWriter::new(file));
        append(
            &mut archive,
            "oci-layout",
            br#"{"imageLayoutVersion":"1.0.0"}"#,
            0o644,
        )?;
        append(&mut archive, "index.json", &index, 0o644)?;
        // Docker before version 25 reads this instead.
        let docker = serde_json::json!([{
            "Config": blob_path(&config),
            "RepoTags": [self.reference],
            "Layers": [blob_path(&layer)],
        }]);
        append(
            &mut archive,
            "manifest.json",
            &serde_json::to_vec(&docker)?,
            0o644,
        )?;
        for blob in [&manifest, &config, &layer] {
            append(&mut archive, &blob_path(blob), blob, 0o644)?;
        }
        archive.into_inner()?.flush()?;
        std::fs::rename(&new, path)?;
        Ok(format!("sha256:{}", digest(&manifest)))
    }

    /// Writes the content of the image into a folder.
    pub fn unpack(&self, into: &Path) -> Result<()> {
        std::fs::create_dir_all(into)?;
        let layer = self.layer()?;
        let mut archive = tar::Archive::new(layer.as_slice());
        // Includes bits beyond rwx, such as those of /tmp.
        archive.set_preserve_permissions(true);
        archive
            .unpack(into)
            .with_context(|| format!("cannot write to {}", into.display()))
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for entry in &self.entries {
            match entry {
                Entry::Folder(path, mode) => {
                    let mut header = header(tar::EntryType::Directory, 0, *mode);
                    archive.append_data(&mut header, format!("{path}/"), std::io::empty())?;
                }
                Entry::Program(path, from) => append(&mut archive, path, &read(from)?, 0o755)?,
                Entry::File(path, from) => append(&mut archive, path, &read(from)?, 0o644)?,
                Entry::Text(path, text) => append(&mut archive, path, text.as_bytes(), 0o644)?,
                Entry::Link(path, to) => {
                    let mut header = header(tar::EntryType::Symlink, 0, 0o777);
                    archive.append_link(&mut header, path, to)?;
                }
            }
        }
        Ok(archive.into_inner()?)
    }

    fn config(&self, layer: &[u8]) -> Result<Vec<u8>> {
        let mut config = ConfigBuilder::default()
            .entrypoint(self.entrypoint.clone())
            .env(
                ["PATH=/usr/bin:/bin:/usr/sbin:/sbin:/".to_owned()]
                    .into_iter()
                    .chain(self.env.clone())
                    .collect::<Vec<_>>(),
            )
            .working_dir("/");
        if !self.user.is_empty() {
            config = config.user(self.user.clone());
        }
        let rootfs = RootFsBuilder::default()
            .typ("layers")
            .diff_ids([format!("sha256:{}", digest(layer))])
            .build()?;
        let history = HistoryBuilder::default()
            .created_by("ballast-e2e")
            .build()?;
        let config = ImageConfigurationBuilder::default()
            .architecture(architecture())
            .os(Os::Linux)
            .config(config.build()?)
            .rootfs(rootfs)
            .history([history])
            .build()?;
        let mut config = serde_json::to_value(config)?;
        if !self.labels.is_empty() {
            // The type uses a hash map, whose order varies.
            config["config"]["Labels"] = serde_json::json!(self.labels);
        }
        Ok(serde_json::to_vec(&config)?)
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest(blob: &[u8]) -> String {
    hex(&Sha256::digest(blob))
}

fn blob_path(blob: &[u8]) -> String {
    format!("blobs/sha256/{}", digest(blob))
}

fn descriptor(kind: MediaType, blob: &[u8]) -> Result<Descriptor> {
    let digest = Sha256Digest::from_str(&digest(blob))?;
    Ok(DescriptorBuilder::default()
        .media_type(kind)
        .size(blob.len() as u64)
        .digest(digest)
        .build()?)
}

fn architecture() -> Arch {
    if cfg!(target_arch = "aarch64") {
        Arch::ARM64
    } else {
        Arch::Amd64
    }
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    path: &str,
    bytes: &[u8],
    mode: u32,
) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, bytes.len() as u64, mode);
    archive.append_data(&mut header, path, bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sample(dir: &Path) -> Image {
        let program = dir.join("program");
        std::fs::write(&program, b"\x7fELF").unwrap();
        Image {
            reference: "example.test/sample:1".to_owned(),
            entrypoint: vec!["/sample".to_owned()],
            user: "65532:65532".to_owned(),
            labels: [("b", "2"), ("a", "1"), ("c", "3")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            env: vec!["A=b".to_owned()],
            entries: vec![
                Entry::Folder("tmp", 0o1777),
                Entry::Program("sample".to_owned(), program),
                Entry::Text("etc/passwd", "root:x:0:0::/:/bin/sh\n".to_owned()),
                Entry::Link("bin/sh".to_owned(), "/bin/busybox".to_owned()),
            ],
        }
    }

    fn read(path: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(File::open(path).unwrap());
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), bytes);
        }
        files
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, second) = (one.path().join("a.tar"), two.path().join("b.tar"));
        let digests = (
            sample(one.path()).write(&first).unwrap(),
            sample(two.path()).write(&second).unwrap(),
        );
        assert_eq!(digests.0, digests.1);
        assert_eq!(
            std::fs::read(first).unwrap(),
            std::fs::read(second).unwrap()
        );
    }

    #[test]
    fn every_blob_is_named_by_its_digest_and_the_index_leads_to_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.tar");
        let written = sample(dir.path()).write(&path).unwrap();
        let files = read(&path);
        for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("blobs/")) {
            assert_eq!(name, &format!("blobs/sha256/{}", digest(bytes)));
        }
        let blob = |digest: &serde_json::Value| {
            let name = digest.as_str().unwrap().replace(':', "/");
            files[&format!("blobs/{name}")].clone()
        };
        let index: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(
            index["manifests"][0]["annotations"]["io.containerd.image.name"],
            "example.test/sample:1"
        );
        assert_eq!(index["manifests"][0]["digest"], written.as_str());
        let manifest: serde_json::Value =
            serde_json::from_slice(&blob(&index["manifests"][0]["digest"])).unwrap();
        let config: serde_json::Value =
            serde_json::from_slice(&blob(&manifest["config"]["digest"])).unwrap();
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            manifest["layers"][0]["digest"]
        );
        assert!(config.get("created").is_none());
        assert_eq!(config["config"]["Labels"]["a"], "1");
        assert_eq!(config["config"]["Env"][1], "A=b");
        let docker: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert!(files.contains_key(docker[0]["Config"].as_str().unwrap()));
        assert!(files.contains_key(docker[0]["Layers"][0].as_str().unwrap()));
    }

    #[test]
    fn the_layer_keeps_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let layer = sample(dir.path()).layer().unwrap();
        let mut archive = tar::Archive::new(layer.as_slice());
        let entries: Vec<(String, u32, Option<String>)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let link = entry
                    .link_name()
                    .unwrap()
                    .map(|link| link.display().to_string());
                (
                    entry.path().unwrap().display().to_string(),
                    entry.header().mode().unwrap(),
                    link,
                )
            })
            .collect();
        assert_eq!(entries[0], ("tmp/".to_owned(), 0o1777, None));
        assert_eq!(entries[1], ("sample".to_owned(), 0o755, None));
        assert_eq!(
            entries[3],
            ("bin/sh".to_owned(), 0o777, Some("/bin/busybox".to_owned()))
        );
    }
}
