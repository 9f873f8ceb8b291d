//! How a load balancer differs from what was known of it, in words. Pure.
//!
//! [`super::follow`] compares what it reads with what was known. The words are for the people of the Service:
//! the log and an event show them.

use std::collections::BTreeMap;

use crate::observed::{
    Observed, ObservedListener, ObservedLoadBalancer, ObservedTargetGroup, SecurityGroup,
};

/// So many objects are named, and so many changes of each.
const MOST: usize = 6;

/// Changes of names, tags, checks, groups and subnets: lists say nothing else.
pub(super) fn of_lists(known: &Observed, seen: &Observed) -> Vec<String> {
    differences(known, seen, false)
}

/// All changes of what a full look reads.
pub(super) fn of_all(known: &Observed, seen: &Observed) -> Vec<String> {
    differences(known, seen, true)
}

fn differences(known: &Observed, seen: &Observed, in_full: bool) -> Vec<String> {
    let balancers = (&known.load_balancers, &seen.load_balancers);
    let groups = (&known.target_groups, &seen.target_groups);
    let clients = (&known.groups, &seen.groups);
    let of_balancer = |known: &_, seen: &_| of_balancer(known, seen, in_full);
    let of_targets = |known: &_, seen: &_| of_targets(known, seen, in_full);
    [
        objects("load balancer", balancers, of_balancer),
        objects("target group", groups, of_targets),
        objects("security group", clients, of_clients),
    ]
    .concat()
}

/// One line for people.
pub(super) fn words(changes: &[String]) -> String {
    short(changes, "; ")
}

/// The first ones, and how many more there are.
fn short(changes: &[String], between: &str) -> String {
    let (named, more) = changes.split_at(changes.len().min(MOST));
    let named = named.join(between);
    match more.len() {
        0 => named,
        more => format!("{named}{between}and {more} more"),
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
            all.push(format!("{kind} {name}: {}", short(&changes, ", ")));
        }
    }
    let new = seen.keys().filter(|name| !known.contains_key(*name));
    all.extend(new.map(|name| format!("{kind} {name} is new")));
    all
}

fn differ<T: PartialEq>(what: &str, known: &T, seen: &T) -> Option<String> {
    (known != seen).then(|| what.to_owned())
}

fn of_balancer(
    known: &ObservedLoadBalancer,
    seen: &ObservedLoadBalancer,
    in_full: bool,
) -> Vec<String> {
    let subnets = |one: &ObservedLoadBalancer| -> Vec<String> {
        one.subnets.iter().map(|it| it.id.clone()).collect()
    };
    let listed = [
        differ("tags", &known.tags, &seen.tags),
        differ("security groups", &known.groups, &seen.groups),
        differ(
            "rules for AWS PrivateLink",
            &known.private_link_rules,
            &seen.private_link_rules,
        ),
        differ("subnets", &subnets(known), &subnets(seen)),
    ];
    let mut all: Vec<String> = listed.into_iter().flatten().collect();
    if in_full {
        all.extend(differ("attributes", &known.attributes, &seen.attributes));
        // What AWS could not provide is nobody's change.
        let units = |one: &ObservedLoadBalancer| one.reservation.as_ref().map(|it| it.units);
        all.extend(differ("reserved capacity", &units(known), &units(seen)));
        all.extend(listeners(&known.listeners, &seen.listeners));
    }
    all
}

fn of_targets(
    known: &ObservedTargetGroup,
    seen: &ObservedTargetGroup,
    in_full: bool,
) -> Vec<String> {
    let listed = [
        differ("tags", &known.tags, &seen.tags),
        differ("health check", &known.check, &seen.check),
    ];
    let mut all: Vec<String> = listed.into_iter().flatten().collect();
    if in_full {
        all.extend(differ("attributes", &known.attributes, &seen.attributes));
        all.extend(targets(known, seen));
    }
    all
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
    use crate::observed::Reservation;
    use crate::plan::tests::example;

    type Edit = (&'static str, bool, fn(&mut Observed));

    fn balancer(of: &mut Observed) -> &mut ObservedLoadBalancer {
        of.load_balancers.values_mut().next().unwrap()
    }

    fn group(of: &mut Observed) -> &mut ObservedTargetGroup {
        of.target_groups.values_mut().next().unwrap()
    }

    fn clients(of: &mut Observed) -> &mut SecurityGroup {
        of.groups.values_mut().next().unwrap()
    }

    /// The words, whether a list shows it, and the change.
    const EDITS: [Edit; 16] = [
        (": tags", true, |it| balancer(it).tags.clear()),
        (": security groups", true, |it| balancer(it).groups.clear()),
        (": subnets", true, |it| balancer(it).subnets.clear()),
        (": attributes", false, |it| {
            balancer(it).attributes.insert("a".into(), "b".into());
        }),
        (": reserved capacity", false, |it| {
            balancer(it).reservation = Some(Reservation {
                units: 5_500,
                failed: None,
            });
        }),
        (": listener 80 is gone", false, |it| {
            balancer(it).listeners.clear();
        }),
        (": listener 80", false, |it| {
            balancer(it).listeners.get_mut(&80).unwrap().tags.clear();
        }),
        (": listener 80", false, |it| {
            let listener = balancer(it).listeners.get_mut(&80).unwrap();
            listener.sni.insert("arn:aws:acm:r:1:certificate/a".into());
        }),
        (": listener 81 is new", false, |it| {
            let listeners = &mut balancer(it).listeners;
            listeners.insert(81, listeners[&80].clone());
        }),
        (" is gone", true, |it| it.load_balancers.clear()),
        (": tags", true, |it| group(it).tags.clear()),
        (": health check", true, |it| group(it).check.interval += 1),
        (": attributes", false, |it| {
            group(it).attributes.insert("a".into(), "b".into());
        }),
        (": targets gone: 2, targets new: 1", false, |it| {
            group(it).targets = [crate::target::TargetId::Instance("i-other".into())].into();
        }),
        (": tags", true, |it| clients(it).tags.clear()),
        (": rules", true, |it| clients(it).rules.clear()),
    ];

    #[test]
    fn every_change_has_its_words() {
        let known = example();
        assert_eq!(of_all(&known, &known), Vec::<String>::new());
        for (says, listed, edit) in EDITS {
            let mut seen = known.clone();
            edit(&mut seen);
            let all = of_all(&known, &seen);
            assert!(
                matches!(&all[..], [one] if one.ends_with(says)),
                "{says}: {all:?}"
            );
            let lists = of_lists(&known, &seen);
            assert_eq!(lists, if listed { all } else { vec![] }, "{says}");
        }
        let mut fewer = known.clone();
        fewer.load_balancers.clear();
        let [new] = &of_lists(&fewer, &known)[..] else {
            panic!("one change");
        };
        assert!(
            new.starts_with("load balancer ") && new.ends_with(" is new"),
            "{new}"
        );
    }

    #[test]
    fn words_have_a_bound() {
        let all: Vec<String> = (0..9).map(|number| format!("c{number}")).collect();
        assert_eq!(words(&all[..2]), "c0; c1");
        assert_eq!(words(&all), "c0; c1; c2; c3; c4; c5; and 3 more");
    }
}
