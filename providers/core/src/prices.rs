//! What load balancers cost: one table of prices, and the sums of it. Commands, metrics and the
//! mock cloud's meter use the same one; `docs/plan.md` has it for people.
//!
//! The numbers are estimates: traffic, capacity units, and discounts are not in them. Amounts are
//! whole micro-dollars, so that sums do not depend on their order.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

/// Hours in a month, as in AWS's own price examples.
pub const HOURS_PER_MONTH: u64 = 730;

/// An amount of US dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money {
    /// Millionths of a dollar.
    pub micros: u64,
}

/// What is billed by the hour, whether there is traffic or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Billed {
    /// Load balancers.
    pub load_balancers: u32,
    /// Public IPv4 addresses: of an internet-facing load balancer one in each zone.
    pub public_addresses: u32,
}

/// The prices of an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// One load balancer.
    pub load_balancer: Money,
    /// One public IPv4 address.
    pub public_address: Money,
}

// === impl Money ===

impl Money {
    /// This many millionths of a dollar.
    pub const fn micros(micros: u64) -> Self {
        Self { micros }
    }

    /// The dollars as a number, for metrics and JSON.
    #[expect(
        clippy::cast_precision_loss,
        reason = "exact up to nine billion dollars"
    )]
    pub fn dollars(self) -> f64 {
        self.micros as f64 / 1e6
    }

    /// The amount for so many of them.
    #[must_use]
    pub const fn times(self, count: u64) -> Self {
        Self {
            micros: self.micros.saturating_mul(count),
        }
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::micros(self.micros.saturating_add(other.micros))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

/// In dollars and cents, rounded; less than half a cent with all digits.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.micros > 0 && self.micros < 5_000 {
            return write!(f, "$0.{:06}", self.micros);
        }
        let cents = self.micros.saturating_add(5_000) / 10_000;
        write!(f, "${}.{:02}", cents / 100, cents % 100)
    }
}

// === impl Billed ===

impl Add for Billed {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            load_balancers: self.load_balancers.saturating_add(other.load_balancers),
            public_addresses: self.public_addresses.saturating_add(other.public_addresses),
        }
    }
}

impl Sum for Billed {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

// === impl Prices ===

impl Prices {
    /// Network Load Balancers in us-east-1 and most regions of AWS. Sources:
    /// <https://aws.amazon.com/elasticloadbalancing/pricing/> (0.0225 $ an hour) and
    /// <https://aws.amazon.com/vpc/pricing/> (0.005 $ an hour for a public IPv4 address).
    pub const AWS: Self = Self {
        load_balancer: Money::micros(22_500),
        public_address: Money::micros(5_000),
    };

    /// What an hour costs.
    pub fn per_hour(&self, billed: Billed) -> Money {
        self.load_balancer.times(billed.load_balancers.into())
            + self.public_address.times(billed.public_addresses.into())
    }

    /// What a month of [`HOURS_PER_MONTH`] costs.
    pub fn per_month(&self, billed: Billed) -> Money {
        self.per_hour(billed).times(HOURS_PER_MONTH)
    }
}

/// The prices of AWS ([`Prices::AWS`]).
impl Default for Prices {
    fn default() -> Self {
        Self::AWS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_of_an_idle_load_balancer() {
        let billed = |load_balancers, public_addresses| Billed {
            load_balancers,
            public_addresses,
        };
        for (billed, month) in [
            (billed(0, 0), "$0.00"),
            (billed(1, 0), "$16.43"),
            (billed(1, 3), "$27.38"),
            (billed(20, 0), "$328.50"),
        ] {
            let cost = Prices::AWS.per_month(billed);
            assert_eq!(cost.to_string(), month, "{billed:?}");
        }
    }

    #[test]
    fn small_amounts_keep_their_digits() {
        for (micros, text) in [
            (1, "$0.000001"),
            (4_999, "$0.004999"),
            (5_000, "$0.01"),
            (14_999, "$0.01"),
            (15_000, "$0.02"),
            (999_995_000, "$1000.00"),
        ] {
            assert_eq!(Money::micros(micros).to_string(), text);
        }
    }

    #[test]
    fn sums_end_at_the_largest_amount() {
        let most = Money::micros(u64::MAX);
        assert_eq!([most, most].into_iter().sum::<Money>(), most);
        assert_eq!(most.times(2), most);
    }
}
