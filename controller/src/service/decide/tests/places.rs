//! Who gets a place of a class, and a port of a shared address.

use super::*;

/// A class with so many places.
fn places(max: usize) -> Classes {
    Classes::test([ClassView {
        max: Some(max),
        ..ClassView::test("local")
    }])
}

#[test]
fn the_quota_goes_to_holders_then_to_the_oldest() {
    let classes = places(2);
    let all: Vec<ServiceView> = (1..=4)
        .map(|n| ServiceView::test(&format!("s{n}")).created(100 - n))
        .collect();
    let step = |n: usize, ledger: &Ledger| step_among(&all[n - 1], &classes, ledger, &all);
    let empty = Ledger::default();
    assert_eq!(step(4, &empty), Step::Ensure("local"), "the oldest");
    assert_eq!(step(3, &empty), Step::Ensure("local"));
    assert_eq!(step(2, &empty), Step::Refuse(Reason::QuotaExceeded));
    let held = Ledger::default();
    held.record(&id("s1"), "local");
    assert_eq!(
        step(1, &held),
        Step::Ensure("local"),
        "a holder, although the youngest"
    );
    assert_eq!(step(4, &held), Step::Ensure("local"));
    assert_eq!(step(3, &held), Step::Refuse(Reason::QuotaExceeded));
}

#[test]
fn a_refused_service_takes_no_place() {
    let classes = places(1);
    let mut unsupported = ServiceView::test("unsupported").created(1);
    if let Some(Ok(wanted)) = &mut unsupported.load_balancer {
        wanted.listeners.push(crate::fixtures::listener(666));
    }
    let invalid = ServiceView::test("invalid")
        .created(1)
        .refused(Reason::Unsupported);
    for older in [unsupported, invalid] {
        let name = older.id.name.clone();
        let all = [older, ServiceView::test("web")];
        assert_eq!(
            step_among(&all[1], &classes, &Ledger::default(), &all),
            Step::Ensure("local"),
            "{name}"
        );
    }
}

#[test]
fn sharers_of_a_key_are_one_balancer_and_ports_go_to_the_older() {
    let classes = local();
    let all = [
        ServiceView::test("a").created(1).shares("front", 80),
        ServiceView::test("b").created(2).shares("front", 443),
        ServiceView::test("c").created(3).shares("front", 80),
        ServiceView::test("d").created(4).shares("back", 80),
    ];
    let arcs: Vec<Arc<ServiceView>> = all.iter().cloned().map(Arc::new).collect();
    let ledger = Ledger::default();
    let world = World {
        classes: &classes,
        ledger: &ledger,
        namespaces: &Namespaces::default(),
        endpoints: &Endpoints::default(),
        services: &|| arcs.clone(),
        class_missing_for: ARRIVAL_GRACE,
    };
    let Decision::Ensure { balancer, .. } = decide(&all[1], &world) else {
        panic!("not ensured")
    };
    let members: Vec<&str> = balancer
        .members
        .iter()
        .map(|member| member.load_balancer.id.name.as_ref())
        .collect();
    assert_eq!(
        (balancer.key, members),
        (Key::Shared("front".into()), vec!["b"]),
        "nobody is put on a balancer before its own turn"
    );
    ledger.record_on(&all[0].id, "local", &Key::Shared("front".into()));
    let Decision::Ensure { balancer, .. } = decide(&all[1], &world) else {
        panic!("not ensured")
    };
    let members = balancer.members.iter();
    assert_eq!(
        members
            .map(|member| member.load_balancer.id.name.as_ref())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    let Decision::Refuse { refusal, .. } = decide(&all[2], &world) else {
        panic!("not refused")
    };
    assert_eq!(refusal.reason, Reason::PortInUse);
    assert!(
        refusal.message.contains("80/TCP") && refusal.message.contains("shop/a"),
        "{refusal}"
    );
}

#[test]
fn a_sharer_keeps_the_ports_that_it_publishes() {
    let front = Key::Shared("front".into());
    let all = [
        ServiceView::test("a").created(1).shares("front", 80),
        ServiceView::test("c")
            .created(3)
            .shares("front", 80)
            .held_by(&["local"])
            .publishing("192.0.2.1"),
    ];
    let ledger = Ledger::default();
    ledger.record_on(&all[1].id, "local", &front);
    let step = |n: usize| step_among(&all[n], &local(), &ledger, &all);
    assert_eq!(step(1), Step::Ensure("local"), "who has the port keeps it");
    assert_eq!(step(0), Step::Refuse(Reason::PortInUse), "although older");
}

/// A member that is refused, or moves and has not arrived, is on the balancer still.
#[test]
fn a_member_stays_with_what_it_publishes_until_it_has_left() {
    let front = Key::Shared("front".into());
    let on_front = |name: &str, created| {
        ServiceView::test(name)
            .created(created)
            .shares("front", 80 + u16::try_from(created).unwrap())
            .held_by(&["local"])
    };
    let publishes = |mut service: ServiceView, port| {
        service.ingress = vec![crate::fixtures::ingress("192.0.2.1", port)];
        service
    };
    let own = on_front("own", 1);
    let mut grown = publishes(on_front("grown", 2), 82);
    if let Some(Ok(wanted)) = &mut grown.load_balancer {
        wanted.listeners.push(crate::fixtures::listener(81));
    }
    let mut broken = publishes(on_front("broken", 3), 83);
    broken.accepted_before = match &broken.load_balancer {
        Some(Ok(wanted)) => Some(Box::new(wanted.clone())),
        _ => None,
    };
    let broken = broken.refused(Reason::Invalid);
    let moving = publishes(on_front("moving", 4).shares("back", 84), 84);
    let stranger = on_front("stranger", 5);
    let all = [own, grown, broken, moving, stranger];
    let arcs: Vec<Arc<ServiceView>> = all.iter().cloned().map(Arc::new).collect();
    let ledger = Ledger::default();
    for service in &all[..4] {
        ledger.record_on(&service.id, "local", &front);
    }
    let classes = local();
    let world = World {
        classes: &classes,
        ledger: &ledger,
        namespaces: &Namespaces::default(),
        endpoints: &Endpoints::default(),
        services: &|| arcs.clone(),
        class_missing_for: ARRIVAL_GRACE,
    };
    let Decision::Ensure { balancer, .. } = decide(&all[0], &world) else {
        panic!("not ensured")
    };
    let members: Vec<(&str, Vec<u16>)> = balancer
        .members
        .iter()
        .map(|member| {
            let listeners = member.load_balancer.listeners.iter();
            let ports = listeners.map(|listener| listener.port).collect();
            (member.load_balancer.id.name.as_ref(), ports)
        })
        .collect();
    let expected = [
        ("own", vec![81]),
        ("grown", vec![82]),
        ("broken", vec![83]),
        ("moving", vec![84]),
    ];
    assert_eq!(members, expected);
    let Decision::Ensure {
        balancer, leaves, ..
    } = decide(&all[3], &world)
    else {
        panic!("not ensured")
    };
    assert_eq!(balancer.key, Key::Shared("back".into()));
    assert_eq!(
        leaves,
        [front],
        "it leaves what it does not ask for any more"
    );
}
