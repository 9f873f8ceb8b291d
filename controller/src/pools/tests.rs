//! Tests of the settings and the statuses of pools.

use ballast_crds::{AddressPool, AddressPoolStatus};
use ballast_l2::allocator::{Counts, PoolReport};
use ballast_l2::{Allocator, Snapshot};
use kube::core::DeserializeGuard;
use serde_json::json;

use super::*;

fn view(spec: &serde_json::Value) -> PoolView {
    let object = json!({
        "apiVersion": "ballast.dev/v1alpha1",
        "kind": "AddressPool",
        "metadata": {"name": "front", "resourceVersion": "7", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": spec,
    });
    let guard: DeserializeGuard<AddressPool> = serde_json::from_value(object).unwrap();
    PoolView::of(&guard)
}

fn reported(view: &PoolView) -> (PoolReport, Vec<ballast_l2::allocator::Resting>) {
    let pool = view.pool.clone().unwrap();
    let snapshot = Snapshot {
        pools: vec![pool],
        skipped: ["192.0.2.4".parse().unwrap()].into(),
        ..Snapshot::default()
    };
    let allocator = Allocator::restore(snapshot, Timestamp::UNIX_EPOCH);
    (allocator.pools().remove(0), vec![])
}

fn status_of(pool: &PoolView, now: Timestamp) -> AddressPoolStatus {
    report(
        pool,
        Some(&reported(pool)),
        false,
        &pool.status.conditions,
        now,
    )
}

#[test]
fn every_field_of_a_pool_reaches_the_allocator() {
    let all = view(&json!({
        "addresses": ["192.0.2.0/30", "2001:db8::/64"],
        "autoAssign": false, "priority": 7, "reuseAfter": "90s", "edges": "Use",
        "shareAcrossNamespaces": true, "reallocate": true,
        "namespaceSelector": {"matchLabels": {"team": "shop"}},
        "serviceSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["web"]}]},
    }));
    let pool = all.pool.unwrap();
    assert_eq!((pool.name.as_str(), pool.entries.len()), ("front", 2));
    assert_eq!((pool.auto_assign, pool.priority), (false, Some(7)));
    assert_eq!(pool.reuse_after, Duration::from_secs(90));
    assert_eq!(pool.edges, ballast_l2::Edges::Use);
    assert!(pool.share_across_namespaces && pool.reallocate);
    assert!(pool.namespace_selector.is_some() && pool.service_selector.is_some());
    let bare = view(&json!({"addresses": ["192.0.2.1"]})).pool.unwrap();
    assert!(bare.auto_assign && bare.namespace_selector.is_none());
    assert_eq!(bare.reuse_after, Duration::from_mins(2));
}

#[test]
fn a_pool_that_cannot_be_understood_says_which_field() {
    for (spec, words) in [
        (
            json!({"addresses": ["192.0.2.9-192.0.2.1"]}),
            "spec.addresses",
        ),
        (
            json!({"addresses": ["192.0.2.1"], "serviceSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
            "spec.serviceSelector",
        ),
        (json!({"addresses": "192.0.2.1"}), "cannot be read"),
    ] {
        let broken = view(&spec);
        let error = broken.pool.clone().unwrap_err();
        assert!(error.contains(words), "{error}");
        let status = report(
            &broken,
            None,
            false,
            &broken.status.conditions,
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(status.conditions[0].reason, "Invalid");
        assert_eq!(status.conditions[0].message, error);
        assert_eq!(status.total, None);
    }
}

#[test]
fn a_report_counts_both_families_and_names_node_addresses() {
    let pool = view(&json!({"addresses": ["192.0.2.0/29", "2001:db8::/64"]}));
    let status = status_of(&pool, Timestamp::UNIX_EPOCH);
    assert_eq!(status.total.as_deref(), Some("5 + <2^64"));
    assert_eq!(status.used.as_deref(), Some("0"));
    assert_eq!(status.next, ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(status.ipv6.unwrap().total, i64::MAX, "saturated");
    let kinds: Vec<_> = status
        .conditions
        .iter()
        .map(|it| (it.type_.as_str(), it.reason.as_str()))
        .collect();
    assert_eq!(
        kinds,
        [("Accepted", "Accepted"), ("NodeAddresses", "Skipped")]
    );
    assert!(status.conditions[1].message.contains("192.0.2.4"));
}

#[test]
fn a_status_that_somebody_wrote_over_is_written_again() {
    let mut pool = view(&json!({"addresses": ["192.0.2.1"]}));
    let status = status_of(&pool, Timestamp::UNIX_EPOCH);
    let ago = |seconds| {
        Instant::now()
            .checked_sub(Duration::from_secs(seconds))
            .unwrap()
    };
    let last = |seconds, version| Written {
        at: ago(seconds),
        version,
        status: status.clone(),
    };
    pool.version = 7;
    assert!(last(1, 8).suffices(&pool, &status), "just now");
    assert!(
        last(20, 8).suffices(&pool, &status),
        "it is on its way back"
    );
    assert!(!last(20, 8).suffices(&pool, &AddressPoolStatus::default()));
    assert!(
        !last(60, 8).suffices(&pool, &status),
        "a restored API server begins with lower versions"
    );
    pool.version = 9;
    assert!(
        !last(60, 8).suffices(&pool, &status),
        "somebody wrote since"
    );
}

#[test]
fn the_time_of_a_condition_moves_only_with_its_status() {
    let mut pool = view(&json!({"addresses": ["192.0.2.1"]}));
    let first = status_of(&pool, Timestamp::UNIX_EPOCH);
    pool.status = first.clone();
    let later = Timestamp::from_second(1_000).unwrap();
    assert_eq!(status_of(&pool, later), first);
    let conflict = PoolReport {
        standing: ballast_l2::Standing::Conflict {
            with: "older".into(),
            range: "192.0.2.1".parse::<Entry>().unwrap().range(),
        },
        v4: Counts::default(),
        ..reported(&pool).0
    };
    let status = report(
        &pool,
        Some(&(conflict, vec![])),
        false,
        &pool.status.conditions,
        later,
    );
    assert_eq!(status.conditions[0].reason, "Conflict");
    assert!(status.conditions[0].message.contains("AddressPool older"));
    assert_eq!(status.conditions[0].last_transition_time.0, later);
}
