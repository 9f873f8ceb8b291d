use serde_json::{Value, json};

use super::super::fixtures::{
    classes, condition, now, pool, ready, service, status, terminal, view,
};
use super::super::report::{Classes, EventLine, named, report};
use super::super::{pools as pool_report, render};
use super::*;

fn mixed() -> Report {
    let making = condition(
        "Programmed",
        "False",
        "Provisioning",
        "The load balancer is being created",
    );
    let full = "LoadBalancerClass local has 20 load balancers, as many as spec.maxLoadBalancers lets it have; raise it, or delete a Service";
    let refused = condition("Accepted", "False", "QuotaExceeded", full);
    let all = [
        ready("web", "ballast.dev/local", &["127.77.0.1"]),
        ready(
            "both-families",
            "ballast.dev/edge",
            &["192.0.2.10", "2001:db8:1234:5678::10"],
        ),
        service("new", json!({"status": status(&[making], &[])})),
        service(
            "one-too-many",
            json!({"metadata": {"namespace": "press"}, "status": status(&[refused], &[])}),
        ),
        ready(
            "by-name",
            "ballast.dev/aws",
            &["web-0123456789abcdef.elb.eu-central-1.amazonaws.com"],
        ),
    ];
    report(&all, &classes())
}

#[test]
fn a_table_for_pipes() {
    insta::assert_snapshot!(services(&mixed(), view()));
}

#[test]
fn a_table_for_a_terminal() {
    insta::assert_snapshot!(services(&mixed(), terminal(160)));
}

#[test]
fn a_table_for_a_narrow_terminal() {
    insta::assert_snapshot!(services(&mixed(), terminal(80)));
}

#[test]
fn names_as_long_as_they_may_be() {
    let long = "n".repeat(63);
    let meta = json!({"metadata": {"namespace": long}});
    let all = [
        service(&long, meta),
        ready("web", "ballast.dev/local", &["127.77.0.1"]),
    ];
    let text = services(&report(&all, &classes()), view());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    let column = |line: &str, word: &str| line.find(word).unwrap();
    assert_eq!(column(lines[0], "STATE"), column(lines[1], "Pending"));
    assert_eq!(column(lines[0], "STATE"), column(lines[2], "Ready"));
}

#[test]
fn many_rows_are_one_line_each() {
    let all: Vec<_> = (0..5_000)
        .map(|n| {
            let ip = format!("10.0.{}.{}", n / 250, n % 250);
            ready(&format!("web-{n:04}"), "ballast.dev/local", &[ip.as_str()])
        })
        .collect();
    let report = report(&all, &classes());
    assert_eq!(services(&report, terminal(120)).lines().count(), 5_001);
    assert_eq!(hint(&report, view()), None);
}

#[test]
fn one_line_at_the_end_says_what_to_do() {
    let waits = |name: &str| service(name, json!({}));
    let good = || ready("good", "ballast.dev/local", &["127.77.0.1"]);
    let nobody = Classes::of(&[]);
    for (services, classes, expected) in [
        (vec![good()], classes(), None),
        (
            vec![],
            classes(),
            Some("no Services with a load balancer of Ballast found"),
        ),
        (
            vec![good(), waits("b"), waits("a")],
            classes(),
            Some("2 of 3 Services are not ready; details of the first: ballast status a -n shop"),
        ),
        (
            vec![waits("a")],
            classes(),
            Some("1 of 1 Services is not ready; details of the first: ballast status a -n shop"),
        ),
        (
            vec![good(), waits("a"), waits("b")],
            nobody,
            Some(
                "Service shop/a (and 1 more) has no class and no address, and no class of Ballast is the default; see: kubectl get lbclass",
            ),
        ),
    ] {
        let report = report(&services, &classes);
        assert_eq!(hint(&report, view()).as_deref(), expected);
    }
    let plugin = View {
        program: "kubectl ballast",
        ..view()
    };
    let report = report(&[waits("a")], &classes());
    assert!(
        hint(&report, plugin)
            .unwrap()
            .ends_with("kubectl ballast status a -n shop")
    );
}

#[test]
fn an_empty_report_prints_no_header() {
    assert_eq!(services(&Report::default(), view()), "");
    assert_eq!(pools(&PoolReport::default(), view()), "");
}

fn refused_edit() -> ServiceStatus {
    let why = "spec.ports[1] \"sctp\" is 9899/SCTP: only TCP and UDP can be balanced; remove this port or give it another Service";
    let conditions = [
        condition(
            "Programmed",
            "True",
            "Programmed",
            "The load balancer is active",
        ),
        condition("Accepted", "False", "Unsupported", why),
    ];
    let ports = json!([
        {"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080},
        {"name": "sctp", "port": 9899, "protocol": "SCTP", "nodePort": 30099},
    ]);
    let spec = json!({"loadBalancerClass": "ballast.dev/local", "ports": ports});
    let mut status = status(&conditions, &["127.77.0.1", "2001:db8::1"]);
    status["loadBalancer"]["ingress"][0]["ports"][0]["error"] = Value::from("PortInUse");
    let one = service("web", json!({"spec": spec, "status": status}));
    let mut one = named(&[one], &classes(), "web").services.remove(0);
    let event = |kind: &str, reason: &str, minutes: i64, message: &str| EventLine {
        time: Some(now() - jiff::SignedDuration::from_mins(minutes)),
        r#type: kind.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        count: 1,
    };
    one.events = Some(vec![
        event(
            "Warning",
            "SyncLoadBalancerFailed",
            10,
            "Error syncing load balancer",
        ),
        event("Normal", "EnsuredLoadBalancer", 29, "Ensured load balancer"),
    ]);
    one
}

#[test]
fn a_description() {
    insta::assert_snapshot!(description(&refused_edit(), view()));
}

#[test]
fn a_description_on_a_terminal() {
    insta::assert_snapshot!(description(&refused_edit(), terminal(80)));
}

#[test]
fn a_description_of_almost_nothing() {
    let one = service(
        "web",
        json!({"spec": {"type": "ClusterIP", "ports": null, "externalTrafficPolicy": null}}),
    );
    let mut one = named(&[one], &classes(), "web").services.remove(0);
    one.events = Some(Vec::new());
    insta::assert_snapshot!(description(&one, view()), @r"
    Service     shop/web
    Class       -
    Address     -
    State       NotServed, since 2026-03-01T11:30:00Z (30m)
    Why         the Service is not of type LoadBalancer
    Ports       -

    No events.
    ");
}

fn sample_pools() -> PoolReport {
    let accepted = |status: &str, reason: &str, message: &str| json!([{"type": "Accepted", "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-03-01T11:50:00Z"}]);
    let office = json!({
        "ipv4": {"total": 256, "assigned": 2, "available": 252},
        "ipv6": {"total": i64::MAX, "assigned": 1, "available": i64::MAX},
        "next": ["192.0.2.3", "2001:db8::2"],
        "resting": [{"address": "192.0.2.9", "until": "2026-03-01T12:01:30Z"}],
        "conditions": accepted("True", "Accepted", ""),
    });
    let newer = json!({
        "ipv4": {"total": 16, "assigned": 0, "available": 0},
        "ipv6": {"total": 1, "assigned": 0, "available": 0},
        "conditions": accepted("False", "Conflict", "192.0.2.0-192.0.2.15 belongs to the older pool office; give this one other addresses"),
    });
    let services = [
        ready("web", "ballast.dev/edge", &["192.0.2.1", "2001:db8::1"]),
        ready("dns-udp", "ballast.dev/edge", &["192.0.2.53"]),
        ready("dns-tcp", "ballast.dev/edge", &["192.0.2.53"]),
    ];
    let pools = [
        pool("office", &["192.0.2.0/24", "2001:db8::/64"], &office),
        pool("newer", &["192.0.2.0/28", "2001:db8::7"], &newer),
        pool("unseen", &["198.51.100.0/24"], &Value::Null),
    ];
    pool_report::report(&pools, &services)
}

#[test]
fn pools_and_who_has_what() {
    insta::assert_snapshot!(render::pools(&sample_pools(), view()));
}

#[test]
fn pools_on_a_terminal() {
    insta::assert_snapshot!(render::pools(&sample_pools(), terminal(100)));
}

#[test]
fn what_to_do_about_pools() {
    let report = sample_pools();
    assert_eq!(
        pools_hint(&report, view()).unwrap(),
        "2 of 3 AddressPools are not ready; details of the first: ballast status --pools newer"
    );
    assert_eq!(
        pools_hint(&PoolReport::default(), view()).unwrap(),
        "no AddressPools found"
    );
    let one = PoolReport {
        pools: vec![report.pools[0].clone()],
    };
    assert_eq!(pools_hint(&one, view()), None, "its row has said it all");
}

#[test]
fn a_drain_says_how_to_end_it() {
    let class = |name: &str, draining: bool| {
        let since = "2026-03-01T10:00:00Z";
        let switch = draining.then(|| json!({"since": since}));
        let class = serde_json::from_value(json!({
            "apiVersion": "ballast.dev/v1alpha1", "kind": "LoadBalancerClass",
            "metadata": {"name": name}, "spec": {"l2": {}}, "status": {"draining": switch},
        }));
        kube::core::DeserializeGuard(Ok(class.unwrap()))
    };
    let of = |names: &[&str]| {
        let all = ["core", "edge", "idle"];
        let all = all.map(|name| class(name, names.contains(&name)));
        render::drained(&Classes::of(&all), view())
    };
    assert_eq!(of(&[]), None);
    assert_eq!(
        of(&["edge"]).unwrap(),
        "class edge is draining; to end this: ballast teardown --undo --classes edge"
    );
    assert_eq!(
        of(&["core", "edge"]).unwrap(),
        "classes core, edge are draining; to end this: ballast teardown --undo --classes core,edge"
    );
}
