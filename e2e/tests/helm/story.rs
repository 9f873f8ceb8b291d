//! One release from its installation to its end, with 50 Services: what users do, and that
//! nothing is granted in vain and nothing is left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ballast_e2e::{Host, eventually};
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use serde_json::json;

use crate::cluster::{Cluster, Release, SOON};
use crate::common::{addresses, load_balancer};
use crate::{grants, kernel};

const BALLAST: Release = Release {
    name: "ballast",
    namespace: "ballast-system",
};
const KIND: [&str; 2] = ["--values", "charts/ballast/ci/kind-values.yaml"];
const SERVICES: usize = 50;
/// Says what failed; a line each.
const TRAFFIC: &str =
    "while :; do curl -gsSf -m 3 -o /dev/null $0 && echo answered || echo FAILED; sleep 0.02; done";

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_release() -> Result<()> {
    Cluster::run("t-helm", 2, async |cluster| {
        cluster.web_servers().await?;
        install(cluster).await?;
        let given = fifty_services(cluster).await?;
        for (component, count) in [("controller", 2), ("mock-cloud", 1)] {
            let pods = cluster.pods(BALLAST, component).await?;
            ensure!(pods.len() == count, "{component}: {} pods", pods.len());
            pods.iter().try_for_each(kernel::is_as_written)?;
        }
        upgrade_under_traffic(cluster, &given).await?;
        upgrade_after_a_loss(cluster).await?;
        rollback(cluster, &given).await?;
        uninstall(cluster).await?;
        install_again(cluster).await?;
        rights_fit(cluster)
    })
    .await
}

async fn install(cluster: &Cluster) -> Result<()> {
    let spec = "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]";
    cluster.lab.apply(&load_balancer("web-0", spec)).await?;
    let began = Instant::now();
    cluster.helm_to("install", BALLAST, &KIND).await?;
    let installed = began.elapsed();
    let address = cluster.address("web-0").await?;
    cluster.answers(&address).await?;
    println!(
        "installed in {installed:.1?}, {address} answers after {:.1?}",
        began.elapsed()
    );
    Ok(())
}

/// The addresses of all, by name.
async fn fifty_services(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let spec = "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]";
    let more: Vec<_> = (1..SERVICES)
        .map(|number| load_balancer(&format!("web-{number}"), spec))
        .collect();
    cluster.lab.apply(&more.join("---\n")).await?;
    let mut given = BTreeMap::new();
    for number in 0..SERVICES {
        let name = format!("web-{number}");
        let address = cluster.address(&name).await?;
        given.insert(name, address);
    }
    let last = &given[&format!("web-{}", SERVICES - 1)];
    cluster.answers(last).await?;
    Ok(given)
}

async fn now(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let services = cluster.services().list(&ListParams::default()).await?.items;
    let named = |service: &Service| {
        let address = addresses(service).first()?.to_string();
        Some((service.metadata.name.clone()?, address))
    };
    Ok(services.iter().filter_map(named).collect())
}

/// What concerns the controller alone does not restart the mock cloud, so nobody notices.
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
    cluster
        .helm_to(
            "upgrade",
            BALLAST,
            &[&KIND[..], &["--set", changed]].concat(),
        )
        .await?;
    let after = answers(before + 50).await?;
    cluster.lab.stop("traffic").await?;
    let log = cluster.lab.log("traffic")?;
    let failed = log.lines().filter(|line| line.contains("FAILED")).count();
    println!("{after} requests over an upgrade, {failed} failed");
    ensure!(failed == 0, "{failed} requests failed:\n{log}");
    let uid = |pods: &[k8s_openapi::api::core::v1::Pod]| pods[0].metadata.uid.clone();
    let still = cluster.pods(BALLAST, "mock-cloud").await?;
    ensure!(still.len() == 1 && uid(&still) == uid(&pods), "another pod");
    // Old ones may still be on their way out.
    eventually(SOON, || async {
        for pod in cluster.pods(BALLAST, "controller").await? {
            let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
            let mut args = containers.iter().flat_map(|it| it.args.iter().flatten());
            ensure!(args.any(|it| it == "--workers=16"), "{containers:?}");
        }
        Ok(())
    })
    .await?;
    ensure!(now(cluster).await? == *given, "addresses changed");
    Ok(())
}

/// While no controller runs, a Service is torn out of its finalizer's hands and a CRD is
/// deleted. The next upgrade brings both into order.
async fn upgrade_after_a_loss(cluster: &Cluster) -> Result<()> {
    let none = ["--set", "controller.replicas=0"];
    cluster
        .helm_to("upgrade", BALLAST, &[KIND, none].concat())
        .await?;
    eventually(SOON, || async {
        let pods = cluster.pods(BALLAST, "controller").await?;
        ensure!(pods.is_empty(), "{} controllers", pods.len());
        Ok(())
    })
    .await?;
    let lost = format!("web-{}", SERVICES - 1);
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    let patch = ["patch", "service", &lost, "--type=merge", "-p", &free];
    cluster.lab.kubectl(&patch).await?;
    cluster.lab.kubectl(&["delete", "service", &lost]).await?;
    cluster
        .lab
        .kubectl(&["delete", "crd", "addresspools.ballast.dev"])
        .await?;
    let held = cluster.foreign_addresses().await?.len();

    cluster.helm_to("upgrade", BALLAST, &KIND).await?;
    let pool = [
        "--set",
        "classes.metal.l2.addressPools={metal},pools.metal.addresses={192.0.2.7}",
    ];
    cluster
        .helm_to("upgrade", BALLAST, &[KIND, pool].concat())
        .await?;
    let accepted = [
        "wait",
        "--for=condition=Accepted",
        "addresspool/metal",
        "--timeout=30s",
    ];
    cluster.lab.kubectl(&accepted).await?;
    eventually(SOON, || async {
        let now = cluster.foreign_addresses().await?.len();
        ensure!(now < held, "{now} addresses, the lost Service's among them");
        Ok(())
    })
    .await
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
    expected.remove(&format!("web-{}", SERVICES - 1));
    ensure!(now(cluster).await? == expected, "addresses changed");
    cluster.answers(&given["web-0"]).await
}

async fn uninstall(cluster: &Cluster) -> Result<()> {
    let services: Vec<_> = now(cluster).await?.into_keys().collect();
    ensure!(services.len() == SERVICES - 1, "{services:?}");
    let began = Instant::now();
    cluster.uninstall(BALLAST, &[]).await?;
    println!("uninstalled in {:.1?}", began.elapsed());
    // All of it, at once: nobody is there any more who would do it later.
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
    cluster.helm_to("install", BALLAST, &KIND).await?;
    let address = cluster.address("web-0").await?;
    cluster.answers(&address).await?;
    println!(
        "installed again, {address} answers after {:.1?}",
        began.elapsed()
    );
    for number in 1..SERVICES - 1 {
        cluster.address(&format!("web-{number}")).await?;
    }
    ensure!(began.elapsed() < Duration::from_mins(1));
    Ok(())
}

/// What the chart grants and what was used are the same.
fn rights_fit(cluster: &Cluster) -> Result<()> {
    let values = "classes.local.mock.enabled=true";
    let chart = &cluster.helm;
    let manifest = chart.template(BALLAST.name, BALLAST.namespace, &["--set", values])?;
    let audit = cluster.lab.audit_with_reads()?;
    for (role, least) in [("controller", 17), ("teardown", 4), ("crds", 3)] {
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
