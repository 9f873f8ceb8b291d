//! The memory of a controller with many load balancers on AWS. AWS's limit for creations makes it take
//! four minutes: ten at once, then one in five seconds.

use std::time::Duration;

use anyhow::{Result, ensure};
use ballast_e2e::bench::usage::Usage;
use ballast_e2e::eventually;
use ballast_e2e::installation::binary;
use kube::api::ListParams;

use crate::aws::{Aws, plan};
use crate::common::crowd::names;
use crate::common::{PROGRAMMED, status_of};

const SERVICES: usize = 50;
/// Megabytes of the release build; a debug build has larger code.
const MOST: f64 = 30.0;
const MOST_OF_DEBUG: f64 = 75.0;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_load_balancers_take_little_memory() -> Result<()> {
    plan("t-aws-many").run(async |site| {
        let aws = Aws::start(site, 2).await?;
        aws.start_controller("ballast-1").await?;
        let start = Usage::of(site.lab, "ballast-1").await?;
        for name in names("web", SERVICES) {
            site.create(&name, "ballast.dev/aws").await?;
        }
        eventually(Duration::from_mins(10), || async {
            let all = site.services().list(&ListParams::default()).await?.items;
            let programmed = all.iter().filter(|it| status_of(it, PROGRAMMED) == "True");
            let programmed = programmed.count();
            ensure!(programmed == SERVICES, "{programmed} are programmed");
            Ok(())
        })
        .await?;
        let used = Usage::of(site.lab, "ballast-1").await?;
        let report = aws.report().await?;
        println!(
            "resident: {:.1} MB at the start, {:.1} MB with {SERVICES} Services, {:.1} MB at most; calls: {}",
            start.resident, used.resident, used.peak, report["calls"]
        );
        let release = binary()?.components().any(|it| it.as_os_str() == "release");
        let most = if release { MOST } else { MOST_OF_DEBUG };
        ensure!(used.resident <= most, "{:.1} MB", used.resident);
        Ok(())
    })
    .await
}
