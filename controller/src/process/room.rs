//! Gives back the memory of maps and lines that were large once. Pure.
//!
//! A `HashMap` or `VecDeque` keeps the room of the most entries that it ever had. When a leader
//! starts, each map of work in progress holds every Service of the cluster for a moment; 5,000
//! Services leave 400 KB behind in each of them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// A smaller map keeps its room.
const SMALL: usize = 256;

/// Call it after a removal. It shrinks a map that uses less than a quarter of its room to twice
/// its entries, so each entry is moved at most once per removal on average.
pub fn give_back<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if map.capacity() > SMALL && map.len() < map.capacity() / 4 {
        map.shrink_to(2 * map.len());
    }
}

/// As [`give_back`], for a line.
pub fn give_back_line<T>(line: &mut VecDeque<T>) {
    if line.capacity() > SMALL && line.len() < line.capacity() / 4 {
        line.shrink_to(2 * line.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_map_that_was_large_once_is_small_again() {
        let mut map: HashMap<u32, u32> = (0..5_000).map(|key| (key, key)).collect();
        for key in 0..5_000 {
            map.remove(&key);
            give_back(&mut map);
        }
        assert!(map.capacity() <= SMALL, "{}", map.capacity());

        let mut line: VecDeque<u32> = (0..5_000).collect();
        while line.pop_front().is_some() {
            give_back_line(&mut line);
        }
        assert!(line.capacity() <= SMALL, "{}", line.capacity());
    }

    proptest! {
        /// A map that grows and shrinks has room in proportion to its entries.
        #[test]
        fn room_is_bounded_by_entries(keys in prop::collection::vec((0_u32..2_000, any::<bool>()), 0..6_000)) {
            let mut map = HashMap::new();
            for (key, adds) in keys {
                if adds {
                    map.insert(key, key);
                } else {
                    map.remove(&key);
                    give_back(&mut map);
                }
                prop_assert!(map.capacity() <= SMALL.max(5 * map.len() + 8));
            }
        }
    }
}
