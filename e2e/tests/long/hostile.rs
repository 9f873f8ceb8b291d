//! One tenant writes Services with as many annotations as the API server accepts, all under keys
//! that Ballast could have but does not know. Another tenant's Services do not wait for them, and
//! the controller stays within the memory limit of the chart.
//!
//! The same with 10,000 such Services, more than etcd can hold, is a unit test of the watch:
//! `ten_thousand_hostile_services_are_stored_in_seconds`. `make test-long` runs this test with the
//! release build: the time in a debug build says nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ballast_e2e::bench::Usage;
use ballast_e2e::{documents, root};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use kube::api::PostParams;
use serde_json::json;

use crate::common::crowd::{LOCAL, names};
use crate::common::{ACCEPTED, Plan, Site, condition};

const REPLICA: &str = "ballast-1";
const HOSTILE: usize = 100;
/// What the API server accepts for all annotations of an object.
const MOST_BYTES: usize = 256 * 1024;
/// Concurrent requests of the hostile tenant.
const AT_ONCE: usize = 8;
/// How much longer another tenant may wait.
const DELAY: Duration = Duration::from_secs(2);
/// On a busy machine, requests take longer for everybody: the Services without hostile neighbours
/// show how much.
const BUSY: u32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_hostile_annotations_delays_nobody() -> Result<()> {
    Plan {
        nodes: 1,
        ..Plan::new("t-hostile")
    }
    .run(hostile)
    .await
}

async fn hostile(site: &Site<'_>) -> Result<()> {
    let quiet = slowest(site, "quiet", async { Ok(()) }).await?;
    site.apply("{apiVersion: v1, kind: Namespace, metadata: {name: hostile}}")
        .await?;
    let tenant = &site.within("hostile");
    let all = names("hostile", HOSTILE);
    let create = each(&all, |name| create(tenant, name));
    let created = slowest(site, "while-created", create).await?;
    let edit = each(&all, |name| async move {
        let other = json!({"metadata": {"annotations": annotations(1)}});
        tenant.patch(&name, other).await.map(drop)
    });
    let edited = slowest(site, "while-edited", edit).await?;
    let used = Usage::of(site.lab, REPLICA).await?;
    println!(
        "another tenant's Service waits {quiet:.1?} at most without hostile Services, {created:.1?} \
         while they are created, {edited:.1?} while they are edited; the controller has {:.0} MB, \
         {:.0} MB at most",
        used.resident, used.peak
    );
    let most = DELAY + BUSY * quiet;
    for slowest in [created, edited] {
        ensure!(slowest <= most, "{slowest:.1?}, more than {most:.1?}");
    }
    let limit = memory_limit()?;
    ensure!(used.peak * 1e6 < limit, "{} MB of {limit} bytes", used.peak);
    // The hostile Services are served like all others, and their owner is told.
    for name in &all {
        let service = tenant.programmed(name).await?;
        let message = condition(&service, ACCEPTED).map_or("", |it| &it.message);
        ensure!(message.contains("unknown annotations"), "{message}");
        ensure!(message.len() < 1000, "{} bytes", message.len());
    }
    let running = site.lab.wait_exit(REPLICA, Duration::ZERO).await;
    ensure!(running.is_err(), "the controller restarted");
    Ok(())
}

/// Creates Services of a peaceful tenant one after the other, ten or more until `meanwhile` is
/// done. Returns the longest time from the API server's reply to an address.
async fn slowest(
    site: &Site<'_>,
    prefix: &str,
    meanwhile: impl Future<Output = Result<()>>,
) -> Result<Duration> {
    let done = std::cell::Cell::new(false);
    let peaceful = async {
        let mut slowest = Duration::ZERO;
        for number in 1.. {
            if number > 10 && done.get() {
                break;
            }
            let name = format!("{prefix}-{number}");
            site.create(&name, LOCAL).await?;
            let start = Instant::now();
            site.programmed(&name).await?;
            slowest = slowest.max(start.elapsed());
        }
        Ok(slowest)
    };
    let meanwhile = async {
        let result = meanwhile.await;
        done.set(true);
        result
    };
    let (slowest, ()) = tokio::try_join!(peaceful, meanwhile)?;
    Ok(slowest)
}

async fn each<F>(names: &[String], act: impl Fn(String) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    stream::iter(names.iter().cloned().map(act))
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| async { Ok(()) })
        .await
}

async fn create(tenant: &Site<'_>, name: String) -> Result<()> {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": annotations(0)},
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": LOCAL,
            "ports": [{"name": "http", "port": 80}],
        },
    }))?;
    let (services, params) = (tenant.services(), PostParams::default());
    let made = services.create(&params, &service).await;
    made.with_context(|| format!("cannot create {name}"))?;
    Ok(())
}

/// As many keys of Ballast's family as fit. They have the length of real keys, whose distance to
/// the known ones would be computed. `turn` is the value of the first one.
fn annotations(turn: u8) -> BTreeMap<String, String> {
    let key = |number: usize| format!("ballast.dev/{number:024x}");
    let count = (MOST_BYTES - 1) / key(0).len();
    let mut all: BTreeMap<String, String> = (0..count)
        .map(|number| (key(number), String::new()))
        .collect();
    all.insert(key(0), turn.to_string());
    all
}

/// The memory limit of the controller's container in bytes, from the chart's values.
fn memory_limit() -> Result<f64> {
    let values = std::fs::read_to_string(root().join("charts/ballast/values.yaml"))?;
    let values = documents(&values)?;
    let values = values.first().context("no values")?;
    let limit = &values["controller"]["resources"]["limits"]["memory"];
    let mebibytes = limit.as_str().and_then(|text| text.strip_suffix("Mi"));
    let mebibytes = mebibytes.with_context(|| format!("not in Mi: {limit}"))?;
    Ok(mebibytes.parse::<f64>()? * 1024.0 * 1024.0)
}
