//! The benchmark: Ballast, the reference service controller, and a raw loop that sends the same
//! two patches, on one real API server in one run. The same clock on the same machine measures
//! all times.
//!
//! Each module uses only those before it:
//!
//! 1. [`terms`]: contenders, scenarios, samples; [`lan`]: the class and the pool of addresses
//! 2. [`inside`]: the jobs that run beside the API server; [`usage`]: processor time and memory
//! 3. [`bed`]: the cluster and its snapshots
//! 4. [`contender`]: contenders as processes
//! 5. [`start`], [`scenario`], [`writes`], [`pool`]: the measurements
//! 6. [`run`]: their order
//! 7. [`report`]: medians, ratios, goals

pub mod bed;
pub mod contender;
pub mod inside;
mod lan;
mod pool;
pub mod report;
pub mod run;
mod scenario;
mod start;
mod terms;
pub mod usage;
mod writes;

pub use terms::{Contender, Sample, Scenario, Values};
