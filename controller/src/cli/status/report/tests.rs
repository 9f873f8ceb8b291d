use serde_json::{Value, json};

use super::super::fixtures::{classes, condition, ready, service, status};
use super::*;

fn one(service: Service) -> Option<ServiceStatus> {
    report(&[service], &classes()).services.pop()
}

/// A Service of the class `local` with these conditions and addresses.
fn said(conditions: &[Value], addresses: &[&str]) -> Service {
    let spec = json!({"loadBalancerClass": "ballast.dev/local"});
    service(
        "web",
        json!({"spec": spec, "status": status(conditions, addresses)}),
    )
}

#[test]
fn state_and_why_come_from_the_condition_in_the_way() {
    let accepted = condition("Accepted", "True", "Accepted", "served");
    let refused = condition("Accepted", "False", "Invalid", "spec.x is wrong");
    let programmed = condition("Programmed", "True", "Programmed", "active");
    let pending = condition("Programmed", "False", "Provisioning", "being created");
    let unknown = condition("Programmed", "Unknown", "CloudError", "no answer");
    let announced = condition("Announced", "True", "Announced", "node-2, eth0");
    let silent = condition("Announced", "False", "NotAnnounced", "no node announces it");
    let ip: &[&str] = &["192.0.2.1"];
    let quiet = "the controller has not reported anything yet; check that it is running";
    for (conditions, addresses, state, why, flows) in [
        (vec![], &[][..], "Pending", quiet, false),
        (vec![&accepted], &[], "Pending", quiet, false),
        (
            vec![&accepted, &pending],
            &[],
            "Provisioning",
            "being created",
            false,
        ),
        (
            vec![&pending, &accepted],
            &[],
            "Provisioning",
            "being created",
            false,
        ),
        (
            vec![&accepted, &unknown],
            ip,
            "CloudError",
            "no answer",
            false,
        ),
        (vec![&accepted, &programmed], ip, "Ready", "", true),
        (vec![&refused], &[], "Invalid", "spec.x is wrong", false),
        (
            vec![&refused, &pending],
            &[],
            "Invalid",
            "spec.x is wrong",
            false,
        ),
        // A refused edit: the old settings still serve.
        (
            vec![&refused, &programmed],
            ip,
            "Invalid",
            "spec.x is wrong",
            true,
        ),
        (
            vec![&accepted, &programmed, &announced],
            ip,
            "Ready",
            "",
            true,
        ),
        (
            vec![&accepted, &programmed, &silent],
            ip,
            "NotAnnounced",
            "no node announces it",
            true,
        ),
    ] {
        let conditions: Vec<Value> = conditions.into_iter().cloned().collect();
        let status = one(said(&conditions, addresses)).unwrap();
        assert_eq!(
            (status.state.as_str(), status.why.as_str(), status.ready),
            (state, why, flows),
            "{conditions:?}"
        );
    }
}

#[test]
fn since_is_when_the_state_began() {
    let time = |service| one(service).unwrap().since.unwrap().to_string();
    let changed = "2026-03-01T11:50:00Z";
    assert_eq!(
        time(ready("web", "ballast.dev/local", &["192.0.2.1"])),
        changed
    );
    assert_eq!(time(said(&[], &[])), "2026-03-01T11:30:00Z", "its creation");
    let deleted = json!({"metadata": {
        "deletionTimestamp": "2026-03-01T11:59:00Z", "finalizers": ["ballast.dev/local"],
    }});
    assert_eq!(time(service("web", deleted)), "2026-03-01T11:59:00Z");
}

#[test]
fn whose_a_service_is() {
    let finalizer = json!({"metadata": {"finalizers": ["foreign.example/x", "ballast.dev/edge"]}});
    let of_type = |kind: &str, more: Value| {
        let mut all = json!({"spec": {"type": kind}});
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        service("web", all)
    };
    let class = |class: &str| service("web", json!({"spec": {"loadBalancerClass": class}}));
    let conditions = [condition("Accepted", "False", "ClassNotFound", "gone")];
    for (service, expected) in [
        (class("ballast.dev/edge"), Some(("edge", Some("l2")))),
        (class("ballast.dev/unheard"), Some(("unheard", None))),
        (class("example.com/edge"), None),
        (service("web", json!({})), Some(("local", Some("mock")))),
        (
            service("web", finalizer.clone()),
            Some(("edge", Some("l2"))),
        ),
        (of_type("NodePort", json!({})), None),
        (of_type("NodePort", finalizer), Some(("edge", Some("l2")))),
        (
            service(
                "web",
                json!({"spec": {"loadBalancerClass": "example.com/x"}, "status": status(&conditions, &[])}),
            ),
            Some(("example.com/x", None)),
        ),
        // The class that it names, although another one still cleans up.
        (
            service(
                "web",
                json!({"spec": {"loadBalancerClass": "ballast.dev/local"}, "metadata": {"finalizers": ["ballast.dev/edge"]}}),
            ),
            Some(("local", Some("mock"))),
        ),
        // No class serves a Service in deletion.
        (
            service(
                "web",
                json!({"metadata": {"deletionTimestamp": "2026-03-01T11:59:00Z"}}),
            ),
            None,
        ),
    ] {
        let text = format!("{service:?}");
        let status = one(service);
        let found = status
            .as_ref()
            .map(|one| (one.class.as_deref().unwrap(), one.provider.as_deref()));
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn services_that_go_say_what_keeps_them() {
    let going = |finalizers: &[&str], conditions: &[Value]| {
        let meta = json!({"deletionTimestamp": "2026-03-01T11:59:00Z", "finalizers": finalizers});
        let spec = json!({"loadBalancerClass": "ballast.dev/local"});
        let all =
            json!({"metadata": meta, "spec": spec, "status": status(conditions, &["192.0.2.1"])});
        let status = one(service("web", all)).unwrap();
        assert_eq!((status.state.as_str(), status.ready), ("Releasing", false));
        status.why
    };
    let flows = condition("Programmed", "True", "Programmed", "active");
    let failing = condition("Programmed", "Unknown", "CloudError", "no answer");
    let ours = &["ballast.dev/local"];
    assert_eq!(going(ours, &[failing]), "no answer");
    assert_eq!(
        going(ours, &[flows]),
        "the controller has not yet deleted the load balancer of class local"
    );
    assert_eq!(
        going(&["example.com/backup"], &[]),
        "a finalizer of another controller keeps the Service"
    );
}

#[test]
fn a_class_that_does_not_exist_is_the_reason() {
    let of = |class: &str| {
        one(service(
            "web",
            json!({"spec": {"loadBalancerClass": class}}),
        ))
    };
    assert_eq!(
        of("ballast.dev/unheard").unwrap().why,
        "LoadBalancerClass unheard does not exist"
    );
    let blind = Classes::unknown();
    let service = service(
        "web",
        json!({"spec": {"loadBalancerClass": "ballast.dev/unheard"}}),
    );
    let status = report(&[service], &blind).services.pop().unwrap();
    assert!(
        status.why.contains("check that it is running"),
        "{}",
        status.why
    );
}

#[test]
fn what_nobody_takes_is_listed_apart() {
    let all = [
        service("waits", json!({})),
        service(
            "served-elsewhere",
            json!({"status": status(&[], &["203.0.113.1"])}),
        ),
        service(
            "foreign",
            json!({"spec": {"loadBalancerClass": "example.com/x"}}),
        ),
        service("inner", json!({"spec": {"type": "ClusterIP"}})),
    ];
    let nobody = report(&all, &Classes::of(&[]));
    assert_eq!(
        (nobody.services.len(), nobody.unclaimed),
        (0, vec!["shop/waits".to_owned()])
    );
    let somebody = report(&all, &classes());
    assert_eq!(somebody.unclaimed, Vec::<String>::new());
    // A user who may not read classes gets no conclusions drawn from them.
    assert_eq!(report(&all, &Classes::unknown()), Report::default());
}

#[test]
fn whoever_asks_by_name_gets_an_answer() {
    let all = [
        service(
            "web",
            json!({"spec": {"loadBalancerClass": "example.com/x"}}),
        ),
        service(
            "web",
            json!({"metadata": {"namespace": "press"}, "spec": {"type": "ClusterIP"}}),
        ),
        service("web", json!({"metadata": {"namespace": "depot"}})),
        service("other", json!({})),
    ];
    let answer = |classes: &Classes| -> Vec<String> {
        let report = named(&all, classes, "web");
        let line = |one: &ServiceStatus| format!("{}: {}: {}", one.namespace, one.state, one.why);
        report.services.iter().map(line).collect()
    };
    insta::assert_snapshot!(answer(&Classes::of(&[])).join("\n"), @r"
    depot: NotServed: spec.loadBalancerClass is not set, and no class of Ballast is the default; see: kubectl get lbclass
    press: NotServed: the Service is not of type LoadBalancer
    shop: NotServed: spec.loadBalancerClass is example.com/x; the classes of Ballast are ballast.dev/NAME
    ");
    assert!(answer(&classes())[0].starts_with("depot: Pending"));
    assert_eq!(named(&all, &classes(), "nothing"), Report::default());
}

#[test]
fn rows_are_in_order() {
    let mut all = Vec::new();
    for (namespace, name) in [("b", "x"), ("a", "y"), ("a", "x"), ("b", "a")] {
        let of = json!({"metadata": {"namespace": namespace}});
        all.push(service(name, of));
    }
    let rows: Vec<String> = report(&all, &classes())
        .services
        .iter()
        .map(|one| format!("{}/{}", one.namespace, one.name))
        .collect();
    assert_eq!(rows, ["a/x", "a/y", "b/a", "b/x"]);
}

#[test]
fn events_come_newest_first() {
    let event = |reason: &str, times: Value| -> Event {
        let mut all =
            json!({"involvedObject": {}, "metadata": {}, "reason": reason, "type": "Normal"});
        all.as_object_mut()
            .unwrap()
            .extend(times.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    };
    let events = [
        event("Old", json!({"eventTime": "2026-03-01T10:00:00.000000Z"})),
        event(
            "Legacy",
            json!({"lastTimestamp": "2026-03-01T11:00:00Z", "count": 3}),
        ),
        event(
            "Series",
            json!({"eventTime": "2026-03-01T09:00:00.000000Z", "series": {"count": 7, "lastObservedTime": "2026-03-01T11:30:00.000000Z"}}),
        ),
        event("Timeless", json!({})),
    ];
    let lines: Vec<(String, i32)> = EventLine::all(&events)
        .into_iter()
        .map(|line| (line.reason, line.count))
        .collect();
    let expected = [("Series", 7), ("Legacy", 3), ("Old", 1), ("Timeless", 1)];
    assert_eq!(
        lines,
        expected.map(|(reason, count)| (reason.to_owned(), count))
    );
}

/// Scripts rely on these fields: they are added, never renamed or removed.
#[test]
fn the_shape_of_the_output_is_stable() {
    let mut web = one(ready(
        "web",
        "ballast.dev/edge",
        &["192.0.2.1", "2001:db8::1"],
    ))
    .unwrap();
    web.events = Some(vec![EventLine {
        time: Some("2026-03-01T11:50:00Z".parse().unwrap()),
        r#type: "Normal".to_owned(),
        reason: "EnsuredLoadBalancer".to_owned(),
        message: "Ensured load balancer".to_owned(),
        count: 1,
    }]);
    let report = Report {
        services: vec![web],
        unclaimed: vec!["shop/waits".to_owned()],
        ..Report::default()
    };
    insta::assert_snapshot!(ballast_crds::to_yaml(&report).unwrap());
}
