//! The story of the trap: a cluster is deleted before its Services, and its load balancers bill on.
//! The cluster dies without warning, the mock cloud outlives it, and `ballast orphans` finds what is
//! left, with its cost, and deletes it. If `ballast teardown` comes first, there is nothing to find.

use anyhow::{Context, Result, ensure};
use ballast_e2e::{Host, Output, eventually};
use serde_json::Value;

use crate::common::command::Ballast;
use crate::common::{OF_CLASS, Plan, SOON, Site, load_balancer};

const SERVICES: usize = 20;
/// A cluster that was silent for a moment counts as gone.
const SILENT: &str = "--not-seen-for=1s";
/// An hour and a month of one load balancer with one IPv4 address, in dollars.
const HOUR: f64 = 0.0275;
const MONTH: f64 = 730.0 * HOUR;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_died_leaves_load_balancers_which_are_found_and_deleted() -> Result<()> {
    Plan {
        nodes: 1,
        ..Plan::new("t-orphans")
    }
    .run(async |site| {
        crowd(site).await?;
        let bill = costs(site, SERVICES).await?;
        let uid = uid(site).await?;
        what_serves_stays(site, &uid).await?;
        site.lab.destroy_cluster().await?;
        ensure!(site.lab.kubectl(&["get", "nodes"]).await.is_err());
        bills_on(site, &bill).await?;
        finds(site, &uid, SERVICES).await?;
        a_fresh_sign_of_life_is_refused(site, &uid).await?;
        deletes(site, &["--force-live", "--cluster", &uid]).await?;
        finds(site, &uid, 0).await
    })
    .await
}

/// By its name, and after it counts as gone: no flag is needed that overrides anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_silent_for_long_enough_is_deleted_without_force() -> Result<()> {
    Plan {
        nodes: 1,
        ..Plan::new("t-orphans-silent")
    }
    .run(async |site| {
        crowd(site).await?;
        site.lab.destroy_cluster().await?;
        // Until the cloud's health checks have noticed, its targets count as healthy.
        eventually(SOON, || async {
            let said = orphans(site, &["-o", "json", SILENT]).await?;
            ensure!(said.exit.code == Some(5), "{said:?}");
            let gone: Value = serde_json::from_str(&said.stdout)?;
            ensure!(gone["totals"]["orphans"] == SERVICES, "{gone}");
            let lb = site
                .ballast
                .cloud_from(Host::Client, "/v1/load-balancers")
                .await?;
            let lb: Value = serde_json::from_str(&lb)?;
            let name = lb["items"][0]["name"].as_str().context("no name")?;
            let path = format!("/v1/load-balancers/{name}/targets");
            let health = site.ballast.cloud_from(Host::Client, &path).await?;
            ensure!(!health.contains("\"healthy\""), "{health}");
            Ok(())
        })
        .await?;
        let name = site.lab.name();
        deletes(site, &[SILENT, "--cluster", name]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_teardown_there_is_nothing_to_find() -> Result<()> {
    Plan {
        nodes: 1,
        ..Plan::new("t-orphans-none")
    }
    .run(async |site| {
        crowd(site).await?;
        let bill = costs(site, SERVICES).await?;
        let uid = uid(site).await?;
        let admin = Ballast::of(&site.lab.kubeconfig());
        let teardown = ["teardown", "--wait", "--lease-namespace", "ballast-system"];
        let said = admin.run(&teardown).await?;
        ensure!(said.code == Some(0), "{said:?}");
        site.lab.destroy_cluster().await?;
        let after = costs(site, 0).await?;
        ensure!(number(&after, "soFar")? >= number(&bill, "soFar")?);
        finds(site, &uid, 0).await
    })
    .await
}

/// All Services, with load balancers.
async fn crowd(site: &Site<'_>) -> Result<()> {
    let names: Vec<String> = (1..=SERVICES).map(|n| format!("shop-{n}")).collect();
    let spec = format!("{OF_CLASS}, selector: {{app: web}}, ports: [{{port: 80}}]");
    let all: Vec<String> = names
        .iter()
        .map(|name| load_balancer(name, &spec))
        .collect();
    site.apply(&all.join("\n---\n")).await?;
    for name in &names {
        site.programmed(name).await?;
    }
    Ok(())
}

/// The UID of the cluster, which is in the tags.
async fn uid(site: &Site<'_>) -> Result<String> {
    let path = "jsonpath={.metadata.uid}";
    let get = ["get", "namespace", "kube-system", "-o", path];
    site.lab.kubectl(&get).await
}

fn number(value: &Value, key: &str) -> Result<f64> {
    value[key]
        .as_f64()
        .with_context(|| format!("no {key} in {value}"))
}

fn near(is: f64, should: f64) -> bool {
    (is - should).abs() < 1e-6
}

/// The meter says what so many load balancers cost.
async fn costs(site: &Site<'_>, many: usize) -> Result<Value> {
    let meter = site.ballast.meter().await?;
    let all = f64::from(u32::try_from(many)?);
    ensure!(meter["loadBalancers"] == many, "{meter}");
    ensure!(near(number(&meter, "perHour")?, all * HOUR), "{meter}");
    ensure!(near(number(&meter, "perMonth")?, all * MONTH), "{meter}");
    Ok(meter)
}

/// The cluster is gone, and the bill grows.
async fn bills_on(site: &Site<'_>, before: &Value) -> Result<()> {
    let before = number(before, "soFar")?;
    eventually(SOON, || async {
        let now = costs(site, SERVICES).await?;
        let so_far = number(&now, "soFar")?;
        ensure!(so_far > before, "{before} before, {now}");
        Ok(())
    })
    .await
}

/// Without a cluster: from a host that only reaches the cloud.
async fn orphans(site: &Site<'_>, flags: &[&str]) -> Result<Output> {
    let cloud = site.ballast.endpoint();
    let argv = [&["orphans", "--mock-cloud", &cloud], flags].concat();
    let said = site.ballast.ballast(Host::Client, &argv).await?;
    println!(
        "orphans {flags:?}: {}\n{}{}",
        said.exit, said.stderr, said.stdout
    );
    Ok(said)
}

async fn finds(site: &Site<'_>, uid: &str, many: usize) -> Result<()> {
    let said = orphans(site, &["-o", "json"]).await?;
    let list: Value = serde_json::from_str(&said.stdout).context(said.stderr)?;
    ensure!(list["totals"]["objects"] == many, "{list}");
    let clusters = list["clouds"][0]["clusters"].as_array();
    let clusters = clusters.with_context(|| list.to_string())?;
    if many == 0 {
        ensure!(clusters.is_empty(), "{list}");
        return Ok(());
    }
    ensure!(clusters.len() == 1, "{list}");
    let cluster = &clusters[0];
    ensure!(cluster["uid"] == uid, "{list}");
    ensure!(cluster["name"] == site.lab.name(), "{list}");
    let objects = cluster["objects"].as_array().context("no objects")?;
    let mut services: Vec<&str> = objects
        .iter()
        .filter_map(|it| it["service"].as_str())
        .collect();
    services.sort_unstable();
    let mut expected: Vec<String> = (1..=many).map(|n| format!("default/shop-{n}")).collect();
    expected.sort_unstable();
    ensure!(services == expected, "{services:?}");
    for object in objects {
        ensure!(near(number(object, "monthlyCost")?, MONTH), "{object}");
    }
    Ok(())
}

/// The cluster lives. Whoever says that it is silent deletes nothing: its targets are healthy.
async fn what_serves_stays(site: &Site<'_>, uid: &str) -> Result<()> {
    let flags = ["--delete", "--yes", "--cluster", uid, SILENT];
    eventually(SOON, || async {
        let said = orphans(site, &flags).await?;
        ensure!(said.exit.code == Some(5), "{said:?}");
        ensure!(said.stdout.contains("is healthy"), "{said:?}");
        Ok(())
    })
    .await?;
    costs(site, SERVICES).await.map(drop)
}

/// The cluster gave a sign of life a moment ago.
async fn a_fresh_sign_of_life_is_refused(site: &Site<'_>, uid: &str) -> Result<()> {
    let said = orphans(site, &["--delete", "--yes", "--cluster", uid]).await?;
    ensure!(!said.success(), "{said:?}");
    let words = format!("{}{}", said.stdout, said.stderr);
    ensure!(words.contains("--force-live"), "{words}");
    costs(site, SERVICES).await.map(drop)
}

async fn deletes(site: &Site<'_>, flags: &[&str]) -> Result<()> {
    let said = orphans(site, &[&["--delete", "--yes"], flags].concat()).await?;
    ensure!(said.success(), "{said:?}");
    let left = site
        .ballast
        .cloud_from(Host::Client, "/v1/load-balancers")
        .await?;
    let left: Value = serde_json::from_str(&left)?;
    ensure!(left["items"] == serde_json::json!([]), "{left}");
    costs(site, 0).await.map(drop)
}
