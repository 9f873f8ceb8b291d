//! Converts label selectors of Ballast's objects from the API's type to the provider's.

use ballast_l2::{Labels, Operator, Requirement, Selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Parses a selector; the error names the invalid part.
pub fn parse(selector: &LabelSelector) -> Result<Selector, String> {
    let requirements = selector.match_expressions.iter().flatten();
    let requirements = requirements.map(|requirement| {
        let operator = match requirement.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => {
                return Err(format!(
                    "operator {other:?} of label {:?} is none of In, NotIn, Exists, DoesNotExist",
                    requirement.key
                ));
            }
        };
        Ok(Requirement {
            key: requirement.key.clone(),
            operator,
            values: requirement.values.clone().unwrap_or_default(),
        })
    });
    let labels = selector.match_labels.as_ref();
    Ok(Selector {
        match_labels: labels.map(Labels::from).unwrap_or_default(),
        match_expressions: requirements.collect::<Result<_, _>>()?,
    })
}
