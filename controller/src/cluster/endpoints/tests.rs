use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::cluster::store::{Key as _, Update};
use crate::fixtures::{gated_pod, id, parsed_slice, pod_slice, unready_slice};

fn name(name: &str) -> Name {
    Name::named(Some("shop"), Some(name))
}

#[test]
fn a_roll_out_has_one_turn_in_a_second() {
    let start = Instant::now();
    let ms = Duration::from_millis;
    // A change every 100 ms for ten seconds, and one long after.
    let changes = (0..100).map(|it| it * 100).chain([60_000]);
    let mut last = None;
    let mut turns = BTreeSet::new();
    for at in changes {
        let now = start + ms(at);
        let due = due(last, now);
        assert!(due >= now && due <= now + PACE, "{at}");
        turns.insert(due);
        last = Some(due);
    }
    let turns: Vec<u128> = turns
        .into_iter()
        .map(|it| (it - start).as_millis())
        .collect();
    let expected = (0..11).map(|it| 300 + it * 1_000).chain([60_300]);
    assert_eq!(turns, expected.collect::<Vec<u128>>());
}

#[test]
fn what_a_change_wakes() {
    let endpoints = Endpoints::default();
    let followed = endpoints.begin(false);
    let apply = |update| {
        let woken = followed.changed(&followed.slices.apply(update));
        let woken: Vec<String> = woken.into_iter().map(|it| it.name.to_string()).collect();
        woken
    };
    let slice =
        |service: &str, name: &str, pods: &[&str]| parsed_slice(&pod_slice(service, name, pods));
    let wanted = crate::cluster::view::ServiceView::test("web");
    let wanted = wanted.load_balancer.unwrap().unwrap();
    let pods = |service: &str| endpoints.of(&id(service), &wanted).map(|it| it.len());
    // Before the end of the list nobody knows anything.
    assert!(apply(Update::ListBegins).is_empty());
    assert!(apply(Update::Listed(slice("web", "a", &["10.0.0.1"]))).is_empty());
    assert_eq!((pods("web"), endpoints.known()), (None, Known::Soon));
    assert!(apply(Update::ListEnds).is_empty());
    assert_eq!((pods("web"), endpoints.known()), (Some(1), Known::Listed));
    // A repetition wakes nobody.
    let again = || Update::Applied(slice("web", "a", &["10.0.0.1"]));
    assert!(apply(again()).is_empty());
    let two = Update::Applied(slice("web", "b", &["10.0.0.2"]));
    assert_eq!((apply(two), pods("web")), (vec!["web".to_owned()], Some(2)));
    // Another label: both Services.
    let moved = apply(Update::Applied(slice("db", "b", &["10.0.0.2"])));
    assert_eq!(moved, ["db", "web"]);
    assert_eq!((pods("web"), pods("db")), (Some(1), Some(1)));
    let gone = apply(Update::Deleted(
        parsed_slice(&pod_slice("web", "a", &[])).key,
    ));
    assert_eq!((gone, pods("web")), (vec!["web".to_owned()], Some(0)));
    // A relist that misses one.
    assert!(apply(Update::ListBegins).is_empty());
    assert_eq!(apply(Update::ListEnds), ["db"]);
    assert_eq!(pods("db"), Some(0));
    assert!(followed.index().slices.is_empty() && followed.index().services.is_empty());
    endpoints.end();
    assert_eq!((pods("web"), endpoints.known()), (None, Known::Soon));
}

/// The turn of a Service may come before it is due, and takes all changes until then with it. So
/// a change always asks for a turn, also while one is due.
#[test]
fn a_service_waits_again_for_each_change() {
    let followed = Endpoints::default().begin(false);
    let name = Name::from(&id("web"));
    let start = Instant::now();
    let ms = Duration::from_millis;
    assert_eq!(followed.wait(&name, start), ms(300));
    assert_eq!(followed.wait(&name, start + ms(200)), ms(100));
    assert_eq!(
        followed.wait(&Name::from(&id("db")), start + ms(200)),
        ms(300)
    );
    assert_eq!(followed.wait(&name, start + ms(400)), ms(900));
    assert_eq!(followed.wait(&name, start + ms(60_000)), ms(300));
    assert_eq!(followed.index().due.len(), 1);
}

/// A pod that only its gate keeps from being ready is a target of its Services, and they are
/// woken when it becomes one.
#[test]
fn pods_that_wait_for_their_gate() {
    use ballast_provider::Readiness;
    let endpoints = Endpoints::default();
    let followed = endpoints.begin(true);
    let pods = &followed.pods.as_ref().unwrap().store;
    let slices = ["web", "api"].map(|service| {
        let pods = [("a", "10.0.0.1"), ("b", "10.0.0.2")];
        unready_slice(service, service, &pods)
    });
    let apply = |update| followed.changed(&followed.slices.apply(update));
    let apply_pod = |update| {
        let woken = followed.pods_changed(&pods.apply(update)).into_iter();
        woken.map(|it| it.name.to_string()).collect::<Vec<_>>()
    };
    apply(Update::ListBegins);
    for slice in &slices {
        apply(Update::Listed(parsed_slice(slice)));
    }
    apply(Update::ListEnds);
    // Without the pods nobody knows whether one waits.
    assert_eq!(endpoints.known(), Known::Soon);
    assert!(endpoints.waiting(&id("web")).is_empty());
    assert!(apply_pod(Update::ListBegins).is_empty());
    assert!(apply_pod(Update::Listed(gated_pod("a", "False"))).is_empty());
    assert!(apply_pod(Update::ListEnds).is_empty());
    assert_eq!(endpoints.known(), Known::Listed);
    let wanted = crate::cluster::view::ServiceView::test("web");
    let wanted = wanted.load_balancer.unwrap().unwrap();
    let readiness = || -> Vec<Readiness> {
        let pods = endpoints.of(&id("web"), &wanted).unwrap();
        pods.iter().map(|it| it.readiness).collect()
    };
    assert_eq!(readiness(), [Readiness::Unready, Readiness::Unready]);
    assert_eq!(
        apply_pod(Update::Applied(gated_pod("a", "True"))),
        ["api", "web"]
    );
    assert_eq!(readiness(), [Readiness::Gated, Readiness::Unready]);
    let waiting = endpoints.waiting(&id("web"));
    let at = BTreeSet::from([IpAddr::from([10, 0, 0, 1])]);
    let services = ["api", "web"].map(|it| (name(it), at.clone()));
    assert_eq!(
        waiting,
        [WaitingPod {
            name: name("a"),
            uid: "a".into(),
            services: services.into(),
        }]
    );
    // Its gate opens. It stays a target until its slices call it ready, and nobody opens it again.
    let mut open = gated_pod("a", "True");
    open.version = 2;
    let object = json!({
        "metadata": {"name": "a", "namespace": "shop", "uid": "a"},
        "spec": {"readinessGates": [{"conditionType": "ballast.dev/target-healthy"}]},
        "status": {"conditions": [
            {"type": "ContainersReady", "status": "True"},
            {"type": "ballast.dev/target-healthy", "status": "True"},
        ]},
    });
    open.view = GatedPod::of(&serde_json::from_value(object).unwrap());
    assert_eq!(apply_pod(Update::Applied(open)), ["api", "web"]);
    assert_eq!(readiness(), [Readiness::Gated, Readiness::Unready]);
    assert!(endpoints.waiting(&id("web")).is_empty());
    // A pod that is in no slice wakes nobody.
    assert!(apply_pod(Update::Applied(gated_pod("c", "True"))).is_empty());
    assert_eq!(apply_pod(Update::Deleted(name("a"))), ["api", "web"]);
    assert_eq!(readiness(), [Readiness::Unready, Readiness::Unready]);
}

/// Each pod has the addresses of its own endpoints, in whichever slices they are.
#[test]
fn what_each_of_several_pods_is_behind() {
    let endpoints = Endpoints::default();
    let followed = endpoints.begin(true);
    let pods = &followed.pods.as_ref().unwrap().store;
    let mut elsewhere = unready_slice("web", "web-1", &[("a", "10.9.0.1")]);
    elsewhere["metadata"]["namespace"] = json!("other");
    let mut ready = unready_slice("ready", "ready-1", &[("a", "10.0.0.1")]);
    ready["endpoints"][0]["conditions"] = json!({"ready": true});
    followed.slices.apply(Update::ListBegins);
    for slice in [
        unready_slice("web", "web-1", &[("a", "10.0.0.1"), ("b", "10.0.0.2")]),
        unready_slice("web", "web-2", &[("a", "10.0.1.1"), ("c", "10.0.0.3")]),
        unready_slice("api", "api-1", &[("a", "10.0.0.1"), ("d", "10.0.0.4")]),
        unready_slice("db", "db-1", &[("e", "10.0.0.5")]),
        elsewhere,
        ready,
    ] {
        followed.changed(&followed.slices.apply(Update::Listed(parsed_slice(&slice))));
    }
    followed.slices.apply(Update::ListEnds);
    pods.apply(Update::ListBegins);
    for (pod, containers) in [("a", "True"), ("b", "True"), ("c", "False"), ("d", "True")] {
        pods.apply(Update::Listed(gated_pod(pod, containers)));
    }
    pods.apply(Update::ListEnds);
    let behind = |all: &[(&str, &[u8])]| -> Behind {
        let all = all.iter();
        all.map(|(service, at)| {
            let address = |it: &u8| IpAddr::from([10, 0, it / 10, it % 10]);
            (name(service), at.iter().map(address).collect())
        })
        .collect()
    };
    let waiting = |service: &str| -> Vec<(String, Behind)> {
        let all = endpoints.waiting(&id(service)).into_iter();
        all.map(|pod| (pod.name.name.to_string(), pod.services))
            .collect()
    };
    let a = ("a".to_owned(), behind(&[("api", &[1]), ("web", &[1, 11])]));
    let b = ("b".to_owned(), behind(&[("web", &[2])]));
    let d = ("d".to_owned(), behind(&[("api", &[4])]));
    assert_eq!(waiting("web"), [a.clone(), b]);
    assert_eq!(waiting("api"), [a, d]);
    assert_eq!(waiting("db"), []);
    let woken = |pods: &[&str]| -> Vec<String> {
        let woken = followed.pods_changed(&Changed {
            keys: pods.iter().map(|pod| name(pod)).collect(),
            phase: Phase::Live,
        });
        woken.into_iter().map(|it| it.name.to_string()).collect()
    };
    assert_eq!(woken(&["a", "b"]), ["api", "web"]);
    assert_eq!(woken(&["b", "e"]), ["db", "web"]);
}

#[test]
fn what_a_slice_may_not_name_is_said_once() {
    let mut index = Index::default();
    let mut said = |addresses: &[&str]| {
        let slice = parsed_slice(&pod_slice("web", "a", addresses));
        let said = index.off_limits(&slice.key, slice.view.as_ref());
        said.map(|it| it.to_string()).unwrap_or_default()
    };
    for (addresses, expected) in [
        (&["10.0.0.1"][..], ""),
        (&["10.0.0.1", "169.254.1.1"], "169.254.1.1"),
        (&["10.0.0.2", "169.254.1.1"], ""),
        (&["127.0.0.1", "169.254.1.1", "224.0.0.1"], "127.0.0.1"),
        (&["169.254.1.1", "224.0.0.1"], ""),
        (&["169.254.1.1", "127.0.0.1"], "127.0.0.1"),
        (&[], ""),
        (&["169.254.1.1"], "169.254.1.1"),
    ] {
        assert_eq!(said(addresses), expected, "{addresses:?}");
    }
    assert_eq!(index.off_limits(&name("a"), None), None);
    assert!(index.off_limits.is_empty());
}
