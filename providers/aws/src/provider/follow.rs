//! Asks AWS what nobody else says: whether load balancers have become active, whether targets are
//! healthy, and whether somebody else has changed something.
//!
//! ```text
//!  each 10 s, while any is provisioned   DescribeLoadBalancers, 20 in a call
//!  when active, and from a change until
//!  enough are healthy                    DescribeTargetHealth of each group, less and less often
//!  a minute after the start, and then
//!  each 10 min                           the names and tags of everything of the class
//!  between, one call in 18 s             after a start the health of each Service, one after the other;
//!                                        then the rest of one Service with its health
//! ```
//!
//! It also makes up for what a turn has left: rules that let load balancers reach the nodes, the tag that
//! names the targets, and the backend group after the last Service.
//!
//! It also asks for the turns that only time gives a reason for ([`Record::turn_at`]).
//!
//! It changes nothing else in AWS: a difference makes the record of its Service true again, and the
//! controller's next turn repairs it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ballast_provider::{Cause, Change, Key};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::Instant;
use tracing::{debug, info};

use super::backend::{CLOSING, Closed};
use super::full::complete;
use super::records::{Answers, Cell, Depth, LAG, Record};
use super::{Inner, PATIENCE, drift};
use crate::client::{Client, Manner};
use crate::observed::LoadBalancerState;
use crate::rate::Urgency;

mod compare;

use self::compare::Look;

/// Between two looks at load balancers that are provisioned.
const PROVISIONING: Duration = Duration::from_secs(10);
/// Between two looks at everything of the class.
const DRIFT: Duration = Duration::from_mins(10);
/// Between two calls that read Services in full: 200 in an hour, however many load balancers and ports
/// there are. A Service with one port takes six, so of 100 such Services each is read every three hours.
const IN_FULL: Duration = Duration::from_secs(18);
/// The time to wait when nothing is due, at most.
const IDLE: Duration = Duration::from_mins(1);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(30);
/// The longest time between two tries to delete the backend group.
const CLOSING_MOST: Duration = Duration::from_mins(10);

struct Follower {
    inner: Arc<Inner>,
    ready: VecDeque<Change>,
    provisioning: Instant,
    drift: Instant,
    in_full: Instant,
    /// When the backend group may be deleted, and how long to wait after that.
    closing: (Instant, Duration),
    /// What was said of nodes.
    remarks: Vec<String>,
}

/// The changes of a class, for ever.
pub(super) fn follow(inner: Arc<Inner>) -> BoxStream<'static, Change> {
    futures::stream::unfold(Follower::new(inner), |mut follower| async move {
        loop {
            if let Some(change) = follower.ready.pop_front() {
                return Some((change, follower));
            }
            follower.wait().await;
            follower.look(Instant::now()).await;
        }
    })
    .boxed()
}

/// Everything at once, whether it is due or not.
pub(super) async fn look(inner: Arc<Inner>) -> Vec<Change> {
    let now = Instant::now();
    let mut follower = Follower {
        provisioning: now,
        drift: now,
        in_full: now,
        closing: (now, CLOSING),
        ..Follower::new(inner)
    };
    follower.inner.network().backend.hurry();
    for (_, cell) in follower.inner.records.cells() {
        let mut record = cell.lock().await;
        if record.health.due().is_some() {
            record.health.ask_at(now);
        }
        if let Some(left) = &mut record.cleanup {
            left.due = now;
        }
    }
    follower.look(now).await;
    follower.ready.into()
}

/// Each record, and its changes so far. Those that somebody works on are left out.
type Before = BTreeMap<Key, (Cell, u64)>;

// === impl Follower ===

impl Follower {
    fn new(inner: Arc<Inner>) -> Self {
        let now = Instant::now();
        let remarks = inner.remarks_on_nodes();
        Self {
            inner,
            remarks,
            closing: (now + IDLE, CLOSING),
            ready: VecDeque::new(),
            provisioning: now + PROVISIONING,
            drift: now + LAG,
            in_full: now + IN_FULL,
        }
    }

    async fn wait(&self) {
        let due = self.due();
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = self.inner.polls.notified() => {}
        }
    }

    fn due(&self) -> Instant {
        let mut due = (Instant::now() + IDLE).min(self.drift).min(self.in_full);
        for (_, cell) in self.inner.records.cells() {
            // Whoever holds it notifies at its end.
            let Ok(record) = cell.try_lock() else {
                continue;
            };
            if is_provisioned(&record) {
                due = due.min(self.provisioning);
            }
            let waits = [record.health_due(), record.turn_at(Instant::now())];
            due = waits.into_iter().flatten().fold(due, Instant::min);
        }
        due
    }

    async fn look(&mut self, now: Instant) {
        let inner = Arc::clone(&self.inner);
        let Some(client) = inner.client.get() else {
            return;
        };
        if now >= self.drift {
            inner.network().doubt();
        }
        if let Err(why) = inner.look_at_new_nodes(client).await {
            debug!(error = %why, "cannot look at new nodes");
        }
        self.report_remarks_on_nodes();
        if let Err(why) = inner.settle_again(client).await {
            debug!(error = %why, "cannot write which targets every target group has");
        }
        self.close(client, now).await;
        if now >= self.provisioning {
            self.provisioning = now + PROVISIONING;
            self.look_at_states(client).await;
        }
        // The time now: those that have just become active are asked for at once.
        self.look_at_health(client, Instant::now()).await;
        self.ask_for_turns(now);
        if now >= self.drift {
            self.drift = now + DRIFT;
            let begun = Instant::now();
            let before = self.changes();
            let backend = inner.network().backend.id();
            match inner.look_around(client, Urgency::Background).await {
                Ok(mut found) => {
                    (inner.records).meet(std::mem::take(&mut found.strangers));
                    self.compare_backend(&found, backend.as_deref(), begun);
                    let late = inner.records.listed(begun);
                    let look = Look { begun, late };
                    let unsure = self.compare(&found, &before, look);
                    // Each of these cells is somebody's who works on it.
                    drop(before);
                    self.make_sure_of(client, unsure).await;
                    self.try_refused(client).await;
                }
                Err(why) => {
                    debug!(error = %why, "cannot list the load balancers of this class");
                    self.drift = now + PAUSE;
                }
            }
        }
        if now >= self.in_full {
            let calls = self.read_next(client).await;
            self.in_full = now + IN_FULL * calls.max(1);
        }
    }

    /// Every Service of the load balancer gets a turn, because each has a status of its own.
    fn report(&mut self, record: &Record, cause: Cause) {
        self.report_difference(record, cause, &[]);
    }

    /// The load balancer differs in this from what was made.
    fn report_difference(&mut self, record: &Record, cause: Cause, what: &[String]) {
        self.ready.extend(record.members.iter().map(|id| Change {
            id: id.clone(),
            key: Some(record.key.clone()),
            cause,
            difference: drift::words(what),
        }));
    }

    /// Every Service says whether load balancers reach the nodes.
    fn report_remarks_on_nodes(&mut self) {
        let remarks = self.inner.remarks_on_nodes();
        if remarks == self.remarks {
            return;
        }
        self.remarks = remarks;
        for (_, cell) in self.inner.records.cells() {
            if let Ok(record) = cell.try_lock()
                && !record.retained
            {
                self.report(&record, Cause::Due);
            }
        }
    }

    /// Deletes the backend group if no Service has anything.
    async fn close(&mut self, client: &Client, now: Instant) {
        let (due, pause) = self.closing;
        let unused = self.inner.records.cells().is_empty();
        if now < due || !unused || !self.inner.network().backend.is_unused(now) {
            return;
        }
        let pause = match self.inner.close(client).await {
            Closed::Done | Closed::Later(_) => CLOSING,
            Closed::Stuck => (pause * 2).min(CLOSING_MOST),
        };
        self.closing = (now + pause, pause);
    }

    fn changes(&self) -> Before {
        let cells = self.inner.records.cells().into_iter();
        let all = cells.filter_map(|(key, cell)| {
            let changes = cell.try_lock().ok()?.changes;
            Some((key, (cell, changes)))
        });
        all.collect()
    }

    /// Instances that AWS did not accept may run now: every Service tries them in its next turn.
    async fn try_refused(&mut self, client: &Client) {
        if !self.inner.forgive(client).await {
            return;
        }
        for (_, cell) in self.inner.records.cells() {
            if let Ok(record) = cell.try_lock()
                && !record.retained
            {
                self.report(&record, Cause::Due);
            }
        }
    }

    /// Whether load balancers have become active, or failed.
    async fn look_at_states(&mut self, client: &Client) {
        let mut waiting = Vec::new();
        for (_, cell) in self.inner.records.cells() {
            if let Ok(record) = cell.try_lock()
                && is_provisioned(&record)
            {
                let all = record.observed.load_balancers.values();
                waiting.extend(all.map(|one| (one.arn.clone(), Arc::clone(&cell))));
            }
        }
        if waiting.is_empty() {
            return;
        }
        let arns: Vec<String> = waiting.iter().map(|(arn, _)| arn.clone()).collect();
        let manner = Manner::new(Urgency::Background, PATIENCE);
        let found = match client.load_balancers(&arns, manner).await {
            Ok(found) => found,
            Err(why) => {
                debug!(error = %why, "cannot read the states of load balancers");
                return;
            }
        };
        for (arn, cell) in waiting {
            let Some(now) = found.iter().find(|one| one.arn == arn) else {
                continue;
            };
            let mut record = cell.lock().await;
            let mut all = record.observed.load_balancers.values_mut();
            let Some(there) = all.find(|one| one.arn == arn) else {
                continue;
            };
            if there.state != now.state || there.reason != now.reason {
                let was = std::mem::replace(&mut there.state, now.state);
                there.reason.clone_from(&now.reason);
                info!(arn, state = ?now.state, "the load balancer has another state");
                let asked = record.present().is_some_and(|one| one.arn == arn);
                let begins = was == LoadBalancerState::Provisioning
                    && now.state != LoadBalancerState::Failed;
                if asked && begins {
                    // It is reported together with the health of its targets.
                    record.health.activated(&arn, Instant::now());
                } else {
                    self.report(&record, Cause::Active);
                }
            }
        }
    }

    /// Nothing else wakes a Service for which only time passes.
    fn ask_for_turns(&mut self, now: Instant) {
        for (_, cell) in self.inner.records.cells() {
            let Ok(mut record) = cell.try_lock() else {
                continue;
            };
            if record.turn_at(now).is_some_and(|at| at <= now) {
                record.asks_for_turn(now);
                self.report(&record, Cause::Due);
            }
        }
    }

    async fn look_at_health(&mut self, client: &Client, now: Instant) {
        for (_, cell) in self.inner.records.cells() {
            let Ok(mut record) = cell.try_lock() else {
                continue;
            };
            if record.health_due().is_none_or(|due| due > now) {
                continue;
            }
            let mut answers = Answers::new();
            let manner = Manner::new(Urgency::Background, PATIENCE);
            let groups = record.groups_to_ask();
            for arn in &groups {
                match client.target_health(arn, manner).await {
                    Ok(targets) => {
                        answers.insert(arn.clone(), targets);
                    }
                    Err(why) => {
                        debug!(error = %why, "cannot read the health of targets");
                        break;
                    }
                }
            }
            if answers.len() < groups.len() {
                if record.health.settles(now) {
                    self.report(&record, Cause::Active);
                }
                record.health.failed(now, PAUSE);
                continue;
            }
            let news = record.heard(&answers, now);
            // A former process may have registered them in what counts as new.
            let unknown = record.misses(&answers);
            if unknown {
                record.doubt();
            }
            for (holds, cause) in [(news, Cause::Active), (unknown, Cause::Due)] {
                if holds {
                    self.report(&record, cause);
                }
            }
        }
    }

    /// Asks how the targets of one Service are of which a process that has just started knows nothing: what its
    /// status says may be old. That takes one call for each target group and not all of a full look.
    /// Returns the number of calls; `None` if there is no such Service.
    async fn ask_first(&mut self, client: &Client, cells: &[(Key, Cell)]) -> Option<u32> {
        let unheard = cells.iter().find_map(|(_, cell)| {
            let record = cell.try_lock().ok()?;
            record.is_unheard().then_some(record)
        });
        let mut record = unheard?;
        let now = Instant::now();
        let mut answers = Answers::new();
        for arn in record.groups() {
            let manner = Manner::new(Urgency::Background, PATIENCE);
            match client.target_health(&arn, manner).await {
                Ok(targets) => answers.insert(arn, targets),
                Err(why) => {
                    debug!(error = %why, "cannot read the health of targets");
                    record.health.failed(now, PAUSE);
                    return Some(1);
                }
            };
        }
        if record.heard(&answers, now) {
            self.report(&record, Cause::Active);
        }
        u32::try_from(answers.len()).ok()
    }

    /// Reads of one Service what the list of everything does not say, and of the next one the next
    /// time. Returns the number of calls.
    async fn read_next(&mut self, client: &Client) -> u32 {
        let cells = self.inner.records.cells();
        if let Some(calls) = self.ask_first(client, &cells).await {
            return calls;
        }
        let Some(cell) = self.inner.records.next_to_read() else {
            return 0;
        };
        let Ok(mut record) = cell.try_lock() else {
            return 0;
        };
        if record.depth == Depth::Doubtful || record.retained || record.is_empty() {
            return 0;
        }
        let mut seen = record.observed.clone();
        let reservations = !record.capacity.is_none();
        let read = complete(client, &mut seen, reservations, Urgency::Background).await;
        let (number, answers) = match read {
            Ok(read) => read,
            Err(why) => {
                debug!(error = %why, key = %record.key, "cannot read a load balancer");
                if why.cause == crate::client::Cause::NotFound {
                    record.doubt();
                    let what = [format!("something of it is gone ({why})")];
                    self.report_difference(&record, Cause::Gone, &what);
                }
                return 1;
            }
        };
        // What nobody has read before cannot have changed.
        let first = record.depth != Depth::Full;
        let what = if first {
            Vec::new()
        } else {
            drift::of_all(&record.observed, &seen)
        };
        let drifted = first || record.observed != seen;
        record.observed = seen;
        record.depth = Depth::Full;
        record.targets_known = true;
        let news = record.heard(&answers, Instant::now());
        if !what.is_empty() {
            self.report_difference(&record, Cause::Drifted, &what);
        } else if drifted {
            self.report(&record, Cause::Due);
        } else if news {
            self.report(&record, Cause::Active);
        }
        number
    }
}

fn is_provisioned(record: &Record) -> bool {
    let mut all = record.observed.load_balancers.values();
    all.any(|one| one.state == LoadBalancerState::Provisioning)
}
