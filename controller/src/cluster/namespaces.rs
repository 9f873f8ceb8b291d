//! The labels of namespaces, by which address pools select Services.

use std::sync::Arc;

use ballast_provider::Labels;

use crate::cluster::store::Store;

/// The labels of all namespaces, as watched.
pub type Namespaces = Store<String, Labels>;

/// The labels of a namespace; empty while the namespace is not known (see [`is_known`]).
pub fn labels(namespaces: &Namespaces, name: &str) -> Arc<Labels> {
    namespaces.get(&name.to_owned()).unwrap_or_default()
}

/// Whether the labels of a namespace are known. Its watch may be behind that of Services.
pub fn is_known(namespaces: &Namespaces, name: &str) -> bool {
    namespaces.get(&name.to_owned()).is_some()
}
