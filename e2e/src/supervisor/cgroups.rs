//! A host's own view of `/sys`: its interfaces, and under `/sys/fs/cgroup` a subtree of the
//! machine's cgroups. What a node's daemons make at the root of the hierarchy (containerd has
//! fixed names there) lands in the lab's own subtree and goes with it.

use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use super::{bind, mount_fs};
use crate::state::hierarchies;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Mounts a `/sys` of the calling thread's network namespace. `cgroup` is the subtree to show;
/// the whole if empty. `spare` is an empty folder to be used meanwhile.
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

/// Makes a cgroup with all above it, so that children can use what the root can.
fn make(hierarchy: &Path, subtree: &str) -> Result<()> {
    let mut dir = hierarchy.to_owned();
    for part in subtree.split('/') {
        let parent = dir.clone();
        dir.push(part);
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("cannot make the cgroup {}", dir.display()))?;
        // Version 1: a new cpuset is empty, and holds no process until it is not.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = std::fs::read_to_string(parent.join(file))
                && !value.trim().is_empty()
                && parent.join("cgroup.clone_children").exists()
            {
                std::fs::write(dir.join(file), value)?;
            }
        }
        // Version 2: controllers reach children only where the parent says so.
        if let Ok(controllers) = std::fs::read_to_string(parent.join("cgroup.controllers")) {
            for controller in controllers.split_ascii_whitespace() {
                // Some cannot be had (real-time groups, for one); the others must still be.
                let _ = std::fs::write(
                    parent.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                );
            }
        }
    }
    Ok(())
}
