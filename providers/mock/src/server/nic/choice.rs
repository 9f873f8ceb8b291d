//! Chooses the interface, and the default address ranges. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ballast_link::Interface;
use ipnet::IpNet;

use super::NicError;
use crate::address::AddressRange;

/// The most addresses of a default range, at the top of the subnet.
const MOST: u128 = 254;

/// Which interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceChoice {
    /// The interface of the default route, or the only interface with an address.
    Auto,
    /// By name.
    Named(String),
}

/// Chooses one of `all` interfaces: `default` has the default route, those in `addressed`
/// have addresses.
pub(super) fn choose(
    all: Vec<Interface>,
    choice: &InterfaceChoice,
    default: Option<u32>,
    addressed: &BTreeSet<u32>,
) -> Result<Interface, NicError> {
    let names = |some: &[Interface]| {
        let names: Vec<&str> = some.iter().map(|it| it.name.as_str()).collect();
        names.join(", ")
    };
    if let InterfaceChoice::Named(wanted) = choice {
        let present = names(&all);
        let found = all.into_iter().find(|it| it.name == *wanted);
        return found.ok_or_else(|| NicError::Absent {
            wanted: wanted.clone(),
            present,
        });
    }
    if let Some(found) = all.iter().find(|it| Some(it.index) == default) {
        return Ok(found.clone());
    }
    let candidates: Vec<Interface> = all
        .into_iter()
        .filter(|it| !it.loopback && addressed.contains(&it.index))
        .collect();
    match candidates.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(NicError::Ambiguous {
            present: "no interface".to_owned(),
        }),
        several => Err(NicError::Ambiguous {
            present: format!("several interfaces ({})", names(several)),
        }),
    }
}

/// The top quarter of a subnet, at most [`MOST`] addresses, without the broadcast address.
/// `None` if fewer than two addresses are left.
pub(super) fn top(subnet: &IpNet) -> Option<AddressRange> {
    let host_bits = u32::from(subnet.max_prefix_len() - subnet.prefix_len());
    let size = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX);
    let count = Some((size / 4).min(MOST)).filter(|count| *count > 1)?;
    let (first, last) = match subnet.broadcast() {
        IpAddr::V4(end) => {
            let last = u32::from(end) - 1;
            let first = last - u32::try_from(count).ok()? + 1;
            (IpAddr::V4(first.into()), IpAddr::V4(last.into()))
        }
        IpAddr::V6(end) => {
            let first = u128::from(end) - count + 1;
            (IpAddr::V6(first.into()), IpAddr::V6(end))
        }
    };
    format!("{first}-{last}").parse().ok()
}

// === impl InterfaceChoice ===

impl std::str::FromStr for InterfaceChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            name => Self::Named(name.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use ballast_link::Mac;

    use super::*;

    fn taken_from(subnet: &str) -> Option<String> {
        top(&subnet.parse().unwrap()).map(|range| range.to_string())
    }

    #[test]
    fn the_top_of_a_subnet() {
        for (subnet, range) in [
            ("172.18.0.2/16", Some("172.18.255.1-172.18.255.254")),
            ("192.0.2.1/24", Some("192.0.2.191-192.0.2.254")),
            ("192.0.2.1/29", Some("192.0.2.5-192.0.2.6")),
            ("192.0.2.1/30", None),
            ("192.0.2.1/32", None),
            (
                "fc00:f853:ccd:e793::2/64",
                Some(
                    "fc00:f853:ccd:e793:ffff:ffff:ffff:ff02-fc00:f853:ccd:e793:ffff:ffff:ffff:ffff",
                ),
            ),
            ("2001:db8::1/128", None),
        ] {
            assert_eq!(taken_from(subnet).as_deref(), range, "{subnet}");
        }
    }

    fn interface(index: u32, name: &str) -> Interface {
        Interface {
            index,
            name: name.to_owned(),
            mac: Mac::UNKNOWN,
            up: true,
            loopback: name == "lo",
        }
    }

    /// The name of the chosen interface of `lo`, `eth0` and `eth1`, or the error.
    fn chosen(choice: &str, default: Option<u32>, addressed: &[u32]) -> String {
        let all = vec![
            interface(1, "lo"),
            interface(2, "eth0"),
            interface(3, "eth1"),
        ];
        let addressed = addressed.iter().copied().collect();
        match choose(all, &choice.parse().unwrap(), default, &addressed) {
            Ok(found) => found.name,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_interface_is_chosen_or_the_error_names_the_candidates() {
        assert_eq!(chosen("eth1", Some(2), &[2]), "eth1", "by name");
        assert_eq!(
            chosen("auto", Some(3), &[2, 3]),
            "eth1",
            "the default route's"
        );
        assert_eq!(chosen("auto", None, &[1, 2]), "eth0", "the only one");
        assert_eq!(
            chosen("auto", Some(9), &[1, 2]),
            "eth0",
            "a route that is gone"
        );
        for (choice, addressed, said) in [
            ("eth7", &[2][..], "this node has lo, eth0, eth1"),
            ("auto", &[1], "no interface with addresses"),
            ("auto", &[2, 3], "several interfaces (eth0, eth1)"),
        ] {
            let error = chosen(choice, None, addressed);
            assert!(error.contains(said), "{error}");
        }
    }
}
