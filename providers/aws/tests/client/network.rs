//! Security groups, and what load balancers stand on.

use std::collections::BTreeSet;

use ballast_aws::call::Call;
use ballast_aws::client::Cause;
use ballast_aws::client::values::{Filter, InstanceState};
use ballast_aws::desired::{Rule, Source, Traffic};
use ballast_aws_fake::Config;
use ballast_aws_fake::state::seed::{NODE_GROUP, VPC};

use crate::bed::{Bed, made, manner, rule, security_group, tags};

#[tokio::test]
async fn security_groups_from_creation_to_deletion() {
    let mut bed = Bed::new(Config::default()).await;
    bed.make("group", &security_group("clients")).await;
    let everybody = rule(80, Source::Range("0.0.0.0/0".parse().unwrap()));
    let six = rule(80, Source::Range("2001:db8::/32".parse().unwrap()));
    let list = rule(443, Source::PrefixList("pl-offices".into()));
    let nodes = Rule {
        traffic: Traffic::All,
        source: Source::Group(NODE_GROUP.into()),
    };
    let icmp = Rule {
        traffic: Traffic::Other {
            protocol: "icmp".into(),
            from: Some(3),
            to: Some(4),
        },
        source: Source::Range("10.0.0.0/8".parse().unwrap()),
    };
    let all = BTreeSet::from([everybody, six, list, nodes, icmp]);
    let add = Call::AuthorizeSecurityGroupIngress {
        security_group: made("group"),
        rules: all.clone(),
    };
    bed.call(&add).await.unwrap();
    let (code, cause) = bed.refused(&add).await;
    assert_eq!(code, "InvalidPermission.Duplicate");
    assert_eq!(cause, Cause::Duplicate);
    let id = bed.id("group");
    let filters = [Filter::new("group-id", [id.clone()])];
    let read = async || {
        let found = bed
            .client
            .security_groups(&filters, manner())
            .await
            .unwrap();
        let [group] = found.as_slice() else {
            panic!("{found:?}");
        };
        group.clone()
    };
    let group = read().await;
    assert_eq!(group.name, "clients");
    assert_eq!(group.vpc.as_deref(), Some(VPC));
    assert_eq!(group.tags, tags(&[("owner", "test")]));
    assert_eq!(group.rules, all, "what was written is read as the same");
    // What EC2 tells is enough to remove it again.
    bed.call(&Call::RevokeSecurityGroupIngress {
        security_group: made("group"),
        rules: group.rules,
    })
    .await
    .unwrap();
    assert_eq!(read().await.rules, BTreeSet::new());
    bed.call(&Call::AddTags {
        of: vec![made("group")],
        tags: tags(&[("a", "1"), ("b", "")]),
    })
    .await
    .unwrap();
    let with = tags(&[("a", "1"), ("b", ""), ("owner", "test")]);
    assert_eq!(read().await.tags, with);
    bed.call(&Call::RemoveTags {
        of: vec![made("group")],
        keys: vec!["a".into(), "b".into()],
    })
    .await
    .unwrap();
    assert_eq!(read().await.tags, tags(&[("owner", "test")]));
    let (code, cause) = bed.refused(&security_group("clients")).await;
    assert_eq!(
        (code.as_str(), cause),
        ("InvalidGroup.Duplicate", Cause::Duplicate)
    );
    let delete = Call::DeleteSecurityGroup { security_group: id };
    bed.call(&delete).await.unwrap();
    let found = bed.client.security_groups(&filters, manner()).await;
    assert_eq!(found, Ok(Vec::new()), "what is absent is no error");
    let (code, cause) = bed.refused(&delete).await;
    assert_eq!(
        (code.as_str(), cause),
        ("InvalidGroup.NotFound", Cause::NotFound)
    );
}

#[tokio::test]
async fn the_network() {
    let bed = Bed::new(Config::default()).await;
    let client = &bed.client;
    let vpc = [Filter::new("vpc-id", [VPC])];
    let subnets = client.subnets(&vpc, manner()).await.unwrap();
    assert_eq!(subnets.len(), 6);
    assert!(
        subnets
            .iter()
            .all(|one| one.vpc == VPC && one.free_addresses == 251)
    );
    let internal = [Filter::tag("kubernetes.io/role/internal-elb", ["1", ""])];
    let internal = client.subnets(&internal, manner()).await.unwrap();
    let ids: Vec<_> = internal.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(
        ids,
        ["subnet-private-a", "subnet-private-b", "subnet-private-c"]
    );
    assert_eq!(internal[1].zone, "eu-central-1b");
    let owned = [Filter::tag_key("kubernetes.io/cluster/test")];
    assert_eq!(client.subnets(&owned, manner()).await.unwrap().len(), 6);

    let tables = client.route_tables(&vpc, manner()).await.unwrap();
    let public: Vec<_> = tables.iter().filter(|one| one.internet_gateway).collect();
    let [public] = public.as_slice() else {
        panic!("{tables:?}");
    };
    assert!(public.subnets.contains("subnet-public-a") && !public.main);
    assert!(tables.iter().any(|one| one.main && one.subnets.is_empty()));

    let nodes = [Filter::new("instance-id", ["i-00000001", "i-0gone"])];
    let nodes = client.instances(&nodes, manner()).await.unwrap();
    let [node] = nodes.as_slice() else {
        panic!("{nodes:?}");
    };
    assert_eq!(node.state, InstanceState::Running);
    assert_eq!(node.zone, "eu-central-1a");
    assert_eq!(node.vpc.as_deref(), Some(VPC));
    assert_eq!(
        node.security_groups,
        BTreeSet::from([NODE_GROUP.to_owned()])
    );
    assert_eq!(node.tags["kubernetes.io/cluster/test"], "owned");

    let lists = [Filter::new("prefix-list-id", ["pl-offices"])];
    let lists = client.prefix_lists(&lists, manner()).await.unwrap();
    assert_eq!(lists[0].max_entries, Some(10));
}
