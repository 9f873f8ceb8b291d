//! What the instant provider's cloud holds: slots by owner and key, small enough that
//! 5,000 of them do not show in a measurement of the controller's memory.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ballast_provider::{
    Balancer, Family, Key, Mark, Owned, ProviderError, Reason, Refusal, Removal, ServiceId, mark,
};

/// 198.18.0.0/15, without its first and last address.
const V4_BASE: u32 = 0xC612_0000;
const V4_LAST: u32 = 0x1_FFFE;

/// `2001:2::/48`
const V6_BASE: u128 = 0x2001_0002 << 96;

/// A cloud without load balancers in it; see [`super::InstantProvider`].
#[derive(Debug, Default)]
pub struct InstantCloud {
    slots: Mutex<Slots>,
}

/// Calls of the provider, and the effects they had.
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
    /// Times the cloud was changed, or would have been but for a fault.
    pub effects: u64,
}

/// The controller's process dies around one effect: this and all that follow fail
/// until the fault is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The effect with this number, counted from 1 after the fault was set, does not happen.
    Before(u64),
    /// It happens, and its answer is lost.
    After(u64),
}

/// One member of a balancer, as the cloud has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstantObject {
    /// What the inventory says of it.
    pub owned: Owned,
    /// Its IPv4 address; the IPv6 address has the same offset.
    pub address: IpAddr,
    /// Equal for equal settings.
    pub fingerprint: u64,
}

/// How an effect ended.
pub(super) enum Effect<T> {
    Done(T),
    Lost,
}

/// The addresses one balancer's members ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    requested: Option<IpAddr>,
    recorded: Option<IpAddr>,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) calls: Calls,
    fault: Option<(Fault, u64)>,
    broken: bool,
    owners: Vec<Owner>,
    next: u32,
    /// Below `next`, one bit per index.
    taken: Vec<u64>,
    free: VecDeque<u32>,
}

#[derive(Debug)]
struct Owner {
    mark: Mark,
    slots: HashMap<Box<str>, Slot>,
    /// Members whose key is not their UID.
    shared: HashMap<Box<str>, Box<str>>,
    targets: Option<u64>,
}

#[derive(Debug)]
struct Slot {
    index: u32,
    members: Vec<SlotMember>,
}

#[derive(Debug)]
struct SlotMember {
    /// `namespace/name`
    service: Box<str>,
    /// `None`: the slot's key.
    uid: Option<Box<str>>,
    hash: u64,
    retained: bool,
}

// === impl InstantCloud ===

impl InstantCloud {
    /// What was called so far.
    pub fn calls(&self) -> Calls {
        self.slots().calls
    }

    /// Sets or takes back a fault; either way the cloud answers again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut slots = self.slots();
        slots.broken = false;
        slots.fault = fault.map(|fault| (fault, 0));
    }

    /// Whether the fault has struck.
    pub fn is_broken(&self) -> bool {
        self.slots().broken
    }

    /// Everything that is in it, of all owners.
    pub fn contents(&self) -> Vec<InstantObject> {
        let slots = self.slots();
        slots.owners.iter().flat_map(Owner::contents).collect()
    }

    /// What stands for each owner's targets: equal for equal targets.
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
    /// Runs an effect unless a fault is in its way.
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

    /// The index of a balancer that has exactly these members.
    pub(super) fn unchanged(
        &self,
        mark: &Mark,
        key: &Key,
        members: &[(&ServiceId, u64)],
    ) -> Option<u32> {
        let text = key.to_string();
        let slot = self.owner(mark)?.slots.get(text.as_str())?;
        let same = slot.members.len() == members.len()
            && slot.members.iter().zip(members).all(|(have, (id, hash))| {
                let uid = have.uid.as_deref().unwrap_or(&text);
                have.hash == *hash && !have.retained && uid == id.uid
            });
        same.then_some(slot.index)
    }

    /// Makes or changes a balancer; its members are these and no others.
    pub(super) fn put(
        &mut self,
        mark: &Mark,
        key: &Key,
        members: &[(&ServiceId, u64)],
        wish: Wish,
    ) -> Result<u32, ProviderError> {
        let key = key.to_string();
        // A member that comes from another balancer leaves that one, with its address.
        for (id, _) in members {
            if self
                .owner(mark)
                .is_some_and(|owner| *owner.key_of(id) != *key)
            {
                self.release(mark, id, Removal::Delete);
            }
        }
        let present = self
            .owner(mark)
            .and_then(|owner| owner.slots.get(key.as_str()));
        let present = present.map(|slot| slot.index);
        let index = self.place(present, wish)?;
        let owner = self.owner_mut(mark);
        let before = owner.slots.remove(key.as_str());
        owner.unlink(before);
        let mut slot = Slot {
            index,
            members: Vec::with_capacity(members.len()),
        };
        for (id, hash) in members {
            let own = id.uid == key;
            if !own {
                owner
                    .shared
                    .insert(id.uid.as_str().into(), key.as_str().into());
            }
            slot.members.push(SlotMember {
                service: id.to_string().into(),
                uid: (!own).then(|| id.uid.as_str().into()),
                hash: *hash,
                retained: false,
            });
        }
        owner.slots.insert(key.as_str().into(), slot);
        Ok(index)
    }

    /// Whether a release would change something.
    pub(super) fn has(&self, mark: &Mark, id: &ServiceId, key: &Key, removal: Removal) -> bool {
        let owner = self.owner(mark);
        let owner = owner.filter(|owner| *owner.key_of(id) == *key.to_string());
        let member = owner.and_then(|owner| owner.member(id));
        member.is_some_and(|member| removal == Removal::Delete || !member.retained)
    }

    pub(super) fn release(&mut self, mark: &Mark, id: &ServiceId, removal: Removal) {
        let owner = self.owner_mut(mark);
        let key: Box<str> = owner.key_of(id).into();
        let Some(slot) = owner.slots.get_mut(&key) else {
            return;
        };
        let is = |member: &SlotMember| member.uid.as_deref().unwrap_or(&key) == id.uid;
        if removal == Removal::Retain {
            let members = slot.members.iter_mut().filter(|member| is(member));
            members.for_each(|member| member.retained = true);
            return;
        }
        slot.members.retain(|member| !is(member));
        let (empty, index) = (slot.members.is_empty(), slot.index);
        owner.shared.remove(id.uid.as_str());
        if empty {
            owner.slots.remove(&key);
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
                shared: HashMap::new(),
                targets: None,
            });
            self.owners.len() - 1
        });
        &mut self.owners[index]
    }

    /// The requested address, else the present one, else the recorded one if it is
    /// free, else a fresh one, else the one that was given back first.
    fn place(&mut self, present: Option<u32>, wish: Wish) -> Result<u32, ProviderError> {
        if let Some(requested) = wish.requested {
            let Some(index) = index_of(requested) else {
                return Err(Refusal::new(
                    Reason::NoAddressAvailable,
                    format!("the requested address {requested} is neither in 198.18.0.0/15 nor in 2001:2::/48"),
                )
                .into());
            };
            if present == Some(index) {
                return Ok(index);
            }
            if self.is_taken(index) {
                return Err(Refusal::new(
                    Reason::AddressInUse,
                    format!("the requested address {requested} belongs to another load balancer"),
                )
                .into());
            }
            self.take(index);
            if let Some(former) = present {
                self.give_back(former);
            }
            return Ok(index);
        }
        if let Some(index) = present {
            return Ok(index);
        }
        let recorded = wish.recorded.and_then(index_of);
        let recorded = recorded.filter(|index| !self.is_taken(*index));
        let Some(index) = recorded.or_else(|| self.free()) else {
            return Err(Refusal::new(
                Reason::NoAddressAvailable,
                "the instant cloud's range 198.18.0.0/15 has no free address",
            )
            .into());
        };
        self.take(index);
        Ok(index)
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
    /// The key of the slot a Service is in, if it is in one.
    fn key_of<'a>(&'a self, id: &'a ServiceId) -> &'a str {
        self.shared
            .get(id.uid.as_str())
            .map_or(id.uid.as_str(), |key| key)
    }

    fn member(&self, id: &ServiceId) -> Option<&SlotMember> {
        let key = self.key_of(id);
        let slot = self.slots.get(key)?;
        let mut members = slot.members.iter();
        members.find(|member| member.uid.as_deref().unwrap_or(key) == id.uid)
    }

    fn unlink(&mut self, slot: Option<Slot>) {
        for uid in slot
            .into_iter()
            .flat_map(|slot| slot.members)
            .filter_map(|member| member.uid)
        {
            self.shared.remove(&uid);
        }
    }

    fn contents(&self) -> Vec<InstantObject> {
        let mut contents = Vec::new();
        for (key, slot) in &self.slots {
            for member in &slot.members {
                let uid = member.uid.as_deref().unwrap_or(key);
                let (namespace, name) = member.service.split_once('/').unwrap_or_default();
                let id = ServiceId {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    uid: uid.to_owned(),
                };
                let mut tags = self.mark.tags(&id);
                if member.retained {
                    tags.insert(mark::RETAINED.to_owned(), "true".to_owned());
                }
                let owned = Owned {
                    name: self.mark.name_of("in", uid),
                    key: Some(match key.strip_prefix("share/") {
                        Some(shared) => Key::Shared(shared.to_owned()),
                        None => Key::Service(key.to_string()),
                    }),
                    services: vec![id],
                    tags,
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

/// The addresses the members ask for: the first requested, the first recorded.
pub(super) fn wish(balancer: &Balancer) -> Wish {
    let mut wish = Wish::default();
    for member in &balancer.members {
        let requested = member.load_balancer.requested_addresses.first();
        wish.requested = wish.requested.or(requested.copied());
        wish.recorded = wish.recorded.or(member.recorded.first().copied());
    }
    wish
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

/// Equal for equal values within one process, which is all this cloud lives for.
pub(super) fn hash(value: &impl std::fmt::Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{value:?}").hash(&mut hasher);
    hasher.finish()
}
