//! The lab (real Kubernetes in network namespaces) and the tests that run on it.
//!
//! A [`Lab`] is a whole cluster of real programs on one machine: etcd, API server, controller
//! manager, scheduler, and per node containerd, kubelet and kube-proxy, each node in network
//! and mount namespaces of its own. It needs root and Linux, no container registry and no
//! network. See [`Lab::start`] for how it comes up and `lab --help` for the command line.
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
#[doc(hidden)]
pub mod bench;
mod binaries;
mod boot;
pub mod chart;
mod components;
mod control;
mod eventually;
mod helm;
pub mod image;
mod images;
pub mod installation;
pub mod kind;
mod lab;
mod logs;
mod net;
mod nodes;
mod objects;
mod options;
mod pki;
mod progress;
pub mod release;
pub mod state;
#[doc(hidden)]
pub mod supervisor;

pub use audit::AuditEvent;
pub use binaries::Cache;
pub use components::Component;
pub use control::{Exit, Output, ProcessStatus, Status};
pub use eventually::eventually;
pub use helm::Helm;
pub use images::{AGNHOST, COREDNS, PAUSE, with_libraries};
pub use lab::{Lab, Reach};
#[doc(hidden)]
pub use logs::enter;
pub use net::{CLOUD_RANGE_V4, CLOUD_RANGE_V6, DNS_V4, DNS_V6, Families, Host, MAX_NODES};
pub use nix::sys::signal::Signal;
pub use options::{LabOptions, ProxyMode};
pub use progress::Progress;
