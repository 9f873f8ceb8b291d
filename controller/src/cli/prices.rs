//! Prices on the command line: `--price load-balancer-hour=0.0252`. Pure.

use ballast_provider::prices::{Money, Prices};
use clap::Args;

/// The price of one load balancer.
const LOAD_BALANCER: &str = "load-balancer-hour";
/// The price of one public IPv4 address.
const PUBLIC_ADDRESS: &str = "public-ipv4-hour";
/// No price has more digits after the point.
const DIGITS: usize = 6;
/// Whole dollars of the highest price.
const MOST: u64 = 1_000_000;

/// Flags about prices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct PriceArgs {
    /// A price in US dollars that differs from AWS's list price: load-balancer-hour or
    /// public-ipv4-hour. Can be repeated.
    #[arg(long = "price", value_name = "NAME=DOLLARS", value_parser = Price::parse)]
    pub prices: Vec<Price>,
}

/// One price that the user gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Price {
    /// Of an hour of one load balancer.
    LoadBalancer(Money),
    /// Of an hour of one public IPv4 address.
    PublicAddress(Money),
}

// === impl PriceArgs ===

impl PriceArgs {
    /// The list prices, with those of the user. Of a price that is given twice the last counts.
    pub fn prices(&self) -> Prices {
        let mut prices = Prices::default();
        for price in &self.prices {
            match price {
                Price::LoadBalancer(money) => prices.load_balancer = *money,
                Price::PublicAddress(money) => prices.public_address = *money,
            }
        }
        prices
    }
}

// === impl Price ===

impl Price {
    /// Reads `NAME=DOLLARS`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((name, amount)) = text.split_once('=') else {
            return Err("a price is NAME=DOLLARS, such as load-balancer-hour=0.0252".to_owned());
        };
        let money = dollars(amount)?;
        match name {
            LOAD_BALANCER => Ok(Self::LoadBalancer(money)),
            PUBLIC_ADDRESS => Ok(Self::PublicAddress(money)),
            _ => Err(format!(
                "no price is called {name}; the prices are {LOAD_BALANCER} and {PUBLIC_ADDRESS}"
            )),
        }
    }
}

/// Exact: a number with a fraction of at most six digits.
fn dollars(text: &str) -> Result<Money, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || text.ends_with('.') {
        return Err(format!("\"{text}\" is not an amount such as 0.0252"));
    }
    if fraction.len() > DIGITS {
        return Err(format!(
            "\"{text}\" has more than {DIGITS} digits after the point"
        ));
    }
    let too_much = || format!("\"{text}\" is more than {MOST} dollars");
    let whole: u64 = whole.parse().map_err(|_| too_much())?;
    let micros: u64 = format!("{fraction:0<DIGITS$}").parse().unwrap_or_default();
    if whole >= MOST {
        return Err(too_much());
    }
    Ok(Money::micros(whole * 1_000_000 + micros))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        prices: PriceArgs,
    }

    fn of(flags: &[&str]) -> Result<Prices, String> {
        let flags = flags.iter().flat_map(|flag| ["--price", flag]);
        Command::try_parse_from(["test"].into_iter().chain(flags))
            .map(|command| command.prices.prices())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_price_replaces_that_of_the_list() {
        assert_eq!(of(&[]), Ok(Prices::AWS));
        for (flags, load_balancer, public_address) in [
            (&["load-balancer-hour=0.0252"][..], 25_200, 5_000),
            (&["public-ipv4-hour=0"], 22_500, 0),
            (
                &["load-balancer-hour=1", "public-ipv4-hour=0.000001"],
                1_000_000,
                1,
            ),
            (
                &["load-balancer-hour=1", "load-balancer-hour=2.50"],
                2_500_000,
                5_000,
            ),
        ] {
            let expected = Prices {
                load_balancer: Money::micros(load_balancer),
                public_address: Money::micros(public_address),
            };
            assert_eq!(of(flags), Ok(expected), "{flags:?}");
        }
    }

    #[test]
    fn what_is_no_price_is_refused_and_says_why() {
        for (flag, words) in [
            ("0.02", "NAME=DOLLARS"),
            (
                "nat-gateway-hour=0.045",
                "load-balancer-hour and public-ipv4-hour",
            ),
            ("load-balancer-hour=", "is not an amount"),
            ("load-balancer-hour=-1", "is not an amount"),
            ("load-balancer-hour=.5", "is not an amount"),
            ("load-balancer-hour=5.", "is not an amount"),
            ("load-balancer-hour=1e3", "is not an amount"),
            ("load-balancer-hour=0,02", "is not an amount"),
            ("load-balancer-hour=0.0000001", "more than 6 digits"),
            ("load-balancer-hour=1000000", "more than 1000000 dollars"),
            (
                "load-balancer-hour=99999999999999999999",
                "more than 1000000 dollars",
            ),
        ] {
            let said = of(&[flag]).unwrap_err();
            assert!(said.contains(words), "{flag}: {said}");
        }
    }
}
