//! The chart's objects on a real API server: it accepts all of them without warnings, only the
//! mock cloud needs more than the restricted Pod Security Standard, and the policy that sets a
//! class works.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::{Helm, Lab, LabOptions, Progress, eventually};
use serde_json::Value;

use crate::common::{SOON, service_yaml};

/// The value sets in charts/ballast/ci, and whether they include a mock cloud.
const SETS: [(&str, bool); 4] = [
    ("default", false),
    ("kind", true),
    ("bare-metal", false),
    ("everything", true),
];
/// Its pods comply with the restricted standard.
const RESTRICTED: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: restricted, labels: {
  pod-security.kubernetes.io/enforce: restricted, pod-security.kubernetes.io/warn: restricted}}}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_takes_every_object() -> Result<()> {
    let helm = Helm::ensure(Progress::new(true))?;
    let lab = Lab::start(LabOptions {
        name: "t-chart".to_owned(),
        nodes: 1,
        progress: false,
        ..LabOptions::default()
    })
    .await?;
    let result = async {
        definitions(&lab, &helm).await?;
        for (set, mock_cloud) in SETS {
            every_object(&lab, &helm, set, mock_cloud).await?;
        }
        names_that_yaml_misreads(&lab, &helm).await?;
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

/// Under the restricted standard, only the mock cloud may cause a warning.
async fn every_object(lab: &Lab, helm: &Helm, set: &str, mock_cloud: bool) -> Result<()> {
    let values = format!("charts/ballast/ci/{set}-values.yaml");
    let rendered = helm.template("ballast", "restricted", &["--values", &values])?;
    let output = kubectl_apply(lab, &rendered, &["--dry-run=server"]).await?;
    let (text, errors) = texts(&output);
    ensure!(output.status.success(), "{set}: {text}{errors}");
    let taken = text
        .lines()
        .filter(|line| line.ends_with("(server dry run)"));
    let asked = rendered.lines().filter(|line| line.starts_with("kind: "));
    let (taken, asked) = (taken.count(), asked.count());
    ensure!(
        taken == asked && asked > 10,
        "{set}: {taken} of {asked} objects:\n{text}"
    );
    let warnings: Vec<_> = errors.lines().filter(|it| !it.trim().is_empty()).collect();
    println!("{set}: {taken} objects, {warnings:?}");
    match warnings.as_slice() {
        [] if !mock_cloud => Ok(()),
        [one] if mock_cloud => {
            let expected = [
                "host namespaces (hostNetwork=true)",
                "container \"mock-cloud\" must not include \"NET_ADMIN\", \"NET_RAW\" in securityContext.capabilities.add",
                "runAsUser=0",
            ];
            let missing = expected.iter().find(|it| !one.contains(**it));
            ensure!(missing.is_none(), "{set}: not \"{missing:?}\": {one}");
            Ok(())
        }
        _ => bail!("{set}: {warnings:#?}"),
    }
}

/// Valid names that YAML parses as something else: the API server accepts all objects, and so
/// does kustomize.
async fn names_that_yaml_misreads(lab: &Lab, helm: &Helm) -> Result<()> {
    lab.kubectl(&["create", "namespace", "2024"]).await?;
    let values = ["--values", "charts/ballast/ci/hostile-values.yaml"];
    let flags = [&values[..], &["--kube-version", "1.36.0"]].concat();
    let rendered = helm.template("2024", "2024", &flags)?;
    let output = kubectl_apply(lab, &rendered, &["--dry-run=server"]).await?;
    let (text, errors) = texts(&output);
    ensure!(output.status.success(), "{text}{errors}");
    let asked = rendered.lines().filter(|line| line.starts_with("kind: "));
    let taken = text
        .lines()
        .filter(|line| line.ends_with("(server dry run)"));
    let (taken, asked) = (taken.count(), asked.count());
    ensure!(taken == asked && asked > 30, "{taken} of {asked}:\n{text}");

    // Kustomize drops the quotes of a numeric key of annotations, and then fails to read it.
    let flags = [&flags[..], &["--set", "commonAnnotations.8=null"]].concat();
    let rendered = helm.template("2024", "2024", &flags)?;
    let folder = lab.dir().join("kustomize");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("chart.yaml"), &rendered)?;
    std::fs::write(folder.join("kustomization.yaml"), "resources: [chart.yaml]")?;
    let folder = folder.display().to_string();
    let built = lab.kubectl(&["kustomize", &folder]).await?;
    let built = built.lines().filter(|line| line.starts_with("kind: "));
    let built = built.count();
    ensure!(built == asked, "kustomize has {built} of {asked} objects");
    Ok(())
}

async fn kubectl_apply(lab: &Lab, yaml: &str, flags: &[&str]) -> Result<Output> {
    let file: PathBuf = lab.dir().join("chart.yaml");
    std::fs::write(&file, yaml)?;
    let output = tokio::process::Command::new(lab.program("kubectl"))
        .arg("--kubeconfig")
        .arg(lab.kubeconfig())
        .args(["apply", "--server-side", "--validate=strict", "-f"])
        .arg(&file)
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
    let mock = [
        "--set",
        "classes.local.mock.enabled=true",
        "--dry-run=server",
    ];
    let said = helm.on(lab, &[&install[..], &mock[..]].concat()).await;
    let error = said.err().context("it is let through")?.to_string();
    let helps = "kubectl label namespace restricted pod-security.kubernetes.io/enforce=privileged --overwrite";
    ensure!(error.contains(helps), "{error}");
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
