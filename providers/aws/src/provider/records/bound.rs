//! What a record knows of target groups of others ([`crate::bind`]).

use std::collections::BTreeSet;

use super::Record;
use crate::observed::{Arn, ObservedTargetGroup};

// === impl Record ===

impl Record {
    /// Whether nodes and pods that change are followed in a target group between turns.
    pub(in crate::provider) fn follows(&self, name: &str, group: &ObservedTargetGroup) -> bool {
        group.bound.is_none() || self.notes.contains(name)
    }

    /// The Service names these target groups of others. Notes about other ones get no target any more.
    pub(in crate::provider) fn keep_notes<'a>(&mut self, named: impl Iterator<Item = &'a Arn>) {
        let named: BTreeSet<&Arn> = named.collect();
        let groups = &self.observed.target_groups;
        self.notes.retain(|note| {
            let bound = groups.get(note).and_then(|group| group.bound.as_ref());
            bound.is_some_and(|bound| named.contains(&bound.arn))
        });
    }

    /// The Service wants no target in target groups of others any more.
    pub(in crate::provider) fn names_no_others(&mut self) {
        self.others = None;
        self.notes.clear();
    }

    /// Whether targets are in target groups of others.
    pub(in crate::provider) fn is_bound(&self) -> bool {
        let mut groups = self.observed.target_groups.values();
        groups.any(|group| group.bound.is_some())
    }
}
