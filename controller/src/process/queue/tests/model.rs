//! Random operations on the queue and on a simple model of it, side by side.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use rand::{SeedableRng, rngs::SmallRng};
use tokio::time::{Instant, advance};

use crate::{
    process::backoff::Backoff,
    process::queue::{Closed, Key, Queue, Work},
};

#[derive(Clone, Debug)]
enum Op {
    Add(u8),
    AddAfter(u8, u16),
    AddBackoff(u8),
    Forget(u8),
    Next,
    /// Drops one of the keys in progress.
    Done(prop::sample::Index),
    Advance(u16),
    Close,
}

/// The full state of every key, with a linear search for each question.
#[derive(Default)]
struct Model {
    keys: BTreeMap<u8, Known>,
    closed: bool,
    /// A counter that orders keys that became available at the same instant.
    ticks: u64,
    /// When each group had its last turn or, if later, got a key after it had none.
    turns: BTreeMap<u8, u64>,
}

#[derive(Clone, Default)]
struct Known {
    /// When it is due, by the earliest addition.
    wanted: Option<Instant>,
    working: bool,
    retries: u32,
    /// Since when it can be handed out, and its order among equals.
    available: Option<(Instant, u64)>,
    /// When its delay was set, which orders delays that end at the same instant.
    set: u64,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0_u8..6;
    prop_oneof![
        4 => key.clone().prop_map(Op::Add),
        4 => (key.clone(), 0_u16..5_000).prop_map(|(key, ms)| Op::AddAfter(key, ms)),
        2 => key.clone().prop_map(Op::AddBackoff),
        1 => key.prop_map(Op::Forget),
        6 => Just(Op::Next),
        5 => any::<prop::sample::Index>().prop_map(Op::Done),
        3 => (0_u16..3_000).prop_map(Op::Advance),
        1 => Just(Op::Close),
    ]
}

/// A close ends most of what can be tested, so it is rare.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let open = op().prop_filter("not closed yet", |op| !matches!(op, Op::Close));
    let before = prop::collection::vec(open, 0..200);
    (before, prop::collection::vec(op(), 0..20)).prop_map(|(mut all, after)| {
        all.extend(after);
        all
    })
}

/// Two groups, so that both rules count: the order in a group and the turns of groups.
impl Key for u8 {
    type Group = Self;

    fn group(&self) -> Self {
        self / 3
    }
}

impl Model {
    fn want(&mut self, key: u8, at: Instant) {
        if self.closed {
            return;
        }
        self.ticks += 1;
        let known = self.keys.entry(key).or_default();
        if known.available.is_none() && known.wanted.is_none_or(|wanted| at < wanted) {
            known.wanted = Some(at);
            known.set = self.ticks;
        }
    }

    /// Makes due keys available, except those in progress.
    fn settle(&mut self, now: Instant) {
        let mut due: Vec<_> = self
            .keys
            .iter_mut()
            .filter(|(_, known)| !known.working && known.wanted.is_some_and(|at| at <= now))
            .map(|(_, known)| known)
            .collect();
        due.sort_by_key(|known| (known.wanted, known.set));
        for known in due {
            self.ticks += 1;
            let since = known.wanted.take().unwrap();
            known.available = Some((since, self.ticks));
        }
        for group in self.waiting_groups() {
            self.ticks += 1;
            self.turns.entry(group).or_insert(self.ticks);
        }
    }

    /// The groups with available keys, in the order in which they got the first one.
    fn waiting_groups(&self) -> Vec<u8> {
        let waiting = self.keys.iter().filter(|(_, k)| k.available.is_some());
        let mut waiting: Vec<_> = waiting
            .map(|(key, known)| (known.available, key.group()))
            .collect();
        waiting.sort_by_key(|(available, _)| available.map(|(_, tick)| tick));
        waiting.into_iter().map(|(_, group)| group).collect()
    }

    fn next(&mut self) -> Option<u8> {
        let group = *self.turns.iter().min_by_key(|(_, turn)| **turn)?.0;
        let waiting = self.keys.iter().filter(|(_, k)| k.available.is_some());
        let mut own = waiting.filter(|(key, _)| key.group() == group);
        let key = *own.by_ref().min_by_key(|(_, k)| k.available)?.0;
        let known = self.keys.get_mut(&key)?;
        known.available = None;
        known.working = true;
        self.ticks += 1;
        self.turns.insert(group, self.ticks);
        if !self.waiting_groups().contains(&group) {
            self.turns.remove(&group);
        }
        Some(key)
    }

    fn done(&mut self, key: u8, now: Instant) {
        self.ticks += 1;
        let known = self.keys.get_mut(&key).unwrap();
        known.working = false;
        known.set = self.ticks;
        // It could not be handed out before.
        known.wanted = known.wanted.map(|at| at.max(now));
    }

    fn close(&mut self) {
        self.closed = true;
        for known in self.keys.values_mut() {
            known.wanted = None;
            known.available = None;
            if !known.working {
                known.retries = 0;
            }
        }
    }

    fn count(&self, which: impl Fn(&Known) -> bool) -> usize {
        self.keys.values().filter(|known| which(known)).count()
    }
}

async fn compare(ops: Vec<Op>, seed: u64) {
    let rng = SmallRng::seed_from_u64(seed);
    let queue = Queue::with_rng(Backoff::default(), rng);
    let mut model = Model::default();
    let mut hands: Vec<Work<u8>> = Vec::new();
    for op in ops {
        apply(&op, &queue, &mut model, &mut hands).await;
        let now = Instant::now();
        model.settle(now);
        assert_eq!(
            queue.depth(),
            model.count(|k| k.available.is_some()),
            "{op:?}"
        );
        assert_eq!(
            queue.delayed(),
            model.count(|k| !k.working && k.wanted.is_some()),
            "{op:?}"
        );
        assert_eq!(queue.in_flight(), hands.len());
        for (key, known) in &model.keys {
            assert_eq!(queue.retries(key), known.retries, "{op:?} of {key}");
        }
        let oldest = model.keys.values().filter_map(|k| k.available).min();
        assert_eq!(queue.oldest_age(), oldest.map(|(since, _)| now - since));
        let remembered = model
            .count(|k| k.working || k.wanted.is_some() || k.available.is_some() || k.retries > 0);
        assert_eq!(
            queue.shared.with(|core, _| core.len()),
            remembered,
            "{op:?}"
        );
    }
}

async fn apply(op: &Op, queue: &Queue<u8>, model: &mut Model, hands: &mut Vec<Work<u8>>) {
    let now = Instant::now();
    match op {
        Op::Add(key) => {
            queue.add(*key);
            model.want(*key, now);
        }
        Op::AddAfter(key, ms) => {
            let delay = Duration::from_millis(u64::from(*ms));
            queue.add_after(*key, delay);
            model.want(*key, now + delay);
        }
        Op::AddBackoff(key) => {
            let delay = queue.add_backoff(*key);
            model.want(*key, now + delay);
            if !model.closed {
                model.keys.entry(*key).or_default().retries += 1;
            }
        }
        Op::Forget(key) => {
            queue.forget(key);
            model.keys.entry(*key).or_default().retries = 0;
        }
        Op::Next => match queue.try_next() {
            Ok(None) => assert_eq!((model.next(), model.closed), (None, false)),
            Err(Closed) => assert!(model.closed),
            Ok(Some(work)) => {
                assert_eq!(Some(*work), model.next());
                hands.push(work);
            }
        },
        Op::Done(index) if !hands.is_empty() => {
            let work = hands.swap_remove(index.index(hands.len()));
            model.done(*work, now);
            if model.closed {
                model.keys.entry(*work).or_default().retries = 0;
            }
        }
        Op::Done(_) => {}
        Op::Advance(ms) => advance(Duration::from_millis(u64::from(*ms))).await,
        Op::Close => {
            queue.close();
            model.close();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn behaves_like_the_model(ops in ops(), seed: u64) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(compare(ops, seed));
    }
}
