//! `ballast orphans`: finds load balancers whose cluster is gone, says what they cost, and deletes
//! them. It needs credentials for the cloud, and no cluster.
//!
//! ```text
//!  list (all of Ballast's tags) ─▶ report (clusters, their last sign of life, cost) ─▶ render
//!                                     │
//!  --delete ─▶ choose (what may go) ──┴─▶ confirm ─▶ sweep: read again, then delete, one by one
//! ```
//!
//! [`report`] and [`choose`] are pure. [`sweep`] does the I/O of a deletion. It reads the tags and the
//! targets of each load balancer just before, and deletes with the provider that made it
//! ([`ballast_provider::Provider::release`]). So objects go in the same order as in the controller, and
//! the next run finishes what was interrupted.
//!
//! It never deletes what lacks Ballast's tags and what people keep. It deletes what serves only with
//! `--force-live`.

pub mod choose;
mod clouds;
mod cluster;
pub mod render;
pub mod report;
pub mod sweep;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ballast_provider::{Inventory, Prices};
use clap::{Args, ValueEnum};
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::Instant;

use self::choose::{Choice, Plan};
use self::clouds::CloudArgs;
use self::report::{Report, Signs, State};
use super::cluster::ClusterArgs;
use super::prices::PriceArgs;
use super::times::{days, time};
use super::{NOT_FOUND, NOT_YET, look, note, print};
use crate::process::program::WrongUsage;

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # What do clusters that no longer exist still cost in this region?
  ballast orphans --region eu-central-1

  # In a CI job, for a spreadsheet:
  ballast orphans --region eu-central-1,us-east-1 -o csv

  # Delete what one of them has left. The command shows the plan and asks for the cluster's name:
  ballast orphans --region eu-central-1 --delete --cluster staging-7

  # The same without questions:
  ballast orphans --region eu-central-1 --delete --yes --cluster staging-7

  # Load balancers of the current cluster whose Services do not exist:
  ballast orphans --region eu-central-1 --compare

  # A mock cloud:
  ballast orphans --mock-cloud http://127.0.0.1:8111

The controller writes a sign of life on its load balancers each day. A cluster that has given none
for --not-seen-for counts as gone. With less than 2d, a cluster that lives can count as gone, too.
Its load balancers are deleted only if no target of any of them is healthy or an instance that
runs. What cannot be read is not deleted. --force-live deletes without these checks: make sure that
it is the right cluster. The tag ballast.dev/keep protects a load balancer, and so does a changed or
removed tag ballast.dev/cluster.

Exit status:
  0  nothing is left that a cluster that is gone has to pay for
  1  error
  2  invalid usage
  4  --cluster names no cluster that has anything
  5  something is left: the list or the messages say what and why";

/// Flags of `ballast orphans`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct OrphansArgs {
    /// Where to look.
    #[command(flatten)]
    pub clouds: CloudArgs,

    /// Only this cluster: its name, or its UID (of the namespace kube-system).
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,

    /// A cluster counts as gone if it has given no sign of life for this time, such as 12h or 3d.
    #[arg(long, default_value = "3d", value_name = "TIME", value_parser = days)]
    pub not_seen_for: Duration,

    /// Also read the Services of the current cluster, and show which of its load balancers have
    /// none.
    #[arg(long)]
    pub compare: bool,

    /// Delete load balancers of a cluster that is gone.
    #[arg(long)]
    pub delete: bool,

    /// Do not ask. Needs --cluster.
    #[arg(short, long, requires = "delete", requires = "cluster")]
    pub yes: bool,

    /// Delete even if the cluster gives signs of life or a load balancer serves. With --compare:
    /// delete what has no Service in spite of recent signs of life, but nothing that serves.
    #[arg(long, requires = "delete")]
    pub force_live: bool,

    /// Longest time to wait until everything is deleted.
    #[arg(long, default_value = "15m", value_name = "TIME", value_parser = time)]
    pub timeout: Duration,

    /// Output format.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: Format,

    /// Prices.
    #[command(flatten)]
    pub prices: PriceArgs,

    /// Which cluster `--compare` reads.
    #[command(flatten)]
    pub current: ClusterArgs,
}

/// How the list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: a table for each cluster.
    #[value(alias = "table")]
    Text,
    /// For programs: JSON.
    Json,
    /// For spreadsheets: one line for each load balancer.
    Csv,
}

/// Lists, and deletes if asked to. `stop` completes on a signal.
pub async fn run(args: OrphansArgs, stop: BoxFuture<'static, ()>) -> Result<ExitCode> {
    let clouds = args.clouds.clouds().map_err(WrongUsage)?;
    let reports = read_all(&args, &clouds).await?;
    if let Some(wanted) = &args.cluster
        && reports.iter().all(|report| report.clusters.is_empty())
    {
        note(format_args!(
            "no cluster {wanted} has anything here; clusters have UIDs and, if the chart's clusterName is set, names"
        ));
        return Ok(ExitCode::from(NOT_FOUND));
    }
    let prices = args.prices.prices();
    let is_anything_left = if args.delete {
        delete(&args, &clouds, &reports, stop).await?
    } else {
        print(&match args.output {
            Format::Text => {
                let style = look(std::io::stdout().is_terminal());
                render::text(&reports, &prices, style)
            }
            Format::Json => render::json(&reports, &prices)?,
            Format::Csv => render::csv(&reports, &prices),
        })?;
        reports.iter().any(Report::is_anything_left)
    };
    Ok(if is_anything_left {
        ExitCode::from(NOT_YET)
    } else {
        ExitCode::SUCCESS
    })
}

/// Deletes. Everything is chosen and confirmed before anything is deleted. Returns whether something is left that
/// should not be.
async fn delete(
    args: &OrphansArgs,
    clouds: &[clouds::Cloud],
    reports: &[Report],
    stop: BoxFuture<'static, ()>,
) -> Result<bool> {
    let prices = args.prices.prices();
    let mut plans = Vec::new();
    for report in reports {
        let plan = choose::choose(report, &args.choice())?;
        if plan.is_none() {
            note(format_args!("{}: nothing to delete", report.account));
        }
        plans.push(plan);
    }
    for (report, plan) in reports.iter().zip(&plans) {
        if let Some(plan) = plan
            && !confirmed(args, plan, report, &prices)?
        {
            bail!("cancelled; nothing was deleted");
        }
    }
    let everywhere: Vec<(&dyn Inventory, &Report)> =
        clouds.iter().map(AsRef::as_ref).zip(reports).collect();
    let terms = sweep::Terms {
        force_live: args.force_live,
        deadline: Instant::now() + args.timeout,
        is_alive: &|sign| choose::is_alive(sign, args.not_seen_for, Timestamp::now()),
        everywhere: &everywhere,
    };
    let mut left = false;
    let stop = futures::FutureExt::shared(stop);
    for ((cloud, report), plan) in clouds.iter().zip(reports).zip(plans) {
        let Some(plan) = plan else {
            continue;
        };
        // What is too fresh to be deleted is an orphan all the same.
        left |= plan.stays.iter().any(|it| it.state == State::NoService);
        let Some(plan) = again(args, plan).await? else {
            note(format_args!(
                "{}: all of it has a Service now",
                report.account
            ));
            continue;
        };
        let say = |line: &str| note(format_args!("{line}"));
        let swept = sweep::sweep(cloud.as_ref(), &plan, &terms, &say, stop.clone()).await;
        left |= !swept.is_clean();
        print(&match args.output {
            Format::Json => render::swept_json(report, &swept)?,
            Format::Text | Format::Csv => render::swept(report, &swept),
        })?;
    }
    Ok(left)
}

/// Reads the Services once more after the question: one may have come since.
async fn again(args: &OrphansArgs, plan: Plan) -> Result<Option<Plan>> {
    if !args.compare {
        return Ok(Some(plan));
    }
    let live = cluster::live(&args.current.client()?).await?;
    Ok(plan.without(&live))
}

/// Reads all clouds. A cluster that gives a sign of life in one of them is alive in all.
async fn read_all(args: &OrphansArgs, clouds: &[clouds::Cloud]) -> Result<Vec<Report>> {
    let mut all = Vec::new();
    for cloud in clouds {
        note(format_args!(
            "reading the load balancers of {}",
            cloud.name()
        ));
        let objects = cloud.all().await;
        let objects = objects.with_context(|| format!("cannot list {}", cloud.name()))?;
        let account = cloud.account().await;
        let account = account.with_context(|| format!("cannot read {}", cloud.name()))?;
        all.push((account, objects));
    }
    // After the lists of the clouds: whatever they show has its Service here, unless that is gone.
    let live = if args.compare {
        Some(cluster::live(&args.current.client()?).await?)
    } else {
        None
    };
    let signs = Signs::of(all.iter().flat_map(|(_, objects)| objects));
    let (silence, now) = (args.not_seen_for, Timestamp::now());
    let reports = all.into_iter().map(|(account, objects)| {
        let mut report = Report::of(account, &objects, live.as_ref(), &signs, silence, now);
        if let Some(wanted) = &args.cluster {
            report.keep_only(wanted);
        }
        report
    });
    Ok(reports.collect())
}

/// Shows the plan, and has the user type the cluster's name, unless the command line says it.
fn confirmed(args: &OrphansArgs, plan: &Plan, report: &Report, prices: &Prices) -> Result<bool> {
    eprint!("{}", render::plan(plan, report, prices));
    if args.yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        bail!(
            "there is no terminal to confirm on; say --yes --cluster {}",
            plan.cluster.uid
        );
    }
    let name = plan.cluster.called();
    eprint!("Type {name} to delete them: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(answer.trim() == name)
}

// === impl OrphansArgs ===

impl OrphansArgs {
    fn choice(&self) -> Choice<'_> {
        Choice {
            cluster: self.cluster.as_deref(),
            force_live: self.force_live,
            compare: self.compare,
        }
    }
}

#[cfg(test)]
mod tests;
