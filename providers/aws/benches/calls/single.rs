//! What one event of one Service costs.

use std::time::Duration;

use ballast_aws::provider::AwsProvider;
use ballast_aws::rate::Limits;
use ballast_aws_fake::{Config, Counts, Fake, Front, Moto};

use crate::Failure;
use crate::support::{self, delete as release, ensure, service, settle};
use crate::terms::Check;

/// The nodes of the cluster.
pub(crate) const NODES: usize = 3;

/// A count as a measurement.
#[expect(clippy::cast_precision_loss, reason = "counts of calls are small")]
pub(crate) const fn number(count: u64) -> f64 {
    count as f64
}

/// All calls but polls.
pub(crate) fn calls(counts: &Counts) -> f64 {
    number(counts.total() - counts.polls)
}

pub(crate) async fn create_warm() -> Result<Vec<Check>, Failure> {
    let moto = Moto::start(NODES).await?;
    let provider = support::start(&moto, Limits::NONE, moto.nodes()).await?;
    settle(&provider, &service("first", &[(80, 30_080)])).await?;
    moto.reset_calls();
    created(&moto, &provider, 7.0).await
}

pub(crate) async fn create_cold() -> Result<Vec<Check>, Failure> {
    let moto = Moto::start(NODES).await?;
    moto.reset_calls();
    let provider = support::start(&moto, Limits::NONE, moto.nodes()).await?;
    created(&moto, &provider, 12.0).await
}

/// Makes a Service's load balancer. `most`: the goal for all calls until its hostname is known.
async fn created(moto: &Moto, provider: &AwsProvider, most: f64) -> Result<Vec<Check>, Failure> {
    let web = service("web", &[(80, 30_081)]);
    let observed = ensure(provider, &web).await?;
    if observed.ingress.is_empty() {
        return Err("no hostname after the first turn".into());
    }
    let named = calls(&moto.counts());
    settle(provider, &web).await?;
    Ok(vec![
        Check::most("until the hostname", named, most),
        Check::said("in all", calls(&moto.counts())),
    ])
}

pub(crate) async fn no_op() -> Result<Vec<Check>, Failure> {
    let moto = Moto::start(NODES).await?;
    let provider = support::start(&moto, Limits::NONE, moto.nodes()).await?;
    let mut web = service("web", &[(80, 30_081)]);
    settle(&provider, &web).await?;
    moto.reset_calls();
    web.settings
        .insert("example.com/color".into(), "blue".into());
    settle(&provider, &web).await?;
    Ok(vec![Check::most("", calls(&moto.counts()), 0.0)])
}

pub(crate) async fn port_added() -> Result<Vec<Check>, Failure> {
    let moto = Moto::start(NODES).await?;
    let provider = support::start(&moto, Limits::NONE, moto.nodes()).await?;
    settle(&provider, &service("web", &[(80, 30_080)])).await?;
    moto.reset_calls();
    let more = service("web", &[(80, 30_080), (443, 30_443)]);
    settle(&provider, &more).await?;
    Ok(vec![Check::most("", calls(&moto.counts()), 5.0)])
}

pub(crate) async fn delete() -> Result<Vec<Check>, Failure> {
    let moto = Moto::start(NODES).await?;
    delete_on(&moto, moto.nodes(), |_| {}, 5.0).await
}

/// A security group cannot be deleted while interfaces of its load balancer are there.
pub(crate) async fn delete_lingering() -> Result<Vec<Check>, Failure> {
    let mut config = Config::default();
    config.settings.interfaces_linger = Duration::from_mins(1);
    let fake = Fake::start(config).await?;
    let nodes: Vec<String> = (1..=NODES).map(|number| format!("i-{number:08}")).collect();
    delete_on(&fake, &nodes, |pause| fake.advance(pause), 8.0).await
}

async fn delete_on(
    front: &Front,
    nodes: &[String],
    pause: impl FnMut(Duration),
    most: f64,
) -> Result<Vec<Check>, Failure> {
    let provider = support::start(front, Limits::NONE, nodes).await?;
    settle(&provider, &service("first", &[(80, 30_080)])).await?;
    let web = service("web", &[(80, 30_081)]);
    settle(&provider, &web).await?;
    front.reset_calls();
    release(&provider, &web, pause).await?;
    Ok(vec![Check::most("", calls(&front.counts()), most)])
}
