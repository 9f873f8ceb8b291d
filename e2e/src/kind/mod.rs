//! Real kind clusters, even on machines that cannot pull images.
//!
//! A [`KindHost`] is a Docker host. If the machine has a working Docker that can get kind's
//! node image, it is that one. Otherwise everything is built: kind, containerd, runc and
//! kubeadm from Go modules ([`programs`]), the node's file system from Debian packages
//! ([`root`]), and the node image from both ([`node`]). Then dockerd ([`docker_host`]) runs
//! under a supervisor like a lab, in a network namespace without an uplink. Everything that was
//! started ends with the supervisor: containers, mounts, namespaces. [`containerfile`] uses the
//! host as an ordinary container engine.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use ballast_e2e::kind::{ClusterOptions, KindHost};
//!
//! let host = KindHost::start("demo").await?;
//! let cluster = host.cluster("one", ClusterOptions { workers: 1, ..ClusterOptions::default() }).await?;
//! println!("{}", cluster.kubectl(&["get", "nodes"]).await?);
//! println!("{}", host.docker(&["ps"]).await?);
//! host.stop().await?;
//! # Ok(())
//! # }
//! ```

mod cluster;
pub mod containerfile;
mod docker_host;
mod host;
pub mod installed;
pub mod load;
mod machine;
mod node;
mod programs;
mod root;

pub use cluster::{Cluster, ClusterOptions, NODE_LABEL_EXCLUDE};
pub use host::{KindHost, build, list, remove};
pub use programs::Programs;
