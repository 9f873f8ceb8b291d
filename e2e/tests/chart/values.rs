//! Values that often break charts: keys without a value, names that YAML parses as something
//! else, and values that a parent chart sets. Rendered with Helm 4 and Helm 3.

use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use ballast_e2e::{Helm, documents};
use serde_json::{Value, json};

use super::{helm, values};

/// Both versions of Helm in use.
const HELMS: [&str; 2] = ["helm", "helm-3"];
/// Keys that the chart requires in the values of `everything`.
const NEEDED: [&str; 2] = ["classes.local.mock", "stampClass.class"];
/// As many at once as two cores can run.
const THREADS: usize = 3;

fn template(helm: &Helm, program: &str, release: &str, flags: &[&str]) -> Result<Output> {
    let mut command = helm.command(program);
    command.args([
        "template",
        release,
        "charts/ballast",
        "--namespace",
        release,
    ]);
    command.args(["--kube-version", "1.36.0"]).args(flags);
    command.output().context("Helm does not run")
}

/// Rendered objects, parsed strictly: no duplicate keys, and strings where strings belong.
fn strict(output: &Output) -> Result<Vec<Value>> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    let text = std::str::from_utf8(&output.stdout)?;
    let all = documents(text)?;
    for object in &all {
        strings(object).with_context(|| object.to_string())?;
    }
    Ok(all)
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

/// All keys of values.yaml, as paths.
fn keys(values: &Value, path: &[String], all: &mut Vec<Vec<String>>) {
    for (key, value) in values.as_object().into_iter().flatten() {
        let path = [path, std::slice::from_ref(key)].concat();
        keys(value, &path, all);
        all.push(path);
    }
}

#[test]
fn every_key_may_be_without_a_value() -> Result<()> {
    let helm = helm()?;
    let text = include_str!("../../../charts/ballast/values.yaml");
    let mut all = Vec::new();
    keys(&serde_saphyr::from_str(text)?, &[], &mut all);
    ensure!(all.len() > 100, "only {} keys", all.len());
    let jobs: Vec<(&str, &Vec<String>)> = HELMS
        .iter()
        .flat_map(|program| all.iter().map(move |path| (*program, path)))
        .collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((program, path)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = without_a_value(&helm, program, path) {
                        let error = format!("{program}, {}: {error:#}", path.join("."));
                        failed
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(error);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(failed.is_empty(), "{failed:#?}");
    Ok(())
}

/// A key without a value gets its default, is off, or is refused by name.
fn without_a_value(helm: &Helm, program: &str, path: &[String]) -> Result<()> {
    let null = path.iter().rev();
    let null = null.fold(Value::Null, |inner, key| json!({ key: inner }));
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), null.to_string())?;
    let (base, null) = (values("everything"), file.path().display().to_string());
    let output = template(helm, program, "shop", &["-f", &base, "-f", &null])?;
    let name = path.join(".");
    if !NEEDED.contains(&name.as_str()) {
        return strict(&output).map(drop);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let key = path.last().map_or("", String::as_str);
    ensure!(!output.status.success(), "it is needed");
    ensure!(said.contains(key), "{said}");
    Ok(())
}

#[test]
fn a_section_without_a_value_has_its_defaults() -> Result<()> {
    let helm = helm()?;
    for program in HELMS {
        let base = ["--set", "classes.local.mock.enabled=true"];
        let expected = template(&helm, program, "shop", &base)?.stdout;
        for section in [
            "controller",
            "controller.livenessProbe",
            "controller.leaderElection",
            "image",
            "jobs",
            "log",
            "metrics",
            "mockCloud",
            "mockCloud.serviceAccount",
            "networkPolicy",
            "rbac",
        ] {
            let null = format!("{section}=null");
            let flags = [&base[..], &["--set", &null]].concat();
            let output = template(&helm, program, "shop", &flags)?;
            let errors = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{program}, {section}: {errors}");
            ensure!(
                output.stdout == expected,
                "{program}: {section} is not its default"
            );
        }
    }
    Ok(())
}

#[test]
fn hostile_names_are_rendered_as_they_are() -> Result<()> {
    let helm = helm()?;
    let file = values("hostile");
    for program in HELMS {
        let objects = strict(&template(&helm, program, "2024", &["-f", &file])?)?;
        let named = |kind: &str| -> Vec<&str> {
            let of_kind = objects.iter().filter(|it| it["kind"] == kind);
            let mut names: Vec<_> = of_kind
                .filter_map(|it| it["metadata"]["name"].as_str())
                .collect();
            names.sort_unstable();
            names
        };
        ensure!(named("LoadBalancerClass") == ["100", "1e3", "no", "null"]);
        ensure!(named("AddressPool") == ["100", "yes"]);
        for service in named("Service") {
            let first = service.chars().next();
            ensure!(first.is_some_and(|it| it.is_ascii_lowercase()), "{service}");
        }
        for object in &objects {
            let namespace = &object["metadata"]["namespace"];
            let known = [json!("2024"), json!("kube-system"), Value::Null];
            ensure!(known.contains(namespace), "{object}");
            // Labels and annotations of all objects; a label of the chart's own takes
            // precedence.
            let metadata = &object["metadata"];
            ensure!(metadata["annotations"]["8"] == "08", "{metadata}");
            let own = ["off", "on"].contains(&metadata["labels"]["team"].as_str().unwrap_or(""));
            ensure!(own && metadata["labels"]["1"] == "2024", "{metadata}");
        }
        let deployments = objects.iter().filter(|it| it["kind"] == "Deployment");
        let args = deployments.flat_map(|it| {
            let container = &it["spec"]["template"]["spec"]["containers"][0];
            container["args"].as_array().cloned().unwrap_or_default()
        });
        let args: Vec<Value> = args.collect();
        let text = "--cluster-name=a: b #c 'd' \"e\" {{ f }}";
        ensure!(args.contains(&json!(text)), "{args:?}");
        ensure!(args.contains(&json!("--lease-namespace=2024")), "{args:?}");
    }
    Ok(())
}

/// Dots and a leading digit are valid in the name of a release, but not in that of a Service.
/// Long names are cut, and neither names nor labels may end in a dash.
#[test]
fn every_release_name_becomes_a_service_name() -> Result<()> {
    let helm = helm()?;
    let long = format!("{}-9", "a".repeat(50));
    let dashes = format!("{}--b", "a".repeat(38));
    for release in ["1.2", "a.b", "0", "ballast.1", &long, &dashes] {
        let mut command = helm.command("helm");
        command.args(["template", release, "charts/ballast"]);
        command.args(["--set", "classes.local.mock.enabled=true"]);
        if *release == *dashes {
            command.args(["--set", &format!("nameOverride={dashes}")]);
            command.args(["--set", "metrics.rules.enabled=true"]);
        }
        let objects = strict(&command.output()?)?;
        for object in &objects {
            let metadata = &object["metadata"];
            let label = &metadata["labels"]["app.kubernetes.io/name"];
            for text in [&metadata["name"], label] {
                let text = text.as_str().unwrap_or_default();
                ensure!(!text.ends_with('-'), "{release}: {text}");
            }
        }
        for service in objects.iter().filter(|it| it["kind"] == "Service") {
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
            let first = name.chars().next();
            let fits = name.chars().all(plain) && name.len() <= 63;
            ensure!(
                fits && first.is_some_and(|it| it.is_ascii_lowercase()),
                "{release}: {name}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_parent_chart_can_switch_it_and_set_the_registry() -> Result<()> {
    let helm = helm()?;
    let parent = tempfile::tempdir()?;
    let charts = parent.path().join("charts");
    std::fs::create_dir(&charts)?;
    copy(&Helm::chart(), &charts.join("ballast"))?;
    std::fs::write(
        parent.path().join("Chart.yaml"),
        "{apiVersion: v2, name: parent, version: 1.0.0, dependencies: [
          {name: ballast, version: '*', condition: ballast.enabled, tags: [network]}]}",
    )?;
    for program in HELMS {
        let render = |flags: &[&str]| {
            let mut command = helm.command(program);
            command
                .args(["template", "shop"])
                .arg(parent.path())
                .args(flags);
            strict(&command.output()?)
        };
        ensure!(
            render(&["--set", "ballast.enabled=false"])?.is_empty(),
            "{program}"
        );
        ensure!(
            render(&["--set", "tags.network=false"])?.is_empty(),
            "{program}"
        );
        let global = "global.imageRegistry=registry.example,global.imagePullSecrets={pull}";
        // With some versions of Helm, a parent's null arrives unchanged.
        let null = "ballast.controller.livenessProbe=null,ballast.jobs=null";
        let on = "ballast.enabled=true,ballast.tags.network=true";
        let objects = render(&["--set", on, "--set", global, "--set", null])?;
        let images = objects
            .iter()
            .filter_map(|it| it.pointer("/spec/template/spec"));
        let mut pods = 0;
        for spec in images {
            pods += 1;
            let image = spec["containers"][0]["image"].as_str().unwrap_or_default();
            ensure!(image.starts_with("registry.example/ballast:"), "{image}");
            ensure!(
                spec["imagePullSecrets"] == json!([{"name": "pull"}]),
                "{spec}"
            );
        }
        ensure!(pods > 1, "{program}: {pods} pods");
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
