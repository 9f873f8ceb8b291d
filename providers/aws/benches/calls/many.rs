//! What one event of many Services costs, and how long it takes within limits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ballast_aws::provider::AwsProvider;
use ballast_aws::rate::{Limit, Limits};
use ballast_aws_fake::{Bucket, Config, Counts, Fake, Moto, Service, Throttle, Time};
use ballast_provider::{LoadBalancer, ProviderError};
use tokio::time::{Instant, sleep};

use crate::Failure;
use crate::single::{NODES, calls, number};
use crate::support::{self, Fared, bring, follow, services};
use crate::terms::Check;

/// Beyond what AWS's limits permit, nobody can be faster.
const TIMES_THE_BOUND: f64 = 1.1;
/// Whoever waits longer than a provider's call must say so.
const SILENT: Duration = Duration::from_secs(35);

/// A process starts with so many Services that have not changed.
pub(crate) async fn start(
    number: u16,
    milliseconds: u64,
    most: f64,
    most_seconds: f64,
) -> Result<Vec<Check>, Failure> {
    let moto = Moto::start(NODES).await?;
    let all = services(number);
    bring(&Arc::new(process(&moto).await?), &all).await?;
    moto.set_latency(Duration::from_millis(milliseconds));
    moto.reset_calls();
    let began = Instant::now();
    bring(&Arc::new(process(&moto).await?), &all).await?;
    let took = began.elapsed().as_secs_f64();
    let mut checks = vec![Check::most("", calls(&moto.counts()), most)];
    if most_seconds.is_finite() {
        checks.push(Check::most("s", took, most_seconds));
    }
    Ok(checks)
}

/// Each joins in a turn of its own, as the controller has them: turns of one load balancer are serial.
pub(crate) async fn share_fifty() -> Result<Vec<Check>, Failure> {
    let moto = Moto::start(NODES).await?;
    let provider = process(&moto).await?;
    // The class has what it needs.
    support::settle(&provider, &support::service("first", &[(80, 30_080)])).await?;
    let all: Vec<LoadBalancer> = (0..50)
        .map(|at| LoadBalancer {
            share_key: Some("front".into()),
            ..support::service(&format!("web-{at}"), &[(8000 + at, 30_100 + at)])
        })
        .collect();
    moto.set_latency(Duration::from_millis(100));
    moto.reset_calls();
    let began = Instant::now();
    for last in 1..=all.len() {
        support::settle_all(&provider, &all[..last]).await?;
    }
    let took = began.elapsed().as_secs_f64();
    let log = moto.calls();
    let made = log
        .iter()
        .filter(|call| call.action == "CreateLoadBalancer");
    Ok(vec![
        // One creation takes seven, and one port more five.
        Check::most("", calls(&moto.counts()), 7.0 + 49.0 * 5.0),
        Check::most("load balancers", number(made.count() as u64), 1.0),
        Check::said("s", took),
    ])
}

/// A Deployment replaces its pods: each turn finds ten others.
pub(crate) async fn pods_replaced() -> Result<Vec<Check>, Failure> {
    let pods = |from: u8| -> Vec<String> {
        let all = (0..200_u8).map(|at| {
            // Those that are replaced are in another network.
            let third = if at < from { 101 } else { 100 };
            format!("10.0.{third}.{}", at + 10)
        });
        all.collect()
    };
    let moto = Moto::start(NODES).await?;
    let provider = process(&moto).await?;
    let web = |from: u8| {
        let addresses = pods(from);
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        support::with_pods(support::service("web", &[(80, 30_080)]), &addresses)
    };
    support::settle(&provider, &web(0)).await?;
    moto.reset_calls();
    for done in 1..=20 {
        support::settle(&provider, &web(10 * done)).await?;
    }
    let made = moto.counts();
    let expected: BTreeSet<String> = pods(200).into_iter().collect();
    let wrong = targets(&moto)
        .await?
        .symmetric_difference(&expected)
        .count();
    Ok(vec![
        Check::most("", calls(&made), 40.0),
        Check::most("pods wrong", number(wrong as u64), 0.0),
    ])
}

pub(crate) async fn nodes_changed() -> Result<Vec<Check>, Failure> {
    let mut moto = Moto::start(NODES).await?;
    let all = services(50);
    bring(&Arc::new(process(&moto).await?), &all).await?;
    moto.add_node().await?;
    moto.reset_calls();
    let provider = Arc::new(process(&moto).await?);
    let _follower = follow(&provider);
    bring(&provider, &all).await?;
    // The look at the new node comes after the wave; health is asked for later.
    sleep(Duration::from_secs(2)).await;
    let counts = moto.counts();
    // Three lists, the tags of 100 objects in calls of 20, one read and one change of each target
    // group, the two tags around the wave; and a look at the new node and the rule of its group.
    let needed = 3.0 + 5.0 + 100.0 + 2.0 + 2.0;
    let wrong = wrong_groups(&moto).await?;
    Ok(vec![
        Check::most("", number(counts.total()), needed),
        Check::most("target groups wrong", wrong, 0.0),
    ])
}

/// The targets of all target groups.
async fn targets(moto: &Moto) -> Result<BTreeSet<String>, Failure> {
    let groups = moto
        .ask(Service::Elb, "Action=DescribeTargetGroups")
        .await?;
    let mut all = BTreeSet::new();
    for arn in texts(&groups, "<TargetGroupArn>") {
        let request = format!("Action=DescribeTargetHealth&TargetGroupArn={arn}");
        let health = moto.ask(Service::Elb, &request).await?;
        all.extend(texts(&health, "<Id>").map(str::to_owned));
    }
    Ok(all)
}

/// What follows each of these elements.
fn texts<'a>(answer: &'a str, element: &'a str) -> impl Iterator<Item = &'a str> {
    let all = answer.split(element).skip(1);
    all.map(|rest| rest.split('<').next().unwrap_or_default())
}

/// The number of target groups that do not have all nodes.
async fn wrong_groups(moto: &Moto) -> Result<f64, Failure> {
    let groups = moto
        .ask(Service::Elb, "Action=DescribeTargetGroups")
        .await?;
    let mut wrong = 0;
    for arn in texts(&groups, "<TargetGroupArn>") {
        let request = format!("Action=DescribeTargetHealth&TargetGroupArn={arn}");
        let health = moto.ask(Service::Elb, &request).await?;
        let has = |id: &String| health.contains(id.as_str());
        wrong += u64::from(!moto.nodes().iter().all(has));
    }
    Ok(number(wrong))
}

pub(crate) async fn node_added() -> Result<Vec<Check>, Failure> {
    let mut moto = Moto::start(NODES).await?;
    let provider = Arc::new(process(&moto).await?);
    bring(&provider, &services(50)).await?;
    moto.add_node().await?;
    moto.reset_calls();
    support::retarget(&provider, moto.nodes()).await?;
    Ok(vec![
        Check::most("", calls(&moto.counts()), 52.0),
        Check::most("target groups wrong", wrong_groups(&moto).await?, 0.0),
    ])
}

/// AWS's bucket for registrations has 20 tokens, and gets 4 in a second.
pub(crate) async fn node_added_paced() -> Result<Vec<Check>, Failure> {
    let (fake, nodes) = aws().await?;
    let provider = support::start(&fake, Limits::default(), &nodes[..NODES]).await?;
    let provider = Arc::new(provider);
    bring(&provider, &services(50)).await?;
    // All buckets are full again.
    sleep(Duration::from_mins(10)).await;
    fake.reset_calls();
    let began = Instant::now();
    loop {
        match support::retarget(&provider, &nodes).await {
            Ok(()) => break,
            Err(ProviderError::Throttled { retry_after }) => sleep(retry_after).await,
            Err(other) => return Err(other.into()),
        }
    }
    let bound = (50.0 - 20.0) / 4.0;
    let took = began.elapsed().as_secs_f64();
    Ok(vec![
        Check::said("", calls(&fake.counts())),
        Check::most("throttled", number(fake.counts().throttled), 0.0),
        Check::most("s", took, TIMES_THE_BOUND * bound),
        Check::said("s is the bound", bound),
    ])
}

pub(crate) async fn fifty() -> Result<Vec<Check>, Failure> {
    let moto = Moto::start(NODES).await?;
    let provider = Arc::new(process(&moto).await?);
    let _follower = follow(&provider);
    moto.set_latency(Duration::from_millis(100));
    moto.reset_calls();
    let all = bring(&provider, &services(50)).await?;
    Ok(vec![
        Check::most("", calls(&moto.counts()), 355.0),
        Check::most("s", last(&all), 12.0),
    ])
}

/// Every bucket has 20 tokens and gets 10 in a second; one holds all calls of Elastic Load Balancing.
pub(crate) async fn fifty_paced() -> Result<Vec<Check>, Failure> {
    let moto = Moto::start(NODES).await?;
    let limit = Limit::new(20, 10.0);
    let limits = Limits {
        intensive: limit,
        registration: limit,
        write: limit,
        account: limit,
        ec2_write: limit,
        ec2_rules: limit,
        ..Limits::NONE
    };
    let provider = support::start(&moto, limits, moto.nodes()).await?;
    moto.set_latency(Duration::from_millis(100));
    // The buckets are full again after the reads of the start.
    sleep(Duration::from_secs(3)).await;
    let (bucket, open) = (Bucket::new(20.0, 10.0), Bucket::new(1e6, 1e6));
    moto.set_throttle(Some(Throttle {
        intensive: bucket,
        registration: bucket,
        write: bucket,
        account: bucket,
        ec2_write: bucket,
        read: open,
        ec2_read: open,
        ec2_list: open,
        ec2_tags: open,
    }));
    moto.reset_calls();
    let provider = Arc::new(provider);
    let _follower = follow(&provider);
    let all = bring(&provider, &services(50)).await?;
    let counts = moto.counts();
    let bound = (load_balancing(&counts) - 20.0) / 10.0;
    Ok(within(&all, &counts, bound))
}

/// `CreateLoadBalancer` has 10 tokens, and gets one in 5 seconds: nothing else takes as long.
pub(crate) async fn fifty_aws() -> Result<Vec<Check>, Failure> {
    let (fake, nodes) = aws().await?;
    let provider = support::start(&fake, Limits::default(), &nodes[..NODES]).await?;
    fake.reset_calls();
    let provider = Arc::new(provider);
    let _follower = follow(&provider);
    let all = bring(&provider, &services(50)).await?;
    Ok(within(&all, &fake.counts(), (50.0 - 10.0) * 5.0))
}

/// A fake with AWS's limits, and its nodes, one more than are used at first.
async fn aws() -> Result<(Fake, Vec<String>), Failure> {
    let config = Config {
        time: Time::Scaled(1.0),
        throttle: Some(Throttle::AWS),
        latency: Duration::from_millis(100),
        ..Config::default()
    };
    let network = config.network.clone().unwrap_or_default();
    let fake = Fake::start(config).await?;
    let more = u16::try_from(NODES + 1)?;
    fake.edit(|cloud, _| cloud.add_node(more, &network));
    let nodes = (1..=NODES + 1).map(|number| format!("i-{number:08}"));
    Ok((fake, nodes.collect()))
}

async fn process(moto: &Moto) -> Result<AwsProvider, ProviderError> {
    support::start(moto, Limits::NONE, moto.nodes()).await
}

/// When the last Service had everything, in seconds.
fn last(all: &[Fared]) -> f64 {
    let last = all.iter().map(|one| one.done).max();
    last.unwrap_or_default().as_secs_f64()
}

/// The calls of Elastic Load Balancing.
fn load_balancing(counts: &Counts) -> f64 {
    let of_ec2 = |action: &&String| {
        use ballast_aws::client::{Action, Service};
        Action::named(action).is_some_and(|action| action.service() == Service::Ec2)
    };
    let mine = counts.actions.iter().filter(|(action, _)| !of_ec2(action));
    number(mine.map(|(_, count)| count).sum())
}

fn within(all: &[Fared], counts: &Counts, bound: f64) -> Vec<Check> {
    let silent = all
        .iter()
        .filter(|one| one.told.is_empty() && one.done > SILENT);
    vec![
        Check::said("", calls(counts)),
        Check::most("throttled", number(counts.throttled), 0.0),
        Check::most("s", last(all), TIMES_THE_BOUND * bound),
        Check::said("s is the bound", bound),
        Check::most("waited silently", number(silent.count() as u64), 0.0),
    ]
}
