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
fn a_service_that_the_provider_refuses_takes_no_place() {
    let classes = places(1);
    let mut beyond = ServiceView::test("beyond").created(1);
    if let Some(Ok(wanted)) = &mut beyond.load_balancer {
        wanted.listeners.push(crate::fixtures::listener(666));
    }
    let all = [beyond, ServiceView::test("web")];
    assert_eq!(
        step_among(&all[1], &classes, &Ledger::default(), &all),
        Step::Ensure("local")
    );
}

#[test]
fn a_refused_service_takes_no_place() {
    let classes = places(1);
    let broken = ServiceView::test("broken")
        .created(1)
        .refused(Reason::Unsupported);
    let all = [broken, ServiceView::test("web")];
    assert_eq!(
        step_among(&all[1], &classes, &Ledger::default(), &all),
        Step::Ensure("local")
    );
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
        services: &|| arcs.clone(),
    };
    let Decision::Ensure { balancer, .. } = decide(&all[1], &world) else {
        panic!("not ensured")
    };
    let members: Vec<&str> = balancer
        .members
        .iter()
        .map(|member| member.load_balancer.id.name.as_str())
        .collect();
    assert_eq!(
        (balancer.key.0.as_str(), members),
        ("front", vec!["a", "b"])
    );
    let Decision::Refuse { refusal, .. } = decide(&all[2], &world) else {
        panic!("not refused")
    };
    assert_eq!(refusal.reason, Reason::PortInUse);
    assert!(
        refusal.message.contains("80/TCP") && refusal.message.contains("shop/a"),
        "{refusal}"
    );
    ledger.record(&all[2].id, "local");
    assert!(
        matches!(decide(&all[2], &world), Decision::Ensure { .. }),
        "who has the port keeps it"
    );
    assert!(matches!(decide(&all[0], &world), Decision::Refuse { .. }));
}
