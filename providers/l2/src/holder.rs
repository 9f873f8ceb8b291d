//! Holders of addresses that a Service cannot get, and how messages name them.
//!
//! Invariant: a message names a Service only to readers of its namespace. Readers of one
//! Service must not learn which others exist.

use std::sync::Arc;

use ballast_provider::ServiceId;

/// A holder of an address that the allocator did not assign.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A Service that no `l2` class places.
    Service {
        /// `metadata.namespace`
        namespace: Arc<str>,
        /// `metadata.name`
        name: Arc<str>,
        /// It names the class of another controller, so it never becomes a Service of an `l2`
        /// class.
        elsewhere: bool,
    },
    /// A node that still announces an address for its previous Service.
    Node(String),
}

/// The name of a Service in a message to the owner of another Service.
pub(crate) fn name_for(reader: &ServiceId, other: &ServiceId) -> String {
    if reader.namespace == other.namespace {
        format!("Service {}/{}", other.namespace, other.name)
    } else {
        "another Service".to_owned()
    }
}

// === impl Holder ===

impl Holder {
    /// Its name in a message to the owner of a Service.
    pub(crate) fn name_for(&self, reader: &ServiceId) -> String {
        match self {
            Self::Service {
                namespace, name, ..
            } if *namespace == reader.namespace => format!("Service {namespace}/{name}"),
            Self::Service { .. } => "another Service".to_owned(),
            Self::Node(name) => {
                format!("node {name}, which still announces it for its previous Service")
            }
        }
    }

    /// Whether it always excludes this Service: it is another Service, of another controller.
    pub(crate) fn excludes(&self, id: &ServiceId) -> bool {
        matches!(
            self,
            Self::Service { namespace, name, elsewhere: true }
                if (namespace, name) != (&id.namespace, &id.name)
        )
    }
}
