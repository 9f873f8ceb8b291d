//! Starts a supervisor and takes ownership of it: the first step of a lab and of a Docker host.
//!
//! Independent of labs. The supervisor runs while the returned connection is open; all processes
//! that it started end with it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::net::UnixStream;

use crate::control::{Control, Exit, ProcessSpec, Request};
use crate::eventually::eventually;
use crate::state::{Place, Record, start_time};
use crate::supervisor;

/// Starts a supervisor and takes ownership; completes the record with what is known only then.
/// The folder must contain `hosts`, `resolv.conf` and `logs`.
pub(crate) async fn supervise(
    place: &Place,
    target: SocketAddr,
    record: Record,
) -> Result<(Record, Control, UnixStream)> {
    let dir = place.dir();
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on the loopback")?;
    let port = listener.local_addr()?.port();
    let child = supervisor::launch(&program()?, &dir, listener, target)?;
    let pid = child.id().cast_signed();
    reap(child);
    let record = Record {
        pid,
        started: start_time(pid)
            .context("the supervisor ended at once; see logs/supervisor.log in the state folder")?,
        port,
        ..record
    };
    place.write(&record)?;
    let control = Control::new(&dir);
    let owner = eventually(Duration::from_secs(10), || control.own())
        .await
        .with_context(|| {
            let log = std::fs::read_to_string(dir.join("logs/supervisor.log")).unwrap_or_default();
            format!("the supervisor does not answer; its log: {log}")
        })?;
    Ok((record, control, owner))
}

/// The program that can run as a supervisor or as a job in a lab: this one, if it is `lab`, or
/// `lab` in its folder.
pub(crate) fn program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("BALLAST_LAB_PROGRAM") {
        return Ok(program.into());
    }
    let me = std::env::current_exe()?;
    if me.file_name().is_some_and(|name| name == "lab") {
        return Ok(me);
    }
    let folders = me.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join("lab")).find(|lab| lab.is_file()).ok_or_else(|| {
        anyhow!("the program `lab` is not beside {}; build it with `cargo build -p ballast-e2e --bin lab`", me.display())
    })
}

/// Reaps the child, so that it does not stay a zombie while this process runs.
fn reap(mut child: std::process::Child) {
    std::thread::spawn(move || child.wait());
}

pub(crate) async fn spawn(control: &Control, spec: ProcessSpec) -> Result<()> {
    control.call::<u32>(&Request::Spawn(spec)).await.map(drop)
}

/// An error for a process that has ended, with the last lines of its log.
pub(crate) fn ended(name: &str, exit: Exit, log: &str) -> anyhow::Error {
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(8)..].join("\n");
    anyhow!("{name} ended with {exit}; its last lines:\n{tail}")
}
