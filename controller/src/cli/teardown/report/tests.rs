use serde_json::{Value, json};

use super::*;
use crate::cli::status::render::View;
use crate::cli::teardown::render;
use crate::cli::text::Look;

const SINCE: &str = "2026-03-01T12:00:00Z";

fn view() -> View<'static> {
    View {
        look: Look::default(),
        now: SINCE.parse().unwrap(),
        program: "ballast",
    }
}

/// A class; `seen`: the controller has acknowledged the switch.
fn class(
    name: &str,
    draining: bool,
    seen: bool,
    in_use: bool,
) -> DeserializeGuard<LoadBalancerClass> {
    let mut object = json!({
        "apiVersion": "ballast.dev/v1alpha1", "kind": "LoadBalancerClass",
        "metadata": {"name": name, "finalizers": if in_use { json!([IN_USE_FINALIZER]) } else { json!([]) }},
        "spec": {"mock": {"endpoint": "http://127.0.0.1:1"}},
        "status": {"conditions": []},
    });
    if draining {
        object["status"]["draining"] = json!({"since": SINCE});
    }
    let view = ClassView::of(
        &DeserializeGuard(Ok(serde_json::from_value(object.clone()).unwrap())),
        &Providers::default(),
    );
    let said = view.drained().filter(|_| seen).map(|it| it.message);
    let mut conditions = vec![condition(
        "Accepted",
        if seen { "False" } else { "True" },
        if seen { "Draining" } else { "Accepted" },
        &said.unwrap_or_default(),
    )];
    if in_use {
        conditions.push(condition("InUse", "True", "InUse", "Used by shop/web"));
    }
    object["status"]["conditions"] = conditions.into();
    DeserializeGuard(Ok(serde_json::from_value(object).unwrap()))
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": SINCE})
}

fn ours(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    condition(&format!("ballast.dev/{kind}"), status, reason, message)
}

fn service(
    name: &str,
    class: Option<&str>,
    held: &[&str],
    ip: Option<&str>,
    conditions: &[Value],
) -> Service {
    let finalizers: Vec<String> = held.iter().map(|it| format!("ballast.dev/{it}")).collect();
    let ingress = ip.map(|ip| json!([{"ip": ip}]));
    serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": name, "finalizers": finalizers},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": class.map(|it| format!("ballast.dev/{it}"))},
        "status": {"conditions": conditions, "loadBalancer": {"ingress": ingress}},
    }))
    .unwrap()
}

fn begun(reason: &str, message: &str) -> [Value; 2] {
    [
        ours("Accepted", "False", "Draining", "drained"),
        ours("Programmed", "Unknown", reason, message),
    ]
}

fn alive() -> Controller {
    Controller {
        state: Liveness::Alive,
        holder: Some("ballast-1".to_owned()),
        ..Controller::default()
    }
}

fn named(names: &[&str]) -> Selection {
    Selection::Named(names.iter().map(|&name| name.to_owned()).collect())
}

fn crowd() -> Cluster {
    let deleting = {
        let said = [ours(
            "Programmed",
            "Unknown",
            "CloudError",
            "the cloud is down",
        )];
        let mut service = service("going", Some("local"), &["local"], Some("10.0.0.2"), &said);
        service.metadata.deletion_timestamp = Some(
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(SINCE.parse().unwrap()),
        );
        service
    };
    Cluster {
        classes: Some(vec![
            class("local", true, true, true),
            class("edge", false, false, false),
            class("idle", true, true, false),
        ]),
        services: vec![
            service(
                "web",
                Some("local"),
                &["local"],
                Some("10.0.0.1"),
                &begun("Releasing", "The load balancer is being released"),
            ),
            deleting,
            service(
                "untouched",
                Some("local"),
                &["local"],
                Some("10.0.0.3"),
                &[ours("Programmed", "True", "Programmed", "active")],
            ),
            service("pooled", Some("edge"), &[], Some("192.0.2.1"), &[]),
            service("free", None, &["local"], None, &[]),
            service("orphaned", None, &["gone"], None, &[]),
            service(
                "released",
                Some("local"),
                &[],
                None,
                &begun("Draining", "Not while"),
            ),
            service("foreign", None, &[], Some("192.0.2.9"), &[]),
            service("nowhere", Some("absent"), &[], Some("192.0.2.8"), &[]),
        ],
    }
}

#[test]
fn what_is_left_and_why() {
    let report = Report::of(&crowd(), &Selection::All, alive());
    insta::assert_snapshot!(render::left(&report, view()), @r#"
    NAMESPACE   NAME          CLASS   ADDRESS     WHY
    shop        free          local   -           the controller has not started to release it
    shop        going         local   10.0.0.2    the cloud is down
    shop        orphaned      gone    -           LoadBalancerClass gone does not exist, so the controller cannot find the load balancer; create the class again, or check its cloud and remove the finalizer ballast.dev/gone from the Service
    shop        pooled        edge    192.0.2.1   the controller has not started to release it
    shop        untouched     local   10.0.0.3    the controller has not started to release it
    shop        web           local   10.0.0.1    The load balancer is being released
    -           class/edge    edge    -           the controller has not seen the drain yet
    -           class/local   local   -           Used by shop/web
    "#);
    insta::assert_snapshot!(summary(&report), @"6 Services and 2 classes");
    insta::assert_snapshot!(render::question(&report), @"This drains classes edge, idle, local. 6 Services lose their load balancers and addresses; the Services stay. Continue? [y/N]");
    insta::assert_snapshot!(serde_json::to_string_pretty(&Report {
        left: report.left[..1].to_vec(),
        ..report
    }).unwrap(), @r#"
    {
      "classes": [
        {
          "name": "edge",
          "draining": null,
          "seen": false,
          "inUse": false
        },
        {
          "name": "idle",
          "draining": "2026-03-01T12:00:00Z",
          "seen": true,
          "inUse": false
        },
        {
          "name": "local",
          "draining": "2026-03-01T12:00:00Z",
          "seen": true,
          "inUse": true
        }
      ],
      "left": [
        {
          "namespace": "shop",
          "name": "free",
          "class": "local",
          "addresses": [],
          "why": "the controller has not started to release it"
        }
      ],
      "controller": {
        "state": "Alive",
        "holder": "ballast-1",
        "renewed": null,
        "silentSeconds": 0
      }
    }
    "#);
}

#[test]
fn only_the_classes_that_are_meant() {
    let report = Report::of(&crowd(), &named(&["edge", "gone", "nope"]), alive());
    insta::assert_snapshot!(render::left(&report, view()), @r#"
    NAMESPACE   NAME         CLASS   ADDRESS     WHY
    shop        orphaned     gone    -           LoadBalancerClass gone does not exist, so the controller cannot find the load balancer; create the class again, or check its cloud and remove the finalizer ballast.dev/gone from the Service
    shop        pooled       edge    192.0.2.1   the controller has not started to release it
    -           class/edge   edge    -           the controller has not seen the drain yet
    "#);
    assert_eq!(
        render::missing(&report, &named(&["edge", "gone", "nope"])).unwrap(),
        "LoadBalancerClasses gone, nope do not exist"
    );
    assert_eq!(render::missing(&report, &Selection::All), None);
    insta::assert_snapshot!(render::plan(&report, view()), @r#"
    NAMESPACE   NAME       CLASS   ADDRESS
    shop        orphaned   gone    -
    shop        pooled     edge    192.0.2.1
    "#);
}

/// Between the switch and the controller's acknowledgement, it may still create a load
/// balancer.
#[test]
fn a_class_is_free_when_the_controller_says_so_or_nobody_can() {
    let left = |class, controller| {
        let cluster = Cluster {
            classes: Some(vec![class]),
            services: vec![],
        };
        let left = Report::of(&cluster, &Selection::All, controller).left;
        left.first().map(|it| it.why.clone())
    };
    let of = |state| Controller {
        state,
        ..Controller::default()
    };
    let unseen = || class("local", true, false, false);
    let waits = Some("the controller has not seen the drain yet".to_owned());
    for (state, expected) in [
        (Liveness::Alive, &waits),
        (Liveness::Unknown, &waits),
        (Liveness::Absent, &None),
        (Liveness::Silent, &None),
        (Liveness::Dead, &None),
    ] {
        assert_eq!(left(unseen(), of(state)), *expected, "{state:?}");
    }
    assert_eq!(left(class("local", true, true, false), alive()), None);
    for state in [Liveness::Alive, Liveness::Dead] {
        let why = left(class("local", true, false, true), of(state));
        assert_eq!(why, waits, "{state:?}");
        let why = left(class("local", true, true, true), of(state));
        assert_eq!(why.as_deref(), Some("Used by shop/web"), "{state:?}");
    }
}

/// `kubectl replace` takes finalizers away, and leaves the status.
#[test]
fn a_class_that_lost_its_finalizer_is_left_as_long_as_its_status_says_so() {
    let DeserializeGuard(Ok(mut class)) = class("local", true, true, true) else {
        panic!("it can be read");
    };
    class.metadata.finalizers = None;
    let cluster = Cluster {
        classes: Some(vec![DeserializeGuard(Ok(class))]),
        services: vec![],
    };
    let left = Report::of(&cluster, &Selection::All, alive()).left;
    assert_eq!(left[0].why, "Used by shop/web");
}

/// What Ballast publishes is removed when the load balancer is gone, so it says who has one.
#[test]
fn services_that_lost_their_finalizers_are_left_as_long_as_they_publish_an_address() {
    let said = [ours("Programmed", "Unknown", "Releasing", "soon")];
    let services = || {
        vec![
            service("named", Some("local"), &[], Some("10.0.0.1"), &said),
            service("unnamed", None, &[], Some("10.0.0.2"), &said),
            service("done", None, &[], None, &said),
            service("foreign", None, &[], Some("10.0.0.4"), &[]),
        ]
    };
    let mut default = class("local", true, true, false);
    default.0.as_mut().unwrap().spec.default = true;
    let all = Selection::All;
    for (classes, selection, expected) in [
        (vec![default.clone()], &all, &["local", "local"][..]),
        // The tool has deleted the class, and will create it again.
        (vec![], &all, &["local", NO_CLASS]),
        (
            vec![default.clone()],
            &named(&["local"]),
            &["local", "local"],
        ),
        (vec![default], &named(&["edge"]), &[]),
    ] {
        let cluster = Cluster {
            classes: Some(classes),
            services: services(),
        };
        let left = Report::of(&cluster, selection, alive()).left;
        let classes: Vec<&str> = left.iter().map(|it| it.class.as_str()).collect();
        assert_eq!(classes, expected, "{left:?}");
    }
}

/// The acknowledgement of an earlier switch does not count for this one.
#[test]
fn an_old_answer_does_not_count() {
    let DeserializeGuard(Ok(mut class)) = class("local", true, true, false) else {
        panic!("it can be read");
    };
    let status = class.status.as_mut().unwrap();
    let draining = status.draining.as_mut().unwrap();
    draining.since.0 = "2026-03-01T13:00:00Z".parse().unwrap();
    let line = ClassLine::of(&ClassView::of(
        &DeserializeGuard(Ok(class)),
        &Providers::default(),
    ));
    assert!(!line.seen && line.draining.is_some());
}

#[test]
fn when_it_ends() {
    use Verdict::{Dead, Done, GoOn, Left as Remains};
    let of = |state, left| Report {
        controller: Controller {
            state,
            ..Controller::default()
        },
        left: if left { vec![Left::default()] } else { vec![] },
        ..Report::default()
    };
    let timeout = Duration::from_mins(10);
    let (waits, looks) = (
        Limits {
            wait: true,
            timeout,
        },
        Limits {
            wait: false,
            timeout,
        },
    );
    let (early, late) = (Duration::ZERO, timeout);
    for (state, left, limits, elapsed, expected) in [
        (Liveness::Alive, false, waits, early, Done),
        (Liveness::Dead, false, waits, late, Done),
        (Liveness::Alive, true, waits, early, GoOn),
        (Liveness::Alive, true, waits, late, Remains),
        (Liveness::Alive, true, looks, early, Remains),
        (Liveness::Unknown, true, waits, early, GoOn),
        (Liveness::Unknown, true, waits, late, Remains),
        // Another candidate may take over.
        (Liveness::Silent, true, waits, early, GoOn),
        (Liveness::Absent, true, waits, early, GoOn),
        (Liveness::Silent, true, waits, late, Dead),
        (Liveness::Absent, true, looks, early, Dead),
        // None did.
        (Liveness::Dead, true, waits, early, Dead),
    ] {
        let said = verdict(&of(state, left), elapsed, limits);
        assert_eq!(said, expected, "{state:?} {left} {limits:?} {elapsed:?}");
    }
}

#[test]
fn progress_is_a_line_a_change() {
    let before = Report::of(&crowd(), &Selection::All, Controller::default());
    let mut later = crowd();
    later.classes = Some(vec![
        class("local", true, true, false),
        class("edge", true, true, false),
    ]);
    let down = begun("CloudError", "the cloud is down");
    later.services = vec![service(
        "web",
        Some("local"),
        &["local"],
        Some("10.0.0.1"),
        &down,
    )];
    let now = Report::of(&later, &Selection::All, alive());
    insta::assert_snapshot!(changes(Some(&before), &now, false).join("\n"), @r#"
    shop/free (local): released
    shop/going (local): released
    shop/orphaned (gone): released
    shop/pooled (edge): released
    shop/untouched (local): released
    shop/web (local): the cloud is down
    class edge: no longer in use
    class idle: deleted
    class local: no longer in use
    controller ballast-1 is the leader
    "#);
    let brief = changes(Some(&before), &now, true).join("\n");
    assert!(
        !brief.contains("shop/") && brief.contains("class edge"),
        "{brief}"
    );
    assert_eq!(changes(Some(&now), &now, false), Vec::<String>::new());
    assert_eq!(changes(None, &now, false), Vec::<String>::new());
}

#[test]
fn the_last_line_says_what_to_do() {
    use Verdict::{Dead, Done, Left as Remains};
    let report = Report::of(&crowd(), &Selection::All, alive());
    let lease = ("kube-system".to_owned(), "ballast".to_owned());
    let lines = [(Done, false), (Remains, false), (Dead, false), (Dead, true)];
    let lines = lines.map(|(verdict, took_over)| {
        let (text, code) = render::end(&report, verdict, (true, took_over), &lease, "ballast");
        format!("{code} {text}")
    });
    insta::assert_snapshot!(lines.join("\n"), @r"
    0 all load balancers of classes edge, idle, local are released
    5 not released yet: 6 Services and 2 classes; controller ballast-1 holds the Lease kube-system/ballast. The drain continues; to wait for it: ballast teardown --wait; to end it: ballast teardown --undo
    6 not released: 6 Services and 2 classes; controller ballast-1 holds the Lease kube-system/ballast. The drain continues when a controller runs; then run this again: ballast teardown --wait. To release them without a controller, with your own rights and cloud credentials: ballast teardown --wait --takeover
    6 not released yet: 6 Services and 2 classes. No controller is running, so the drain does not continue by itself; run this again: ballast teardown --wait --takeover
    ");
    let of = |drained| {
        render::end(
            &Report::default(),
            Done,
            (drained, false),
            &lease,
            "ballast",
        )
        .0
    };
    assert_eq!(of(false), "no LoadBalancerClass found; nothing to do");
    assert_eq!(of(true), "all load balancers are released");
}
