//! The state that a start finds, and how the controller treats it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_e2e::eventually;
use ballast_e2e::installation::USER;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::ListParams;

use super::Corner;
use super::corner::{tells, texts};
use crate::common::{ACCEPTED, SOON, Site, condition};

const REPLICA: &str = "ballast-1";

/// A state that an older tool may leave.
pub(crate) async fn two_services_publish_one_address(site: &Site<'_>) -> Result<()> {
    let pools = [("one", "addresses: [198.18.50.1]")];
    let corner = Corner::of(site, "twice", &pools).await?;
    site.ballast.stop(REPLICA).await?;
    for name in ["older", "younger"] {
        corner.add(name, "", "").await?;
        let ingress = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"198.18.50.1","ipMode":"VIP","ports":[{"port":80,"protocol":"TCP"}]}]}}}"#;
        let argv = [
            "patch",
            "service",
            name,
            "-n",
            "twice",
            "--subresource=status",
            "-p",
            ingress,
        ];
        site.lab.kubectl(&argv).await?;
    }
    site.lab.start_again(REPLICA).await?;
    // Until there is another address, both report it.
    let said = corner
        .site
        .says("older", ACCEPTED, "True", "Accepted")
        .await?;
    tells(
        &said,
        &["198.18.50.1", "twice/younger", "older and keeps it"],
    )?;
    corner
        .site
        .service("younger", |service| {
            let all = ["ballast.dev/Accepted", "ballast.dev/Programmed"];
            let said = all.map(|kind| condition(service, kind).map_or("", |it| &it.message));
            ensure!(said.iter().any(|it| it.contains("twice/older")), "not told");
            Ok(())
        })
        .await?;
    corner
        .pool("one", "addresses: [198.18.50.1-198.18.50.2]")
        .await?;
    corner.site.has("younger", &["198.18.50.2"]).await?;
    let said = corner.site.service("older", |service| {
        let said = condition(service, ACCEPTED).context("nothing")?;
        ensure!(!said.message.contains("younger"), "{}", said.message);
        Ok(())
    });
    said.await?;
    corner.site.has("older", &["198.18.50.1"]).await.map(drop)
}

/// Full pools, waiting Services, conflicts: everything that the earlier cases left. Addresses
/// of their pools do not rest. After a start, the next address of other pools differs until the
/// addresses have rested that the previous leader may have released.
pub(crate) async fn nothing_changes(site: &Site<'_>) -> Result<()> {
    let before = published(site).await?;
    ensure!(before.len() > 60, "only {} Services are left", before.len());
    let waiting = before.values().filter(|it| it.is_empty()).count();
    ensure!(waiting > 8, "only {waiting} of them wait");
    settled(site).await?;
    let since = site.audited()?;
    for _ in 0..3 {
        site.ballast.stop(REPLICA).await?;
        site.lab.start_again(REPLICA).await?;
        site.ballast.leader(&[REPLICA]).await?;
        eventually(SOON, || async {
            let metrics = site.ballast.admin(REPLICA, "/metrics").await?;
            let counts = metrics
                .lines()
                .filter(|line| line.starts_with("ballast_reconciles_total{"))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
            let done: usize = counts.sum();
            ensure!(done >= before.len(), "{done} of {}", before.len());
            for idle in ["ballast_queue_depth", "ballast_queue_in_flight"] {
                ensure!(site.count(REPLICA, idle).await? == 0, "{idle}");
            }
            Ok(())
        })
        .await?;
    }
    let written = site.writes_since(since, USER)?;
    ensure!(written.is_empty(), "{written:#?}");
    let after = published(site).await?;
    ensure!(before == after, "{before:#?} became {after:#?}");
    Ok(())
}

/// Waits until the counters of pools and classes are written: at most every 5 s.
async fn settled(site: &Site<'_>) -> Result<()> {
    let quiet = Duration::from_secs(8);
    let last = std::cell::Cell::new((site.audited()?, std::time::Instant::now()));
    eventually(SOON, || async {
        let (since, at) = last.get();
        if !site.writes_since(since, USER)?.is_empty() {
            last.set((site.audited()?, std::time::Instant::now()));
        }
        ensure!(at.elapsed() >= quiet, "still writing");
        Ok(())
    })
    .await
}

/// The addresses of all Services of type `LoadBalancer`.
async fn published(site: &Site<'_>) -> Result<BTreeMap<String, Vec<String>>> {
    let all: Api<Service> = Api::all(site.lab.kube());
    let all = all.list(&ListParams::default()).await?.items;
    let kind = |it: &Service| it.spec.as_ref().and_then(|spec| spec.type_.clone());
    Ok(all
        .iter()
        .filter(|it| kind(it).as_deref() == Some("LoadBalancer"))
        .map(|it| {
            let meta = &it.metadata;
            let name = meta.name.as_deref().unwrap_or_default();
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            (format!("{namespace}/{name}"), texts(it))
        })
        .collect())
}
