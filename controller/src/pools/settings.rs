//! The settings of an `l2` class: pools, interfaces and nodes.

use ballast_crds::L2Settings;
use ballast_l2::PoolFilter;
use ballast_provider::{Reason, Refusal};
use regex::Regex;

use super::selectors;

/// The pools of a class; `None`: all.
pub fn filter(l2: &L2Settings) -> Result<Option<PoolFilter>, String> {
    if l2.address_pools.is_empty() && l2.address_pool_selector.is_none() {
        return Ok(None);
    }
    let selector = l2.address_pool_selector.as_ref();
    Ok(Some(PoolFilter {
        names: l2.address_pools.iter().cloned().collect(),
        selector: selector.map(selectors::parse).transpose()?,
    }))
}

/// Validates all settings of a class, including those that only the announcers use, so that the
/// author of a class sees errors at once. Returns its pools; `None`: all.
pub fn validate_l2(l2: &L2Settings) -> Result<Option<PoolFilter>, Refusal> {
    let invalid = |message: String| Refusal::new(Reason::Invalid, message);
    for pattern in &l2.interfaces {
        Regex::new(pattern).map_err(|error| {
            invalid(format!(
                "spec.l2.interfaces has \"{pattern}\", which is not a regular expression: {}",
                last_line(&error.to_string())
            ))
        })?;
    }
    let nodes = l2.node_selector.as_ref().map(selectors::parse).transpose();
    nodes.map_err(|error| invalid(format!("spec.l2.nodeSelector: {error}")))?;
    filter(l2).map_err(|error| invalid(format!("spec.l2.addressPoolSelector: {error}")))
}

/// The cause of the error. The lines before it show the position.
fn last_line(error: &str) -> &str {
    let line = error.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refusal(l2: Value) -> Option<String> {
        let l2: L2Settings = serde_json::from_value(l2).unwrap();
        validate_l2(&l2).err().map(|refusal| refusal.to_string())
    }

    #[test]
    fn an_invalid_class_is_refused_by_field_and_value() {
        let odd = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
        for (l2, words) in [
            (
                json!({"interfaces": ["^eth[0-9]+$", "eth["]}),
                r#"spec.l2.interfaces has "eth[", which is not a regular expression: unclosed character class"#,
            ),
            (json!({"nodeSelector": odd}), "spec.l2.nodeSelector: "),
            (
                json!({"addressPoolSelector": odd}),
                "spec.l2.addressPoolSelector: ",
            ),
        ] {
            let said = refusal(l2).unwrap();
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(refusal(json!({"interfaces": ["^eth[0-9]+$", ""]})), None);
    }
}
