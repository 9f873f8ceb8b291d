//! `ballast teardown`: drains classes, which releases their load balancers and keeps the
//! Services, so that no finalizer remains without a controller and no load balancer without an
//! owner.
//!
//! It sets the drain switch and watches the controller act on it; it releases nothing itself.
//! [`report`] and [`pulse`] compute the state, [`render`] formats it; [`run`] reads, sets the
//! switch, prints, and exits. It can be stopped and restarted at any time, because all of its
//! state is in the cluster.

mod cluster;
pub mod pulse;
pub mod render;
pub mod report;

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ballast_crds::Draining;
use clap::Args;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use tokio::time::Instant;

use super::cluster::{ClusterArgs, LeaseArgs, ReadError};
use super::status::render::View;
use super::{NOBODY, NOT_YET, Output, look, note, print, program};
use crate::process::causes::causes;
use crate::process::text::one_line;
use cluster::Flipped;
use pulse::{Controller, Pulse};
use report::{Limits, Report, Selection, Verdict, changes, summary, verdict};

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # Before you remove Ballast or the cluster, release all load balancers:
  ballast teardown --wait

  # Show what would be released:
  ballast teardown --dry-run

  # Release the load balancers of one class. Its Services stay without addresses until --undo:
  ballast teardown --wait --classes edge
  ballast teardown --undo --classes edge

A draining class creates no load balancers and releases existing ones; new Services are refused
with the reason Draining. With deletionPolicy Retain the load balancers stay in the cloud.
Without --wait the command only starts the drain, and the controller continues it.

You can run the command again at any time. If the controller has not renewed its Lease for twice
the duration of the Lease (30 s), the command stops; the classes keep draining, and the next
controller continues. On a terminal the command asks for confirmation, unless --yes is set.

Exit status:
  0  nothing is left, or --undo or --dry-run succeeded
  1  error
  2  invalid usage
  5  something is left
  6  something is left, and no controller is running";

const ONE_SECOND: Duration = Duration::from_secs(1);
/// The longest time without a line of output.
const SIGN: Duration = Duration::from_secs(10);

/// Flags of `ballast teardown`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct TeardownArgs {
    /// Wait until all load balancers are released.
    #[arg(long)]
    pub wait: bool,

    /// Longest time to wait.
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = time, requires = "wait")]
    pub timeout: Duration,

    /// Drain only these classes (comma-separated). Default: all classes.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub classes: Vec<String>,

    /// End the drain. The classes create load balancers again.
    #[arg(long, conflicts_with_all = ["wait", "timeout", "dry_run", "reason"])]
    pub undo: bool,

    /// Only show what would be released.
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,

    /// Reason for the drain. It appears in the conditions of classes and Services.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,

    /// Do not ask for confirmation.
    #[arg(short, long)]
    pub yes: bool,

    /// Output format.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: Output,

    /// The Lease that shows whether a controller is running.
    #[command(flatten)]
    pub lease: LeaseArgs,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// One run of the command.
struct Teardown {
    client: Client,
    selection: Selection,
    lease: (String, String),
    limits: Limits,
    reason: Option<String>,
    output: Output,
    began: Instant,
    pulse: Pulse,
    /// The note that the Lease cannot be read was printed.
    blind: bool,
    /// UIDs of the classes whose switch this run has set or found set.
    switched: BTreeSet<String>,
}

/// Drains or undoes a drain, and prints what is left. `stop` completes on a signal.
pub async fn run(args: TeardownArgs, stop: BoxFuture<'static, ()>) -> Result<ExitCode> {
    let client = args.cluster.client()?;
    let mut teardown = Teardown {
        client,
        selection: if args.classes.is_empty() {
            Selection::All
        } else {
            Selection::Named(args.classes.iter().cloned().collect())
        },
        lease: (args.lease.lease_namespace, args.lease.lease_name),
        limits: Limits {
            wait: args.wait,
            timeout: args.timeout,
        },
        reason: args.reason,
        output: args.output,
        began: Instant::now(),
        pulse: Pulse::default(),
        blind: false,
        switched: BTreeSet::new(),
    };
    let Some(first) = teardown.first_look().await? else {
        return Ok(ExitCode::SUCCESS);
    };
    if args.undo {
        return teardown.undo(&first).await;
    }
    if args.dry_run {
        return teardown.dry_run(&first);
    }
    let people = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if people && !args.yes && !agreed(&first)? {
        bail!("cancelled; nothing was changed");
    }
    teardown.drain(first, stop).await
}

/// Asks the user at the terminal.
fn agreed(report: &Report) -> Result<bool> {
    eprint!("{}", render::question(report));
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    let answer = answer.trim().to_lowercase();
    Ok(["y", "yes"].contains(&answer.as_str()))
}

/// A time such as `10m`, for a flag.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration = text
        .parse()
        .map_err(|_| "not a time such as 90s, 10m or 1h30m".to_owned())?;
    if parsed.is_negative() {
        return Err("it must not be negative".to_owned());
    }
    Ok(parsed.into())
}

fn reason(text: &str) -> Result<String, String> {
    let text = one_line(text);
    if text.chars().count() > 256 {
        return Err("at most 256 characters".to_owned());
    }
    Ok(text)
}

fn view() -> View<'static> {
    View {
        look: look(std::io::stdout().is_terminal()),
        now: Timestamp::now(),
        program: program(),
    }
}

// === impl Teardown ===

impl Teardown {
    /// `None`: there is nothing to tear down, and a note was printed.
    async fn first_look(&mut self) -> Result<Option<Report>> {
        let cluster = self::cluster::read(&self.client).await?;
        if cluster.classes.is_none() {
            note(format_args!(
                "the cluster does not serve LoadBalancerClasses; nothing to do"
            ));
            return Ok(None);
        }
        let controller = self.controller().await;
        let report = Report::of(&cluster, &self.selection, controller);
        if let Some(missing) = render::missing(&report, &self.selection) {
            note(format_args!("{missing}"));
        }
        Ok(Some(report))
    }

    async fn undo(&self, report: &Report) -> Result<ExitCode> {
        let drained = report.classes.iter().filter(|it| it.draining.is_some());
        let mut none = true;
        for class in drained {
            none = false;
            if self.flip(&class.name, None).await? == Flipped::Yes {
                note(format_args!("class {}: no longer draining", class.name));
            }
        }
        if none {
            note(format_args!("no class is draining"));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn dry_run(&self, report: &Report) -> Result<ExitCode> {
        let out = self.output.machine(report)?;
        print(&out.unwrap_or_else(|| render::plan(report, view())))?;
        note(format_args!(
            "would drain {}; nothing was changed",
            render::classes(report)
        ));
        Ok(ExitCode::SUCCESS)
    }

    async fn drain(&mut self, first: Report, stop: BoxFuture<'static, ()>) -> Result<ExitCode> {
        tokio::pin!(stop);
        let mut before = None;
        let mut now = first;
        let mut said = Instant::now();
        loop {
            let flipped = self.put_on(&now).await?;
            for line in changes(before.as_ref(), &now) {
                note(format_args!("{line}"));
                said = Instant::now();
            }
            // This report is from before the switches were set.
            if !flipped {
                match verdict(&now, self.began.elapsed(), self.limits) {
                    Verdict::GoOn => {}
                    end => return self.end(&now, end),
                }
            }
            if said.elapsed() >= SIGN {
                note(format_args!("{}", render::waiting(&now, &self.lease)));
                said = Instant::now();
            }
            let next = tokio::select! {
                next = self.next(flipped) => next?,
                () = &mut stop => return self.interrupted(&now),
            };
            if let Some(next) = next {
                before = Some(std::mem::replace(&mut now, next));
            }
        }
    }

    /// Reads again after a pause; `None`: the API server did not answer, and a note was
    /// printed.
    async fn next(&mut self, soon: bool) -> Result<Option<Report>> {
        if !soon {
            tokio::time::sleep(ONE_SECOND).await;
        }
        let begun = Instant::now();
        match self::cluster::read(&self.client).await {
            Ok(cluster) => {
                let controller = self.controller().await;
                // The slower a read is, the less often it is repeated.
                tokio::time::sleep(begun.elapsed().min(5 * ONE_SECOND)).await;
                Ok(Some(Report::of(&cluster, &self.selection, controller)))
            }
            Err(error @ ReadError::NoAnswer { .. })
                if self.limits.wait && self.began.elapsed() < self.limits.timeout =>
            {
                note(format_args!("{}; trying again", causes(&error)));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sets the switch where it is off, and returns whether it did. It does so once per class:
    /// if someone else removes the switch, that is deliberate.
    async fn put_on(&mut self, report: &Report) -> Result<bool> {
        let mut any = false;
        for class in &report.classes {
            let first = self.switched.insert(class.uid.clone());
            if class.draining.is_some() {
                continue;
            }
            if !first {
                bail!(
                    "the drain of class {} was ended by someone else; stopping",
                    class.name
                );
            }
            let draining = Draining {
                since: Time(Timestamp::now()),
                reason: self.reason.clone(),
            };
            if self.flip(&class.name, Some(&draining)).await? == Flipped::Yes {
                note(format_args!("class {}: draining", class.name));
                any = true;
            }
        }
        Ok(any)
    }

    async fn flip(&self, class: &str, draining: Option<&Draining>) -> Result<Flipped> {
        self::cluster::flip(&self.client, class, draining)
            .await
            .with_context(|| format!("cannot write the status of LoadBalancerClass {class}"))
    }

    async fn controller(&mut self) -> Controller {
        let elapsed = self.began.elapsed();
        match self::cluster::lease(&self.client, &self.lease).await {
            Ok(lease) => self.pulse.observe(lease.as_ref(), self.began.elapsed()),
            Err(error) if !self.blind => {
                self.blind = true;
                let (namespace, name) = &self.lease;
                note(format_args!(
                    "cannot tell whether a controller is running: cannot read the Lease {namespace}/{name}: {}",
                    causes(&error)
                ));
            }
            Err(_) => {}
        }
        self.pulse.controller(elapsed, Timestamp::now())
    }

    fn interrupted(&self, report: &Report) -> Result<ExitCode> {
        note(format_args!("stopped; the classes keep draining"));
        let end = match verdict(report, Duration::ZERO, self.limits) {
            Verdict::Done => Verdict::Done,
            _ => Verdict::Left,
        };
        self.end(report, end)
    }

    fn end(&self, report: &Report, verdict: Verdict) -> Result<ExitCode> {
        self.print(report)?;
        let (lease, again) = (&self.lease, program());
        Ok(match verdict {
            Verdict::Done if report.classes.is_empty() => {
                note(format_args!("no LoadBalancerClass found; nothing to do"));
                ExitCode::SUCCESS
            }
            Verdict::Done => {
                note(format_args!(
                    "all load balancers of {} are released",
                    render::classes(report)
                ));
                ExitCode::SUCCESS
            }
            Verdict::Dead => {
                note(format_args!(
                    "not released: {}; {}. The drain continues when a controller runs; then run this again: {again} teardown --wait",
                    summary(report),
                    report.controller.told(lease)
                ));
                ExitCode::from(NOBODY)
            }
            Verdict::Left | Verdict::GoOn => {
                note(format_args!(
                    "not released yet: {}; {}. The drain continues; to wait for it: {again} teardown --wait; to end it: {again} teardown --undo",
                    summary(report),
                    report.controller.told(lease)
                ));
                ExitCode::from(NOT_YET)
            }
        })
    }

    fn print(&self, report: &Report) -> Result<()> {
        let out = self.output.machine(report)?;
        print(&out.unwrap_or_else(|| render::left(report, view())))
    }
}
