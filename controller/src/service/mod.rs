//! One Service: [`reconcile`] takes its turn, [`decide`] chooses one step, [`perform`]
//! performs it, [`deletion`] knows which releases wait for long, [`status`] computes the desired status and its patch, [`contests`] slows down
//! writes that somebody else keeps undoing, [`recorder`] sends the event.

pub mod contests;
pub mod decide;
pub mod deletion;
pub mod gates;
pub mod group;
pub mod missing;
pub mod perform;
pub mod reconcile;
pub mod recorder;
pub mod status;
pub mod times;
