//! Sorts what a survey shows: what is in use, and what has no Service. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ballast_provider::{Billed, Key, Kind, Owned, ServiceId};
use jiff::Timestamp;

use super::decide::Look;
use super::memory::Name;
use super::report::Found;

/// The objects of a survey.
#[derive(Default)]
pub(super) struct Sorted<'a> {
    /// How many balancers there are.
    pub balancers: usize,
    /// The objects that a Service has, that serve the whole class, or that people keep.
    pub in_use: Vec<&'a Owned>,
    /// What has no Service.
    pub orphans: Vec<Absent<'a>>,
}

/// An orphan, with the objects that it consists of.
pub(super) struct Absent<'a> {
    pub id: &'a ServiceId,
    pub key: &'a Key,
    pub objects: Vec<&'a Owned>,
    pub billed: Billed,
}

/// What one balancer consists of.
#[derive(Default)]
struct Group<'a> {
    objects: Vec<&'a Owned>,
    services: BTreeSet<&'a ServiceId>,
}

/// The list of what is neither in use nor an orphan, if the balancer is for one of them.
fn apart<'a>(group: &Group<'_>, found: &'a mut Found) -> Option<&'a mut Vec<String>> {
    let any = |is: fn(&Owned) -> bool| group.objects.iter().any(|it| is(it));
    if any(Owned::is_kept) {
        return Some(&mut found.kept);
    }
    if any(Owned::is_retained) {
        return Some(&mut found.retained);
    }
    group.services.is_empty().then_some(&mut found.unnamed)
}

fn name_of(objects: &[&Owned]) -> String {
    let balancer = objects.iter().find(|it| it.kind == Kind::LoadBalancer);
    let named = balancer.or_else(|| objects.first());
    named.map_or_else(String::new, |it| it.name.clone())
}

// === impl Sorted ===

impl<'a> Sorted<'a> {
    /// Sorts. What is neither in use nor an orphan goes to its list in `found`.
    pub(super) fn of(look: &Look<'a>, found: &mut Found) -> Self {
        let mut sorted = Self::default();
        let mut groups: BTreeMap<&Key, Group<'a>> = BTreeMap::new();
        for object in look.objects {
            match &object.key {
                Some(key) => {
                    let group = groups.entry(key).or_default();
                    group.services.extend(&object.services);
                    group.objects.push(object);
                }
                // What serves the whole class.
                None if object.kind == Kind::SecurityGroup => sorted.in_use.push(object),
                None => found.unnamed.push(object.name.clone()),
            }
        }
        sorted.balancers = groups.len();
        for (key, group) in groups {
            if let Some(apart) = apart(&group, found) {
                apart.push(group.name());
                sorted.in_use.extend(group.objects);
            } else {
                sorted.add(key, &group, look.exists);
            }
        }
        sorted
    }

    fn add(&mut self, key: &'a Key, group: &Group<'a>, exists: &dyn Fn(&ServiceId) -> bool) {
        let services = group.services.iter().copied();
        let (here, absent): (Vec<&ServiceId>, Vec<&ServiceId>) =
            services.partition(|id| exists(id));
        if here.is_empty() {
            // It is one orphan, whichever of its Services is released last.
            let bill = |number| match number {
                0 => group.billed(),
                _ => Billed::default(),
            };
            let all = absent.into_iter().enumerate();
            self.orphans.extend(all.map(|(number, id)| Absent {
                id,
                key,
                objects: group.objects.clone(),
                billed: bill(number),
            }));
            return;
        }
        // The load balancer is the others', whichever of them its tags name.
        let has_parts = (group.objects.iter()).any(|it| it.kind == Kind::TargetGroup);
        let is_part = |it: &Owned| it.kind == Kind::TargetGroup || !has_parts;
        let is_left = |it: &Owned| it.services.iter().any(|id| absent.contains(&id));
        let objects = group.objects.iter().copied();
        let in_use = objects.filter(|it| !is_part(it) || !is_left(it));
        self.in_use.extend(in_use);
        for &id in &absent {
            let objects = group.objects.iter().copied();
            let objects = objects.filter(|it| is_part(it) && it.services.contains(id));
            let objects: Vec<&Owned> = objects.collect();
            if !objects.is_empty() {
                self.orphans.push(Absent {
                    id,
                    key,
                    objects,
                    billed: Billed::default(),
                });
            }
        }
    }
}

// === impl Group ===

impl Group<'_> {
    fn billed(&self) -> Billed {
        self.objects.iter().map(|it| it.billed).sum()
    }

    fn name(&self) -> String {
        name_of(&self.objects)
    }
}

// === impl Absent ===

impl Absent<'_> {
    /// What the memory calls it.
    pub(super) fn name(&self) -> Name {
        (self.id.clone(), self.key.clone())
    }

    /// Its name in the cloud.
    pub(super) fn called(&self) -> String {
        name_of(&self.objects)
    }

    /// Since when all of its objects have the tag.
    pub(super) fn tagged_since(&self) -> Option<Timestamp> {
        let since: Option<Vec<Timestamp>> = (self.objects.iter())
            .map(|it| it.orphaned_at().map(|sign| sign.at))
            .collect();
        since?.into_iter().max()
    }

    /// What is younger than every Service of the API server may be of a later time than its data.
    pub(super) fn is_younger_than(&self, newest: Option<Timestamp>) -> bool {
        let created = self.objects.iter().filter_map(|it| it.created).min();
        match (created, newest) {
            // The API server has whole seconds.
            (Some(created), Some(newest)) => created.as_second() > newest.as_second(),
            // An object of an older version, or somebody has removed the tag.
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }
}
