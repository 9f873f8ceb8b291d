//! `MetalLB`'s settings, read from manifests or from the cluster as one JSON value per object.
//! Pure.
//!
//! Invariants: an object that cannot be read becomes a [`Note`] and affects no other object; an
//! unknown field is named, never dropped silently.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::files::{self, NotYaml, title};
use crate::cli::service::is_load_balancer;

type Map = BTreeMap<String, String>;

/// Everything that the command reads.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Address pools.
    pub pools: Vec<Object<PoolSpec>>,
    /// Which nodes announce which pools on the local network.
    pub advertisements: Vec<Object<AdvertisementSpec>>,
    /// Which pools are announced by BGP. Ballast has no BGP, but their pools must be told
    /// apart.
    pub bgp: Vec<Object<BgpSpec>>,
    /// Namespaces that could be read, for namespace selectors.
    pub namespaces: Vec<Namespace>,
    /// Services of type `LoadBalancer`.
    pub services: Vec<Service>,
    /// Objects that cannot be read or are not supported at all.
    pub notes: Vec<Note>,
    /// The number of objects of `MetalLB`, read or not.
    pub found: usize,
}

/// An object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<T> {
    /// `KIND NAMESPACE/NAME`, as notes call it.
    pub title: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.labels`, by which advertisements choose pools.
    pub labels: Map,
    /// `spec`
    pub spec: T,
}

/// `spec` of an `IPAddressPool`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// CIDRs and `first-last`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Also serves Services that ask for neither pool nor address.
    #[serde(default = "yes")]
    pub auto_assign: bool,
    /// Skips addresses that end in .0 and .255.
    #[serde(default, rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
    /// Serves only some Services.
    pub service_allocation: Option<Allocation>,
    /// All other fields.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// `spec.serviceAllocation`: Services in one of the namespaces, and with one of the labels.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Allocation {
    /// The lowest number first; 0 is last.
    pub priority: i32,
    /// Namespaces by name.
    pub namespaces: Vec<String>,
    /// Namespaces that any of these selects.
    pub namespace_selectors: Vec<LabelSelector>,
    /// Services that any of these selects.
    pub service_selectors: Vec<LabelSelector>,
    /// All other fields.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// `spec` of an `L2Advertisement`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AdvertisementSpec {
    /// Pools by name. Empty, with empty selectors: all pools.
    pub ip_address_pools: Vec<String>,
    /// Pools that any of these selects.
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// Nodes that any of these selects; empty: all nodes.
    pub node_selectors: Vec<LabelSelector>,
    /// Exact interface names; empty: all interfaces.
    pub interfaces: Vec<String>,
    /// Only these Services.
    pub service_selectors: Vec<LabelSelector>,
    /// Nodes to prefer.
    pub preferred_node_selectors: Vec<Value>,
    /// All other fields.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, Value>,
}

/// The fields of a `BGPAdvertisement` that are read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BgpSpec {
    /// Pools by name. Empty, with empty selectors: all pools.
    pub ip_address_pools: Vec<String>,
    /// Pools that any of these selects.
    pub ip_address_pool_selectors: Vec<LabelSelector>,
}

/// A setting that changes or is lost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// `KIND NAMESPACE/NAME`
    pub object: String,
    /// The field; empty: the whole object.
    pub field: String,
    /// How it changes.
    pub kind: NoteKind,
    /// Why, and what to do.
    pub message: String,
}

/// How a setting changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum NoteKind {
    /// It is converted with a slightly different meaning.
    Differs,
    /// Ballast does not support it.
    NoEqual,
    /// It is invalid or beyond a limit, and was left out.
    LeftOut,
}

const fn yes() -> bool {
    true
}

// === impl Source ===

impl Source {
    /// Reads manifests: several documents, with lists expanded.
    pub fn read(&mut self, yaml: &str) -> Result<(), NotYaml> {
        for document in files::documents(yaml)? {
            self.add(document);
        }
        Ok(())
    }

    /// Adds one object, or those of a list. It ignores objects that are neither `MetalLB`'s nor needed.
    pub fn add(&mut self, value: Value) {
        files::each(value, &mut |object| self.one(object));
    }

    fn one(&mut self, value: Value) {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        match (version.as_str(), kind.as_str()) {
            ("v1", "Service") => self.services.extend(service(value)),
            ("v1", "Namespace") => self.namespaces.extend(serde_json::from_value(value)),
            ("v1", "ConfigMap") => self.old_configuration(&value),
            (version, kind) if version.starts_with("metallb.io/") => self.own(kind, value),
            _ => {}
        }
    }

    fn own(&mut self, kind: &str, value: Value) {
        self.found += 1;
        let title = title(kind, &value);
        let read = match kind {
            "IPAddressPool" => object(&title, value).map(|it| self.pools.push(it)),
            "L2Advertisement" => object(&title, value).map(|it| self.advertisements.push(it)),
            "BGPAdvertisement" => {
                self.has_no_equal(&title, BGP);
                object(&title, value).map(|it| self.bgp.push(it))
            }
            "BGPPeer" | "BFDProfile" | "Community" => {
                self.has_no_equal(&title, BGP);
                Ok(())
            }
            "AddressPool" => {
                self.has_no_equal(
                    &title,
                    "MetalLB 0.14 and later do not support it; convert it to IPAddressPools and L2Advertisements first",
                );
                Ok(())
            }
            // MetalLB's status is not a setting.
            _ => Ok(()),
        };
        if let Err(error) = read {
            self.notes.push(Note {
                object: title,
                field: "spec".to_owned(),
                kind: NoteKind::LeftOut,
                message: format!("the object is invalid: {error}"),
            });
        }
    }

    /// Before 0.13, `MetalLB` read all settings from one `ConfigMap`.
    fn old_configuration(&mut self, value: &Value) {
        if value["data"]["config"]
            .as_str()
            .is_some_and(|text| text.contains("address-pools:"))
        {
            self.found += 1;
            self.has_no_equal(
                &title("ConfigMap", value),
                "MetalLB 0.13 and later do not support it; convert it to IPAddressPools and L2Advertisements first",
            );
        }
    }

    fn has_no_equal(&mut self, title: &str, message: &str) {
        self.notes.push(Note {
            object: title.to_owned(),
            field: String::new(),
            kind: NoteKind::NoEqual,
            message: message.to_owned(),
        });
    }
}

const BGP: &str = "Ballast does not support BGP; it announces addresses on the local network only";

fn service(value: Value) -> Option<Service> {
    serde_json::from_value(value).ok().filter(is_load_balancer)
}

fn object<T: DeserializeOwned>(
    title: &str,
    mut value: Value,
) -> Result<Object<T>, serde_json::Error> {
    let meta: ObjectMeta = serde_json::from_value(value["metadata"].take())?;
    let spec = match value["spec"].take() {
        Value::Null => Value::Object(serde_json::Map::new()),
        spec => spec,
    };
    Ok(Object {
        title: title.to_owned(),
        name: meta.name.unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        spec: serde_json::from_value(spec)?,
    })
}

// === impl NoteKind ===

impl NoteKind {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Differs => "differs",
            Self::NoEqual => "not supported",
            Self::LeftOut => "skipped",
        }
    }
}

#[cfg(test)]
mod tests;
