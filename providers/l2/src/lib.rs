//! Bare metal, controller side: which Service gets which address from which pool.
//!
//! Code that decides does not act: no I/O, no clock (`now` is an argument), no Kubernetes
//! types. Equal histories give equal answers. [`addresses`] puts the allocator behind a lock,
//! and [`provider`] implements the provider trait with it.
//!
//! - [`range`]: the meaning of a pool's address entries.
//! - [`pool`]: pools, their selectors, order and conflicts.
//! - [`claim`]: what a Service asks for; the sharing rule.
//! - [`holder`]: others that have addresses, and how messages name them.
//! - [`verdict`]: what a Service gets, or why not.
//! - [`allocator`]: the [`Allocator`], which has the whole state.
//! - [`addresses`]: the process's single allocator, for all of its classes.
//! - [`announced`]: which node announces which address.
//! - [`provider`]: the provider of one class.

pub mod addresses;
pub mod allocator;
pub mod announced;
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
pub use announced::Announcements;
pub use claim::{Backend, Claim, FamilyPolicy, PoolFilter};
pub use holder::Holder;
pub use pool::{Pool, Standing};
pub use provider::L2Provider;
pub use range::{Edges, Entry, EntryError, Range};
pub use selector::{Labels, Operator, Requirement, Selector};
pub use verdict::{Denial, Grant, Marker};
