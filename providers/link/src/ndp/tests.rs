use proptest::prelude::*;

use super::*;

const WE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const IP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);
const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// A frame with this message instead, and a correct length and checksum.
fn with_message(frame: &[u8], message: &[u8]) -> Vec<u8> {
    let mut frame = frame[..MESSAGE].to_vec();
    frame.extend(message);
    refreshed(frame)
}

/// Corrects the length and the checksum.
fn refreshed(mut frame: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(frame.len() - MESSAGE).unwrap();
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    if let Some(bytes) = frame.get_mut(MESSAGE + 2..MESSAGE + 4) {
        bytes.fill(0);
        let ends = [ip(&frame[22..]).unwrap(), ip(&frame[38..]).unwrap()];
        let sum = message_checksum(ends, &frame[MESSAGE..]);
        frame[MESSAGE + 2..MESSAGE + 4].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

#[test]
fn a_solicitation_on_the_wire() {
    let sent = Solicitation::multicast(WE, HOST, IP).encode();
    #[rustfmt::skip]
    let expected = [
        0x33, 0x33, 0xff, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 0x86, 0xdd,
        // Version, payload length 32, ICMPv6, hop limit 255, from, to
        0x60, 0, 0, 0, 0, 32, 58, 255,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
        0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56,
        // Type, code, checksum, reserved, target, option
        135, 0, 0xb3, 0x59, 0, 0, 0, 0,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
        1, 1, 2, 0, 0, 0, 0, 1,
    ];
    assert_eq!(sent, expected);
}

#[test]
fn an_advertisement_on_the_wire() {
    let sent = Advertisement::unsolicited(WE, IP, OTHER).encode();
    #[rustfmt::skip]
    let expected = [
        0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd,
        0x60, 0, 0, 0, 0, 32, 58, 255,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
        0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        // Type, code, checksum, flag Override, target, option
        136, 0, 0x90, 0x5b, 0x20, 0, 0, 0,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
        2, 1, 2, 0, 0, 0, 0, 2,
    ];
    assert_eq!(sent, expected);
}

#[test]
fn duplicate_address_detection_names_no_mac() {
    let question = Solicitation::multicast(WE, Ipv6Addr::UNSPECIFIED, IP);
    assert_eq!(question.source_mac, None);
    assert_eq!(question.encode().len(), MESSAGE + HEAD);
    let parsed = parse(&question.encode());
    assert_eq!(parsed, Some(Message::Solicitation(question)));
}

#[test]
fn the_flags_are_three_bits() {
    for (at, flag) in [(0, ROUTER), (1, SOLICITED), (2, OVERRIDE)] {
        let it = Advertisement {
            destination: HOST,
            router: at == 0,
            solicited: at == 1,
            override_: at == 2,
            ..Advertisement::unsolicited(WE, IP, WE)
        };
        assert_eq!(it.encode()[MESSAGE + 4], flag);
        assert_eq!(parse(&it.encode()), Some(Message::Advertisement(it)));
    }
}

#[test]
fn groups_of_addresses() {
    for (address, group, mac) in [
        (
            IP,
            "ff02::1:ff12:3456",
            [0x33, 0x33, 0xff, 0x12, 0x34, 0x56],
        ),
        (HOST, "ff02::1:ff00:2", [0x33, 0x33, 0xff, 0, 0, 2]),
        // The group has 24 bits of the address, not 32.
        (
            "fe80::aabb:ccdd:eeff".parse().unwrap(),
            "ff02::1:ffdd:eeff",
            [0x33, 0x33, 0xff, 0xdd, 0xee, 0xff],
        ),
    ] {
        let expected: Ipv6Addr = group.parse().unwrap();
        assert_eq!(solicited_node(address), expected);
        assert_eq!(group_mac(expected), Mac(mac));
    }
    assert_eq!(group_mac(ALL_NODES), Mac([0x33, 0x33, 0, 0, 0, 1]));
}

#[test]
fn options_are_found_or_refused() {
    let good = Solicitation::unicast(WE, OTHER, HOST, IP).encode();
    let head = &good[MESSAGE..MESSAGE + HEAD];
    let ours = [1, 1, 2, 0, 0, 0, 0, 1];
    // A nonce (RFC 3971 §5.3.2), which Linux adds to duplicate address detection.
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let found = Some(Some(WE));
    for (name, options, expected) in [
        ("none", vec![], Some(None)),
        ("one", ours.to_vec(), found),
        ("after another", [nonce, ours].concat(), found),
        ("before another", [ours, nonce].concat(), found),
        (
            "of the other kind",
            [[2, 1, 2, 0, 0, 0, 0, 1]].concat(),
            Some(None),
        ),
        (
            "the first of two",
            [ours, [1, 1, 9, 9, 9, 9, 9, 9]].concat(),
            found,
        ),
        ("length 0", vec![1, 0, 2, 0, 0, 0, 0, 1], None),
        (
            "length 0 after ours",
            [ours, [14, 0, 0, 0, 0, 0, 0, 0]].concat(),
            None,
        ),
        (
            "too long for Ethernet",
            [[1, 2, 2, 0, 0, 0, 0, 1], nonce].concat(),
            None,
        ),
        (
            "longer than the message",
            vec![14, 2, 0, 0, 0, 0, 0, 0],
            None,
        ),
        ("without a length", vec![14], None),
        ("cut off", ours[..7].to_vec(), None),
    ] {
        let frame = with_message(&good, &[head, &options].concat());
        let parsed = parse(&frame).map(|it| match it {
            Message::Solicitation(it) => it.source_mac,
            Message::Advertisement(_) => panic!("not a solicitation"),
        });
        assert_eq!(parsed, expected, "{name}");
    }
}

#[test]
fn what_a_host_must_drop_is_not_parsed() {
    let good = Solicitation::multicast(WE, HOST, IP).encode();
    assert!(parse(&good).is_some());
    // Bytes that the checksum does not cover.
    for (name, at, odd) in [
        ("another EtherType", 13, 0x00),
        ("IP version 4", 14, 0x45),
        ("another protocol", 20, 17),
        ("wrong checksum", MESSAGE + 2, 0xff),
    ] {
        let mut frame = good.clone();
        frame[at] = odd;
        assert_eq!(parse(&frame), None, "{name}");
    }
    // With a correct checksum.
    for (name, at, odd) in [
        ("code 1", MESSAGE + 1, 1),
        ("router solicitation", MESSAGE, 133),
        ("router advertisement", MESSAGE, 134),
        ("redirect", MESSAGE, 137),
        ("echo request", MESSAGE, 128),
        ("listener report", MESSAGE, 143),
        ("multicast target", MESSAGE + 8, 0xff),
        ("multicast source", 22, 0xff),
    ] {
        let mut frame = good.clone();
        frame[at] = odd;
        assert_eq!(parse(&refreshed(frame)), None, "{name}");
    }
    let detection = Solicitation::multicast(WE, Ipv6Addr::UNSPECIFIED, IP);
    let solicitations = [
        Solicitation {
            source_mac: Some(WE),
            ..detection
        },
        Solicitation {
            destination: IP,
            ..detection
        },
    ];
    for odd in solicitations {
        assert_eq!(parse(&odd.encode()), None, "{odd:?}");
    }
    let to_all = Advertisement {
        solicited: true,
        ..Advertisement::unsolicited(WE, IP, WE)
    };
    assert_eq!(parse(&to_all.encode()), None);
}

#[test]
fn the_hop_limit_is_reported() {
    let it = Solicitation {
        hop_limit: 64,
        ..Solicitation::multicast(WE, HOST, IP)
    };
    assert_eq!(parse(&it.encode()), Some(Message::Solicitation(it)));
}

fn ethernet() -> impl Strategy<Value = Ethernet> {
    (any::<[u8; 6]>(), any::<[u8; 6]>()).prop_map(|(to, from)| Ethernet {
        to: Mac(to),
        from: Mac(from),
    })
}

fn unicast() -> impl Strategy<Value = Ipv6Addr> {
    any::<Ipv6Addr>().prop_filter("unicast", |it| !it.is_multicast() && !it.is_unspecified())
}

fn message() -> impl Strategy<Value = Message> {
    let ends = (ethernet(), unicast(), any::<Ipv6Addr>());
    let rest = (
        any::<u8>(),
        unicast(),
        any::<Option<[u8; 6]>>(),
        any::<[bool; 4]>(),
    );
    (ends, rest).prop_map(
        |((ethernet, source, destination), (hop_limit, target, mac, [kind, s, o, r]))| {
            let mac = mac.map(Mac);
            if kind {
                Message::Solicitation(Solicitation {
                    ethernet,
                    source,
                    destination,
                    hop_limit,
                    target,
                    source_mac: mac,
                })
            } else {
                Message::Advertisement(Advertisement {
                    ethernet,
                    source,
                    destination,
                    hop_limit,
                    target,
                    target_mac: mac,
                    solicited: s && !destination.is_multicast(),
                    override_: o,
                    router: r,
                })
            }
        },
    )
}

fn encoded(message: &Message) -> Vec<u8> {
    match message {
        Message::Solicitation(it) => it.encode(),
        Message::Advertisement(it) => it.encode(),
    }
}

proptest! {
    #[test]
    fn an_encoded_message_is_parsed(message in message(), padding in 0..40usize) {
        let mut wire = encoded(&message);
        wire.resize(wire.len() + padding, 0xaa);
        prop_assert_eq!(parse(&wire), Some(message));
    }

    #[test]
    fn a_truncated_frame_is_not_parsed(message in message(), cut in any::<prop::sample::Index>()) {
        let wire = encoded(&message);
        prop_assert_eq!(parse(&wire[..cut.index(wire.len())]), None);
    }

    /// The checksum finds every change of one byte of the message and of the addresses.
    #[test]
    fn a_damaged_message_is_not_parsed(
        message in message(), at in any::<prop::sample::Index>(), by in 1..=255u8
    ) {
        let mut wire = encoded(&message);
        let at = 22 + at.index(wire.len() - 22);
        wire[at] ^= by;
        prop_assert_eq!(parse(&wire), None);
    }

    #[test]
    fn any_bytes_can_be_parsed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        parse(&bytes);
    }

    /// Any options, in a frame that is otherwise correct.
    #[test]
    fn any_message_can_be_parsed(
        message in message(), options in prop::collection::vec(any::<u8>(), 0..64)
    ) {
        let wire = encoded(&message);
        let body = [&wire[MESSAGE..MESSAGE + HEAD], &options].concat();
        if let Some(parsed) = parse(&with_message(&wire, &body)) {
            prop_assert_eq!(parse(&encoded(&parsed)), Some(parsed));
        }
    }
}
