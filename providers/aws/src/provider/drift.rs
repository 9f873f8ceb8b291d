//! What somebody else has changed, in words. Pure.
//!
//! [`super::follow`] compares what it reads with what was known. The words are for the people of the Service:
//! the log and an event show them.

use std::collections::BTreeMap;

use crate::observed::{
    Observed, ObservedListener, ObservedLoadBalancer, ObservedTargetGroup, SecurityGroup,
};

/// So many changes are named.
const MOST: usize = 6;

/// Changes of names, tags, checks, groups and subnets: lists say nothing else.
pub(super) fn of_lists(known: &Observed, seen: &Observed) -> Vec<String> {
    let balancers = objects(
        "load balancer",
        (&known.load_balancers, &seen.load_balancers),
        listed_of_balancer,
    );
    let targets = objects(
        "target group",
        (&known.target_groups, &seen.target_groups),
        listed_of_targets,
    );
    let clients = objects("security group", (&known.groups, &seen.groups), of_clients);
    [balancers, targets, clients].concat()
}

/// All changes of what a full look reads.
pub(super) fn of_all(known: &Observed, seen: &Observed) -> Vec<String> {
    let balancers = objects(
        "load balancer",
        (&known.load_balancers, &seen.load_balancers),
        |known, seen| {
            let mut all = listed_of_balancer(known, seen);
            all.extend(differ("attributes", &known.attributes, &seen.attributes));
            all.extend(listeners(&known.listeners, &seen.listeners));
            all
        },
    );
    let targets = objects(
        "target group",
        (&known.target_groups, &seen.target_groups),
        |known, seen| {
            let mut all = listed_of_targets(known, seen);
            all.extend(differ("attributes", &known.attributes, &seen.attributes));
            all.extend(targets(known, seen));
            all
        },
    );
    let clients = objects("security group", (&known.groups, &seen.groups), of_clients);
    [balancers, targets, clients].concat()
}

/// One line for people.
pub(super) fn words(changes: &[String]) -> String {
    let named = changes[..changes.len().min(MOST)].join("; ");
    match changes.len() - changes.len().min(MOST) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

/// The changes of the objects of one kind, each with its name.
fn objects<T>(
    kind: &str,
    (known, seen): (&BTreeMap<String, T>, &BTreeMap<String, T>),
    changes: impl Fn(&T, &T) -> Vec<String>,
) -> Vec<String> {
    let mut all = Vec::new();
    for (name, one) in known {
        let Some(now) = seen.get(name) else {
            all.push(format!("{kind} {name} is gone"));
            continue;
        };
        let changes = changes(one, now);
        if !changes.is_empty() {
            all.push(format!("{kind} {name}: {}", changes.join(", ")));
        }
    }
    let new = seen.keys().filter(|name| !known.contains_key(*name));
    all.extend(new.map(|name| format!("{kind} {name} is new")));
    all
}

fn differ<T: PartialEq>(what: &str, known: &T, seen: &T) -> Option<String> {
    (known != seen).then(|| what.to_owned())
}

fn listed_of_balancer(known: &ObservedLoadBalancer, seen: &ObservedLoadBalancer) -> Vec<String> {
    let subnets = |one: &ObservedLoadBalancer| -> Vec<String> {
        one.subnets.iter().map(|it| it.id.clone()).collect()
    };
    let all = [
        differ("tags", &known.tags, &seen.tags),
        differ("security groups", &known.groups, &seen.groups),
        differ("subnets", &subnets(known), &subnets(seen)),
    ];
    all.into_iter().flatten().collect()
}

fn listed_of_targets(known: &ObservedTargetGroup, seen: &ObservedTargetGroup) -> Vec<String> {
    let all = [
        differ("tags", &known.tags, &seen.tags),
        differ("health check", &known.check, &seen.check),
    ];
    all.into_iter().flatten().collect()
}

fn of_clients(known: &SecurityGroup, seen: &SecurityGroup) -> Vec<String> {
    let all = [
        differ("another ID", &known.id, &seen.id),
        differ("tags", &known.tags, &seen.tags),
        differ("rules", &known.rules, &seen.rules),
    ];
    all.into_iter().flatten().collect()
}

fn listeners(
    known: &BTreeMap<u16, ObservedListener>,
    seen: &BTreeMap<u16, ObservedListener>,
) -> Vec<String> {
    let gone = known.iter().filter_map(|(port, one)| match seen.get(port) {
        None => Some(format!("listener {port} is gone")),
        Some(now) => (now != one).then(|| format!("listener {port}")),
    });
    let new = seen.keys().filter(|port| !known.contains_key(port));
    let new = new.map(|port| format!("listener {port} is new"));
    gone.chain(new).collect()
}

fn targets(known: &ObservedTargetGroup, seen: &ObservedTargetGroup) -> Vec<String> {
    let gone = known.targets.difference(&seen.targets).count();
    let new = seen.targets.difference(&known.targets).count();
    let number =
        |number: usize, what: &str| (number > 0).then(|| format!("targets {what}: {number}"));
    let all = [number(gone, "gone"), number(new, "new")];
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::example;

    #[test]
    fn every_change_has_its_words() {
        let known = example();
        assert_eq!(of_all(&known, &known), Vec::<String>::new());
        assert_eq!(of_lists(&known, &known), Vec::<String>::new());
        let (balancer, group) = {
            let first = |keys: Option<&String>| keys.cloned().unwrap_or_default();
            (
                first(known.load_balancers.keys().next()),
                first(known.target_groups.keys().next()),
            )
        };
        let mut seen = known.clone();
        let one = seen.load_balancers.get_mut(&balancer).unwrap();
        one.listeners.clear();
        one.attributes.insert("a".into(), "b".into());
        let targets = &mut seen.target_groups.get_mut(&group).unwrap().targets;
        targets.clear();
        targets.insert("i-other".into());
        let all = of_all(&known, &seen);
        assert_eq!(
            all[0],
            format!("load balancer {balancer}: attributes, listener 80 is gone")
        );
        assert!(all[1].starts_with(&format!("target group {group}: targets gone: ")));
        assert!(all[1].ends_with(", targets new: 1"), "{all:?}");
        assert_eq!(of_lists(&known, &seen), Vec::<String>::new());
        seen.load_balancers.clear();
        assert_eq!(
            of_lists(&known, &seen),
            [format!("load balancer {balancer} is gone")]
        );
        assert_eq!(
            of_lists(&seen, &known),
            [format!("load balancer {balancer} is new")]
        );
    }

    #[test]
    fn words_have_a_bound() {
        let all: Vec<String> = (0..9).map(|number| format!("c{number}")).collect();
        assert_eq!(words(&all[..2]), "c0; c1");
        assert_eq!(words(&all), "c0; c1; c2; c3; c4; c5; and 3 more");
    }
}
