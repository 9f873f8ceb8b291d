//! The basis of the tests on real Kubernetes, and the programs that belong to it: the lab (in
//! network namespaces), [`kind`], [`Helm`] and the [`chart`], container [`image`]s and
//! Ballast's own ([`release`]), the [`bench`] and the demos. Built files are stored in the
//! [`cache`].
//!
//! A [`Lab`] is a complete cluster of real programs on one machine: etcd, API server,
//! controller manager, scheduler, and per node containerd, kubelet and kube-proxy, each node in
//! its own network and mount namespaces. It needs root and Linux, but no container registry and
//! no network. See [`Lab::start`] for how it starts and `lab --help` for the command line.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use ballast_e2e::{Host, Lab, LabOptions};
//!
//! let lab = Lab::start(LabOptions { name: "demo".into(), nodes: 2, ..LabOptions::default() }).await?;
//! println!("{}", lab.kubectl(&["get", "nodes"]).await?);
//! println!("{}", lab.exec(Host::Client, ["ip", "route"]).await?.stdout);
//! lab.down().await?;
//! # Ok(())
//! # }
//! ```

mod audit;
mod backup;
#[doc(hidden)]
pub mod bench;
mod binaries;
mod boot;
pub mod cache;
pub mod chart;
mod components;
mod control;
mod eventually;
#[doc(hidden)]
pub mod failover;
mod faults;
#[doc(hidden)]
pub mod go;
pub mod helm;
mod hosts;
pub mod image;
mod images;
pub mod installation;
pub mod kind;
mod lab;
mod launch;
mod logs;
pub mod metallb;
mod net;
mod nodes;
mod objects;
mod options;
mod pki;
mod progress;
pub mod release;
#[doc(hidden)]
pub mod segment;
pub mod state;
pub mod story;
#[doc(hidden)]
pub mod supervisor;

pub use audit::AuditEvent;
pub use binaries::Binaries;
pub use components::Component;
pub use control::{Exit, Output, ProcessStatus, Status};
pub use eventually::eventually;
pub use faults::Faults;
pub use helm::Helm;
pub use images::{AGNHOST, COREDNS, PAUSE, with_libraries};
pub use lab::{Lab, Reach};
#[doc(hidden)]
pub use logs::enter;
pub use net::{
    CLOUD_RANGE_V4, CLOUD_RANGE_V6, DNS_V4, DNS_V6, Families, Host, MAX_GUESTS, MAX_NODES, PODS_V4,
    PODS_V6, pod_gateways,
};
pub use nix::sys::signal::Signal;
pub use objects::documents;
pub use options::{LabOptions, ProxyMode};
pub use progress::Progress;

/// The workspace's folder.
pub fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
