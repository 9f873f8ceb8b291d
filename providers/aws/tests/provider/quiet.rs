//! What is called when nothing changes. Time is tokio's, and passes when nothing else happens.

use std::collections::BTreeMap;
use std::time::Duration;

use ballast_aws_fake::{Config, Time};
use ballast_provider::{Change, LoadBalancer, Observed, Provider, ServiceId, State, TrafficPolicy};
use futures::StreamExt;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::bed::{Bed, ensure, service, settle};
use crate::support::balancer;

/// What says how much capacity is reserved.
const RESERVED: &str = "DescribeCapacityReservation";

/// The Services of a class, and what the controller does with them: a turn for each change.
pub(crate) struct Quiet {
    pub(crate) bed: Bed,
    pub(crate) all: BTreeMap<ServiceId, LoadBalancer>,
    /// A copy of the cluster uses the same load balancers.
    pub(crate) deletes_nothing: bool,
}

/// The changes of a class. A task of its own polls the stream until this is dropped, as the controller always does: in
/// the middle of a call the stream holds a record, and a turn that waits for the record would wait for ever if nobody
/// polled.
pub(crate) struct Changes {
    heard: UnboundedReceiver<Change>,
    _follower: JoinSet<()>,
}

// === impl Changes ===

impl Changes {
    pub(crate) fn of(provider: &impl Provider) -> Self {
        let (tell, heard) = unbounded_channel();
        let mut changes = provider.changes();
        let mut follower = JoinSet::new();
        follower.spawn(async move {
            while let Some(change) = changes.next().await {
                if tell.send(change).is_err() {
                    return;
                }
            }
        });
        Self {
            heard,
            _follower: follower,
        }
    }

    /// The next one. `None` if none comes before this time.
    pub(crate) async fn before(&mut self, end: Instant) -> Option<Change> {
        timeout_at(end, self.heard.recv()).await.ok().flatten()
    }
}

// === impl Quiet ===

impl Quiet {
    async fn new(count: u16) -> Self {
        let service = |number| service(&format!("web-{number}"), &[(80, 30_100 + number)]);
        Self::of((0..count).map(service).collect()).await
    }

    pub(crate) async fn of(all: Vec<LoadBalancer>) -> Self {
        let mut config = Config {
            time: Time::Scaled(1.0),
            ..Config::default()
        };
        config.settings.quotas.load_balancers = all.len() + 1;
        let bed = Bed::with(config).await;
        let all = all.into_iter().map(|one| (one.id.clone(), one));
        Self {
            bed,
            all: all.collect(),
            deletes_nothing: false,
        }
    }

    /// A turn of a Service. Returns what it observes.
    pub(crate) async fn turn(&self, provider: &impl Provider, one: &LoadBalancer) -> Observed {
        if !self.deletes_nothing {
            return settle(provider, one).await.unwrap();
        }
        let mut balancer = balancer(provider, std::slice::from_ref(one));
        balancer.deletes_nothing = true;
        let mut all = provider.ensure(&balancer).await.unwrap();
        all.remove(0).1
    }

    /// Follows a process for so long. Returns how many turns it asked for, and its calls by action.
    pub(crate) async fn follow(
        &self,
        provider: &impl Provider,
        long: Duration,
    ) -> (usize, BTreeMap<String, u64>) {
        self.bed.fake.reset_calls();
        let end = Instant::now() + long;
        let mut changes = Changes::of(provider);
        let mut turns = 0;
        while let Some(change) = changes.before(end).await {
            turns += 1;
            self.turn(provider, &self.all[&change.id]).await;
        }
        (turns, self.bed.fake.counts().actions)
    }
}

/// With 100 Services that nobody changes, an hour takes at most 300 calls, and no Service has a turn.
#[tokio::test(start_paused = true)]
async fn an_hour_in_which_nothing_changes_takes_few_calls() {
    an_hour(&Quiet::new(100).await, Some(true)).await;
}

/// The same where two of three nodes have no pod of the Services, so that their checks fail.
#[tokio::test(start_paused = true)]
async fn an_hour_of_services_with_policy_local_takes_few_calls() {
    let mut quiet = Quiet::new(100).await;
    for one in quiet.all.values_mut() {
        one.traffic_policy = TrafficPolicy::Local {
            health_check_node_port: 32_000,
        };
    }
    quiet.bed.set_healthy([2, 3], false);
    an_hour(&quiet, Some(true)).await;
}

/// The same where the checks of a node fail that should not.
#[tokio::test(start_paused = true)]
async fn an_hour_with_an_unhealthy_node_takes_few_calls() {
    let quiet = Quiet::new(100).await;
    quiet.bed.set_healthy([3], false);
    an_hour(&quiet, Some(false)).await;
}

async fn an_hour(quiet: &Quiet, healthy: Option<bool>) {
    let provider = quiet.bed.start().await.unwrap();
    for one in quiet.all.values() {
        settle(&provider, one).await.unwrap();
    }
    quiet.follow(&provider, Duration::from_mins(20)).await;
    for one in quiet.all.values() {
        let observed = ensure(&provider, one).await.unwrap();
        assert_eq!(observed.state, State::Programmed);
        assert_eq!(observed.conditions[0].holds, healthy, "{observed:?}");
    }
    let (turns, calls) = quiet.follow(&provider, Duration::from_hours(1)).await;
    let total: u64 = calls.values().sum();
    println!("{total} calls in an hour: {calls:?}");
    assert_eq!(turns, 0);
    assert!(total <= 300, "{total}: {calls:?}");
    assert!(calls.keys().all(|action| action.starts_with("Describe")));
    // Everything is looked at: the whole class six times, and one Service in full after the other.
    assert!(!calls.contains_key(RESERVED), "none has any: {calls:?}");
    let in_full = calls["DescribeListeners"];
    assert!((30..=50).contains(&in_full), "{in_full}: {calls:?}");
    // The same for a process that has just started.
    drop(provider);
    let provider = quiet.bed.start().await.unwrap();
    for one in quiet.all.values() {
        settle(&provider, one).await.unwrap();
    }
    let (_, calls) = quiet.follow(&provider, Duration::from_hours(1)).await;
    let total: u64 = calls.values().sum();
    println!("{total} calls in the first hour: {calls:?}");
    assert!(!calls.contains_key(RESERVED), "none has any: {calls:?}");
    assert!(total <= 300, "{total}: {calls:?}");
    assert!(calls.keys().all(|action| action.starts_with("Describe")));
}

/// What nobody can find out is not asked for in each look: a node whose instance AWS does not list, and nodes
/// whose groups cannot be told apart.
#[tokio::test(start_paused = true)]
async fn questions_without_an_answer_are_seldom_asked() {
    let mut quiet = Quiet::new(1).await;
    quiet.bed.second_group();
    quiet.bed.nodes += 1;
    let provider = quiet.bed.start().await.unwrap();
    for one in quiet.all.values() {
        settle(&provider, one).await.unwrap();
    }
    quiet.follow(&provider, Duration::from_mins(11)).await;
    let (_, calls) = quiet.follow(&provider, Duration::from_hours(1)).await;
    // Once in each look at everything, which also asks for the class's groups and their rules.
    let of = |action: &str| calls.get(action).copied().unwrap_or_default();
    assert!((5..=7).contains(&of("DescribeInstances")), "{calls:?}");
    assert!(of("DescribeSecurityGroups") <= 3 * 7, "{calls:?}");
}
