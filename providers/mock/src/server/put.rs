//! A `PUT` of a load balancer: one decision on the state. With addresses on a network
//! interface, probes of the network come before it.
//!
//! Probes take up to seconds, so they are not part of the decision: the state proposes an
//! address, the interface reserves it, and the final decision takes it. Invariant: every
//! committed address was reserved, and an address that was reserved but not committed is
//! removed from the interface.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use tokio::time::Instant;

use super::Host;
use super::cloud::{Cloud, Edit, Owner};
use super::nic::{Denial, Nic};
use super::writer::Writer;
use crate::api::{Code, Problem, PutLoadBalancer};

/// After this time no other address is tried; the caller waits at most 4 s.
const TRIES: Duration = Duration::from_millis(1_500);

/// The request.
pub(super) struct Put {
    pub(super) name: String,
    pub(super) owner: Option<Owner>,
    /// The run of the cloud that the request is meant for.
    pub(super) epoch: Option<String>,
    pub(super) body: PutLoadBalancer,
}

/// Creates or changes a load balancer. Returns whether it was created.
pub(super) async fn put(writer: &Writer, host: &Host, mut put: Put) -> Result<bool, Problem> {
    let Some(nic) = &host.nic else {
        return writer
            .change(move |cloud, now| put.decide(cloud, now))
            .await;
    };
    let mut reserved = Vec::new();
    let made = match reserve(writer, nic, &mut put, &mut reserved).await {
        Ok(()) => {
            let promised = reserved.clone();
            let decide = move |cloud: &Cloud, now| {
                let (edits, made) = put.decide(cloud, now)?;
                let other = addresses(&edits).find(|ip| !promised.contains(ip));
                other.map_or(Ok((edits, made)), |ip| Err(changed(ip)))
            };
            writer.change(decide).await
        }
        Err(problem) => Err(problem),
    };
    let held = writer.read().held();
    reserved.retain(|ip| !held.contains(ip));
    nic.give_up(reserved).await;
    made
}

/// Reserves the addresses that the state would assign, or others instead.
async fn reserve(
    writer: &Writer,
    nic: &Nic,
    put: &mut Put,
    reserved: &mut Vec<IpAddr>,
) -> Result<(), Problem> {
    let published = put.body.preferred_addresses.clone();
    let until = Instant::now() + TRIES;
    loop {
        put.body.avoid_addresses.extend(nic.avoided());
        put.body.avoid_addresses.retain(|ip| !reserved.contains(ip));
        let proposed: Vec<IpAddr> = {
            let (edits, _) = put.decide(&writer.read(), Timestamp::now())?;
            addresses(&edits)
                .filter(|ip| !reserved.contains(ip))
                .collect()
        };
        if proposed.is_empty() {
            return Ok(());
        }
        let asked = proposed
            .iter()
            .map(|ip| nic.propose(*ip, published.contains(ip)));
        let answers = join_all(asked).await;
        let mut refused = Ok(());
        for (ip, answer) in proposed.into_iter().zip(answers) {
            match answer {
                Ok(()) => {
                    reserved.push(ip);
                    // So that the final decision chooses the same address.
                    put.body.preferred_addresses.insert(0, ip);
                }
                Err(Denial::Elsewhere(problem)) => {
                    put.body.preferred_addresses.retain(|other| *other != ip);
                    put.body.avoid_addresses.push(ip);
                    let last = put.body.desired.requested_addresses.contains(&ip)
                        || Instant::now() >= until;
                    if last {
                        refused = Err(problem);
                    }
                }
                Err(Denial::Wait(problem) | Denial::Broken(problem)) => refused = Err(problem),
            }
        }
        refused?;
    }
}

/// The addresses that the edits would take from the ranges.
fn addresses(edits: &[Edit]) -> impl Iterator<Item = IpAddr> + '_ {
    edits.iter().filter_map(|edit| match edit {
        Edit::Hold(ip, _) => Some(*ip),
        _ => None,
    })
}

fn changed(ip: IpAddr) -> Problem {
    Problem::new(
        Code::AddressInUse,
        format!("{ip} became available meanwhile; try again"),
    )
}

// === impl Put ===

impl Put {
    fn decide(&self, cloud: &Cloud, now: Timestamp) -> Result<(Vec<Edit>, bool), Problem> {
        let life = &cloud.position().epoch;
        if self.epoch.as_ref().is_some_and(|epoch| epoch != life) {
            let lost = "the cloud has restarted since; list again";
            return Err(Problem::new(Code::SequenceUnknown, lost));
        }
        let edits = cloud.put(now, &self.name, self.owner.as_ref(), &self.body)?;
        Ok((edits, cloud.record(&self.name).is_none()))
    }
}
