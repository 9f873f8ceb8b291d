//! The options of a lab.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::net::Families;

/// How kube-proxy does Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyMode {
    /// nftables.
    #[default]
    Nftables,
    /// iptables.
    Iptables,
}

/// A lab to start.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, set by name"
)]
pub struct LabOptions {
    /// Its name. Labs of different names do not see each other.
    pub name: String,
    /// The number of nodes.
    pub nodes: u8,
    /// IPv4 alone, or both.
    pub families: Families,
    /// How Services are done.
    pub proxy: ProxyMode,
    /// Whether the API server keeps a log of all writes; see [`crate::Lab::audit`].
    pub audit: bool,
    /// Whether the lab ends with this process, and with the [`crate::Lab`] value.
    pub die_with_owner: bool,
    /// Whether progress is printed to standard error.
    pub progress: bool,
    /// Where logs and objects go if a test that holds the lab panics.
    pub artifacts: Option<PathBuf>,
    /// Whether start waits until kube-dns answers.
    pub wait_dns: bool,
    /// Added to the API server's flags (they override the lab's own).
    pub api_server_flags: Vec<String>,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            name: "lab".to_owned(),
            nodes: 2,
            families: Families::default(),
            proxy: ProxyMode::default(),
            audit: true,
            die_with_owner: true,
            progress: true,
            artifacts: std::env::var_os("BALLAST_ARTIFACTS").map(PathBuf::from),
            wait_dns: false,
            api_server_flags: vec![],
        }
    }
}

impl ProxyMode {
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}
