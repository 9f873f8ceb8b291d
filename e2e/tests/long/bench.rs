//! Every contender of the benchmark with a few Services. The first run builds the reference
//! controller, another Go program of the Kubernetes module.

use anyhow::{Context, Result, ensure};

use crate::bench::samples;

#[test]
fn every_contender_works_off_a_backlog() -> Result<()> {
    let samples = samples("t-bench", "start,backlog-1000")?;
    let started = samples
        .iter()
        .filter(|sample| sample["scenario"] == "start");
    ensure!(
        started.count() == 2,
        "Ballast and the raw loop: {samples:?}"
    );
    for contender in ["ballast", "reference", "raw"] {
        let sample = samples
            .iter()
            .find(|sample| sample["contender"] == contender && sample["scenario"] == "backlog-1000")
            .with_context(|| format!("{contender} was not measured"))?;
        let seconds = sample["values"]["start to last address, s"]
            .as_f64()
            .context("no time")?;
        ensure!(seconds > 0.0 && seconds < 60.0, "{contender}: {seconds} s");
    }
    Ok(())
}
