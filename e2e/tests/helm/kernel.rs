//! The kernel's view of processes in pods, compared with their manifests.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;

/// Bits of capabilities, by their names in manifests.
const CAPABILITIES: [(&str, u32); 3] =
    [("NET_BIND_SERVICE", 10), ("NET_ADMIN", 12), ("NET_RAW", 13)];

/// Fields of `/proc/PID/status`.
pub(crate) type Status = BTreeMap<String, String>;

/// Checks that the process of a pod's first container has exactly the user and the capabilities
/// of the manifest.
pub(crate) fn is_as_written(pod: &Pod) -> Result<()> {
    let status = process(pod).with_context(|| format!("no process runs of {:?}", pod.metadata))?;
    root_is_read_only(&status)?;
    fits(pod, &status)
}

/// The root of a process's file system.
fn root_is_read_only(status: &Status) -> Result<()> {
    let pid = status.get("Pid").context("no pid")?;
    let mounts = read(&Path::new("/proc").join(pid), "mountinfo");
    let mut roots = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(4);
        (words.next() == Some("/")).then(|| words.next().unwrap_or_default())
    });
    let options = roots.next_back().context("no root")?;
    let read_only = options.split(',').any(|it| it == "ro");
    ensure!(read_only, "the root is mounted {options}");
    Ok(())
}

/// The same, for a status that was read before.
pub(crate) fn fits(pod: &Pod, status: &Status) -> Result<()> {
    let spec = pod.spec.as_ref().context("no spec")?;
    let container = spec.containers.first().context("no container")?;
    let own = container.security_context.as_ref().context("no context")?;
    let of_pod = spec.security_context.as_ref();
    let user = own.run_as_user.or(of_pod.and_then(|it| it.run_as_user));
    let granted = own.capabilities.as_ref().and_then(|it| it.add.as_deref());
    let mut mask = 0u64;
    for name in granted.unwrap_or_default() {
        let found = CAPABILITIES.iter().find(|(known, _)| known == name);
        mask |= 1 << found.with_context(|| format!("unknown {name}"))?.1;
    }
    let field = |name: &str| status.get(name).map(String::as_str).unwrap_or_default();
    let who = format!("{}: {status:?}", container.name);
    let user = user.context("no user")?.to_string();
    ensure!(
        field("Uid").split_whitespace().all(|it| it == user),
        "{who}"
    );
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let found = u64::from_str_radix(field(set), 16)?;
        ensure!(found == mask, "{set} is {found:x}, not {mask:x}: {who}");
    }
    for set in ["CapInh", "CapAmb"] {
        ensure!(
            field(set).trim_start_matches('0').is_empty(),
            "{set}: {who}"
        );
    }
    ensure!(
        field("NoNewPrivs") == "1" && field("Seccomp") == "2",
        "{who}"
    );
    println!("{}: user {user}, capabilities {mask:#x}", container.name);
    Ok(())
}

/// The status of `ballast` in this pod, if it runs.
pub(crate) fn process(pod: &Pod) -> Option<Status> {
    let uid = pod.metadata.uid.as_deref()?;
    let marks = [uid.to_owned(), uid.replace('-', "_")];
    let mut processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.find_map(|entry| {
        let dir = entry.path();
        let command = read(&dir, "cmdline");
        // Probes are short, and are no process of the pod.
        let mut words = command.split('\0');
        let is_ours = matches!(words.next(), Some("/ballast" | "/ballast-announcer"));
        if !is_ours || words.next() == Some("probe") {
            return None;
        }
        let cgroup = read(&dir, "cgroup");
        let lines = read(&dir, "status");
        // The last one, because it may end between two reads.
        let is_there = marks.iter().any(|mark| cgroup.contains(mark));
        let fields = lines.lines().filter_map(|line| line.split_once(':'));
        (is_there && lines.contains("CapEff")).then(|| {
            fields
                .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
                .collect()
        })
    })
}

fn read(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap_or_default()
}
