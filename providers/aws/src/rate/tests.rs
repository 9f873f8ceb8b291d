use proptest::prelude::*;

use super::bucket::RECOVERY;
use super::*;

mod turns;

const SECOND: Duration = Duration::from_secs(1);

fn none_but(category: Category, limit: Limit) -> Limits {
    let mut limits = Limits::NONE;
    match category {
        Category::Intensive => limits.intensive = limit,
        Category::Registration => limits.registration = limit,
        Category::Read => limits.read = limit,
        Category::Write => limits.write = limit,
        Category::Ec2Read => limits.ec2_read = limit,
        Category::Ec2Write => limits.ec2_write = limit,
        Category::Ec2Rules => limits.ec2_rules = limit,
        Category::Ec2Tags => limits.ec2_tags = limit,
    }
    limits
}

fn enter(waiting: &mut Waiting, category: Category, urgency: Urgency) -> Ticket {
    waiting
        .enter(category, urgency, Owner::default())
        .expect("room")
}

/// Lets all calls go, each as soon as it may, and says when it went.
fn run(waiting: &mut Waiting, mut now: Instant) -> Vec<(Ticket, Instant)> {
    let mut went = Vec::new();
    loop {
        match waiting.next(now) {
            Next::Go(ticket) => went.push((ticket, now)),
            Next::At(at) => {
                assert!(at > now, "time must pass");
                now = at;
            }
            Next::Idle => return went,
        }
    }
}

#[test]
fn eleven_load_balancers_take_five_seconds_more_than_ten() {
    let start = Instant::now();
    let mut waiting = Waiting::new(&Limits::default(), start);
    for _ in 0..13 {
        enter(&mut waiting, Category::Intensive, Urgency::Service);
    }
    let went: Vec<u64> = run(&mut waiting, start)
        .iter()
        .map(|(_, at)| (*at - start).as_secs())
        .collect();
    assert_eq!(went, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 10, 15]);
}

#[test]
fn the_most_urgent_goes_first_and_then_the_one_that_waits_longest() {
    let start = Instant::now();
    let mut waiting = Waiting::new(&none_but(Category::Write, Limit::new(1, 1.0)), start);
    let poll = enter(&mut waiting, Category::Write, Urgency::Background);
    let service = enter(&mut waiting, Category::Write, Urgency::Service);
    let later = enter(&mut waiting, Category::Write, Urgency::Service);
    let traffic = enter(&mut waiting, Category::Write, Urgency::Traffic);
    let order: Vec<Ticket> = run(&mut waiting, start).iter().map(|it| it.0).collect();
    assert_eq!(order, [traffic, service, later, poll]);
}

#[test]
fn an_empty_bucket_holds_up_no_other_category() {
    let start = Instant::now();
    let mut waiting = Waiting::new(&none_but(Category::Intensive, Limit::new(1, 0.2)), start);
    for _ in 0..3 {
        enter(&mut waiting, Category::Intensive, Urgency::Traffic);
    }
    let read = enter(&mut waiting, Category::Read, Urgency::Background);
    let went = run(&mut waiting, start);
    assert!(went.contains(&(read, start)), "{went:?}");
}

#[test]
fn calls_of_all_categories_share_the_accounts_bucket() {
    let start = Instant::now();
    let account = Limit::new(2, 1.0);
    let limits = Limits {
        account,
        ..none_but(Category::Read, Limit::NONE)
    };
    let mut waiting = Waiting::new(&limits, start);
    for category in [Category::Read, Category::Write, Category::Registration] {
        enter(&mut waiting, category, Urgency::Service);
    }
    // EC2 has nothing to do with it.
    let ec2 = enter(&mut waiting, Category::Ec2Read, Urgency::Background);
    let went = run(&mut waiting, start);
    let late: Vec<_> = went.iter().filter(|(_, at)| *at > start).collect();
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].1 - start, SECOND + LATENCY);
    assert!(went.contains(&(ec2, start)));
}

#[test]
fn whoever_gives_up_costs_nothing() {
    let start = Instant::now();
    let mut waiting = Waiting::new(&none_but(Category::Write, Limit::new(1, 1.0)), start);
    let first = enter(&mut waiting, Category::Write, Urgency::Service);
    let gone = enter(&mut waiting, Category::Write, Urgency::Service);
    let last = enter(&mut waiting, Category::Write, Urgency::Service);
    waiting.leave(gone);
    assert_eq!(
        run(&mut waiting, start),
        [(first, start), (last, start + SECOND + LATENCY)]
    );
}

#[test]
fn whoever_comes_back_has_its_place_and_those_behind_it_know() {
    let start = Instant::now();
    let limits = none_but(Category::Intensive, Limit::new(1, 0.2));
    let mut waiting = Waiting::new(&limits, start);
    let went = enter(&mut waiting, Category::Intensive, Urgency::Service);
    assert_eq!(waiting.next(start), Next::Go(went));
    let places: Vec<Ticket> = (0..100)
        .map(|_| enter(&mut waiting, Category::Intensive, Urgency::Service))
        .collect();
    let left = |waiting: &Waiting, ticket, now| waiting.remaining(ticket, now);
    for (number, ticket) in (1..).zip(&places) {
        let after = left(&waiting, *ticket, start);
        assert_eq!(after, 5 * SECOND * number + LATENCY);
        assert!(waiting.go_away(*ticket, after, start));
    }
    assert!(waiting.is_empty(), "nobody is present");
    let new = enter(&mut waiting, Category::Intensive, Urgency::Service);
    let after = left(&waiting, new, start);
    assert_eq!(
        after,
        5 * SECOND * 101 + LATENCY,
        "it is behind all of them"
    );
    // It holds up nobody that is away, and takes no place of theirs.
    let back = start + 5 * SECOND;
    for (category, urgency, expected) in [
        (Category::Write, Urgency::Service, false),
        (Category::Intensive, Urgency::Service, true),
    ] {
        let ticket = if expected { places[1] } else { places[0] };
        assert_eq!(waiting.come_back(ticket, category, urgency), expected);
    }
    assert!(!waiting.come_back(places[1], Category::Intensive, Urgency::Service));
    assert_eq!(
        waiting.next(back + LATENCY),
        Next::Go(places[1]),
        "before the new one, although that one waits longer"
    );
    // Those that never come back do not count for ever.
    let later = start + 5 * SECOND * 100 + LATENCY + KEPT + SECOND;
    assert_eq!(left(&waiting, new, later), Duration::ZERO);
}

#[test]
fn the_number_of_kept_places_is_bounded() {
    let now = Instant::now();
    let mut waiting = Waiting::new(&Limits::default(), now);
    for number in 0..=LONGEST {
        let ticket = enter(&mut waiting, Category::Read, Urgency::Service);
        assert_eq!(waiting.go_away(ticket, SECOND, now), number < LONGEST);
    }
    let ticket = enter(&mut waiting, Category::Read, Urgency::Service);
    let later = now + SECOND + KEPT + SECOND;
    assert!(waiting.go_away(ticket, SECOND, later));
}

#[test]
fn the_number_of_waiting_calls_is_bounded() {
    let mut waiting = Waiting::new(&Limits::default(), Instant::now());
    for _ in 0..LONGEST {
        enter(&mut waiting, Category::Read, Urgency::Background);
    }
    assert_eq!(
        waiting.enter(Category::Read, Urgency::Traffic, Owner::default()),
        None
    );
}

#[test]
fn a_throttled_category_slows_down_and_recovers() {
    let start = Instant::now();
    let mut waiting = Waiting::new(&none_but(Category::Write, Limit::new(3, 1.0)), start);
    let next = |waiting: &mut Waiting, now| {
        enter(waiting, Category::Write, Urgency::Service);
        let went = run(waiting, now);
        went[0].1
    };
    waiting.throttled(Category::Write, start, start);
    let first = next(&mut waiting, start);
    assert_eq!(first - start, 2 * SECOND, "half of its rate, from nothing");
    waiting.throttled(Category::Write, first, first);
    let second = next(&mut waiting, first);
    assert_eq!(second - first, 4 * SECOND);
    for _ in 0..10 {
        waiting.throttled(Category::Write, second, second);
    }
    let third = next(&mut waiting, second);
    assert_eq!(third - second, 16 * SECOND, "never slower than that");
    // Full again, at the full rate.
    let later = third + 10 * RECOVERY;
    assert_eq!(next(&mut waiting, later), later);
    assert_eq!(next(&mut waiting, later), later);
    assert_eq!(next(&mut waiting, later), later);
    assert_eq!(next(&mut waiting, later), later + SECOND + LATENCY);
}

#[test]
fn one_throttled_category_slows_no_other_one_and_two_slow_the_account() {
    let start = Instant::now();
    let second = |waiting: &mut Waiting| {
        for _ in 0..100 {
            enter(waiting, Category::Registration, Urgency::Traffic);
        }
        run(waiting, start).last().expect("calls").1 - start
    };
    let fresh = Waiting::new(&Limits::default(), start);
    let usual = second(&mut fresh.clone());
    let mut one = fresh.clone();
    one.throttled(Category::Intensive, start, start);
    assert_eq!(second(&mut one.clone()), usual);
    one.throttled(Category::Write, start, start);
    assert!(one.buckets[&Kind::Account].factor(start) > 1);
}

#[test]
fn answers_to_calls_before_the_slow_down_say_nothing_new() {
    let start = Instant::now();
    let mut waiting = Waiting::new(&Limits::default(), start);
    let now = start + SECOND;
    for _ in 0..10 {
        waiting.throttled(Category::Write, start, now);
    }
    assert_eq!(waiting.buckets[&Kind::Of(Category::Write)].factor(now), 2);
}

#[test]
fn a_service_learns_about_when_its_turn_comes() {
    let start = Instant::now();
    let mut waiting = Waiting::new(&Limits::default(), start);
    let about = |waiting: &Waiting| waiting.about(Category::Intensive, Urgency::Service, start);
    assert_eq!(about(&waiting), Duration::ZERO);
    for _ in 0..10 {
        enter(&mut waiting, Category::Intensive, Urgency::Service);
    }
    assert_eq!(about(&waiting), 5 * SECOND);
    for _ in 0..10 {
        enter(&mut waiting, Category::Intensive, Urgency::Background);
    }
    assert_eq!(about(&waiting), 5 * SECOND, "those come later");
    assert_eq!(
        waiting.about(Category::Intensive, Urgency::Background, start),
        55 * SECOND
    );
}

#[derive(Clone, Debug)]
enum Step {
    Enter(Category, Urgency),
    Pass(u64),
    Throttled(Category),
}

fn step() -> impl Strategy<Value = Step> {
    let category = proptest::sample::select(Category::ALL.to_vec());
    let urgency = proptest::sample::select(vec![
        Urgency::Traffic,
        Urgency::Service,
        Urgency::Background,
    ]);
    prop_oneof![
        6 => (category.clone(), urgency).prop_map(|(one, two)| Step::Enter(one, two)),
        3 => (0_u64..3_000).prop_map(Step::Pass),
        1 => category.prop_map(Step::Throttled),
    ]
}

proptest! {
    /// AWS's bucket fills from the time at which calls arrive, and they take up to [`LATENCY`]: none
    /// of them finds it empty.
    #[test]
    fn calls_that_take_unequally_long_are_not_throttled(
        burst in 1_u32..25,
        rate in 1_u32..12,
        calls in prop::collection::vec((0_u64..=300, 0_u64..2_000), 1..120),
    ) {
        let limit = Limit::new(burst, f64::from(rate));
        let mut now = Instant::now();
        let mut waiting = Waiting::new(&none_but(Category::Write, limit), now);
        let mut arrivals = Vec::new();
        for (delay, pause) in calls {
            // Most come without a pause.
            now += Duration::from_millis(pause.saturating_sub(1_600));
            enter(&mut waiting, Category::Write, Urgency::Service);
            let went = run(&mut waiting, now);
            now = went[0].1;
            arrivals.push(now + Duration::from_millis(delay));
        }
        arrivals.sort();
        let full = limit.interval * burst;
        let (mut level, mut at) = (full, arrivals[0]);
        for arrival in arrivals {
            level = (level + (arrival - at)).min(full);
            at = arrival;
            // A microsecond, because intervals are rounded.
            prop_assert!(level + Duration::from_micros(1) >= limit.interval, "{level:?}");
            level = level.saturating_sub(limit.interval);
        }
    }

    /// In no window of time go more calls than AWS allows, and every call goes.
    #[test]
    fn no_window_has_more_calls_than_its_bucket(steps in prop::collection::vec(step(), 1..200)) {
        let limits = Limits::default();
        let mut now = Instant::now();
        let mut waiting = Waiting::new(&limits, now);
        let mut categories = BTreeMap::new();
        let mut went: Vec<(Category, Instant)> = Vec::new();
        let mut entered = 0;
        for step in steps {
            match step {
                Step::Enter(category, urgency) => {
                    let ticket = enter(&mut waiting, category, urgency);
                    categories.insert(ticket, category);
                    entered += 1;
                }
                Step::Pass(millis) => now += Duration::from_millis(millis),
                Step::Throttled(category) => waiting.throttled(category, now, now),
            }
            while let Next::Go(ticket) = waiting.next(now) {
                went.push((categories[&ticket], now));
            }
        }
        went.extend(run(&mut waiting, now).into_iter().map(|(ticket, at)| (categories[&ticket], at)));
        prop_assert_eq!(went.len(), entered);
        for kind in Category::ALL.into_iter().map(Kind::Of).chain([Kind::Account]) {
            let limit = limits.of(kind);
            let times: Vec<Instant> = went
                .iter()
                .filter(|(category, _)| category.buckets().any(|one| one == kind))
                .map(|(_, at)| *at)
                .collect();
            for (first, start) in times.iter().enumerate() {
                for (last, end) in times.iter().enumerate().skip(first) {
                    let calls = u32::try_from(last - first + 1).expect("few");
                    let filled = (*end - *start).as_nanos() / limit.interval.as_nanos();
                    let allowed = u128::from(limit.burst) + filled;
                    prop_assert!(u128::from(calls) <= allowed, "{calls} of {kind:?}, {allowed} allowed");
                }
            }
        }
    }
}

#[test]
fn each_waiting_call_learns_when_its_own_turn_comes() {
    let start = Instant::now();
    let limits = none_but(Category::Intensive, Limit::new(1, 0.2));
    let mut waiting = Waiting::new(&limits, start);
    let poll = enter(&mut waiting, Category::Intensive, Urgency::Background);
    let first = enter(&mut waiting, Category::Intensive, Urgency::Service);
    let second = enter(&mut waiting, Category::Intensive, Urgency::Service);
    let left = |ticket| waiting.remaining(ticket, start).as_secs();
    assert_eq!(left(first), 0);
    assert_eq!(left(second), 5);
    assert_eq!(left(poll), 10);
    let about = waiting.about(Category::Intensive, Urgency::Service, start);
    assert_eq!(about.as_secs(), 10, "one more comes after the two");
}
