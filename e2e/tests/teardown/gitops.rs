//! A tool applies all manifests again every second during a teardown: classes, pools and Services,
//! by server-side apply, by plain replacement (which takes finalizers away), and after deletions.
//! It brings no load balancer back.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_e2e::eventually;
use serde_json::Value;

use super::{METAL, PORTS, bare, hook, teardown};
use crate::common::crowd::names;
use crate::common::{
    CLASS, OF_CLASS, PROGRAMMED, Plan, SOON, Site, addresses, load_balancer, told,
};

/// In a cloud; two more share an address of a pool.
const SERVICES: usize = 20;
/// Calls in a full page of the cloud's log.
const PAGE: usize = 1_000;
const PERIOD: Duration = Duration::from_secs(1);

/// What the repository of the tool has.
struct Manifests {
    all: PathBuf,
    classes: PathBuf,
    /// One of the Services, which is deleted as well.
    service: PathBuf,
}

/// The tool, as an administrator.
struct Tool<'a> {
    site: &'a Site<'a>,
    manifests: Manifests,
    stop: AtomicBool,
    rounds: AtomicU32,
}

#[tokio::test(flavor = "multi_thread")]
async fn gitops_brings_nothing_back() -> Result<()> {
    Plan {
        nodes: 1,
        cloud: &["--deletion-latency", "3s"],
        class: None,
        ..Plan::new("t-teardown-gitops")
    }
    .run(async |site| {
        let hook = hook(site).await?;
        let tool = Tool::new(site)?;
        site.lab.kubectl(&tool.applies()).await?;
        all_are_served(site).await?;
        let before = class_uid(site).await?;
        let ((), since) = tokio::try_join!(
            async {
                let said = teardown(&hook, &["--wait", "--timeout", "55s"]).await?;
                ensure!(said.code == Some(0), "{said:?}");
                // The tool goes on: the classes are other ones in the end, and drain.
                eventually(SOON, || created_again(site, CLASS, &before)).await?;
                let rounds = tool.rounds.load(Relaxed);
                eventually(SOON, || async {
                    let now = tool.rounds.load(Relaxed);
                    ensure!(now >= rounds + 3, "{now} rounds");
                    Ok(())
                })
                .await?;
                tool.stop.store(true, Relaxed);
                Ok(())
            },
            async {
                let since = the_teardown_begins(site).await?;
                tool.run().await?;
                Ok(since)
            }
        )?;
        println!("{} rounds", tool.rounds.load(Relaxed));
        nothing_was_created(site, since).await?;
        created_while_no_controller_runs(site, since).await?;
        let undone = teardown(&hook, &["--undo"]).await?;
        ensure!(undone.code == Some(0), "{undone:?}");
        all_are_served(site).await
    })
    .await
}

async fn all_are_served(site: &Site<'_>) -> Result<()> {
    site.apply_none_missing().await?;
    for name in names("web", SERVICES) {
        site.programmed(&name).await?;
    }
    for name in ["shared-1", "shared-2"] {
        site.says(name, PROGRAMMED, "False", "NotAnnounced").await?;
    }
    Ok(())
}

/// The record of the drain is the first thing that the command writes. Returns the number of calls
/// to the cloud until then.
async fn the_teardown_begins(site: &Site<'_>) -> Result<u64> {
    let record = [
        "-n",
        "ballast-system",
        "get",
        "cm",
        "ballast-controller-drain",
    ];
    eventually(SOON, || site.lab.kubectl(&record)).await?;
    Ok(site.ballast.calls().await?.total)
}

async fn class_uid(site: &Site<'_>) -> Result<String> {
    let argv = ["get", "lbclass", CLASS, "-o", "jsonpath={.metadata.uid}"];
    site.lab.kubectl(&argv).await
}

/// The class is not the one from before, and drains.
async fn created_again(site: &Site<'_>, class: &str, before: &str) -> Result<()> {
    let argv = ["get", "lbclass", class, "-o", "json"];
    let class: Value = serde_json::from_str(&site.lab.kubectl(&argv).await?)?;
    ensure!(class["metadata"]["uid"] != before, "still the same class");
    ensure!(!class["status"]["draining"].is_null(), "{class}");
    let conditions = class["status"]["conditions"].as_array();
    let conditions = conditions.context("no conditions")?;
    let drains = |it: &Value| it["type"] == "Accepted" && it["reason"] == "Draining";
    ensure!(conditions.iter().any(drains), "{class}");
    Ok(())
}

/// All changing calls after this number; the cloud gives them page by page.
async fn calls_since(site: &Site<'_>, mut since: u64) -> Result<Vec<String>> {
    let mut all = Vec::new();
    loop {
        let page = site
            .ballast
            .cloud(&format!("/v1/calls?since={since}"))
            .await?;
        let page: Value = serde_json::from_str(&page)?;
        let items = page["items"].as_array().context("no items")?;
        let Some(last) = items.last().and_then(|it| it["seq"].as_u64()) else {
            return Ok(all);
        };
        let first = items[0]["seq"].as_u64();
        ensure!(
            first == Some(since + 1),
            "the log is too short: {first:?} after {since}"
        );
        let changing = items.iter().filter(|it| it["mutating"] == true);
        all.extend(changing.map(|it| {
            let text = |field: &str| it[field].as_str().unwrap_or_default().to_owned();
            format!("{} {}", text("method"), text("path"))
        }));
        // A page that is not full is the last one: the cloud counts these reads as well.
        if items.len() < PAGE {
            return Ok(all);
        }
        since = last;
    }
}

async fn nothing_was_created(site: &Site<'_>, since: u64) -> Result<()> {
    let calls = calls_since(site, since).await?;
    let of = |method: &str| {
        let start = format!("{method} /v1/load-balancers/");
        calls.iter().filter(|it| it.starts_with(&start)).count()
    };
    println!(
        "{} deletions, {} creations or changes",
        of("DELETE"),
        of("PUT")
    );
    // The first ones may be older than the look at the record.
    ensure!(of("DELETE") > 0, "{calls:#?}");
    ensure!(of("PUT") == 0, "{calls:#?}");
    let left = site.ballast.load_balancers().await?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Nobody sets the switch of this class: the controller finds the record when it starts.
async fn created_while_no_controller_runs(site: &Site<'_>, since: u64) -> Result<()> {
    let tool = Tool::new(site)?;
    site.ballast.kill("ballast-1").await?;
    let before = class_uid(site).await?;
    let none = r#"{"metadata":{"finalizers":null}}"#;
    for class in [CLASS, "metal"] {
        let patch = ["patch", "lbclass", class, "--type=merge", "-p", none];
        site.lab.kubectl(&patch).await?;
        site.lab.kubectl(&["delete", "lbclass", class]).await?;
    }
    site.lab.kubectl(&tool.applies()).await?;
    site.lab.start_again("ballast-1").await?;
    for class in [CLASS, "metal"] {
        eventually(SOON, || created_again(site, class, &before)).await?;
    }
    for name in names("web", SERVICES) {
        site.says(&name, crate::common::ACCEPTED, "False", "Draining")
            .await?;
    }
    bare(site, "web-2", CLASS).await?;
    nothing_was_created(site, since).await
}

impl Site<'_> {
    /// What the tool deleted last, and has not applied again, exists.
    async fn apply_none_missing(&self) -> Result<()> {
        let tool = Tool::new(self)?;
        eventually(SOON, || async { self.lab.kubectl(&tool.applies()).await }).await?;
        for name in ["shared-1", "shared-2"] {
            self.service(name, |service| {
                let got = addresses(service);
                ensure!(got.len() == 1, "{}", told(service));
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

// === impl Tool ===

impl<'a> Tool<'a> {
    fn new(site: &'a Site<'a>) -> Result<Self> {
        let class = site.ballast.mock_class_yaml(CLASS, "default: true");
        let classes = format!("{class}---\n{METAL}");
        let mut services = Vec::new();
        for (number, name) in names("web", SERVICES).iter().enumerate() {
            // Some name the class, some do not.
            let class = if number % 2 == 0 {
                OF_CLASS
            } else {
                "sessionAffinity: None"
            };
            services.push(load_balancer(name, &format!("{class}, {PORTS}")));
        }
        for (name, port) in [("shared-1", 80), ("shared-2", 81)] {
            let spec = format!("loadBalancerClass: ballast.dev/metal, ports: [{{port: {port}}}]");
            let key = "ballast.dev/share-key: front";
            services.push(crate::common::annotated(name, key, &spec));
        }
        let write = |name: &str, text: String| -> Result<PathBuf> {
            let path = site.lab.dir().join(format!("gitops-{name}.yaml"));
            std::fs::write(&path, text).context("cannot write manifests")?;
            Ok(path)
        };
        let all = format!("{classes}---\n{}", services.join("---\n"));
        Ok(Self {
            site,
            manifests: Manifests {
                all: write("all", all)?,
                classes: write("classes", classes)?,
                service: write("service", services[0].clone())?,
            },
            stop: AtomicBool::new(false),
            rounds: AtomicU32::new(0),
        })
    }

    fn applies(&self) -> [&str; 5] {
        let all = self.manifests.all.to_str().unwrap_or_default();
        ["apply", "--server-side", "--force-conflicts", "-f", all]
    }

    /// Works until it is stopped. What cannot be done in one round is done in the next one.
    async fn run(&self) -> Result<()> {
        let mut clock = tokio::time::interval(PERIOD);
        while !self.stop.load(Relaxed) {
            clock.tick().await;
            let round = self.rounds.fetch_add(1, Relaxed);
            let all = self.manifests.all.to_str().context("no path")?;
            let classes = self.manifests.classes.to_str().context("no path")?;
            let service = self.manifests.service.to_str().context("no path")?;
            let delete = |file| ["delete", "--wait=false", "--ignore-not-found", "-f", file];
            let kubectl = async |argv: &[&str]| drop(self.site.lab.kubectl(argv).await);
            match round % 3 {
                0 => kubectl(&["replace", "-f", all]).await,
                1 => kubectl(&delete(classes)).await,
                _ => kubectl(&delete(service)).await,
            }
            kubectl(&self.applies()).await;
        }
        Ok(())
    }
}
