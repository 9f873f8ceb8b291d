//! Ballast on real kind: the documented quickstart, three dual-stack nodes, and two clusters on
//! one network.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::kind::installed::{Installed, image, web};
use ballast_e2e::kind::load::{Request, now};
use ballast_e2e::kind::{Cluster, ClusterOptions, KindHost, NODE_LABEL_EXCLUDE};
use ballast_e2e::{Families, eventually, root};
use serde_json::Value;

use crate::kind::{
    CLOUD, SOON, SYSTEM, cloud_host, installed, on_cluster, on_host, restarted, same_addresses,
    web_is_ready,
};

/// From `helm install` to the first answer: the required maximum.
const FIRST_ANSWER: Duration = Duration::from_secs(15);
/// From the pod's restart to the next connection.
const BACK: Duration = Duration::from_secs(2);

/// The commands in README.md and docs/kind.md, unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_is_runnable() -> Result<()> {
    let page = root().join("docs/kind.md");
    let page = std::fs::read_to_string(page)?;
    let blocks: Vec<&str> = page.split("```\n").skip(1).step_by(2).collect();
    let [up, down] = blocks[..] else {
        bail!("docs/kind.md has {} blocks of commands", blocks.len())
    };
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    ensure!(readme.contains(up), "README.md has other commands");
    ensure!(up.contains("kind create cluster") && down.contains("kind delete cluster"));
    // Built beforehand, so that the build does not count for the quickstart.
    image()?;
    on_host("t-kind-doc", async |host| {
        let result = quickstart(host, up, down).await;
        if result.is_err() {
            // On the machine's Docker, no one else would delete the cluster.
            let _ = type_in(host, "kind delete cluster").await;
        }
        result
    })
    .await
}

async fn quickstart(host: &KindHost, up: &str, down: &str) -> Result<()> {
    let start = Instant::now();
    let said = type_in(host, up).await?;
    println!("the quickstart took {:.1?}", start.elapsed());
    let answer = said.lines().last().unwrap_or_default();
    ensure!(answer.starts_with("web-"), "curl said {answer:?}:\n{said}");
    type_in(host, down).await?;
    let left = host.docker(&["ps", "-q"]).await?;
    ensure!(left.is_empty() || !host.is_built(), "containers are left");
    Ok(())
}

/// Runs lines in the project's folder; the first that fails ends the test.
async fn type_in(host: &KindHost, lines: &str) -> Result<String> {
    let script = format!("cd \"$0\"\n{lines}");
    let folder = root().canonicalize()?.display().to_string();
    // kind's default may be the name of a user's cluster.
    let name = "KIND_CLUSTER_NAME=t-kind-doc";
    let argv = [
        "env", name, "bash", "-euo", "pipefail", "-c", &script, &folder,
    ];
    host.exec_for(argv, "", Duration::from_mins(8)).await?.ok()
}

/// The best of three tries counts: this file may run beside another test. `make test` does not
/// ask for a time, because its machine is busy.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_comes_soon() -> Result<()> {
    let options = ClusterOptions {
        families: Families::Ipv4,
        ..ClusterOptions::default()
    };
    on_cluster("t-kind-soon", options, async |cluster| {
        web_is_ready(cluster).await?;
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let (ballast, _, took) = installed(cluster).await?;
            best = best.min(took);
            ballast.uninstall().await?;
            ballast.nothing_is_left().await?;
        }
        ensure!(best < FIRST_ANSWER, "{best:.1?}");
        Ok(())
    })
    .await
}

/// Three dual-stack nodes: the address outlives pods and nodes.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_outlives_pods_and_nodes() -> Result<()> {
    let options = ClusterOptions {
        workers: 2,
        families: Families::Dual,
        ..ClusterOptions::default()
    };
    on_cluster("t-kind-life", options, async |cluster| {
        let ballast = Installed::install(cluster, &[]).await?;
        cluster.apply(&web("RequireDualStack")).await?;
        let addresses = ballast.addresses("web").await?;
        ensure!(addresses.len() == 2, "{addresses:?}");
        for address in &addresses {
            ballast.answers(address).await?;
        }
        control_plane_is_no_target(cluster).await?;
        controller_restarted(cluster, &ballast, &addresses).await?;
        killed_under_load(cluster, &ballast, &addresses[0]).await?;
        moved(cluster, &ballast, &addresses).await?;
        restarted(cluster, &ballast, &addresses).await?;
        ballast.uninstall().await?;
        ballast.nothing_is_left().await
    })
    .await
}

/// kubeadm labels the control plane of a cluster with other nodes, and the mock cloud sends no
/// traffic there.
async fn control_plane_is_no_target(cluster: &Cluster<'_>) -> Result<()> {
    let label = ["get", "nodes", "-l", NODE_LABEL_EXCLUDE, "-o", "name"];
    let excluded = cluster.kubectl(&label).await?;
    let expected = format!("node/{}\n", cluster.control_plane());
    ensure!(excluded == expected, "excluded: {excluded:?}");
    let all = cloud(cluster, "/v1/load-balancers").await?;
    let set = &all["items"][0]["desired"]["targetSet"];
    let set = set.as_str().with_context(|| all.to_string())?;
    let set = cloud(cluster, &format!("/v1/target-sets/{set}")).await?;
    let targets = set["targets"].as_array().into_iter().flatten();
    let mut targets: Vec<&str> = targets.filter_map(|it| it["name"].as_str()).collect();
    let mut workers = cluster.nodes().await?;
    workers.retain(|node| *node != cluster.control_plane());
    targets.sort_unstable();
    workers.sort_unstable();
    ensure!(workers.len() == 2 && targets == workers, "{set}");
    Ok(())
}

/// The mock cloud's own status.
async fn cloud(cluster: &Cluster<'_>, path: &str) -> Result<Value> {
    let url = format!("http://{}:8111{path}", cloud_host(cluster).await?);
    let said = cluster.host().exec(["curl", "-sSfm5", &url]).await?.ok()?;
    Ok(serde_json::from_str(&said)?)
}

async fn controller_restarted(
    cluster: &Cluster<'_>,
    ballast: &Installed<'_>,
    addresses: &[String],
) -> Result<()> {
    let controller = ["-n", SYSTEM, "deployment/ballast-controller"];
    for verb in ["restart", "status"] {
        let rollout = [&["rollout", verb], &controller[..]].concat();
        cluster.kubectl(&rollout).await?;
    }
    same_addresses(ballast, addresses).await
}

/// 200 requests a second while the mock cloud's process is killed.
async fn killed_under_load(
    cluster: &Cluster<'_>,
    ballast: &Installed<'_>,
    address: &str,
) -> Result<()> {
    let node = ballast.cloud_node().await?;
    let before = ballast.foreign_addresses().await?;
    let target = SocketAddr::new(address.parse()?, 80).to_string();
    let program = env!("CARGO_BIN_EXE_kind");
    let argv = [
        program,
        "requests",
        "--rate",
        "200",
        "--seconds",
        "25",
        &target,
    ];
    let load = cluster.host().exec_for(argv, "", SOON);
    let kill = async {
        // After the load has started.
        let begun = now();
        eventually(SOON, || async {
            ensure!(now() > begun + 2_000, "not yet");
            ballast.curl(address).await
        })
        .await?;
        let kill = ["pkill", "-KILL", "-f", "^/ballast mock-cloud"];
        let killed = now();
        cluster.node_exec(&node, &kill).await?.ok()?;
        anyhow::Ok((killed, started_again(cluster).await?))
    };
    let (load, kill) = tokio::join!(load, kill);
    let (killed, back) = kill?;
    let load = load?.ok()?;
    let requests: Vec<Request> = load.lines().map(Request::parse).collect::<Result<_>>()?;
    judge(&requests, killed, back)?;
    ensure!(
        ballast.foreign_addresses().await? == before,
        "other addresses than before"
    );
    Ok(())
}

fn judge(requests: &[Request], killed: u64, back: u64) -> Result<()> {
    let first = requests.first().context("no requests")?.at;
    let last = requests.last().context("no requests")?.at;
    let failed: Vec<u64> = requests
        .iter()
        .filter(|request| !request.answered)
        .map(|request| request.at)
        .collect();
    let since = |at: u64| at.saturating_sub(first);
    println!(
        "{} requests, {} a second; {} failed, from {:?} to {:?} ms; killed at {} ms, the container was back at {} ms",
        requests.len(),
        requests.len() as u64 * 1000 / since(last).max(1),
        failed.len(),
        failed.first().copied().map(since),
        failed.last().copied().map(since),
        since(killed),
        since(back),
    );
    ensure!(
        failed.iter().all(|&at| at >= killed),
        "requests failed before anything was killed"
    );
    ensure!(!failed.is_empty(), "the load did not notice the kill");
    ensure!(back < last, "the load ended too early");
    // Kubernetes truncates the milliseconds of a container's start time.
    let limit = back + 999 + u64::try_from(BACK.as_millis())?;
    ensure!(
        failed.iter().all(|&at| at < limit),
        "connections fail longer than {BACK:?} after the restart"
    );
    Ok(())
}

/// When the killed container runs again, in milliseconds.
async fn started_again(cluster: &Cluster<'_>) -> Result<u64> {
    let path = "jsonpath={.items[0].status.containerStatuses[0].restartCount} {.items[0].status.containerStatuses[0].state.running.startedAt}";
    let get = ["get", "pods", "-n", SYSTEM, "-l", CLOUD, "-o", path];
    let started = eventually(SOON, || async {
        let said = cluster.kubectl(&get).await?;
        match said.split_once(' ') {
            Some((count, started)) if count != "0" && !started.is_empty() => Ok(started.to_owned()),
            _ => bail!("not restarted: {said:?}"),
        }
    })
    .await?;
    let host = cluster.host();
    let seconds = host.exec(["date", "-d", &started, "+%s"]).await?.ok()?;
    Ok(seconds.trim().parse::<u64>()? * 1000)
}

/// The pod moves to another node, and loses its state.
async fn moved(cluster: &Cluster<'_>, ballast: &Installed<'_>, addresses: &[String]) -> Result<()> {
    let from = ballast.cloud_node().await?;
    cluster.kubectl(&["cordon", &from]).await?;
    cluster
        .kubectl(&["delete", "pod", "-n", SYSTEM, "-l", CLOUD])
        .await?;
    let to = eventually(SOON, || async {
        let to = ballast.cloud_node().await?;
        ensure!(to != from, "still on {from}");
        Ok(to)
    })
    .await?;
    same_addresses(ballast, addresses).await?;
    eventually(SOON, || async {
        let there = ballast.foreign_addresses().await?;
        ensure!(
            there.len() == addresses.len() && there.iter().all(|it| it.ends_with(&to)),
            "not all on {to}: {there:?}"
        );
        Ok(())
    })
    .await?;
    cluster.kubectl(&["uncordon", &from]).await.map(drop)
}

/// They take addresses from one subnet without conflicts, and the addresses of a deleted
/// cluster are gone with it.
#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_on_one_network() -> Result<()> {
    on_host("t-kind-two", async |host| {
        let options = ClusterOptions {
            families: Families::Ipv4,
            ..ClusterOptions::default()
        };
        let archive = image()?;
        let one = host.cluster("t-kind-two-a", options.clone()).await?;
        let two = host.cluster("t-kind-two-b", options).await?;
        let mut found = vec![];
        for cluster in [&one, &two] {
            cluster.load(&archive).await?;
            let ballast = Installed::install(cluster, &[]).await?;
            cluster.apply(&web("SingleStack")).await?;
            let addresses = cluster.explain(ballast.addresses("web").await).await?;
            ballast.answers(&addresses[0]).await?;
            found.push(addresses[0].clone());
        }
        ensure!(found[0] != found[1], "both clusters took {}", found[0]);
        one.delete().await?;
        let ballast = Installed::at(&two);
        ensure!(
            ballast.curl(&found[0]).await.is_err(),
            "the deleted one answers"
        );
        ballast.answers(&found[1]).await.map(drop)
    })
    .await
}
