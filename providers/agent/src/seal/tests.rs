use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const UNIQUE: Unique = Unique {
    salt: [7; SALT],
    counter: 9,
};

fn node(name: &str) -> NodeName {
    NodeName::new(name)
}

fn key(number: u8) -> Key {
    Key::new([number; 32])
}

#[test]
fn a_change_of_any_byte_or_length_is_noticed() {
    let envelope = seal(&key(1), UNIQUE, Purpose::Post, &node("a"), b"message").unwrap();
    assert_eq!(envelope.len(), b"message".len() + OVERHEAD);
    let open = |envelope: &[u8]| open(&key(1), Purpose::Post, &node("a"), envelope);
    assert_eq!(open(&envelope), Ok(b"message".to_vec()));
    for place in 0..envelope.len() {
        for bit in 0..8 {
            let mut changed = envelope.clone();
            changed[place] ^= 1 << bit;
            let error = if place == 0 {
                OpenError::Malformed
            } else {
                OpenError::Unauthentic
            };
            assert_eq!(open(&changed), Err(error), "byte {place} bit {bit}");
        }
    }
    for length in 0..envelope.len() {
        assert!(open(&envelope[..length]).is_err(), "{length} bytes");
    }
    assert!(open(&[envelope, vec![0]].concat()).is_err());
}

#[test]
fn only_the_receiver_opens_it_for_its_purpose_with_the_key() {
    let envelope = seal(&key(1), UNIQUE, Purpose::Post, &node("node-1"), b"m").unwrap();
    for (key, purpose, to, opens) in [
        (key(1), Purpose::Post, "node-1", true),
        (key(2), Purpose::Post, "node-1", false),
        (key(1), Purpose::Cable, "node-1", false),
        (key(1), Purpose::Post, "node-2", false),
        (key(1), Purpose::Post, "node-", false),
        (key(1), Purpose::Post, "node-10", false),
        (key(1), Purpose::Post, "", false),
    ] {
        let opened = open(&key, purpose, &node(to), &envelope);
        assert_eq!(opened.is_ok(), opens, "{purpose:?} {to}");
    }
}

/// The kernel draws a salt again, and nothing leaks.
#[test]
fn the_counter_and_the_salt_each_change_the_ciphertext() {
    let sealed = |key: &Key, salt, counter| {
        let salt = [salt; SALT];
        let unique = Unique { salt, counter };
        let envelope = seal(key, unique, Purpose::Post, &node("a"), &[0; 64]).unwrap();
        envelope[HEADER..HEADER + 64].to_vec()
    };
    let streams: BTreeSet<_> = [
        sealed(&key(1), 1, 0),
        sealed(&key(1), 1, 1),
        sealed(&key(1), 2, 0),
        sealed(&key(2), 1, 0),
    ]
    .into();
    assert_eq!(streams.len(), 4);
}

/// An independent implementation computed this (Python, `cryptography` 48).
#[test]
fn the_format_is_fixed() {
    let unique = Unique {
        salt: std::array::from_fn(|n| u8::try_from(n).unwrap()),
        counter: 0x0102_0304_0506_0708,
    };
    let envelope = seal(
        &key(0x42),
        unique,
        Purpose::Cable,
        &node("node-1"),
        b"hello",
    )
    .unwrap();
    let hex = envelope
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    assert_eq!(
        hex,
        "01000102030405060708090a0b0c0d0e0f01020304050607082de86aedfbf61baca6395e21f58d5b117d94adc5da"
    );
}

#[test]
fn a_key_is_not_printed() {
    assert_eq!(format!("{:?}", key(1)), "Key(..)");
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in vec(any::<u8>(), 0..200), version in any::<bool>()) {
        let mut bytes = bytes;
        if version && let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        prop_assert!(open(&key(1), Purpose::Post, &node("a"), &bytes).is_err());
    }

    #[test]
    fn what_was_sealed_opens(message in vec(any::<u8>(), 0..2000), salt: [u8; 16], counter: u64) {
        let unique = Unique { salt, counter };
        let envelope = seal(&key(1), unique, Purpose::Post, &node("a"), &message).unwrap();
        prop_assert_eq!(open(&key(1), Purpose::Post, &node("a"), &envelope), Ok(message));
    }
}
