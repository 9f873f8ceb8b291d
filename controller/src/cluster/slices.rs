//! What is kept of an `EndpointSlice`, for load balancers whose targets are pods, and the
//! endpoints of a Service that its slices make. Parsing never fails; a part that is invalid is
//! left out. Pure.
//!
//! The controller of Kubernetes writes the slices of Services with a selector. Whoever may write
//! slices in a namespace can add others, for Services with and without a selector, with any
//! address in them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ballast_provider::{Endpoint, Family, LoadBalancer, Protocol, Readiness, ServiceId};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use serde::de::IgnoredAny;

use super::store::Key as _;
use super::texts;
use super::view::Name;
use super::watched::{self, Watched};

/// The label with the name of the Service of an `EndpointSlice`.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Selects the slices of Services with a virtual address.
pub const OF_SERVICES: &str = "kubernetes.io/service-name,!service.kubernetes.io/headless";
/// What is kept of one slice. The API server allows 1,000 endpoints and 100 ports.
const MOST_PODS: usize = 1_000;
const MOST_PORTS: usize = 100;
/// The endpoints of one Service that a provider gets. No load balancer has as many targets.
const MOST_ENDPOINTS: usize = 20_000;

/// An `EndpointSlice`, as the watch reads it.
pub type WatchedSlice = Watched<EndpointSlice, IgnoredAny, IgnoredAny, watched::Endpoint>;

/// The pods in one `EndpointSlice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The Service.
    pub service: Name,
    /// The UID of the Service that owns the slice; `None` for a slice that no Service owns.
    owner: Option<Box<str>>,
    ports: Box<[Port]>,
    pods: Box<[Pod]>,
    /// The addresses that nobody may name, and that are left out.
    off_limits: BTreeSet<IpAddr>,
}

/// A port of all pods in a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    /// The name of the Service's port; empty if it has none.
    name: Arc<str>,
    protocol: Protocol,
    number: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pod {
    address: IpAddr,
    readiness: Readiness,
    /// Its name, while it is not ready: it may wait for its gate.
    name: Option<Box<str>>,
}

/// Whether an address is never a target, whoever names it: it means something else to a load
/// balancer than to the pod that has it. 169.254.169.254 and `fd00:ec2::254`, for example, give
/// the credentials of a machine to everyone on it.
pub fn is_off_limits(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.octets()[0] == 0
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || ip.is_unspecified()
                || ip.segments()[..2] == [0xfd00, 0x0ec2]
        }
    }
}

/// The endpoints of a Service for a load balancer, from all slices with its name. A slice that
/// another Service of the same name owned is not counted: that Service is gone, and its slices
/// soon are. `gated` says of a pod that is not ready whether it is a target because of its gate.
pub fn endpoints<'a>(
    id: &ServiceId,
    load_balancer: &LoadBalancer,
    slices: impl IntoIterator<Item = &'a Slice>,
    gated: &dyn Fn(&str) -> bool,
) -> BTreeSet<Endpoint> {
    let mut all: BTreeMap<((Protocol, u16), IpAddr, u16), Readiness> = BTreeMap::new();
    let own = slices.into_iter().filter(|slice| slice.is_of(id));
    for slice in own {
        let pods = slice.pods.iter().map(|pod| {
            let readiness = if pod.name.as_deref().is_some_and(gated) {
                Readiness::Gated
            } else {
                pod.readiness
            };
            (pod.address, readiness)
        });
        let pods: Vec<(IpAddr, Readiness)> = pods.collect();
        for listener in &load_balancer.listeners {
            let name = listener.name.as_deref().unwrap_or_default();
            let same = |port: &&Port| (&*port.name, port.protocol) == (name, listener.protocol);
            for port in slice.ports.iter().filter(same) {
                for (address, found) in &pods {
                    let key = ((listener.protocol, listener.port), *address, port.number);
                    if all.len() >= MOST_ENDPOINTS && !all.contains_key(&key) {
                        continue;
                    }
                    // A pod that moves from one slice to another is in both for a moment.
                    let readiness = all.entry(key).or_insert(*found);
                    *readiness = (*found).min(*readiness);
                }
            }
        }
    }
    all.into_iter()
        .map(|((listener, address, port), readiness)| Endpoint {
            listener,
            address,
            port,
            readiness,
        })
        .collect()
}

fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

fn readiness(conditions: watched::EndpointConditions) -> Readiness {
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    match (ready, serving, conditions.terminating.unwrap_or(false)) {
        (true, _, _) => Readiness::Ready,
        (false, true, true) => Readiness::Ending,
        _ => Readiness::Unready,
    }
}

// === impl Slice ===

impl Slice {
    /// `None` for a slice that belongs to no Service, or whose endpoints are no addresses.
    pub fn of(name: &Name, slice: &WatchedSlice) -> Option<Self> {
        let service = slice.labels().get(SERVICE_NAME)?;
        let family = match slice.address_type.as_deref() {
            Some("IPv4") => Family::V4,
            Some("IPv6") => Family::V6,
            _ => return None,
        };
        let ports = slice.ports.iter().flatten().take(MOST_PORTS);
        let ports = ports.filter_map(|port| {
            Some(Port {
                name: texts::shared(port.name.as_deref().unwrap_or_default()),
                protocol: protocol(port.protocol.as_deref())?,
                number: u16::try_from(port.port?).ok().filter(|it| *it != 0)?,
            })
        });
        let mut off_limits = BTreeSet::new();
        let pods = slice.endpoints.iter().flatten().take(MOST_PODS);
        let pods = pods.filter_map(|endpoint| {
            let address: IpAddr = endpoint.address.as_deref()?.parse().ok()?;
            if is_off_limits(address) {
                off_limits.insert(address);
                return None;
            }
            let readiness = readiness(endpoint.conditions.unwrap_or_default());
            let target = endpoint.target_ref.as_ref();
            let pod = target.filter(|it| it.kind.as_deref() == Some("Pod"));
            let name = pod.and_then(|it| it.name.as_deref());
            (Family::of(address) == family).then(|| Pod {
                address,
                readiness,
                name: name
                    .filter(|_| readiness == Readiness::Unready)
                    .map(Into::into),
            })
        });
        let pods = pods.collect();
        let owner = slice.owner_references().iter();
        let mut owner = owner.filter(|owner| owner.kind == "Service");
        Some(Self {
            service: Name::named(Some(&name.namespace), Some(service)),
            owner: owner.next().map(|owner| owner.uid.as_str().into()),
            ports: ports.collect(),
            pods,
            off_limits,
        })
        .filter(|slice| !slice.service.name.is_empty())
    }

    /// The addresses that were left out because nobody may name them.
    pub const fn off_limits(&self) -> &BTreeSet<IpAddr> {
        &self.off_limits
    }

    /// The pods that are not ready, with their addresses.
    pub fn unready(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        let pods = self.pods.iter();
        pods.filter_map(|pod| Some((pod.name.as_deref()?, pod.address)))
    }

    /// Whether it is a slice of this Service, and not of one of the same name before it.
    pub fn is_of(&self, id: &ServiceId) -> bool {
        let owner = self.owner.as_deref();
        owner.is_none_or(|owner| *owner == *id.uid)
    }
}

#[cfg(test)]
mod tests;
