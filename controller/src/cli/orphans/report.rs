//! What a cloud has, by cluster. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ballast_aws::adopt::UNNAMED;
use ballast_provider::mark::{CLUSTER, CLUSTER_NAME};
use ballast_provider::{Billed, Key, Kind, Mark, Owned, ServiceId};
use jiff::Timestamp;

use super::choose;

/// The cluster that the current kubeconfig reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Its UID.
    pub cluster: String,
    /// The UIDs of all of its Services, of any type.
    pub services: BTreeSet<String>,
}

/// What one cloud has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whose cloud it is.
    pub account: String,
    /// The clusters, those that are gone first.
    pub clusters: Vec<Cluster>,
    /// The names of objects with tags of Ballast's, and without that of a cluster: they are nobody's.
    pub relinquished: Vec<String>,
    /// When it was made.
    pub now: Timestamp,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The UID of its namespace `kube-system`.
    pub uid: String,
    /// Its name, as far as its tags say.
    pub name: String,
    /// The last sign of life on anything that it has.
    pub last_seen: Option<Timestamp>,
    /// It has given a sign of life recently.
    pub is_alive: bool,
    /// It is the one that `--compare` has read.
    pub is_current: bool,
    /// What it has.
    pub items: Vec<Item>,
}

/// What one Service, or several with the same share key, have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The balancer; `None` if the tags name none.
    pub key: Option<Key>,
    /// The owner.
    pub owner: Mark,
    /// Its Services.
    pub services: Vec<ServiceId>,
    /// Everything that belongs to it; the load balancer first.
    pub objects: Vec<Owned>,
    /// Whether it may be deleted.
    pub state: State,
    /// Somebody has given a sign of life on it recently.
    pub is_fresh: bool,
}

/// Whether something may be deleted, as far as tags say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its cluster gives no sign of life.
    Gone,
    /// Its cluster gives signs of life, and none of its Services exists there.
    NoService,
    /// Its cluster gives signs of life.
    Alive,
    /// A Service of the current cluster has it.
    InUse,
    /// It was kept on purpose when its Service was deleted.
    Retained,
    /// People want to keep it.
    Kept,
    /// Its tags do not name a Service, so nobody knows what it is for.
    Unnamed,
}

/// The last sign of life of each cluster, by its UID, on anything that it has anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signs(BTreeMap<String, Timestamp>);

/// What serves a whole class is needed as long as anything of the class is kept on purpose.
fn keep_what_others_need(items: &mut [Item]) {
    let kept = items.iter();
    let kept = kept.filter(|it| matches!(it.state, State::Retained | State::Kept));
    let kept: BTreeMap<String, State> = kept.map(|it| (it.owner.class.clone(), it.state)).collect();
    let class_wide = items.iter_mut();
    for one in class_wide.filter(|it| it.key.is_none() && it.state == State::Gone) {
        if let Some(state) = kept.get(&one.owner.class) {
            one.state = *state;
        }
    }
}

/// The last sign of life on any of these.
fn last_sign<'a>(objects: impl IntoIterator<Item = &'a Owned>) -> Option<Timestamp> {
    let signs = objects.into_iter().filter_map(Owned::last_seen);
    signs.map(|sign| sign.at).max()
}

// === impl Signs ===

impl Signs {
    /// Those of everything that the clouds have.
    pub fn of<'a>(objects: impl IntoIterator<Item = &'a Owned>) -> Self {
        let mut all = BTreeMap::new();
        for object in objects {
            let (uid, sign) = (object.tags.get(CLUSTER), object.last_seen());
            if let (Some(uid), Some(sign)) = (uid, sign) {
                let last = all.entry(uid.clone()).or_insert(sign.at);
                *last = sign.at.max(*last);
            }
        }
        Self(all)
    }
}

// === impl Report ===

impl Report {
    /// Groups what a cloud has. `signs`: those of all clouds that are looked at.
    pub fn of(
        account: String,
        objects: &[Owned],
        live: Option<&Live>,
        signs: &Signs,
        not_seen_for: Duration,
        now: Timestamp,
    ) -> Self {
        let mut clusters: BTreeMap<&str, Vec<&Owned>> = BTreeMap::new();
        let mut relinquished = Vec::new();
        for object in objects {
            match object.tags.get(CLUSTER) {
                Some(uid) if !uid.is_empty() => clusters.entry(uid).or_default().push(object),
                _ => relinquished.push(object.name.clone()),
            }
        }
        let clusters = clusters.into_iter();
        let mut clusters: Vec<Cluster> = clusters
            .map(|(uid, objects)| {
                let live = live.filter(|live| live.cluster == uid);
                let last_seen = signs.0.get(uid).copied();
                Cluster::of(uid, &objects, live, (last_seen, not_seen_for), now)
            })
            .collect();
        clusters.sort_by(|a, b| {
            let order = |one: &Cluster| (one.is_alive, one.name.clone(), one.uid.clone());
            order(a).cmp(&order(b))
        });
        Self {
            account,
            clusters,
            relinquished,
            now,
        }
    }

    /// Leaves out all clusters but those with this name or UID.
    pub fn keep_only(&mut self, wanted: &str) {
        self.clusters.retain(|one| one.is_called(wanted));
    }

    /// Whether a cluster that is gone has anything that is not kept on purpose, or the current one something without a
    /// Service.
    pub fn is_anything_left(&self) -> bool {
        let is_left = |one: &Cluster, item: &Item| match item.state {
            State::Gone | State::NoService => true,
            // Nobody deletes it, and somebody pays for it.
            State::Unnamed => !one.is_alive && item.billed() != Billed::default(),
            State::Alive | State::InUse | State::Retained | State::Kept => false,
        };
        let mut all = self.clusters.iter();
        all.any(|one| one.items.iter().any(|item| is_left(one, item)))
    }
}

// === impl Cluster ===

impl Cluster {
    fn of(
        uid: &str,
        objects: &[&Owned],
        live: Option<&Live>,
        (last_seen, not_seen_for): (Option<Timestamp>, Duration),
        now: Timestamp,
    ) -> Self {
        let is_recent = |sign| choose::is_alive(sign, not_seen_for, now);
        let is_alive = live.is_some() || is_recent(last_seen);
        let named = objects.iter().filter_map(|it| it.tags.get(CLUSTER_NAME));
        let mut groups: BTreeMap<(String, Option<Key>), Vec<Owned>> = BTreeMap::new();
        for object in objects {
            let class = Mark::of(&object.tags).map_or_else(String::new, |mark| mark.class);
            let group = groups.entry((class, object.key.clone())).or_default();
            group.push((*object).clone());
        }
        let name = named.max().cloned().unwrap_or_default();
        let mut items: Vec<Item> = Vec::new();
        for ((class, key), objects) in groups {
            let owner = Mark {
                cluster: uid.to_owned(),
                cluster_name: name.clone(),
                class,
                writer: String::new(),
            };
            let is_fresh = is_recent(last_sign(&objects));
            items.push(Item::of(owner, key, objects, (is_alive, is_fresh), live));
        }
        keep_what_others_need(&mut items);
        Self {
            uid: uid.to_owned(),
            last_seen,
            is_alive,
            is_current: live.is_some(),
            items,
            name,
        }
    }

    /// Whether people mean it by this name or UID. The name of a cluster that nobody has named means none.
    pub fn is_called(&self, wanted: &str) -> bool {
        self.uid == wanted || (self.name == wanted && wanted != UNNAMED)
    }

    /// What people type to mean it: its name, or its UID if nobody has named it.
    pub fn called(&self) -> &str {
        if self.name.is_empty() || self.name == UNNAMED {
            &self.uid
        } else {
            &self.name
        }
    }
}

// === impl Item ===

impl Item {
    fn of(
        owner: Mark,
        key: Option<Key>,
        mut objects: Vec<Owned>,
        (is_alive, is_fresh): (bool, bool),
        live: Option<&Live>,
    ) -> Self {
        objects.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        let services: BTreeSet<ServiceId> = objects
            .iter()
            .flat_map(|it| it.services.iter().cloned())
            .collect();
        let exists = |live: &Live| {
            let mut all = services.iter();
            all.any(|id| live.services.contains(&*id.uid))
        };
        // What serves a whole class has no Service, and goes with the last one.
        let is_class_wide = key.is_none()
            && objects.iter().all(|it| it.kind == Kind::SecurityGroup)
            && !owner.class.is_empty();
        let state = if objects.iter().any(Owned::is_kept) {
            State::Kept
        } else if objects.iter().any(Owned::is_retained) {
            State::Retained
        } else if owner.class.is_empty() || (key.is_none() && !is_class_wide) {
            State::Unnamed
        } else {
            match live {
                Some(live) if exists(live) || is_class_wide => State::InUse,
                Some(_) => State::NoService,
                None if is_alive => State::Alive,
                None => State::Gone,
            }
        };
        Self {
            key,
            owner,
            services: services.into_iter().collect(),
            objects,
            state,
            is_fresh,
        }
    }

    /// The name of its load balancer, or of another object if it has none.
    pub fn name(&self) -> &str {
        self.objects.first().map_or("", |it| it.name.as_str())
    }

    /// What is billed for it.
    pub fn billed(&self) -> Billed {
        self.objects.iter().map(|it| it.billed).sum()
    }

    /// When the first of its objects was created.
    pub fn created(&self) -> Option<Timestamp> {
        self.objects.iter().filter_map(|it| it.created).min()
    }

    /// Its kind: that of the object that counts most.
    pub fn kind(&self) -> Kind {
        let first = self.objects.first();
        first.map_or(Kind::SecurityGroup, |it| it.kind)
    }
}

// === impl State ===

impl State {
    /// The spelling in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "cluster gone",
            Self::NoService => "no Service",
            Self::Alive => "cluster alive",
            Self::InUse => "in use",
            Self::Retained => "retained",
            Self::Kept => "kept",
            Self::Unnamed => "unnamed",
        }
    }
}
