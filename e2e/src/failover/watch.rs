//! Clients and a capture around one failure, and what they saw.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::bed::{self, Bed, at};
use crate::Host;
use crate::segment::judge::{self, Holder, Reachability};
use crate::segment::{Attempt, Capture, Conversation, Frame, Kind, Moment, Visitor, Visits, Way};

/// How long everybody must be answered before something happens.
const CALM: Duration = Duration::from_millis(500);
/// How long to wait for that.
const SOON: Duration = Duration::from_mins(1);

/// Clients of one address: one that knows it, one that asks for the MAC address each time, and one
/// behind the router.
#[derive(Debug)]
pub struct Watch<'a> {
    address: IpAddr,
    /// The MAC address of the holder.
    mac: String,
    capture: Capture<'a>,
    known: Visits<'a>,
    newcomer: Visits<'a>,
    far: Visits<'a>,
    conversation: Conversation<'a>,
    since: Moment,
}

/// What they saw.
#[derive(Debug)]
pub struct Seen {
    address: IpAddr,
    mac: String,
    since: Moment,
    until: Moment,
    known: Vec<Attempt>,
    newcomer: Vec<Attempt>,
    far: Vec<Attempt>,
    frames: Vec<Frame>,
    /// How often the established connection was lost.
    pub lost: usize,
}

// === impl Watch ===

impl<'a> Watch<'a> {
    /// Starts them, and waits until everybody is answered.
    pub async fn of(bed: &Bed<'a>, address: IpAddr) -> Result<Self> {
        let (lab, to) = (bed.lab, at(address));
        let hears = [bed::NEWCOMER, bed::KNOWN, Host::Hub];
        let mut watch = Self {
            address,
            mac: lab.mac(bed.holder(address).await?).await?,
            capture: lab.capture(&hears).await?,
            known: lab.visit(bed::KNOWN, to, Visitor::Regular).await?,
            newcomer: lab.visit(bed::NEWCOMER, to, Visitor::Newcomer).await?,
            far: lab.visit(Host::FarClient, to, Visitor::Regular).await?,
            conversation: lab.converse(bed::STRANGER, to).await?,
            since: Moment::now(),
        };
        watch.since = watch.calm().await?;
        Ok(watch)
    }

    /// Waits until everybody was answered for some time, and returns the end of it.
    pub async fn calm(&self) -> Result<Moment> {
        let start = std::time::Instant::now();
        loop {
            let (from, until) = (Moment::now(), Moment::now() + CALM);
            let mut restless = None;
            for visits in [&self.known, &self.newcomer, &self.far] {
                let seen = judge::reachability(&visits.until(until).await?, from, until);
                if seen.failed > 0 || seen.attempts == 0 {
                    restless = Some((visits, seen));
                }
            }
            let Some(restless) = restless else {
                return Ok(until);
            };
            ensure!(start.elapsed() < SOON, "{restless:?} of {}", self.address);
        }
    }

    /// Stops them at a moment, and returns what they saw.
    pub async fn until(self, until: Moment) -> Result<Seen> {
        // The outcome of the last attempt before it is known later.
        self.known.until(until).await?;
        let frames = self.capture.frames().await?;
        self.capture.stop().await?;
        let lost = self.conversation.lost().await?;
        self.conversation.stop().await?;
        Ok(Seen {
            address: self.address,
            mac: self.mac,
            since: self.since,
            until,
            known: self.known.stop().await?,
            newcomer: self.newcomer.stop().await?,
            far: self.far.stop().await?,
            frames,
            lost,
        })
    }

    /// The same, this long from now, or when everybody is answered again.
    pub async fn for_a_while(self, time: Duration) -> Result<Seen> {
        tokio::time::sleep(time).await;
        let until = self.calm().await?;
        self.until(until).await
    }
}

// === impl Seen ===

impl Seen {
    /// What the client saw that knows the address.
    pub fn known(&self, from: Moment, until: Moment) -> Reachability {
        judge::reachability(&self.known, from, until)
    }

    /// What the client saw that asks for the MAC address each time.
    pub fn newcomer(&self, from: Moment, until: Moment) -> Reachability {
        judge::reachability(&self.newcomer, from, until)
    }

    /// What the client behind the router saw.
    pub fn far(&self, from: Moment, until: Moment) -> Reachability {
        judge::reachability(&self.far, from, until)
    }

    /// The whole period.
    pub const fn period(&self) -> (Moment, Moment) {
        (self.since, self.until)
    }

    /// The MAC addresses in answers to clients.
    pub fn holders(&self, from: Moment, until: Moment) -> Vec<Holder> {
        judge::holders(&self.frames, self.address, from, until)
    }

    /// How long it took until all answers named the MAC address that the last one names.
    pub fn until_one(&self, from: Moment) -> Duration {
        judge::until_one(&self.holders(from, self.until), from)
    }

    /// How long questions went unanswered after a takeover was announced.
    pub fn announced_to_answered(&self, from: Moment) -> Duration {
        judge::announced_to_answered(&self.frames, self.address, &self.mac, from, self.until)
    }

    /// When another node than the first holder announced the address.
    pub fn takeover(&self, from: Moment) -> Option<Moment> {
        let claims = self.frames.iter().filter(|it| {
            let other = it.said.mac.as_ref().is_some_and(|mac| *mac != self.mac);
            it.said.kind == Kind::Claim && it.way == Way::Sent && other
        });
        let claims = claims.filter(|it| it.at >= from && it.said.address == self.address);
        claims.map(|it| it.at).min()
    }

    /// The failed attempts of the client that knows the address.
    pub fn known_failures(&self, from: Moment) -> Vec<&Attempt> {
        judge::failures(&self.known, from, self.until)
    }

    /// The failed attempts of the client that asks for the MAC address each time.
    pub fn newcomer_failures(&self, from: Moment) -> Vec<&Attempt> {
        judge::failures(&self.newcomer, from, self.until)
    }

    /// How often the node that answers the client changed that knows the address, from the
    /// beginning.
    pub fn known_moves(&self, until: Moment) -> usize {
        self.known(self.since, until).moves
    }

    /// The same for the client that saw most changes: also those while two nodes answer.
    pub fn moves(&self, until: Moment) -> usize {
        let newcomer = self.newcomer(self.since, until).moves;
        newcomer.max(self.known_moves(until))
    }

    /// When a host claimed one of these addresses.
    pub fn claims_of(
        &self,
        host: Host,
        of: &BTreeSet<IpAddr>,
        from: Moment,
        until: Moment,
    ) -> Vec<Moment> {
        let name = host.name();
        let mine = self.frames.iter();
        let mine = mine.filter(|it| it.way == Way::Sent && it.host == name);
        let mine = mine.filter(|it| it.at >= from && it.at < until);
        mine.filter(|it| it.said.kind != Kind::Request && of.contains(&it.said.address))
            .map(|it| it.at)
            .collect()
    }

    /// The first answer that named a MAC address after a moment.
    pub fn first_answer(&self, mac: &str, from: Moment) -> Result<Moment> {
        let all = self.holders(from, self.until);
        let mine = all.iter().find(|it| it.mac == mac);
        let mine = mine.with_context(|| format!("no answer named {mac}: {all:?}"))?;
        Ok(mine.first)
    }
}
