//! Divides the workers among the classes, so that a cloud that hangs does not stop the Services
//! of other classes: each call of it keeps a worker until its time-out.
//!
//! A class may use no more workers than it leaves free. So one class gets at most half of the
//! workers, a second one half of the rest, and so on. In a cluster with a single class, that
//! class leaves one worker for Services without a class. A Service that comes too early waits
//! here, without a worker, in the line of its class. It is queued when its class may use
//! another worker. Pure.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::cluster::view::Name;

/// The turns in progress, and the Services that wait for a worker for their class.
#[derive(Debug)]
pub(super) struct Shares {
    workers: usize,
    /// The cluster has a single class.
    alone: bool,
    /// Turns in progress.
    busy: usize,
    classes: HashMap<String, Class>,
    /// Each Service that waits, with the class in whose line it is.
    waits: HashMap<Name, String>,
    /// Each Service that was queued and has not had its turn, with its class.
    woken: HashMap<Name, String>,
}

#[derive(Debug, Default)]
struct Class {
    /// Turns in progress.
    turns: usize,
    /// Of the woken Services, those of this class.
    woken: usize,
    waiting: VecDeque<Name>,
}

// === impl Shares ===

impl Shares {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers,
            alone: false,
            busy: 0,
            classes: HashMap::new(),
            waits: HashMap::new(),
            woken: HashMap::new(),
        }
    }

    /// Sets whether the cluster has a single class.
    pub(super) const fn set_alone(&mut self, alone: bool) {
        self.alone = alone;
    }

    /// The turns that a class may have at the same time; `promised`: to Services that are woken.
    fn most(&self, promised: usize) -> usize {
        let most = if self.alone {
            self.workers.saturating_sub(1)
        } else {
            self.workers.saturating_sub(self.busy + promised)
        };
        // A single worker has nothing to divide.
        most.max(1)
    }

    /// Begins a turn that can call the providers of these classes. Returns false if it may not
    /// begin yet: then the Service waits in the line of one of them.
    pub(super) fn begin(&mut self, name: &Name, classes: &BTreeSet<String>) -> bool {
        let woken = self.leave_woken(name);
        let most = self.most(0);
        let turns = |class: &&String| self.classes.get(*class).map_or(0, |it| it.turns);
        let full = classes.iter().find(|class| turns(class) >= most);
        let Some(full) = full.cloned() else {
            self.leave(name);
            self.busy += usize::from(!classes.is_empty());
            for class in classes {
                self.classes.entry(class.clone()).or_default().turns += 1;
            }
            return true;
        };
        // It may have asked for another class before.
        if self.waits.get(name) != Some(&full) {
            self.leave(name);
            self.waits.insert(name.clone(), full.clone());
            let line = &mut self.classes.entry(full).or_default().waiting;
            if woken {
                line.push_front(name.clone());
            } else {
                line.push_back(name.clone());
            }
        }
        false
    }

    /// Ends a turn.
    pub(super) fn end(&mut self, classes: &BTreeSet<String>) {
        self.busy -= usize::from(!classes.is_empty());
        for class in classes {
            if let Some(class) = self.classes.get_mut(class) {
                class.turns -= 1;
            }
        }
    }

    /// The Service does not wait for a worker: it has its turn, or waits for something else.
    pub(super) fn leave(&mut self, name: &Name) {
        self.leave_woken(name);
        let class = self.waits.remove(name);
        if let Some(class) = class.and_then(|class| self.classes.get_mut(&class)) {
            class.waiting.retain(|waiting| waiting != name);
        }
    }

    /// The Services that may try again now; they must be queued. Call it after each change.
    pub(super) fn wake(&mut self) -> Vec<Name> {
        let mut names = Vec::new();
        let mut all = std::mem::take(&mut self.classes);
        for (name, class) in &mut all {
            while class.turns + class.woken < self.most(self.woken.len())
                && let Some(next) = class.waiting.pop_front()
            {
                class.woken += 1;
                self.waits.remove(&next);
                self.woken.insert(next.clone(), name.clone());
                names.push(next);
            }
        }
        self.classes = all;
        self.classes
            .retain(|_, class| class.turns + class.woken + class.waiting.len() > 0);
        names
    }

    fn leave_woken(&mut self, name: &Name) -> bool {
        let class = self.woken.remove(name);
        if let Some(class) = class.as_ref().and_then(|class| self.classes.get_mut(class)) {
            class.woken -= 1;
        }
        class.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(name: &str) -> Name {
        Name::from(&crate::fixtures::id(name))
    }

    fn of(class: &str) -> BTreeSet<String> {
        BTreeSet::from([class.to_owned()])
    }

    #[test]
    fn a_class_leaves_as_many_workers_free_as_it_uses() {
        let mut shares = Shares::new(16);
        for (class, most) in [("a", 8), ("b", 4), ("c", 2), ("d", 1)] {
            let began = (0..20).filter(|n| shares.begin(&name(&format!("{class}{n}")), &of(class)));
            assert_eq!(began.count(), most, "{class}");
            assert!(shares.wake().is_empty());
        }
        assert!(shares.begin(&name("nothing"), &BTreeSet::new()));
    }

    #[test]
    fn a_single_class_leaves_one_worker() {
        let mut shares = Shares::new(16);
        shares.set_alone(true);
        let began = (0..20).filter(|n| shares.begin(&name(&format!("a{n}")), &of("a")));
        assert_eq!(began.count(), 15);
        assert!(shares.wake().is_empty());
        shares.end(&of("a"));
        assert_eq!(shares.wake(), [name("a15")]);
        assert!(shares.begin(&name("a15"), &of("a")));
        // A second class is created.
        shares.set_alone(false);
        assert!(
            shares.begin(&name("b"), &of("b")),
            "the worker that is left"
        );
        for _ in 0..8 {
            shares.end(&of("a"));
        }
        assert_eq!(shares.wake(), [name("a16")]);
    }

    #[test]
    fn who_asks_for_another_class_waits_in_its_line() {
        let mut shares = Shares::new(2);
        assert!(shares.begin(&name("a0"), &of("a")));
        assert!(!shares.begin(&name("moves"), &of("a")));
        assert!(shares.begin(&name("b0"), &of("b")));
        assert!(!shares.begin(&name("moves"), &of("b")));
        shares.end(&of("b"));
        assert_eq!(shares.wake(), [name("moves")]);
    }

    #[test]
    fn who_waits_is_woken_in_order() {
        let mut shares = Shares::new(4);
        for n in 0..5 {
            let may = shares.begin(&name(&format!("a{n}")), &of("a"));
            assert_eq!(may, n < 2, "{n}");
        }
        assert!(!shares.begin(&name("a3"), &of("a")), "an event");
        assert!(shares.wake().is_empty());
        shares.end(&of("a"));
        assert_eq!(shares.wake(), [name("a2")]);
        assert!(shares.wake().is_empty(), "once");
        assert!(shares.begin(&name("a2"), &of("a")));
        shares.end(&of("a"));
        shares.end(&of("a"));
        assert_eq!(shares.wake(), [name("a3"), name("a4")]);
        shares.leave(&name("a3"));
        assert!(shares.begin(&name("a4"), &of("a")));
        shares.end(&of("a"));
        assert!(shares.wake().is_empty());
        assert!(shares.classes.is_empty() && shares.woken.is_empty() && shares.waits.is_empty());
        assert_eq!(shares.busy, 0);
    }

    proptest! {
        /// Whatever comes, with any number of workers: every Service has its turn, no class
        /// has more than half of the workers (or one), and nothing is left.
        #[test]
        fn everybody_has_a_turn(
            workers in 1_usize..9,
            services in prop::collection::vec((0_usize..3, any::<bool>()), 1..60),
        ) {
            let mut shares = Shares::new(workers);
            let mut queue: VecDeque<usize> = (0..services.len()).collect();
            let mut running: VecDeque<usize> = VecDeque::new();
            let mut done = BTreeSet::new();
            let names: Vec<Name> = (0..services.len()).map(|n| name(&format!("s{n}"))).collect();
            let class = |n: usize| of(["a", "b", "c"][services[n].0]);
            for _ in 0..100_000 {
                let ends_first = running.front().is_some_and(|n| services[*n].1);
                if running.len() < workers && !ends_first && let Some(n) = queue.pop_front() {
                    if shares.begin(&names[n], &class(n)) {
                        running.push_back(n);
                    }
                } else if let Some(n) = running.pop_front() {
                    shares.end(&class(n));
                    done.insert(n);
                } else if queue.is_empty() {
                    break;
                }
                for one in shares.classes.values() {
                    prop_assert!(one.turns <= workers.div_ceil(2));
                }
                let woken = shares.wake();
                queue.extend(woken.iter().filter_map(|it| names.iter().position(|n| n == it)));
            }
            prop_assert_eq!(done.len(), services.len(), "{:?}", shares);
            prop_assert!(shares.classes.is_empty() && shares.woken.is_empty());
            prop_assert_eq!(shares.busy, 0);
        }
    }
}
