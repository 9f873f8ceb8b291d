//! The labels of namespaces, by which address pools select Services.

use std::sync::Arc;

use ballast_provider::Labels;

use crate::cluster::store::Store;

/// The labels of all namespaces, from the watch.
pub type Namespaces = Store<Arc<str>, Labels>;

/// The labels of a namespace; empty if the namespace is not known yet (see [`is_known`]).
pub fn labels(namespaces: &Namespaces, name: &Arc<str>) -> Arc<Labels> {
    namespaces.get(name).unwrap_or_default()
}

/// Whether the labels of a namespace are known. Its watch may be behind the watch of Services.
pub fn is_known(namespaces: &Namespaces, name: &Arc<str>) -> bool {
    namespaces.get(name).is_some()
}
