//! A fake cloud, and a provider on it that can be killed and started again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_aws::client::Clients;
use ballast_aws::provider::AwsProvider;
use ballast_aws::rate::Limits;
use ballast_aws::settings::ClassSettings;
use ballast_aws_fake::state::Snapshot;
use ballast_aws_fake::state::security_groups::SecurityGroup;
use ballast_aws_fake::state::seed::NODE_GROUP;
use ballast_aws_fake::state::target_groups::TargetGroup;
use ballast_aws_fake::{Config, Fake};
use ballast_provider::mark::NOTES;
use ballast_provider::{
    Key, Labels, LoadBalancer, Observed, Provider, ProviderError, Published, Released, Removal,
    Target, TargetSet,
};

use crate::support::{class, connection, mark};
pub(crate) use crate::support::{dual, ensure, service, settle, with, with_pods};

const CLUSTER: &str = "cluster-1";
/// The group of [`Bed::second_group`].
pub(crate) const SECOND_GROUP: &str = "sg-0000000000000more";

pub(crate) struct Bed {
    pub(crate) fake: Fake,
    pub(crate) class: ClassSettings,
    /// The first node of the cluster.
    pub(crate) first_node: u16,
    /// The last one.
    pub(crate) nodes: u16,
    /// Whether the nodes report their IPv6 addresses.
    pub(crate) ipv6: bool,
    /// The labels of nodes that have any.
    pub(crate) labels: BTreeMap<u16, Arc<Labels>>,
}

pub(crate) fn instance(number: u16) -> String {
    format!("i-{number:08}")
}

/// The ARN of a certificate of the account.
pub(crate) fn certificate(id: &str) -> String {
    format!("arn:aws:acm:eu-central-1:123456789012:certificate/{id}")
}

// === impl Bed ===

impl Bed {
    pub(crate) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    /// All subnets and nodes have both families.
    pub(crate) async fn with(mut config: Config) -> Self {
        if let Some(network) = &mut config.network {
            network.dualstack = true;
        }
        // What AWS says of itself in some places and not in others.
        config.settings.one_family_per_action = true;
        config.settings.dualstack_udp_needs_ipv6 = true;
        let fake = Fake::start(config).await.unwrap();
        let class = class(&fake);
        for id in ["one", "two", "three"] {
            let issued = fake.edit(|cloud, _| cloud.issue_certificate(id));
            assert_eq!(issued, certificate(id));
        }
        Self {
            fake,
            class,
            first_node: 1,
            nodes: 3,
            ipv6: true,
            labels: BTreeMap::from([(1, Arc::new([("pool", "edge")].into()))]),
        }
    }

    /// A process starts: it restores, and learns the nodes.
    pub(crate) async fn start(&self) -> Result<AwsProvider, ProviderError> {
        self.start_for(CLUSTER).await
    }

    /// The same when a Service has published something.
    pub(crate) async fn start_after(
        &self,
        service: &LoadBalancer,
        observed: &Observed,
    ) -> Result<AwsProvider, ProviderError> {
        let provider = self.provider_of(CLUSTER);
        let all = observed.ingress.iter();
        let published = Published {
            id: service.id.clone(),
            addresses: Vec::new(),
            hostnames: all
                .filter_map(|one| Some(one.hostname()?.to_owned()))
                .collect(),
        };
        provider.restore(vec![published]).await?;
        provider.inventory().await?;
        self.retarget(&provider).await?;
        Ok(provider)
    }

    /// The same for another cluster of the same account.
    pub(crate) async fn start_for(&self, cluster: &str) -> Result<AwsProvider, ProviderError> {
        let provider = self.provider_of(cluster);
        provider.restore(Vec::new()).await?;
        provider.inventory().await?;
        self.retarget(&provider).await?;
        Ok(provider)
    }

    fn provider_of(&self, cluster: &str) -> AwsProvider {
        let connection = connection(&self.fake, Limits::NONE);
        AwsProvider::new(
            &Clients::default(),
            connection,
            self.class.clone(),
            mark(cluster),
        )
    }

    pub(crate) fn targets(&self) -> TargetSet {
        let ipv6 = |number| {
            let of = |cloud: &mut ballast_aws_fake::state::Cloud, _| {
                let node = cloud.instances.get(&instance(number));
                node.and_then(|node| node.ipv6)
            };
            self.fake.edit(of).map(IpAddr::V6).filter(|_| self.ipv6)
        };
        let node = |number| Target {
            name: format!("node-{number}"),
            addresses: [IpAddr::from([10, 0, 100, 4])]
                .into_iter()
                .chain(ipv6(number))
                .collect(),
            provider_id: Some(format!("aws:///zone/{}", instance(number))),
            labels: self.labels.get(&number).cloned().unwrap_or_default(),
        };
        TargetSet::of_nodes(
            (self.first_node..=self.nodes)
                .map(node)
                .collect::<BTreeSet<_>>(),
        )
    }

    pub(crate) async fn retarget(&self, provider: &AwsProvider) -> Result<(), ProviderError> {
        provider.retarget(&self.targets(), &[]).await
    }

    /// One node more, which exists in the cloud.
    pub(crate) fn add_node(&mut self) {
        self.nodes += 1;
        let number = self.nodes;
        let network = ballast_aws_fake::state::seed::Network {
            dualstack: true,
            ..ballast_aws_fake::state::seed::Network::default()
        };
        self.fake.edit(|cloud, _| cloud.add_node(number, &network));
    }

    /// The first node has a second security group. The two are alike, so that nobody can say which one is for the
    /// rules of load balancers.
    pub(crate) fn second_group(&self) {
        self.fake.edit(|cloud, _| {
            let mut other = cloud.security_groups.get(NODE_GROUP).unwrap().clone();
            (other.id, other.name) = (SECOND_GROUP.into(), "more".into());
            let node = cloud.instances.get_mut(&instance(1)).unwrap();
            node.groups.push(SECOND_GROUP.into());
            cloud.security_groups.put(SECOND_GROUP.into(), other);
        });
    }

    /// So many entries a prefix list may have, and counts as so many rules.
    pub(crate) fn set_max_entries(&self, list: &str, number: usize) {
        self.fake.edit(|cloud, _| {
            cloud.prefix_lists.get_mut(list).unwrap().max_entries = number;
        });
    }

    /// Whether the health checks of these nodes succeed.
    pub(crate) fn set_healthy(&self, nodes: impl IntoIterator<Item = u16>, healthy: bool) {
        self.fake.edit(|cloud, _| {
            for number in nodes {
                cloud.instances.get_mut(&instance(number)).unwrap().healthy = healthy;
            }
        });
    }

    /// The calls of something, by action, in order.
    pub(crate) async fn calls_of<T>(&self, work: impl Future<Output = T>) -> (T, Vec<String>) {
        self.fake.reset_calls();
        let result = work.await;
        let calls = self.fake.calls().into_iter().map(|call| call.action);
        (result, calls.collect())
    }

    /// Nothing of Ballast is left.
    pub(crate) fn is_empty(&self) -> bool {
        let all = self.fake.snapshot();
        let own = all
            .security_groups
            .values()
            .filter(|one| one.name.starts_with("bl"));
        let rules: usize = all
            .security_groups
            .values()
            .map(|one| one.ingress.len())
            .sum();
        all.load_balancers.is_empty()
            && all.target_groups.is_empty()
            && own.count() == 0
            && rules == 0
    }
}

/// Releases until nothing is left; the cloud's clock moves on.
pub(crate) async fn delete(bed: &Bed, provider: &impl Provider, service: &LoadBalancer) -> usize {
    let key = Key::alone(&service.id);
    for turn in 1..20 {
        let released = provider.release(&service.id, &key, Removal::Delete).await;
        if released.unwrap() == Released::Gone {
            return turn;
        }
        bed.fake.advance(Duration::from_secs(20));
    }
    panic!("it is never gone");
}

/// The ports that listen.
pub(crate) fn ports(bed: &Bed) -> BTreeSet<u16> {
    let all = bed.fake.snapshot();
    all.listeners.values().map(|one| one.port).collect()
}

/// The calls that change something.
pub(crate) fn writes(calls: &[String]) -> Vec<&str> {
    let all = calls.iter().map(String::as_str);
    all.filter(|it| !it.starts_with("Describe")).collect()
}

/// The instances that a target group has, without those that drain.
pub(crate) fn registered(group: &TargetGroup) -> Vec<&str> {
    let all = group.targets.iter();
    all.filter(|(_, target)| target.drains.is_none())
        .map(|((id, _), _)| id.as_str())
        .collect()
}

/// The addresses and ports that a target group has, without those that drain.
pub(crate) fn addresses(group: &TargetGroup) -> Vec<String> {
    let stay = group.targets.iter().filter(|(_, it)| it.drains.is_none());
    stay.map(|((id, port), _)| format!("{id}:{port}")).collect()
}

/// Tags without those that say when something happened.
fn lasting(tags: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let all = tags
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    all.filter(|(key, _)| !NOTES.contains(key)).collect()
}

/// What exists, without IDs and times.
pub(crate) fn essence(all: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    let name_of = |arn: &str| {
        let group = all.target_groups.get(arn);
        group.map_or_else(|| arn.to_owned(), |group| group.name.clone())
    };
    let security_group = |id: &str| {
        let group = all.security_groups.get(id);
        group.map_or_else(|| id.to_owned(), |group| group.name.clone())
    };
    for one in all.load_balancers.values() {
        let subnets: BTreeSet<&str> = one.zones.values().map(|it| it.subnet.as_str()).collect();
        let groups: BTreeSet<String> = one
            .security_groups
            .iter()
            .map(|id| security_group(id))
            .collect();
        lines.push(format!(
            "{} {} {} {} {subnets:?} {groups:?} {:?} {:?} {:?} {:?}",
            one.name,
            one.scheme,
            one.ip_address_type,
            one.source_nat,
            one.private_link_rules,
            one.capacity.as_ref().map(|it| it.units),
            one.attributes,
            lasting(&one.tags)
        ));
    }
    for one in all.target_groups.values() {
        let stay = one.targets.iter().filter(|(_, it)| it.drains.is_none());
        let targets: Vec<_> = stay.map(|(target, _)| target).collect();
        lines.push(format!(
            "{} {} {} {} {:?} {:?} {:?} {targets:?}",
            one.name,
            one.protocol,
            one.port,
            one.ip_address_type,
            one.check,
            one.attributes,
            lasting(&one.tags)
        ));
    }
    let sends = |forward: &[(String, Option<u32>)]| -> Vec<(String, Option<u32>)> {
        let all = forward.iter().map(|(arn, weight)| (name_of(arn), *weight));
        all.collect()
    };
    for one in all.rules.values() {
        let port = all.listeners.get(&one.listener).map(|it| it.port);
        lines.push(format!(
            "rule {port:?} {} {:?} {:?}",
            one.family,
            sends(&one.forward),
            lasting(&one.tags)
        ));
    }
    for one in all.listeners.values() {
        let groups = sends(&one.forward);
        lines.push(format!(
            "listener {} {} {groups:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            one.port,
            one.protocol,
            one.certificate,
            one.certificates,
            one.ssl_policy,
            one.alpn,
            one.attributes,
            lasting(&one.tags)
        ));
    }
    for one in all.security_groups.values() {
        let rules: BTreeSet<String> = one
            .ingress
            .iter()
            .map(|rule| {
                let permits = format!("{:?}", rule.permission);
                let named =
                    |text: String, group: &SecurityGroup| text.replace(&group.id, &group.name);
                all.security_groups.values().fold(permits, named)
            })
            .collect();
        lines.push(format!("{} {rules:?} {:?}", one.name, lasting(&one.tags)));
    }
    lines.sort();
    lines
}
