//! The types of Kubernetes that values contain, such as environment variables and tolerations,
//! as definitions of `values.schema.json`. So Helm refuses a number where a string belongs and
//! names the key. The API server would refuse it later, without the key.
//!
//! The definitions are open: a newer Kubernetes has more fields.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{DaemonSetUpdateStrategy, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Affinity, EnvFromSource, EnvVar, ResourceClaim, Toleration, TopologySpreadConstraint, Volume,
    VolumeMount,
};
use k8s_openapi::api::networking::v1::{NetworkPolicyEgressRule, NetworkPolicyPeer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The names of definitions begin with this.
const PREFIX: &str = "k8s.";
/// The line after which the definitions stand.
const START: &str = "  \"definitions\": {\n";

/// The schema of the chart's values with its generated definitions up to date. All other lines
/// stay as they are.
pub(super) fn schema(text: &str) -> Result<String> {
    let own = text.lines().filter(|line| !is_generated(line));
    let own: String = own.flat_map(|line| [line, "\n"]).collect();
    let (before, after) = own
        .split_once(START)
        .context("the schema has no definitions")?;
    let made = definitions()?;
    let made = made
        .iter()
        .map(|(name, it)| format!("    \"{name}\": {it},\n"));
    let made: String = made.collect();
    Ok(format!("{before}{START}{made}{after}"))
}

fn is_generated(line: &str) -> bool {
    line.starts_with(&format!("    \"{PREFIX}"))
}

/// The types and everything that they contain, by name.
fn definitions() -> Result<Map<String, Value>> {
    let mut generator = SchemaSettings::draft07().into_generator();
    add::<Affinity>(&mut generator);
    add::<DaemonSetUpdateStrategy>(&mut generator);
    add::<DeploymentStrategy>(&mut generator);
    add::<EnvFromSource>(&mut generator);
    add::<EnvVar>(&mut generator);
    add::<LabelSelectorRequirement>(&mut generator);
    add::<NetworkPolicyEgressRule>(&mut generator);
    add::<NetworkPolicyPeer>(&mut generator);
    add::<ResourceClaim>(&mut generator);
    add::<Toleration>(&mut generator);
    add::<TopologySpreadConstraint>(&mut generator);
    add::<Volume>(&mut generator);
    add::<VolumeMount>(&mut generator);
    let mut definitions = Map::new();
    for (name, mut definition) in generator.take_definitions(true) {
        simplify(&mut definition);
        let name = short(&name);
        match name.as_str() {
            // The API server reads numbers as well.
            "k8s.Quantity" => definition = json!({"type": ["string", "number"]}),
            "k8s.IntOrString" => definition = json!({"type": ["string", "integer"]}),
            _ => {}
        }
        let other = definitions.insert(name.clone(), definition);
        ensure!(other.is_none(), "there are two types {name}");
    }
    Ok(definitions)
}

fn add<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// `io.k8s.api.core.v1.EnvVar` is `k8s.EnvVar`.
fn short(name: &str) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    format!("{PREFIX}{last}")
}

/// Removes texts and formats, and allows null for what is not required: without a value, a
/// field has its default.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Array(all) => all.iter_mut().for_each(simplify),
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref") {
                let name = reference.rsplit('/').next().unwrap_or_default();
                *reference = format!("#/definitions/{}", short(name));
            }
            // Also of a property that is called `description`.
            fields.retain(|key, value| {
                !(["description", "format"].contains(&key.as_str()) && value.is_string())
            });
            fields.values_mut().for_each(simplify);
            // A reference with a description was in a list of its own.
            if let Some([Value::Object(only)]) = fields
                .get("allOf")
                .and_then(Value::as_array)
                .map(Vec::as_slice)
            {
                *fields = only.clone();
            }
            let required = fields.get("required").cloned().unwrap_or_default();
            let required = |name: &String| {
                let mut names = required.as_array().into_iter().flatten();
                names.any(|it| it.as_str() == Some(name))
            };
            let properties = fields.get_mut("properties").and_then(Value::as_object_mut);
            for (name, property) in properties.into_iter().flatten() {
                if !required(name) {
                    nullable(property);
                }
            }
        }
        _ => {}
    }
}

fn nullable(schema: &mut Value) {
    match schema
        .get("type")
        .and_then(Value::as_str)
        .map(str::to_owned)
    {
        Some(kind) => schema["type"] = json!([kind, "null"]),
        None => *schema = json!({"anyOf": [schema.take(), {"type": "null"}]}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_fields_may_be_null_and_strings_are_strings() {
        let definitions = definitions().unwrap();
        let variable = &definitions["k8s.EnvVar"];
        assert_eq!(variable["required"], json!(["name"]));
        assert_eq!(variable["properties"]["name"], json!({"type": "string"}));
        assert_eq!(
            variable["properties"]["value"],
            json!({"type": ["string", "null"]})
        );
        let from = json!({"anyOf": [{"$ref": "#/definitions/k8s.EnvVarSource"}, {"type": "null"}]});
        assert_eq!(variable["properties"]["valueFrom"], from);
        let text = serde_json::to_string(&definitions).unwrap();
        for name in text.split("#/definitions/").skip(1) {
            let name = name.split('"').next().unwrap();
            assert!(definitions.contains_key(name), "{name}");
        }
    }

    #[test]
    fn only_generated_lines_change() {
        let text = "{\n  \"definitions\": {\n    \"k8s.Old\": {},\n    \"map\": {}\n  }\n}\n";
        let made = schema(text).unwrap();
        assert!(!made.contains("k8s.Old") && made.contains("\n    \"k8s.Volume\": {"));
        let own: String = made.lines().filter(|it| !is_generated(it)).collect();
        assert_eq!(own, "{  \"definitions\": {    \"map\": {}  }}");
        assert_eq!(schema(&made).unwrap(), made);
    }
}
