use super::*;
use crate::client::values::InstanceState;

fn subnet(id: &str, zone: &str, tags: &[(&str, &str)]) -> Subnet {
    Subnet {
        id: id.into(),
        vpc: "vpc-1".into(),
        zone: zone.into(),
        range: None,
        ipv6: Vec::new(),
        free_addresses: 100,
        outpost: false,
        tags: (tags.iter())
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn table(id: &str, main: bool, subnets: &[&str], internet_gateway: bool) -> RouteTable {
    RouteTable {
        id: id.into(),
        vpc: "vpc-1".into(),
        main,
        subnets: subnets.iter().map(|it| (*it).to_owned()).collect(),
        internet_gateway,
    }
}

fn instance(groups: &[&str], tags: &[&str]) -> Instance {
    Instance {
        id: "i-1".into(),
        state: InstanceState::Running,
        zone: "a".into(),
        vpc: Some("vpc-1".into()),
        subnet: None,
        security_groups: groups.iter().map(|it| (*it).to_owned()).collect(),
        tags: (tags.iter())
            .map(|key| ((*key).to_owned(), "owned".to_owned()))
            .collect(),
    }
}

fn ids(found: Result<Subnets, Refusal>) -> Vec<String> {
    match found.expect("accepted") {
        Subnets::Found(all) => all.into_iter().map(|one| one.id).collect(),
        Subnets::NeedsRoutes => panic!("routes decide"),
    }
}

fn mine() -> BTreeSet<String> {
    BTreeSet::from(["mine".to_owned()])
}

const INTERNAL: (&str, &str) = ("kubernetes.io/role/internal-elb", "1");
const PUBLIC: (&str, &str) = ("kubernetes.io/role/elb", "");
const MINE: (&str, &str) = ("kubernetes.io/cluster/mine", "shared");
const OTHER: (&str, &str) = ("kubernetes.io/cluster/other", "shared");

#[test]
fn role_tags_decide_and_each_zone_has_one() {
    let all = [
        subnet("subnet-3", "eu-west-1a", &[INTERNAL]),
        subnet("subnet-2", "eu-west-1a", &[INTERNAL]),
        subnet("subnet-4", "eu-west-1b", &[INTERNAL, MINE]),
        subnet("subnet-1", "eu-west-1b", &[INTERNAL]),
        subnet("subnet-5", "eu-west-1c", &[INTERNAL, OTHER]),
        subnet("subnet-6", "eu-west-1a", &[PUBLIC]),
        subnet(
            "subnet-7",
            "eu-west-1d",
            &[("kubernetes.io/role/internal-elb", "0")],
        ),
    ];
    let of = |scheme| {
        ids(discovered(
            (scheme, false),
            "eu-west-1",
            &mine(),
            &all,
            None,
        ))
    };
    assert_eq!(of(Scheme::Internal), ["subnet-2", "subnet-4"]);
    assert_eq!(of(Scheme::InternetFacing), ["subnet-6"]);
}

/// Whether by tag or by route: a load balancer has zones of one kind.
#[test]
fn zones_of_other_kinds_must_be_named() {
    let all = |tags: &[(&str, &str)]| {
        [
            subnet("subnet-1", "us-west-2-lax-1a", tags),
            subnet("subnet-2", "us-west-2b", tags),
            subnet("subnet-3", "us-west-2-wl1-las-wlz-1", tags),
            subnet("subnet-4", "us-west-21a", tags),
        ]
    };
    let routes = [table("rtb-1", true, &[], false)];
    for tags in [&[INTERNAL][..], &[]] {
        let all = all(tags);
        let found = discovered(
            (Scheme::Internal, false),
            "us-west-2",
            &mine(),
            &all,
            Some(&routes),
        );
        assert_eq!(ids(found), ["subnet-2"], "{tags:?}");
        let far = discovered(
            (Scheme::Internal, false),
            "us-west-2",
            &mine(),
            &all[..1],
            Some(&routes),
        );
        let refusal = far.expect_err("none is left");
        assert!(refusal.message.contains("Availability Zones"), "{refusal}");
    }
    let found = named(&["subnet-1".to_owned()], &all(&[])).expect("it is named");
    assert_eq!(found[0].id, "subnet-1");
}

#[test]
fn without_role_tags_the_routes_decide() {
    let mut full = subnet("subnet-0", "eu-west-1b", &[]);
    full.free_addresses = 7;
    let mut away = subnet("subnet-9", "eu-west-1c", &[]);
    away.outpost = true;
    let all = [
        subnet("subnet-a", "eu-west-1a", &[]),
        subnet("subnet-b", "eu-west-1b", &[]),
        full,
        away,
    ];
    let of = |scheme, routes| discovered((scheme, false), "eu-west-1", &mine(), &all, routes);
    assert_eq!(of(Scheme::Internal, None), Ok(Subnets::NeedsRoutes));
    let routes = [
        table("rtb-1", true, &[], false),
        table("rtb-2", false, &["subnet-a"], true),
    ];
    assert_eq!(ids(of(Scheme::Internal, Some(&routes))), ["subnet-b"]);
    assert_eq!(ids(of(Scheme::InternetFacing, Some(&routes))), ["subnet-a"]);
    let closed = [table("rtb-1", true, &[], false)];
    let refusal = of(Scheme::InternetFacing, Some(&closed)).expect_err("none is public");
    assert!(refusal.message.contains("(1 have fewer)"), "{refusal}");
    assert!(
        refusal.message.contains("kubernetes.io/role/elb"),
        "{refusal}"
    );
}

#[test]
fn names_keep_their_order_and_one_name_may_be_of_several() {
    let all = [
        subnet("subnet-a", "eu-west-1a", &[("Name", "private")]),
        subnet("subnet-b", "eu-west-1b", &[("Name", "private")]),
        subnet("subnet-c", "eu-west-1c", &[]),
    ];
    let of = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        named(&names, &all)
    };
    let found = of(&["subnet-c", "private"]).expect("found");
    let found: Vec<&str> = found.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(found, ["subnet-c", "subnet-a", "subnet-b"]);
    let refusal = of(&["subnet-c", "public"]).expect_err("none");
    assert!(refusal.message.contains("\"public\""), "{refusal}");
}

#[test]
fn a_prefix_list_counts_as_aws_says() {
    let table = [
        ("offices", Some(20), 20),
        ("com.amazonaws.global.cloudfront.origin-facing", None, 55),
        ("com.amazonaws.eu-central-1.route53-healthchecks", None, 25),
        ("com.amazonaws.eu-central-1.s3", None, 1),
    ];
    for (name, max_entries, expected) in table {
        let list = PrefixList {
            id: "pl-1".into(),
            name: name.into(),
            max_entries,
        };
        assert_eq!(entries(&list), expected, "{name}");
    }
}

#[test]
fn nodes_in_several_vpcs_need_a_setting() {
    let other = Instance {
        vpc: Some("vpc-2".into()),
        ..instance(&[], &[])
    };
    assert_eq!(vpc(&[]), Ok(None));
    assert_eq!(vpc(&[instance(&[], &[])]), Ok(Some("vpc-1".into())));
    let refusal = vpc(&[instance(&[], &[]), other]).expect_err("two");
    assert!(refusal.message.contains("vpc-1, vpc-2"), "{refusal}");
}

#[test]
fn each_kind_of_node_has_one_group_or_the_candidates_are_named() {
    let set = |ids: &[&str]| -> BTreeSet<String> { ids.iter().map(|it| (*it).into()).collect() };
    let tags = |all: &[(&str, (&str, &str))]| -> BTreeMap<String, Tags> {
        let one = |(id, (key, value)): &(&str, (&str, &str))| {
            let tags = BTreeMap::from([((*key).to_owned(), (*value).to_owned())]);
            ((*id).to_owned(), tags)
        };
        all.iter().map(one).collect()
    };
    let nodes = [
        instance(&["sg-1"], &["kubernetes.io/cluster/mine"]),
        instance(&["sg-2", "sg-3"], &[]),
        instance(&[], &[]),
    ];
    assert_eq!(clusters(&nodes), mine());
    for (tags, chosen, ambiguous) in [
        (None, &["sg-1"][..], &["sg-2", "sg-3"][..]),
        (Some(tags(&[("sg-3", MINE)])), &["sg-1", "sg-3"], &[]),
        (
            Some(tags(&[("sg-2", MINE), ("sg-3", MINE)])),
            &["sg-1"],
            &["sg-2", "sg-3"],
        ),
        (Some(tags(&[("sg-2", OTHER)])), &["sg-1"], &["sg-2", "sg-3"]),
    ] {
        let groups = node_groups(&nodes, &mine(), tags.as_ref());
        assert_eq!(groups.chosen, set(chosen), "{tags:?}");
        assert_eq!(groups.ambiguous, set(ambiguous), "{tags:?}");
    }
}
