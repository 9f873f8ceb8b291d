//! Manifests from files and standard input, as one JSON value per object. Only [`text`] does I/O.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::text::decode;

/// The maximum size of one file. The settings of a large installation are a few hundred KiB.
const LARGEST: u64 = 64 << 20;

/// Of YAML: mappings, sequences and scalars in all documents together. A Service has about 60.
const MOST_NODES: usize = 5_000_000;

/// Text that is not a manifest.
#[derive(Debug, thiserror::Error)]
#[error("not valid YAML: {0}")]
pub struct NotYaml(#[source] Box<serde_saphyr::Error>);

/// What to call a file in messages.
pub(in crate::cli) fn called(file: &str) -> String {
    match file {
        "-" => "standard input".to_owned(),
        file => file.to_owned(),
    }
}

/// The text of a file, or of standard input.
pub(in crate::cli) fn text(file: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let read = if file == "-" {
        std::io::stdin().take(LARGEST + 1).read_to_end(&mut bytes)
    } else {
        let opened = std::fs::File::open(file);
        opened.and_then(|opened| opened.take(LARGEST + 1).read_to_end(&mut bytes))
    };
    read.context("cannot read the file")?;
    if bytes.len() as u64 > LARGEST {
        bail!("larger than {} MiB", LARGEST >> 20);
    }
    Ok(decode(bytes)?)
}

/// The documents of manifests. JSON is valid YAML, except for several objects in a row.
pub(in crate::cli) fn documents(yaml: &str) -> Result<Vec<Value>, NotYaml> {
    let json = serde_json::Deserializer::from_str(yaml).into_iter();
    if let Ok(values) = json.collect::<Result<Vec<Value>, _>>() {
        return Ok(values);
    }
    // Enough for all Services of a large cluster in one List.
    let budget = serde_saphyr::budget! {
        max_documents: MOST_NODES,
        max_nodes: MOST_NODES,
        max_events: 2 * MOST_NODES,
    };
    let options = serde_saphyr::options! {
        budget: budget,
        // As Kubernetes reads it: `on` and `yes` are texts where a text belongs.
        strict_booleans: true,
        // The error is one line, with the place in the file.
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(yaml, options)
        .map_err(|error| NotYaml(Box::new(error)))
}

/// Hands over the objects of a document: itself, or those of a list. Fields without a value count as absent.
pub(in crate::cli) fn each(mut value: Value, take: &mut dyn FnMut(Value)) {
    if let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) {
        let kind = value["kind"]
            .as_str()
            .and_then(|it| it.strip_suffix("List"));
        for mut item in items {
            // In a list of one kind, as the API server sends it, the items do not repeat the kind.
            if let (Some(kind), Some(item)) = (kind, item.as_object_mut()) {
                item.entry("kind").or_insert(kind.into());
                item.entry("apiVersion")
                    .or_insert(value["apiVersion"].clone());
            }
            each(item, take);
        }
        return;
    }
    without_nulls(&mut value);
    take(value);
}

/// `KIND NAMESPACE/NAME`, as messages call an object.
pub(in crate::cli) fn title(kind: &str, value: &Value) -> String {
    let of = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    match (of("namespace"), of("name")) {
        ("", name) => format!("{kind} {name}"),
        (namespace, name) => format!("{kind} {namespace}/{name}"),
    }
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
