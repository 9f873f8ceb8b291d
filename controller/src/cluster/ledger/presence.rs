//! Whether the Services of entries exist.
//!
//! A list that lacks a Service proves nothing: the API server may have been restored from an older
//! backup. What such a Service has stays until a watch or surveys of the cloud prove that it is gone.

use ballast_provider::ServiceId;

use super::{Entry, Inner, Ledger, Marks};

/// Whether the Service of an entry exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Presence {
    /// As far as it is known.
    #[default]
    Listed,
    /// It is missing in a list, and nothing proves that it is gone.
    Absent,
    /// It is proven that it does not exist any more.
    Gone,
}

// === impl Ledger ===

impl Ledger {
    /// Records that a Service is proven not to exist any more: a watch has reported its deletion, or
    /// surveys of the cloud agree ([`crate::class::orphans`]).
    pub fn gone(&self, id: &ServiceId, class: &str) {
        self.lock().set_presence(id, class, Presence::Gone);
    }

    /// A watch has reported the deletion of this Service.
    pub fn deleted(&self, id: &ServiceId) {
        for class in self.classes_of(id) {
            self.gone(id, &class);
        }
    }

    /// Records that a Service is missing in a list. What it has stays until it is proven to be gone.
    pub fn absent(&self, id: &ServiceId, class: &str) {
        self.lock().set_presence(id, class, Presence::Absent);
    }

    /// The entries of a class whose Services are missing, or were.
    pub fn absents(&self, class: &str) -> Vec<Entry> {
        let inner = self.lock();
        if inner.of(class).absent == 0 {
            return Vec::new();
        }
        let all = inner.entries.values().flatten();
        let absent = |marks: &Marks| marks.presence == Presence::Absent;
        all.filter(|(entry, marks)| &*entry.class == class && absent(marks))
            .map(|(entry, _)| entry.clone())
            .collect()
    }

    /// Whether it is proven that a Service does not exist any more.
    pub fn is_gone(&self, id: &ServiceId, class: &str) -> bool {
        let mut inner = self.lock();
        let marks = inner.marks(id, class);
        marks.is_some_and(|it| it.presence == Presence::Gone)
    }
}

// === impl Inner ===

impl Inner {
    /// What is proven stays so.
    fn set_presence(&mut self, id: &ServiceId, class: &str, presence: Presence) {
        let Some(marks) = self.marks(id, class) else {
            return;
        };
        if marks.presence == Presence::Gone {
            return;
        }
        let before = std::mem::replace(&mut marks.presence, presence);
        if let Some(count) = self.per_class.get_mut(class) {
            count.absent += usize::from(presence == Presence::Absent);
            count.absent -= usize::from(before == Presence::Absent);
        }
    }
}
