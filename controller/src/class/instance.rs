//! The providers of the classes: one task per class, on the leader.
//!
//! A class task first inherits a recorded drain ([`drain`](super::drain)), then builds the provider, restores it from what Services publish, records in the
//! ledger what the cloud holds, and sets the targets. A step that fails is tried again with the same
//! provider, so that a step that takes long goes on where it was. Then the task follows two streams side by
//! side: the targets (a wave of changes becomes one call; the latest wins) and the changes
//! that the provider reports (each wakes its Service). Beside them, [`orphans`] looks for load balancers
//! without a Service. The state of the provider is posted on
//! the board; no Service is ensured or released while the provider of its class is not ready.
//!
//! ```text
//!  class arrives ──▶ Starting ── start succeeds ──▶ Ready ──┐
//!                       │                           ▲  ▲    │ follows targets
//!           start fails │                           │  └────┘ and changes
//!                       ▼                           │
//!                ┌──▶ Failing ── start succeeds ────┘
//!                │      │
//!                └──────┘ start fails again, after a pause
//!
//!  In every state: the class is deleted, leaves the scope, becomes unusable, or gets another
//!  UID or other provider settings ──▶ gone. With other settings it arrives again.
//! ```
//!
//! **Tasks.** [`run`] owns the class tasks in a `JoinSet` and lives as long as the leader. It
//! starts and aborts them as the classes on the board change. A class task owns its provider
//! until a worker that uses it is done. It posts through its [`Seat`], so an aborted task posts
//! nothing any more.
//!
//! **Cancel safety.** A class task can be aborted at every await. It writes only to the board
//! and the ledger, each under a short lock and never across an await, and its calls of the
//! provider are idempotent: the next instance of the class makes them again. The two streams
//! are joined in one `select!` and never cancel each other. A panic of a class task ends the
//! process at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_crds::ProviderSettings;
use ballast_provider::{
    Cause, Mark, Provider, ProviderError, Published, Refusal, ServiceId, Traits, mark,
};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, info, warn};

use crate::class::board::{Board, Seat};
use crate::class::drain::{Drains, inherit};
use crate::class::orphans::{self, Clock};
use crate::class::patience::in_time;
use crate::class::{ClassView, Classes, Instance};
use crate::cluster::eligibility::Eligible;
use crate::cluster::ledger::Ledger;
use crate::cluster::metrics::ProviderMetrics;
use crate::cluster::store::Store;
use crate::cluster::view::{Name, ServiceView, oldest_first};
use crate::cluster::writer::Writer;
use crate::process::backoff::Backoff;
use crate::process::lease::Fence;
use crate::process::queue::Queue;
use crate::process::wave::settled;

/// Between two tries of a cloud that does not answer. Many Services wait for one class, so the
/// longest pause is short.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// This many tries of a start keep the shortest pause: a cloud that was installed together
/// with the controller answers within seconds.
const EAGER: u32 = 10;
/// A wave of node changes ends when no change came for this long …
const QUIET: Duration = Duration::from_millis(300);
/// … or after this long in any case.
const WAVE: Duration = Duration::from_secs(3);

/// The providers of this build.
pub trait Factory: Send + Sync {
    /// The traits of the provider of a class with these settings, or why this build has no such
    /// provider. Pure.
    fn supports(&self, settings: &ProviderSettings) -> Result<Traits, Refusal>;

    /// The prefixes of the annotations that Services have for the providers of this build, each
    /// with its slash and whatever follows it. Such an annotation reaches the provider in
    /// [`ballast_provider::LoadBalancer::settings`]. Always the same.
    fn setting_prefixes(&self) -> &'static [&'static str];

    /// Builds the provider of a class; it is not restored yet.
    fn build(
        &self,
        settings: &ProviderSettings,
        mark: Mark,
    ) -> Result<Arc<dyn Provider>, ProviderError>;
}

/// Sends an event with this text.
pub type SendEvent = Arc<dyn Fn(&ServiceId, &str) + Send + Sync>;

/// What an event about a class says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassNews {
    /// Load balancers have no Service.
    Orphaned(String),
    /// A copy of the cluster uses the same load balancers.
    IdentityShared(String),
}

/// Sends an event about the class with this name.
pub type SendClassEvent = Arc<dyn Fn(&str, ClassNews) + Send + Sync>;

/// What every class task needs.
#[derive(Clone)]
pub struct Context {
    /// Builds providers.
    pub factory: Arc<dyn Factory>,
    /// The UID of `kube-system`, and the name of the cluster for people.
    pub cluster: (String, String),
    /// Tells what this process writes from what any other one does ([`Mark::writer`]).
    pub tag_writer: String,
    /// The Services, as watched.
    pub services: Arc<Store<Name, ServiceView>>,
    /// What drains, whatever the classes say.
    pub drains: Drains,
    /// Sets the drain switch.
    pub writer: Writer,
    /// Where the state of providers is posted.
    pub board: Board,
    /// Where Services are woken.
    pub queue: Queue<Name>,
    /// Which Services have something in which class.
    pub ledger: Arc<Ledger>,
    /// The eligible nodes.
    pub targets: watch::Receiver<Eligible>,
    /// Counts calls that fail, and target changes.
    pub metrics: ProviderMetrics,
    /// The time of tags.
    pub clock: Clock,
    /// Sends the event that says what differs from what was made.
    pub send_changed: SendEvent,
    /// Sends an event about a class.
    pub send_class_event: SendClassEvent,
    /// Checked before every effect.
    pub fence: Fence,
}

/// A provider that does not serve yet, and the steps that it has behind it.
#[derive(Default)]
struct Begun {
    inherited: bool,
    provider: Option<Arc<dyn Provider>>,
    restored: bool,
    listed: bool,
}

/// The pauses between tries.
struct Retries {
    /// This many failures do not make the pause longer.
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

    /// The pause after an error: the time that the cloud asks for, which does not count as a
    /// failure, or a time that grows with each failure.
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

/// Runs the tasks of all classes in scope until the board is dropped.
pub async fn run(context: Context) {
    let mut board = context.board.subscribe();
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut running: BTreeMap<String, (Arc<ClassView>, tokio::task::AbortHandle)> = BTreeMap::new();
    let mut before = Arc::new(Classes::default());
    board.mark_changed();
    loop {
        tokio::select! {
            changed = board.changed() => if changed.is_err() { return },
            Some(ended) = tasks.join_next() => {
                resume_panic(ended);
                continue;
            }
        }
        let classes = board.borrow_and_update().clone();
        if !classes.are_same_for_services(&before) {
            wake_all(&context);
        }
        before = Arc::clone(&classes);
        let usable: BTreeMap<&str, &Arc<ClassView>> = classes
            .views
            .values()
            .filter(|class| classes.scope.owns(&class.name) && class.unusable().is_none())
            .map(|class| (class.name.as_str(), class))
            .collect();
        running.retain(|name, (class, task)| {
            let now = usable.get(name.as_str());
            let keep = now.is_some_and(|now| can_keep_provider(class, now));
            if !keep {
                task.abort();
                context.board.vacate(name);
            }
            keep
        });
        for (name, class) in usable {
            if !running.contains_key(name) {
                let seat = context.board.seat(name);
                let task = tasks.spawn(serve(context.clone(), seat, Arc::clone(class)));
                running.insert(name.to_owned(), (Arc::clone(class), task));
            }
        }
    }
}

/// A class whose task panicked would never be served again, so the process exits.
fn resume_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Whether the provider that was built for a class can serve it as it is now. A class with
/// the same name and another UID is another class.
fn can_keep_provider(before: &ClassView, now: &ClassView) -> bool {
    before.uid == now.uid && before.provider == now.provider
}

/// The task of one class; see the module for its states.
async fn serve(context: Context, seat: Seat, class: Arc<ClassView>) {
    let name = class.name.as_str();
    let mut retries = Retries::new(EAGER);
    let mut targets = context.targets.clone();
    let mut begun = Begun::default();
    let (provider, told) = loop {
        match start(&context, &class, &mut targets, &mut begun).await {
            Ok(started) => break started,
            Err(error) => {
                context.metrics.failed(name, error.reason().as_str());
                fail(&context, &seat, name, &error);
                tokio::time::sleep(retries.after(&error)).await;
            }
        }
    };
    info!(class = name, "the provider is ready");
    seat.post(Instance::Ready(Arc::clone(&provider)));
    wake(&context, name);
    // Neither cancels the other: a change in the cloud must not end the wait for a wave of
    // nodes.
    tokio::select! {
        never = follow_changes(&context, name, provider.as_ref()) => match never {},
        never = orphans::watch(&context, &seat, name, provider.as_ref()) => match never {},
        () = follow_waves(&context, name, provider.as_ref(), targets, told) => {}
    }
}

/// Wakes the Service of every change that the provider reports. Never ends.
async fn follow_changes(
    context: &Context,
    class: &str,
    provider: &dyn Provider,
) -> std::convert::Infallible {
    let mut changes = provider.changes();
    while let Some(change) = changes.next().await {
        match change.cause {
            Cause::Due => debug!(class, service = %change.id, "the provider asks for a turn"),
            cause => {
                let what = &change.difference;
                info!(class, service = %change.id, ?cause, what, "the load balancer changed in the cloud");
            }
        }
        // A Service that has left has no event.
        let name = Name::from(&change.id);
        if !change.difference.is_empty()
            && (context.services.get(&name)).is_some_and(|service| service.id.uid == change.id.uid)
        {
            (context.send_changed)(&change.id, &change.difference);
        }
        if change.cause == Cause::Appeared {
            // As at the start: if no Service wants it, it is released by its name.
            match &change.key {
                Some(key) => context.ledger.record_on(&change.id, class, key),
                None => context.ledger.record(&change.id, class),
            }
        }
        context.queue.add(name);
    }
    // The provider reports no changes; the targets are still followed.
    std::future::pending().await
}

/// Follows the targets, a wave at a time, until the watch of nodes is dropped. `told`: the nodes
/// that the provider knows. Services are woken for what it was told, not for newer nodes: their
/// turns ask the provider.
async fn follow_waves(
    context: &Context,
    class: &str,
    provider: &dyn Provider,
    mut targets: watch::Receiver<Eligible>,
    mut told: Eligible,
) {
    let traits = provider.traits();
    while settled(&mut targets, QUIET, WAVE).await {
        // A label of a node is none of most providers' business.
        if !concerns(traits, &told, &targets.borrow()) {
            continue;
        }
        let Some(now) = follow_targets(context, class, provider, &mut targets).await else {
            continue;
        };
        let before = std::mem::replace(&mut told, now);
        wake_on(context, class, before.addresses(), told.addresses());
        // Whether there is any target at all is part of every Service's condition.
        if before.backing(traits.exclusion) != told.backing(traits.exclusion) {
            wake(context, class);
        }
    }
}

/// Whether something changed that a provider with these traits is told.
fn concerns(traits: Traits, before: &Eligible, now: &Eligible) -> bool {
    before.targets(traits) != now.targets(traits)
        || before.addresses() != now.addresses()
        || before.backing(traits.exclusion) != now.backing(traits.exclusion)
}

/// Wakes the Services of a class that publish an address that became a node's, or no longer
/// is one: their conditions report it.
fn wake_on(context: &Context, class: &str, before: &BTreeSet<IpAddr>, now: &BTreeSet<IpAddr>) {
    if before == now {
        return;
    }
    for published in publishes(context, class) {
        let mut addresses = published.addresses.iter();
        if addresses.any(|ip| before.contains(ip) != now.contains(ip)) {
            context.queue.add(Name::from(&published.id));
        }
    }
}

/// Makes the steps of the start that `begun` has not behind it.
async fn start(
    context: &Context,
    class: &ClassView,
    targets: &mut watch::Receiver<Eligible>,
    begun: &mut Begun,
) -> Result<(Arc<dyn Provider>, Eligible), ProviderError> {
    if !begun.inherited {
        inherit(&context.drains, &context.writer, &context.board, class).await?;
        begun.inherited = true;
    }
    let provider = match begun.provider.take() {
        Some(provider) => provider,
        None => build(context, class)?,
    };
    begun.provider = Some(Arc::clone(&provider));
    if !begun.restored {
        in_time(provider.restore(publishes(context, &class.name))).await?;
        begun.restored = true;
    }
    if !begun.listed {
        take_stock(context, &class.name, provider.as_ref()).await?;
        begun.listed = true;
    }
    if context.fence.epoch().is_none() {
        return Err(ProviderError::transient(
            "this process is no longer the leader",
        ));
    }
    let told = targets.borrow_and_update().clone();
    let now = told.targets(provider.traits());
    in_time(provider.retarget(&now, &[])).await?;
    Ok((provider, told))
}

fn build(context: &Context, class: &ClassView) -> Result<Arc<dyn Provider>, ProviderError> {
    let settings = class.provider.clone().map_err(ProviderError::transient)?;
    let mark = Mark {
        cluster: context.cluster.0.clone(),
        cluster_name: context.cluster.1.clone(),
        class: class.name.clone(),
        writer: context.tag_writer.clone(),
    };
    context.factory.build(&settings, mark)
}

/// Records in the ledger what the cloud holds for this class, so that a load balancer is also
/// released if its Service lost its finalizer. What has no Service waits for [`orphans`].
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
                "a cloud object has the tags of this class but names no Service"
            );
        }
        for id in &owned.services {
            match &owned.key {
                Some(key) => context.ledger.record_on(id, class, key),
                None => context.ledger.record(id, class),
            }
            let there = context.services.get(&Name::from(id));
            if there.is_none_or(|there| there.id.uid != id.uid) {
                context.ledger.absent(id, class);
            }
        }
    }
    Ok(())
}

/// What the Services of a class publish.
fn publishes(context: &Context, class: &str) -> Vec<Published> {
    let classes = context.board.snapshot();
    let services = context.services.all();
    let of_class = services
        .iter()
        .filter(|service| classes.claim(service) == Some(class));
    of_class
        .filter(|service| !service.ingress.is_empty())
        .map(|service| Published {
            id: service.id.clone(),
            addresses: service.addresses(),
            hostnames: service.hostnames(),
        })
        .collect()
}

/// Sets the targets; retries until it succeeds, and returns the nodes that the provider knows
/// then. Newer targets replace those that failed. `None`: this process leads no more.
async fn follow_targets(
    context: &Context,
    class: &str,
    provider: &dyn Provider,
    targets: &mut watch::Receiver<Eligible>,
) -> Option<Eligible> {
    let mut retries = Retries::new(0);
    // A process that was suspended for longer than its Lease has targets of that time.
    while context.fence.epoch().is_some() {
        let told = targets.borrow_and_update().clone();
        let now = told.targets(provider.traits());
        match in_time(provider.retarget(&now, &[])).await {
            Ok(()) => {
                info!(class, targets = now.len(), "targets changed");
                context.metrics.retargeted(class, "changed");
                return Some(told);
            }
            Err(error) => {
                warn!(class, %error, "cannot change the targets");
                context.metrics.retargeted(class, "failed");
                tokio::time::sleep(retries.after(&error)).await;
            }
        }
    }
    None
}

/// Posts that the provider cannot start, once per message.
fn fail(context: &Context, seat: &Seat, class: &str, error: &ProviderError) {
    let message = error.to_string();
    let board = context.board.snapshot();
    let known = matches!(board.instances.get(class), Some(Instance::Failing(_, before)) if *before == message);
    if known {
        debug!(class, message, "the provider still cannot start");
    } else {
        warn!(class, error = message, "the provider cannot start");
        seat.post(Instance::Failing(error.reason(), message));
        wake(context, class);
    }
}

/// Wakes every Service that a class could serve, after a class was added, removed or edited.
fn wake_all(context: &Context) {
    for service in oldest_first(context.services.all()) {
        if service.load_balancer.is_some() || !service.held_by.is_empty() {
            context.queue.add(Name::from(&service.id));
        }
    }
}

/// Wakes every Service that the class serves or holds, every Service without a class that
/// publishes an address (which class has it may be known now), and every name in the ledger.
fn wake(context: &Context, class: &str) {
    let classes = context.board.snapshot();
    for service in oldest_first(context.services.all()) {
        let classless = || service.class.is_none() && service.load_balancer.is_some();
        if service.is_held_by(class)
            || classes.claim(&service) == Some(class)
            || (classless() && !service.ingress.is_empty())
        {
            context.queue.add(Name::from(&service.id));
        }
    }
    context
        .ledger
        .names()
        .into_iter()
        .for_each(|name| context.queue.add(name));
}

#[cfg(test)]
mod tests;
