//! Releases that wait, and what is left to say when everything is released.

use ballast_provider::Reason;
use jiff::Timestamp;
use tokio::time::Instant;

use super::write::Marks;
use super::{Outcome, Performer, outcome_of};
use crate::cluster::view::{Name, ServiceView};
use crate::service::contests::Purpose;
use crate::service::deletion::{LONG, next_look, note};
use crate::service::status::{self, Desired, Event};

// === impl Performer ===

impl Performer {
    /// Notes that a release waits. If it has waited for long, says so, once. Returns for how long.
    pub(super) fn waits(
        &self,
        service: &ServiceView,
        class: &str,
        reason: Reason,
        why: &str,
    ) -> std::time::Duration {
        let waited = self.deletions.look(&service.id, Instant::now());
        if self.deletions.announce(&service.id, waited) {
            let event = Event::DeletionWaits(note(reason, why, class));
            self.recorder.event(&service.id, event);
        }
        if let Some(look) = next_look(waited) {
            self.queue.add_after(Name::from(&service.id), look);
        }
        waited
    }

    /// Removes what we wrote to a Service that is not ours any more. If it is deleted and somebody
    /// else holds it, it says so.
    pub(super) async fn clean(&self, service: &ServiceView) -> Outcome {
        let held = Desired::held(service).programmed;
        let message = held.as_ref().map(|held| held.message.as_str());
        match message {
            Some(message) => {
                self.waits(service, "", Reason::Released, message);
            }
            None => self.releases_nothing(service),
        }
        let now = Timestamp::now();
        let Some(patch) = status::clean_patch(service, now) else {
            return Outcome::Ignored;
        };
        let marks = Marks {
            kind: "clean",
            patch: &patch,
            purpose: Purpose::of("clean", &message),
            left: None,
        };
        let written = self.mark(service, &marks).await;
        outcome_of(&written.map(|(written, _)| written), Outcome::Released)
    }

    /// Nothing of this Service is being released.
    pub(super) fn releases_nothing(&self, service: &ServiceView) {
        self.deletions.end(&Name::from(&service.id));
    }
}

const _: () = assert!(
    LONG.as_secs().is_multiple_of(60),
    "the event says whole minutes"
);
