//! Which targets the Services of a class have in target groups of others ([`crate::bind`]), so that none takes away a
//! target that another one still wants, and of two that lose it at once the second one deregisters it.
//!
//! Calls about one target group of others follow each other. Whoever registers targets has them from the answer on;
//! whoever deregisters targets gives up its own first, and leaves those that another Service has. What a former process
//! has noted is read from AWS when it matters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};

use ballast_provider::Key;
use tokio::sync::OwnedMutexGuard;

use super::Inner;
use super::decode::registered;
use super::execute::{is_of_others, make};
use super::inventory::manner;
use super::records::{Depth, Record};
use crate::call::Call;
use crate::client::{Answer, CallError, Cause, Client, Ids};
use crate::observed::{Arn, ObservedTargetGroup};
use crate::rate::Urgency;
use crate::target::TargetId;

/// What the notes of a class say.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// By the key of a record and the ARN of the target group of others.
    all: BTreeMap<Key, BTreeMap<Arn, Noted>>,
    /// Who calls about a target group of others.
    calling: BTreeMap<Arn, Weak<tokio::sync::Mutex<()>>>,
}

/// What one Service has in a target group of others.
#[derive(Debug)]
enum Noted {
    /// These targets.
    Known(BTreeSet<TargetId>),
    /// What a former process has registered: its notes.
    Unread(Vec<ObservedTargetGroup>),
}

/// Nobody else calls about this target group of others.
pub(super) struct Alone {
    arn: Arn,
    _calling: OwnedMutexGuard<()>,
}

// === impl Notes ===

impl Notes {
    /// The Service wants these targets in this target group no more.
    fn give_up(&mut self, key: &Key, arn: &Arn, targets: &[TargetId]) {
        let noted = self.all.get_mut(key).and_then(|of| of.get_mut(arn));
        if let Some(Noted::Known(has)) = noted {
            has.retain(|one| !targets.contains(one));
        }
    }

    /// The notes of other Services about this target group that nobody has read.
    fn unread(&self, key: &Key, arn: &Arn) -> Vec<(Key, Vec<ObservedTargetGroup>)> {
        let others = self.all.iter().filter(|(other, _)| *other != key);
        let unread = others.filter_map(|(other, of)| match of.get(arn)? {
            Noted::Unread(notes) => Some((other.clone(), notes.clone())),
            Noted::Known(_) => None,
        });
        unread.collect()
    }

    /// Those of these targets that no other Service has in this target group.
    fn only_of(&self, key: &Key, arn: &Arn, targets: &[TargetId]) -> Vec<TargetId> {
        let others = self.all.iter().filter(|(other, _)| *other != key);
        let others: Vec<&BTreeSet<TargetId>> = others
            .filter_map(|(_, of)| match of.get(arn)? {
                Noted::Known(has) => Some(has),
                Noted::Unread(_) => None,
            })
            .collect();
        let left = targets
            .iter()
            .filter(|one| !others.iter().any(|has| has.contains(*one)));
        left.cloned().collect()
    }

    /// What whoever calls about this target group holds.
    fn calling(&mut self, arn: &Arn) -> Arc<tokio::sync::Mutex<()>> {
        self.calling.retain(|_, one| one.strong_count() > 0);
        let there = self.calling.get(arn).and_then(Weak::upgrade);
        let one = there.unwrap_or_default();
        self.calling.insert(arn.clone(), Arc::downgrade(&one));
        one
    }
}

// === impl Inner ===

impl Inner {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Each change is one insertion or removal.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what the notes of a record say: what was read of them, or that nobody has read them.
    pub(super) fn note(&self, record: &Record) {
        let read = record.depth == Depth::Full;
        let mut all: BTreeMap<Arn, Noted> = BTreeMap::new();
        for group in record.observed.target_groups.values() {
            let Some(bound) = &group.bound else {
                continue;
            };
            let new = if read {
                Noted::Known(BTreeSet::new())
            } else {
                Noted::Unread(Vec::new())
            };
            match all.entry(bound.arn.clone()).or_insert(new) {
                Noted::Known(has) => has.extend(bound.targets.iter().cloned()),
                Noted::Unread(notes) => notes.push(group.clone()),
            }
        }
        let mut notes = self.notes();
        if all.is_empty() {
            notes.all.remove(&record.key);
        } else {
            notes.all.insert(record.key.clone(), all);
        }
    }

    /// Forgets the notes of a record that is gone.
    pub(super) fn forget_notes(&self, key: &Key) {
        self.notes().all.remove(key);
    }

    /// Makes a call as [`make`] does. Nobody else calls about the same target group of others before [`Alone`] is dropped.
    pub(super) async fn make_alone(
        &self,
        client: &Client,
        record: &mut Record,
        call: &Call,
        urgency: Urgency,
        ids: &Ids,
    ) -> (Option<Alone>, Result<Answer, CallError>) {
        let alone = self.alone_with(record, call).await;
        let trimmed = self.without_noted(client, record, call, alone.as_ref());
        let answer = match trimmed.await {
            Ok(Some(call)) => make(client, record, &call, urgency, ids).await,
            // They are another Service's from now on.
            Ok(None) => Ok(Answer::default()),
            Err(why) => Err(why),
        };
        let may_have = |why: &CallError| why.cause.uncertain();
        if answer.as_ref().err().is_none_or(may_have) {
            self.has_registered(record, call, alone.as_ref());
        }
        (alone, answer)
    }

    /// Waits until nobody else calls about the same target group of others. `None`: the call is about nothing of others.
    async fn alone_with(&self, record: &Record, call: &Call) -> Option<Alone> {
        let (Call::RegisterTargets { target_group, .. }
        | Call::DeregisterTargets { target_group, .. }) = call
        else {
            return None;
        };
        let arn = target_group
            .known()
            .filter(|_| is_of_others(record, target_group))?;
        let arn = arn.to_owned();
        let calling = self.notes().calling(&arn);
        Some(Alone {
            arn,
            _calling: calling.lock_owned().await,
        })
    }

    /// The call without the targets that another Service of the class has in the same target group. `None`: all of them
    /// are another one's from now on.
    async fn without_noted(
        &self,
        client: &Client,
        record: &Record,
        call: &Call,
        alone: Option<&Alone>,
    ) -> Result<Option<Call>, CallError> {
        let (
            Some(Alone { arn, .. }),
            Call::DeregisterTargets {
                target_group,
                targets,
            },
        ) = (alone, call)
        else {
            return Ok(Some(call.clone()));
        };
        let unread = self.notes().unread(&record.key, arn);
        for (key, notes) in unread {
            let mut has = BTreeSet::new();
            for note in notes {
                let seen = client.target_health(&note.arn, manner(Urgency::Service));
                match seen.await {
                    Ok(seen) => has.extend(registered(&note, &seen)),
                    Err(why) if why.cause == Cause::NotFound => {}
                    Err(why) => return Err(why),
                }
            }
            if let Some(of) = self.notes().all.get_mut(&key) {
                of.insert(arn.clone(), Noted::Known(has));
            }
        }
        if matches!(
            self.notes().all.get(&record.key).and_then(|of| of.get(arn)),
            Some(Noted::Unread(_))
        ) {
            self.note(record);
        }
        let mut notes = self.notes();
        notes.give_up(&record.key, arn, targets);
        let left = notes.only_of(&record.key, arn, targets);
        Ok((!left.is_empty()).then(|| Call::DeregisterTargets {
            target_group: target_group.clone(),
            targets: left,
        }))
    }

    /// The call may have registered its targets in a target group of others.
    pub(super) fn has_registered(&self, record: &Record, call: &Call, alone: Option<&Alone>) {
        let (Some(Alone { arn, .. }), Call::RegisterTargets { targets, .. }) = (alone, call) else {
            return;
        };
        let mut notes = self.notes();
        let of = notes.all.entry(record.key.clone()).or_default();
        let new = || Noted::Known(BTreeSet::new());
        match of.entry(arn.clone()).or_insert_with(new) {
            Noted::Known(has) => has.extend(targets.iter().cloned()),
            // The note has them, too.
            Noted::Unread(_) => {}
        }
    }
}
