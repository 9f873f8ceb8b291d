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

/// A TLS listener on port 443 with the first of these certificates, and the others that exist.
fn with_certificates(cloud: &mut Cloud, number: usize) -> (String, Vec<String>) {
    let all: Vec<String> = (0..number)
        .map(|it| cloud.issue_certificate(&format!("c{it:02}")))
        .collect();
    let balancer = make_balancer(cloud, "web");
    let group = make_target_group(cloud, "web");
    let change = Change {
        protocol: Some("TLS".into()),
        certificate: Some(all[0].clone()),
        ..listener(443, &group)
    };
    let made = cloud.create_listener(START, &balancer, change, Tags::new());
    (made.unwrap().arn, all)
}

#[test]
fn the_list_of_certificates() {
    type Row<'a> = (&'static str, &'a str, &'a [&'a str], &'static str, usize);
    let mut cloud = cloud();
    let (tls, all) = with_certificates(&mut cloud, 3);
    let tcp = {
        let there = cloud.listener(&tls).unwrap().clone();
        make_listener(&mut cloud, &there.load_balancer, 80, &there.forward[0].0)
    };
    let (one, two, three) = (all[0].as_str(), all[1].as_str(), all[2].as_str());
    let gone = format!("{tls}0");
    let adds: [Row<'_>; 8] = [
        ("a TCP listener", &tcp, &[two], "ValidationError", 0),
        ("no listener", &gone, &[two], "ListenerNotFound", 0),
        ("none", &tls, &[], "ValidationError", 0),
        ("two at once", &tls, &[two, three], "ValidationError", 0),
        ("unknown", &tls, &["arn:x"], "CertificateNotFound", 0),
        ("one", &tls, &[two], "", 1),
        ("the same", &tls, &[two], "", 1),
        ("the default one", &tls, &[one], "", 2),
    ];
    let owned = |some: &[&str]| -> Vec<String> { some.iter().map(|it| (*it).into()).collect() };
    for (what, arn, some, expected, listed) in adds {
        let before = cloud.snapshot();
        let result = cloud.add_listener_certificates(arn, &owned(some));
        assert_eq!(code(result), expected, "{what}");
        assert!(expected.is_empty() || before == cloud.snapshot(), "{what}");
        let now = &cloud.listener(&tls).unwrap().certificates;
        assert_eq!(now.len(), listed, "{what}");
    }
    assert_eq!(
        cloud.listener_certificates(&tls).unwrap(),
        [(one, true), (one, false), (two, false)]
    );
    assert_eq!(code(cloud.listener_certificates(&tcp)), "ValidationError");
    let removals: [Row<'_>; 6] = [
        ("a TCP listener", &tcp, &[two], "ValidationError", 2),
        ("two at once", &tls, &[one, two], "ValidationError", 2),
        ("not in the list", &tls, &[three], "CertificateNotFound", 2),
        ("one", &tls, &[two], "", 1),
        ("the default one in the list", &tls, &[one], "", 0),
        ("the default one", &tls, &[one], "OperationNotPermitted", 0),
    ];
    for (what, arn, some, expected, listed) in removals {
        let result = cloud.remove_listener_certificates(arn, &owned(some));
        assert_eq!(code(result), expected, "{what}");
        let now = &cloud.listener(&tls).unwrap().certificates;
        assert_eq!(now.len(), listed, "{what}");
    }
}

#[test]
fn a_list_of_certificates_has_a_limit() {
    let mut cloud = cloud();
    let (arn, all) = with_certificates(&mut cloud, 27);
    for one in &all[1..26] {
        cloud
            .add_listener_certificates(&arn, std::slice::from_ref(one))
            .unwrap();
    }
    let add = |cloud: &mut Cloud, one: &String| {
        code(cloud.add_listener_certificates(&arn, std::slice::from_ref(one)))
    };
    assert_eq!(add(&mut cloud, &all[26]), "TooManyCertificates");
    assert_eq!(add(&mut cloud, &all[25]), "", "it is in the list");
    cloud
        .remove_listener_certificates(&arn, &all[1..2])
        .unwrap();
    assert_eq!(add(&mut cloud, &all[26]), "");
}

/// The list belongs to TLS, and another default certificate does not change it.
#[test]
fn what_becomes_of_the_list_of_certificates() {
    let mut cloud = cloud();
    let (arn, all) = with_certificates(&mut cloud, 2);
    cloud.add_listener_certificates(&arn, &all[1..]).unwrap();
    let there = cloud.listener(&arn).unwrap().clone();
    let again = Change {
        protocol: Some("TLS".into()),
        certificate: Some(all[0].clone()),
        ..listener(443, &there.forward[0].0)
    };
    let again = cloud.create_listener(START, &there.load_balancer, again, Tags::new());
    assert_eq!(again, Ok(there), "the same listener");
    let change = Change {
        certificate: Some(all[1].clone()),
        ..Change::default()
    };
    let changed = cloud.modify_listener(START, &arn, change).unwrap();
    assert_eq!(changed.certificates.len(), 1);
    let change = Change {
        protocol: Some("TCP".into()),
        ..Change::default()
    };
    let changed = cloud.modify_listener(START, &arn, change).unwrap();
    assert!(changed.certificates.is_empty());
}

/// Only TCP has attributes, and another protocol begins with AWS's defaults.
#[test]
fn attributes_of_listeners() {
    let mut cloud = cloud();
    let (tls, all) = with_certificates(&mut cloud, 1);
    let idle = |seconds: &str| [("tcp.idle_timeout.seconds".to_owned(), seconds.to_owned())].into();
    let refused = cloud.modify_listener_attributes(&tls, &idle("600"));
    assert_eq!(code(refused), "InvalidConfigurationRequest");
    let change = |protocol: &str| Change {
        protocol: Some(protocol.into()),
        certificate: (protocol == "TLS").then(|| all[0].clone()),
        ssl_policy: (protocol == "TLS").then(|| "ELBSecurityPolicy-2016-08".into()),
        ..Change::default()
    };
    let tcp = cloud.modify_listener(START, &tls, change("TCP")).unwrap();
    assert_eq!(tcp.attributes, idle("350"));
    for (seconds, expected) in [
        ("59", "ValidationError"),
        ("6000", ""),
        ("6001", "ValidationError"),
    ] {
        let result = cloud.modify_listener_attributes(&tls, &idle(seconds));
        assert_eq!(code(result), expected, "{seconds}");
    }
    let other = [("idle".to_owned(), "1".to_owned())].into();
    let refused = cloud.modify_listener_attributes(&tls, &other);
    assert_eq!(code(refused), "ValidationError");
    assert_eq!(cloud.listener(&tls).unwrap().attributes, idle("6000"));
    cloud.modify_listener(START, &tls, change("TLS")).unwrap();
    let tcp = cloud.modify_listener(START, &tls, change("TCP")).unwrap();
    assert_eq!(tcp.attributes, idle("350"));
}

#[test]
fn no_target_group_is_sticky_and_used_by_a_tls_listener() {
    let mut cloud = cloud();
    cloud.certificates.push("arn:cert".into());
    let balancer = make_balancer(&mut cloud, "web");
    let group = make_target_group(&mut cloud, "web");
    let sticky = |cloud: &mut Cloud, is: &str| {
        let attributes = [("stickiness.enabled".to_owned(), is.to_owned())].into();
        code(cloud.modify_target_group_attributes(&group, &attributes))
    };
    let tls = || Change {
        protocol: Some("TLS".into()),
        certificate: Some("arn:cert".into()),
        ssl_policy: Some("ELBSecurityPolicy-TLS13-1-2-2021-06".into()),
        ..Change::default()
    };
    assert_eq!(sticky(&mut cloud, "true"), "");
    let listener = make_listener(&mut cloud, &balancer, 443, &group);
    let refused = "InvalidConfigurationRequest";
    assert_eq!(
        code(cloud.modify_listener(START, &listener, tls())),
        refused
    );
    assert_eq!(sticky(&mut cloud, "false"), "");
    assert_eq!(code(cloud.modify_listener(START, &listener, tls())), "");
    assert_eq!(sticky(&mut cloud, "true"), refused);
}
