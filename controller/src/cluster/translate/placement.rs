//! What decides which pool serves a Service. Pure.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use ballast_provider::{FamilyPolicy, Labels, Placement, Reason, Refusal};
use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};

use super::{ADDRESS_POOL, Annotations, METALLB_POOL, SHARE_KEY_LIMIT, first};
use crate::cluster::meta::created;
use crate::process::text;

/// Shared by all Services without labels.
static NO_LABELS: LazyLock<Arc<Labels>> = LazyLock::new(Arc::default);

/// The maximum size of all labels of a Service together, in bytes.
const LABELS_LIMIT: usize = 16 * 1024;

/// The maximum length of a selector that is kept unchanged.
const SELECTOR_LIMIT: usize = 256;

/// What decides which pool serves the Service, except the labels of its namespace, which are
/// added later.
pub fn placement(meta: &ObjectMeta, spec: &ServiceSpec) -> Placement {
    let nothing = Annotations::new();
    let annotations = meta.annotations.as_ref().unwrap_or(&nothing);
    let selector = spec.selector.iter().flatten();
    let selector: Vec<String> = selector
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    Placement {
        created: created(meta),
        family_policy: match spec.ip_family_policy.as_deref() {
            Some("PreferDualStack") => FamilyPolicy::PreferDualStack,
            Some("RequireDualStack") => FamilyPolicy::RequireDualStack,
            _ => FamilyPolicy::SingleStack,
        },
        // No pool has a longer name.
        pool: first(annotations, ADDRESS_POOL, METALLB_POOL)
            .map(|(_, pool)| text::shortened(pool, SHARE_KEY_LIMIT + 1)),
        endpoints: if selector.is_empty() {
            format!("service {}", meta.name.as_deref().unwrap_or_default())
        } else {
            // Endpoints belong to one namespace.
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            format!("{namespace}: {}", compact(selector.join(",")))
        },
        labels: match labels(meta) {
            Ok(Some(labels)) if !labels.is_empty() => Arc::new(Labels::from(labels)),
            Ok(_) | Err(_) => Arc::clone(&NO_LABELS),
        },
        namespace_labels: Arc::clone(&NO_LABELS),
    }
}

/// The labels, or a refusal if they are too large to keep.
pub fn labels(meta: &ObjectMeta) -> Result<Option<&BTreeMap<String, String>>, Refusal> {
    let labels = meta.labels.as_ref();
    let sizes = labels.into_iter().flatten();
    let size: usize = sizes.map(|(key, value)| key.len() + value.len()).sum();
    if size > LABELS_LIMIT {
        return Err(Refusal::new(
            Reason::Invalid,
            format!("metadata.labels has {size} bytes; at most {LABELS_LIMIT} are supported"),
        ));
    }
    Ok(labels)
}

/// A short form of a text that is only compared, never shown: itself, or its digest if it is
/// long.
fn compact(text: String) -> String {
    if text.len() <= SELECTOR_LIMIT {
        return text;
    }
    let digest = Sha256::digest(text.as_bytes());
    let hex = digest.iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", hex.collect::<String>())
}
