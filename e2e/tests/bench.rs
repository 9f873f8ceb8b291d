//! The benchmark with a few Services: a test that it runs, not how fast. The comparison with
//! the reference controller, which must be built first, is in `long/bench.rs`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The samples of scenarios with 20 Services.
pub(crate) fn samples(name: &str, only: &str) -> Result<Vec<Value>> {
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--name", name, "--only", only])
        .args(["--services", "20", "--repeat", "1", "--sweep", "8"])
        .args(["--output", "json"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let result: Value = serde_json::from_slice(&output.stdout)?;
    let samples = result["samples"].as_array().context("no samples")?;
    Ok(samples.clone())
}

/// The cost of pool addresses does not depend on the number of Services.
#[test]
fn a_pool_costs_one_patch_per_service_and_others_nothing() -> Result<()> {
    let samples = samples("t-bench-pool", "pool-5000,pool-life")?;
    let life = samples
        .iter()
        .find(|sample| sample["scenario"] == "pool-life")
        .context("no life of a pool")?;
    for (what, expected) in [
        ("backlog: patches", 1.0),
        ("backlog: events", 0.0),
        ("restart: patches", 0.0),
        ("restart: events", 0.0),
        ("anew: patches", 1.0),
        ("anew: patches of others, all", 0.0),
    ] {
        let measured = life["values"][what].as_f64().context(what)?;
        ensure!(
            (measured - expected).abs() < f64::EPSILON,
            "{what}: {measured}"
        );
    }
    Ok(())
}
