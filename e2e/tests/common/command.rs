//! The commands for people, run as users run them: the built binary with a kubeconfig.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_e2e::installation::binary;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

const TIME: Duration = Duration::from_mins(1);

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The binary with the kubeconfig of one user, or without a cluster.
#[derive(Debug)]
pub(crate) struct Ballast {
    kubeconfig: Option<PathBuf>,
    time: Duration,
}

// === impl Ballast ===

impl Ballast {
    pub(crate) fn of(kubeconfig: &Path) -> Self {
        Self {
            kubeconfig: Some(kubeconfig.to_owned()),
            time: TIME,
        }
    }

    /// For a command that takes longer than others.
    pub(crate) fn within(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// As on a new machine: no cluster, no settings.
    pub(crate) fn alone() -> Self {
        Self {
            kubeconfig: None,
            time: TIME,
        }
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<Said> {
        self.run_with(arguments, "").await
    }

    pub(crate) async fn run_with(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let mut command = Command::new(binary()?);
        command.args(arguments);
        self.finish(command, input).await
    }

    /// The same with any program, such as a kubectl that runs the binary as its plugin.
    pub(crate) async fn finish(&self, mut command: Command, input: &str) -> Result<Said> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let words = format!("{:?}", command.as_std());
        let set: Vec<_> = command
            .as_std()
            .get_envs()
            .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
            .collect();
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/nonexistent");
        command.envs(set);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{words} does not start"))?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        // A command may end without reading its input; that is not an error.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output = tokio::time::timeout(self.time, child.wait_with_output())
            .await
            .with_context(|| format!("{words} hangs"))??;
        Ok(Said {
            code: output.status.code(),
            out: String::from_utf8(output.stdout)?,
            err: String::from_utf8(output.stderr)?,
        })
    }

    /// Standard output of a command that succeeds.
    pub(crate) async fn out(&self, arguments: &[&str]) -> Result<String> {
        let said = self.run(arguments).await?;
        ensure!(said.code == Some(0), "ballast {arguments:?}: {said:?}");
        Ok(said.out)
    }
}

/// The help has examples, exit statuses, and no flag that does not exist.
pub(crate) async fn help_is_true(command: &[&str]) -> Result<()> {
    let mut arguments = command.to_vec();
    arguments.push("--help");
    let help = Ballast::alone().out(&arguments).await?;
    let (options, examples) = help
        .split_once("Examples:")
        .with_context(|| format!("no examples in {help}"))?;
    let called = format!("ballast {}", command.join(" "));
    ensure!(examples.contains("Exit status:\n  0  "), "{examples}");
    let mut shown = 0;
    for line in examples
        .lines()
        .filter(|line| line.trim().starts_with(&called))
    {
        shown += 1;
        let own = line.split('|').next().unwrap_or(line);
        for flag in own.split([' ', '=']).filter(|word| word.starts_with('-')) {
            ensure!(
                flag == "-"
                    || options.contains(&format!("{flag} "))
                    || options.contains(&format!("{flag},"))
                    || options.contains(&format!("{flag}\n")),
                "the example's {flag} does not exist in {options}"
            );
        }
    }
    ensure!(shown >= 2, "{shown} examples of {called} in {examples}");
    Ok(())
}
