//! The chart as files: what it renders, what it refuses, and whether the generated files are up
//! to date. It needs no cluster; `chart_api` sends the same objects to a real API server.

#[path = "chart/alerts.rs"]
mod alerts;
#[path = "chart/renders.rs"]
mod renders;
#[path = "chart/types.rs"]
mod types;
#[path = "chart/values.rs"]
mod values;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use ballast_e2e::{Helm, Progress, chart, documents};
use serde_json::Value;

use renders::{SETS, values};

fn helm() -> Result<Helm> {
    Helm::ensure(Progress::new(true))
}

fn render(set: &str) -> Result<String> {
    helm()?.template("ballast", "ballast-system", &["--values", &values(set)])
}

#[test]
fn helm_has_nothing_to_complain_of() -> Result<()> {
    let helm = helm()?;
    for set in SETS {
        let mut lint = helm.command("helm");
        lint.args([
            "lint",
            "--strict",
            "charts/ballast",
            "--values",
            &values(set),
        ]);
        passes(&lint.output()?, set)?;
    }
    let mut units = helm.command("helm-unittest");
    passes(
        &units.args(["--strict", "charts/ballast"]).output()?,
        "helm-unittest",
    )
}

fn passes(output: &Output, what: &str) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what}:\n{text}{errors}");
    Ok(())
}

/// The first things that a review of a chart change checks.
#[test]
fn what_it_renders() -> Result<()> {
    for set in SETS {
        let text = render(set)?;
        let documents = text.split("\n---\n").map(|document| {
            // The dashboard is a file of its own.
            let (head, _) = document.split_once(".json\": |-").unwrap_or((document, ""));
            head.trim_end()
        });
        insta::assert_snapshot!(set, documents.collect::<Vec<_>>().join("\n---\n"));
    }
    Ok(())
}

/// Argo CD renders the chart at each sync: output that differs is applied again and again, and
/// a Secret would change each time.
#[test]
fn it_renders_the_same_again_and_no_secret() -> Result<()> {
    for set in SETS {
        let first = render(set)?;
        ensure!(first == render(set)?, "{set} renders differently each time");
        for object in documents(&first)? {
            ensure!(object["kind"] != "Secret", "{set}: {object}");
        }
    }
    Ok(())
}

#[test]
fn what_is_made_from_it_is_up_to_date() -> Result<()> {
    for chart::Made { path, text } in chart::made(&helm()?)? {
        let file = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
        let found = std::fs::read_to_string(file).with_context(|| path.to_owned())?;
        ensure!(found == text, "{path} is out of date: run make chart");
    }
    Ok(())
}

/// Whatever announcers may write at all is compared with their node.
#[test]
fn what_announcers_may_write_is_restricted_to_their_node() -> Result<()> {
    let all = documents(&render("bare-metal")?)?;
    let named = |kind: &str| {
        let mut found = all
            .iter()
            .filter(move |it| it["kind"] == kind && it["metadata"]["name"] == "ballast-announcer");
        found.next().with_context(|| format!("no {kind}"))
    };
    let strings = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let policy = named("ValidatingAdmissionPolicy")?;
    let mut covered = BTreeSet::new();
    for rule in policy["spec"]["matchConstraints"]["resourceRules"]
        .as_array()
        .into_iter()
        .flatten()
    {
        for (group, resource) in pairs(&strings(&rule["apiGroups"]), &strings(&rule["resources"])) {
            for operation in strings(&rule["operations"]) {
                covered.insert((group.clone(), resource.clone(), operation));
            }
        }
    }
    let mut writes = 0;
    for role in [named("ClusterRole")?, named("Role")?] {
        for rule in role["rules"].as_array().into_iter().flatten() {
            let things = pairs(&strings(&rule["apiGroups"]), &strings(&rule["resources"]));
            for verb in strings(&rule["verbs"]) {
                // A patch of what does not exist creates it.
                let operations: &[&str] = match verb.as_str() {
                    "get" | "list" | "watch" => continue,
                    "create" => &["CREATE"],
                    "patch" => &["CREATE", "UPDATE"],
                    "update" => &["UPDATE"],
                    "delete" | "deletecollection" => &["DELETE"],
                    _ => anyhow::bail!("is {verb} a write?"),
                };
                for ((group, resource), operation) in pairs(&things, operations) {
                    writes += 1;
                    let write = (group, resource, operation.to_owned());
                    ensure!(covered.contains(&write), "nothing restricts {write:?}");
                }
            }
        }
    }
    ensure!(writes >= 7, "only {writes} writes");
    Ok(())
}

/// Everything of one list with everything of another.
fn pairs<A: Clone, B: Clone>(of: &[A], with: &[B]) -> Vec<(A, B)> {
    let all = of
        .iter()
        .flat_map(|a| with.iter().map(move |b| (a.clone(), b.clone())));
    all.collect()
}

/// The package contains only the chart's folder.
#[test]
fn links_of_its_readme_work_in_the_package() -> Result<()> {
    let readme = include_str!("../../charts/ballast/README.md");
    let links = readme.split("](").skip(1);
    let links: Vec<&str> = links.filter_map(|rest| rest.split(')').next()).collect();
    ensure!(links.len() > 3, "only {links:?}");
    for link in links {
        ensure!(
            link.starts_with("https://") || link.starts_with('#'),
            "{link}"
        );
    }
    Ok(())
}

#[test]
fn its_version_is_that_of_the_programs() -> Result<()> {
    let chart: Value = serde_saphyr::from_str(include_str!("../../charts/ballast/Chart.yaml"))?;
    for field in ["version", "appVersion"] {
        let found = chart[field].as_str();
        ensure!(
            found == Some(env!("CARGO_PKG_VERSION")),
            "{field}: {found:?}"
        );
    }
    Ok(())
}

#[test]
fn the_notes_say_what_to_do_next() -> Result<()> {
    let helm = helm()?;
    for (set, says, says_not) in [
        (
            "default",
            "helm upgrade ballast CHART -n shop --reset-then-reuse-values",
            "kubectl label namespace",
        ),
        (
            "kind",
            "kubectl label namespace shop pod-security.kubernetes.io/enforce=privileged",
            "There is no class",
        ),
        (
            "bare-metal",
            "\"loadBalancerClass\":\"ballast.dev/office\"",
            "first releases",
        ),
        (
            "bare-metal",
            "kubectl -n shop rollout status daemonset/ballast-announcer",
            "The mock cloud",
        ),
        (
            "bare-metal",
            "one of the nodes answers for it: kubectl get announcers",
            "NotAnnounced",
        ),
        (
            "bare-metal",
            "kubectl wait --for=condition=ballast.dev/Programmed service/web",
            "In this version",
        ),
        (
            "kind",
            "kubectl wait --for=condition=ballast.dev/Programmed service/web",
            "NotAnnounced",
        ),
        ("everything", "Classes: elsewhere, local, nlb", "WARNING"),
        ("hostile", "Classes: 100, 1e3, no, null", "WARNING"),
    ] {
        let mut install = helm.command("helm");
        install.args(["install", "ballast", "charts/ballast", "--dry-run=client"]);
        install.args(["--namespace", "shop", "--values", &values(set)]);
        let output = install.output()?;
        passes(&output, set)?;
        let text = String::from_utf8(output.stdout)?;
        let (_, notes) = text.split_once("NOTES:").context("no notes")?;
        ensure!(notes.contains(says), "{set} does not say {says}:\n{notes}");
        ensure!(!notes.contains(says_not), "{set} says {says_not}:\n{notes}");
    }
    let mut install = helm.command("helm");
    install.args(["install", "ballast", "charts/ballast", "--dry-run=client"]);
    let aws = "classes.local=null,classes.nlb.aws.region=eu-central-1";
    let output = install.args(["--set", aws]).output()?;
    passes(&output, "a class of AWS")?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.contains("docs/aws.md tells how"), "no rights:\n{text}");
    let mut install = helm.command("helm");
    install.args(["install", "ballast", "charts/ballast", "--dry-run=client"]);
    let defaults = "classes.local.mock.enabled=true,classes.metal.default=true,classes.metal.l2.interfaces={eth0}";
    let output = install.args(["--set", defaults]).output()?;
    passes(&output, "two default classes")?;
    let text = String::from_utf8(output.stdout)?;
    let warns = "WARNING: local, metal are all default classes";
    ensure!(
        text.contains(warns),
        "no warning of two default classes:\n{text}"
    );
    Ok(())
}

/// Names in alerts and in the dashboard exist in the controller's source.
#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist() -> Result<()> {
    let mut sources = String::new();
    read_sources(&ballast_e2e::root().join("controller/src"), &mut sources)?;
    let letters = |it: char| it == '_' || it.is_ascii_lowercase();
    let exist: BTreeSet<&str> = sources
        .split('"')
        .filter(|word| word.starts_with("ballast_") && word.chars().all(letters))
        .collect();
    let exists = |name: &str| {
        let ends = ["", "_total", "_bucket", "_sum", "_count", "_seconds"];
        let seconds = ["_seconds_bucket", "_seconds_sum", "_seconds_count"];
        let mut roots = ends.iter().chain(&seconds);
        roots.any(|end| {
            name.strip_suffix(end)
                .is_some_and(|root| exist.contains(root))
        })
    };
    let mut asked = BTreeSet::new();
    let rules = include_str!("../../charts/ballast/templates/monitoring/rules.yaml");
    let dashboard = include_str!("../../charts/ballast/dashboards/ballast.json");
    for text in [rules, dashboard] {
        asked.extend(names(text, "ballast_", |it| {
            it == '_' || it.is_ascii_lowercase()
        }));
    }
    ensure!(asked.len() > 10, "only {asked:?}");
    let unknown: Vec<_> = asked.iter().filter(|name| !exists(name)).collect();
    ensure!(unknown.is_empty(), "no such metrics: {unknown:?}");
    // And none is missing.
    let shown = |root: &&str| asked.iter().any(|name| name.starts_with(*root));
    let hidden: Vec<_> = exist.iter().filter(|root| !shown(root)).collect();
    ensure!(hidden.is_empty(), "nobody looks at {hidden:?}");
    Ok(())
}

/// All code in a folder, except that of tests.
fn read_sources(folder: &Path, text: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        match name {
            Some("tests.rs" | "tests") => {}
            _ if path.is_dir() => read_sources(&path, text)?,
            _ => text.push_str(&std::fs::read_to_string(&path)?),
        }
    }
    Ok(())
}

/// All words in a text with this prefix, made of these characters.
fn names<'t>(text: &'t str, prefix: &str, of: impl Fn(char) -> bool) -> BTreeSet<&'t str> {
    text.match_indices(prefix)
        .map(|(at, _)| {
            let rest = &text[at..];
            rest.split(|it| !of(it)).next().unwrap_or(rest)
        })
        .collect()
}

#[test]
fn every_alert_has_its_runbook() -> Result<()> {
    let rendered = helm()?.template(
        "ballast",
        "default",
        &["--set", "metrics.rules.enabled=true"],
    )?;
    let mut alerts = BTreeSet::new();
    for object in documents(&rendered)? {
        for rule in object["spec"]["groups"][0]["rules"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let alert = rule["alert"].as_str().context("no name")?.to_owned();
            let url = rule["annotations"]["runbook_url"]
                .as_str()
                .context("no link")?;
            let place = url.split_once('#').map(|(_, place)| place);
            ensure!(place == Some(&alert.to_lowercase()), "{alert}: {url}");
            alerts.insert(alert);
        }
    }
    let runbooks = include_str!("../../docs/runbooks.md");
    // The others are for problems without an alert.
    let sections: BTreeSet<String> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## ").map(str::to_owned))
        .filter(|section| section.starts_with("Ballast"))
        .collect();
    ensure!(
        alerts.len() >= 10 && alerts == sections,
        "{alerts:?}, described are {sections:?}"
    );
    Ok(())
}
