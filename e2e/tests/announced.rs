//! What Services, events and commands tell of the nodes that announce addresses: at rest, after a
//! cable is pulled, and after `ballast rebalance`.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ballast_e2e::failover::bed::Bed;
use ballast_e2e::{Host, ProxyMode, eventually};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use crate::announcer::on_bed;
use crate::common::command::{Ballast, help_is_true};
use crate::common::{PROGRAMMED, SOON};

const ANNOUNCED: &str = "ballast.dev/Announced";

#[tokio::test(flavor = "multi_thread")]
async fn services_tell_which_node_announces_them() -> Result<()> {
    on_bed("t-announced", 3, ProxyMode::Nftables, async |bed, all| {
        let result = at_rest(bed).await;
        all.note(bed, "at_rest", result).await?;
        let result = a_pulled_cable(bed).await;
        all.note(bed, "a_pulled_cable", result).await?;
        let result = rebalanced(bed).await;
        all.note(bed, "rebalanced", result).await
    })
    .await
}

#[tokio::test]
async fn the_help_of_rebalance_is_true() -> Result<()> {
    help_is_true(&["rebalance"]).await
}

async fn condition(bed: &Bed<'_>, service: &str, kind: &str) -> Result<Condition> {
    let status = bed.service(service).await?.status.unwrap_or_default();
    let mut conditions = status.conditions.unwrap_or_default().into_iter();
    let found = conditions.find(|it| it.type_ == kind);
    found.with_context(|| format!("{service} has no condition {kind}"))
}

/// Waits until a Service reports where its addresses are, and that is where they are.
async fn reports_its_holders(bed: &Bed<'_>, service: &str) -> Result<String> {
    eventually(SOON, || async {
        let announced = condition(bed, service, ANNOUNCED).await?;
        ensure!(announced.status == "True", "{}", announced.message);
        for address in bed.addresses_of(service).await? {
            let node = bed.holder(address).await?.name();
            let part = format!("{address} by {node} on ");
            ensure!(announced.message.contains(&part), "{}", announced.message);
        }
        let programmed = condition(bed, service, PROGRAMMED).await?;
        ensure!(programmed.status == "True", "{}", programmed.message);
        Ok(announced.message)
    })
    .await
}

/// The notes of the events about moves of a Service's addresses.
async fn moves(bed: &Bed<'_>, service: &str) -> Result<Vec<String>> {
    let api: Api<Event> = Api::namespaced(bed.lab.kube(), "default");
    let events = api.list(&ListParams::default()).await?.items.into_iter();
    let of = events.filter(|event| {
        let about = event.regarding.as_ref().and_then(|it| it.name.as_deref());
        event.reason.as_deref() == Some("LoadBalancerMoved") && about == Some(service)
    });
    Ok(of.filter_map(|event| event.note).collect())
}

fn ballast(bed: &Bed<'_>) -> Ballast {
    Ballast::of(&bed.lab.kubeconfig())
}

/// What `ballast status --announcers` says.
async fn status(bed: &Bed<'_>) -> Result<Value> {
    let out = ballast(bed)
        .out(&["status", "--announcers", "-o", "json"])
        .await?;
    Ok(serde_json::from_str(&out)?)
}

/// What it says of an address.
async fn told(bed: &Bed<'_>, address: IpAddr) -> Result<Value> {
    let status = status(bed).await?;
    let mut all = status["addresses"].as_array().into_iter().flatten();
    let found = all.find(|it| it["address"] == address.to_string());
    found
        .cloned()
        .with_context(|| format!("no {address} in {status}"))
}

async fn at_rest(bed: &Bed<'_>) -> Result<()> {
    for service in ["web-1", "web-2", "local"] {
        println!("  {}", reports_its_holders(bed, service).await?);
    }
    let address = bed.address(0).await?;
    let holder = bed.holder(address).await?;
    let line = told(bed, address).await?;
    ensure!(line["node"] == holder.name(), "{line}");
    ensure!(line["mac"] == bed.lab.mac(holder).await?, "{line}");
    ensure!(
        line["cause"].is_string() && line["since"].is_string(),
        "{line}"
    );
    ensure!(
        line["epoch"].as_i64() > Some(0) && line["announced"] == true,
        "{line}"
    );
    let successors = line["successors"].as_array().context("no successors")?;
    ensure!(successors.len() == 2, "{line}");
    let table = ballast(bed).out(&["status", "--announcers"]).await?;
    for node in bed.nodes() {
        let ready = |line: &str| line.starts_with(&node.name()) && line.contains("Ready");
        ensure!(table.lines().any(ready), "{table}");
    }
    // A Service by name shows it, too.
    let service = line["services"][0]["name"].as_str().context("no Service")?;
    let shown = ballast(bed).out(&["status", service]).await?;
    let row = |line: &str| line.starts_with(&address.to_string()) && line.contains(&holder.name());
    ensure!(shown.lines().any(row), "{shown}");
    Ok(())
}

async fn a_pulled_cable(bed: &Bed<'_>) -> Result<()> {
    let address = bed.address(2).await?;
    let service = "web-2";
    let before = bed.holder(address).await?;
    bed.lab.cut(before).await?;
    let moved = is_elsewhere(bed, service, address, before).await;
    bed.heal().await?;
    let after = moved?;
    let moved = format!(
        "moved from {} to {}: the host did not answer",
        before.name(),
        after.name()
    );
    eventually(SOON, || async {
        let notes = moves(bed, service).await?;
        // Its other address can have moved with it.
        let fits = |note: &String| note.starts_with(&address.to_string()) && note.contains(&moved);
        ensure!(notes.iter().any(fits), "{notes:?}, not {address} {moved}");
        Ok(())
    })
    .await?;
    let line = told(bed, address).await?;
    ensure!(line["cause"] == "HostDown", "{line}");
    ensure!(line["previous"] == before.name(), "{line}");
    // The cable is back, and nothing moved.
    let holder = bed.holder(address).await?;
    ensure!(holder == after, "it is on {}", holder.name());
    reports_its_holders(bed, service).await.map(drop)
}

/// Waits until a Service reports another node for the address.
async fn is_elsewhere(bed: &Bed<'_>, service: &str, address: IpAddr, before: Host) -> Result<Host> {
    eventually(SOON, || async {
        let announced = condition(bed, service, ANNOUNCED).await?;
        let now = bed.holder(address).await?;
        ensure!(now != before, "it is still on {}", now.name());
        let part = format!("{address} by {} on ", now.name());
        ensure!(announced.message.contains(&part), "{}", announced.message);
        Ok(now)
    })
    .await
}

/// The node whose cable was pulled has few addresses left.
async fn rebalanced(bed: &Bed<'_>) -> Result<()> {
    let said = ballast(bed).run(&["rebalance", "-o", "json"]).await?;
    println!("  {}", said.err.trim());
    ensure!(said.code == Some(0), "{said:?}");
    let report: Value = serde_json::from_str(&said.out)?;
    let spread = report["nodes"].as_array().context("no nodes")?;
    let counts: Vec<u64> = spread
        .iter()
        .filter_map(|it| it["addresses"].as_u64())
        .collect();
    ensure!(counts.len() == bed.nodes().len(), "{report}");
    ensure!(report["even"] == true, "{report}");
    ensure!(report["moves"].as_u64() > Some(0), "{report}");
    let status = status(bed).await?;
    let addresses = status["addresses"].as_array().context("no addresses")?;
    let mut rebalanced = addresses.iter().filter(|it| it["cause"] == "Rebalanced");
    let one = rebalanced.next().context("nothing was rebalanced")?;
    let service = one["services"][0]["name"].as_str().context("no Service")?;
    reports_its_holders(bed, service).await?;
    eventually(SOON, || async {
        let notes = moves(bed, service).await?;
        let planned = |note: &String| note.contains(": the addresses were rebalanced");
        ensure!(notes.iter().any(planned), "{notes:?}");
        Ok(())
    })
    .await?;
    let unknown = ballast(bed).run(&["rebalance", "nothing"]).await?;
    ensure!(unknown.code == Some(4), "{unknown:?}");
    Ok(())
}
