//! Properties of any view.

use proptest::prelude::*;

use super::*;

prop_compose! {
    fn any_service()(
        number in 0..4_usize,
        class in prop::sample::select(vec!["one", "two", "none"]),
        local in any::<bool>(),
        addresses in prop::collection::vec(0..3_u8, 0..3),
    ) -> ServiceFacts {
        let policy = if local { Policy::Local } else { Policy::Cluster };
        ServiceFacts {
            addresses: addresses.iter().map(|n| format!("192.0.2.{n}").parse().unwrap()).collect(),
            ..service(&format!("s{number}"), class, policy, local.then_some(30_000))
        }
    }
}

prop_compose! {
    fn any_slice()(
        number in 0..4_usize,
        ready in prop::sample::subsequence(vec!["a", "b", "c"], 0..3),
        ending in prop::sample::subsequence(vec!["a", "b", "c"], 0..3),
    ) -> SliceFacts {
        slice(&format!("s{number}"), &ready, &ending)
    }
}

proptest! {
    /// Whatever the stores contain, in any order: the view is the same, each address belongs to
    /// a Service of a known class, no selected node is outside of any class's selection, and
    /// endpoints are nodes that have some.
    #[test]
    fn a_view_follows_from_what_the_stores_contain(
        services in prop::collection::vec(any_service(), 0..6),
        slices in prop::collection::vec(any_slice(), 0..6),
        seed in any::<usize>(),
    ) {
        let classes = vec![
            ClassFacts { nodes: Some(selector("x")), ..class("one") },
            ClassFacts { detection: Detection::Lease, ..class("two") },
        ];
        // A store has one object for each name.
        let services: BTreeMap<Name, ServiceFacts> =
            services.into_iter().map(|it| (it.name.clone(), it)).collect();
        let services: Vec<_> = services.into_values().collect();
        let me = NodeName::new("a");
        let first = cluster(services.clone(), slices.clone(), classes);
        let mut second = first.clone();
        let turn = |length: usize| if length == 0 { 0 } else { seed % length };
        let turned = turn(second.services.len());
        second.services.rotate_left(turned);
        let turned = turn(second.slices.len());
        second.slices.rotate_left(turned);
        second.classes.reverse();
        second.nodes.reverse();
        second.announcers.reverse();
        let built = build(&first, &me);
        prop_assert_eq!(&built, &build(&second, &me));

        let at = |address: &IpAddr| -> Vec<&ServiceFacts> {
            let known = |it: &&ServiceFacts| *it.classes[0] != *"none";
            services.iter().filter(known).filter(|it| it.addresses.contains(address)).collect()
        };
        let every: BTreeSet<IpAddr> = services.iter().flat_map(|it| it.addresses.clone()).collect();
        for address in every {
            let services = at(&address);
            let Some(entry) = built.view.wanted.get(&address) else {
                prop_assert!(services.is_empty());
                continue;
            };
            prop_assert!(!services.is_empty());
            let restricted = services.iter().any(|it| *it.classes[0] == *"one");
            prop_assert_eq!(entry.nodes.is_some(), restricted);
            let patient = services.iter().any(|it| *it.classes[0] == *"two");
            prop_assert_eq!(entry.detection == Detection::Lease, patient);
            let theirs = |it: &&ServiceFacts| slices.iter().filter(|slice| slice.service == it.name).cloned().collect::<Vec<_>>();
            let with_node = |it: &&&ServiceFacts| theirs(it).iter().any(|slice| !(slice.ready.is_empty() && slice.ending.is_empty()));
            let local = services.iter().filter(|it| it.policy == Policy::Local);
            let some = local.filter(with_node).count();
            if entry.policy == Policy::Local {
                for node in &entry.endpoints {
                    let serves = services.iter().flat_map(theirs).any(|slice| slice.ready.contains(node) || slice.ending.contains(node));
                    prop_assert!(serves, "{node} has no endpoint");
                }
                prop_assert_eq!(entry.endpoints.is_empty(), some == 0);
            } else {
                let any = services.iter().any(|it| !theirs(it).is_empty());
                prop_assert_eq!(entry.endpoints.is_empty(), !any);
            }
            let checked = built.health.contains_key(&address);
            prop_assert!(!checked || entry.policy == Policy::Local);
        }
    }
}
