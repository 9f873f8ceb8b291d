use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

static KEYS: LazyLock<Vec<Key>> =
    LazyLock::new(|| (0..=200).map(|number| Key::new([number; 32])).collect());

fn file(numbers: &[u8]) -> Vec<Key> {
    let key = |number: &u8| KEYS[usize::from(*number)].clone();
    numbers.iter().map(key).collect()
}

fn at(seconds: u64) -> Time {
    Time::after_start(Duration::from_secs(seconds))
}

fn number(key: &Key) -> u8 {
    key.bytes[0]
}

fn seals(keys: &Keys, now: Time) -> u8 {
    number(keys.sealing(None, now).unwrap())
}

fn opens(keys: &Keys, now: Time) -> Vec<u8> {
    keys.opening(now).map(|(_, key)| number(key)).collect()
}

/// At which minute the file has which keys; and at which minute which key seals and which open.
type Row<'a> = (&'a [(u64, &'a [u8])], &'a [(u64, u8, &'a [u8])]);

#[test]
fn the_key_changes() {
    let rows: &[Row<'_>] = &[
        // Replaced at once.
        (
            &[(0, &[1]), (60, &[2])],
            &[
                (0, 1, &[1]),
                (60, 1, &[2, 1]),
                (64, 1, &[2, 1]),
                (65, 2, &[2, 1]),
                (69, 2, &[2, 1]),
                (70, 2, &[2]),
            ],
        ),
        // The new key first, then without the old one.
        (
            &[(0, &[1]), (60, &[2, 1]), (80, &[2])],
            &[
                (60, 1, &[2, 1]),
                (65, 2, &[2, 1]),
                (80, 2, &[2, 1]),
                (90, 2, &[2]),
            ],
        ),
        // After a start with two keys, the last one is the old one.
        (&[(0, &[2, 1])], &[(0, 1, &[2, 1]), (5, 2, &[2, 1])]),
        // The only key that was ever known seals at once.
        (&[(0, &[2])], &[(0, 2, &[2])]),
        // A file that was a mistake, and is corrected.
        (
            &[(0, &[1]), (60, &[2]), (61, &[1])],
            &[(60, 1, &[2, 1]), (61, 1, &[1, 2]), (68, 1, &[1, 2])],
        ),
        // Replaced again too soon: no new key is in the file for 5 min.
        (
            &[(0, &[1]), (60, &[2]), (63, &[3]), (66, &[4])],
            &[
                (66, 1, &[4, 3, 2, 1]),
                (67, 2, &[4, 3, 2, 1]),
                (71, 4, &[4, 3, 2]),
            ],
        ),
        // It returns after others may have forgotten it, so it counts as new.
        (
            &[(0, &[1]), (60, &[2]), (68, &[1])],
            &[(68, 2, &[1, 2]), (72, 2, &[1, 2]), (73, 1, &[1, 2])],
        ),
    ];
    for (files, expected) in rows {
        let mut keys = Keys::default();
        for minute in 0..100 {
            let current = files.iter().rev().find(|(from, _)| *from <= minute);
            let now = at(60 * minute);
            keys.update(&file(current.unwrap().1), now);
            let expected = expected.iter().find(|(when, ..)| *when == minute);
            if let Some((_, sealing, opening)) = expected {
                let found = (seals(&keys, now), opens(&keys, now));
                assert_eq!(found, (*sealing, opening.to_vec()), "{files:?} {minute}");
            }
        }
    }
}

#[test]
fn before_the_first_file_nothing_seals() {
    assert!(Keys::default().sealing(None, at(0)).is_none());
}

#[test]
fn a_newer_key_of_a_peer_is_preferred_and_an_older_one_is_not() {
    let mut keys = Keys::default();
    keys.update(&file(&[1]), at(0));
    keys.update(&file(&[2]), at(600));
    let of = |keys: &Keys, wanted: u8, now| {
        let mut opening = keys.opening(now);
        opening
            .find(|(_, key)| number(key) == wanted)
            .map(|it| it.0)
    };
    let seals = |keys: &Keys, heard, now| number(keys.sealing(of(keys, heard, now), now).unwrap());
    assert_eq!(seals(&keys, 1, at(601)), 1);
    assert_eq!(seals(&keys, 2, at(601)), 2, "the peer has it");
    assert_eq!(seals(&keys, 1, at(901)), 2, "everybody has it");
}

/// After a restart all keys of the file are equally old. The one that left it last is known to
/// most nodes.
#[test]
fn of_equally_old_keys_the_one_that_vanished_last_seals() {
    let mut keys = Keys::default();
    keys.update(&file(&[1, 2]), at(0));
    keys.update(&file(&[2]), at(60));
    assert_eq!(seals(&keys, at(60)), 2);
    keys.update(&file(&[3]), at(120));
    assert_eq!(seals(&keys, at(120)), 2);
}

#[test]
fn the_number_of_keys_is_bounded() {
    let mut keys = Keys::default();
    for start in 0..100 {
        let numbers: Vec<u8> = (start..start + 20).collect();
        keys.update(&file(&numbers), at(start.into()));
        assert!(keys.known.len() <= MAX_KNOWN);
        let in_file: Vec<u8> = (start..start + 8).collect();
        assert_eq!(opens(&keys, at(start.into()))[..8], in_file);
    }
}

/// One step of the histories below: a file is read this often.
const STEP: u64 = 10;
/// Two nodes see a file at most this far apart.
const APART: u64 = 120;

/// A node with the files that it sees, and when.
#[derive(Clone)]
struct Agent {
    keys: Keys,
    sees: Vec<(u64, Vec<u8>)>,
    /// Ends the process, which forgets its keys.
    restarts: Vec<u64>,
    heard: Option<KeyId>,
}

/// Files with the seconds for which each exists.
type Files = Vec<(u64, Vec<u8>)>;

impl Agent {
    /// Sees each file up to [`APART`] after it exists, in their order.
    fn new(files: &Files, delays: &[u64], restarts: &[u64]) -> Self {
        let (mut exists, mut last) = (0, 0);
        let mut sees = Vec::new();
        for (n, (lasts, keys)) in files.iter().enumerate() {
            let delay = delays[n % delays.len()] % APART;
            last = if n == 0 {
                0
            } else {
                (exists + delay).max(last + STEP)
            };
            sees.push((last, keys.clone()));
            exists += lasts.max(&(2 * STEP));
        }
        Self {
            keys: Keys::default(),
            sees,
            restarts: restarts.to_vec(),
            heard: None,
        }
    }

    fn read(&mut self, second: u64) {
        if self
            .restarts
            .iter()
            .any(|at| second - second % STEP == at - at % STEP)
        {
            self.keys = Keys::default();
            self.heard = None;
        }
        let seen = self.seen(second).to_vec();
        self.keys.update(&file(&seen), at(second));
    }

    fn seen(&self, second: u64) -> &[u8] {
        let seen = self.sees.iter().rev().find(|(from, _)| *from <= second);
        &seen.unwrap().1
    }

    fn send(&self, now: Time) -> Key {
        self.keys.sealing(self.heard, now).unwrap().clone()
    }

    /// Whether a message opens.
    fn receive(&mut self, sealed: &Key, now: Time) -> bool {
        let opening = self.keys.opening(now).find(|(_, key)| *key == sealed);
        let opening = opening.map(|(id, _)| id);
        self.heard = opening.or(self.heard);
        opening.is_some()
    }
}

/// Both read and exchange messages in both directions, some of which are lost. Calls `check` with
/// the second, whether both see one file, and whether a message opens after an exchange, and
/// before it.
fn run(
    mut one: Agent,
    mut two: Agent,
    lost: &[bool],
    mut check: impl FnMut(u64, bool, bool, bool) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let end = one.sees.last().unwrap().0.max(two.sees.last().unwrap().0) + 20 * 60;
    for (n, second) in (0..end).step_by(usize::try_from(STEP).unwrap()).enumerate() {
        one.read(second);
        two.read(second);
        let now = at(second);
        let first =
            two.clone().receive(&one.send(now), now) && one.clone().receive(&two.send(now), now);
        let (mut later_one, mut later_two) = (one.clone(), two.clone());
        // Each asks once, and each answers.
        later_two.receive(&later_one.send(now), now);
        later_one.receive(&later_two.send(now), now);
        later_two.receive(&later_one.send(now), now);
        let exchanged = later_two.receive(&later_one.send(now), now)
            && later_one.receive(&later_two.send(now), now);
        let same = one.seen(second) == two.seen(second);
        check(second, same, exchanged, first)?;
        if !lost[n % lost.len()] {
            let sent = two.send(now);
            two.receive(&one.send(now), now);
            one.receive(&sent, now);
        }
    }
    Ok(())
}

fn any_files() -> impl Strategy<Value = Files> {
    let subset = proptest::sample::subsequence((1..=5).collect::<Vec<u8>>(), 1..=3).prop_shuffle();
    let lasts = prop_oneof![20..120u64, 120..420u64, 420..1200u64];
    vec((lasts, subset), 1..10)
}

/// As the documentation says: a new key before the old one, which goes 15 min later.
fn orderly_files() -> impl Strategy<Value = Files> {
    vec((900..1500u64, 900..1500u64), 1..5).prop_map(|steps| {
        let mut files = vec![(60, vec![0])];
        for (n, (both, alone)) in (1..).zip(steps) {
            files.push((both, vec![n, n - 1]));
            files.push((alone, vec![n]));
        }
        files
    })
}

fn delays() -> impl Strategy<Value = Vec<u64>> {
    vec(0..APART, 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the files, also replaced at once or several times in a row.
    #[test]
    fn nodes_that_see_the_same_files_open_each_others_messages(
        files in any_files(),
        one in delays(),
        two in delays(),
        lost in vec(any::<bool>(), 1..20),
    ) {
        let (one, two) = (Agent::new(&files, &one, &[]), Agent::new(&files, &two, &[]));
        run(one, two, &lost, |second, _, _, first| {
            prop_assert!(first, "second {second}");
            Ok(())
        })?;
    }

    #[test]
    fn an_orderly_change_survives_restarts(
        files in orderly_files(),
        one in (delays(), vec(0..9000u64, 0..4)),
        two in (delays(), vec(0..9000u64, 0..4)),
        lost in vec(any::<bool>(), 1..20),
    ) {
        let one = Agent::new(&files, &one.0, &one.1);
        let two = Agent::new(&files, &two.0, &two.1);
        run(one, two, &lost, |second, _, exchanged, _| {
            prop_assert!(exchanged, "second {second}");
            Ok(())
        })?;
    }

    /// A node that restarts after the file was replaced at once has no key in common with one
    /// that does not see the new file yet. As soon as it does, they talk.
    #[test]
    fn after_any_restart_one_file_is_enough(
        files in any_files(),
        one in (delays(), vec(0..9000u64, 0..4)),
        two in (delays(), vec(0..9000u64, 0..4)),
        lost in vec(any::<bool>(), 1..20),
    ) {
        let one = Agent::new(&files, &one.0, &one.1);
        let two = Agent::new(&files, &two.0, &two.1);
        run(one, two, &lost, |second, same, exchanged, _| {
            prop_assert!(exchanged || !same, "second {second}");
            Ok(())
        })?;
    }
}
