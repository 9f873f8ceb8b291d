//! What annotations and the class set at the provider.

use super::*;

fn settings_of(annotations: &Annotations, dialect: Dialect) -> Result<Settings, Refusal> {
    let wanted = load_balancer(&id(), &spec(), annotations, dialect);
    wanted.map(|wanted| wanted.settings)
}

#[test]
fn settings_reach_the_provider_and_nothing_else_does() {
    let all: Annotations = [
        ("cloud.example.com/lb-scheme", "internal"),
        ("cloud.example.com/other", "x"),
        ("cloud.example.org/lb-scheme", "x"),
        ("ballast.dev/cloud-type", "fast"),
        (ADDRESSES, "192.0.2.1"),
        (SHARE_KEY, "front"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let kept: Settings = [
        ("ballast.dev/cloud-type", "fast"),
        ("cloud.example.com/lb-scheme", "internal"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    assert_eq!(settings_of(&all, CLOUD), Ok(kept.clone()));
    assert_eq!(unknown_annotations(&all, CLOUD), [""; 0]);

    let without = Dialect::default();
    assert_eq!(settings_of(&all, without), Ok(Settings::new()));
    assert_eq!(
        unknown_annotations(&all, without),
        ["ballast.dev/cloud-type"]
    );

    // What was accepted before keeps them when the addresses cannot be had.
    let mut spec = spec();
    spec.load_balancer_ip = Some("nonsense".into());
    let mut annotations = all;
    annotations.remove(ADDRESSES);
    let port = PortStatus {
        port: 80,
        protocol: Protocol::Tcp,
        error: None,
    };
    let published = [Ingress {
        address: ballast_provider::Address::Hostname("a.example".into()),
        ports: vec![port],
    }];
    let before = accepted_before(&id(), &spec, &annotations, &published, CLOUD);
    assert_eq!(before.map(|before| before.settings), Some(kept));
}

#[test]
fn settings_are_bounded_in_number_and_size() {
    let many = |count: usize, value: &str| -> Annotations {
        let key = |n| (format!("cloud.example.com/lb-{n:03}"), value.to_owned());
        (0..count).map(key).collect()
    };
    let kept = settings_of(&many(SETTINGS_LIMIT, "x"), CLOUD).unwrap();
    assert_eq!(kept.len(), SETTINGS_LIMIT);
    for (what, annotations) in [
        ("too many", many(SETTINGS_LIMIT + 1, "x")),
        ("too large", many(2, &"x".repeat(SETTINGS_SIZE / 2))),
    ] {
        let refusal = settings_of(&annotations, CLOUD).unwrap_err();
        assert_eq!(refusal.reason, Reason::Invalid, "{what}");
        assert!(refusal.message.contains("cloud.example.com/lb-"), "{what}");
        assert!(refusal.message.len() < 200, "{what}");
        assert_eq!(
            settings_of(&annotations, Dialect::default()),
            Ok(Settings::new())
        );
    }
}
