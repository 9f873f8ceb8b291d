//! The second Service, which stands beside the first one while clients move. Pure.

use ballast_aws::annotations::{ACTIONS, PREFIX};
use ballast_crds::class_key;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Map, Value, json};

use super::becomes::key;
use crate::cluster::translate::SOURCE_RANGES;

/// What the name of a second Service ends with.
const SUFFIX: &str = "-ballast";
/// The longest name of a Service.
const LONGEST: usize = 63;

/// What belongs to the first Service alone, or has no effect on AWS.
const DROPPED: [&str; 7] = [
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "healthCheckNodePort",
    "loadBalancerIP",
    "type",
];

/// The name of the second Service.
pub(super) fn name(first: &str) -> String {
    let most = LONGEST - SUFFIX.len();
    let cut: String = first.chars().take(most).collect();
    format!("{}{SUFFIX}", cut.trim_end_matches('-'))
}

/// The same pods, ports and settings, with a class of Ballast. Other annotations are not copied: programs that read
/// them would act on both.
pub(super) fn second(service: &Service, class: &str) -> Value {
    let meta = &service.metadata;
    let mut metadata = Map::new();
    metadata.insert(
        "name".into(),
        name(meta.name.as_deref().unwrap_or_default()).into(),
    );
    if let Some(namespace) = &meta.namespace {
        metadata.insert("namespace".into(), namespace.as_str().into());
    }
    if let Some(labels) = meta.labels.as_ref().filter(|it| !it.is_empty()) {
        metadata.insert("labels".into(), json!(labels));
    }
    // The class says what the first two said, and the last one has no effect.
    let chose = ["type", "nlb-target-type", "enable-tcp-udp-listener"].map(key);
    let kept = |key: &String| {
        let ours = key.starts_with(PREFIX) || key.starts_with(ACTIONS) || key == SOURCE_RANGES;
        ours && !chose.contains(key)
    };
    let annotations = meta.annotations.iter().flatten();
    let annotations = annotations.filter(|(key, _)| kept(key));
    let annotations: Map<String, Value> = annotations
        .map(|(key, value)| (key.clone(), value.as_str().into()))
        .collect();
    if !annotations.is_empty() {
        metadata.insert("annotations".into(), annotations.into());
    }
    let mut spec = serde_json::to_value(&service.spec).unwrap_or_default();
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|field, _| !DROPPED.contains(&field.as_str()));
        fields.insert("type".into(), "LoadBalancer".into());
        fields.insert("loadBalancerClass".into(), class_key(class).into());
    }
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            port.remove("nodePort");
        }
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": spec,
    })
}
