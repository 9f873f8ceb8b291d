//! Ballast on real kind, with one node. On machines that cannot pull images, kind and its node
//! image are built first. Tests that take minutes (three nodes, two clusters, the documented
//! quickstart) are in `long/kind.rs`.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ballast_e2e::kind::installed::{Installed, image, web};
use ballast_e2e::kind::{Cluster, ClusterOptions, KindHost, NODE_LABEL_EXCLUDE};
use ballast_e2e::{Families, Output, eventually, root};

/// Pods must start and nodes must boot, and another cluster may do so at the same time.
pub(crate) const SOON: Duration = Duration::from_mins(2);
/// A teardown, and the deletion of a cluster.
const DELETE: Duration = Duration::from_mins(4);
pub(crate) const SYSTEM: &str = "ballast-system";
pub(crate) const CLOUD: &str = "app.kubernetes.io/component=mock-cloud";

/// Runs a test on its own Docker host, and stops the host in any case.
pub(crate) async fn on_host(
    name: &str,
    test: impl AsyncFnOnce(&KindHost) -> Result<()>,
) -> Result<()> {
    let host = KindHost::start(name).await?;
    let result = test(&host).await;
    let stopped = host.stop().await;
    result.and(stopped)
}

pub(crate) async fn on_cluster(
    name: &str,
    options: ClusterOptions,
    test: impl AsyncFnOnce(&Cluster<'_>) -> Result<()>,
) -> Result<()> {
    on_host(name, async |host| {
        let cluster = host.cluster(name, options).await?;
        cluster.load(&image()?).await?;
        let result = test(&cluster).await;
        cluster.explain(result).await
    })
    .await
}

/// Installs Ballast, and waits for the first answer of the Service "web".
pub(crate) async fn installed<'c>(
    cluster: &'c Cluster<'c>,
) -> Result<(Installed<'c>, Vec<String>, Duration)> {
    let start = Instant::now();
    let ballast = Installed::install(cluster, &[]).await?;
    let addresses = ballast.addresses("web").await?;
    ballast.answers(&addresses[0]).await?;
    let took = start.elapsed();
    println!("helm install to the first answer: {took:.1?}");
    Ok((ballast, addresses, took))
}

/// Applies the Service "web", and waits for its backends.
pub(crate) async fn web_is_ready(cluster: &Cluster<'_>) -> Result<()> {
    cluster.apply(&web("SingleStack")).await?;
    let ready = ["rollout", "status", "deployment/web", "--timeout=100s"];
    cluster.kubectl(&ready).await?;
    Ok(())
}

/// One node in kind's default configuration, then with the label that excludes it from load
/// balancers, then an uninstall.
#[tokio::test(flavor = "multi_thread")]
async fn one_node() -> Result<()> {
    let options = ClusterOptions {
        families: Families::Ipv4,
        ..ClusterOptions::default()
    };
    on_cluster("t-kind-one", options, async |cluster| {
        web_is_ready(cluster).await?;
        let (ballast, addresses, _) = installed(cluster).await?;
        ports_of_the_node(cluster, &ballast).await?;
        strangers_are_refused(cluster, &ballast).await?;
        restarted(cluster, &ballast, &addresses).await?;

        let node = cluster.control_plane();
        let label = format!("{NODE_LABEL_EXCLUDE}=");
        cluster.kubectl(&["label", "node", &node, &label]).await?;
        eventually(SOON, || async {
            let message = ballast.condition("web", "ballast.dev/Programmed").await?;
            ensure!(
                message.contains("exclude"),
                "the condition says {message:?}"
            );
            Ok(())
        })
        .await?;
        ballast.curl(&addresses[0]).await?;
        ensure!(
            ballast.addresses("web").await? == addresses,
            "another address"
        );

        ballast.uninstall().await?;
        ballast.nothing_is_left().await?;
        ensure!(ballast.curl(&addresses[0]).await.is_err(), "still answers");
        Ok(())
    })
    .await
}

/// `examples/kind/kind-delete`, as a user runs it.
#[tokio::test(flavor = "multi_thread")]
async fn the_script_releases_load_balancers_before_it_deletes_the_cluster() -> Result<()> {
    let options = ClusterOptions {
        families: Families::Ipv4,
        ..ClusterOptions::default()
    };
    on_cluster("t-kind-delete", options, async |cluster| {
        let ballast = Installed::install(cluster, &[]).await?;
        cluster.apply(&web("SingleStack")).await?;
        ballast.addresses("web").await?;
        // Without a controller nothing is released, so the cluster stays.
        let scale = ["scale", "-n", SYSTEM, "deployment/ballast-controller"];
        let none = [&scale[..], &["--replicas=0"]].concat();
        cluster.kubectl(&none).await?;
        let controller = "app.kubernetes.io/component=controller";
        let gone = [
            "wait",
            "--for=delete",
            "pod",
            "-n",
            SYSTEM,
            "-l",
            controller,
        ];
        cluster
            .kubectl(&[&gone[..], &["--timeout=60s"]].concat())
            .await?;
        let refused = kind_delete(cluster, &["BALLAST_TEARDOWN_TIMEOUT=5s"]).await?;
        ensure!(!refused.success(), "{refused:?}");
        for words in ["class local: draining", "FORCE=1"] {
            ensure!(refused.stderr.contains(words), "{words}: {refused:?}");
        }
        cluster.kubectl(&["get", "service", "web"]).await?;
        let one = [&scale[..], &["--replicas=1"]].concat();
        cluster.kubectl(&one).await?;

        let done = kind_delete(cluster, &[]).await?;
        ensure!(done.success(), "{done:?}");
        let released = "all load balancers of class local are released";
        ensure!(done.stderr.contains(released), "{done:?}");
        let left = cluster.host().exec(["kind", "get", "clusters"]).await?;
        let left = left.ok()?;
        ensure!(!left.lines().any(|it| it == cluster.name()), "{left}");
        Ok(())
    })
    .await
}

async fn kind_delete(cluster: &Cluster<'_>, variables: &[&str]) -> Result<Output> {
    let binary = ballast_e2e::installation::binary()?;
    // Alone: the build folder has another program called kind.
    let programs = tempfile::tempdir()?;
    std::os::unix::fs::symlink(binary.canonicalize()?, programs.path().join("ballast"))?;
    let folder = programs.path().display().to_string();
    let script = root().join("examples/kind/kind-delete").canonicalize()?;
    let script = script.display().to_string();
    // In front of the host's own programs.
    let path = "export PATH=$0:$PATH; exec env \"$@\"";
    let argv = ["sh", "-c", path, &folder];
    let argv = argv.iter().chain(variables);
    let command = [script.as_str(), cluster.name()];
    let argv = argv.chain(&command);
    let said = cluster.host().exec_for(argv, "", DELETE).await?;
    println!("kind-delete: {}\n{}{}", said.exit, said.stderr, said.stdout);
    Ok(said)
}

/// Ports of kubelet and kube-proxy, and one that is a node port, too.
async fn ports_of_the_node(cluster: &Cluster<'_>, ballast: &Installed<'_>) -> Result<()> {
    for (port, node_port) in [(10_250, 30_100), (10_256, 30_101), (30_102, 30_102)] {
        let service = format!(
            "apiVersion: v1
kind: Service
metadata: {{name: taken}}
spec:
  type: LoadBalancer
  selector: {{app: web}}
  ports: [{{port: {port}, nodePort: {node_port}, targetPort: 8080}}]
"
        );
        cluster.apply(&service).await?;
        eventually(SOON, || async {
            let said = ballast.condition("taken", "ballast.dev/Programmed").await?;
            let expected = said.starts_with("False PortInUse") && said.contains(&port.to_string());
            ensure!(expected, "port {port}: {said:?}");
            Ok(())
        })
        .await?;
        cluster.kubectl(&["delete", "service", "taken"]).await?;
    }
    Ok(())
}

/// Clients that reach the node's port can read, but need the token for changes.
async fn strangers_are_refused(cluster: &Cluster<'_>, ballast: &Installed<'_>) -> Result<()> {
    let node = cloud_host(cluster).await?;
    let url = format!("http://{node}:8111/v1/load-balancers/any");
    let flags = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-m5"];
    let delete = [&["curl"], &flags[..], &["-X", "DELETE", &url]].concat();
    let said = cluster.host().exec(delete).await?.ok()?;
    ensure!(said == "401", "DELETE {url}: {said}");
    ballast.addresses("web").await.map(drop)
}

/// The address of the mock cloud's node.
pub(crate) async fn cloud_host(cluster: &Cluster<'_>) -> Result<String> {
    let path = "jsonpath={.items[0].status.hostIP}";
    let get = ["get", "pods", "-n", SYSTEM, "-l", CLOUD, "-o", path];
    cluster.kubectl(&get).await
}

/// `docker restart` of the node with the addresses.
pub(crate) async fn restarted(
    cluster: &Cluster<'_>,
    ballast: &Installed<'_>,
    addresses: &[String],
) -> Result<()> {
    let node = eventually(SOON, || ballast.cloud_node()).await?;
    let start = Instant::now();
    cluster.restart_node(&node).await?;
    println!("{node} is Ready again after {:.1?}", start.elapsed());
    same_addresses(ballast, addresses).await?;
    println!("and the addresses answer after {:.1?}", start.elapsed());
    Ok(())
}

pub(crate) async fn same_addresses(ballast: &Installed<'_>, addresses: &[String]) -> Result<()> {
    eventually(SOON, || async {
        let now = ballast.addresses("web").await?;
        ensure!(now == addresses, "{now:?} instead of {addresses:?}");
        for address in addresses {
            ballast.curl(address).await?;
        }
        Ok(())
    })
    .await
}
