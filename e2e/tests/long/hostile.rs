//! A hundred hostile Services delay another tenant's by no more than the API server does.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bad_input::hostile::{self, Waits};
use crate::common::Plan;

const HOSTILE: usize = 100;
/// How much longer a Service of Ballast may wait than one of the bare loop.
const DELAY: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_hostile_annotations_delays_nobody() -> Result<()> {
    let plan = Plan {
        nodes: 0,
        ..Plan::new("t-long-hostile")
    };
    plan.run(async |site| {
        let story = hostile::test(site, HOSTILE).await?;
        for waits in [story.quiet, story.created, story.edited] {
            for measure in [Waits::mean, Waits::slowest] {
                let (ballast, bare) = (measure(&waits.ballast), measure(&waits.bare));
                ensure!(ballast <= bare + DELAY, "{waits}");
            }
        }
        Ok(())
    })
    .await
}
