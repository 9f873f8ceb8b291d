//! The transition table, and random histories against a model that knows whether the host lives.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::timing::TICK;

fn at(ms: u64) -> Time {
    Time::after_start(Duration::from_millis(ms))
}

/// A check in each state.
fn in_state(name: &str) -> (Check, u64) {
    let mut check = Check::new(at(0));
    let mut ms = 0;
    if name != "Unproven" {
        check.proof(at(0));
    }
    let wanted = |state: State| match name {
        "Unproven" => state == State::Unproven,
        "Alive" => state == State::Alive,
        "Doubted" => matches!(state, State::Doubted { .. }),
        _ => state == State::Dead,
    };
    while !wanted(check.state()) {
        check.poll(at(ms), Some(at(ms)));
        ms += 50;
    }
    (check, ms)
}

#[test]
fn every_event_in_every_state() {
    type Event = (&'static str, fn(&mut Check, u64));
    let proof: Event = ("proof", |check, ms| check.proof(at(ms)));
    let vouch: Event = ("vouch", |check, _| check.vouch());
    let late: Event = ("late tick", |check, ms| check.late(at(ms)));
    let stop: Event = ("stop", |check, ms| check.discard(at(ms)));
    let regained: Event = ("contact", |check, ms| check.restart(at(ms)));
    let cut_off: Event = ("a message that says so", |check, _| check.cut_off());
    for (state, (event, apply), expected) in [
        ("Unproven", proof, "Alive"),
        ("Unproven", vouch, "Unproven"),
        ("Unproven", late, "Unproven"),
        ("Unproven", stop, "Unproven"),
        ("Alive", proof, "Alive"),
        ("Alive", vouch, "Alive"),
        ("Alive", late, "Alive"),
        ("Alive", stop, "Alive"),
        ("Doubted", proof, "Alive"),
        ("Doubted", vouch, "Alive"),
        ("Doubted", late, "Doubted"),
        ("Doubted", stop, "Alive"),
        ("Unproven", regained, "Unproven"),
        ("Alive", regained, "Alive"),
        ("Doubted", regained, "Doubted"),
        ("Dead", regained, "Dead"),
        ("Unproven", cut_off, "Unproven"),
        ("Alive", cut_off, "Alive"),
        ("Doubted", cut_off, "Doubted"),
        ("Dead", cut_off, "Dead"),
        ("Dead", proof, "Alive"),
        ("Dead", vouch, "Dead"),
        ("Dead", late, "Dead"),
        ("Dead", stop, "Alive"),
    ] {
        let (mut check, ms) = in_state(state);
        apply(&mut check, ms);
        let after = format!("{:?}", check.state());
        assert!(after.starts_with(expected), "{state}, {event}: {after}");
    }
}

/// Otherwise the first answer of any host would be a witness against all that were not reached either.
#[test]
fn after_contact_is_regained_a_doubt_begins_anew() {
    let (mut check, ms) = in_state("Doubted");
    check.poll(at(ms), Some(at(ms)));
    check.restart(at(ms + 10));
    let anew = State::Doubted {
        since: at(ms + 10),
        sent: 0,
    };
    assert_eq!(check.state(), anew);
}

#[test]
fn a_host_that_never_answered_is_not_judged() {
    let mut check = Check::new(at(0));
    for ms in (0..60_000).step_by(50) {
        check.poll(at(ms), Some(at(ms)));
        assert_eq!(check.state(), State::Unproven);
    }
}

#[test]
fn without_a_witness_nobody_is_dead() {
    let (mut check, start) = in_state("Doubted");
    // The last answer of a witness is older than the doubt.
    let witness = Some(at(start - 100));
    let mut asked = 0;
    for ms in (start..start + 10_000).step_by(50) {
        let step = check.poll(at(ms), witness);
        asked += u32::from(step.witnesses);
        assert!(matches!(check.state(), State::Doubted { .. }));
    }
    assert!(
        asked > 20,
        "asks witnesses again and again, not {asked} times"
    );
}

/// Polls a check of a host that dies at `death` and thaws at `thaw`, and whose messages arrive every
/// half second, the first one at `beat`. Returns when it was judged.
fn judged(death: u64, thaw: u64, ticks: &[u64], beat: u64) -> Option<u64> {
    let mut check = Check::new(at(0));
    check.proof(at(0));
    let mut answers = Vec::new();
    for &ms in ticks {
        if ms % 500 == beat / 50 * 50 && !(death..thaw).contains(&ms) {
            check.spoke(at(ms));
        }
        let arrived = answers.iter().any(|answer| *answer <= ms);
        if arrived {
            answers.retain(|answer| *answer > ms);
            check.proof(at(ms));
        }
        if check.poll(at(ms), Some(at(ms))).probe && !(death..thaw).contains(&ms) {
            answers.push(ms + 1);
        }
        if check.state() == State::Dead {
            return Some(ms);
        }
    }
    None
}

fn regular() -> Vec<u64> {
    let tick = u64::try_from(TICK.as_millis()).unwrap();
    (0..20_000)
        .step_by(usize::try_from(tick).unwrap())
        .collect()
}

/// Found on a busy machine: a node whose ticks were late again and again noticed nothing for 3 s.
#[test]
fn a_prober_with_late_ticks_finds_a_dead_host() {
    let mut check = Check::new(at(0));
    check.proof(at(0));
    let mut ms = 0;
    // Every fourth tick is 100 ms late.
    while check.state() != State::Dead {
        for gap in [50, 50, 50, 150] {
            ms += gap;
            if gap > 120 {
                check.late(at(ms));
            }
            check.poll(at(ms), Some(at(ms)));
        }
        assert!(ms <= 1600, "{:?}", check.state());
    }
}

/// Found by the simulator: the path to the host was broken, and the one from it was not. With two nodes
/// both would answer until it is back.
#[test]
fn a_host_whose_messages_arrive_is_never_judged() {
    // A beat waits for a quiet tick, which may be late.
    for gaps in [[500, 500, 500], [650, 500, 350], [700, 450, 350]] {
        let mut check = Check::new(at(0));
        check.spoke(at(0));
        let mut ms = 0;
        for gap in gaps.into_iter().cycle().take(60) {
            for _ in 0..gap / 50 {
                ms += 50;
                check.poll(at(ms), Some(at(ms)));
                assert_ne!(check.state(), State::Dead, "{gaps:?}, after {ms} ms");
            }
            check.spoke(at(ms));
        }
        // Its messages are lost, too.
        while check.state() != State::Dead {
            ms += 50;
            check.poll(at(ms), Some(at(ms)));
        }
        let spoke = check.spoke.unwrap();
        assert!(at(ms).since(spoke) <= BEAT_DUE + TICK, "{gaps:?}");
    }
}

/// A port that only sends. The host's agent says so, and other hosts answer.
#[test]
fn a_host_that_says_that_it_is_cut_off_is_judged_within_400_ms() {
    let mut check = Check::new(at(0));
    check.spoke(at(0));
    check.poll(at(0), Some(at(0)));
    check.cut_off();
    let mut ms = 0;
    while check.state() != State::Dead {
        ms += 50;
        assert!(ms <= 400, "{:?}", check.state());
        if ms == 250 {
            check.cut_off();
        }
        check.poll(at(ms), Some(at(ms)));
    }
    check.cut_off();
    assert_eq!(check.state(), State::Dead, "no proof");
    check.spoke(at(ms));
    assert_eq!(check.state(), State::Alive, "it hears again");
    // It was wrong: it answers.
    check.cut_off();
    for _ in 0..20 {
        ms += 50;
        if check.poll(at(ms), Some(at(ms))).probe {
            check.proof(at(ms));
        }
        assert_ne!(check.state(), State::Dead);
    }
}

proptest! {
    /// The bounds on which the documentation builds its table of times.
    #[test]
    fn a_dead_host_is_judged_within_800_ms(death in 1000..2000u64, beat in 0..500u64) {
        let judged = judged(death, u64::MAX, &regular(), beat).unwrap();
        prop_assert!((550..=800).contains(&(judged - death)), "after {} ms", judged - death);
    }

    #[test]
    fn a_freeze_of_half_a_second_is_never_a_death(
        death in 1000..2000u64,
        length in 0..450u64,
        beat in 0..500u64,
    ) {
        prop_assert_eq!(judged(death, death + length, &regular(), beat), None);
    }

    /// However late the prober's own ticks are, a host that answers is not judged, because the
    /// node voids what is under way on late ticks.
    #[test]
    fn a_host_that_answers_is_never_judged(gaps in proptest::collection::vec(1..400u64, 1..200)) {
        let mut check = Check::new(at(0));
        check.proof(at(0));
        let (mut ms, mut answer) = (0, None);
        for gap in gaps {
            ms += gap;
            if gap > 120 {
                check.late(at(ms));
            } else if answer.take().is_some() {
                check.proof(at(ms));
            }
            if check.poll(at(ms), Some(at(ms))).probe {
                answer = Some(());
            }
            prop_assert_eq!(check.state(), State::Alive);
        }
    }

    /// Nothing grows, whatever happens.
    #[test]
    fn probes_under_way_are_bounded(events in proptest::collection::vec(0..8u8, 1..400)) {
        let mut check = Check::new(at(0));
        let mut ms = 0;
        for event in events {
            ms += 25;
            match event {
                0 => check.proof(at(ms)),
                1 => check.vouch(),
                2 => check.discard(at(ms)),
                3 => check.late(at(ms)),
                4 => check.spoke(at(ms)),
                5 => check.cut_off(),
                _ => { check.poll(at(ms), Some(at(ms))); }
            }
            prop_assert!(check.under_way.len() <= 4, "{}", check.under_way.len());
        }
    }
}
