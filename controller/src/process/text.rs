//! Makes text from outside safe and short enough for a log line, a terminal or a condition.
//! Pure.
//!
//! Error messages, condition messages and annotations come from users and other programs.
//! They can contain line breaks, terminal escape sequences and characters that reverse the
//! reading direction, and they can be very long.

/// The most characters of one error or message that Ballast prints.
pub const LONGEST: usize = 1_024;

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
}
