//! Failures of links and hosts.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use super::bed::Bed;
use super::terms::Values;
use super::terms::value::{
    ANSWERED, BACK_FAILED, BACK_MOVES, BACK_TWO, BLIND, FAILED, FAR, KNOWN, KNOWN_MOVES, MOVES,
    NEWCOMER, RETURN, TWO,
};
use super::watch::{Seen, Watch};
use crate::Faults;
use crate::segment::Moment;
use crate::segment::judge::Reachability;

/// How long a failure is watched.
const WATCH: Duration = Duration::from_secs(4);

/// A value in seconds.
pub(crate) fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// A number as a value.
pub(crate) fn number(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// The failed attempts of clients as a value; says when and how they failed.
pub(crate) fn failed(all: &[&Reachability]) -> f64 {
    for seen in all.iter().filter(|it| it.failed > 0) {
        println!("  not answered: {seen:?}");
    }
    number(all.iter().map(|it| it.failed).sum())
}

/// The outages of a period.
fn outages(seen: &Seen, from: Moment, until: Moment) -> Values {
    let (known, newcomer) = (seen.known(from, until), seen.newcomer(from, until));
    Values::from([
        (KNOWN, seconds(known.outage)),
        (NEWCOMER, seconds(newcomer.outage)),
        (FAR, seconds(seen.far(from, until).outage)),
        (BLIND, seconds(known.blind.max(newcomer.blind))),
        (ANSWERED, seconds(seen.announced_to_answered(from))),
    ])
}

/// The link of the holder is cut, and comes back after the address has moved.
pub async fn link_cut(bed: &Bed<'_>, address: IpAddr) -> Result<Values> {
    let holder = bed.holder(address).await?;
    let watch = Watch::of(bed, address).await?;
    let cut = Moment::now();
    bed.lab.cut(holder).await?;
    tokio::time::sleep(WATCH).await;
    watch.calm().await?;
    let back = Moment::now();
    bed.lab.restore(holder).await?;
    let seen = watch.for_a_while(WATCH).await?;
    bed.heal().await?;
    Ok(lost_and_back(&seen, cut, back))
}

/// The holder's port sends and receives nothing, and is well again after the address has moved.
pub async fn deaf_port(bed: &Bed<'_>, address: IpAddr) -> Result<Values> {
    let holder = bed.holder(address).await?;
    let watch = Watch::of(bed, address).await?;
    let deaf = Moment::now();
    bed.lab.set_faults(&Faults::none().deafen(holder)).await?;
    tokio::time::sleep(WATCH).await;
    watch.calm().await?;
    let back = Moment::now();
    bed.lab.set_faults(&Faults::none()).await?;
    let seen = watch.for_a_while(WATCH).await?;
    bed.heal().await?;
    Ok(lost_and_back(&seen, deaf, back))
}

/// The outages of a failure, and what happens when it is over.
fn lost_and_back(seen: &Seen, lost: Moment, back: Moment) -> Values {
    let mut values = outages(seen, lost, back);
    let after = seen.known(back, seen.period().1);
    values.extend([
        (BACK_FAILED, failed(&[&after])),
        (BACK_MOVES, number(after.moves)),
        (BACK_TWO, seconds(seen.until_one(back))),
    ]);
    values
}

/// The holder loses power.
pub async fn node_killed(bed: &Bed<'_>, address: IpAddr) -> Result<Values> {
    let holder = bed.holder(address).await?;
    let watch = Watch::of(bed, address).await?;
    let killed = Moment::now();
    bed.lab.power_off(holder).await?;
    let seen = watch.for_a_while(WATCH).await?;
    let values = outages(&seen, killed, seen.period().1);
    bed.power_on(holder).await?;
    bed.heal().await?;
    Ok(values)
}

/// The holder freezes for this long.
pub async fn frozen(bed: &Bed<'_>, address: IpAddr, time: Duration) -> Result<Values> {
    let holder = bed.holder(address).await?;
    let watch = Watch::of(bed, address).await?;
    let frozen = Moment::now();
    bed.lab.freeze(holder).await?;
    tokio::time::sleep(time.saturating_sub(Moment::now().since(frozen))).await;
    let thaw = Moment::now();
    bed.lab.thaw(holder).await?;
    let seen = watch.for_a_while(WATCH).await?;
    let until = seen.period().1;
    let mut values = outages(&seen, frozen, until);
    values.extend([
        (KNOWN_MOVES, number(seen.known_moves(until))),
        (TWO, seconds(seen.until_one(thaw))),
    ]);
    bed.heal().await?;
    Ok(values)
}

/// All links are down for this long, and come back at these times after it, in the order of the
/// nodes.
pub async fn all_links(
    bed: &Bed<'_>,
    address: IpAddr,
    time: Duration,
    back: &[Duration],
) -> Result<Values> {
    let holder = bed.holder(address).await?;
    let epochs = bed.epochs().await?;
    let mac = bed.lab.mac(holder).await?;
    let watch = Watch::of(bed, address).await?;
    let nodes = bed.nodes();
    futures::future::try_join_all(nodes.iter().map(|&node| bed.lab.cut(node))).await?;
    tokio::time::sleep(time).await;
    let start = Moment::now();
    let mut order: Vec<_> = back.iter().copied().zip(nodes).collect();
    order.sort();
    let mut up = start;
    for (after, node) in order {
        tokio::time::sleep((start + after).since(Moment::now())).await;
        if node == holder {
            up = Moment::now();
        }
        bed.lab.restore(node).await?;
    }
    let seen = watch.for_a_while(WATCH).await?;
    let answered = seen.first_answer(&mac, up)?;
    let mut values = Values::from([
        (RETURN, seconds(answered.since(up))),
        (TWO, seconds(seen.until_one(up))),
        (FAILED, failed(&[&seen.known(answered, seen.period().1)])),
    ]);
    bed.heal().await?;
    let moves = bed.moves_since(&epochs).await?;
    values.insert(MOVES, number(usize::try_from(moves)?));
    Ok(values)
}
