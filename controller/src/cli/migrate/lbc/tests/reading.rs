use super::super::becomes::subject;
use super::super::manifest::name;
use super::*;
use crate::cli::text::Look;

const THREE: &str = r"
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  labels: {app: web}
  annotations:
    external-dns.alpha.kubernetes.io/hostname: www.example.com
    service.beta.kubernetes.io/aws-load-balancer-scheme: internet-facing
    service.beta.kubernetes.io/aws-load-balancer-ssl-cert: arn:aws:acm:eu-central-1:123456789012:certificate/shop
    service.beta.kubernetes.io/aws-load-balancer-ssl-ports: https
spec:
  type: LoadBalancer
  loadBalancerClass: service.k8s.aws/nlb
  clusterIP: 10.96.3.4
  clusterIPs: [10.96.3.4]
  selector: {app: web}
  externalTrafficPolicy: Local
  healthCheckNodePort: 31004
  ports:
    - {name: http, port: 80, targetPort: 8080, nodePort: 31080}
    - {name: https, port: 443, targetPort: 8443, nodePort: 31443}
---
apiVersion: v1
kind: Service
metadata:
  name: game
  namespace: shop
  annotations:
    service.beta.kubernetes.io/aws-load-balancer-type: external
    service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip
    service.beta.kubernetes.io/aws-load-balancer-name: game
    service.beta.kubernetes.io/aws-load-balancer-target-group-attributes: stickiness.enabled=true
spec:
  type: LoadBalancer
  selector: {app: game}
  ports:
    - {name: tcp, port: 7777, protocol: TCP}
    - {name: udp, port: 7777, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata:
  name: mail
  namespace: office
  annotations:
    service.beta.kubernetes.io/aws-load-balancer-type: nlb
spec:
  type: LoadBalancer
  selector: {app: mail}
  loadBalancerSourceRanges: [192.0.2.0/24]
  ports:
    - {name: smtp, port: 25}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: office}
spec: {type: LoadBalancer, loadBalancerClass: ballast.dev/nlb, selector: {app: mail}, ports: [{port: 25}]}
";

/// docs/aws-migrate.md shows this, as a terminal of 120 columns does.
#[test]
fn three_services() {
    let args = LbcArgs {
        files: vec!["services.yaml".into()],
        ..args()
    };
    let all = answer(&args, &read(THREE)).unwrap();
    let called = Called {
        program: "ballast",
        ..called(&args)
    };
    insta::assert_snapshot!(render::text(&all, &called, Look::default()));
    insta::assert_snapshot!("second_services", render::manifests(&all).unwrap());
    let page = include_str!("../../../../../../docs/aws-migrate.md");
    let terminal = Look {
        width: Some(120),
        whole: true,
        ..Look::default()
    };
    let shown = render::text(&all, &called, terminal);
    assert!(page.contains(THREE.trim()), "the page shows other Services");
    assert!(page.contains(&shown), "the page does not show\n{shown}");
}

#[test]
fn programs_get_all_of_it() {
    let args = LbcArgs {
        name: Some("mail".into()),
        ..args()
    };
    let read = read(THREE);
    let services = answer(&args, &read).unwrap();
    let report = Report {
        class: &args.class,
        class_found: read.class.is_some(),
        services: &services,
    };
    insta::assert_snapshot!(Output::Json.machine(&report).unwrap().unwrap());
}

#[test]
fn only_what_the_user_asks_for() {
    let names = |args: &LbcArgs| -> Vec<String> {
        let all = answer(args, &read(THREE)).unwrap();
        all.into_iter().map(|one| one.name).collect()
    };
    assert_eq!(names(&args()), ["mail", "game", "web"]);
    let of = |name: Option<&str>, namespace: Option<&str>| {
        names(&LbcArgs {
            name: name.map(str::to_owned),
            namespace: namespace.map(str::to_owned),
            ..args()
        })
    };
    assert_eq!(of(None, Some("office")), ["mail"]);
    assert_eq!(of(Some("web"), None), ["web"]);
    assert!(of(Some("web"), Some("office")).is_empty());
    assert!(of(Some("other"), None).is_empty());
}

#[test]
fn classes_in_manifests_are_used_and_must_be_for_aws() {
    let class = |spec: &str| {
        format!(
            "{THREE}---\n{{apiVersion: ballast.dev/v1alpha1, kind: LoadBalancerClass, metadata: {{name: nlb}}, spec: {spec}}}"
        )
    };
    let read_class = |spec: &str| answer(&args(), &read(&class(spec)));
    let all = read_class("{aws: {region: eu-central-1, scheme: internet-facing}}").unwrap();
    assert!(
        all.iter()
            .all(|one| one.becomes.as_ref().unwrap().scheme == "internet-facing")
    );
    let said = read_class("{l2: {}}").unwrap_err().to_string();
    assert!(said.contains("is not for AWS"), "{said}");
    let said = read_class("{aws: {region: r, allowedAnnotations: [schem]}}");
    let said = said.unwrap_err().to_string();
    assert!(
        said.contains("LoadBalancerClass nlb") && said.contains("schem"),
        "{said}"
    );
}

#[test]
fn lists_and_json_are_read_and_what_is_broken_is_named() {
    let list = json!({"apiVersion": "v1", "kind": "ServiceList", "items": [
        {"metadata": {"name": "a"}, "spec": {"type": "LoadBalancer", "loadBalancerClass": LBC, "ports": [{"port": 1}]}},
        {"metadata": {"name": "b", "namespace": "c"}, "spec": {"ports": "none"}},
    ]});
    let seen = read(&list.to_string());
    assert_eq!(answer(&args(), &seen).unwrap().len(), 1);
    let [broken] = &seen.broken[..] else {
        panic!("{seen:?}")
    };
    assert!(broken.starts_with("Service c/b is invalid"), "{broken}");
}

#[test]
fn names_of_second_services_are_names() {
    assert_eq!(name("web"), "web-ballast");
    let long = name(&format!("{}-{}", "a".repeat(54), "b".repeat(8)));
    assert_eq!(long, format!("{}-ballast", "a".repeat(54)));
}

#[test]
fn a_message_names_its_subject() {
    for (message, expected) in [
        ("annotation a/b: no", "a/b"),
        ("annotation a/b needs c", "a/b"),
        ("spec.ports: no", "spec.ports"),
        ("no node port for 80/TCP", ""),
        ("annotations a/…: no", ""),
        ("", ""),
    ] {
        assert_eq!(subject(message), expected, "{message}");
    }
}
