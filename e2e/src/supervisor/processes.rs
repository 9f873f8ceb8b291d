//! The processes of a lab: start, signals, wait. None is restarted without a request.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::hosts::Host;
use crate::control::{ExecSpec, Exit, Output, ProcessSpec, ProcessStatus};

/// All processes by name, including ended ones.
#[derive(Debug)]
pub(super) struct Processes {
    logs: PathBuf,
    by_name: Mutex<BTreeMap<String, Process>>,
}

#[derive(Debug, Clone)]
struct Process {
    spec: ProcessSpec,
    pid: u32,
    exit: watch::Receiver<Option<Exit>>,
}

impl Processes {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            logs: dir.join("logs"),
            by_name: Mutex::default(),
        }
    }

    pub(super) async fn spawn(&self, host: &Host, spec: ProcessSpec) -> Result<u32> {
        if self
            .get(&spec.name)
            .is_ok_and(|process| process.exit.borrow().is_none())
        {
            bail!("{} runs already", spec.name);
        }
        let mut command = command(&spec.argv)?;
        command.envs(&spec.env);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.logs.join(format!("{}.log", spec.name)))?;
        command
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null());
        let mut child = spawn_on(host, command, &spec.argv).await?;
        let pid = child.id().unwrap_or_default();
        let (ended, exit) = watch::channel(None);
        let name = spec.name.clone();
        tokio::spawn(async move {
            let exit = child.wait().await.map_or(
                Exit {
                    code: None,
                    signal: None,
                },
                exit_of,
            );
            println!("{name} ended: {exit}");
            ended.send_replace(Some(exit));
        });
        self.lock()
            .insert(spec.name.clone(), Process { spec, pid, exit });
        Ok(pid)
    }

    pub(super) fn spec(&self, name: &str) -> Result<ProcessSpec> {
        Ok(self.get(name)?.spec)
    }

    pub(super) fn kill(&self, name: &str, signal: i32) -> Result<()> {
        let process = self.get(name)?;
        if let Some(exit) = *process.exit.borrow() {
            bail!("{name} does not run: it ended with {exit}");
        }
        kill(
            Pid::from_raw(process.pid.cast_signed()),
            Signal::try_from(signal)?,
        )?;
        Ok(())
    }

    pub(super) async fn wait(&self, name: &str, timeout: Duration) -> Result<Exit> {
        let mut process = self.get(name)?;
        let ended = tokio::time::timeout(timeout, process.exit.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(exit)) => exit.ok_or_else(|| anyhow!("{name} ended in an unknown way")),
            Ok(Err(_)) => bail!("{name} is not watched any more"),
            Err(_) => bail!("{name} still runs after {} s", timeout.as_secs_f32()),
        }
    }

    pub(super) fn forget_host(&self, host: &str) {
        self.lock().retain(|_, process| process.spec.host != host);
    }

    pub(super) fn status(&self) -> Vec<ProcessStatus> {
        let status = |process: &Process| ProcessStatus {
            spec: process.spec.clone(),
            pid: process.pid,
            exit: *process.exit.borrow(),
        };
        self.lock().values().map(status).collect()
    }

    fn get(&self, name: &str) -> Result<Process> {
        let known = self.lock();
        known.get(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            anyhow!(
                "no process is called {name}; there are: {}",
                names.join(", ")
            )
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Process>> {
        self.by_name
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Runs a command until it ends or times out.
pub(super) async fn exec(host: &Host, spec: &ExecSpec) -> Result<Output> {
    let mut command = command(&spec.argv)?;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn_on(host, command, &spec.argv).await?;
    let group = Pid::from_raw(child.id().unwrap_or_default().cast_signed());
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = spec.stdin.clone();
    // A command may end without reading its input; that is not an error.
    let write = async move {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let talk = async { tokio::join!(write, read(stdout), read(stderr)) };
    tokio::pin!(talk);
    let limit = tokio::time::sleep(Duration::from_millis(spec.timeout_ms));
    let (timed_out, ((), out, err)) = tokio::select! {
        said = &mut talk => (false, said),
        () = limit => {
            let _ = killpg(group, Signal::SIGKILL);
            (true, talk.await)
        }
    };
    let exit = exit_of(child.wait().await?);
    Ok(Output {
        exit,
        stdout: out,
        stderr: err,
        timed_out,
    })
}

async fn read(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = stream.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn command(argv: &[String]) -> Result<Command> {
    let (program, arguments) = argv.split_first().context("no command given")?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).current_dir("/");
    Ok(command)
}

async fn spawn_on(host: &Host, mut command: Command, argv: &[String]) -> Result<Child> {
    let program = argv.first().cloned().unwrap_or_default();
    host.run(move || command.spawn())
        .await?
        .with_context(|| format!("cannot start {program}"))
}

fn exit_of(status: ExitStatus) -> Exit {
    Exit {
        code: status.code(),
        signal: status.signal(),
    }
}
