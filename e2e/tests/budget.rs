//! The cost of Ballast for the API server and the cloud, counted in their own logs: writes by
//! the controller's user, and calls that change something (invariant 3).

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ballast_e2e::eventually;
use ballast_e2e::installation::{CLOUD, USER};
use serde_json::json;

use crate::common::crowd::{LOCAL, QUICK, names};
use crate::common::{PROGRAMMED, Plan, SOON, Site};

const REPLICAS: [&str; 2] = ["ballast-1", "ballast-2"];
/// Services that nothing changes while other things happen.
const CROWD: usize = 200;

/// Leaders in the whole test: the first, one after the restart, one after that is killed.
const LEADERS: u64 = 3;

/// The sum of the allowed writes so far, compared with the sum of the actual ones: the next
/// step finds a late write.
struct Budget<'a> {
    site: &'a Site<'a>,
    start: usize,
    since: Instant,
    allowed: Spent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spent {
    patches: usize,
    events: usize,
}

// === impl Budget ===

impl<'a> Budget<'a> {
    fn open(site: &'a Site<'a>) -> Result<Self> {
        Ok(Self {
            site,
            start: site.audited()?,
            since: Instant::now(),
            allowed: Spent::default(),
        })
    }

    /// Runs a step until it has had its effect, and allows it this many writes.
    async fn costs(
        &mut self,
        what: &str,
        patches: usize,
        events: usize,
        act: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let before = (self.spent()?, self.site.ballast.calls().await);
        act.await.with_context(|| what.to_owned())?;
        self.allowed.patches += patches;
        self.allowed.events += events;
        eventually(SOON, || async {
            let (spent, allowed) = (self.spent()?, self.allowed);
            let reached = spent.patches >= allowed.patches && spent.events >= allowed.events;
            ensure!(reached, "{spent:?} of {allowed:?}");
            Ok(())
        })
        .await
        .with_context(|| what.to_owned())?;
        let spent = self.spent()?;
        let calls = match (before.1, self.site.ballast.calls().await) {
            (Ok(before), Ok(now)) => now.mutating.checked_sub(before.mutating),
            _ => None,
        };
        println!(
            "{what}: {} patches, {} events, {} calls that change something",
            spent.patches - before.0.patches,
            spent.events - before.0.events,
            calls.map_or("?".to_owned(), |calls| calls.to_string())
        );
        ensure!(
            spent == self.allowed,
            "{what}: {spent:?}, allowed {:?}",
            self.allowed
        );
        Ok(())
    }

    /// The writes so far. Each leader also writes the counters of the class, at most once in 5
    /// s.
    fn spent(&self) -> Result<Spent> {
        let mut spent = Spent::default();
        let (mut counters, mut guards) = (0, 0);
        for event in self.site.writes_since(self.start, USER)? {
            ensure!(event.code < 400, "refused: {event:?}");
            match (event.resource.as_str(), event.verb.as_str()) {
                ("services", "patch") => spent.patches += 1,
                ("events", "create") => spent.events += 1,
                ("loadbalancerclasses", "patch") if event.subresource == "status" => counters += 1,
                ("loadbalancerclasses", "patch") => guards += 1,
                _ => anyhow::bail!("no budget for {event:?}"),
            }
        }
        let paced = self.since.elapsed().as_secs() / 5 + LEADERS;
        ensure!(
            counters <= paced,
            "{counters} writes of the class's counters, {paced} are allowed by now"
        );
        // On for the first Service, off after it, on for the crowd.
        ensure!(guards <= 3, "{guards} writes of the class's finalizer");
        Ok(spent)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_is_accounted_for() -> Result<()> {
    Plan {
        nodes: 1,
        controller: QUICK,
        controllers: 2,
        ..Plan::new("t-budget")
    }
    .run(async |site| {
        site.ballast.leader(&REPLICAS).await?;
        let mut budget = Budget::open(site)?;
        life_of_one(site, &mut budget).await?;
        let crowd = async {
            site.create_all(&names("crowd", CROWD)).await?;
            site.converges(CROWD).await
        };
        budget
            .costs("200 fresh Services", 2 * CROWD, CROWD, crowd)
            .await?;
        nothing_changed(site, &mut budget).await?;
        failing_retries(site, &mut budget).await
    })
    .await
}

/// The number of reconciles of the leader.
async fn reconciles(site: &Site<'_>) -> Result<u64> {
    let leader = site.ballast.leader(&REPLICAS).await?;
    let metrics = site.ballast.admin(leader, "/metrics").await?;
    let counts = metrics
        .lines()
        .filter(|line| line.starts_with("ballast_reconciles_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

/// Runs a change that costs nothing, until the controller has reconciled it.
async fn looked_at(site: &Site<'_>, name: &str, patch: serde_json::Value) -> Result<()> {
    let before = reconciles(site).await?;
    site.patch(name, patch).await?;
    eventually(SOON, || async {
        ensure!(reconciles(site).await? > before, "not looked at");
        Ok(())
    })
    .await
}

async fn life_of_one(site: &Site<'_>, budget: &mut Budget<'_>) -> Result<()> {
    let fresh = async {
        site.create("one", LOCAL).await?;
        site.converges(1).await
    };
    budget.costs("a fresh Service", 2, 1, fresh).await?;
    let annotation = json!({"metadata": {"annotations": {"example.com/note": "x"}}});
    budget
        .costs(
            "an unrelated annotation",
            0,
            0,
            looked_at(site, "one", annotation),
        )
        .await?;
    let label = json!({"metadata": {"labels": {"note": "x"}}});
    budget
        .costs("a label", 0, 0, looked_at(site, "one", label))
        .await?;
    let node_port = async {
        let port = json!([{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30123}]);
        site.patch("one", json!({"spec": {"ports": port}})).await?;
        listens(site, "nodePort", 30123).await
    };
    budget.costs("another nodePort", 0, 0, node_port).await?;
    let port = async {
        let port = json!([{"name": "http", "port": 81, "targetPort": 8080, "nodePort": 30123}]);
        site.patch("one", json!({"spec": {"ports": port}})).await?;
        listens(site, "port", 81).await?;
        site.converges(1).await
    };
    budget.costs("another port", 1, 1, port).await?;
    budget.costs("a deletion", 1, 1, site.delete("one")).await
}

async fn listens(site: &Site<'_>, field: &str, value: u16) -> Result<()> {
    eventually(SOON, || async {
        let one = site.in_cloud("one").await?.context("not in the cloud")?;
        let now = &one["desired"]["listeners"][0][field];
        ensure!(*now == value, "{field} is {now}");
        Ok(())
    })
    .await
}

/// Waits until a new leader has reconciled all Services and has nothing left to do.
async fn all_looked_at(site: &Site<'_>) -> Result<()> {
    eventually(SOON, || async {
        let done = reconciles(site).await?;
        ensure!(done >= CROWD as u64, "{done} reconciles");
        let leader = site.ballast.leader(&REPLICAS).await?;
        for idle in ["ballast_queue_depth", "ballast_queue_in_flight"] {
            let left = site.gauge(leader, idle).await?;
            ensure!(left == 0, "{idle} {left}");
        }
        Ok(())
    })
    .await
}

async fn nothing_changed(site: &Site<'_>, budget: &mut Budget<'_>) -> Result<()> {
    let before = site.ballast.calls().await?.mutating;
    let restart = async {
        for replica in REPLICAS {
            site.ballast.stop(replica).await?;
        }
        for replica in REPLICAS {
            site.lab.start_again(replica).await?;
        }
        all_looked_at(site).await
    };
    budget
        .costs("a restart with 200 Services", 0, 0, restart)
        .await?;
    let change = async {
        let leader = site.ballast.leader(&REPLICAS).await?;
        site.ballast.kill(leader).await?;
        all_looked_at(site).await?;
        site.lab.start_again(leader).await.map(drop)
    };
    budget
        .costs("a change of leaders with 200 Services", 0, 0, change)
        .await?;
    let calls = site.ballast.calls().await?.mutating - before;
    ensure!(calls == 0, "{calls} calls changed something in the cloud");
    let node = async {
        site.paper_node("paper", "10.89.0.120").await?;
        eventually(SOON, || async {
            let calls = site.ballast.calls().await?.mutating - before;
            ensure!(calls == 1, "{calls} calls");
            Ok(())
        })
        .await
    };
    budget
        .costs("another node with 200 Services", 0, 0, node)
        .await
}

/// Each try is triggered by an edit: without one, the 20th would come after an hour.
async fn failing_retries(site: &Site<'_>, budget: &mut Budget<'_>) -> Result<()> {
    let leader = site.ballast.leader(&REPLICAS).await?;
    let failed = "ballast_reconciles_total{outcome=\"failed\"}";
    let before = site.count(leader, failed).await?;
    let fail = async {
        site.ballast.kill(CLOUD).await?;
        site.create("stuck", LOCAL).await?;
        site.says("stuck", PROGRAMMED, "False", "CloudError")
            .await?;
        for number in 1..=20 {
            let note = number.to_string();
            let note = json!({"metadata": {"annotations": {"example.com/note": note}}});
            looked_at(site, "stuck", note).await?;
        }
        let failures = site.count(leader, failed).await? - before;
        ensure!(failures >= 20, "{failures} failures");
        Ok(())
    };
    budget
        .costs(
            "a Service and 20 failures: finalizer, condition",
            2,
            1,
            fail,
        )
        .await?;
    let heal = async {
        site.lab.start_again(CLOUD).await?;
        site.ballast.cloud_answers().await?;
        let note = json!({"metadata": {"annotations": {"example.com/note": "again"}}});
        site.patch("stuck", note).await?;
        site.converges(CROWD + 1).await
    };
    budget.costs("its recovery", 1, 1, heal).await
}
