//! Complete reads.

use std::collections::BTreeSet;

use ballast_aws::client::values::Filter;
use ballast_aws::desired::Transport;
use ballast_aws_fake::Config;
use ballast_aws_fake::state::seed::Network;

use crate::bed::{Bed, manner, target_group, tcp_check};

#[tokio::test]
async fn all_pages_and_any_number_of_names() {
    let mut bed = Bed::new(Config {
        network: Some(Network {
            nodes: 450,
            ..Network::default()
        }),
        ..Config::default()
    })
    .await;
    let nodes = bed.client.instances(&[], manner()).await.unwrap();
    assert_eq!(nodes.len(), 450);
    assert_eq!(bed.fake.counts().of("DescribeInstances"), 3);
    let ids = [Filter::new("instance-id", nodes.iter().map(|one| &one.id))];
    let again = bed.client.instances(&ids, manner()).await.unwrap();
    assert_eq!(again, nodes);
    assert_eq!(bed.fake.counts().of("DescribeInstances"), 6);

    let names: Vec<String> = (0..45).map(|number| format!("group-{number:03}")).collect();
    for name in &names {
        bed.make(name, &target_group(name, Transport::Tcp, tcp_check()))
            .await;
    }
    let found = bed.client.target_groups_named(&names, manner()).await;
    assert_eq!(found.unwrap().len(), 45);
    assert_eq!(bed.fake.counts().of("DescribeTargetGroups"), 3);
    // One missing name among twenty costs a few calls, and hides no other.
    let mut some = names[..19].to_vec();
    some.insert(7, "missing".into());
    let found = bed
        .client
        .target_groups_named(&some, manner())
        .await
        .unwrap();
    let found: BTreeSet<_> = found.into_iter().map(|one| one.name).collect();
    assert_eq!(found.len(), 19);
    let calls = bed.fake.counts().of("DescribeTargetGroups") - 3;
    assert!(calls <= 11, "{calls} calls");
    let none = ["missing".to_owned()];
    let found = bed.client.load_balancers_named(&none, manner()).await;
    assert_eq!(found, Ok(Vec::new()));
    let before = bed.fake.counts().total();
    let found = bed.client.load_balancers(&[], manner()).await;
    assert_eq!(found, Ok(Vec::new()));
    assert_eq!(bed.fake.counts().total(), before, "nothing costs nothing");
    assert_eq!(
        bed.client.all_target_groups(manner()).await.unwrap().len(),
        45
    );
    assert_eq!(
        bed.client.all_load_balancers(manner()).await,
        Ok(Vec::new())
    );
}
