//! How long a teardown of 500 Services takes, compared with the cloud.
//!
//! **The cloud's own deletion bound** is the least time in which anybody can delete that many load
//! balancers there, with one call for each. The mock cloud permits `R` changing calls per second
//! (`--rate-limit`; as many at once at the start) and needs `L` for a deletion
//! (`--deletion-latency`). So the last of `N` calls is permitted after `(N - R) / R` seconds, and
//! the last load balancer is gone `L` later.
//!
//! The teardown is measured as a user sees it: from the start of the command to its end, with its
//! own start, the confirmation by the class, and the pause between two looks.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::common::Plan;
use crate::common::command::Ballast;
use crate::common::crowd::names;

const SERVICES: usize = 500;
/// Changing calls per second.
const RATE: &str = "20";
/// Of one deletion.
const LATENCY: &str = "10s";
/// The lab's range has 254 addresses. Nobody connects to these.
const ENOUGH: &str = "127.77.0.0/16";
const BOUND: Duration = Duration::from_secs((500 - 20) / 20 + 10);
/// The bound and 10 %.
const MOST: f64 = 1.1;
/// For the creations, which have the same limit.
const CREATED: Duration = Duration::from_mins(5);

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_services_take_as_long_as_the_cloud() -> Result<()> {
    Plan {
        nodes: 1,
        cloud: &[
            "--rate-limit",
            RATE,
            "--deletion-latency",
            LATENCY,
            "--addresses",
            ENOUGH,
        ],
        ..Plan::new("t-teardown-many")
    }
    .run(async |site| {
        site.create_all(&names("web", SERVICES)).await?;
        site.converges_within(SERVICES, CREATED).await?;
        let person = Ballast::of(&site.lab.kubeconfig()).within(Duration::from_mins(5));
        let flags = ["teardown", "--wait", "--lease-namespace", "ballast-system"];
        let began = Instant::now();
        let said = person.run(&flags).await?;
        let took = began.elapsed();
        ensure!(said.code == Some(0), "{said:?}");
        let left = site.ballast.load_balancers().await?;
        ensure!(left.is_empty(), "{} load balancers are left", left.len());
        let ratio = took.as_secs_f64() / BOUND.as_secs_f64();
        println!(
            "{SERVICES} Services: {:.1} s; the cloud's own bound is {:.1} s; ratio {ratio:.3}",
            took.as_secs_f64(),
            BOUND.as_secs_f64()
        );
        let lines = said.err.lines().filter(|line| line.ends_with(": released"));
        ensure!(lines.count() == SERVICES, "a line for each");
        ensure!(ratio <= MOST, "{ratio:.3} is more than {MOST}");
        Ok(())
    })
    .await
}
