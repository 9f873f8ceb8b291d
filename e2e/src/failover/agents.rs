//! Failures of an announcer whose host lives: the kernel still forwards what reaches it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use super::announcers::Announcers;
use super::bed::Bed;
use super::machines::{failed, number, seconds};
use super::terms::Values;
use super::terms::value::{ANSWERED, BLIND, FAILED, MOVES, NEWCOMER, TWO};
use super::watch::{Seen, Watch};
use crate::Signal;
use crate::segment::Moment;

/// No move is wanted for 10 s; what happens at the very end may be either.
const NO_MOVE: Duration = Duration::from_millis(9_500);

/// How long an announcer is watched that was stopped and runs again.
const AFTER_STOP: Duration = Duration::from_secs(3);

/// How long an announcer may take to end.
const END: Duration = Duration::from_mins(1);

fn values(seen: &Seen, from: Moment, no_move: Moment) -> Values {
    let until = seen.period().1;
    let (known, newcomer) = (seen.known(from, until), seen.newcomer(from, until));
    Values::from([
        (BLIND, seconds(known.blind.max(newcomer.blind))),
        (FAILED, failed(&[&known])),
        (NEWCOMER, seconds(newcomer.outage)),
        (MOVES, number(seen.moves(no_move))),
        (ANSWERED, seconds(seen.announced_to_answered(from))),
    ])
}

/// The holder's announcer is killed. It starts again after this long, or not at all.
pub async fn killed(bed: &Bed<'_>, address: IpAddr, back: Option<Duration>) -> Result<Values> {
    let holder = bed.holder(address).await?;
    let watch = Watch::of(bed, address).await?;
    let killed = Moment::now();
    bed.announcers.kill(holder).await?;
    let no_move = killed + NO_MOVE;
    let seen = if let Some(back) = back {
        tokio::time::sleep(back).await;
        bed.announcers.start_again(holder).await?;
        watch.until(no_move).await?
    } else {
        let seen = watch.until(no_move + Duration::from_secs(3)).await?;
        bed.announcers.start_again(holder).await?;
        seen
    };
    bed.heal().await?;
    Ok(values(&seen, killed, no_move))
}

/// The holder's announcer is stopped for this long.
pub async fn stopped(bed: &Bed<'_>, address: IpAddr, time: Duration) -> Result<Values> {
    let holder = bed.holder(address).await?;
    let watch = Watch::of(bed, address).await?;
    let stopped = Moment::now();
    bed.announcers.signal(holder, Signal::SIGSTOP).await?;
    tokio::time::sleep((stopped + time).since(Moment::now())).await;
    let woken = Moment::now();
    bed.announcers.signal(holder, Signal::SIGCONT).await?;
    // It must be silent until it knows whether it still holds the address.
    let seen = watch.until(woken + AFTER_STOP).await?;
    bed.heal().await?;
    let mut values = values(&seen, stopped, stopped + time);
    values.insert(TWO, seconds(seen.until_one(woken)));
    Ok(values)
}

/// The holder's announcer ends, and the next one starts when it has: an update without surge.
pub async fn restarted(bed: &Bed<'_>, address: IpAddr) -> Result<Values> {
    let holder = bed.holder(address).await?;
    let watch = Watch::of(bed, address).await?;
    let start = Moment::now();
    bed.announcers.signal(holder, Signal::SIGTERM).await?;
    let process = Announcers::process(holder);
    bed.lab.wait_exit(&process, END).await?;
    bed.announcers.start_again(holder).await?;
    let seen = watch.until(start + NO_MOVE).await?;
    bed.heal().await?;
    Ok(values(&seen, start, start + NO_MOVE))
}

/// The holder's announcer ends while another one of the same node starts: an update with surge.
pub async fn updated(bed: &Bed<'_>, address: IpAddr) -> Result<Values> {
    let holder = bed.holder(address).await?;
    let next = format!("{}-next", Announcers::process(holder));
    let watch = Watch::of(bed, address).await?;
    let start = Moment::now();
    bed.announcers.start_as(&next, holder).await?;
    bed.announcers.signal(holder, Signal::SIGTERM).await?;
    let usual = Announcers::process(holder);
    bed.lab.wait_exit(&usual, END).await?;
    // Nobody but the next one can say so.
    bed.announcers.ready(holder).await?;
    let seen = watch.until(start + NO_MOVE).await?;
    // Back to the process of the usual name, in the same way.
    bed.announcers.start_again(holder).await?;
    bed.lab.kill(&next, Signal::SIGTERM).await?;
    bed.lab.wait_exit(&next, END).await?;
    bed.heal().await?;
    Ok(values(&seen, start, start + NO_MOVE))
}
