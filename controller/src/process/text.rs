//! Makes text from outside safe and short enough for a log line, a terminal or a condition.
//! Pure.
//!
//! Error messages, condition messages and annotations come from users and other programs.
//! They can contain line breaks, terminal escape sequences and characters that reverse the
//! reading direction, and they can be very long.

pub use ballast_provider::text::{LONGEST, one_line, shortened};

/// The maximum length of a condition's message, in characters.
pub const MESSAGE: usize = 320;

/// The maximum length of a value that a message quotes, in characters.
const VALUE: usize = 64;

/// The text as the message of a condition or an event: one line of at most [`MESSAGE`]
/// characters.
pub fn message(text: &str) -> String {
    shortened(&one_line(text), MESSAGE)
}

/// A user's value as a message quotes it: one line of at most 64 characters.
pub fn value(text: &str) -> String {
    // Cut first: a value can have hundreds of kilobytes.
    shortened(&one_line(&shortened(text, 4 * VALUE)), VALUE)
}

/// Bytes that are not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not text in UTF-8 or UTF-16")]
pub struct NotText;

/// The text of a file that a person wrote, without byte order marks. Editors and shells on
/// Windows write UTF-8 with a mark, or UTF-16; kubectl reads both.
pub fn decode(bytes: Vec<u8>) -> Result<String, NotText> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        let text = String::from_utf16(&units).map_err(|_| NotText)?;
        if rest.is_empty() {
            Ok(text)
        } else {
            Err(NotText)
        }
    };
    let text = match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        _ => String::from_utf8(bytes).map_err(|_| NotText)?,
    };
    // Joined files have marks in the middle, too.
    let text = text.replace("\n\u{feff}", "\n");
    Ok(text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_values_are_bounded() {
        let long = "\u{1b}".repeat(250_000) + "end";
        assert_eq!(value(&long), "...");
        assert_eq!(message(&"ü".repeat(999)).chars().count(), MESSAGE);
        assert_eq!(value("a\nb"), "a b");
    }

    #[test]
    fn byte_order_marks_are_removed() {
        let le: Vec<u8> = "\u{feff}a: ü\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let be: Vec<u8> = "\u{feff}a: ü\n"
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        for (bytes, text) in [
            ("a: ü\n".as_bytes().to_vec(), Ok("a: ü\n")),
            ("\u{feff}a: ü\n".as_bytes().to_vec(), Ok("a: ü\n")),
            (
                "\u{feff}a: 1\r\n\u{feff}b: \u{feff}2".into(),
                Ok("a: 1\r\nb: \u{feff}2"),
            ),
            (le.clone(), Ok("a: ü\n")),
            (be, Ok("a: ü\n")),
            (le[..le.len() - 1].to_vec(), Err(NotText)),
            (vec![0xff, 0xfe, 0, 0xd8], Err(NotText)),
            (vec![b'a', 0xff], Err(NotText)),
            (Vec::new(), Ok("")),
        ] {
            assert_eq!(
                decode(bytes.clone()).as_deref(),
                text.as_ref().copied(),
                "{bytes:?}"
            );
        }
    }
}
