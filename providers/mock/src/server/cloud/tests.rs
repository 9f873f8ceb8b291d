use std::time::Duration;

use ballast_provider::mark;
use proptest::prelude::*;

use super::*;
use crate::api::{Affinity, Desired, Family, LifecycleState, Listener, Protocol, TrafficPolicy};

fn rules(latency: u64) -> Rules {
    Rules {
        ranges: vec!["10.0.0.1-10.0.0.4".parse().unwrap()],
        max_load_balancers: 6,
        max_listeners: 2,
        provisioning_latency: Duration::from_secs(latency),
        deletion_latency: Duration::from_secs(latency),
    }
}

fn cloud(latency: u64) -> Cloud {
    Cloud::new(rules(latency), Stored::default())
}

fn body(node_port: u16) -> PutLoadBalancer {
    PutLoadBalancer {
        desired: Desired {
            listeners: vec![Listener {
                name: None,
                protocol: Protocol::Tcp,
                port: 80,
                node_port,
            }],
            families: vec![Family::V4],
            any_family: false,
            traffic_policy: TrafficPolicy::Cluster,
            affinity: Affinity::None,
            source_ranges: Vec::new(),
            target_set: "nodes".into(),
            requested_addresses: Vec::new(),
            tags: BTreeMap::new(),
        },
        preferred_addresses: Vec::new(),
        avoid_addresses: Vec::new(),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn put(cloud: &mut Cloud, now: i64, name: &str, body: &PutLoadBalancer) -> Result<(), Problem> {
    let edits = cloud.put(at(now), name, None, body)?;
    cloud.apply(edits);
    Ok(())
}

fn state(cloud: &Cloud, name: &str) -> Option<LifecycleState> {
    cloud.view(name).map(|view| view.state)
}

#[test]
fn a_life_from_provisioning_to_gone() {
    use LifecycleState::{Active, Deleting, Provisioning};
    let mut cloud = cloud(10);
    put(&mut cloud, 0, "web", &body(1)).unwrap();
    assert_eq!(cloud.deadline(), Some(at(10)));
    assert!(cloud.tick(at(9)).is_empty());
    cloud.apply(cloud.tick(at(10)));
    assert_eq!(
        state(&cloud, "web"),
        Some(Provisioning),
        "its ports are not open yet"
    );
    cloud.apply(cloud.report("web", Plane::Open));
    assert_eq!(state(&cloud, "web"), Some(Active));
    assert!(cloud.report("web", Plane::Open).is_empty());
    let (edits, deletion) = cloud.delete(at(20), "web", None).unwrap();
    cloud.apply(edits);
    assert_eq!(
        (deletion, state(&cloud, "web")),
        (Deletion::Deleting, Some(Deleting))
    );
    let error = cloud.put(at(21), "web", None, &body(2)).unwrap_err();
    assert_eq!(error.code, Code::Deleting);
    cloud.apply(cloud.tick(at(30)));
    assert_eq!((state(&cloud, "web"), cloud.deadline()), (None, None));
    let kinds: Vec<ChangeKind> = cloud
        .changes_since(0, 99)
        .unwrap()
        .iter()
        .map(|c| c.kind)
        .collect();

    assert_eq!(
        kinds,
        [
            ChangeKind::Created,
            ChangeKind::Changed,
            ChangeKind::Active,
            ChangeKind::Deleting,
            ChangeKind::Deleted
        ]
    );
}

#[test]
fn an_edit_keeps_the_address_and_a_request_moves_it() {
    let mut cloud = cloud(0);
    put(&mut cloud, 0, "a", &body(1)).unwrap();
    put(&mut cloud, 0, "b", &body(1)).unwrap();
    let before = cloud.view("a").unwrap().addresses;
    put(&mut cloud, 1, "a", &body(2)).unwrap();
    assert_eq!(cloud.view("a").unwrap().addresses, before);
    let mut wanted = body(2);
    let other = cloud.view("b").unwrap().addresses[0];
    wanted.desired.requested_addresses = vec![other];
    let error = cloud.put(at(2), "a", None, &wanted).unwrap_err();
    assert_eq!(error.code, Code::AddressInUse);
    let free: IpAddr = "10.0.0.4".parse().unwrap();
    wanted.desired.requested_addresses = vec![free];
    put(&mut cloud, 3, "a", &wanted).unwrap();
    assert_eq!(cloud.view("a").unwrap().addresses, [free]);
}

#[test]
fn preferred_addresses_are_given_if_free_and_avoided_ones_are_not() {
    let mut cloud = cloud(0);
    let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
    let mut wanted = body(1);
    wanted.preferred_addresses = vec![ip(3)];
    put(&mut cloud, 0, "a", &wanted).unwrap();
    put(&mut cloud, 0, "b", &wanted).unwrap();
    let mut avoiding = body(1);
    avoiding.avoid_addresses = vec![ip(2)];
    put(&mut cloud, 0, "c", &avoiding).unwrap();
    let held = |name: &str| cloud.view(name).unwrap().addresses[0];
    assert_eq!([held("a"), held("b"), held("c")], [ip(3), ip(1), ip(4)]);
}

#[test]
fn an_address_of_a_node_is_neither_chosen_nor_given_on_request() {
    let mut cloud = cloud(0);
    let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
    // One node is a target and the other one is not.
    let targets = |target: u8, others: &[u8]| TargetSetBody {
        targets: vec![Target {
            name: "node".into(),
            addresses: vec![ip(target)],
        }],
        node_addresses: others.iter().map(|last| ip(*last)).collect(),
        tags: BTreeMap::new(),
    };
    let first = targets(2, &[1]);
    cloud.apply(cloud.put_targets("nodes", None, first.clone()).unwrap());
    let mut published = body(1);
    published.preferred_addresses = vec![ip(2)];
    put(&mut cloud, 0, "a", &published).unwrap();
    assert_eq!(cloud.view("a").unwrap().addresses, [ip(3)]);
    let mut requested = body(1);
    requested.desired.requested_addresses = vec![ip(1)];
    let problem = cloud.put(at(0), "b", None, &requested).unwrap_err();
    assert_eq!(problem.code, Code::AddressInUse);
    assert!(problem.message.contains("a node"), "{problem}");
    let again = Cloud::new(
        rules(0),
        Stored {
            target_sets: vec![("nodes".into(), first)],
            ..Stored::default()
        },
    );
    assert!(again.put(at(0), "a", None, &body(1)).is_ok());
    for last in [1, 2] {
        requested.desired.requested_addresses = vec![ip(last)];
        assert!(again.put(at(0), "b", None, &requested).is_err());
    }
    // The second node is gone, and another cluster has one at its address.
    cloud.apply(cloud.put_targets("others", None, targets(2, &[])).unwrap());
    cloud.apply(cloud.put_targets("nodes", None, targets(9, &[])).unwrap());
    requested.desired.requested_addresses = vec![ip(1)];
    put(&mut cloud, 0, "b", &requested).unwrap();
    requested.desired.requested_addresses = vec![ip(2)];
    assert!(cloud.put(at(0), "c", None, &requested).is_err());
}

/// What a client with a token, or a tenant through it, can make the cloud hold.
#[test]
fn what_an_object_holds_is_bounded() {
    let mut cloud = cloud(0);
    let refused = |desired: &dyn Fn(&mut Desired)| {
        let mut body = body(1);
        desired(&mut body.desired);
        super::super::validate::load_balancer("a", &body.desired, 256).unwrap_err();
    };
    refused(&|it| it.listeners[0].name = Some("n".repeat(64)));
    refused(&|it| it.source_ranges = vec!["10.0.0.0/8".parse().unwrap(); 1_001]);
    refused(&|it| it.target_set = "n".repeat(64));
    refused(&|it| it.requested_addresses = (1..4).map(|n| [10, 0, 0, n].into()).collect());
    let set = |count: u32, name: &str, addresses: usize| TargetSetBody {
        targets: (0..count)
            .map(|n| Target {
                name: format!("{name}{n}"),
                addresses: vec![[10, 1, 0, 1].into(); addresses],
            })
            .collect(),
        node_addresses: BTreeSet::new(),
        tags: BTreeMap::new(),
    };
    for wrong in [
        set(1, &"n".repeat(254), 1),
        set(1, "n", 65),
        set(5_001, "n", 1),
        TargetSetBody {
            node_addresses: (0..40_000_u32).map(|n| n.to_be_bytes().into()).collect(),
            ..set(1, "n", 1)
        },
    ] {
        assert!(cloud.put_targets("nodes", None, wrong).is_err());
    }
    // All sets together, too; one that is there can be replaced.
    cloud.rules.max_load_balancers = 100;
    for n in 0..10 {
        let edits = cloud.put_targets(&format!("s{n}"), None, set(5_000, "n", 1));
        cloud.apply(edits.unwrap());
    }
    assert!(cloud.put_targets("more", None, set(1, "n", 1)).is_err());
    assert!(cloud.put_targets("s0", None, set(5_000, "m", 1)).is_ok());
}

#[test]
fn past_changes_are_bounded_by_their_size() {
    let mut cloud = cloud(0);
    let mut large = body(1);
    for tag in 0..50 {
        let key = format!("{tag:0>200}");
        large.desired.tags.insert(key, "v".repeat(256));
    }
    for turn in 0..1_500 {
        large.desired.listeners[0].node_port = 1 + turn % 2;
        put(&mut cloud, 0, "a", &large).unwrap();
    }
    assert!(cloud.changes_weight <= MAX_CHANGES_WEIGHT);
    let counted: usize = cloud.changes.iter().map(weight_of).sum();
    assert_eq!(counted, cloud.changes_weight);
    let kept = cloud.changes.len();
    assert!((500..1_000).contains(&kept), "{kept}");
    // A client that is further behind lists again.
    let seq = cloud.position().seq;
    assert!(cloud.changes_after(seq - 100).is_some());
    assert!(cloud.changes_after(seq - 1_200).is_none());
}

#[test]
fn one_family_is_enough_where_it_is_said_so() {
    let mut cloud = cloud(0);
    let mut both = body(1);
    both.desired.families = vec![Family::V6, Family::V4];
    let problem = cloud.put(at(0), "a", None, &both).unwrap_err();
    assert!(problem.message.contains("no IPv6 range"), "{problem}");
    both.desired.any_family = true;
    put(&mut cloud, 0, "a", &both).unwrap();
    assert_eq!(
        cloud.view("a").unwrap().addresses,
        [IpAddr::from([10, 0, 0, 1])]
    );
    assert!(cloud.put(at(0), "a", None, &both).unwrap().is_empty());
    // A requested address is never left out silently.
    both.desired.requested_addresses = vec!["fd00::1".parse().unwrap()];
    assert!(cloud.put(at(0), "a", None, &both).is_err());
    both.desired.requested_addresses.clear();
    both.desired.families = vec![Family::V6];
    assert!(cloud.put(at(0), "b", None, &both).is_err(), "no address");
}

#[test]
fn the_holder_of_an_address_is_named_to_readers_who_may_know() {
    let tags = |cluster: &str, service: &str| {
        BTreeMap::from([
            (mark::CLUSTER.to_owned(), cluster.to_owned()),
            (mark::CLUSTER_NAME.to_owned(), format!("{cluster}-name")),
            (mark::SERVICE.to_owned(), service.to_owned()),
        ])
    };
    let reader = tags("c", "shop/web");
    let said = |holder: &BTreeMap<_, _>| record::described("bl-1", Some(holder), &reader);
    assert_eq!(said(&tags("c", "shop/api")), "Service shop/api");
    assert_eq!(said(&tags("c", "bank/api")), "another Service");
    assert_eq!(
        said(&tags("d", "shop/api")),
        "load balancer bl-1 of cluster d-name (d)"
    );
    let mut unnamed = tags("d", "shop/api");
    unnamed.remove(mark::CLUSTER_NAME);
    assert_eq!(said(&unnamed), "load balancer bl-1 of cluster (d)");
    assert_eq!(said(&BTreeMap::new()), "load balancer bl-1");
}

#[test]
fn who_is_too_far_behind_is_told_so() {
    let mut cloud = cloud(0);
    assert_eq!(cloud.changes_since(0, 9), Some(Vec::new()));
    assert_eq!(cloud.changes_since(1, 9), None);
    let edits = MAX_CHANGES as u64 + 5;
    for number in 0..edits {
        let port = if number % 2 == 0 { 1 } else { 2 };
        put(&mut cloud, 0, "a", &body(port)).unwrap();
    }
    assert_eq!(cloud.changes_since(4, 1), None);
    assert_eq!(cloud.changes_since(5, 1).unwrap()[0].seq, 6);
    assert_eq!(cloud.changes_since(edits, 1), Some(Vec::new()));
}

#[test]
fn pages_end_by_their_size_and_nothing_is_missed() {
    let mut cloud = cloud(0);
    let names: Vec<String> = (0..4).map(|number| format!("lb-{number}")).collect();
    for name in &names {
        let mut large = body(1);
        // The API accepts less; this test is about the page.
        large.desired.source_ranges = vec!["10.0.0.0/8".parse().unwrap(); 15_000];
        for tag in 0..50 {
            large
                .desired
                .tags
                .insert(format!("{name}-{tag}"), "x".repeat(200));
        }
        let mut edits = put_edits(&cloud, &body(1), name);
        let Some(Edit::Put(record)) = edits.last_mut() else {
            panic!("a load balancer is put last");
        };
        record.desired = large.desired;
        cloud.apply(edits);
    }
    let (mut found, mut token, mut pages) = (Vec::new(), None, 0);
    loop {
        let (items, next) = cloud.page(&[], token.as_deref(), 500);
        found.extend(items.into_iter().map(|item| item.name));
        pages += 1;
        match next {
            Some(next) => token = Some(next),
            None => break,
        }
    }
    assert_eq!((found, pages), (names, 2));
}

fn put_edits(cloud: &Cloud, body: &PutLoadBalancer, name: &str) -> Vec<Edit> {
    cloud.put(at(0), name, None, body).unwrap()
}

#[test]
fn the_meter_counts_from_creation_until_gone_and_by_the_addresses_at_each_time() {
    let mut cloud = cloud(10);
    let mut both = rules(10);
    both.ranges.push("fd00::1-fd00::4".parse().unwrap());
    put(&mut cloud, 0, "a", &body(1)).unwrap();
    // An edit, a state of the data plane and a tag change nothing.
    put(&mut cloud, 5, "a", &body(2)).unwrap();
    cloud.apply(cloud.tick(at(10)));
    cloud.apply(cloud.report("a", Plane::Open));
    let tags = BTreeMap::from([("k".to_owned(), Some("v".to_owned()))]);
    cloud.apply(cloud.patch_tags("a", None, &tags).unwrap());
    let counted = |cloud: &Cloud, now| {
        let view = cloud.meter(at(now));
        (view.load_balancers, view.public_addresses, view.so_far)
    };
    assert_eq!(counted(&cloud, 3_600), (1, 1, 0.0275));
    // It is being deleted, and bills on until it is gone.
    let (edits, _) = cloud.delete(at(3_600), "a", None).unwrap();
    cloud.apply(edits);
    assert_eq!(counted(&cloud, 3_605).0, 1);
    cloud.apply(cloud.tick(at(3_610)));
    let gone = counted(&cloud, 3_610);
    assert_eq!((gone.0, gone.1), (0, 0));
    assert!(gone.2 > 0.0275, "{gone:?}");
    assert_eq!(counted(&cloud, 99_999), gone);
    // IPv6 addresses cost nothing, and an IPv4 address from the time at which it is there.
    let mut cloud = Cloud::new(both, Stored::default());
    let mut six = body(1);
    six.desired.families = vec![Family::V6];
    put(&mut cloud, 0, "a", &six).unwrap();
    assert_eq!(counted(&cloud, 3_600), (1, 0, 0.0225));
    six.desired.families = vec![Family::V6, Family::V4];
    put(&mut cloud, 3_600, "a", &six).unwrap();
    assert_eq!(counted(&cloud, 7_200), (1, 1, 0.05));
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u16),
    Delete(u8),
    Open(u8),
    Wait(i64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u8..8, 1u16..3).prop_map(|(name, port)| Op::Put(name, port)),
        3 => (0u8..8).prop_map(Op::Delete),
        2 => (0u8..8).prop_map(Op::Open),
        2 => (0i64..4).prop_map(Op::Wait),
    ]
}

proptest! {
    /// For any sequence of calls: an address has one holder, sequence numbers have no gaps,
    /// the quota holds, the meter is the sum of all lives, and the stored state reads back as the
    /// same cloud.
    #[test]
    fn the_state_stays_consistent(ops in prop::collection::vec(op(), 1..80), latency in 0u64..3) {
        let mut cloud = cloud(latency);
        let mut records: BTreeMap<String, Record> = BTreeMap::new();
        let (mut now, mut past, mut meter) = (0, 0, Meter::default());
        for op in ops {
            let edits = match op {
                Op::Put(name, port) => cloud.put(at(now), &format!("lb-{name}"), None, &body(port)).unwrap_or_default(),
                Op::Delete(name) => cloud.delete(at(now), &format!("lb-{name}"), None).map(|(edits, _)| edits).unwrap_or_default(),
                Op::Open(name) => cloud.report(&format!("lb-{name}"), Plane::Open),
                Op::Wait(seconds) => {
                    now += seconds;
                    cloud.tick(at(now))
                }
            };
            let mut seq = cloud.position().seq;
            for edit in &edits {
                match edit {
                    Edit::Change(change) => {
                        seq += 1;
                        prop_assert_eq!(change.seq, seq);
                    }
                    Edit::Put(record) => drop(records.insert(record.name.clone(), (**record).clone())),
                    Edit::Drop(name) => {
                        let gone = records.remove(name).map_or(at(now), |record| record.created_at);
                        past += now - gone.as_second();
                    }
                    Edit::Meter(stored) => meter = *stored,
                    _ => {}
                }
            }
            cloud.apply(edits);
            let held: Vec<IpAddr> = records.values().flat_map(|record| record.addresses.clone()).collect();
            let unique: BTreeSet<IpAddr> = held.iter().copied().collect();
            prop_assert_eq!(held.len(), unique.len(), "an address has two holders");
            prop_assert!(records.len() <= 4, "there are four addresses");
            let names: Vec<&String> = cloud.names().collect();
            prop_assert_eq!(names, records.keys().collect::<Vec<_>>());
            let lives = records.values().map(|record| now - record.created_at.as_second());
            let view = cloud.meter(at(now));
            prop_assert_eq!(view.load_balancers as usize, records.len());
            let micros = (past + lives.sum::<i64>()) * 27_500 / 3_600;
            let so_far = ballast_provider::Money::micros(micros.unsigned_abs()).dollars();
            prop_assert_eq!(view.so_far.to_bits(), so_far.to_bits());
            prop_assert!(cloud.deadline().is_none_or(|deadline| deadline >= at(now) || !cloud.tick(at(now)).is_empty()));
        }
        let again = Cloud::new(rules(latency), Stored { records: records.values().cloned().collect(), meter, ..Stored::default() });
        prop_assert_eq!(again.meter(at(now)), cloud.meter(at(now)));
        for (name, record) in &records {
            prop_assert_eq!(again.record(name), Some(record));
        }
        prop_assert_eq!(again.deadline(), cloud.deadline());
    }
}
