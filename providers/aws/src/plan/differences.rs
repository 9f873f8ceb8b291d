//! Tags and attributes that differ. Pure.

use std::collections::BTreeMap;

use super::Plan;
use crate::call::{Call, Ref};
use crate::desired::Desired;
use crate::observed::{Observed, ObservedLoadBalancer};
use crate::settings::attributes;

// === impl Plan ===

impl Plan {
    /// Tags that differ, on the load balancer and the target groups that existed before this plan;
    /// the others have them from their creation on. A tag that the Service does not name any more
    /// is removed. Tags of AWS and Ballast's own stay.
    pub(super) fn tags(
        &mut self,
        desired: &Desired,
        present: Option<&ObservedLoadBalancer>,
        observed: &Observed,
    ) {
        let used = desired.target_groups.keys();
        let groups = used.filter_map(|name| observed.target_groups.get(name));
        let all = (present.map(|one| (&one.arn, &one.tags)).into_iter())
            .chain(groups.map(|one| (&one.arn, &one.tags)));
        let mut missing: BTreeMap<BTreeMap<String, String>, Vec<Ref>> = BTreeMap::new();
        let mut extra: BTreeMap<Vec<String>, Vec<Ref>> = BTreeMap::new();
        for (arn, tags) in all {
            let add: BTreeMap<String, String> = (desired.tags.iter())
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
                .filter(|key| !desired.tags.contains_key(*key))
                .filter(|key| !key.starts_with("aws:") && !key.starts_with("ballast.dev/"))
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
