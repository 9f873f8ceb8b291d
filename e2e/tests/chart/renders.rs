//! The ways in which the tests render the chart: keys without a value, and names that YAML
//! parses as something else. `chart` parses the objects strictly; `chart_api` also sends
//! them to a real API server.

use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use ballast_e2e::{Helm, documents};
use serde_json::{Map, Value, json};

/// Both versions of Helm in use.
pub(crate) const HELMS: [&str; 2] = ["helm", "helm-3"];
/// The value sets in charts/ballast/ci that are not hostile.
pub(crate) const SETS: [&str; 4] = ["default", "kind", "bare-metal", "everything"];
/// Keys that the chart refuses without a value.
pub(crate) const REFUSED: [&str; 15] = [
    "announcer.updateStrategy.rollingUpdate.maxSurge",
    "announcer.updateStrategy.rollingUpdate.maxUnavailable",
    "classes.a.aws.region",
    "classes.l.l2.addressPoolSelector.matchExpressions.0.key",
    "classes.l.l2.addressPoolSelector.matchExpressions.0.operator",
    "classes.l.l2.nodeSelector.matchExpressions.0.key",
    "classes.l.l2.nodeSelector.matchExpressions.0.operator",
    "classes.local.mock",
    "controller.extraVolumes",
    "pools.p.addresses",
    "pools.p.namespaceSelector.matchExpressions.0.key",
    "pools.p.namespaceSelector.matchExpressions.0.operator",
    "pools.p.serviceSelector.matchExpressions.0.key",
    "pools.p.serviceSelector.matchExpressions.0.operator",
    "stampClass.class",
];
/// Names of releases, namespaces, classes and labels that YAML parses as a number, a boolean,
/// a date or nothing.
pub(crate) const WORDS: [&str; 14] = [
    "100",
    "08",
    "1e3",
    "0x10",
    "0b1",
    "0o7",
    "1-1",
    "2001-01-01",
    "no",
    "y",
    "off",
    "true",
    "null",
    "nan",
];
/// As many at once as two cores can run.
const THREADS: usize = 3;

/// One way to render the chart.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The key or the name in question.
    pub(crate) about: String,
    pub(crate) program: &'static str,
    /// The release and its namespace.
    release: String,
    /// Files of values, as paths in the workspace.
    files: Vec<String>,
    /// More values.
    values: Value,
}

/// The path of a value set.
pub(crate) fn values(set: &str) -> String {
    format!("charts/ballast/ci/{set}-values.yaml")
}

pub(crate) fn template(
    helm: &Helm,
    program: &str,
    release: &str,
    flags: &[&str],
) -> Result<Output> {
    let mut command = helm.command(program);
    command.args(["template", release, "charts/ballast"]);
    command.args(["--namespace", release, "--kube-version", "1.36.0"]);
    command.args(flags).output().context("Helm does not run")
}

/// Both versions of Helm, with a release called `shop`.
fn both(about: &str, files: &[&str], values: &Value) -> [Case; 2] {
    HELMS.map(|program| Case {
        about: about.to_owned(),
        program,
        release: "shop".to_owned(),
        files: files.iter().map(|set| self::values(set)).collect(),
        values: values.clone(),
    })
}

/// The value sets.
pub(crate) fn sets() -> Vec<Case> {
    let sets = SETS.iter();
    sets.flat_map(|set| both(set, &[set], &json!({}))).collect()
}

/// Each key of values.yaml without a value.
pub(crate) fn nulls() -> Result<Vec<Case>> {
    let text = include_str!("../../../charts/ballast/values.yaml");
    let all = paths(&serde_saphyr::from_str(text)?);
    ensure!(all.len() > 100, "only {} keys", all.len());
    // A file of values replaces a list as a whole.
    let whole = |path: &&Vec<String>| path.iter().all(|key| key.parse::<usize>().is_err());
    let cases = all.iter().filter(whole).flat_map(|path| {
        let null = path.iter().rev();
        let null = null.fold(Value::Null, |inner, key| json!({ key: inner }));
        both(&path.join("."), &["everything"], &null)
    });
    Ok(cases.collect())
}

/// Classes and pools with every field of the schema.
pub(crate) fn nested() -> Value {
    let selector = json!({
        "matchLabels": {"a": "b"},
        "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}],
    });
    json!({
        "classes": {
            "local": null,
            "m": {
                "default": false, "forceDefault": false, "maxLoadBalancers": 5, "deletionPolicy": "Retain", "orphans": "Delete", "orphanGracePeriod": "48h",
                "mock": {"enabled": true, "endpoint": "http://192.0.2.1:9000"},
            },
            "l": {"l2": {
                "addressPools": ["p"], "addressPoolSelector": selector, "nodeSelector": selector,
                "interfaces": ["^eth0$"], "failureDetection": "Lease", "refreshInterval": "30s",
            }},
            "a": {"aws": {"region": "eu-central-1"}},
        },
        "pools": {"p": {
            "addresses": ["192.0.2.0/28"], "autoAssign": false, "priority": 1, "namespaceSelector": selector,
            "serviceSelector": selector, "reuseAfter": "2m", "edges": "Use", "reallocate": true,
            "shareAcrossNamespaces": true,
        }},
    })
}

/// Each key in classes and pools without a value.
pub(crate) fn nested_nulls() -> Vec<Case> {
    let all = paths(&nested()).into_iter().flat_map(|path| {
        let mut values = nested();
        let found = values.pointer_mut(&format!("/{}", path.join("/")));
        if let Some(found) = found {
            *found = Value::Null;
        }
        both(&path.join("."), &[], &values)
    });
    all.collect()
}

/// Names that YAML parses as something else, in every place.
pub(crate) fn hostile() -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = both("2024", &["hostile"], &json!({})).into();
    for word in WORDS {
        cases.extend(both(word, &[], &everywhere(word)?));
    }
    for case in &mut cases {
        case.release.clone_from(&case.about);
    }
    Ok(cases)
}

/// The schema of the values.
pub(crate) fn schema() -> Result<Value> {
    let text = include_str!("../../../charts/ballast/values.schema.json");
    Ok(serde_json::from_str(text)?)
}

/// Values with a name in every place where the schema has a name, a label or an annotation,
/// and everything switched on.
fn everywhere(word: &str) -> Result<Value> {
    let named = named(&schema()?, word).context("the schema has no names")?;
    let mut values = json!({
        "clusterName": word,
        "log": {"level": word},
        "image": {"repository": format!("registry.example:5000/{}", word.replace("1-1", "a")), "tag": word},
        "imagePullSecrets": [{"name": word}],
        "classes": {
            "local": null,
            word: {"default": true, "mock": {"enabled": true}},
            format!("{word}.l2"): {"l2": {
                "addressPools": [word],
                "nodeSelector": {"matchLabels": {word: word}},
                "addressPoolSelector": {"matchExpressions": [{"key": word, "operator": "In", "values": [word]}]},
            }},
        },
        "pools": {word: {
            "addresses": ["192.0.2.0/28"], "namespaceSelector": {"matchLabels": {word: word}},
        }},
        "controller": {
            "classes": [word, format!("{word}.l2")],
            "otherControllersLeases": [word, format!("{word}/{word}")],
            "extraArgs": [format!("--identity={word}")],
            "extraEnv": [{"name": "A", "value": word}],
            "extraEnvFrom": [{"configMapRef": {"name": word}}],
            "extraVolumes": [{"name": word, "configMap": {"name": word}}],
            "extraVolumeMounts": [{"name": word, "mountPath": word}],
            "tolerations": [{"key": word, "value": word}],
        },
        "mockCloud": {"interface": word},
        "announcer": {
            "adminAddress": "0.0.0.0",
            "extraArgs": [format!("--log={word}")],
            "extraEnv": [{"name": "A", "value": word}],
            "tolerations": [{"key": word, "value": word}],
        },
        "networkPolicy": {"enabled": true},
        "metrics": {
            "service": {"enabled": true}, "podMonitor": {"enabled": true}, "serviceMonitor": {"enabled": true},
            "rules": {"enabled": true}, "dashboard": {"enabled": true},
        },
        "stampClass": {"enabled": true},
    });
    merge(&mut values, named);
    // Controller and announcers need two accounts.
    values["controller"]["serviceAccount"]["name"] = json!(format!("{word}.1e3"));
    Ok(values)
}

/// The part of the values that a schema calls names and labels.
fn named(schema: &Value, word: &str) -> Option<Value> {
    match schema["$ref"].as_str() {
        Some("#/definitions/map") => return Some(json!({ word: word })),
        Some("#/definitions/name" | "#/definitions/subdomain" | "#/definitions/className") => {
            return Some(json!(word));
        }
        Some(reference) => {
            let name = reference.rsplit('/').next()?;
            let definitions = self::schema().ok()?;
            let definition = definitions["definitions"].get(name)?;
            // Those of Kubernetes are in lists only.
            return named(definition, word).filter(|_| !name.starts_with("k8s."));
        }
        None => {}
    }
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().find_map(|one| named(one, word));
    }
    if schema["items"]["$ref"] == "#/definitions/namespace" {
        return Some(json!([word]));
    }
    let mut found = Map::new();
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = named(property, word) {
            found.insert(key.clone(), value);
        }
    }
    (!found.is_empty()).then_some(Value::Object(found))
}

fn merge(values: &mut Value, more: Value) {
    match (values, more) {
        (Value::Object(values), Value::Object(more)) => {
            for (key, value) in more {
                merge(values.entry(key).or_insert(Value::Null), value);
            }
        }
        (values, more) => *values = more,
    }
}

/// Every place in a value, the inner ones first. A place in a list is a number.
pub(crate) fn paths(value: &Value) -> Vec<Vec<String>> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, it)| (key.clone(), it)).collect(),
        Value::Array(items) => {
            let fields = items.iter().enumerate().filter(|(_, it)| it.is_object());
            fields.map(|(at, it)| (at.to_string(), it)).collect()
        }
        _ => return Vec::new(),
    };
    let mut all = Vec::new();
    for (key, value) in inner {
        for mut path in paths(value) {
            path.insert(0, key.clone());
            all.push(path);
        }
        if !value.is_object() || key.parse::<usize>().is_err() {
            all.push(vec![key]);
        }
    }
    all
}

/// Renders all cases, some at once, in the order of the cases.
pub(crate) fn render(helm: &Helm, cases: &[Case]) -> Result<Vec<Output>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(at) else { return };
                    let output = case.render(helm);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push((at, output));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, output)| output).collect()
}

/// Rendered objects, parsed strictly: no duplicate keys, no nulls, strings where strings
/// belong, and the same in both versions of YAML.
pub(crate) fn strict(output: &Output) -> Result<Vec<Value>> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    let text = std::str::from_utf8(&output.stdout)?;
    let all = documents(text)?;
    for (object, old) in all.iter().zip(documents_of_yaml_1_1(text)?) {
        ensure!(*object == old, "{object} is {old} in YAML 1.1");
    }
    for object in &all {
        strings(object).with_context(|| object.to_string())?;
        without_nulls(object).with_context(|| object.to_string())?;
    }
    Ok(all)
}

/// As Helm and kubectl read them: `no` is a boolean, and `0400` is an octal number.
fn documents_of_yaml_1_1(text: &str) -> Result<Vec<Value>> {
    let options = serde_saphyr::options! { strict_booleans: false, legacy_octal_numbers: true };
    let all: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)?;
    Ok(all.into_iter().filter(|one| !one.is_null()).collect())
}

fn without_nulls(value: &Value) -> Result<()> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            ensure!(!value.is_null(), "{key} is null");
            without_nulls(value)
        }),
        Value::Array(items) => items.iter().try_for_each(|value| {
            ensure!(!value.is_null(), "an entry is null");
            without_nulls(value)
        }),
        _ => Ok(()),
    }
}

/// Names, labels, annotations, rights, subjects, arguments and environment variables are strings.
fn strings(object: &Value) -> Result<()> {
    for path in ["/metadata/name", "/kind", "/apiVersion"] {
        let found = object.pointer(path);
        ensure!(found.is_some_and(Value::is_string), "{path} is {found:?}");
    }
    let pod = object.pointer("/spec/template");
    for metadata in [
        object.get("metadata"),
        pod.and_then(|pod| pod.get("metadata")),
    ] {
        for field in ["labels", "annotations"] {
            let entries = metadata.and_then(|it| it[field].as_object());
            for (key, value) in entries.into_iter().flatten() {
                ensure!(value.is_string(), "{field}: {key} is {value}");
            }
        }
    }
    for rule in object["rules"].as_array().into_iter().flatten() {
        for (field, list) in rule.as_object().into_iter().flatten() {
            let mut entries = list.as_array().into_iter().flatten();
            ensure!(entries.all(Value::is_string), "{field}: {list}");
        }
    }
    for subject in object["subjects"].as_array().into_iter().flatten() {
        let mut fields = subject.as_object().into_iter().flatten();
        ensure!(
            fields.all(|(_, value)| value.is_string()),
            "a subject is {subject}"
        );
    }
    let containers = pod.and_then(|pod| pod["spec"]["containers"].as_array());
    for container in containers.into_iter().flatten() {
        for argument in container["args"].as_array().into_iter().flatten() {
            ensure!(argument.is_string(), "an argument is {argument}");
        }
        for one in container["env"].as_array().into_iter().flatten() {
            let value = one.get("value").is_none_or(Value::is_string);
            ensure!(one["name"].is_string() && value, "env: {one}");
        }
    }
    Ok(())
}

// === impl Case ===

impl Case {
    /// A text for messages and the names of files.
    pub(crate) fn title(&self) -> String {
        format!("{}, {}", self.program, self.about)
    }

    fn render(&self, helm: &Helm) -> Result<Output> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), self.values.to_string())?;
        let more = file.path().display().to_string();
        let files = self.files.iter().chain([&more]);
        let flags: Vec<&str> = files.flat_map(|file| ["--values", file]).collect();
        template(helm, self.program, &self.release, &flags)
    }
}
