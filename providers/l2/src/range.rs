//! The meaning of a pool's address entries: a CIDR, `first-last`, or one address, of either
//! family. Owns the parsing, its errors, and the conversion between addresses and numbers.
//!
//! Invariants: a [`Range`] has one family and `first <= last`; numbers of both families are
//! `u128`, so no size overflows. Nothing here knows which Service uses an address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use ballast_provider::Family;
use ipnet::IpNet;

/// Consecutive addresses of one family, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    family: Family,
    first: u128,
    last: u128,
}

/// One line of a pool's `addresses`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    text: String,
    range: Range,
    form: Form,
}

/// How an entry was written. The addresses at the ends of a network are special only if the
/// user wrote a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `10.0.0.0/24`, with the length of the prefix.
    Cidr(u8),
    /// `10.0.0.10-10.0.0.20`
    Span,
    /// `10.0.0.10`
    Single,
}

/// Which addresses of its entries a pool never assigns automatically. All of them still belong
/// to the pool: a Service that requests one gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Edges {
    /// The first and last address of an IPv4 CIDR (network and broadcast, if the CIDR is a
    /// whole subnet) and the first of an IPv6 CIDR (the routers' anycast address, RFC 4291
    /// section 2.6.1). A /31, /32, /127 or /128 has none, and neither have `first-last` and
    /// single addresses, whose ends the user chose. This is the default, because two addresses
    /// fewer do no harm, but a broadcast address cannot work.
    #[default]
    Skip,
    /// Like `Skip`, and every IPv4 address that ends in .0 or .255, in CIDRs and in
    /// `first-last` (some old clients refuse them). A single address is still assigned, because
    /// the user listed it explicitly.
    SkipOctets,
    /// None: all addresses are assigned.
    Use,
}

/// An invalid entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// None of the three forms.
    #[error(
        "address entry {0:?} is neither a CIDR (10.0.0.0/24), nor first-last (10.0.0.10-10.0.0.20), nor an address"
    )]
    Syntax(String),
    /// A CIDR with host bits set: it could mean the network or the host.
    #[error(
        "address entry {entry:?} has host bits set; write {network} for the network or {host} for the address"
    )]
    HostBits {
        /// As written.
        entry: String,
        /// The network that it could mean.
        network: IpNet,
        /// The address that it could mean.
        host: IpAddr,
    },
    /// The ends are of two families.
    #[error("address entry {0:?} begins in one IP family and ends in the other")]
    Mixed(String),
    /// The ends are in the wrong order.
    #[error("address entry {0:?} ends before it begins")]
    Reversed(String),
    /// No host on a network can have such an address.
    #[error("address entry {entry:?} contains {what} addresses, which no load balancer can have")]
    Unusable {
        /// As written.
        entry: String,
        /// The kind of address.
        what: &'static str,
    },
}

/// Ranges that no load balancer can use, with their names.
const UNUSABLE: [(&str, IpAddr, IpAddr); 9] = [
    ("unspecified", v4([0, 0, 0, 0]), v4([0, 255, 255, 255])),
    ("loopback", v4([127, 0, 0, 0]), v4([127, 255, 255, 255])),
    ("multicast", v4([224, 0, 0, 0]), v4([239, 255, 255, 255])),
    ("broadcast", v4([255; 4]), v4([255; 4])),
    ("unspecified", v6([0; 8]), v6([0; 8])),
    (
        "loopback",
        v6([0, 0, 0, 0, 0, 0, 0, 1]),
        v6([0, 0, 0, 0, 0, 0, 0, 1]),
    ),
    (
        "IPv4-mapped",
        v6([0, 0, 0, 0, 0, 0xffff, 0, 0]),
        v6([0, 0, 0, 0, 0, 0xffff, 0xffff, 0xffff]),
    ),
    (
        "link-local",
        v6([0xfe80, 0, 0, 0, 0, 0, 0, 0]),
        v6([
            0xfebf, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff,
        ]),
    ),
    (
        "multicast",
        v6([0xff00, 0, 0, 0, 0, 0, 0, 0]),
        v6([0xffff; 8]),
    ),
];

const fn v4(octets: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]))
}

const fn v6(s: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(
        s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7],
    ))
}

/// The kind of an address that no load balancer can have; `None` for other addresses.
pub(crate) fn unusable(address: IpAddr) -> Option<&'static str> {
    let bad = |(_, low, high): &&(&str, IpAddr, IpAddr)| {
        Range::new(*low, *high).is_some_and(|range| range.contains(address))
    };
    UNUSABLE.iter().find(bad).map(|(what, ..)| *what)
}

/// Parses all entries of a pool; returns the error of the first invalid one.
pub fn parse<T: AsRef<str>>(entries: &[T]) -> Result<Arc<[Entry]>, EntryError> {
    entries.iter().map(|entry| entry.as_ref().parse()).collect()
}

/// The position of an address in its family, counted from zero.
pub(crate) const fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() as u128,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address at a position; the inverse of [`number`].
pub(crate) fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

// === impl Range ===

impl Range {
    /// From one address to another; `None` if the families differ or the order is wrong.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        let family = Family::of(first);
        let (first, end) = (number(first), number(last));
        (family == Family::of(last) && first <= end).then_some(Self {
            family,
            first,
            last: end,
        })
    }

    /// The family of all its addresses.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Its lowest address.
    pub fn first(&self) -> IpAddr {
        address(self.family, self.first)
    }

    /// Its highest address.
    pub fn last(&self) -> IpAddr {
        address(self.family, self.last)
    }

    /// Whether the address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family && (self.first..=self.last).contains(&number(address))
    }

    /// The addresses that both ranges have.
    pub fn overlap(&self, other: &Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        (self.family == other.family && first <= last).then_some(Self {
            family: self.family,
            first,
            last,
        })
    }

    pub(crate) const fn numbers(&self) -> (u128, u128) {
        (self.first, self.last)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first())
        } else {
            write!(f, "{}-{}", self.first(), self.last())
        }
    }
}

// === impl Entry ===

impl Entry {
    /// All of its addresses.
    pub const fn range(&self) -> Range {
        self.range
    }

    /// How it was written.
    pub const fn form(&self) -> Form {
        self.form
    }

    fn of_net(text: &str, net: IpNet) -> Result<Self, EntryError> {
        if net.trunc() != net {
            return Err(EntryError::HostBits {
                entry: text.to_owned(),
                network: net.trunc(),
                host: net.addr(),
            });
        }
        let form = Form::Cidr(net.prefix_len());
        Self::between(text, net.network(), net.broadcast(), form)
    }

    fn between(text: &str, first: IpAddr, last: IpAddr, form: Form) -> Result<Self, EntryError> {
        let range = Range::new(first, last).ok_or_else(|| {
            if Family::of(first) == Family::of(last) {
                EntryError::Reversed(text.to_owned())
            } else {
                EntryError::Mixed(text.to_owned())
            }
        })?;
        let unusable = |(_, low, high): &&(&str, IpAddr, IpAddr)| {
            Range::new(*low, *high).is_some_and(|bad| bad.overlap(&range).is_some())
        };
        if let Some((what, ..)) = UNUSABLE.iter().find(unusable) {
            return Err(EntryError::Unusable {
                entry: text.to_owned(),
                what,
            });
        }
        Ok(Self {
            text: text.to_owned(),
            range,
            form,
        })
    }
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let syntax = || EntryError::Syntax(text.to_owned());
        if text.contains('/') {
            return Self::of_net(text, text.parse().map_err(|_| syntax())?);
        }
        let (first, last, form) = match text.split_once('-') {
            Some((first, last)) => (first, last, Form::Span),
            None => (text, text, Form::Single),
        };
        let end = |end: &str| end.trim().parse::<IpAddr>().map_err(|_| syntax());
        Self::between(text, end(first)?, end(last)?, form)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// === impl Edges ===

impl Edges {
    /// The first and last number of an entry without the edges of its network; `None` if
    /// nothing is left. The numbers that `SkipOctets` leaves out in between are computed by
    /// [`Numbers`](crate::numbers::Numbers).
    pub(crate) const fn inner(self, entry: &Entry) -> Option<(u128, u128)> {
        let (first, last) = entry.range.numbers();
        let (first, last) = match (self, entry.form, entry.range.family) {
            (Self::Skip | Self::SkipOctets, Form::Cidr(..31), Family::V4) => (first + 1, last - 1),
            (Self::Skip | Self::SkipOctets, Form::Cidr(..127), Family::V6) => (first + 1, last),
            _ => (first, last),
        };
        if first <= last {
            Some((first, last))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
