//! The model, and the allocator beside it.

use super::super::*;
use super::history::{SERVICES, Step};
use crate::claim::Clash;
use crate::pool::{Standing, judge};

/// A free address that was in use before.
#[derive(Clone, Debug)]
struct Released {
    order: usize,
    since: i64,
    rested: bool,
}

pub(super) struct World {
    allocator: Allocator,
    pub(super) log: Vec<String>,
    now: i64,
    pools: Vec<Pool>,
    /// What each Service asks for now, and what its status publishes.
    desired: BTreeMap<ServiceId, Claim>,
    published: BTreeMap<ServiceId, Vec<IpAddr>>,
    answers: BTreeMap<ServiceId, Result<Grant, Denial>>,
    owners: BTreeMap<IpAddr, Vec<Claim>>,
    released: BTreeMap<IpAddr, Released>,
    order: usize,
    held: [BTreeSet<IpAddr>; 2],
    skipped: BTreeSet<IpAddr>,
    /// Until then the allocator may assign any free address.
    doubt: i64,
    quiet: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            allocator: started(vec![]),
            log: Vec::new(),
            now: 0,
            pools: Vec::new(),
            desired: BTreeMap::new(),
            published: BTreeMap::new(),
            answers: BTreeMap::new(),
            owners: BTreeMap::new(),
            released: BTreeMap::new(),
            order: 0,
            held: [BTreeSet::new(), BTreeSet::new()],
            skipped: BTreeSet::new(),
            doubt: i64::MIN,
            quiet: true,
        }
    }

    pub(super) fn take(&mut self, step: &Step) {
        match step {
            Step::Ask(claim) => {
                self.desired.insert(claim.id.clone(), (**claim).clone());
                self.ask(&claim.id);
            }
            Step::Release(service) => self.release(&id(SERVICES[*service])),
            Step::Pools(pools) => self.set_pools(pools),
            Step::Hold(agent, held) => {
                let held: BTreeSet<IpAddr> = held.iter().copied().collect();
                let before = std::mem::replace(&mut self.held[*agent], held.clone());
                self.allocator
                    .set_held(&node(&agent.to_string()), &held, at(self.now));
                self.refree(&before);
            }
            Step::Skip(skipped) => {
                let skipped: BTreeSet<IpAddr> = skipped.iter().copied().collect();
                let before = std::mem::replace(&mut self.skipped, skipped.clone());
                self.allocator.set_skipped(&skipped, at(self.now));
                self.refree(&before);
            }
            Step::Pass(seconds) => self.pass(*seconds),
            Step::Restart { doubt, thief } => self.restart(*doubt, *thief),
        }
        self.ripen();
        self.settle();
    }

    /// Asks all woken Services, then checks that each has its addresses or a valid reason.
    fn settle(&mut self) {
        for round in 0.. {
            let woken = self.allocator.drain_woken();
            self.log.push(format!("woken {woken:?}"));
            if woken.is_empty() {
                break;
            }
            assert!(
                round < 50,
                "Services wake each other for ever: {:?}",
                self.log
            );
            self.quiet = false;
            for id in woken {
                assert!(self.desired.contains_key(&id), "{id} is gone and woken");
                self.ask(&id);
            }
        }
        self.quiet = true;
        self.check_books();
        for (id, answer) in self.answers.clone() {
            self.check_patience(&id, &answer);
            let told = self.allocator.plan(&self.desired[&id]);
            let now = match told {
                Ok(plan) => Ok((plan.addresses, plan.markers)),
                Err(refused) => Err(refused.denial.reason),
            };
            let then = answer.map(|grant| (grant.addresses, grant.markers));
            let then = then.map_err(|denial| denial.reason);
            // With two families, the obstacle of either may be named.
            let either = self.desired[&id].families.len() > 1;
            if !(either && now.is_err() && then.is_err()) {
                assert_eq!(now, then, "{id} should have been woken");
            }
        }
    }

    fn ask(&mut self, id: &ServiceId) {
        let claim = Claim {
            published: self.published.get(id).cloned().unwrap_or_default(),
            ..self.desired[id].clone()
        };
        let before = self.allocator.addresses(id).to_vec();
        let expected = self.expected(&claim);
        let answer = self.allocator.allocate(claim.clone(), at(self.now));
        self.log.push(format!("{id}: {answer:?}"));
        match &answer {
            Ok(grant) => {
                self.check_grant(&claim, &before, grant);
                if let Some(expected) = expected {
                    assert_eq!(grant.addresses, expected, "{id}");
                }
                self.own(&claim, &before, &grant.addresses);
                self.published.insert(id.clone(), grant.addresses.clone());
            }
            Err(denial) => {
                assert_eq!(denial.keeps, before, "{id}");
                assert!(expected.is_none_or(|e| e.is_empty()), "{id}: {denial}");
                self.published.insert(id.clone(), before);
            }
        }
        // Its present status settles a duplicate; it is asked again to be told so.
        let duplicate = |grant: &Grant| {
            let mut markers = grant.markers.iter();
            markers.any(|m| matches!(m, Marker::Duplicate { kept: false, .. }))
        };
        let again = answer.as_ref().is_ok_and(duplicate);
        self.answers.insert(id.clone(), answer);
        if again {
            self.ask(id);
        }
    }

    fn release(&mut self, id: &ServiceId) {
        let before = self.allocator.addresses(id).to_vec();
        assert_eq!(self.allocator.release(id, at(self.now)), before);
        self.desired.remove(id);
        self.answers.remove(id);
        self.published.remove(id);
        for address in before {
            self.leave(address, id);
        }
    }

    fn set_pools(&mut self, pools: &[Pool]) {
        let addresses: Vec<IpAddr> = self.released.keys().copied().collect();
        let before: Vec<_> = addresses
            .iter()
            .map(|a| self.serving(*a).cloned())
            .collect();
        self.pools = pools.to_vec();
        for (address, before) in addresses.iter().zip(before) {
            if self.serving(*address) != before.as_ref() {
                self.released.get_mut(address).unwrap().rested = false;
            }
        }
        self.allocator.set_pools(pools.to_vec(), at(self.now));
    }

    fn pass(&mut self, seconds: i64) {
        self.now += seconds;
        for released in self.released.values_mut() {
            released.since = released.since.min(self.now);
        }
        self.allocator.advance(at(self.now));
    }

    fn restart(&mut self, doubt: bool, thief: Option<(usize, usize)>) {
        if let Some((thief, victim)) = thief.map(|(t, v)| (id(SERVICES[t]), id(SERVICES[v])))
            && let Some(address) = self.published.get(&victim).and_then(|p| p.first().copied())
            && thief != victim
            && let Some(record) = self.published.get_mut(&thief)
        {
            record.retain(|own| Family::of(*own) != Family::of(address));
            record.push(address);
        }
        let record = |claim: &Claim| Claim {
            published: self.published[&claim.id].clone(),
            confirmed: self.published[&claim.id].iter().copied().collect(),
            ..claim.clone()
        };
        let published = self
            .desired
            .values()
            .filter(|c| self.published.contains_key(&c.id));
        let mut claims: Vec<Claim> = published.map(record).collect();
        claims.retain(|claim| !claim.published.is_empty());
        let held = self.held.iter().enumerate();
        let snapshot = Snapshot {
            pools: self.pools.clone(),
            claims: claims.clone(),
            held: held
                .map(|(agent, held)| (node(&agent.to_string()), held.clone()))
                .collect(),
            skipped: self.skipped.clone(),
            predecessor: doubt.then(|| at(self.now)),
        };
        self.allocator = Allocator::restore(snapshot, at(self.now));
        assert!(self.allocator.drain_woken().is_empty());
        self.doubt = if doubt { self.now + 30 } else { i64::MIN };
        self.released.clear();
        self.owners.clear();
        self.answers.clear();
        claims.sort_by_key(Claim::turn);
        for claim in claims {
            for address in &claim.published {
                let owners = self.owners.entry(*address).or_default();
                if owners
                    .iter()
                    .all(|owner| claim.clash(owner, true).is_none())
                {
                    owners.push(claim.clone());
                }
            }
        }
        self.check_books();
        // A Service that asks early may cause others to be woken, with a reservation.
        self.quiet = false;
        for id in self.desired.keys().cloned().collect::<Vec<_>>() {
            self.ask(&id);
        }
    }

    /// The serving pool that has the address.
    fn serving(&self, address: IpAddr) -> Option<&Pool> {
        let standing = judge(&self.pools);
        let mut pools = self.pools.iter().zip(standing);
        let (pool, _) = pools.find(|(p, s)| *s == Standing::Serves && p.contains(address))?;
        Some(pool)
    }

    /// Whether the address can be assigned automatically.
    fn is_available(&self, address: IpAddr) -> bool {
        self.is_free(address) && self.released.get(&address).is_none_or(|r| r.rested)
    }

    fn is_free(&self, address: IpAddr) -> bool {
        !self.owners.contains_key(&address)
            && !self.held.iter().any(|held| held.contains(&address))
            && !self.skipped.contains(&address)
    }

    fn own(&mut self, claim: &Claim, before: &[IpAddr], after: &[IpAddr]) {
        // A published address that was adopted on the way counts as owned before.
        for address in before.iter().filter(|a| !after.contains(a)) {
            self.leave(*address, &claim.id);
        }
        for address in after {
            self.released.remove(address);
            let owners = self.owners.entry(*address).or_default();
            match owners.iter_mut().find(|owner| owner.id == claim.id) {
                Some(owner) => *owner = claim.clone(),
                None => owners.push(claim.clone()),
            }
        }
    }

    fn leave(&mut self, address: IpAddr, id: &ServiceId) {
        let owners = self.owners.get_mut(&address).unwrap();
        owners.retain(|owner| owner.id != *id);
        if owners.is_empty() {
            self.owners.remove(&address);
            self.refree(&BTreeSet::from([address]));
        }
    }

    /// Of these addresses, those that are free now begin to rest; the others do not.
    fn refree(&mut self, addresses: &BTreeSet<IpAddr>) {
        let taken: Vec<IpAddr> = self
            .released
            .keys()
            .copied()
            .filter(|a| !self.is_free(*a))
            .collect();
        for address in taken {
            self.released.remove(&address);
        }
        for address in addresses {
            if self.is_free(*address) && !self.released.contains_key(address) {
                self.order += 1;
                let released = Released {
                    order: self.order,
                    since: self.now,
                    rested: false,
                };
                self.released.insert(*address, released);
            }
        }
        self.ripen();
    }

    fn ripen(&mut self) {
        let rest = |address: IpAddr| Some(self.serving(address)?.reuse_after.as_secs());
        let rests: Vec<_> = self.released.keys().map(|a| (*a, rest(*a))).collect();
        for (address, rest) in rests {
            let released = self.released.get_mut(&address).unwrap();
            released.rested |=
                rest.is_some_and(|rest| released.since + i64::try_from(rest).unwrap() <= self.now);
        }
    }

    /// The next address for a Service that asks for none in particular, if the model can tell.
    fn expected(&self, claim: &Claim) -> Option<Vec<IpAddr>> {
        let plain = claim.requested.is_empty()
            && claim.pool.is_none()
            && claim.share_key.is_none()
            && claim.published.is_empty()
            && claim.wanted().len() == 1;
        if !plain || !self.quiet || self.now < self.doubt {
            return None;
        }
        let mut pools: Vec<&Pool> = self.pools.iter().collect();
        pools.sort_by_key(|pool| {
            let priority = pool.priority.filter(|p| *p > 0);
            let for_all = pool.service_selector.is_none();
            (
                priority.is_none(),
                priority,
                for_all,
                pool.created,
                &pool.name,
            )
        });
        for pool in pools
            .into_iter()
            .filter(|p| p.auto_assign && p.permits(claim))
        {
            let free = all_of(pool, claim.families[0]).into_iter();
            let free = free.filter(|a| self.serving(*a) == Some(pool) && self.is_available(*a));
            let order = |a: &IpAddr| self.released.get(a).map(|released| released.order);
            if let Some(next) = free.min_by_key(|a| (order(a), *a)) {
                return Some(vec![next]);
            }
        }
        Some(vec![])
    }

    fn check_grant(&self, claim: &Claim, before: &[IpAddr], grant: &Grant) {
        let id = &claim.id;
        let families: Vec<Family> = grant.addresses.iter().map(|a| Family::of(*a)).collect();
        match claim.policy {
            FamilyPolicy::PreferDualStack => assert!(!families.is_empty()),
            _ => assert_eq!(families, claim.wanted(), "{id}"),
        }
        let had = |address: &IpAddr| {
            before.contains(address) || (before.is_empty() && claim.published.contains(address))
        };
        for address in &grant.addresses {
            let pool = self.serving(*address);
            if had(address) {
                let inside = pool.is_some_and(|pool| pool.permits(claim));
                let told = grant
                    .markers
                    .iter()
                    .any(|m| matches!(m, Marker::OutsidePool { address: a, .. } if a == address));
                assert_ne!(inside, told, "{id} {address}");
                continue;
            }
            let pool = pool.unwrap_or_else(|| panic!("{id}: {address} is in no pool"));
            assert!(pool.permits(claim), "{id}: {address}");
            let asked = claim.requested.contains(address);
            let home = grant
                .addresses
                .iter()
                .any(|a| a != address && pool.contains(*a));
            let named = claim.pool.as_ref() == Some(&pool.name);
            assert!(
                pool.auto_assign || asked || named || home,
                "{id}: {address} unasked"
            );
            match self.owners.get(address) {
                Some(owners) => {
                    for owner in owners {
                        let clash = claim.clash(owner, pool.share_across_namespaces);
                        assert_eq!(clash, None, "{id} joins {} on {address}", owner.id);
                    }
                }
                None if asked => assert!(self.is_free(*address), "{id}: {address}"),
                None => assert!(self.is_available(*address), "{id}: {address}"),
            }
        }
        for address in before.iter().filter(|a| !grant.addresses.contains(a)) {
            assert!(
                self.may_leave(claim, *address),
                "{id} left {address} without cause"
            );
        }
    }

    fn may_leave(&self, claim: &Claim, address: IpAddr) -> bool {
        let family = Family::of(address);
        let pool = self.serving(address);
        let companions = self.owners[&address].iter().filter(|o| o.id != claim.id);
        let mut clashes = companions.filter_map(|other| claim.clash(other, true));
        let outside = !pool.is_some_and(|pool| pool.permits(claim));
        !claim.wanted().contains(&family)
            || claim
                .requested
                .iter()
                .any(|a| Family::of(*a) == family && *a != address)
            || clashes.any(|clash| clash == Clash::Key)
            || pool.is_some_and(|pool| claim.pool.as_ref().is_some_and(|name| *name != pool.name))
            || (outside && self.pools.iter().any(|pool| pool.reallocate))
    }

    /// A Service that is denied, or lacks a family, has a reason that still holds.
    fn check_patience(&self, id: &ServiceId, answer: &Result<Grant, Denial>) {
        let claim = &self.desired[id];
        let available = |family: Family| {
            let serves = |pool: &&Pool| match &claim.pool {
                Some(name) => pool.name == *name,
                None => pool.auto_assign,
            };
            let pools = self
                .pools
                .iter()
                .filter(serves)
                .filter(|p| p.permits(claim));
            let mut all = pools.flat_map(|pool| {
                let addresses = all_of(pool, family).into_iter();
                addresses.filter(|a| self.serving(*a) == Some(pool))
            });
            all.any(|address| self.is_available(address))
        };
        match answer {
            Ok(grant) => {
                for marker in &grant.markers {
                    if let Marker::Missing { family } = marker {
                        assert!(!available(*family), "{id} could have {family}");
                    }
                }
            }
            Err(denial) if denial.reason == Reason::NoAddressAvailable => {
                let lacks = claim.wanted().iter().any(|family| !available(*family));
                assert!(lacks, "{id} waits for what is free: {denial}");
            }
            Err(denial) => {
                let asked = matches!(denial.reason, Reason::AddressInUse | Reason::PortInUse);
                let free = claim.requested.iter().all(|a| self.is_free(*a));
                assert!(
                    !asked || !free || !denial.keeps.is_empty(),
                    "{id}: {denial}"
                );
            }
        }
    }

    /// Owners and counters agree with the allocator.
    fn check_books(&self) {
        for report in self.allocator.pools() {
            let pool = self.pools.iter().find(|p| p.name == report.name).unwrap();
            if report.standing != Standing::Serves {
                continue;
            }
            let mut assigned = Vec::new();
            for (family, counts) in [(Family::V4, report.v4), (Family::V6, report.v6)] {
                let mut expected = Counts::default();
                for address in all_of(pool, family) {
                    expected.total += 1;
                    if let Some(owners) = self.owners.get(&address) {
                        expected.assigned += 1;
                        assigned.push((address, owners));
                    } else if self.skipped.contains(&address) {
                        expected.total -= 1;
                    } else if !self.is_free(address) {
                        expected.held += 1;
                    } else if self.is_available(address) {
                        expected.available += 1;
                    } else {
                        expected.resting += 1;
                    }
                }
                assert_eq!(counts, expected, "{} {family}", report.name);
            }
            let theirs = self.allocator.assigned(&pool.name);
            assert_eq!(theirs.len(), assigned.len());
            for ((address, ids), (expected, owners)) in theirs.into_iter().zip(assigned) {
                assert_eq!(address, expected);
                let owners: BTreeSet<_> = owners.iter().map(|owner| owner.id.clone()).collect();
                assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), owners);
            }
        }
    }
}

/// Every address of a pool.
fn all_of(pool: &Pool, family: Family) -> Vec<IpAddr> {
    let spans = pool.covered(family);
    let numbers = spans.iter().flat_map(|(first, last)| first..=last);
    numbers.map(|n| crate::range::address(family, n)).collect()
}
