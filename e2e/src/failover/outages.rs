//! Failures of what all nodes share: the segment, the API server, the processors.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::bed::{self, Bed, at};
use super::machines::{failed, number, seconds};
use super::terms::Values;
use super::terms::value::{
    ANSWERED, BLIND, CLAIMED_AFTER, CLAIMS, CUT_KNOWN, CUT_NEWCOMER, FAILED, FAR, KNOWN, MOVES,
    NEW_FAILED, NEWCOMER, OTHER_SIDE, SIDE_OF_HOLDER, STALE, TWO,
};
use super::watch::Watch;
use crate::segment::{Moment, Visitor, judge};
use crate::{Component, Faults, Host, Lab, Signal};

/// How long a failure is watched.
const WATCH: Duration = Duration::from_secs(8);
/// How long a side of a split may take to have one holder.
const SIDES_AGREE: Duration = Duration::from_secs(4);

/// The segment is split: the holder with one client, the other nodes with another client. The
/// API server and the router are on both sides.
pub async fn split(bed: &Bed<'_>, address: IpAddr) -> Result<Values> {
    let holder = bed.holder(address).await?;
    let mut others = bed.nodes();
    others.retain(|&node| node != holder);
    others.push(bed::NEWCOMER);
    let all: Vec<IpAddr> = bed.settled().await?.into_keys().collect();
    for client in [bed::KNOWN, bed::STRANGER] {
        bed.learns(client, &all).await?;
    }
    let capture = bed.lab.capture(&[bed::KNOWN, bed::NEWCOMER]).await?;
    let mut visits = vec![];
    for client in [bed::KNOWN, bed::NEWCOMER] {
        visits.push(
            bed.lab
                .visit(client, at(address), Visitor::Newcomer)
                .await?,
        );
    }
    let mac = bed.lab.mac(holder).await?;
    let split = Moment::now();
    // The stranger is on both sides.
    let faults = Faults::none().split(&[holder, bed::KNOWN], &others);
    bed.lab.set_faults(&faults).await?;
    tokio::time::sleep(SIDES_AGREE).await;
    let agreed = Moment::now();
    tokio::time::sleep(SIDES_AGREE).await;
    let healed = Moment::now();
    bed.lab.set_faults(&Faults::none()).await?;
    tokio::time::sleep(WATCH).await;
    let until = Moment::now();
    let frames = capture.frames().await?;
    capture.stop().await?;
    for visits in visits {
        visits.stop().await?;
    }
    let answers_for = |client: Host| {
        let name = client.name();
        let mine: Vec<_> = frames
            .iter()
            .filter(|it| it.host == name)
            .cloned()
            .collect();
        number(judge::holders(&mine, address, agreed, healed).len())
    };
    let after = judge::holders(&frames, address, healed, until);
    ensure!(!after.is_empty(), "nobody answers after the split");
    let one = judge::until_one(&after, healed);
    let answered = judge::announced_to_answered(&frames, address, &mac, split, until);
    let mut stale = 0;
    for client in [bed::KNOWN, bed::STRANGER, Host::Hub] {
        stale += bed.stale_entries(client).await?;
    }
    bed.heal().await?;
    Ok(Values::from([
        (SIDE_OF_HOLDER, answers_for(bed::KNOWN)),
        (OTHER_SIDE, answers_for(bed::NEWCOMER)),
        (TWO, seconds(one)),
        (STALE, number(stale)),
        (ANSWERED, seconds(answered)),
    ]))
}

/// The first successor, which probes the holder, loses its uplink, but not its carrier. No address of
/// another node may move because of it.
pub async fn uplink_dead(bed: &Bed<'_>, address: IpAddr) -> Result<Values> {
    let victim = bed.first_successor(address).await?;
    // It answers for its own until somebody takes them over.
    let mut epochs = bed.epochs().await?;
    let held = bed.announcers.held().await?;
    // It may get those back that follow their endpoints: after an earlier round somebody else may have them.
    for follows in bed.addresses_of(bed::LOCAL).await? {
        epochs.remove(&follows);
    }
    epochs.retain(|address, _| {
        let holder = held.get(address).and_then(|all| all.first());
        holder.is_some_and(|it| it.node != victim)
    });
    let others: BTreeSet<IpAddr> = epochs.keys().copied().collect();
    ensure!(others.contains(&address), "the victim holds {address}");
    let watch = Watch::of(bed, address).await?;
    let start = Moment::now();
    bed.lab.set_faults(&Faults::none().isolate(victim)).await?;
    tokio::time::sleep(WATCH).await;
    bed.lab.set_faults(&Faults::none()).await?;
    let seen = watch.for_a_while(WATCH).await?;
    let until = seen.period().1;
    bed.heal().await?;
    let claims = seen.claims_of(victim, &others, start, until);
    let moves = bed.moves_since(&epochs).await?;
    let mut values = Values::from([
        (CLAIMS, number(claims.len())),
        (MOVES, number(usize::try_from(moves)?)),
        (FAILED, failed(&[&seen.known(start, until)])),
    ]);
    values.extend(
        claims
            .first()
            .map(|at| (CLAIMED_AFTER, seconds(at.since(start)))),
    );
    Ok(values)
}

/// The API server is down for twice this long; in the middle the link of the holder is cut.
pub async fn api_down(bed: &Bed<'_>, address: IpAddr, half: Duration) -> Result<Values> {
    let holder = bed.holder(address).await?;
    let watch = Watch::of(bed, address).await?;
    let start = Moment::now();
    bed.lab.stop_component(Component::ApiServer).await?;
    tokio::time::sleep(half).await;
    let cut = Moment::now();
    bed.lab.cut(holder).await?;
    let moved = cut + Duration::from_secs(4);
    tokio::time::sleep(moved.since(Moment::now())).await;
    bed.lab.restore(holder).await?;
    tokio::time::sleep(half).await;
    let seen = watch.until(Moment::now()).await?;
    bed.lab.start_component(Component::ApiServer).await?;
    bed.heal().await?;
    let until = seen.period().1;
    let (before, after) = (seen.known(start, cut), seen.known(moved, until));
    let newcomers = [seen.newcomer(start, cut), seen.newcomer(moved, until)];
    Ok(Values::from([
        (FAILED, failed(&[&before, &after])),
        (NEW_FAILED, failed(&[&newcomers[0], &newcomers[1]])),
        (MOVES, number(seen.moves(cut) + after.moves)),
        (CUT_KNOWN, seconds(seen.known(cut, moved).outage)),
        (CUT_NEWCOMER, seconds(seen.newcomer(cut, moved).outage)),
        (BLIND, seconds(seen.newcomer(start, until).blind)),
        (ANSWERED, seconds(seen.announced_to_answered(cut))),
    ]))
}

/// 5 % of all frames are lost for this long.
pub async fn loss(bed: &Bed<'_>, time: Duration) -> Result<Values> {
    let mut faults = Faults::none();
    for host in bed.nodes() {
        faults = faults.loss(host, 50);
    }
    for host in [Host::ControlPlane, Host::Hub, bed::KNOWN, bed::NEWCOMER] {
        faults = faults.loss(host, 50);
    }
    let epochs = bed.epochs().await?;
    bed.lab.set_faults(&faults).await?;
    tokio::time::sleep(time).await;
    bed.heal().await?;
    let moves = bed.moves_since(&epochs).await?;
    Ok(Values::from([(MOVES, number(usize::try_from(moves)?))]))
}

/// Four busy processes per core run for this long.
pub async fn busy(bed: &Bed<'_>, address: IpAddr, time: Duration) -> Result<Values> {
    let epochs = bed.epochs().await?;
    let watch = Watch::of(bed, address).await?;
    let start = Moment::now();
    let load = Load::start(bed.lab).await?;
    tokio::time::sleep(time).await;
    load.stop().await?;
    let seen = watch.until(Moment::now()).await?;
    bed.heal().await?;
    let until = seen.period().1;
    let moves = bed.moves_since(&epochs).await?;
    Ok(Values::from([
        (MOVES, number(usize::try_from(moves)?)),
        (KNOWN, seconds(seen.known(start, until).outage)),
        (NEWCOMER, seconds(seen.newcomer(start, until).outage)),
        (FAR, seconds(seen.far(start, until).outage)),
    ]))
}

/// Four busy processes per core.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    lab: &'a Lab,
    processes: Vec<String>,
}

impl<'a> Load<'a> {
    pub(crate) async fn start(lab: &'a Lab) -> Result<Self> {
        let count = 4 * std::thread::available_parallelism()?.get();
        let processes: Vec<String> = (1..=count).map(|n| format!("busy-{n}")).collect();
        for process in &processes {
            let argv = ["sh", "-c", "while :; do :; done"];
            lab.spawn(process, Host::Hub, argv, &[]).await?;
        }
        Ok(Self { lab, processes })
    }

    pub(crate) async fn stop(self) -> Result<()> {
        for process in &self.processes {
            self.lab.kill(process, Signal::SIGKILL).await?;
            let time = Duration::from_secs(20);
            self.lab.wait_exit(process, time).await?;
        }
        Ok(())
    }
}
