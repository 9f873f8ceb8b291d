//! The order of a run: rounds of contenders, each starting from its own state.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use anyhow::{Context, Result, bail};

use super::bed::{self, Bed};
use super::contender::Task;
use super::inside::Mode;
use super::terms::{Contender, Sample, Scenario, Values};
use super::{lan, pool, scenario, start, writes};
use crate::{Binaries, Lab, Progress};

/// The reference controller with its defaults handles five Services a second.
const DEFAULTS_AT_MOST: u32 = 100;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
    /// The contenders.
    pub contenders: Vec<Contender>,
    /// The number of rounds.
    pub rounds: u32,
    /// A number of Services that replaces each scenario's own.
    pub services: Option<u32>,
    /// Concurrencies of the raw loop to try; the best one is used.
    pub sweep: Vec<usize>,
    /// Prefix of the labs' names.
    pub name: String,
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Every measurement.
    pub samples: Vec<Sample>,
    /// The best concurrency of the raw loop, by scenario.
    pub concurrency: Vec<(Scenario, usize)>,
}

/// A run in progress.
struct Run {
    options: Options,
    reference: PathBuf,
    progress: Progress,
    outcome: Outcome,
}

/// Runs all requested measurements.
pub async fn run(options: Options) -> Result<Outcome> {
    if options.rounds == 0 || options.sweep.is_empty() {
        bail!("nothing to measure: --repeat and --sweep need at least one");
    }
    let progress = Progress::new(true);
    let reference =
        tokio::task::spawn_blocking(move || Binaries::ensure(progress)?.reference(progress))
            .await??;
    let mut run = Run {
        options,
        reference,
        progress,
        outcome: Outcome {
            samples: vec![],
            concurrency: vec![],
        },
    };
    let (counted, timed): (Vec<_>, Vec<_>) = run
        .options
        .scenarios
        .clone()
        .into_iter()
        .partition(|scenario| scenario.is_counted());
    for (audit, scenarios) in [(true, counted), (false, timed)] {
        if !scenarios.is_empty() {
            run.on_lab(audit, |run, bed| Box::pin(run.all(bed, scenarios)))
                .await?;
        }
    }
    Ok(run.outcome)
}

/// A measurement on a bed.
type Work<'f> = Pin<Box<dyn Future<Output = Result<()>> + 'f>>;

impl Run {
    /// Starts a lab for one kind of measurement, and stops it at the end.
    async fn on_lab<F>(&mut self, audit: bool, work: F) -> Result<()>
    where
        F: for<'f> FnOnce(&'f mut Self, &'f Bed<'f>) -> Work<'f>,
    {
        let kind = if audit { "writes" } else { "times" };
        let name = format!("{}-{kind}", self.options.name);
        let booting = || format!("booting the lab {name}");
        self.progress.say(booting());
        let options = bed::options(&name, audit);
        let lab = self.progress.while_waiting(booting, Lab::start(options));
        let lab = lab.await?;
        let made = Bed::make(&lab, self.reference.clone());
        let made = self.progress.while_waiting(booting, made).await;
        let worked = match &made {
            Ok(bed) => work(self, bed).await,
            Err(_) => Ok(()),
        };
        drop(made?);
        let worked = lab.explain(worked).await;
        lab.down().await?;
        worked
    }

    async fn all(&mut self, bed: &Bed<'_>, scenarios: Vec<Scenario>) -> Result<()> {
        bed.save("empty").await?;
        for scenario in scenarios {
            let services = self.services(scenario, Contender::Ballast);
            let snapshot = match scenario {
                Scenario::Start | Scenario::Load | Scenario::Writes => "empty".to_owned(),
                Scenario::Backlog1000 | Scenario::Backlog5000 => {
                    scenario::fill(bed, services, None, self.progress).await?
                }
                Scenario::Pool5000 => {
                    scenario::fill(bed, services, Some(lan::WIDE), self.progress).await?
                }
                Scenario::PoolLife => {
                    let exact = lan::of_size(services);
                    scenario::fill(bed, services, Some(&exact), self.progress).await?
                }
            };
            self.rounds(bed, scenario, &snapshot).await?;
        }
        Ok(())
    }

    async fn rounds(&mut self, bed: &Bed<'_>, scenario: Scenario, snapshot: &str) -> Result<()> {
        let mut contenders = self.contenders(scenario);
        let mut concurrency = self.options.sweep[0];
        // A start has no concurrency to choose.
        if contenders.contains(&Contender::Raw) && scenario != Scenario::Start {
            concurrency = self.sweep(bed, scenario, snapshot).await?;
            self.outcome.concurrency.push((scenario, concurrency));
        }
        for round in 1..=scenario.rounds(self.options.rounds) {
            for contender in contenders.clone() {
                if contender == Contender::ReferenceDefaults && round > 1 {
                    continue;
                }
                let values = self
                    .measure(bed, scenario, snapshot, contender, concurrency)
                    .await
                    .with_context(|| format!("{} of {}", scenario.title(), contender.title()))?;
                self.note(scenario, contender, round, values);
            }
            // The first contender of a round is the last of the next.
            contenders.rotate_left(1);
        }
        Ok(())
    }

    /// The best concurrency of the raw loop.
    async fn sweep(&mut self, bed: &Bed<'_>, scenario: Scenario, snapshot: &str) -> Result<usize> {
        let sweep = self.options.sweep.clone();
        if let [only] = sweep[..] {
            return Ok(only);
        }
        let mut best = (f64::INFINITY, sweep[0]);
        for concurrency in sweep {
            let values = self
                .measure(bed, scenario, snapshot, Contender::Raw, concurrency)
                .await?;
            let value = values.get(scenario.key()).copied().unwrap_or(f64::NAN);
            self.progress.say(format!(
                "{}: raw loop, {concurrency} at once: {value:.2}",
                scenario.title()
            ));
            if value < best.0 {
                best = (value, concurrency);
            }
        }
        Ok(best.1)
    }

    /// One measurement. Says what it measures while it does.
    async fn measure(
        &self,
        bed: &Bed<'_>,
        scenario: Scenario,
        snapshot: &str,
        contender: Contender,
        concurrency: usize,
    ) -> Result<Values> {
        let doing = || format!("measuring: {}, {}", scenario.title(), contender.title());
        let values = self.values(bed, scenario, snapshot, contender, concurrency);
        self.progress.while_waiting(doing, values).await
    }

    async fn values(
        &self,
        bed: &Bed<'_>,
        scenario: Scenario,
        snapshot: &str,
        contender: Contender,
        concurrency: usize,
    ) -> Result<Values> {
        bed.restore(snapshot).await?;
        let services = self.services(scenario, contender);
        let backlog = Task {
            concurrency,
            mode: Mode::Backlog,
        };
        match scenario {
            Scenario::Backlog1000 | Scenario::Backlog5000 => {
                scenario::backlog(bed, contender, services, backlog).await
            }
            Scenario::Pool5000 => {
                let addresses = Task {
                    mode: Mode::Addresses,
                    ..backlog
                };
                scenario::backlog(bed, contender, services, addresses).await
            }
            Scenario::PoolLife => pool::life(bed, services).await,
            Scenario::Start => start::start(bed, contender).await,
            Scenario::Load => scenario::load(bed, contender, services, concurrency).await,
            Scenario::Writes => writes::writes(bed, contender, services).await,
        }
    }

    fn note(&mut self, scenario: Scenario, contender: Contender, round: u32, values: Values) {
        let value = values.get(scenario.key()).copied().unwrap_or(f64::NAN);
        self.progress.say(format!(
            "{}, round {round}, {}: {} {value:.2}",
            scenario.title(),
            contender.title(),
            scenario.key()
        ));
        self.outcome.samples.push(Sample {
            scenario,
            contender,
            round,
            services: self.services(scenario, contender),
            values,
        });
    }

    fn services(&self, scenario: Scenario, contender: Contender) -> u32 {
        if scenario == Scenario::Start {
            return 0;
        }
        let all = self.options.services.unwrap_or(scenario.services());
        match contender {
            Contender::ReferenceDefaults => all.min(DEFAULTS_AT_MOST),
            _ => all,
        }
    }

    fn contenders(&self, scenario: Scenario) -> Vec<Contender> {
        let all = self.options.contenders.iter().copied();
        all.filter(|contender| scenario.fits(*contender)).collect()
    }
}
