//! `MetalLB` for tests of a migration: its programs, built from its Go module, in images with the
//! names that its own manifests use, and these manifests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cache;
use crate::go::{GoProgram, go_build};
use crate::helm::said;
use crate::image::{Entry, Image, hex};
use crate::objects::documents;
use crate::progress::Progress;

/// The Go module.
const MODULE: &str = "go.universe.tf/metallb";
/// Binary and Go package.
const PROGRAMS: [(&str, &str); 2] = [
    ("controller", "go.universe.tf/metallb/controller"),
    ("speaker", "go.universe.tf/metallb/speaker"),
];
/// The manifests in the module.
const MANIFESTS: &str = "config/manifests/metallb-native.yaml";

/// The first container of a workload.
const CONTAINER: &str = "/spec/template/spec/containers/0";

/// Built programs and the manifests.
#[derive(Debug)]
pub struct MetalLb {
    dir: PathBuf,
    objects: Vec<Value>,
}

impl MetalLb {
    /// Builds missing programs and images. Other processes that need them wait and then use them.
    pub fn ensure(progress: Progress) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("metallb");
        let dir = cache::folder("metallb", &key(&source)?, &["bin", "images"])?;
        let _lock = cache::lock(&dir, "lock", "MetalLB", progress)?;
        let missing: Vec<GoProgram> = PROGRAMS
            .iter()
            .map(|(name, package)| GoProgram::new(package, dir.join("bin").join(name)))
            .filter(|program| !program.is_built())
            .collect();
        go_build(&source, &missing, &["-ldflags", "-s -w"], progress)?;
        let mut list = Command::new("go");
        list.args(["list", "-m", "-f", "{{.Dir}}", MODULE])
            .current_dir(&source);
        let module = PathBuf::from(said(list)?.trim());
        let manifests = module.join(MANIFESTS);
        let text =
            std::fs::read_to_string(&manifests).with_context(|| manifests.display().to_string())?;
        let metallb = Self {
            dir,
            objects: documents(&text)?,
        };
        metallb.write_images()?;
        Ok(metallb)
    }

    /// The manifests. The API server of a lab reaches no webhook, so they have none.
    pub fn manifests(&self) -> Vec<Value> {
        let mut all = self.objects.clone();
        all.retain(|it| it["kind"] != "ValidatingWebhookConfiguration");
        for object in &mut all {
            let args = format!("{CONTAINER}/args");
            if object["kind"] == "Deployment"
                && let Some(Value::Array(args)) = object.pointer_mut(&args)
            {
                args.push(json!("--webhook-mode=disabled"));
            }
        }
        all
    }

    /// The archives of the images.
    pub fn images(&self) -> Vec<PathBuf> {
        PROGRAMS.iter().map(|(name, _)| self.image(name)).collect()
    }

    fn image(&self, name: &str) -> PathBuf {
        self.dir.join("images").join(format!("{name}.tar"))
    }

    fn write_images(&self) -> Result<()> {
        for (name, _) in PROGRAMS {
            let path = self.image(name);
            if path.exists() {
                continue;
            }
            let field = format!("{CONTAINER}/image");
            let mut used = self
                .objects
                .iter()
                .filter_map(|it| it.pointer(&field)?.as_str());
            let reference = used.find(|it| it.contains(&format!("/{name}:")));
            let image = Image {
                reference: reference
                    .with_context(|| format!("no image of {name} in the manifests"))?
                    .to_owned(),
                entrypoint: vec![format!("/{name}")],
                entries: vec![
                    Entry::Folder("etc", 0o755),
                    Entry::Folder("tmp", 0o1777),
                    Entry::Program(name.to_owned(), self.dir.join("bin").join(name)),
                ],
                ..Image::default()
            };
            image.write(&path)?;
        }
        Ok(())
    }
}

fn key(source: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum"] {
        let text = std::fs::read(source.join(file))
            .with_context(|| format!("cannot read e2e/metallb/{file}"))?;
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.update(format!("{PROGRAMS:?}"));
    Ok(hex(&hash.finalize())[..16].to_owned())
}
