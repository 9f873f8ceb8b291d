use ballast_crds::LoadBalancerClass;
use kube::core::DeserializeGuard;
use serde_json::{Value, json};

use super::super::fixtures::{ready, service, view};
use super::super::report::report;
use super::*;

fn class(name: &str, spec: &Value) -> DeserializeGuard<LoadBalancerClass> {
    let kinds = ["aws", "mock", "l2"];
    let provider = kinds.into_iter().find(|kind| spec.get(kind).is_some());
    let class = serde_json::from_value(json!({
        "apiVersion": "ballast.dev/v1alpha1", "kind": "LoadBalancerClass",
        "metadata": {"name": name}, "spec": spec, "status": {"provider": provider},
    }));
    DeserializeGuard(Ok(class.unwrap()))
}

fn held(name: &str, class: &str, address: &str) -> Service {
    let mut service = ready(name, class, &[address]);
    service.metadata.finalizers = Some(vec![class.to_owned()]);
    service
}

fn all() -> (Vec<Service>, Classes) {
    let public = json!({
        "region": "eu-central-1", "scheme": "internet-facing", "subnets": ["subnet-a", "subnet-b"],
    });
    let classes = [
        class("public", &json!({"aws": public})),
        class(
            "private",
            &json!({"aws": {"region": "eu-central-1"}, "maxLoadBalancers": 2}),
        ),
        class(
            "local",
            &json!({"mock": {"endpoint": "http://127.0.0.1:1"}}),
        ),
        class("edge", &json!({"l2": {}})),
        class("unused", &json!({"aws": {"region": "eu-central-1"}})),
    ];
    let services = vec![
        held("web", "ballast.dev/public", "web.elb.example.com"),
        // They share one.
        held("api-a", "ballast.dev/private", "api.elb.example.com"),
        held("api-b", "ballast.dev/private", "api.elb.example.com"),
        held("mock", "ballast.dev/local", "127.77.0.1"),
        held("metal", "ballast.dev/edge", "192.0.2.1"),
        // No load balancer exists yet.
        service(
            "new",
            json!({"spec": {"loadBalancerClass": "ballast.dev/public"}}),
        ),
    ];
    (services, Classes::of(&classes))
}

fn reported(prices: &Prices) -> Report {
    let (services, classes) = all();
    let mut report = report(&services, &classes);
    add(&mut report, &services, &classes, prices);
    report
}

#[test]
fn each_class_says_what_it_costs() {
    let report = reported(&Prices::AWS);
    insta::assert_snapshot!(text(&report, view()));
    insta::assert_json_snapshot!(report.classes);
    // 2 load balancers and 2 public addresses on AWS; the mock cloud is not billed.
    assert_eq!(report.monthly_cost, Some(40.15));
}

#[test]
fn prices_can_differ() {
    let prices = Prices {
        load_balancer: Money::micros(1_000_000),
        public_address: Money::default(),
    };
    assert_eq!(reported(&prices).monthly_cost, Some(1_460.0));
}

#[test]
fn without_a_cloud_nothing_is_said_of_costs() {
    let classes = Classes::of(&[class("edge", &json!({"l2": {}}))]);
    let services = [held("metal", "ballast.dev/edge", "192.0.2.1")];
    let mut report = report(&services, &classes);
    add(&mut report, &services, &classes, &Prices::AWS);
    assert_eq!(
        (text(&report, view()).as_str(), report.monthly_cost),
        ("", None)
    );
}
