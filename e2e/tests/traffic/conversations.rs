//! Open connections when something changes: they continue, or are closed within the documented
//! time.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ballast_e2e::{Host, eventually};
use serde_json::json;

use super::{DUAL, wire};
use crate::common::{OF_CLASS, SOON, Site, addresses, load_balancer, url, web};

const MEGABYTES: usize = 8 << 20;
/// The number of long connections that are open at once.
const STREAMS: usize = 6;
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

pub(crate) async fn large_transfers(site: &Site<'_>) -> Result<()> {
    let ports = "ports: [{name: echo, port: 7, targetPort: 9000}, {name: other, port: 80}]";
    let spec = format!("{OF_CLASS}, {DUAL}, selector: {{app: echo}}, {ports}");
    site.apply(&load_balancer("echo", &spec)).await?;
    let service = site.programmed("echo").await?;
    for (ip, from) in addresses(&service)
        .into_iter()
        .zip([Host::Client, Host::FarClient])
    {
        let to = SocketAddr::new(ip, 7);
        let stream = eventually(SOON, || talk(site, from, to)).await?;
        wire::carries(stream, MEGABYTES)
            .await
            .with_context(|| format!("{to} from {}", from.name()))?;
    }
    Ok(())
}

/// A connection that has been answered once.
async fn talk(site: &Site<'_>, from: Host, to: SocketAddr) -> Result<TcpStream> {
    let mut stream = wire::connect(site.lab, from, to).await?;
    tokio::task::spawn_blocking(move || {
        wire::echoes(&mut stream, "hello")?;
        Ok(stream)
    })
    .await?
}

/// The number of connections that still answer; the others are closed.
fn alive(streams: &mut Vec<TcpStream>) -> usize {
    streams.retain_mut(|stream| wire::echoes(stream, "still there?").is_ok());
    streams.len()
}

pub(crate) async fn edits_and_drains(site: &Site<'_>) -> Result<()> {
    let service = site.get("echo").await?;
    let to = SocketAddr::new(addresses(&service)[0], 7);
    // Alternating between both nodes, while both are healthy.
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(talk(site, Host::Client, to).await?);
    }
    let spec = service.spec.as_ref().context("no spec")?;
    let ports = spec.ports.as_deref().unwrap_or_default();
    let same = ports[0].node_port;
    for (port, node_port) in [(80, 31_777), (81, 31_778)] {
        let patch = json!({"spec": {"ports": [
            {"name": "echo", "port": 7, "targetPort": 9000, "nodePort": same},
            {"name": "other", "port": port, "nodePort": node_port},
        ]}});
        site.patch("echo", patch).await?;
        eventually(SOON, || async {
            let there = site.in_cloud("echo").await?.context("not in the cloud")?;
            let listener = &there["desired"]["listeners"][1];
            ensure!(listener["port"] == port, "{there}");
            ensure!(listener["nodePort"] == node_port, "{there}");
            Ok(())
        })
        .await?;
        let left = alive(&mut streams);
        ensure!(
            left == STREAMS,
            "an edit of another port left {left} of {STREAMS}"
        );
    }
    drained(site, to, streams).await
}

async fn drained(site: &Site<'_>, to: SocketAddr, streams: Vec<TcpStream>) -> Result<()> {
    let start = Instant::now();
    let label = format!("{EXCLUDE}=true");
    site.lab
        .kubectl(&["label", "node", "node2", &label])
        .await?;
    let there = site.in_cloud("echo").await?.context("not in the cloud")?;
    let set = there["desired"]["targetSet"].as_str().unwrap_or_default();
    let path = format!("/v1/target-sets/{set}");
    eventually(SOON, || async {
        let set = site.ballast.cloud(&path).await?;
        ensure!(!set.contains("node2"), "{set}");
        Ok(())
    })
    .await?;
    // Connections through this node live while it drains; those through the other one outlive
    // that.
    let streams = std::sync::Mutex::new(streams);
    let left = || streams.lock().map_or(0, |mut streams| alive(&mut streams));
    eventually(SOON, || async {
        let left = left();
        ensure!(left < STREAMS, "none ends, though half went by node2");
        Ok(())
    })
    .await?;
    let drained = start.elapsed();
    ensure!(
        drained >= Duration::from_secs(10),
        "cut after {drained:.1?}, before the drain time was over"
    );
    ensure!(left() > 0, "those by node1 ended too");
    talk(site, Host::Client, to).await?;
    site.lab
        .kubectl(&["label", "node", "node2", &format!("{EXCLUDE}-")])
        .await
        .map(drop)
}

pub(crate) async fn a_node_is_cut(site: &Site<'_>) -> Result<()> {
    let spec = format!("{}, externalTrafficPolicy: Local", web("web"));
    site.apply(&load_balancer("web", &spec)).await?;
    let ip = site.address("web").await?;
    let page = url(ip, 80, "/hostname");
    let both = || async {
        let mut who = std::collections::BTreeSet::new();
        for _ in 0..10 {
            who.insert(site.curl(Host::Client, &page).await?);
        }
        ensure!(who.len() == 2, "only {who:?} answer");
        Ok(())
    };
    eventually(SOON, both).await?;
    site.lab.cut(Host::Node(2)).await?;
    let cut = Instant::now();
    eventually(SOON, || async {
        for _ in 0..6 {
            site.curl(Host::Client, &page).await?;
        }
        Ok(())
    })
    .await?;
    // Nothing but the health checks of the load balancer heals this: both nodes have pods.
    println!("traffic flows {:.1?} after the cut", cut.elapsed());
    site.lab.restore(Host::Node(2)).await?;
    eventually(SOON, both)
        .await
        .context("after the cable is back")
}
