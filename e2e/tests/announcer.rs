//! Announcers on real nodes: who answers for an address, who does after a failure, and who does
//! not. Frames are captured on the segment; arping, ndisc6 and the clients' kernels judge too.
//!
//! The cases share one lab. Their limits are those of `make bench-failover` for the worst case, which has the
//! medians, too. What takes minutes is in `long/announcer.rs`. A case that fails while other programs keep
//! all cores busy is repeated once, and says so, because its times may then be those of the other programs.

pub(crate) mod alone;
pub(crate) mod failures;
pub(crate) mod intercepted;
pub(crate) mod plans;
pub(crate) mod reach;

use std::time::Duration;

use anyhow::{Result, ensure};
use ballast_e2e::failover::Values;
use ballast_e2e::failover::bed::{self, Bed};
use ballast_e2e::failover::value::ANSWERED;
use ballast_e2e::{Lab, ProxyMode};

/// The longest outage after the death of a node or of its link, in seconds.
pub(crate) const OUTAGE: f64 = 1.5;
/// A machine with so many processes for each core is too busy to judge times.
const BUSY: f64 = 2.0;
/// From the announcement of a takeover to its first answer, for clients that ask by ARP or by neighbour
/// discovery, in seconds.
pub(crate) const ANSWER: (&str, f64) = (ANSWERED, 1.0);

/// Starts announcers on a lab, runs cases on it, reports all failures, and removes everything.
pub(crate) async fn on_bed(
    name: &str,
    nodes: u8,
    proxy: ProxyMode,
    cases: impl AsyncFnOnce(&Bed<'_>, &mut Cases) -> Result<()>,
) -> Result<()> {
    let lab = Lab::start(bed::options(name, nodes, proxy)).await?;
    let result = async {
        let bed = Bed::make(&lab, &[]).await?;
        let mut all = Cases::default();
        cases(&bed, &mut all).await?;
        ensure!(all.failures.is_empty(), "{}", all.failures.join("\n\n"));
        Ok(())
    }
    .await;
    let result = lab.explain(result).await;
    let down = lab.down().await;
    result.and(down)
}

/// The results of the cases on one lab.
#[derive(Default)]
pub(crate) struct Cases {
    failures: Vec<String>,
    number: u32,
}

impl Cases {
    /// The next address to use: an address that moves often moves more slowly.
    pub(crate) fn number(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    /// Whether a case that failed is to be repeated: the machine was too busy to judge it. The cluster
    /// has recovered then.
    pub(crate) async fn again(bed: &Bed<'_>, name: &str, result: &Result<()>) -> Result<bool> {
        let (Err(error), Some(load)) = (result, load_per_core()) else {
            return Ok(false);
        };
        if load < BUSY {
            return Ok(false);
        }
        println!("{name} is repeated, {load:.1} processes want each core: {error:#}");
        bed.recover().await?;
        Ok(true)
    }

    /// Notes the result of a case. The next one starts only if the cluster recovers.
    pub(crate) async fn note(
        &mut self,
        bed: &Bed<'_>,
        name: &str,
        result: Result<()>,
    ) -> Result<()> {
        if let Err(error) = result {
            println!("{name}: {error:#}");
            self.failures.push(format!("{name}: {error:#}"));
            bed.recover().await?;
        }
        Ok(())
    }
}

/// Runs cases one after the other; each gets the cluster and an address, of IPv6 and IPv4 in turn:
/// what is listed twice runs over both.
macro_rules! cases {
    ($bed:expr, $all:expr, $($case:path),* $(,)?) => {$(
        let start = std::time::Instant::now();
        let address = $bed.address($all.number()).await?;
        let mut result = $case($bed, address).await;
        if $crate::announcer::Cases::again($bed, stringify!($case), &result).await? {
            let address = $bed.address($all.number()).await?;
            result = $case($bed, address).await;
        }
        println!("{}: {:.1} s", stringify!($case), start.elapsed().as_secs_f32());
        $all.note($bed, stringify!($case), result).await?;
    )*};
}
pub(crate) use cases;

#[tokio::test(flavor = "multi_thread")]
async fn one_node_answers() -> Result<()> {
    on_bed("t-announcer", 3, ProxyMode::Nftables, async |bed, all| {
        cases![
            bed,
            all,
            reach::every_client_reaches_every_address,
            reach::nothing_is_written_while_nothing_happens,
            reach::a_host_that_wants_the_address_hears_of_it,
            failures::link_cut,
            failures::link_cut,
            failures::agent_restarts,
            failures::agent_restarted,
            failures::agent_updated,
            failures::agent_gone,
            failures::agent_stopped,
            failures::frozen,
            failures::split,
            failures::uplink_dead,
            failures::one_way,
            failures::all_links,
            failures::api_down,
            failures::node_killed,
            plans::drain,
            plans::drain,
            plans::exclusion,
            plans::out_of_service,
            plans::endpoint_moves,
            plans::new_mac,
            plans::without_net_raw,
            plans::foreign_host,
        ];
        Ok(())
    })
    .await
}

/// The processes that want to run, for each core, over the last minute.
fn load_per_core() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = text.split(' ').next()?.parse().ok()?;
    let cores = std::thread::available_parallelism().ok()?.get();
    Some(load / u32::try_from(cores).map_or(1.0, f64::from))
}

/// A value of a scene.
pub(crate) fn value(values: &Values, name: &str) -> f64 {
    values.get(name).copied().unwrap_or(f64::NAN)
}

/// Checks that values are at most these.
pub(crate) fn at_most(values: &Values, limits: &[(&str, f64)]) -> Result<()> {
    println!("  {values:.2?}");
    for &(name, limit) in limits {
        let value = value(values, name);
        ensure!(
            value <= limit,
            "{name}: {value}, not at most {limit}: {values:?}"
        );
    }
    Ok(())
}

/// The pause between two looks at something that needs a while.
pub(crate) const QUIET: Duration = Duration::from_secs(5);
