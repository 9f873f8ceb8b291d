//! Commands for people: [`status`] shows every load balancer, address pool and announcer,
//! [`plan`] says what would be created, [`migrate`] converts the settings of another load balancer, [`rebalance`] spreads addresses
//! over nodes, [`teardown`] releases load balancers before an uninstall, [`orphans`] finds those of
//! clusters that are gone, [`crds`] prints or applies the CRDs, [`iam_policy`] prints what AWS must permit, [`secrets`] creates shared Secrets,
//! [`cleanup`] deletes what an uninstall leaves, [`probe`] asks the process of its container.
//!
//! They are not part of the controller: each runs once, as the user, with the rights of the
//! user's kubeconfig, and needs no running controller. Pure functions of what was read and the
//! time produce all output. The only I/O is in each command's `run`, in each `cluster` module,
//! in [`cluster`] and in [`orphans::sweep`].

pub mod cleanup;
pub mod cluster;
pub mod cost;
pub mod crds;
pub mod iam_policy;
pub mod migrate;
pub mod orphans;
pub mod plan;
pub mod prices;
pub mod probe;
pub mod rebalance;
mod retry;
pub mod secrets;
mod service;
pub mod status;
pub mod teardown;
pub mod text;
mod times;

use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use crate::process::program::{note, print};
use text::Look;

/// Exit status: the user gave a name, and no object has it.
pub const NOT_FOUND: u8 = 4;
/// Exit status: the command did what it can, and the rest waits for someone else.
pub const NOT_YET: u8 = 5;
/// Exit status: like [`NOT_YET`], but no controller is running to do the rest.
pub const NOBODY: u8 = 6;
/// The name of the binary that `kubectl ballast` runs.
const PLUGIN: &str = "kubectl-ballast";

/// How a command prints its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: tables, a description, or manifests.
    #[value(aliases = ["table", "manifests"])]
    Text,
    /// For programs: JSON.
    Json,
    /// For programs: YAML.
    Yaml,
}

// === impl Output ===

impl Output {
    /// The report in a machine-readable format; `None` if the result is for people.
    fn machine<T: Serialize>(self, report: &T) -> Result<Option<String>> {
        Ok(match self {
            Self::Text => None,
            Self::Json => Some(serde_json::to_string_pretty(report)? + "\n"),
            Self::Yaml => Some(ballast_crds::to_yaml(report)?),
        })
    }
}

/// What the user types before the command: `ballast`, or `kubectl ballast`.
pub fn program() -> &'static str {
    let called = std::env::args_os().next();
    let name = called.as_deref().map(Path::new).and_then(Path::file_name);
    match name {
        Some(name) if name == PLUGIN => "kubectl ballast",
        _ => "ballast",
    }
}

/// Wrapping is for terminals, and so is colour, except where the user turned it off.
fn look(terminal: bool) -> Look {
    if !terminal {
        return Look::default();
    }
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    Look {
        width: terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)),
        colour: !set("NO_COLOR") && !dumb,
        whole: false,
    }
}

/// Writes text that is already clean to standard error, unchanged.
fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
