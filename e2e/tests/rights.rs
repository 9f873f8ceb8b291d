//! The controller runs with the rights of `deploy/rbac.yaml`: none is missing, none is unused.
//! Also its own reports: readiness, metrics, help, exit status.

use std::net::IpAddr;
use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ballast_e2e::installation::{USER, binary};
use ballast_e2e::{AuditEvent, Host, Signal, eventually};
use serde_json::json;

use crate::common::crowd::LOCAL;
use crate::common::grants;
use crate::common::{ACCEPTED, CLASS, PROGRAMMED, Plan, SOON, Site, addresses, load_balancer};

const REPLICA: &str = "ballast-1";
const POOL: &str = "{apiVersion: ballast.dev/v1alpha1, kind: LoadBalancerClass, metadata: {name: metal}, spec: {l2: {}}}
---
{apiVersion: ballast.dev/v1alpha1, kind: AddressPool, metadata: {name: metal}, spec: {addresses: [192.0.2.7]}}
";
/// While there is one, the controller lists the Leases of announcers.
const ANNOUNCER: &str =
    "{apiVersion: ballast.dev/v1alpha1, kind: Announcer, metadata: {name: ballast-1}}";
const RBAC: &str = include_str!("../../deploy/rbac.yaml");

#[tokio::test(flavor = "multi_thread")]
async fn with_its_own_rights_alone() -> Result<()> {
    Plan {
        nodes: 1,
        controllers: 0,
        class: None,
        ..Plan::new("t-rights")
    }
    .run(async |site| {
        readiness_says_what_is_missing(site).await?;
        everything_it_does(site).await?;
        what_it_makes_is_its_accounts(site).await?;
        metrics_are_plausible(site).await?;
        stops_when_asked(site).await?;
        rights_fit(&site.lab.audit_with_reads()?)
    })
    .await
}

/// The response of the admin server for a path, whatever the status.
async fn admin(site: &Site<'_>, path: &str) -> Result<String> {
    let url = format!("http://127.0.0.1:8120{path}");
    let argv = ["curl", "-s", "-m3", "-w", "%{http_code}", &url];
    site.lab.exec(Host::ControlPlane, argv).await?.ok()
}

async fn readiness_says_what_is_missing(site: &Site<'_>) -> Result<()> {
    let crd = "crd/loadbalancerclasses.ballast.dev";
    site.lab.kubectl(&["delete", crd, "--wait=true"]).await?;
    site.ballast.spawn_controller(REPLICA, &[]).await?;
    eventually(SOON, || async {
        let said = admin(site, "/readyz").await?;
        let helps = said.contains("is the CRD installed? ballast crds | kubectl apply -f -");
        ensure!(helps && said.ends_with("503"), "{said}");
        ensure!(!said.contains("list of Services"), "that is there: {said}");
        Ok(())
    })
    .await?;
    let alive = admin(site, "/livez").await?;
    ensure!(alive == "alive\n200", "{alive}");
    let crds = ballast(&["crds"])?;
    site.apply(&String::from_utf8(crds.stdout)?).await?;
    let applied = Instant::now();
    site.ballast.controller_ready(REPLICA).await?;
    println!(
        "ready {:.1?} after the CRD was installed",
        applied.elapsed()
    );
    let ready = admin(site, "/readyz").await?;
    ensure!(ready == "ready\n200", "{ready}");
    Ok(())
}

async fn everything_it_does(site: &Site<'_>) -> Result<()> {
    site.ballast.mock_class(CLASS, "default: true").await?;
    site.apply(ANNOUNCER).await?;
    for name in ["one", "two"] {
        site.create(name, LOCAL).await?;
    }
    let ports = "ports: [{port: 80}], selector: {app: web}";
    site.apply(&load_balancer("without-class", ports)).await?;
    site.converges(3).await?;
    let no_ports = format!("{ports}, allocateLoadBalancerNodePorts: false");
    site.apply(&load_balancer("no-ports", &no_ports)).await?;
    site.says("no-ports", ACCEPTED, "False", "NodePortsMissing")
        .await?;
    site.delete("one").await?;
    vanishes(site, "two").await?;
    // The last event in a deleted namespace is refused, but not because a right is missing.
    site.lab.kubectl(&["create", "namespace", "going"]).await?;
    let going = load_balancer("last", ports).replace("namespace: default", "namespace: going");
    site.apply(&going).await?;
    eventually(SOON, || async {
        let made = site.ballast.load_balancers().await?.len();
        ensure!(made == 2, "{made} load balancers");
        Ok(())
    })
    .await?;
    site.lab
        .kubectl(&["delete", "namespace", "going", "--timeout=100s"])
        .await?;
    site.ballast.mock_class("short-lived", "").await?;
    site.create("short", "ballast.dev/short-lived").await?;
    site.converges_but("no-ports", 2).await?;
    site.delete("short").await?;
    site.lab
        .kubectl(&[
            "delete",
            "loadbalancerclass",
            "short-lived",
            "--timeout=60s",
        ])
        .await?;
    an_address_of_a_pool(site).await
}

async fn an_address_of_a_pool(site: &Site<'_>) -> Result<()> {
    site.apply(POOL).await?;
    let spec = "loadBalancerClass: ballast.dev/metal, ports: [{port: 80}]";
    site.apply(&load_balancer("metal", spec)).await?;
    site.says("metal", PROGRAMMED, "False", "NotAnnounced")
        .await?;
    let got = addresses(&site.get("metal").await?);
    ensure!(got == [IpAddr::from([192, 0, 2, 7])], "{got:?}");
    eventually(SOON, || async {
        let columns = "custom-columns=used:.status.used,free:.status.free";
        let argv = ["get", "addresspool", "metal", "-o", columns, "--no-headers"];
        let said = site.lab.kubectl(&argv).await?;
        ensure!(said.split_whitespace().eq(["1", "0"]), "{said}");
        Ok(())
    })
    .await
}

/// The Lease is deleted with the `ServiceAccount`.
async fn what_it_makes_is_its_accounts(site: &Site<'_>) -> Result<()> {
    let path = "jsonpath={.metadata.ownerReferences[*].kind}/{.metadata.ownerReferences[*].name}";
    let lease = "lease/ballast-controller";
    let argv = ["get", "-n", "ballast-system", lease, "-o", path];
    let owner = site.lab.kubectl(&argv).await?;
    ensure!(owner == "ServiceAccount/ballast-controller", "{owner}");
    Ok(())
}

/// A compromised controller cannot obtain another account's token: it has no right to Secrets.
#[test]
fn no_right_to_secrets() -> Result<()> {
    ensure!(!RBAC.contains("secrets"), "{RBAC}");
    Ok(())
}

/// Deleted without a finalizer, before the controller sees it.
async fn vanishes(site: &Site<'_>, name: &str) -> Result<()> {
    site.lab.kill(REPLICA, Signal::SIGSTOP).await?;
    site.patch(name, json!({"metadata": {"finalizers": null}}))
        .await?;
    site.delete_all(&[name.to_owned()]).await?;
    site.lab.kill(REPLICA, Signal::SIGCONT).await?;
    site.not_in_cloud(name).await
}

impl Site<'_> {
    /// The cloud has this many load balancers, and all Services but one have theirs.
    async fn converges_but(&self, pending: &str, count: usize) -> Result<()> {
        eventually(SOON, || async {
            let made = self.ballast.load_balancers().await?.len();
            ensure!(made == count, "{made} load balancers beside {pending}");
            Ok(())
        })
        .await
    }
}

async fn metrics_are_plausible(site: &Site<'_>) -> Result<()> {
    let text = site.ballast.admin(REPLICA, "/metrics").await?;
    ensure!(text.trim_end().ends_with("# EOF"), "OpenMetrics ends so");
    let count = async |name: &str| site.count(REPLICA, name).await;
    let sum = async |name: &str| site.metric(REPLICA, name).await;
    for outcome in ["ensured", "released", "waiting"] {
        let label = format!("{{outcome=\"{outcome}\"}}");
        let reconciles = count(&format!("ballast_reconciles_total{label}")).await?;
        let timed = count(&format!("ballast_reconcile_duration_seconds_count{label}")).await?;
        let took = sum(&format!("ballast_reconcile_duration_seconds_sum{label}")).await?;
        println!("{outcome}: {reconciles} reconciles in {took:.3} s");
        ensure!(
            reconciles >= 1 && timed >= reconciles,
            "{outcome}: {reconciles}, {timed}"
        );
        ensure!(took < 10.0, "{outcome}: {took} s");
    }
    let addressed = count("ballast_time_to_address_seconds_count").await?;
    let took = sum("ballast_time_to_address_seconds_sum").await?;
    println!("{addressed} addresses after {took:.3} s in all");
    // One for each Service that got an address: none is missed, none counted twice.
    ensure!(
        addressed == 6 && took > 0.0 && took < 30.0,
        "{addressed} took {took} s"
    );
    for (name, expected) in [
        ("ballast_leader", 1.0),
        ("ballast_targets", 1.0),
        ("ballast_queue_depth", 0.0),
        (
            "ballast_services_pending{class=\"local\",reason=\"NodePortsMissing\"}",
            1.0,
        ),
        (
            "ballast_services_pending{class=\"metal\",reason=\"NotAnnounced\"}",
            1.0,
        ),
        (
            "ballast_pool_addresses{pool=\"metal\",family=\"IPv4\",state=\"assigned\"}",
            1.0,
        ),
        (
            "ballast_pool_addresses{pool=\"metal\",family=\"IPv4\",state=\"available\"}",
            0.0,
        ),
    ] {
        ensure!(text.contains(name), "no {name} in {text}");
        let now: f64 = sum(name).await?;
        ensure!((now - expected).abs() < f64::EPSILON, "{name} is {now}");
    }
    let pending = text
        .lines()
        .filter(|line| line.starts_with("ballast_services_pending{"));
    ensure!(pending.count() == 2, "others are not pending: {text}");
    ensure!(count("ballast_events_total{outcome=\"sent\"}").await? >= 5);
    ensure!(count("ballast_api_writes_total{kind=\"status\"}").await? >= 5);
    Ok(())
}

async fn stops_when_asked(site: &Site<'_>) -> Result<()> {
    let asked = Instant::now();
    site.lab.kill(REPLICA, Signal::SIGTERM).await?;
    let exit = site.lab.wait_exit(REPLICA, SOON).await?;
    println!("asked to stop: {exit} after {:.2?}", asked.elapsed());
    // Within the 30 s that a pod has.
    ensure!(exit.success(), "{exit}");
    Ok(())
}

/// Nothing was forbidden, and every right was used.
fn rights_fit(audit: &[AuditEvent]) -> Result<()> {
    let granted = grants::fit(RBAC, USER, audit)?;
    ensure!(
        granted >= 16,
        "only {granted} rights were found in the file"
    );
    Ok(())
}

fn ballast(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    // As on a new machine: no cluster, no settings.
    let command = command
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent");
    command.output().context("ballast does not run")
}

/// Every flag of an example exists; commands with examples show them in their help.
#[test]
fn help_has_examples() -> Result<()> {
    for command in [
        "controller",
        "announcer",
        "mock-cloud",
        "crds",
        "secrets",
        "cleanup",
        "probe",
        "teardown",
    ] {
        let help = ballast(&[command, "--help"])?;
        ensure!(help.status.success(), "{command} --help: {:?}", help.status);
        let help = String::from_utf8(help.stdout)?;
        let (options, examples) = help
            .split_once("Examples:")
            .with_context(|| format!("no examples in {help}"))?;
        ensure!(
            examples.contains(&format!("ballast {command}")),
            "{examples}"
        );
        let own = |line: &&str| line.trim_start().starts_with(&format!("ballast {command}"));
        let flags = examples
            .lines()
            .filter(own)
            .flat_map(|line| line.split([' ', '=']).filter(|word| word.starts_with("--")));
        for flag in flags {
            // The output of another program, through a pipe.
            ensure!(
                options.contains(flag) || examples.contains(&format!("kubectl apply {flag}")),
                "{command}: the example's {flag} does not exist"
            );
        }
    }
    Ok(())
}

#[test]
fn wrong_usage_is_status_2() -> Result<()> {
    for wrong in [
        vec![],
        vec!["conjure"],
        vec!["controller", "--no-such-flag"],
        vec!["controller", "--workers", "0"],
        vec!["controller", "--lease-duration", "soon"],
        vec!["controller", "--renew-deadline", "20"],
        vec!["mock-cloud", "--listen", "nowhere"],
        vec!["mock-cloud", "--addresses", "10.0.0.9-10.0.0.1"],
        vec!["crds", "--log", "ballast=loud"],
        vec!["controller", "--mock-token-namespace", "n"],
        vec!["secrets"],
        vec!["secrets", "name:"],
        vec!["cleanup"],
        vec!["probe", "readyz"],
        vec!["probe", "metrics", "--socket", "/s"],
        vec!["teardown", "--timeout", "5m"],
        vec!["teardown", "--wait", "--timeout", "soon"],
        vec!["teardown", "--undo", "--wait"],
        vec!["teardown", "--takeover"],
        vec!["teardown", "--release-finalizers", "--wait"],
        vec!["rebalance", "--no-wait", "--timeout", "5m"],
        vec!["status", "--announcers", "--pools"],
    ] {
        let said = ballast(&wrong)?;
        let text = String::from_utf8_lossy(&said.stderr);
        ensure!(
            said.status.code() == Some(2),
            "{wrong:?}: {:?} {text}",
            said.status
        );
        ensure!(!text.is_empty(), "{wrong:?} says nothing");
    }
    // Valid usage without an API server: another exit status.
    let alone = ballast(&["controller", "--admin-address", "127.0.0.1:0"])?;
    ensure!(alone.status.code() == Some(1), "{:?}", alone.status);
    let text = String::from_utf8_lossy(&alone.stderr);
    ensure!(text.contains("KUBECONFIG"), "{text}");
    Ok(())
}
