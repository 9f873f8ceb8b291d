//! `ballast plan`: what Ballast would create for manifests. It changes nothing.
//!
//! [`read`] reads objects, [`inputs`] puts them on the cluster as it is, [`steps`] asks the controller's own code ([`crate::service::decide`])
//! what it would do, [`calls`] what the cloud would be asked and what that costs, and [`render`]
//! formats the output: all of these are pure. Only [`run`] and `cluster` do I/O.

pub mod calls;
mod cluster;
pub mod inputs;
pub mod read;
pub mod render;
pub mod steps;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;

use super::cluster::ClusterArgs;
use super::migrate::files;
use super::prices::PriceArgs;
use super::{NOT_FOUND, NOT_YET, Output, note, print};
use inputs::Inputs;
use read::Manifests;
use steps::plan;

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # What would be created for the Services of an application, and what it costs:
  ballast plan -f services.yaml

  # The same for a rendered chart:
  helm template shop ./chart | ballast plan -f -

  # Without a cluster, for a pull request; the classes are in a file:
  ballast plan --offline -f classes.yaml -f services.yaml

  # For scripts: what would be refused, and the cost:
  ballast plan -f services.yaml -o json | jq '.services[] | select(.result == \"Refused\")'
  ballast plan -f services.yaml -o json | jq .monthlyCost

It asks the code that the controller runs, so it refuses the same in the same words. It does not
ask the cloud: what only the cloud knows (quotas, subnets, what somebody has changed there) can
differ. With a cluster it needs the rights to list Services and LoadBalancerClasses; it lists
Nodes if it may. Of the calls it counts those that change something.

Exit status:
  0  every Service would be served
  1  the cluster or a file cannot be read
  2  invalid usage
  4  the manifests have no Service that a class of Ballast would serve
  5  a Service would be refused, or would wait";

/// Flags of `ballast plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// Manifests: one or many YAML documents, or Lists; - is standard input. Can be repeated.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<String>,

    /// The namespace of manifests that name none.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// Use no cluster: the classes are those of the files, and nothing exists yet.
    #[arg(long, conflicts_with_all = ["kubeconfig", "context"])]
    pub offline: bool,

    /// Output format.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: Output,

    /// For the estimated costs.
    #[command(flatten)]
    pub prices: PriceArgs,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Reads and prints.
pub async fn run(args: PlanArgs) -> Result<ExitCode> {
    let mut manifests = Manifests::default();
    for file in &args.files {
        let about = || files::called(file);
        let text = files::text(file).with_context(about)?;
        manifests.add(&text, &args.namespace).with_context(about)?;
    }
    let mut notes = Vec::new();
    let cluster = if args.offline {
        cluster::Cluster::default()
    } else {
        cluster::read(&args.cluster.client()?, &mut notes).await?
    };
    let inputs = Inputs::of(manifests, cluster, Timestamp::now());
    let report = plan(&inputs, &args.prices.prices());
    match args.output.machine(&report)? {
        Some(out) => print(&out)?,
        None => print(&render::text(&report))?,
    }
    notes.iter().for_each(note);
    for broken in &report.broken {
        note(format_args!("ballast: {broken}"));
    }
    Ok(if !report.broken.is_empty() {
        ExitCode::FAILURE
    } else if report.services.is_empty() {
        ExitCode::from(NOT_FOUND)
    } else if report.refuses() {
        ExitCode::from(NOT_YET)
    } else {
        ExitCode::SUCCESS
    })
}
