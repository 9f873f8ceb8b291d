//! Bounds text from outside: users, clouds, nodes and other programs wrote it. Pure.
//!
//! Such text can be very long, and it can contain line breaks, terminal escape sequences and
//! characters that reverse the reading direction. Errors of this crate and messages of clouds
//! pass through [`bounded`] before anything keeps, compares or logs them.

/// The maximum length of an error or message, in characters.
pub const LONGEST: usize = 1_024;

/// The text as one line of at most [`LONGEST`] characters.
pub fn bounded(text: &str) -> String {
    // Cut first: the text can have megabytes. Invisible characters count, so a text that is
    // full of them gets shorter than necessary.
    shortened(&one_line(&shortened(text, 4 * LONGEST)), LONGEST)
}

/// The text as one line: control characters and invisible formatting characters become
/// spaces, and each run of spaces becomes one.
pub fn one_line(text: &str) -> String {
    let visible = text.split(|c: char| c.is_whitespace() || is_invisible(c));
    let words: Vec<&str> = visible.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// At most `limit` characters of the text; a text that is cut ends in `...`.
pub fn shortened(text: &str, limit: usize) -> String {
    if text.chars().nth(limit).is_none() {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(3)).collect();
    format!("{}...", kept.trim_end())
}

/// Control characters, and the Unicode characters that change the reading direction, break
/// lines, or have no width.
fn is_invisible(c: char) -> bool {
    let formats = matches!(
        c,
        '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}'
    );
    formats || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ProviderError, Reason, Refusal};

    #[test]
    fn control_characters_become_spaces() {
        for (text, line) in [
            ("a\u{1b}[2Jb\r\nc\t", "a [2Jb c"),
            ("\n", ""),
            ("a \u{9b}31m b\u{7f}", "a 31m b"),
            ("safe\u{202e}txt.exe", "safe txt.exe"),
            ("\u{feff}a\u{2028}b", "a b"),
            ("Grüße, 世界", "Grüße, 世界"),
        ] {
            assert_eq!(one_line(text), line, "{text:?}");
        }
    }

    #[test]
    fn long_text_is_cut_by_characters() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abc...");
        assert_eq!(shortened("ab  efg", 6), "ab...");
        assert_eq!(shortened(&"ü".repeat(9), 6), "üüü...");
    }

    #[test]
    fn errors_of_clouds_are_one_short_line() {
        let long = format!("first\nsecond {}", "ü".repeat(1_000_000));
        for text in [
            bounded(&long),
            Refusal::new(Reason::Invalid, long.clone()).message,
            ProviderError::transient(long.clone()).to_string(),
        ] {
            assert_eq!(text.chars().count(), LONGEST);
            assert!(text.starts_with("first second üü"), "{text}");
        }
        assert_eq!(bounded("as it is"), "as it is");
    }
}
