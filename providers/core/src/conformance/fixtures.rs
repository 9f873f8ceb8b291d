//! Services and nodes for the checks. Ports are high, so that a real data plane can open
//! them. Targets are on loopback.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::mark::Mark;
use crate::model::{
    Address, Affinity, Balancer, Family, Key, Listener, LoadBalancer, Member, Protocol, ServiceId,
    Target, TargetSet, TrafficPolicy,
};

/// A small deterministic generator (splitmix64), which is enough for the suite.
pub(super) struct Dice(pub(super) u64);

pub(super) fn mark() -> Mark {
    Mark {
        cluster: "0c5d6f7e-cluster".to_owned(),
        cluster_name: "conformance".to_owned(),
        class: "ours".to_owned(),
        writer: "1".into(),
    }
}

pub(super) fn other_class() -> Mark {
    Mark {
        class: "theirs".to_owned(),
        ..mark()
    }
}

pub(super) fn other_cluster() -> Mark {
    Mark {
        cluster: "ffffffff-cluster".to_owned(),
        ..mark()
    }
}

/// A Service. Services with different numbers have different ports, so they can share.
pub(super) fn service(number: u16) -> LoadBalancer {
    let port = |protocol: Protocol, offset: u16| Listener {
        name: Some(format!("p{offset}")),
        protocol,
        port: 20_000 + number * 10 + offset,
        node_port: 30_000 + number * 10 + offset,
    };
    LoadBalancer {
        id: ServiceId {
            namespace: "conformance".into(),
            name: format!("service-{number}").into(),
            uid: format!("00000000-0000-4000-8000-{number:012}").into(),
        },
        listeners: vec![
            port(Protocol::Tcp, 0),
            port(Protocol::Tcp, 1),
            port(Protocol::Udp, 2),
        ],
        families: vec![Family::V4],
        traffic_policy: TrafficPolicy::Cluster,
        affinity: Affinity::None,
        source_ranges: Vec::new(),
        requested_addresses: Vec::new(),
        share_key: None,
        settings: crate::Settings::new(),
    }
}

pub(super) fn sharing(number: u16) -> LoadBalancer {
    LoadBalancer {
        share_key: Some("conformance".to_owned()),
        ..service(number)
    }
}

/// The same Service after an edit; each number is a different edit.
pub(super) fn edited(mut service: LoadBalancer, edit: usize) -> LoadBalancer {
    match edit % EDITS {
        0 => service.listeners[0].node_port += 5,
        1 => service.listeners[0].port += 5,
        2 => drop(service.listeners.pop()),
        3 => {
            service.traffic_policy = TrafficPolicy::Local {
                health_check_node_port: 32_000,
            };
        }
        4 => {
            service.affinity = Affinity::ClientIp {
                timeout_seconds: 60,
            }
        }
        _ => service.source_ranges = "127.0.0.0/8".parse().into_iter().collect(),
    }
    service
}

/// The number of edits of [`edited`].
pub(super) const EDITS: usize = 6;

/// A Service without published addresses.
pub(super) fn member(load_balancer: LoadBalancer) -> Member {
    Member {
        load_balancer,
        published: Vec::new(),
        placement: crate::Placement::default(),
        endpoints: None,
    }
}

/// What a Service publishes, as a provider gets it: it assigns no names.
pub(super) fn ips(addresses: &[Address]) -> Vec<IpAddr> {
    addresses.iter().filter_map(Address::ip).collect()
}

pub(super) fn alone(key: Key, load_balancer: LoadBalancer, published: &[Address]) -> Balancer {
    let mut member = member(load_balancer);
    member.published = ips(published);
    Balancer {
        key,
        members: vec![member],
        kept: BTreeSet::new(),
        deletes_nothing: false,
    }
}

pub(super) fn target(number: u8) -> Target {
    Target {
        name: format!("node-{number}"),
        addresses: vec![Ipv4Addr::new(127, 0, 10, number).into()],
        provider_id: Some(format!("conformance:///node-{number}")),
        labels: Arc::default(),
    }
}

pub(super) fn targets(count: u8) -> TargetSet {
    TargetSet::of_nodes((1..=count).map(target).collect::<BTreeSet<_>>())
}

// === impl Dice ===

impl Dice {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let drawn = (mixed ^ (mixed >> 31)) % (bound.max(1) as u64);
        usize::try_from(drawn).unwrap_or_default()
    }
}
