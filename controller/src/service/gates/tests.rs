use super::*;
use crate::class::ClassView;
use crate::cluster::store::{Parsed, Update};
use crate::fixtures::{PODS, id, second};

/// A pod of these Services, with the address 10.0.0.N in all of them.
fn pod(number: u8, services: &[&str]) -> WaitingPod {
    let at = BTreeSet::from([IpAddr::from([10, 0, 0, number])]);
    let services = services.iter().map(|it| (Name::from(&id(it)), at.clone()));
    WaitingPod {
        name: Name::from(&id(&format!("pod-{number}"))),
        uid: "uid".into(),
        services: services.collect(),
    }
}

#[test]
fn a_gate_opens_when_all_load_balancers_find_the_pod_healthy() {
    let services = Store::default();
    for name in ["one", "two", "nodes", "foreign"] {
        let mut view = ServiceView::test(name);
        let wanted = view.load_balancer.as_mut().unwrap().as_mut().unwrap();
        if name != "nodes" {
            wanted.settings.insert(PODS.to_owned(), "on".to_owned());
        }
        if name == "foreign" {
            view = view.class(Some("example.com/lb"));
        }
        services.apply(Update::Applied(Parsed {
            key: Name::from(&view.id),
            version: 1,
            view,
        }));
    }
    let classes = Classes::test([ClassView::test("local")]);
    let former = ServiceId {
        uid: "former".into(),
        ..id("one")
    };
    let found = |all: &[(&ServiceId, u8)]| -> Found {
        let all = all.iter();
        all.map(|(id, number)| {
            let found = BTreeSet::from([IpAddr::from([10, 0, 0, *number])]);
            (Name::from(*id), ((*id).clone(), found))
        })
        .collect()
    };
    let (one, two) = (id("one"), id("two"));
    for (what, behind, healthy, opens) in [
        ("healthy", &["one"][..], found(&[(&one, 1)]), true),
        ("not healthy", &["one"], found(&[(&one, 2)]), false),
        ("no turn yet", &["one"], found(&[]), false),
        (
            "healthy for both",
            &["one", "two"],
            found(&[(&one, 1), (&two, 1)]),
            true,
        ),
        (
            "healthy for one of two",
            &["one", "two"],
            found(&[(&one, 1)]),
            false,
        ),
        (
            "the other sends to nodes",
            &["one", "nodes"],
            found(&[(&one, 1)]),
            true,
        ),
        (
            "the other is of another controller",
            &["one", "foreign"],
            found(&[(&one, 1)]),
            true,
        ),
        (
            "the other is gone",
            &["one", "gone"],
            found(&[(&one, 1)]),
            true,
        ),
        (
            "a former Service of that name",
            &["one"],
            found(&[(&former, 1)]),
            false,
        ),
    ] {
        let open = to_open(vec![pod(1, behind)], &healthy, &services, &classes);
        assert_eq!(!open.is_empty(), opens, "{what}");
    }
}

#[test]
fn a_gate_is_opened_for_this_pod_alone() {
    insta::assert_json_snapshot!(patch(&pod(1, &[]), second(7)), @r#"
    {
      "metadata": {
        "uid": "uid"
      },
      "status": {
        "conditions": [
          {
            "lastTransitionTime": "1970-01-01T00:00:07Z",
            "message": "The load balancers of all Services of this pod find it healthy",
            "reason": "TargetHealthy",
            "status": "True",
            "type": "ballast.dev/target-healthy"
          }
        ]
      }
    }
    "#);
}
