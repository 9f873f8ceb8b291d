//! Who wrote the parts of a Service that Ballast writes, from `metadata.managedFields`. Pure.

use ballast_crds::{GROUP, class_of_key};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::Value;

use crate::cluster::view::STANDARD_FINALIZER;
use crate::cluster::writer::MANAGER;
use crate::process::text;

/// The name of the field manager that last set a part of the status, a condition or a
/// finalizer that Ballast writes, if it is not Ballast. Who only removes a field owns nothing
/// and is not found.
pub fn rival(meta: &ObjectMeta) -> Option<Box<str>> {
    let entries = meta.managed_fields.as_deref().unwrap_or_default();
    let others = entries.iter().filter(|entry| owns_ours(entry));
    let newest = others
        .filter_map(|entry| {
            Some((
                entry.time.as_ref().map(|time| time.0),
                entry.manager.as_ref()?,
            ))
        })
        .filter(|(_, manager)| *manager != MANAGER)
        .max_by_key(|(time, _)| *time);
    newest.map(|(_, manager)| text::value(manager).into_boxed_str())
}

fn owns_ours(entry: &ManagedFieldsEntry) -> bool {
    let Some(fields) = &entry.fields_v1 else {
        return false;
    };
    let fields = &fields.0;
    let status = &fields["f:status"];
    owns_any(&status["f:conditions"], is_our_condition)
        || owns_any(&fields["f:metadata"]["f:finalizers"], is_our_finalizer)
        || status.get("f:loadBalancer").is_some()
}

fn owns_any(set: &Value, is_ours: fn(&str) -> bool) -> bool {
    let keys = set.as_object().into_iter().flat_map(serde_json::Map::keys);
    keys.into_iter().any(|key| is_ours(key))
}

/// `k:{"type":"ballast.dev/Accepted"}`
fn is_our_condition(key: &str) -> bool {
    let kind = key.strip_prefix("k:{\"type\":\"");
    let name = kind.and_then(|kind| kind.strip_prefix(GROUP));
    name.is_some_and(|name| name.starts_with('/'))
}

/// `v:"ballast.dev/local"`
fn is_our_finalizer(key: &str) -> bool {
    let value = key.strip_prefix("v:\"").and_then(|it| it.strip_suffix('"'));
    value.is_some_and(|value| value == STANDARD_FINALIZER || class_of_key(value).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meta(entries: &Value) -> ObjectMeta {
        serde_json::from_value(json!({"managedFields": entries})).unwrap()
    }

    fn entry(manager: &str, second: u8, fields: &Value) -> Value {
        json!({
            "manager": manager, "operation": "Update", "apiVersion": "v1",
            "time": format!("2025-06-15T15:00:{second:02}Z"), "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        })
    }

    #[test]
    fn the_newest_other_owner_of_what_is_ours() {
        let balancer = json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
        let condition = |kind: &str| {
            let key = format!("k:{{\"type\":\"{kind}\"}}");
            json!({"f:status": {"f:conditions": {".": {}, key: {"f:status": {}}}}})
        };
        let finalizer = |name: &str| {
            let key = format!("v:\"{name}\"");
            json!({"f:metadata": {"f:finalizers": {".": {}, key: {}}}})
        };
        let spec = json!({"f:spec": {"f:ports": {}}});
        for (what, entries, expected) in [
            ("nobody", json!([]), None),
            ("ours", json!([entry("ballast", 1, &balancer)]), None),
            (
                "the newest",
                json!([
                    entry("k3s", 5, &balancer),
                    entry("ballast", 9, &balancer),
                    entry("metallb", 3, &balancer),
                    entry("kubectl-edit", 7, &spec),
                ]),
                Some("k3s"),
            ),
            (
                "a condition of ours",
                json!([entry("x", 1, &condition("ballast.dev/Accepted"))]),
                Some("x"),
            ),
            (
                "of others",
                json!([
                    entry("x", 1, &condition("example.com/Ready")),
                    entry("y", 1, &finalizer("example.com/cleanup")),
                ]),
                None,
            ),
            (
                "a finalizer of ours",
                json!([entry("x", 1, &finalizer("ballast.dev/local"))]),
                Some("x"),
            ),
            (
                "the standard finalizer",
                json!([entry("x", 1, &finalizer(STANDARD_FINALIZER))]),
                Some("x"),
            ),
        ] {
            assert_eq!(rival(&meta(&entries)).as_deref(), expected, "{what}");
        }
    }

    #[test]
    fn its_name_is_bounded_and_one_line() {
        let balancer = json!({"f:status": {"f:loadBalancer": {}}});
        let long = format!("evil\n{}", "x".repeat(10_000));
        let name = rival(&meta(&json!([entry(&long, 1, &balancer)]))).unwrap();
        assert!(name.len() <= 64 && !name.contains('\n'), "{name}");
    }
}
