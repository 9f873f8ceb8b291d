//! Another controller rewrites the status of a Service: few writes and events, the Service
//! names it, and after it has stopped everything is as before.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_e2e::eventually;
use ballast_e2e::installation::USER;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::ENSURED;
use crate::common::{Plan, Site, addresses, condition, load_balancer, web};

const CONTESTED: &str = "ballast.dev/Contested";
/// The address that the other controller publishes.
const OTHER: &str = "203.0.113.77";
/// The pause before the last write, and the quiet time after it.
const OVER: Duration = Duration::from_secs(100);

#[tokio::test(flavor = "multi_thread")]
async fn another_controller_that_rewrites_the_status_causes_few_writes() -> Result<()> {
    Plan::new("t-svc-contest")
        .run(async |site| {
            site.apply(&load_balancer("web", &web("web"))).await?;
            let address = site.address("web").await?;
            site.has_events("web", &[ENSURED]).await?;
            let before = site.audited()?;

            fight(site).await?;
            let message = site.says("web", CONTESTED, "True", "Overwritten").await?;
            ensure!(message.contains("\"other-controller\""), "{message}");
            let metrics = site.ballast.admin("ballast-1", "/metrics").await?;
            let sample = "ballast_contested_objects{kind=\"service\"} 1";
            ensure!(metrics.contains(sample), "{metrics}");

            // The owner's edits do not wait for the other controller.
            let port = json!([{"port": 8080, "targetPort": 8080}]);
            site.patch("web", json!({"spec": {"ports": port}})).await?;
            site.service("web", |service| {
                let status = serde_json::to_value(&service.status)?;
                let ports = &status["loadBalancer"]["ingress"][0]["ports"];
                ensure!(ports[0]["port"] == 8080, "{ports}");
                Ok(())
            })
            .await?;

            eventually(OVER, || async {
                let service = site.get("web").await?;
                ensure!(addresses(&service) == [address], "{service:?}");
                ensure!(condition(&service, CONTESTED).is_none(), "{service:?}");
                Ok(())
            })
            .await?;
            let writes = site.writes_since(before, USER)?;
            let of = |resource: &str| {
                let writes = writes.iter();
                writes.filter(|write| write.resource == resource).count()
            };
            ensure!((3..=12).contains(&of("services")), "{writes:#?}");
            let events = site.events("web").await?;
            let told = |reason: &str| events.iter().filter(|it| it.contains(reason)).count();
            ensure!(told("LoadBalancerContested") == 1, "{events:#?}");
            ensure!(events.len() <= 4 && of("events") <= 3, "{events:#?}");
            site.delete("web").await
        })
        .await
}

/// 40 rewrites in 5 s.
async fn fight(site: &Site<'_>) -> Result<()> {
    let mut pace = tokio::time::interval(Duration::from_millis(125));
    let other = PatchParams {
        field_manager: Some("other-controller".to_owned()),
        ..PatchParams::default()
    };
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": OTHER}]}}});
    let status = Patch::Merge(&status);
    for _ in 0..40 {
        pace.tick().await;
        let services = site.services();
        let patched = services.patch_status("web", &other, &status);
        patched.await.context("the other controller cannot write")?;
    }
    Ok(())
}
