//! The process that holds a lab: it owns every namespace, mount and process in it.
//!
//! `lab up` starts [`init`] as process 1 of new PID, mount, network, UTS and IPC namespaces;
//! `init` starts [`supervise`] and reaps children. When either of them ends, for whatever
//! reason, the kernel ends everything in the lab: processes, containers, mounts, links. The
//! supervisor restarts nothing and knows nothing about Kubernetes.

mod cgroups;
mod hosts;
mod processes;
mod server;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

pub(crate) use hosts::thread_name;

/// The hidden subcommands of `lab` that run these.
pub(crate) const INIT: &str = "supervisor-init";
pub(crate) const SUPERVISE: &str = "supervisor";

/// Folders in which daemons create files with fixed names. The lab has its own, empty ones.
pub(crate) const SCRATCH: [&str; 2] = ["/run", "/var/log"];

/// A proxy of the machine cannot be reached from within a lab, so its variables are removed.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

/// Starts a lab's process 1. `listener` is bound outside and passed on as its standard input,
/// so a port of the machine leads into a namespace without an uplink.
pub(crate) fn launch(
    program: &Path,
    dir: &Path,
    listener: std::net::TcpListener,
    target: SocketAddr,
) -> Result<std::process::Child> {
    let log = std::fs::File::create(dir.join("logs/supervisor.log"))?;
    let mut command = Command::new(program);
    command
        .arg(INIT)
        .arg(dir)
        .arg(target.to_string())
        .stdin(std::os::fd::OwnedFd::from(listener))
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .env("PATH", path());
    for variable in PROXIES {
        command
            .env_remove(variable)
            .env_remove(variable.to_ascii_lowercase());
    }
    // unshare() affects only the calling thread, so a short-lived thread gives a child new
    // namespaces and keeps those of this process.
    let started = std::thread::spawn(move || -> Result<_> {
        unshare(
            CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWIPC,
        )
        .context("no permission to make namespaces; run the lab as root")?;
        command.spawn().context("the supervisor does not start")
    });
    started
        .join()
        .unwrap_or_else(|_| bail!("the thread that starts the supervisor panicked"))
}

/// System programs are not in every user's PATH.
fn path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// Process 1: prepares the lab's view of the file system, runs the supervisor, reaps children.
pub fn init(dir: &Path, target: &str) -> Result<()> {
    mount_own_view(dir)?;
    let supervisor = Command::new("/proc/self/exe")
        .arg(SUPERVISE)
        .arg(dir)
        .arg(target)
        .spawn()?;
    let supervisor = Pid::from_raw(i32::try_from(supervisor.id())?);
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == supervisor => std::process::exit(code),
            Ok(WaitStatus::Signaled(pid, _, _)) if pid == supervisor => std::process::exit(1),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => bail!("cannot wait for the supervisor: {error}"),
        }
    }
}

fn mount_own_view(dir: &Path) -> Result<()> {
    propagate("/", MsFlags::MS_PRIVATE)?;
    mount_fs("proc", "/proc")?;
    for path in SCRATCH {
        mount_fs("tmpfs", path)?;
    }
    for path in ["/run/netns", "/run/lock"] {
        std::fs::create_dir_all(path)?;
    }
    // The lab's own names, and no name server: a query must fail at once, not time out.
    bind(&dir.join("hosts"), Path::new("/etc/hosts"))?;
    bind(&dir.join("resolv.conf"), Path::new("/etc/resolv.conf"))?;
    Ok(())
}

/// The supervisor. Its standard input is the listener that was passed to [`launch`].
pub fn supervise(dir: &Path, target: &str) -> Result<()> {
    let listener = std::net::TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let target: SocketAddr = target.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(server::run(PathBuf::from(dir), listener, target))
}

fn propagate(path: &str, how: MsFlags) -> Result<()> {
    mount(
        None::<&str>,
        path,
        None::<&str>,
        how | MsFlags::MS_REC,
        None::<&str>,
    )
    .with_context(|| format!("cannot change the propagation of {path}"))
}

fn mount_fs(kind: &str, path: &str) -> Result<()> {
    mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount a {kind} on {path}"))
}

fn bind(what: &Path, at: &Path) -> Result<()> {
    mount(
        Some(what),
        at,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .with_context(|| format!("cannot mount {} on {}", what.display(), at.display()))
}
