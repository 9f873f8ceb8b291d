//! The settings of an `aws` class, in the terms of its provider. Pure.

use std::collections::BTreeMap;

use ballast_aws::settings::{Allowed, ClassSettings, Field, Publish};
use ballast_aws::target::TargetType;
use ballast_aws::{Scheme, Settings};
use ballast_crds::{
    AwsHealthCheck, AwsIpAddressType, AwsPublish, AwsScheme, AwsSettings, AwsSharing, AwsTargetType,
};
use ballast_provider::Refusal;

/// The settings of a class, or which field is wrong.
pub(super) fn class_settings(aws: &AwsSettings) -> Result<ClassSettings, Refusal> {
    let mut fields = Vec::new();
    let mut set = |name, path, value: Option<String>| {
        if let Some(value) = value {
            fields.push(Field { name, path, value });
        }
    };
    let scheme = aws.scheme.map(|scheme| match scheme {
        AwsScheme::Internal => Scheme::Internal,
        AwsScheme::InternetFacing => Scheme::InternetFacing,
    });
    set(
        "scheme",
        "spec.aws.scheme",
        scheme.map(|it| it.as_str().to_owned()),
    );
    set("subnets", "spec.aws.subnets", list(&aws.subnets));
    set(
        "security-groups",
        "spec.aws.securityGroups",
        list(&aws.security_groups),
    );
    set(
        "manage-backend-security-group-rules",
        "spec.aws.manageBackendSecurityGroupRules",
        aws.manage_backend_security_group_rules
            .map(|it| it.to_string()),
    );
    set(
        "security-group-prefix-lists",
        "spec.aws.securityGroupPrefixLists",
        list(&aws.security_group_prefix_lists),
    );
    set(
        "attributes",
        "spec.aws.loadBalancerAttributes",
        map(&aws.load_balancer_attributes),
    );
    set(
        "target-group-attributes",
        "spec.aws.targetGroupAttributes",
        map(&aws.target_group_attributes),
    );
    set("additional-resource-tags", "spec.aws.tags", map(&aws.tags));
    set(
        "proxy-protocol",
        "spec.aws.proxyProtocol",
        aws.proxy_protocol.then(|| "*".to_owned()),
    );
    let target_type = aws.target_type.map(|it| match it {
        AwsTargetType::Instance => TargetType::Instance,
        AwsTargetType::Ip => TargetType::Ip,
    });
    set(
        "nlb-target-type",
        "spec.aws.targetType",
        target_type.map(|it| it.as_str().to_owned()),
    );
    let families = aws.ip_address_type.map(|it| match it {
        AwsIpAddressType::Ipv4 => "ipv4".to_owned(),
        AwsIpAddressType::Dualstack => "dualstack".to_owned(),
    });
    set("ip-address-type", "spec.aws.ipAddressType", families);
    set(
        "target-node-labels",
        "spec.aws.targetNodeLabels",
        map(&aws.target_node_labels),
    );
    health_check(aws.health_check.as_ref(), &mut set);
    let most_rules = aws.max_security_group_rules;
    Ok(ClassSettings {
        region: aws.region.clone(),
        vpc: aws.vpc.clone(),
        publish: match aws.publish {
            AwsPublish::WhenCreated => Publish::WhenCreated,
            AwsPublish::WhenActive => Publish::WhenActive,
        },
        share_everywhere: aws.sharing == AwsSharing::AllNamespaces,
        allowed: match &aws.allowed_annotations {
            Some(names) => Some(Allowed::of(names.iter().map(String::as_str))?),
            None => None,
        },
        settings: Settings {
            most_rules: most_rules.and_then(|most| usize::try_from(most).ok()),
            ..Settings::of_class(&fields)?
        },
    })
}

fn health_check(
    check: Option<&AwsHealthCheck>,
    set: &mut impl FnMut(&'static str, &'static str, Option<String>),
) {
    let Some(check) = check else {
        return;
    };
    let number = |number: Option<i32>| number.map(|number| number.to_string());
    for (name, path, value) in [
        (
            "healthcheck-protocol",
            "spec.aws.healthCheck.protocol",
            check.protocol.clone(),
        ),
        (
            "healthcheck-port",
            "spec.aws.healthCheck.port",
            check.port.clone(),
        ),
        (
            "healthcheck-path",
            "spec.aws.healthCheck.path",
            check.path.clone(),
        ),
        (
            "healthcheck-success-codes",
            "spec.aws.healthCheck.successCodes",
            check.success_codes.clone(),
        ),
        (
            "healthcheck-interval",
            "spec.aws.healthCheck.intervalSeconds",
            number(check.interval_seconds),
        ),
        (
            "healthcheck-timeout",
            "spec.aws.healthCheck.timeoutSeconds",
            number(check.timeout_seconds),
        ),
        (
            "healthcheck-healthy-threshold",
            "spec.aws.healthCheck.healthyThreshold",
            number(check.healthy_threshold),
        ),
        (
            "healthcheck-unhealthy-threshold",
            "spec.aws.healthCheck.unhealthyThreshold",
            number(check.unhealthy_threshold),
        ),
    ] {
        set(name, path, value);
    }
}

fn list(all: &[String]) -> Option<String> {
    (!all.is_empty()).then(|| all.join(","))
}

/// As in an annotation: a comma in a value has a backslash before it.
fn map(all: &BTreeMap<String, String>) -> Option<String> {
    let entry = |(key, value): (&String, &String)| format!("{key}={}", value.replace(',', "\\,"));
    let entries: Vec<String> = all.iter().map(entry).collect();
    (!entries.is_empty()).then(|| entries.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(aws: Value) -> Result<ClassSettings, String> {
        let aws: AwsSettings = serde_json::from_value(aws).unwrap();
        class_settings(&aws).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn each_field_arrives() {
        let all = of(json!({
            "region": "eu-central-1",
            "vpc": "vpc-1",
            "scheme": "internet-facing",
            "subnets": ["subnet-a", "private b"],
            "securityGroups": ["sg-1"],
            "manageBackendSecurityGroupRules": true,
            "securityGroupPrefixLists": ["pl-1"],
            "healthCheck": {
                "protocol": "http", "port": "traffic-port", "path": "/ready", "successCodes": "200-299",
                "intervalSeconds": 20, "timeoutSeconds": 5, "healthyThreshold": 3, "unhealthyThreshold": 4
            },
            "loadBalancerAttributes": {"load_balancing.cross_zone.enabled": "true"},
            "targetGroupAttributes": {"deregistration_delay.timeout_seconds": "60"},
            "proxyProtocol": true,
            "tags": {"team": "a,b"},
            "targetType": "ip",
            "ipAddressType": "dualstack",
            "targetNodeLabels": {"pool": "edge"},
            "maxSecurityGroupRules": 120,
            "allowedAnnotations": ["subnets", "scheme"],
            "publish": "WhenActive"
        }));
        insta::assert_debug_snapshot!(all);
    }

    #[test]
    fn what_is_absent_is_not_set() {
        let all = of(json!({"region": "eu-central-1"})).unwrap();
        assert_eq!(all.settings, Settings::default());
        assert_eq!(all.publish, Publish::WhenCreated);
        assert_eq!(all.allowed, None);
    }

    #[test]
    fn a_wrong_value_is_refused_by_field_and_value() {
        for (aws, words) in [
            (
                json!({"healthCheck": {"protocol": "grpc"}}),
                "spec.aws.healthCheck.protocol must be tcp, http or https, not \"grpc\"",
            ),
            (
                json!({"tags": {"ballast.dev/cluster": "mine"}}),
                "spec.aws.tags: tags that begin with ballast.dev/ are Ballast's own",
            ),
            (
                json!({"loadBalancerAttributes": {"idle_timeout.timeout_seconds": "3"}}),
                "spec.aws.loadBalancerAttributes: Ballast does not support the attribute idle_timeout.timeout_seconds",
            ),
            (
                json!({"allowedAnnotations": ["schem"]}),
                "spec.aws.allowedAnnotations: \"schem\"",
            ),
            (
                json!({"securityGroupPrefixLists": ["sg-1"]}),
                "spec.aws.securityGroupPrefixLists",
            ),
        ] {
            let mut whole = aws.clone();
            whole["region"] = json!("eu-central-1");
            let said = of(whole).unwrap_err();
            assert!(said.contains(words), "{said}");
            assert!(!said.starts_with("annotation"), "{said}");
        }
    }
}
