//! Bare metal, controller side: which Service gets which address of which pool.
//!
//! Everything in here chooses and nothing acts: no I/O, no clock (`now` is an
//! argument), no Kubernetes types. Equal histories give equal answers.
//!
//! - [`range`]: what a pool's address entries mean.
//! - [`pool`]: pools, their selectors, order and conflicts.
//! - [`claim`]: what a Service asks for; the rule of sharing.
//! - [`verdict`]: what it gets, or why not.
//! - [`allocator`]: the [`Allocator`], which holds the whole state.

pub mod allocator;
pub mod claim;
mod interval;
pub mod pool;
pub mod range;
pub mod selector;
pub mod verdict;

pub use allocator::{Allocator, Inventory};
pub use claim::{Backend, Claim, FamilyPolicy};
pub use pool::{Pool, Standing};
pub use range::{Edges, Entry, EntryError, Range};
pub use selector::{Labels, Operator, Requirement, Selector};
pub use verdict::{Denial, Grant, Marker, Why};
