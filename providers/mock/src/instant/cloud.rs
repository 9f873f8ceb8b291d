//! The instant provider's cloud: slots by owner and key. They are so small that 5,000 of them
//! do not affect a measurement of the controller's memory.
//!
//! A Service that moves is a member of two slots until it is released from the former one.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ballast_provider::{
    Balancer, Family, Key, Kind, Mark, Owned, ProviderError, Reason, Refusal, Removal, ServiceId,
    mark,
};

/// 198.18.0.0/15, without its first and last address.
const V4_BASE: u32 = 0xC612_0000;
const V4_LAST: u32 = 0x1_FFFE;

/// `2001:2::/48`
const V6_BASE: u128 = 0x2001_0002 << 96;

/// A cloud in memory; see [`super::InstantProvider`].
#[derive(Debug, Default)]
pub struct InstantCloud {
    slots: Mutex<Slots>,
}

/// The number of the provider's calls, and of their effects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// `ensure`
    pub ensure: u64,
    /// `retarget`
    pub retarget: u64,
    /// `release`
    pub release: u64,
    /// `inventory`
    pub inventory: u64,
    /// Changes of the cloud, including those that a fault prevented.
    pub effects: u64,
}

/// The controller's process dies before or after one effect. This effect and all later ones
/// fail until the fault is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The effect with this number does not happen. Effects are counted from 1 after the fault
    /// was set.
    Before(u64),
    /// The effect happens, and its answer is lost.
    After(u64),
}

/// One member of a balancer in the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstantObject {
    /// Its entry in the inventory.
    pub owned: Owned,
    /// Its IPv4 address; the IPv6 address has the same offset.
    pub address: IpAddr,
    /// Equal for equal settings.
    pub fingerprint: u64,
}

/// The result of an effect.
pub(super) enum Effect<T> {
    Done(T),
    Lost,
}

/// The addresses that the members of one balancer ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    requested: Vec<IpAddr>,
    published: Option<IpAddr>,
}

/// The address of a balancer, and why it is not the requested one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) index: u32,
    pub(super) objection: Option<Refusal>,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) calls: Calls,
    fault: Option<(Fault, u64)>,
    broken: bool,
    owners: Vec<Owner>,
    next: u32,
    /// One bit per index below `next`.
    taken: Vec<u64>,
    free: VecDeque<u32>,
}

#[derive(Debug)]
struct Owner {
    mark: Mark,
    slots: HashMap<Key, Slot>,
    targets: Option<u64>,
}

#[derive(Debug)]
struct Slot {
    index: u32,
    members: Vec<SlotMember>,
}

#[derive(Debug)]
struct SlotMember {
    id: ServiceId,
    hash: u64,
    retained: bool,
}

// === impl InstantCloud ===

impl InstantCloud {
    /// The calls so far.
    pub fn calls(&self) -> Calls {
        self.slots().calls
    }

    /// Sets or removes a fault. In both cases the cloud answers again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut slots = self.slots();
        slots.broken = false;
        slots.fault = fault.map(|fault| (fault, 0));
    }

    /// Whether the fault has happened.
    pub fn is_broken(&self) -> bool {
        self.slots().broken
    }

    /// Everything in the cloud, of all owners.
    pub fn contents(&self) -> Vec<InstantObject> {
        let slots = self.slots();
        slots.owners.iter().flat_map(Owner::contents).collect()
    }

    /// A hash of each owner's targets; equal for equal targets.
    pub fn target_sets(&self) -> Vec<(Mark, u64)> {
        let slots = self.slots();
        let sets = slots.owners.iter();
        sets.filter_map(|owner| Some((owner.mark.clone(), owner.targets?)))
            .collect()
    }

    pub(super) fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Slots ===

impl Slots {
    /// Runs an effect, unless a fault prevents it.
    pub(super) fn effect<T>(&mut self, effect: impl FnOnce(&mut Self) -> T) -> Effect<T> {
        if self.broken {
            return Effect::Lost;
        }
        self.calls.effects += 1;
        let strikes = self.fault.as_mut().and_then(|(fault, count)| {
            *count += 1;
            let (Fault::Before(at) | Fault::After(at)) = *fault;
            (*count == at).then_some(*fault)
        });
        match strikes {
            None => Effect::Done(effect(self)),
            Some(fault) => {
                self.broken = true;
                if matches!(fault, Fault::After(_)) {
                    effect(self);
                }
                Effect::Lost
            }
        }
    }

    /// The place of a balancer that has exactly these members beside those that are kept, and the
    /// requested address if it can have it.
    pub(super) fn unchanged(
        &self,
        mark: &Mark,
        balancer: &Balancer,
        members: &[(&ServiceId, u64)],
        request: &Request,
    ) -> Option<Place> {
        let slot = self.owner(mark)?.slots.get(&balancer.key)?;
        let there = slot.members.iter();
        let there: Vec<_> = there
            .filter(|have| !balancer.kept.contains(&have.id))
            .collect();
        let same = there.len() == members.len()
            && there
                .iter()
                .zip(members)
                .all(|(have, (id, hash))| have.hash == *hash && !have.retained && have.id == **id);
        let index = slot.index;
        match self.requested(Some(index), request) {
            Ok(requested) if same => {
                let met = requested.is_none_or(|requested| requested == index);
                met.then_some(Place {
                    index,
                    objection: None,
                })
            }
            Err(refusal) if same => Some(Place {
                index,
                objection: Some(refusal),
            }),
            _ => None,
        }
    }

    /// Creates or changes a balancer, so that it has exactly these members beside those that are
    /// kept.
    pub(super) fn put(
        &mut self,
        mark: &Mark,
        balancer: &Balancer,
        members: &[(&ServiceId, u64)],
        request: &Request,
    ) -> Result<Place, ProviderError> {
        let slots = self.owner(mark).map(|owner| &owner.slots);
        let present = slots.and_then(|slots| slots.get(&balancer.key));
        let present = present.map(|slot| slot.index);
        let place = self.place(present, request)?;
        let members = members.iter().map(|(id, hash)| SlotMember {
            id: (*id).clone(),
            hash: *hash,
            retained: false,
        });
        let slots = &mut self.owner_mut(mark).slots;
        let slot = slots.entry(balancer.key.clone()).or_insert(Slot {
            index: place.index,
            members: Vec::new(),
        });
        slot.index = place.index;
        slot.members.retain(|have| balancer.kept.contains(&have.id));
        // Most have one member, and there may be thousands of balancers.
        slot.members.reserve_exact(members.len());
        slot.members.extend(members);
        Ok(place)
    }

    /// Whether a release would change anything.
    pub(super) fn has(&self, mark: &Mark, id: &ServiceId, key: &Key, removal: Removal) -> bool {
        let slots = self.owner(mark).map(|owner| &owner.slots);
        let slot = slots.and_then(|slots| slots.get(key));
        let mut members = slot.into_iter().flat_map(|slot| &slot.members);
        let member = members.find(|member| member.id == *id);
        member.is_some_and(|member| removal == Removal::Delete || !member.retained)
    }

    pub(super) fn release(&mut self, mark: &Mark, id: &ServiceId, key: &Key, removal: Removal) {
        let owner = self.owner_mut(mark);
        let Some(slot) = owner.slots.get_mut(key) else {
            return;
        };
        if removal == Removal::Retain {
            let members = slot.members.iter_mut();
            let members = members.filter(|member| member.id == *id);
            members.for_each(|member| member.retained = true);
            return;
        }
        slot.members.retain(|member| member.id != *id);
        let (empty, index) = (slot.members.is_empty(), slot.index);
        if empty {
            owner.slots.remove(key);
            self.give_back(index);
        }
    }

    pub(super) fn inventory(&self, mark: &Mark) -> Vec<Owned> {
        let contents = self.owner(mark).map(Owner::contents).unwrap_or_default();
        contents.into_iter().map(|object| object.owned).collect()
    }

    pub(super) fn targets(&self, mark: &Mark) -> Option<u64> {
        self.owner(mark)?.targets
    }

    pub(super) fn set_targets(&mut self, mark: &Mark, hash: u64) {
        self.owner_mut(mark).targets = Some(hash);
    }

    fn owner(&self, mark: &Mark) -> Option<&Owner> {
        let mut owners = self.owners.iter();
        owners.find(|owner| owner.mark.cluster == mark.cluster && owner.mark.class == mark.class)
    }

    fn owner_mut(&mut self, mark: &Mark) -> &mut Owner {
        let is =
            |owner: &Owner| owner.mark.cluster == mark.cluster && owner.mark.class == mark.class;
        let index = self.owners.iter().position(is).unwrap_or_else(|| {
            self.owners.push(Owner {
                mark: mark.clone(),
                slots: HashMap::new(),
                targets: None,
            });
            self.owners.len() - 1
        });
        &mut self.owners[index]
    }

    /// Returns the requested address, otherwise the present one, otherwise the published one if
    /// it is free, otherwise a fresh one, otherwise the one that was released first. A request
    /// that cannot be met blocks nothing else if there is a present address.
    fn place(&mut self, present: Option<u32>, request: &Request) -> Result<Place, ProviderError> {
        let requested = self.requested(present, request);
        let (requested, objection) = match (requested, present) {
            (Ok(requested), _) => (requested, None),
            (Err(refusal), Some(_)) => (None, Some(refusal)),
            (Err(refusal), None) => return Err(refusal.into()),
        };
        let published = request.published.and_then(index_of);
        let published = published.filter(|index| !self.is_taken(*index));
        let chosen = requested.or(present).or(published).or_else(|| self.free());
        let Some(index) = chosen else {
            return Err(Refusal::new(
                Reason::NoAddressAvailable,
                "the instant cloud's range 198.18.0.0/15 has no free address",
            )
            .into());
        };
        if present != Some(index) {
            self.take(index);
            if let Some(former) = present {
                self.give_back(former);
            }
        }
        Ok(Place { index, objection })
    }

    /// The index that the members request, if a balancer with this index can have it.
    fn requested(&self, present: Option<u32>, request: &Request) -> Result<Option<u32>, Refusal> {
        let mut wanted = None;
        for requested in &request.requested {
            let Some(index) = index_of(*requested) else {
                return Err(Refusal::new(
                    Reason::NoAddressAvailable,
                    format!(
                        "the requested address {requested} is neither in 198.18.0.0/15 nor in 2001:2::/48"
                    ),
                ));
            };
            if wanted.is_some_and(|wanted| wanted != index) {
                return Err(Refusal::new(
                    Reason::Unsupported,
                    format!(
                        "the requested address {requested} differs from the first requested one: in the instant cloud all addresses of a balancer have the same offset"
                    ),
                ));
            }
            if present != Some(index) && self.is_taken(index) {
                return Err(Refusal::new(
                    Reason::AddressInUse,
                    format!("the requested address {requested} belongs to another load balancer"),
                ));
            }
            wanted = Some(index);
        }
        Ok(wanted)
    }

    fn free(&mut self) -> Option<u32> {
        while self.next < V4_LAST {
            self.next += 1;
            if !self.is_taken(self.next) {
                return Some(self.next);
            }
        }
        while let Some(index) = self.free.pop_front() {
            if !self.is_taken(index) {
                return Some(index);
            }
        }
        None
    }

    fn is_taken(&self, index: u32) -> bool {
        let word = self.taken.get(index as usize / 64);
        word.is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    fn take(&mut self, index: u32) {
        let word = index as usize / 64;
        if self.taken.len() <= word {
            self.taken.resize(word + 1, 0);
        }
        self.taken[word] |= 1 << (index % 64);
    }

    fn give_back(&mut self, index: u32) {
        if let Some(word) = self.taken.get_mut(index as usize / 64) {
            *word &= !(1 << (index % 64));
        }
        self.free.push_back(index);
    }
}

// === impl Owner ===

impl Owner {
    fn contents(&self) -> Vec<InstantObject> {
        let mut contents = Vec::new();
        for (key, slot) in &self.slots {
            for member in &slot.members {
                let id = member.id.clone();
                let mut tags = self.mark.tags(&id);
                if member.retained {
                    tags.insert(mark::RETAINED.to_owned(), "true".to_owned());
                }
                let name = if key.is_of(&id) {
                    self.mark.name_of("in", &id.uid)
                } else {
                    self.mark.name_of("in", &format!("{key}:{}", id.uid))
                };
                let owned = Owned {
                    key: Some(key.clone()),
                    ..Owned::new(Kind::LoadBalancer, &name, &name, tags)
                };
                contents.push(InstantObject {
                    owned,
                    address: address(Family::V4, slot.index),
                    fingerprint: member.hash,
                });
            }
        }
        contents
    }
}

/// The addresses that the members ask for: all requested ones, and the first published one.
pub(super) fn request(balancer: &Balancer) -> Request {
    let members = || balancer.members.iter();
    let requested = members().flat_map(|member| &member.load_balancer.requested_addresses);
    let mut published = members().flat_map(|member| &member.published);
    Request {
        requested: requested.copied().collect(),
        published: published.next().copied(),
    }
}

/// The address of an index: both families have the same offset in their ranges.
pub(super) fn address(family: Family, index: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(V4_BASE + index).into(),
        Family::V6 => Ipv6Addr::from(V6_BASE + u128::from(index)).into(),
    }
}

fn index_of(address: IpAddr) -> Option<u32> {
    let index = match address {
        IpAddr::V4(address) => u32::from(address).checked_sub(V4_BASE),
        IpAddr::V6(address) => {
            let offset = u128::from(address).checked_sub(V6_BASE);
            offset.and_then(|offset| u32::try_from(offset).ok())
        }
    };
    index.filter(|index| (1..=V4_LAST).contains(index))
}

/// Equal for equal values within one process; the cloud does not live longer.
pub(super) fn hash(value: &impl std::fmt::Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{value:?}").hash(&mut hasher);
    hasher.finish()
}
