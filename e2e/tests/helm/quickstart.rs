//! The quickstart of docs/bare-metal.md, read from it and run as one paste.
//!
//! What differs: the addresses are those of the lab's network, the web server is an image that the nodes have,
//! because there is no registry, and so is Ballast's, under the name that the chart gives it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_crds::Announcer;
use ballast_e2e::helm::Helm;
use ballast_e2e::{AGNHOST, Host, Reach};
use kube::Api;
use kube::api::ListParams;

use super::cluster::Cluster;

const DOC: &str = include_str!("../../../docs/bare-metal.md");
const NODES: u8 = 3;
/// For all commands together; each that waits has its own time-out.
const TIME: Duration = Duration::from_mins(3);
/// The image of the chart without values, as containerd names it.
const IMAGE: &str = concat!("docker.io/library/ballast:", env!("CARGO_PKG_VERSION"));

/// The first code block under the heading, for the lab.
fn script() -> Result<String> {
    let section = DOC.split("## Quickstart").nth(1).context("no quickstart")?;
    let block = section.split("```").nth(1).context("no code block")?;
    let mut script = block.to_owned();
    for (documented, here) in [
        ("192.0.2.", "10.89.0.".to_owned()),
        (
            "--image=nginx --replicas=2",
            format!("--image={AGNHOST} --replicas=2 -- /agnhost netexec --http-port=80"),
        ),
    ] {
        ensure!(script.contains(documented), "no {documented} in {script}");
        script = script.replace(documented, &here);
    }
    Ok(script)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_quickstart_give_a_service_an_address() -> Result<()> {
    Cluster::run("t-quickstart", NODES, async |cluster| {
        cluster.image_as(IMAGE).await?;
        let said = follow(cluster).await?;
        println!("{said}");
        let answered = said.lines().last().unwrap_or_default();
        ensure!(answered.starts_with("NOW: "), "curl got {answered}");
        for expected in ["LoadBalancer", "10.89.0.200"] {
            ensure!(said.contains(expected), "no {expected}");
        }
        let announcers: Api<Announcer> = Api::all(cluster.lab.kube());
        let all = announcers.list(&ListParams::default()).await?.items;
        let names = all.iter().filter_map(|it| it.metadata.name.as_deref());
        ensure!(names.clone().count() == usize::from(NODES), "{all:?}");
        let told = names.filter(|name| said.contains(*name)).count();
        ensure!(told == usize::from(NODES), "{told} announcers are listed");
        let holdings = all.iter().filter_map(|it| it.status.as_ref());
        let held: Vec<_> = holdings.flat_map(|it| &it.holdings).collect();
        ensure!(
            held.len() == 1 && held[0].address == "10.89.0.200",
            "{held:?}"
        );
        Ok(())
    })
    .await
}

/// As a user pastes it, on a machine of the network that is no node.
async fn follow(cluster: &Cluster) -> Result<String> {
    let lab = &cluster.lab;
    let kubeconfig = lab.kubeconfig_for_user("reader", &["system:masters"], Reach::Inside)?;
    // The folder of a clone; files may be written there.
    let folder = lab.dir().join("clone");
    std::fs::create_dir_all(folder.join("charts"))?;
    std::os::unix::fs::symlink(Helm::chart(), folder.join("charts/ballast"))?;
    let tools = [lab.program("kubectl"), cluster.helm.program("helm")];
    let tools = tools.iter().filter_map(|it| it.parent());
    let tools: Vec<String> = tools.map(|it| it.display().to_string()).collect();
    let script = format!(
        "set -e; cd {folder}; export KUBECONFIG={} HOME={folder} PATH={}:/usr/sbin:/usr/bin:/sbin:/bin\n{}",
        kubeconfig.display(),
        tools.join(":"),
        script()?,
        folder = folder.display(),
    );
    let run = lab.exec_for(Host::Client, ["bash", "-c", &script], TIME);
    run.await?.ok()
}
