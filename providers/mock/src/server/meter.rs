//! The meter: what the load balancers of this cloud would cost on AWS. Pure arithmetic.
//!
//! The meter adds up time: how long how many load balancers and addresses were there. It is brought
//! up to date with every decision that changes their numbers, and is committed with it. So what is
//! gone stays in the sum, a restart changes nothing, and the meter needs no list of what was
//! deleted. Sums are whole milliseconds; money is computed when somebody asks.

use ballast_provider::{Billed, Money, Prices};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::api::{MeterView, PricesView};

const MILLIS_PER_HOUR: u128 = 3_600_000;

/// The stored sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meter {
    /// When it began.
    since: Timestamp,
    /// The time up to which the sums are complete. It never goes back, even if the clock does.
    until: Timestamp,
    /// Milliseconds, summed over all load balancers.
    load_balancer_millis: u64,
    /// Milliseconds, summed over all public addresses.
    public_address_millis: u64,
}

// === impl Meter ===

impl Meter {
    /// The meter of a state that has none yet: an empty one, or one from before there was a meter.
    /// What is there counts from its creation. What is gone is not known.
    pub(super) fn begin(now: Timestamp, records: &[Record]) -> Self {
        let created = records.iter().map(|record| record.created_at);
        let begin = Self {
            since: created.min().map_or(now, |first| first.min(now)),
            until: now,
            ..Self::default()
        };
        records.iter().fold(begin, |meter, record| {
            meter.plus(record.billed(), millis(record.created_at, now))
        })
    }

    /// The meter at this time, if so much was there since it was last brought up to date.
    pub(super) fn at(self, now: Timestamp, billed: Billed) -> Self {
        let until = self.until.max(now);
        Self {
            until,
            ..self.plus(billed, millis(self.until, until))
        }
    }

    /// The answer of the API at this time.
    pub(super) fn view(self, now: Timestamp, billed: Billed, prices: &Prices) -> MeterView {
        let now = self.at(now, billed);
        let so_far = cost(prices.load_balancer, now.load_balancer_millis)
            .saturating_add(cost(prices.public_address, now.public_address_millis));
        MeterView {
            since: now.since,
            time: now.until,
            load_balancers: billed.load_balancers,
            public_addresses: billed.public_addresses,
            per_hour: prices.per_hour(billed).dollars(),
            per_month: prices.per_month(billed).dollars(),
            so_far: whole(so_far).dollars(),
            prices: PricesView {
                load_balancer_hour: prices.load_balancer.dollars(),
                public_address_hour: prices.public_address.dollars(),
            },
        }
    }

    fn plus(self, billed: Billed, millis: u64) -> Self {
        let add = |sum: u64, count: u32| sum.saturating_add(millis.saturating_mul(count.into()));
        Self {
            load_balancer_millis: add(self.load_balancer_millis, billed.load_balancers),
            public_address_millis: add(self.public_address_millis, billed.public_addresses),
            ..self
        }
    }
}

/// `all` without `gone`.
pub(super) fn without(all: Billed, gone: Billed) -> Billed {
    Billed {
        load_balancers: all.load_balancers.saturating_sub(gone.load_balancers),
        public_addresses: all.public_addresses.saturating_sub(gone.public_addresses),
    }
}

/// From one time to a later one; 0 if it is not later.
fn millis(from: Timestamp, to: Timestamp) -> u64 {
    let elapsed = to.as_millisecond().saturating_sub(from.as_millisecond());
    u64::try_from(elapsed).unwrap_or(0)
}

/// In millionths of a dollar times the milliseconds of an hour, so that only the sum is rounded.
fn cost(hour: Money, millis: u64) -> u128 {
    u128::from(hour.micros).saturating_mul(millis.into())
}

/// Whole millionths of a dollar, rounded down.
fn whole(cost: u128) -> Money {
    Money::micros(u64::try_from(cost / MILLIS_PER_HOUR).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Billed = Billed {
        load_balancers: 1,
        public_addresses: 1,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seen(meter: Meter, now: i64, billed: Billed) -> (f64, f64) {
        let view = meter.view(at(now), billed, &Prices::AWS);
        (view.per_hour, view.so_far)
    }

    #[test]
    fn an_hour_costs_an_hour_and_what_is_gone_costs_no_more() {
        let meter = Meter::begin(at(0), &[]);
        assert_eq!(seen(meter, 3_600, Billed::default()), (0.0, 0.0));
        assert_eq!(seen(meter, 3_600, ONE), (0.0275, 0.0275));
        let meter = meter.at(at(1_800), ONE);
        assert_eq!(seen(meter, 1_800, Billed::default()), (0.0, 0.013_75));
        assert_eq!(seen(meter, 99_999, Billed::default()), (0.0, 0.013_75));
        let both = ONE + ONE;
        assert_eq!(seen(meter, 1_800 + 3_600, both), (0.055, 0.068_75));
    }

    #[test]
    fn it_does_not_matter_how_often_it_is_brought_up_to_date() {
        let begin = Meter::begin(at(0), &[]);
        let once = begin.at(at(10_000), ONE);
        let mut often = begin;
        // Off the grid of milliseconds: no rounding adds up.
        for step in 0..=10_000_i64 {
            let now = Timestamp::from_nanosecond(i128::from(step) * 1_000_000_000 - 1);
            often = often.at(now.unwrap().max(at(0)), ONE);
        }
        assert_eq!(often.at(at(10_000), ONE), once);
    }

    #[test]
    fn a_clock_that_goes_back_counts_no_time_twice() {
        let meter = Meter::begin(at(0), &[]).at(at(100), ONE);
        let back = meter.at(at(40), ONE);
        assert_eq!(back, meter);
        assert_eq!(back.at(at(100), ONE), meter);
        assert_eq!(back.at(at(101), ONE).load_balancer_millis, 101_000);
    }

    #[test]
    fn sums_end_at_their_largest_value() {
        let most = Billed {
            load_balancers: u32::MAX,
            public_addresses: u32::MAX,
        };
        let meter = Meter::begin(Timestamp::MIN, &[]).at(Timestamp::MAX, most);
        assert_eq!(meter.load_balancer_millis, u64::MAX);
        let prices = Prices {
            load_balancer: Money::micros(u64::MAX),
            public_address: Money::micros(u64::MAX),
        };
        let view = meter.view(Timestamp::MAX, most, &prices);
        assert!(view.so_far > 1e13 && view.per_month > 1e13, "{view:?}");
    }

    #[test]
    fn the_sums_are_stored_under_these_names() {
        let meter = Meter::begin(at(0), &[]).at(at(1), ONE + ONE);
        let text = serde_json::to_string(&meter).unwrap();
        assert_eq!(
            text,
            r#"{"since":"1970-01-01T00:00:00Z","until":"1970-01-01T00:00:01Z","loadBalancerMillis":2000,"publicAddressMillis":2000}"#
        );
        assert_eq!(serde_json::from_str::<Meter>(&text).unwrap(), meter);
    }
}
