//! Ethernet headers and addresses (IEEE 802.3). Pure.

/// Bytes of an Ethernet header without a VLAN tag.
pub(crate) const HEADER: usize = 14;
/// `EtherType` of ARP.
pub(crate) const ARP: u16 = 0x0806;
/// `EtherType` of IPv6.
pub(crate) const IPV6: u16 = 0x86dd;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// The addresses of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// The destination.
    pub to: Mac,
    /// The source.
    pub from: Mac,
}

// === impl Mac ===

impl Mac {
    /// All hosts on the network.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeros: unknown, as in ARP requests.
    pub const UNKNOWN: Self = Self([0; 6]);

    /// Whether it is the address of a group of hosts: multicast or broadcast.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl From<[u8; 6]> for Mac {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.write_str(&octets.join(":"))
    }
}

// === impl Ethernet ===

impl Ethernet {
    /// The header of a frame with a payload of type `ether_type`.
    pub(crate) fn encode(self, ether_type: u16) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..6].copy_from_slice(&self.to.0);
        bytes[6..12].copy_from_slice(&self.from.0);
        bytes[12..].copy_from_slice(&ether_type.to_be_bytes());
        bytes
    }

    /// The addresses and the payload of a frame if its type is `ether_type`.
    pub(crate) fn parse(frame: &[u8], ether_type: u16) -> Option<(Self, &[u8])> {
        let (to, rest) = frame.split_first_chunk()?;
        let (from, rest) = rest.split_first_chunk()?;
        let (of, payload) = rest.split_first_chunk()?;
        let (to, from) = (Mac(*to), Mac(*from));
        (u16::from_be_bytes(*of) == ether_type).then_some((Self { to, from }, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bit_on_the_wire_is_the_group_bit() {
        for (mac, group) in [
            (Mac([2, 0, 0, 0, 0, 1]), false),
            (Mac([0x33, 0x33, 0, 0, 0, 1]), true),
            (Mac::BROADCAST, true),
            (Mac::UNKNOWN, false),
        ] {
            assert_eq!(mac.is_group(), group, "{mac}");
        }
    }
}
