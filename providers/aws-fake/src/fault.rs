//! What goes wrong: a plan of faults for calls to come. Pure.
//!
//! A fault belongs to the n-th call that it counts, and to as many after it as it says. If several
//! belong to one call, delays add up, and of the others the oldest holds.

use std::time::Duration;

use crate::state::Refusal;

/// A fault and the calls that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    calls: Calls,
    /// The first call, counted from 1.
    nth: u64,
    /// For how many calls.
    times: u64,
    effect: Effect,
    /// No call is made after it.
    fatal: bool,
}

/// The calls that a fault counts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Calls {
    All,
    Writes,
    Of(String),
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It is refused.
    Refuse(Refusal),
    /// It takes longer.
    Delay(Duration),
    /// The connection is closed before the call is made.
    DropBefore,
    /// The connection is closed after the call was made.
    DropAfter,
    /// The call is not made until the test releases it.
    HoldBefore,
    /// The call is made, and is not answered until the test releases it.
    HoldAfter,
}

/// What happens to one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) delay: Duration,
    pub(crate) effect: Option<Effect>,
}

/// The faults to come.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Each with the number of calls that it has counted.
    faults: Vec<(Fault, u64)>,
    /// A fatal fault has happened: no call is made any more.
    down: bool,
}

// === impl Fault ===

impl Fault {
    /// Counts all calls. Until it says more, it belongs to the first, and does nothing.
    pub const fn any() -> Self {
        Self::new(Calls::All)
    }

    /// Counts the calls that change something.
    pub const fn writes() -> Self {
        Self::new(Calls::Writes)
    }

    /// Counts the calls of one action.
    pub fn on(action: &str) -> Self {
        Self::new(Calls::Of(action.to_owned()))
    }

    const fn new(calls: Calls) -> Self {
        Self {
            calls,
            nth: 1,
            times: 1,
            effect: Effect::Delay(Duration::ZERO),
            fatal: false,
        }
    }

    /// It belongs to this call, counted from 1.
    #[must_use]
    pub fn nth(self, nth: u64) -> Self {
        Self { nth, ..self }
    }

    /// It belongs to so many calls.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// It belongs to all calls from then on.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    /// The call is refused with this code.
    #[must_use]
    pub fn error(self, code: &str, message: &str) -> Self {
        self.effect(Effect::Refuse(Refusal::new(code, message)))
    }

    /// The call is refused with this code and this HTTP status.
    #[must_use]
    pub fn error_with_status(self, status: u16, code: &str, message: &str) -> Self {
        self.effect(Effect::Refuse(Refusal::new(code, message).status(status)))
    }

    /// The call takes longer, by the fake's clock.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        self.effect(Effect::Delay(delay))
    }

    /// The connection is closed before the call is made.
    #[must_use]
    pub fn drop_before(self) -> Self {
        self.effect(Effect::DropBefore)
    }

    /// The call is made, and the connection is closed without an answer.
    #[must_use]
    pub fn drop_after(self) -> Self {
        self.effect(Effect::DropAfter)
    }

    /// There is no answer: the connection is closed after the call is made, or before it.
    #[must_use]
    pub fn dropped(self, after: bool) -> Self {
        if after {
            self.drop_after()
        } else {
            self.drop_before()
        }
    }

    /// The call is not made until the test releases it: time to kill who made it.
    #[must_use]
    pub fn hold_before(self) -> Self {
        self.effect(Effect::HoldBefore)
    }

    /// The call is made, and is not answered until the test releases it.
    #[must_use]
    pub fn hold_after(self) -> Self {
        self.effect(Effect::HoldAfter)
    }

    /// It is the end of the client: the connection of every later call is closed before the call is
    /// made, until the test clears the faults.
    #[must_use]
    pub fn fatal(self) -> Self {
        Self {
            fatal: true,
            ..self
        }
    }

    fn effect(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }

    fn counts(&self, action: &str) -> bool {
        match &self.calls {
            Calls::All => true,
            Calls::Writes => !action.starts_with("Describe"),
            Calls::Of(name) => name == action,
        }
    }
}

// === impl Plan ===

impl Plan {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.faults.push((fault, 0));
    }

    pub(crate) fn clear(&mut self) {
        self.faults.clear();
        self.down = false;
    }

    /// Whether a fatal fault has happened.
    pub(crate) const fn is_down(&self) -> bool {
        self.down
    }

    /// Counts a call, and says what happens to it.
    pub(crate) fn next(&mut self, action: &str) -> Fate {
        let mut fate = Fate::default();
        if self.down {
            fate.effect = Some(Effect::DropBefore);
            return fate;
        }
        for (fault, counted) in &mut self.faults {
            if !fault.counts(action) {
                continue;
            }
            *counted += 1;
            let before = fault.nth.saturating_sub(1);
            if *counted <= before || *counted - before > fault.times {
                continue;
            }
            self.down |= fault.fatal;
            match &fault.effect {
                Effect::Delay(delay) => fate.delay += *delay,
                other => {
                    fate.effect.get_or_insert_with(|| other.clone());
                }
            }
        }
        let spent = |(fault, counted): &(Fault, u64)| {
            fault.times != u64::MAX && *counted >= fault.nth.saturating_sub(1) + fault.times
        };
        self.faults.retain(|fault| !spent(fault));
        fate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_belong_to_their_calls() {
        let refused = || Fault::any().error("A", "a");
        let table = [
            (Fault::on("B").drop_after(), vec![1]),
            (Fault::on("B").nth(2).drop_after(), vec![4]),
            (Fault::on("B").nth(2).always().drop_after(), vec![4, 5]),
            (Fault::writes().nth(2).drop_before(), vec![1]),
            (refused().nth(3).times(2), vec![2, 3]),
            (refused().always(), vec![0, 1, 2, 3, 4, 5]),
            (Fault::on("C").drop_after(), vec![]),
        ];
        for (fault, expected) in table {
            let mut plan = Plan::default();
            plan.add(fault.clone());
            let actions = ["A", "B", "DescribeA", "A", "B", "B"];
            let hit: Vec<usize> = actions
                .iter()
                .enumerate()
                .filter(|(_, action)| plan.next(action).effect.is_some())
                .map(|(index, _)| index)
                .collect();
            assert_eq!(hit, expected, "{fault:?}");
        }
    }

    #[test]
    fn a_fatal_fault_is_the_last() {
        let mut plan = Plan::default();
        plan.add(Fault::writes().nth(2).drop_after().fatal());
        let hit = |plan: &mut Plan, action: &str| plan.next(action).effect;
        assert_eq!(hit(&mut plan, "A"), None);
        assert!(!plan.is_down());
        assert_eq!(hit(&mut plan, "A"), Some(Effect::DropAfter));
        assert!(plan.is_down());
        assert_eq!(hit(&mut plan, "DescribeA"), Some(Effect::DropBefore));
        plan.clear();
        assert_eq!(hit(&mut plan, "A"), None);
    }

    #[test]
    fn delays_add_up_and_the_oldest_effect_holds() {
        let mut plan = Plan::default();
        plan.add(Fault::any().delay(Duration::from_secs(1)));
        plan.add(Fault::any().drop_before());
        plan.add(Fault::any().drop_after());
        plan.add(Fault::any().delay(Duration::from_secs(2)));
        let fate = plan.next("A");
        assert_eq!(fate.delay, Duration::from_secs(3));
        assert_eq!(fate.effect, Some(Effect::DropBefore));
        assert_eq!(plan.next("A"), Fate::default());
    }
}
