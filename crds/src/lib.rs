//! The Kubernetes API of Ballast: group `ballast.dev`, version `v1alpha1`.
//!
//! This crate owns the types and is the source of `crds/crds.yaml` (`ballast crds` prints it, and
//! a test compares them). It depends on no other crate of Ballast. Rules that the API server can
//! check are CEL expressions here, so that a mistake is reported at `kubectl apply` and never
//! reaches the controller.

// The derive repeats the types in a private module, where `pub` has no effect.
#![allow(unreachable_pub)]

pub mod announcer;
pub mod aws;
pub mod class;
pub mod pool;

pub use announcer::{
    Announcer, AnnouncerCounts, AnnouncerInterface, AnnouncerProblems, AnnouncerRebalance,
    AnnouncerSpec, AnnouncerStatus, Conflict, Holding, InterfaceAddress, ProblemAddress,
    ProblemInterface, Seal, Successor,
};
pub use aws::{
    AwsHealthCheck, AwsIpAddressType, AwsPublish, AwsScheme, AwsSettings, AwsSharing, AwsTargetType,
};
pub use class::{
    DeletionPolicy, Draining, FailureDetection, L2Settings, LoadBalancerClass,
    LoadBalancerClassSpec, LoadBalancerClassStatus, MockSettings, NotOneProvider, OrphanPolicy,
    ProviderKind, ProviderSettings, Rebalance,
};
pub use pool::{
    AddressPool, AddressPoolSpec, AddressPoolStatus, Edges, PoolCounts, PoolEntry, Resting,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde::Serialize;

/// The API group, and the prefix of Ballast's annotations, conditions and finalizers.
pub const GROUP: &str = "ballast.dev";

/// The annotation of a `LoadBalancerClass` with which `ballast rebalance` asks the announcers to
/// spread its addresses evenly: the time of the request (RFC 3339).
pub const REBALANCE_AT: &str = "ballast.dev/rebalance-at";

/// All CRDs, in the order of [`yaml`].
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        LoadBalancerClass::crd(),
        AddressPool::crd(),
        Announcer::crd(),
    ]
}

/// All CRDs as one multi-document YAML, as `ballast crds` prints it.
pub fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    all().iter().try_fold(String::new(), |mut text, crd| {
        text.push_str("---\n");
        text.push_str(&to_yaml(crd)?);
        Ok(text)
    })
}

/// One object as YAML, the way Ballast prints it everywhere: texts of several lines as blocks, and
/// no line folded.
pub fn to_yaml<T: Serialize>(object: &T) -> Result<String, serde_saphyr::ser::Error> {
    let options = serde_saphyr::ser_options! {
        prefer_block_scalars: true,
        folded_wrap_chars: usize::MAX,
    };
    serde_saphyr::to_string_with_options(object, options)
}

/// `ballast.dev/NAME`: what a Service puts into `spec.loadBalancerClass`, and the
/// finalizer that says which class has to clean up.
pub fn class_key(class: &str) -> String {
    format!("{GROUP}/{class}")
}

/// The class that a `spec.loadBalancerClass` or a finalizer names, if it is a class of Ballast.
pub fn class_of_key(key: &str) -> Option<&str> {
    key.strip_prefix(GROUP)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_keys_round_trip_and_foreign_ones_are_none() {
        assert_eq!(class_of_key(&class_key("local")), Some("local"));
        for foreign in [
            "example.com/local",
            "ballast.devil/x",
            "local",
            "ballast.dev",
        ] {
            assert_eq!(class_of_key(foreign), None, "{foreign}");
        }
    }

    /// `make crds` writes the file; this test fails if it is out of date.
    #[test]
    fn the_committed_yaml_is_what_the_types_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/crds.yaml");
        let committed = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            committed,
            yaml().unwrap(),
            "run `make crds` and commit the result"
        );
    }
}
