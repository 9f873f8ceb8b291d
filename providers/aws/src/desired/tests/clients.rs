use ballast_provider::Reason;

use super::*;

#[test]
fn clients_are_those_of_the_source_ranges_and_prefix_lists() {
    let sources = |ranges: &[&str], all: &[(&str, &str)]| {
        let service = LoadBalancer {
            source_ranges: ranges
                .iter()
                .map(|it| it.parse().expect("a range"))
                .collect(),
            ..service(&[WEB])
        };
        of(&service, all).map(|it| match it.desired.groups {
            Groups::Own { rules, .. } => rules.into_iter().map(|it| it.source).collect::<Vec<_>>(),
            Groups::Given(_) => Vec::new(),
        })
    };
    let range = |text: &str| Source::Range(text.parse().expect("a range"));
    let list = Source::PrefixList("pl-1".into());
    let lists = [("security-group-prefix-lists", "pl-1")];
    assert_eq!(sources(&[], &[]), Ok(vec![range("0.0.0.0/0")]));
    assert_eq!(sources(&[], &lists), Ok(vec![list.clone()]));
    assert_eq!(
        sources(&["10.0.0.0/8"], &lists),
        Ok(vec![range("10.0.0.0/8"), list])
    );
    // AWS permits a range that no client of the load balancer can have.
    assert_eq!(sources(&["fd00::/8"], &[]), Ok(vec![range("fd00::/8")]));
    let many: Vec<String> = (0..61)
        .map(|number| format!("10.0.{number}.0/24"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refusal = sources(&many, &[]).expect_err("61 rules");
    assert_eq!(refusal.reason, Reason::QuotaExceeded);
}

#[test]
fn a_prefix_list_counts_with_all_its_entries() {
    let found = LookedUp {
        prefix_lists: [("pl-1".to_owned(), 55), ("pl-2".to_owned(), 5)].into(),
        ..found()
    };
    let refusal = |ports: u16, lists: &str, class: Settings| {
        let ports: Vec<_> = (0..ports)
            .map(|at| (Protocol::Tcp, 80 + at, 30_080 + at))
            .collect();
        let service = service(&ports);
        let settings = settings(&[("security-group-prefix-lists", lists)]).over(&class);
        check_alone(&service, &settings).expect("nothing is known before the look-up");
        let outcome = alone(&service, &settings, &found);
        outcome.err().map(|it| (it.reason, it.message))
    };
    let raised = Settings {
        most_rules: Some(120),
        ..Settings::default()
    };
    for (ports, lists, class, expected) in [
        (1, "pl-1,pl-2", Settings::default(), None),
        (
            1,
            "pl-1,pl-2,pl-3",
            Settings::default(),
            Some(
                "1 ports and their sources need 61 rules (the prefix list pl-1 counts as 55 on each port, pl-2 counts as 5 on each port)",
            ),
        ),
        (2, "pl-1", Settings::default(), Some("need 110 rules")),
        (2, "pl-1", raised.clone(), None),
        (3, "pl-1", raised, Some("at most 120")),
        (12, "pl-2", Settings::default(), None),
        (13, "pl-2", Settings::default(), Some("need 65 rules")),
    ] {
        let got = refusal(ports, lists, class);
        match (expected, &got) {
            (None, None) => {}
            (Some(words), Some((Reason::QuotaExceeded, message))) => {
                assert!(message.contains(words), "{message}");
            }
            _ => panic!("{ports} ports, {lists}: {got:?}"),
        }
    }
}

/// A router on the way is none of the clients, but it answers to the load balancer on behalf of them: AWS's
/// documentation asks for the ranges of the clients.
#[test]
fn routers_may_say_that_a_packet_is_too_large() {
    let service = LoadBalancer {
        source_ranges: vec!["10.0.0.0/8".parse().expect("a range")],
        ..service(&[WEB])
    };
    let rules = |value: &str| {
        let on = [("enable-icmp-for-path-mtu-discovery", value)];
        match desired(&service, &on).groups {
            Groups::Own { rules, .. } => rules,
            Groups::Given(_) => BTreeSet::new(),
        }
    };
    assert_eq!(rules("off").len(), 1);
    let more: Vec<Rule> = rules("on").difference(&rules("off")).cloned().collect();
    let icmp = Rule {
        traffic: Traffic::Other {
            protocol: "icmp".into(),
            from: Some(3),
            to: Some(4),
        },
        source: Source::Range("10.0.0.0/8".parse().expect("a range")),
    };
    assert_eq!(more, [icmp]);
}

#[test]
fn given_security_groups_decide_alone() {
    let all = [
        ("security-groups", "sg-1"),
        ("enable-icmp-for-path-mtu-discovery", "on"),
    ];
    let found = LookedUp {
        security_groups: vec!["sg-1".into()],
        ..found()
    };
    let service = service(&[WEB]);
    let outcome = alone(&service, &settings(&all), &found);
    let outcome = outcome.expect("accepted");
    assert_eq!(outcome.desired.groups, Groups::Given(vec!["sg-1".into()]));
    assert!(
        outcome.remarks[0].contains("have no effect"),
        "{:?}",
        outcome.remarks
    );
}
