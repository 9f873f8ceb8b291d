//! The Internet checksum (RFC 1071). Pure.

/// The checksum over all parts. Each part but the last must have an even length. Over a message
/// that contains its own checksum the result is 0.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words
        .map(|word| {
            let high = word.first().copied().unwrap_or(0);
            let low = word.get(1).copied().unwrap_or(0);
            u64::from(u16::from_be_bytes([high, low]))
        })
        .sum();
    // The carries are added once, and the carry of that addition again (RFC 1071 §1).
    let folded = (0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16));
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::checksum;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 1071 §3: the sum is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&bytes]), !0xddf2);
        assert_eq!(checksum(&[&bytes[..2], &bytes[2..]]), !0xddf2);
        assert_eq!(checksum(&[&[0x01]]), !0x0100);
        assert_eq!(checksum(&[]), 0xffff);
    }

    proptest! {
        #[test]
        fn a_message_with_its_checksum_sums_to_zero(
            mut bytes in proptest::collection::vec(any::<u8>(), 2..1500)
        ) {
            bytes[..2].fill(0);
            let sum = checksum(&[&bytes]);
            bytes[..2].copy_from_slice(&sum.to_be_bytes());
            prop_assert_eq!(checksum(&[&bytes]), 0);
        }
    }
}
