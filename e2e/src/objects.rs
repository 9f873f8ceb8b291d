//! Objects of the cluster: how YAML is applied, and the objects of every lab.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::{Patch, PatchParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::{Api, Client, discovery};
use serde_json::Value;

use crate::eventually::eventually;
use crate::images;
use crate::net::{DNS_V4, DNS_V6, Families};

/// The field manager of everything the lab applies.
const MANAGER: &str = "ballast-lab";

/// How long it may take until a kind is served after its definition was created.
const KIND_TIME: Duration = Duration::from_secs(10);

/// The documents of a manifest, without empty ones.
pub fn documents(yaml: &str) -> Result<Vec<Value>> {
    // `on` and `yes` are texts, as in YAML 1.2.
    let options = serde_saphyr::options! { strict_booleans: true };
    let all: Vec<Value> =
        serde_saphyr::from_multiple_with_options(yaml, options).context("not YAML")?;
    Ok(all.into_iter().filter(|one| !one.is_null()).collect())
}

/// Applies all documents in order. Empty ones are skipped, lists expanded.
pub(crate) async fn apply(client: &Client, yaml: &str) -> Result<()> {
    for value in documents(yaml)? {
        match value.get("items") {
            Some(Value::Array(items)) => {
                for item in items {
                    apply_one(client, item).await?;
                }
            }
            _ => apply_one(client, &value).await?,
        }
    }
    Ok(())
}

async fn apply_one(client: &Client, value: &Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(value.clone())
        .with_context(|| format!("not an object of Kubernetes: {value}"))?;
    let types = object
        .types
        .clone()
        .context("an object without apiVersion and kind")?;
    let name = object
        .metadata
        .name
        .clone()
        .with_context(|| format!("a {} without a name", types.kind))?;
    let kind = GroupVersionKind::try_from(&types)?;
    let (resource, capabilities) = eventually(KIND_TIME, || async {
        Ok(discovery::pinned_kind(client, &kind).await?)
    })
    .await
    .with_context(|| {
        format!(
            "the API server knows no {} of {}",
            types.kind, types.api_version
        )
    })?;
    let api: Api<DynamicObject> = if capabilities.scope == discovery::Scope::Cluster {
        Api::all_with(client.clone(), &resource)
    } else {
        let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
        Api::namespaced_with(client.clone(), namespace, &resource)
    };
    api.patch(
        &name,
        &PatchParams::apply(MANAGER).force(),
        &Patch::Apply(value),
    )
    .await
    .with_context(|| format!("cannot apply {} {name}", types.kind))?;
    Ok(())
}

/// The name server: one replica, with the usual names and labels.
pub(crate) fn dns(families: Families) -> String {
    let (policy, names, addresses) = if families.both() {
        (
            "PreferDualStack",
            "[IPv4, IPv6]",
            format!("[\"{DNS_V4}\", \"{DNS_V6}\"]"),
        )
    } else {
        ("SingleStack", "[IPv4]", format!("[\"{DNS_V4}\"]"))
    };
    include_str!("dns.yaml")
        .replace("@IMAGE@", images::COREDNS)
        .replace("@POLICY@", policy)
        .replace("@FAMILIES@", names)
        .replace("@ADDRESS@", DNS_V4)
        .replace("@ADDRESSES@", &addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_servers_manifest_is_filled_in() {
        for families in [Families::Ipv4, Families::Dual] {
            let yaml = dns(families);
            assert!(!yaml.contains('@'), "{yaml}");
            let documents = documents(&yaml).unwrap();
            let service = documents.iter().find(|d| d["kind"] == "Service").unwrap();
            let expected = if families.both() { 2 } else { 1 };
            assert_eq!(
                service["spec"]["clusterIPs"].as_array().unwrap().len(),
                expected
            );
        }
    }
}
