//! The cache of built programs: one folder for each hash of their sources. A file with its
//! final name is complete and never changes. A builder holds a [`lock`]; other processes that
//! need the same program wait for the lock and then use the result. (cargo and Go have their
//! own locks for the tool that writes the bill of materials and for upstream's suite.)

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::progress::Progress;

/// The cache's folder: `BALLAST_CACHE`, or `.cache` of the workspace.
pub fn root() -> PathBuf {
    std::env::var_os("BALLAST_CACHE").map_or_else(|| crate::root().join(".cache"), PathBuf::from)
}

/// The folder for one kind of content and one hash, with these subfolders.
pub(crate) fn folder(kind: &str, key: &str, within: &[&str]) -> Result<PathBuf> {
    let dir = root().join(kind).join(key);
    for folder in within {
        std::fs::create_dir_all(dir.join(folder)).with_context(|| {
            format!(
                "cannot make {}; set BALLAST_CACHE to a folder that can be written",
                dir.display()
            )
        })?;
    }
    Ok(dir)
}

/// Only one process at a time builds `what` in a folder of the cache while it holds this lock.
pub(crate) fn lock(dir: &Path, name: &str, what: &str, progress: Progress) -> Result<File> {
    let lock = File::create(dir.join(name))?;
    if lock.try_lock().is_err() {
        let waiting = || format!("another process builds {what}; waiting for it");
        progress.say(waiting());
        progress.while_working(waiting, || lock.lock())?;
    }
    Ok(lock)
}
