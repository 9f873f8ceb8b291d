use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> NodeName {
    NodeName::new(text)
}

fn message(body: Body) -> Message {
    Message {
        from: name("node-1"),
        stamp: Stamp {
            incarnation: u64::MAX,
            sequence: 7,
        },
        body,
    }
}

fn claim_of(holder: &str, successors: &[&str]) -> Claim {
    Claim {
        epoch: 3,
        holder: name(holder),
        revision: 1,
        successors: successors.iter().map(|it| name(it)).collect(),
    }
}

fn v4(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0xc000_0200 + n))
}

fn beat(count: u32, claim: &Claim) -> Message {
    let claims = (0..count).map(|n| (v4(n), claim.clone())).collect();
    message(Body::Beat {
        claims,
        received: 12,
        cut_off: false,
    })
}

fn some_name() -> impl Strategy<Value = NodeName> {
    prop_oneof![
        "[a-z0-9.-]{1,20}".prop_map(|it| name(&it)),
        (1..=MAX_NAME).prop_map(|length| name(&"n".repeat(length))),
    ]
}

fn some_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

fn some_claim() -> impl Strategy<Value = Claim> {
    let successors = vec(some_name(), 0..=MAX_SUCCESSORS);
    (any::<u64>(), some_name(), any::<u32>(), successors).prop_map(
        |(epoch, holder, revision, successors)| Claim {
            epoch,
            holder,
            revision,
            successors,
        },
    )
}

fn some_body() -> impl Strategy<Value = Body> {
    let method = prop_oneof![Just(Method::Neighbour), Just(Method::Echo)];
    prop_oneof![
        (
            vec((some_address(), some_claim()), 0..=CLAIMS_PER_MESSAGE),
            any::<u64>(),
            any::<bool>()
        )
            .prop_map(|(claims, received, cut_off)| Body::Beat {
                claims,
                received,
                cut_off
            }),
        vec(some_address(), 0..=CLAIMS_PER_MESSAGE).prop_map(|addresses| Body::Ask { addresses }),
        (some_name(), method, any::<u32>()).prop_map(|(host, method, ms)| Body::Doubt {
            host,
            method,
            unanswered: Duration::from_millis(ms.into()),
        }),
        some_name().prop_map(|host| Body::Vouch { host }),
    ]
}

fn some_message() -> impl Strategy<Value = Message> {
    (some_name(), any::<u64>(), any::<u64>(), some_body()).prop_map(
        |(from, incarnation, sequence, body)| Message {
            from,
            stamp: Stamp {
                incarnation,
                sequence,
            },
            body,
        },
    )
}

/// Every bound of the protocol.
fn assert_within_bounds(message: &Message) {
    let short = |name: &NodeName| (1..=MAX_NAME).contains(&name.as_str().len());
    assert!(short(&message.from));
    assert!(addresses(&message.body) <= CLAIMS_PER_MESSAGE);
    match &message.body {
        Body::Beat { claims, .. } => {
            for (_, claim) in claims {
                assert!(short(&claim.holder) && claim.successors.iter().all(short));
                assert!(claim.successors.len() <= MAX_SUCCESSORS);
            }
        }
        Body::Doubt { host, .. } | Body::Vouch { host } => assert!(short(host)),
        Body::Ask { .. } => {}
    }
}

/// Three nodes and 5,000 addresses: every beat names as many claims as a message may.
#[test]
fn a_full_beat_of_three_nodes() {
    let claim = claim_of("node-1", &["node-2", "node-3"]);
    let bytes = encode(&beat(64, &claim)).unwrap();
    assert_eq!(bytes.len(), 741, "IPv4: one Ethernet frame");
    let Body::Beat { mut claims, .. } = beat(64, &claim).body else {
        unreachable!()
    };
    for (n, (address, claim)) in (0..).zip(&mut claims) {
        *address = IpAddr::V6(Ipv6Addr::from_bits(0xfd00 << 112 | n));
        claim.epoch = 200;
    }
    let received = u64::MAX;
    let cut_off = false;
    let full = message(Body::Beat {
        claims,
        received,
        cut_off,
    });
    let bytes = encode(&full).unwrap();
    assert_eq!(bytes.len(), 1582, "IPv6: two fragments");
}

#[test]
fn a_beat_without_claims_is_small() {
    let bytes = encode(&beat(0, &claim_of("node-1", &[]))).unwrap();
    assert_eq!(bytes.len(), 23);
}

/// Nodes of a former version read beats, and refuse the one of a node that is cut off.
#[test]
fn a_beat_of_a_node_that_is_cut_off_is_a_message_of_its_own() {
    let usual = beat(1, &claim_of("node-1", &["node-2"]));
    let Body::Beat {
        claims, received, ..
    } = usual.body.clone()
    else {
        unreachable!()
    };
    let lost = message(Body::Beat {
        claims,
        received,
        cut_off: true,
    });
    let (usual, bytes) = (encode(&usual).unwrap(), encode(&lost).unwrap());
    let differ: Vec<_> = usual
        .iter()
        .zip(&bytes)
        .filter(|(usual, lost)| usual != lost)
        .collect();
    assert_eq!(
        differ,
        [(&0, &4)],
        "the position of the variant, and nothing else"
    );
    assert_eq!(usual.len(), bytes.len());
    assert_eq!(decode(&bytes), Ok(lost));
}

#[test]
fn times_are_rounded_down_and_bounded() {
    for (exact, sent) in [
        (Duration::from_micros(1_999), Duration::from_millis(1)),
        (Duration::MAX, Duration::from_millis(u32::MAX.into())),
    ] {
        let doubt = |unanswered| {
            message(Body::Doubt {
                host: name("node-2"),
                method: Method::Echo,
                unanswered,
            })
        };
        let decoded = decode(&encode(&doubt(exact)).unwrap());
        assert_eq!(decoded, Ok(doubt(sent)));
    }
}

#[test]
fn what_exceeds_a_bound_is_not_sent() {
    let many = ["n"; MAX_SUCCESSORS + 1];
    let long = "n".repeat(MAX_NAME + 1);
    for (message, error) in [
        (beat(65, &claim_of("n", &[])), WireError::Addresses),
        (beat(1, &claim_of("n", &many)), WireError::Successors),
        (beat(1, &claim_of(&long, &[])), WireError::Name),
        (beat(1, &claim_of("n", &[&long])), WireError::Name),
        (beat(1, &claim_of("", &[])), WireError::Name),
        (message(Body::Vouch { host: name(&long) }), WireError::Name),
        (
            message(Body::Ask {
                addresses: (0..65).map(v4).collect(),
            }),
            WireError::Addresses,
        ),
    ] {
        assert_eq!(encode(&message), Err(error), "{message:?}");
    }
}

/// What a peer that does not keep the bounds could send.
#[test]
fn what_exceeds_a_bound_is_not_read() {
    let entry = |holder, successors| Entry {
        address: v4(0),
        epoch: 1,
        holder,
        revision: 0,
        successors,
    };
    let long = "n".repeat(MAX_NAME + 1);
    let claims = |claims| Content::Beat {
        claims,
        received: 0,
    };
    let many = (0..=CLAIMS_PER_MESSAGE).map(|_| entry(0, Vec::new()));
    let vouch = || Content::Vouch { host: 0 };
    let too_many_names = vec!["n"; MAX_NAMES + 1];
    for (names, content, error) in [
        (vec![], vouch(), WireError::Malformed),
        (vec!["a"], Content::Vouch { host: 1 }, WireError::Malformed),
        (vec![""], vouch(), WireError::Name),
        (vec!["a", &long], vouch(), WireError::Name),
        (too_many_names, vouch(), WireError::Malformed),
        (vec!["a"], claims(many.collect()), WireError::Addresses),
        (
            vec!["a"],
            claims(vec![entry(1, vec![])]),
            WireError::Malformed,
        ),
        (
            vec!["a"],
            claims(vec![entry(0, vec![1])]),
            WireError::Malformed,
        ),
        (
            vec!["a"],
            claims(vec![entry(0, vec![0; MAX_SUCCESSORS + 1])]),
            WireError::Successors,
        ),
        (
            vec!["a"],
            Content::Ask {
                addresses: (0..65).map(v4).collect(),
            },
            WireError::Addresses,
        ),
    ] {
        let packet = Packet {
            names,
            incarnation: 1,
            sequence: 1,
            content,
        };
        let bytes = postcard::to_extend(&packet, vec![VERSION]).unwrap();
        assert_eq!(decode(&bytes), Err(error));
    }
}

#[test]
fn other_versions_lengths_and_trailing_bytes_are_refused() {
    let bytes = encode(&beat(2, &claim_of("node-1", &["node-2"]))).unwrap();
    let mut other = bytes.clone();
    other[0] = 2;
    assert_eq!(decode(&other), Err(WireError::Version(2)));
    for length in 0..bytes.len() {
        assert_eq!(decode(&bytes[..length]), Err(WireError::Malformed));
    }
    let more = [bytes, vec![0]].concat();
    assert_eq!(decode(&more), Err(WireError::Malformed));
    assert_eq!(decode(&vec![1; MAX_MESSAGE + 1]), Err(WireError::TooLong));
}

/// 64 claims with different nodes, all with the longest name.
#[test]
fn claims_that_do_not_fit_are_left_out() {
    let long = |n: u32| format!("{n:0>253}");
    let claims: Vec<_> = (0..64)
        .map(|n| (v4(n), claim_of(&long(n), &[&long(n + 100)])))
        .collect();
    let received = 5;
    let all = message(Body::Beat {
        claims: claims.clone(),
        received,
        cut_off: true,
    });
    let bytes = encode(&all).unwrap();
    assert!(bytes.len() <= MAX_MESSAGE);
    let claims = claims[..16].to_vec();
    let some = message(Body::Beat {
        claims,
        received,
        cut_off: true,
    });
    assert_eq!(decode(&bytes), Ok(some));
}

proptest! {
    #[test]
    fn messages_survive(message in some_message()) {
        let bytes = encode(&message).unwrap();
        prop_assert!(bytes.len() <= MAX_MESSAGE);
        let mut decoded = decode(&bytes).unwrap();
        if let (Body::Beat { claims: sent, .. }, Body::Beat { claims, .. }) =
            (&message.body, &mut decoded.body)
        {
            prop_assert!(sent.starts_with(claims));
            claims.clone_from(sent);
        }
        prop_assert_eq!(decoded, message);
    }

    #[test]
    fn any_bytes_are_a_message_within_bounds_or_an_error(
        first in prop_oneof![Just(VERSION), any::<u8>()],
        rest in vec(any::<u8>(), 0..400),
    ) {
        if let Ok(message) = decode(&[vec![first], rest].concat()) {
            assert_within_bounds(&message);
        }
    }

    #[test]
    fn changed_messages_are_a_message_within_bounds_or_an_error(
        message in some_message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(&message).unwrap();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(message) = decode(&bytes) {
            assert_within_bounds(&message);
        }
    }
}
