//! Nodes are added, removed, and taken out of service: the cloud's targets follow, a wave of
//! changes is one call to the cloud, and no Service is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ballast_e2e::installation::USER;
use ballast_e2e::{Host, eventually};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::common::crowd::{LOCAL, Witness, names};
use crate::common::{PROGRAMMED, Plan, SOON, Site, condition, pods_yaml};

const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// The cloud's state of the class's targets.
struct Targets<'a> {
    site: &'a Site<'a>,
    path: String,
}

// === impl Targets ===

impl<'a> Targets<'a> {
    async fn of(site: &'a Site<'a>, service: &str) -> Result<Self> {
        let balancer = site.in_cloud(service).await?.context("not in the cloud")?;
        let set = balancer["desired"]["targetSet"]
            .as_str()
            .unwrap_or_default();
        let path = format!("/v1/target-sets/{set}");
        Ok(Self { site, path })
    }

    /// Names and first addresses.
    async fn now(&self) -> Result<BTreeMap<String, String>> {
        let set: Value = serde_json::from_str(&self.site.ballast.cloud(&self.path).await?)?;
        let targets = set["targets"].as_array().context("no targets")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(targets
            .iter()
            .map(|it| (text(&it["name"]), text(&it["addresses"][0])))
            .collect())
    }

    /// Runs a change, waits until the targets are these, and checks that it took one call. The
    /// first answer counts: nothing else may have been called on the way.
    async fn follow(
        &self,
        what: &str,
        expected: &[&str],
        act: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let before = self.site.ballast.calls().await?;
        act.await.with_context(|| what.to_owned())?;
        let start = Instant::now();
        let expected: BTreeSet<&str> = expected.iter().copied().collect();
        eventually(SOON, || async {
            let now = self.now().await?;
            let names: BTreeSet<&str> = now.keys().map(String::as_str).collect();
            ensure!(names == expected, "targets are {names:?}, not {expected:?}");
            Ok(())
        })
        .await
        .with_context(|| what.to_owned())?;
        let calls = self.site.cloud_calls(before.total).await?;
        println!(
            "{what}: {} call, after {:.1?}",
            calls.len(),
            start.elapsed()
        );
        ensure!(
            calls.len() == 1 && calls[0].starts_with("PUT /v1/target-sets/"),
            "{what}: {calls:?}"
        );
        Ok(())
    }
}

fn nodes(site: &Site<'_>) -> Api<Node> {
    Api::all(site.lab.kube())
}

async fn label(site: &Site<'_>, node: &str, value: Option<&str>) -> Result<()> {
    let patch = json!({"metadata": {"labels": {EXCLUDE: value}}});
    let params = PatchParams::default();
    nodes(site)
        .patch(node, &params, &Patch::Merge(patch))
        .await?;
    Ok(())
}

/// A Node without a machine, with the fields that targets need.
async fn paper_node(site: &Site<'_>, name: &str, address: &str) -> Result<()> {
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }))?;
    nodes(site).create(&PostParams::default(), &node).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_follow_the_nodes() -> Result<()> {
    Plan::new("t-nodes")
        .run(async |site| {
            let witness = Witness::of(site);
            site.create_all(&names("web", 5)).await?;
            site.apply(&pods_yaml("web", 2)).await?;
            site.rolled_out("web").await?;
            site.converges(5).await?;
            let since = settled(site, 5).await?;
            let targets = Targets::of(site, "web-1").await?;
            one_node(site, &targets).await?;
            many_nodes(site, &targets).await?;
            a_real_node(site, &targets).await?;
            while_the_cloud_talks(site, &targets).await?;
            // None of the above wrote a Service or an event.
            let written = site.writes_since(since, USER)?;
            let written: Vec<_> = written
                .iter()
                .filter(|event| event.resource != "loadbalancerclasses")
                .collect();
            println!(
                "API writes for all node changes together: {}",
                written.len()
            );
            ensure!(written.is_empty(), "{written:#?}");
            no_node_at_all(site).await?;
            every_node_labelled(site, &targets).await?;
            witness.is_content()?;
            Ok(())
        })
        .await
}

/// Waits for the last event, and returns the present end of the audit log.
async fn settled(site: &Site<'_>, services: usize) -> Result<usize> {
    eventually(SOON, || async {
        let written = site.writes_since(0, USER)?;
        let events = written.iter().filter(|it| it.resource == "events").count();
        ensure!(events >= services, "{events} events");
        Ok(())
    })
    .await?;
    site.audited()
}

async fn one_node(site: &Site<'_>, targets: &Targets<'_>) -> Result<()> {
    let both = &["node1", "node2"];
    targets
        .follow("excluded", &["node1"], label(site, "node2", Some("")))
        .await?;
    targets
        .follow(
            "\"false\" is no exclusion",
            both,
            label(site, "node2", Some("false")),
        )
        .await?;
    targets
        .follow(
            "excluded by \"true\"",
            &["node1"],
            label(site, "node2", Some("true")),
        )
        .await?;
    targets
        .follow("no longer excluded", both, label(site, "node2", None))
        .await?;
    // Cordoned and drained nodes stay, because the health check is faster and more accurate.
    // The call that follows shows that none was made before.
    let kubectl = async |arguments: &[&str]| site.lab.kubectl(arguments).await.map(drop);
    kubectl(&["cordon", "node1"]).await?;
    kubectl(&[
        "drain",
        "node1",
        "--ignore-daemonsets",
        "--force",
        "--delete-emptydir-data",
    ])
    .await?;
    let taint = "ToBeDeletedByClusterAutoscaler=1:NoSchedule";
    targets
        .follow(
            "drained, then tainted by the autoscaler",
            &["node2"],
            kubectl(&["taint", "node", "node1", taint]),
        )
        .await?;
    targets
        .follow(
            "the taint is gone, the node still drained",
            both,
            kubectl(&["taint", "node", "node1", "ToBeDeletedByClusterAutoscaler-"]),
        )
        .await?;
    kubectl(&["uncordon", "node1"]).await
}

async fn many_nodes(site: &Site<'_>, targets: &Targets<'_>) -> Result<()> {
    let paper: Vec<(String, String)> = (1..=30)
        .map(|number| {
            (
                format!("paper-{number}"),
                format!("10.89.0.{}", 120 + number),
            )
        })
        .collect();
    let mut all = vec!["node1", "node2"];
    all.extend(paper.iter().map(|(name, _)| name.as_str()));
    let create = async {
        let made = paper.iter().map(|(name, ip)| paper_node(site, name, ip));
        try_join_all(made).await.map(drop)
    };
    targets.follow("30 nodes at once", &all, create).await?;
    let moved = async {
        let patch =
            json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.89.0.199"}]}});
        nodes(site)
            .patch_status("paper-1", &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        eventually(SOON, || async {
            let now = targets.now().await?;
            ensure!(now["paper-1"] == "10.89.0.199", "{now:?}");
            Ok(())
        })
        .await
    };
    targets.follow("another address", &all, moved).await?;
    // Conditions and annotations of nodes change all the time and do not matter here.
    let idle = json!({"metadata": {"annotations": {"example.com/seen": "now"}}});
    let params = PatchParams::default();
    nodes(site)
        .patch("paper-2", &params, &Patch::Merge(idle))
        .await?;
    let delete = async {
        let params = DeleteParams::default();
        let api = nodes(site);
        let gone = paper.iter().map(|(name, _)| api.delete(name, &params));
        try_join_all(gone).await?;
        Ok(())
    };
    targets
        .follow("30 nodes gone", &["node1", "node2"], delete)
        .await
}

async fn a_real_node(site: &Site<'_>, targets: &Targets<'_>) -> Result<()> {
    let added = async {
        let node = site.lab.add_node().await?;
        ensure!(node == Host::Node(3), "{node:?}");
        Ok(())
    };
    targets
        .follow("a node added", &["node1", "node2", "node3"], added)
        .await?;
    let removed = site.lab.remove_node(Host::Node(3));
    targets
        .follow("a node removed", &["node1", "node2"], removed)
        .await
}

/// Changes in the cloud arrive all the time, also in the quiet period that ends a wave.
async fn while_the_cloud_talks(site: &Site<'_>, targets: &Targets<'_>) -> Result<()> {
    let balancer = site.in_cloud("web-1").await?.context("not in the cloud")?;
    let name = balancer["name"].as_str().unwrap_or_default();
    let path = format!("/v1/load-balancers/{name}/tags");
    // The flag ends the talk between two requests. A request that is dropped on its way may still
    // arrive, and count as a call of what follows.
    let ended = AtomicBool::new(false);
    let talk = async {
        let mut number = 0;
        while !ended.load(Relaxed) {
            let body = json!({"tags": {"example.com/seen": number.to_string()}}).to_string();
            site.cloud_send("PATCH", &path, &body).await?;
            number += 1;
        }
        anyhow::Ok(())
    };
    let follow = async {
        label(site, "node2", Some("")).await?;
        let followed = eventually(2 * SOON, || async {
            let now = targets.now().await?;
            ensure!(now.len() == 1, "{now:?}");
            Ok(())
        })
        .await;
        ended.store(true, Relaxed);
        followed.context("a node excluded while the cloud talks")
    };
    tokio::try_join!(follow, talk)?;
    targets
        .follow(
            "back again",
            &["node1", "node2"],
            label(site, "node2", None),
        )
        .await
}

/// This is the only change of nodes that Services report.
async fn no_node_at_all(site: &Site<'_>) -> Result<()> {
    let before = site.events("web-1").await?.len();
    let kubectl = async |arguments: &[&str]| site.lab.kubectl(arguments).await.map(drop);
    let doomed = "ToBeDeletedByClusterAutoscaler";
    let taint = format!("{doomed}=1:NoSchedule");
    kubectl(&["taint", "node", "node1", "node2", &taint]).await?;
    let message = site
        .says("web-1", PROGRAMMED, "False", "NoEligibleNodes")
        .await?;
    ensure!(message.starts_with("No node is eligible"), "{message}");
    // A new Service reports the same.
    site.create("newcomer", LOCAL).await?;
    site.says("newcomer", PROGRAMMED, "False", "NoEligibleNodes")
        .await?;
    let untaint = format!("{doomed}-");
    kubectl(&["taint", "node", "node1", "node2", &untaint]).await?;
    site.converges(6).await?;
    eventually(SOON, || async {
        let events = site.events("web-1").await?.split_off(before);
        let expected = [
            "Warning UnAvailableLoadBalancer: There are no available nodes for LoadBalancer",
            "Normal EnsuredLoadBalancer: Ensured load balancer",
        ];
        ensure!(events == expected, "{events:#?}");
        Ok(())
    })
    .await?;
    let service = site.get("web-1").await?;
    ensure!(condition(&service, PROGRAMMED).is_some_and(|it| it.status == "True"));
    Ok(())
}

/// As in a kind cluster with one node: the mock cloud has no other nodes, so it uses this one.
async fn every_node_labelled(site: &Site<'_>, targets: &Targets<'_>) -> Result<()> {
    label(site, "node1", Some("")).await?;
    label(site, "node2", Some("")).await?;
    let said = eventually(SOON, || async {
        let service = site.get("web-1").await?;
        let said = condition(&service, PROGRAMMED).context("no condition")?;
        ensure!(said.message.contains(EXCLUDE), "{}", said.message);
        Ok(said.clone())
    })
    .await?;
    ensure!(said.status == "True", "{said:?}");
    let both = targets.now().await?;
    ensure!(both.len() == 2, "{both:?}");
    label(site, "node2", None).await?;
    eventually(SOON, || async {
        let now = targets.now().await?;
        ensure!(now.keys().eq(["node2"]), "{now:?}");
        let service = site.get("web-1").await?;
        let said = condition(&service, PROGRAMMED).context("no condition")?;
        ensure!(
            said.message == "The load balancer is active",
            "{}",
            said.message
        );
        Ok(())
    })
    .await?;
    label(site, "node1", None).await
}
