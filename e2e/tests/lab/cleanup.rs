//! Whatever happens to a lab or to its owner, nothing of it is left after the next `lab down`.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};
use ballast_e2e::{Signal, eventually, state};

use super::SOON;
use super::traces::{processes, traces};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_a_killed_owner_or_supervisor() -> Result<()> {
    // Started on the command line, and its supervisor is killed.
    let program = env!("CARGO_BIN_EXE_lab");
    let name = "t-killed";
    let lab = |arguments: &[&str]| {
        Command::new(program)
            .args(arguments)
            .args(["--name", name])
            .status()
    };
    ensure!(lab(&["up", "--nodes", "1"])?.success());
    let state::Found::Running(record) = state::Place::new(name)?.find()? else {
        bail!("it does not run")
    };
    ensure!(processes(name).len() > 5, "{:?}", processes(name));
    let process = |pid: i32| nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(process(record.pid), Signal::SIGKILL)?;
    eventually(SOON, || async {
        if processes(name).is_empty() {
            Ok(())
        } else {
            bail!("{:?}", processes(name))
        }
    })
    .await?;
    eventually(SOON, || async {
        match state::Place::new(name)?.find()? {
            state::Found::Dead => Ok(()),
            other => bail!("{other:?}"),
        }
    })
    .await?;
    ensure!(
        Command::new(program)
            .args(["kubeconfig", "--name", name])
            .status()?
            .code()
            == Some(3)
    );
    // The next start needs no special treatment.
    ensure!(lab(&["up", "--nodes", "1"])?.success());
    ensure!(lab(&["down"])?.success());
    assert_eq!(traces(name), BTreeSet::new());

    // During its start, and its owner is killed.
    let mut up = Command::new(program);
    killed_when(up.args(["up", "--nodes", "1", "--name", name]), || {
        let log = state::Place::new(name)?
            .dir()
            .join("logs/kube-apiserver.log");
        ensure!(log.exists(), "the API server is not started yet");
        Ok(())
    })
    .await?;
    ensure!(lab(&["down"])?.success());
    assert_eq!(traces(name), BTreeSet::new());

    // While it runs, and the program that owns it is killed.
    let mut holder = Command::new(program);
    holder.args(["up", "--nodes", "1", "--name", name, "--foreground"]);
    killed_when(&mut holder, || match state::Place::new(name)?.find()? {
        state::Found::Running(record) if record.ready => Ok(()),
        other => bail!("{other:?}"),
    })
    .await?;
    ensure!(lab(&["down"])?.success());
    assert_eq!(traces(name), BTreeSet::new());
    Ok(())
}

/// Starts an owner, kills it as soon as the condition holds, and waits until its lab has ended.
async fn killed_when(owner: &mut Command, condition: impl Fn() -> Result<()>) -> Result<()> {
    let mut child = owner.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let held = eventually(SOON, || async { condition() }).await;
    child.kill()?;
    child.wait()?;
    held?;
    let left = || processes("t-killed");
    eventually(SOON, || async {
        ensure!(left().is_empty(), "{:?}", left());
        Ok(())
    })
    .await
}
