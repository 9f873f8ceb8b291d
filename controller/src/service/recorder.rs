//! Sends events. One task sends one event at a time from a bounded queue, so an event never
//! delays or fails a reconcile. Events that do not fit into the queue are dropped and counted.
//!
//! Events compete with patches for the API server, and patches are more important. So while
//! Services are reconciled, the sender waits up to [`REST`] after each event. An event has the
//! time at which it was queued.
//!
//! Events are not aggregated here, because [`crate::service::status::transition_event`]
//! returns one event for each transition.

use std::time::Duration;

use ballast_provider::ServiceId;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as ApiEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tracing::debug;

use crate::cluster::metrics::EventMetrics;
use crate::process::REQUEST_TIMEOUT;
use crate::process::lease::Fence;
use crate::service::status::Event;

/// `reportingController` of every event.
const CONTROLLER: &str = "ballast.dev/controller";
/// Enough for a backlog of 5,000 Services; about 2 MB when full.
const CAPACITY: usize = 8192;
/// The longest wait after an event while Services are reconciled.
const REST: Duration = Duration::from_millis(100);
/// How often a waiting sender checks whether any Service is reconciled.
const POLL: Duration = Duration::from_millis(10);

/// Whether any Service is reconciled or waits for a worker.
pub type Busy = Box<dyn Fn() -> bool + Send + Sync>;

/// Queues events for the task that sends them.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
    metrics: EventMetrics,
}

/// Sends the queued events.
pub struct Sender {
    queue: mpsc::Receiver<Note>,
    busy: Busy,
    client: Client,
    instance: String,
    fence: Fence,
    metrics: EventMetrics,
}

/// One queued event.
struct Note {
    id: ServiceId,
    event: Event,
    queued: Timestamp,
}

/// A recorder, and the sender to be run as a task; `instance` names this process.
/// Nothing is sent after the fence has closed, because another process may lead.
pub fn recorder(
    client: Client,
    instance: String,
    fence: Fence,
    busy: Busy,
    metrics: EventMetrics,
) -> (Recorder, Sender) {
    let (send, receive) = mpsc::channel(CAPACITY);
    let recorder = Recorder {
        queue: send,
        metrics: metrics.clone(),
    };
    let sender = Sender {
        queue: receive,
        busy,
        client,
        instance,
        fence,
        metrics,
    };
    (recorder, sender)
}

// === impl Recorder ===

impl Recorder {
    /// Queues an event about a Service.
    pub fn event(&self, id: &ServiceId, event: Event) {
        let note = Note {
            id: id.clone(),
            event,
            queued: Timestamp::now(),
        };
        if self.queue.try_send(note).is_err() {
            self.metrics.event("dropped");
        }
    }
}

// === impl Sender ===

impl Sender {
    /// Sends until the last recorder is dropped and the queue is empty. Cancelling it loses
    /// the queued events.
    pub async fn run(mut self) {
        while let Some(note) = self.queue.recv().await {
            // The process ends when the queue is empty.
            if !self.queue.is_closed() {
                self.rest().await;
            }
            if self.fence.epoch().is_none() {
                self.metrics.event("dropped");
                continue;
            }
            let outcome = self.send(&note).await;
            self.metrics.event(outcome);
        }
    }

    /// Waits until no Service is reconciled, at most [`REST`].
    async fn rest(&self) {
        let end = tokio::time::Instant::now() + REST;
        while (self.busy)() && tokio::time::Instant::now() < end {
            tokio::time::sleep(POLL).await;
        }
    }

    /// The outcome, as a metric label.
    async fn send(&self, note: &Note) -> &'static str {
        let api: Api<ApiEvent> = Api::namespaced(self.client.clone(), &note.id.namespace);
        let body = self.body(note);
        let params = PostParams::default();
        match tokio::time::timeout(REQUEST_TIMEOUT, api.create(&params, &body)).await {
            Ok(Ok(_)) => "sent",
            // The namespace is being deleted and takes no new objects.
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() || status.is_not_found() => {
                "refused"
            }
            failed => {
                debug!(service = %note.id, reason = note.event.reason(), ?failed, "event not sent");
                "failed"
            }
        }
    }

    fn body(&self, Note { id, event, queued }: &Note) -> ApiEvent {
        ApiEvent {
            metadata: ObjectMeta {
                // Unique among the events of this Service.
                name: Some(format!("{}.{:x}", id.name, queued.as_nanosecond())),
                namespace: Some(id.namespace.to_string()),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(*queued)),
            note: Some(shorten(event.message())),
            reason: Some(event.reason().to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Service".to_owned()),
                name: Some(id.name.to_string()),
                namespace: Some(id.namespace.to_string()),
                uid: Some(id.uid.to_string()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(event.kind().to_owned()),
            ..ApiEvent::default()
        }
    }
}

/// The API server takes notes of at most 1,024 bytes.
fn shorten(note: &str) -> String {
    const LIMIT: usize = 1024;
    if note.len() <= LIMIT {
        return note.to_owned();
    }
    let mut end = LIMIT - '…'.len_utf8();
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_notes_are_cut_at_a_character() {
        assert_eq!(shorten("short"), "short");
        let cut = shorten(&"ü".repeat(600));
        assert!(cut.len() <= 1024 && cut.ends_with('…'), "{}", cut.len());
    }
}
