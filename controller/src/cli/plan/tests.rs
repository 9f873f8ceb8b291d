use super::cluster::Cluster;
use super::inputs::Inputs;
use super::read::Manifests;
use super::render;
use super::steps::Verdict::{Create, Refused};
use super::steps::{Report, Verdict, plan};
use ballast_provider::Prices;

const CLASSES: &str = "
apiVersion: ballast.dev/v1alpha1
kind: LoadBalancerClass
metadata: {name: public}
spec:
  maxLoadBalancers: 3
  aws: {region: eu-central-1, scheme: internet-facing}
---
apiVersion: ballast.dev/v1alpha1
kind: LoadBalancerClass
metadata: {name: local}
spec:
  default: true
  mock: {endpoint: 'http://127.0.0.1:1'}
---
apiVersion: ballast.dev/v1alpha1
kind: LoadBalancerClass
metadata: {name: edge}
spec: {l2: {}}
";

/// A manifest of a Service with one port.
fn service(name: &str, class: &str, more: &str) -> String {
    let class = match class {
        "" => String::new(),
        class => format!("loadBalancerClass: ballast.dev/{class}, "),
    };
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop{more}}}\nspec: {{type: LoadBalancer, {class}selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"
    )
}

fn manifests(files: &[&str]) -> Manifests {
    let mut all = Manifests::default();
    for file in files {
        all.add(file, "default").unwrap();
    }
    all
}

fn planned_on(cluster: Cluster, files: &[&str]) -> Report {
    let now = "2026-03-01T12:00:00Z".parse().unwrap();
    let inputs = Inputs::of(manifests(files), cluster, now);
    plan(&inputs, &Prices::AWS)
}

fn planned(files: &[&str]) -> Report {
    planned_on(Cluster::default(), files)
}

/// A cluster that has applied this.
fn cluster(files: &[&str]) -> Cluster {
    let all = manifests(files);
    let mut services = all.services;
    for (number, service) in services.iter_mut().enumerate() {
        let meta = &mut service.metadata;
        let name = meta.name.clone().unwrap_or_default();
        meta.uid = Some(format!("uid-{name}"));
        let time = jiff::Timestamp::from_second(1_000 + i64::try_from(number).unwrap()).unwrap();
        meta.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
        let spec = service.spec.as_mut().unwrap();
        meta.finalizers = spec.load_balancer_class.clone().map(|class| vec![class]);
        for (at, port) in (0..).zip(spec.ports.iter_mut().flatten()) {
            port.node_port = Some(31_000 + at);
            port.protocol = Some("TCP".to_owned());
        }
        // What the API server adds.
        spec.ip_families = Some(vec!["IPv4".to_owned()]);
        spec.ip_family_policy = Some("SingleStack".to_owned());
        spec.session_affinity = Some("None".to_owned());
        spec.external_traffic_policy = Some("Cluster".to_owned());
        spec.allocate_load_balancer_node_ports = Some(true);
    }
    Cluster {
        classes: all.classes,
        services,
        nodes: None,
    }
}

#[tokio::test]
async fn services_of_all_kinds_without_a_cluster() {
    let public = ", annotations: {service.beta.kubernetes.io/aws-load-balancer-scheme: internal}";
    let files = [
        service("web", "public", ""),
        service("private", "public", public),
        service(
            "typo",
            "public",
            ", annotations: {service.beta.kubernetes.io/aws-load-balancer-shceme: internal, ballast.dev/adress: x}",
        ),
        service("plain", "", ""),
        service("metal", "edge", ""),
        service("lost", "missing", ""),
        service("other", "", "").replace(
            "type: LoadBalancer,",
            "type: LoadBalancer, loadBalancerClass: example.com/other,",
        ),
        service("inner", "", "").replace("type: LoadBalancer", "type: ClusterIP"),
    ]
    .concat();
    let report = planned(&[CLASSES, &files]);
    insta::assert_snapshot!(render::text(&report));
    insta::assert_json_snapshot!(report);
    assert!(report.refuses());
}

#[tokio::test]
async fn a_class_without_room_refuses_the_youngest() {
    let files: Vec<String> = (1..=5)
        .map(|number| service(&format!("web-{number}"), "public", ""))
        .collect();
    let report = planned(&[CLASSES, &files.concat()]);
    let results: Vec<_> = report.services.iter().map(|one| one.result).collect();
    assert_eq!(results, [Create, Create, Create, Refused, Refused]);
    assert_eq!(report.services[3].reason, Some("QuotaExceeded"));
    assert!(report.services[3].why.contains("web-1, web-2, web-3"));
    // Three load balancers with three public addresses each; the refused ones cost nothing.
    assert_eq!(report.monthly_cost.to_string(), "82.125");
}

#[tokio::test]
async fn what_exists_is_unchanged_or_changes() {
    let files = [service("web", "public", ""), service("mock", "local", "")].concat();
    let there = || cluster(&[CLASSES, &files]);
    let report = planned_on(there(), &[&files]);
    let results: Vec<_> = report.services.iter().map(|one| one.result).collect();
    assert_eq!(results, [Verdict::Unchanged; 2]);
    assert_eq!(
        (report.calls, report.monthly_cost.to_string()),
        (0, "0".to_owned())
    );

    let more = files.replace(
        "{port: 80, targetPort: 8080}",
        "{name: a, port: 80}, {name: b, port: 443}",
    );
    let report = planned_on(there(), &[&more]);
    let [web, mock] = &report.services[..] else {
        panic!("{report:?}")
    };
    assert_eq!(
        (web.result, mock.result),
        (Verdict::Change, Verdict::Change)
    );
    assert_eq!(web.calls["CreateListener"], 1, "{web:?}");
    assert!(!web.calls.contains_key("CreateLoadBalancer"), "{web:?}");
    assert_eq!(mock.calls.values().sum::<usize>(), 1);
    assert_eq!(report.monthly_cost.to_string(), "0");
}

#[tokio::test]
async fn a_shared_load_balancer_is_billed_once() {
    let shared = ", annotations: {ballast.dev/share-key: front}";
    let second = service("api", "public", shared).replace("port: 80", "port: 443");
    let files = [service("web", "public", shared), second].concat();
    let report = planned(&[CLASSES, &files]);
    let [web, api] = &report.services[..] else {
        panic!("{report:?}")
    };
    assert_eq!(
        (web.result, api.result),
        (Verdict::Create, Verdict::Join),
        "{report:?}"
    );
    assert_eq!(api.shared_with, ["shop/web"]);
    assert_eq!(
        (web.monthly_cost, api.monthly_cost),
        (Some(27.375), Some(0.0))
    );
    // A port of the load balancer that another Service has.
    let clash = [
        service("web", "public", shared),
        service("api", "public", shared),
    ]
    .concat();
    let report = planned(&[CLASSES, &clash]);
    assert_eq!(report.services[1].reason, Some("PortInUse"), "{report:?}");
}

#[tokio::test]
async fn a_draining_class_refuses() {
    let mut there = cluster(&[CLASSES]);
    for class in &mut there.classes {
        let class = class.0.as_mut().unwrap();
        let status = serde_json::json!({"draining": {"since": "2026-03-01T11:00:00Z"}});
        class.status = Some(serde_json::from_value(status).unwrap());
    }
    let report = planned_on(there, &[&service("web", "public", "")]);
    assert_eq!(report.services[0].reason, Some("Draining"), "{report:?}");
}

#[tokio::test]
async fn one_broken_object_affects_no_other() {
    let broken = "---\napiVersion: v1\nkind: Service\nmetadata: {name: broken}\nspec: {ports: 7}\n";
    let list = "---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: listed}, spec: {type: LoadBalancer, ports: [{port: 80}]}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: x}}\n";
    let report = planned(&[CLASSES, broken, list]);
    assert_eq!(report.services.len(), 1, "{report:?}");
    assert_eq!(report.services[0].namespace, "default");
    assert!(
        report.broken[0].contains("Service default/broken is invalid"),
        "{report:?}"
    );
}

#[tokio::test]
async fn nothing_to_serve_is_said() {
    let report = planned(&[CLASSES]);
    assert!(render::text(&report).starts_with("No Service"));
    assert!(!report.refuses());
}
