//! Label selectors with Kubernetes' meaning, as plain values. Owns only the matching.
//!
//! An empty selector matches everything, as in the API; "no selector" is an
//! `Option` of the caller's.

pub use ballast_provider::Labels;

/// All of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Each label with exactly this value.
    pub match_labels: Labels,
    /// Each of these too.
    pub match_expressions: Vec<Requirement>,
}

/// What must hold for one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// The relation.
    pub operator: Operator,
    /// For `In` and `NotIn`.
    pub values: Vec<String>,
}

/// The relations of the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The label is there and its value is listed.
    In,
    /// The label is not there, or its value is not listed.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

// === impl Selector ===

impl Selector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|r| r.matches(labels))
    }
}

// === impl Requirement ===

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = || value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_with_the_label_there_and_not() {
        let with = |value: &str| Labels::from([("env".to_owned(), value.to_owned())]);
        let (prod, test, bare) = (with("prod"), with("test"), Labels::new());
        for (operator, values, expected) in [
            (Operator::In, vec!["prod", "stage"], [true, false, false]),
            (Operator::NotIn, vec!["prod", "stage"], [false, true, true]),
            (Operator::Exists, vec![], [true, true, false]),
            (Operator::DoesNotExist, vec![], [false, false, true]),
        ] {
            let selector = Selector {
                match_expressions: vec![Requirement {
                    key: "env".to_owned(),
                    operator,
                    values: values.into_iter().map(str::to_owned).collect(),
                }],
                ..Selector::default()
            };
            let got = [&prod, &test, &bare].map(|labels| selector.matches(labels));
            assert_eq!(got, expected, "{operator:?}");
        }
    }

    #[test]
    fn all_parts_must_hold_and_none_is_everything() {
        let labels = Labels::from([("a".into(), "1".into()), ("b".into(), "2".into())]);
        let mut selector = Selector::default();
        assert!(selector.matches(&labels) && selector.matches(&Labels::new()));
        selector.match_labels.insert("a".into(), "1".into());
        assert!(selector.matches(&labels) && !selector.matches(&Labels::new()));
        selector.match_expressions.push(Requirement {
            key: "b".into(),
            operator: Operator::NotIn,
            values: vec!["2".into()],
        });
        assert!(!selector.matches(&labels));
    }
}
