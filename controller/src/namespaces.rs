//! Namespaces, of which only the labels matter: pools select by them.

use std::sync::Arc;

use ballast_provider::Labels;

use crate::store::Store;

/// The labels of all namespaces, as watched.
pub type Namespaces = Store<String, Labels>;

/// The labels of one; none while it is not known.
pub fn labels(namespaces: &Namespaces, name: &str) -> Arc<Labels> {
    namespaces.get(&name.to_owned()).unwrap_or_default()
}
