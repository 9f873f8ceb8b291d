//! How a demo reports its progress: step by step, with the results and times. The first step
//! that fails is named, and ends the demo with a non-zero exit status.

use std::collections::BTreeSet;
use std::future::Future;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::progress::remind;
use crate::{Lab, LabOptions};

/// The kubectl format for a Service's conditions, one line each.
pub const CONDITIONS: &str =
    "jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{\"\\n\"}{end}";

/// Whether the cluster stays at the end of a demo: `KEEP=1`.
pub fn keeps() -> bool {
    std::env::var("KEEP").is_ok_and(|value| !["", "0"].contains(&value.as_str()))
}

/// Runs a demo to its end, or to the first step that fails.
pub async fn tell(demo: impl Future<Output = Result<()>>) -> ExitCode {
    let start = Instant::now();
    match demo.await {
        Ok(()) => {
            println!("\nDone in {:.1} s.", start.elapsed().as_secs_f32());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one step and prints its text; the step returns its value and the text. A slow step prints
/// every 10 s that it still runs.
pub async fn step<T>(what: &str, work: impl Future<Output = Result<(String, T)>>) -> Result<T> {
    println!("\n▸ {what}");
    let start = Instant::now();
    let still = || println!("  … {:.0} s so far: {what}", start.elapsed().as_secs_f32());
    let done = remind(work, still).await;
    let (shown, value) = done.with_context(|| format!("step \"{what}\""))?;
    for line in shown.lines() {
        println!("    {line}");
    }
    println!("  {:.1} s", start.elapsed().as_secs_f32());
    Ok(value)
}

/// The name of the demo's lab: `BALLAST_LAB`, or this one.
pub fn lab_name(default: &str) -> String {
    std::env::var("BALLAST_LAB").unwrap_or_else(|_| default.to_owned())
}

/// The first step of a demo: boots its cluster, and shows the nodes.
pub async fn boot(what: &str, options: LabOptions) -> Result<Lab> {
    step(what, async {
        let lab = Lab::start(options).await?;
        let columns = "custom-columns=:metadata.name,:status.nodeInfo.kubeletVersion,:status.addresses[0].address";
        let nodes = ["get", "nodes", "-o", columns, "--no-headers"];
        Ok((lab.kubectl(&nodes).await?, lab))
    })
    .await
}

/// The names of two servers behind one address, which they answer with.
pub async fn both_answer<T>(curl: impl Fn() -> T) -> Result<BTreeSet<String>>
where
    T: Future<Output = Result<String>>,
{
    let mut names = BTreeSet::new();
    for _ in 0..20 {
        names.insert(curl().await?);
    }
    ensure!(names.len() == 2, "only {names:?} answered in 20 requests");
    Ok(names)
}
