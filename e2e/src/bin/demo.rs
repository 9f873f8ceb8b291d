//! `make demo`: from an empty machine to a Service that answers from outside its cluster, and
//! back to an empty cloud. Every step prints what it does and how long it took; the first step
//! that fails ends the demo with a non-zero exit status.
//!
//! `KEEP=1` keeps the cluster running and prints how to use it. `BALLAST_LAB` names the lab.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::installation::Installation;
use ballast_e2e::story::{CONDITIONS, boot, both_answer, keeps, lab_name, step, tell};
use ballast_e2e::{Host, Lab, LabOptions, eventually};

const SOON: Duration = Duration::from_mins(1);
const WEB: &str = include_str!("../../manifests/web.yaml");

#[tokio::main]
async fn main() -> ExitCode {
    tell(Box::pin(demo())).await
}

async fn demo() -> Result<()> {
    let keep = keeps();
    let options = LabOptions {
        name: lab_name("demo"),
        nodes: 2,
        progress: false,
        ..LabOptions::default()
    };
    let what = "Boot a real Kubernetes: two nodes in network namespaces";
    let lab = boot(what, options).await?;
    let shown = show(&lab, keep).await;
    let shown = lab.explain(shown).await;
    if keep {
        let address = address(&lab).await.unwrap_or_else(|_| "ADDRESS".to_owned());
        let (name, kubeconfig) = (lab.name().to_owned(), lab.kubeconfig());
        lab.detach().await?;
        println!("\nThe cluster stays up (KEEP=1):");
        println!("  target/debug/lab kubectl --name {name} -- get services");
        println!(
            "  target/debug/lab exec --name {name} client -- curl -s http://{address}/hostname"
        );
        println!(
            "  export KUBECONFIG={}   # for programs of this machine",
            kubeconfig.display()
        );
        println!("  target/debug/lab down --name {name}");
        return shown;
    }
    shown?;
    step("Take the cluster down", async {
        lab.down().await.map(|()| (String::new(), ()))
    })
    .await
}

async fn show(lab: &Lab, keep: bool) -> Result<()> {
    step(
        "Deploy two web servers, and a Service of type LoadBalancer",
        async {
            lab.apply(WEB).await?;
            lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])
                .await?;
            let service = lab.kubectl(&["get", "service", "web"]).await?;
            ensure!(
                service.contains("<pending>"),
                "nobody can have given it an address yet:\n{service}"
            );
            Ok((service, ()))
        },
    )
    .await?;
    let (ballast, address) = installed(lab).await?;
    step("Check its status", async {
        let conditions = lab
            .kubectl(&["get", "service", "web", "-o", CONDITIONS])
            .await?;
        let events = lab
            .kubectl(&[
                "get",
                "events",
                "--field-selector",
                "involvedObject.name=web,involvedObject.kind=Service",
                "-o",
                "custom-columns=:type,:reason,:message",
                "--no-headers",
            ])
            .await?;
        Ok((format!("{conditions}{events}"), ()))
    })
    .await?;
    if keep {
        return Ok(());
    }
    emptied(lab, &ballast, &address).await
}

/// Waits until both servers answer.
async fn installed(lab: &Lab) -> Result<(Installation<'_>, String)> {
    let ballast = step(
        "Install Ballast: CRD, rights, a mock cloud, two controllers, a default class",
        async {
            let ballast = Installation::new(lab).await?;
            ballast.start_cloud(&[]).await?;
            ballast.start_controller("ballast-1", &[]).await?;
            ballast.start_controller("ballast-2", &[]).await?;
            ballast.mock_class("local", "default: true").await?;
            Ok((String::new(), ballast))
        },
    )
    .await?;
    let address = step("The Service has an address instead of <pending>", async {
        let address = eventually(SOON, || address(lab)).await?;
        Ok((lab.kubectl(&["get", "service", "web"]).await?, address))
    })
    .await?;
    step(
        "The address answers from outside the nodes, and both servers get their share",
        async {
            let pods = eventually(SOON, || both_answer(|| curl(lab, &address))).await?;
            let hosts = format!(
                "curl http://{address}/hostname from the client host:\n{}",
                pods.into_iter().collect::<Vec<_>>().join("\n")
            );
            Ok((hosts, ()))
        },
    )
    .await?;
    Ok((ballast, address))
}

async fn emptied(lab: &Lab, ballast: &Installation<'_>, address: &str) -> Result<()> {
    step(
        "Delete the Service: the address stops answering, the cloud is empty",
        async {
            lab.kubectl(&["delete", "service", "web", "--timeout=30s"])
                .await?;
            eventually(SOON, || async {
                let left = ballast.load_balancers().await?.len();
                ensure!(left == 0, "{left} load balancers are left");
                Ok(())
            })
            .await?;
            let silent = curl(lab, address).await.is_err();
            ensure!(silent, "{address} still answers");
            Ok((String::new(), ()))
        },
    )
    .await
}

async fn address(lab: &Lab) -> Result<String> {
    let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
    let ip = lab.kubectl(&["get", "service", "web", "-o", path]).await?;
    if ip.is_empty() {
        let all = lab
            .kubectl(&["get", "service", "web", "-o", "jsonpath={.status}"])
            .await?;
        bail!("no address yet; status: {all}");
    }
    Ok(ip)
}

async fn curl(lab: &Lab, address: &str) -> Result<String> {
    let url = format!("http://{address}/hostname");
    let output = lab
        .exec(Host::Client, ["curl", "-gsf", "--max-time", "3", &url])
        .await?;
    output.ok().with_context(|| url.clone())
}
