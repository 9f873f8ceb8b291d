use std::cell::RefCell;

use tokio::time::advance;

use super::*;
use crate::rate::{LATENCY, LONGEST, Limit};

/// Only load balancers are limited: ten at once, then one per five seconds.
fn intensive() -> Limits {
    Limits {
        intensive: Limit::new(10, 0.2),
        ..Limits::NONE
    }
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A caller with much patience. Returns when it had its turn.
async fn patient(pace: &Pace, urgency: Urgency) -> Instant {
    let deadline = Instant::now() + seconds(100_000);
    pace.turn(
        Category::Intensive,
        urgency,
        deadline,
        Seat::Lost,
        Owner::default(),
    )
    .await
    .unwrap();
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn two_hundred_callers_go_in_order_at_the_rate_of_the_bucket() {
    let pace = Arc::new(Pace::new(&intensive()));
    let start = Instant::now();
    let mut callers = Vec::new();
    for _ in 0..200 {
        let of = Arc::clone(&pace);
        callers.push(tokio::spawn(
            async move { patient(&of, Urgency::Service).await },
        ));
        tokio::task::yield_now().await;
    }
    let mut went = Vec::new();
    for caller in callers {
        went.push(caller.await.unwrap() - start);
    }
    assert!(went.is_sorted(), "first come, first served");
    assert_eq!(went[9], Duration::ZERO);
    assert_eq!(went[10].as_secs(), 5);
    assert_eq!(went[199].as_secs(), 5 * 190);
    assert_eq!(pace.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_most_urgent_goes_first_and_equals_in_their_order() {
    let pace = Pace::new(&intensive());
    for _ in 0..10 {
        patient(&pace, Urgency::Background).await;
    }
    let order = RefCell::new(Vec::new());
    let caller = async |name: &'static str, urgency| {
        patient(&pace, urgency).await;
        order.borrow_mut().push(name);
    };
    tokio::join!(
        biased;
        caller("poll", Urgency::Background),
        caller("first Service", Urgency::Service),
        caller("second Service", Urgency::Service),
        caller("targets", Urgency::Traffic),
    );
    let order = order.into_inner();
    assert_eq!(
        order,
        ["targets", "first Service", "second Service", "poll"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_bucket_holds_up_nobody_else() {
    let pace = Pace::new(&intensive());
    for _ in 0..10 {
        patient(&pace, Urgency::Service).await;
    }
    let start = Instant::now();
    let waiting = patient(&pace, Urgency::Traffic);
    let other = pace.turn(
        Category::Write,
        Urgency::Background,
        start,
        Seat::Lost,
        Owner::default(),
    );
    let (went, other) = tokio::join!(waiting, other);
    assert_eq!(other, Ok(()));
    assert_eq!((went - start).as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn without_patience_a_caller_learns_when_its_turn_would_come() {
    let pace = Pace::new(&intensive());
    for _ in 0..10 {
        patient(&pace, Urgency::Service).await;
    }
    let now = Instant::now();
    let busy = pace
        .turn(
            Category::Intensive,
            Urgency::Service,
            now,
            Seat::Lost,
            Owner::default(),
        )
        .await;
    assert_eq!(busy.unwrap_err().retry_after, seconds(5) + LATENCY);
    assert_eq!(pace.waiting(), 0, "it has left the queue");
    // Each of three learns another time, so that they do not all come back at once.
    let turn = || {
        pace.turn(
            Category::Intensive,
            Urgency::Service,
            now + seconds(2),
            Seat::Lost,
            Owner::default(),
        )
    };
    let all = tokio::join!(biased; turn(), turn(), turn());
    let after = [all.0, all.1, all.2].map(|busy| busy.unwrap_err().retry_after);
    assert_eq!(after, [3, 8, 13].map(|after| seconds(after) + LATENCY));
    assert_eq!(Instant::now() - now, seconds(2), "nobody waits for longer");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_comes_at_the_deadline_counts() {
    let pace = Pace::new(&intensive());
    for _ in 0..10 {
        patient(&pace, Urgency::Service).await;
    }
    let deadline = Instant::now() + seconds(5) + LATENCY;
    let turn = pace.turn(
        Category::Intensive,
        Urgency::Service,
        deadline,
        Seat::Lost,
        Owner::default(),
    );
    assert_eq!(turn.await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_caller_leaves_its_place_to_the_next() {
    let pace = Arc::new(Pace::new(&intensive()));
    for _ in 0..10 {
        patient(&pace, Urgency::Service).await;
    }
    let start = Instant::now();
    let of = Arc::clone(&pace);
    let first = tokio::spawn(async move { patient(&of, Urgency::Traffic).await });
    let of = Arc::clone(&pace);
    let second = tokio::spawn(async move { patient(&of, Urgency::Service).await });
    advance(seconds(1)).await;
    assert_eq!(pace.waiting(), 2);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(pace.waiting(), 1);
    assert_eq!((second.await.unwrap() - start).as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn throttling_empties_the_bucket_and_halves_its_rate() {
    let pace = Pace::new(&intensive());
    let start = Instant::now();
    assert_eq!(patient(&pace, Urgency::Service).await, start);
    pace.throttled(Category::Intensive, start);
    assert_eq!(
        pace.about(Category::Intensive, Urgency::Service),
        seconds(10)
    );
    assert_eq!(patient(&pace, Urgency::Service).await - start, seconds(10));
    let deadline = Instant::now();
    let other = pace.turn(
        Category::Write,
        Urgency::Service,
        deadline,
        Seat::Lost,
        Owner::default(),
    );
    assert_eq!(other.await, Ok(()), "other buckets are as full as before");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_caller_is_told_of_throttling() {
    let pace = Arc::new(Pace::new(&intensive()));
    for _ in 0..10 {
        patient(&pace, Urgency::Service).await;
    }
    let start = Instant::now();
    let of = Arc::clone(&pace);
    let waiting = tokio::spawn(async move { patient(&of, Urgency::Service).await });
    advance(seconds(4)).await;
    // The token that it waits for is gone.
    pace.throttled(Category::Intensive, start);
    let went = waiting.await.unwrap() - start;
    assert_eq!(went, seconds(14));
}

#[tokio::test(start_paused = true)]
async fn a_retry_takes_a_token_like_any_call() {
    let pace = Pace::new(&intensive());
    let start = Instant::now();
    let mut retries = 0;
    while patient(&pace, Urgency::Service).await - start < seconds(60) {
        retries += 1;
    }
    assert_eq!(retries, 10 + 11, "ten at once, and one each five seconds");
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let pace = Pace::new(&intensive());
    for _ in 0..10 {
        patient(&pace, Urgency::Service).await;
    }
    // Tasks for all of them would take seconds.
    for _ in 0..LONGEST {
        let mut queue = pace.shared.lock();
        let ticket = queue
            .waiting
            .enter(Category::Intensive, Urgency::Service, Owner::default());
        assert!(ticket.is_some());
    }
    let deadline = Instant::now() + seconds(1_000_000);
    let turn = pace.turn(
        Category::Intensive,
        Urgency::Service,
        deadline,
        Seat::Lost,
        Owner::default(),
    );
    let busy = turn.await.unwrap_err();
    assert_eq!(busy.retry_after.as_secs(), 5 * (LONGEST as u64 + 1));
    assert_eq!(pace.waiting(), LONGEST);
}

#[tokio::test(start_paused = true)]
async fn the_driver_ends_with_the_pace() {
    let pace = Pace::new(&intensive());
    let shared = Arc::downgrade(&pace.shared);
    drop(pace);
    tokio::task::yield_now().await;
    assert!(shared.upgrade().is_none());
}

/// A caller with a place of its own does not wait in vain, and each learns its own time at once.
#[tokio::test(start_paused = true)]
async fn with_a_place_a_caller_comes_back_once_at_its_own_time() {
    let pace = Arc::new(Pace::new(&intensive()));
    let start = Instant::now();
    let mut callers = Vec::new();
    for _ in 0..200 {
        let of = Arc::clone(&pace);
        callers.push(tokio::spawn(async move {
            let (mut seat, mut told) = (Seat::Kept(None), Vec::new());
            loop {
                let deadline = Instant::now() + seconds(4);
                let turn = of.turn(
                    Category::Intensive,
                    Urgency::Service,
                    deadline,
                    seat,
                    Owner::default(),
                );
                match turn.await {
                    Ok(()) => return (told, start.elapsed()),
                    Err(busy) => {
                        told.push((start.elapsed(), start.elapsed() + busy.retry_after));
                        seat = Seat::Kept(busy.place);
                        tokio::time::sleep(busy.retry_after).await;
                    }
                }
            }
        }));
    }
    for (number, caller) in callers.into_iter().enumerate() {
        let (told, went) = caller.await.unwrap();
        let wait = 5 * u64::try_from(number).unwrap().saturating_sub(9);
        assert_eq!(went.as_secs(), wait, "{number}");
        if number < 10 {
            assert_eq!(told, []);
        } else {
            let expected = went.saturating_sub(EARLY);
            assert_eq!(told, [(Duration::ZERO, expected)], "{number}");
        }
    }
    assert_eq!(start.elapsed(), seconds(950) + LATENCY);
}

/// Callers with little patience that come back when they are told to: nothing of the bucket is
/// lost, and few come back in vain.
#[tokio::test(start_paused = true)]
async fn who_comes_back_when_told_to_loses_nothing() {
    let pace = Arc::new(Pace::new(&intensive()));
    let start = Instant::now();
    let mut callers = Vec::new();
    for _ in 0..60 {
        let of = Arc::clone(&pace);
        callers.push(tokio::spawn(async move {
            for attempt in 1.. {
                let deadline = Instant::now() + seconds(1);
                let turn = of.turn(
                    Category::Intensive,
                    Urgency::Service,
                    deadline,
                    Seat::Lost,
                    Owner::default(),
                );
                match turn.await {
                    Ok(()) => return attempt,
                    Err(busy) => tokio::time::sleep(busy.retry_after).await,
                }
            }
            0
        }));
    }
    let mut attempts = 0;
    for caller in callers {
        attempts += caller.await.unwrap();
    }
    let bound = seconds(5 * 50);
    assert!(
        start.elapsed() < bound.mul_f64(1.1),
        "{:?}",
        start.elapsed()
    );
    assert!(attempts <= 2 * 60, "{attempts} attempts of 60 callers");
}
