//! Labels of an object, in a compact form: stores keep those of every Service. (A `BTreeMap`
//! takes more than 500 bytes for a single label.)

use std::collections::BTreeMap;
use std::fmt;

/// Labels of an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(
    /// A line `KEY=VALUE` for each label, sorted by key. Neither keys nor values of labels can
    /// contain `=` or an end of line.
    Box<str>,
);

// === impl Labels ===

impl Labels {
    /// No labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter()
            .find_map(|(have, value)| (have == key).then_some(value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All labels, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(|line| line.split_once('='))
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self(String::new().into_boxed_str())
    }
}

impl From<&BTreeMap<String, String>> for Labels {
    fn from(labels: &BTreeMap<String, String>) -> Self {
        labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect()
    }
}

/// Of labels with the same key, the last counts.
impl<'a> FromIterator<(&'a str, &'a str)> for Labels {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(labels: T) -> Self {
        let labels: BTreeMap<&str, &str> = labels.into_iter().collect();
        let lines = labels.iter().map(|(key, value)| format!("{key}={value}\n"));
        Self(lines.collect::<String>().into_boxed_str())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Labels {
    fn from(labels: [(&str, &str); N]) -> Self {
        labels.into_iter().collect()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_by_key() {
        let labels = Labels::from([("b", "2"), ("a", "1"), ("c", ""), ("a", "3")]);
        let found = ["a", "b", "c", "d", ""].map(|key| labels.get(key));
        assert_eq!(found, [Some("3"), Some("2"), Some(""), None, None]);
        assert!(!labels.is_empty() && Labels::default().is_empty());
        let pairs: Vec<_> = labels.iter().collect();
        assert_eq!(pairs, [("a", "3"), ("b", "2"), ("c", "")]);
    }
}
