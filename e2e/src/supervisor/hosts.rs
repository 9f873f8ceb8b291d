//! A host is a thread that has left the supervisor's namespaces for its own.
//!
//! All actions on a host run on its thread, and processes that it starts inherit the thread's
//! namespaces: no `setns`, no names under `/run/netns`. From outside, `lab exec` finds the
//! namespaces by the thread's name (`h:HOST`).

use std::path::Path;
use std::sync::mpsc;

use anyhow::{Context, Result, anyhow};
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use tokio::sync::oneshot;

use super::cgroups::mount_sys;
use super::{bind, mount_fs, propagate};
use crate::control::HostSpec;

type Job = Box<dyn FnOnce() + Send>;

/// A handle to a host's thread. The thread ends with the last handle.
#[derive(Debug, Clone)]
pub(super) struct Host {
    jobs: mpsc::Sender<Job>,
}

/// The name of a host's thread, as `/proc/PID/task/TID/comm` shows it (15 bytes at most).
pub(crate) fn thread_name(host: &str) -> String {
    format!("h:{host}").chars().take(15).collect()
}

impl Host {
    /// The supervisor's own namespaces.
    pub(super) fn hub() -> Result<Self> {
        start("hub")
    }

    /// A new host, with its mounts and kernel settings but without links.
    pub(super) async fn create(spec: &HostSpec) -> Result<Self> {
        let host = start(&spec.name)?;
        let spec = spec.clone();
        host.run(move || enter(&spec)).await??;
        Ok(host)
    }

    /// Runs a function on the host's thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (answer, result) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let job = move || {
            // The runtime waits for processes started here.
            let _inside = runtime.enter();
            let _ = answer.send(job());
        };
        self.jobs
            .send(Box::new(job))
            .map_err(|_| anyhow!("the host is gone"))?;
        result
            .await
            .context("the host's thread did not finish its job")
    }
}

fn start(name: &str) -> Result<Host> {
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name(thread_name(name))
        .spawn(move || {
            while let Ok(job) = queue.recv() {
                job();
            }
        })?;
    Ok(Host { jobs })
}

fn enter(spec: &HostSpec) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
    // Separate from the other hosts, but shared within: kubelet's mounts must reach pods.
    propagate("/", MsFlags::MS_PRIVATE)?;
    mount_sys(&spec.cgroup, Path::new("/run/lock"))?;
    for path in &spec.scratch {
        std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        mount_fs("tmpfs", &path.to_string_lossy())?;
    }
    for (what, at) in &spec.binds {
        for path in [what, at] {
            std::fs::create_dir_all(path)
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        bind(what, at)?;
    }
    std::fs::create_dir_all("/run/netns")?;
    propagate("/", MsFlags::MS_SHARED)?;
    std::fs::write("/proc/sys/kernel/hostname", &spec.name)?;
    for (key, value) in &spec.sysctls {
        std::fs::write(Path::new("/proc/sys").join(key), value)
            .with_context(|| format!("cannot set /proc/sys/{key} to {value}"))?;
    }
    Ok(())
}
