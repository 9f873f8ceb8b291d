//! The machine's own Docker: whether it works and can get kind's node image.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::control::{Exit, Output};

/// The default node image of kind 0.33.
pub(super) const NODE_IMAGE: &str = "kindest/node:v1.37.0";

const LOOK_TIME: Duration = Duration::from_secs(5);
/// Enough time for a registry to confirm that it has the image.
const ASK_TIME: Duration = Duration::from_secs(15);
/// Enough time to pull it.
const PULL_TIME: Duration = Duration::from_mins(5);

/// Why the machine's Docker cannot be used; `None` if it can.
pub(super) async fn refuses() -> Option<String> {
    let works = |argv: &'static [&'static str], time| async move {
        run(argv, &[], "", time).await.and_then(Output::ok)
    };
    if let Err(error) = works(&["docker", "info"], LOOK_TIME).await {
        return Some(format!("no working Docker ({})", first_line(&error)));
    }
    if works(&["docker", "image", "inspect", NODE_IMAGE], LOOK_TIME)
        .await
        .is_ok()
    {
        return None;
    }
    if let Err(error) = works(&["docker", "manifest", "inspect", NODE_IMAGE], ASK_TIME).await {
        return Some(format!(
            "Docker cannot get {NODE_IMAGE} ({})",
            first_line(&error)
        ));
    }
    works(&["docker", "pull", "--quiet", NODE_IMAGE], PULL_TIME)
        .await
        .err()
        .map(|error| {
            format!(
                "Docker could not pull {NODE_IMAGE} ({})",
                first_line(&error)
            )
        })
}

fn first_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    line.unwrap_or_default().trim().to_owned()
}

/// Runs a command of the machine until it ends or times out.
pub(super) async fn run(
    argv: &[&str],
    env: &[(String, String)],
    stdin: &str,
    time: Duration,
) -> Result<Output> {
    use std::os::unix::process::ExitStatusExt;
    use tokio::io::AsyncWriteExt;

    let (program, arguments) = argv.split_first().context("no command given")?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let input = child.stdin.take();
    let talk = async {
        if let Some(mut input) = input {
            // A command may end without reading its input; that is not an error.
            let _ = input.write_all(stdin.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let Ok(said) = tokio::time::timeout(time, talk).await else {
        let exit = Exit {
            code: None,
            signal: Some(9),
        };
        return Ok(Output {
            exit,
            stdout: String::new(),
            stderr: format!("no answer within {} s", time.as_secs()),
            timed_out: true,
        });
    };
    let said = said?;
    Ok(Output {
        exit: Exit {
            code: said.status.code(),
            signal: said.status.signal(),
        },
        stdout: String::from_utf8_lossy(&said.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&said.stderr).into_owned(),
        timed_out: false,
    })
}
