//! Traffic through load balancers: which pods answer, which clients are allowed, and which
//! connections continue when something changes.

mod conversations;
mod rules;
mod wire;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use ballast_e2e::{Host, eventually};

use crate::common::{OF_CLASS, Plan, SOON, Site, addresses, load_balancer, url};

const WORKLOADS: &str = include_str!("../manifests/traffic.yaml");
const DUAL: &str = "ipFamilyPolicy: RequireDualStack";

#[tokio::test(flavor = "multi_thread")]
async fn ports_protocols_and_families() -> Result<()> {
    Plan::new("t-traffic-ports")
        .run(async |site| {
            workloads(site, &["two-ports", "mixed-blue", "mixed-green"]).await?;
            site.pods("web", 2).await?;
            two_named_ports(site).await?;
            two_servers_share(site).await?;
            both_protocols_on_one_port(site).await?;
            from_everywhere_on_both_families(site).await
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn affinity_policy_and_source_ranges() -> Result<()> {
    let plan = Plan {
        cloud: &["--health-interval", "500ms"],
        ..Plan::new("t-traffic-rules")
    };
    plan.run(async |site| {
        site.pods("web", 3).await?;
        rules::affinity(site).await?;
        rules::source_ranges(site).await?;
        rules::local_policy(site).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_go_on() -> Result<()> {
    let plan = Plan {
        cloud: &["--health-interval", "500ms", "--drain", "10s"],
        ..Plan::new("t-traffic-long")
    };
    plan.run(async |site| {
        workloads(site, &["echo"]).await?;
        site.pods("web", 2).await?;
        conversations::large_transfers(site).await?;
        conversations::edits_and_drains(site).await?;
        conversations::a_node_is_cut(site).await
    })
    .await
}

/// Starts these workloads and waits for them.
async fn workloads(site: &Site<'_>, pods: &[&str]) -> Result<()> {
    let wanted = |document: &&str| {
        pods.iter()
            .any(|pod| document.contains(&format!("name: {pod},")))
    };
    let yaml: Vec<&str> = WORKLOADS.split("\n---\n").filter(wanted).collect();
    ensure!(yaml.len() == pods.len(), "not all of {pods:?} are there");
    site.apply(&yaml.join("\n---\n")).await?;
    let mut argv = vec!["wait", "--for=condition=Ready", "--timeout=100s"];
    let names: Vec<String> = pods.iter().map(|pod| format!("pod/{pod}")).collect();
    argv.extend(names.iter().map(String::as_str));
    site.lab.kubectl(&argv).await.map(drop)
}

async fn two_named_ports(site: &Site<'_>) -> Result<()> {
    let ports = "ports: [{name: http, port: 80, targetPort: 8000}, {name: metrics, port: 9090}]";
    let spec = format!("{OF_CLASS}, selector: {{app: two-ports}}, {ports}");
    site.apply(&load_balancer("two-ports", &spec)).await?;
    let ip = site.address("two-ports").await?;
    for (port, expected) in [(80, "the site"), (9090, "the metrics")] {
        let body = site.answers(Host::Client, ip, port).await?;
        ensure!(body == expected, "port {port} says {body}");
    }
    Ok(())
}

async fn two_servers_share(site: &Site<'_>) -> Result<()> {
    let spec =
        format!("{OF_CLASS}, selector: {{app: mixed}}, ports: [{{port: 80, targetPort: 8080}}]");
    site.apply(&load_balancer("mixed", &spec)).await?;
    let ip = site.address("mixed").await?;
    site.answers(Host::Client, ip, 80).await?;
    let who = ask_often(site, Host::Client, ip, 40).await?;
    let share = |name: &str| who.get(name).copied().unwrap_or(0);
    ensure!(
        share("blue") >= 5 && share("green") >= 5 && who.len() == 2,
        "of 40: {who:?}"
    );
    Ok(())
}

/// How often each pod answered.
async fn ask_often(
    site: &Site<'_>,
    from: Host,
    ip: IpAddr,
    times: usize,
) -> Result<BTreeMap<String, usize>> {
    let mut who = BTreeMap::new();
    for _ in 0..times {
        let name = site.curl(from, &url(ip, 80, "/hostname")).await?;
        *who.entry(name).or_default() += 1;
    }
    Ok(who)
}

async fn both_protocols_on_one_port(site: &Site<'_>) -> Result<()> {
    let ports = "ports: [{name: tcp, port: 80, targetPort: 8080}, {name: udp, port: 80, protocol: UDP, targetPort: 8081}]";
    let spec = format!("{OF_CLASS}, {DUAL}, selector: {{app: web}}, {ports}");
    site.apply(&load_balancer("both", &spec)).await?;
    let service = site.programmed("both").await?;
    let status = serde_json::to_value(&service.status)?;
    let shown = &status["loadBalancer"]["ingress"][0]["ports"];
    let expected =
        serde_json::json!([{"port": 80, "protocol": "TCP"}, {"port": 80, "protocol": "UDP"}]);
    ensure!(*shown == expected, "{shown}");
    for ip in addresses(&service) {
        let by_tcp = site.answers(Host::Client, ip, 80).await?;
        let by_udp = by_udp(site, Host::Client, ip).await?;
        for name in [by_tcp, by_udp] {
            ensure!(name.starts_with("web-"), "{name} is no pod");
        }
    }
    Ok(())
}

/// The pod that answers by UDP on port 80.
async fn by_udp(site: &Site<'_>, from: Host, ip: IpAddr) -> Result<String> {
    let to = SocketAddr::new(ip, 80);
    eventually(SOON, || wire::ask(site.lab, from, to, "hostname"))
        .await
        .with_context(|| format!("UDP from {}", from.name()))
}

async fn from_everywhere_on_both_families(site: &Site<'_>) -> Result<()> {
    let service = site.get("both").await?;
    for from in [Host::Client, Host::FarClient] {
        for ip in addresses(&service) {
            by_udp(site, from, ip).await?;
            site.answers(from, ip, 80).await?;
            let who = ask_often(site, from, ip, 30).await?;
            ensure!(
                who.len() == 2 && who.values().all(|count| *count >= 3),
                "{ip} from {}: {who:?}",
                from.name()
            );
        }
    }
    Ok(())
}
