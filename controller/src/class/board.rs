//! The shared state of the classes. The class watch posts views, the tasks of
//! [`crate::class::instance`] post providers, and [`crate::class::contender`] posts other
//! controllers.
//!
//! A class task posts through its [`Seat`]. A task that is aborted can still run until its next
//! await, so its seat is vacated at the same time, and what it posts later is dropped.
//!
//! Readers take a snapshot. A change wakes every subscriber.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_provider::Refusal;
use tokio::sync::watch;

use crate::class::orphans::Found;
use crate::class::{ClassView, Classes, Contender, Instance, Scope};
use crate::cluster::ledger::Ledger;

/// The current [`Classes`], replaced as a whole.
#[derive(Clone, Debug)]
pub struct Board {
    classes: watch::Sender<Arc<Classes>>,
    seats: Arc<Mutex<Seats>>,
}

/// The right to post the provider of a class, until the seat is vacated or taken by another
/// task.
#[derive(Clone, Debug)]
pub struct Seat {
    board: Board,
    class: String,
    number: u64,
}

#[derive(Debug, Default)]
struct Seats {
    last: u64,
    taken: BTreeMap<String, u64>,
}

// === impl Board ===

impl Board {
    /// A board without classes. `ledger` is that of the process.
    pub fn new(scope: Scope, ledger: Arc<Ledger>) -> Self {
        let classes = Classes {
            scope,
            ledger,
            ..Classes::default()
        };
        Self {
            classes: watch::Sender::new(Arc::new(classes)),
            seats: Arc::default(),
        }
    }

    /// The classes as posted.
    pub fn snapshot(&self) -> Arc<Classes> {
        Arc::clone(&self.classes.borrow())
    }

    /// Receives every change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Classes>> {
        self.classes.subscribe()
    }

    /// Replaces all class views. The provider of a class that is gone, or that was deleted and
    /// created again, is removed in the same step: nobody may see the new class with the old
    /// provider, which would serve it before it was asked whether it drains.
    pub fn post_views(&self, views: Vec<Arc<ClassView>>) {
        let mut seats = self.seats();
        self.edit(|classes| {
            let views = views.into_iter().map(|view| (view.name.clone(), view));
            let before = std::mem::replace(&mut classes.views, views.collect());
            for (name, view) in before {
                if classes.get(&name).is_none_or(|now| now.uid != view.uid) {
                    seats.taken.remove(&name);
                    classes.forget(&name);
                }
            }
        });
    }

    /// The seat of a new task for a class.
    pub fn seat(&self, class: &str) -> Seat {
        let mut seats = self.seats();
        seats.last += 1;
        let number = seats.last;
        seats.taken.insert(class.to_owned(), number);
        Seat {
            board: self.clone(),
            class: class.to_owned(),
            number,
        }
    }

    /// Removes the provider of a class, and drops what its task posts from now on.
    pub fn vacate(&self, class: &str) {
        let mut seats = self.seats();
        seats.taken.remove(class);
        self.edit(|classes| {
            classes.forget(class);
        });
    }

    /// Replaces the other controller that serves Services without a class.
    pub fn post_contender(&self, contender: Contender) {
        if self.snapshot().contender != contender {
            self.edit(|classes| classes.contender = contender);
        }
    }

    fn edit(&self, change: impl FnOnce(&mut Classes)) {
        self.classes
            .send_modify(|classes| change(Arc::make_mut(classes)));
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seat ===

impl Seat {
    /// A survey has failed.
    pub fn survey_failed(&self, why: Refusal) {
        let seats = self.board.seats();
        let known = self.board.snapshot();
        let same = known.survey_errors.get(&self.class) == Some(&why);
        if same || seats.taken.get(&self.class) != Some(&self.number) {
            return;
        }
        self.board.edit(|classes| {
            classes.survey_errors.insert(self.class.clone(), why);
        });
    }

    /// Replaces what surveys have found.
    pub fn surveyed(&self, found: &Found) {
        let seats = self.board.seats();
        let known = self.board.snapshot();
        let same = known
            .found
            .get(&self.class)
            .is_some_and(|it| **it == *found)
            && !known.survey_errors.contains_key(&self.class);
        if same || seats.taken.get(&self.class) != Some(&self.number) {
            return;
        }
        self.board.edit(|classes| {
            let found = Arc::new(found.clone());
            classes.found.insert(self.class.clone(), found);
            classes.survey_errors.remove(&self.class);
        });
    }

    /// Replaces the state of the class's provider. A class whose provider is ready is open.
    pub fn post(&self, instance: Instance) {
        let seats = self.board.seats();
        if seats.taken.get(&self.class) != Some(&self.number) {
            return;
        }
        self.board.edit(|classes| {
            if matches!(instance, Instance::Ready(_)) {
                classes.ledger.open(&self.class);
            }
            classes.instances.insert(self.class.clone(), instance);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise a class with new settings would be served by the provider of the old ones.
    #[test]
    fn a_class_that_is_created_again_has_no_provider_yet() {
        let board = Board::new(Scope::All, Arc::default());
        let post = |uid: Option<&str>| {
            let view = |uid: &str| ClassView {
                uid: uid.to_owned(),
                ..ClassView::test("local")
            };
            let views = uid.map(|uid| Arc::new(view(uid)));
            board.post_views(views.into_iter().collect());
            let classes = board.snapshot();
            let ready = classes.provider("local").is_some();
            assert_eq!(classes.found.contains_key("local"), ready);
            ready
        };
        let ready = || Instance::Ready(Arc::new(crate::fixtures::PureProvider(&[])));
        for (then, keeps) in [(Some("1"), true), (Some("2"), false), (None, false)] {
            post(Some("1"));
            let seat = board.seat("local");
            seat.post(ready());
            seat.surveyed(&Found::default());
            assert_eq!(post(then), keeps, "{then:?}");
            seat.post(ready());
            let posted = board.snapshot().provider("local").is_some();
            assert_eq!(posted, keeps, "{then:?}: an old task");
            post(None);
        }
    }

    #[test]
    fn a_task_that_was_replaced_posts_nothing() {
        let ledger = Arc::new(Ledger::default());
        let board = Board::new(Scope::All, Arc::clone(&ledger));
        let posted = |class: &str| {
            let classes = board.snapshot();
            let instance = classes.instances.get(class);
            instance.map(|instance| format!("{instance:?}"))
        };
        let failing =
            |why: &str| Instance::Failing(ballast_provider::Reason::CloudError, why.to_owned());
        let old = board.seat("local");
        old.post(failing("old"));
        assert_eq!(posted("local").unwrap(), "Failing(CloudError, \"old\")");
        board.vacate("local");
        assert!(ledger.close("local"));
        old.post(failing("old"));
        let ready = || Instance::Ready(Arc::new(crate::fixtures::PureProvider(&[])));
        old.post(ready());
        assert_eq!(posted("local"), None);
        assert!(ledger.is_closed("local"));

        let new = board.seat("local");
        old.post(ready());
        assert_eq!(posted("local"), None);
        new.post(ready());
        assert_eq!(posted("local").unwrap(), "Ready");
        assert!(!ledger.is_closed("local"));
    }
}
