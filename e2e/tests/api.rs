//! The API types on a real API server: what it accepts, what it refuses and with which message,
//! what it prints, and who may write what.
//!
//! `manifests/classes` and `manifests/pools` have folders `good` and `bad` with one object per
//! file. A bad one begins with `# refused: ` and the text that the API server must report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_crds::{AddressPool, LoadBalancerClass};
use ballast_e2e::eventually;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::common::{CLASS, OF_CLASS, Plan, SOON, Site, load_balancer};

#[tokio::test(flavor = "multi_thread")]
async fn the_api_on_a_real_api_server() -> Result<()> {
    let plan = Plan {
        nodes: 1,
        controllers: 0,
        class: None,
        ..Plan::new("t-api")
    };
    plan.run(async |site| {
        printed_crds_are_the_committed_ones()?;
        for (folder, resource) in [("classes", "lbclass"), ("pools", "lbpool")] {
            good_ones_are_taken(site, folder, resource).await?;
            bad_ones_are_refused(site, folder, resource).await?;
        }
        status_has_its_own_door(site).await?;
        // Before the controller starts, because it also writes the status of pools.
        pools_say_what_matters(site).await?;
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

/// All examples in a folder, by file name.
fn examples(folder: &str, kind: &str) -> Result<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("manifests")
        .join(folder)
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

async fn good_ones_are_taken(site: &Site<'_>, folder: &str, resource: &str) -> Result<()> {
    for (file, yaml) in examples(folder, "good")? {
        site.apply(&yaml)
            .await
            .with_context(|| format!("{folder}/good/{file}"))?;
    }
    site.lab
        .kubectl(&["delete", resource, "--all", "--timeout=60s"])
        .await
        .map(drop)
}

async fn bad_ones_are_refused(site: &Site<'_>, folder: &str, resource: &str) -> Result<()> {
    for (file, yaml) in examples(folder, "bad")? {
        let (first, _) = yaml.split_once('\n').unwrap_or_default();
        let words = first
            .strip_prefix("# refused: ")
            .with_context(|| format!("{folder}/bad/{file} does not say how it is refused"))?;
        let answer = site.apply(&yaml).await;
        let error = answer
            .err()
            .with_context(|| format!("{folder}/bad/{file} was taken"))?;
        let error = format!("{error:#}");
        ensure!(error.contains(words), "{folder}/bad/{file}: {error}");
    }
    let left = site.lab.kubectl(&["get", resource, "-o", "name"]).await?;
    ensure!(left.trim().is_empty(), "{left}");
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

/// The output of `kubectl get lbclass`, by column.
async fn columns_say_what_matters(site: &Site<'_>) -> Result<()> {
    site.ballast.start_controller("ballast-1", &[]).await?;
    let spec = format!("{OF_CLASS}, ports: [{{port: 80}}]");
    site.apply(&load_balancer("web", &spec)).await?;
    site.programmed("web").await?;
    let columns = [
        "NAME",
        "PROVIDER",
        "DEFAULT",
        "LOAD BALANCERS",
        "ACCEPTED",
        "READY",
        "AGE",
    ];
    let cells = [CLASS, "mock", "true", "1", "Accepted", "True"];
    eventually(SOON, || shows(site, "lbclass", &columns, &cells)).await?;
    let all = site.lab.kubectl(&["get", "ballast", "-o", "name"]).await?;
    ensure!(all.trim() == "loadbalancerclass.ballast.dev/local", "{all}");
    explains(
        site,
        "lbclass.spec.mock.endpoint",
        "The URL of the mock cloud's API",
    )
    .await
}

/// The output of `kubectl get lbpool`, by column, after the controller has written the status.
async fn pools_say_what_matters(site: &Site<'_>) -> Result<()> {
    site.apply("apiVersion: ballast.dev/v1alpha1\nkind: AddressPool\nmetadata: {name: office}\nspec: {addresses: [192.0.2.0/24, \"2001:db8::/64\"], autoAssign: false}\n")
        .await?;
    let api: Api<AddressPool> = Api::all(site.lab.kube());
    let made = api.get("office").await?;
    ensure!(made.status.is_none(), "{made:?}");
    ensure!(
        Duration::from(made.spec.reuse_after) == Duration::from_mins(2) && made.spec.priority == 0,
        "not the defaults: {made:?}"
    );
    let status = json!({
        "total": "256 + 2^64", "used": "3", "free": "251 + 2^64",
        "ipv4": {"total": 256, "assigned": 2, "available": 252},
        "ipv6": {"total": i64::MAX, "assigned": 1, "available": i64::MAX},
        "next": ["192.0.2.3", "2001:db8::2"],
        "resting": [{"address": "192.0.2.9", "until": "2026-01-01T00:00:00Z"}],
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    });
    let patch = Patch::Merge(json!({"status": status}));
    let written = api
        .patch_status("office", &PatchParams::default(), &patch)
        .await?;
    let kept = serde_json::to_value(written.status)?;
    ensure!(kept == status, "{kept} is not what was written: {status}");
    let columns = ["NAME", "TOTAL", "USED", "FREE", "AUTO", "ACCEPTED", "AGE"];
    let cells = [
        "office",
        "256 + 2^64",
        "3",
        "251 + 2^64",
        "false",
        "Accepted",
    ];
    shows(site, "lbpool", &columns, &cells).await?;
    explains(
        site,
        "lbpool.spec.edges",
        "edges of networks are not assigned",
    )
    .await?;
    site.lab
        .kubectl(&["delete", "lbpool", "office", "--timeout=20s"])
        .await
        .map(drop)
}

/// The columns of `kubectl get`, and the cells of its first row; the last is an age.
async fn shows(site: &Site<'_>, resource: &str, columns: &[&str], cells: &[&str]) -> Result<()> {
    let table = site.lab.kubectl(&["get", resource]).await?;
    let mut lines = table.lines().map(|line| {
        line.split("   ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect::<Vec<_>>()
    });
    let header = lines.next().unwrap_or_default();
    ensure!(header == columns, "{table}");
    let row = lines.next().unwrap_or_default();
    ensure!(
        row.len() == columns.len() && row[..cells.len()] == *cells,
        "{table}"
    );
    Ok(())
}

async fn explains(site: &Site<'_>, field: &str, words: &str) -> Result<()> {
    let help = site.lab.kubectl(&["explain", field]).await?;
    ensure!(help.contains(words), "{help}");
    Ok(())
}
