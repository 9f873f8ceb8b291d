//! Values that often break charts: keys without a value, names that YAML parses as something
//! else, and values that a parent chart sets. Rendered with Helm 4 and Helm 3.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, ensure};
use ballast_e2e::Helm;
use serde_json::{Value, json};

use super::helm;
use super::renders::{
    Case, HELMS, REFUSED, hostile, nested, nested_nulls, nulls, paths, render, schema, sets,
    strict, template, values,
};

#[test]
fn every_set_is_rendered_by_both_versions_of_helm() -> Result<()> {
    without_values(&sets())
}

#[test]
fn every_key_may_be_without_a_value() -> Result<()> {
    without_values(&nulls()?)
}

/// The keys of what users name themselves: classes and pools.
#[test]
fn every_key_of_a_class_or_pool_may_be_without_a_value() -> Result<()> {
    let tried: BTreeSet<Vec<String>> = paths(&nested()).into_iter().collect();
    let schema = schema()?;
    for (definition, place) in [("class", "classes"), ("pool", "pools")] {
        for path in properties(&schema, &schema["definitions"][definition]) {
            let is_tried = tried
                .iter()
                .any(|it| it[0] == place && it.get(2..) == Some(&path[..]));
            ensure!(is_tried, "{place}: no entry has {}", path.join("."));
        }
    }
    without_values(&nested_nulls())
}

/// All properties of a schema, as paths; `0` is the first entry of a list.
fn properties(root: &Value, schema: &Value) -> Vec<Vec<String>> {
    if let Some(reference) = schema["$ref"].as_str() {
        let definition = root.pointer(reference.trim_start_matches('#'));
        return properties(root, definition.unwrap_or(&Value::Null));
    }
    let mut all = Vec::new();
    let fields = schema["properties"].as_object().into_iter().flatten();
    for (key, property) in fields {
        all.push(vec![key.clone()]);
        all.extend(below(key, properties(root, property)));
    }
    if let Some(items) = schema.get("items") {
        all.extend(below("0", properties(root, items)));
    }
    all
}

fn below(key: &str, paths: Vec<Vec<String>>) -> impl Iterator<Item = Vec<String>> {
    paths
        .into_iter()
        .map(move |path| [vec![key.to_owned()], path].concat())
}

/// A key without a value gets its default, is off, or is refused by name.
fn without_values(cases: &[Case]) -> Result<()> {
    let helm = helm()?;
    let mut failed = Vec::new();
    for (case, output) in cases.iter().zip(render(&helm, cases)?) {
        let told = if REFUSED.contains(&case.about.as_str()) {
            let said = String::from_utf8_lossy(&output.stderr);
            let key = case.about.rsplit('.').next().unwrap_or_default();
            let named = !output.status.success() && said.contains(key);
            named
                .then_some(())
                .ok_or_else(|| format!("it is not refused by name: {said}"))
        } else {
            strict(&output)
                .map(drop)
                .map_err(|error| format!("{error:#}"))
        };
        failed.extend(told.err().map(|error| format!("{}: {error}", case.title())));
    }
    ensure!(failed.is_empty(), "{failed:#?}");
    Ok(())
}

/// The same names as a real API server gets in `chart_api`.
#[test]
fn hostile_names_are_strings() -> Result<()> {
    let (helm, cases) = (helm()?, hostile()?);
    for (case, output) in cases.iter().zip(render(&helm, &cases)?) {
        let objects = strict(&output).map_err(|error| error.context(case.title()))?;
        let kinds: BTreeSet<&str> = objects
            .iter()
            .filter_map(|it| it["kind"].as_str())
            .collect();
        ensure!(kinds.len() > 15, "{}: only {kinds:?}", case.title());
        let text = Value::from(objects).to_string();
        let times = text.matches(&format!("\"{}\"", case.about)).count();
        ensure!(times > 100, "{}: only {times} times", case.title());
    }
    Ok(())
}

#[test]
fn a_section_without_a_value_has_its_defaults() -> Result<()> {
    let helm = helm()?;
    for program in HELMS {
        let on = "classes.local.mock.enabled=true,classes.metal.l2.interfaces={eth0}";
        let base = ["--set", on];
        let expected = template(&helm, program, "shop", &base)?.stdout;
        for section in [
            "announcer",
            "announcer.gossip",
            "announcer.serviceAccount",
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
