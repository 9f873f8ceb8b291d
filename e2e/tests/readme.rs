//! The README's own commands, read from it and run unchanged: the first steps of a user whose
//! machine reaches the nodes of the cluster.
//!
//! Two things differ from a laptop: the machine is the lab's client host, and the image is
//! already on the nodes, because there is no registry.

use anyhow::{Context, Result, ensure};
use ballast_e2e::{AGNHOST, Host, Lab, LabOptions, Reach, root};

use crate::common::SOON;

const README: &str = include_str!("../../README.md");
const HEADING: &str = "## Without installing it";

/// The lines of the first code block under the heading, without comments.
fn commands() -> Result<Vec<String>> {
    let section = README
        .split(HEADING)
        .nth(1)
        .context("the README has no such section")?;
    let block = section
        .split("```")
        .nth(1)
        .context("the section has no code block")?;
    let lines = block
        .lines()
        .map(|line| line.split("  #").next().unwrap_or(line).trim());
    Ok(lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

/// Folders with the built binary and kubectl, which replace `make release` and PATH.
fn path(lab: &Lab) -> Result<String> {
    let me = std::env::current_exe()?;
    let built = me.ancestors().nth(2).context("no build folder")?;
    let kubectl = lab.program("kubectl");
    let tools = kubectl.parent().context("no folder of tools")?;
    Ok(format!(
        "{}:{}:/usr/sbin:/usr/bin:/sbin:/bin",
        built.display(),
        tools.display()
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_give_a_service_an_address() -> Result<()> {
    let lab = Lab::start(LabOptions {
        name: "readme".to_owned(),
        progress: false,
        ..LabOptions::default()
    })
    .await?;
    let result = follow(&lab).await;
    let result = lab.explain(result).await;
    lab.down().await?;
    result
}

async fn follow(lab: &Lab) -> Result<()> {
    let commands = commands()?;
    ensure!(
        commands.len() == 12,
        "the README has other commands now: {commands:#?}"
    );
    let kubeconfig = lab.kubeconfig_for_user("reader", &["system:masters"], Reach::Inside)?;
    let (root, path) = (root(), path(lab)?);
    let shell = |command: &str| {
        let command = match command.split_once("--image=nginx") {
            Some((before, after)) => {
                format!("{before} --image={AGNHOST} {after} -- /agnhost netexec --http-port=80")
            }
            None => command.to_owned(),
        };
        let command = format!(
            "cd {} && export KUBECONFIG={} PATH={path} BALLAST_MOCK_STATE_DIR={} && {command}",
            root.display(),
            kubeconfig.display(),
            lab.dir().join("readme-cloud").display(),
        );
        ["bash".to_owned(), "-c".to_owned(), command]
    };
    for (number, command) in commands.iter().enumerate() {
        match command.strip_suffix(" &") {
            _ if command.starts_with("make release") => {}
            Some(service) => {
                let exec = shell(&format!("exec {service}"));
                lab.spawn(&format!("readme-{number}"), Host::Client, exec, &[])
                    .await?;
            }
            None => {
                // Once: a user who pastes the block does not retry either.
                let run = tokio::time::timeout(SOON, lab.exec(Host::Client, shell(command)));
                let output = run
                    .await
                    .with_context(|| format!("still runs: {command}"))??;
                output.ok().with_context(|| command.clone())?;
            }
        }
    }
    let events = lab
        .kubectl(&[
            "get",
            "events",
            "--field-selector",
            "reason=EnsuredLoadBalancer",
        ])
        .await?;
    ensure!(
        events.contains("service/web"),
        "the address came from somewhere else:\n{events}"
    );
    Ok(())
}
