//! Which class serves which Service, and which Services Ballast must not touch.

use std::time::Duration;

use anyhow::{Result, ensure};
use ballast_crds::LoadBalancerClass;
use ballast_e2e::{Host, eventually};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::common::{STANDARD_FINALIZER, Site, condition, finalizers, load_balancer, version};

/// A class's status is written at most once in 5 s.
const PACED: Duration = Duration::from_mins(1);
const PLAIN: &str = "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]";

pub(crate) async fn claim(site: &Site<'_>) -> Result<()> {
    site.pods("web", 1).await?;
    let foreign = foreign(site).await?;
    site.apply(&load_balancer("plain", PLAIN)).await?;
    let plain = version(&site.get("plain").await?).to_owned();

    site.ballast.mock_class("local", "").await?;
    handled(site, "first", "local").await?;
    ensure!(
        version(&site.get("plain").await?) == plain,
        "there is no default class, and the Service without a class was written"
    );

    spec(site, "local", json!({"default": true})).await?;
    site.programmed("plain").await?;
    holds(site, "plain", "local").await?;
    says(site, "local", "Default", "True", "Effective").await?;

    site.ballast.mock_class("younger", "default: true").await?;
    let why = says(site, "younger", "Default", "False", "Conflict").await?;
    ensure!(why.contains("local"), "it names the other: {why}");
    exposed(site).await?;

    // Services that are served stay with their class; only new ones get the other.
    spec(site, "local", json!({"default": false})).await?;
    says(site, "younger", "Default", "True", "Effective").await?;
    site.apply(&load_balancer("late", PLAIN)).await?;
    site.programmed("late").await?;
    holds(site, "late", "younger").await?;
    holds(site, "plain", "local").await?;

    let now = site.get("foreign").await?;
    ensure!(
        version(&now) == foreign,
        "the foreign one was written: {now:?}"
    );
    for name in ["plain", "late", "exposed", "first"] {
        site.delete(name).await?;
    }
    site.cloud_is_empty().await
}

/// A Service of another controller's class, with that controller's status.
async fn foreign(site: &Site<'_>) -> Result<String> {
    let spec = format!("loadBalancerClass: example.com/internal-vip, {PLAIN}");
    site.apply(&load_balancer("foreign", &spec)).await?;
    let status = json!({"status": {
        "loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": "VIP"}]},
        "conditions": [{
            "type": "example.com/Ready", "status": "True", "reason": "Ready", "message": "it is",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }],
    }});
    let written = site
        .services()
        .patch_status("foreign", &PatchParams::default(), &Patch::Merge(status))
        .await?;
    ensure!(condition(&written, "example.com/Ready").is_some());
    Ok(version(&written).to_owned())
}

/// A beginner's mistake.
async fn exposed(site: &Site<'_>) -> Result<()> {
    site.lab
        .kubectl(&[
            "expose",
            "deployment/web",
            "--name=exposed",
            "--type=LoadBalancer",
            "--port=80",
            "--target-port=8080",
        ])
        .await?;
    let ip = site.address("exposed").await?;
    site.answers(Host::Client, ip, 80).await?;
    holds(site, "exposed", "local").await
}

/// The Service has both finalizers of one that was served without a class.
async fn holds(site: &Site<'_>, name: &str, class: &str) -> Result<()> {
    let service = site.get(name).await?;
    let mut have = finalizers(&service);
    have.sort_unstable();
    let own = format!("ballast.dev/{class}");
    ensure!(
        have == [own.as_str(), STANDARD_FINALIZER],
        "{name}: {have:?}"
    );
    Ok(())
}

/// Waits until a Service of this class is served: all earlier changes have been reconciled.
async fn handled(site: &Site<'_>, name: &str, class: &str) -> Result<()> {
    let spec = format!("loadBalancerClass: ballast.dev/{class}, {PLAIN}");
    site.apply(&load_balancer(name, &spec)).await?;
    site.programmed(name).await.map(drop)
}

pub(crate) async fn contested(site: &Site<'_>) -> Result<()> {
    site.apply(
        "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: cloud-controller-manager, namespace: kube-system}\nspec: {holderIdentity: node1_ccm, leaseDurationSeconds: 15, renewTime: \"2026-01-02T03:04:05.000000Z\"}\n",
    )
    .await?;
    site.apply(&load_balancer("plain", PLAIN)).await?;
    let plain = version(&site.get("plain").await?).to_owned();
    // The class is ready before it becomes the default: only the check for other controllers
    // delays its first reconcile of the Service without a class.
    site.ballast.mock_class("local", "").await?;
    handled(site, "earlier", "local").await?;
    spec(site, "local", json!({"default": true})).await?;
    let why = says(site, "local", "Default", "False", "Contested").await?;
    ensure!(
        why.contains("cloud-controller-manager (node1_ccm)"),
        "{why}"
    );
    handled(site, "named", "local").await?;
    let now = site.get("plain").await?;
    ensure!(version(&now) == plain, "it is the other's: {now:?}");

    spec(site, "local", json!({"forceDefault": true})).await?;
    site.programmed("plain").await?;
    holds(site, "plain", "local").await?;
    Ok(())
}

fn classes(site: &Site<'_>) -> Api<LoadBalancerClass> {
    Api::all(site.lab.kube())
}

async fn spec(site: &Site<'_>, class: &str, spec: Value) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": spec}));
    classes(site)
        .patch(class, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

/// Waits until a class's condition has this status and reason, and returns its message.
async fn says(
    site: &Site<'_>,
    class: &str,
    kind: &str,
    status: &str,
    reason: &str,
) -> Result<String> {
    eventually(PACED, || async {
        let now = classes(site).get(class).await?.status.unwrap_or_default();
        let mut all = now.conditions.iter();
        let found =
            all.find(|one| one.type_ == kind && one.status == status && one.reason == reason);
        match found {
            Some(condition) => Ok(condition.message.clone()),
            None => anyhow::bail!("{class} is not {kind}={status} {reason}: {now:?}"),
        }
    })
    .await
}
