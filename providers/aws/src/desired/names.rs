//! The names and tags by which the objects of a load balancer are found again, and which nodes are its targets.

use std::collections::BTreeMap;

use ballast_provider::{Family, Key, LoadBalancer, Mark, Reason, Refusal};

use super::NAMES;
use crate::nodes::Selector;
use crate::settings::{Scheme, Settings};
use crate::target::TargetType;

/// AWS's limit for the tags of an object.
const MOST_TAGS: usize = 50;
/// Tags that come later: what was applied, its birth, the signs of life and of its end, and that it is retained.
const LATER: usize = 5;

/// The scheme is part of all names, so that the successor of another scheme shares nothing with the load
/// balancer that it replaces, and can be made before that is deleted. So is the name of one that was taken over.
pub(super) fn scope(key: &Key, settings: &Settings) -> String {
    match &settings.adopted {
        Some(adopted) => format!("{key}/{}", adopted.name),
        None => scoped(key, settings.scheme.unwrap_or_default()),
    }
}

fn scoped(key: &Key, scheme: Scheme) -> String {
    format!("{key}/{}", scheme.as_str())
}

/// The name of the load balancer of one scheme.
pub(crate) fn name(mark: &Mark, key: &Key, scheme: Scheme) -> String {
    mark.name_of(NAMES, &scoped(key, scheme))
}

/// The name of the load balancer of Services with these settings.
pub(crate) fn name_of(mark: &Mark, key: &Key, settings: &Settings) -> String {
    match &settings.adopted {
        Some(adopted) => adopted.name.clone(),
        None => name(mark, key, settings.scheme.unwrap_or_default()),
    }
}

/// The tags of the objects of one Service; target groups may have one more.
pub(super) fn tags(
    mark: &Mark,
    key: &Key,
    service: &LoadBalancer,
    settings: &Settings,
) -> Result<BTreeMap<String, String>, Refusal> {
    let mut tags = settings.tags.clone();
    tags.extend(mark.tags_on(key, &service.id));
    let pods = settings.target_type == Some(TargetType::Ip);
    let bound = !settings.bound.is_empty();
    // What else target groups have: of nodes their port and labels, of pods the port, of a note what it is about.
    let by_port = pods || bound || service.families.contains(&Family::V6);
    let labels = selector(settings).tag().is_some();
    let more = usize::from(by_port) + usize::from(labels) + usize::from(bound);
    let all = tags.len() + more + LATER;
    if all > MOST_TAGS {
        return Err(Refusal::new(
            Reason::QuotaExceeded,
            format!(
                "additional-resource-tags: {all} tags, Ballast's own among them; AWS permits {MOST_TAGS}"
            ),
        ));
    }
    Ok(tags)
}

/// Pods are targets wherever they run.
pub(super) fn selector(settings: &Settings) -> Selector {
    let labels = match settings.target_type.unwrap_or_default() {
        TargetType::Instance => settings.node_labels.clone(),
        TargetType::Ip => None,
    };
    Selector::new(labels.unwrap_or_default())
}
