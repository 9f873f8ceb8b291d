//! The demo within its time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::demo::ends_with_an_empty_cloud;

/// The longest time once everything is built.
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn the_demo_ends_in_time() -> Result<()> {
    let start = Instant::now();
    ends_with_an_empty_cloud("t-demo-time")?;
    let took = start.elapsed();
    println!("the demo took {took:.1?}");
    ensure!(took < LIMIT, "{took:.1?}");
    Ok(())
}
