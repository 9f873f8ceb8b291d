use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The reverse of the encoder, written for this test: as a server reads a form.
fn decode(body: &str) -> Vec<(String, String)> {
    let part = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    let digits = std::str::from_utf8(&digits).unwrap();
                    bytes.push(u8::from_str_radix(digits, 16).unwrap());
                }
                b'+' => bytes.push(b' '),
                other => bytes.push(other),
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    let pairs = body.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(name, value)| (part(name), part(value)))
        .collect()
}

fn shown(query: &Query) -> String {
    let pairs = query
        .0
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join("\n")
}

proptest! {
    #[test]
    fn a_server_reads_what_was_written(pairs in prop::collection::vec((".*", ".*"), 1..6)) {
        let body = Query(pairs.clone()).encode();
        prop_assert_eq!(decode(&body), pairs);
        prop_assert!(body.bytes().all(|byte| byte.is_ascii_graphic()));
    }

    #[test]
    fn numbers_of_lists_begin_with_one_and_have_no_gap(
        values in prop::collection::vec("[a-z]{1,4}", 0..300),
    ) {
        let query = Query(Vec::new()).list("Id", values.clone());
        let found: BTreeMap<_, _> = query.0.into_iter().collect();
        prop_assert_eq!(found.len(), values.len());
        for (at, value) in (1..).zip(&values) {
            prop_assert_eq!(found.get(&format!("Id.{at}")), Some(value));
        }
    }
}

#[test]
fn a_read_with_filters() {
    let filters = [
        Filter::new("vpc-id", ["vpc-1"]),
        Filter::tag("kubernetes.io/role/elb", ["1", ""]),
        Filter::tag_key("kubernetes.io/cluster/prod"),
    ];
    let query = Query::new(Action::DescribeSubnets).filters(&filters);
    insta::assert_snapshot!(shown(&query), @r"
    Action=DescribeSubnets
    Version=2016-11-15
    Filter.1.Name=vpc-id
    Filter.1.Value.1=vpc-1
    Filter.2.Name=tag:kubernetes.io/role/elb
    Filter.2.Value.1=1
    Filter.2.Value.2=
    Filter.3.Name=tag-key
    Filter.3.Value.1=kubernetes.io/cluster/prod
    ");
}

#[test]
fn a_new_group_has_its_tags_from_the_beginning() {
    let tags = [
        ("b".to_owned(), "2".to_owned()),
        ("a".to_owned(), "1".to_owned()),
    ]
    .into();
    let query = Query::new(Action::CreateSecurityGroup)
        .with("GroupName", "bl-x")
        .tagged("security-group", &tags);
    insta::assert_snapshot!(shown(&query), @r"
    Action=CreateSecurityGroup
    Version=2016-11-15
    GroupName=bl-x
    TagSpecification.1.ResourceType=security-group
    TagSpecification.1.Tag.1.Key=a
    TagSpecification.1.Tag.1.Value=1
    TagSpecification.1.Tag.2.Key=b
    TagSpecification.1.Tag.2.Value=2
    ");
}

#[test]
fn every_kind_of_rule() {
    let range = |text: &str| Source::Range(text.parse().unwrap());
    let other = |protocol: &str, from, to| Traffic::Other {
        protocol: protocol.into(),
        from,
        to,
    };
    let rules = [
        (Traffic::Port(Protocol::Tcp, 443), range("10.0.0.0/8")),
        (Traffic::Port(Protocol::Udp, 53), range("2001:db8::/32")),
        (
            Traffic::Port(Protocol::Tcp, 80),
            Source::PrefixList("pl-1".into()),
        ),
        (Traffic::All, Source::Group("sg-2".into())),
        (other("icmp", Some(3), Some(-1)), range("0.0.0.0/0")),
        (other("50", None, None), range("0.0.0.0/0")),
        (other("tcp", Some(0), Some(65_535)), range("0.0.0.0/0")),
    ];
    let rules: BTreeSet<Rule> = rules
        .into_iter()
        .map(|(traffic, source)| Rule { traffic, source })
        .collect();
    let query = Query::new(Action::AuthorizeSecurityGroupIngress)
        .with("GroupId", "sg-1")
        .permissions(&rules);
    insta::assert_snapshot!(shown(&query));
}
