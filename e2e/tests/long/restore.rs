//! etcd is restored from a backup while the controller runs. Its watches ask for changes after a
//! version that no longer exists, and get none. The controller notices this without a restart,
//! and corrects the cloud within five minutes.
//!
//! It takes that long because the controller compares its stores with a list only every few
//! minutes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ballast_e2e::eventually;
use serde_json::json;

use crate::common::crowd::LOCAL;
use crate::common::{CLASS, Plan, SOON, Site, addresses};

const REPLICA: &str = "ballast-1";
/// The controller keeps its Lease while the API server restarts: a new process would list all
/// objects, and this test would show nothing.
const PATIENT: &[&str] = &["--lease-duration", "90", "--renew-deadline", "60"];
/// For one try.
const TRY: Duration = Duration::from_secs(5);
/// The documented five minutes, and the time that a busy machine may need in addition.
const HEALED: Duration = Duration::from_mins(6);

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_etcd_is_noticed_and_the_cloud_is_corrected() -> Result<()> {
    Plan {
        nodes: 1,
        controller: PATIENT,
        class: Some("orphans: Delete, orphanGracePeriod: 20s"),
        ..Plan::new("t-restore")
    }
    .run(async |site| {
        for name in ["edited", "deleted"] {
            site.create(name, LOCAL).await?;
        }
        site.converges(2).await?;
        listens(site, "edited", 80).await?;
        let before = addresses(&site.get("edited").await?);
        site.lab.back_up("before").await?;

        // What the backup does not contain.
        site.patch("edited", ports(81)).await?;
        eventually(SOON, || listens(site, "edited", 81)).await?;
        site.delete("deleted").await?;
        site.create("newer", LOCAL).await?;
        site.converges(2).await?;

        site.lab.restore_backup("before").await?;
        let restored = Instant::now();
        let newer = site.services().get_opt("newer").await?;
        ensure!(newer.is_none(), "the restore has changed nothing");
        // The cloud has a listener that no Service has.
        listens(site, "edited", 81).await?;
        eventually(HEALED, || async {
            listens(site, "edited", 80).await?;
            // The Service that exists again has a load balancer.
            let there = site.in_cloud("deleted").await?;
            there.context("it has none yet").map(drop)
        })
        .await?;
        println!("corrected {:.1?} after the restore", restored.elapsed());
        // What is younger than everything in the backup is only reported: another backup may have it.
        eventually(HEALED, || async {
            let class = site
                .lab
                .kubectl(&["get", "lbclass", CLASS, "-o", "yaml"])
                .await?;
            let says = class.contains("younger than every Service here");
            ensure!(says, "the class reports no orphan: {class}");
            Ok(())
        })
        .await?;
        ensure!(site.in_cloud("newer").await?.is_some(), "it was deleted");
        // From now on the API server is younger.
        site.create("younger", LOCAL).await?;
        eventually(HEALED, || site.converges_within(3, TRY)).await?;

        let after = site.programmed("edited").await?;
        ensure!(addresses(&after) == before, "the address changed");
        let running = site.lab.wait_exit(REPLICA, Duration::ZERO).await;
        ensure!(running.is_err(), "the controller restarted");
        let missed = "ballast_watch_missed_total{kind=\"services\"}";
        ensure!(site.count(REPLICA, missed).await? > 0, "nothing is counted");
        let log = site.lab.log(REPLICA)?;
        ensure!(log.contains("the watch has missed changes"), "{log}");
        // The watch works again.
        site.patch("edited", ports(82)).await?;
        eventually(SOON, || listens(site, "edited", 82)).await
    })
    .await
}

/// A patch that leaves one port.
fn ports(port: u16) -> serde_json::Value {
    let port = json!({"name": "http", "port": port, "targetPort": 8080, "protocol": "TCP"});
    json!({"spec": {"ports": [port]}})
}

/// Whether the Service's load balancer has this one listener.
async fn listens(site: &Site<'_>, name: &str, port: u16) -> Result<()> {
    let there = site.in_cloud(name).await?.context("not in the cloud")?;
    let listeners = there["desired"]["listeners"].as_array();
    let listeners = listeners.map(Vec::as_slice).unwrap_or_default();
    let fits = listeners.len() == 1 && listeners[0]["port"] == port;
    ensure!(fits, "{name} has {listeners:?}, not port {port} alone");
    Ok(())
}
