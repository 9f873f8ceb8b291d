//! ARP and neighbour discovery as the judges see it. Pure.
//!
//! Sources: RFC 826 and RFC 5227 (ARP), RFC 4861 §4.3, §4.4 and §4.6.1 (neighbour discovery).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::moment::Moment;

/// A captured frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// When the kernel saw it.
    pub at: Moment,
    /// The host at whose cable it was captured.
    pub host: String,
    /// Whether that host sent it or gets it.
    pub way: Way,
    /// Its content.
    #[serde(flatten)]
    pub said: Said,
}

/// Where a frame was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// The host sent it; a fault of the lab may drop it afterwards.
    Sent,
    /// The host gets it; faults have been applied.
    Delivered,
}

/// The content of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Request, answer or claim.
    pub kind: Kind,
    /// The address that is asked for, or that the sender says to have.
    pub address: IpAddr,
    /// The MAC address that an answer or a claim names for it.
    pub mac: Option<String>,
    /// The sender's own address; unspecified in a probe.
    pub asker: IpAddr,
    /// The Ethernet source.
    pub from: String,
    /// The Ethernet destination.
    pub to: String,
}

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Who has the address? ARP requests and probes, neighbour solicitations.
    Request,
    /// An answer to one host: ARP replies, solicited advertisements.
    Answer,
    /// Said without being asked: ARP announcements and gratuitous replies, unsolicited
    /// advertisements.
    Claim,
}

const ETHERNET: usize = 14;
const IPV6: usize = 40;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// The flag of an advertisement that answers a solicitation.
const SOLICITED: u8 = 0x40;

/// Parses a whole Ethernet frame. `None` for everything else, and for messages that a host must
/// ignore because they crossed a router.
pub(super) fn parse(bytes: &[u8]) -> Option<Said> {
    let (to, from) = (mac(bytes, 0)?, mac(bytes, 6)?);
    let payload = bytes.get(ETHERNET..)?;
    match bytes.get(12..ETHERNET)? {
        [0x08, 0x06] => arp(payload, from, to),
        [0x86, 0xdd] => discovery(payload, from, to),
        _ => None,
    }
}

fn arp(packet: &[u8], from: String, to: String) -> Option<Said> {
    if packet.get(..6)? != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let (sender, target) = (v4(packet, 14)?, v4(packet, 24)?);
    let (kind, address) = match (packet.get(6..8)?, sender == target) {
        ([0, 1], false) => (Kind::Request, target),
        ([0, 2], false) if to != BROADCAST => (Kind::Answer, sender),
        ([0, 1 | 2], _) => (Kind::Claim, sender),
        _ => return None,
    };
    let names = (kind != Kind::Request).then(|| mac(packet, 8)).flatten();
    Some(Said {
        kind,
        address,
        mac: names,
        asker: sender,
        from,
        to,
    })
}

/// All hosts of the segment.
const BROADCAST: &str = "ff:ff:ff:ff:ff:ff";

fn discovery(packet: &[u8], from: String, to: String) -> Option<Said> {
    let (next, hop_limit) = (*packet.get(6)?, *packet.get(7)?);
    if next != 58 || hop_limit != 255 {
        return None;
    }
    let message = packet.get(IPV6..)?;
    let flags = *message.get(4)?;
    let kind = match *message.first()? {
        SOLICITATION => Kind::Request,
        ADVERTISEMENT if flags & SOLICITED != 0 => Kind::Answer,
        ADVERTISEMENT => Kind::Claim,
        _ => return None,
    };
    let named = (kind != Kind::Request)
        .then(|| option(message.get(24..)?, 2))
        .flatten();
    Some(Said {
        kind,
        address: v6(message, 8)?,
        mac: named,
        asker: v6(packet, 8)?,
        from,
        to,
    })
}

/// The MAC address in the first option of this type.
fn option(mut options: &[u8], wanted: u8) -> Option<String> {
    loop {
        let (kind, units) = (*options.first()?, usize::from(*options.get(1)?));
        if units == 0 {
            return None;
        }
        if kind == wanted {
            return mac(options, 2);
        }
        options = options.get(units * 8..)?;
    }
}

fn mac(bytes: &[u8], at: usize) -> Option<String> {
    let octets: [u8; 6] = *bytes.get(at..)?.first_chunk()?;
    Some(octets.map(|octet| format!("{octet:02x}")).join(":"))
}

fn v4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 4] = *bytes.get(at..)?.first_chunk()?;
    Some(Ipv4Addr::from(octets).into())
}

fn v6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let octets: [u8; 16] = *bytes.get(at..)?.first_chunk()?;
    Some(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const HOLDER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn arp_frame(to: [u8; 6], operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let mut frame = [&to[..], &HOLDER, &[8, 6], &[0, 1, 8, 0, 6, 4, 0, operation]].concat();
        frame.extend_from_slice(&HOLDER);
        frame.extend_from_slice(&sender);
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&target);
        frame
    }

    fn discovery_frame(kind: u8, flags: u8, hop_limit: u8) -> Vec<u8> {
        let mut frame = [&ASKER[..], &HOLDER, &[0x86, 0xdd], &[0x60, 0, 0, 0, 0, 32]].concat();
        frame.extend_from_slice(&[58, hop_limit]);
        frame.extend_from_slice(&"fd89::11".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend_from_slice(&"fd89::100".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend_from_slice(&[kind, 0, 0, 0, flags, 0, 0, 0]);
        frame.extend_from_slice(&"fd89::200".parse::<Ipv6Addr>().unwrap().octets());
        // An option that is not understood, then the target's MAC address.
        frame.extend_from_slice(&[14, 1, 0, 0, 0, 0, 0, 0, 2, 1]);
        frame.extend_from_slice(&HOLDER);
        frame
    }

    #[test]
    fn arp_is_a_request_an_answer_or_a_claim() {
        let (a, b, none) = ([10, 89, 0, 11], [10, 89, 0, 200], [0; 4]);
        for (to, operation, sender, target, kind, address) in [
            ([0xff; 6], 1, a, b, Kind::Request, b),
            ([0xff; 6], 1, none, b, Kind::Request, b),
            (ASKER, 2, b, a, Kind::Answer, b),
            ([0xff; 6], 1, b, b, Kind::Claim, b),
            ([0xff; 6], 2, b, b, Kind::Claim, b),
            ([0xff; 6], 2, b, a, Kind::Claim, b),
        ] {
            let said = parse(&arp_frame(to, operation, sender, target)).unwrap();
            assert_eq!((said.kind, said.address), (kind, IpAddr::from(address)));
            let names = (kind != Kind::Request).then(|| "02:00:00:00:00:02".to_owned());
            assert_eq!(said.mac, names);
        }
        assert_eq!(parse(&arp_frame(ASKER, 3, a, b)), None);
        assert_eq!(parse(&arp_frame(ASKER, 1, a, b)[..41]), None);
    }

    #[test]
    fn advertisements_differ_by_the_solicited_flag() {
        for (kind, flags, expected) in [
            (SOLICITATION, 0, Kind::Request),
            (ADVERTISEMENT, 0x60, Kind::Answer),
            (ADVERTISEMENT, 0x20, Kind::Claim),
        ] {
            let said = parse(&discovery_frame(kind, flags, 255)).unwrap();
            assert_eq!(said.kind, expected);
            assert_eq!(said.address.to_string(), "fd89::200");
            assert_eq!(said.asker.to_string(), "fd89::11");
            assert_eq!(said.mac.is_some(), kind == ADVERTISEMENT);
        }
        assert_eq!(parse(&discovery_frame(ADVERTISEMENT, 0x60, 254)), None);
        assert_eq!(parse(&discovery_frame(134, 0, 255)), None);
    }

    #[test]
    fn a_frame_is_one_flat_object() {
        let frame = Frame {
            at: Moment(7),
            host: "node1".into(),
            way: Way::Sent,
            said: parse(&arp_frame(ASKER, 2, [10, 89, 0, 200], [10, 89, 0, 100])).unwrap(),
        };
        let text = serde_json::to_string(&frame).unwrap();
        assert!(
            text.contains(r#""kind":"answer","address":"10.89.0.200""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Frame>(&text).unwrap(), frame);
    }
}
