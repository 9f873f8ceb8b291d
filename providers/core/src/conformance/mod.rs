//! The rules that every provider must keep, checked on the provider itself (feature
//! `conformance`).
//!
//! A provider's crate implements [`Lab`] and [`Harness`] over its cloud, real or simulated,
//! and runs [`run_all`] in a test. Each check in [`CHECKS`] is a function, uses its own
//! clouds, and reports in its [`Failure`] what differs.
//!
//! Random choices depend on [`Lab::seed`] only, so a failure can be repeated.

mod checks;
mod crashes;
mod deaf;
mod fields;
mod fixtures;
mod kept;
mod moves;
mod rewind;
mod run;
mod support;
mod waits;
mod wishes;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;

use crate::mark::Mark;
use crate::model::{Settings, TargetSet};
use crate::provider::{Provider, State};

pub use self::deaf::Deaf;
pub use self::fields::{Field, Support, documented};

/// Creates empty clouds.
#[async_trait]
pub trait Lab: Send + Sync {
    /// A new, empty cloud.
    async fn cloud(&self) -> Box<dyn Harness>;

    /// What the provider does with each field of the model.
    fn support(&self, field: Field) -> Support;

    /// The fields whose support is checked.
    fn fields(&self) -> Vec<Field> {
        Field::ALL.to_vec()
    }

    /// A setting that the provider knows, by its annotation, if it has any.
    fn setting(&self) -> (String, String) {
        ("conformance.example/setting".to_owned(), "on".to_owned())
    }

    /// The settings of a Service whose targets are pods, for a provider with
    /// [`crate::Traits::endpoints`].
    fn pods(&self) -> Settings {
        Settings::new()
    }

    /// Whether several Services can share one balancer of this provider.
    fn shares(&self) -> bool {
        false
    }

    /// Whether the provider remembers what Services publish and follows its cloud, so that it
    /// notices when the cloud's state goes back.
    fn goes_back(&self) -> bool {
        false
    }

    /// The seed of everything random.
    fn seed(&self) -> u64 {
        1
    }
}

/// One cloud, and the controller processes that use it one after the other.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A new instance on this cloud, as after a restart of the controller. It knows only what
    /// the cloud and `restore` tell it.
    async fn provider(&self, mark: &Mark) -> Arc<dyn Provider>;

    /// The number of mutating calls of all instances so far.
    async fn effects(&self) -> u64;

    /// Sets a crash, or removes it, so that the cloud answers again.
    async fn set_crash(&self, crash: Option<Crash>);

    /// Whether the crash has happened.
    async fn crashed(&self) -> bool;

    /// Everything in the cloud by name, whoever owns it.
    async fn contents(&self) -> BTreeMap<String, Object>;

    /// Puts an object into the cloud that no instance created.
    async fn plant(&self, name: &str, tags: BTreeMap<String, String>);

    /// Lets the cloud continue, if work is in progress.
    async fn pause(&self);

    /// Whether a Service with this state is as far as this provider can bring it.
    fn serves(&self, state: &State) -> bool {
        *state == State::Programmed
    }

    /// Leaves one free address in an empty cloud, for a provider whose
    /// [`Field::Created`] is honoured.
    async fn leave_one_address(&self) {}

    /// Keeps a copy of what the cloud holds now, if [`Lab::goes_back`].
    async fn keep(&self) {}

    /// Restores the copy, without anything that happened since: the cloud lost its last
    /// changes.
    async fn go_back(&self) {}
}

/// The controller's process dies before or after one mutating call. This call and all later
/// ones return an error until the crash is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The call with this number is never made. Calls are counted from 1 after the crash was
    /// set.
    Before(u64),
    /// The call is made, and its answer is lost.
    After(u64),
}

/// One object of the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// All of its tags.
    pub tags: BTreeMap<String, String>,
    /// The addresses it holds.
    pub addresses: Vec<IpAddr>,
    /// Everything else that matters, in any form that is equal for equal objects: no
    /// addresses, times or random identifiers.
    pub state: String,
}

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which check.
    pub check: &'static str,
    /// What differs.
    pub message: String,
}

/// The result of a check.
pub type Outcome = Result<(), Failure>;

/// One check.
pub type Check = for<'a> fn(&'a dyn Lab) -> BoxFuture<'a, Outcome>;

/// All checks, by name.
pub const CHECKS: [(&str, Check); 23] = [
    ("ensure_twice_is_ensure_once", |lab| {
        Box::pin(checks::ensure_twice_is_ensure_once(lab))
    }),
    ("retarget_twice_is_retarget_once", |lab| {
        Box::pin(checks::retarget_twice_is_retarget_once(lab))
    }),
    ("a_restart_changes_nothing", |lab| {
        Box::pin(checks::a_restart_changes_nothing(lab))
    }),
    ("ensure_works_before_any_retarget", |lab| {
        Box::pin(checks::ensure_works_before_any_retarget(lab))
    }),
    ("a_crash_in_create_converges", |lab| {
        Box::pin(crashes::a_crash_in_create_converges(lab))
    }),
    ("a_crash_in_update_converges", |lab| {
        Box::pin(crashes::a_crash_in_update_converges(lab))
    }),
    ("a_crash_in_retarget_converges", |lab| {
        Box::pin(crashes::a_crash_in_retarget_converges(lab))
    }),
    ("a_crash_in_release_converges", |lab| {
        Box::pin(crashes::a_crash_in_release_converges(lab))
    }),
    ("addresses_survive_edits", |lab| {
        Box::pin(checks::addresses_survive_edits(lab))
    }),
    ("members_join_and_leave_in_any_order", |lab| {
        Box::pin(checks::members_join_and_leave_in_any_order(lab))
    }),
    ("members_move_between_balancers", |lab| {
        Box::pin(moves::members_move_between_balancers(lab))
    }),
    ("a_member_stays_until_it_is_released", |lab| {
        Box::pin(moves::a_member_stays_until_it_is_released(lab))
    }),
    ("a_refused_member_keeps_its_part", |lab| {
        Box::pin(kept::a_refused_member_keeps_its_part(lab))
    }),
    ("anything_can_be_released", |lab| {
        Box::pin(crashes::anything_can_be_released(lab))
    }),
    ("the_inventory_is_complete", |lab| {
        Box::pin(checks::the_inventory_is_complete(lab))
    }),
    ("nothing_foreign_is_touched", |lab| {
        Box::pin(checks::nothing_foreign_is_touched(lab))
    }),
    ("what_is_retained_stays", |lab| {
        Box::pin(checks::what_is_retained_stays(lab))
    }),
    ("a_release_says_what_it_waits_for", |lab| {
        Box::pin(waits::a_release_says_what_it_waits_for(lab))
    }),
    ("every_field_is_honoured_or_named", |lab| {
        Box::pin(support::every_field_is_honoured_or_named(lab))
    }),
    ("an_unmet_request_blocks_no_edit", |lab| {
        Box::pin(support::an_unmet_request_blocks_no_edit(lab))
    }),
    ("a_wish_for_two_families_does_not_block", |lab| {
        Box::pin(wishes::a_wish_for_two_families_does_not_block(lab))
    }),
    ("the_cloud_forgot_the_last_changes", |lab| {
        Box::pin(rewind::the_cloud_forgot_the_last_changes(lab))
    }),
    ("the_cloud_remembers_what_was_deleted", |lab| {
        Box::pin(rewind::the_cloud_remembers_what_was_deleted(lab))
    }),
];

/// Runs all checks. Returns every failure.
pub async fn run_all(lab: &dyn Lab) -> Result<(), Vec<Failure>> {
    let mut failures = Vec::new();
    for (_, check) in CHECKS {
        failures.extend(check(lab).await.err());
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures)
    }
}

/// Runs one check by name. An unknown name is a failure.
pub async fn run(lab: &dyn Lab, name: &str) -> Outcome {
    match CHECKS.iter().find(|(known, _)| *known == name) {
        Some((_, check)) => check(lab).await,
        None => Err(Failure {
            check: "run",
            message: format!("there is no check {name:?}"),
        }),
    }
}

/// The targets that the suite uses: nodes on loopback addresses.
pub fn targets(count: u8) -> TargetSet {
    fixtures::targets(count)
}

// === impl Failure ===

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.message)
    }
}

impl std::error::Error for Failure {}
