use ballast_aws::annotations::ANNOTATIONS;
use ballast_aws::settings::{Allowed, Scheme, Settings};

use super::*;

#[test]
fn the_class_changes_what_a_service_becomes() {
    let class = ClassSettings {
        allowed: Some(Allowed::of(["scheme"]).unwrap()),
        settings: Settings {
            scheme: Some(Scheme::InternetFacing),
            subnets: vec!["subnet-1".into()],
            tags: [("team".to_owned(), "web".to_owned())].into(),
            ..Settings::default()
        },
        ..ClassSettings::default()
    };
    let aim = aim(&class);
    let seen = becomes(
        &service(Some(LBC), &[("subnets", "subnet-2")], &json!({})),
        &aim,
    )
    .unwrap();
    let said = |setting: &str| {
        let found = seen.settings.iter().find(|one| one.setting == setting);
        found.map(|one| (one.result, one.why.as_str()))
    };
    let (result, why) = said(&key("subnets")).unwrap();
    assert_eq!(result, Verdict::NoEqual);
    assert!(why.contains("spec.aws.allowedAnnotations"), "{why}");
    let (result, why) = said(&key("scheme")).unwrap();
    assert_eq!(result, Verdict::Differs);
    assert!(why.contains("it is internal by default of the AWS Load Balancer Controller, and becomes internet-facing"), "{why}");
    for path in ["spec.aws.subnets", "spec.aws.tags"] {
        assert_eq!(said(path).map(|it| it.0), Some(Verdict::Differs), "{path}");
    }
    let balancer = seen.becomes.as_ref().unwrap();
    assert_eq!(
        (balancer.scheme, &balancer.subnets[..]),
        ("internet-facing", &["subnet-1".to_owned()][..])
    );
    // What the class says for the in-tree provider's default is no change.
    let old = service(None, &[("type", "nlb")], &json!({}));
    let seen = becomes(&old, &aim).unwrap();
    assert!(!seen.settings.iter().any(|one| one.setting == key("scheme")));
}

/// What the provider refuses is refused here, in the same words; whatever it takes is not.
#[test]
fn every_annotation_is_judged_as_the_provider_judges_it() {
    for known in &ANNOTATIONS {
        for value in ["true", "1", "internal", "x"] {
            if known.name == "type" {
                continue;
            }
            let one = service(Some(LBC), &[(known.name, value)], &json!({}));
            let seen = of(&one);
            let settings = [(key(known.name), value.to_owned())].into();
            let found = seen
                .settings
                .iter()
                .find(|it| it.setting == key(known.name));
            match Settings::of(&settings, None) {
                Err(refusal) => {
                    let found = found.unwrap();
                    assert_eq!(found.result, Verdict::NoEqual);
                    assert_eq!(found.why, refusal.message);
                }
                Ok(_) => assert!(found.is_some(), "{} says nothing", known.name),
            }
        }
    }
}

#[test]
fn a_manifest_without_node_ports_is_as_good_as_a_service() {
    let ports =
        json!([{"port": 53, "nodePort": 30_053}, {"port": 53, "protocol": "UDP"}, {"port": 80}]);
    let spec = json!({"ports": ports, "externalTrafficPolicy": "Local"});
    let seen = of(&service(Some(LBC), &[], &spec));
    let balancer = seen.becomes.unwrap();
    let listeners: Vec<_> = balancer
        .listeners
        .iter()
        .map(|it| (it.port, it.protocol))
        .collect();
    assert_eq!(listeners, [(53, "TCP_UDP"), (80, "TCP")]);
}
