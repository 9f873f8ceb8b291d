//! Many Services within AWS's own limits. Tokio's clock jumps over the waiting times.

use std::sync::Arc;
use std::time::Duration;

use ballast_aws::rate::Limits;
use ballast_aws_fake::{Config, Fake, Throttle, Time};

use crate::bed::instance;
use crate::support::{Fared, bring, services, start};

/// AWS makes ten load balancers at once, and then one in five seconds.
const BURST: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(5);

async fn bring_many(number: u16) -> (Fake, Vec<Fared>) {
    let mut config = Config {
        time: Time::Scaled(1.0),
        throttle: Some(Throttle::AWS),
        latency: Duration::from_millis(100),
        ..Config::default()
    };
    config.settings.quotas.load_balancers = number.into();
    let fake = Fake::start(config).await.unwrap();
    let nodes: Vec<String> = (1..=3).map(instance).collect();
    let provider = start(&fake, Limits::default(), &nodes).await.unwrap();
    let all = bring(&Arc::new(provider), &services(number)).await.unwrap();
    (fake, all)
}

/// Calls that lose no time, and Services that know how long they wait.
#[tokio::test(start_paused = true)]
async fn two_hundred_services_are_never_throttled_and_each_knows_when_its_turn_comes() {
    let (fake, all) = bring_many(200).await;
    assert_eq!(fake.snapshot().load_balancers.len(), 200);
    assert_eq!(fake.counts().throttled, 0);
    let bound = INTERVAL * (200 - BURST);
    let last = all.iter().map(|one| one.done).max().unwrap();
    assert!(last <= bound.mul_f64(1.1), "{last:?}");
    for one in &all {
        assert!(one.told.len() <= 5, "{one:?}");
        if one.named > Duration::from_mins(2) {
            // First it waits for its target group; then it knows about when its load balancer is made.
            let right = |until: Duration| until.abs_diff(one.named) <= 2 * INTERVAL;
            let known = one.told.iter().find(|(_, until)| right(*until));
            let known = known.map(|(at, _)| *at);
            assert!(
                known.is_some_and(|at| at < Duration::from_mins(2)),
                "{one:?}"
            );
        }
    }
}
