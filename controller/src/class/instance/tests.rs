use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use ballast_provider::{
    Balancer, Change, Key, LoadBalancer, Observed, Owned, Released, Removal, ServiceId, TargetSet,
};
use futures::stream::BoxStream;

use super::*;
use crate::class::Scope;
use crate::cluster::metrics::WriteMetrics;
use crate::cluster::writer::Requests;
use crate::process::lease::{Config, Election, KubeLease, Timing};

/// Its first build fails, and the next one panics.
#[derive(Default)]
struct Panics(AtomicBool);

impl Factory for Panics {
    fn supports(&self, _: &ProviderSettings) -> Result<Traits, Refusal> {
        Ok(Traits::CLOUD)
    }

    fn setting_prefixes(&self) -> &'static [&'static str] {
        &[]
    }

    fn build(&self, _: &ProviderSettings, _: Mark) -> Result<Arc<dyn Provider>, ProviderError> {
        assert!(!self.0.swap(true, Ordering::Relaxed), "a bug in a provider");
        Err(ProviderError::transient("not yet"))
    }
}

/// The steps of a start, as they are asked for. The second one of each kind succeeds.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<&'static str>>>);

impl Steps {
    fn take(&self, step: &'static str) -> Result<(), ProviderError> {
        let mut steps = self.0.lock().unwrap();
        steps.push(step);
        let times = steps.iter().filter(|it| **it == step).count();
        if times == 1 {
            return Err(ProviderError::transient(step));
        }
        Ok(())
    }
}

impl Factory for Steps {
    fn supports(&self, _: &ProviderSettings) -> Result<Traits, Refusal> {
        Ok(Traits::CLOUD)
    }

    fn setting_prefixes(&self) -> &'static [&'static str] {
        &[]
    }

    fn build(&self, _: &ProviderSettings, _: Mark) -> Result<Arc<dyn Provider>, ProviderError> {
        self.take("build")?;
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Provider for Steps {
    fn traits(&self) -> Traits {
        Traits::CLOUD
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        Key::alone(&load_balancer.id)
    }

    fn validate(&self, _: &Balancer) -> Result<(), Refusal> {
        Ok(())
    }

    async fn restore(&self, _: Vec<Published>) -> Result<(), ProviderError> {
        self.take("restore")
    }

    async fn ensure(&self, _: &Balancer) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        Ok(Vec::new())
    }

    async fn retarget(&self, _: &TargetSet, _: &[Key]) -> Result<(), ProviderError> {
        self.take("retarget")
    }

    async fn release(&self, _: &ServiceId, _: &Key, _: Removal) -> Result<Released, ProviderError> {
        Ok(Released::Gone)
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        self.take("inventory").map(|()| Vec::new())
    }

    async fn tag(
        &self,
        _: &[Owned],
        _: &std::collections::BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        Ok(())
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        futures::stream::pending().boxed()
    }
}

/// A provider that has read its whole cloud does not read it again because a later step failed.
#[tokio::test(start_paused = true)]
async fn a_step_of_the_start_that_fails_is_tried_again_and_no_step_before_it() {
    let steps = Steps::default();
    let context = context(steps.clone());
    let class = ClassView::test("local");
    let mut targets = context.targets.clone();
    let mut begun = Begun::default();
    let mut failures = Vec::new();
    for _ in 0..5 {
        if let Err(error) = start(&context, &class, &mut targets, &mut begun).await {
            failures.push(error.to_string());
        }
    }
    let unled = "this process is no longer the leader";
    assert_eq!(failures, ["build", "restore", "inventory", unled, unled]);
    let asked = steps.0.lock().unwrap().clone();
    let twice = |step| [step, step];
    let expected = ["build", "restore", "inventory"].map(twice).concat();
    assert_eq!(asked, expected);
}

fn context(factory: impl Factory + 'static) -> Context {
    let client = crate::fixtures::client(|_, _| async { crate::fixtures::failure(404) });
    let lease = KubeLease::new(client.clone(), "kube-system", "ballast");
    let election = Election::new(lease, Config::new("test", Timing::default()).unwrap());
    let ledger = Arc::new(Ledger::default());
    let names = ("kube-system".to_owned(), "ballast".to_owned());
    let requests = Requests::new(client.clone(), WriteMetrics::default());
    Context {
        drains: Drains::beside(client, &names),
        writer: Writer::new(requests, election.fence()),
        factory: Arc::new(factory),
        cluster: ("uid".to_owned(), "test".to_owned()),
        tag_writer: "1".to_owned(),
        services: Arc::default(),
        board: Board::new(Scope::All, Arc::clone(&ledger)),
        queue: Queue::new(Backoff::default()),
        ledger,
        targets: watch::channel(Eligible::default()).1,
        metrics: ProviderMetrics::default(),
        clock: Arc::new(jiff::Timestamp::now),
        send_class_event: Arc::new(|_, _| {}),
        send_changed: Arc::new(|_, _| {}),
        fence: election.fence(),
    }
}

/// Nothing else changes after the panic, so nothing else would reveal it.
#[tokio::test(start_paused = true)]
async fn a_panic_of_a_class_task_is_noticed_at_once() {
    let context = context(Panics::default());
    let board = context.board.clone();
    board.post_views(vec![Arc::new(ClassView::test("local"))]);
    let run = tokio::time::timeout(Duration::from_mins(1), tokio::spawn(run(context)));
    let ended = run.await.expect("the panic is not noticed");
    assert!(ended.unwrap_err().is_panic());
    drop(board);
}
