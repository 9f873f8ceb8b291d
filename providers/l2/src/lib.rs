//! Bare metal, controller side: which Service gets which address of which pool.
//!
//! What chooses does not act: no I/O, no clock (`now` is an argument), no Kubernetes
//! types. Equal histories give equal answers. [`addresses`] and [`provider`] put it
//! behind a lock and the Provider trait.
//!
//! - [`range`]: what a pool's address entries mean.
//! - [`pool`]: pools, their selectors, order and conflicts.
//! - [`claim`]: what a Service asks for; the rule of sharing.
//! - [`holder`]: who else has addresses, and how messages name them.
//! - [`verdict`]: what it gets, or why not.
//! - [`allocator`]: the [`Allocator`], which holds the whole state.
//! - [`addresses`]: the one allocator of a process, for all of its classes.
//! - [`provider`]: a class of the controller, on top of it.

pub mod addresses;
pub mod allocator;
pub mod claim;
pub mod holder;
mod interval;
mod numbers;
pub mod pool;
pub mod provider;
pub mod range;
pub mod selector;
pub mod verdict;

pub use addresses::Addresses;
pub use allocator::{Allocator, Snapshot};
pub use claim::{Backend, Claim, FamilyPolicy, PoolFilter};
pub use holder::Holder;
pub use pool::{Pool, Standing};
pub use provider::L2Provider;
pub use range::{Edges, Entry, EntryError, Range};
pub use selector::{Labels, Operator, Requirement, Selector};
pub use verdict::{Denial, Grant, Marker};
