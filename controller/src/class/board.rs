//! The shared state of the classes. The class watch posts views, the tasks of
//! [`crate::class::instance`] post providers, and [`crate::class::contender`] posts other
//! controllers.
//!
//! Readers take a snapshot. A change wakes every subscriber.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::class::{ClassView, Classes, Contender, Instance, Scope};
use crate::cluster::ledger::Ledger;

/// The current [`Classes`], replaced as a whole.
#[derive(Clone, Debug)]
pub struct Board {
    classes: watch::Sender<Arc<Classes>>,
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

    /// Replaces all class views.
    pub fn post_views(&self, views: Vec<Arc<ClassView>>) {
        self.edit(|classes| {
            classes.views = views
                .into_iter()
                .map(|view| (view.name.clone(), view))
                .collect();
        });
    }

    /// Replaces the state of a class's provider.
    pub fn post_instance(&self, class: &str, instance: Instance) {
        self.edit(|classes| {
            classes.instances.insert(class.to_owned(), instance);
        });
    }

    /// Removes the providers of all other classes.
    pub fn retain_instances(&self, running: &BTreeSet<String>) {
        self.edit(|classes| classes.instances.retain(|name, _| running.contains(name)));
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
}
