//! Converts `MetalLB`'s objects to Ballast's, and writes a note for each setting that changes
//! or is lost. Pure.
//!
//! Where Ballast cannot express a setting of `MetalLB`, the result serves fewer Services, never
//! more: an address that was assigned by mistake is hard to withdraw.

use std::collections::{BTreeMap, BTreeSet};

use ballast_crds::{AddressPool, AddressPoolSpec, Edges, LoadBalancerClass, PoolEntry};
use ballast_l2::range::Form;
use ballast_l2::{Entry, EntryError};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Duration;
use serde_json::Value;

use super::anyof::{self, any_of};
use super::classes;
use super::source::{Allocation, Note, NoteKind, Object, PoolSpec, Source};

/// The label of every object that this command creates. A second run recognises them by it.
pub const FROM: (&str, &str) = ("ballast.dev/migrated-from", "metallb");

/// Limits in the CRDs.
const MOST_ENTRIES: usize = 64;
const LONGEST_NAME: usize = 63;

/// The converted objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Migration {
    /// Sorted by name.
    pub pools: Vec<AddressPool>,
    /// The first is the one that is to serve the Services without a class.
    pub classes: Vec<LoadBalancerClass>,
    /// Sorted by object.
    pub notes: Vec<Note>,
}

/// What the user decides.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The name of the class.
    pub class: &'a str,
    /// Whether it serves Services without a class from now on.
    pub default: bool,
}

/// The whole conversion.
pub fn convert(source: &Source, choice: Choice<'_>) -> Migration {
    let mut notes = source.notes.clone();
    let mut pools: BTreeMap<String, AddressPool> = BTreeMap::new();
    let labels: BTreeSet<String> = source
        .advertisements
        .iter()
        .flat_map(|one| anyof::keys(&one.spec.ip_address_pool_selectors))
        .collect();
    for object in &source.pools {
        let mut remarks = Remarks::about(&object.title, &mut notes);
        if pools.contains_key(&object.name) {
            let twice = "an IPAddressPool in another namespace has the same name, and AddressPools have no namespace";
            remarks.left_out("metadata.name", twice);
            continue;
        }
        if let Some(pool) = pool(object, &source.namespaces, &labels, &mut remarks) {
            pools.insert(object.name.clone(), pool);
        }
    }
    let made: Vec<String> = pools.keys().cloned().collect();
    let classes = classes::classes(source, &made, choice, &mut notes);
    notes.sort();
    notes.dedup();
    Migration {
        pools: pools.into_values().collect(),
        classes,
        notes,
    }
}

/// The object as a manifest, without fields that were not set.
pub fn manifest<T: serde::Serialize>(object: &T) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(object)?;
    let unsaid = [
        ("", "status"),
        ("/spec", "forceDefault"),
        ("/spec", "deletionPolicy"),
        ("/spec", "reuseAfter"),
        ("/spec", "reallocate"),
        ("/spec/l2", "failureDetection"),
        ("/spec/l2", "rebalance"),
        ("/spec/l2", "refreshInterval"),
        ("/spec/l2", "rebalance"),
    ];
    for (place, field) in unsaid {
        if let Some(Value::Object(fields)) = value.pointer_mut(place) {
            fields.remove(field);
        }
    }
    if let Some(Value::Object(spec)) = value.pointer_mut("/spec")
        && spec.get("priority").is_some_and(|it| *it == 0)
    {
        spec.remove("priority");
    }
    Ok(value)
}

fn pool(
    object: &Object<PoolSpec>,
    known: &[Namespace],
    labels: &BTreeSet<String>,
    remarks: &mut Remarks<'_>,
) -> Option<AddressPool> {
    let spec = &object.spec;
    remarks.unknown("spec", &spec.unknown);
    if object.name.len() > LONGEST_NAME {
        let message =
            format!("the name of an AddressPool can have at most {LONGEST_NAME} characters");
        return remarks.left_out("metadata.name", &message);
    }
    let addresses = addresses(spec, remarks);
    if addresses.is_empty() {
        return remarks.left_out("spec.addresses", "no entry is usable");
    }
    if addresses.len() > MOST_ENTRIES {
        let message = format!(
            "{} entries; an AddressPool can have at most {MOST_ENTRIES}. Merge adjacent entries, or use two pools",
            addresses.len()
        );
        return remarks.left_out("spec.addresses", &message);
    }
    let everyone = Allocation::default();
    let allocation = spec.service_allocation.as_ref().unwrap_or(&everyone);
    remarks.unknown("spec.serviceAllocation", &allocation.unknown);
    for (field, selectors) in [
        ("namespaceSelectors", &allocation.namespace_selectors),
        ("serviceSelectors", &allocation.service_selectors),
    ] {
        if let Some(fault) = anyof::fault(selectors) {
            return remarks.left_out(&format!("spec.serviceAllocation.{field}"), &fault);
        }
    }
    let mut pool = AddressPool::new(
        &object.name,
        AddressPoolSpec {
            addresses: addresses.into_iter().map(PoolEntry).collect(),
            auto_assign: spec.auto_assign,
            priority: allocation.priority.max(0),
            namespace_selector: namespace_selector(allocation, known, remarks),
            service_selector: service_selector(allocation, remarks),
            reuse_after: Duration::from(std::time::Duration::from_mins(2)),
            edges: if spec.avoid_buggy_ips {
                Edges::SkipOctets
            } else {
                Edges::Use
            },
            // MetalLB checks only the key.
            share_across_namespaces: true,
            reallocate: false,
        },
    );
    let kept = object
        .labels
        .iter()
        .filter(|(key, _)| labels.contains(*key));
    let kept = kept.map(|(key, value)| (key.clone(), value.clone()));
    let own = (FROM.0.to_owned(), FROM.1.to_owned());
    pool.metadata.labels = Some(kept.chain([own]).collect());
    Some(pool)
}

/// An entry as `MetalLB` reads it: an address with a prefix stands for its network.
pub(super) fn entry(text: &str) -> Result<Entry, EntryError> {
    match text.trim().parse::<Entry>() {
        Err(EntryError::HostBits { network, .. }) => network.to_string().parse(),
        read => read,
    }
}

fn addresses(spec: &PoolSpec, remarks: &mut Remarks<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for (index, text) in spec.addresses.iter().enumerate() {
        let text = text.trim();
        let field = format!("spec.addresses[{index}]");
        match entry(text) {
            Ok(entry) => {
                if spec.avoid_buggy_ips && has_own_edges(&entry) {
                    remarks.differs(&field, &format!("edges: SkipOctets also skips the first and the last address of {entry}, unless a Service requests them"));
                }
                all.push(entry.to_string());
            }
            Err(error) => {
                remarks.left_out(&field, &error.to_string());
            }
        }
    }
    all
}

/// Whether the first or last address of a network differs from those that `MetalLB` avoids.
fn has_own_edges(entry: &Entry) -> bool {
    matches!(
        (entry.form(), entry.range().first().is_ipv4()),
        (Form::Cidr(25..31), true) | (Form::Cidr(..127), false)
    )
}

fn namespace_selector(
    allocation: &Allocation,
    known: &[Namespace],
    remarks: &mut Remarks<'_>,
) -> Option<LabelSelector> {
    let names = &allocation.namespaces;
    let mut all = allocation.namespace_selectors.clone();
    if !names.is_empty() {
        all.insert(0, anyof::namespaces(names));
    }
    let first = all.first()?;
    if let Some(one) = any_of(&all) {
        return Some(one);
    }
    let field = "spec.serviceAllocation.namespaceSelectors";
    if known.is_empty() {
        remarks.differs(
            field,
            &format!(
                "an AddressPool has one namespace selector; {} is used, and the others are skipped. With access to the Namespaces of the cluster, the command lists them by name",
                anyof::text(first)
            ),
        );
        return Some(first.clone());
    }
    let selected = known.iter().filter(|namespace| {
        let labels = namespace.metadata.labels.clone().unwrap_or_default();
        anyof::matches(&allocation.namespace_selectors, &labels)
    });
    let selected = selected.filter_map(|namespace| namespace.metadata.name.clone());
    let listed: BTreeSet<String> = names.iter().cloned().chain(selected).collect();
    remarks.differs(
        field,
        "an AddressPool has one namespace selector; it lists the namespaces that are selected today. Add new namespaces to it",
    );
    Some(anyof::namespaces(&listed))
}

fn service_selector(allocation: &Allocation, remarks: &mut Remarks<'_>) -> Option<LabelSelector> {
    let all = &allocation.service_selectors;
    let first = all.first()?;
    any_of(all).or_else(|| {
        remarks.differs(
            "spec.serviceAllocation.serviceSelectors",
            &format!(
                "an AddressPool has one Service selector; {} is used, and the others are skipped. To select all these Services, give them a common label",
                anyof::text(first)
            ),
        );
        Some(first.clone())
    })
}

/// Notes about one object.
#[derive(Debug)]
pub(super) struct Remarks<'a> {
    object: &'a str,
    notes: &'a mut Vec<Note>,
}

// === impl Remarks ===

impl<'a> Remarks<'a> {
    pub(super) fn about(object: &'a str, notes: &'a mut Vec<Note>) -> Self {
        Self { object, notes }
    }

    pub(super) fn differs(&mut self, field: &str, message: &str) {
        self.push(field, NoteKind::Differs, message);
    }

    pub(super) fn no_equal(&mut self, field: &str, message: &str) {
        self.push(field, NoteKind::NoEqual, message);
    }

    /// Always `None`, for callers that have nothing else to return.
    pub(super) fn left_out(&mut self, field: &str, message: &str) -> Option<AddressPool> {
        self.push(field, NoteKind::LeftOut, message);
        None
    }

    pub(super) fn unknown(&mut self, place: &str, fields: &BTreeMap<String, Value>) {
        for field in fields.keys() {
            let message = "this version of Ballast does not support the field";
            self.no_equal(&format!("{place}.{field}"), message);
        }
    }

    fn push(&mut self, field: &str, kind: NoteKind, message: &str) {
        self.notes.push(Note {
            object: self.object.to_owned(),
            field: field.to_owned(),
            kind,
            message: message.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests;
