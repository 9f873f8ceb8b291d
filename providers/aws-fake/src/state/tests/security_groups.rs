use super::super::security_groups::{Create, Permission, Source};
use super::super::seed::NODE_GROUP;
use super::*;

fn tcp(port: i32, source: &str) -> Permission {
    let source = if source.starts_with("sg-") {
        Source::Group(source.into())
    } else if source.starts_with("pl-") {
        Source::PrefixList(source.into())
    } else if source.contains(':') {
        Source::V6(source.parse().unwrap())
    } else {
        Source::V4(source.parse().unwrap())
    };
    Permission {
        protocol: "tcp".into(),
        from: Some(port),
        to: Some(port),
        source,
    }
}

fn authorize(cloud: &mut Cloud, id: &str, rules: &[Permission]) -> String {
    let rules = rules.iter().map(|it| (it.clone(), None)).collect();
    code(cloud.authorize_ingress(id, rules))
}

#[test]
fn creation() {
    type Row = (&'static str, fn(&mut Create), &'static str);
    let table: [Row; 9] = [
        ("good", |_| {}, ""),
        (
            "no name",
            |it| it.name = String::new(),
            "InvalidParameterValue",
        ),
        (
            "like an ID",
            |it| it.name = "sg-1".into(),
            "InvalidParameterValue",
        ),
        (
            "long",
            |it| it.name = "x".repeat(256),
            "InvalidParameterValue",
        ),
        (
            "description",
            |it| it.description = "a\nb".into(),
            "InvalidParameterValue",
        ),
        ("no VPC", |it| it.vpc = None, "VPCIdNotSpecified"),
        (
            "VPC",
            |it| it.vpc = Some("vpc-x".into()),
            "InvalidVpcID.NotFound",
        ),
        (
            "twice",
            |it| it.name = "nodes".into(),
            "InvalidGroup.Duplicate",
        ),
        (
            "tag",
            |it| it.tags = tags(&[("aws:x", "")]),
            "InvalidParameterValue",
        ),
    ];
    for (what, change, expected) in table {
        let mut create = Create {
            name: "clients".into(),
            description: "Clients (of a Service)".into(),
            vpc: Some(VPC.into()),
            tags: Tags::new(),
        };
        change(&mut create);
        assert_eq!(
            code(cloud().create_security_group(START, create)),
            expected,
            "{what}"
        );
    }
}

#[test]
fn rules_are_added() {
    let mut cloud = cloud();
    let id = group(&mut cloud, "clients");
    assert_eq!(authorize(&mut cloud, &id, &[tcp(80, "10.0.0.0/8")]), "");
    let table = [
        (vec![], "MissingParameter"),
        (vec![tcp(80, "10.0.0.0/8")], "InvalidPermission.Duplicate"),
        // All or nothing.
        (
            vec![tcp(81, "10.0.0.0/8"), tcp(80, "10.0.0.0/8")],
            "InvalidPermission.Duplicate",
        ),
        (
            vec![tcp(82, "::/0"), tcp(82, "::/0")],
            "InvalidParameterValue",
        ),
        (vec![tcp(70_000, "10.0.0.0/8")], "InvalidParameterValue"),
        (vec![tcp(80, "sg-x")], "InvalidGroup.NotFound"),
        (vec![tcp(80, "pl-x")], "InvalidPrefixListID.NotFound"),
        (
            vec![tcp(80, "sg-x"), tcp(90, "10.0.0.0/8")],
            "InvalidGroup.NotFound",
        ),
        (
            vec![tcp(80, NODE_GROUP), tcp(80, "pl-offices"), tcp(80, "::/0")],
            "",
        ),
    ];
    for (rules, expected) in table {
        let before = cloud.security_group(&id).unwrap().clone();
        assert_eq!(authorize(&mut cloud, &id, &rules), expected, "{rules:?}");
        if !expected.is_empty() {
            assert_eq!(*cloud.security_group(&id).unwrap(), before, "{rules:?}");
        }
    }
    assert_eq!(
        authorize(&mut cloud, "sg-x", &[tcp(80, "::/0")]),
        "InvalidGroup.NotFound"
    );
    assert_eq!(
        authorize(&mut cloud, "x", &[tcp(80, "::/0")]),
        "InvalidGroupId.Malformed"
    );
}

#[test]
fn protocols_have_their_ports() {
    let table = [
        ("tcp", Some(1), Some(2), ""),
        ("udp", Some(2), Some(1), "InvalidParameterValue"),
        ("tcp", None, None, "MissingParameter"),
        ("icmp", Some(3), Some(4), ""),
        ("icmpv6", None, None, "MissingParameter"),
        ("icmpv6", Some(2), Some(0), ""),
        ("-1", None, None, ""),
        ("sctp", Some(1), Some(1), "InvalidParameterValue"),
    ];
    for (protocol, from, to, expected) in table {
        let mut cloud = cloud();
        let id = group(&mut cloud, "clients");
        let rule = Permission {
            protocol: protocol.into(),
            from,
            to,
            ..tcp(0, "10.0.0.0/8")
        };
        assert_eq!(authorize(&mut cloud, &id, &[rule]), expected, "{protocol}");
    }
}

#[test]
fn rules_are_revoked() {
    let mut cloud = cloud();
    let id = group(&mut cloud, "clients");
    let (a, b) = (tcp(80, "10.0.0.0/8"), tcp(81, "10.0.0.0/8"));
    let rules = vec![(a.clone(), Some("text".to_owned())), (b.clone(), None)];
    let ids = cloud.authorize_ingress(&id, rules).unwrap();
    let missing = [a.clone(), tcp(82, "10.0.0.0/8")];
    assert_eq!(
        code(cloud.revoke_ingress(&id, &missing)),
        "InvalidPermission.NotFound"
    );
    assert_eq!(cloud.security_group(&id).unwrap().ingress.len(), 2);
    // A description does not matter.
    assert_eq!(cloud.revoke_ingress(&id, &[a]).unwrap().len(), 1);
    let last = [ids[1].id.clone()];
    assert_eq!(
        cloud.revoke_ingress_by_id(&id, &last).unwrap()[0].permission,
        b
    );
    let result = cloud.revoke_ingress_by_id(&id, &last);
    assert_eq!(code(result), "InvalidSecurityGroupRuleId.NotFound");
}

#[test]
fn what_is_used_stays() {
    let mut cloud = cloud();
    let balancer = make_balancer(&mut cloud, "web");
    let used = cloud.load_balancer(&balancer).unwrap().security_groups[0].clone();
    let backend = group(&mut cloud, "backend");
    let own = group(&mut cloud, "own");
    assert_eq!(authorize(&mut cloud, NODE_GROUP, &[tcp(80, &backend)]), "");
    assert_eq!(authorize(&mut cloud, &own, &[tcp(80, &own)]), "");
    let table = [
        (used.as_str(), "DependencyViolation"),
        (NODE_GROUP, "DependencyViolation"),
        (&backend, "DependencyViolation"),
        (&own, ""),
        (&own, "InvalidGroup.NotFound"),
    ];
    for (id, expected) in table {
        assert_eq!(
            code(cloud.delete_security_group(START, id)),
            expected,
            "{id}"
        );
    }
    cloud
        .revoke_ingress(NODE_GROUP, &[tcp(80, &backend)])
        .unwrap();
    assert_eq!(code(cloud.delete_security_group(START, &backend)), "");
}

/// Each family has its own limit. A prefix list counts with its largest size, a group for both.
#[test]
fn rules_are_counted_by_family() {
    let range = |index: i32| tcp(index, "10.0.0.0/8");
    let six = |index: i32| tcp(index, "::/0");
    let table: [(&str, Vec<Permission>, &str); 6] = [
        ("60", (0..60).map(range).collect(), ""),
        (
            "61",
            (0..61).map(range).collect(),
            "RulesPerSecurityGroupLimitExceeded",
        ),
        (
            "60 and 60",
            (0..60).flat_map(|it| [range(it), six(it)]).collect(),
            "",
        ),
        (
            "60 and a group",
            (0..60).map(range).chain([tcp(0, NODE_GROUP)]).collect(),
            "RulesPerSecurityGroupLimitExceeded",
        ),
        (
            "50 and a list of 10",
            (0..50).map(range).chain([tcp(0, "pl-offices")]).collect(),
            "",
        ),
        (
            "51 and a list of 10",
            (0..51).map(range).chain([tcp(0, "pl-offices")]).collect(),
            "RulesPerSecurityGroupLimitExceeded",
        ),
    ];
    for (what, rules, expected) in table {
        let mut cloud = cloud();
        let id = group(&mut cloud, "clients");
        assert_eq!(authorize(&mut cloud, &id, &rules), expected, "{what}");
    }
}
