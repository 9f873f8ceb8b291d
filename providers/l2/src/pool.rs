//! Address pools as values: their settings, the Services that they serve, the order in which
//! they are tried, and the result of overlaps.
//!
//! Invariant: of the pools that serve according to [`judge`], no two have an address in common.
//! Nothing here knows which addresses are used.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_provider::Family;
use jiff::Timestamp;

use crate::claim::Claim;
use crate::interval::Intervals;
use crate::numbers::Numbers;
use crate::range::{Edges, Entry, Form, Range};
use crate::selector::{Labels, Selector};

/// An address pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// `metadata.name`
    pub name: String,
    /// `metadata.labels`, by which classes select pools.
    pub labels: Labels,
    /// `metadata.creationTimestamp`; of two pools that overlap, the older one serves.
    pub created: Timestamp,
    /// Its entries; they may overlap each other.
    pub entries: Arc<[Entry]>,
    /// Which addresses of the entries are not assigned automatically.
    pub edges: Edges,
    /// Whether it serves Services that request neither a pool nor an address.
    pub auto_assign: bool,
    /// The lowest is tried first; 0 and `None` are tried last (as in `MetalLB`).
    pub priority: Option<u32>,
    /// Serves only Services in namespaces with such labels; `None`: in all namespaces.
    pub namespace_selector: Option<Selector>,
    /// Serves only Services with such labels; `None`: all Services.
    pub service_selector: Option<Selector>,
    /// How long a released address rests before it is assigned automatically.
    pub reuse_after: Duration,
    /// Whether Services of different namespaces may share an address of this pool.
    pub share_across_namespaces: bool,
    /// Whether Services move to this pool if no pool has their address, and away from it if the
    /// selectors do not match them. Without it they keep their address, and a condition reports
    /// it.
    pub reallocate: bool,
}

/// Whether a pool serves Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It serves.
    Serves,
    /// It overlaps an older pool and assigns nothing until that ends.
    Conflict {
        /// The older pool.
        with: String,
        /// The first range that both have, in the order of the entries.
        range: Range,
    },
}

/// The standing of each pool, in the given order. The older pool serves; of the same age, the
/// first by name. A pool that lost affects no other: a third pool that overlaps only the loser
/// serves.
pub fn judge(pools: &[Pool]) -> Vec<Standing> {
    let mut order: Vec<usize> = (0..pools.len()).collect();
    order.sort_by_key(|index| (pools[*index].created, &pools[*index].name));
    let mut standing = vec![Standing::Serves; pools.len()];
    // The first and last address of ranges that serve, and the position of the pool in `order`.
    let mut served: [BTreeMap<u128, (u128, usize)>; 2] = [BTreeMap::new(), BTreeMap::new()];
    for (place, index) in order.iter().enumerate() {
        let families = [Family::V4, Family::V6].map(|family| pools[*index].covered(family));
        let overlapping = families.iter().zip(&served);
        let oldest = overlapping
            .flat_map(|(own, served)| own.iter().filter_map(|span| oldest_in(served, span)))
            .min();
        let conflict = oldest.and_then(|place| {
            let other = &pools[order[place]];
            Some((other.name.clone(), other.overlap(&pools[*index])?))
        });
        if let Some((with, range)) = conflict {
            standing[*index] = Standing::Conflict { with, range };
            continue;
        }
        for (own, served) in families.iter().zip(&mut served) {
            served.extend(own.iter().map(|(first, last)| (first, (last, place))));
        }
    }
    standing
}

/// The oldest pool that serves a number of an interval. Costs a step per overlapping interval:
/// in total, as many as the pools have entries.
fn oldest_in(served: &BTreeMap<u128, (u128, usize)>, (first, last): (u128, u128)) -> Option<usize> {
    let overlapping = served.range(..=last).rev();
    overlapping
        .take_while(|(_, (end, _))| *end >= first)
        .map(|(_, (_, place))| *place)
        .min()
}

// === impl Pool ===

impl Pool {
    /// A pool of that name without addresses and with default settings.
    pub fn new(name: impl Into<String>, created: Timestamp) -> Self {
        Self {
            name: name.into(),
            labels: Labels::new(),
            created,
            entries: Arc::default(),
            edges: Edges::default(),
            auto_assign: true,
            priority: None,
            namespace_selector: None,
            service_selector: None,
            reuse_after: Duration::from_mins(2),
            share_across_namespaces: false,
            reallocate: false,
        }
    }

    /// Whether the Service's class and the selectors allow this Service.
    pub fn permits(&self, claim: &Claim) -> bool {
        let class = claim.pools.as_ref();
        if class.is_some_and(|pools| !pools.allows(&self.name, &self.labels)) {
            return false;
        }
        let namespace = self.namespace_selector.as_ref();
        let service = self.service_selector.as_ref();
        namespace.is_none_or(|selector| selector.matches(&claim.namespace_labels))
            && service.is_none_or(|selector| selector.matches(&claim.labels))
    }

    /// Whether the address is in one of the entries.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.entries.iter().any(|e| e.range().contains(address))
    }

    /// The first range that both pools have.
    pub fn overlap(&self, other: &Self) -> Option<Range> {
        self.entries.iter().find_map(|mine| {
            let mut theirs = other.entries.iter();
            theirs.find_map(|theirs| mine.range().overlap(&theirs.range()))
        })
    }

    /// The order in which pools are tried: by priority, then those for some Services before
    /// those for all, then by age, then by name. So a pool that is added later never comes
    /// before an equal one.
    pub(crate) fn rank(&self) -> impl Ord + use<'_> {
        let selective = self.namespace_selector.is_some() || self.service_selector.is_some();
        let priority = self.priority.filter(|p| *p != 0).unwrap_or(u32::MAX);
        (priority, Reverse(selective), self.created, &self.name)
    }

    /// All addresses of one family.
    pub(crate) fn covered(&self, family: Family) -> Intervals {
        let mut covered = Intervals::default();
        for entry in self.of(family) {
            let (first, last) = entry.range().numbers();
            covered.insert_span(first, last);
        }
        covered
    }

    /// The addresses of one family that are assigned automatically. Another entry may still
    /// contain an address that one entry skips.
    pub(crate) fn given(&self, family: Family) -> Numbers {
        let skips_octets = self.edges == Edges::SkipOctets && family == Family::V4;
        let mut given = Numbers::new(skips_octets);
        for entry in self.of(family) {
            match self.edges.inner(entry) {
                Some((single, _)) if entry.form() == Form::Single => {
                    given.insert_single(single);
                }
                Some((first, last)) => given.insert_span(first, last),
                None => {}
            }
        }
        given
    }

    fn of(&self, family: Family) -> impl Iterator<Item = &Entry> {
        let of_family = move |entry: &&Entry| entry.range().family() == family;
        self.entries.iter().filter(of_family)
    }
}

#[cfg(test)]
mod tests;
