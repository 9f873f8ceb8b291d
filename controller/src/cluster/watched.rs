//! What a watch reads of an object's JSON, of which little is kept: names, and parts of a spec or
//! status. The rest is skipped, such as annotations and managed fields. Objects of this form live
//! only until they are parsed, into [`super::slices`] and the announcer's `facts`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};

/// An object of the kind `K`.
#[derive(Clone, Debug)]
pub struct Watched<K, Spec = IgnoredAny, Status = IgnoredAny, Endpoints = IgnoredAny> {
    /// Names, version, labels, finalizers.
    pub metadata: ObjectMeta,
    /// `spec`
    pub spec: Option<Spec>,
    /// `status`
    pub status: Option<Status>,
    /// `endpoints` of an `EndpointSlice`.
    pub endpoints: Option<Vec<Endpoints>>,
    /// `addressType` of an `EndpointSlice`.
    pub address_type: Option<String>,
    /// `ports` of an `EndpointSlice`.
    pub ports: Option<Vec<SlicePort>>,
    kind: PhantomData<fn() -> K>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<Spec, Status, Endpoints> {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
    endpoints: Option<Vec<Endpoints>>,
    address_type: Option<String>,
    ports: Option<Vec<SlicePort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `type`
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// `loadBalancerClass`
    pub load_balancer_class: Option<String>,
    /// `externalTrafficPolicy`
    pub external_traffic_policy: Option<String>,
    /// `healthCheckNodePort`
    pub health_check_node_port: Option<i32>,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// `loadBalancer`
    pub load_balancer: Option<Published>,
    /// `conditions`
    pub conditions: Option<Vec<Kind>>,
}

/// `status.loadBalancer` of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Published {
    /// `ingress`
    pub ingress: Option<Vec<Ingress>>,
}

/// An entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingress {
    /// `ip`
    pub ip: Option<String>,
    /// `ipMode`
    pub ip_mode: Option<String>,
}

/// The type of a condition.
#[derive(Clone, Debug, Deserialize)]
pub struct Kind {
    /// `type`
    #[serde(rename = "type")]
    pub kind: String,
}

/// An entry of `endpoints`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// The first of `addresses`; all of them reach the same pod.
    #[serde(rename = "addresses", deserialize_with = "first")]
    pub address: Option<String>,
    /// `nodeName`
    pub node_name: Option<String>,
    /// `conditions`
    pub conditions: Option<EndpointConditions>,
    /// `targetRef`
    pub target_ref: Option<TargetRef>,
}

/// `targetRef` of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// `kind`
    pub kind: Option<String>,
    /// `name`
    pub name: Option<String>,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// `readinessGates`
    pub readiness_gates: Option<Vec<ReadinessGate>>,
}

/// A readiness gate of a Pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessGate {
    /// `conditionType`
    pub condition_type: String,
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// `conditions`
    pub conditions: Option<Vec<PodCondition>>,
}

/// A condition of a Pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodCondition {
    /// `type`
    #[serde(rename = "type")]
    pub kind: String,
    /// `status`
    pub status: String,
    /// `lastTransitionTime`
    #[serde(default)]
    pub last_transition_time: Option<Time>,
}

/// `conditions` of an endpoint.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// `ready`; absent means true.
    pub ready: Option<bool>,
    /// `serving`; absent means the same as `ready`.
    pub serving: Option<bool>,
    /// `terminating`; absent means false.
    pub terminating: Option<bool>,
}

/// An entry of `ports` of an `EndpointSlice`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SlicePort {
    /// `name`; absent means that it is empty.
    pub name: Option<String>,
    /// `protocol`; absent means TCP.
    pub protocol: Option<String>,
    /// `port`
    pub port: Option<i32>,
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// `unschedulable`
    pub unschedulable: Option<bool>,
    /// `taints`
    pub taints: Option<Vec<Taint>>,
}

/// A taint of a Node.
#[derive(Clone, Debug, Deserialize)]
pub struct Taint {
    /// `key`
    pub key: String,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// `addresses`
    pub addresses: Option<Vec<NodeAddress>>,
}

/// An address of a Node.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeAddress {
    /// `type`
    #[serde(rename = "type")]
    pub kind: String,
    /// `address`
    pub address: String,
}

/// `spec` of a Lease.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    /// `renewTime`
    pub renew_time: Option<String>,
}

/// Reads the first text of a list and skips the others.
fn first<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct First;
    impl<'de> Visitor<'de> for First {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let first = list.next_element()?;
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }
    deserializer.deserialize_any(First)
}

// === impl Watched ===

impl<'de, K, Spec, Status, Endpoints> Deserialize<'de> for Watched<K, Spec, Status, Endpoints>
where
    Spec: DeserializeOwned,
    Status: DeserializeOwned,
    Endpoints: DeserializeOwned,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire: Wire<Spec, Status, Endpoints> = Wire::deserialize(deserializer)?;
        Ok(Self {
            metadata: wire.metadata.into(),
            spec: wire.spec,
            status: wire.status,
            endpoints: wire.endpoints,
            address_type: wire.address_type,
            ports: wire.ports,
            kind: PhantomData,
        })
    }
}

impl<K, Spec, Status, Endpoints> Resource for Watched<K, Spec, Status, Endpoints>
where
    K: Resource<DynamicType = ()>,
{
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

// === impl Metadata ===

impl From<Metadata> for ObjectMeta {
    fn from(wire: Metadata) -> Self {
        Self {
            name: wire.name,
            namespace: wire.namespace,
            uid: wire.uid,
            resource_version: wire.resource_version,
            deletion_timestamp: wire.deletion_timestamp,
            labels: wire.labels,
            finalizers: wire.finalizers,
            owner_references: wire.owner_references,
            ..Self::default()
        }
    }
}
