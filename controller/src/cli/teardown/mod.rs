//! `ballast teardown`: drains classes, which releases their load balancers and keeps the
//! Services, so that no finalizer remains without a controller and no load balancer without an
//! owner.
//!
//! It records what drains ([`crate::class::drain`]), sets the drain switch of the classes, and
//! watches the controller act on it. If no controller runs, [`takeover`] does the controller's work
//! in this process. [`last_resort`] lets go of the Services instead.
//!
//! [`report`] and [`pulse`] compute the state, [`takeover::next`] decides, [`render`] and
//! [`progress`] format; [`run`] reads, sets the switch, prints, and exits. It can be stopped and
//! restarted at any time, because all of its state is in the cluster.

pub mod args;
mod ask;
mod cluster;
pub mod last_resort;
mod letting_go;
pub mod progress;
pub mod pulse;
pub mod render;
pub mod report;
pub mod takeover;

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ballast_crds::Draining;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Client;
use tokio::time::Instant;

use super::cluster::ReadError;
use super::status::render::View;
use super::{look, note, print, program};
use crate::class::drain::{DrainError, Drains, Record};
use crate::process::causes::causes;
use crate::run::Exit;
pub use args::{EXAMPLES, TeardownArgs};
use ask::{Answer, ask};
use cluster::Flipped;
use progress::{Progress, Screen};
use pulse::{Controller, Pulse};
use report::{Limits, Report, Selection, Verdict, changes};
use takeover::{Help, Next, Worker};

const ONE_SECOND: Duration = Duration::from_secs(1);
/// The longest time without a line of output.
const SIGN: Duration = Duration::from_secs(10);

/// One run of the command.
struct Teardown {
    args: TeardownArgs,
    client: Client,
    selection: Selection,
    lease: (String, String),
    limits: Limits,
    began: Instant,
    pulse: Pulse,
    /// The note that the Lease cannot be read was printed.
    blind: bool,
    /// The owners of the Lease, as last read.
    owners: Vec<OwnerReference>,
    drains: Drains,
    /// What drains, as recorded by this run.
    record: Record,
    /// The drain of this run.
    draining: Draining,
    /// UIDs of the classes whose switch this run has set or found set.
    switched: BTreeSet<String>,
    screen: Screen,
    progress: Progress,
    help: Help,
    worker: Option<Worker>,
}

/// Why the command stops to follow the drain.
enum Followed {
    /// It decided so.
    Until(Report, Verdict),
    /// By a signal.
    Interrupted(Report),
}

/// Drains or undoes a drain, and prints what is left. `stop` completes on a signal.
pub async fn run(args: TeardownArgs, stop: BoxFuture<'static, ()>) -> Result<ExitCode> {
    let people = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let asks = people && !args.yes;
    let mut teardown = Teardown::new(args, asks)?;
    tokio::pin!(stop);
    if teardown.args.release_finalizers {
        return letting_go::run(&mut teardown, asks, stop).await;
    }
    let Some(first) = teardown.first_look().await? else {
        return Ok(ExitCode::SUCCESS);
    };
    if teardown.args.undo {
        return teardown.undo().await;
    }
    if teardown.args.dry_run {
        return teardown.dry_run(&first);
    }
    if asks && ask(&render::question(&first), stop.as_mut()).await? != Answer::Yes {
        bail!("cancelled; nothing was changed");
    }
    teardown.drain(first, stop).await
}

fn view() -> View<'static> {
    View {
        look: look(std::io::stdout().is_terminal()),
        now: Timestamp::now(),
        program: program(),
    }
}

type Stop<'a> = std::pin::Pin<&'a mut BoxFuture<'static, ()>>;

// === impl Teardown ===

impl Teardown {
    fn new(args: TeardownArgs, asks: bool) -> Result<Self> {
        let client = args.cluster.client()?;
        let lease = (
            args.lease.lease_namespace.clone(),
            args.lease.lease_name.clone(),
        );
        Ok(Self {
            selection: if args.classes.is_empty() {
                Selection::All
            } else {
                Selection::Named(args.classes.iter().cloned().collect())
            },
            limits: Limits {
                wait: args.wait,
                timeout: args.timeout,
            },
            began: Instant::now(),
            pulse: Pulse::default(),
            blind: false,
            owners: Vec::new(),
            drains: Drains::beside(client.clone(), &lease),
            record: Record::default(),
            draining: Draining {
                since: Time(Timestamp::now()),
                reason: args.reason.clone(),
            },
            switched: BTreeSet::new(),
            screen: Screen::of_process(),
            progress: Progress::default(),
            help: match (args.takeover, args.wait && asks) {
                (true, _) => Help::Allowed,
                (false, true) => Help::Ask,
                (false, false) => Help::No,
            },
            worker: None,
            client,
            lease,
            args,
        })
    }

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

    /// First the record, then the classes as they are after that: a class that the controller
    /// drains meanwhile, because it has read the record before, is among them.
    async fn undo(&mut self) -> Result<ExitCode> {
        let scope = self.selection.scope();
        let ended = self.drains.edit(|it| it.without(&scope)).await;
        let recorded = match tolerated(ended)? {
            Ok((before, now)) => before != now,
            Err(error) => {
                let drains = &self.drains;
                note(format_args!("cannot write {drains}: {}", causes(&error)));
                true
            }
        };
        let cluster = self::cluster::read(&self.client).await?;
        let report = Report::of(&cluster, &self.selection, Controller::default());
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
        } else if !recorded {
            note(format_args!(
                "there is no {}: if the controller has another Lease, name it (--lease-namespace, --lease-name); otherwise classes that are created later may drain",
                self.drains
            ));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn dry_run(&self, report: &Report) -> Result<ExitCode> {
        let out = self.args.output.machine(report)?;
        print(&out.unwrap_or_else(|| render::plan(report, view())))?;
        note(format_args!(
            "would drain {}; nothing was changed",
            render::classes(report)
        ));
        Ok(ExitCode::SUCCESS)
    }

    /// Records what drains, so that it also holds for classes that are created again. Without
    /// the right to do so, the switches of the classes must do.
    async fn record(&mut self) -> Result<()> {
        let mut owners = self.owners.clone();
        if owners.is_empty() {
            // That of the Job, which goes with the installation, too.
            owners.extend(self::cluster::account(&self.client, &self.lease.0).await);
        }
        let drains = self.drains.clone().owned_by(owners);
        let (scope, draining) = (self.selection.scope(), &self.draining);
        let recorded = drains.edit(|it| it.with(&scope, draining)).await;
        match tolerated(recorded)? {
            Ok((_, record)) => self.record = record,
            Err(error) if self.args.takeover => {
                let error = anyhow::Error::new(error);
                return Err(error.context(format!("cannot write {}", self.drains)));
            }
            Err(error) => note(format_args!(
                "cannot write {}: {}; a class that is deleted and created again meanwhile can create load balancers until this command sees it",
                self.drains,
                causes(&error)
            )),
        }
        Ok(())
    }

    async fn drain(&mut self, first: Report, stop: Stop<'_>) -> Result<ExitCode> {
        self.record().await?;
        let followed = self.follow(first, stop).await;
        self.screen.clear();
        let worker = self.worker.take();
        let took_over = worker.as_ref().map(|it| it.identity.clone());
        let released = match worker {
            Some(worker) => worker.stop().await.map(drop),
            None => Ok(()),
        };
        let (report, end) = match followed? {
            Followed::Until(report, end) => (report, end),
            Followed::Interrupted(report) => {
                note(format_args!("stopped; the classes keep draining"));
                let done = report.left.is_empty();
                (report, if done { Verdict::Done } else { Verdict::Left })
            }
        };
        released.context("the work of the controller did not end well")?;
        // This process was the only controller.
        let controller = &report.controller;
        let ours = controller.holder == took_over || controller.is_away();
        let nobody = took_over.is_some() && ours;
        match end {
            Verdict::Left if nobody => self.end(&report, Verdict::Dead, true),
            end => self.end(&report, end, took_over.is_some()),
        }
    }

    async fn follow(&mut self, first: Report, mut stop: Stop<'_>) -> Result<Followed> {
        let mut before = None;
        let mut now = first;
        let mut said = Instant::now();
        loop {
            let flipped = self.put_on(&now).await?;
            if self.tell(before.as_ref(), &now) {
                said = Instant::now();
            }
            self.look_after_worker().await?;
            // This report is from before the switches were set.
            if !flipped {
                let elapsed = self.began.elapsed();
                match takeover::next(&now, elapsed, self.limits, self.help) {
                    Next::GoOn => {}
                    Next::End(end) => return Ok(Followed::Until(now, end)),
                    Next::TakeOver => self.take_over(&now).await?,
                    Next::Ask => {
                        self.screen.clear();
                        let question = render::take_over(&now, &self.lease);
                        self.help = match ask(&question, stop.as_mut()).await? {
                            Answer::Yes => Help::Allowed,
                            Answer::No => Help::No,
                            Answer::Stopped => return Ok(Followed::Interrupted(now)),
                        };
                        continue;
                    }
                }
            }
            if said.elapsed() >= SIGN && !self.screen.has_bar() {
                let told = now.controller.told(&self.lease);
                let elapsed = self.began.elapsed();
                let line = progress::waiting(&now, &self.progress, elapsed, &told);
                self.screen.line(line);
                said = Instant::now();
            }
            let next = tokio::select! {
                next = self.next(flipped) => next?,
                () = stop.as_mut() => return Ok(Followed::Interrupted(now)),
            };
            if let Some(next) = next {
                before = Some(std::mem::replace(&mut now, next));
            }
        }
    }

    /// Shows the state and what has changed; returns whether it wrote a line.
    fn tell(&mut self, before: Option<&Report>, now: &Report) -> bool {
        self.progress.observe(now);
        let bar = self.screen.has_bar();
        let lines = changes(before, now, bar);
        for line in &lines {
            self.screen.line(line);
        }
        if self.limits.wait {
            self.screen.draw(now, &self.progress, self.began.elapsed());
        }
        !lines.is_empty()
    }

    /// Begins to do the work of the controller.
    async fn take_over(&mut self, report: &Report) -> Result<()> {
        if self.record == Record::default() {
            bail!(
                "without {} a class that is created again would be served; nothing is released",
                self.drains
            );
        }
        let cluster = self::cluster::read(&self.client).await?;
        takeover::check(&self.args, &cluster, report).await?;
        let options = takeover::options(&self.args, &self.selection)?;
        self.screen.line(format_args!(
            "{}; doing its work as {}",
            report.controller.told(&self.lease),
            options.election.identity()
        ));
        self.worker = Some(Worker::start(&self.args, options)?);
        self.help = Help::Working;
        Ok(())
    }

    /// A worker that lost the Lease has left the work to another controller.
    async fn look_after_worker(&mut self) -> Result<()> {
        let ended = self.worker.take_if(|it| it.is_finished());
        let Some(worker) = ended else {
            return Ok(());
        };
        let exit = worker.stop().await;
        let exit = exit.context("cannot do the work of the controller")?;
        self.help = Help::Allowed;
        if exit == Exit::LeaseLost {
            self.screen
                .line("lost the Lease; another controller may go on");
        }
        Ok(())
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
                let error = causes(&error);
                self.screen.line(format_args!("{error}; trying again"));
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
            // As the controller would set it.
            let recorded = self.record.covers(&class.name);
            let draining = recorded.unwrap_or(&self.draining);
            if self.flip(&class.name, Some(draining)).await? == Flipped::Yes {
                self.screen
                    .line(format_args!("class {}: draining", class.name));
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
            Ok(lease) => {
                self.pulse.observe(lease.as_ref(), self.began.elapsed());
                let owners = lease.and_then(|lease| lease.metadata.owner_references);
                self.owners = owners.unwrap_or_default();
            }
            Err(error) if !self.blind => {
                self.blind = true;
                let (namespace, name) = &self.lease;
                self.screen.line(format_args!(
                    "cannot tell whether a controller is running: cannot read the Lease {namespace}/{name}: {}",
                    causes(&error)
                ));
            }
            Err(_) => {}
        }
        self.pulse.controller(elapsed, Timestamp::now())
    }

    fn end(&self, report: &Report, verdict: Verdict, took_over: bool) -> Result<ExitCode> {
        self.print(report)?;
        let drained = !self.switched.is_empty();
        let (text, code) = render::end(
            report,
            verdict,
            (drained, took_over),
            &self.lease,
            program(),
        );
        note(text);
        Ok(ExitCode::from(code))
    }

    fn print(&self, report: &Report) -> Result<()> {
        let out = self.args.output.machine(report)?;
        print(&out.unwrap_or_else(|| render::left(report, view())))
    }
}

/// Without the right, or without the namespace, the command goes on without the record. Any other
/// error ends it before anything was changed.
fn tolerated<T>(recorded: Result<T, DrainError>) -> Result<Result<T, DrainError>> {
    match recorded {
        Err(DrainError::Failed(error)) if !matches!(*error, kube::Error::Api(_)) => {
            Err(DrainError::Failed(error).into())
        }
        Err(DrainError::Timeout) => Err(DrainError::Timeout.into()),
        recorded => Ok(recorded),
    }
}
