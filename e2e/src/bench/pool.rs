//! Addresses from a pool that is exactly full: what a backlog of Services costs, then a
//! restart, then some of the Services anew. Writes are counted in the audit log.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::bed::Bed;
use super::contender::BALLAST;
use super::scenario::Waits;
use super::usage::Usage;
use super::writes::{Counter, Rows, TASK};
use super::{Contender, NAMESPACE, Values};
use crate::eventually;

/// The class that gives addresses of the pool.
pub(super) const CLASS: &str = "lan";
/// As Services name it.
pub(super) const CLASS_KEY: &str = "ballast.dev/lan";
/// Far more addresses than there are Services.
pub(super) const WIDE: &str = "198.18.0.0/16";
/// Every this many Services one is deleted and created again.
const ANEW: u32 = 5;
const LIMIT: Duration = Duration::from_mins(2);

/// The figure that matters most.
pub(super) const TO_OTHERS: &str = "anew: patches of others, all";
const BACKLOG: Rows = [
    "backlog: patches",
    "backlog: events",
    "backlog: of class and pool, all",
];
const RESTART: Rows = [
    "restart: patches",
    "restart: events",
    "restart: of class and pool, all",
];
const RECREATED: Rows = [
    "anew: patches",
    "anew: events",
    "anew: of class and pool, all",
];

/// The range of a pool of this size.
pub(super) fn of_size(services: u32) -> String {
    let first = Ipv4Addr::new(198, 18, 0, 1);
    let last = Ipv4Addr::from(u32::from(first) + services.saturating_sub(1));
    format!("{first}-{last}")
}

/// The class, and its one pool of this range, which gives an address back at once.
pub(super) fn manifest(range: &str) -> String {
    format!(
        "apiVersion: ballast.dev/v1alpha1\nkind: LoadBalancerClass\nmetadata: {{name: {CLASS}}}\nspec: {{l2: {{}}}}\n---\n\
         apiVersion: ballast.dev/v1alpha1\nkind: AddressPool\nmetadata: {{name: bench}}\nspec: {{addresses: [{range}], reuseAfter: 0s}}\n"
    )
}

/// The whole life, of Services that exist already.
pub(super) async fn life(bed: &Bed<'_>, services: u32) -> Result<Values> {
    let mut counter = Counter::open(bed, Contender::Ballast, services)?;
    let number = services.to_string();
    let observer = bed.user("observe", &["--services", &number]).await?;
    let live = Contender::Ballast.start(bed, TASK).await?;
    observer.result::<serde_json::Value>(LIMIT).await?;
    counter.step(BACKLOG).await?;
    live.stop(bed).await?;

    let start = Instant::now();
    let live = Contender::Ballast.start(bed, TASK).await?;
    bed.ballast.controller_ready(BALLAST).await?;
    let ready = start.elapsed();
    all_looked_at(bed, services).await?;
    let looked = start.elapsed();
    counter.step(RESTART).await?;
    let used = Usage::of(bed.lab, &live.process).await?;

    let anew = (services / ANEW).max(1);
    let number = anew.to_string();
    let flags = ["--services", &number, "--class", CLASS_KEY, "--replace"];
    let waits: Waits = bed.run("load", &flags).await?;
    counter.per(anew);
    let written = counter.step(RECREATED).await?;
    // They are numbered from 0, and the first of them were made anew.
    let other = |name: &str| {
        let number = name
            .rsplit('-')
            .next()
            .and_then(|it| it.parse::<u32>().ok());
        number.is_none_or(|number| number >= anew)
    };
    let others = written
        .iter()
        .filter(|it| it.resource == "services" && it.namespace == NAMESPACE && other(&it.name));
    let others = u32::try_from(others.count())?;
    live.stop(bed).await?;

    let mut values = counter.values;
    values.extend([
        ("restart: to ready, s", ready.as_secs_f64()),
        ("restart: to all looked at, s", looked.as_secs_f64()),
        ("restart: resident, MB", used.resident),
        ("restart: resident at most, MB", used.peak),
        ("anew: first deleted to last address, s", waits.seconds),
        ("anew: reply to address p50, ms", waits.p50),
        ("anew: reply to address p95, ms", waits.p95),
        (TO_OTHERS, f64::from(others)),
    ]);
    Ok(values)
}

/// Waits until a new leader has looked at every Service and has nothing more to do.
async fn all_looked_at(bed: &Bed<'_>, services: u32) -> Result<()> {
    eventually(LIMIT, || async {
        let metrics = bed.ballast.admin(BALLAST, "/metrics").await?;
        let sum = |name: &str| -> u64 {
            let values = metrics.lines().filter(|line| line.starts_with(name));
            values
                .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
                .sum()
        };
        let done = sum("ballast_reconciles_total{");
        let left = sum("ballast_queue_depth ") + sum("ballast_queue_in_flight ");
        ensure!(
            done >= u64::from(services) && left == 0,
            "{done} reconciles, {left} to do"
        );
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_of_a_size_has_so_many_addresses() {
        assert_eq!(of_size(1), "198.18.0.1-198.18.0.1");
        assert_eq!(of_size(5_000), "198.18.0.1-198.18.19.136");
    }
}
