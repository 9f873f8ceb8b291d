//! The answers of the allocator: addresses, or why not. Owns the texts that users read.
//!
//! Invariant: a message names the Service, address, port, pool and rule that matter, but never
//! a count or a time, so that it stays the same from one retry to the next.

use std::fmt;
use std::net::IpAddr;

use ballast_provider::{Family, Reason};

/// The text between an address that was not adopted and the reason.
const NOT_ADOPTED: &str = " in the status was not assigned by Ballast and cannot be used: ";

/// What a Service gets: all that it asks for, or as much as its policy accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// At most one per family, in the order of the claim's families.
    pub addresses: Vec<IpAddr>,
    /// What its owner should know nevertheless.
    pub markers: Vec<Marker>,
}

/// A problem of a Service that has its address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Marker {
    /// The Service keeps an address that no pool assigns to it (any more).
    OutsidePool {
        /// The address.
        address: IpAddr,
        /// The pool that has the address and does not serve this Service; `None` if
        /// no pool has it.
        pool: Option<String>,
    },
    /// The status of two Services named one address; the older kept it.
    Duplicate {
        /// The address.
        address: IpAddr,
        /// The name of the other Service, as far as this one's owner may know it.
        other: String,
        /// Whether this Service is the one that kept it.
        kept: bool,
    },
    /// A node has the Service's address, too.
    NodeAddress {
        /// The address.
        address: IpAddr,
    },
    /// Another writer put an address into the status that the Service cannot have. It has
    /// another one.
    NotAdopted {
        /// The address.
        address: IpAddr,
        /// The cause.
        why: String,
        /// Whether the status still has the address.
        published: bool,
    },
    /// `PreferDualStack`, and no pool has a free address of this family.
    Missing {
        /// The family.
        family: Family,
    },
}

/// A Service does not get what it asks for. Nothing changes until its claim or something that
/// it waits for changes; then it is woken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denial {
    /// The kind of denial.
    pub reason: Reason,
    /// The message for the user.
    pub message: String,
    /// The addresses that the Service had before this claim, and keeps.
    pub keeps: Vec<IpAddr>,
}

// === impl Marker ===

impl Marker {
    /// The kind of marker in a word.
    #[cfg(test)]
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::OutsidePool { .. } => "AddressOutsidePool",
            Self::Duplicate { .. } => "AddressDuplicate",
            Self::NodeAddress { .. } => "NodeAddress",
            Self::NotAdopted {
                published: true, ..
            } => "NotAdopted",
            Self::NotAdopted {
                published: false, ..
            } => "Replaced",
            Self::Missing { .. } => "NoAddressAvailable",
        }
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsidePool {
                address,
                pool: None,
            } => write!(
                f,
                "{address} is in no pool that serves; the Service keeps it (a pool with reallocate: true can assign it a new address)"
            ),
            Self::OutsidePool {
                address,
                pool: Some(pool),
            } => write!(
                f,
                "{address} is in pool {pool:?}, but the pool's selectors or the class exclude this Service; the Service keeps the address"
            ),
            Self::Duplicate {
                address,
                other,
                kept: true,
            } => write!(
                f,
                "{address} is also in the status of {other}; this Service is older and keeps it"
            ),
            Self::Duplicate {
                address,
                other,
                kept: false,
            } => write!(
                f,
                "{address} in the status belongs to {other}, which is older"
            ),
            Self::NodeAddress { address } => write!(
                f,
                "{address} is also the address of a node; the Service keeps it (to move the Service, request another address or change its address pool)"
            ),
            Self::NotAdopted { address, why, .. } => write!(f, "{address}{NOT_ADOPTED}{why}"),
            Self::Missing { family } => write!(
                f,
                "PreferDualStack: no pool that serves this Service has a free {family} address"
            ),
        }
    }
}

/// The published addresses that were not adopted, and why, read from one of our own conditions:
/// the reason stays there for the life of the Service, also after a restart.
pub fn not_adopted(message: &str) -> Vec<(IpAddr, String)> {
    let one = |remark: &str| {
        let (address, why) = remark.split_once(NOT_ADOPTED)?;
        Some((address.parse().ok()?, why.to_owned()))
    };
    message.split("; ").filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_for_another_address_is_read_as_it_is_written() {
        let marker = |address: &str, why: &str| Marker::NotAdopted {
            address: address.parse().unwrap(),
            why: why.to_owned(),
            published: false,
        };
        let (a, b) = (
            marker("192.0.2.1", "it is a loopback address"),
            marker("fd00::1", "x"),
        );
        let message = format!("LoadBalancerClass lan serves this Service; {a}; {b}; more");
        let read: Vec<String> = not_adopted(&message)
            .iter()
            .map(|(address, why)| marker(&address.to_string(), why).to_string())
            .collect();
        assert_eq!(read, [a.to_string(), b.to_string()]);
    }
}
