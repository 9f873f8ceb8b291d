use serde_json::{Value, json};

use super::super::fixtures::{pool, ready};
use super::*;

fn accepted(status: &str, reason: &str, message: &str) -> Value {
    json!({"conditions": [{
        "type": "Accepted", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-03-01T11:50:00Z",
    }]})
}

fn assigned(report: &PoolReport) -> Vec<String> {
    let line = |one: &Assigned| {
        let names: Vec<&str> = one.services.iter().map(|it| it.name.as_str()).collect();
        format!("{} {}", one.address, names.join("+"))
    };
    report
        .pools
        .iter()
        .flat_map(|pool| pool.assigned.iter().map(line))
        .collect()
}

#[test]
fn a_pool_says_whether_it_gives_addresses() {
    for (status, state, why) in [
        (accepted("True", "Accepted", "fine"), "Ready", ""),
        (
            accepted("False", "Conflict", "overlaps office"),
            "Conflict",
            "overlaps office",
        ),
        (
            json!({}),
            "Pending",
            "the controller has not reported anything yet; check that it is running",
        ),
        (
            Value::Null,
            "Pending",
            "the controller has not reported anything yet; check that it is running",
        ),
    ] {
        let report = report(&[pool("office", &["192.0.2.0/24"], &status)], &[]);
        let one = &report.pools[0];
        assert_eq!((one.state.as_str(), one.why.as_str()), (state, why));
    }
}

#[test]
fn who_has_which_address() {
    let services = [
        ready("ten", "ballast.dev/edge", &["192.0.2.10"]),
        ready("two", "ballast.dev/edge", &["192.0.2.2", "2001:db8::2"]),
        ready("dns-udp", "ballast.dev/edge", &["192.0.2.53"]),
        ready("dns-tcp", "ballast.dev/edge", &["192.0.2.53"]),
        ready("before", "ballast.dev/edge", &["192.0.1.255"]),
        ready("behind", "ballast.dev/edge", &["192.0.3.0"]),
        ready("other", "example.com/other", &["192.0.2.99"]),
        ready("named", "ballast.dev/edge", &["lb.example.com"]),
    ];
    let entries = [
        "192.0.2.0/24",
        "192.0.2.5-192.0.2.20",
        "2001:db8::/64",
        "nonsense",
    ];
    let report = report(&[pool("office", &entries, &json!({}))], &services);
    assert_eq!(
        assigned(&report),
        [
            "192.0.2.2 two",
            "192.0.2.10 ten",
            "192.0.2.53 dns-tcp+dns-udp",
            "192.0.2.99 other",
            "2001:db8::2 two",
        ]
    );
}

#[test]
fn of_pools_that_overlap_the_one_that_serves_has_the_address() {
    let services = [
        ready("both", "ballast.dev/edge", &["192.0.2.2"]),
        ready("former", "ballast.dev/edge", &["192.0.2.200"]),
    ];
    let pools = [
        pool(
            "newer",
            &["192.0.2.0/24"],
            &accepted("False", "Conflict", ""),
        ),
        pool(
            "office",
            &["192.0.2.0/28"],
            &accepted("True", "Accepted", ""),
        ),
    ];
    let report = report(&pools, &services);
    assert_eq!(assigned(&report), ["192.0.2.200 former", "192.0.2.2 both"]);
}

#[test]
fn a_pool_that_cannot_be_read_harms_no_other() {
    let broken: DeserializeGuard<AddressPool> = serde_json::from_value(json!({
        "apiVersion": "ballast.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "broken"}, "spec": {"addresses": 7},
    }))
    .unwrap();
    let good = pool(
        "a-good-one",
        &["192.0.2.0/24"],
        &accepted("True", "Accepted", ""),
    );
    let report = report(&[broken, good], &[]);
    let states: Vec<&str> = report
        .pools
        .iter()
        .map(|pool| pool.state.as_str())
        .collect();
    assert_eq!(states, ["Ready", "Invalid"]);
    assert!(
        report.pools[1]
            .why
            .starts_with("the AddressPool is invalid: ")
    );
}

/// Scripts rely on these fields: they are added, never renamed or removed.
#[test]
fn the_shape_of_the_output_is_stable() {
    let status = json!({
        "total": "256 + 2^64", "used": "3", "free": "251 + 2^64",
        "ipv4": {"total": 256, "assigned": 2, "available": 252},
        "ipv6": {"total": i64::MAX, "assigned": 1, "available": i64::MAX},
        "next": ["192.0.2.3", "2001:db8::2"],
        "resting": [{"address": "192.0.2.9", "until": "2026-03-01T12:01:00Z"}],
        "conditions": accepted("True", "Accepted", "The addresses can be given")["conditions"],
    });
    let services = [ready("web", "ballast.dev/edge", &["192.0.2.2"])];
    let pools = [pool("office", &["192.0.2.0/24", "2001:db8::/64"], &status)];
    let report = report(&pools, &services);
    insta::assert_snapshot!(ballast_crds::to_yaml(&report).unwrap());
}
