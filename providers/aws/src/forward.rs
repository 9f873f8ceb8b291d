//! Where a listener or one of its rules sends connections. Plain values.
//!
//! What is wanted names target groups by their names, what AWS has names them by their ARNs, and a call by
//! [`crate::call::Ref`]. All of them compare and print alike.

use std::collections::BTreeMap;
use std::fmt;

use ballast_provider::Family;

use crate::observed::Arn;

/// The most target groups to which connections are divided ("Listener rules" in the user guide of Network Load
/// Balancers).
pub const MOST_GROUPS: usize = 5;
/// AWS's largest weight.
pub const MOST_WEIGHT: u32 = 999;

/// Target groups and their weights: of all connections a group gets its weight's part. The weight of a group that
/// is alone says nothing, so it is always 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward<K>(BTreeMap<K, u32>);

/// What AWS has beside the default action of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedRule {
    /// The clients that it is for: those with addresses of this family. `None`: it has another condition.
    pub family: Option<Family>,
    /// Where it sends their connections.
    pub forward: Forward<Arn>,
}

// === impl Forward ===

impl<K: Ord> Forward<K> {
    /// To this group alone.
    pub fn to(group: K) -> Self {
        Self(BTreeMap::from([(group, 1)]))
    }

    /// To what is there of the groups that somebody asks for. If none of them has a weight, all get the same: connections
    /// would end nowhere.
    pub fn divided(groups: impl IntoIterator<Item = (K, u32)>) -> Self {
        let mut all = Self::weighted(groups);
        if all.0.values().all(|weight| *weight == 0) {
            all.0.values_mut().for_each(|weight| *weight = 1);
        }
        all
    }

    /// To these groups with exactly these weights.
    pub fn weighted(groups: impl IntoIterator<Item = (K, u32)>) -> Self {
        let mut all: BTreeMap<K, u32> = groups.into_iter().collect();
        if let (1, Some(mut alone)) = (all.len(), all.first_entry()) {
            alone.insert(1);
        }
        Self(all)
    }

    /// The groups.
    pub fn groups(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// The groups and their weights.
    pub fn iter(&self) -> impl Iterator<Item = (&K, u32)> {
        self.0.iter().map(|(group, weight)| (group, *weight))
    }

    /// Whether this group gets connections, or would with another weight.
    pub fn contains(&self, group: &K) -> bool {
        self.0.contains_key(group)
    }

    /// The group, if it is alone.
    pub fn only(&self) -> Option<&K> {
        let mut all = self.0.keys();
        all.next().filter(|_| self.0.len() == 1)
    }

    /// The same with other names for the groups.
    pub fn map<L: Ord>(&self, name: impl Fn(&K) -> L) -> Forward<L> {
        Forward(self.iter().map(|(group, it)| (name(group), it)).collect())
    }
}

impl<K: Ord> Default for Forward<K> {
    /// To nothing: what Ballast does not know as it is.
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + fmt::Display> fmt::Display for Forward<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alone = self.0.len() == 1;
        let each = self.iter().map(|(group, weight)| {
            if alone {
                group.to_string()
            } else {
                format!("{group} (weight {weight})")
            }
        });
        f.write_str(&each.collect::<Vec<_>>().join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_says_something_only_beside_others() {
        assert_eq!(Forward::weighted([("a", 7)]), Forward::to("a"));
        assert_eq!(Forward::weighted([("a", 0)]), Forward::to("a"));
        assert_ne!(
            Forward::weighted([("a", 7), ("b", 1)]),
            Forward::weighted([("a", 1), ("b", 1)])
        );
        let all_zero = [("a", 0), ("b", 0)];
        assert_eq!(
            Forward::divided(all_zero),
            Forward::weighted([("a", 1), ("b", 1)])
        );
        assert_ne!(Forward::weighted(all_zero), Forward::divided(all_zero));
        let both = Forward::divided([("b", 0), ("a", 9)]);
        assert_eq!(both.to_string(), "a (weight 9) and b (weight 0)");
        assert_eq!((both.only(), Forward::to("a").only()), (None, Some(&"a")));
        assert_eq!(both.map(|it| it.len() + 1).only(), Some(&2));
    }
}
