use super::super::listeners::Change;
use super::*;

#[test]
fn protocols_must_go_together() {
    // Which target groups a listener can use.
    let table = [
        ("TCP", vec!["TCP", "TCP_UDP"]),
        ("UDP", vec!["UDP", "TCP_UDP"]),
        ("TCP_UDP", vec!["TCP_UDP"]),
        ("TLS", vec!["TCP", "TLS"]),
    ];
    for (protocol, fitting) in table {
        for of_group in ["TCP", "UDP", "TCP_UDP", "TLS"] {
            let mut cloud = cloud();
            cloud.certificates.push("arn:cert".into());
            let balancer = make_balancer(&mut cloud, "web");
            let mut create = target_group("web");
            create.protocol = Some(of_group.into());
            let group = cloud.create_target_group(START, create).unwrap().arn;
            let change = Change {
                protocol: Some(protocol.into()),
                certificate: (protocol == "TLS").then(|| "arn:cert".into()),
                ..listener(80, &group)
            };
            let result = cloud.create_listener(START, &balancer, change, Tags::new());
            let expected = if fitting.contains(&of_group) {
                ""
            } else {
                "IncompatibleProtocols"
            };
            assert_eq!(code(result), expected, "{protocol} {of_group}");
        }
    }
}

#[test]
fn creation() {
    type Row = (&'static str, fn(&mut Change), &'static str);
    let table: [Row; 10] = [
        ("good", |_| {}, ""),
        ("no port", |it| it.port = None, "ValidationError"),
        ("no protocol", |it| it.protocol = None, "ValidationError"),
        (
            "HTTP",
            |it| it.protocol = Some("HTTP".into()),
            "UnsupportedProtocol",
        ),
        ("no action", |it| it.forward = None, "ValidationError"),
        (
            "unknown group",
            |it| it.forward.as_mut().unwrap()[0].0.push('0'),
            "TargetGroupNotFound",
        ),
        (
            "no certificate",
            |it| it.protocol = Some("TLS".into()),
            "ValidationError",
        ),
        (
            "unknown certificate",
            |it| {
                it.protocol = Some("TLS".into());
                it.certificate = Some("arn:x".into());
            },
            "CertificateNotFound",
        ),
        (
            "certificate with TCP",
            |it| it.certificate = Some("arn:x".into()),
            "ValidationError",
        ),
        (
            "weight",
            |it| it.forward.as_mut().unwrap()[0].1 = Some(1000),
            "ValidationError",
        ),
    ];
    for (what, change, expected) in table {
        let mut cloud = cloud();
        let balancer = make_balancer(&mut cloud, "web");
        let group = make_target_group(&mut cloud, "web");
        let mut wanted = listener(80, &group);
        change(&mut wanted);
        let result = cloud.create_listener(START, &balancer, wanted, Tags::new());
        assert_eq!(code(result), expected, "{what}");
    }
}

#[test]
fn a_port_has_one_listener() {
    let mut cloud = cloud();
    let balancer = make_balancer(&mut cloud, "web");
    let group = make_target_group(&mut cloud, "web");
    let mut create = target_group("both");
    create.protocol = Some("TCP_UDP".into());
    let both = cloud.create_target_group(START, create).unwrap().arn;
    let first = make_listener(&mut cloud, &balancer, 80, &group);
    assert_eq!(make_listener(&mut cloud, &balancer, 80, &group), first);
    let mut create =
        |change: Change| code(cloud.create_listener(START, &balancer, change, Tags::new()));
    assert_eq!(create(listener(80, &both)), "DuplicateListener");
    let udp = Change {
        protocol: Some("UDP".into()),
        ..listener(80, &both)
    };
    assert_eq!(create(udp), "DuplicateListener");
    assert_eq!(create(listener(81, &both)), "");
}

#[test]
fn a_target_group_has_one_load_balancer() {
    let mut cloud = cloud();
    let (one, two) = (
        make_balancer(&mut cloud, "one"),
        make_balancer(&mut cloud, "two"),
    );
    let (a, b) = (
        make_target_group(&mut cloud, "a"),
        make_target_group(&mut cloud, "b"),
    );
    let first = make_listener(&mut cloud, &one, 80, &a);
    make_listener(&mut cloud, &one, 81, &a);
    let second = make_listener(&mut cloud, &two, 80, &b);
    let result = cloud.create_listener(START, &two, listener(81, &a), Tags::new());
    assert_eq!(code(result), "TargetGroupAssociationLimit");
    let change = Change {
        forward: Some(vec![(a.clone(), None)]),
        ..Change::default()
    };
    let result = cloud.modify_listener(START, &second, change);
    assert_eq!(code(result), "TargetGroupAssociationLimit");
    cloud.delete_listener(START, &first).unwrap();
    assert_eq!(
        code(cloud.delete_listener(START, &first)),
        "ListenerNotFound"
    );
}

#[test]
fn what_a_change_does_not_say_stays() {
    let mut cloud = cloud();
    cloud.certificates.push("arn:cert".into());
    let balancer = make_balancer(&mut cloud, "web");
    let (a, b) = (
        make_target_group(&mut cloud, "a"),
        make_target_group(&mut cloud, "b"),
    );
    let arn = make_listener(&mut cloud, &balancer, 80, &a);
    make_listener(&mut cloud, &balancer, 81, &a);
    let change = Change {
        forward: Some(vec![(b.clone(), None)]),
        ..Change::default()
    };
    let changed = cloud.modify_listener(START, &arn, change).unwrap();
    assert_eq!((changed.port, changed.protocol.as_str()), (80, "TCP"));
    assert!(changed.forwards_to(&b) && !changed.forwards_to(&a));
    let change = Change {
        port: Some(81),
        ..Change::default()
    };
    assert_eq!(
        code(cloud.modify_listener(START, &arn, change)),
        "DuplicateListener"
    );
    // From TLS to TCP, what belongs to TLS goes.
    let to = |protocol: &str, certificate: Option<&str>| Change {
        protocol: Some(protocol.into()),
        certificate: certificate.map(str::to_owned),
        ssl_policy: certificate.map(|_| "ELBSecurityPolicy-X".into()),
        ..Change::default()
    };
    cloud
        .modify_listener(START, &arn, to("TLS", Some("arn:cert")))
        .unwrap();
    let changed = cloud.modify_listener(START, &arn, to("TCP", None)).unwrap();
    assert_eq!((changed.certificate, changed.ssl_policy), (None, None));
}
