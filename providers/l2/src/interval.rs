//! A set of numbers as disjoint intervals. Owns the splitting and merging.
//!
//! Invariants: intervals neither overlap nor touch (touching ones are one); `count`
//! is the number of members. Every operation costs the logarithm of the number of
//! intervals, never of members: an IPv6 /64 is one interval.

use std::collections::BTreeMap;

/// The members; both ends of every interval are members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intervals {
    /// First to last.
    spans: BTreeMap<u128, u128>,
    count: u128,
}

// === impl Intervals ===

impl Intervals {
    /// The number of members.
    pub(crate) const fn count(&self) -> u128 {
        self.count
    }

    /// The number of intervals, to which the memory is proportional.
    pub(crate) fn spans(&self) -> usize {
        self.spans.len()
    }

    /// The intervals in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        self.spans.iter().map(|(first, last)| (*first, *last))
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        self.span_of(number).is_some()
    }

    /// The lowest member.
    pub(crate) fn first(&self) -> Option<u128> {
        self.spans.first_key_value().map(|(first, _)| *first)
    }

    /// The highest member.
    pub(crate) fn last(&self) -> Option<u128> {
        self.spans.last_key_value().map(|(_, last)| *last)
    }

    /// The lowest member that is not below `number`.
    pub(crate) fn first_from(&self, number: u128) -> Option<u128> {
        if self.contains(number) {
            return Some(number);
        }
        self.spans.range(number..).next().map(|(first, _)| *first)
    }

    /// Removes one number; returns whether it was a member.
    pub(crate) fn remove(&mut self, number: u128) -> bool {
        let Some((first, last)) = self.span_of(number) else {
            return false;
        };
        // The part below keeps its key, so that taking from the lower end (the usual
        // case) is one removal and one insertion.
        if number == first {
            self.spans.remove(&first);
        } else {
            self.spans.insert(first, number - 1);
        }
        if number < last {
            self.spans.insert(number + 1, last);
        }
        self.count = self.count.saturating_sub(1);
        true
    }

    /// Adds one number; returns whether it was not a member.
    pub(crate) fn insert(&mut self, number: u128) -> bool {
        if self.contains(number) {
            return false;
        }
        self.insert_span(number, number);
        true
    }

    /// Adds an interval; present members stay.
    pub(crate) fn insert_span(&mut self, mut first: u128, mut last: u128) {
        // Intervals that overlap or touch become part of the new interval.
        while let Some((other, end)) = self
            .spans
            .range(..=last.saturating_add(1))
            .next_back()
            .map(|(other, end)| (*other, *end))
            .filter(|(_, end)| end.saturating_add(1) >= first)
        {
            self.spans.remove(&other);
            self.count = self.count.saturating_sub(size(other, end));
            first = first.min(other);
            last = last.max(end);
        }
        self.spans.insert(first, last);
        self.count = self.count.saturating_add(size(first, last));
    }

    fn span_of(&self, number: u128) -> Option<(u128, u128)> {
        self.spans
            .range(..=number)
            .next_back()
            .map(|(first, last)| (*first, *last))
            .filter(|(_, last)| *last >= number)
    }
}

/// The number of members of an interval; saturates, because 2^128 does not fit.
const fn size(first: u128, last: u128) -> u128 {
    (last - first).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u128),
        Span(u128, u128),
        Remove(u128),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..60_u128).prop_map(Step::Insert),
            (0..60_u128, 0..9_u128).prop_map(|(first, more)| Step::Span(first, first + more)),
            (0..70_u128).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec(step(), 0..120), probe in 0..70_u128) {
            let mut set = Intervals::default();
            let mut naive = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Insert(n) => prop_assert_eq!(set.insert(n), naive.insert(n)),
                    Step::Remove(n) => prop_assert_eq!(set.remove(n), naive.remove(&n)),
                    Step::Span(first, last) => {
                        set.insert_span(first, last);
                        naive.extend(first..=last);
                    }
                }
            }
            let members: Vec<u128> = set.iter().flat_map(|(first, last)| first..=last).collect();
            prop_assert_eq!(&members, &naive.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.count(), naive.len() as u128);
            prop_assert_eq!(set.first(), naive.first().copied());
            prop_assert_eq!(set.last(), naive.last().copied());
            prop_assert_eq!(set.first_from(probe), naive.range(probe..).next().copied());
            let spans: Vec<_> = set.iter().collect();
            prop_assert!(spans.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "touching");
        }
    }

    #[test]
    fn the_ends_of_the_number_line() {
        let mut set = Intervals::default();
        set.insert_span(0, u128::MAX);
        assert_eq!((set.count(), set.spans()), (u128::MAX, 1));
        assert!(set.remove(0) && set.remove(u128::MAX) && set.remove(7));
        assert_eq!(set.iter().collect::<Vec<_>>(), [(1, 6), (8, u128::MAX - 1)]);
        assert!(set.insert(7) && set.insert(u128::MAX) && set.insert(0));
        assert_eq!(set.spans(), 1);
    }
}
