//! The transition table of processes, Leases over outages, and copies of messages.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> Time {
    Time::after_start(Duration::from_millis(ms))
}

fn peer() -> NodeName {
    NodeName::new("node-2")
}

fn stamp(incarnation: u64, sequence: u64) -> Stamp {
    Stamp {
        incarnation,
        sequence,
    }
}

fn with_neighbour() -> Membership {
    let mut members = Membership::new(true);
    members.set_neighbours(&BTreeSet::from([peer()]), at(0));
    members
}

#[test]
fn a_process_is_silent_after_two_seconds_or_a_closed_cable() {
    let mut members = with_neighbour();
    assert_eq!(
        members.process(&peer(), at(9000)),
        Process::Unknown,
        "never heard"
    );
    members.hear(&peer(), stamp(1, 1), at(10_000));
    assert_eq!(members.process(&peer(), at(11_999)), Process::Alive);
    let silent = |ms| Process::Silent { since: at(ms) };
    assert_eq!(members.process(&peer(), at(12_000)), silent(12_000));
    members.hear(&peer(), stamp(1, 2), at(13_000));
    assert_eq!(members.process(&peer(), at(13_000)), Process::Alive);
    members.cable(&peer(), false, at(13_100));
    assert_eq!(members.process(&peer(), at(13_100)), silent(13_100));
    members.hear(&peer(), stamp(1, 4), at(13_105));
    assert_eq!(
        members.process(&peer(), at(13_105)),
        silent(13_100),
        "late mail"
    );
    members.hear(&peer(), stamp(1, 3), at(13_200));
    assert_eq!(
        members.process(&peer(), at(13_200)),
        Process::Alive,
        "it lives"
    );
    members.cable(&peer(), false, at(13_300));
    members.cable(&peer(), true, at(14_000));
    assert_eq!(
        members.process(&peer(), at(14_000)),
        Process::Alive,
        "it is back"
    );
}

#[test]
fn only_neighbours_owe_beats() {
    let mut members = Membership::new(true);
    members.hear(&peer(), stamp(1, 1), at(0));
    assert_eq!(members.process(&peer(), at(60_000)), Process::Unknown);
    members.set_neighbours(&BTreeSet::from([peer()]), at(60_000));
    assert_eq!(
        members.process(&peer(), at(61_000)),
        Process::Alive,
        "it gets 2 s for its first beat"
    );
    assert!(matches!(
        members.process(&peer(), at(62_000)),
        Process::Silent { .. }
    ));
}

#[test]
fn without_gossip_no_process_is_judged() {
    let mut members = Membership::new(false);
    members.set_neighbours(&BTreeSet::from([peer()]), at(0));
    members.cable(&peer(), false, at(0));
    assert_eq!(members.process(&peer(), at(60_000)), Process::Unknown);
}

#[test]
fn a_lease_expires_on_the_observers_clock_and_not_in_an_outage() {
    let mut members = Membership::new(true);
    let expired = |members: &mut Membership, seconds: u64| {
        members.poll(at(seconds * 1000));
        members.lease_expired(&peer())
    };
    members.api(true, at(0));
    // The stamp is years away from any clock.
    members.lease(&peer(), u64::MAX - 5, at(0));
    assert!(!expired(&mut members, 14));
    members.api(false, at(14_500));
    assert!(!expired(&mut members, 600), "an outage expires nothing");
    members.api(true, at(600_000));
    assert!(
        !expired(&mut members, 614),
        "counted from the end of the outage"
    );
    assert!(expired(&mut members, 615));
    members.api(false, at(616_000));
    members.api(true, at(700_000));
    assert!(expired(&mut members, 700), "an outage revives nobody");
    members.lease(&peer(), 3, at(701_000));
    assert!(
        !expired(&mut members, 702),
        "a smaller stamp is a change, too"
    );
}

#[test]
fn ones_own_stall_expires_nothing() {
    let mut members = with_neighbour();
    members.api(true, at(0));
    members.lease(&peer(), 1, at(0));
    members.hear(&peer(), stamp(1, 1), at(0));
    members.discard(at(60_000));
    members.poll(at(60_000));
    assert!(!members.lease_expired(&peer()));
    assert_eq!(members.process(&peer(), at(60_000)), Process::Alive);
}

#[test]
fn a_restarted_agent_is_heard_and_its_former_process_is_not() {
    let mut members = with_neighbour();
    assert!(members.hear(&peer(), stamp(900, 77), at(0)));
    assert!(
        members.hear(&peer(), stamp(5, 1), at(1)),
        "a smaller incarnation"
    );
    assert!(
        !members.hear(&peer(), stamp(900, 78), at(2)),
        "late mail of the former process"
    );
    assert!(members.hear(&peer(), stamp(5, 2), at(3)));
}

#[test]
fn the_number_of_peers_is_bounded() {
    let mut members = Membership::new(true);
    for n in 0..=PEERS {
        let node = NodeName::new(&format!("node-{n}"));
        assert_eq!(members.hear(&node, stamp(1, 1), at(0)), n < PEERS);
    }
}

proptest! {
    /// Whatever the order, each message counts at most once, and a message that is less than 64
    /// older than the newest one counts.
    #[test]
    fn every_message_counts_once(sequences in proptest::collection::vec(1..200u64, 1..300)) {
        let mut window = Window::default();
        let (mut seen, mut highest) = (BTreeSet::new(), 0);
        for sequence in sequences {
            let recent = sequence > highest || highest - sequence < 64;
            let expected = recent && !seen.contains(&sequence);
            prop_assert_eq!(window.admit(sequence), expected, "{}", sequence);
            seen.insert(sequence);
            highest = highest.max(sequence);
        }
    }

    /// Against a model that keeps the whole log: when an agent was heard, whether its cable is
    /// closed, when its Lease was renewed and when the API server was away.
    #[test]
    fn any_history_is_judged_like_its_log(events in proptest::collection::vec((0..7u8, 1..4000u64), 1..80)) {
        let mut members = with_neighbour();
        members.api(true, at(0));
        members.lease(&peer(), 0, at(0));
        let (mut ms, mut sequence) = (0, 0);
        let mut log = Log { api: Some(0), ..Log::default() };
        for (event, pause) in events {
            // A renewal is seen before the driver reports anything later.
            for step in (0..pause).step_by(50) {
                members.poll(at(ms + step));
                log.poll(ms + step);
            }
            ms += pause;
            sequence += 1;
            match event {
                0 | 1 => {
                    members.hear(&peer(), stamp(1, sequence), at(ms));
                    log.hear(ms);
                }
                2 => {
                    members.cable(&peer(), false, at(ms));
                    log.closed = Some(ms);
                }
                3 | 4 => {
                    members.lease(&peer(), sequence, at(ms));
                    (log.renewed, log.expired) = (ms, false);
                }
                5 => {
                    members.api(true, at(ms));
                    log.api = log.api.or(Some(ms));
                }
                _ => {
                    members.api(false, at(ms));
                    log.api = None;
                }
            }
            members.poll(at(ms));
            log.poll(ms);
            prop_assert_eq!(members.lease_expired(&peer()), log.expired, "at {}", ms);
            prop_assert_eq!(members.process(&peer(), at(ms)), log.process(ms), "at {}", ms);
        }
    }
}

/// What happened to one peer, in milliseconds.
#[derive(Default)]
struct Log {
    heard: Option<u64>,
    closed: Option<u64>,
    renewed: u64,
    expired: bool,
    /// Since when the API server is reachable.
    api: Option<u64>,
}

impl Log {
    fn hear(&mut self, ms: u64) {
        self.heard = Some(ms);
        self.closed = self.closed.filter(|closed| ms - closed < 100);
    }

    fn poll(&mut self, ms: u64) {
        let quiet = self.api.map(|since| ms - since.max(self.renewed));
        self.expired |= quiet.is_some_and(|quiet| quiet >= 15_000);
    }

    fn process(&self, ms: u64) -> Process {
        let silent = |since| Process::Silent { since: at(since) };
        match (self.closed, self.heard) {
            (Some(closed), _) => silent(closed),
            (None, None) => Process::Unknown,
            (None, Some(heard)) if ms - heard < 2000 => Process::Alive,
            (None, Some(heard)) => silent(heard + 2000),
        }
    }
}
