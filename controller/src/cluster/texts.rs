//! One copy of equal texts.
//!
//! The views of thousands of Services repeat the same few texts: namespaces, classes, and the
//! messages of conditions. [`shared`] returns the same `Arc` for equal texts. The table is
//! bounded: when it is full it drops the texts that nobody uses, and if all are in use, a new text
//! gets a copy of its own. So a tenant that fills the table costs others no more than the memory
//! of their copies.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The texts that are shared.
const MOST: usize = 1_024;
/// A longer text is not shared. Ballast writes no longer ones.
const LONGEST: usize = 512;

static TEXTS: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);

#[derive(Debug, Default)]
struct Texts {
    all: HashSet<Arc<str>>,
    /// The table was full of texts in use; it is not searched for unused ones again before this
    /// many texts were refused.
    patience: usize,
}

/// The text; equal texts share one copy.
pub fn shared(text: &str) -> Arc<str> {
    if text.len() > LONGEST {
        return text.into();
    }
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    texts.shared(text)
}

// === impl Texts ===

impl Texts {
    fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.all.get(text) {
            return Arc::clone(known);
        }
        let text = Arc::from(text);
        if self.has_room() {
            self.all.insert(Arc::clone(&text));
        }
        text
    }

    fn has_room(&mut self) -> bool {
        if self.all.len() < MOST {
            return true;
        }
        if self.patience > 0 {
            self.patience -= 1;
            return false;
        }
        self.all.retain(|text| Arc::strong_count(text) > 1);
        let has_room = self.all.len() < MOST;
        if !has_room {
            self.patience = MOST;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_copy() {
        let mut texts = Texts::default();
        let first = texts.shared("the same");
        assert!(Arc::ptr_eq(&first, &texts.shared("the same")));
        assert!(!Arc::ptr_eq(&first, &texts.shared("another")));
    }

    #[test]
    fn the_table_is_bounded_and_drops_what_nobody_uses() {
        let mut texts = Texts::default();
        let used = texts.shared("used");
        for number in 0..10 * MOST {
            texts.shared(&format!("unused {number}"));
        }
        assert!(texts.all.len() <= MOST);
        assert!(Arc::ptr_eq(&used, &texts.shared("used")));

        let kept: Vec<_> = (0..3 * MOST)
            .map(|n| texts.shared(&format!("in use {n}")))
            .collect();
        assert_eq!(texts.all.len(), MOST);
        assert_eq!(&*kept[3 * MOST - 1], "in use 3071");
        drop(kept);
        // The texts in use are gone, and it is noticed after a while.
        for number in 0..=MOST {
            texts.shared(&format!("later {number}"));
        }
        let later = texts.shared("much later");
        assert!(Arc::ptr_eq(&later, &texts.shared("much later")));
    }

    #[test]
    fn a_long_text_is_not_kept() {
        let long = "x".repeat(LONGEST + 1);
        assert!(!Arc::ptr_eq(&shared(&long), &shared(&long)));
    }
}
