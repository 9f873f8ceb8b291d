//! The demos within their time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::demo::{ends_with_an_empty_cloud, ends_with_nothing_to_pay, moves_an_address_once};

/// The longest time once everything is built.
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn the_demo_ends_in_time() -> Result<()> {
    in_time(|| ends_with_an_empty_cloud("t-demo-time"))
}

/// The README promises less than a second; this is the limit for the worst case.
#[test]
fn the_demo_on_bare_metal_ends_in_time() -> Result<()> {
    in_time(|| {
        let outage = moves_an_address_once("t-demo-l2-time")?;
        ensure!(outage <= 1_500, "{outage} ms");
        Ok(())
    })
}

/// Issue and README promise less than two minutes.
#[test]
fn the_demo_of_the_trap_ends_in_time() -> Result<()> {
    in_time(|| ends_with_nothing_to_pay("t-demo-orphans-time"))
}

fn in_time(demo: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    demo()?;
    let took = start.elapsed();
    println!("the demo took {took:.1?}");
    ensure!(took < LIMIT, "{took:.1?}");
    Ok(())
}
