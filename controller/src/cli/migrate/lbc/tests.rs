use serde_json::json;

use super::becomes::{Origin, key, origin};
use super::*;

mod checks;
mod class;
mod reading;

const LBC: &str = "service.k8s.aws/nlb";
const CERTIFICATE: &str = "arn:aws:acm:eu-central-1:1:certificate/web";

/// Annotations of the family, without its prefix, and their values.
type Pairs<'a> = &'a [(&'a str, &'a str)];
/// What is said of a setting, and words of the reason.
type Said<'a> = &'a [(&'a str, Verdict, &'a str)];

/// A Service with these annotations of the family.
fn service(class: Option<&str>, annotations: &[(&str, &str)], spec: &Value) -> Service {
    let mut whole = json!({
        "type": "LoadBalancer",
        "loadBalancerClass": class,
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80}],
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        whole[field] = value.clone();
    }
    let pairs = annotations.iter();
    let annotations: serde_json::Map<String, Value> = pairs
        .map(|(name, value)| (key(name), json!(value)))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
        "spec": whole,
    }))
    .unwrap()
}

fn aim(settings: &ClassSettings) -> Aim<'_> {
    Aim {
        class: "nlb",
        settings,
        lb_class: LBC,
        dialect: dialect(),
    }
}

fn of(service: &Service) -> Becomes {
    becomes(service, &aim(&ClassSettings::default())).unwrap()
}

fn args() -> LbcArgs {
    LbcArgs {
        adopt: None,
        cluster_name: UNNAMED.into(),
        name: None,
        namespace: None,
        files: Vec::new(),
        class: "nlb".into(),
        lb_class: LBC.into(),
        manifests: false,
        output: Output::Text,
        cluster: ClusterArgs::default(),
    }
}

fn read(yaml: &str) -> Read {
    let mut read = Read::default();
    read.manifests(yaml, "nlb").unwrap();
    read
}

#[test]
fn whose_service_it_is() {
    use Origin::{InTree, LoadBalancerController};
    let deleted = json!({"deletionTimestamp": "2026-11-27T10:00:00Z"});
    let table: [(Option<&str>, Pairs<'_>, Value, Option<Origin>); 13] = [
        (Some(LBC), &[], json!({}), Some(LoadBalancerController)),
        (
            Some("ballast.dev/nlb"),
            &[("type", "external")],
            json!({}),
            None,
        ),
        (Some("eks.amazonaws.com/nlb"), &[], json!({}), None),
        (None, &[], json!({}), None),
        (
            None,
            &[("type", "nlb-ip")],
            json!({}),
            Some(LoadBalancerController),
        ),
        (
            None,
            &[("type", "external"), ("nlb-target-type", "instance")],
            json!({}),
            Some(LoadBalancerController),
        ),
        (
            None,
            &[("type", "external"), ("nlb-target-type", "ip")],
            json!({"type": "ClusterIP"}),
            Some(LoadBalancerController),
        ),
        // It takes no Service without the other annotation.
        (None, &[("type", "external")], json!({}), None),
        (None, &[("type", "nlb")], json!({}), Some(InTree)),
        (None, &[("type", "nlb")], json!({"type": "NodePort"}), None),
        (Some("example.com/lb"), &[("type", "nlb")], json!({}), None),
        (
            None,
            &[("type", "nlb-ip")],
            json!({"type": "ExternalName"}),
            None,
        ),
        (
            Some(LBC),
            &[("type", "nlb")],
            json!({}),
            Some(LoadBalancerController),
        ),
    ];
    for (class, annotations, spec, expected) in table {
        let mut service = service(class, annotations, &spec);
        assert_eq!(
            origin(&service, LBC),
            expected,
            "{class:?} {annotations:?} {spec}"
        );
        service.metadata.deletion_timestamp =
            serde_json::from_value(deleted["deletionTimestamp"].clone()).unwrap();
        assert_eq!(origin(&service, LBC), None);
    }
    assert_eq!(
        origin(&service(Some("own/nlb"), &[], &json!({})), "own/nlb"),
        Some(LoadBalancerController)
    );
}

/// Each row: whose, annotations, spec, and what is said: setting, result, and words of the reason. What is not
/// listed must not be said, but for the health check, which has a test of its own.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_becomes_of_each_setting() {
    use Verdict::{Differs, NoEqual, Same};
    let tcp_and_udp =
        json!({"ports": [{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]});
    let sticky = json!({"sessionAffinity": "ClientIP"});
    let table: [(Origin, Pairs<'_>, Value, Said<'_>); 27] = [
        (Origin::LoadBalancerController, &[], json!({}), &[]),
        (
            Origin::LoadBalancerController,
            &[
                ("scheme", "internet-facing"),
                ("nlb-target-type", "instance"),
            ],
            json!({}),
            &[("scheme", Same, ""), ("nlb-target-type", Same, "")],
        ),
        (
            Origin::LoadBalancerController,
            &[("nlb-target-type", "ip")],
            json!({}),
            &[("nlb-target-type", Same, "")],
        ),
        (
            Origin::LoadBalancerController,
            &[("name", "web"), ("shceme", "internal")],
            json!({}),
            &[
                ("name", NoEqual, "Ballast names load balancers itself"),
                ("shceme", NoEqual, "Did you mean"),
            ],
        ),
        (
            Origin::LoadBalancerController,
            &[("eip-allocations", "eipalloc-1")],
            json!({}),
            &[("eip-allocations", NoEqual, "needs")],
        ),
        (
            Origin::LoadBalancerController,
            &[
                ("eip-allocations", "eipalloc-1"),
                ("scheme", "internet-facing"),
            ],
            json!({}),
            &[
                ("eip-allocations", Differs, "one load balancer at a time"),
                ("scheme", Same, ""),
            ],
        ),
        (
            Origin::LoadBalancerController,
            &[("private-ipv4-addresses", "10.0.0.4")],
            json!({}),
            &[(
                "private-ipv4-addresses",
                Differs,
                "one load balancer at a time",
            )],
        ),
        (
            Origin::LoadBalancerController,
            &[("ssl-cert", CERTIFICATE)],
            json!({}),
            &[
                (
                    "ssl-negotiation-policy",
                    Differs,
                    "ELBSecurityPolicy-2016-08",
                ),
                ("ssl-cert", Same, ""),
            ],
        ),
        (
            Origin::LoadBalancerController,
            &[
                ("ssl-cert", CERTIFICATE),
                ("ssl-negotiation-policy", "ELBSecurityPolicy-2016-08"),
                ("ssl-ports", "*"),
            ],
            json!({}),
            &[
                ("ssl-ports", Differs, "matches no port"),
                ("ssl-cert", Same, ""),
                ("ssl-negotiation-policy", Same, ""),
            ],
        ),
        (
            Origin::LoadBalancerController,
            &[("ssl-cert", CERTIFICATE), ("ssl-ports", "443")],
            json!({}),
            &[
                ("ssl-ports", NoEqual, "the Service has no port 443"),
                ("ssl-cert", Same, ""),
            ],
        ),
        (
            Origin::LoadBalancerController,
            &[],
            tcp_and_udp.clone(),
            &[("spec.ports", Differs, "port 53")],
        ),
        (
            Origin::LoadBalancerController,
            &[("enable-tcp-udp-listener", "true")],
            tcp_and_udp.clone(),
            &[("enable-tcp-udp-listener", Same, "")],
        ),
        (
            Origin::LoadBalancerController,
            &[
                (
                    "target-group-attributes",
                    "preserve_client_ip.enabled=false",
                ),
                ("enable-tcp-udp-listener", "true"),
            ],
            tcp_and_udp,
            &[
                (
                    "",
                    Differs,
                    "preserve_client_ip.enabled=false has no effect on port 53",
                ),
                ("enable-tcp-udp-listener", Same, ""),
                ("target-group-attributes", Same, ""),
            ],
        ),
        (
            Origin::LoadBalancerController,
            &[],
            sticky.clone(),
            &[("spec.sessionAffinity", Differs, "stickiness")],
        ),
        (
            Origin::LoadBalancerController,
            &[("target-group-attributes", "stickiness.enabled=true")],
            sticky.clone(),
            &[("target-group-attributes", Same, "")],
        ),
        (
            Origin::LoadBalancerController,
            &[
                ("connection-draining-enabled", "true"),
                ("connection-draining-timeout", "60"),
            ],
            json!({}),
            &[
                ("connection-draining-enabled", Differs, "ignores it"),
                ("connection-draining-timeout", Differs, "ignores it"),
            ],
        ),
        (
            Origin::LoadBalancerController,
            &[],
            json!({"type": "NodePort", "loadBalancerClass": null}),
            &[("spec.type", NoEqual, "NodePort")],
        ),
        (
            Origin::LoadBalancerController,
            &[],
            json!({"allocateLoadBalancerNodePorts": false}),
            &[("", NoEqual, "no node port for 80/TCP")],
        ),
        (
            Origin::LoadBalancerController,
            &[],
            json!({"ports": [{"port": 80, "protocol": "SCTP"}]}),
            &[("spec.ports[0]", NoEqual, "only TCP and UDP")],
        ),
        (
            Origin::LoadBalancerController,
            &[],
            json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}),
            &[("spec.ipFamilies", Differs, "IPv6 addresses, too")],
        ),
        (
            Origin::LoadBalancerController,
            &[],
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            &[],
        ),
        (
            Origin::LoadBalancerController,
            &[],
            json!({"selector": null}),
            &[("spec.selector", Differs, "EndpointSlices")],
        ),
        (
            Origin::InTree,
            &[],
            json!({}),
            &[
                (
                    "scheme",
                    Differs,
                    "internet-facing by default of the in-tree provider, and becomes internal",
                ),
                ("security groups", Differs, "one rule for all"),
                ("subnets", Differs, "tag of the cluster"),
            ],
        ),
        (
            Origin::InTree,
            &[("internal", "true"), ("subnets", "subnet-1")],
            sticky,
            &[
                ("security groups", Differs, ""),
                ("internal", Same, ""),
                ("subnets", Same, ""),
            ],
        ),
        (
            Origin::InTree,
            &[
                ("internal", "false"),
                ("subnets", "subnet-1"),
                ("security-groups", "sg-1"),
            ],
            json!({}),
            &[
                ("internal", Same, ""),
                ("security-groups", Same, ""),
                ("subnets", Same, ""),
            ],
        ),
        (
            Origin::InTree,
            &[
                ("scheme", "internal"),
                ("subnets", "subnet-1"),
                ("security-groups", "sg-1"),
            ],
            json!({}),
            &[
                ("scheme", Differs, "becomes internal"),
                ("security-groups", Same, ""),
                ("subnets", Same, ""),
            ],
        ),
        (
            Origin::InTree,
            &[
                ("internal", "0.0.0.0/0"),
                ("subnets", "subnet-1"),
                ("alpn-policy", "None"),
                ("security-groups", "sg-1"),
            ],
            json!({}),
            &[
                ("internal", NoEqual, "must be true or false"),
                ("alpn-policy", Differs, "the in-tree provider ignores it"),
                ("security-groups", Same, ""),
                ("subnets", Same, ""),
            ],
        ),
    ];
    for (from, annotations, spec, expected) in table {
        let class_less = spec.get("loadBalancerClass").is_some();
        let mut all = annotations.to_vec();
        let class = match from {
            Origin::LoadBalancerController if class_less => {
                all.extend([("type", "external"), ("nlb-target-type", "instance")]);
                None
            }
            Origin::LoadBalancerController => Some(LBC),
            Origin::InTree => {
                all.push(("type", "nlb"));
                None
            }
        };
        let about = format!("{from:?} {annotations:?} {spec}");
        let seen = of(&service(class, &all, &spec));
        assert_eq!(seen.from, from, "{about}");
        let chosen = ["health check".to_owned(), key("nlb-target-type")];
        let said: Vec<&becomes::Setting> = seen
            .settings
            .iter()
            .filter(|it| it.setting != chosen[0] && !(class_less && it.setting == chosen[1]))
            .collect();
        assert_eq!(said.len(), expected.len(), "{about}: {said:#?}");
        for (setting, result, words) in expected {
            let whole = match *setting {
                "" | "security groups" => (*setting).to_owned(),
                "subnets" if *result == Differs => "subnets".to_owned(),
                spec if spec.starts_with("spec.") => spec.to_owned(),
                name => key(name),
            };
            let found = said.iter().any(|one| {
                one.setting == whole && one.result == *result && one.why.contains(words)
            });
            assert!(
                found,
                "{about}: {whole} {result:?} {words} is not in {said:#?}"
            );
        }
        let worst = seen.settings.iter().map(|one| one.result).max();
        assert_eq!(seen.result, worst.unwrap_or(Same), "{about}");
        assert_eq!(seen.second.is_some(), seen.result < NoEqual, "{about}");
    }
}
