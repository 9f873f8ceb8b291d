//! What `lab build` prints while it builds. A `go` that never ends stands in for the compiler,
//! because a real first build takes minutes; `ballast_e2e`'s unit tests run the real one on a
//! small module. That lines come every 10 seconds is also a unit test, with a paused clock.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::SOON;

/// Reports two packages, builds one program, and waits until `lab` ends.
const GO: &str = "#!/bin/sh
echo k8s.io/api/core/v1 >&2
echo k8s.io/kubernetes/pkg/apis/core >&2
while [ $# -gt 0 ]; do
  [ \"$1\" = -o ] && : > \"$2/pause\"
  shift
done
while kill -0 $PPID 2>/dev/null; do sleep 0.2; done
";

#[tokio::test]
async fn a_first_build_says_what_is_built_and_what_is_left() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let go = folder.path().join("go");
    std::fs::write(&go, GO)?;
    std::fs::set_permissions(&go, std::fs::Permissions::from_mode(0o700))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [folder.path().to_owned()].into_iter();
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&path)))?;
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("build")
        .env("PATH", path)
        .env("BALLAST_CACHE", folder.path().join("cache"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(lab.stderr.take().context("no output")?).lines();
    let mut said = Vec::new();
    for _ in 0..3 {
        let line = timeout(SOON, lines.next_line());
        let line = line
            .await
            .with_context(|| format!("silence after {said:?}"))??;
        said.push(line.with_context(|| format!("it ended after {said:?}"))?);
    }
    lab.kill().await?;
    let first = said[0].contains("building 10 programs of Kubernetes");
    ensure!(first, "{said:?}");
    let left = "9 of 10 programs left: kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, kubelet, kubectl, etcd, coredns, agnhost";
    let now = "; 2 packages compiled, now k8s.io/kubernetes/pkg/apis/core";
    for line in &said[1..] {
        ensure!(line.ends_with(&format!("{left}{now}")), "{line}");
    }
    Ok(())
}
