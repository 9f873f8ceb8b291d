//! Many Services within AWS's own limits. Tokio's clock jumps over the waiting times.

use std::sync::Arc;
use std::time::Duration;

use ballast_aws::client::Clients;
use ballast_aws::provider::AwsProvider;
use ballast_aws::rate::{Limit, Limits};
use ballast_aws_fake::state::seed::Network;
use ballast_aws_fake::{Config, Fake, Throttle, Time};
use ballast_provider::{Key, LoadBalancer, Provider, ProviderError, Released, Removal};
use tokio::time::{Instant, sleep, timeout};

use crate::bed::instance;
use crate::support::{
    Fared, bring, class, connection, ensure, mark, retarget, service, services, start, with,
};

/// AWS makes ten load balancers at once, and then one in five seconds.
const BURST: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(5);

async fn aws(load_balancers: u16) -> Fake {
    let mut config = Config {
        time: Time::Scaled(1.0),
        throttle: Some(Throttle::AWS),
        latency: Duration::from_millis(100),
        ..Config::default()
    };
    config.settings.quotas.load_balancers = load_balancers.into();
    let fake = Fake::start(config).await.unwrap();
    let network = Network::default();
    fake.edit(|cloud, _| cloud.add_node(4, &network));
    fake
}

async fn bring_many(number: u16) -> (Fake, Vec<Fared>) {
    let fake = aws(number).await;
    let nodes: Vec<String> = (1..=3).map(instance).collect();
    let provider = start(&fake, Limits::default(), &nodes).await.unwrap();
    let all = bring(&Arc::new(provider), &services(number)).await.unwrap();
    (fake, all)
}

/// So many Services that have everything, made without limits, and a process that has them.
async fn prepared(number: u16) -> (Fake, AwsProvider) {
    let fake = aws(number).await;
    fake.set_throttle(None);
    let nodes: Vec<String> = (1..=3).map(instance).collect();
    let provider = start(&fake, Limits::NONE, &nodes).await.unwrap();
    bring(&Arc::new(provider), &services(number)).await.unwrap();
    fake.set_throttle(Some(Throttle::AWS));
    let provider = start(&fake, Limits::default(), &nodes).await.unwrap();
    // Its buckets are full again after the reads of the start.
    sleep(Duration::from_mins(1)).await;
    (fake, provider)
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
        assert!(one.told.len() <= 8, "{one:?}");
        if one.named > Duration::from_mins(2) {
            // It knows to half a minute when its load balancer is made.
            let right = |until: Duration| until.abs_diff(one.named) <= 6 * INTERVAL;
            let known = one.told.iter().find(|(_, until)| right(*until));
            let known = known.map(|(at, _)| *at);
            assert!(
                known.is_some_and(|at| at < Duration::from_mins(2)),
                "{one:?}"
            );
        }
    }
}

/// AWS registers 20 times at once, and then four times in a second. A wave that waits ends when it can.
#[tokio::test(start_paused = true)]
async fn a_node_reaches_fifty_target_groups_at_the_rate_of_the_bucket() {
    let (fake, provider) = prepared(50).await;
    fake.reset_calls();
    let nodes: Vec<String> = (1..=4).map(instance).collect();
    let began = Instant::now();
    while let Err(why) = retarget(&provider, &nodes).await {
        let ProviderError::Throttled { retry_after } = why else {
            panic!("{why}");
        };
        sleep(retry_after).await;
    }
    let bound = Duration::from_millis(250) * (50 - 20);
    let took = began.elapsed();
    assert!(took <= bound.mul_f64(1.1), "{took:?}");
    assert_eq!(fake.counts().of("RegisterTargets"), 50);
    assert_eq!(fake.counts().throttled, 0);
}

/// The controller gives each call of a provider 30 s. A process that starts with other nodes than the last
/// one had must read and change everything all the same.
#[tokio::test(start_paused = true)]
async fn four_hundred_target_groups_follow_at_the_start() {
    let fake = aws(20).await;
    fake.set_throttle(None);
    let three: Vec<String> = (1..=3).map(instance).collect();
    let provider = start(&fake, Limits::NONE, &three).await.unwrap();
    let ports = |service: u16| -> Vec<(u16, u16)> {
        (0..20)
            .map(|port| (8_000 + port, 30_000 + 20 * service + port))
            .collect()
    };
    let all = (0..20).map(|number| service(&format!("web-{number}"), &ports(number)));
    let all: Vec<LoadBalancer> = all.collect();
    bring(&Arc::new(provider), &all).await.unwrap();
    fake.set_throttle(Some(Throttle::AWS));
    let clients = Clients::default();
    let link = connection(&fake, Limits::default());
    let provider = AwsProvider::new(&clients, link, class(&fake), mark("cluster-1"));
    provider.restore(Vec::new()).await.unwrap();
    fake.reset_calls();
    let nodes: Vec<String> = (1..=4).map(instance).collect();
    let began = Instant::now();
    loop {
        let wave = timeout(Duration::from_secs(30), retarget(&provider, &nodes)).await;
        match wave.expect("a wave ends itself") {
            Ok(()) => break,
            Err(ProviderError::Throttled { retry_after }) => sleep(retry_after).await,
            Err(why) => panic!("{why}"),
        }
    }
    let bound = Duration::from_millis(250) * (400 - 20);
    let took = began.elapsed();
    assert!(took <= bound.mul_f64(1.1), "{took:?}");
    let counts = fake.counts();
    assert_eq!(counts.of("RegisterTargets"), 400);
    assert_eq!(counts.of("DescribeTargetHealth"), 400);
    assert_eq!(counts.throttled, 0);
}

/// Other programs of the account leave a sixteenth of what AWS permits: seven calls or so in one try. The
/// controller gives each try 30 s.
#[tokio::test(start_paused = true)]
async fn a_start_goes_on_where_its_last_try_ended() {
    let fake = aws(100).await;
    fake.set_throttle(None);
    let nodes: Vec<String> = (1..=3).map(instance).collect();
    let provider = start(&fake, Limits::NONE, &nodes).await.unwrap();
    bring(&Arc::new(provider), &services(100)).await.unwrap();
    let mut limits = Limits::default();
    limits.read = Limit {
        burst: 1,
        interval: limits.read.interval * 16,
    };
    let link = connection(&fake, limits);
    let provider = AwsProvider::new(&Clients::default(), link, class(&fake), mark("cluster-1"));
    for lost in [false, true] {
        fake.reset_calls();
        let began = Instant::now();
        if lost {
            // Whoever waits is dropped, as by a controller that gives it too little time.
            let short = Duration::from_secs(8);
            timeout(short, provider.restore(Vec::new()))
                .await
                .unwrap_err();
        }
        for tries in 1.. {
            assert!(tries <= 3, "{:?}", fake.counts().actions);
            let tried = timeout(Duration::from_secs(30), provider.restore(Vec::new())).await;
            match tried.expect("a try ends itself") {
                Ok(()) => break,
                Err(ProviderError::Throttled { retry_after }) => sleep(retry_after).await,
                Err(why) => panic!("{why}"),
            }
        }
        println!("{:?}: {:?}", began.elapsed(), fake.counts().actions);
        // 200 objects in calls of 20, and what was under way when it was dropped.
        let read = fake.counts().of("DescribeTags");
        assert!((10..=10 + u64::from(lost)).contains(&read), "{read}");
        assert_eq!(provider.inventory().await.unwrap().len(), 300);
    }
}

/// AWS's limits are those of the account and region, however many classes and whatever becomes of them.
#[tokio::test(start_paused = true)]
async fn classes_share_the_limits_of_their_account() {
    let fake = aws(60).await;
    let nodes: Vec<String> = (1..=3).map(instance).collect();
    let clients = Clients::default();
    let class_of = async |name: &str| {
        let link = connection(&fake, Limits::default());
        let mut mark = mark("cluster-1");
        mark.class = name.into();
        let provider = AwsProvider::new(&clients, link, class(&fake), mark);
        provider.restore(Vec::new()).await.unwrap();
        retarget(&provider, &nodes).await.unwrap();
        Arc::new(provider)
    };
    let all = services(60);
    let (one, two) = (class_of("one").await, class_of("two").await);
    let both = tokio::join!(bring(&one, &all[..20]), bring(&two, &all[20..40]));
    both.0.unwrap();
    both.1.unwrap();
    // A class that is edited gets another provider, and finds the buckets as they are.
    drop(one);
    bring(&class_of("one").await, &all[40..]).await.unwrap();
    let counts = fake.counts();
    assert_eq!(counts.of("CreateLoadBalancer"), 60);
    assert_eq!(counts.throttled, 0);
    // Each class counts its own calls.
    let creations = |provider: &AwsProvider| -> u64 {
        let calls = provider.calls().into_iter();
        let made = calls.filter(|it| it.action == "CreateLoadBalancer" && it.result == "ok");
        made.map(|it| it.calls).sum()
    };
    assert_eq!(creations(&two), 20);
}

/// Whoever may only change a Service keeps nobody else's deletion from its end, and so no namespace.
#[tokio::test(start_paused = true)]
async fn changes_without_a_pause_hold_up_no_deletion() {
    let fake = aws(10).await;
    fake.set_throttle(None);
    let nodes: Vec<String> = (1..=3).map(instance).collect();
    let provider = start(&fake, Limits::NONE, &nodes).await.unwrap();
    let ports: Vec<(u16, u16)> = (0..50).map(|port| (8_000 + port, 30_000 + port)).collect();
    let mut busy = service("busy", &ports);
    busy.id.namespace = "busy".into();
    let shop = service("web", &[(80, 30_100)]);
    bring(&Arc::new(provider), &[busy.clone(), shop.clone()])
        .await
        .unwrap();
    fake.set_throttle(Some(Throttle::AWS));
    let provider = start(&fake, Limits::default(), &nodes).await.unwrap();
    let changes = async {
        for delay in (1..1_000).cycle() {
            let setting = format!("deregistration_delay.timeout_seconds={delay}");
            let changed = with(busy.clone(), "target-group-attributes", &setting);
            match ensure(&provider, &changed).await {
                Ok(_) => {}
                Err(ProviderError::Throttled { retry_after }) => sleep(retry_after).await,
                Err(why) => panic!("{why}"),
            }
        }
    };
    let key = Key::alone(&shop.id);
    let deletion = async {
        // The buckets of a process that starts are full.
        sleep(Duration::from_secs(30)).await;
        let began = Instant::now();
        loop {
            match provider.release(&shop.id, &key, Removal::Delete).await {
                Ok(Released::Gone) => return began.elapsed(),
                Ok(Released::InProgress { retry_after, .. })
                | Err(ProviderError::Throttled { retry_after }) => sleep(retry_after).await,
                Err(why) => panic!("{why}"),
            }
        }
    };
    let both = async {
        tokio::select! {
            took = deletion => took,
            () = changes => panic!("it has no end"),
        }
    };
    let took = timeout(Duration::from_mins(10), both).await;
    let took = took.expect("the deletion ends");
    // A minute of it are its network interfaces.
    assert!(took <= Duration::from_mins(2), "{took:?}");
}
