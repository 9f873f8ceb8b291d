//! Tables: each row is one action of a user. `model` tests random histories.

mod dual;
mod life;
mod matrix;
mod model;
mod restart;
mod sharing;
mod waiting;

use std::time::Duration;

use ballast_provider::{Family, Protocol, Reason, ServiceId};

use super::*;
use crate::claim::{Backend, FamilyPolicy};
use crate::range;
use crate::selector::{Labels, Selector};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().copied().map(ip).collect()
}

/// `name` or `namespace/name`.
pub(super) fn id(name: &str) -> ServiceId {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    ServiceId {
        namespace: namespace.into(),
        name: name.into(),
        uid: format!("uid-{namespace}-{name}").into(),
    }
}

pub(super) fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap()).collect()
}

/// A pool of the given age without rest, with all addresses assignable.
pub(super) fn pool(name: &str, created: i64, entries: &[&str]) -> Pool {
    Pool {
        entries: range::parse(entries).unwrap(),
        edges: crate::Edges::Use,
        reuse_after: Duration::ZERO,
        ..Pool::new(name, at(created))
    }
}

pub(super) fn selecting(pool: Pool, namespace: Option<&str>, service: Option<&str>) -> Pool {
    let selector = |text: &str| Selector {
        match_labels: labels(text),
        ..Selector::default()
    };
    Pool {
        namespace_selector: namespace.map(selector),
        service_selector: service.map(selector),
        ..pool
    }
}

/// A Service of the given age with port TCP/80.
pub(super) fn claim(name: &str, created: i64) -> Claim {
    Claim {
        ports: [(Protocol::Tcp, 80)].into(),
        ..Claim::new(id(name), at(created))
    }
}

pub(super) fn dual(name: &str, policy: FamilyPolicy, families: [Family; 2]) -> Claim {
    Claim {
        families: families.to_vec(),
        policy,
        ..claim(name, 0)
    }
}

pub(super) fn asking(claim: Claim, addresses: &[&str]) -> Claim {
    Claim {
        requested: ips(addresses),
        ..claim
    }
}

pub(super) fn sharing(claim: Claim, key: &str, port: u16) -> Claim {
    Claim {
        share_key: Some(key.to_owned()),
        ports: [(Protocol::Tcp, port)].into(),
        ..claim
    }
}

pub(super) fn published(claim: Claim, addresses: &[&str]) -> Claim {
    Claim {
        published: ips(addresses),
        ..claim
    }
}

pub(super) fn started(pools: Vec<Pool>) -> Allocator {
    let snapshot = Snapshot {
        pools,
        ..Snapshot::default()
    };
    Allocator::restore(snapshot, at(0))
}

/// The addresses, or the kind of denial, as one text.
pub(super) fn outcome(answer: &Result<Grant, Denial>) -> String {
    match answer {
        Ok(grant) => {
            let mut words: Vec<_> = grant.addresses.iter().map(ToString::to_string).collect();
            words.extend(grant.markers.iter().map(|m| m.as_str().to_owned()));
            words.join(" ")
        }
        Err(denial) => {
            let mut words = vec![format!("{:?}", denial.reason)];
            words.extend(denial.keeps.iter().map(ToString::to_string));
            words.join(" ")
        }
    }
}

impl Allocator {
    pub(super) fn ask(&mut self, claim: &Claim, second: i64) -> String {
        outcome(&self.allocate(claim.clone(), at(second)))
    }

    pub(super) fn woken(&mut self) -> Vec<String> {
        let woken = self.drain_woken().into_iter();
        woken.map(|id| id.name.to_string()).collect()
    }
}

pub(super) fn node(name: &str) -> Holder {
    Holder::Node(name.to_owned())
}

pub(super) fn local(claim: Claim, endpoints: &str) -> Claim {
    Claim {
        backend: Backend::Local(endpoints.to_owned()),
        ..claim
    }
}
