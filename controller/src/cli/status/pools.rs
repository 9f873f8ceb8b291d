//! What `ballast status --pools` says of address pools, as values: how full each is, what
//! it gives next, what rests, and who has which address. Pure. `-o json|yaml` prints
//! these structs as they stand here, so a field may be added, and none renamed or removed.
//!
//! Counts are the controller's; who has an address is read from the Services themselves,
//! whoever gave it to them, so that an address that another controller gave shows as well.

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
    /// By name.
    pub pools: Vec<PoolStatus>,
}

/// One address pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// `metadata.name`
    pub name: String,
    /// `Ready`; `Pending`: the controller has said nothing yet; `Invalid`: the object
    /// cannot be read; or the reason for which it is not `Accepted`.
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
    /// Addresses that a Service could get, those that rest included.
    pub free: Option<String>,
    /// IPv4 by number; numbers end at 2^63 - 1, which means: that many or more.
    pub ipv4: Option<PoolCounts>,
    /// IPv6 by number, likewise.
    pub ipv6: Option<PoolCounts>,
    /// What a Service without any wish would get next, one address per family.
    pub next: Vec<String>,
    /// Released addresses that rest, the first to be free again first.
    pub resting: Vec<RestingLine>,
    /// The addresses of this pool that Services publish, in order.
    pub assigned: Vec<Assigned>,
    /// As the controller wrote them.
    pub conditions: Vec<ConditionLine>,
}

/// A released address on its way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestingLine {
    /// The address.
    pub address: String,
    /// When it is free again.
    pub until: Timestamp,
}

/// An address and who publishes it; several Services share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assigned {
    /// The address.
    pub address: String,
    /// By namespace and name.
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

/// Pools that overlap: the one that gives addresses has them.
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

/// What the holders have of the ranges, in order and each address once.
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

    /// It gives addresses.
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
