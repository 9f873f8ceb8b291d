//! Every field of the domain model, and what a provider may do with it.
//!
//! [`copy`], [`copy_balancer`] and [`copy_target`] take the model apart without `..`: a new field of the model
//! does not compile until it has a [`Field`], each lab says what its provider does with it,
//! and `docs/providers.md` has a row for it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Lab, fixtures};
use crate::error::Reason;
use crate::labels::Labels;
use crate::model::{
    Affinity, Balancer, Endpoint, Family, FamilyPolicy, Listener, LoadBalancer, Member, Placement,
    Protocol, Readiness, ServiceId, Target, TargetSet, TrafficPolicy,
};

/// One field of the domain model that a provider gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are those of the model")]
pub enum Field {
    Namespace,
    Name,
    Uid,
    ListenerName,
    Protocol,
    Port,
    NodePort,
    Families,
    FamilyPolicy,
    TrafficPolicy,
    HealthCheckNodePort,
    Affinity,
    AffinityTimeout,
    SourceRanges,
    RequestedAddresses,
    ShareKey,
    Settings,
    Published,
    Created,
    Pool,
    Endpoints,
    Labels,
    NamespaceLabels,
    Pods,
    TargetName,
    TargetAddresses,
    TargetProviderId,
    TargetLabels,
    NodeAddresses,
}

/// What a provider does with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It takes effect. If the cloud can do only a part of it, a remark says so.
    Honoured,
    /// It has no effect, and a remark says so.
    Remark,
    /// The Service is refused for this reason. A Service that is served keeps its load
    /// balancer, and every other edit is applied.
    Refused(Reason),
    /// The nodes implement it: packets reach them with the load balancer's address as the
    /// destination, as the published mode `VIP` says.
    Nodes,
    /// It is a fact about the Service or node, not a request, and nothing depends on it.
    Unused,
}

// === impl Field ===

impl Field {
    /// All of them, in the order of the table in `docs/providers.md`.
    pub const ALL: [Self; 29] = [
        Self::Namespace,
        Self::Name,
        Self::Uid,
        Self::ListenerName,
        Self::Protocol,
        Self::Port,
        Self::NodePort,
        Self::Families,
        Self::FamilyPolicy,
        Self::TrafficPolicy,
        Self::HealthCheckNodePort,
        Self::Affinity,
        Self::AffinityTimeout,
        Self::SourceRanges,
        Self::RequestedAddresses,
        Self::ShareKey,
        Self::Settings,
        Self::Published,
        Self::Created,
        Self::Pool,
        Self::Endpoints,
        Self::Labels,
        Self::NamespaceLabels,
        Self::Pods,
        Self::TargetName,
        Self::TargetAddresses,
        Self::TargetProviderId,
        Self::TargetLabels,
        Self::NodeAddresses,
    ];

    /// The field's name in the model, as in `docs/providers.md`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "id.namespace",
            Self::Name => "id.name",
            Self::Uid => "id.uid",
            Self::ListenerName => "listeners.name",
            Self::Protocol => "listeners.protocol",
            Self::Port => "listeners.port",
            Self::NodePort => "listeners.node_port",
            Self::Families => "families",
            Self::FamilyPolicy => "placement.family_policy",
            Self::TrafficPolicy => "traffic_policy",
            Self::HealthCheckNodePort => "traffic_policy.health_check_node_port",
            Self::Affinity => "affinity",
            Self::AffinityTimeout => "affinity.timeout_seconds",
            Self::SourceRanges => "source_ranges",
            Self::RequestedAddresses => "requested_addresses",
            Self::ShareKey => "share_key",
            Self::Settings => "settings",
            Self::Published => "published",
            Self::Created => "placement.created",
            Self::Pool => "placement.pool",
            Self::Endpoints => "placement.endpoints",
            Self::Labels => "placement.labels",
            Self::NamespaceLabels => "placement.namespace_labels",
            Self::Pods => "endpoints",
            Self::TargetName => "targets.name",
            Self::TargetAddresses => "targets.addresses",
            Self::TargetProviderId => "targets.provider_id",
            Self::TargetLabels => "targets.labels",
            Self::NodeAddresses => "nodes.addresses",
        }
    }

    /// Whether it is a fact about the Service or a node, which a provider may leave unused. (Which
    /// of them names a node for a cloud differs.)
    pub(super) const fn is_fact(self) -> bool {
        matches!(
            self,
            Self::ListenerName
                | Self::Created
                | Self::Endpoints
                | Self::Labels
                | Self::NamespaceLabels
                | Self::Pods
                | Self::TargetName
                | Self::TargetAddresses
                | Self::TargetProviderId
                | Self::TargetLabels
                | Self::NodeAddresses
        )
    }

    /// Whether kube-proxy implements it for packets to a load balancer's address.
    pub(super) const fn is_for_nodes(self) -> bool {
        matches!(
            self,
            Self::NodePort
                | Self::TrafficPolicy
                | Self::HealthCheckNodePort
                | Self::Affinity
                | Self::AffinityTimeout
                | Self::SourceRanges
                | Self::TargetName
                | Self::TargetAddresses
        )
    }

    /// The Service of the checks before the change of this field.
    pub(super) fn base(self) -> Member {
        let mut member = fixtures::member(fixtures::service(1));
        let load_balancer = &mut member.load_balancer;
        match self {
            Self::Families => member.placement.family_policy = FamilyPolicy::PreferDualStack,
            Self::FamilyPolicy => {
                load_balancer.families = vec![Family::V4, Family::V6];
                member.placement.family_policy = FamilyPolicy::RequireDualStack;
            }
            Self::HealthCheckNodePort => load_balancer.traffic_policy = local(32_000),
            Self::AffinityTimeout => {
                load_balancer.affinity = Affinity::ClientIp {
                    // Kubernetes' default, which nobody asked for.
                    timeout_seconds: 10_800,
                };
            }
            Self::Endpoints => {
                load_balancer.share_key = Some(SHARED.to_owned());
                load_balancer.traffic_policy = local(32_000);
                member.placement.endpoints = "app=conformance".into();
            }
            Self::Pods => member.endpoints = Some(pods(load_balancer, 1)),
            _ => {}
        }
        member
    }

    /// The same Service after the change. (Addresses, which only a cloud knows, and targets
    /// are changed elsewhere.)
    pub(super) fn changed(self) -> Member {
        let mut member = self.base();
        let load_balancer = &mut member.load_balancer;
        let placement = &mut member.placement;
        match self {
            Self::Namespace => load_balancer.id.namespace = "elsewhere".into(),
            Self::Name => load_balancer.id.name = "renamed".into(),
            Self::Uid => load_balancer.id.uid = fixtures::service(99).id.uid,
            Self::ListenerName => load_balancer.listeners[0].name = Some("renamed".to_owned()),
            Self::Protocol => load_balancer.listeners[0].protocol = Protocol::Udp,
            Self::Port => load_balancer.listeners[0].port += 5,
            Self::NodePort => load_balancer.listeners[0].node_port += 5,
            Self::Families => load_balancer.families = vec![Family::V4, Family::V6],
            Self::FamilyPolicy => placement.family_policy = FamilyPolicy::PreferDualStack,
            Self::TrafficPolicy => load_balancer.traffic_policy = local(32_000),
            Self::HealthCheckNodePort => load_balancer.traffic_policy = local(32_001),
            Self::Affinity => {
                load_balancer.affinity = Affinity::ClientIp {
                    timeout_seconds: 60,
                };
            }
            Self::AffinityTimeout => {
                load_balancer.affinity = Affinity::ClientIp {
                    timeout_seconds: 61,
                };
            }
            Self::SourceRanges => {
                load_balancer.source_ranges = "127.0.0.0/8".parse().into_iter().collect();
            }
            Self::ShareKey => load_balancer.share_key = Some(SHARED.to_owned()),
            Self::Settings => {
                let key = "conformance.example/setting".to_owned();
                load_balancer.settings.insert(key, "on".to_owned());
            }
            Self::Created => placement.created = jiff::Timestamp::UNIX_EPOCH + LATER,
            Self::Pool => placement.pool = Some("conformance".to_owned()),
            Self::Endpoints => placement.endpoints = "app=other".into(),
            Self::Labels => placement.labels = labels(),
            Self::NamespaceLabels => placement.namespace_labels = labels(),
            Self::Pods => member.endpoints = Some(pods(load_balancer, 2)),
            Self::RequestedAddresses
            | Self::Published
            | Self::TargetName
            | Self::TargetAddresses
            | Self::TargetProviderId
            | Self::TargetLabels
            | Self::NodeAddresses => {}
        }
        member
    }

    /// The targets before the change: one of two nodes.
    pub(super) fn base_targets() -> TargetSet {
        Self::Uid.changed_targets()
    }

    /// The targets after the change.
    pub(super) fn changed_targets(self) -> TargetSet {
        let mut target = fixtures::target(1);
        let mut other = fixtures::target(2);
        match self {
            Self::TargetName => target.name = "renamed".into(),
            // The addresses of all nodes together stay the same.
            Self::TargetAddresses => std::mem::swap(&mut target.addresses, &mut other.addresses),
            Self::TargetProviderId => target.provider_id = None,
            Self::TargetLabels => target.labels = labels(),
            Self::NodeAddresses => other = fixtures::target(3),
            _ => {}
        }
        let nodes = [&target, &other].map(|node| node.addresses.clone());
        TargetSet {
            nodes: BTreeSet::from([target]),
            addresses: nodes.into_iter().flatten().collect(),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Support ===

impl Support {
    /// The word in the table of `docs/providers.md`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Honoured => "honoured",
            Self::Remark => "remark",
            Self::Refused(_) => "refused",
            Self::Nodes => "nodes",
            Self::Unused => "unused",
        }
    }
}

fn labels() -> Arc<Labels> {
    Arc::new(Labels::from([("conformance", "yes")]))
}

/// This many pods, ready, for each listener.
fn pods(load_balancer: &LoadBalancer, count: u8) -> Arc<BTreeSet<Endpoint>> {
    let pods = (1..=count).flat_map(|pod| {
        let listeners = load_balancer.listeners.iter();
        listeners.map(move |listener| Endpoint {
            listener: (listener.protocol, listener.port),
            address: IpAddr::from([127, 0, 20, pod]),
            port: 8_000,
            readiness: Readiness::Ready,
        })
    });
    Arc::new(pods.collect())
}

/// The share key of the checks.
pub(super) const SHARED: &str = "conformance";

const LATER: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

const fn local(health_check_node_port: u16) -> TrafficPolicy {
    TrafficPolicy::Local {
        health_check_node_port,
    }
}

/// A balancer with other members. All fields of the model are named here; the keys and who is kept
/// have checks of their own ([`super::moves`], [`super::kept`]). What is not deleted depends on what a provider deletes in
/// a turn, so its own tests check that.
pub(super) fn copy_balancer(from: &Balancer, member: impl Fn(&Member) -> Member) -> Balancer {
    let Balancer {
        key,
        members,
        kept,
        deletes_nothing,
    } = from;
    Balancer {
        key: key.clone(),
        members: members.iter().map(member).collect(),
        kept: kept.clone(),
        deletes_nothing: *deletes_nothing,
    }
}

/// Copies one field of a Service. All fields of the model are named here.
pub(super) fn copy(field: Field, from: &Member, into: &mut Member) {
    let Member {
        load_balancer,
        published,
        placement,
        endpoints: pods,
    } = into;
    let LoadBalancer {
        id: ServiceId {
            namespace,
            name,
            uid,
        },
        listeners,
        families,
        traffic_policy,
        affinity,
        source_ranges,
        requested_addresses,
        share_key,
        settings,
    } = load_balancer;
    let Placement {
        created,
        family_policy,
        pool,
        endpoints,
        labels,
        namespace_labels,
    } = placement;
    let wanted = &from.load_balancer;
    match field {
        Field::Namespace => namespace.clone_from(&wanted.id.namespace),
        Field::Name => name.clone_from(&wanted.id.name),
        Field::Uid => uid.clone_from(&wanted.id.uid),
        Field::ListenerName | Field::Protocol | Field::Port | Field::NodePort => {
            for (from, into) in wanted.listeners.iter().zip(listeners) {
                copy_of_listener(field, from, into);
            }
        }
        Field::Families => families.clone_from(&wanted.families),
        Field::TrafficPolicy | Field::HealthCheckNodePort => {
            *traffic_policy = wanted.traffic_policy;
        }
        Field::Affinity | Field::AffinityTimeout => *affinity = wanted.affinity,
        Field::SourceRanges => source_ranges.clone_from(&wanted.source_ranges),
        Field::RequestedAddresses => requested_addresses.clone_from(&wanted.requested_addresses),
        Field::ShareKey => share_key.clone_from(&wanted.share_key),
        Field::Settings => settings.clone_from(&wanted.settings),
        Field::Published => published.clone_from(&from.published),
        Field::Created => *created = from.placement.created,
        Field::FamilyPolicy => *family_policy = from.placement.family_policy,
        Field::Pool => pool.clone_from(&from.placement.pool),
        Field::Endpoints => endpoints.clone_from(&from.placement.endpoints),
        Field::Labels => labels.clone_from(&from.placement.labels),
        Field::NamespaceLabels => namespace_labels.clone_from(&from.placement.namespace_labels),
        Field::Pods => pods.clone_from(&from.endpoints),
        Field::TargetName
        | Field::TargetAddresses
        | Field::TargetProviderId
        | Field::TargetLabels
        | Field::NodeAddresses => {}
    }
}

fn copy_of_listener(field: Field, from: &Listener, into: &mut Listener) {
    let Listener {
        name,
        protocol,
        port,
        node_port,
    } = into;
    match field {
        Field::ListenerName => name.clone_from(&from.name),
        Field::Protocol => *protocol = from.protocol,
        Field::Port => *port = from.port,
        Field::NodePort => *node_port = from.node_port,
        _ => {}
    }
}

/// Copies one field of a target. All fields of the model are named here.
pub(super) fn copy_target(field: Field, from: &Target, into: &mut Target) {
    let Target {
        name,
        addresses,
        provider_id,
        labels,
    } = into;
    match field {
        Field::TargetName => name.clone_from(&from.name),
        Field::TargetAddresses => addresses.clone_from(&from.addresses),
        Field::TargetProviderId => provider_id.clone_from(&from.provider_id),
        Field::TargetLabels => labels.clone_from(&from.labels),
        _ => {}
    }
}

/// Checks that the table of fields in `docs/providers.md` has one row for each field, in
/// order, and that the cell of this provider begins with what its lab says.
pub fn documented(page: &str, provider: &str, lab: &dyn Lab) -> Result<(), String> {
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().replace('`', "")).collect()
    };
    let mut lines = page.lines();
    let head = lines.by_ref().find(|line| line.starts_with("| field |"));
    let head = cells(head.ok_or("there is no table of fields")?);
    let column = head.iter().position(|title| title == provider);
    let column = column.ok_or(format!("the table has no column {provider}"))?;
    let rows: Vec<_> = lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    if names != Field::ALL.map(Field::as_str) {
        return Err(format!(
            "the rows of the table are {names:?}, not {:?}",
            Field::ALL
        ));
    }
    for (field, row) in Field::ALL.iter().zip(&rows) {
        let cell = row.get(column).map_or("", String::as_str);
        let word = lab.support(*field).as_str();
        if !cell.starts_with(word) {
            return Err(format!(
                "{provider}, {field}: {cell:?} does not begin with {word:?}"
            ));
        }
    }
    Ok(())
}
