//! The user of the cluster: creates Services and sees with an ordinary watch when they have
//! their address.

use std::collections::{HashMap, HashSet};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use kube::Client;
use serde_json::json;

use super::api::{self, Event, Watch};
use super::{Load, Waits};

/// When Services got their address.
#[derive(Debug, Default)]
struct Seen {
    first_change: Option<Instant>,
    addressed: HashMap<String, Instant>,
}

/// Creates Services.
pub(super) async fn create(client: Client, load: &Load) -> Result<()> {
    let start = Instant::now();
    create_all(&client, load).await?;
    println!("{}", json!({"seconds": start.elapsed().as_secs_f64()}));
    Ok(())
}

/// Watches until all Services have an address.
pub(super) async fn observe(client: Client, services: u32) -> Result<()> {
    let (objects, version) = api::list(&client).await?;
    let there: HashSet<String> = objects.into_iter().map(|it| it.metadata.name).collect();
    anyhow::ensure!(
        there.len() == services as usize,
        "there are {} Services, not {services}",
        there.len()
    );
    let events = Watch::from(&client, version).await?;
    println!("ready");
    let seen = watch(events, services, HashSet::new()).await?;
    let first = seen.first_change.context("nothing changed")?;
    let last = seen
        .addressed
        .values()
        .max()
        .context("none has an address")?;
    let now = (Instant::now(), SystemTime::now());
    let unix = |at: Instant| -> Result<f64> {
        let time = now.1 - (now.0 - at);
        Ok(time.duration_since(UNIX_EPOCH)?.as_secs_f64())
    };
    println!("{}", json!({"first": unix(first)?, "last": unix(*last)?}));
    Ok(())
}

/// Creates Services, and reports for each how long after the create reply its address was seen.
pub(super) async fn load(client: Client, load: &Load) -> Result<()> {
    let (objects, version) = api::list(&client).await?;
    let old = objects.into_iter().map(|it| it.metadata.uid).collect();
    let events = Watch::from(&client, version).await?;
    println!("ready");
    let start = Instant::now();
    let watching = tokio::spawn(watch(events, load.services, old));
    let created = create_all(&client, load).await?;
    let creating = start.elapsed();
    let seen = watching.await??;
    let mut waits: Vec<f64> = created
        .iter()
        .map(|(name, replied)| {
            let at = seen
                .addressed
                .get(name)
                .context("a Service without an address")?;
            // The watch may be faster than the reply.
            Ok(at.saturating_duration_since(*replied).as_secs_f64() * 1e3)
        })
        .collect::<Result<_>>()?;
    waits.sort_by(f64::total_cmp);
    let last = seen
        .addressed
        .values()
        .max()
        .context("none has an address")?;
    let waits = Waits {
        p50: quantile(&waits, 50),
        p95: quantile(&waits, 95),
        max: quantile(&waits, 100),
        rate: f64::from(load.services) / creating.as_secs_f64(),
        seconds: (*last - start).as_secs_f64(),
    };
    println!("{}", serde_json::to_string(&waits)?);
    Ok(())
}

/// Watches until this many Services have an address; those with `old` UIDs do not count.
async fn watch(mut events: Watch, services: u32, old: HashSet<String>) -> Result<Seen> {
    let mut seen = Seen::default();
    while seen.addressed.len() < services as usize {
        let event = events.next().await?;
        let now = Instant::now();
        let Event::Changed(object) = event else {
            continue;
        };
        if old.contains(&object.metadata.uid) {
            continue;
        }
        seen.first_change.get_or_insert(now);
        if object.has_address() {
            seen.addressed.entry(object.metadata.name).or_insert(now);
        }
    }
    Ok(seen)
}

/// Creates all Services, on request in place of those with the same names, and returns when
/// each request was answered.
async fn create_all(client: &Client, load: &Load) -> Result<Vec<(String, Instant)>> {
    futures::stream::iter(0..load.services)
        .map(|number| {
            let (client, load) = (client.clone(), load.clone());
            let create = async move {
                let name = format!("web-{number}");
                if load.replace {
                    api::delete(&client, &name).await?;
                }
                api::create(&client, &name, load.class.as_deref()).await?;
                anyhow::Ok((name, Instant::now()))
            };
            async move { tokio::spawn(create).await? }
        })
        .buffer_unordered(load.concurrency)
        .try_collect()
        .await
}

/// A percentile of sorted values; nearest rank.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp, reason = "values are passed on, not computed")]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(quantile(&values, 50), 10.0);
        assert_eq!(quantile(&values, 95), 19.0);
        assert_eq!(quantile(&values, 100), 20.0);
        assert_eq!(quantile(&[7.0], 50), 7.0);
    }
}
