//! `make demo-kind`: installs Ballast on a real kind cluster, creates a Service that answers,
//! and removes everything. Every step prints what it does and how long it took; the first step
//! that fails ends the demo with a non-zero exit status.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ballast_e2e::kind::installed::{Installed, image, web};
use ballast_e2e::kind::{Cluster, ClusterOptions, KindHost};
use ballast_e2e::story::{CONDITIONS, both_answer, step, tell};
use ballast_e2e::{Families, eventually};

const SOON: Duration = Duration::from_mins(1);
const NAME: &str = "demo";

#[tokio::main]
async fn main() -> ExitCode {
    tell(Box::pin(demo())).await
}

async fn demo() -> Result<()> {
    let archive = step("Ballast's image: one static binary", async {
        let archive = image()?;
        let bytes = std::fs::metadata(&archive)?.len();
        let shown = format!("{} ({} MB)", archive.display(), bytes / 1_000_000);
        Ok((shown, archive))
    })
    .await?;
    let host = step(
        "A Docker host (this machine's, or one that is built)",
        async {
            let host = KindHost::start("demo").await?;
            let what = if host.is_built() {
                "our own, in a network namespace without an uplink"
            } else {
                "this machine's"
            };
            Ok((what.to_owned(), host))
        },
    )
    .await?;
    let shown = async {
        let cluster = step("kind create cluster: two nodes, IPv4 and IPv6", async {
            let options = ClusterOptions {
                workers: 1,
                families: Families::Dual,
                ..ClusterOptions::default()
            };
            let cluster = host.cluster(NAME, options).await?;
            let nodes = cluster.kubectl(&["get", "nodes", "-o", "wide"]).await?;
            Ok((columns(&nodes, 6), cluster))
        })
        .await?;
        let shown = on(&cluster, &archive).await;
        cluster.explain(shown).await
    }
    .await;
    step("Take the cluster down", async {
        host.stop().await.map(|()| (String::new(), ()))
    })
    .await?;
    shown
}

async fn on(cluster: &Cluster<'_>, archive: &std::path::Path) -> Result<()> {
    step("kind load image-archive target/image/ballast.tar", async {
        cluster.load(archive).await.map(|()| (String::new(), ()))
    })
    .await?;
    step(
        "Two web servers, and a Service of type LoadBalancer: nobody serves it yet",
        async {
            cluster.apply(&web("RequireDualStack")).await?;
            let ready = ["rollout", "status", "deployment/web", "--timeout=60s"];
            cluster.kubectl(&ready).await?;
            let service = cluster.kubectl(&["get", "service", "web"]).await?;
            ensure!(service.contains("<pending>"), "{service}");
            Ok((service, ()))
        },
    )
    .await?;
    let (ballast, addresses) = installed(cluster).await?;
    step("Check its status", async {
        let said = cluster
            .kubectl(&["get", "service", "web", "-o", CONDITIONS])
            .await?;
        Ok((said, ()))
    })
    .await?;
    uninstalled(&ballast, &addresses).await
}

/// Waits until both servers answer.
async fn installed<'c>(cluster: &'c Cluster<'c>) -> Result<(Installed<'c>, Vec<String>)> {
    let start = Instant::now();
    let ballast = step(
        "helm install ballast charts/ballast -n ballast-system --create-namespace --set classes.local.mock.enabled=true",
        async { Ok((String::new(), Installed::install(cluster, &[]).await?)) },
    )
    .await?;
    let addresses = step("The Service has its addresses", async {
        let addresses = ballast.addresses("web").await?;
        let service = cluster.kubectl(&["get", "service", "web"]).await?;
        Ok((service, addresses))
    })
    .await?;
    step(
        "curl from the Docker host: both servers answer, on both addresses",
        async {
            let mut shown = vec![];
            for address in &addresses {
                let pods = eventually(SOON, || both_answer(|| ballast.curl(address))).await?;
                let pods = pods.into_iter().collect::<Vec<_>>().join(", ");
                shown.push(format!("{address}: {pods}"));
            }
            let took = start.elapsed().as_secs_f32();
            shown.push(format!("{took:.1} s after the start of helm install"));
            Ok((shown.join("\n"), ()))
        },
    )
    .await?;
    Ok((ballast, addresses))
}

async fn uninstalled(ballast: &Installed<'_>, addresses: &[String]) -> Result<()> {
    step(
        "helm uninstall ballast: load balancers first, then everything",
        async {
            ballast.uninstall().await?;
            let service = ballast
                .cluster()
                .kubectl(&["get", "service", "web"])
                .await?;
            ensure!(service.contains("<pending>"), "{service}");
            Ok((service, ()))
        },
    )
    .await?;
    step(
        "Nothing is left: no object, no finalizer, no address on a node; curl fails",
        async {
            ballast.nothing_is_left().await?;
            for address in addresses {
                ensure!(
                    ballast.curl(address).await.is_err(),
                    "{address} still answers"
                );
            }
            Ok((String::new(), ()))
        },
    )
    .await
}

/// The first columns of a kubectl table.
fn columns(table: &str, many: usize) -> String {
    table.lines().fold(String::new(), |text, line| {
        let words: Vec<&str> = line.split_ascii_whitespace().take(many).collect();
        text + &words.join("  ") + "\n"
    })
}
