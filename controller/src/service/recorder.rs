//! Sends events. One task sends one event at a time, so an event never delays or fails a
//! reconcile. The namespaces take turns, and events beyond a bound are dropped and counted
//! ([`lines`]): a tenant whose Services have many events does not delay those of others.
//!
//! Events compete with patches for the API server, and patches are more important. So while
//! Services are reconciled, the sender waits up to [`REST`] after each event. An event has the
//! time at which it was queued.
//!
//! Events are not aggregated here, because [`crate::service::status::transition_event`]
//! returns one event for each transition.

mod lines;

use std::sync::Arc;
use std::time::Duration;

use ballast_crds::LoadBalancerClass;
use ballast_provider::ServiceId;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as ApiEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client, Resource as _};
use tracing::debug;

use self::lines::Waiting;

use crate::cluster::metrics::EventMetrics;
use crate::process::REQUEST_TIMEOUT;
use crate::service::status::Event;

/// `reportingController` of every event.
const CONTROLLER: &str = "ballast.dev/controller";
/// The longest wait after an event while Services are reconciled.
const REST: Duration = Duration::from_millis(100);
/// How often a waiting sender checks whether any Service is reconciled.
const POLL: Duration = Duration::from_millis(10);

/// Answers a question about this process.
pub type Check = Box<dyn Fn() -> bool + Send + Sync>;

/// Queues events for the task that sends them.
#[derive(Clone)]
pub struct Recorder {
    open: Arc<Open>,
    metrics: EventMetrics,
}

/// The queue, open as long as there is a recorder.
struct Open(Arc<Waiting<Note>>);

/// Sends the queued events.
pub struct Sender {
    queue: Arc<Waiting<Note>>,
    leads: Check,
    busy: Check,
    client: Client,
    instance: String,
    metrics: EventMetrics,
}

/// What an event is about.
#[derive(Clone, Debug)]
enum About {
    Service(ServiceId),
    /// A `LoadBalancerClass`, with its UID.
    Class(String, String),
}

/// One queued event.
struct Note {
    about: About,
    event: Event,
    queued: Timestamp,
}

/// A recorder, and the sender to be run as a task; `instance` names this process. `leads`:
/// whether this process leads; if not, another one may, and nothing is sent. `busy`: whether
/// any Service is reconciled or waits for a worker.
pub fn recorder(
    client: Client,
    instance: String,
    leads: Check,
    busy: Check,
    metrics: EventMetrics,
) -> (Recorder, Sender) {
    let queue = Arc::new(Waiting::default());
    let recorder = Recorder {
        open: Arc::new(Open(Arc::clone(&queue))),
        metrics: metrics.clone(),
    };
    let sender = Sender {
        queue,
        leads,
        busy,
        client,
        instance,
        metrics,
    };
    (recorder, sender)
}

// === impl Recorder ===

impl Recorder {
    /// Queues an event about a Service.
    pub fn event(&self, id: &ServiceId, event: Event) {
        self.add(About::Service(id.clone()), event);
    }

    /// Queues an event about a class. It is in the namespace `default`, as all events about objects
    /// without a namespace.
    pub fn class_event(&self, name: &str, uid: &str, event: Event) {
        self.add(About::Class(name.to_owned(), uid.to_owned()), event);
    }

    fn add(&self, about: About, event: Event) {
        let namespace = about.namespace();
        let note = Note {
            about,
            event,
            queued: Timestamp::now(),
        };
        if !self.open.0.add(&namespace, note) {
            self.metrics.event("dropped");
        }
    }
}

// === impl Open ===

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

// === impl Sender ===

impl Sender {
    /// Sends until the last recorder is dropped and the queue is empty. Cancelling it loses
    /// the queued events.
    pub async fn run(self) {
        while let Some(note) = self.queue.next().await {
            // The process ends when the queue is empty.
            if !self.queue.is_closed() {
                self.rest().await;
            }
            if !(self.leads)() {
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
        let namespace = note.about.namespace();
        let api: Api<ApiEvent> = Api::namespaced(self.client.clone(), &namespace);
        let body = self.body(note);
        let params = PostParams::default();
        match tokio::time::timeout(REQUEST_TIMEOUT, api.create(&params, &body)).await {
            Ok(Ok(_)) => "sent",
            // The namespace is being deleted and takes no new objects.
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() || status.is_not_found() => {
                "refused"
            }
            failed => {
                debug!(about = ?note.about, reason = note.event.reason(), ?failed, "event not sent");
                "failed"
            }
        }
    }

    fn body(
        &self,
        Note {
            about,
            event,
            queued,
        }: &Note,
    ) -> ApiEvent {
        let regarding = about.reference();
        let name = regarding.name.as_deref().unwrap_or_default();
        ApiEvent {
            metadata: ObjectMeta {
                // Unique among the events of this object.
                name: Some(format!("{name}.{:x}", queued.as_nanosecond())),
                namespace: Some(about.namespace().to_string()),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(*queued)),
            note: Some(shorten(event.message())),
            reason: Some(event.reason().to_owned()),
            regarding: Some(regarding),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(event.kind().to_owned()),
            ..ApiEvent::default()
        }
    }
}

// === impl About ===

impl About {
    fn namespace(&self) -> Arc<str> {
        match self {
            Self::Service(id) => Arc::clone(&id.namespace),
            Self::Class(..) => "default".into(),
        }
    }

    fn reference(&self) -> ObjectReference {
        match self {
            Self::Service(id) => ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Service".to_owned()),
                name: Some(id.name.to_string()),
                namespace: Some(id.namespace.to_string()),
                uid: Some(id.uid.to_string()),
                ..ObjectReference::default()
            },
            Self::Class(name, uid) => ObjectReference {
                api_version: Some(LoadBalancerClass::api_version(&()).into_owned()),
                kind: Some("LoadBalancerClass".to_owned()),
                name: Some(name.clone()),
                uid: Some(uid.clone()),
                ..ObjectReference::default()
            },
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
    use std::sync::Mutex;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    /// An API server that takes 20 ms for each event. Returns the namespaces in the order of
    /// their events.
    fn server() -> (Client, Arc<Mutex<Vec<String>>>) {
        let sent: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&sent);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let log = Arc::clone(&log);
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let path = request.uri().path().to_owned();
                let namespace = path.split('/').nth(5).unwrap_or_default().to_owned();
                log.lock().unwrap().push(namespace);
                let body = serde_json::to_vec(&ApiEvent::default()).unwrap();
                let body = kube::client::Body::from(body);
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            }
        });
        (Client::new(service, "default"), sent)
    }

    fn of(namespace: &str, name: &str) -> ServiceId {
        ServiceId {
            namespace: namespace.into(),
            name: name.into(),
            uid: name.into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_events_of_one_tenant_delay_nobody_elses() {
        let (client, sent) = server();
        let mut registry = Registry::default();
        let metrics = EventMetrics::register(&mut registry);
        let yes = || Box::new(|| true);
        let (recorder, sender) = recorder(client, "c1".to_owned(), yes(), yes(), metrics);
        let sender = tokio::spawn(sender.run());
        for number in 0..10_000 {
            let flipping = of("noisy", &format!("web-{}", number % 100));
            recorder.event(&flipping, Event::Ensured);
        }
        let begin = tokio::time::Instant::now();
        recorder.event(&of("quiet", "web"), Event::Ensured);
        let told = |sent: &Mutex<Vec<String>>| sent.lock().unwrap().contains(&"quiet".to_owned());
        while !told(&sent) {
            tokio::time::sleep(POLL).await;
        }
        let took = begin.elapsed();
        assert!(took < Duration::from_millis(500), "{took:?}");
        assert!(sent.lock().unwrap().len() <= 2, "{:?}", sent.lock());
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let dropped = 10_000 - lines::PER_NAMESPACE;
        let line = format!("outcome=\"dropped\"}} {dropped}");
        assert!(text.contains(&line), "only the tenant's own: {text}");
        drop(recorder);
        sender.await.unwrap();
        assert_eq!(sent.lock().unwrap().len(), lines::PER_NAMESPACE + 1);
    }

    #[test]
    fn long_notes_are_cut_at_a_character() {
        assert_eq!(shorten("short"), "short");
        let cut = shorten(&"ü".repeat(600));
        assert!(cut.len() <= 1024 && cut.ends_with('…'), "{}", cut.len());
    }
}
