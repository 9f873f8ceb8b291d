//! The provider instances: one task per class on the leader, from the class's arrival
//! to its end.
//!
//! A task builds its provider, lets it restore what the Services publish, brings its
//! targets up to date, and then follows two streams: the targets (debounced; the latest
//! wins) and the provider's own changes (each wakes its Service). It posts on the board
//! whether it can work; while it cannot, no Service of the class is touched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ballast_crds::ProviderSettings;
use ballast_provider::{Cause, Mark, Provider, ProviderError, Recorded, Refusal, Traits, mark};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::class::board::Board;
use crate::class::patience::in_time;
use crate::class::{ClassView, Classes, Instance};
use crate::cluster::eligibility::Eligible;
use crate::cluster::ledger::Ledger;
use crate::cluster::metrics::ProviderMetrics;
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView, oldest_first};
use crate::process::backoff::Backoff;
use crate::process::lease::Fence;
use crate::process::queue::Queue;
use crate::run::watch::settled;

/// Between tries of a cloud that does not answer. Many Services wait for one class, so a
/// cloud that is back is noticed soon.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// So many tries of a class's start come without longer and longer pauses: a cloud that was
/// installed together with us is there in seconds, and people wait for their first address.
const EAGER: u32 = 10;
/// A wave of node changes ends when nothing came for this long …
const QUIET: Duration = Duration::from_millis(300);
/// … or after this long, whatever comes.
const WAVE: Duration = Duration::from_secs(3);

/// Knows the providers of this build, and makes the provider of a class.
pub trait Factory: Send + Sync {
    /// What a class with these settings supports, or why this build cannot serve it. Pure.
    fn supports(&self, settings: &ProviderSettings) -> Result<Traits, Refusal>;

    /// A fresh instance, not yet restored.
    fn build(
        &self,
        settings: &ProviderSettings,
        mark: Mark,
    ) -> Result<Arc<dyn Provider>, ProviderError>;
}

/// What every instance task needs.
#[derive(Clone)]
pub struct Context {
    /// Builds providers.
    pub factory: Arc<dyn Factory>,
    /// UID of `kube-system` and the name people gave the cluster.
    pub cluster: (String, String),
    /// The Services, as watched.
    pub services: Arc<Store<Name, ServiceView>>,
    /// Where instances are posted.
    pub board: Board,
    /// Who is to be woken.
    pub queue: Queue<Name>,
    /// What is recorded.
    pub ledger: Arc<Ledger>,
    /// Who carries traffic.
    pub targets: watch::Receiver<Eligible>,
    /// Counts.
    pub metrics: ProviderMetrics,
    /// Asked before every effect.
    pub fence: Fence,
}

/// When something that failed is tried again.
struct Retries {
    /// So many failures do not make the pauses longer.
    eager: u32,
    failed: u32,
    rng: rand::rngs::SmallRng,
}

// === impl Retries ===

impl Retries {
    fn new(eager: u32) -> Self {
        Self {
            eager,
            failed: 0,
            rng: rand::make_rng(),
        }
    }

    /// As long as the cloud says, which does not count as a failure, or longer after each
    /// failure.
    fn after(&mut self, error: &ProviderError) -> Duration {
        match error {
            ProviderError::Throttled { retry_after } => *retry_after,
            ProviderError::Refused(_) | ProviderError::Transient { .. } => {
                let grown = self.failed.saturating_sub(self.eager);
                self.failed = self.failed.saturating_add(1);
                BACKOFF.delay(grown, &mut self.rng)
            }
        }
    }
}

/// Runs the instances of all classes in scope; ends with the board.
pub async fn run(context: Context) {
    let mut board = context.board.subscribe();
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut running: BTreeMap<String, (Arc<ClassView>, tokio::task::AbortHandle)> = BTreeMap::new();
    let mut before = Arc::new(Classes::default());
    board.mark_changed();
    while board.changed().await.is_ok() {
        let classes = board.borrow_and_update().clone();
        if !classes.claims_as(&before) {
            wake_all(&context);
        }
        before = Arc::clone(&classes);
        let wanted: BTreeMap<&str, &Arc<ClassView>> = classes
            .views
            .values()
            .filter(|class| classes.scope.owns(&class.name) && class.unusable().is_none())
            .map(|class| (class.name.as_str(), class))
            .collect();
        running.retain(|name, (class, task)| {
            let now = wanted.get(name.as_str());
            let keep = now.is_some_and(|now| serves_alike(class, now));
            if !keep {
                task.abort();
            }
            keep
        });
        if classes
            .instances
            .keys()
            .any(|name| !running.contains_key(name))
        {
            context
                .board
                .retain_instances(&running.keys().cloned().collect());
        }
        for (name, class) in wanted {
            if !running.contains_key(name) {
                let task = tasks.spawn(serve(context.clone(), Arc::clone(class)));
                running.insert(name.to_owned(), (Arc::clone(class), task));
            }
        }
        while let Some(ended) = tasks.try_join_next() {
            // A class whose task died would never be served again: the process is to exit.
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Whether the provider that was built for a class can serve it as it is now. A class of
/// the same name and another UID is another class.
fn serves_alike(before: &ClassView, now: &ClassView) -> bool {
    before.uid == now.uid && before.provider == now.provider
}

/// One class, from restore to its end.
async fn serve(context: Context, class: Arc<ClassView>) {
    let name = class.name.as_str();
    let mut retries = Retries::new(EAGER);
    let mut targets = context.targets.clone();
    let provider = loop {
        match start(&context, &class, &mut targets).await {
            Ok(provider) => break provider,
            Err(error) => {
                context.metrics.failed(name, error.reason().as_str());
                fail(&context, name, error.to_string());
                tokio::time::sleep(retries.after(&error)).await;
            }
        }
    };
    info!(class = name, "the provider is ready");
    context.ledger.open(name);
    context
        .board
        .post_instance(name, Instance::Ready(Arc::clone(&provider)));
    wake(&context, name);
    // Side by side, and neither is cancelled by the other: a wave of nodes that is being
    // waited for must not be lost because something happened in the cloud meanwhile.
    tokio::select! {
        never = follow_changes(&context, name, provider.as_ref()) => match never {},
        () = follow_waves(&context, name, provider.as_ref(), targets) => {}
    }
}

/// Wakes the Services that the provider tells of, for ever.
async fn follow_changes(
    context: &Context,
    class: &str,
    provider: &dyn Provider,
) -> std::convert::Infallible {
    let mut changes = provider.changes();
    while let Some(change) = changes.next().await {
        info!(class, service = %change.id, cause = ?change.cause, "changed in the cloud");
        if change.cause == Cause::Appeared {
            // As at the start: what nobody wants is released by its name.
            context.ledger.record(&change.id, class);
        }
        context.queue.add(Name::from(&change.id));
    }
    // The provider has nothing to tell; only targets are left.
    std::future::pending().await
}

/// Follows the targets, a wave at a time, until nobody watches nodes any more.
async fn follow_waves(
    context: &Context,
    class: &str,
    provider: &dyn Provider,
    mut targets: watch::Receiver<Eligible>,
) {
    let backing = |targets: &watch::Receiver<Eligible>| {
        let targets = targets.borrow();
        targets.backing(provider.traits().exclusion)
    };
    let mut before = backing(&targets);
    while settled(&mut targets, QUIET, WAVE).await {
        follow_targets(context, class, provider, &mut targets).await;
        // Whether there is any target at all is part of every Service's condition.
        let now = backing(&targets);
        if std::mem::replace(&mut before, now) != now {
            wake(context, class);
        }
    }
}

async fn start(
    context: &Context,
    class: &ClassView,
    targets: &mut watch::Receiver<Eligible>,
) -> Result<Arc<dyn Provider>, ProviderError> {
    let settings = class.provider.clone().map_err(ProviderError::transient)?;
    let mark = Mark {
        cluster: context.cluster.0.clone(),
        cluster_name: context.cluster.1.clone(),
        class: class.name.clone(),
    };
    let provider = context.factory.build(&settings, mark)?;
    in_time(provider.restore(recorded(context, &class.name))).await?;
    take_stock(context, &class.name, provider.as_ref()).await?;
    if context.fence.epoch().is_none() {
        return Err(ProviderError::transient(
            "this process does not lead any more",
        ));
    }
    let now = targets.borrow_and_update().clone();
    let now = now.targets(provider.traits().exclusion);
    in_time(provider.retarget(now, &[])).await?;
    Ok(provider)
}

/// What the cloud holds for this class goes into the ledger: a load balancer whose
/// Service lost its finalizer, or vanished while nobody watched, is released as well.
async fn take_stock(
    context: &Context,
    class: &str,
    provider: &dyn Provider,
) -> Result<(), ProviderError> {
    for owned in in_time(provider.inventory()).await? {
        if owned.tags.contains_key(mark::RETAINED) {
            continue;
        }
        if owned.services.is_empty() {
            warn!(
                class,
                name = owned.name,
                "a cloud object carries our tags but names no Service"
            );
        }
        for id in &owned.services {
            match &owned.key {
                Some(key) => context.ledger.record_on(id, class, key),
                None => context.ledger.record(id, class),
            }
        }
    }
    Ok(())
}

/// What the Services of a class publish now.
fn recorded(context: &Context, class: &str) -> Vec<Recorded> {
    let classes = context.board.snapshot();
    let services = context.services.all();
    let of_class = services
        .iter()
        .filter(|service| classes.claim(service) == Some(class));
    of_class
        .filter(|service| !service.ingress.is_empty())
        .map(|service| Recorded {
            id: service.id.clone(),
            addresses: service.addresses(),
        })
        .collect()
}

/// Retries until it succeeds; newer targets replace the ones that failed.
async fn follow_targets(
    context: &Context,
    class: &str,
    provider: &dyn Provider,
    targets: &mut watch::Receiver<Eligible>,
) {
    let mut retries = Retries::new(0);
    // Who was stopped for longer than its term wakes up with targets of that time.
    while context.fence.epoch().is_some() {
        let now = targets.borrow_and_update().clone();
        let now = now.targets(provider.traits().exclusion);
        match in_time(provider.retarget(now, &[])).await {
            Ok(()) => {
                info!(class, targets = now.len(), "targets changed");
                context.metrics.retargeted(class, "changed");
                break;
            }
            Err(error) => {
                warn!(class, %error, "targets not changed");
                context.metrics.retargeted(class, "failed");
                tokio::time::sleep(retries.after(&error)).await;
            }
        }
    }
}

/// Says so where it is news.
fn fail(context: &Context, class: &str, message: String) {
    let board = context.board.snapshot();
    let known =
        matches!(board.instances.get(class), Some(Instance::Failing(before)) if *before == message);
    if known {
        debug!(class, message, "the provider still cannot start");
    } else {
        warn!(class, error = message, "the provider cannot start");
        context
            .board
            .post_instance(class, Instance::Failing(message));
        wake(context, class);
    }
}

/// A class came, went or was edited: every Service that could be ours looks again.
fn wake_all(context: &Context) {
    for service in oldest_first(context.services.all()) {
        if service.load_balancer.is_some() || !service.held_by.is_empty() {
            context.queue.add(Name::from(&service.id));
        }
    }
}

/// Everything that this class serves, held, or left behind.
fn wake(context: &Context, class: &str) {
    let classes = context.board.snapshot();
    for service in oldest_first(context.services.all()) {
        if service.is_held_by(class) || classes.claim(&service) == Some(class) {
            context.queue.add(Name::from(&service.id));
        }
    }
    context
        .ledger
        .names()
        .into_iter()
        .for_each(|name| context.queue.add(name));
}
