//! The board on which the tasks of the controller post what they know of the classes:
//! the class watch their views, the instance tasks their providers.
//!
//! Readers take a snapshot and decide on that; a change wakes whoever subscribed.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::class::{ClassView, Classes, Contender, Instance, Scope};

/// The current [`Classes`], replaced as a whole.
#[derive(Clone, Debug)]
pub struct Board {
    classes: watch::Sender<Arc<Classes>>,
}

// === impl Board ===

impl Board {
    /// An empty board for these classes.
    pub fn new(scope: Scope) -> Self {
        let classes = Classes {
            scope,
            ..Classes::default()
        };
        Self {
            classes: watch::Sender::new(Arc::new(classes)),
        }
    }

    /// What is known now.
    pub fn snapshot(&self) -> Arc<Classes> {
        Arc::clone(&self.classes.borrow())
    }

    /// Tells of every change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Classes>> {
        self.classes.subscribe()
    }

    /// All classes as the watch has them now.
    pub fn post_views(&self, views: Vec<Arc<ClassView>>) {
        self.edit(|classes| {
            classes.views = views
                .into_iter()
                .map(|view| (view.name.clone(), view))
                .collect();
        });
    }

    /// How the instance of a class is.
    pub fn post_instance(&self, class: &str, instance: Instance) {
        self.edit(|classes| {
            classes.instances.insert(class.to_owned(), instance);
        });
    }

    /// Instances of other classes than these are gone.
    pub fn retain_instances(&self, running: &BTreeSet<String>) {
        self.edit(|classes| classes.instances.retain(|name, _| running.contains(name)));
    }

    /// Who else takes Services without a class.
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
