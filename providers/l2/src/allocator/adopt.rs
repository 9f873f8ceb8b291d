//! Adopts the addresses in the status of Services, and handles disputes about an address that
//! two Services publish.
//!
//! Invariant: a dispute is in both `disputes` and the loser's `lost`, or in neither. During a
//! dispute the owner has the address and the loser does not. A dispute ends when the loser's
//! status no longer names the address, when one of the two Services leaves, or when they share
//! the address; then the other one is asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ballast_provider::{Family, ServiceId};

use super::{Allocator, Answer, Service};
use crate::claim::Claim;
use crate::holder::name_for;
use crate::range::{number, unusable};
use crate::verdict::Marker;

/// By address: the owner, and the Service that lost the address.
pub(super) type Disputes = BTreeMap<IpAddr, BTreeSet<(ServiceId, ServiceId)>>;

// === impl Allocator ===

impl Allocator {
    /// Adopts a Service: each address in its status becomes its own if it could have been
    /// assigned and no older Service has it. The namespace rule of sharing is not checked,
    /// because such Services share already.
    pub(super) fn adopt(&mut self, claim: &Arc<Claim>) {
        let mut service = Service {
            claim: claim.clone(),
            addresses: Vec::new(),
            lost: Vec::new(),
            rejected: claim.replaced.clone(),
            answer: Answer::Nothing,
        };
        for address in &claim.published {
            let family = Family::of(*address);
            if service.addresses.iter().any(|a| Family::of(*a) == family) {
                continue;
            }
            if let Some(rejection) = self.rejects(claim, *address) {
                service.rejected.push((*address, rejection));
                continue;
            }
            let slot = self.table.slots.get(address);
            match slot.and_then(|slot| slot.clash(claim, true)) {
                None => {
                    self.table.occupy(*address, claim);
                    service.addresses.push(*address);
                }
                Some((owner, _)) => {
                    let owner = owner.id.clone();
                    self.waiting.wake(&owner);
                    let disputes = self.disputes.entry(*address).or_default();
                    disputes.insert((owner.clone(), claim.id.clone()));
                    service.lost.push((*address, owner));
                }
            }
        }
        self.services.insert(claim.id.clone(), service);
    }

    /// Why a Service cannot adopt an address that it publishes. An address that our own
    /// conditions confirm was assigned by earlier rules and stays.
    fn rejects(&self, claim: &Claim, address: IpAddr) -> Option<String> {
        if let Some(what) = unusable(address) {
            return Some(format!("it is a {what} address"));
        }
        if claim.confirmed.contains(&address) {
            return None;
        }
        if self.table.skipped.contains(&address) {
            return Some("it is the address of a node".to_owned());
        }
        if let Some(holder) = self.holders(address).find(|it| it.excludes(&claim.id)) {
            let holder = holder.name_for(&claim.id);
            return Some(format!("it is in use by {holder}"));
        }
        let requested = claim.requested.contains(&address);
        let supply = &self.table.pools[self.table.pool_of(address)?];
        let given = supply.space(Family::of(address)).given();
        let edge = !requested && !given.contains(number(address));
        let name = &supply.name;
        edge.then(|| {
            format!(
                "it is at the edge of a network of pool {name:?} and is assigned only on request"
            )
        })
    }

    /// What to report to the Service about published addresses that it did not adopt.
    pub(super) fn not_adopted(&self, claim: &Claim) -> Vec<Marker> {
        let service = self.services.get(&claim.id);
        let rejected = service.into_iter().flat_map(|service| &service.rejected);
        let markers = rejected.map(|(address, why)| Marker::NotAdopted {
            address: *address,
            why: why.clone(),
            published: claim.published.contains(address),
        });
        markers.collect()
    }

    /// Ends the disputes that this Service lost, if they are over.
    pub(super) fn end_lost(&mut self, claim: &Claim) {
        if self.disputes.is_empty() {
            return;
        }
        let Some(service) = self.services.get_mut(&claim.id) else {
            return;
        };
        let stands = |(address, _): &(IpAddr, ServiceId)| {
            claim.published.contains(address) && !service.addresses.contains(address)
        };
        let (lost, over) = service.lost.iter().cloned().partition(stands);
        service.lost = lost;
        for (address, owner) in over {
            self.end_dispute(address, &owner, &claim.id);
        }
    }

    /// Ends the disputes about an address that its owner has left.
    pub(super) fn end_kept(&mut self, address: IpAddr, owner: &ServiceId) {
        let disputes = self.disputes.get(&address).into_iter().flatten();
        let kept = disputes.filter(|(keeper, _)| keeper == owner);
        let losers: Vec<ServiceId> = kept.map(|(_, loser)| loser.clone()).collect();
        for loser in losers {
            self.end_dispute(address, owner, &loser);
        }
    }

    /// Ends one dispute; those of the two Services that still exist are asked again.
    pub(super) fn end_dispute(&mut self, address: IpAddr, owner: &ServiceId, loser: &ServiceId) {
        if let Some(disputes) = self.disputes.get_mut(&address) {
            disputes.remove(&(owner.clone(), loser.clone()));
            if disputes.is_empty() {
                self.disputes.remove(&address);
            }
        }
        if self.addresses(owner).contains(&address) {
            self.waiting.wake(owner);
        }
        if let Some(service) = self.services.get_mut(loser) {
            let before = service.lost.len();
            service.lost.retain(|(a, o)| *a != address || o != owner);
            if service.lost.len() < before {
                self.waiting.wake(loser);
            }
        }
    }

    /// What to report to the Service about its disputes.
    pub(super) fn disputed(&self, id: &ServiceId, chosen: &[Option<IpAddr>; 2]) -> Vec<Marker> {
        if self.disputes.is_empty() {
            return Vec::new();
        }
        let lost = self.services.get(id).into_iter().flat_map(|s| &s.lost);
        let lost = lost.filter(|(address, _)| !chosen.contains(&Some(*address)));
        let lost = lost.map(|(address, owner)| Marker::Duplicate {
            address: *address,
            other: name_for(id, owner),
            kept: false,
        });
        let kept = chosen.iter().flatten().flat_map(|address| {
            let disputes = self.disputes.get(address).into_iter().flatten();
            let own = disputes.filter(|(owner, _)| owner == id);
            own.map(|(_, loser)| Marker::Duplicate {
                address: *address,
                other: name_for(id, loser),
                kept: true,
            })
        });
        lost.chain(kept).collect()
    }
}
