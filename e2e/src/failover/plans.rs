//! Planned moves, and endpoints that move.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::bed::{self, Bed, LOCAL, at};
use super::machines::{number, seconds};
use super::terms::Values;
use super::terms::value::{
    ANSWERED, BLIND, FAILED, HEALTHY, KNOWN_MOVES, LOST, NEW_FAILED, NEWCOMER, RESET,
};
use super::watch::Watch;
use crate::segment::judge::answered_by;
use crate::segment::{Attempt, Moment, Outcome, Visitor};
use crate::{Host, eventually};

/// How long a planned move is watched.
const WATCH: Duration = Duration::from_secs(5);
/// How long both nodes may answer after the announcement of the new one.
const TURN: Duration = Duration::from_millis(50);
/// How long it may take until an endpoint is known everywhere.
const SOON: Duration = Duration::from_mins(1);
/// The taint of a node that is down for certain.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The label that excludes a node from load balancers.
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The holder is cordoned.
pub async fn drain(bed: &Bed<'_>, address: IpAddr) -> Result<Values> {
    let patch = |on: bool| json!({"spec": {"unschedulable": on}});
    moved(bed, address, &patch(true), &patch(false)).await
}

/// The holder gets the exclusion label.
pub async fn exclusion(bed: &Bed<'_>, address: IpAddr) -> Result<Values> {
    let patch = |value: Option<&str>| json!({"metadata": {"labels": {EXCLUDE: value}}});
    moved(bed, address, &patch(Some("")), &patch(None)).await
}

/// The holder gets the taint of a node that somebody says is powered off: its addresses may move although
/// it still answers.
pub async fn out_of_service(bed: &Bed<'_>, address: IpAddr) -> Result<Values> {
    let taint = json!({"key": OUT_OF_SERVICE, "value": "test", "effect": "NoExecute"});
    let patch = |taints: &[&Value]| json!({"spec": {"taints": taints}});
    moved(bed, address, &patch(&[&taint]), &patch(&[])).await
}

async fn moved(bed: &Bed<'_>, address: IpAddr, set: &Value, unset: &Value) -> Result<Values> {
    let holder = bed.holder(address).await?;
    let watch = Watch::of(bed, address).await?;
    let start = Moment::now();
    bed.patch_node(holder, set.clone()).await?;
    let elsewhere = eventually(SOON, || async {
        let now = bed.holder(address).await?;
        ensure!(now != holder, "{address} is still on {}", now.name());
        Ok(())
    });
    let elsewhere = elsewhere.await;
    let seen = watch.for_a_while(WATCH).await?;
    bed.patch_node(holder, unset.clone()).await?;
    elsewhere?;
    bed.heal().await?;
    let until = seen.period().1;
    let takeover = seen.takeover(start);
    let known = Lost::of(&seen.known_failures(start), takeover);
    let newcomer = Lost::of(&seen.newcomer_failures(start), takeover);
    let blind = [seen.known(start, until), seen.newcomer(start, until)];
    let blind = blind.iter().map(|it| it.blind).max();
    Ok(Values::from([
        (BLIND, seconds(blind.unwrap_or_default())),
        (FAILED, number(known.failed)),
        (NEW_FAILED, number(newcomer.failed)),
        (RESET, number(known.reset + newcomer.reset)),
        (NEWCOMER, seconds(seen.newcomer(start, until).outage)),
        (ANSWERED, seconds(seen.announced_to_answered(start))),
        (KNOWN_MOVES, number(seen.known_moves(until))),
        (LOST, number(seen.lost)),
    ]))
}

/// What became of connections in a planned move.
#[derive(Debug, Default)]
struct Lost {
    /// They could not be established, or were established and got no answer.
    failed: usize,
    /// They were established while both nodes answered, and reset: the new node does not know them.
    reset: usize,
}

// === impl Lost ===

impl Lost {
    fn of(failures: &[&Attempt], takeover: Option<Moment>) -> Self {
        let mut lost = Self::default();
        for attempt in failures {
            let in_turn = takeover.is_some_and(|at| attempt.start < at + TURN && attempt.end >= at);
            if attempt.outcome == Outcome::Reset && in_turn {
                lost.reset += 1;
            } else {
                lost.failed += 1;
                println!("  not answered: {attempt:?}, takeover {takeover:?}");
            }
        }
        lost
    }
}

/// The only endpoint of the Service with the policy Local moves to another node.
pub async fn endpoint_moves(bed: &Bed<'_>, ip_family: usize) -> Result<Values> {
    let all = bed.addresses_of(LOCAL).await?;
    let address = *all.get(ip_family).context("no such address")?;
    let service = bed.service(LOCAL).await?;
    let port = service.spec.and_then(|it| it.health_check_node_port);
    let port = port.context("no healthCheckNodePort")?;
    let holder = bed.holder(address).await?;
    let next = bed.another(address).await?;
    let mut all = vec![];
    for (client, how) in [
        (bed::KNOWN, Visitor::Regular),
        (bed::NEWCOMER, Visitor::Newcomer),
    ] {
        all.push(bed.lab.visit(client, at(address), how).await?);
    }
    let healthy = healthy(bed, next, port);
    let ((unhealthy, healthy), ()) = tokio::try_join!(healthy, bed.local_endpoint(next))?;
    let name = next.name();
    let mut times = vec![];
    for visits in &all {
        let first = eventually(SOON, || async {
            let attempts = visits.until(Moment::now()).await?;
            let by_next = attempts.iter().filter(|it| answered_by(it) == Some(&name));
            let first = by_next.map(|it| it.end).min();
            first.with_context(|| format!("{name} does not answer"))
        });
        times.push(first.await);
    }
    for visits in all {
        visits.stop().await?;
    }
    let times = times.into_iter().collect::<Result<Vec<Moment>>>()?;
    for answered in &times {
        ensure!(
            *answered >= unhealthy,
            "{name} answered {:?} before its health port could say 200",
            unhealthy.since(*answered)
        );
    }
    // Of the client that waited longest.
    let answered = times.into_iter().max().context("no clients")?;
    ensure!(bed.holder(address).await? != holder, "it has not moved");
    bed.settled().await?;
    Ok(Values::from([(HEALTHY, seconds(answered.since(healthy)))]))
}

/// When the last question began to which a node's health port said no, and when it said 200.
async fn healthy(bed: &Bed<'_>, node: Host, port: i32) -> Result<(Moment, Moment)> {
    let url = format!("http://{}:{port}/healthz", node.v4());
    let script = "no=0; asked=$(date +%s%N); until curl -sf -o /dev/null -m 1 \"$0\"; do no=$asked; sleep 0.02; asked=$(date +%s%N); done; echo $no $(date +%s%N)";
    let argv = ["sh", "-c", script, &url];
    let said = bed.lab.exec_for(Host::Cloud, argv, SOON).await?.ok()?;
    let mut said = said.split_whitespace();
    let mut next = || anyhow::Ok(Moment(said.next().context("no time")?.parse()?));
    Ok((next()?, next()?))
}
