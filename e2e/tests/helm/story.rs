//! One release from install to uninstall, with 50 Services: the operations of users, and checks
//! that no right is unused and nothing is left.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ballast_e2e::{Host, eventually};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use serde_json::{Value, json};

use super::cluster::{Cluster, Release, SOON, WEB};
use super::{kernel, policy};
use crate::common::grants;
use crate::common::{addresses, finalizers, load_balancer, told};

const BALLAST: Release = Release {
    name: "ballast",
    namespace: "ballast-system",
};
const FLAGS: [&str; 4] = [
    "--values",
    "charts/ballast/ci/kind-values.yaml",
    "--set",
    "networkPolicy.enabled=true",
];
const SERVICES: usize = 50;
const CLASSES: &str = "loadbalancerclasses.ballast.dev";
const POOLS: &str = "addresspools.ballast.dev";
const ANNOUNCERS: &str = "announcers.ballast.dev";
/// Reports what failed, one line each.
const TRAFFIC: &str =
    "while :; do curl -gsSf -m 3 -o /dev/null $0 && echo answered || echo FAILED; sleep 0.02; done";

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_release() -> Result<()> {
    Cluster::run("t-helm", 2, async |cluster| {
        cluster.web_servers().await?;
        let manifest = cluster
            .helm
            .template(BALLAST.name, BALLAST.namespace, &FLAGS)?;
        let rules = policy::rendered(&manifest, "ballast-controller")?;
        policy::enforce(cluster, &rules).await?;
        install(cluster).await?;
        let given = fifty_services(cluster).await?;
        for (component, count) in [("controller", 2), ("mock-cloud", 1)] {
            let pods = cluster.pods(BALLAST, component).await?;
            ensure!(pods.len() == count, "{component}: {} pods", pods.len());
            pods.iter().try_for_each(kernel::is_as_written)?;
            let selected = pods.iter().all(|pod| policy::selects(&rules, pod));
            ensure!(
                selected == (component == "controller"),
                "{component}: {rules:?}"
            );
        }
        upgrade_under_traffic(cluster, &given).await?;
        an_upgrade_that_would_move_the_cloud(cluster).await?;
        upgrade_after_a_loss(cluster).await?;
        rollback(cluster, &given).await?;
        uninstall(cluster).await?;
        install_again(cluster).await?;
        kept_over_an_uninstall(cluster).await?;
        uninstalled_without_hooks(cluster).await?;
        without_crds(cluster).await?;
        policy::nothing_was_dropped(cluster).await?;
        policy::probes_astray_are_spared(cluster).await?;
        policy::a_stranger_is_kept_in(cluster).await?;
        rights_fit(cluster)
    })
    .await
}

async fn install(cluster: &Cluster) -> Result<()> {
    cluster.lab.apply(&load_balancer("web-0", WEB)).await?;
    let began = Instant::now();
    cluster.helm_to("install", BALLAST, &FLAGS).await?;
    let installed = began.elapsed();
    let address = cluster.address("web-0").await?;
    cluster.answers(&address).await?;
    println!(
        "installed in {installed:.1?}, {address} answers after {:.1?}",
        began.elapsed()
    );
    Ok(())
}

async fn upgrade(cluster: &Cluster, flags: &[&str]) -> Result<String> {
    let flags = [&FLAGS[..], flags].concat();
    cluster.helm_to("upgrade", BALLAST, &flags).await
}

/// The addresses of all Services, by name.
async fn fifty_services(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let more: Vec<_> = (1..SERVICES)
        .map(|number| load_balancer(&format!("web-{number}"), WEB))
        .collect();
    cluster.lab.apply(&more.join("---\n")).await?;
    let mut given = BTreeMap::new();
    for number in 0..SERVICES {
        let name = format!("web-{number}");
        let address = cluster.address(&name).await?;
        given.insert(name, address);
    }
    let last = &given[&last()];
    cluster.answers(last).await?;
    an_announcer_comes_and_goes(cluster).await?;
    Ok(given)
}

/// The controller asks for the Leases of announcers only while there are any.
async fn an_announcer_comes_and_goes(cluster: &Cluster) -> Result<()> {
    let announcer = "{apiVersion: ballast.dev/v1alpha1, kind: Announcer, metadata: {name: gone}}";
    cluster.lab.apply(announcer).await?;
    let controller = format!(
        "system:serviceaccount:{}:ballast-controller",
        BALLAST.namespace
    );
    eventually(SOON, || async {
        let audit = cluster.lab.audit_with_reads()?;
        let mut own = audit.iter().filter(|event| event.user == controller);
        let listed = own.any(|event| event.verb == "list" && event.resource == "leases");
        ensure!(listed, "the Leases of announcers were not listed");
        Ok(())
    })
    .await?;
    let delete = ["delete", "announcers.ballast.dev", "gone"];
    cluster.lab.kubectl(&delete).await.map(drop)
}

/// The youngest Service; it is lost in the middle of the test.
fn last() -> String {
    format!("web-{}", SERVICES - 1)
}

/// The addresses that Services publish, by name.
async fn published(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let services = cluster.services().list(&ListParams::default()).await?.items;
    let named = |service: &Service| {
        let address = addresses(service).first()?.to_string();
        Some((service.metadata.name.clone()?, address))
    };
    Ok(services.iter().filter_map(named).collect())
}

/// A change that affects only the controller does not restart the mock cloud, so traffic
/// continues.
async fn upgrade_under_traffic(cluster: &Cluster, given: &BTreeMap<String, String>) -> Result<()> {
    let url = format!("http://{}/hostname", given["web-0"]);
    let traffic = ["bash", "-c", TRAFFIC, &url];
    cluster
        .lab
        .spawn("traffic", Host::Client, traffic, &[])
        .await?;
    let answers = async |at_least: usize| {
        eventually(SOON, || async {
            let log = cluster.lab.log("traffic")?;
            let count = log.lines().filter(|line| *line == "answered").count();
            ensure!(count >= at_least, "{count} answers");
            Ok(count)
        })
        .await
    };
    let before = answers(20).await?;
    let pods = cluster.pods(BALLAST, "mock-cloud").await?;
    let changed = "controller.workers=16,controller.podAnnotations.changed=yes";
    upgrade(cluster, &["--set", changed]).await?;
    let after = answers(before + 50).await?;
    cluster.lab.stop("traffic").await?;
    let log = cluster.lab.log("traffic")?;
    let failed = log.lines().filter(|line| line.contains("FAILED")).count();
    println!("{after} requests over an upgrade, {failed} failed");
    ensure!(failed == 0, "{failed} requests failed:\n{log}");
    let still = cluster.pods(BALLAST, "mock-cloud").await?;
    ensure!(still.len() == 1 && uid(&still) == uid(&pods), "another pod");
    // Old pods may still be terminating.
    eventually(SOON, || async {
        for pod in cluster.pods(BALLAST, "controller").await? {
            let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
            let mut args = containers.iter().flat_map(|it| it.args.iter().flatten());
            ensure!(args.any(|it| it == "--workers=16"), "{containers:?}");
        }
        Ok(())
    })
    .await?;
    ensure!(published(cluster).await? == *given, "addresses changed");
    Ok(())
}

/// The class's endpoint is immutable, so the change is refused while everything still runs.
async fn an_upgrade_that_would_move_the_cloud(cluster: &Cluster) -> Result<()> {
    let before = cluster.pods(BALLAST, "mock-cloud").await?;
    let said = upgrade(cluster, &["--set", "mockCloud.port=8112"]).await;
    let error = said.err().context("it is let through")?.to_string();
    ensure!(error.contains("which cannot change"), "{error}");
    let after = cluster.pods(BALLAST, "mock-cloud").await?;
    ensure!(uid(&after) == uid(&before), "another pod");
    Ok(())
}

fn uid(pods: &[Pod]) -> Option<&String> {
    pods.first()?.metadata.uid.as_ref()
}

/// While no controller runs, a Service loses its finalizer and is deleted, and so is a CRD. The
/// next upgrade repairs the CRD, and reports what the Service has left.
async fn upgrade_after_a_loss(cluster: &Cluster) -> Result<()> {
    let none = ["--set", "controller.replicas=0"];
    upgrade(cluster, &none).await?;
    cluster.controllers_are_gone(BALLAST).await?;
    let lost = last();
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    let patch = ["patch", "service", &lost, "--type=merge", "-p", &free];
    cluster.lab.kubectl(&patch).await?;
    cluster.lab.kubectl(&["delete", "service", &lost]).await?;
    cluster.lab.kubectl(&["delete", "crd", POOLS]).await?;
    older_crd(cluster).await?;
    in_order_again(cluster).await
}

async fn in_order_again(cluster: &Cluster) -> Result<()> {
    while_a_job_runs(cluster, "crds", upgrade(cluster, &[])).await?;
    let crd = cluster
        .lab
        .kubectl(&["get", "crd", CLASSES, "-o", "json"])
        .await?;
    let crd: Value = serde_json::from_str(&crd)?;
    let version = &crd["spec"]["versions"][0];
    let l2 = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["l2"];
    ensure!(
        l2.is_object() && version["additionalPrinterColumns"].is_array(),
        "{version}"
    );
    let metal = "classes.metal.l2.addressPools={metal},pools.metal.addresses={192.0.2.7}";
    let pool = ["--set", metal, "--set", "announcer.enabled=false"];
    upgrade(cluster, &pool).await?;
    let accepted = [
        "wait",
        "--for=condition=Accepted",
        "addresspool/metal",
        "--timeout=30s",
    ];
    cluster.lab.kubectl(&accepted).await?;
    is_reported(cluster, &last()).await
}

/// A Service that vanished while no controller ran is an orphan. It is reported, and its load
/// balancer is still there.
async fn is_reported(cluster: &Cluster, service: &str) -> Result<()> {
    let message = "jsonpath={.status.conditions[?(@.type==\"Orphaned\")].message}";
    let get = ["get", CLASSES, "local", "-o", message];
    let service = format!("default/{service}");
    eventually(SOON, || async {
        let said = cluster.lab.kubectl(&get).await?;
        ensure!(said.contains(&service), "the condition Orphaned: {said:?}");
        Ok(())
    })
    .await?;
    let held = cluster.foreign_addresses().await?.len();
    ensure!(held == SERVICES, "{held} addresses");
    Ok(())
}

/// A CRD like one from before a field was added, with another field manager.
async fn older_crd(cluster: &Cluster) -> Result<()> {
    let version = "/spec/versions/0";
    let spec = format!("{version}/schema/openAPIV3Schema/properties/spec");
    let gone = [
        // Rules that use the field.
        format!("{spec}/x-kubernetes-validations"),
        format!("{spec}/properties/l2"),
        format!("{version}/additionalPrinterColumns"),
    ];
    let patch: Vec<Value> = gone
        .map(|path| json!({"op": "remove", "path": path}))
        .into();
    let patch = Value::from(patch);
    let patch = [
        "patch",
        "crd",
        CLASSES,
        "--type=json",
        "-p",
        &patch.to_string(),
    ];
    cluster.lab.kubectl(&patch).await.map(drop)
}

/// Helm's Jobs end before a test could look, so their pods are watched.
async fn while_a_job_runs<T>(
    cluster: &Cluster,
    role: &str,
    helm: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut helm = pin!(helm);
    let mut seen = BTreeMap::new();
    let done = loop {
        tokio::select! {
            done = &mut helm => break done?,
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        for pod in cluster.pods(BALLAST, role).await? {
            if let Some(status) = kernel::process(&pod) {
                seen.insert(pod.metadata.uid.clone(), (pod, status));
            }
        }
    };
    ensure!(!seen.is_empty(), "no process of {role} was seen");
    let manifest = cluster
        .helm
        .template(BALLAST.name, BALLAST.namespace, &FLAGS)?;
    let rules = policy::rendered(&manifest, "ballast-jobs")?;
    for (pod, status) in seen.values() {
        kernel::fits(pod, status)?;
        ensure!(policy::selects(&rules, pod), "{role}: {rules:?}");
    }
    Ok(done)
}

async fn rollback(cluster: &Cluster, given: &BTreeMap<String, String>) -> Result<()> {
    let argv = [
        "rollback",
        BALLAST.name,
        "1",
        "-n",
        BALLAST.namespace,
        "--wait",
    ];
    cluster.helm.on(&cluster.lab, &argv).await?;
    let names = cluster.names(&["lbclass,lbpool"]).await?;
    ensure!(
        names == ["loadbalancerclass.ballast.dev/local"],
        "{names:?}"
    );
    let mut expected = given.clone();
    expected.remove(&last());
    ensure!(published(cluster).await? == expected, "addresses changed");
    cluster.answers(&given["web-0"]).await
}

async fn uninstall(cluster: &Cluster) -> Result<()> {
    let services: Vec<_> = published(cluster).await?.into_keys().collect();
    ensure!(services.len() == SERVICES - 1, "{services:?}");
    let began = Instant::now();
    while_a_job_runs(cluster, "teardown", cluster.uninstall(BALLAST, &[])).await?;
    println!("uninstalled in {:.1?}", began.elapsed());
    // All at once: later, nothing is left that could do it.
    cluster.services_are_released(&services).await?;
    cluster.nothing_is_left(BALLAST).await?;
    let addresses = cluster.foreign_addresses().await?;
    ensure!(addresses.is_empty(), "on the nodes: {addresses:?}");
    let left = cluster.services().list(&ListParams::default()).await?.items;
    ensure!(
        left.len() == services.len() + 1,
        "Services went: {}",
        left.len()
    );
    Ok(())
}

async fn install_again(cluster: &Cluster) -> Result<()> {
    let began = Instant::now();
    cluster.helm_to("install", BALLAST, &FLAGS).await?;
    let address = cluster.address("web-0").await?;
    cluster.answers(&address).await?;
    println!(
        "installed again, {address} answers after {:.1?}",
        began.elapsed()
    );
    for number in 1..SERVICES - 1 {
        cluster.address(&format!("web-{number}")).await?;
    }
    // Nothing of the first release is waited for, such as the end of its Lease or of a hook.
    ensure!(began.elapsed() < Duration::from_mins(4));
    Ok(())
}

/// `teardown.onUninstall: false`: load balancers and classes stay for the next installation.
async fn kept_over_an_uninstall(cluster: &Cluster) -> Result<()> {
    let given = published(cluster).await?;
    let keep = ["--set", "teardown.onUninstall=false"];
    upgrade(cluster, &keep).await?;
    cluster.uninstall(BALLAST, &[]).await?;
    let classes = cluster.names(&["lbclass"]).await?;
    ensure!(
        classes == ["loadbalancerclass.ballast.dev/local"],
        "{classes:?}"
    );
    ensure!(published(cluster).await? == given, "addresses changed");
    is_held(cluster).await?;

    cluster.helm_to("install", BALLAST, &FLAGS).await?;
    cluster.answers(&given["web-0"]).await?;
    ensure!(published(cluster).await? == given, "addresses changed");
    Ok(())
}

async fn is_held(cluster: &Cluster) -> Result<()> {
    let service = cluster.services().get("web-0").await?;
    let held = finalizers(&service).contains(&"ballast.dev/local");
    ensure!(held, "{}", told(&service));
    Ok(())
}

/// The way out that docs/uninstall.md describes.
async fn uninstalled_without_hooks(cluster: &Cluster) -> Result<()> {
    let services: Vec<_> = published(cluster).await?.into_keys().collect();
    cluster.uninstall(BALLAST, &["--no-hooks"]).await?;
    is_held(cluster).await?;
    let class = [
        "get",
        "lbclass/local",
        "-o",
        "jsonpath={.metadata.deletionTimestamp}",
    ];
    let deleted = cluster.lab.kubectl(&class).await?;
    ensure!(!deleted.is_empty(), "a class in use hangs in deletion");

    let unready = ["--wait=hookOnly"];
    let flags = [&FLAGS[..], &unready].concat();
    cluster.helm_to("install", BALLAST, &flags).await?;
    cluster.uninstall(BALLAST, &[]).await?;
    cluster.services_are_released(&services).await?;
    cluster.nothing_is_left(BALLAST).await?;
    let addresses = cluster.foreign_addresses().await?;
    ensure!(addresses.is_empty(), "on the nodes: {addresses:?}");
    Ok(())
}

/// A user deleted the CRDs, so nothing works: an upgrade creates them again.
async fn without_crds(cluster: &Cluster) -> Result<()> {
    let all = ["crd", CLASSES, POOLS, ANNOUNCERS];
    cluster
        .lab
        .kubectl(&[&["delete"], &all[..]].concat())
        .await?;
    let unready = ["--wait=hookOnly", "--skip-crds"];
    cluster.helm_to("install", BALLAST, &unready).await?;
    ensure!(cluster.names(&all).await?.is_empty(), "they are there");
    cluster.helm_to("upgrade", BALLAST, &unready).await?;
    let there = cluster.names(&all).await?;
    ensure!(there.len() == 3, "{there:?}");
    cluster.uninstall(BALLAST, &[]).await?;
    cluster.nothing_is_left(BALLAST).await
}

/// The chart grants exactly the rights that were used.
fn rights_fit(cluster: &Cluster) -> Result<()> {
    let values = "classes.local.mock.enabled=true";
    let chart = &cluster.helm;
    let manifest = chart.template(BALLAST.name, BALLAST.namespace, &["--set", values])?;
    let audit = cluster.lab.audit_with_reads()?;
    for (role, least) in [
        ("controller", 17),
        ("teardown", 4),
        ("crds", 3),
        ("secrets", 1),
        ("cleanup", 1),
    ] {
        let name = format!("ballast-{role}");
        let user = format!("system:serviceaccount:{}:{name}", BALLAST.namespace);
        let granted = grants::fit_of(&manifest, &user, &audit, Some(&name))?;
        ensure!(
            granted >= least,
            "only {granted} rights of {name} were found"
        );
    }
    Ok(())
}
