//! Instruments on the nodes' segment: what hosts say by ARP and neighbour discovery, and what
//! clients get when they connect.
//!
//! The jobs run as processes in the lab ([`inside`]) and print one JSON line per observation. All
//! times are of the machine's one clock ([`Moment`]), so they compare across hosts. The judges
//! are pure. They share no code with the announcer: they would share its mistakes. ([`echo`] does; it
//! is no judge.)
//!
//! Each module uses only those before it:
//!
//! 1. [`moment`]: times; [`frame`]: frames as the judges see them
//! 2. [`capture`], [`connect`], [`converse`], [`serve`], [`echo`]: the jobs
//! 3. [`judge`]: outages, moves, who answers
//! 4. [`inside`]: the jobs as a command; [`instruments`]: the jobs as a test uses them

mod capture;
mod connect;
mod converse;
mod echo;
mod frame;
pub mod inside;
mod instruments;
pub mod judge;
mod moment;
mod serve;

pub use connect::{Attempt, Outcome};
pub use converse::Turn;
pub use frame::{Frame, Kind, Way};
pub use instruments::{Capture, Conversation, SERVER_PORT, Visitor, Visits};
pub use moment::Moment;
