//! Without a controller: the command does its work as a person, behind the same Lease; and the last
//! resort, which lets go of the Services.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_e2e::installation::binary;
use ballast_e2e::{Host, Output, Reach, Signal};
use serde_json::Value;

use super::{LEASE, PORTS, QUICK, bare, hook, teardown};
use crate::common::{
    CLASS, FINALIZER, OF_CLASS, PROGRAMMED, Plan, SOON, Site, finalizers, load_balancer, status_of,
    told,
};

const PERSON: &str = "person";
const LONG: Duration = Duration::from_mins(3);
const THREE: [&str; 3] = ["one", "two", "three"];

#[tokio::test(flavor = "multi_thread")]
async fn a_person_does_the_work_of_a_dead_controller() -> Result<()> {
    Plan {
        nodes: 1,
        cloud: &["--deletion-latency", "4s"],
        controller: &QUICK,
        class: Some("default: true"),
        ..Plan::new("t-teardown-takeover")
    }
    .run(async |site| {
        let hook = hook(site).await?;
        served(site).await?;
        site.ballast.kill("ballast-1").await?;
        // The rights of the Job do not suffice, and it does not try.
        let said = teardown(&hook, &["--wait", "--timeout", "50s"]).await?;
        ensure!(said.code == Some(6), "{said:?}");
        ensure!(said.err.contains("teardown --wait --takeover"), "{said:?}");
        interrupted(site).await?;
        taken_over(site).await?;
        both_at_once(site).await?;
        not_with_another_cloud(site).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_resort_lets_go_and_says_what_stays() -> Result<()> {
    Plan {
        nodes: 1,
        controller: &QUICK,
        class: Some("default: true"),
        ..Plan::new("t-teardown-last")
    }
    .run(async |site| {
        served(site).await?;
        let alive = person(site, &["--release-finalizers", "--yes"]).await?;
        ensure!(alive.exit.code == Some(1), "{alive:?}");
        ensure!(
            alive.stderr.contains("a controller is running"),
            "{alive:?}"
        );
        site.programmed("one").await?;
        site.ballast.kill("ballast-1").await?;
        site.ballast.kill("mock-cloud").await?;
        let unasked = person(site, &["--release-finalizers"]).await?;
        ensure!(unasked.exit.code == Some(1), "{unasked:?}");
        ensure!(unasked.stderr.contains("or --yes"), "{unasked:?}");
        everything_lets_go(site).await
    })
    .await
}

/// Of a class, and of none.
async fn served(site: &Site<'_>) -> Result<()> {
    for name in ["one", "two"] {
        let spec = format!("{OF_CLASS}, {PORTS}");
        site.apply(&load_balancer(name, &spec)).await?;
    }
    site.apply(&load_balancer("three", PORTS)).await?;
    for name in THREE {
        site.programmed(name).await?;
    }
    Ok(())
}

/// The command of an administrator, on a host of the lab: from there the cloud can be reached.
fn command(site: &Site<'_>, flags: &[&str]) -> Result<Vec<String>> {
    let masters = ["system:masters"];
    let config = site
        .lab
        .kubeconfig_for_user(PERSON, &masters, Reach::Inside)?;
    let environment = [
        "env".to_owned(),
        format!("KUBECONFIG={}", config.display()),
        binary()?.display().to_string(),
        "teardown".to_owned(),
    ];
    let flags = flags.iter().chain(&LEASE).map(|&flag| flag.to_owned());
    Ok(environment.into_iter().chain(flags).collect())
}

async fn person(site: &Site<'_>, flags: &[&str]) -> Result<Output> {
    let argv = command(site, flags)?;
    let said = site.lab.exec_for(Host::ControlPlane, argv, LONG).await?;
    println!("{flags:?}: {}\n{}{}", said.exit, said.stderr, said.stdout);
    Ok(said)
}

/// A signal ends it in an orderly way: the next one need not wait for the Lease.
async fn interrupted(site: &Site<'_>) -> Result<()> {
    let flags = ["--wait", "--takeover", "--yes"];
    let argv = command(site, &flags)?;
    site.lab
        .spawn(PERSON, Host::ControlPlane, argv, &[])
        .await?;
    site.says("one", PROGRAMMED, "Unknown", "Releasing").await?;
    site.lab.kill(PERSON, Signal::SIGINT).await?;
    let exit = site.lab.wait_exit(PERSON, SOON).await?;
    let log = site.lab.log(PERSON)?;
    ensure!(exit.code == Some(6), "{exit}: {log}");
    ensure!(log.contains("teardown --wait --takeover"), "{log}");
    ensure!(site.holder("ballast-controller").await?.is_empty(), "{log}");
    Ok(())
}

async fn taken_over(site: &Site<'_>) -> Result<()> {
    let flags = ["--wait", "--takeover", "--yes", "-o", "json"];
    let said = person(site, &flags).await?;
    ensure!(said.exit.code == Some(0), "{said:?}");
    let report: Value = serde_json::from_str(&said.stdout)?;
    ensure!(report["left"] == serde_json::json!([]), "{report}");
    // Lines, because it is no terminal.
    ensure!(!said.stderr.contains(['\r', '\x1b']), "{said:?}");
    for words in [
        "; doing its work as teardown-",
        "(local): released",
        "class local: no longer in use",
        "all load balancers of class local are released",
    ] {
        ensure!(said.stderr.contains(words), "{words}: {said:?}");
    }
    let left = site.ballast.load_balancers().await?;
    ensure!(left.is_empty(), "{left:?}");
    for name in THREE {
        bare(site, name, CLASS).await?;
    }
    ensure!(site.holder("ballast-controller").await?.is_empty());
    Ok(())
}

/// The controller comes back at the same time. One of them works, and the command ends well.
async fn both_at_once(site: &Site<'_>) -> Result<()> {
    let undone = person(site, &["--undo"]).await?;
    ensure!(undone.exit.code == Some(0), "{undone:?}");
    site.lab.start_again("ballast-1").await?;
    for name in THREE {
        site.programmed(name).await?;
    }
    site.ballast.kill("ballast-1").await?;
    let argv = command(site, &["--wait", "--takeover", "--yes"])?;
    site.lab
        .spawn(PERSON, Host::ControlPlane, argv, &[])
        .await?;
    site.lab.start_again("ballast-1").await?;
    let exit = site.lab.wait_exit(PERSON, SOON).await?;
    ensure!(exit.code == Some(0), "{exit}: {}", site.lab.log(PERSON)?);
    site.cloud_is_empty().await?;
    site.held_by("ballast-controller", &["ballast-1"]).await?;
    for name in THREE {
        bare(site, name, CLASS).await?;
    }
    Ok(())
}

/// Credentials of another account find nothing, which is not the same as nothing there.
async fn not_with_another_cloud(site: &Site<'_>) -> Result<()> {
    let undone = person(site, &["--undo"]).await?;
    ensure!(undone.exit.code == Some(0), "{undone:?}");
    for name in THREE {
        site.programmed(name).await?;
    }
    site.ballast.kill("ballast-1").await?;
    site.ballast.kill("mock-cloud").await?;
    let state = site.lab.dir().join("mock-cloud");
    let moved = site.lab.dir().join("mock-cloud-moved");
    std::fs::rename(&state, &moved).context("cannot move the state of the cloud")?;
    site.lab.start_again("mock-cloud").await?;
    site.ballast.cloud_answers().await?;
    let said = person(site, &["--wait", "--takeover", "--yes"]).await?;
    ensure!(said.exit.code == Some(1), "{said:?}");
    let why = "the cloud has none of the 3 load balancers of class local";
    ensure!(said.stderr.contains(why), "{said:?}");
    for name in THREE {
        let service = site.get(name).await?;
        ensure!(!finalizers(&service).is_empty(), "{}", told(&service));
    }
    Ok(())
}

async fn everything_lets_go(site: &Site<'_>) -> Result<()> {
    let foreign = "x.example/keep";
    let patch = serde_json::json!({"metadata": {"finalizers": [FINALIZER, foreign]}});
    site.patch("one", patch).await?;
    let uid = site.get("one").await?.metadata.uid.context("no UID")?;
    let said = person(site, &["--release-finalizers", "--yes"]).await?;
    ensure!(said.exit.code == Some(0), "{said:?}");
    for words in [
        "default",
        "one",
        "bl-",
        "ballast.dev/service=default/one",
        &uid,
    ] {
        ensure!(said.stdout.contains(words), "{words}: {said:?}");
    }
    for words in [
        "default/three: finalizers removed",
        "class local: finalizer removed",
        "removed the finalizers of Ballast from 4 of 4 objects",
        "ballast orphans",
    ] {
        ensure!(said.stderr.contains(words), "{words}: {said:?}");
    }
    for (name, rest) in [("one", &[foreign][..]), ("two", &[]), ("three", &[])] {
        let service = site.get(name).await?;
        ensure!(finalizers(&service) == rest, "{}", told(&service));
        // Nothing else changes: traffic flows on.
        ensure!(
            status_of(&service, PROGRAMMED) == "True",
            "{}",
            told(&service)
        );
    }
    let none = serde_json::json!({"metadata": {"finalizers": null}});
    site.patch("one", none).await?;
    // Both can be deleted now, although nobody runs.
    site.delete("three").await?;
    let class = ["delete", "lbclass", "local", "--timeout=20s"];
    site.lab.kubectl(&class).await?;
    what_is_named_is_there(site, &said.stdout).await
}

/// The cloud comes back: it has each load balancer that was named, under that name.
async fn what_is_named_is_there(site: &Site<'_>, table: &str) -> Result<()> {
    site.lab.start_again("mock-cloud").await?;
    site.ballast.cloud_answers().await?;
    let there = site.ballast.load_balancers().await?;
    ensure!(there.len() == 3, "{there:?}");
    for one in there {
        let name = one["name"].as_str().context("no name")?;
        let service = one["desired"]["tags"]["ballast.dev/service"].as_str();
        let service = format!("ballast.dev/service={}", service.unwrap_or_default());
        let mut rows = table.lines();
        let row = rows.find(|row| row.contains(&service)).context("no row")?;
        ensure!(row.contains(name), "{name}: {row}");
    }
    // With the class, a controller finds them again and releases what no Service has any more.
    site.ballast.mock_class(CLASS, "default: true").await?;
    site.lab.start_again("ballast-1").await?;
    site.cloud_is_empty().await?;
    for name in ["one", "two"] {
        bare(site, name, CLASS).await?;
    }
    Ok(())
}
