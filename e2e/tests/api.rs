//! The API types on a real API server: what it takes, what it refuses and with which
//! words, what it prints, and who may write what.
//!
//! `manifests/classes/good` and `bad` hold one class per file; a bad one begins with
//! `# refused: ` and the words the API server must say.

mod common;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ballast_crds::LoadBalancerClass;
use ballast_e2e::eventually;
use common::{CLASS, OF_CLASS, Plan, SOON, Site, load_balancer};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn classes_on_a_real_api_server() -> Result<()> {
    let plan = Plan {
        nodes: 1,
        controllers: 0,
        class: None,
        ..Plan::new("t-api")
    };
    plan.run(async |site| {
        printed_crds_are_the_committed_ones()?;
        good_ones_are_taken(site).await?;
        bad_ones_are_refused(site).await?;
        status_has_its_own_door(site).await?;
        columns_say_what_matters(site).await
    })
    .await
}

/// The `ballast` binary that the tests run.
fn ballast() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BALLAST_BIN") {
        return Ok(path.into());
    }
    let me = std::env::current_exe()?;
    let beside = me.ancestors().skip(1).take(2);
    beside
        .map(|folder| folder.join("ballast"))
        .find(|path| path.is_file())
        .context("no ballast binary beside this test; build the workspace first")
}

fn printed_crds_are_the_committed_ones() -> Result<()> {
    let output = std::process::Command::new(ballast()?)
        .arg("crds")
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout)?;
    ensure!(
        printed == include_str!("../../crds/crds.yaml"),
        "`ballast crds` and crds/crds.yaml differ; run `make crds`"
    );
    Ok(())
}

/// Every example of a folder, by its file's name.
fn examples(kind: &str) -> Result<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("manifests/classes")
        .join(kind);
    let mut all = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        all.push((name.into_owned(), std::fs::read_to_string(&path)?));
    }
    ensure!(!all.is_empty(), "no examples in {}", folder.display());
    all.sort();
    Ok(all)
}

async fn good_ones_are_taken(site: &Site<'_>) -> Result<()> {
    for (file, yaml) in examples("good")? {
        site.apply(&yaml)
            .await
            .with_context(|| format!("good/{file}"))?;
    }
    site.lab
        .kubectl(&["delete", "lbclass", "--all", "--timeout=20s"])
        .await
        .map(drop)
}

async fn bad_ones_are_refused(site: &Site<'_>) -> Result<()> {
    for (file, yaml) in examples("bad")? {
        let (first, _) = yaml.split_once('\n').unwrap_or_default();
        let words = first
            .strip_prefix("# refused: ")
            .with_context(|| format!("bad/{file} does not say how it is refused"))?;
        let answer = site.apply(&yaml).await;
        let error = answer
            .err()
            .with_context(|| format!("bad/{file} was taken"))?;
        let error = format!("{error:#}");
        ensure!(error.contains(words), "bad/{file}: {error}");
    }
    let left = classes(site)
        .list(&kube::api::ListParams::default())
        .await?;
    ensure!(left.items.is_empty(), "{left:?}");
    Ok(())
}

fn classes(site: &Site<'_>) -> Api<LoadBalancerClass> {
    Api::all(site.lab.kube())
}

async fn status_has_its_own_door(site: &Site<'_>) -> Result<()> {
    let forged = json!({"provider": "forged", "loadBalancers": 7, "programmed": 7});
    let endpoint = site.ballast.endpoint();
    site.apply(&format!(
        "apiVersion: ballast.dev/v1alpha1\nkind: LoadBalancerClass\nmetadata: {{name: {CLASS}}}\nspec: {{mock: {{endpoint: \"{endpoint}\"}}}}\nstatus: {forged}\n"
    ))
    .await?;
    let api = classes(site);
    ensure!(
        api.get(CLASS).await?.status.is_none(),
        "created with a status"
    );
    let params = PatchParams::default();
    let patch = Patch::Merge(json!({"spec": {"default": true}, "status": forged}));
    let class = api.patch(CLASS, &params, &patch).await?;
    ensure!(class.status.is_none() && class.spec.default, "{class:?}");
    let patch = Patch::Merge(json!({"spec": {"default": false}, "status": forged}));
    let class = api.patch_status(CLASS, &params, &patch).await?;
    let status = class.status.context("no status")?;
    ensure!(status.provider.as_deref() == Some("forged") && class.spec.default);
    Ok(())
}

/// What `kubectl get lbclass` shows, by column.
async fn columns_say_what_matters(site: &Site<'_>) -> Result<()> {
    site.ballast.start_controller("ballast-1", &[]).await?;
    let spec = format!("{OF_CLASS}, ports: [{{port: 80}}]");
    site.apply(&load_balancer("web", &spec)).await?;
    site.programmed("web").await?;
    eventually(SOON, || async {
        let table = site.lab.kubectl(&["get", "lbclass"]).await?;
        let mut lines = table.lines();
        let header = lines.next().unwrap_or_default();
        let columns: Vec<&str> = header
            .split("   ")
            .map(str::trim)
            .filter(|it| !it.is_empty())
            .collect();
        ensure!(
            columns
                == [
                    "NAME",
                    "PROVIDER",
                    "DEFAULT",
                    "LOAD BALANCERS",
                    "ACCEPTED",
                    "READY",
                    "AGE"
                ],
            "{columns:?}"
        );
        let row: Vec<&str> = lines
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        ensure!(
            row.len() == 7 && row[..6] == [CLASS, "mock", "true", "1", "Accepted", "True"],
            "{table}"
        );
        Ok(())
    })
    .await?;
    let all = site.lab.kubectl(&["get", "ballast", "-o", "name"]).await?;
    ensure!(all.trim() == "loadbalancerclass.ballast.dev/local", "{all}");
    let help = site
        .lab
        .kubectl(&["explain", "lbclass.spec.mock.endpoint"])
        .await?;
    ensure!(
        help.contains("Where the mock cloud's API answers"),
        "{help}"
    );
    Ok(())
}
