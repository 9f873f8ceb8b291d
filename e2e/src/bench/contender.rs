//! The contenders as processes: each has the rights of a `ServiceAccount`, runs on the host of
//! the API server, and is a new process per measurement.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::bed::Bed;
use super::inside::Mode;
use super::terms::Contender;
use super::usage;
use crate::{Host, eventually, installation};

pub(super) const BALLAST: &str = "ballast-1";
const REFERENCE: &str = "reference-1";
const REFERENCE_USER: &str = "system:serviceaccount:bench:reference";
const REFERENCE_COUNTS: &str = "http://127.0.0.1:8099/counts";
const PATIENCE: Duration = Duration::from_secs(10);

/// The work of a contender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    /// The concurrency of the raw loop.
    pub(crate) concurrency: usize,
    /// The work of the raw loop.
    pub(crate) mode: Mode,
}

/// A running contender.
#[derive(Debug)]
pub(crate) struct Live {
    /// The name of its process in the lab.
    pub(crate) process: String,
    contender: Contender,
}

/// How often the reference controller has called its cloud.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Counts {
    pub(crate) ensures: u32,
    pub(crate) updates: u32,
}

impl Contender {
    /// Its user name at the API server, as in the audit log.
    pub(crate) const fn user(self) -> &'static str {
        match self {
            Self::Ballast | Self::Raw => installation::USER,
            Self::Reference | Self::ReferenceDefaults => REFERENCE_USER,
        }
    }

    /// Starts it. It may not be ready when this returns.
    pub(crate) async fn start(self, bed: &Bed<'_>, task: Task) -> Result<Live> {
        let process = match self {
            Self::Ballast => {
                bed.ballast
                    .spawn_controller(BALLAST, &["--simulate"])
                    .await?;
                BALLAST.to_owned()
            }
            Self::Reference => {
                let flags = [
                    "--concurrent-service-syncs=10",
                    "--kube-api-qps=-1",
                    "--kube-api-burst=-1",
                ];
                reference(bed, &flags).await?
            }
            Self::ReferenceDefaults => reference(bed, &[]).await?,
            Self::Raw => {
                let concurrency = task.concurrency.to_string();
                let mode = task.mode.name();
                let flags = ["--concurrency", &concurrency, "--mode", mode];
                bed.begin("raw", &flags, &bed.account).await?.name
            }
        };
        Ok(Live {
            process,
            contender: self,
        })
    }
}

async fn reference(bed: &Bed<'_>, flags: &[&str]) -> Result<String> {
    let (program, kubeconfig) = &bed.reference;
    let fixed = [
        program.display().to_string(),
        format!("--kubeconfig={}", kubeconfig.display()),
    ];
    let flags = flags.iter().map(|&flag| flag.to_owned());
    bed.lab
        .spawn(
            REFERENCE,
            Host::ControlPlane,
            fixed.into_iter().chain(flags),
            &[],
        )
        .await?;
    Ok(REFERENCE.to_owned())
}

impl Live {
    /// Waits until it has listed its objects and reports that it is ready. It polls without
    /// long pauses, because the time is measured.
    pub(crate) async fn ready(&self, bed: &Bed<'_>) -> Result<()> {
        let loop_of = |look: String| format!("until {look}; do sleep 0.002; done");
        let look = match self.contender {
            Contender::Ballast => {
                let url = bed.ballast.admin_url(BALLAST, "/readyz")?;
                format!("curl -sf -o /dev/null {url}")
            }
            // The reference controller does not report when it has listed its objects.
            Contender::Reference | Contender::ReferenceDefaults => {
                bail!("{} does not say when it is ready", self.contender.title())
            }
            Contender::Raw => {
                let log = bed.lab.log_path(&self.process);
                format!("grep -qx ready {}", log.display())
            }
        };
        let argv = ["sh", "-c", &loop_of(look)];
        let output = bed.lab.exec_for(Host::ControlPlane, argv, PATIENCE).await?;
        output.ok().map(drop)
    }

    /// Waits until it is working and has nothing left to do.
    pub(crate) async fn idle(&self, bed: &Bed<'_>) -> Result<()> {
        match self.contender {
            Contender::Ballast => {
                bed.ballast.leader(&[BALLAST]).await?;
                bed.ballast.controller_ready(BALLAST).await?;
            }
            Contender::Reference | Contender::ReferenceDefaults => {
                eventually(PATIENCE, || self.counts(bed)).await?;
            }
            Contender::Raw => {
                eventually(PATIENCE, || async {
                    let log = bed.lab.log(&self.process)?;
                    log.lines()
                        .any(|line| line == "ready")
                        .then_some(())
                        .context("not ready")
                })
                .await?;
            }
        }
        usage::quiet(bed.lab, PATIENCE).await
    }

    /// How often the reference controller has called its cloud.
    pub(crate) async fn counts(&self, bed: &Bed<'_>) -> Result<Counts> {
        Ok(serde_json::from_str(&bed.get(REFERENCE_COUNTS).await?)?)
    }

    /// Stops it.
    pub(crate) async fn stop(self, bed: &Bed<'_>) -> Result<()> {
        bed.lab.stop(&self.process).await.map(drop)
    }
}
