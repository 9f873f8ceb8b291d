//! Which pods answer which clients: affinity, traffic policy, source ranges.

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::{Host, eventually};
use serde_json::{Value, json};

use super::{DUAL, ask_often, by_udp, wire};
use crate::common::{SOON, Site, addresses, load_balancer, url, web};

pub(crate) async fn affinity(site: &Site<'_>) -> Result<()> {
    let sticky =
        "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}";
    site.apply(&load_balancer(
        "sticky",
        &format!("{}, {sticky}", web("web")),
    ))
    .await?;
    let ip = site.address("sticky").await?;
    for from in [Host::Client, Host::FarClient] {
        site.answers(from, ip, 80).await?;
    }
    stays(site, Host::Client, true).await?;
    stays(site, Host::FarClient, true).await?;
    let none = json!({"spec": {"sessionAffinity": "None", "sessionAffinityConfig": null}});
    site.patch("sticky", none).await?;
    stays(site, Host::Client, false).await?;
    site.patch("sticky", json!({"spec": {"sessionAffinity": "ClientIP"}}))
        .await?;
    stays(site, Host::Client, true).await?;
    ensure!(site.address("sticky").await? == ip, "the address changed");
    let there = site.in_cloud("sticky").await?.context("not in the cloud")?;
    ensure!(
        there["desired"]["affinity"]["clientIp"]["timeoutSeconds"] == 10_800,
        "{there}"
    );
    site.delete("sticky").await
}

/// Waits until all requests of one client go to one pod, or to several.
async fn stays(site: &Site<'_>, from: Host, one: bool) -> Result<()> {
    let ip = site.address("sticky").await?;
    eventually(SOON, || async {
        let who = ask_often(site, from, ip, 15).await?;
        ensure!(
            (who.len() == 1) == one,
            "15 requests from {}: {who:?}",
            from.name()
        );
        Ok(())
    })
    .await
}

pub(crate) async fn source_ranges(site: &Site<'_>) -> Result<()> {
    let ports = "ports: [{name: tcp, port: 80, targetPort: 8080}, {name: udp, port: 80, protocol: UDP, targetPort: 8081}]";
    let spec = web("web").replace("ports: [{port: 80, targetPort: 8080}]", ports);
    site.apply(&load_balancer("fenced", &format!("{spec}, {DUAL}")))
        .await?;
    site.programmed("fenced").await?;
    let near = ["10.89.0.0/24", "fd89::/64"];
    let far = ["192.0.2.2/32", "2001:db8:2::/64"];
    let (client, stranger) = (Host::Client, Host::FarClient);
    for (ranges, allowed, blocked) in [(near, client, stranger), (far, stranger, client)] {
        let patch = json!({"spec": {"loadBalancerSourceRanges": ranges}});
        site.patch("fenced", patch).await?;
        for ip in addresses(&site.get("fenced").await?) {
            is_blocked(site, blocked, ip).await?;
            site.answers(allowed, ip, 80).await?;
            by_udp(site, allowed, ip).await?;
            let to = std::net::SocketAddr::new(ip, 80);
            let answer = wire::ask(site.lab, blocked, to, "hostname").await;
            ensure!(answer.is_err(), "UDP is let in: {answer:?}");
        }
    }
    site.patch(
        "fenced",
        json!({"spec": {"loadBalancerSourceRanges": null}}),
    )
    .await?;
    for ip in addresses(&site.get("fenced").await?) {
        site.answers(client, ip, 80).await?;
        site.answers(stranger, ip, 80).await?;
    }
    site.delete("fenced").await
}

async fn is_blocked(site: &Site<'_>, from: Host, ip: std::net::IpAddr) -> Result<()> {
    eventually(SOON, || async {
        match site.curl(from, &url(ip, 80, "/hostname")).await {
            Ok(pod) => bail!("{ip} lets {} in, to {pod}", from.name()),
            Err(_) => Ok(()),
        }
    })
    .await
}

pub(crate) async fn local_policy(site: &Site<'_>) -> Result<()> {
    site.lab
        .kubectl(&["scale", "deployment/web", "--replicas=1"])
        .await?;
    let spec = format!("{}, externalTrafficPolicy: Local, {DUAL}", web("web"));
    site.apply(&load_balancer("local", &spec)).await?;
    let service = site.programmed("local").await?;
    for node in ["node1", "node2"] {
        let only = json!({"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}}});
        site.lab
            .kubectl(&["patch", "deployment/web", "-p", &only.to_string()])
            .await?;
        site.rolled_out("web").await?;
        only_target(site, "local", node).await?;
        for ip in addresses(&service) {
            let pod = site.answers(Host::FarClient, ip, 80).await?;
            let there = site
                .lab
                .kubectl(&["get", "pod", &pod, "-o", "jsonpath={.spec.nodeName}"])
                .await?;
            ensure!(there == node, "{pod} is on {there}");
            let who = ask_often(site, Host::Client, ip, 10).await?;
            ensure!(who.len() == 1, "{who:?}");
        }
    }
    ensure!(addresses(&site.get("local").await?) == addresses(&service));
    Ok(())
}

/// Waits until the cloud sends traffic to this node only.
pub(crate) async fn only_target(site: &Site<'_>, service: &str, node: &str) -> Result<()> {
    let there = site.in_cloud(service).await?.context("not in the cloud")?;
    let name = there["name"].as_str().unwrap_or_default();
    let path = format!("/v1/load-balancers/{name}/targets");
    eventually(SOON, || async {
        let health: Vec<Value> = serde_json::from_str(&site.ballast.cloud(&path).await?)?;
        ensure!(!health.is_empty(), "no targets");
        let right = health.iter().all(|one| {
            let here = one["target"] == node;
            one["eligible"] == here && (one["health"] == "healthy") == here
        });
        ensure!(right, "not {node} alone: {health:#?}");
        Ok(())
    })
    .await
}
