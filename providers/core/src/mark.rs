//! The marks that identify the owner of a cloud object. A provider modifies or deletes an
//! object only if its tags carry this cluster and this class (invariant 6), and never adopts
//! one by name alone.

use std::collections::BTreeMap;

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
/// Hash of the desired state that was last applied in full.
pub const APPLIED: &str = "ballast.dev/applied";
/// Set if a load balancer was kept on purpose (`deletionPolicy: Retain`).
pub const RETAINED: &str = "ballast.dev/retained";

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
}

// === impl Mark ===

impl Mark {
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
        })
    }
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
