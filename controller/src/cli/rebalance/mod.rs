//! `ballast rebalance`: asks the announcers to spread addresses evenly over the nodes, and waits
//! until they have.
//!
//! It sets an annotation on the classes; the announcers move the addresses, one after the other, and say
//! in their objects when they have ended. [`spread`] computes the state from these and decides when to
//! stop: pure. The only I/O is in [`run`] and [`Rebalance`].
//!
//! Announcers ignore a request that is older than an hour, so it has the time of the API server: the clock
//! of this machine may be wrong.

pub mod spread;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ballast_crds::{Announcer, LoadBalancerClass, REBALANCE_AT};
use clap::Args;
use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::client::Body;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource as _};
use serde_json::json;
use tokio::time::Instant;

use super::cluster::{ClusterArgs, ReadError, helpful, list};
use super::times::time;
use super::{NOBODY, NOT_FOUND, NOT_YET, Output, note, print, program};
use crate::cluster::conditions::rfc3339;
use crate::cluster::writer::MANAGER;
use crate::process::causes::causes;
use spread::{Progress, Report, Spread, State};

/// Shown below the flags.
pub const EXAMPLES: &str = "\
Examples:
  # After nodes were added or rebooted, spread the addresses of all classes evenly:
  ballast rebalance

  # Only the addresses of one class, without waiting:
  ballast rebalance edge --no-wait

  # For scripts: the addresses of each node afterwards:
  ballast rebalance -o json | jq -r '.nodes[] | .node, .addresses'

Addresses move one after the other, about one per second. Each move resets the established
connections of its address. Preferred nodes (spec.l2.preferredNodes) get the addresses that they
can announce. To spread addresses without this command, set spec.l2.rebalance: Gradual.

The command waits until the announcers say that they have ended: when nothing has been left to move
for 10 s, or after an hour. Then the numbers of two nodes differ by at most one, except that a node
can announce only the addresses of its networks and of the classes that select it. If you stop the
command, the announcers continue.

Exit status:
  0  the addresses are spread, or --no-wait
  1  error
  2  invalid usage
  4  CLASS does not exist
  5  addresses still move, or no announcer took up the request
  6  no announcer runs";

const ONE_SECOND: Duration = Duration::from_secs(1);
/// The shortest time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);
/// The longest time without a line of output.
const SIGN: Duration = Duration::from_secs(10);

/// Flags of `ballast rebalance`.
#[derive(Clone, Debug, Args)]
pub struct RebalanceArgs {
    /// Rebalance only the addresses of these classes. Default: all l2 classes.
    #[arg(value_name = "CLASS")]
    pub classes: Vec<String>,

    /// Do not wait.
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,

    /// Longest time to wait.
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = time)]
    pub timeout: Duration,

    /// Output format.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub output: Output,

    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// One run of the command.
struct Rebalance {
    client: Client,
    requested: Timestamp,
    classes: Vec<String>,
    timeout: Duration,
    output: Output,
    began: Instant,
}

/// Asks, waits, and prints the result. `stop` completes on a signal.
pub async fn run(args: RebalanceArgs, stop: BoxFuture<'static, ()>) -> Result<ExitCode> {
    let client = args.cluster.client()?;
    let api = Api::<DeserializeGuard<LoadBalancerClass>>::all(client.clone());
    let all = list(&api, "LoadBalancerClasses", &ListParams::default()).await;
    let all = all.map_err(helpful)?;
    let chosen = spread::choose(&all, &args.classes);
    if let Some(missing) = chosen.missing.first() {
        note(format_args!(
            "ballast: LoadBalancerClass {missing} not found"
        ));
        return Ok(ExitCode::from(NOT_FOUND));
    }
    if let Some(other) = chosen.others.first() {
        bail!(
            "LoadBalancerClass {other} is not of the l2 provider: no node announces its addresses"
        );
    }
    if chosen.classes.is_empty() {
        note("no LoadBalancerClass of the l2 provider found; nothing to do");
        return Ok(ExitCode::SUCCESS);
    }
    let now = server_time(&client).await?;
    let rebalance = Rebalance {
        client,
        requested: spread::request(now, chosen.asked),
        classes: chosen.classes,
        timeout: args.timeout,
        output: args.output,
        began: Instant::now(),
    };
    // Read first: without announcers nobody would act on the request.
    let first = rebalance.read().await?;
    if first.is_empty() {
        note("no announcer runs in this cluster; see: kubectl get announcers");
        return Ok(ExitCode::from(NOBODY));
    }
    for class in &rebalance.classes {
        rebalance.ask(class).await?;
    }
    if args.no_wait {
        note(format_args!(
            "requested; to see where addresses are: {} status --announcers",
            program()
        ));
        rebalance.print(&Progress::begin(first), State::Requested)?;
        return Ok(ExitCode::SUCCESS);
    }
    rebalance.wait(first, stop).await
}

/// The time at the API server.
async fn server_time(client: &Client) -> Result<Timestamp> {
    let url = LoadBalancerClass::url_path(&(), None) + "?limit=1";
    let request = http::Request::get(url).body(Body::empty())?;
    let answer = client.send(request).await.map_err(anyhow::Error::from);
    let answer = answer.context("cannot read the time of the API server")?;
    let date = answer.headers().get(http::header::DATE);
    let date = date.and_then(|date| date.to_str().ok());
    let time = date.and_then(spread::server_time);
    Ok(time.unwrap_or_else(|| {
        note("the API server does not say what time it is; using the clock of this machine");
        Timestamp::now()
    }))
}

// === impl Rebalance ===

impl Rebalance {
    async fn ask(&self, class: &str) -> Result<()> {
        // A class that cannot be parsed can be annotated as well.
        let api: Api<DeserializeGuard<LoadBalancerClass>> = Api::all(self.client.clone());
        let annotation = json!({REBALANCE_AT: rfc3339(self.requested)});
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotation}}));
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned() + "-rebalance"),
            ..PatchParams::default()
        };
        let asked = api.patch(class, &params, &patch).await;
        asked
            .map(drop)
            .with_context(|| format!("cannot annotate LoadBalancerClass {class}"))
    }

    async fn read(&self) -> Result<Spread> {
        let api = Api::<DeserializeGuard<Announcer>>::all(self.client.clone());
        let all = list(&api, "Announcers", &ListParams::default()).await;
        Ok(Spread::of(&all.map_err(helpful)?, self.requested))
    }

    async fn wait(&self, first: Spread, stop: BoxFuture<'static, ()>) -> Result<ExitCode> {
        tokio::pin!(stop);
        let mut progress = Progress::begin(first);
        let mut said = Instant::now();
        loop {
            let state = progress.state(self.began.elapsed());
            if state != State::Moving || self.began.elapsed() >= self.timeout {
                return self.end(&progress, state);
            }
            tokio::select! {
                () = tokio::time::sleep(ONE_SECOND) => {}
                () = &mut stop => {
                    note("stopped; the announcers continue");
                    return self.end(&progress, State::Moving);
                }
            }
            match self.read().await {
                Ok(spread) => progress.observe(spread, self.began.elapsed()),
                Err(error) if is_silence(&error) && self.began.elapsed() < self.timeout => {
                    note(format_args!("{}; trying again", causes(error.as_ref())));
                }
                Err(error) => return Err(error),
            }
            let pause = if progress.has_news() { PROGRESS } else { SIGN };
            if said.elapsed() >= pause {
                note(progress.line());
                said = Instant::now();
            }
        }
    }

    fn end(&self, progress: &Progress, state: State) -> Result<ExitCode> {
        self.print(progress, state)?;
        note(spread::summary(progress, state, program()));
        Ok(match state {
            State::Moving | State::Ignored => ExitCode::from(NOT_YET),
            State::Even | State::Settled | State::Requested => ExitCode::SUCCESS,
        })
    }

    fn print(&self, progress: &Progress, state: State) -> Result<()> {
        let report = Report::of(progress, state, self.requested, &self.classes);
        let out = self.output.machine(&report)?;
        print(&out.unwrap_or_else(|| spread::table(&report)))
    }
}

/// Whether the API server did not answer.
fn is_silence(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ReadError::NoAnswer { .. }))
}
