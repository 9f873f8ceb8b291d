//! What a watch reads of a Service's JSON. It skips the parts that no decision needs, so that
//! they cost neither memory nor much time: `metadata.managedFields` repeats every key of an
//! object, and a tenant can write thousands of annotations.
//!
//! [`super::view`] makes the stored view of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    FieldsV1, ManagedFieldsEntry, ObjectMeta, Time,
};
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};

/// A Service without the metadata that Ballast does not read. Of `managedFields` it keeps who
/// owns the load balancer, conditions and finalizers.
#[derive(Clone, Debug)]
pub struct WatchedService(pub Service);

#[derive(Deserialize)]
struct Wire {
    metadata: Metadata,
    spec: Option<ServiceSpec>,
    status: Option<ServiceStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    finalizers: Option<Vec<String>>,
    managed_fields: Option<Vec<Entry>>,
}

/// One entry of `managedFields`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    manager: Option<String>,
    time: Option<Time>,
    fields_v1: Option<Fields>,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "f:metadata")]
    metadata: Option<MetadataFields>,
    #[serde(rename = "f:status")]
    status: Option<StatusFields>,
}

#[derive(Deserialize)]
struct MetadataFields {
    #[serde(rename = "f:finalizers")]
    finalizers: Option<Keys>,
}

#[derive(Deserialize)]
struct StatusFields {
    #[serde(rename = "f:conditions")]
    conditions: Option<Keys>,
    #[serde(rename = "f:loadBalancer")]
    load_balancer: Option<IgnoredAny>,
}

/// The keys of a map.
struct Keys(Vec<String>);

struct KeysVisitor;

// === impl WatchedService ===

impl<'de> Deserialize<'de> for WatchedService {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        Ok(Self(Service {
            metadata: wire.metadata.into(),
            spec: wire.spec,
            status: wire.status,
        }))
    }
}

impl Resource for WatchedService {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Service::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Service::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Service::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Service::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

// === impl Metadata ===

impl From<Metadata> for ObjectMeta {
    fn from(wire: Metadata) -> Self {
        let entries = wire.managed_fields;
        Self {
            name: wire.name,
            namespace: wire.namespace,
            uid: wire.uid,
            resource_version: wire.resource_version,
            creation_timestamp: wire.creation_timestamp,
            deletion_timestamp: wire.deletion_timestamp,
            labels: wire.labels,
            annotations: wire.annotations,
            finalizers: wire.finalizers,
            managed_fields: entries.map(|all| all.into_iter().map(Into::into).collect()),
            ..Self::default()
        }
    }
}

// === impl Entry ===

impl From<Entry> for ManagedFieldsEntry {
    fn from(wire: Entry) -> Self {
        Self {
            manager: wire.manager,
            time: wire.time,
            fields_v1: wire.fields_v1.map(|fields| FieldsV1(fields.into())),
            ..Self::default()
        }
    }
}

// === impl Fields ===

impl From<Fields> for Value {
    fn from(wire: Fields) -> Self {
        let mut status = Map::new();
        let (of_metadata, of_status) = (wire.metadata, wire.status);
        let finalizers = of_metadata.and_then(|fields| fields.finalizers);
        if let Some(fields) = of_status {
            if let Some(conditions) = fields.conditions {
                status.insert("f:conditions".to_owned(), conditions.into());
            }
            if fields.load_balancer.is_some() {
                status.insert("f:loadBalancer".to_owned(), json!({}));
            }
        }
        json!({
            "f:metadata": {"f:finalizers": finalizers.map(Self::from)},
            "f:status": status,
        })
    }
}

// === impl Keys ===

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(KeysVisitor)
    }
}

impl<'de> Visitor<'de> for KeysVisitor {
    type Value = Keys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
        let mut keys = Vec::new();
        while let Some((key, IgnoredAny)) = map.next_entry()? {
            keys.push(key);
        }
        Ok(Keys(keys))
    }
}

impl From<Keys> for Value {
    fn from(keys: Keys) -> Self {
        let keys = keys.0.into_iter().map(|key| (key, json!({})));
        Self::Object(keys.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::ServiceView;

    /// A Service as the API server sends it, with everything that views are made of.
    fn object() -> Value {
        let condition = json!({
            "type": "ballast.dev/Accepted", "status": "True", "reason": "Accepted",
            "message": "fine", "lastTransitionTime": "2025-06-15T15:00:00Z",
        });
        let owned = json!({
            "f:metadata": {"f:finalizers": {".": {}, "v:\"ballast.dev/local\"": {}}},
            "f:spec": {"f:ports": {}},
            "f:status": {
                "f:loadBalancer": {"f:ingress": {}},
                "f:conditions": {"k:{\"type\":\"ballast.dev/Accepted\"}": {".": {}}},
            },
        });
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "1", "resourceVersion": "7",
                "creationTimestamp": "2025-06-15T15:00:00Z",
                "deletionTimestamp": "2025-06-15T16:00:00Z", "deletionGracePeriodSeconds": 0,
                "labels": {"app": "web"},
                "annotations": {"ballast.dev/share-key": "k", "ballast.dev/unknown": "x"},
                "finalizers": ["ballast.dev/local", "example.com/other"],
                "generateName": "w", "selfLink": "/x", "ownerReferences": [],
                "managedFields": [{
                    "manager": "rival", "operation": "Update", "apiVersion": "v1",
                    "time": "2025-06-15T15:00:01Z", "fieldsType": "FieldsV1",
                    "fieldsV1": owned, "subresource": "status",
                }],
            },
            "spec": {
                "type": "LoadBalancer", "ipFamilies": ["IPv4"],
                "ports": [{"port": 80, "nodePort": 30_080, "protocol": "TCP"}],
            },
            "status": {
                "loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]},
                "conditions": [condition],
            },
        })
    }

    #[test]
    fn a_view_needs_no_more_than_what_is_read() {
        let whole: Service = serde_json::from_value(object()).unwrap();
        let watched: WatchedService = serde_json::from_value(object()).unwrap();
        let (whole, view) = (ServiceView::of(&whole), ServiceView::of(&watched.0));
        assert_eq!(view, whole);
        assert_eq!(view.rival.as_deref(), Some("rival"));
    }

    #[test]
    fn it_is_watched_as_a_service() {
        assert_eq!(
            WatchedService::url_path(&(), None),
            Service::url_path(&(), None)
        );
        assert_eq!(WatchedService::api_version(&()), Service::api_version(&()));
    }

    #[test]
    fn what_owners_do_not_need_is_skipped() {
        let mut object = object();
        let many: Map<String, Value> = (0..5_000)
            .map(|n| (format!("f:ballast.dev/{n}"), json!({})))
            .collect();
        object["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["f:annotations"] =
            Value::Object(many);
        let watched: WatchedService = serde_json::from_value(object).unwrap();
        let kept = watched.0.metadata.managed_fields.unwrap();
        let size = kept[0].fields_v1.as_ref().unwrap().0.to_string().len();
        assert!(size < 300, "{size} bytes are kept");
    }
}
