//! The files in `examples/`: their syntax, what an API server says to the objects, and the programs,
//! run as far as they can be without the clouds that they are for. Command lines of `ballast` in them
//! are parsed in `controller/src/args/examples.rs`; `kind-delete` runs in `kind.rs`.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use ballast_e2e::{Lab, documents, eventually, root};
use serde_json::{Value, json};

use crate::common::{OF_CLASS, Plan, SOON, Site, load_balancer};

const GROUP: &str = "hooks.runtime.cluster.x-k8s.io/v1alpha1";

fn example(path: &str) -> PathBuf {
    root().join("examples").join(path)
}

fn read(path: &str) -> Result<String> {
    let path = example(path);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    format!("{}: {out}{err}", output.status)
}

#[test]
fn scripts_and_programs_can_be_read() -> Result<()> {
    for script in ["kind/kind-delete", "eksctl/eksctl-delete"] {
        let output = Command::new("bash")
            .arg("-n")
            .arg(example(script))
            .output()?;
        ensure!(output.status.success(), "{script}: {}", said(&output));
        let mode = std::fs::metadata(example(script))?.permissions().mode();
        ensure!(mode & 0o111 == 0o111, "{script} is not executable");
    }
    let recipe = documents(&read("ci/orphans.yaml")?)?;
    let recipe = recipe.first().context("empty")?;
    let steps = |job: &str| recipe["jobs"][job]["steps"].as_array().map_or(0, Vec::len);
    ensure!((steps("test"), steps("orphans")) == (4, 2), "{recipe}");
    Ok(())
}

/// Programs in the places of eksctl and ballast, which write down how they were called.
struct StandIns {
    folder: tempfile::TempDir,
}

impl StandIns {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for name in ["eksctl", "ballast"] {
            let path = folder.path().join(name);
            let text = format!(
                "#!/bin/sh\necho {name} \"$@\" ${{KUBECONFIG:+with $(cat $KUBECONFIG)}} >>{0}/calls\n\
                 [ \"$1\" != utils ] || echo the-kubeconfig >\"$8\"\n\
                 [ \"$1\" != teardown ] || exit ${{TEARDOWN:-0}}\n",
                folder.path().display()
            );
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { folder })
    }

    /// Runs the script. Returns whether it succeeded, and the calls.
    fn run(&self, variables: &[(&str, &str)]) -> Result<(bool, Vec<String>)> {
        let calls = self.folder.path().join("calls");
        let _ = std::fs::remove_file(&calls);
        let path = format!("{}:/usr/bin:/bin", self.folder.path().display());
        let output = Command::new(example("eksctl/eksctl-delete"))
            .args(["shop", "eu-central-1"])
            .env_clear()
            .env("PATH", path)
            .envs(variables.iter().copied())
            .output()?;
        let calls = std::fs::read_to_string(calls).with_context(|| said(&output))?;
        let calls = calls.lines().map(str::to_owned).collect();
        Ok((output.status.success(), calls))
    }
}

#[test]
fn the_script_for_eksctl_tears_down_first_and_stops_if_that_fails() -> Result<()> {
    let stand_ins = StandIns::new()?;
    let teardown = "ballast teardown --wait --yes --timeout 15m --reason eksctl delete cluster --lease-namespace ballast-system with the-kubeconfig";
    let delete = "eksctl delete cluster --name shop --region eu-central-1 --wait";
    let orphans = "ballast orphans --region eu-central-1 --cluster shop";
    for (variables, succeeds, expected) in [
        (&[][..], true, &[teardown, delete, orphans][..]),
        (&[("TEARDOWN", "5")], false, &[teardown]),
        (
            &[("TEARDOWN", "5"), ("FORCE", "1")],
            true,
            &[teardown, delete, orphans],
        ),
    ] {
        let (succeeded, calls) = stand_ins.run(variables)?;
        let (first, rest) = calls.split_first().context("no calls")?;
        let kubeconfig =
            "eksctl utils write-kubeconfig --cluster shop --region eu-central-1 --kubeconfig /tmp/";
        ensure!(first.starts_with(kubeconfig), "{calls:#?}");
        ensure!(
            rest == expected && succeeded == succeeds,
            "{variables:?}: {calls:#?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_takes_the_objects_and_cluster_api_can_ask_for_a_teardown() -> Result<()> {
    Plan {
        nodes: 1,
        ..Plan::new("t-examples")
    }
    .run(async |site| {
        accepted(site.lab, "cron/orphans.yaml", "ballast-orphans", 0).await?;
        let others = ["cert-manager.io/", "runtime.cluster.x-k8s.io/"];
        accepted(
            site.lab,
            "cluster-api/extension.yaml",
            "ballast-capi",
            others.len() + 1,
        )
        .await?;
        cluster_api(site).await
    })
    .await
}

/// A dry run of the API server accepts the objects. So many are of kinds that it does not know.
async fn accepted(lab: &Lab, file: &str, namespace: &str, unknown: usize) -> Result<()> {
    lab.kubectl(&["create", "namespace", namespace]).await?;
    let text = read(file)?;
    let all: Vec<Value> = documents(&text)?;
    let (others, ours): (Vec<Value>, Vec<Value>) = all.into_iter().partition(|it| {
        let version = it["apiVersion"].as_str().unwrap_or_default();
        version.starts_with("cert-manager.io/") || version.starts_with("runtime.cluster.x-k8s.io/")
    });
    ensure!(others.len() == unknown && ours.len() >= 2, "{others:?}");
    let folder = tempfile::tempdir()?;
    let objects = folder.path().join("objects.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": ours});
    std::fs::write(&objects, list.to_string())?;
    let path = objects.display().to_string();
    let apply = [
        "apply",
        "--server-side",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        &path,
    ];
    let said = lab.kubectl(&apply).await?;
    ensure!(said.lines().count() == ours.len(), "{said}");
    Ok(())
}

/// A program that ends with this value.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The Runtime Extension, with the lab as management cluster and as workload cluster.
async fn cluster_api(site: &Site<'_>) -> Result<()> {
    let spec = format!("{OF_CLASS}, selector: {{app: web}}, ports: [{{port: 80}}]");
    site.apply(&load_balancer("web", &spec)).await?;
    site.programmed("web").await?;
    let config = site.lab.kubeconfig().display().to_string();
    let value = format!("--from-file=value={config}");
    let secret = ["create", "secret", "generic", "shop-kubeconfig", &value];
    site.lab.kubectl(&secret).await?;
    // The API of the management cluster, without credentials.
    let mut proxy = Command::new(site.lab.program("kubectl"));
    proxy.args(["--kubeconfig", &config, "proxy", "--port=0"]);
    let (_proxy, management) = serves(&mut proxy)?;
    let binary = ballast_e2e::installation::binary()?;
    let programs = binary.parent().context("no folder")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut server = Command::new("python3");
    server
        .arg(example("cluster-api/before_cluster_delete.py"))
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("CERTIFICATES", "")
        .env("PORT", "0")
        .env("MANAGEMENT_API", format!("http://{management}"));
    let (_server, port) = serves(&mut server)?;
    let url = format!("http://127.0.0.1:{port}/{GROUP}");
    discovered(&url).await?;

    // Cluster API asks again and again.
    let hook = format!("{url}/beforeclusterdelete/ballast-teardown");
    let first = ask(&hook, &deletion("shop", &json!({}))).await?;
    ensure!(first["retryAfterSeconds"] == 10, "{first}");
    ensure!(first["kind"] == "BeforeClusterDeleteResponse", "{first}");
    let last = eventually(SOON, || async {
        let answer = ask(&hook, &deletion("shop", &json!({}))).await?;
        ensure!(answer["status"] == "Success", "{answer}");
        ensure!(answer["retryAfterSeconds"].is_null(), "{answer}");
        Ok(answer)
    })
    .await?;
    ensure!(
        last["message"] == "all load balancers are released",
        "{last}"
    );
    let left = site.ballast.load_balancers().await?;
    ensure!(left.is_empty(), "{left:?}");
    // One that never ran, and one that somebody gives up.
    let skip = json!({"examples.ballast.dev/skip-teardown": "true"});
    for (name, annotations) in [("never-ran", json!({})), ("shop", skip)] {
        let answer = ask(&hook, &deletion(name, &annotations)).await?;
        ensure!(answer["status"] == "Success", "{answer}");
        ensure!(answer["retryAfterSeconds"].is_null(), "{answer}");
    }
    Ok(())
}

async fn discovered(url: &str) -> Result<()> {
    let request = json!({"apiVersion": GROUP, "kind": "DiscoveryRequest"});
    let said = ask(&format!("{url}/discovery"), &request).await?;
    let expected = json!([{
        "name": "ballast-teardown",
        "requestHook": {"apiVersion": GROUP, "hook": "BeforeClusterDelete"},
        "timeoutSeconds": 10,
        "failurePolicy": "Fail",
    }]);
    ensure!(said["handlers"] == expected, "{said}");
    Ok(())
}

/// The request of Cluster API.
fn deletion(name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": GROUP, "kind": "BeforeClusterDeleteRequest", "settings": {},
        "cluster": {
            "apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Cluster",
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "annotations": annotations},
        },
    })
}

async fn ask(url: &str, request: &Value) -> Result<Value> {
    let body = request.to_string();
    let curl = tokio::process::Command::new("curl")
        .args(["-gsSf", "--noproxy", "*", "--max-time", "10", "-d", &body])
        .args(["-H", "Content-Type: application/json", url])
        .output()
        .await?;
    ensure!(curl.status.success(), "{url}: {}", said(&curl));
    Ok(serde_json::from_slice(&curl.stdout)?)
}

/// Starts a server whose first line ends with where it listens.
fn serves(command: &mut Command) -> Result<(Running, String)> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take();
    let running = Running(child);
    let mut line = String::new();
    BufReader::new(out.context("no output")?).read_line(&mut line)?;
    let last = line.trim().rsplit(' ').next().context("no address")?;
    Ok((running, last.to_owned()))
}

#[test]
fn every_example_is_in_the_documentation() -> Result<()> {
    let docs = std::fs::read_to_string(root().join("docs/no-orphans.md"))?;
    let mut files = vec![];
    list(&root().join("examples"), &mut files)?;
    ensure!(files.len() >= 7, "{files:?}");
    for file in files {
        let name = file.strip_prefix(root())?.display().to_string();
        ensure!(
            docs.contains(&format!("](../{name})")),
            "no word of {name} in docs/no-orphans.md"
        );
        let text = std::fs::read_to_string(&file)?;
        let tried = text.lines().any(|line| line.contains("Tried: "))
            || text.lines().any(|line| line.contains("Not tried: "));
        ensure!(tried, "{name} does not say how it was tried");
    }
    Ok(())
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
