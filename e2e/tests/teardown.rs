//! `ballast teardown` on a real cluster, with only the rights of its own account: every load
//! balancer is released and every Service stays, whatever happens in the meantime; and the way
//! back.

mod gitops;
mod takeover;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ballast_e2e::{Helm, Progress, Reach, Signal, eventually};
use kube::ResourceExt as _;
use serde_json::Value;

use crate::common::command::{Ballast, Said, help_is_true};
use crate::common::{
    ACCEPTED, CLASS, OF_CLASS, PROGRAMMED, Plan, SOON, Site, addresses, annotated, condition,
    finalizers, load_balancer, told,
};

const LEASE: [&str; 2] = ["--lease-namespace", "ballast-system"];
/// A controller that is known to be dead soon, and that keeps its Lease on a busy machine.
const QUICK: [&str; 6] = [
    "--lease-duration",
    "10",
    "--renew-deadline",
    "8",
    "--retry-period",
    "1",
];
const PORTS: &str = "selector: {app: web}, ports: [{port: 80}]";
const USER: &str = "system:serviceaccount:ballast-system:ballast-teardown";
const METAL: &str = "{apiVersion: ballast.dev/v1alpha1, kind: LoadBalancerClass, metadata: {name: metal}, spec: {l2: {}}}
---
{apiVersion: ballast.dev/v1alpha1, kind: AddressPool, metadata: {name: metal}, spec: {addresses: [192.0.2.7], reuseAfter: 0s}}
";
/// The state of all classes, in the order of the table.
const SERVICES: [&str; 6] = ["classless", "edge", "local", "shared-1", "shared-2", "web"];

#[tokio::test(flavor = "multi_thread")]
async fn every_load_balancer_goes_and_every_service_stays() -> Result<()> {
    Plan {
        nodes: 1,
        class: None,
        ..Plan::new("t-teardown")
    }
    .run(async |site| {
        let hook = hook(site).await?;
        crowd(site).await?;
        a_dry_run_changes_nothing(site, &hook).await?;
        one_class_alone(site, &hook).await?;
        all_of_them(site, &hook).await?;
        what_comes_meanwhile_is_refused(site).await?;
        and_back(site, &hook).await?;
        rights_fit(site)?;
        without_classes(site).await?;
        lease_goes_with_the_account(site).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_clear_words_and_goes_on_later() -> Result<()> {
    Plan {
        nodes: 1,
        cloud: &["--deletion-latency", "4s"],
        controller: &QUICK,
        ..Plan::new("t-teardown-ends")
    }
    .run(async |site| {
        let hook = hook(site).await?;
        for name in ["one", "two", "three"] {
            let spec = format!("{OF_CLASS}, {PORTS}");
            site.apply(&load_balancer(name, &spec)).await?;
        }
        for name in ["one", "two", "three"] {
            site.programmed(name).await?;
        }
        without_a_controller(site, &hook).await?;
        it_goes_on_by_itself(site, &hook).await?;
        out_of_time(site, &hook).await?;
        over_a_restart(site, &hook).await
    })
    .await
}

#[tokio::test]
async fn its_help_is_true() -> Result<()> {
    help_is_true(&["teardown"]).await
}

/// The rights that the chart grants to its pre-delete hook, without the Job itself.
fn rights() -> Result<String> {
    let helm = Helm::ensure(Progress::new(false))?;
    let hook = ["--show-only", "templates/hooks/teardown.yaml"];
    let rendered = helm.template("ballast", "ballast-system", &hook)?;
    let objects = rendered.split("---\n");
    let rights: Vec<&str> = objects.filter(|it| !it.contains("\nkind: Job\n")).collect();
    Ok(rights.join("---\n"))
}

/// As a pre-delete hook runs it.
async fn hook(site: &Site<'_>) -> Result<Ballast> {
    site.apply(&rights()?).await?;
    let config = site
        .lab
        .kubeconfig_for_service_account("ballast-system", "ballast-teardown", Reach::Machine)
        .await?;
    Ok(Ballast::of(&config))
}

async fn teardown(hook: &Ballast, flags: &[&str]) -> Result<Said> {
    let arguments = [&["teardown"], flags, &LEASE].concat();
    let began = Instant::now();
    let said = hook.run(&arguments).await?;
    println!(
        "teardown {flags:?}: {:?} after {:.1?}\n{}{}",
        said.code,
        began.elapsed(),
        said.err,
        said.out
    );
    Ok(said)
}

/// The names in the second column of a table.
fn names(table: &str) -> Vec<&str> {
    let rows = table.lines().skip(1);
    rows.filter_map(|row| row.split_whitespace().nth(1))
        .collect()
}

/// Classes of two clouds, one of them the default, and a class of pools.
async fn crowd(site: &Site<'_>) -> Result<()> {
    site.ballast.mock_class(CLASS, "default: true").await?;
    site.ballast.mock_class("edge", "").await?;
    site.apply(METAL).await?;
    let of_edge = format!("loadBalancerClass: ballast.dev/edge, {PORTS}");
    let local = format!("{OF_CLASS}, externalTrafficPolicy: Local, {PORTS}");
    for (name, spec) in [
        ("web", format!("{OF_CLASS}, {PORTS}")),
        ("local", local),
        ("classless", PORTS.to_owned()),
        ("edge", of_edge),
    ] {
        site.apply(&load_balancer(name, &spec)).await?;
    }
    for (name, port) in [("shared-1", 80), ("shared-2", 81)] {
        let spec = format!("loadBalancerClass: ballast.dev/metal, ports: [{{port: {port}}}]");
        site.apply(&annotated(name, "ballast.dev/share-key: front", &spec))
            .await?;
    }
    all_are_served(site).await
}

async fn all_are_served(site: &Site<'_>) -> Result<()> {
    for name in ["web", "local", "classless", "edge"] {
        site.programmed(name).await?;
    }
    for name in ["shared-1", "shared-2"] {
        site.says(name, PROGRAMMED, "False", "NotAnnounced").await?;
        let got = addresses(&site.get(name).await?);
        ensure!(got == ["192.0.2.7".parse::<std::net::IpAddr>()?], "{got:?}");
    }
    Ok(())
}

async fn a_dry_run_changes_nothing(site: &Site<'_>, hook: &Ballast) -> Result<()> {
    let said = teardown(hook, &["--dry-run"]).await?;
    ensure!(
        said.code == Some(0) && names(&said.out) == SERVICES,
        "{said:?}"
    );
    ensure!(
        said.err == "would drain classes edge, local, metal; nothing was changed\n",
        "{said:?}"
    );
    let classes = site.lab.kubectl(&["get", "lbclass", "-o", "json"]).await?;
    ensure!(!classes.contains("draining"), "{classes}");
    all_are_served(site).await
}

async fn one_class_alone(site: &Site<'_>, hook: &Ballast) -> Result<()> {
    let said = teardown(hook, &["--wait", "--classes", "edge,nowhere"]).await?;
    ensure!(said.code == Some(0) && said.out.is_empty(), "{said:?}");
    for words in [
        "LoadBalancerClass nowhere does not exist",
        "class edge: draining",
        "default/edge (edge): released",
        "all load balancers of class edge are released",
    ] {
        ensure!(said.err.contains(words), "{words}: {said:?}");
    }
    bare(site, "edge", "edge").await?;
    site.programmed("web").await.map(drop)
}

/// The Service has nothing of a load balancer but the reason.
async fn bare(site: &Site<'_>, name: &str, class: &str) -> Result<()> {
    let service = site.get(name).await?;
    ensure!(finalizers(&service).is_empty(), "{}", told(&service));
    ensure!(addresses(&service).is_empty(), "{}", told(&service));
    let accepted = condition(&service, ACCEPTED).context("no condition")?;
    let says = (accepted.status.as_str(), accepted.reason.as_str());
    ensure!(says == ("False", "Draining"), "{}", told(&service));
    let undo = format!("ballast teardown --undo --classes {class}");
    ensure!(accepted.message.contains(&undo), "{}", told(&service));
    Ok(())
}

async fn all_of_them(site: &Site<'_>, hook: &Ballast) -> Result<()> {
    let flags = ["--wait", "--reason", "helm uninstall", "-o", "json"];
    let said = teardown(hook, &flags).await?;
    ensure!(said.code == Some(0), "{said:?}");
    let report: Value = serde_json::from_str(&said.out)?;
    ensure!(report["left"] == serde_json::json!([]), "{report}");
    let left = site.ballast.load_balancers().await?;
    ensure!(left.is_empty(), "{left:?}");
    for (name, class) in [
        ("web", CLASS),
        ("local", CLASS),
        ("classless", CLASS),
        ("edge", "edge"),
        ("shared-1", "metal"),
        ("shared-2", "metal"),
    ] {
        bare(site, name, class).await?;
    }
    let path = "jsonpath={.items[*].metadata.finalizers}";
    let held = site.lab.kubectl(&["get", "lbclass", "-o", path]).await?;
    ensure!(held.is_empty(), "{held}");
    let table = site.lab.kubectl(&["get", "lbclass"]).await?;
    let drained = table.lines().filter(|line| line.contains("Draining"));
    ensure!(drained.count() == 3, "{table}");
    // Nothing is left to do, which is not an error.
    let again = teardown(hook, &["--wait"]).await?;
    ensure!(again.code == Some(0) && again.out.is_empty(), "{again:?}");
    Ok(())
}

async fn what_comes_meanwhile_is_refused(site: &Site<'_>) -> Result<()> {
    site.ballast.mock_class("younger", "default: true").await?;
    site.apply(&load_balancer("late", PORTS)).await?;
    let message = site.says("late", ACCEPTED, "False", "Draining").await?;
    ensure!(
        message.contains("(ballast teardown: helm uninstall)"),
        "{message}"
    );
    let left = site.ballast.load_balancers().await?;
    ensure!(left.is_empty(), "nobody else takes it: {left:?}");
    let admin = Ballast::of(&site.lab.kubeconfig());
    let said = admin.run(&["status"]).await?;
    let late = said.out.lines().find(|line| line.contains("late"));
    ensure!(
        late.is_some_and(|line| line.contains("Draining")),
        "{said:?}"
    );
    ensure!(said.err.contains("ballast teardown --undo"), "{said:?}");
    site.delete("late").await
}

async fn and_back(site: &Site<'_>, hook: &Ballast) -> Result<()> {
    let said = teardown(hook, &["--undo"]).await?;
    ensure!(said.code == Some(0), "{said:?}");
    all_are_served(site).await?;
    let made = site.ballast.load_balancers().await?.len();
    ensure!(made == 4, "{made} load balancers");
    let none = teardown(hook, &["--undo"]).await?;
    ensure!(none.err == "no class is draining\n", "{none:?}");
    Ok(())
}

/// Nothing was forbidden, and every right was used.
fn rights_fit(site: &Site<'_>) -> Result<()> {
    let audit = site.lab.audit_with_reads()?;
    let mut used: Vec<String> = Vec::new();
    for event in audit.iter().filter(|event| event.user == USER) {
        ensure!(!event.forbidden, "{event:?}");
        let right = format!("{} {}/{}", event.verb, event.resource, event.subresource);
        if !used.contains(&right) {
            used.push(right);
        }
    }
    used.sort();
    let expected = [
        "get configmaps/",
        "get leases/",
        "list loadbalancerclasses/",
        "list services/",
        "patch configmaps/",
        "patch loadbalancerclasses/status",
    ];
    ensure!(used == expected, "{used:?}");
    Ok(())
}

/// Nothing to tear down is not an error; and `crds --apply` installs the CRDs again.
async fn without_classes(site: &Site<'_>) -> Result<()> {
    let admin = Ballast::of(&site.lab.kubeconfig());
    for name in SERVICES {
        site.delete(name).await?;
    }
    let all = ["delete", "lbclass", "--all", "--timeout=60s"];
    site.lab.kubectl(&all).await?;
    let empty = teardown(&admin, &["--wait"]).await?;
    ensure!(empty.code == Some(0), "{empty:?}");
    ensure!(
        empty.err == "no LoadBalancerClass found; nothing to do\n",
        "{empty:?}"
    );
    let kinds = [
        "crd/loadbalancerclasses.ballast.dev",
        "crd/addresspools.ballast.dev",
        "crd/announcers.ballast.dev",
    ];
    site.lab
        .kubectl(&[&["delete"], &kinds[..]].concat())
        .await?;
    eventually(SOON, || async {
        let said = teardown(&admin, &["--wait"]).await?;
        let nothing = "the cluster does not serve LoadBalancerClasses; nothing to do\n";
        ensure!(said.code == Some(0) && said.err == nothing, "{said:?}");
        Ok(())
    })
    .await?;
    for expected in ["created", "unchanged"] {
        let began = Instant::now();
        let said = admin.out(&["crds", "--apply"]).await?;
        println!("crds --apply after {:.1?}:\n{said}", began.elapsed());
        let kinds = ["loadbalancerclasses", "addresspools", "announcers"];
        let done = kinds.map(|kind| format!("{kind}.ballast.dev {expected}\n"));
        let done = done.concat();
        ensure!(said == done, "{said}");
    }
    // They are served already: no wait is needed.
    site.ballast.mock_class(CLASS, "").await
}

async fn lease_goes_with_the_account(site: &Site<'_>) -> Result<()> {
    let exit = site.ballast.stop("ballast-1").await?;
    ensure!(exit.success(), "{exit}");
    let account = ["delete", "-n", "ballast-system", "sa", "ballast-controller"];
    site.lab.kubectl(&account).await?;
    eventually(SOON, || async {
        let argv = ["get", "-n", "ballast-system", "lease", "-o", "name"];
        let left = site.lab.kubectl(&argv).await?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
    .await
}

/// Soon, and not at its time-out: a hook must report the reason before Helm gives up. (A command
/// that takes longer than a minute fails the test.)
async fn without_a_controller(site: &Site<'_>, hook: &Ballast) -> Result<()> {
    site.ballast.kill("ballast-1").await?;
    let short = teardown(hook, &["--wait", "--timeout", "2s"]).await?;
    ensure!(short.code == Some(5), "{short:?}");
    let said = teardown(hook, &["--wait", "--timeout", "5m"]).await?;
    ensure!(said.code == Some(6), "{said:?}");
    ensure!(
        names(&said.out) == ["one", "three", "two", "class/local"],
        "{said:?}"
    );
    ensure!(
        said.out
            .contains("the controller has not started to release it"),
        "{said:?}"
    );
    ensure!(
        said.err.contains("controller ballast-1_") && said.err.contains("has not renewed"),
        "{said:?}"
    );
    let made = site.ballast.load_balancers().await?.len();
    ensure!(made == 3, "nobody took them down: {made}");
    Ok(())
}

/// The switch is set, whether or not a controller runs.
async fn it_goes_on_by_itself(site: &Site<'_>, hook: &Ballast) -> Result<()> {
    site.lab.start_again("ballast-1").await?;
    site.cloud_is_empty().await?;
    let said = teardown(hook, &["--wait", "--timeout", "20s"]).await?;
    ensure!(said.code == Some(0), "{said:?}");
    for name in ["one", "two", "three"] {
        bare(site, name, CLASS).await?;
    }
    back(site, hook).await
}

async fn back(site: &Site<'_>, hook: &Ballast) -> Result<()> {
    teardown(hook, &["--undo"]).await?;
    for name in ["one", "two", "three"] {
        site.programmed(name).await?;
    }
    Ok(())
}

/// If someone removes the switch while the command waits, that is deliberate.
async fn somebody_undoes_it(hook: &Ballast) -> Result<()> {
    // Before its first read there is nothing to undo, so the test repeats it until the command
    // notices. It never drops an undo on its way: that could still end what the test does next.
    let noticed = AtomicBool::new(false);
    let waiting = async {
        let said = teardown(hook, &["--wait", "--timeout", "29s"]).await;
        noticed.store(true, Relaxed);
        said
    };
    let undoing = async {
        while !noticed.load(Relaxed) {
            let undone = teardown(hook, &["--undo"]).await?;
            ensure!(undone.code == Some(0), "{undone:?}");
        }
        Ok(())
    };
    let (said, ()) = tokio::try_join!(waiting, undoing)?;
    ensure!(
        said.code == Some(1) && said.err.contains("was ended by someone else"),
        "{said:?}"
    );
    Ok(())
}

/// The cloud is down: the table shows what each Service waits for.
async fn out_of_time(site: &Site<'_>, hook: &Ballast) -> Result<()> {
    site.ballast.kill("mock-cloud").await?;
    let said = teardown(hook, &["--wait", "--timeout", "8s"]).await?;
    ensure!(said.code == Some(5), "{said:?}");
    let rows = names(&said.out);
    ensure!(rows == ["one", "three", "two", "class/local"], "{said:?}");
    let away = said
        .out
        .lines()
        .filter(|row| row.contains("cannot be reached"));
    ensure!(away.count() >= 3, "{said:?}");
    ensure!(said.err.contains("holds the Lease"), "{said:?}");
    somebody_undoes_it(hook).await?;
    site.lab.start_again("mock-cloud").await?;
    let said = teardown(hook, &["--wait", "--timeout", "29s"]).await?;
    ensure!(said.code == Some(0), "{said:?}");
    site.cloud_is_empty().await?;
    back(site, hook).await
}

/// The controller is killed during the command, which sees it come back.
async fn over_a_restart(site: &Site<'_>, hook: &Ballast) -> Result<()> {
    let drained = async {
        let said = teardown(hook, &["--wait", "--timeout", "29s"]).await?;
        ensure!(said.code == Some(0), "{said:?}");
        Ok(())
    };
    let restarted = async {
        site.says("one", PROGRAMMED, "Unknown", "Releasing").await?;
        site.lab.kill("ballast-1", Signal::SIGKILL).await?;
        site.lab.wait_exit("ballast-1", SOON).await?;
        site.lab.start_again("ballast-1").await.map(drop)
    };
    tokio::try_join!(drained, restarted)?;
    let left = site.ballast.load_balancers().await?;
    ensure!(left.is_empty(), "{left:?}");
    for name in ["one", "two", "three"] {
        bare(site, name, CLASS).await?;
        let service = site.get(name).await?;
        ensure!(service.annotations().is_empty(), "{}", told(&service));
    }
    Ok(())
}
