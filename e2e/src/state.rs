//! The traces of a lab, or of a Docker host of our own, on the machine: one folder, one lock
//! file, cgroups. Nothing else can outlive its process 1, because the kernel ends everything
//! else with it.
//!
//! A process is killed only if both its id *and* its start time are as recorded.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::net::Families;
use crate::options::ProxyMode;
use crate::supervisor::SCRATCH;

/// Where labs have their state: the folder below [`STATE`], unless the variable names another.
const LABS: (&str, &str) = ("ballast-lab", "BALLAST_LAB_DIR");
/// The same for Docker hosts.
const DOCKER_HOSTS: (&str, &str) = ("ballast-kind", "BALLAST_KIND_DIR");
const STATE: &str = "/var/lib";

/// The record of a lab's start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Record {
    /// Process 1 of the lab, as seen from the machine.
    pub pid: i32,
    /// When that process started, in the kernel's ticks: ids are reused.
    pub started: u64,
    /// The loopback port of the API server.
    pub port: u16,
    /// The IP families of nodes, pods and Services.
    pub families: Families,
    /// The mode of kube-proxy.
    pub proxy: ProxyMode,
    /// The folder of its binaries and images.
    pub cache: PathBuf,
    /// Whether it ends with the process that started it.
    pub owned: bool,
    /// Whether its start is complete.
    pub ready: bool,
}

/// The state folder of one lab, or of one Docker host.
#[derive(Debug, Clone)]
pub struct Place {
    name: String,
    root: PathBuf,
    /// `ballast-lab` or `ballast-kind`: the parent of its cgroup.
    family: &'static str,
}

/// What exists under a lab's name.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Remains of a lab that has ended.
    Dead,
    /// A running lab.
    Running(Record),
}

impl Place {
    /// The place of the lab of that name.
    pub fn new(name: &str) -> Result<Self> {
        Self::of(LABS, name)
    }

    /// The place of the Docker host of that name.
    pub fn docker_host(name: &str) -> Result<Self> {
        Self::of(DOCKER_HOSTS, name)
    }

    fn of((family, variable): (&'static str, &str), name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 32 || !name.chars().all(fits) || name.starts_with('-') {
            bail!(
                "a name here has up to 32 lower-case letters, digits and dashes, which {name:?} has not"
            );
        }
        let root = root(family, variable);
        if SCRATCH.iter().any(|hidden| root.starts_with(hidden)) {
            bail!(
                "{variable} cannot be below {}: labs have their own",
                SCRATCH.join(" or ")
            );
        }
        // The path of a Unix socket has at most 107 bytes.
        if root.as_os_str().len() > 60 {
            bail!(
                "{variable}={} is too long for sockets below it; choose a shorter one",
                root.display()
            );
        }
        Ok(Self {
            name: name.to_owned(),
            root,
            family,
        })
    }

    /// The name of the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab's folder.
    pub fn dir(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// The lab's cgroup, as a path within each hierarchy.
    pub fn cgroup(&self) -> String {
        format!("/{}/{}", self.family, self.name)
    }

    /// Prevents other processes from starting or ending a lab of this name.
    pub fn lock(&self) -> Result<File> {
        std::fs::create_dir_all(&self.root).with_context(|| {
            format!(
                "cannot make {}; this needs root, or another folder (BALLAST_LAB_DIR, BALLAST_KIND_DIR)",
                self.root.display()
            )
        })?;
        let file = File::create(self.root.join(format!("{}.lock", self.name)))?;
        let give_up = Instant::now() + Duration::from_mins(2);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::WouldBlock) => bail!(
                    "another process has been starting or ending {} for 2 min",
                    self.name
                ),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
    }

    /// Records a lab.
    pub fn write(&self, record: &Record) -> Result<()> {
        let (path, new) = (self.dir().join("lab.json"), self.dir().join("lab.json.new"));
        std::fs::write(&new, serde_json::to_vec_pretty(record)?)?;
        std::fs::rename(new, path)?;
        Ok(())
    }

    /// The present state.
    pub fn find(&self) -> Result<Found> {
        if !self.dir().exists() {
            return Ok(Found::Nothing);
        }
        let Ok(text) = std::fs::read(self.dir().join("lab.json")) else {
            return Ok(Found::Dead);
        };
        let record: Record = serde_json::from_slice(&text).with_context(|| {
            format!(
                "{}/lab.json is not readable; remove that folder",
                self.dir().display()
            )
        })?;
        Ok(if lives(record.pid, record.started) {
            Found::Running(record)
        } else {
            Found::Dead
        })
    }

    /// Ends what runs there; its folder stays.
    pub fn end(&self) -> Result<()> {
        if let Found::Running(record) = self.find()? {
            end(record.pid, record.started)?;
        }
        remove_cgroups(&self.cgroup())
    }

    /// Ends what runs there and removes everything. Returns whether there was anything.
    pub fn destroy(&self) -> Result<bool> {
        let there = !matches!(self.find()?, Found::Nothing);
        self.end()?;
        if there {
            std::fs::remove_dir_all(self.dir())
                .with_context(|| format!("cannot remove {}", self.dir().display()))?;
        }
        Ok(there)
    }
}

/// All labs with a folder.
pub fn all() -> Result<Vec<Place>> {
    all_of(LABS)
}

/// All Docker hosts with a folder.
pub fn docker_hosts() -> Result<Vec<Place>> {
    all_of(DOCKER_HOSTS)
}

fn all_of(what: (&'static str, &str)) -> Result<Vec<Place>> {
    let Ok(entries) = std::fs::read_dir(root(what.0, what.1)) else {
        return Ok(vec![]);
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.iter().map(|name| Place::of(what, name)).collect()
}

/// When a process started; `None` if it does not exist or is a zombie.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses can contain anything; fields are counted after it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        None
    } else {
        fields.nth(18)?.parse().ok()
    }
}

fn lives(pid: i32, started: u64) -> bool {
    start_time(pid) == Some(started)
}

/// Kills a lab's process 1. The kernel ends all others before it is gone.
fn end(pid: i32, started: u64) -> Result<()> {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    let give_up = Instant::now() + Duration::from_secs(30);
    while lives(pid, started) {
        if Instant::now() > give_up {
            bail!("process {pid} does not end; some process of the lab hangs in the kernel");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn root(family: &str, variable: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| Path::new(STATE).join(family), PathBuf::from)
}

/// Removes a cgroup from every hierarchy, with everything below it and an empty parent.
fn remove_cgroups(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let dir = hierarchy.join(path.trim_start_matches('/'));
        if !dir.exists() {
            continue;
        }
        let give_up = Instant::now() + Duration::from_secs(5);
        // A cgroup stays busy for a moment after its last process has ended.
        while let Err(error) = remove_tree(&dir) {
            if Instant::now() > give_up {
                bail!("cannot remove the cgroup {}: {error}", dir.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(parent) = dir.parent() {
            // Other labs may have theirs in it.
            let _ = std::fs::remove_dir(parent);
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(dir)
}

pub(crate) fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let is_cgroup = |line: &&str| {
        line.split(' ')
            .nth(2)
            .is_some_and(|kind| kind.starts_with("cgroup"))
    };
    Ok(mounts
        .lines()
        .filter(is_cgroup)
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_itself_and_no_one_else() {
        let me = std::process::id().cast_signed();
        let started = start_time(me).unwrap();
        assert!(lives(me, started));
        assert!(!lives(me, started + 1));
    }

    #[test]
    fn names_that_could_escape_are_refused() {
        for name in [
            "",
            "..",
            "a/b",
            "Upper",
            "-x",
            "far-too-long-a-name-for-a-socket-path",
        ] {
            assert!(Place::new(name).is_err(), "{name}");
        }
        assert!(Place::new("t1").is_ok());
    }
}
