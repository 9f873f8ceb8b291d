//! What `ballast plan` says of AWS is what then happens, and a deletion that AWS refuses says why.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ballast_e2e::eventually;
use serde_json::Value;

use super::{Aws, PATIENCE, plan, web};
use crate::common::command::Ballast;
use crate::common::crowd::QUICK;
use crate::common::{PROGRAMMED, annotated, load_balancer, status_of};

const OF_CLASS: &str = "loadBalancerClass: ballast.dev/aws, selector: {app: web}";
const ATTRIBUTES: &str =
    "service.beta.kubernetes.io/aws-load-balancer-attributes: deletion_protection.enabled=true";

/// The changing calls so far, by action.
async fn changing(aws: &Aws<'_>) -> Result<BTreeMap<String, u64>> {
    let report = aws.report().await?;
    let calls = report["calls"].as_object().context("no calls")?;
    let calls = calls
        .iter()
        .filter(|(action, _)| !action.starts_with("Describe"));
    Ok(calls
        .filter_map(|(action, count)| Some((action.clone(), count.as_u64()?)))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_comes_true_and_protection_is_named() -> Result<()> {
    plan("t-aws-guards")
        .run(async |site| {
            let aws = Aws::start(site, 2).await?;
            aws.ballast.start_controller("ballast-1", QUICK).await?;
            let admin = Ballast::of(&site.lab.kubeconfig());
            let ports = "ports: [{name: a, port: 80, targetPort: 8080}, {name: b, port: 443, targetPort: 8080}]";
            for (step, manifest) in [
                ("the first of the class", web("{name: http, port: 80, targetPort: 8080}")),
                ("another one", load_balancer("api", &format!("{OF_CLASS}, {ports}"))),
                (
                    "an attribute",
                    annotated("api", ATTRIBUTES, &format!("{OF_CLASS}, {ports}")),
                ),
            ] {
                let out = admin
                    .run_with(&["plan", "-f", "-", "-o", "json"], &manifest)
                    .await?;
                ensure!(out.code == Some(0), "{step}: {out:?}");
                let said: Value = serde_json::from_str(&out.out)?;
                let name = said["services"][0]["name"].as_str().unwrap_or_default().to_owned();
                let planned: BTreeMap<String, u64> =
                    serde_json::from_value(said["services"][0]["calls"].clone())?;
                let before = changing(&aws).await?;
                site.apply(&manifest).await?;
                eventually(PATIENCE, || async {
                    let service = site.get(&name).await?;
                    ensure!(status_of(&service, PROGRAMMED) == "True", "{step}: not yet");
                    let mut made = changing(&aws).await?;
                    for (action, count) in &before {
                        let now = made.get_mut(action).context("calls are never undone")?;
                        *now -= count;
                    }
                    made.retain(|_, count| *count > 0);
                    // Targets that are told to AWS once more, and the tag that says what all have,
                    // belong to nodes.
                    ensure!(made == planned, "{step}: {made:?}, planned: {planned:?}");
                    Ok(())
                })
                .await?;
            }

            let arn = "loadbalancer/net/";
            let flags = ["delete", "service", "api", "--wait=false"];
            site.lab.kubectl(&flags).await?;
            let said = site.says("api", PROGRAMMED, "Unknown", "AccessDenied").await?;
            ensure!(said.contains(arn) && said.contains("deletion protection"), "{said}");
            let out = admin.out(&["status", "-o", "json"]).await?;
            let report: Value = serde_json::from_str(&out)?;
            let waits = &report["deletions"][0];
            ensure!(waits["name"] == "api" && waits["reason"] == "AccessDenied", "{report}");
            ensure!(waits["why"].as_str().is_some_and(|it| it.contains(arn)), "{report}");
            // Both exist still, so both are billed: 2 internal load balancers.
            ensure!(report["monthlyCost"] == 32.85, "{report}");
            Ok(())
        })
        .await
}
