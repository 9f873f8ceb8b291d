//! Label selectors with Kubernetes' meaning, as plain values. Owns only the matching.
//!
//! An empty selector matches everything, as in the API; callers use an `Option` for "no
//! selector".

pub use ballast_provider::Labels;

/// A selector. All of its requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Labels that must have exactly this value.
    pub match_labels: Labels,
    /// Further requirements.
    pub match_expressions: Vec<Requirement>,
}

/// A requirement for one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// The relation.
    pub operator: Operator,
    /// The values for `In` and `NotIn`.
    pub values: Vec<String>,
}

/// The relations of the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The object has the label, and its value is listed.
    In,
    /// The object does not have the label, or its value is not listed.
    NotIn,
    /// The object has the label.
    Exists,
    /// The object does not have the label.
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
        let listed = || value.is_some_and(|value| self.values.iter().any(|listed| listed == value));
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
        let with = |value: &str| Labels::from([("env", value)]);
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
        let labels = Labels::from([("a", "1"), ("b", "2")]);
        let mut selector = Selector::default();
        assert!(selector.matches(&labels) && selector.matches(&Labels::new()));
        selector.match_labels = Labels::from([("a", "1")]);
        assert!(selector.matches(&labels) && !selector.matches(&Labels::new()));
        selector.match_expressions.push(Requirement {
            key: "b".into(),
            operator: Operator::NotIn,
            values: vec!["2".into()],
        });
        assert!(!selector.matches(&labels));
    }
}
