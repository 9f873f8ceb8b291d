//! Two releases in one cluster, each with its own class: neither affects the other's Services,
//! whether it works or fails. An uninstall that no controller can carry out is not lost: it
//! continues when one can.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ballast_e2e::installation::binary;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::cluster::{Cluster, Release, WEB};
use crate::common::{addresses, finalizers, load_balancer, told, version};

const WEST: Release = Release {
    name: "west",
    namespace: "west",
};
const EAST: Release = Release {
    name: "east",
    namespace: "east",
};

#[tokio::test(flavor = "multi_thread")]
async fn two_releases_leave_each_other_alone() -> Result<()> {
    Cluster::run("t-neighbours", 2, async |cluster| {
        cluster.web_servers().await?;
        install(cluster, WEST, "10.89.0.200-10.89.0.209").await?;
        install(cluster, EAST, "10.89.0.220-10.89.0.229").await?;
        for (name, class) in [("stays", WEST), ("turns", WEST), ("other", EAST)] {
            give(cluster, name, class).await?;
        }
        let other = cluster.services().get("other").await?;
        a_service_turns_while_its_controller_is_away(cluster).await?;
        an_uninstall_nobody_can_carry_out(cluster).await?;
        it_is_called_off(cluster).await?;
        scale(cluster, "--replicas=0").await?;
        cluster.controllers_are_gone(WEST).await?;
        an_uninstall_nobody_can_carry_out(cluster).await?;
        another_one_replaces_its_job(cluster).await?;
        it_goes_on_when_somebody_can(cluster).await?;
        let still = cluster.services().get("other").await?;
        ensure!(
            version(&other) == version(&still),
            "other: {}",
            told(&still)
        );
        let address = addresses(&other).first().context("no address")?.to_string();
        cluster.answers(&address).await
    })
    .await
}

async fn install(cluster: &Cluster, release: Release, range: &str) -> Result<()> {
    let name = release.name;
    let values = format!(
        "classes.local=null,classes.{name}.mock.enabled=true,controller.classes={{{name}}},\
         controller.replicas=1,mockCloud.addresses={{{range}}}"
    );
    cluster
        .helm_to("install", release, &["--set", &values])
        .await
        .map(drop)
}

async fn give(cluster: &Cluster, service: &str, of: Release) -> Result<()> {
    let spec = format!("loadBalancerClass: ballast.dev/{}, {WEB}", of.name);
    cluster.lab.apply(&load_balancer(service, &spec)).await?;
    let address = cluster.address(service).await?;
    cluster.answers(&address).await
}

async fn scale(cluster: &Cluster, replicas: &str) -> Result<()> {
    let deployment = [
        "scale",
        "deployment/west-ballast-controller",
        "-n",
        "west",
        replicas,
    ];
    cluster.lab.kubectl(&deployment).await.map(drop)
}

async fn a_service_turns_while_its_controller_is_away(cluster: &Cluster) -> Result<()> {
    scale(cluster, "--replicas=0").await?;
    cluster.controllers_are_gone(WEST).await?;
    let turn = json!({"spec": {"type": "ClusterIP"}}).to_string();
    cluster
        .lab
        .kubectl(&["patch", "service", "turns", "-p", &turn])
        .await?;
    // After the other controller has served a later Service, it has seen this change.
    give(cluster, "later", EAST).await?;
    let turned = cluster.services().get("turns").await?;
    let fits = finalizers(&turned) == ["ballast.dev/west"];
    ensure!(fits, "the other release has touched it: {}", told(&turned));
    Ok(())
}

/// Helm gives up, and everything that is needed to continue still exists.
async fn an_uninstall_nobody_can_carry_out(cluster: &Cluster) -> Result<()> {
    let began = Instant::now();
    let said = cluster.uninstall(WEST, &["--timeout", "5s"]).await;
    let error = said.err().context("nobody can have done it")?;
    println!("gave up after {:.1?}: {error:#}", began.elapsed());
    let there = ["job,serviceaccount,role", "-n", "west"];
    let label = ["-l", "app.kubernetes.io/component=teardown"];
    let there = cluster.names(&[&there[..], &label[..]].concat()).await?;
    ensure!(there.len() == 3, "only {there:?}");
    let stays = cluster.services().get("stays").await?;
    ensure!(
        finalizers(&stays) == ["ballast.dev/west"],
        "{}",
        told(&stays)
    );
    Ok(())
}

/// As described in docs/uninstall.md: the load balancers stay.
async fn it_is_called_off(cluster: &Cluster) -> Result<()> {
    let delete = ["delete", "job", "west-ballast-teardown", "-n", "west"];
    cluster.lab.kubectl(&delete).await?;
    let undo = tokio::process::Command::new(binary()?)
        .args(["teardown", "--undo", "--yes", "--classes=west"])
        .env("KUBECONFIG", cluster.lab.kubeconfig())
        .output()
        .await?;
    let said = String::from_utf8_lossy(&undo.stderr);
    ensure!(undo.status.success(), "{said}");
    let history = ["history", "west", "-n", "west", "-o", "json"];
    let history = cluster.helm.on(&cluster.lab, &history).await?;
    let history: Value = serde_json::from_str(&history)?;
    let last = history.as_array().and_then(|all| all.last());
    let revision = last.context("no history")?["revision"].to_string();
    let rollback = ["rollback", "west", &revision, "-n", "west"];
    cluster.helm.on(&cluster.lab, &rollback).await?;
    scale(cluster, "--replicas=1").await?;
    give(cluster, "new", WEST).await?;
    let stays = cluster.address("stays").await?;
    cluster.answers(&stays).await
}

/// A second uninstall continues with a new Job.
async fn another_one_replaces_its_job(cluster: &Cluster) -> Result<()> {
    let uid = [
        "get",
        "job/west-ballast-teardown",
        "-n",
        "west",
        "-o",
        "jsonpath={.metadata.uid}",
    ];
    let first = cluster.lab.kubectl(&uid).await?;
    let said = cluster.uninstall(WEST, &["--timeout", "5s"]).await;
    ensure!(said.is_err(), "nobody can have done it: {said:?}");
    let second = cluster.lab.kubectl(&uid).await?;
    ensure!(first != second, "the Job is still {first}");
    Ok(())
}

async fn it_goes_on_when_somebody_can(cluster: &Cluster) -> Result<()> {
    scale(cluster, "--replicas=1").await?;
    let job = [
        "wait",
        "--for=condition=Complete",
        "job/west-ballast-teardown",
    ];
    let flags = ["-n", "west", "--timeout=100s"];
    cluster
        .lab
        .kubectl(&[&job[..], &flags[..]].concat())
        .await?;
    let released = |service: &Service| {
        let nothing = finalizers(service).is_empty() && addresses(service).is_empty();
        ensure!(nothing, "{}", told(service));
        Ok(())
    };
    for name in ["stays", "turns", "new"] {
        released(&cluster.services().get(name).await?).context(name)?;
    }
    let began = Instant::now();
    cluster.uninstall(WEST, &[]).await?;
    println!("the second uninstall took {:.1?}", began.elapsed());
    // Not the time-out of the hook, which Helm gives five minutes.
    ensure!(began.elapsed() < Duration::from_mins(4));
    cluster.nothing_is_left(WEST).await
}
