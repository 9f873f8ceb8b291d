//! `ballast announcer`: from its flags to its end.

use std::process::ExitCode;

use anyhow::Result;
use futures::FutureExt as _;
use prometheus_client::registry::Registry;

use super::args::AnnouncerArgs;
use super::{agent, run as announce, unfit};
use crate::process::access;
use crate::process::admin::Health;
use crate::process::program::{WrongUsage, asked_to_stop, small_runtime};

/// Runs until the process is asked to stop.
pub fn run(args: AnnouncerArgs) -> Result<ExitCode> {
    small_runtime()?.block_on(serve(args))
}

async fn serve(args: AnnouncerArgs) -> Result<ExitCode> {
    let incarnation = rand::random();
    let options = args.into_options(incarnation).map_err(WrongUsage)?;
    let client = access::access(None, None)?.client()?;
    let stop = asked_to_stop()?.boxed();
    let (mut registry, health) = (Registry::default(), Health::default());
    let agent = match agent::start(&options, &mut registry, &health).await {
        Ok(agent) => agent,
        Err(error) => {
            unfit::tell(&client, &options, &error).await;
            return Err(error);
        }
    };
    announce(client, options, agent, registry, health, stop).await?;
    Ok(ExitCode::SUCCESS)
}
