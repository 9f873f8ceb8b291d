//! Runs the fake until it is killed, for experiments by hand and for labs:
//! `cargo run -p ballast-aws-fake --example aws-fake -- 127.0.0.1:5055`.
//!
//! Time runs as it does, or as many times faster as the second argument says.

#![allow(clippy::print_stdout, reason = "a program for the command line")]

use ballast_aws_fake::{Config, Fake, Time};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:5055".into());
    let factor = arguments.next().unwrap_or_else(|| "1".into());
    let fake = Fake::start(Config {
        listen: listen.parse()?,
        time: Time::Scaled(factor.parse()?),
        ..Config::default()
    })
    .await?;
    let credentials = &fake.credentials()[0];
    println!("export AWS_ENDPOINT_URL={}", fake.url());
    println!("export AWS_REGION={}", fake.region());
    println!("export AWS_ACCESS_KEY_ID={}", credentials.access_key);
    println!("export AWS_SECRET_ACCESS_KEY={}", credentials.secret);
    println!("export AWS_EC2_METADATA_DISABLED=true");
    std::future::pending().await
}
