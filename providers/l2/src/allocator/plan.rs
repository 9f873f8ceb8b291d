//! What a claim would get now. Reads everything and changes nothing.
//!
//! # The order of decisions
//!
//! Family by family, in the claim's order:
//! 1. A requested address is kept or taken. It may be resting (the user asks for this very
//!    address), or be one that its pool does not assign automatically. It must be in a pool
//!    whose selectors match the Service, whether or not that pool assigns automatically.
//! 2. Otherwise the present address is kept, unless the Service requests a pool and the address
//!    is in another, or it shares the address and its share key now differs from that of the
//!    other Services. Ports and traffic policy never move a Service: an edit that conflicts
//!    with the other Services is denied.
//! 3. An address in no pool, or in one whose selectors do not match the Service, is kept and
//!    marked. It moves only if its pool has `reallocate` or, if no pool has it, to a pool with
//!    `reallocate`. It does not move while a pool in conflict has it, because the conflict may
//!    end.
//! 4. Missing addresses are chosen: first an address to share, lowest first; then both families
//!    from the first pool that has both; otherwise each from the pool of the other family's
//!    address if possible, then from the first pool that has one. `RequireDualStack` gets both
//!    or none; `PreferDualStack` gets what is available.

use std::net::IpAddr;

use ballast_provider::{Family, Reason};

use super::Allocator;
use super::table::{Supply, index};
use super::waiting::Waits;
use crate::claim::{Claim, Clash, FamilyPolicy};
use crate::holder::name_for;
use crate::pool::Standing;
use crate::range::address;
use crate::verdict::{Denial, Marker};

/// How many addresses of a share key the allocator tries: this many with a member in the
/// Service's own namespace, and this many of all. A Service whose ports conflict on all of them
/// gets an address of its own.
const SHARES_LOOKED_AT: usize = 32;

/// What a claim gets.
#[derive(Debug)]
pub(super) struct Plan {
    /// In the order of the claim's families.
    pub(super) addresses: Vec<IpAddr>,
    /// Those that the Service does not have yet.
    pub(super) takes: Vec<IpAddr>,
    pub(super) markers: Vec<Marker>,
    /// What would improve it.
    pub(super) waits: Waits,
}

/// Why a claim gets nothing.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) denial: Denial,
    pub(super) waits: Waits,
}

/// A plan in progress.
#[derive(Debug, Default)]
struct Draft {
    /// Kept or taken, per family.
    chosen: [Option<IpAddr>; 2],
    takes: Vec<IpAddr>,
    /// Families without an address.
    need: Vec<Family>,
    /// Addresses that could move, each with the pool that has it but does not serve the
    /// Service.
    loose: Vec<(IpAddr, Option<usize>)>,
    problem: Option<(Reason, String)>,
    markers: Vec<Marker>,
    waits: Waits,
}

// === impl Draft ===

impl Draft {
    fn keep(&mut self, address: IpAddr) {
        self.chosen[index(Family::of(address))] = Some(address);
    }

    fn take(&mut self, address: IpAddr) {
        self.keep(address);
        self.takes.push(address);
    }

    fn fail(&mut self, reason: Reason, message: String) {
        self.problem.get_or_insert((reason, message));
    }

    fn refused(self, keeps: &[IpAddr]) -> Refused {
        let (reason, message) = self
            .problem
            .unwrap_or_else(|| (Reason::NoAddressAvailable, "no address is free".to_owned()));
        Refused {
            denial: Denial {
                reason,
                message,
                keeps: keeps.to_vec(),
            },
            waits: self.waits,
        }
    }
}

// === impl Allocator ===

impl Allocator {
    pub(super) fn plan(&self, claim: &Claim) -> Result<Plan, Box<Refused>> {
        let current = self.addresses(&claim.id);
        let mut draft = Draft::default();
        if let Some(fault) = claim.fault() {
            draft.fail(Reason::Invalid, fault);
            return Err(Box::new(draft.refused(current)));
        }
        for family in claim.wanted() {
            let present = current.iter().find(|a| Family::of(**a) == *family).copied();
            self.look_at(claim, *family, present, &mut draft);
        }
        if draft.problem.is_none() && !draft.need.is_empty() {
            self.fill(claim, &mut draft);
        }
        if let Some((_, message)) = &mut draft.problem {
            // Its status may name an address that it lost: it is told, like the owner.
            let told = self.not_adopted(claim).into_iter();
            for marker in told.chain(self.disputed(&claim.id, &[None; 2])) {
                message.push_str("; ");
                message.push_str(&marker.to_string());
            }
            return Err(Box::new(draft.refused(current)));
        }
        self.resettle(claim, &mut draft);
        let chosen = draft.chosen.iter().flatten();
        let of_nodes = chosen.filter(|address| self.table.skipped.contains(address));
        let of_nodes = of_nodes.map(|address| Marker::NodeAddress { address: *address });
        draft.markers.extend(of_nodes);
        draft.markers.extend(self.not_adopted(claim));
        draft
            .markers
            .extend(self.disputed(&claim.id, &draft.chosen));
        let chosen = claim
            .wanted()
            .iter()
            .filter_map(|f| draft.chosen[index(*f)]);
        Ok(Plan {
            addresses: chosen.collect(),
            takes: draft.takes,
            markers: draft.markers,
            waits: draft.waits,
        })
    }

    /// Steps 1 to 3 for one family.
    fn look_at(&self, claim: &Claim, family: Family, present: Option<IpAddr>, draft: &mut Draft) {
        let requested = claim.requested(family);
        if let Some(address) = requested.filter(|_| requested != present) {
            match self.admit(claim, address) {
                Ok(()) => draft.take(address),
                Err((reason, message)) => {
                    draft.fail(reason, message);
                    if matches!(reason, Reason::AddressInUse | Reason::PortInUse) {
                        draft.waits.addresses.insert(address);
                    }
                }
            }
            return;
        }
        let Some(address) = present else {
            draft.need.push(family);
            return;
        };
        let slot = self.table.slots.get(&address);
        match slot.and_then(|slot| slot.clash(claim, true)) {
            Some((_, Clash::Key)) if requested.is_none() => {
                // If the other Services leave before there is another address, it can stay.
                draft.waits.addresses.insert(address);
                return draft.need.push(family);
            }
            Some((other, clash)) => {
                let (reason, message) = describe(address, claim, other, clash, "");
                draft.waits.addresses.insert(address);
                return draft.fail(reason, message);
            }
            None => {}
        }
        let pool = self.table.pool_of(address);
        let supply = pool.map(|pool| &self.table.pools[pool]);
        let elsewhere = |supply: &Supply| claim.pool.as_ref().is_some_and(|p| **p != *supply.name);
        match supply {
            Some(supply) if requested.is_none() && elsewhere(supply) => draft.need.push(family),
            Some(supply) if supply.pool.permits(claim) => draft.keep(address),
            _ => {
                draft.keep(address);
                draft.loose.push((address, pool));
            }
        }
    }

    /// Whether the Service may have the address that it requests.
    fn admit(&self, claim: &Claim, address: IpAddr) -> Result<(), (Reason, String)> {
        let Some(pool) = self.table.pool_of(address) else {
            let message = match self.in_conflict(address) {
                Some(supply) => format!("{address} is in {}", not_serving(supply)),
                None => format!("{address} is in no address pool"),
            };
            return Err((Reason::AddressOutsidePool, message));
        };
        let supply = &self.table.pools[pool];
        let name = &supply.name;
        if let Some(asked) = claim.pool.as_ref().filter(|asked| ***asked != **name) {
            let message = format!("{address} is in pool {name:?}, but pool {asked:?} is requested");
            return Err((Reason::AddressOutsidePool, message));
        }
        if !supply.pool.permits(claim) {
            let message = format!(
                "{address} is in pool {name:?}, but the pool's selectors or the class exclude this Service"
            );
            return Err((Reason::PoolNotPermitted, message));
        }
        if self.table.skipped.contains(&address) {
            return Err((
                Reason::AddressInUse,
                format!("{address} is the address of a node"),
            ));
        }
        if let Some(slot) = self.table.slots.get(&address) {
            let clash = slot.clash(claim, supply.pool.share_across_namespaces);
            return clash.map_or(Ok(()), |(other, clash)| {
                Err(describe(address, claim, other, clash, name))
            });
        }
        if let Some(holder) = self.holders(address).next() {
            let message = format!("{address} is in use by {}", holder.name_for(&claim.id));
            return Err((Reason::AddressInUse, message));
        }
        Ok(())
    }

    /// Step 4: addresses for the families without one.
    fn fill(&self, claim: &Claim, draft: &mut Draft) {
        let home = self.home(draft);
        let candidates = match self.candidates(claim, home) {
            Ok(candidates) => candidates,
            Err((reason, message)) => {
                if draft.chosen == [None; 2] || claim.policy != FamilyPolicy::PreferDualStack {
                    draft.fail(reason, message);
                }
                Vec::new()
            }
        };
        let picks = self.pick(claim, &draft.need, &candidates, home);
        for family in std::mem::take(&mut draft.need) {
            if let Some(address) = picks[index(family)] {
                draft.take(address);
                continue;
            }
            draft.need.push(family);
            for pool in &candidates {
                let supply = &self.table.pools[*pool];
                if supply.space(family).given().count() > 0 {
                    draft.waits.spaces.insert(supply.key(family));
                }
            }
            draft.waits.key = claim.key().map(str::to_owned);
        }
        let content = claim.policy == FamilyPolicy::PreferDualStack && draft.chosen != [None; 2];
        if draft.need.is_empty() || content {
            let missing = draft
                .need
                .iter()
                .map(|family| Marker::Missing { family: *family });
            draft.markers.extend(missing);
        } else {
            let message = self.exhausted(&candidates, draft.need[0]);
            draft.fail(Reason::NoAddressAvailable, message);
        }
    }

    /// Step 3: addresses that no pool provides for this Service.
    fn resettle(&self, claim: &Claim, draft: &mut Draft) {
        for (address, from) in std::mem::take(&mut draft.loose) {
            let family = Family::of(address);
            let leaves = from.is_some_and(|pool| self.table.pools[pool].pool.reallocate);
            let stays = claim.requested(family) == Some(address)
                || (from.is_none() && self.in_conflict(address).is_some());
            let mut targets = match self.candidates(claim, None) {
                Ok(candidates) if !stays => candidates,
                _ => Vec::new(),
            };
            targets.retain(|pool| leaves || self.table.pools[*pool].pool.reallocate);
            let home = self.home(draft);
            if let Some(pick) = self.pick(claim, &[family], &targets, home)[index(family)] {
                draft.take(pick);
                continue;
            }
            let spaces = targets
                .iter()
                .map(|pool| self.table.pools[*pool].key(family));
            draft.waits.spaces.extend(spaces);
            if !targets.is_empty() {
                draft.waits.key = claim.key().map(str::to_owned);
            }
            draft.markers.push(Marker::OutsidePool {
                address,
                pool: from.map(|pool| self.table.pools[pool].name.to_string()),
            });
        }
    }

    /// The pool of an address already chosen, for the other family.
    fn home(&self, draft: &Draft) -> Option<usize> {
        let mut chosen = draft.chosen.iter().flatten();
        chosen.find_map(|address| self.table.pool_of(*address))
    }

    /// The pools that may serve the Service, in the order in which they are tried.
    fn candidates(
        &self,
        claim: &Claim,
        home: Option<usize>,
    ) -> Result<Vec<usize>, (Reason, String)> {
        let pools = &self.table.pools;
        if let Some(name) = &claim.pool {
            let Some(pool) = self.table.find(name) else {
                return Err((
                    Reason::PoolNotFound,
                    format!("there is no address pool {name:?}"),
                ));
            };
            let supply = &pools[pool];
            if !supply.serves() {
                return Err((Reason::PoolConflict, not_serving(supply)));
            }
            if !supply.pool.permits(claim) {
                let message =
                    format!("the selectors of pool {name:?} or the class exclude this Service");
                return Err((Reason::PoolNotPermitted, message));
            }
            return Ok(vec![pool]);
        }
        let serves = |pool: &usize| {
            let supply = &pools[*pool];
            let asked = supply.pool.auto_assign || home == Some(*pool);
            asked && supply.serves() && supply.pool.permits(claim)
        };
        let candidates: Vec<usize> = (0..pools.len()).filter(serves).collect();
        if candidates.is_empty() {
            let message = if pools.is_empty() {
                "there is no address pool".to_owned()
            } else {
                "no address pool assigns addresses to this Service automatically; check autoAssign, the selectors and the conditions of the pools".to_owned()
            };
            return Err((Reason::NoPool, message));
        }
        Ok(candidates)
    }

    /// An address of each family from these pools, if available.
    fn pick(
        &self,
        claim: &Claim,
        wanted: &[Family],
        pools: &[usize],
        home: Option<usize>,
    ) -> [Option<IpAddr>; 2] {
        let mut picks = [None; 2];
        for family in wanted {
            picks[index(*family)] = self.join(claim, *family, pools);
        }
        let open = |pool: usize, family: Family| {
            let supply = &self.table.pools[pool];
            let own = self.waiting.reserved(&claim.id, &supply.name, family);
            supply.space(family).is_open(own)
        };
        let give = |pool: usize, family: Family| {
            let next = self.table.pools[pool].space(family).next(self.now);
            next.map(|number| address(family, number))
        };
        if wanted.len() == 2 && picks == [None; 2] {
            let mut pools = pools.iter().copied();
            let both = pools.find(|pool| wanted.iter().all(|family| open(*pool, *family)));
            if let Some(pool) = both {
                return [give(pool, Family::V4), give(pool, Family::V6)];
            }
        }
        for family in wanted {
            if picks[index(*family)].is_some() {
                continue;
            }
            let other = picks.iter().flatten().next();
            let home = home.or_else(|| self.table.pool_of(*other?));
            let first = home.filter(|home| pools.contains(home)).into_iter();
            let mut order = first.chain(pools.iter().copied());
            let pool = order.find(|pool| open(*pool, *family));
            picks[index(*family)] = pool.and_then(|pool| give(pool, *family));
        }
        picks
    }

    /// The lowest address that the Service can share.
    fn join(&self, claim: &Claim, family: Family, pools: &[usize]) -> Option<IpAddr> {
        let namespace = &claim.id.namespace;
        let shared = self
            .table
            .shared(claim.key()?, namespace, family, SHARES_LOOKED_AT);
        shared.into_iter().find(|address| {
            let Some(pool) = self.table.pool_of(*address) else {
                return false;
            };
            let across = self.table.pools[pool].pool.share_across_namespaces;
            let slot = self.table.slots.get(address);
            let fits = |slot: &super::table::Slot| {
                !slot.has(&claim.id) && slot.clash(claim, across).is_none()
            };
            let of_node = self.table.skipped.contains(address);
            !of_node && pools.contains(&pool) && slot.is_some_and(fits)
        })
    }

    /// A pool in conflict that has the address.
    fn in_conflict(&self, address: IpAddr) -> Option<&Supply> {
        let mut losers = self.table.pools.iter().filter(|supply| !supply.serves());
        losers.find(|supply| supply.pool.contains(address))
    }

    fn exhausted(&self, candidates: &[usize], family: Family) -> String {
        let pools = candidates.iter().map(|pool| &self.table.pools[*pool]);
        let full: Vec<&str> = pools
            .filter(|supply| supply.space(family).given().count() > 0)
            .map(|supply| &*supply.name)
            .collect();
        if full.is_empty() {
            return format!("no address pool that serves this Service has {family} addresses");
        }
        format!(
            "no address pool that serves this Service has a free {family} address (exhausted: {}); released addresses rest for the pool's reuseAfter first",
            full.join(", ")
        )
    }
}

fn not_serving(supply: &Supply) -> String {
    let name = &supply.name;
    match &supply.standing {
        Standing::Serves => format!("pool {name:?}"),
        Standing::Conflict { with, range } => format!(
            "pool {name:?}, which does not serve because {range} is also in pool {with:?}, which is older"
        ),
    }
}

/// Why two Services cannot share an address.
fn describe(
    address: IpAddr,
    claim: &Claim,
    other: &Claim,
    clash: Clash,
    pool: &str,
) -> (Reason, String) {
    let other = name_for(&claim.id, &other.id);
    match clash {
        Clash::Key => (
            Reason::AddressInUse,
            format!("{address} belongs to {other}; to share it, both need the same share key"),
        ),
        Clash::Namespace => (
            Reason::AddressInUse,
            format!(
                "{address} belongs to a Service of another namespace, and pool {pool:?} does not allow sharing across namespaces"
            ),
        ),
        Clash::Port(protocol, port) => (
            Reason::PortInUse,
            format!("port {protocol}/{port} on {address} belongs to {other}"),
        ),
        Clash::Backend => (
            Reason::AddressInUse,
            format!(
                "{address} is shared with {other}, whose traffic policy or endpoints differ; Services can share an address if all use Cluster, or all use Local with the same selector"
            ),
        ),
    }
}
