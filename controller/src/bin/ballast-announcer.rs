//! `ballast-announcer`: the commands of `ballast` that run on each node, without the others. A process
//! keeps most pages of its program in memory, on every node of a cluster.

use std::process::ExitCode;

use anyhow::Result;
use ballast::announcer;
use ballast::announcer::args::{Cli, Command};
use ballast::cli;
use ballast::process::program::{self, Kube};
use clap::Parser as _;

fn main() -> ExitCode {
    program::end(execute(Cli::parse()))
}

fn execute(cli: Cli) -> Result<ExitCode> {
    let Cli { log, command } = cli;
    match command {
        Command::Announcer(args) => {
            log.start(Kube::Connection)?;
            announcer::command::run(*args)
        }
        Command::Probe(args) => {
            log.start(Kube::Nothing)?;
            cli::probe::run(&args)
        }
    }
}
