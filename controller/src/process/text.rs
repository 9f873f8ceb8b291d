//! Makes text from outside safe and short enough for a log line, a terminal or a condition.
//! Pure.
//!
//! Error messages, condition messages and annotations come from users and other programs.
//! They can contain line breaks, terminal escape sequences and characters that reverse the
//! reading direction, and they can be very long.

/// The most characters of one error or message that Ballast prints.
pub const LONGEST: usize = 1_024;

/// The most characters of a condition's message.
pub const MESSAGE: usize = 320;

/// The most characters of a value that a message quotes.
const VALUE: usize = 64;

/// A text as the message of a condition or an event: one line of at most [`MESSAGE`]
/// characters.
pub fn message(text: &str) -> String {
    shortened(&one_line(text), MESSAGE)
}

/// A user's value as a message quotes it: one line of at most 64 characters.
pub fn value(text: &str) -> String {
    // Cut first: a value can have hundreds of kilobytes.
    shortened(&one_line(&shortened(text, 4 * VALUE)), VALUE)
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
    fn messages_and_values_are_bounded() {
        let long = "\u{1b}".repeat(250_000) + "end";
        assert_eq!(value(&long), "...");
        assert_eq!(message(&"ü".repeat(999)).chars().count(), MESSAGE);
        assert_eq!(value("a\nb"), "a b");
    }

    #[test]
    fn long_text_is_cut_by_characters() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abc...");
        assert_eq!(shortened("ab  efg", 6), "ab...");
        assert_eq!(shortened(&"ü".repeat(9), 6), "üüü...");
    }
}
