//! Metadata that every kind of object has, as plain values. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// `metadata.creationTimestamp`
pub fn created(meta: &ObjectMeta) -> Timestamp {
    let created = meta.creation_timestamp.as_ref();
    created.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// `metadata.resourceVersion` as a number; 0 if the server does not use numbers.
pub fn version(meta: &ObjectMeta) -> u64 {
    number(meta.resource_version.as_deref())
}

/// A version as a number; 0 if there is none, or it is no number.
pub fn number(version: Option<&str>) -> u64 {
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}
