//! Backups of a lab's etcd: copies of its data folder, taken and put back while etcd and the
//! API server are stopped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Signal;
use crate::components::Component;
use crate::lab::Lab;

impl Lab {
    /// Saves the present state of the cluster under a name.
    pub async fn back_up(&self, name: &str) -> Result<()> {
        self.halt_storage().await?;
        copy(&self.storage(), &self.backup(name))?;
        self.resume_storage().await
    }

    /// Replaces the state of the cluster with one that [`Lab::back_up`] saved. As after every plain
    /// restore of etcd, resource versions go back.
    pub async fn restore_backup(&self, name: &str) -> Result<()> {
        self.halt_storage().await?;
        std::fs::remove_dir_all(self.storage())?;
        copy(&self.backup(name), &self.storage())?;
        self.resume_storage().await
    }

    async fn halt_storage(&self) -> Result<()> {
        // The API server stores nothing, so it is killed; a normal stop waits for its watches.
        let name = Component::ApiServer.name();
        self.kill(&name, Signal::SIGKILL).await?;
        self.wait_exit(&name, Duration::from_secs(5)).await?;
        self.stop_component(Component::Etcd).await
    }

    async fn resume_storage(&self) -> Result<()> {
        self.start_component(Component::Etcd).await?;
        self.start_component(Component::ApiServer).await
    }

    fn storage(&self) -> PathBuf {
        self.dir().join("etcd")
    }

    fn backup(&self, name: &str) -> PathBuf {
        self.dir().join("backups").join(name)
    }
}

/// Copies a folder and its content.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)?.flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&path, &target)?;
        } else {
            std::fs::copy(&path, &target)
                .with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}
