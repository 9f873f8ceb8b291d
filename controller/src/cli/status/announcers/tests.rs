use serde_json::{Value, json};

use super::super::fixtures::{classes, now, ready, terminal, view};
use super::super::{render, report as services};
use super::*;

fn guard(node: &str, status: &Value) -> DeserializeGuard<Announcer> {
    let object = json!({
        "apiVersion": "ballast.dev/v1alpha1", "kind": "Announcer", "metadata": {"name": node},
        "status": status,
    });
    DeserializeGuard(Ok(serde_json::from_value(object).unwrap()))
}

fn interface(mac: u8, usable: bool) -> Value {
    json!([{
        "name": "eth0", "mac": format!("02:00:00:00:00:0{mac}"),
        "addresses": [format!("192.0.2.{mac}/24")], "usable": usable,
    }])
}

fn holding(address: &str, epoch: i64, cause: &str, previous: Option<&str>) -> Value {
    json!({
        "address": address, "epoch": epoch, "revision": 0, "interface": "eth0",
        "mac": "02:00:00:00:00:01", "successors": ["node-3"], "cause": cause, "previous": previous,
        "since": "2026-03-01T11:58:00Z",
    })
}

fn node(name: &str, ready: &str) -> Node {
    let node = json!({
        "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    });
    serde_json::from_value(node).unwrap()
}

fn lease(node: &str, renewed: &str) -> Lease {
    let lease = json!({
        "metadata": {"name": format!("announcer-{node}"), "namespace": "ballast-system"},
        "spec": {"renewTime": renewed},
    });
    serde_json::from_value(lease).unwrap()
}

/// Three announcers, of which one has a problem and one is silent; a node without one, and an
/// object without a node.
fn objects() -> Objects {
    let conflict =
        "Other hosts on the network use addresses of Services: 192.0.2.101 by 02:00:00:00:00:09";
    let problem = json!([
        {"type": "AddressConflict", "status": "True", "reason": "ForeignHost", "message": conflict, "lastTransitionTime": "2026-03-01T11:50:00Z"},
        {"type": "CutOff", "status": "False", "reason": "InContact", "message": "Other hosts respond, or there are none", "lastTransitionTime": "2026-03-01T11:50:00Z"},
    ]);
    let mut claimed = holding("192.0.2.101", 1, "New", None);
    claimed.as_object_mut().unwrap().remove("interface");
    claimed.as_object_mut().unwrap().remove("mac");
    let fresh = "2026-03-01T11:59:57.000000Z";
    Objects {
        announcers: vec![
            guard(
                "node-2",
                &json!({
                    "interfaces": interface(2, true), "conditions": problem,
                    "holdings": [holding("192.0.2.100", 4, "HostDown", Some("node-1")), claimed],
                }),
            ),
            guard(
                "node-1",
                &json!({
                    "interfaces": interface(1, false),
                    "holdings": [holding("192.0.2.100", 3, "New", None), holding("2001:db8::100", 1, "New", None)],
                }),
            ),
            guard("node-3", &json!({"interfaces": interface(3, true)})),
            guard("node-9", &Value::Null),
        ],
        nodes: Some(vec![
            node("node-1", "True"),
            node("node-2", "True"),
            node("node-3", "True"),
            node("node-4", "True"),
        ]),
        leases: Some(vec![
            lease("node-1", fresh),
            lease("node-2", fresh),
            lease("node-3", "2026-03-01T11:57:00.000000Z"),
        ]),
    }
}

fn all() -> Report {
    let services = [
        ready("web", "ballast.dev/edge", &["192.0.2.100", "2001:db8::100"]),
        ready("dns", "ballast.dev/edge", &["192.0.2.101"]),
        ready("new", "ballast.dev/edge", &["192.0.2.102"]),
        ready("cloud", "ballast.dev/local", &["127.77.0.1"]),
    ];
    services::report(&services, &classes())
}

#[test]
fn announcers_and_the_addresses_of_each() {
    let report = report(&objects(), &all(), now());
    insta::assert_snapshot!(render::announcers(&report, view()));
    insta::assert_snapshot!("terminal", render::announcers(&report, terminal(120)));
    insta::assert_json_snapshot!("machine", report);
    assert_eq!(
        render::announcers_hint(&report, view()).unwrap(),
        "2 addresses are not announced by any node; the first: 192.0.2.101"
    );
}

#[test]
fn a_service_shows_where_its_addresses_are() {
    let mut services = all();
    locate(&mut services, &objects());
    let of = |name: &str| services.services.iter().find(|it| it.name == name).unwrap();
    insta::assert_snapshot!("service", render::description(of("web"), view()));
    assert_eq!(of("cloud").announcements, None, "no node announces it");
    let dns = of("dns").announcements.as_ref().unwrap();
    assert!(!dns[0].announced && dns[0].why.contains("does not announce it"));
}

#[test]
fn a_dead_node_loses_to_a_living_one() {
    let mut objects = objects();
    objects.nodes = Some(vec![node("node-1", "True"), node("node-2", "Unknown")]);
    let report = report(&objects, &all(), now());
    let web = &report.addresses[0];
    assert_eq!((web.node.as_deref(), web.epoch), (Some("node-1"), Some(3)));
    let dns = &report.addresses[1];
    assert!(!dns.announced && dns.why == "node-2 does not report to the API server any more");
}

/// A user who may read neither Nodes nor Leases.
#[test]
fn what_cannot_be_read_is_no_fault() {
    let objects = Objects {
        nodes: None,
        leases: None,
        ..objects()
    };
    let report = report(&objects, &all(), now());
    let states: Vec<&str> = report
        .announcers
        .iter()
        .map(|it| it.state.as_str())
        .collect();
    assert_eq!(states, ["Ready", "AddressConflict", "Ready", "Ready"]);
    assert_eq!(report.addresses[0].node.as_deref(), Some("node-2"));
}

/// Redirects are Linux's default, so almost every node reports them.
#[test]
fn a_condition_that_breaks_nothing_leaves_the_node_ready() {
    let mut objects = objects();
    let hint = json!([
        {"type": "RedirectsSent", "status": "True", "reason": "SendRedirects", "message": "The node may send ICMP redirects", "lastTransitionTime": "2026-03-01T11:50:00Z"},
    ]);
    for announcer in &mut objects.announcers {
        let kube::core::DeserializeGuard(Ok(announcer)) = announcer else {
            continue;
        };
        if let Some(status) = &mut announcer.status {
            status.conditions = serde_json::from_value(hint.clone()).unwrap();
        }
    }
    let report = report(&objects, &all(), now());
    let line = &report.announcers[1];
    assert!(line.is_well(), "{line:?}");
    assert_eq!(line.why, "The node may send ICMP redirects");
}

#[test]
fn the_hint_says_what_is_wrong_first() {
    let none = Objects {
        nodes: Some(vec![node("node-1", "True")]),
        ..Objects::default()
    };
    let hint = |objects: &Objects, services: &Report| {
        render::announcers_hint(&report(objects, services, now()), view())
    };
    let off =
        "no announcer runs in this cluster; the chart starts them with announcer.enabled=true";
    assert_eq!(hint(&none, &all()).as_deref(), Some(off));
    let nothing = Report::default();
    let mut some = objects();
    some.announcers.remove(0);
    assert_eq!(
        hint(&some, &nothing).as_deref(),
        Some("4 of 5 nodes report a problem; the first: ballast status --announcers node-2")
    );
    some.announcers.truncate(1);
    some.nodes = Some(vec![node("node-1", "True")]);
    assert_eq!(hint(&some, &nothing), None);
}
