//! The traces of a lab on the machine: processes, mounts, namespaces, cgroups, folders.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ballast_e2e::state;

/// All cgroups, mounts and processes of the machine that contain the name of a lab.
pub(crate) fn traces(name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let dir = state::Place::new(name).unwrap().dir();
    let text = dir.to_string_lossy().into_owned();
    if dir.exists() {
        found.insert(format!("folder {text}"));
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    found.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&text))
            .map(|line| format!("mount {line}")),
    );
    for line in mounts.lines().filter(|line| line.contains(" cgroup")) {
        let cgroup = Path::new(line.split(' ').nth(1).unwrap())
            .join("ballast-lab")
            .join(name);
        if cgroup.exists() {
            found.insert(format!("cgroup {}", cgroup.display()));
        }
    }
    found.extend(
        processes(name)
            .into_iter()
            .map(|pid| format!("process {pid}")),
    );
    found
}

/// Processes in the network namespaces of a lab: those with its name in their command line or
/// cgroup.
pub(crate) fn processes(name: &str) -> Vec<i32> {
    let dir = state::Place::new(name).unwrap().dir();
    let text = format!("{}/", dir.display());
    let mut found = Vec::new();
    for pid in processes_of_all() {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', "/ ");
        let cgroup =
            String::from_utf8_lossy(&read("cgroup")).contains(&format!(":/ballast-lab/{name}/"));
        if line.contains(&text) || cgroup {
            found.push(pid);
        }
    }
    found
}

/// The network namespaces of these processes' threads.
pub(crate) fn namespaces(processes: &[i32]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for pid in processes {
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            found.extend(std::fs::read_link(task.path().join("ns/net")));
        }
    }
    found
}

pub(crate) fn processes_of_all() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
