use super::super::Quotas;
use super::super::targets::Description;
use super::*;

/// A cloud in which there is little of everything.
fn small() -> Cloud {
    with(Settings {
        quotas: Quotas {
            load_balancers: 2,
            target_groups: 2,
            listeners: 2,
            targets: 3,
            targets_per_load_balancer: 5,
            targets_per_zone: 4,
            security_groups: 3,
            ..Quotas::default()
        },
        ..Settings::default()
    })
}

#[test]
fn objects() {
    let mut cloud = small();
    let balancer = make_balancer(&mut cloud, "a");
    make_balancer(&mut cloud, "b");
    let create = super::balancer(&mut cloud, "c");
    assert_eq!(
        code(cloud.create_load_balancer(START, create)),
        "TooManyLoadBalancers"
    );
    // What is there already is no new one.
    make_balancer(&mut cloud, "b");
    let group = make_target_group(&mut cloud, "a");
    make_target_group(&mut cloud, "b");
    let create = target_group("c");
    assert_eq!(
        code(cloud.create_target_group(START, create)),
        "TooManyTargetGroups"
    );
    make_listener(&mut cloud, &balancer, 1, &group);
    make_listener(&mut cloud, &balancer, 2, &group);
    let result = cloud.create_listener(START, &balancer, listener(3, &group), Tags::new());
    assert_eq!(code(result), "TooManyListeners");
    super::group(&mut cloud, "a");
    let create = CreateSecurityGroup {
        name: "b".into(),
        description: "b".into(),
        vpc: Some(VPC.into()),
        tags: Tags::new(),
    };
    let result = cloud.create_security_group(START, create);
    assert_eq!(code(result), "SecurityGroupLimitExceeded");
}

#[test]
fn targets() {
    let mut cloud = small();
    for number in 4..=12 {
        cloud.add_node(number, &Network::default());
    }
    let balancer = make_balancer(&mut cloud, "web");
    let (a, b) = (
        make_target_group(&mut cloud, "a"),
        make_target_group(&mut cloud, "b"),
    );
    make_listener(&mut cloud, &balancer, 1, &a);
    make_listener(&mut cloud, &balancer, 2, &b);
    // Nodes are spread over three zones.
    let nodes = |numbers: &[u16]| -> Vec<Description> {
        let one = |number: &u16| Description {
            id: format!("i-{number:08}"),
            port: None,
            zone: None,
        };
        numbers.iter().map(one).collect()
    };
    let mut register =
        |arn: &str, numbers: &[u16]| code(cloud.register_targets(START, arn, &nodes(numbers)));
    assert_eq!(register(&a, &[1, 2, 3, 4]), "TooManyTargets");
    assert_eq!(register(&a, &[1, 2, 3]), "");
    assert_eq!(register(&b, &[4, 5, 6]), "TooManyTargets");
    assert_eq!(register(&b, &[4, 5]), "");
    let cross_zone = tags(&[("load_balancing.cross_zone.enabled", "true")]);
    let targets = nodes(&[4]);
    cloud.deregister_targets(START, &b, &targets).unwrap();
    cloud.tick(START + seconds(300));
    cloud
        .modify_load_balancer_attributes(&balancer, &cross_zone)
        .unwrap();
    assert_eq!(
        code(cloud.register_targets(START, &b, &targets)),
        "TooManyTargets"
    );
}
