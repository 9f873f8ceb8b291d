//! What `ballast status --pools` shows, as values: how full each pool is, which address it
//! assigns next, which addresses are resting, and which Services have which address. Pure.
//! `-o json|yaml` prints these structs, so fields may be added, but never renamed or removed.
//!
//! The controller reports the counts. The addresses come from the Services themselves, so the
//! output includes addresses that another controller assigned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ballast_crds::{AddressPool, AddressPoolStatus, PoolCounts};
use ballast_l2::{Entry, Range};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::core::DeserializeGuard;
use serde::Serialize;

use super::report::{ConditionLine, find};
use crate::cli::service::addresses;

/// All address pools, or one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolReport {
    /// Sorted by name.
    pub pools: Vec<PoolStatus>,
}

/// One address pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// `metadata.name`
    pub name: String,
    /// `Ready`; `Pending`: the controller has not reported anything yet; `Invalid`: the object
    /// cannot be read; or the reason why it is not `Accepted`.
    pub state: String,
    /// Why it is not `Ready`; empty if it is.
    pub why: String,
    /// `spec.addresses`
    pub addresses: Vec<String>,
    /// `spec.autoAssign`
    pub auto_assign: bool,
    /// Both families, for people: `254 + 2^64`.
    pub total: Option<String>,
    /// Addresses that Services have.
    pub used: Option<String>,
    /// Addresses that a Service could get, including resting ones.
    pub free: Option<String>,
    /// The number of IPv4 addresses. Numbers end at 2^63 - 1, which means that many or more.
    pub ipv4: Option<PoolCounts>,
    /// The number of IPv6 addresses, likewise.
    pub ipv6: Option<PoolCounts>,
    /// The next address for a Service that asks for none in particular, one per family.
    pub next: Vec<String>,
    /// Resting addresses (released, not yet free), sorted by the end of their rest.
    pub resting: Vec<RestingLine>,
    /// The addresses of this pool that Services publish, sorted.
    pub assigned: Vec<Assigned>,
    /// The conditions that the controller wrote.
    pub conditions: Vec<ConditionLine>,
}

/// A released address that is not free yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestingLine {
    /// The address.
    pub address: String,
    /// When it is free again.
    pub until: Timestamp,
}

/// An address and the Services that publish it; several can share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assigned {
    /// The address.
    pub address: String,
    /// Sorted by namespace and name.
    pub services: Vec<Holder>,
}

/// A Service that publishes an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

/// The pools, each with the Services that have its addresses.
pub fn report(pools: &[DeserializeGuard<AddressPool>], services: &[Service]) -> PoolReport {
    let holders = holders(services);
    let mut pools: Vec<PoolStatus> = pools
        .iter()
        .map(|guard| PoolStatus::of(guard, &holders))
        .collect();
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    each_address_once(&mut pools);
    PoolReport { pools }
}

/// Of overlapping pools, the one that assigns addresses shows them.
fn each_address_once(pools: &mut [PoolStatus]) {
    let giving = pools.iter().filter(|pool| pool.is_well());
    let given: BTreeSet<String> = giving
        .flat_map(|pool| pool.assigned.iter().map(|one| one.address.clone()))
        .collect();
    for pool in pools.iter_mut().filter(|pool| !pool.is_well()) {
        pool.assigned.retain(|one| !given.contains(&one.address));
    }
}

type Holders = BTreeMap<IpAddr, Vec<Holder>>;

fn holders(services: &[Service]) -> Holders {
    let mut all = Holders::new();
    for service in services {
        let meta = &service.metadata;
        let holder = Holder {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        };
        for address in addresses(service) {
            if let Ok(ip) = address.parse::<IpAddr>() {
                all.entry(ip).or_default().push(holder.clone());
            }
        }
    }
    for services in all.values_mut() {
        services.sort();
        services.dedup();
    }
    all
}

/// The addresses of these ranges that Services have, sorted, each once.
fn assigned(addresses: &[String], holders: &Holders) -> Vec<Assigned> {
    let entries = addresses.iter().filter_map(|text| text.parse().ok());
    let ranges = entries.map(|entry: Entry| entry.range());
    let within = |range: Range| holders.range(range.first()..=range.last());
    let found: BTreeMap<&IpAddr, &Vec<Holder>> = ranges.flat_map(within).collect();
    found
        .into_iter()
        .map(|(address, services)| Assigned {
            address: address.to_string(),
            services: services.clone(),
        })
        .collect()
}

// === impl PoolStatus ===

impl PoolStatus {
    fn of(guard: &DeserializeGuard<AddressPool>, holders: &Holders) -> Self {
        let pool = match &guard.0 {
            Ok(pool) => pool,
            Err(broken) => {
                return Self {
                    name: broken.metadata.name.clone().unwrap_or_default(),
                    state: "Invalid".to_owned(),
                    why: format!("the AddressPool is invalid: {}", broken.error),
                    ..Self::default()
                };
            }
        };
        let nothing = AddressPoolStatus::default();
        let status = pool.status.as_ref().unwrap_or(&nothing);
        let conditions: Vec<ConditionLine> =
            status.conditions.iter().map(ConditionLine::of).collect();
        let (state, why) = standing(&conditions);
        let entries = pool.spec.addresses.iter();
        let addresses: Vec<String> = entries.map(|entry| entry.0.clone()).collect();
        Self {
            name: pool.metadata.name.clone().unwrap_or_default(),
            state,
            why,
            assigned: assigned(&addresses, holders),
            addresses,
            auto_assign: pool.spec.auto_assign,
            total: status.total.clone(),
            used: status.used.clone(),
            free: status.free.clone(),
            ipv4: status.ipv4,
            ipv6: status.ipv6,
            next: status.next.clone(),
            resting: resting(status),
            conditions,
        }
    }

    /// Whether it assigns addresses.
    pub fn is_well(&self) -> bool {
        self.state == "Ready"
    }
}

fn resting(status: &AddressPoolStatus) -> Vec<RestingLine> {
    let lines = status.resting.iter().map(|one| RestingLine {
        address: one.address.clone(),
        until: one.until.0,
    });
    lines.collect()
}

fn standing(conditions: &[ConditionLine]) -> (String, String) {
    let accepted = find(conditions, "Accepted");
    match accepted {
        Some(one) if one.status == "True" => ("Ready".to_owned(), String::new()),
        Some(one) => (one.reason.clone(), one.message.clone()),
        None => (
            "Pending".to_owned(),
            "the controller has not reported anything yet; check that it is running".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests;
