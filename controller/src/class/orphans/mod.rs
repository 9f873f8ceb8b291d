//! Load balancers without a Service, in the cluster's own clouds.
//!
//! A Service that is deleted takes its load balancer with it, because of its finalizer. What is left
//! are load balancers whose Service lost its finalizer, and those of an API server that was
//! restored from an older backup. This module finds them, says what they cost, and deletes them if
//! the class asks for it (`spec.orphans: Delete`).
//!
//! ```text
//!  survey (complete, with tags) ──┐
//!  the Services, as watched ──────┼─▶ decide ─▶ steps ─▶ watch: writes tags, tells the ledger
//!  what earlier surveys showed ───┘                        │
//!                                                          ▼
//!                            the ledger ─▶ the queue ─▶ the turn that releases, as for any Service
//! ```
//!
//! [`decide()`] chooses and is pure: it sorts what a survey shows, and compares it with the
//! [`Memory`] of earlier ones. [`watch()`] does the I/O, in the task of the class. It deletes
//! nothing itself: it says in the ledger that a Service is proven to be gone, and the Service's next
//! turn releases what it had, with the same locks, checks and retries as always.
//!
//! What proves that a Service is gone? A watch that reports its deletion does: such a Service is
//! released at once and never comes here. That a list does not have it does not: the list may come
//! from a backup, or this cluster may be a copy of the one that made the load balancer. Hence two
//! complete surveys, the grace between them, and a breaker ([`decide()`]).
//!
//! It also writes the sign of life on everything that is in use, once a day ([`LAST_SEEN`]).
//!
//! [`LAST_SEEN`]: ballast_provider::mark::LAST_SEEN

use std::sync::Arc;

use jiff::Timestamp;

mod decide;
mod memory;
mod report;
mod sorted;
mod watch;

pub use self::decide::{Look, Policy, Steps, decide};
pub use self::memory::Memory;
pub use self::report::{Found, Halt, Orphan, Verdict};
pub use self::watch::watch;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

#[cfg(test)]
mod tests;
