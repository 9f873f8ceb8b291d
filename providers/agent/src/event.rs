//! What the core thread receives from the other threads and tasks.

use ballast_announce::Input;
use ballast_announce::snapshot::Snapshot;
use tokio::sync::oneshot;

use crate::frames::Sighting;
use crate::post::Mail;

/// Something happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// An input for the node as it is: from Kubernetes, or from a cable.
    Input(Input),
    /// A frame showed something.
    Sighting {
        /// The index of the interface.
        interface: u32,
        /// What.
        sighting: Sighting,
    },
    /// There is [`News`](crate::shared::News).
    News,
    /// A message of another agent, opened.
    Mail(Mail),
    /// Somebody wants to know what the node knows.
    Look(oneshot::Sender<Snapshot>),
}
