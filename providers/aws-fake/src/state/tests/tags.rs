use super::super::seed::NODE_GROUP;
use super::super::tags::checked;
use super::*;

#[test]
fn keys_and_values() {
    let long = "x".repeat(129);
    let table: [(&[(&str, &str)], &str); 9] = [
        (&[("a", "")], ""),
        (&[("ballast.dev/applied", "a b_.:/=+-@")], ""),
        (&[("ä", "ö")], ""),
        (&[("", "")], "ValidationError"),
        (&[(&long, "")], "ValidationError"),
        (&[("a", "b&c")], "ValidationError"),
        (&[("aws:x", "")], "ValidationError"),
        (&[("AWS:x", "")], "ValidationError"),
        (&[("a", "1"), ("a", "2")], "DuplicateTagKeys"),
    ];
    for (pairs, expected) in table {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        assert_eq!(code(checked(pairs.collect())), expected);
    }
}

#[test]
fn tags_of_several_objects_change_together() {
    let mut cloud = cloud();
    let balancer = make_balancer(&mut cloud, "web");
    let group = make_target_group(&mut cloud, "web");
    let listener = make_listener(&mut cloud, &balancer, 80, &group);
    let all = [balancer.clone(), group.clone(), listener.clone()];
    cloud
        .add_tags(&all, &tags(&[("a", "1"), ("owner", "me")]))
        .unwrap();
    cloud
        .remove_tags(&all, &["a".into(), "missing".into()])
        .unwrap();
    for (_, of_one) in cloud.describe_tags(&all).unwrap() {
        assert_eq!(of_one, tags(&[("owner", "me")]));
    }
    let gone = [balancer.clone(), format!("{group}0")];
    let one = tags(&[("b", "1")]);
    assert_eq!(code(cloud.add_tags(&gone, &one)), "TargetGroupNotFound");
    assert_eq!(
        code(cloud.remove_tags(&gone, &["owner".into()])),
        "TargetGroupNotFound"
    );
    assert_eq!(code(cloud.describe_tags(&gone)), "TargetGroupNotFound");
    assert_eq!(
        cloud.load_balancer(&balancer).unwrap().tags,
        tags(&[("owner", "me")])
    );
}

#[test]
fn limits() {
    let mut cloud = cloud();
    let arn = make_balancer(&mut cloud, "web");
    let many = |number: usize| -> Tags {
        let keys = (0..number).map(|index| (format!("k{index}"), String::new()));
        keys.collect()
    };
    // One is there already.
    let one = [arn.clone()];
    assert_eq!(code(cloud.add_tags(&one, &many(50))), "TooManyTags");
    assert_eq!(code(cloud.add_tags(&one, &many(49))), "");
    assert_eq!(code(cloud.add_tags(&one, &many(49))), "");
    let arns = |number: usize| vec![arn.clone(); number];
    assert_eq!(code(cloud.describe_tags(&arns(20))), "");
    assert_eq!(code(cloud.describe_tags(&arns(21))), "ValidationError");
    assert_eq!(code(cloud.describe_tags(&[])), "ValidationError");
    assert_eq!(code(cloud.describe_tags(&["x".into()])), "ValidationError");
    let mut create = target_group("web");
    create.tags = many(51);
    assert_eq!(
        code(cloud.create_target_group(START, create)),
        "TooManyTags"
    );
}

#[test]
fn tags_of_ec2() {
    let mut cloud = cloud();
    let ids = [NODE_GROUP.to_owned(), "subnet-public-a".to_owned()];
    cloud
        .create_tags(&ids, &tags(&[("a", "1"), ("b", "2")]))
        .unwrap();
    let delete = |key: &str, value: Option<&str>| vec![(key.to_owned(), value.map(str::to_owned))];
    // A value that differs protects the tag.
    cloud.delete_tags(&ids, &delete("a", Some("2"))).unwrap();
    assert_eq!(cloud.security_group(NODE_GROUP).unwrap().tags["a"], "1");
    cloud.delete_tags(&ids, &delete("a", Some("1"))).unwrap();
    cloud.delete_tags(&ids, &delete("b", None)).unwrap();
    let left = &cloud.security_group(NODE_GROUP).unwrap().tags;
    assert!(!left.contains_key("a") && !left.contains_key("b"));
    let table = [
        ("sg-x", "InvalidGroup.NotFound"),
        ("subnet-x", "InvalidSubnetID.NotFound"),
        ("i-x", "InvalidInstanceID.NotFound"),
        ("x", "InvalidID"),
    ];
    for (id, expected) in table {
        let result = cloud.create_tags(&[id.into()], &tags(&[("a", "")]));
        assert_eq!(code(result), expected, "{id}");
    }
    let reserved = cloud.create_tags(&ids, &tags(&[("aws:x", "")]));
    assert_eq!(code(reserved), "InvalidParameterValue");
}
