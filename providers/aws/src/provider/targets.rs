//! Which nodes load balancers send to, and what is known of the tag that names them. Pure.
//!
//! The tag [`SETTLED`] of the backend group is for the next process: every target group has the set of targets
//! that it names. [`super::retarget`] writes and removes it, and tells this module before and after each call.
//!
//! ```text
//!            found, written
//!   Absent ────────────────▶ Names(set)
//!     ▲ ▲                      │
//!     │ └── removed, no group ─┤
//!     │                        ▼  a call is made, or the set is not true any more
//!     └────── removed ────── Unknown
//! ```
//!
//! Everything that may make the tag wrong (other nodes, an instance that AWS refuses or accepts again, another
//! backend group) begins another [`Epoch`]. A tag is written only for the epoch in which every target group was
//! seen to have its targets. So a turn that writes it late is not believed, and its tag is removed again.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::nodes::{Nodes, Selector};

/// The tag of the backend group that names the targets which every target group has.
pub(super) const SETTLED: &str = "ballast.dev/targets";

/// The nodes that load balancers send to, and the tag that names them.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    /// `None` before the controller says so.
    nodes: Option<Arc<Nodes>>,
    tag: Tag,
    epoch: Epoch,
    /// The selectors that the tag is about.
    selectors: BTreeSet<Selector>,
}

/// What is known of the tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Tag {
    /// There is none.
    #[default]
    Absent,
    /// It may name something else than what every target group has.
    Unknown,
    /// It names this set.
    Names(String),
}

/// Counts what may make the tag wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Epoch(u64);

/// The tag is being written.
#[derive(Debug)]
pub(super) struct Writing {
    epoch: Epoch,
    before: Tag,
}

/// What came of a call that writes the tag.
#[derive(Debug)]
pub(super) enum Written {
    /// The tag names this set, for target groups with these selectors.
    Names(String, BTreeSet<Selector>),
    /// EC2 has refused it: nothing has changed.
    Refused,
    /// Nobody knows.
    Unknown,
}

// === impl Targets ===

impl Targets {
    pub(super) fn nodes(&self) -> Option<Arc<Nodes>> {
        self.nodes.clone()
    }

    pub(super) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The set that the tag names, if that is known.
    pub(super) const fn settled(&self) -> Option<&String> {
        match &self.tag {
            Tag::Names(set) => Some(set),
            Tag::Absent | Tag::Unknown => None,
        }
    }

    /// Whether the tag names what is true of target groups with these selectors.
    pub(super) fn is_settled_for(&self, selectors: &BTreeSet<Selector>) -> bool {
        self.settled().is_some() && self.selectors == *selectors
    }

    /// Whether there may be a tag. It is removed before targets change.
    pub(super) fn may_have_tag(&self) -> bool {
        self.tag != Tag::Absent
    }

    /// The controller has these nodes. What AWS did not accept of them stays refused. Returns the nodes and
    /// the former ones.
    pub(super) fn replace(&mut self, mut nodes: Nodes) -> (Arc<Nodes>, Option<Arc<Nodes>>) {
        if let Some(before) = &self.nodes {
            nodes.keep_refused(before);
        }
        let nodes = Arc::new(nodes);
        self.next_epoch();
        (Arc::clone(&nodes), self.nodes.replace(nodes))
    }

    /// AWS does not accept this instance as a target. True if the tag must be removed: it may name a set with
    /// this instance.
    pub(super) fn refuse(&mut self, instance: &str) -> bool {
        if let Some(nodes) = &mut self.nodes {
            Arc::make_mut(nodes).refuse(instance);
        }
        self.next_epoch();
        self.may_have_tag()
    }

    /// Whether AWS has refused instances of nodes.
    pub(super) fn has_refused(&self) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.has_refused())
    }

    /// AWS may accept what it has refused. For whoever has removed the tag, which names the set without them.
    pub(super) fn forgive(&mut self) {
        self.next_epoch();
        if let Some(nodes) = &mut self.nodes {
            Arc::make_mut(nodes).forgive();
        }
    }

    /// A list shows this tag, or none.
    pub(super) fn found(&mut self, tag: Option<String>) {
        self.next_epoch();
        self.tag = tag.map_or(Tag::Absent, Tag::Names);
    }

    /// Every target group has what the tag names. They have these selectors.
    pub(super) fn believe(&mut self, selectors: BTreeSet<Selector>) {
        self.selectors = selectors;
    }

    /// There is no backend group, so it has no tag.
    pub(super) fn lose_group(&mut self) {
        self.next_epoch();
        self.tag = Tag::Absent;
    }

    /// What the tag names may not be true any more, or the tag is about to be removed.
    pub(super) fn unsettle(&mut self) {
        self.next_epoch();
        self.tag = Tag::Unknown;
    }

    /// The tag is gone. For whoever has called [`Self::unsettle`], and lets nobody write it meanwhile.
    pub(super) fn removed(&mut self) {
        self.tag = Tag::Absent;
    }

    /// Before the tag is written for what was true in this epoch. `None` if that has ended: nothing may be written.
    pub(super) fn begin(&mut self, epoch: Epoch) -> Option<Writing> {
        if self.epoch != epoch {
            return None;
        }
        let before = std::mem::replace(&mut self.tag, Tag::Unknown);
        Some(Writing { epoch, before })
    }

    /// After the tag was written. If the epoch has ended meanwhile, nobody believes the tag.
    pub(super) fn end(&mut self, writing: Writing, written: Written) {
        if self.epoch != writing.epoch {
            return;
        }
        match written {
            Written::Names(set, selectors) => {
                self.tag = Tag::Names(set);
                self.selectors = selectors;
            }
            Written::Refused => self.tag = writing.before,
            Written::Unknown => {}
        }
    }

    const fn next_epoch(&mut self) {
        self.epoch = Epoch(self.epoch.0.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests;
