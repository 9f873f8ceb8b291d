//! Tags and attributes that differ. Pure.

use std::collections::BTreeMap;

use super::Plan;
use crate::call::{Call, Ref};
use crate::desired::{Desired, Groups};
use crate::nodes::NODE_LABELS;
use crate::observed::{Observed, ObservedLoadBalancer};
use crate::settings::attributes;

// === impl Plan ===

impl Plan {
    /// Tags that differ, on what existed before this plan; the rest has them from its creation on. A
    /// tag that the Service does not name any more is removed. Tags of AWS and Ballast's own stay, but
    /// for the one that names nodes.
    pub(super) fn tags(
        &mut self,
        desired: &Desired,
        present: Option<&ObservedLoadBalancer>,
        observed: &Observed,
    ) {
        let clients = match &desired.groups {
            Groups::Own { name, .. } => observed.groups.get(name),
            Groups::Given(_) => None,
        };
        let common = (present.map(|one| (&one.arn, &one.tags)).into_iter())
            .chain(clients.map(|one| (&one.id, &one.tags)));
        let listeners = present.into_iter().flat_map(|one| &one.listeners);
        let listeners = listeners.filter_map(|(port, one)| {
            let wanted = desired.listeners.get(port)?;
            Some((&one.arn, &one.tags, &wanted.tags))
        });
        let groups = desired.target_groups.iter().filter_map(|(name, wanted)| {
            let one = observed.target_groups.get(name)?;
            Some((&one.arn, &one.tags, &wanted.tags))
        });
        let all = (common.map(|(id, tags)| (id, tags, &desired.tags)))
            .chain(listeners)
            .chain(groups);
        let mut missing: BTreeMap<BTreeMap<String, String>, Vec<Ref>> = BTreeMap::new();
        let mut extra: BTreeMap<Vec<String>, Vec<Ref>> = BTreeMap::new();
        for (arn, tags, wanted) in all {
            let add: BTreeMap<String, String> = (wanted.iter())
                .filter(|(key, value)| tags.get(*key) != Some(value))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            if !add.is_empty() {
                missing
                    .entry(add)
                    .or_default()
                    .push(Ref::Known(arn.clone()));
            }
            let remove: Vec<String> = (tags.keys())
                .filter(|key| !wanted.contains_key(*key) && is_ours_to_remove(key))
                .cloned()
                .collect();
            if !remove.is_empty() {
                extra
                    .entry(remove)
                    .or_default()
                    .push(Ref::Known(arn.clone()));
            }
        }
        let adds = missing
            .into_iter()
            .map(|(tags, of)| Call::AddTags { of, tags });
        let removes = extra
            .into_iter()
            .map(|(keys, of)| Call::RemoveTags { of, keys });
        self.calls.extend(adds.chain(removes));
    }
}

pub(super) fn is_ours_to_remove(tag: &str) -> bool {
    tag == NODE_LABELS || !(tag.starts_with("aws:") || tag.starts_with("ballast.dev/"))
}

/// The attributes to set: those that differ, and those that are back at AWS's default because
/// nothing asks for them any more. An attribute that AWS does not report has its default.
pub(super) fn changes(
    wanted: &BTreeMap<String, String>,
    present: &BTreeMap<String, String>,
    table: &[attributes::Attribute],
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for known in table {
        let value = wanted.get(known.key).map_or(known.default, String::as_str);
        let now = present.get(known.key).map_or(known.default, String::as_str);
        if value != now {
            all.insert(known.key.to_owned(), value.to_owned());
        }
    }
    all
}
