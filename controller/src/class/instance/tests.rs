use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::class::Scope;
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

fn context(factory: impl Factory + 'static) -> Context {
    let client = crate::fixtures::client(|_, _| async { crate::fixtures::failure(404) });
    let lease = KubeLease::new(client, "kube-system", "ballast");
    let election = Election::new(lease, Config::new("test", Timing::default()).unwrap());
    let ledger = Arc::new(Ledger::default());
    Context {
        factory: Arc::new(factory),
        cluster: ("uid".to_owned(), "test".to_owned()),
        services: Arc::default(),
        board: Board::new(Scope::All, Arc::clone(&ledger)),
        queue: Queue::new(Backoff::default()),
        ledger,
        targets: watch::channel(Eligible::default()).1,
        metrics: ProviderMetrics::default(),
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
