//! Filters that the kernel runs for every packet before a socket receives it (classic BPF,
//! `Documentation/networking/filter.rst` of Linux). Pure.
//!
//! A filter is a conjunction of [`Check`]s. Ordinary traffic fails the first or second one, so
//! a filtered socket costs a busy host little. A last part may tell frames to this host's own
//! addresses from the others ([`Frames`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use socket2::SockFilter;

use crate::Frames;

use crate::ethernet::{ARP, HEADER, IPV6};
use crate::ndp::{ADVERTISEMENT, ICMPV6, MESSAGE, SOLICITATION};

/// Values about a packet that are not in its bytes (`SKF_AD_*` in `filter.h` of Linux).
const ANCILLARY: u32 = 0xffff_f000;
const PACKET_TYPE: u32 = ANCILLARY + 4;
const INTERFACE: u32 = ANCILLARY + 8;

/// Codes of instructions (`bpf_common.h` of Linux): load a byte, two bytes or four bytes, load the
/// length of an IPv4 header into the index register, jump, return.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE_AT_INDEX: u16 = 0x50;
const LOAD_HALF_AT_INDEX: u16 = 0x48;
const INDEX_IPV4_HEADER: u16 = 0xb1;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Bytes of an accepted packet that the socket receives: all.
const ALL: u32 = 0xffff;

/// Types of received packets (packet(7)): to this host, to all, to a group. Not
/// `PACKET_OTHERHOST` and `PACKET_OUTGOING`.
const RECEIVED: &[u32] = &[0, 1, 2];
/// To this host alone.
const UNICAST: u32 = 0;

/// Own addresses of each family that a filter knows. Frames to further ones count as those to others.
const OWN: usize = 16;

/// Loads a value of the packet, which must be one of those allowed.
struct Check<'a> {
    load: (u16, u32),
    allowed: &'a [u32],
}

/// ARP requests and replies.
pub(crate) fn arp(interface: u32, frames: Frames<'_>) -> Vec<SockFilter> {
    let operation = offset(HEADER + 6);
    let target = offset(HEADER + 24);
    let own = frames.own().iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(vec![(target, Ipv4Addr::to_bits(*address))]),
        IpAddr::V6(_) => None,
    });
    of_interface(
        interface,
        &[
            check((LOAD_HALF, offset(HEADER - 2)), &[ARP.into()]),
            check((LOAD_HALF, operation), &[1, 2]),
        ],
        verdict(frames, own),
    )
}

/// Neighbour solicitations and advertisements.
pub(crate) fn neighbour_discovery(interface: u32, frames: Frames<'_>) -> Vec<SockFilter> {
    let next_header = offset(HEADER + 6);
    let kind = offset(MESSAGE);
    let destination = offset(HEADER + 24);
    let own = frames.own().iter().filter_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(words(destination, address)),
    });
    of_interface(
        interface,
        &[
            check((LOAD_HALF, offset(HEADER - 2)), &[IPV6.into()]),
            check((LOAD_BYTE, next_header), &[ICMPV6.into()]),
            check(
                (LOAD_BYTE, kind),
                &[SOLICITATION.into(), ADVERTISEMENT.into()],
            ),
        ],
        verdict(frames, own),
    )
}

/// Replies to ICMP echo requests with this identifier, for a raw IPv4 socket, which receives
/// the IP header, too.
pub(crate) fn echo_reply_v4(identifier: u16) -> Vec<SockFilter> {
    let mut program = vec![SockFilter::new(INDEX_IPV4_HEADER, 0, 0, 0)];
    program.extend(assemble(
        &[
            check((LOAD_BYTE_AT_INDEX, 0), &[0]),
            check((LOAD_HALF_AT_INDEX, 4), &[identifier.into()]),
        ],
        accept(),
    ));
    program
}

/// The same for a raw `ICMPv6` socket, which receives no header.
pub(crate) fn echo_reply_v6(identifier: u16) -> Vec<SockFilter> {
    assemble(
        &[
            check((LOAD_BYTE, 0), &[129]),
            check((LOAD_HALF, 4), &[identifier.into()]),
        ],
        accept(),
    )
}

/// Frames to this host that arrived on the interface itself. The kernel passes frames of a VLAN
/// or macvlan interface also to sockets of the interface below.
fn of_interface(interface: u32, checks: &[Check<'_>], verdict: Vec<SockFilter>) -> Vec<SockFilter> {
    let own = [interface];
    let mut all = vec![
        check((LOAD_WORD, PACKET_TYPE), RECEIVED),
        check((LOAD_WORD, INTERFACE), &own),
    ];
    all.extend(checks.iter().map(|it| check(it.load, it.allowed)));
    assemble(&all, verdict)
}

/// Accepts what passed all checks.
fn accept() -> Vec<SockFilter> {
    vec![SockFilter::new(RETURN, 0, 0, ALL)]
}

/// The last part of a filter: accepts frames to this host alone whose address is among `own`, or
/// all others. Each address is a list of words that the packet must have.
fn verdict(frames: Frames<'_>, own: impl Iterator<Item = Vec<(u32, u32)>>) -> Vec<SockFilter> {
    let (to_own, to_others) = match frames {
        Frames::All => return accept(),
        Frames::To(_) => (ALL, 0),
        Frames::Except(_) => (0, ALL),
    };
    let skip = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
    let load = |(code, at)| SockFilter::new(code, 0, 0, at);
    let mut program = vec![
        load((LOAD_WORD, PACKET_TYPE)),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, UNICAST),
        SockFilter::new(RETURN, 0, 0, to_others),
    ];
    for words in own.take(OWN) {
        let count = words.len();
        for (nth, (at, value)) in words.into_iter().enumerate() {
            // Each word takes two instructions; the answer follows the last one.
            let next = 2 * (count - nth - 1) + 1;
            program.push(load((LOAD_WORD, at)));
            program.push(SockFilter::new(JUMP_IF_EQUAL, 0, skip(next), value));
        }
        program.push(SockFilter::new(RETURN, 0, 0, to_own));
    }
    program.push(SockFilter::new(RETURN, 0, 0, to_others));
    program
}

/// The words of an address that begins at `at`.
fn words(at: u32, address: &Ipv6Addr) -> Vec<(u32, u32)> {
    let (offsets, words) = ((at..).step_by(4), address.octets());
    let words = words.as_chunks::<4>().0.iter();
    offsets
        .zip(words.map(|word| u32::from_be_bytes(*word)))
        .collect()
}

const fn check(load: (u16, u32), allowed: &[u32]) -> Check<'_> {
    Check { load, allowed }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// A packet that passes all checks gets the verdict. Jumps count the instructions that they skip.
fn assemble(checks: &[Check<'_>], verdict: Vec<SockFilter>) -> Vec<SockFilter> {
    let mut program = Vec::new();
    for Check { load, allowed } in checks {
        program.push(SockFilter::new(load.0, 0, 0, load.1));
        for (at, value) in allowed.iter().enumerate() {
            // Over the other values and the refusal.
            let passed = u8::try_from(allowed.len() - at).unwrap_or(u8::MAX);
            program.push(SockFilter::new(JUMP_IF_EQUAL, passed, 0, *value));
        }
        program.push(SockFilter::new(RETURN, 0, 0, 0));
    }
    program.extend(verdict);
    program
}
