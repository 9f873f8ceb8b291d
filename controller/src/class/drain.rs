//! The drain that outlives the classes.
//!
//! The drain switch of a class is in its status, and a class that is deleted and created again has
//! no status. So `ballast teardown` first records in a `ConfigMap` beside the Lease what drains,
//! and the controller reads it before it serves a class that is new to it. Tools that apply
//! manifests again know neither the `ConfigMap` nor the status.
//!
//! [`Record`] is its content and chooses (pure); [`Drains`] reads and writes it.

mod api;
mod inherit;

use std::collections::{BTreeMap, BTreeSet};

use ballast_crds::Draining;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use self::api::{DrainError, Drains};
pub use self::inherit::inherit;
use super::Scope;

/// The key for every class, also those that are created later.
const ALL: &str = "all";
/// The keys of classes that drain.
const DRAINED: &str = "class.";
/// The keys of classes that do not drain although all others do.
const SERVED: &str = "served.";

/// What drains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Every class, also those that are created later.
    all: Option<Draining>,
    /// These classes.
    drained: BTreeMap<String, Draining>,
    /// Not these classes, whatever [`Self::all`] says.
    served: BTreeSet<String>,
}

// === impl Record ===

impl Record {
    /// Reads it. The presence of a key is the switch; a value that cannot be read still drains,
    /// since the object exists.
    pub fn of(object: &ConfigMap) -> Self {
        let created = object.metadata.creation_timestamp.as_ref();
        let since = created.map_or(Timestamp::UNIX_EPOCH, |it| it.0);
        let read = |text: &String| {
            serde_json::from_str(text).unwrap_or(Draining {
                since: Time(since),
                reason: None,
            })
        };
        let mut record = Self::default();
        for (key, value) in object.data.iter().flatten() {
            if key == ALL {
                record.all = Some(read(value));
            } else if let Some(class) = key.strip_prefix(DRAINED) {
                record.drained.insert(class.to_owned(), read(value));
            } else if let Some(class) = key.strip_prefix(SERVED) {
                record.served.insert(class.to_owned());
            }
        }
        record
    }

    /// The content of the `ConfigMap`.
    pub fn data(&self) -> BTreeMap<String, String> {
        let text = |draining: &Draining| serde_json::json!(draining).to_string();
        let all = self.all.iter().map(|it| (ALL.to_owned(), text(it)));
        let drained = self.drained.iter();
        let drained = drained.map(|(class, it)| (format!("{DRAINED}{class}"), text(it)));
        let served = self.served.iter();
        let served = served.map(|class| (format!("{SERVED}{class}"), "by --undo".to_owned()));
        all.chain(drained).chain(served).collect()
    }

    /// Whether a class drains: since when and why.
    pub fn covers(&self, class: &str) -> Option<&Draining> {
        let all = self.all.as_ref().filter(|_| !self.served.contains(class));
        self.drained.get(class).or(all)
    }

    /// With the drain of these classes. What drains already keeps its time and reason.
    #[must_use]
    pub fn with(mut self, classes: &Scope, draining: &Draining) -> Self {
        match classes {
            Scope::All => {
                self.all.get_or_insert_with(|| draining.clone());
                self.served.clear();
            }
            Scope::Only(names) => {
                for name in names {
                    if self.covers(name).is_none() {
                        self.served.remove(name);
                        self.drained.insert(name.clone(), draining.clone());
                    }
                }
            }
        }
        self
    }

    /// Without the drain of these classes.
    #[must_use]
    pub fn without(mut self, classes: &Scope) -> Self {
        match classes {
            Scope::All => Self::default(),
            Scope::Only(names) => {
                for name in names {
                    self.drained.remove(name);
                    if self.all.is_some() {
                        self.served.insert(name.clone());
                    }
                }
                self
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(second: i64, reason: &str) -> Draining {
        Draining {
            since: Time(Timestamp::from_second(second).unwrap()),
            reason: Some(reason.to_owned()),
        }
    }

    fn only(names: &[&str]) -> Scope {
        Scope::Only(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn stored(record: &Record) -> ConfigMap {
        ConfigMap {
            data: Some(record.data()),
            ..ConfigMap::default()
        }
    }

    /// What drains after some steps, of the classes `a` and `b`.
    #[test]
    fn what_drains() {
        type Step = fn(Record) -> Record;
        let all: Step = |it| it.with(&Scope::All, &since(1, "all"));
        let a: Step = |it| it.with(&only(&["a"]), &since(2, "a"));
        let not_a: Step = |it| it.without(&only(&["a"]));
        let none: Step = |it| it.without(&Scope::All);
        let cases: [(&[Step], [Option<&str>; 2]); 10] = [
            (&[], [None, None]),
            (&[all], [Some("all"), Some("all")]),
            (&[a], [Some("a"), None]),
            // The first drain of a class says since when.
            (&[a, all], [Some("a"), Some("all")]),
            (&[all, a], [Some("all"), Some("all")]),
            (&[all, not_a], [None, Some("all")]),
            (&[all, not_a, a], [Some("a"), Some("all")]),
            (&[all, not_a, all], [Some("all"), Some("all")]),
            (&[a, not_a], [None, None]),
            (&[a, all, not_a, none], [None, None]),
        ];
        for (steps, expected) in cases {
            let record = steps.iter().fold(Record::default(), |it, step| step(it));
            let of = |class| record.covers(class).and_then(|it| it.reason.clone());
            let drained = [of("a"), of("b")];
            assert_eq!(drained, expected.map(|it| it.map(str::to_owned)));
            assert_eq!(Record::of(&stored(&record)), record);
        }
        let ended = all(Record::default()).without(&Scope::All);
        assert!(ended.data().is_empty(), "nothing stays behind");
    }

    /// Somebody edited it. Load balancers that come back cost more than Services that wait.
    #[test]
    fn what_cannot_be_read_drains() {
        let object: ConfigMap = serde_json::from_value(serde_json::json!({
            "metadata": {"creationTimestamp": "2026-03-01T12:00:00Z"},
            "data": {"all": "yes", "else": "x"},
        }))
        .unwrap();
        let record = Record::of(&object);
        let draining = record.covers("a").unwrap();
        assert_eq!(draining.since.0.to_string(), "2026-03-01T12:00:00Z");
        assert_eq!(draining.reason, None);
    }
}
