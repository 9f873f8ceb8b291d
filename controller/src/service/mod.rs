//! One Service: [`reconcile`] takes its turn, [`decide`] chooses one step, [`perform`]
//! does it, [`status`] says what the Service publishes, [`recorder`] sends the event.

pub mod decide;
pub mod group;
pub mod perform;
pub mod reconcile;
pub mod recorder;
pub mod status;
