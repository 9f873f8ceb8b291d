//! Filters that the kernel runs for every packet before a socket receives it (classic BPF,
//! `Documentation/networking/filter.rst` of Linux). Pure.
//!
//! A filter is a conjunction of [`Check`]s. Ordinary traffic fails the first or second one, so
//! a filtered socket costs a busy host little.

use socket2::SockFilter;

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

/// Loads a value of the packet, which must be one of those allowed.
struct Check<'a> {
    load: (u16, u32),
    allowed: &'a [u32],
}

/// ARP requests and replies.
pub(crate) fn arp(interface: u32) -> Vec<SockFilter> {
    let operation = offset(HEADER + 6);
    frames(
        interface,
        &[
            check((LOAD_HALF, offset(HEADER - 2)), &[ARP.into()]),
            check((LOAD_HALF, operation), &[1, 2]),
        ],
    )
}

/// Neighbour solicitations and advertisements.
pub(crate) fn neighbour_discovery(interface: u32) -> Vec<SockFilter> {
    let next_header = offset(HEADER + 6);
    let kind = offset(MESSAGE);
    frames(
        interface,
        &[
            check((LOAD_HALF, offset(HEADER - 2)), &[IPV6.into()]),
            check((LOAD_BYTE, next_header), &[ICMPV6.into()]),
            check(
                (LOAD_BYTE, kind),
                &[SOLICITATION.into(), ADVERTISEMENT.into()],
            ),
        ],
    )
}

/// Replies to ICMP echo requests with this identifier, for a raw IPv4 socket, which receives
/// the IP header, too.
pub(crate) fn echo_reply_v4(identifier: u16) -> Vec<SockFilter> {
    let mut program = vec![SockFilter::new(INDEX_IPV4_HEADER, 0, 0, 0)];
    program.extend(assemble(&[
        check((LOAD_BYTE_AT_INDEX, 0), &[0]),
        check((LOAD_HALF_AT_INDEX, 4), &[identifier.into()]),
    ]));
    program
}

/// The same for a raw `ICMPv6` socket, which receives no header.
pub(crate) fn echo_reply_v6(identifier: u16) -> Vec<SockFilter> {
    assemble(&[
        check((LOAD_BYTE, 0), &[129]),
        check((LOAD_HALF, 4), &[identifier.into()]),
    ])
}

/// Frames to this host that arrived on the interface itself. The kernel passes frames of a VLAN
/// or macvlan interface also to sockets of the interface below.
fn frames(interface: u32, checks: &[Check<'_>]) -> Vec<SockFilter> {
    let own = [interface];
    let mut all = vec![
        check((LOAD_WORD, PACKET_TYPE), RECEIVED),
        check((LOAD_WORD, INTERFACE), &own),
    ];
    all.extend(checks.iter().map(|it| check(it.load, it.allowed)));
    assemble(&all)
}

const fn check(load: (u16, u32), allowed: &[u32]) -> Check<'_> {
    Check { load, allowed }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// A packet that passes all checks is accepted. Jumps count the instructions that they skip.
fn assemble(checks: &[Check<'_>]) -> Vec<SockFilter> {
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
    program.push(SockFilter::new(RETURN, 0, 0, ALL));
    program
}
