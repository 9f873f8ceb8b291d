//! One text for an error and everything that caused it. Pure.
//!
//! Libraries differ on whether the text of an error contains the text of its cause: hyper omits
//! it, kube repeats it. [`causes`] walks the chain of causes and includes each one once.

use std::error::Error;

use crate::text::{LONGEST, one_line, shortened};

/// The maximum number of causes; a longer chain is cut.
const DEEPEST: usize = 16;

/// How the text of one error in a chain is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wording {
    /// Its own text, and then those of its causes.
    Own,
    /// Only those of its causes. Its own text means nothing to a reader.
    OfCause,
    /// This text, instead of its own and those of its causes.
    Instead(String),
}

/// What a program knows about the errors of its libraries.
pub trait Libraries {
    /// How the text of an error is used.
    fn wording(&self, error: &(dyn Error + 'static)) -> Wording;

    /// The cause of an error. Some errors have causes and do not return them.
    fn source<'e>(&self, error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)>;
}

/// Errors that follow the rules of the standard library.
struct Plain;

impl Libraries for Plain {
    fn wording(&self, _: &(dyn Error + 'static)) -> Wording {
        Wording::Own
    }

    fn source<'e>(&self, error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
        error.source()
    }
}

/// The error and its causes in one line without control characters, at most [`LONGEST`]
/// characters long.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    causes_by(error, &Plain)
}

/// The same, for a program whose libraries have rules of their own.
pub fn causes_by(error: &(dyn Error + 'static), libraries: &dyn Libraries) -> String {
    shortened(&one_line(&told(error, libraries, DEEPEST)), LONGEST)
}

fn told(error: &(dyn Error + 'static), libraries: &dyn Libraries, depth: usize) -> String {
    let wording = libraries.wording(error);
    if let Wording::Instead(text) = wording {
        return text;
    }
    let own = error.to_string();
    let Some(source) = libraries.source(error).filter(|_| depth > 0) else {
        return own;
    };
    let cause = told(source, libraries, depth - 1);
    if wording == Wording::OfCause {
        return cause;
    }
    let repeated = source.to_string();
    if !repeated.is_empty() && own.contains(&repeated) {
        own.replacen(&repeated, &cause, 1)
    } else if cause.is_empty() || own.contains(&cause) {
        own
    } else if has_part(&cause, &own) {
        cause
    } else {
        format!("{own}: {cause}")
    }
}

/// Whether a text like "a: b: c" has this part. A part of a word does not count: a file can be
/// called "read".
fn has_part(text: &str, part: &str) -> bool {
    let around = |(before, after): (&str, &str)| {
        (before.is_empty() || before.ends_with(": "))
            && (after.is_empty() || after.starts_with(": "))
    };
    let mut found = text.match_indices(part);
    found.any(|(at, _)| around((&text[..at], &text[at + part.len()..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error whose text may or may not contain the text of its cause.
    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: String,
        source: Option<Box<dyn Error + Send + Sync>>,
    }

    fn chain(texts: &[&str]) -> Layer {
        let (text, causes) = texts.split_first().unwrap();
        Layer {
            text: (*text).to_owned(),
            source: (!causes.is_empty()).then(|| chain(causes).into()),
        }
    }

    #[test]
    fn each_cause_is_said_once() {
        for (texts, told) in [
            (&["refused"][..], "refused"),
            (
                &["client error (Connect)", "tcp", "refused"],
                "client error (Connect): tcp: refused",
            ),
            (&["a: b: c", "b: c", "c"], "a: b: c"),
            (&["a: b", "b", "c"], "a: b: c"),
            (&["b", "a: b", "c"], "a: b: c"),
            (
                &["read", "cannot read the file", "none"],
                "read: cannot read the file: none",
            ),
            (&["a", ""], "a"),
            (&["a\nb", "c\u{1b}[2J"], "a b: c [2J"),
        ] {
            assert_eq!(causes(&chain(texts)), told, "{texts:?}");
        }
    }

    #[test]
    fn the_text_is_bounded() {
        let long = "x".repeat(40_000);
        assert_eq!(causes(&chain(&[&long, "y"])).chars().count(), LONGEST);
        let endless: Vec<String> = (0..100).map(|number| format!("cause {number}")).collect();
        let endless: Vec<&str> = endless.iter().map(String::as_str).collect();
        assert!(causes(&chain(&endless)).ends_with("cause 16"));
    }
}
