//! Whose turn it is: namespaces, and calls that are more or less urgent.

use super::*;

/// One namespace wants a hundred load balancers, and AWS permits one in five seconds.
#[test]
fn each_namespace_has_its_turn() {
    let start = Instant::now();
    let limits = none_but(Category::Intensive, Limit::new(1, 0.2));
    let mut waiting = Waiting::new(&limits, start);
    let enter = |waiting: &mut Waiting, namespace: &str| {
        let owner = Owner::of(namespace);
        let ticket = waiting.enter(Category::Intensive, Urgency::Service, owner);
        ticket.expect("room")
    };
    let many: Vec<Ticket> = (0..100).map(|_| enter(&mut waiting, "many")).collect();
    let one = enter(&mut waiting, "one");
    let two = [enter(&mut waiting, "two"), enter(&mut waiting, "two")];
    assert_eq!(waiting.remaining(one, start).as_secs(), 5);
    assert_eq!(waiting.remaining(many[1], start).as_secs(), 15);
    let went: Vec<Ticket> = run(&mut waiting, start)
        .into_iter()
        .map(|it| it.0)
        .collect();
    assert_eq!(went[..6], [many[0], one, two[0], many[1], two[1], many[2]]);
    assert_eq!(went[6..], many[3..], "each in its order");
    // Whoever waited long before has no debt.
    let again = enter(&mut waiting, "many");
    let other = enter(&mut waiting, "two");
    let went: Vec<Ticket> = run(&mut waiting, start)
        .into_iter()
        .map(|it| it.0)
        .collect();
    assert_eq!(went, [again, other]);
}

/// Whoever makes up names of namespaces does not make this process keep them.
#[test]
fn owners_have_a_bound() {
    let start = Instant::now();
    let mut waiting = Waiting::new(&Limits::NONE, start);
    for number in 0..3 * LONGEST {
        let owner = Owner::of(&number.to_string());
        let ticket = waiting.enter(Category::Write, Urgency::Service, owner);
        assert_eq!(waiting.next(start), Next::Go(ticket.expect("room")));
        assert!(waiting.owners.len() <= LONGEST);
    }
}

/// An urgent call of somebody who has many others waiting moves no round of the others on.
#[test]
fn rounds_of_one_urgency_are_no_others() {
    let start = Instant::now();
    let limits = none_but(Category::Write, Limit::new(1, 1.0));
    let mut waiting = Waiting::new(&limits, start);
    let enter = |waiting: &mut Waiting, urgency, namespace: &str| {
        let ticket = waiting.enter(Category::Write, urgency, Owner::of(namespace));
        ticket.expect("room")
    };
    let many: Vec<Ticket> = (0..100)
        .map(|_| enter(&mut waiting, Urgency::Service, "many"))
        .collect();
    let urgent = enter(&mut waiting, Urgency::Traffic, "many");
    assert_eq!(waiting.next(start), Next::Go(urgent));
    let one = enter(&mut waiting, Urgency::Service, "one");
    let went: Vec<Ticket> = run(&mut waiting, start)
        .into_iter()
        .map(|it| it.0)
        .collect();
    assert_eq!(went[..3], [many[0], one, many[1]]);
}

/// Calls that were not made are no debt.
#[test]
fn whoever_gives_up_has_its_round_again() {
    let start = Instant::now();
    let limits = none_but(Category::Write, Limit::new(1, 1.0));
    let mut waiting = Waiting::new(&limits, start);
    let enter = |waiting: &mut Waiting, namespace: &str| {
        let ticket = waiting.enter(Category::Write, Urgency::Service, Owner::of(namespace));
        ticket.expect("room")
    };
    for _ in 0..100 {
        let ticket = enter(&mut waiting, "one");
        waiting.leave(ticket);
    }
    let one = enter(&mut waiting, "one");
    let two = enter(&mut waiting, "two");
    let went: Vec<Ticket> = run(&mut waiting, start)
        .into_iter()
        .map(|it| it.0)
        .collect();
    assert_eq!(went, [one, two]);
}

/// A Service whose targets, listeners or settings change all the time keeps nobody else from going.
#[test]
fn less_urgent_calls_are_not_passed_for_ever() {
    let start = Instant::now();
    let limits = none_but(Category::Write, Limit::new(1, 1.0));
    let mut waiting = Waiting::new(&limits, start);
    let poll = enter(&mut waiting, Category::Write, Urgency::Background);
    let service = enter(&mut waiting, Category::Write, Urgency::Service);
    let mut now = start;
    let mut went = Vec::new();
    // There is always another urgent call.
    let mut urgent = enter(&mut waiting, Category::Write, Urgency::Traffic);
    while went.len() < 3 * PASSED as usize {
        match waiting.next(now) {
            Next::Go(ticket) => {
                went.push(ticket);
                if ticket == urgent {
                    urgent = enter(&mut waiting, Category::Write, Urgency::Traffic);
                }
            }
            Next::At(at) => now = at,
            Next::Idle => panic!("calls wait"),
        }
    }
    let at = |ticket| went.iter().position(|one| *one == ticket);
    let passed = PASSED as usize;
    assert_eq!((at(service), at(poll)), (Some(passed), Some(passed + 1)));
}

/// Reads and writes share the bucket of the account.
#[test]
fn calls_of_another_category_pass_nobody_for_ever() {
    let start = Instant::now();
    let limits = Limits {
        account: Limit::new(1, 1.0),
        ..Limits::NONE
    };
    let mut waiting = Waiting::new(&limits, start);
    let delete = enter(&mut waiting, Category::Write, Urgency::Background);
    for _ in 0..2 * PASSED {
        enter(&mut waiting, Category::Read, Urgency::Service);
    }
    let went = run(&mut waiting, start);
    let at = went.iter().position(|(ticket, _)| *ticket == delete);
    assert_eq!(at, Some(PASSED as usize));
}

/// Many Services of one namespace waited, were deleted, and never came back.
#[test]
fn places_that_nobody_takes_again_are_no_debt() {
    let start = Instant::now();
    let limits = none_but(Category::Intensive, Limit::new(1, 0.2));
    let mut waiting = Waiting::new(&limits, start);
    let enter = |waiting: &mut Waiting, namespace: &str| {
        let owner = Owner::of(namespace);
        let ticket = waiting.enter(Category::Intensive, Urgency::Service, owner);
        ticket.expect("room")
    };
    for _ in 0..30 {
        let ticket = enter(&mut waiting, "one");
        assert!(waiting.go_away(ticket, SECOND, start));
    }
    let later = start + KEPT + 2 * SECOND;
    assert_eq!(waiting.next(later), Next::Idle);
    let two: Vec<Ticket> = (0..3).map(|_| enter(&mut waiting, "two")).collect();
    let one = enter(&mut waiting, "one");
    let went = run(&mut waiting, later);
    let went: Vec<Ticket> = went.into_iter().map(|it| it.0).collect();
    assert_eq!(went, [two[0], one, two[1], two[2]]);
}

/// Whoever may wait only some seconds learns that the urgent ones pass it only so often, however many wait.
#[test]
fn the_expected_wait_knows_how_often_a_call_is_passed() {
    let start = Instant::now();
    let limits = none_but(Category::Write, Limit::new(1, 1.0));
    let mut waiting = Waiting::new(&limits, start);
    for _ in 0..100 {
        enter(&mut waiting, Category::Write, Urgency::Traffic);
    }
    let service = enter(&mut waiting, Category::Write, Urgency::Service);
    let expected = waiting.remaining(service, start);
    assert_eq!(expected.as_secs(), u64::from(PASSED));
    let went = run(&mut waiting, start);
    let at = went.iter().position(|(ticket, _)| *ticket == service);
    assert_eq!(at, Some(PASSED as usize));
}

/// Registrations that go while no other write may go have passed none.
#[test]
fn whoever_could_not_go_is_not_passed() {
    let start = Instant::now();
    let mut limits = none_but(Category::Write, Limit::new(1, 0.1));
    limits.account = Limit::new(100, 100.0);
    let mut waiting = Waiting::new(&limits, start);
    let first = enter(&mut waiting, Category::Write, Urgency::Service);
    assert_eq!(waiting.next(start), Next::Go(first));
    let poll = enter(&mut waiting, Category::Write, Urgency::Background);
    for _ in 0..3 * PASSED {
        enter(&mut waiting, Category::Registration, Urgency::Traffic);
    }
    let service = enter(&mut waiting, Category::Write, Urgency::Service);
    let went = run(&mut waiting, start);
    let at = |ticket| went.iter().position(|(one, _)| *one == ticket);
    assert!(at(service) < at(poll), "the more urgent one first");
}
