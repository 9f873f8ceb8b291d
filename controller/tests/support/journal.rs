//! The global order of effects: every write to the API server and every mutating call to the
//! cloud, with its author and whether it took effect. The [`Fuse`] counts them and cuts an
//! instance off permanently at one of them; [`Link`] is an instance's connection to the world.

use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The target of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `services/status`
    Service,
    /// A class or its status.
    Class,
    /// A pool's status.
    Pool,
    /// An event.
    Event,
    /// The election; the fuse does not count it, because it has its own simulation.
    Lease,
    /// A load balancer in the cloud.
    Cloud,
}

/// One effect.
#[derive(Clone)]
pub struct Effect {
    pub at: Duration,
    pub by: String,
    pub target: Target,
    /// The kind: `patch`, `create`, `delete`, …
    pub verb: &'static str,
    /// `namespace/name`, the class, or the Service's UID.
    pub subject: String,
    /// The body, or the request to the cloud.
    pub detail: String,
    /// Whether it took effect.
    pub landed: bool,
}

/// How the fuse ends an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The effect does not take place.
    Before,
    /// The effect takes place, but the caller gets no answer.
    After,
}

/// Where the fuse blows.
#[derive(Clone, Copy, Debug)]
pub struct Fuse {
    /// At the effect with this number, from 1.
    pub at: usize,
    pub cut: Cut,
}

/// The journal of one world.
pub struct Journal {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    start: Instant,
}

#[derive(Default)]
struct Inner {
    effects: Vec<Effect>,
    violations: Vec<String>,
    fuse: Option<Fuse>,
    counted: usize,
}

/// The part of the world that an instance can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    All,
    /// The cloud answers, the API server does not.
    CloudOnly,
    /// The API server answers everything except the election.
    NoLease,
    /// Dead: every call hangs forever.
    Nothing,
}

/// One instance's connection to the world. Clones share it.
#[derive(Clone)]
pub struct Link {
    name: Arc<str>,
    reach: Arc<Mutex<Reach>>,
    journal: Arc<Journal>,
}

/// The instance is dead: its calls get no answer.
#[derive(Debug)]
pub struct Dead;

// === impl Journal ===

impl Journal {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
            start: Instant::now(),
        })
    }

    /// Wakes the tasks that wait for a change of the world.
    pub fn changed(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Records that something forbidden happened.
    pub fn violation(&self, what: impl Into<String>) {
        self.lock().violations.push(what.into());
        self.changed();
    }

    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Counts effects from now on, and ends the instance that makes the nth.
    pub fn arm(&self, fuse: Fuse) {
        let mut inner = self.lock();
        inner.fuse = Some(fuse);
        inner.counted = 0;
    }

    /// Removes the fuse; returns whether it blew.
    pub fn disarm(&self) -> bool {
        self.lock().fuse.take().is_none()
    }

    /// The age of the world.
    pub fn age(&self) -> Duration {
        self.start.elapsed()
    }

    /// All effects so far.
    pub fn effects(&self) -> Vec<Effect> {
        self.lock().effects.clone()
    }

    /// A position in the order, for [`Self::since`].
    pub fn mark(&self) -> usize {
        self.lock().effects.len()
    }

    /// The effects after a mark, without the election.
    pub fn since(&self, mark: usize) -> Vec<Effect> {
        let inner = self.lock();
        let effects = inner.effects[mark..].iter();
        effects
            .filter(|effect| effect.target != Target::Lease)
            .cloned()
            .collect()
    }

    /// Carries out an effect, unless the fuse prevents it.
    pub fn effect<R>(
        &self,
        link: &Link,
        effect: Effect,
        carry_out: impl FnOnce() -> R,
    ) -> Result<R, Dead> {
        let cut = self.cut(link, effect)?;
        if cut == Some(Cut::Before) {
            link.set(Reach::Nothing);
            return Err(Dead);
        }
        let result = carry_out();
        self.changed();
        if cut == Some(Cut::After) {
            link.set(Reach::Nothing);
            return Err(Dead);
        }
        Ok(result)
    }

    fn cut(&self, link: &Link, effect: Effect) -> Result<Option<Cut>, Dead> {
        if link.reach() == Reach::Nothing {
            return Err(Dead);
        }
        let mut inner = self.lock();
        let counts = effect.target != Target::Lease;
        inner.counted += usize::from(counts);
        let blown = inner.fuse.filter(|fuse| counts && fuse.at == inner.counted);
        if blown.is_some() {
            inner.fuse = None;
        }
        let landed = blown.is_none_or(|fuse| fuse.cut == Cut::After);
        let at = self.start.elapsed();
        inner.effects.push(Effect {
            at,
            landed,
            by: link.name().to_owned(),
            ..effect
        });
        Ok(blown.map(|fuse| fuse.cut))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Effect ===

impl Effect {
    /// A requested effect; the journal adds the author and the time.
    pub fn of(
        target: Target,
        verb: &'static str,
        subject: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            at: Duration::ZERO,
            by: String::new(),
            target,
            verb,
            subject: subject.into(),
            detail: detail.into(),
            landed: false,
        }
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = if self.landed { "" } else { " (NEVER HAPPENED)" };
        write!(
            f,
            "{:9.3}s {} {:?} {} {}{lost} {}",
            self.at.as_secs_f64(),
            self.by,
            self.target,
            self.verb,
            self.subject,
            self.detail
        )
    }
}

// === impl Link ===

impl Link {
    pub fn new(name: &str, journal: &Arc<Journal>) -> Self {
        Self {
            name: name.into(),
            reach: Arc::new(Mutex::new(Reach::All)),
            journal: Arc::clone(journal),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn reach(&self) -> Reach {
        *self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, reach: Reach) {
        *self.reach.lock().unwrap_or_else(PoisonError::into_inner) = reach;
        self.journal.changed();
    }

    pub fn is_dead(&self) -> bool {
        self.reach() == Reach::Nothing
    }

    /// Hangs forever if the API server is out of reach.
    pub async fn to_api(&self) {
        if matches!(self.reach(), Reach::CloudOnly | Reach::Nothing) {
            pending::<()>().await;
        }
    }

    /// Hangs forever if the cloud is out of reach.
    pub async fn to_cloud(&self) {
        if self.is_dead() {
            pending::<()>().await;
        }
    }
}
