//! The transition table, and properties over random situations.

use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> Time {
    Time::after_start(Duration::from_millis(ms))
}

const QUIET: Situation = Situation {
    wanted: true,
    mine: false,
    cause: None,
    turn: None,
    damping: Duration::ZERO,
    stand_in: false,
    contact: true,
    contradicted: false,
    refused: 1,
    informed: true,
};
const MINE: Situation = Situation {
    mine: true,
    ..QUIET
};

fn failed(cause: Cause, turn: usize) -> Situation {
    Situation {
        cause: Some(cause),
        turn: Some(turn),
        ..QUIET
    }
}

fn waiting(cause: Cause, ms: u64) -> State {
    let since = at(ms);
    State::Waiting { cause, since }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn transitions() {
    use State::{Answering, Checking, Idle, Probing, Refused, StandingIn};
    let now = at(10_000);
    let probing = |left, ms| Probing { left, next: at(ms) };
    let checking = |since, ask| Checking {
        since: at(since),
        ask: at(ask),
    };
    let refused = |since, asked, unanswered| Refused {
        since: at(since),
        asked: at(asked),
        unanswered,
    };
    let gone = Situation {
        wanted: false,
        ..MINE
    };
    let contradicted = Situation {
        contradicted: true,
        ..MINE
    };
    let alone = Situation {
        contact: false,
        ..MINE
    };
    let uninformed = Situation {
        informed: false,
        ..contradicted
    };
    let stand_in = Situation {
        stand_in: true,
        ..QUIET
    };
    let dead = |turn| failed(Cause::HostDead, turn);
    let claim = |cause| Some(Act::Claim(cause));
    let damped = Situation {
        damping: Duration::from_secs(10),
        ..dead(0)
    };
    for (state, situation, expected) in [
        // The Service is gone.
        (Answering, gone, (Idle, None)),
        (StandingIn, gone, (Idle, None)),
        (waiting(Cause::First, 0), gone, (Idle, None)),
        // A better claim.
        (Answering, QUIET, (Idle, None)),
        (checking(9950, 9999), QUIET, (Idle, None)),
        (probing(2, 0), QUIET, (Idle, None)),
        (refused(0, 9999, 1), QUIET, (Idle, None)),
        // A holder is no candidate any more, and nobody has claimed yet.
        (
            Answering,
            Situation {
                cause: Some(Cause::NotCandidate),
                ..MINE
            },
            (Answering, None),
        ),
        // A holder that nobody answers.
        (Answering, alone, (Answering, None)),
        // A foreign claim does not end an answer.
        (Answering, contradicted, (Answering, None)),
        // Restart: the claims say that this node holds it.
        (Idle, MINE, (checking(10_000, 10_000), None)),
        // The check.
        (
            checking(10_000, 10_000),
            MINE,
            (checking(10_000, 10_050), Some(Act::Ask)),
        ),
        (
            checking(9950, 10_000),
            MINE,
            (checking(9950, 10_500), Some(Act::Ask)),
        ),
        (checking(9900, 10_400), MINE, (Answering, None)),
        (
            checking(9900, 10_400),
            contradicted,
            (checking(9900, 10_400), None),
        ),
        (
            checking(9900, 10_400),
            alone,
            (checking(9900, 10_400), None),
        ),
        (checking(8000, 10_400), alone, (Answering, None)),
        (checking(8000, 10_400), contradicted, (Answering, None)),
        (
            checking(1000, 10_400),
            uninformed,
            (checking(1000, 10_400), None),
        ),
        // Epoch 1.
        (
            probing(3, 10_000),
            MINE,
            (probing(2, 10_100), Some(Act::Query)),
        ),
        (probing(2, 10_050), MINE, (probing(2, 10_050), None)),
        (probing(0, 10_000), MINE, (Answering, None)),
        (
            probing(1, 10_050),
            contradicted,
            (refused(10_000, 10_000, 0), None),
        ),
        // Another host uses it: it is asked every 100 ms, and after a silence at once.
        (
            refused(0, 9901, 1),
            contradicted,
            (refused(0, 9901, 0), None),
        ),
        (
            refused(0, 9900, 1),
            contradicted,
            (refused(0, 10_000, 1), Some(Act::Query)),
        ),
        (refused(0, 9951, 1), MINE, (refused(0, 9951, 1), None)),
        (
            refused(0, 9950, 1),
            MINE,
            (refused(0, 10_000, 2), Some(Act::Query)),
        ),
        (
            refused(0, 9950, 5),
            MINE,
            (refused(0, 10_000, 6), Some(Act::Query)),
        ),
        (refused(0, 9951, 6), MINE, (refused(0, 9951, 6), None)),
        (refused(0, 9950, 6), MINE, (Answering, None)),
        (
            refused(0, 9950, 6),
            alone,
            (refused(0, 10_000, 6), Some(Act::Query)),
        ),
        // Takeovers.
        (Idle, dead(0), (Idle, claim(Cause::HostDead))),
        (StandingIn, dead(0), (StandingIn, claim(Cause::HostDead))),
        (Idle, dead(1), (waiting(Cause::HostDead, 10_000), None)),
        (Idle, damped, (waiting(Cause::HostDead, 10_000), None)),
        (
            waiting(Cause::HostDead, 9601),
            dead(1),
            (waiting(Cause::HostDead, 9601), None),
        ),
        (
            waiting(Cause::HostDead, 9600),
            dead(1),
            (waiting(Cause::HostDead, 9600), claim(Cause::HostDead)),
        ),
        // A holder that is not usable gets a second to publish that it is.
        (
            Idle,
            failed(Cause::Unusable, 0),
            (waiting(Cause::Unusable, 10_000), None),
        ),
        (
            waiting(Cause::Unusable, 9000),
            failed(Cause::Unusable, 0),
            (waiting(Cause::Unusable, 9000), claim(Cause::Unusable)),
        ),
        // Another cause starts the time again.
        (
            waiting(Cause::HostDead, 0),
            failed(Cause::LeaseExpired, 2),
            (waiting(Cause::LeaseExpired, 10_000), None),
        ),
        (waiting(Cause::HostDead, 9601), QUIET, (Idle, None)),
        // It may not claim now.
        (
            Idle,
            Situation {
                turn: None,
                ..dead(0)
            },
            (Idle, None),
        ),
        (
            waiting(Cause::First, 0),
            Situation {
                turn: None,
                ..dead(0)
            },
            (Idle, None),
        ),
        // The holder's agent is silent.
        (Idle, stand_in, (StandingIn, None)),
        (StandingIn, stand_in, (StandingIn, None)),
        (StandingIn, QUIET, (Idle, None)),
    ] {
        assert_eq!(
            step(state, &situation, now),
            expected,
            "{state:?} {situation:?}"
        );
    }
}

fn any_situation() -> impl Strategy<Value = Situation> {
    let cause = prop_oneof![
        Just(None),
        Just(Some(Cause::First)),
        Just(Some(Cause::HostDead)),
        Just(Some(Cause::NotCandidate)),
    ];
    let flags = any::<[bool; 6]>();
    (cause, proptest::option::of(0..4usize), flags).prop_map(|(cause, turn, flags)| {
        let [wanted, mine, stand_in, contact, contradicted, informed] = flags;
        let refused = 1;
        Situation {
            refused,
            wanted,
            mine,
            cause,
            turn,
            damping: Duration::ZERO,
            stand_in,
            contact,
            contradicted,
            informed,
        }
    })
}

proptest! {
    /// Over any history: this node answers as its own only what its claim covers, and never
    /// starts to answer without a claim check, the probes of epoch 1, or a takeover.
    #[test]
    fn answers_have_a_reason(situations in proptest::collection::vec(any_situation(), 1..200)) {
        let (mut state, mut ms) = (State::Idle, 0);
        for situation in situations {
            ms += 50;
            let (next, act) = step(state, &situation, at(ms));
            if next == State::Answering {
                prop_assert!(situation.mine && situation.wanted);
                let from = matches!(
                    state,
                    State::Answering
                        | State::Checking { .. }
                        | State::Probing { left: 0, .. }
                        | State::Refused {
                            unanswered: CONFLICT_QUESTIONS,
                            ..
                        }
                );
                prop_assert!(from, "{:?}", state);
            }
            if next == State::StandingIn {
                prop_assert!(act.is_some() || situation.stand_in);
            }
            state = next;
            if let Some(Act::Claim(cause)) = act {
                prop_assert!(situation.turn.is_some() && situation.cause == Some(cause));
                prop_assert!(!situation.mine);
                state = State::claimed(if cause == Cause::First { 1 } else { 2 }, at(ms));
            }
        }
    }

    /// Many addresses in conflict share a bound, and a host that stays is asked less often.
    #[test]
    fn questions_are_bounded(addresses in 1..2000usize, seconds in 0..3000u64) {
        let pause = pause(Duration::from_secs(seconds), addresses);
        let per_second = u32::try_from(addresses).map(f64::from).unwrap() / pause.as_secs_f64();
        prop_assert!(per_second <= 100.1, "{}", per_second);
        prop_assert!(seconds < 600 || pause >= CONFLICT_SLOW_POLL);
    }

    /// A holder in quiet times answers within the limit of a check, whatever its state was.
    #[test]
    fn a_holder_answers_soon(contact in any::<bool>(), start in 0..6u8) {
        let mut state = match start {
            0 => State::Idle,
            1 => State::StandingIn,
            2 => State::checking(at(0)),
            3 => State::claimed(1, at(0)),
            4 => waiting(Cause::First, 0),
            _ => State::Answering,
        };
        let situation = Situation { contact, ..MINE };
        for ms in (0..=2100).step_by(50) {
            state = step(state, &situation, at(ms)).0;
        }
        prop_assert_eq!(state, State::Answering);
    }
}
