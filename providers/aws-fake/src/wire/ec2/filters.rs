//! Filters: all of them must match, each with one of its values, in which `*` and `?` stand for
//! other characters. Source: "List and filter using the CLI and API" \[docs\].

use super::super::form::Form;
use crate::state::{Refusal, Result, Tags};

/// The filters of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filters(Vec<(String, Vec<String>)>);

/// The most values of one filter, and of all together \[docs\].
const MOST_VALUES: usize = 200;

// === impl Filters ===

impl Filters {
    /// Reads them. `names` are those that the action knows, beside tags.
    pub(super) fn take(form: &mut Form, names: &[&str], tagged: bool) -> Result<Self> {
        let mut all = Vec::new();
        for mut one in form.structures("Filter")? {
            let name = one.need("Name")?;
            let values = one.list("Value")?;
            one.finish()?;
            let tag = tagged && (name.starts_with("tag:") || name == "tag-key");
            if !tag && !names.contains(&name.as_str()) {
                return Err(invalid(format!("The filter '{name}' is invalid")));
            }
            if values.is_empty() {
                return Err(invalid(format!("The filter '{name}' has no values")));
            }
            all.push((name, values));
        }
        if all.iter().map(|(_, values)| values.len()).sum::<usize>() > MOST_VALUES {
            let message =
                format!("The maximum number of filter values, {MOST_VALUES}, is exceeded");
            return Err(Refusal::new("FilterLimitExceeded", message));
        }
        Ok(Self(all))
    }

    /// Whether an object with these tags matches. `fields` gives the values of a filter's name.
    pub(super) fn match_with(&self, tags: &Tags, fields: impl Fn(&str) -> Vec<String>) -> bool {
        self.0.iter().all(|(name, patterns)| {
            let values: Vec<String> = if let Some(key) = name.strip_prefix("tag:") {
                tags.get(key).cloned().into_iter().collect()
            } else if name == "tag-key" {
                tags.keys().cloned().collect()
            } else {
                fields(name)
            };
            let mut values = values.iter();
            values.any(|value| patterns.iter().any(|pattern| matches(pattern, value)))
        })
    }
}

fn invalid(message: String) -> Refusal {
    Refusal::new("InvalidParameterValue", message)
}

/// Whether a text is like a pattern.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Which prefixes of the text the pattern so far matches.
    let mut reach = vec![false; text.len() + 1];
    reach[0] = true;
    for c in pattern {
        let mut next = vec![false; text.len() + 1];
        for (at, reached) in reach.iter().enumerate() {
            match c {
                '*' => next[at] = *reached || (at > 0 && next[at - 1]),
                _ if at > 0 => next[at] = reach[at - 1] && (c == '?' || c == text[at - 1]),
                _ => {}
            }
        }
        reach = next;
    }
    reach[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*", "abc", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
