//! A host's own view of `/sys`: its interfaces, and under `/sys/fs/cgroup` a subtree of the
//! machine's cgroups. The daemons of a node create cgroups at the root of the hierarchy
//! (containerd has fixed names there). With this view they are in the lab's own subtree and are
//! removed with it.

use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use super::{bind, mount_fs};
use crate::state::hierarchies;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Mounts a `/sys` of the calling thread's network namespace. `cgroup` is the subtree to show;
/// the whole hierarchy if empty. `spare` is an empty folder for temporary use.
pub(super) fn mount_sys(cgroup: &str, spare: &Path) -> Result<()> {
    bind(Path::new(CGROUPS), spare)?;
    mount_fs("sysfs", "/sys")?;
    bind(spare, Path::new(CGROUPS))?;
    let subtree = cgroup.trim_start_matches('/');
    if !subtree.is_empty() {
        for hierarchy in hierarchies()? {
            make(&hierarchy, subtree)?;
        }
    }
    umount2(spare, MntFlags::MNT_DETACH)?;
    Ok(())
}

/// Creates a cgroup and its parents, so that children can use the controllers of the root.
fn make(hierarchy: &Path, subtree: &str) -> Result<()> {
    let mut dir = hierarchy.to_owned();
    for part in subtree.split('/') {
        let parent = dir.clone();
        dir.push(part);
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("cannot make the cgroup {}", dir.display()))?;
        // Version 1: a new cpuset is empty, and accepts processes only after it is set.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = std::fs::read_to_string(parent.join(file))
                && !value.trim().is_empty()
                && parent.join("cgroup.clone_children").exists()
            {
                std::fs::write(dir.join(file), value)?;
            }
        }
        // Version 2: controllers reach children only if the parent enables them.
        if let Ok(controllers) = std::fs::read_to_string(parent.join("cgroup.controllers")) {
            for controller in controllers.split_ascii_whitespace() {
                // Some are not available (for example with real-time groups); the others must
                // be enabled anyway.
                let _ = std::fs::write(
                    parent.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                );
            }
        }
    }
    Ok(())
}
