//! Annotations: spellings, addresses, and those that nobody reads.

use super::*;

#[test]
fn annotations_of_metallb_mean_the_same_by_both_of_its_prefixes_and_ours_go_first() {
    for prefix in ["metallb.io", "metallb.universe.tf"] {
        let mut annotations: Annotations = [
            (format!("{prefix}/allow-shared-ip"), "web".to_owned()),
            (format!("{prefix}/address-pool"), "front".to_owned()),
        ]
        .into();
        let share_key = |annotations: &Annotations| accepted(&spec(), annotations).share_key;
        let pool = |annotations: &Annotations| {
            let meta = ObjectMeta {
                annotations: Some(annotations.clone()),
                ..ObjectMeta::default()
            };
            placement(&meta, &spec()).pool
        };
        assert_eq!(share_key(&annotations).as_deref(), Some("web"), "{prefix}");
        assert_eq!(pool(&annotations).as_deref(), Some("front"), "{prefix}");
        annotations.insert(SHARE_KEY.into(), "own".into());
        annotations.insert(ADDRESS_POOL.into(), "back".into());
        assert_eq!(share_key(&annotations).as_deref(), Some("own"));
        assert_eq!(pool(&annotations).as_deref(), Some("back"));
    }
}

#[test]
fn impossible_addresses_are_named() {
    for (value, named) in [
        ("nonsense", "has \"nonsense\": not an IP address"),
        ("2001:db8::1", "no IPv6 in spec.ipFamilies"),
        ("192.0.2.1,192.0.2.2", "more than one IPv4"),
    ] {
        let refusal = refused(&spec(), &annotated(ADDRESSES, value));
        assert_eq!(refusal.reason, Reason::Invalid);
        assert!(refusal.message.contains(named), "{refusal}");
    }
}

#[test]
fn misspelt_annotations_are_named_with_their_neighbour() {
    let annotations: Annotations = [
        ("ballast.dev/adresses", "x"),
        ("ballast.dev/share-key", "x"),
        ("ballast.dev/something-else", "x"),
        ("example.com/addresses", "x"),
        ("metallb.io/adress-pool", "x"),
        ("metallb.io/loadBalancerIP", "x"),
        ("metallb.io/ip-allocated-from-pool", "x"),
        ("metallb.universe.tf/allow-shared-ip", "x"),
        ("service.beta.kubernetes.io/aws-load-balancer-type", "nlb"),
        ("service.beta.kubernetes.io/load-balancer-source-range", "x"),
        (
            "service.beta.kubernetes.io/load-balancer-source-ranges",
            "x",
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    assert_eq!(
        unknown_annotations(&annotations, Dialect::default()),
        [
            "ballast.dev/adresses (did you mean ballast.dev/addresses?)",
            "ballast.dev/something-else",
            "metallb.io/adress-pool (did you mean metallb.io/address-pool?)",
            "metallb.io/loadBalancerIP (did you mean metallb.io/loadBalancerIPs?)",
            "service.beta.kubernetes.io/load-balancer-source-range (did you mean service.beta.kubernetes.io/load-balancer-source-ranges?)",
        ]
    );
}

/// 256 KiB of annotations, the most that the API server accepts.
fn hostile_annotations() -> Annotations {
    let key = |number: u32| (format!("ballast.dev/{number:060x}"), String::new());
    (0..3_600).map(key).collect()
}

#[test]
fn a_few_of_many_unknown_annotations_are_named() {
    let mut annotations = hostile_annotations();
    annotations.insert("metallb.io/adress-pool".to_owned(), String::new());
    let named = unknown_annotations(&annotations, Dialect::default());
    assert_eq!(named.len(), NAMED + 1);
    assert_eq!(named[NAMED], "and others");
    let length: usize = named.iter().map(String::len).sum();
    assert!(length < NAMED * 200, "{length}");
}
