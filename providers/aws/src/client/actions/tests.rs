use std::collections::BTreeSet;

use super::*;

#[test]
fn each_action_has_the_category_that_aws_documents() {
    let table = [
        ("CreateLoadBalancer", Category::Intensive),
        ("SetSubnets", Category::Intensive),
        ("RegisterTargets", Category::Registration),
        ("DeregisterTargets", Category::Registration),
        ("DescribeLoadBalancers", Category::Read),
        ("DescribeTargetHealth", Category::Read),
        ("DescribeTags", Category::Read),
        ("DescribeCapacityReservation", Category::Read),
        ("ModifyCapacityReservation", Category::Write),
        ("CreateTargetGroup", Category::Write),
        ("CreateListener", Category::Write),
        ("AddListenerCertificates", Category::Write),
        ("RemoveListenerCertificates", Category::Write),
        ("DescribeListenerCertificates", Category::Read),
        ("ModifyListenerAttributes", Category::Write),
        ("DescribeListenerAttributes", Category::Read),
        ("DeleteLoadBalancer", Category::Write),
        ("ModifyTargetGroupAttributes", Category::Write),
        ("AddTags", Category::Write),
        ("SetSecurityGroups", Category::Write),
        ("DescribeSubnets", Category::Ec2Read),
        ("DescribeSecurityGroups", Category::Ec2Read),
        ("CreateSecurityGroup", Category::Ec2Write),
        ("AuthorizeSecurityGroupIngress", Category::Ec2Rules),
        ("CreateTags", Category::Ec2Tags),
    ];
    for (action, category) in table {
        let found = Action::named(action).map(Action::category);
        assert_eq!(found, Some(category), "{action}");
    }
}

#[test]
fn names_are_unique_and_reads_are_named_describe() {
    let names: BTreeSet<&str> = Action::ALL.iter().map(|action| action.name()).collect();
    assert_eq!(names.len(), Action::ALL.len());
    for &action in Action::ALL {
        assert_eq!(action.writes(), !action.name().starts_with("Describe"));
        assert_eq!(Action::named(action.name()), Some(action));
        let ec2 = action.category().as_str().starts_with("ec2-");
        assert_eq!(ec2, action.service() == Service::Ec2, "{action:?}");
    }
    assert_eq!(Action::named("DescribeVpcs"), None);
}

#[test]
fn the_rights_of_all_actions() {
    let own = Action::ALL.iter().map(|action| action.right());
    let also = Action::ALL.iter().flat_map(|action| action.also());
    let all: BTreeSet<String> = own.chain(also.map(|right| (*right).to_owned())).collect();
    insta::assert_snapshot!(all.into_iter().collect::<Vec<_>>().join("\n"));
}
