use super::*;
use crate::api::{Affinity, TrafficPolicy};

/// A load balancer as schema 1 stored it.
const FIRST: &str = r#"{"name":"web","seq":7,"created_at":"2026-01-02T03:04:05Z",
    "phase":{"phase":"active"},"addresses":["127.77.0.1"],"desired":{
    "listeners":[{"name":"http","protocol":"TCP","port":80,"node_port":30080}],
    "families":["IPv4"],"trafficPolicy":{"Local":{"health_check_node_port":32000}},
    "affinity":{"ClientIp":{"timeout_seconds":60}},"sourceRanges":[],"targetSet":"nodes",
    "requestedAddresses":[],"tags":{}}}"#;

/// A state file of schema 1 with one load balancer and its last change.
fn first(directory: &Path) {
    let connection = Connection::open(directory.join("mock-cloud.sqlite")).unwrap();
    connection.execute_batch(TABLES).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    let change = r#"{"seq":7,"kind":"active","name":"web","tags":{}}"#;
    connection
        .execute("INSERT INTO load_balancers VALUES ('web', ?1)", [FIRST])
        .unwrap();
    connection
        .execute("INSERT INTO changes VALUES (7, ?1)", [change])
        .unwrap();
}

#[test]
fn a_state_in_the_first_spelling_is_read_and_written_in_todays() {
    let directory = tempfile::tempdir().unwrap();
    first(directory.path());
    let (mut store, stored) = Store::open(directory.path()).unwrap();
    assert_eq!(stored.seq, 7);
    let record = stored.records[0].clone();
    assert_eq!(record.desired.listeners[0].node_port, 30_080);
    assert_eq!(
        record.desired.traffic_policy,
        TrafficPolicy::Local {
            health_check_node_port: 32_000
        }
    );
    assert_eq!(
        record.desired.affinity,
        Affinity::ClientIp {
            timeout_seconds: 60
        }
    );
    store
        .commit(&[Edit::Put(Box::new(record.clone()))])
        .unwrap();
    let query = "SELECT record FROM load_balancers";
    let text: String = store
        .connection
        .query_row(query, [], |row| row.get(0))
        .unwrap();
    assert!(!text.contains('_'), "{text}");
    drop(store);
    let (_, again) = Store::open(directory.path()).unwrap();
    assert_eq!(again.records, [record]);
}

#[test]
fn a_state_of_a_newer_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path()).unwrap();
    store
        .connection
        .pragma_update(None, "user_version", SCHEMA + 1)
        .unwrap();
    drop(store);
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Schema { found } if found == SCHEMA + 1));
}

#[test]
fn the_identity_and_the_listeners_of_the_node_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, first) = Store::open(directory.path()).unwrap();
    let listeners = [(Protocol::Tcp, Family::V4), (Protocol::Udp, Family::V6)];
    let listeners = listeners.map(|(protocol, family)| Wildcard {
        protocol,
        family,
        port: 9200,
    });
    // A listener that is reported twice is stored once.
    let edits = [listeners[0], listeners[1], listeners[0]].map(Edit::Listener);
    store.commit(&edits).unwrap();
    drop(store);
    let (store, again) = Store::open(directory.path()).unwrap();
    assert_eq!(again.listeners, listeners);
    assert_eq!(again.identity, first.identity);
    assert_ne!(again.epoch, first.epoch);
    drop(store);
    let elsewhere = tempfile::tempdir().unwrap();
    let (_, other) = Store::open(elsewhere.path()).unwrap();
    assert_ne!(other.identity, first.identity);
}

/// Also that of a program without a meter: what is there counts from its creation.
#[test]
fn the_meter_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    first(directory.path());
    let (mut store, stored) = Store::open(directory.path()).unwrap();
    let created = stored.records[0].created_at;
    let one = crate::billed(&stored.records[0].addresses);
    let hour = created + jiff::SignedDuration::from_hours(1);
    let early = Meter::begin(hour, &stored.records);
    let view = early.view(hour, one, &ballast_provider::Prices::AWS);
    assert_eq!((view.since, view.so_far), (created, 0.0275));
    store.commit(&[Edit::Meter(early)]).unwrap();
    store.commit(&[Edit::Meter(stored.meter)]).unwrap();
    drop(store);
    let (_, again) = Store::open(directory.path()).unwrap();
    assert_eq!(again.meter, stored.meter);
    let fresh = tempfile::tempdir().unwrap();
    let (store, stored) = Store::open(fresh.path()).unwrap();
    drop(store);
    let (_, again) = Store::open(fresh.path()).unwrap();
    assert_eq!(again.meter, stored.meter, "it began with the state");
}

#[test]
fn released_addresses_in_the_file_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(directory.path()).unwrap();
    let address = |n: u64| IpAddr::from(std::net::Ipv6Addr::from(u128::from(n)));
    let last = RESTING as u64 + 3 * PRUNED_EVERY;
    let edits: Vec<Edit> = (1..=last).map(|n| Edit::Rest(address(n), n)).collect();
    store.commit(&edits).unwrap();
    drop(store);
    let (_, stored) = Store::open(directory.path()).unwrap();
    let most = RESTING + usize::try_from(PRUNED_EVERY).unwrap();
    assert!((RESTING..=most).contains(&stored.resting.len()));
    assert!(
        stored.resting.contains(&(address(last), last)),
        "the latest"
    );
}
