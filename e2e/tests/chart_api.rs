//! The chart's objects on a real API server: it accepts all of them without warnings, whatever
//! the names and whichever key has no value; only the mock cloud and the announcers need more than
//! the restricted Pod Security Standard, and the policy that sets a class works.

#[path = "chart/renders.rs"]
mod renders;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::{Helm, Lab, LabOptions, Progress, eventually};
use serde_json::Value;

use crate::common::{SOON, service_yaml};
use renders::{REFUSED, WORDS, hostile, nested_nulls, nulls, render, sets, strict, values};

/// The value sets in charts/ballast/ci, and their containers on the host network.
const SETS: [(&str, &[&str]); 4] = [
    ("default", &[]),
    ("kind", &[MOCK_CLOUD]),
    ("bare-metal", &[ANNOUNCER]),
    ("everything", &[ANNOUNCER, MOCK_CLOUD]),
];
/// What the restricted standard says of the two containers.
const MOCK_CLOUD: &str = "container \"mock-cloud\" must not include \"NET_ADMIN\", \"NET_RAW\" in securityContext.capabilities.add";
const ANNOUNCER: &str =
    "container \"announcer\" must not include \"NET_RAW\" in securityContext.capabilities.add";
/// Its pods comply with the restricted standard.
const RESTRICTED: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: restricted, labels: {
  pod-security.kubernetes.io/enforce: restricted, pod-security.kubernetes.io/warn: restricted}}}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_takes_every_object() -> Result<()> {
    let helm = Helm::ensure(Progress::new(true))?;
    let rendering = {
        let helm = helm.clone();
        tokio::task::spawn_blocking(move || all_renderings(&helm))
    };
    let lab = Lab::start(LabOptions {
        name: "t-chart".to_owned(),
        nodes: 1,
        progress: false,
        ..LabOptions::default()
    })
    .await?;
    let result = async {
        definitions(&lab, &helm).await?;
        for (set, on_host) in SETS {
            every_object(&lab, &helm, set, on_host).await?;
        }
        whatever_the_values(&lab, &rendering.await??).await?;
        kustomize_takes_hostile_names(&lab, &helm).await?;
        the_host_network_is_refused_clearly(&lab, &helm).await?;
        a_class_is_stamped(&lab, &helm).await
    }
    .await;
    let result = lab.explain(result).await;
    lab.down().await?;
    result
}

/// The CRDs of Ballast and of the Prometheus Operator.
async fn definitions(lab: &Lab, helm: &Helm) -> Result<()> {
    lab.apply(&ballast_crds::yaml()?).await?;
    lab.apply(&helm.monitoring_crds()?).await?;
    lab.apply(RESTRICTED).await?;
    let wait = [
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=30s",
    ];
    lab.kubectl(&wait).await.map(drop)
}

/// Under the restricted standard, only containers on the host network may cause a warning.
async fn every_object(lab: &Lab, helm: &Helm, set: &str, on_host: &[&str]) -> Result<()> {
    let values = format!("charts/ballast/ci/{set}-values.yaml");
    let rendered = helm.template("ballast", "restricted", &["--values", &values])?;
    let output = kubectl_apply(lab, &rendered, &["--dry-run=server"]).await?;
    let (text, errors) = texts(&output);
    ensure!(output.status.success(), "{set}: {text}{errors}");
    let asked = rendered.lines().filter(|line| line.starts_with("kind: "));
    let (taken, asked) = (taken(&text), asked.count());
    ensure!(
        taken == asked && asked > 10,
        "{set}: {taken} of {asked} objects:\n{text}"
    );
    let warnings: Vec<_> = errors.lines().filter(|it| !it.trim().is_empty()).collect();
    println!("{set}: {taken} objects, {warnings:?}");
    ensure!(warnings.len() == on_host.len(), "{set}: {warnings:#?}");
    for capabilities in on_host {
        let expected = [
            capabilities,
            "host namespaces (hostNetwork=true)",
            "runAsUser=0",
        ];
        let said = |one: &&&str| expected.iter().all(|it| one.contains(it));
        ensure!(
            warnings.iter().filter(said).count() == 1,
            "{set}: not {expected:?}: {warnings:#?}"
        );
    }
    Ok(())
}

/// Every key without a value and hostile names in every place, with Helm 4 and Helm 3: each
/// different object, and one of the renderings that contain it. Most renderings differ in few
/// objects.
fn all_renderings(helm: &Helm) -> Result<BTreeMap<String, String>> {
    let start = Instant::now();
    let cases = [sets(), nulls()?, nested_nulls(), hostile()?].concat();
    let mut different = BTreeMap::new();
    for (case, output) in cases.iter().zip(render(helm, &cases)?) {
        if REFUSED.contains(&case.about.as_str()) {
            continue;
        }
        for object in strict(&output).with_context(|| case.title())? {
            different.insert(object.to_string(), case.title());
        }
    }
    let (renderings, objects) = (cases.len(), different.len());
    println!(
        "{renderings} renderings in {:?}: {objects} different objects",
        start.elapsed()
    );
    ensure!(objects > 300, "only {objects} different objects");
    Ok(different)
}

async fn whatever_the_values(lab: &Lab, different: &BTreeMap<String, String>) -> Result<()> {
    for namespace in WORDS.iter().chain(&["2024", "shop"]) {
        lab.kubectl(&["create", "namespace", namespace]).await?;
    }
    let folder = lab.dir().join("whatever");
    std::fs::create_dir_all(&folder)?;
    for (number, (object, title)) in different.iter().enumerate() {
        let file = format!("{title}, {number}.json").replace('/', "_");
        std::fs::write(folder.join(file), object)?;
    }
    let start = Instant::now();
    let output = apply(lab, &folder, &["--dry-run=server"]).await?;
    let (text, errors) = texts(&output);
    ensure!(output.status.success(), "{errors}");
    ensure!(taken(&text) == different.len(), "{} objects", taken(&text));
    println!("sent in {:?}", start.elapsed());
    Ok(())
}

/// And its output is the same to the API server. A key of an annotation that YAML parses as a
/// number, a date, a boolean or nothing is the exception: kustomize drops the quotes of the keys of
/// `metadata.annotations` and then fails to read its own text
/// (<https://github.com/kubernetes-sigs/kustomize/issues/4928>), also in a file that is not ours.
/// docs/gitops.md tells the users.
async fn kustomize_takes_hostile_names(lab: &Lab, helm: &Helm) -> Result<()> {
    let foreign =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: foreign, annotations: {\"8\": a}}}";
    let refused = kustomize(lab, foreign).await;
    let error = format!(
        "{:#}",
        refused
            .err()
            .context("kustomize is mended: remove the exception")?
    );
    ensure!(
        error.contains("unsupported type: map[interface {}]interface {}"),
        "{error}"
    );

    let hostile = values("hostile");
    let flags = ["--values", &hostile, "--kube-version", "1.36.0"];
    let flags = [&flags[..], &["--set", "commonAnnotations.8=null"]].concat();
    let rendered = helm.template("2024", "2024", &flags)?;
    let asked = rendered.lines().filter(|line| line.starts_with("kind: "));
    let asked = asked.count();
    let built = kustomize(lab, &rendered).await?;
    let output = kubectl_apply(lab, &built, &["--dry-run=server"]).await?;
    let (text, errors) = texts(&output);
    let taken = taken(&text);
    ensure!(output.status.success(), "{text}{errors}");
    ensure!(taken == asked && asked > 30, "{taken} of {asked}:\n{text}");
    Ok(())
}

async fn kustomize(lab: &Lab, yaml: &str) -> Result<String> {
    let folder = lab.dir().join("kustomize");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("chart.yaml"), yaml)?;
    std::fs::write(folder.join("kustomization.yaml"), "resources: [chart.yaml]")?;
    lab.kubectl(&["kustomize", &folder.display().to_string()])
        .await
}

/// The number of objects that a dry run accepted.
fn taken(text: &str) -> usize {
    let taken = text
        .lines()
        .filter(|line| line.ends_with("(server dry run)"));
    taken.count()
}

async fn kubectl_apply(lab: &Lab, yaml: &str, flags: &[&str]) -> Result<Output> {
    let file: PathBuf = lab.dir().join("chart.yaml");
    std::fs::write(&file, yaml)?;
    apply(lab, &file, flags).await
}

/// Applies a file, or all files of a folder.
async fn apply(lab: &Lab, file: &Path, flags: &[&str]) -> Result<Output> {
    let output = tokio::process::Command::new(lab.program("kubectl"))
        .arg("--kubeconfig")
        .arg(lab.kubeconfig())
        .args(["apply", "--server-side", "--validate=strict", "-f"])
        .arg(file)
        .args(flags)
        .output();
    output.await.context("kubectl does not run")
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Refused before anything is created, with the command that helps.
async fn the_host_network_is_refused_clearly(lab: &Lab, helm: &Helm) -> Result<()> {
    let chart = Helm::chart().display().to_string();
    let install = ["install", "ballast", &chart, "--namespace", "restricted"];
    for on_host in [
        "classes.local.mock.enabled=true",
        "classes.metal.l2.interfaces={eth0}",
    ] {
        let flags = ["--set", on_host, "--dry-run=server"];
        let said = helm.on(lab, &[&install[..], &flags[..]].concat()).await;
        let error = said.err().context("it is let through")?.to_string();
        let helps = "kubectl label namespace restricted pod-security.kubernetes.io/enforce=privileged --overwrite";
        ensure!(error.contains(helps), "{error}");
    }
    helm.on(lab, &[&install[..], &["--dry-run=server"]].concat())
        .await
        .context("the rest may run there")
        .map(drop)
}

async fn a_class_is_stamped(lab: &Lab, helm: &Helm) -> Result<()> {
    let flags = ["--show-only", "templates/stampclass.yaml", "--set"];
    let on = "stampClass.enabled=true,stampClass.class=edge";
    let rendered = helm.template("ballast", "restricted", &[&flags[..], &[on]].concat())?;
    lab.apply(&rendered).await?;
    let spec = "type: LoadBalancer, ports: [{port: 80}]";
    eventually(SOON, || async {
        lab.apply(&service_yaml("plain", "", spec)).await?;
        let class = class_of(lab, "plain").await?;
        if class != "ballast.dev/edge" {
            lab.kubectl(&["delete", "service", "plain"]).await?;
            bail!("the class is {class:?}: the policy is not there yet");
        }
        Ok(())
    })
    .await?;
    // A Service that names a class keeps it; one of another type gets none until it becomes a
    // load balancer.
    let named = format!("{spec}, loadBalancerClass: example.com/own");
    lab.apply(&service_yaml("named", "", &named)).await?;
    lab.apply(&service_yaml("internal", "", "ports: [{port: 80}]"))
        .await?;
    ensure!(class_of(lab, "named").await? == "example.com/own");
    ensure!(class_of(lab, "internal").await?.is_empty());
    let becomes = r#"{"spec":{"type":"LoadBalancer"}}"#;
    lab.kubectl(&["patch", "service", "internal", "-p", becomes])
        .await?;
    ensure!(class_of(lab, "internal").await? == "ballast.dev/edge");
    // Later changes are accepted.
    lab.apply(&service_yaml("plain", "a: b", spec)).await?;
    ensure!(class_of(lab, "plain").await? == "ballast.dev/edge");
    Ok(())
}

async fn class_of(lab: &Lab, service: &str) -> Result<String> {
    let text = lab
        .kubectl(&["get", "service", service, "-o", "json"])
        .await?;
    let service: Value = serde_json::from_str(&text)?;
    let class = service["spec"]["loadBalancerClass"].as_str();
    Ok(class.unwrap_or_default().to_owned())
}
