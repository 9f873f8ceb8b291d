//! The cloud is down, loses its state, or is changed by others.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_e2e::eventually;
use ballast_e2e::installation::CLOUD;
use serde_json::{Value, json};

use crate::common::crowd::{LOCAL, Witness, names};
use crate::common::{PROGRAMMED, Plan, SOON, Site, condition};

const REPLICA: &str = "ballast-1";

#[tokio::test(flavor = "multi_thread")]
async fn services_outlive_their_cloud() -> Result<()> {
    Plan {
        nodes: 1,
        ..Plan::new("t-fail-cloud")
    }
    .run(async |site| {
        let witness = Witness::of(site);
        down_and_back(site).await?;
        state_lost(site).await?;
        deleted_behind_our_back(site).await?;
        changed_behind_our_back(site).await?;
        witness.is_content()?;
        killed_in_the_middle(site).await?;
        witness.is_content()?;
        Ok(())
    })
    .await
}

/// Leaves `kept` and `late`.
async fn down_and_back(site: &Site<'_>) -> Result<()> {
    for name in ["kept", "gone"] {
        site.create(name, LOCAL).await?;
    }
    site.converges(2).await?;
    site.ballast.kill(CLOUD).await?;
    site.create("late", LOCAL).await?;
    site.delete_all(&["gone".to_owned()]).await?;
    let said = site.says("late", PROGRAMMED, "False", "CloudError").await?;
    let since = condition(&site.get("late").await?, PROGRAMMED).cloned();
    // Several retries without further events.
    let failed = "ballast_reconciles_total{outcome=\"failed\"}";
    let before = site.count(REPLICA, failed).await?;
    eventually(SOON, || async {
        let retries = site.count(REPLICA, failed).await? - before;
        ensure!(retries >= 4, "{retries} retries");
        Ok(())
    })
    .await?;
    let late = site.get("late").await?;
    ensure!(
        condition(&late, PROGRAMMED) == since.as_ref(),
        "the condition changed: {since:?}, {:?}",
        condition(&late, PROGRAMMED)
    );
    let failure = format!(
        "Warning SyncLoadBalancerFailed: Error syncing load balancer: failed to ensure load balancer: {said}"
    );
    site.has_events("late", &[&failure]).await?;
    site.lab.start_again(CLOUD).await?;
    site.converges(2).await?;
    site.has_events(
        "late",
        &[
            &failure,
            "Normal EnsuredLoadBalancer: Ensured load balancer",
        ],
    )
    .await?;
    ensure!(site.services().get_opt("gone").await?.is_none());
    Ok(())
}

/// The cloud comes back empty: every Service gets its published address back, even if a new
/// Service asks first.
async fn state_lost(site: &Site<'_>) -> Result<()> {
    let crowd = names("restored", 10);
    site.create_all(&crowd).await?;
    site.converges(12).await?;
    site.ballast.kill(CLOUD).await?;
    std::fs::remove_dir_all(site.lab.dir().join(CLOUD)).context("the cloud's state")?;
    site.create("newcomer", LOCAL).await?;
    site.lab.start_again(CLOUD).await?;
    site.converges(13).await?;
    site.delete_all(&crowd).await?;
    site.delete_all(&["newcomer".to_owned()]).await?;
    site.converges(2).await?;
    let targets = targets(site).await?;
    ensure!(targets == 1, "{targets} targets after the loss");
    Ok(())
}

/// The number of targets of `kept`.
async fn targets(site: &Site<'_>) -> Result<usize> {
    let kept = site.in_cloud("kept").await?.context("kept is gone")?;
    let set = kept["desired"]["targetSet"].as_str().unwrap_or_default();
    let set: Value = serde_json::from_str(
        &site
            .ballast
            .cloud(&format!("/v1/target-sets/{set}"))
            .await?,
    )?;
    Ok(set["targets"].as_array().map_or(0, Vec::len))
}

async fn deleted_behind_our_back(site: &Site<'_>) -> Result<()> {
    let before = site.in_cloud("kept").await?.context("kept is gone")?;
    let path = path(&before);
    site.cloud_send("DELETE", &path, "").await?;
    eventually(SOON, || async {
        let now = site.in_cloud("kept").await?.context("not made again")?;
        ensure!(now["createdAt"] != before["createdAt"], "still the old one");
        ensure!(now["addresses"] == before["addresses"], "{now}");
        Ok(())
    })
    .await?;
    site.converges(2).await
}

fn path(balancer: &Value) -> String {
    let name = balancer["name"].as_str().unwrap_or_default();
    format!("/v1/load-balancers/{name}")
}

async fn changed_behind_our_back(site: &Site<'_>) -> Result<()> {
    let before = site.in_cloud("kept").await?.context("kept is gone")?;
    let mut desired = before["desired"].clone();
    desired["listeners"][0]["port"] = json!(81);
    let body = json!({ "desired": desired }).to_string();
    site.cloud_send("PUT", &path(&before), &body).await?;
    eventually(SOON, || async {
        let now = site.in_cloud("kept").await?.context("kept is gone")?;
        // Two changes later: one by another client, and ours.
        let changes = now["seq"].as_u64() > before["seq"].as_u64();
        ensure!(
            changes && now["desired"] == before["desired"],
            "not repaired: {now}"
        );
        Ok(())
    })
    .await?;
    site.converges(2).await
}

async fn killed_in_the_middle(site: &Site<'_>) -> Result<()> {
    let mut there: Vec<String> = Vec::new();
    for (round, moment) in [30, 80, 200].into_iter().enumerate() {
        let come = names(&format!("round{round}"), 16);
        let go: Vec<String> = there.drain(..there.len().min(10)).collect();
        let kill = async {
            // This is not a wait for a condition: it is the moment of the fault.
            tokio::time::sleep(Duration::from_millis(moment)).await;
            site.ballast.kill(CLOUD).await
        };
        tokio::try_join!(site.create_all(&come), site.delete_all(&go), kill)?;
        site.lab.start_again(CLOUD).await?;
        there.extend(come);
        site.converges(2 + there.len()).await?;
    }
    Ok(())
}
