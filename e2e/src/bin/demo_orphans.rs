//! `make demo-orphans`: the hidden cost trap. A cluster with 20 load balancers is deleted before its
//! Services, the cloud bills on, and `ballast orphans` finds what is left and deletes it. Before that,
//! the right way: `ballast teardown` first, and nothing is left. Every step prints what it does and how
//! long it took; the first step that fails ends the demo with a non-zero exit status.
//!
//! `KEEP=1` ends before the orphans are deleted, keeps the cloud running, and prints how to delete them.
//! `BALLAST_LAB` names the lab.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_e2e::installation::{Installation, binary};
use ballast_e2e::story::{boot, keeps, lab_name, step, tell};
use ballast_e2e::{Host, Lab, LabOptions, eventually};
use serde_json::Value;

const SOON: Duration = Duration::from_mins(1);
const SERVICES: usize = 20;

#[tokio::main]
async fn main() -> ExitCode {
    tell(Box::pin(demo())).await
}

async fn demo() -> Result<()> {
    let keep = keeps();
    let options = LabOptions {
        name: lab_name("demo-orphans"),
        nodes: 1,
        progress: false,
        ..LabOptions::default()
    };
    let what = "Boot a real Kubernetes, and beside it a cloud that is not part of it";
    let lab = boot(what, options).await?;
    let shown = show(&lab, keep).await;
    let shown = lab.explain(shown).await;
    if keep {
        let name = lab.name().to_owned();
        let cloud = format!("http://{}:8111", lab.addresses(Host::Cloud)[0]);
        lab.detach().await?;
        let ballast = binary()?.display().to_string();
        let exec = format!("target/debug/lab exec --name {name} client --");
        println!("\nThe cluster is dead and the cloud bills on (KEEP=1):");
        println!("  {exec} curl -s {cloud}/v1/meter");
        println!("  {exec} {ballast} orphans --mock-cloud {cloud}");
        println!(
            "  {exec} {ballast} orphans --mock-cloud {cloud} --delete --yes --force-live --cluster {name}"
        );
        println!("  target/debug/lab down --name {name}");
        return shown;
    }
    shown?;
    step("Take the lab down", async {
        lab.down().await.map(|()| (String::new(), ()))
    })
    .await
}

async fn show(lab: &Lab, keep: bool) -> Result<()> {
    let ballast = step(
        "Install Ballast: a controller in the cluster, a class whose load balancers are in the cloud",
        async {
            let ballast = Installation::new(lab).await?;
            ballast.start_cloud(&[]).await?;
            ballast.start_controller("ballast-1", &[]).await?;
            ballast.mock_class("shop", "default: true").await?;
            Ok((String::new(), ballast))
        },
    )
    .await?;
    step(
        "Create 20 Services of type LoadBalancer: 20 load balancers, and a bill",
        async {
            lab.apply(&services()).await?;
            served(lab, &ballast).await?;
            Ok((bill(&ballast).await?, ()))
        },
    )
    .await?;
    the_right_way(lab, &ballast).await?;
    the_trap(lab, &ballast).await?;
    if keep {
        return Ok(());
    }
    the_way_out(lab, &ballast).await
}

/// The Services as one manifest. Nothing answers behind them: it is about the bill.
fn services() -> String {
    let service = |n| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: shop-{n}}}\nspec: {{type: LoadBalancer, selector: {{app: shop}}, ports: [{{port: 80}}]}}\n"
        )
    };
    let all: Vec<String> = (1..=SERVICES).map(service).collect();
    all.join("---\n")
}

async fn served(lab: &Lab, ballast: &Installation<'_>) -> Result<()> {
    let wait = [
        "wait",
        "--for=condition=ballast.dev/Programmed",
        "--timeout=60s",
        "service",
    ];
    let names: Vec<String> = (1..=SERVICES).map(|n| format!("shop-{n}")).collect();
    let names = names.iter().map(String::as_str);
    let wait: Vec<&str> = wait.into_iter().chain(names).collect();
    lab.kubectl(&wait).await?;
    ensure!(ballast.meter().await?["loadBalancers"] == SERVICES);
    Ok(())
}

/// `ballast teardown` before the cluster is deleted.
async fn the_right_way(lab: &Lab, ballast: &Installation<'_>) -> Result<()> {
    step(
        "The right way: `ballast teardown --wait` before the cluster is deleted. Nothing is left",
        async {
            let kubeconfig = lab.kubeconfig();
            let output = tokio::process::Command::new(binary()?)
                .args(["teardown", "--wait", "--lease-namespace", "ballast-system"])
                .env("KUBECONFIG", &kubeconfig)
                .stdin(std::process::Stdio::null())
                .output()
                .await?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{said}");
            let last = said.lines().last().unwrap_or_default();
            let found = orphans(ballast, &[]).await?;
            let bill = bill(ballast).await?;
            ensure!(bill.contains("$0.00 an hour"), "{bill}");
            Ok((format!("{last}\n$ ballast orphans\n{found}{bill}"), ()))
        },
    )
    .await?;
    step(
        "We undo it, because this story goes wrong: the 20 load balancers are back",
        async {
            let undo = ["teardown", "--undo", "--lease-namespace", "ballast-system"];
            let output = tokio::process::Command::new(binary()?)
                .args(undo)
                .env("KUBECONFIG", lab.kubeconfig())
                .stdin(std::process::Stdio::null())
                .output()
                .await?;
            ensure!(output.status.success(), "{output:?}");
            served(lab, ballast).await?;
            Ok((bill(ballast).await?, ()))
        },
    )
    .await
}

async fn the_trap(lab: &Lab, ballast: &Installation<'_>) -> Result<()> {
    step(
        "The trap: the cluster is deleted, and nobody thinks of its Services. Every process is killed",
        async {
            lab.destroy_cluster().await?;
            let gone = lab.kubectl(&["get", "services"]).await;
            ensure!(gone.is_err(), "the API server still answers: {gone:?}");
            Ok(("$ kubectl get services\nno answer".to_owned(), ()))
        },
    )
    .await?;
    step(
        "The cloud bills on: nobody is left who could delete the load balancers",
        async {
            let before = so_far(ballast).await?;
            let now = eventually(SOON, || async {
                let now = so_far(ballast).await?;
                ensure!(now > before, "{now} $");
                Ok(now)
            })
            .await?;
            let grown = format!("the meter has moved from ${before:.6} to ${now:.6}");
            Ok((format!("{}{grown}", bill(ballast).await?), ()))
        },
    )
    .await
}

async fn the_way_out(lab: &Lab, ballast: &Installation<'_>) -> Result<()> {
    step(
        "`ballast orphans` finds all 20, with their cost. It needs the cloud, and no cluster. \
         (By default a cluster counts as gone after 3 days of silence; here after 5 s)",
        async {
            let silent = ["--not-seen-for", "5s"];
            let found = eventually(SOON, || async {
                let found = orphans(ballast, &silent).await?;
                ensure!(found.contains(": GONE, "), "{found}");
                Ok(found)
            })
            .await?;
            let services = (1..=SERVICES).map(|n| format!("default/shop-{n}"));
            let missing: Vec<String> = services.filter(|it| !found.contains(it)).collect();
            ensure!(missing.is_empty(), "no word of {missing:?}:\n{found}");
            Ok((
                format!("$ ballast orphans {}\n{found}", silent.join(" ")),
                (),
            ))
        },
    )
    .await?;
    let delete = ["--delete", "--yes", "--cluster", lab.name()];
    step(
        "It does not delete what may be alive: by default this cluster counts, it was seen a moment ago",
        async {
            let cloud = ballast.endpoint();
            let argv = [&["orphans", "--mock-cloud", &cloud], &delete[..]].concat();
            let refused = ballast.ballast(Host::Client, &argv).await?;
            ensure!(!refused.success(), "{refused:?}");
            let words = format!("{}{}", refused.stdout, refused.stderr);
            let why = words.lines().find(|line| line.contains("--force-live"));
            let why = why.with_context(|| words.clone())?;
            Ok((format!("$ ballast orphans {}\n{why}", delete.join(" ")), ()))
        },
    )
    .await?;
    step(
        "We know that it is dead: with --force-live the orphans are deleted, and the meter stands still",
        async {
            let force = [&delete[..], &["--force-live"]].concat();
            let done = orphans(ballast, &force).await?;
            let end = bill(ballast).await?;
            ensure!(end.contains("$0.00 an hour"), "{end}");
            let left = orphans(ballast, &[]).await?;
            let force = force.join(" ");
            let shown = format!("$ ballast orphans {force}\n{done}{end}$ ballast orphans\n{left}");
            Ok((shown, ()))
        },
    )
    .await
}

/// Runs `ballast orphans` on a host that reaches the cloud and has no kubeconfig.
async fn orphans(ballast: &Installation<'_>, flags: &[&str]) -> Result<String> {
    let cloud = ballast.endpoint();
    let argv = [&["orphans", "--mock-cloud", &cloud], flags].concat();
    let output = ballast.ballast(Host::Client, &argv).await?;
    // 5: something is left.
    let done = matches!(output.exit.code, Some(0 | 5));
    ensure!(done, "{argv:?}: {output:?}");
    Ok(output.stdout)
}

async fn so_far(ballast: &Installation<'_>) -> Result<f64> {
    let meter = ballast.meter().await?;
    meter["soFar"].as_f64().with_context(|| meter.to_string())
}

/// The meter in one line.
async fn bill(ballast: &Installation<'_>) -> Result<String> {
    let meter: Value = ballast.meter().await?;
    let number = |key: &str| meter[key].as_f64().with_context(|| meter.to_string());
    Ok(format!(
        "On AWS {} load balancers would cost ${:.2} an hour, ${:.2} a month\n",
        meter["loadBalancers"],
        number("perHour")?,
        number("perMonth")?,
    ))
}
