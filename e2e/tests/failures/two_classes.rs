//! Two installations side by side, each with its own classes.

use anyhow::{Result, ensure};
use ballast_e2e::{Host, Reach};
use serde_json::json;

use crate::common::{Plan, Site, finalizers};

#[tokio::test(flavor = "multi_thread")]
async fn each_releases_its_own() -> Result<()> {
    Plan {
        nodes: 1,
        controllers: 0,
        class: None,
        ..Plan::new("t-fail-classes")
    }
    .run(async |site| {
        site.ballast.mock_class("edge", "").await?;
        site.ballast.mock_class("core", "").await?;
        start(site, "edge-1", "edge").await?;
        start(site, "core-2", "core").await?;
        for class in ["edge", "core"] {
            site.create(&format!("to-{class}"), &format!("ballast.dev/{class}"))
                .await?;
            site.create(&format!("gone-{class}"), &format!("ballast.dev/{class}"))
                .await?;
        }
        site.converges(4).await?;
        let since = site.audited()?;
        both_stop_and_come_back(site).await?;
        each_wrote_its_own(site, since)
    })
    .await
}

/// Each as a user of its own, so that the audit log shows who wrote what.
async fn start(site: &Site<'_>, replica: &str, class: &str) -> Result<()> {
    let config = site
        .lab
        .kubeconfig_for_user(replica, &["system:masters"], Reach::Inside)?;
    let config = config.display().to_string();
    let lease = format!("ballast-{class}");
    let flags = ["--classes", class, "--lease-name", &lease];
    site.ballast
        .spawn_controller_as(replica, Host::ControlPlane, &config, &flags)
        .await?;
    site.ballast.leader(&[replica]).await.map(drop)
}

/// The API server clears class and status of a Service that is no longer a load balancer: only
/// its finalizer shows whose it was.
async fn both_stop_and_come_back(site: &Site<'_>) -> Result<()> {
    site.ballast.stop("edge-1").await?;
    site.ballast.stop("core-2").await?;
    for class in ["edge", "core"] {
        let name = format!("to-{class}");
        let after = site
            .patch(&name, json!({"spec": {"type": "ClusterIP"}}))
            .await?;
        let spec = after.spec.as_ref();
        ensure!(spec.is_some_and(|spec| spec.load_balancer_class.is_none()));
        ensure!(finalizers(&after) == [format!("ballast.dev/{class}")]);
        site.delete_all(&[format!("gone-{class}")]).await?;
    }
    // One restarts alone: it cleans up its own and leaves the rest.
    site.lab.start_again("edge-1").await?;
    site.not_in_cloud("to-edge").await?;
    site.not_in_cloud("gone-edge").await?;
    ensure!(site.in_cloud("to-core").await?.is_some());
    ensure!(finalizers(&site.get("to-core").await?) == ["ballast.dev/core"]);
    ensure!(finalizers(&site.get("gone-core").await?) == ["ballast.dev/core"]);
    site.lab.start_again("core-2").await?;
    site.converges(0).await?;
    for class in ["edge", "core"] {
        let service = site.get(&format!("to-{class}")).await?;
        let status = service.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref());
        ensure!(
            conditions.unwrap_or_default().is_empty(),
            "ours are left: {conditions:?}"
        );
    }
    Ok(())
}

fn each_wrote_its_own(site: &Site<'_>, since: usize) -> Result<()> {
    for (user, own, other) in [("edge-1", "edge", "core"), ("core-2", "core", "edge")] {
        let written = site.writes_since(since, user)?;
        let patched = |class: &str| {
            let of_class = |event: &&ballast_e2e::AuditEvent| {
                event.resource == "services" && event.name.ends_with(class)
                    || event.resource == "loadbalancerclasses" && event.name == class
            };
            written.iter().filter(of_class).count()
        };
        ensure!(
            patched(own) > 0 && patched(other) == 0,
            "{user} wrote {written:#?}"
        );
    }
    Ok(())
}
