//! Runs the fake until it is killed, for experiments by hand and for labs:
//! `cargo run -p ballast-aws-fake -- 127.0.0.1:5055`. It prints the variables of its clients.
//!
//! ```text
//! aws-fake ADDRESS [--speed FACTOR] [--nodes NUMBER] [--dualstack] [--report ADDRESS]
//! ```
//!
//! Time runs as it does, or faster by a factor. The network has so many nodes, `i-00000001` and so
//! on; `--dualstack` gives subnets and nodes IPv6 addresses, too. At the other address, `GET /`
//! answers what exists and which calls there were, as JSON.

#![allow(clippy::print_stdout, reason = "a program for the command line")]

mod report;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use ballast_aws_fake::state::seed::Network;
use ballast_aws_fake::{Config, Fake, Time};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 5055)),
        time: Time::Scaled(1.0),
        ..Config::default()
    };
    // A lab with hundreds of Services needs a higher quota than a new account has.
    config.settings.quotas.load_balancers = 1_000;
    let mut network = Network::default();
    let mut reports: Option<SocketAddr> = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let value = arguments.next();
            value.ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--speed" => config.time = Time::Scaled(value()?.parse()?),
            "--nodes" => network.nodes = value()?.parse()?,
            "--dualstack" => network.dualstack = true,
            "--report" => reports = Some(value()?.parse()?),
            address => config.listen = address.parse()?,
        }
    }
    config.network = Some(network);
    let fake = Arc::new(Fake::start(config).await?);
    let credentials = &fake.credentials()[0];
    println!("export AWS_ENDPOINT_URL={}", fake.url());
    println!("export AWS_REGION={}", fake.region());
    println!("export AWS_ACCESS_KEY_ID={}", credentials.access_key);
    println!("export AWS_SECRET_ACCESS_KEY={}", credentials.secret);
    println!("export AWS_EC2_METADATA_DISABLED=true");
    match reports {
        Some(address) => report::serve(address, fake).await,
        None => std::future::pending().await,
    }
}
