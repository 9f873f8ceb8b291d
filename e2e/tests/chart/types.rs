//! What the schema of the values refuses. What the chart passes on to Kubernetes is checked as
//! strictly as the chart's own settings. Helm reports all errors at once, so one rendering
//! tries all places.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::helm;
use super::renders::{HELMS, schema, template};

/// Wrong values, and a part of Helm's message.
const WRONG: &[(&str, &str)] = &[
    (
        "controller.replicas=two",
        "'/controller/replicas': got string, want null or integer",
    ),
    (
        "controller.replica=3",
        "additional properties 'replica' not allowed",
    ),
    (
        "podLabels.a=b",
        "additional properties 'podLabels' not allowed",
    ),
    (
        "image.pullPolicy=Sometimes",
        "must be one of 'Always', 'IfNotPresent', 'Never'",
    ),
    (
        "commonLabels.app\\.kubernetes\\.io/part-of=x",
        "commonLabels has app.kubernetes.io/part-of, which the chart sets itself",
    ),
    ("image.digest=abc", "'/image/digest': 'abc' does not match"),
    (
        "global.imageRegistry=https://registry.example",
        "'/global/imageRegistry': 'https://registry.example' does not match",
    ),
    (
        "global.imageRegistry=registry example",
        "'/global/imageRegistry': 'registry example' does not match",
    ),
    (
        "global.imageRegistry=registry.example//",
        "'/global/imageRegistry': 'registry.example//' does not match",
    ),
    (
        "global.imageRegistry=/",
        "'/global/imageRegistry': '/' does not match",
    ),
    (
        "image.repository=https://registry.example/ballast",
        "'/image/repository': 'https://registry.example/ballast' does not match",
    ),
    (
        "image.repository=registry.example/",
        "'/image/repository': 'registry.example/' does not match",
    ),
    (
        "image.repository=/ballast",
        "'/image/repository': '/ballast' does not match",
    ),
    (
        "image.repository=ballast:1.0",
        "'/image/repository': 'ballast:1.0' does not match",
    ),
    (
        "image.repository=",
        "'/image/repository': '' does not match",
    ),
    (
        "classes.local.mock.endpoint=https://x",
        "'https://x' does not match pattern",
    ),
    (
        "classes.local.deletionPolicy=Keep",
        "must be one of 'Delete', 'Retain'",
    ),
    (
        "classes.local.maxLoadBalancers=-1",
        "minimum: got -1, want 0",
    ),
    (
        "classes.edge.default=true",
        "'/classes/edge': missing property 'l2'",
    ),
    (
        "classes.nlb.aws.zone=x",
        "additional properties 'zone' not allowed",
    ),
    ("classes.Edge.aws.region=x", "invalid propertyName 'Edge'"),
    (
        "classes.a\\.\\.b.aws.region=x",
        "invalid propertyName 'a..b'",
    ),
    (
        "controller.priorityClassName=High Priority",
        "'/controller/priorityClassName': 'High Priority' does not match",
    ),
    (
        "jobs.serviceAccount.name=me_",
        "'/jobs/serviceAccount/name': 'me_' does not match",
    ),
    (
        "imagePullSecrets[0].name=A b",
        "'/imagePullSecrets/0/name': 'A b' does not match",
    ),
    (
        "controller.extraVolumeMounts[0].name=a,controller.extraVolumeMounts[0].mountPath=/a",
        "controller.extraVolumeMounts has volume a, which controller.extraVolumes does not have",
    ),
    (
        "mockCloud.extraVolumes[0].name=state",
        "mockCloud.extraVolumes has volume state twice, or the chart has one with this name",
    ),
    (
        "mockCloud.extraVolumeMounts[0].name=mock-token,mockCloud.extraVolumeMounts[0].mountPath=/a",
        "mockCloud.extraVolumeMounts has volume mock-token, which mockCloud.extraVolumes does not have",
    ),
    ("announcer.gossip.port=0", "minimum: got 0, want 1"),
    (
        "announcer.gossip.existingSecret=A b",
        "'/announcer/gossip/existingSecret': 'A b' does not match",
    ),
    (
        "announcer.enabled=maybe",
        "'/announcer/enabled': got string, want null or boolean",
    ),
    (
        "announcer.port=7947",
        "additional properties 'port' not allowed",
    ),
    (
        "announcer.adminPort=7947",
        "announcer.gossip.port and announcer.adminPort are the same port",
    ),
    (
        "classes.a.l2.failureDetection=Slow",
        "must be one of 'Fast', 'Tolerant', 'Lease'",
    ),
    ("pools.a.autoAssign=true", "missing property 'addresses'"),
    (
        "pools.a.addresses=192.0.2.1",
        "'/pools/a/addresses': got string, want array",
    ),
    (
        "commonLabels.a=1",
        "'/commonLabels/a': got number, want null or string",
    ),
    (
        "controller.resources.limits.memory=lots",
        "'lots' does not match pattern",
    ),
    (
        "controller.extraArgs={workers}",
        "'workers' does not match pattern '^-'",
    ),
    ("mockCloud.port=70000", "maximum: got 70,000, want 65,535"),
    (
        "networkPolicy.apiServerPorts={443,null}",
        "'/networkPolicy/apiServerPorts/1': got null, want integer",
    ),
    (
        "networkPolicy.monitoringNamespaces={null}",
        "'/networkPolicy/monitoringNamespaces/0': got null, want string",
    ),
    (
        "metrics.podMonitor.interval=soon",
        "'soon' does not match pattern",
    ),
    (
        "metrics.rules.runbookUrl=here",
        "'here' does not match pattern",
    ),
    (
        "stampClass.failurePolicy=Maybe",
        "must be one of 'Fail', 'Ignore'",
    ),
    (
        "teardown.onUninstall=maybe",
        "got string, want null or boolean",
    ),
    (
        "imagePullSecrets={registry}",
        "'/imagePullSecrets/0': got string, want object",
    ),
];

/// A wrong value.
const NUMBER: u32 = 7;

/// Builds values with every property of the schema, and a number instead of each string.
struct Builder {
    root: Value,
    /// The places of strings.
    strings: BTreeSet<String>,
}

#[test]
fn wrong_values_are_refused_by_name() -> Result<()> {
    let helm = helm()?;
    for (set, says) in WRONG {
        let mut template = helm.command("helm");
        template.args(["template", "ballast", "charts/ballast", "--set", set]);
        let output = template.output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{set} is let through");
        ensure!(errors.contains(says), "{set}: not \"{says}\" but {errors}");
    }
    Ok(())
}

#[test]
fn a_number_where_a_string_belongs_is_refused_by_name() -> Result<()> {
    let helm = helm()?;
    let mut builder = Builder::new()?;
    let values = builder.value(&builder.root.clone(), "");
    let lists = [
        "/controller/extraEnv/0/valueFrom/secretKeyRef/key",
        "/controller/extraEnvFrom/0/prefix",
        "/controller/extraVolumes/0/hostPath/path",
        "/controller/extraVolumeMounts/0/mountPath",
        "/controller/topologySpreadConstraints/0/labelSelector/matchLabels/a",
        "/mockCloud/tolerations/0/value",
        "/announcer/extraEnv/0/value",
        "/announcer/tolerations/0/key",
        "/announcer/updateStrategy/type",
        "/jobs/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/topologyKey",
        "/networkPolicy/metricsFrom/0/ipBlock/cidr",
        "/networkPolicy/extraEgress/0/ports/0/protocol",
        "/metrics/podMonitor/relabelings/0/sourceLabels/0",
        "/metrics/rules/extra/0/labels/a",
        "/classes/a/l2/nodeSelector/matchExpressions/0/values/0",
        "/imagePullSecrets/0/name",
    ];
    for list in lists {
        ensure!(builder.strings.contains(list), "{list} is no place");
    }
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), values.to_string())?;
    let file = file.path().display().to_string();
    for program in HELMS {
        let output = template(&helm, program, "shop", &["--values", &file])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{program} lets all of it through");
        let silent = builder.strings.iter().filter(|place| {
            let refused = format!("at '{place}': got number, want ");
            !said.contains(&refused)
        });
        let silent: Vec<_> = silent.collect();
        ensure!(silent.is_empty(), "{program} accepts a number: {silent:#?}");
    }
    println!("{} places", builder.strings.len());
    Ok(())
}

/// No part of the schema accepts everything, so the test above reaches all of it. No list accepts
/// an entry without a value: a rule with the port null is a rule for all ports.
#[test]
fn every_part_of_the_schema_has_a_type() -> Result<()> {
    let root = schema()?;
    untyped(&root, &root, "")
}

fn accepts_null(root: &Value, schema: &Value) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        let definition = root.pointer(reference.trim_start_matches('#'));
        return definition.is_none_or(|it| accepts_null(root, it));
    }
    let kinds = schema["type"].as_array();
    let mut any = schema["anyOf"].as_array().into_iter().flatten();
    schema["type"] == "null"
        || kinds.is_some_and(|kinds| kinds.contains(&json!("null")))
        || any.any(|it| accepts_null(root, it))
}

fn untyped(root: &Value, schema: &Value, place: &str) -> Result<()> {
    let inner = |key: &str| schema[key].as_object().into_iter().flatten();
    for key in ["properties", "definitions"] {
        for (name, one) in inner(key) {
            let place = format!("{place}/{name}");
            let typed = ["$ref", "type", "anyOf", "oneOf"];
            let typed = typed.iter().any(|it| one.get(it).is_some());
            ensure!(typed, "{place} has no type: {one}");
            let is = |kind: &str| {
                let kinds = one["type"].as_array().cloned();
                kinds
                    .unwrap_or_else(|| vec![one["type"].clone()])
                    .contains(&json!(kind))
            };
            ensure!(
                !is("array") || one.get("items").is_some(),
                "{place} is a list of anything"
            );
            // The values of a parent chart are anything.
            let fields = ["properties", "additionalProperties"];
            let fields = fields.iter().any(|it| one.get(it).is_some());
            ensure!(
                !is("object") || fields || place.ends_with("k8s.FieldsV1"),
                "{place} is any object"
            );
            untyped(root, one, &place)?;
        }
    }
    let items = &schema["items"];
    if items.is_object() {
        ensure!(
            !accepts_null(root, items),
            "an entry of {place} may be null"
        );
        untyped(root, items, &format!("{place}/0"))?;
    }
    Ok(())
}

// === impl Builder ===

impl Builder {
    fn new() -> Result<Self> {
        Ok(Self {
            root: schema()?,
            strings: BTreeSet::new(),
        })
    }

    /// A value with all properties of this schema.
    fn value(&mut self, schema: &Value, place: &str) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            let definition = self.root.pointer(reference.trim_start_matches('#'));
            let definition = definition.cloned().unwrap_or_default();
            return self.value(&definition, place);
        }
        for any in ["anyOf", "oneOf"] {
            let all = schema[any].as_array().cloned().unwrap_or_default();
            if all.iter().any(|it| it["type"] == "integer") {
                return json!(1);
            }
            // Of a string and an object, the object.
            let of = |kind: &str| all.iter().find(|it| it["type"] == kind).cloned();
            let reference = all.iter().find(|it| it.get("$ref").is_some()).cloned();
            let one = reference.or_else(|| of("object")).or_else(|| of("string"));
            if let Some(one) = one.filter(|_| schema.get("properties").is_none()) {
                return self.value(&one, place);
            }
        }
        let kinds = match &schema["type"] {
            Value::Array(kinds) => kinds.clone(),
            kind => vec![kind.clone()],
        };
        let is = |kind: &str| kinds.contains(&json!(kind));
        if is("object") {
            self.object(schema, place)
        } else if is("array") {
            json!([self.value(&schema["items"], &format!("{place}/0"))])
        } else if is("number") || is("integer") {
            json!(1)
        } else if is("boolean") {
            json!(true)
        } else if is("string") {
            self.strings.insert(place.to_owned());
            json!(NUMBER)
        } else {
            Value::Null
        }
    }

    fn object(&mut self, schema: &Value, place: &str) -> Value {
        let mut fields = Map::new();
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            let value = self.value(property, &format!("{place}/{key}"));
            fields.insert(key.clone(), value);
        }
        if let Some(any) = schema
            .get("additionalProperties")
            .filter(|it| it.is_object())
        {
            fields.insert("a".to_owned(), self.value(any, &format!("{place}/a")));
        }
        Value::Object(fields)
    }
}
