//! Combines several label selectors, any of which may match, into one selector: `MetalLB` takes
//! a list where Ballast takes a single selector. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ballast_l2::Labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::pools::selectors;

type Map = BTreeMap<String, String>;

/// The label that every namespace has with its own name.
const NAME_OF_NAMESPACE: &str = "kubernetes.io/metadata.name";

/// One selector that matches what any of these matches, if one exists: they are equal, or one
/// matches everything, or all list values of one label.
pub fn any_of(selectors: &[LabelSelector]) -> Option<LabelSelector> {
    if let Some(everything) = selectors.iter().find(|one| is_empty(one)) {
        return Some(everything.clone());
    }
    let first = selectors.first()?;
    if selectors.iter().all(|one| one == first) {
        return Some(first.clone());
    }
    let (key, _) = listed(first)?;
    let mut values = BTreeSet::new();
    for selector in selectors {
        let (other, more) = listed(selector)?;
        if other != key {
            return None;
        }
        values.extend(more);
    }
    Some(one_of(key, values))
}

/// Namespaces by name.
pub fn namespaces<'a>(names: impl IntoIterator<Item = &'a String>) -> LabelSelector {
    one_of(NAME_OF_NAMESPACE, names.into_iter().cloned())
}

/// Whether one of the selectors matches; an invalid selector does not.
pub fn matches(selectors: &[LabelSelector], labels: &Map) -> bool {
    let mut read = selectors
        .iter()
        .filter_map(|one| selectors::parse(one).ok());
    let labels = Labels::from(labels);
    read.any(|selector| selector.matches(&labels))
}

/// Why one of the selectors is invalid.
pub fn fault(selectors: &[LabelSelector]) -> Option<String> {
    selectors.iter().find_map(|one| selectors::parse(one).err())
}

/// The labels that the selectors use.
pub fn keys(selectors: &[LabelSelector]) -> BTreeSet<String> {
    let of = |selector: &LabelSelector| {
        let labels = selector.match_labels.iter().flatten();
        let labels = labels.map(|(key, _)| key.clone());
        let expressions = selector.match_expressions.iter().flatten();
        let expressions = expressions.map(|one| one.key.clone());
        labels.chain(expressions).collect::<Vec<_>>()
    };
    selectors.iter().flat_map(of).collect()
}

/// For people.
pub fn text(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten();
    let labels = labels.map(|(key, value)| format!("{key}={value}"));
    let expressions = selector.match_expressions.iter().flatten().map(|one| {
        let values = one.values.iter().flatten().cloned().collect::<Vec<_>>();
        format!("{} {} ({})", one.key, one.operator, values.join(", "))
    });
    let all: Vec<String> = labels.chain(expressions).collect();
    all.join(", ")
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.iter().flatten().next().is_none()
        && selector.match_expressions.iter().flatten().next().is_none()
}

/// The label and its values, if the selector only lists values of one label.
fn listed(selector: &LabelSelector) -> Option<(&str, Vec<String>)> {
    let mut labels = selector.match_labels.iter().flatten();
    let mut expressions = selector.match_expressions.iter().flatten();
    let found = match (labels.next(), expressions.next()) {
        (Some((key, value)), None) => (key.as_str(), vec![value.clone()]),
        (None, Some(one)) if one.operator == "In" => {
            (one.key.as_str(), one.values.clone().unwrap_or_default())
        }
        _ => return None,
    };
    (labels.next().is_none() && expressions.next().is_none()).then_some(found)
}

fn one_of(key: &str, values: impl IntoIterator<Item = String>) -> LabelSelector {
    LabelSelector {
        match_labels: None,
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: key.to_owned(),
            operator: "In".to_owned(),
            values: Some(values.into_iter().collect()),
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(yaml: &str) -> LabelSelector {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn several_selectors_as_one() {
        let zone = "{matchExpressions: [{key: zone, operator: In, values: [a, b]}]}";
        for (all, expected) in [
            (vec![], None),
            (vec!["{matchLabels: {a: b}}"], Some("{matchLabels: {a: b}}")),
            (vec!["{matchLabels: {a: b}}", "{}"], Some("{}")),
            (
                vec!["{matchLabels: {zone: b}}", "{matchLabels: {zone: a}}"],
                Some(zone),
            ),
            (vec![zone, "{matchLabels: {zone: a}}"], Some(zone)),
            (vec!["{matchLabels: {a: b}}", "{matchLabels: {b: a}}"], None),
            (vec![zone, "{matchLabels: {zone: a, b: c}}"], None),
            (
                vec![zone, "{matchExpressions: [{key: zone, operator: Exists}]}"],
                None,
            ),
        ] {
            let selectors: Vec<_> = all.iter().map(|yaml| selector(yaml)).collect();
            assert_eq!(any_of(&selectors), expected.map(selector), "{all:?}");
        }
    }

    #[test]
    fn selectors_as_text_and_what_they_ask_about() {
        let all = [
            selector("{matchLabels: {a: b}}"),
            selector("{matchExpressions: [{key: c, operator: In, values: [d, e]}]}"),
        ];
        assert_eq!(text(&all[0]), "a=b");
        assert_eq!(text(&all[1]), "c In (d, e)");
        assert_eq!(keys(&all), ["a", "c"].map(str::to_owned).into());
        let near = [selector("{matchExpressions: [{key: c, operator: Near}]}")];
        assert!(fault(&near).unwrap().contains("Near"));
        assert!(!matches(&near, &Map::new()));
    }
}
