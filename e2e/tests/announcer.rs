//! Announcers on real nodes: who answers for an address, who does after a failure, and who does
//! not. Frames are captured on the segment; arping, ndisc6 and the clients' kernels judge too.
//!
//! The cases share one lab. Their limits are those of `make bench-failover` for the worst case, which has the
//! medians, too. What takes minutes is in `long/announcer.rs`. A case is repeated once, and says so, if only a
//! time was too long and the clients that measure it could not run for a while either: then it may be the time
//! of other programs. Counts are never repeated.

pub(crate) mod alone;
pub(crate) mod failures;
pub(crate) mod intercepted;
pub(crate) mod plans;
pub(crate) mod reach;

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ballast_e2e::failover::Values;
use ballast_e2e::failover::bed::{self, Bed};
use ballast_e2e::failover::value::{ANSWERED, BLIND};
use ballast_e2e::{Lab, ProxyMode};

/// The longest outage after the death of a node or of its link, in seconds.
pub(crate) const OUTAGE: f64 = 1.5;
/// A client that did not run for longer than this, in seconds, cannot judge times. On a quiet machine it is
/// 0.03.
const HINDERED: f64 = 0.15;
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
        println!("cases that were repeated: {:?}", all.repeated);
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
    repeated: Vec<&'static str>,
}

/// A value of a scene is over its limit.
#[derive(Debug)]
struct Over {
    name: String,
    value: f64,
    limit: f64,
    values: Values,
}

impl Cases {
    /// The next address to use: an address that moves often moves more slowly.
    pub(crate) fn number(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    /// Whether a case that failed is to be repeated: the machine was too busy to judge it. The cluster
    /// has recovered then.
    pub(crate) async fn again(
        &mut self,
        bed: &Bed<'_>,
        name: &'static str,
        result: &Result<()>,
    ) -> Result<bool> {
        let Err(error) = result else {
            return Ok(false);
        };
        if !error.downcast_ref().is_some_and(Over::is_of_the_machine) {
            return Ok(false);
        }
        println!("{name} is repeated, its clients could not run: {error:#}");
        self.repeated.push(name);
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
        if $all.again($bed, stringify!($case), &result).await? {
            let address = $bed.address($all.number()).await?;
            result = $case($bed, address).await;
        }
        println!("{}: {:.1} s", stringify!($case), start.elapsed().as_secs_f32());
        $all.note($bed, stringify!($case), result).await?;
    )*};
}
pub(crate) use cases;

#[test]
fn only_a_time_that_nobody_could_measure_is_repeated() {
    let over = |name: &str, blind: Option<f64>| Over {
        name: name.to_owned(),
        value: 3.0,
        limit: 1.0,
        values: blind.map(|blind| (BLIND, blind)).into_iter().collect(),
    };
    for (name, blind, repeated) in [
        (ANSWERED, Some(0.5), true),
        (ANSWERED, Some(0.03), false),
        (ANSWERED, None, false),
        ("moves", Some(0.5), false),
    ] {
        let error = anyhow::Error::new(over(name, blind)).context("a case");
        let judged = error.downcast_ref().is_some_and(Over::is_of_the_machine);
        assert_eq!(judged, repeated, "{name} {blind:?}");
    }
}

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
            failures::deaf_port,
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

// === impl Over ===

impl std::error::Error for Over {}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            value,
            limit,
            values,
        } = self;
        write!(f, "{name}: {value}, not at most {limit}: {values:?}")
    }
}

impl Over {
    /// It is a time, and the client that measured it did not run for a while.
    fn is_of_the_machine(&self) -> bool {
        self.name.ends_with(", s") && value(&self.values, BLIND) > HINDERED
    }
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
        // What was not measured is NaN, and over every limit.
        if value.is_nan() || value > limit {
            bail!(Over {
                name: name.to_owned(),
                value,
                limit,
                values: values.clone(),
            });
        }
    }
    Ok(())
}

/// The pause between two looks at something that needs a while.
pub(crate) const QUIET: Duration = Duration::from_secs(5);
