//! The API server or its etcd stops and comes back, also in the middle of work.

use std::time::Duration;

use anyhow::{Result, ensure};
use ballast_e2e::installation::USER;
use ballast_e2e::{Component, eventually};

use crate::common::crowd::{LOCAL, Witness, names};
use crate::common::{Plan, SOON, Site};

const REPLICA: &str = "ballast-1";
/// How long an API server needs to find its etcd again is not tested here; another test checks
/// that a leader ends if it cannot renew in time.
const PATIENT: &[&str] = &["--lease-duration", "90", "--renew-deadline", "60"];

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_restarts() -> Result<()> {
    Plan {
        nodes: 1,
        controller: PATIENT,
        ..Plan::new("t-fail-api")
    }
    .run(async |site| {
        let witness = Witness::of(site);
        site.create_all(&names("kept", 5)).await?;
        site.converges(5).await?;
        restarted(site, Component::ApiServer, "api").await?;
        restarted(site, Component::Etcd, "etcd").await?;
        killed_in_the_middle(site).await?;
        let log = site.lab.log(REPLICA)?;
        ensure!(!log.contains("kube_client"), "errors stand twice: {log}");
        witness.is_content()?;
        Ok(())
    })
    .await
}

/// The controller continues to run, and writes nothing to Services that did not change.
async fn restarted(site: &Site<'_>, component: Component, prefix: &str) -> Result<()> {
    let (since, before) = (site.audited()?, site.ballast.calls().await?);
    let there = site.ballast.load_balancers().await?.len();
    site.lab.restart_component(component).await?;
    let more = names(prefix, 3);
    eventually(SOON, || site.create(&more[0], LOCAL)).await?;
    site.create_all(&more[1..]).await?;
    site.converges(there + more.len()).await?;
    ensure!(
        site.lab.wait_exit(REPLICA, Duration::ZERO).await.is_err(),
        "the controller ended"
    );
    let strangers = site.writes_since(since, USER)?;
    let strangers: Vec<_> = strangers
        .iter()
        .filter(|event| event.resource == "services" && !event.name.starts_with(prefix))
        .collect();
    ensure!(strangers.is_empty(), "{strangers:#?}");
    let calls = site.ballast.calls().await?.mutating - before.mutating;
    println!(
        "{} restarted: {calls} calls that change something, for {} new Services",
        component.name(),
        more.len()
    );
    ensure!(calls == more.len() as u64, "{calls} calls");
    Ok(())
}

/// The API server stops while the controller works on a backlog.
async fn killed_in_the_middle(site: &Site<'_>) -> Result<()> {
    let there = site.ballast.load_balancers().await?.len();
    let backlog = names("backlog", 30);
    site.ballast.stop(REPLICA).await?;
    site.create_all(&backlog).await?;
    site.lab.start_again(REPLICA).await?;
    eventually(SOON, || async {
        let made = site.ballast.load_balancers().await?.len();
        ensure!(made > there, "not begun");
        Ok(())
    })
    .await?;
    let api_server = Component::ApiServer.name();
    site.ballast.kill(&api_server).await?;
    site.lab.start_component(Component::ApiServer).await?;
    site.converges(there + backlog.len()).await
}
