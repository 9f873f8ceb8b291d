//! The marks that identify the owner of a cloud object. A provider modifies or deletes an
//! object only if its tags carry this cluster and this class (invariant 6), and never adopts
//! one by name alone.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::model::{Key, ServiceId};

/// UID of the cluster's `kube-system` namespace.
pub const CLUSTER: &str = "ballast.dev/cluster";
/// The cluster's name, for display only.
pub const CLUSTER_NAME: &str = "ballast.dev/cluster-name";
/// The `LoadBalancerClass`.
pub const CLASS: &str = "ballast.dev/class";
/// `namespace/name` of the Service.
pub const SERVICE: &str = "ballast.dev/service";
/// UID of the Service.
pub const SERVICE_UID: &str = "ballast.dev/service-uid";
/// The text of [`Key::Shared`], on objects that several Services may share.
pub const SHARE_KEY: &str = "ballast.dev/share-key";
/// When the object was created, RFC 3339.
pub const CREATED_AT: &str = "ballast.dev/created-at";
/// The last sign of life of the cluster: a [`Sign`]. The controller refreshes it daily.
pub const LAST_SEEN: &str = "ballast.dev/last-seen";
/// Since when no Service of the cluster has the object, as far as the cluster knows: a [`Sign`].
pub const ORPHANED_AT: &str = "ballast.dev/orphaned-at";
/// Set by people, with any value: Ballast never deletes the object.
pub const KEEP: &str = "ballast.dev/keep";
/// Hash of the desired state that was last applied in full.
pub const APPLIED: &str = "ballast.dev/applied";
/// Set if a load balancer was kept on purpose (`deletionPolicy: Retain`).
pub const RETAINED: &str = "ballast.dev/retained";
/// What every tag of Ballast's begins with.
pub const PREFIX: &str = "ballast.dev/";

/// The tags that say when something happened, or what people wish. They are no part of a desired
/// state: a difference is no drift, and whoever writes an object leaves them as they are.
pub const NOTES: [&str; 4] = [CREATED_AT, LAST_SEEN, ORPHANED_AT, KEEP];

/// Who wrote a tag, and when. `TIME/WRITER`, such as `2026-11-25T10:00:00Z/3f9c2a7d01b4e856`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign {
    /// When, by the clock of the writer, in whole seconds.
    pub at: Timestamp,
    /// [`Mark::writer`].
    pub writer: String,
}

/// A tag is no [`Sign`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not TIME/WRITER, such as 2026-11-25T10:00:00Z/3f9c2a7d01b4e856")]
pub struct NotASign;

/// The owner of the objects that a provider instance creates. The instance may touch no
/// others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// UID of the `kube-system` namespace.
    pub cluster: String,
    /// For display only; nothing is decided by it.
    pub cluster_name: String,
    /// Name of the `LoadBalancerClass`.
    pub class: String,
    /// Tells the process that writes from every other one, those of a copy of the cluster included.
    /// No part of the owner: [`Self::owns`] and [`Self::of`] ignore it.
    pub writer: String,
}

// === impl Sign ===

impl Sign {
    /// The sign in one of these tags, if there is one.
    pub fn of(tags: &BTreeMap<String, String>, key: &str) -> Option<Self> {
        tags.get(key)?.parse().ok()
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}/{}", self.at, self.writer)
    }
}

impl FromStr for Sign {
    type Err = NotASign;

    fn from_str(text: &str) -> Result<Self, NotASign> {
        let (at, writer) = text.split_once('/').ok_or(NotASign)?;
        Ok(Self {
            at: at.parse().map_err(|_| NotASign)?,
            writer: writer.to_owned(),
        })
    }
}

// === impl Mark ===

impl Mark {
    /// What this process writes at this time.
    pub fn sign(&self, now: Timestamp) -> Sign {
        Sign {
            at: now,
            writer: self.writer.clone(),
        }
    }

    /// The tags that an object gets with its creation, beside those of its owner.
    pub fn birth(&self, now: Timestamp) -> BTreeMap<String, String> {
        [
            (CREATED_AT.to_owned(), format!("{now:.0}")),
            (LAST_SEEN.to_owned(), self.sign(now).to_string()),
        ]
        .into()
    }

    /// The tags of an object with this mark that serves one Service.
    pub fn tags(&self, id: &ServiceId) -> BTreeMap<String, String> {
        [
            (CLUSTER, self.cluster.clone()),
            (CLUSTER_NAME, self.cluster_name.clone()),
            (CLASS, self.class.clone()),
            (SERVICE, id.to_string()),
            (SERVICE_UID, id.uid.to_string()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// The tags of an object of this balancer that serves one Service, or serves this one first.
    pub fn tags_on(&self, key: &Key, id: &ServiceId) -> BTreeMap<String, String> {
        let mut tags = self.tags(id);
        if let Key::Shared(text) = key {
            tags.insert(SHARE_KEY.to_owned(), text.to_string());
        }
        tags
    }

    /// Whether the tags carry this cluster and this class.
    pub fn owns(&self, tags: &BTreeMap<String, String>) -> bool {
        tags.get(CLUSTER) == Some(&self.cluster) && tags.get(CLASS) == Some(&self.class)
    }

    /// A stable name for a balancer, different for every cluster, class and key: `PREFIX-`
    /// and 24 hex digits.
    pub fn name(&self, prefix: &str, key: &Key) -> String {
        self.name_of(prefix, &key.to_string())
    }

    /// The same for an object that belongs to no single balancer.
    pub fn name_of(&self, prefix: &str, what: &str) -> String {
        let digest = digest([self.cluster.as_str(), self.class.as_str(), what]);
        format!("{prefix}-{}", &digest[..24])
    }

    /// The owner of an object, if its tags name a cluster and a class.
    pub fn of(tags: &BTreeMap<String, String>) -> Option<Self> {
        Some(Self {
            cluster: tags.get(CLUSTER)?.clone(),
            cluster_name: tags.get(CLUSTER_NAME).cloned().unwrap_or_default(),
            class: tags.get(CLASS)?.clone(),
            writer: String::new(),
        })
    }
}

/// When an object was created, if its tags say so.
pub fn created_at(tags: &BTreeMap<String, String>) -> Option<Timestamp> {
    tags.get(CREATED_AT)?.parse().ok()
}

/// The Service that the tags name, if they name one in full.
pub fn service_of(tags: &BTreeMap<String, String>) -> Option<ServiceId> {
    let (namespace, name) = tags.get(SERVICE)?.split_once('/')?;
    Some(ServiceId {
        namespace: namespace.into(),
        name: name.into(),
        uid: tags.get(SERVICE_UID)?.as_str().into(),
    })
}

/// The balancer that the tags name: that of the share key, or that of the Service alone.
pub fn key_of(tags: &BTreeMap<String, String>) -> Option<Key> {
    match tags.get(SHARE_KEY) {
        Some(text) => Some(Key::Shared(text.as_str().into())),
        None => service_of(tags).as_ref().map(Key::alone),
    }
}

/// SHA-256 over the parts, in hex. The parts are separated, so ("a","b") differs from
/// ("ab").
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let bytes = hasher.finalize();
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark {
            cluster: "c-1".into(),
            cluster_name: "lab".into(),
            class: "local".into(),
            writer: String::new(),
        }
    }

    fn id() -> ServiceId {
        ServiceId {
            namespace: "shop".into(),
            name: "web".into(),
            uid: "u-1".into(),
        }
    }

    #[test]
    fn tags_name_the_service_and_prove_ownership() {
        let tags = mark().tags(&id());
        assert!(mark().owns(&tags));
        assert_eq!(service_of(&tags), Some(id()));
        assert_eq!(Mark::of(&tags), Some(mark()));
        assert_eq!(Mark::of(&BTreeMap::new()), None);
    }

    #[test]
    fn tags_name_the_balancer() {
        for key in [Key::alone(&id()), Key::Shared("shop/front".into())] {
            let tags = mark().tags_on(&key, &id());
            assert_eq!(key_of(&tags), Some(key));
            assert_eq!(service_of(&tags), Some(id()));
        }
        assert_eq!(key_of(&BTreeMap::new()), None);
    }

    #[test]
    fn another_cluster_or_class_is_foreign() {
        let tags = mark().tags(&id());
        for foreign in [
            Mark {
                cluster: "c-2".into(),
                ..mark()
            },
            Mark {
                class: "other".into(),
                ..mark()
            },
        ] {
            assert!(!foreign.owns(&tags), "{foreign:?}");
        }
        assert!(!mark().owns(&BTreeMap::new()));
    }

    #[test]
    fn a_sign_is_what_was_written() {
        let now: Timestamp = "2026-11-25T10:00:00.5Z".parse().unwrap();
        let writer = Mark {
            writer: "3f9c".into(),
            ..mark()
        };
        let born = writer.birth(now);
        assert_eq!(born[CREATED_AT], "2026-11-25T10:00:00Z");
        assert_eq!(born[LAST_SEEN], "2026-11-25T10:00:00Z/3f9c");
        let sign = Sign::of(&born, LAST_SEEN).unwrap();
        assert_eq!(
            (sign.at.as_second(), &*sign.writer),
            (1_795_600_800, "3f9c")
        );
        assert_eq!(created_at(&born).unwrap(), sign.at);
        for bad in ["", "2026-11-25T10:00:00Z", "yesterday/3f9c"] {
            assert_eq!(bad.parse::<Sign>(), Err(NotASign), "{bad}");
        }
    }

    #[test]
    fn names_differ_where_owners_differ() {
        let key = Key::Service("u-1".into());
        let name = mark().name("bl", &key);
        assert_eq!(name, mark().name("bl", &key));
        assert_eq!(name.len(), 27);
        assert_ne!(name, mark().name("bl", &Key::Shared("u-1".into())));
        let moved = Mark {
            cluster: "c-1l".into(),
            class: "ocal".into(),
            ..mark()
        };
        assert_ne!(name, moved.name("bl", &key));
    }
}
