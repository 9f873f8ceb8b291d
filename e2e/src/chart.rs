//! Generated files of the chart: its README from the comments in its values, the defaults in
//! its templates from its values, its CRDs and the definitions in its schema from the types, and
//! `deploy/rbac.yaml` from its templates. `make chart` writes them, and a test compares them.

mod kubernetes;

use anyhow::{Context, Result};

use serde_json::Value;

use crate::{Helm, root};

/// A generated file.
#[derive(Debug)]
pub struct Made {
    /// Its path, relative to the workspace.
    pub path: &'static str,
    /// Its content.
    pub text: String,
}

const RIGHTS: &str = "\
# The rights of `ballast controller`, and nothing more: a test of the e2e suite fails
# if one of them is missing, and if one of them is never used. Made by `make chart` from
# the chart's own: charts/ballast/templates/controller.
apiVersion: v1
kind: Namespace
metadata:
  name: ballast-system
";

/// Templates that contain rights.
const TEMPLATES: [&str; 2] = ["serviceaccount.yaml", "rbac.yaml"];

/// All generated files, up to date.
pub fn made(helm: &Helm) -> Result<Vec<Made>> {
    Ok(vec![
        Made {
            path: "charts/ballast/crds/crds.yaml",
            text: ballast_crds::yaml()?,
        },
        Made {
            path: "charts/ballast/README.md",
            text: readme(helm)?,
        },
        Made {
            path: "charts/ballast/templates/_defaults.tpl",
            text: defaults()?,
        },
        of_schema()?,
        Made {
            path: "deploy/rbac.yaml",
            text: rights(helm)?,
        },
    ])
}

/// Writes the files that differ and returns their paths.
pub fn write(helm: &Helm) -> Result<Vec<&'static str>> {
    let mut written = Vec::new();
    // Helm renders nothing with a schema that lacks definitions.
    let mut all = vec![of_schema()?];
    write_changed(&all, &mut written)?;
    all = made(helm)?;
    write_changed(&all, &mut written)?;
    Ok(written)
}

fn write_changed(all: &[Made], written: &mut Vec<&'static str>) -> Result<()> {
    for Made { path, text } in all {
        let file = root().join(path);
        if std::fs::read_to_string(&file).is_ok_and(|found| found == *text) {
            continue;
        }
        std::fs::write(&file, text).with_context(|| format!("cannot write {path}"))?;
        written.push(path);
    }
    Ok(())
}

fn readme(helm: &Helm) -> Result<String> {
    let mut docs = helm.command("helm-docs");
    docs.args(["--dry-run", "--log-level=warning"])
        .args(["--sort-values-order=file", "--chart-search-root"])
        .arg(Helm::chart());
    let text = crate::helm::said(docs)?;
    Ok(format!("{}\n", text.trim()))
}

/// Defaults for keys whose value is null. Helm does not pass the values file itself to
/// templates, and deletes a null key together with its default.
fn defaults() -> Result<String> {
    let text = std::fs::read_to_string(Helm::chart().join("values.yaml"))?;
    let values: Value = serde_saphyr::from_str(&text)?;
    let text = serde_json::to_string_pretty(&values)?;
    Ok(format!(
        "{{{{/* The values of keys without a value. Generated from values.yaml by `make chart`. */}}}}
{{{{- define \"ballast.defaults\" -}}}}
{text}
{{{{- end }}}}
"
    ))
}

fn of_schema() -> Result<Made> {
    let text = std::fs::read_to_string(Helm::chart().join("values.schema.json"))?;
    Ok(Made {
        path: "charts/ballast/values.schema.json",
        text: kubernetes::schema(&text)?,
    })
}

/// Without the labels of objects that Helm manages, because here it does not.
fn rights(helm: &Helm) -> Result<String> {
    let mut flags = Vec::new();
    let names = TEMPLATES.map(|file| format!("templates/controller/{file}"));
    for name in &names {
        flags.extend(["--show-only", name]);
    }
    let rendered = helm.template("ballast", "ballast-system", &flags)?;
    let helms = [
        "app.kubernetes.io/managed-by:",
        "app.kubernetes.io/version:",
        "helm.sh/chart:",
        "# Source:",
    ];
    let mut text = RIGHTS.to_owned();
    for line in rendered.lines() {
        let blank = line.is_empty();
        if !blank && !helms.iter().any(|own| line.trim_start().starts_with(own)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}
