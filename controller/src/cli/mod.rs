//! Commands for people: [`status`] says how every load balancer is, [`migrate`] brings
//! the settings of another load balancer over, [`teardown`] takes load balancers away before
//! somebody goes, [`crds`] prints or applies the CRDs, [`secrets`] creates shared Secrets.
//!
//! They are no part of the controller: each runs once, as the user, with the rights of
//! the user's kubeconfig, and needs no running controller. Everything that is printed is
//! made by pure functions of what was read and the time; the only I/O is in each
//! command's `run` and in [`cluster`].

pub mod cluster;
pub mod crds;
pub mod migrate;
pub mod secrets;
mod service;
pub mod status;
pub mod teardown;
pub mod text;

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::process::text::{one_line, shortened};
use text::Look;

/// The name was given and nothing is called so.
pub const NOT_FOUND: u8 = 4;
/// It is done as far as it can be, and the rest waits for somebody else.
pub const NOT_YET: u8 = 5;
/// The same, and there is nobody else.
pub const NOBODY: u8 = 6;
/// The most characters of a line on standard error; notes can contain commands.
const LONGEST_NOTE: usize = 4_096;
/// The name of the binary that `kubectl ballast` looks for.
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
    /// The report in a format for programs; `None` if the result is for people.
    fn machine<T: Serialize>(self, report: &T) -> Result<Option<String>> {
        Ok(match self {
            Self::Text => None,
            Self::Json => Some(serde_json::to_string_pretty(report)? + "\n"),
            Self::Yaml => Some(serde_yaml_ng::to_string(report)?),
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

/// Colour and wrapping are for terminals, and colour not for all of them.
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

/// Writes one line to standard error. Text of users and of the cluster can be in it, so it is
/// cleaned and bounded here. Nobody is there to be told if standard error is closed.
pub fn note(text: impl Display) {
    let line = shortened(&one_line(&text.to_string()), LONGEST_NOTE);
    say(&format!("{line}\n"));
}

/// Writes text that is clean already to standard error, as it is.
fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Writes to standard output; a reader that has enough, such as `head`, is no error.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}
