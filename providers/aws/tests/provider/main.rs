//! The provider on the strict fake: what each event costs, crashes after each call, and what
//! somebody else does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // These are tests.
#![allow(missing_docs)]

mod adopt;
mod adopt_preview;
mod annotations;
mod bed;
mod bind;
mod capacity;
mod conformance;
mod costs;
mod crashes;
mod families;
mod former;
mod health;
mod labels;
mod lag;
mod limits;
mod lists;
mod names;
mod network;
mod notes;
mod pods;
mod preview;
mod quiet;
mod regressions;
mod rules;
mod settled;
mod sharing;
mod stories;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod waves;
mod weights;
