//! The status of a pool. Pure.

use std::net::IpAddr;

use ballast_crds::{AddressPoolStatus, PoolCounts};
use ballast_l2::allocator::{Counts, PoolReport, Resting};
use ballast_l2::pool::Standing;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::PoolView;
use crate::cluster::conditions::{condition, contested, dated, transition};

/// The maximum number of node addresses that a condition names.
const NAMED: usize = 5;

/// The status of a pool. Conditions that did not change since `before` keep their times.
/// `report` is the allocator's state of the pool, if the pool is valid.
pub fn report(
    view: &PoolView,
    report: Option<&(PoolReport, Vec<Resting>)>,
    is_contested: bool,
    before: &[Condition],
    now: Timestamp,
) -> AddressPoolStatus {
    let mut status = AddressPoolStatus::default();
    status
        .conditions
        .push(accepted(view, report.map(|(pool, _)| &pool.standing)));
    if let Some((pool, resting)) = report {
        status.total = Some(sizes(pool, |counts| counts.total));
        status.used = Some((pool.v4.assigned + pool.v6.assigned).to_string());
        status.free = Some(sizes(pool, free));
        status.ipv4 = counts(&pool.v4);
        status.ipv6 = counts(&pool.v6);
        status.next = pool.next.iter().map(IpAddr::to_string).collect();
        status.resting = resting
            .iter()
            .map(|rest| ballast_crds::Resting {
                address: rest.address.to_string(),
                until: Time(whole_seconds(rest.until)),
            })
            .collect();
        status.conditions.extend(node_addresses(&pool.skipped));
    }
    status.conditions.extend(is_contested.then(contested));
    dated(&mut status.conditions, before, &Time(transition(now)));
    status
}

/// In whole seconds, as the API server keeps times; rounded up, so that no time is too early.
fn whole_seconds(time: Timestamp) -> Timestamp {
    let up = i64::from(time.subsec_nanosecond() > 0);
    Timestamp::from_second(time.as_second() + up).unwrap_or(time)
}

fn accepted(view: &PoolView, standing: Option<&Standing>) -> Condition {
    match (&view.pool, standing) {
        (Err(message), _) => condition("Accepted", false, "Invalid", message.clone()),
        (Ok(_), Some(Standing::Conflict { with, range })) => condition(
            "Accepted",
            false,
            "Conflict",
            format!(
                "{range} is also in AddressPool {with}, which is older; this pool assigns no addresses while they overlap"
            ),
        ),
        (Ok(_), _) => condition("Accepted", true, "Accepted", "The pool serves".to_owned()),
    }
}

fn node_addresses(skipped: &[IpAddr]) -> Option<Condition> {
    if skipped.is_empty() {
        return None;
    }
    let named: Vec<String> = skipped.iter().take(NAMED).map(IpAddr::to_string).collect();
    let more = skipped.len() - named.len();
    let named = named.join(", ");
    let message = if more == 0 {
        format!("{named} are addresses of nodes and are not assigned")
    } else {
        format!("{named} and {more} more are addresses of nodes and are not assigned")
    };
    Some(condition("NodeAddresses", true, "Skipped", message))
}

/// The addresses that a Service can get, now or after their rest.
const fn free(counts: &Counts) -> u128 {
    counts.available + counts.resting
}

fn counts(counts: &Counts) -> Option<PoolCounts> {
    (counts.total > 0).then(|| PoolCounts {
        total: Counts::saturated(counts.total),
        assigned: Counts::saturated(counts.assigned),
        available: Counts::saturated(counts.available),
    })
}

/// `254`, `2^64`, or `254 + 2^64`.
fn sizes(pool: &PoolReport, count: impl Fn(&Counts) -> u128) -> String {
    let families = [&pool.v4, &pool.v6].into_iter();
    let sizes: Vec<String> = families
        .filter(|counts| counts.total > 0)
        .map(|counts| size(count(counts)))
        .collect();
    if sizes.is_empty() {
        "0".to_owned()
    } else {
        sizes.join(" + ")
    }
}

/// A large number as the nearest power of two.
fn size(count: u128) -> String {
    const PLAIN: u128 = 1 << 32;
    if count <= PLAIN {
        return count.to_string();
    }
    let floor = count.ilog2();
    let power = if count.is_power_of_two() {
        floor
    } else {
        floor + 1
    };
    let sign = if count.is_power_of_two() { "" } else { "<" };
    format!("{sign}2^{power}")
}
