//! The judge: clients on every side of the segment ask for every address, every 25 ms.
//!
//! - *Gap*: no answer whose MAC belongs to a living host on this side, although a node on this
//!   side could serve. With policy Local the host must have an endpoint, and its health port say 200:
//!   otherwise the answer leads into a black hole.
//! - *Dual*: answers with two MACs.
//! - *Move*: the epoch of the best claim anywhere grew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ballast_announce::Mac;
use ballast_announce::holding::Origin;
use ballast_announce::view::Policy;

use crate::world::{Micros, Other, World, mac};

/// What may happen in a phase. Times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The longest gap.
    pub gap: Micros,
    /// The longest time with two answers.
    pub dual: Micros,
    /// Moves of each address that the victim held at the start of the phase.
    pub moves: u64,
    /// Moves of each other address.
    pub other_moves: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Judge {
    pub phase: &'static str,
    allowed: Option<Allowed>,
    victims: BTreeSet<IpAddr>,
    epochs: BTreeMap<IpAddr, u64>,
    gaps: BTreeMap<(u8, IpAddr), Micros>,
    duals: BTreeMap<(u8, IpAddr), Micros>,
    /// What a trace has printed last.
    shown: BTreeMap<(usize, IpAddr), String>,
    /// Why nodes may claim addresses in this phase; `None` is anything but a rebalance.
    pub causes: Option<Vec<Origin>>,
    /// The longest gap and dual answer of each phase.
    pub worst: BTreeMap<&'static str, (Micros, Micros)>,
    /// The first violation.
    pub verdict: Option<String>,
}

// === impl Judge ===

impl Judge {
    /// Times count anew from here.
    pub fn begin(
        &mut self,
        world: &World,
        phase: &'static str,
        victim: Option<usize>,
        allowed: Allowed,
    ) {
        self.phase = phase;
        self.allowed = Some(allowed);
        self.gaps.clear();
        self.duals.clear();
        self.epochs = world
            .addresses()
            .map(|address| (address, world.epoch(&address)))
            .collect();
        let held = |address: &IpAddr| victim.is_some() && world.holder(address) == victim;
        self.victims = world.addresses().filter(held).collect();
    }

    pub fn sample(&mut self, world: &World) {
        let Some(allowed) = self.allowed else {
            return;
        };
        if world.trace {
            self.print_changes(world);
        }
        let sides: BTreeSet<u8> = world.network.ports.iter().map(|port| port.group).collect();
        for address in world.addresses() {
            self.count_moves(world, &address, allowed);
            for &side in &sides {
                self.ask(world, side, &address, allowed);
            }
        }
    }

    fn print_changes(&mut self, world: &World) {
        for address in world.addresses() {
            for (index, host) in world.hosts.iter().enumerate() {
                let Some(agent) = &host.agent else {
                    continue;
                };
                let claim = agent.claims().get(&address);
                let claim = claim.map(|claim| {
                    format!(
                        "{}.{} {} {:?}",
                        claim.epoch, claim.revision, claim.holder, claim.successors
                    )
                });
                let state = format!("{:?}", agent.state(&address));
                let state = state
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let line = format!("{state:12} {}", claim.unwrap_or_default());
                let shown = self.shown.entry((index, address)).or_default();
                if *shown != line {
                    println!(
                        "{:7} ms {:20} node-{index} {address:15} {line}",
                        world.now / 1000,
                        self.phase
                    );
                    *shown = line;
                }
            }
        }
    }

    fn count_moves(&mut self, world: &World, address: &IpAddr, allowed: Allowed) {
        let before = self.epochs.get(address).copied().unwrap_or(0);
        let moves = world.epoch(address).saturating_sub(before);
        let limit = if self.victims.contains(address) {
            allowed.moves
        } else {
            allowed.other_moves
        };
        if moves > limit {
            self.report(
                world,
                &format!("{address} moved {moves} times, allowed are {limit}"),
            );
        }
    }

    fn ask(&mut self, world: &World, side: u8, address: &IpAddr, allowed: Allowed) {
        let members: Vec<usize> = world.members(side).collect();
        let answers: BTreeSet<Mac> = members
            .iter()
            .filter_map(|host| world.answer(*host, address, mac(250)))
            .collect();
        let flows = answers.iter().any(|answer| {
            let mut hosts = members.iter().filter(|host| mac(**host) == *answer);
            hosts.any(|host| world.serves(*host, address))
        });
        let able = world.has_witness(side) && members.iter().any(|host| world.able(*host, address));
        let key = (side, *address);
        let gap = length(&mut self.gaps, key, able && !flows, world.now);
        let dual = length(&mut self.duals, key, answers.len() > 1, world.now);
        let worst = self.worst.entry(self.phase).or_default();
        *worst = (worst.0.max(gap), worst.1.max(dual));
        if gap > allowed.gap {
            self.report(
                world,
                &format!("{address} has had no answer for {} ms", gap / 1000),
            );
        }
        if dual > allowed.dual {
            let answers: Vec<_> = answers.iter().map(ToString::to_string).collect();
            let answers = answers.join(" and ");
            self.report(
                world,
                &format!("{address} has had {answers} for {} ms", dual / 1000),
            );
        }
    }

    /// Whether a node may claim an address for this reason now.
    pub fn expects(&self, cause: Origin) -> bool {
        match &self.causes {
            Some(causes) => causes.contains(&cause),
            None => cause != Origin::Rebalanced,
        }
    }

    pub fn report(&mut self, world: &World, text: &str) {
        if self.verdict.is_none() {
            if world.trace {
                for host in &world.hosts {
                    println!("{:#?}", host.agent);
                }
            }
            let seconds = world.now / 1_000_000;
            self.verdict = Some(format!("{}, at {seconds} s: {text}", self.phase));
        }
    }
}

fn length<K: Ord>(since: &mut BTreeMap<K, Micros>, key: K, holds: bool, now: Micros) -> Micros {
    if holds {
        now - *since.entry(key).or_insert(now)
    } else {
        since.remove(&key);
        0
    }
}

// === impl World ===

impl World {
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.api.view.wanted.keys().copied()
    }

    /// The hosts that clients on one side reach, and that reach them: traffic flows in both directions.
    pub fn members(&self, side: u8) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(move |host| {
            let port = &self.network.ports[*host];
            let alive = self.hosts[*host].powered && !self.hosts[*host].frozen;
            alive && port.connects() && port.group == side
        })
    }

    /// Whether a node on this side can find out that it is not cut off. A single node needs no
    /// witness.
    fn has_witness(&self, side: u8) -> bool {
        let gateway = self.network.ports[self.network.gateway()];
        let gateway = self.shape.other == Other::Gateway && gateway.group == side;
        let client = self.network.ports[self.network.client()];
        let client = self.shape.other == Other::Client && client.group == side;
        let others = usize::from(gateway) + usize::from(client);
        self.hosts.len() == 1 || self.members(side).count() + others > 1
    }

    /// Whether a host could serve an address: its agent runs, and nothing forbids it.
    fn able(&self, host: usize, address: &IpAddr) -> bool {
        let facts = &self.api.view.nodes[&self.hosts[host].name];
        self.runs(host) && !facts.excluded && !facts.out_of_service && self.serves(host, address)
    }

    /// Whether a host forwards what clients send to an address: with policy Local only to endpoints of its
    /// own. Without endpoints anywhere no host is better than another one.
    pub fn serves(&self, host: usize, address: &IpAddr) -> bool {
        let wanted = self.api.view.wanted.get(address);
        wanted.is_none_or(|wanted| {
            let local = wanted.policy == Policy::Local && !wanted.endpoints.is_empty();
            !local || self.healthy(host, address)
        })
    }

    /// The best claim's epoch, over all agents that run.
    pub fn epoch(&self, address: &IpAddr) -> u64 {
        self.best(address).map_or(0, |claim| claim.epoch)
    }

    /// The best claim's holder.
    pub fn holder(&self, address: &IpAddr) -> Option<usize> {
        self.best(address).map(|claim| self.index(&claim.holder))
    }

    fn best<'a>(&'a self, address: &'a IpAddr) -> Option<&'a ballast_announce::claim::Claim> {
        let agents = self.hosts.iter().filter_map(|host| host.agent.as_ref());
        let known = agents.filter_map(|agent| agent.claims().get(address));
        let recorded = self.api.recorded(address);
        known
            .chain(recorded)
            .reduce(|best, claim| if claim.beats(best) { claim } else { best })
    }
}
