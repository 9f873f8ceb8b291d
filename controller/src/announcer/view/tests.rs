mod any;

use ballast_agent::seal::object::Content;
use ballast_announce::Mac;
use ballast_announce::view::{Detection, Interface};
use ballast_l2::{Labels, Selector};

use super::*;
use crate::announcer::facts::{NodeSelector, Pattern};
use crate::cluster::store::Key as _;

const A: &str = "192.0.2.7";
const NOW: &str = "2026-01-02T03:00:00Z";

fn name(name: &str) -> Name {
    Name::named(Some("shop"), Some(name))
}

fn nodes_named(names: &[&str]) -> BTreeSet<NodeName> {
    names.iter().map(|name| NodeName::new(name)).collect()
}

fn service(text: &str, class: &str, policy: Policy, port: Option<u16>) -> ServiceFacts {
    ServiceFacts {
        name: name(text),
        classes: vec![class.into()],
        policy,
        health_port: port,
        addresses: vec![A.parse().unwrap()],
    }
}

fn slice(service: &str, ready: &[&str], ending: &[&str]) -> SliceFacts {
    SliceFacts {
        service: name(service),
        ready: nodes_named(ready).into_iter().collect(),
        ending: nodes_named(ending).into_iter().collect(),
        serves: true,
    }
}

fn class(text: &str) -> ClassFacts {
    ClassFacts {
        name: text.into(),
        nodes: None,
        preferred: None,
        gradual: false,
        asked: None,
        interfaces: vec![],
        detection: Detection::Fast,
        refresh: Some(Duration::from_mins(1)),
    }
}

fn node(text: &str, zone: &str) -> NodeObject {
    NodeObject {
        name: NodeName::new(text),
        uid: "u".into(),
        labels: Labels::from([("zone", zone)]),
        excluded: false,
        cordoned: false,
        out_of_service: false,
        addresses: vec![],
    }
}

fn announcer(text: &str, interfaces: &[&str]) -> AnnouncerFacts {
    let interfaces = interfaces.iter().zip(1..);
    AnnouncerFacts {
        name: NodeName::new(text),
        incarnation: None,
        interfaces: interfaces
            .map(|(name, index)| Interface {
                index,
                name: (*name).into(),
                mac: Mac([2, 0, 0, 0, 0, 1]),
                nets: vec!["192.0.2.11/24".parse().unwrap()],
                carrier: true,
            })
            .collect(),
        claims: vec![],
        own: None,
        uid: "u".into(),
        written: true,
        serial: 0,
        content: Content::new(b""),
        seals: vec![],
    }
}

/// Nodes a, b (zone x) and c (zone y), each with eth0; c has eth1, too.
fn cluster(
    services: Vec<ServiceFacts>,
    slices: Vec<SliceFacts>,
    classes: Vec<ClassFacts>,
) -> Cluster {
    fn arcs<T>(values: Vec<T>) -> Vec<Arc<Option<T>>> {
        values
            .into_iter()
            .map(|value| Arc::new(Some(value)))
            .collect()
    }
    Cluster {
        services: arcs(services),
        slices: arcs(slices),
        nodes: [node("a", "x"), node("b", "x"), node("c", "y")]
            .map(Arc::new)
            .into(),
        classes: arcs(classes),
        announcers: [
            announcer("a", &["eth0"]),
            announcer("b", &["eth0"]),
            announcer("c", &["eth0", "eth1"]),
        ]
        .map(Arc::new)
        .into(),
        now: NOW.parse().unwrap(),
        interfaces: BTreeSet::new(),
    }
}

fn wanted(cluster: &Cluster) -> Option<Wanted> {
    let built = build(cluster, &NodeName::new("a"));
    let entry = built.view.wanted.get(&A.parse().unwrap());
    entry.map(|entry| Wanted::clone(entry))
}

fn selector(zone: &str) -> NodeSelector {
    NodeSelector::Valid(Selector {
        match_labels: Labels::from([("zone", zone)]),
        match_expressions: vec![],
    })
}

#[test]
fn one_service() {
    use Policy::{Cluster, Local};
    let metal = || vec![class("metal")];
    let endpoints = |slices: Vec<SliceFacts>, policy| {
        let services = vec![service("web", "metal", policy, Some(1))];
        wanted(&cluster(services, slices, metal())).unwrap()
    };
    let base = Wanted {
        policy: Cluster,
        detection: Detection::Fast,
        nodes: None,
        preferred: None,
        rebalance: Rebalance::default(),
        interfaces: None,
        endpoints: nodes_named(&[SOMEWHERE]),
        refresh: Some(Duration::from_mins(1)),
    };
    assert_eq!(endpoints(vec![slice("web", &["b"], &[])], Cluster), base);
    let nowhere = Wanted {
        endpoints: BTreeSet::new(),
        ..base.clone()
    };
    assert_eq!(endpoints(vec![], Cluster), nowhere);
    assert_eq!(
        endpoints(vec![slice("other", &["b"], &[])], Cluster),
        nowhere
    );
    let local = |nodes: &[&str]| Wanted {
        policy: Local,
        endpoints: nodes_named(nodes),
        ..base.clone()
    };
    for (slices, expected) in [
        (vec![], local(&[])),
        (vec![slice("web", &["a"], &["b"])], local(&["a"])),
        (
            vec![slice("web", &["a"], &[]), slice("web", &["c"], &["b"])],
            local(&["a", "c"]),
        ),
        // All of them terminate: kube-proxy uses them.
        (vec![slice("web", &[], &["b"])], local(&["b"])),
        // Endpoints that are no pods.
        (vec![slice("web", &[], &[])], base.clone()),
    ] {
        assert_eq!(endpoints(slices.clone(), Local), expected, "{slices:?}");
    }
}

#[test]
fn the_class_prefers_nodes_and_rebalances() {
    let of = |class: ClassFacts| {
        let services = vec![service("web", "metal", Policy::Cluster, None)];
        wanted(&cluster(services, vec![], vec![class])).unwrap()
    };
    let preferring = of(ClassFacts {
        preferred: Some(selector("x")),
        gradual: true,
        ..class("metal")
    });
    assert_eq!(preferring.preferred, Some(nodes_named(&["a", "b"])));
    assert_eq!(preferring.nodes, None);
    assert!(preferring.rebalance.gradual);
    let asked = |time: &str| {
        let class = ClassFacts {
            asked: Some(time.parse().unwrap()),
            ..class("metal")
        };
        of(class).rebalance.asked
    };
    let (recent, later) = (asked("2026-01-02T02:01:00Z"), asked("2026-01-02T02:01:01Z"));
    assert!(recent.is_some() && later.is_some() && recent != later);
    assert!(asked("2026-01-02T03:30:00Z").is_some(), "another clock");
    assert_eq!(asked("2026-01-02T02:00:00Z"), None, "an hour ago");
    assert_eq!(asked("2026-01-02T04:00:00Z"), None);
    // Also without a Service: one that comes later asked for nothing.
    let class = ClassFacts {
        asked: Some("2026-01-02T02:01:00Z".parse().unwrap()),
        ..class("metal")
    };
    let view = build(&cluster(vec![], vec![], vec![class]), &NodeName::new("a")).view;
    assert_eq!(view.requests, recent.into_iter().collect());
}

#[test]
fn the_class_selects() {
    let of = |class: ClassFacts| {
        let services = vec![service("web", "metal", Policy::Cluster, None)];
        wanted(&cluster(services, vec![], vec![class]))
    };
    let selects = |nodes| {
        of(ClassFacts {
            nodes: Some(nodes),
            ..class("metal")
        })
        .unwrap()
        .nodes
    };
    assert_eq!(selects(selector("x")), Some(nodes_named(&["a", "b"])));
    assert_eq!(selects(selector("z")), Some(BTreeSet::new()));
    assert_eq!(
        selects(NodeSelector::Invalid("no".into())),
        Some(BTreeSet::new())
    );
    let names = |patterns: &[&str]| {
        let interfaces = patterns.iter().map(|text| Pattern::new(text)).collect();
        of(ClassFacts {
            interfaces,
            ..class("metal")
        })
        .unwrap()
        .interfaces
    };
    let set = |names: &[&str]| {
        Some(
            names
                .iter()
                .map(|it| Arc::from(*it))
                .collect::<BTreeSet<Arc<str>>>(),
        )
    };
    assert_eq!(names(&[]), None);
    assert_eq!(names(&["^eth1$", "["]), set(&["eth1"]));
    assert_eq!(names(&["["]), set(&[]));
    assert_eq!(names(&["eth"]), set(&["eth0", "eth1"]));
    // No l2 class, or one that is not known.
    assert_eq!(of(class("other")), None);
}

#[test]
fn an_interface_that_is_not_published_yet_counts() {
    let mut cluster = cluster(
        vec![service("web", "metal", Policy::Cluster, None)],
        vec![],
        vec![ClassFacts {
            interfaces: vec![Pattern::new("^bond0$")],
            ..class("metal")
        }],
    );
    assert_eq!(wanted(&cluster).unwrap().interfaces, Some([].into()));
    cluster.interfaces = ["bond0".into(), "lo".into()].into();
    assert_eq!(
        wanted(&cluster).unwrap().interfaces,
        Some(["bond0".into()].into())
    );
}

#[test]
fn of_two_finalizers_the_own_class_counts_if_it_is_an_l2_class() {
    let mut moving = service("web", "metal", Policy::Cluster, None);
    moving.classes = vec!["cloud".into(), "slow".into(), "metal".into()];
    let slow = ClassFacts {
        detection: Detection::Lease,
        ..class("slow")
    };
    let of =
        |classes| wanted(&cluster(vec![moving.clone()], vec![], classes)).map(|it| it.detection);
    assert_eq!(
        of(vec![class("metal"), slow.clone()]),
        Some(Detection::Lease)
    );
    assert_eq!(of(vec![class("metal")]), Some(Detection::Fast));
    assert_eq!(of(vec![]), None);
}

#[test]
fn services_that_share_an_address_have_one_entry() {
    use Policy::{Cluster, Local};
    let classes = || {
        vec![
            ClassFacts {
                nodes: Some(selector("x")),
                refresh: None,
                ..class("one")
            },
            ClassFacts {
                interfaces: vec![Pattern::new("eth0")],
                detection: Detection::Tolerant,
                ..class("two")
            },
        ]
    };
    let of = |policies: [Policy; 2], slices: Vec<SliceFacts>| {
        let services = vec![
            service("web", "one", policies[0], None),
            service("dns", "two", policies[1], None),
        ];
        wanted(&cluster(services, slices, classes())).unwrap()
    };
    let both = vec![
        slice("web", &["a", "b"], &[]),
        slice("dns", &["b", "c"], &[]),
    ];
    let entry = of([Cluster, Cluster], both.clone());
    assert_eq!(entry.policy, Cluster);
    assert_eq!(entry.nodes, Some(nodes_named(&["a", "b"])));
    assert_eq!(entry.interfaces, Some(["eth0".into()].into()));
    assert_eq!(entry.detection, Detection::Tolerant);
    assert_eq!(entry.refresh, Some(Duration::from_mins(1)));
    assert_eq!(entry.endpoints, nodes_named(&[SOMEWHERE]));
    let apart = vec![slice("web", &["a"], &[]), slice("dns", &["b"], &[])];
    let one = vec![slice("dns", &["b"], &[])];
    for (policies, slices, expected) in [
        ([Local, Local], both.clone(), &["b"][..]),
        ([Local, Cluster], both, &["a", "b"]),
        ([Local, Local], apart, &["a", "b"]),
        ([Local, Local], one.clone(), &["b"]),
        ([Local, Cluster], one, &[]),
        ([Local, Local], vec![], &[]),
    ] {
        let entry = of(policies, slices.clone());
        assert_eq!(entry.policy, Local);
        assert_eq!(
            entry.endpoints,
            nodes_named(expected),
            "{policies:?} {slices:?}"
        );
    }
}

#[test]
fn health_is_checked_where_the_node_has_an_endpoint() {
    use Policy::{Cluster, Local};
    let health = |services: Vec<ServiceFacts>, slices| {
        let cluster = cluster(services, slices, vec![class("metal")]);
        let health = build(&cluster, &NodeName::new("a")).health;
        health.get(&A.parse().unwrap()).cloned()
    };
    let here = |service| slice(service, &["a", "b"], &[]);
    let web = |policy, port| service("web", "metal", policy, port);
    for (services, slices, expected) in [
        (vec![web(Local, Some(1))], vec![here("web")], Some(vec![1])),
        (vec![web(Local, None)], vec![here("web")], Some(vec![])),
        (
            vec![web(Local, Some(1))],
            vec![slice("web", &["b"], &["a"])],
            None,
        ),
        (
            vec![web(Local, Some(1))],
            vec![slice("web", &[], &["a"])],
            Some(vec![1]),
        ),
        (vec![web(Local, Some(1))], vec![], None),
        (vec![web(Cluster, None)], vec![here("web")], None),
        (
            vec![web(Local, Some(1)), service("dns", "metal", Local, Some(2))],
            vec![here("web"), here("dns")],
            Some(vec![1, 2]),
        ),
        (
            vec![web(Local, Some(1)), service("dns", "metal", Local, Some(2))],
            vec![here("web"), slice("dns", &["b"], &[])],
            Some(vec![1]),
        ),
    ] {
        let expected = expected.map(|ports| ports.into_iter().collect::<BTreeSet<u16>>());
        assert_eq!(health(services.clone(), slices), expected, "{services:?}");
    }
}

#[test]
fn nodes_have_the_interfaces_of_their_announcers() {
    let mut all = cluster(vec![], vec![], vec![]);
    all.nodes.push(Arc::new(NodeObject {
        excluded: true,
        cordoned: true,
        out_of_service: true,
        addresses: vec!["192.0.2.14".parse().unwrap()],
        ..node("d", "x")
    }));
    all.announcers.push(Arc::new(announcer("gone", &["eth0"])));
    let nodes = build(&all, &NodeName::new("a")).view.nodes;
    let names: Vec<&str> = nodes.keys().map(NodeName::as_str).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert_eq!(nodes[&NodeName::new("c")].interfaces.len(), 2);
    let without = NodeFacts {
        excluded: true,
        cordoned: true,
        out_of_service: true,
        addresses: vec!["192.0.2.14".parse().unwrap()],
        interfaces: vec![],
    };
    assert_eq!(nodes[&NodeName::new("d")], without);
}

/// Addresses of one class and policy Cluster share one value: there may be thousands.
#[test]
fn equal_entries_take_memory_once() {
    let services = (0..100).map(|n| ServiceFacts {
        addresses: vec![format!("192.0.2.{n}").parse().unwrap()],
        ..service(&format!("web-{n}"), "metal", Policy::Cluster, None)
    });
    let cluster = cluster(
        services.collect(),
        vec![slice("web-7", &["a"], &[])],
        vec![class("metal")],
    );
    let view = build(&cluster, &NodeName::new("a")).view;
    let values: BTreeSet<_> = view.wanted.values().map(Arc::as_ptr).collect();
    assert_eq!((view.wanted.len(), values.len()), (100, 2));
}
