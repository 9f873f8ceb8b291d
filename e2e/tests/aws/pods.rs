//! Pods as targets, and their readiness gates. The rights are the chart's; those of
//! `deploy/rbac.yaml` do not include them, which is what this begins with.

use std::collections::BTreeSet;
use std::future::Future;

use anyhow::{Context, Result, ensure};
use ballast_e2e::installation::USER;
use ballast_e2e::{AuditEvent, Helm, Progress, documents, eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{Aws, PATIENCE, TARGETS_HEALTHY, plan, targets};
use crate::common::crowd::QUICK;
use crate::common::{PROGRAMMED, Site, annotated, condition, grants, pods_yaml, status_of, told};

const GATE: &str = "ballast.dev/target-healthy";
const KEYS: &str = "service.beta.kubernetes.io/aws-load-balancer";
/// Of every pod.
const PORT: u64 = 8080;
/// Of `web` after it was scaled.
const REPLICAS: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_targets() -> Result<()> {
    plan("t-aws-pods")
        .run(async |site| {
            let aws = Aws::start(site, 2).await?;
            let flags = [QUICK, &["--readiness-gates"]].concat();
            aws.ballast.start_controller("ballast-1", &flags).await?;
            site.apply(&service("web", "")).await?;
            without_the_right(site).await?;
            let rights = rights()?;
            site.apply(&rights).await?;
            site.pods("web", 2).await?;
            has_pods(&aws, "web", 2, "Ready").await?;
            healthy(site, "web", 2).await?;
            gated(&aws).await?;
            gate_opens(&aws).await?;
            followed(&aws).await?;
            tokio::try_join!(site.delete("web"), site.delete("gated"))?;
            aws.is_empty().await?;
            rights_fit(&rights, site.lab.audit_with_reads()?)
        })
        .await
}

/// A Service without node ports whose targets are its pods.
fn service(name: &str, more: &str) -> String {
    annotated(
        name,
        &format!("{KEYS}-nlb-target-type: ip{more}"),
        &format!(
            "loadBalancerClass: ballast.dev/aws, allocateLoadBalancerNodePorts: false, selector: {{app: {name}}}, ports: [{{port: 80, targetPort: {PORT}}}]"
        ),
    )
}

/// The `ClusterRole` of a chart whose classes somebody else creates.
fn rights() -> Result<String> {
    Helm::ensure(Progress::new(false))?.template(
        "ballast",
        "ballast-system",
        &[
            "--set=controller.podTargets=true,controller.readinessGates=true",
            "--show-only=templates/controller/rbac.yaml",
        ],
    )
}

/// The controller is ready, and the Service says what is missing.
async fn without_the_right(site: &Site<'_>) -> Result<()> {
    let said = site
        .says("web", PROGRAMMED, "False", "ClassNotReady")
        .await?;
    println!("without the right: {said}");
    ensure!(said.contains("endpointslices"), "{said}");
    Ok(())
}

/// Every right that was added was used, and nothing else was forbidden.
fn rights_fit(manifest: &str, mut audit: Vec<AuditEvent>) -> Result<()> {
    const ADDED: [&str; 2] = ["endpointslices", "pods"];
    // Before the right came.
    audit.retain(|it| !(it.forbidden && ADDED.contains(&it.resource.as_str())));
    let all = documents(manifest)?;
    let mut rules: Vec<&Value> = all
        .iter()
        .filter_map(|it| it["rules"].as_array())
        .flatten()
        .collect();
    rules.retain(|rule| {
        let resources = rule["resources"].to_string();
        ADDED.iter().any(|added| resources.contains(added))
    });
    let role = json!({"metadata": {"name": "added"}, "rules": rules});
    let granted = grants::fit(&role.to_string(), USER, &audit)?;
    ensure!(granted == 5, "{granted} rights were added");
    Ok(())
}

fn is_true(pod: &Pod, kind: &str) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|it| it.conditions.as_deref());
    let mut all = conditions.unwrap_or_default().iter();
    all.any(|it| it.type_ == kind && it.status == "True")
}

/// The pods of a Deployment that nobody has deleted.
async fn pods(site: &Site<'_>, app: &str) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(site.lab.kube(), "default");
    let selected = ListParams::default().labels(&format!("app={app}"));
    let mut pods = api.list(&selected).await?.items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

/// Waits until the targets of a Service are so many pods of which this is true, no others, and
/// they are addresses.
async fn has_pods(aws: &Aws<'_>, name: &str, count: usize, kind: &str) -> Result<()> {
    eventually(PATIENCE, || async {
        let pods = pods(aws.site, name).await?;
        let ready = pods.iter().filter(|pod| is_true(pod, kind));
        let addresses = ready.filter_map(|pod| pod.status.as_ref()?.pod_ip.clone());
        let expected: BTreeSet<_> = addresses.map(|address| (address, PORT)).collect();
        let balancer = aws.balancer_of(name).await?;
        let now = targets(&balancer)?;
        ensure!(
            now == expected && now.len() == count,
            "targets are {now:?}, pods {expected:?}: {balancer}"
        );
        let groups = balancer["targetGroups"].as_array().into_iter().flatten();
        for group in groups {
            ensure!(group["targetType"] == "ip", "{balancer}");
        }
        Ok(())
    })
    .await
}

/// Waits until so many targets of a Service are healthy, of all that it has.
async fn healthy(site: &Site<'_>, name: &str, count: usize) -> Result<()> {
    let expected = format!("{count} of {count} targets are healthy");
    eventually(PATIENCE, || async {
        let service = site.get(name).await?;
        let now = condition(&service, TARGETS_HEALTHY);
        let fits = now.is_some_and(|now| now.status == "True" && now.message == expected);
        let programmed = status_of(&service, PROGRAMMED) == "True";
        ensure!(fits && programmed, "not {expected:?}: {}", told(&service));
        Ok(())
    })
    .await
}

/// The calls that register and deregister targets, so far.
async fn registrations(aws: &Aws<'_>) -> Result<u64> {
    let report = aws.report().await?;
    let count = |action: &str| report["calls"][action].as_u64().unwrap_or(0);
    Ok(count("RegisterTargets") + count("DeregisterTargets"))
}

/// Runs a change of the pods, waits until the targets are these pods, and limits what it cost.
async fn follows(
    aws: &Aws<'_>,
    what: &str,
    most: u64,
    act: impl Future<Output = Result<()>>,
) -> Result<()> {
    let before = registrations(aws).await?;
    act.await.with_context(|| what.to_owned())?;
    let all = usize::try_from(REPLICAS)?;
    let followed = has_pods(aws, "web", all, "Ready").await;
    followed.with_context(|| what.to_owned())?;
    let calls = registrations(aws).await? - before;
    println!("{what}: {calls} calls that register or deregister targets");
    ensure!((1..=most).contains(&calls), "{what}: {calls} calls");
    Ok(())
}

/// Targets are the ready pods, whatever happens to the Deployment.
async fn followed(aws: &Aws<'_>) -> Result<()> {
    let site = aws.site;
    // One would do; a pod may become ready, fail a probe on a busy machine, and be ready again.
    follows(aws, "a pod more", 3, async {
        let replicas = format!("--replicas={REPLICAS}");
        let argv = ["scale", "deployment/web", &replicas];
        site.lab.kubectl(&argv).await?;
        site.rolled_out("web").await
    })
    .await?;
    // Each pod comes and goes alone: one call for each that comes, one for each that goes, and as
    // many more for probes that fail.
    follows(aws, "a rollout", 4 * REPLICAS, async {
        let argv = ["rollout", "restart", "deployment/web"];
        site.lab.kubectl(&argv).await?;
        site.rolled_out("web").await
    })
    .await?;
    healthy(site, "web", usize::try_from(REPLICAS)?).await
}

/// A pod with the gate is a target before it is ready. The checks of its load balancer take
/// 50 minutes, which are 150 s here: it is not healthy before they are changed.
async fn gated(aws: &Aws<'_>) -> Result<()> {
    let site = aws.site;
    let slow =
        format!(", {KEYS}-healthcheck-interval: '300', {KEYS}-healthcheck-healthy-threshold: '10'");
    site.apply(&service("gated", &slow)).await?;
    let grace = "terminationGracePeriodSeconds: 1";
    let gates = format!("readinessGates: [{{conditionType: {GATE}}}]\n      {grace}");
    let pods = pods_yaml("gated", 1).replace(grace, &gates);
    ensure!(pods.contains(GATE), "{pods}");
    site.apply(&pods).await
}

/// It becomes ready when the load balancer finds it healthy, and not before: a poll has asked about
/// it meanwhile.
async fn gate_opens(aws: &Aws<'_>) -> Result<()> {
    let site = aws.site;
    has_pods(aws, "gated", 1, "ContainersReady").await?;
    // The provider waits a minute for the first healthy target before it says that there is none.
    let says = || site.says("gated", TARGETS_HEALTHY, "False", "TargetsUnhealthy");
    let said = eventually(PATIENCE, says).await?;
    println!("with a closed gate: {said}");
    let waits = one(&pods(site, "gated").await?)?;
    let before = target(aws).await?;
    ensure!(before["state"] == "initial", "it may be ready: {before}");
    ensure!(
        !is_true(&waits, "Ready") && !is_true(&waits, GATE),
        "{waits:?}"
    );
    let quick = service("gated", "");
    site.apply(&quick).await?;
    let ready = eventually(PATIENCE, || async {
        let pod = one(&pods(site, "gated").await?)?;
        ensure!(is_true(&pod, "Ready"), "{:?}", pod.status);
        Ok(pod)
    })
    .await?;
    ensure!(is_true(&ready, GATE), "{ready:?}");
    ensure!(
        ready.metadata.uid == waits.metadata.uid,
        "another pod: {ready:?}"
    );
    site.rolled_out("gated").await?;
    healthy(site, "gated", 1).await?;
    // It has been a target all the time: a second registration would begin with new checks.
    let now = target(aws).await?;
    ensure!(now["state"] == "healthy", "{now}");
    ensure!(
        now["registered"] == before["registered"] && now["id"] == before["id"],
        "{before} became {now}"
    );
    Ok(())
}

/// The one target of `gated`.
async fn target(aws: &Aws<'_>) -> Result<Value> {
    let balancer = aws.balancer_of("gated").await?;
    let targets = &balancer["targetGroups"][0]["targets"];
    let all = targets.as_array().map_or(0, Vec::len);
    ensure!(all == 1, "{all} targets: {balancer}");
    Ok(targets[0].clone())
}

fn one(pods: &[Pod]) -> Result<Pod> {
    ensure!(pods.len() == 1, "{} pods", pods.len());
    Ok(pods[0].clone())
}
