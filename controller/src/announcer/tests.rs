//! The whole of it against an API server in memory, with a fake agent: a list of the inputs that
//! it got, and the reports that the test makes. The clock is paused.

mod fixtures;
mod forged;
mod object;
mod server;
mod unfit;

use std::sync::Mutex;
use std::time::Duration;

use ballast_agent::seal::Keyring;
use ballast_announce::claim::Claim;
use ballast_announce::view::View;
use ballast_announce::{Input, Mac};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::seam::{Inspector, Report, ReportedInterface, Sink};
use super::*;
use fixtures::*;
use server::Server;

const SERVICES: &str = "/api/v1/services";
const NODES: &str = "/api/v1/nodes";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const CLASSES: &str = "/apis/ballast.dev/v1alpha1/loadbalancerclasses";
const ANNOUNCERS: &str = "/apis/ballast.dev/v1alpha1/announcers";
const LEASES: &str = "/apis/coordination.k8s.io/v1/leases";
/// Longer than anything that is to happen.
const SOON: Duration = Duration::from_mins(1);

/// An announcer of the node `a`, its API server, and its agent.
struct Site {
    server: Server,
    inputs: Arc<Mutex<Vec<Input>>>,
    reports: watch::Sender<Option<Arc<Report>>>,
    health: Health,
    stores: Arc<Stores>,
    options: Options,
    tasks: JoinSet<()>,
}

// === impl Site ===

impl Site {
    /// Starts it, in a cluster of the nodes a, b and c.
    fn start(server: &Server, incarnation: u64) -> Self {
        Self::start_with(server, incarnation, Some(keyring()))
    }

    fn start_with(server: &Server, incarnation: u64, keyring: Option<Arc<Keyring>>) -> Self {
        let inputs: Arc<Mutex<Vec<Input>>> = Arc::default();
        let (reports, reported) = watch::channel(None);
        let agent = Agent {
            sink: Sink::new({
                let inputs = Arc::clone(&inputs);
                move |input| inputs.lock().unwrap().push(input)
            }),
            reports: reported,
            inspector: Inspector::new(|| Box::pin(async { None })),
            keyring,
        };
        let options = Options {
            node: NodeName::new("a"),
            namespace: "ballast-system".to_owned(),
            incarnation,
            gossip_port: None,
            key_file: None,
            admin: "127.0.0.1:0".parse().unwrap(),
            health_socket: None,
        };
        let (mut tasks, health) = (JoinSet::new(), Health::default());
        let mut registry = Registry::default();
        let stores = start(
            &server.client(),
            &options,
            agent,
            &mut registry,
            &health,
            &mut tasks,
        );
        Self {
            server: server.clone(),
            inputs,
            reports,
            health,
            stores,
            options,
            tasks,
        }
    }

    fn report(&self, report: Report) {
        self.reports.send_replace(Some(Arc::new(report)));
    }

    /// Takes the inputs so far.
    fn take(&self) -> Vec<Input> {
        std::mem::take(&mut *self.inputs.lock().unwrap())
    }

    /// The inputs so far in short.
    fn short(&self) -> Vec<String> {
        self.inputs.lock().unwrap().iter().map(short).collect()
    }

    fn last_view(&self) -> Option<Arc<View>> {
        let inputs = self.inputs.lock().unwrap();
        inputs.iter().rev().find_map(|input| match input {
            Input::View(view) => Some(Arc::clone(view)),
            _ => None,
        })
    }

    /// Waits until the condition holds.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + SOON;
        while !holds(self) {
            assert!(Instant::now() < end, "not {what}: {:?}", self.short());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        assert_eq!(self.server.violations(), [""; 0]);
    }
}

fn short(input: &Input) -> String {
    match input {
        Input::View(view) => format!("view {}", view.wanted.len()),
        Input::Holdings(claims) => format!("holdings of {}", claims[0].1.holder),
        Input::Lease { node, .. } => format!("lease of {node}"),
        Input::Api { connected } => format!("api {connected}"),
        other => format!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn claims_and_leases_come_before_the_first_view() {
    let server = cluster();
    // Leases of others, and slices that no Service with an address has.
    let mut foreign = lease("x", 1);
    foreign["metadata"]["labels"] = json!({});
    server.put(LEASES, foreign);
    server.put(SLICES, slice("db", true));
    let site = Site::start(&server, 7);
    site.until("a view", |site| site.last_view().is_some())
        .await;
    site.until("connected", |site| {
        site.short().contains(&"api true".to_owned())
    })
    .await;
    let short = site.short();
    let place = |what: &str| short.iter().position(|it| it == what).unwrap();
    assert!(place("holdings of b") < place("view 1"), "{short:?}");
    assert!(place("lease of b") < short.len());
    assert!(
        !short
            .iter()
            .any(|it| it == "lease of a" || it == "lease of x")
    );
    site.until("ready", |site| site.health.missing().is_empty())
        .await;
    let view = site.last_view().unwrap();
    let entry = &view.wanted[&"192.0.2.7".parse().unwrap()];
    assert!(entry.endpoints.contains(&NodeName::new(view::SOMEWHERE)));
    assert_eq!(entry.interfaces, Some(["eth0".into()].into()));
    let names: Vec<&str> = view.nodes.keys().map(NodeName::as_str).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(view.nodes[&NodeName::new("b")].interfaces.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_view_before_every_list() {
    let server = cluster();
    server.down(true);
    let site = Site::start(&server, 7);
    sleep(SOON).await;
    assert_eq!(site.short(), [""; 0]);
    assert!(!site.health.missing().is_empty());
    server.down(false);
    site.until("a view", |site| site.last_view().is_some())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_one_view_and_an_equal_view_is_none() {
    let server = cluster();
    let site = Site::start(&server, 7);
    site.until("a view", |site| site.last_view().is_some())
        .await;
    sleep(SOON).await;
    site.take();
    let begun = Instant::now();
    for number in 1..=20 {
        server.put(
            SERVICES,
            service(&format!("s{number}"), &format!("192.0.2.{}", 20 + number)),
        );
        sleep(Duration::from_millis(2)).await;
    }
    site.until("all there", |site| {
        site.last_view().is_some_and(|view| view.wanted.len() == 21)
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_millis(200),
        "{:?}",
        begun.elapsed()
    );
    let views = site
        .take()
        .iter()
        .filter(|it| matches!(it, Input::View(_)))
        .count();
    assert!(
        (1..=3).contains(&views),
        "{views} views for 40 ms of changes"
    );
    // Nothing of this changes the view.
    let mut changed = service("web", "192.0.2.7");
    changed["metadata"]["annotations"] = json!({"a": "b"});
    server.put(SERVICES, changed);
    server.put(ANNOUNCERS, announcer("b", "0b", "192.0.2.8"));
    server.put(
        SERVICES,
        json!({
            "metadata": {"name": "db", "namespace": "shop"}, "spec": {"type": "ClusterIP"},
        }),
    );
    sleep(SOON).await;
    let rest: Vec<String> = site.take().iter().map(short).collect();
    assert_eq!(rest, ["holdings of b"]);
    server.delete(SERVICES, "shop/web");
    site.until("gone", |site| {
        site.last_view().is_some_and(|view| view.wanted.len() == 20)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_reported_and_everything_is_passed_anew_after_it() {
    let server = cluster();
    let site = Site::start(&server, 7);
    site.until("connected", |site| {
        site.short().contains(&"api true".to_owned())
    })
    .await;
    site.until("a view", |site| site.last_view().is_some())
        .await;
    let before = server.renewals();
    sleep(Duration::from_secs(50)).await;
    let renewals = server.renewals() - before;
    assert!((9..=11).contains(&renewals), "{renewals} renewals in 50 s");
    site.take();
    server.down(true);
    let begun = Instant::now();
    site.until("away", |site| site.short() == ["api false"])
        .await;
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(2) && took < Duration::from_millis(8_100),
        "{took:?}"
    );
    sleep(SOON).await;
    assert_eq!(site.short(), ["api false"]);
    site.take();
    server.down(false);
    site.until("back", |site| site.short().contains(&"view 1".to_owned()))
        .await;
    let short = site.short();
    let first = short.iter().position(|it| it == "api true").unwrap();
    let rest = &short[first..];
    assert_eq!(
        rest[..4],
        ["api true", "holdings of b", "lease of b", "view 1"],
        "{short:?}"
    );
}

/// Its connection is open, and nothing comes.
#[tokio::test(start_paused = true)]
async fn a_watch_of_leases_that_is_silent_is_an_outage() {
    let server = cluster();
    let site = Site::start(&server, 7);
    site.until("connected", |site| {
        site.short().contains(&"api true".to_owned())
    })
    .await;
    site.take();
    server.silence(Some("leases"));
    site.until("away", |site| site.short() == ["api false"])
        .await;
    let renewals = server.renewals();
    sleep(Duration::from_secs(20)).await;
    assert!(server.renewals() > renewals, "it is renewed all the same");
    server.silence(None);
    site.until("back", |site| site.short().contains(&"api true".to_owned()))
        .await;
}

#[tokio::test(start_paused = true)]
async fn renewals_of_others_are_passed_on() {
    let server = cluster();
    let site = Site::start(&server, 7);
    site.until("a view", |site| site.last_view().is_some())
        .await;
    site.until("connected", |site| {
        site.short().contains(&"api true".to_owned())
    })
    .await;
    site.take();
    server.put(LEASES, lease("b", 2));
    server.put(LEASES, lease("c", 1));
    site.until("both", |site| site.short() == ["lease of b", "lease of c"])
        .await;
    // A Lease that is deleted says nothing.
    server.delete(LEASES, "ballast-system/announcer-c");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(site.short().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn its_lease_belongs_to_its_node() {
    let server = cluster();
    let site = Site::start(&server, 7);
    let key = "ballast-system/announcer-a";
    site.until("renewed", |site| site.server.get(LEASES, key).is_some())
        .await;
    let lease = server.get(LEASES, key).unwrap();
    assert_eq!(
        lease["metadata"]["ownerReferences"],
        json!([{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "uid-a"}])
    );
    assert_eq!(lease["spec"]["holderIdentity"], "0000000000000007");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 15);
    // Without its Node it renews nothing.
    server.delete(NODES, "a");
    sleep(SOON).await;
    let renewals = server.renewals();
    sleep(SOON).await;
    assert_eq!(server.renewals(), renewals);
    // The Node is created again.
    let mut again = node("a");
    again["metadata"]["uid"] = json!("other");
    server.put(NODES, again);
    sleep(SOON).await;
    let lease = server.get(LEASES, key).unwrap();
    assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], "other");
}

/// A wrong --node-name is no lost API server.
#[tokio::test(start_paused = true)]
async fn a_missing_node_is_named() {
    let server = cluster();
    server.delete(NODES, "a");
    let site = Site::start(&server, 7);
    let named = |site: &Site| {
        let missing = site.health.missing();
        missing.iter().any(|it| it.contains("there is no Node"))
    };
    site.until("named", named).await;
    assert_eq!(server.renewals(), 0);
    server.put(NODES, node("a"));
    site.until("ready", |site| site.health.missing().is_empty())
        .await;
}

/// Not one task ends, whatever the server does.
#[tokio::test(start_paused = true)]
async fn it_survives_outages() {
    let server = cluster();
    let mut site = Site::start(&server, 7);
    site.report(recorded(1));
    for _ in 0..5 {
        sleep(Duration::from_secs(30)).await;
        server.down(true);
        sleep(Duration::from_secs(30)).await;
        server.down(false);
    }
    assert!(site.tasks.try_join_next().is_none());
    site.until("connected", |site| {
        site.short()
            .iter()
            .rfind(|it| it.starts_with("api"))
            .is_some_and(|it| it == "api true")
    })
    .await;
}
