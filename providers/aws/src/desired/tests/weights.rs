//! Listeners that divide their connections among Services.

use super::*;
use crate::annotations::ACTIONS;
use crate::settings::weights::Weighted;

/// A Service of this name, which shares the load balancer.
fn named(name: &str, ports: &[(Protocol, u16, u16)]) -> LoadBalancer {
    let mut one = service(ports);
    one.id.name = name.into();
    one.id.uid = format!("uid-{name}").into();
    one
}

/// TCP on port 80 among these Services, with their ports and weights.
fn weights(shares: &[(&str, u16, u32)]) -> Settings {
    let groups = shares.iter().map(|(name, port, weight)| {
        format!(r#"{{"serviceName":"{name}","servicePort":{port},"weight":{weight}}}"#)
    });
    let groups = groups.collect::<Vec<_>>().join(",");
    let value = format!(r#"{{"type":"forward","forwardConfig":{{"targetGroups":[{groups}]}}}}"#);
    let weighted = Weighted::parse(&format!("{ACTIONS}TCP-80"), &value).expect("valid");
    Settings {
        weights: vec![weighted],
        ..Settings::default()
    }
}

/// Where port 80 of the first Service sends, by Service, port and weight, and what its owner is told.
fn divided(web: &Settings, others: &[LoadBalancer]) -> (Vec<(String, u32)>, Vec<String>) {
    let (first, plain) = (named("web", &[WEB]), Settings::default());
    let others = others.iter().map(|it| part(it, &plain));
    let parts: Vec<Part<'_>> = std::iter::once(part(&first, web)).chain(others).collect();
    check(&parts).expect("accepted");
    let key = Key::Shared("shop/front".into());
    let outcome = Desired::of(&mark(), &key, &parts, &found()).expect("accepted");
    let groups = &outcome.desired.target_groups;
    let sends = outcome.desired.listeners[&80].forward.iter();
    let sends = sends.map(|(name, weight)| {
        let uid = &groups[name].tags[ballast_provider::mark::SERVICE_UID];
        (format!("{uid}:{}", groups[name].port), weight)
    });
    let mut sends: Vec<_> = sends.collect();
    sends.sort();
    (sends, outcome.remarks[0].clone())
}

#[test]
fn connections_are_divided_among_those_that_share() {
    let next = named("next", &[(Protocol::Tcp, 81, 30_081)]);
    for (own, other) in [(90, 10), (0, 1), (1, 0), (999, 999)] {
        let both = weights(&[("web", 80, own), ("next", 81, other)]);
        let (sends, remarks) = divided(&both, std::slice::from_ref(&next));
        let expected = [
            ("uid-next:30081".to_owned(), other),
            ("uid-web:30080".to_owned(), own),
        ];
        assert_eq!(sends, expected);
        assert_eq!(remarks, Vec::<String>::new());
    }
    // The same port by its number and by its name.
    let value = r#"{"type":"forward","forwardConfig":{"targetGroups":[
        {"serviceName":"web","servicePort":80,"weight":1},
        {"serviceName":"web","servicePort":"80","weight":2},
        {"serviceName":"web","servicePort":"p80","weight":3},
        {"serviceName":"next","servicePort":81,"weight":1}]}}"#;
    let twice = Settings {
        weights: vec![Weighted::parse(&format!("{ACTIONS}TCP-80"), value).expect("valid")],
        ..Settings::default()
    };
    let (sends, _) = divided(&twice, std::slice::from_ref(&next));
    let expected = [
        ("uid-next:30081".to_owned(), 1),
        ("uid-web:30080".to_owned(), 6),
    ];
    assert_eq!(sends, expected);
    // Those that are left get the same if none of them has a weight.
    let left = weights(&[("web", 80, 0), ("next", 81, 0), ("gone", 82, 1)]);
    let (sends, _) = divided(&left, &[next]);
    assert_eq!(sends.iter().map(|it| it.1).collect::<Vec<_>>(), [1, 1]);
}

/// The others get the connections of one that is not there, so that no Service stops another one.
#[test]
fn who_cannot_get_connections_is_named() {
    let asks = |port| weights(&[("web", 80, 0), ("next", port, 100)]);
    let next = |ports: &[(Protocol, u16, u16)]| vec![named("next", ports)];
    let mut elsewhere = named("next", &[(Protocol::Tcp, 81, 30_081)]);
    elsewhere.id.namespace = "other".into();
    for (port, others, says) in [
        (81, vec![], "next does not share this load balancer"),
        (
            81,
            vec![elsewhere],
            "next does not share this load balancer",
        ),
        (
            82,
            next(&[(Protocol::Tcp, 81, 30_081)]),
            "next has no port 82",
        ),
        (
            81,
            next(&[(Protocol::Udp, 81, 30_081)]),
            "port 81 of the Service next has the protocol UDP",
        ),
    ] {
        let (sends, remarks) = divided(&asks(port), &others);
        assert_eq!(sends, [("uid-web:30080".to_owned(), 1)], "{says}");
        let [one] = &remarks[..] else {
            panic!("{remarks:?}");
        };
        assert!(one.contains(says) && one.contains(ACTIONS), "{one}");
    }
}

#[test]
fn the_service_itself_is_one_of_them() {
    let web = named("web", &[WEB]);
    let refusal = check_alone(&web, &weights(&[("next", 81, 1)])).expect_err("not named");
    assert!(
        refusal.message.contains("name the Service web itself"),
        "{refusal}"
    );
    let dns = named("web", &[(Protocol::Udp, 80, 30_080)]);
    let refusal = check_alone(&dns, &weights(&[("web", 80, 1)])).expect_err("no such port");
    assert!(refusal.message.contains("no port 80/TCP"), "{refusal}");
}

/// Clients with IPv6 addresses are divided alike, if every Service has target groups for them.
#[test]
fn both_families_are_divided() {
    let both = |name: &str, port: u16, families: &[Family]| LoadBalancer {
        families: families.to_vec(),
        ..named(name, &[(Protocol::Tcp, port, 30_000 + port)])
    };
    let all = [Family::V4, Family::V6];
    for (families, rule) in [(&all[..], Some(2)), (&all[..1], None)] {
        let (web, next) = (both("web", 80, &all), both("next", 81, families));
        let mut asks = weights(&[("web", 80, 9), ("next", 81, 1)]);
        asks.dualstack = Some(true);
        let plain = Settings {
            dualstack: Some(true),
            ..Settings::default()
        };
        let parts = [part(&web, &asks), part(&next, &plain)];
        let key = Key::Shared("shop/front".into());
        let outcome = Desired::of(&mark(), &key, &parts, &found()).expect("accepted");
        let listener = &outcome.desired.listeners[&80];
        assert_eq!(listener.forward.groups().count(), 2);
        let ipv6 = listener.ipv6.as_ref();
        assert_eq!(ipv6.map(|it| it.groups().count()), rule);
        let said = outcome.remarks[0].join(" ");
        assert_eq!(
            said.contains("not all of these Services"),
            rule.is_none(),
            "{said}"
        );
    }
}
