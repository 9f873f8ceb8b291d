//! A set of addresses of one family, as numbers. A pool may leave out all that end in .0 or
//! .255.
//!
//! Owns that rule. It is computed, not stored, so a range of millions of addresses is one
//! interval with or without it. Without .0 and .255 each /24 has 254 numbers; these are
//! numbered without gaps ([`dense`]), and the intervals contain those numbers.
//!
//! Invariant: with the rule, `intervals` has dense numbers and `ends` has the single addresses
//! in .0 or .255 that the user listed explicitly. Without it, `ends` is empty.

use std::collections::BTreeSet;

use crate::interval::Intervals;

/// Numbers per /24 with the rule: 1 to 254.
const USABLE: u128 = 254;

/// The set; see the module documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Whether numbers that end in .0 or .255 are left out.
    skips_octets: bool,
    intervals: Intervals,
    ends: BTreeSet<u128>,
}

/// Whether an IPv4 address ends in .0 or .255.
const fn is_octet_end(number: u128) -> bool {
    matches!(number & 255, 0 | 255)
}

/// The number of numbers below this one that do not end in .0 or .255. For such numbers this is
/// a number without gaps; [`sparse`] is the inverse.
const fn dense(number: u128) -> u128 {
    let octet = number & 255;
    let below = if octet == 0 { 0 } else { octet - 1 };
    (number >> 8) * USABLE + below
}

const fn sparse(dense: u128) -> u128 {
    ((dense / USABLE) << 8) + dense % USABLE + 1
}

// === impl Numbers ===

impl Numbers {
    /// An empty set. `skips_octets`: it never contains a number that ends in .0 or .255, except
    /// those added with [`insert_single`](Self::insert_single).
    pub(crate) fn new(skips_octets: bool) -> Self {
        Self {
            skips_octets,
            ..Self::default()
        }
    }

    /// The number of members.
    pub(crate) fn count(&self) -> u128 {
        let ends = self.ends.len() as u128;
        self.intervals.count().saturating_add(ends)
    }

    /// The number of intervals and ends, to which the memory is proportional.
    pub(crate) fn footprint(&self) -> usize {
        self.intervals.spans() + self.ends.len()
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        match self.place(number) {
            Some(dense) => self.intervals.contains(dense),
            None => self.ends.contains(&number),
        }
    }

    /// The lowest number.
    pub(crate) fn first(&self) -> Option<u128> {
        let first = self.intervals.first().map(|dense| self.number(dense));
        first.into_iter().chain(self.ends.first().copied()).min()
    }

    /// The highest number.
    pub(crate) fn last(&self) -> Option<u128> {
        let last = self.intervals.last().map(|dense| self.number(dense));
        last.into_iter().chain(self.ends.last().copied()).max()
    }

    /// The lowest number that is not below `number`.
    pub(crate) fn first_from(&self, number: u128) -> Option<u128> {
        let from = self.from(number);
        let first = self.intervals.first_from(from);
        let first = first.map(|dense| self.number(dense));
        let end = self.ends.range(number..).next().copied();
        first.into_iter().chain(end).min()
    }

    /// Removes one number; returns whether it was a member.
    pub(crate) fn remove(&mut self, number: u128) -> bool {
        match self.place(number) {
            Some(dense) => self.intervals.remove(dense),
            None => self.ends.remove(&number),
        }
    }

    /// Adds one number, whatever it ends in; returns whether it was not a member.
    pub(crate) fn insert_single(&mut self, number: u128) -> bool {
        match self.place(number) {
            Some(dense) => self.intervals.insert(dense),
            None => self.ends.insert(number),
        }
    }

    /// Adds the numbers of an interval, except those that the rule leaves out.
    pub(crate) fn insert_span(&mut self, first: u128, last: u128) {
        if !self.skips_octets {
            return self.intervals.insert_span(first, last);
        }
        // One past the last; the interval may be empty.
        let end = self.from(last + 1);
        let first = self.from(first);
        if first < end {
            self.intervals.insert_span(first, end - 1);
        }
    }

    /// The position of a number in `intervals`; `None`: it can only be in `ends`.
    const fn place(&self, number: u128) -> Option<u128> {
        if !self.skips_octets {
            Some(number)
        } else if is_octet_end(number) {
            None
        } else {
            Some(dense(number))
        }
    }

    /// The position of the first number that is not below this one.
    const fn from(&self, number: u128) -> u128 {
        if self.skips_octets {
            dense(number)
        } else {
            number
        }
    }

    const fn number(&self, place: u128) -> u128 {
        if self.skips_octets {
            sparse(place)
        } else {
            place
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Single(u128),
        Span(u128, u128),
        Remove(u128),
    }

    /// Numbers near the ends of /24s, where the rule matters.
    fn number() -> impl Strategy<Value = u128> {
        (
            0..4_u128,
            prop_oneof![0..4_u128, 120..124_u128, 252..256_u128],
        )
            .prop_map(|(block, octet)| (block << 8) | octet)
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            number().prop_map(Step::Single),
            (number(), number()).prop_map(|(a, b)| Step::Span(a.min(b), a.max(b))),
            number().prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn it_is_the_set_that_the_rule_describes(
            skips_octets: bool,
            steps in prop::collection::vec(step(), 0..60),
            probe in number(),
        ) {
            let mut set = Numbers::new(skips_octets);
            let mut naive = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Single(n) => prop_assert_eq!(set.insert_single(n), naive.insert(n)),
                    Step::Remove(n) => prop_assert_eq!(set.remove(n), naive.remove(&n)),
                    Step::Span(first, last) => {
                        set.insert_span(first, last);
                        naive.extend((first..=last).filter(|n| !skips_octets || !is_octet_end(*n)));
                    }
                }
            }
            prop_assert_eq!(set.count(), naive.len() as u128);
            prop_assert_eq!(set.first(), naive.first().copied());
            prop_assert_eq!(set.last(), naive.last().copied());
            prop_assert_eq!(set.first_from(probe), naive.range(probe..).next().copied());
            for number in 0..1024 {
                prop_assert_eq!(set.contains(number), naive.contains(&number), "{}", number);
            }
        }
    }

    #[test]
    fn a_range_is_one_interval_however_many_networks_it_spans() {
        let mut set = Numbers::new(true);
        set.insert_span(0x0b00_000a, 0x6e00_0014);
        assert_eq!(set.footprint(), 1);
        assert!(set.remove(0x0b00_0101) && set.footprint() == 2);
        assert!(set.insert_single(0x0b00_0101) && set.footprint() == 1);
    }
}
