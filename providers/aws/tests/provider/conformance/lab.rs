//! The strict fake as a cloud of the suite. Its objects are those that Ballast can make; what the
//! network has from the start does not count.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use ballast_aws::annotations::PREFIX;
use ballast_aws::client::Clients;
use ballast_aws::provider::AwsProvider;
use ballast_aws::rate::Limits;
use ballast_aws_fake::state::load_balancers::Mapping;
use ballast_aws_fake::state::security_groups::Source;
use ballast_aws_fake::state::seed::{NODE_GROUP, VPC};
use ballast_aws_fake::state::{Snapshot, load_balancers, security_groups, target_groups};
use ballast_aws_fake::{Config, Fake, Fault};
use ballast_provider::conformance::{Crash, Field, Harness, Lab, Object, Support};
use ballast_provider::{
    Balancer, Change, Key, LoadBalancer, Mark, Observed, Owned, Provider, ProviderError, Published,
    Refusal, Released, Removal, ServiceId, Settings, Target, TargetSet, Traits, mark,
};
use futures::stream::BoxStream;

use crate::{bed, support};

/// The time between two tries.
const PAUSE: Duration = Duration::from_secs(30);

/// What an object is. The suite names objects without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    LoadBalancer,
    TargetGroup,
    SecurityGroup,
    /// One of a security group of the nodes.
    Rule,
}

/// Names depend on marks alone, so they mean the same in all clouds.
type Kinds = Arc<Mutex<BTreeMap<String, Kind>>>;

#[derive(Default)]
pub(crate) struct AwsLab {
    kinds: Kinds,
}

struct AwsHarness {
    fake: Fake,
    kinds: Kinds,
    /// All instances that still exist.
    instances: Mutex<Vec<Weak<AwsProvider>>>,
}

/// The suite's nodes are instances of the fake.
struct OnInstances(Arc<AwsProvider>);

// === impl AwsLab ===

#[async_trait]
impl Lab for AwsLab {
    async fn cloud(&self) -> Box<dyn Harness> {
        let mut config = Config::default();
        // What takes minutes is done after one pause: the suite makes hundreds of clouds.
        config.settings.provisioning = PAUSE;
        config.settings.interfaces_linger = PAUSE;
        if let Some(network) = &mut config.network {
            network.dualstack = true;
        }
        Box::new(AwsHarness {
            fake: Fake::start(config).await.unwrap(),
            kinds: Arc::clone(&self.kinds),
            instances: Mutex::default(),
        })
    }

    fn support(&self, field: Field) -> Support {
        match field {
            Field::AffinityTimeout | Field::RequestedAddresses | Field::Pool => Support::Remark,
            Field::ListenerName
            | Field::Published
            | Field::Created
            | Field::Endpoints
            | Field::Labels
            | Field::NamespaceLabels
            | Field::TargetName
            | Field::TargetAddresses
            | Field::TargetLabels
            | Field::NodeAddresses => Support::Unused,
            Field::Namespace
            | Field::Name
            | Field::Uid
            | Field::Protocol
            | Field::Port
            | Field::NodePort
            | Field::Families
            | Field::FamilyPolicy
            | Field::TrafficPolicy
            | Field::HealthCheckNodePort
            | Field::Affinity
            | Field::SourceRanges
            | Field::Settings
            | Field::ShareKey
            | Field::Pods
            | Field::TargetProviderId => Support::Honoured,
        }
    }

    fn shares(&self) -> bool {
        true
    }

    fn setting(&self) -> (String, String) {
        let cross_zone = "load_balancing.cross_zone.enabled=true";
        (format!("{PREFIX}attributes"), cross_zone.to_owned())
    }

    fn pods(&self) -> Settings {
        Settings::from([(format!("{PREFIX}nlb-target-type"), "ip".to_owned())])
    }
}

// === impl AwsHarness ===

#[async_trait]
impl Harness for AwsHarness {
    async fn provider(&self, mark: &Mark) -> Arc<dyn Provider> {
        let mut class = support::class(&self.fake);
        // The suite's Services come before any node, whose VPC and cluster say otherwise which
        // subnets to use.
        class.vpc = Some(VPC.to_owned());
        class.settings.subnets = ["a", "b", "c"]
            .map(|zone| format!("subnet-private-{zone}"))
            .into();
        let connection = support::connection(&self.fake, Limits::NONE);
        let provider = Arc::new(AwsProvider::new(
            &Clients::default(),
            connection,
            class,
            mark.clone(),
        ));
        self.instances
            .lock()
            .unwrap()
            .push(Arc::downgrade(&provider));
        Arc::new(OnInstances(provider))
    }

    async fn effects(&self) -> u64 {
        self.fake.counts().writes()
    }

    async fn set_crash(&self, crash: Option<Crash>) {
        self.fake.clear_faults();
        let fault = match crash {
            Some(Crash::Before(number)) => Fault::writes().nth(number).drop_before(),
            Some(Crash::After(number)) => Fault::writes().nth(number).drop_after(),
            None => return,
        };
        self.fake.fault(fault.fatal());
    }

    async fn crashed(&self) -> bool {
        self.fake.is_down()
    }

    async fn contents(&self) -> BTreeMap<String, Object> {
        let all = self.fake.snapshot();
        let objects = load_balancers_of(&all)
            .chain(target_groups_of(&all))
            .chain(security_groups_of(&all))
            .chain(rules_of(&all));
        let mut kinds = self.kinds.lock().unwrap();
        let mut contents = BTreeMap::new();
        for (name, kind, object) in objects {
            kinds.insert(name.clone(), kind);
            let double = contents.insert(name.clone(), object);
            assert!(double.is_none(), "two objects have the name {name}");
        }
        contents
    }

    async fn plant(&self, name: &str, tags: BTreeMap<String, String>) {
        let kind = self.kinds.lock().unwrap()[name];
        self.fake.edit(|cloud, now| match kind {
            Kind::LoadBalancer => {
                let create = load_balancers::Create {
                    name: name.to_owned(),
                    kind: Some("network".to_owned()),
                    scheme: Some("internal".to_owned()),
                    subnets: vec![Mapping {
                        subnet: "subnet-private-a".to_owned(),
                        allocation: None,
                        private_address: None,
                    }],
                    tags,
                    ..load_balancers::Create::default()
                };
                cloud.create_load_balancer(now, create).map(drop).unwrap();
            }
            Kind::TargetGroup => {
                let create = target_groups::Create {
                    name: name.to_owned(),
                    protocol: Some("TCP".to_owned()),
                    port: Some(1),
                    vpc: Some(VPC.to_owned()),
                    tags,
                    ..target_groups::Create::default()
                };
                cloud.create_target_group(now, create).map(drop).unwrap();
            }
            Kind::SecurityGroup => {
                let create = security_groups::Create {
                    name: name.to_owned(),
                    description: "planted".to_owned(),
                    vpc: Some(VPC.to_owned()),
                    tags,
                };
                cloud.create_security_group(now, create).map(drop).unwrap();
            }
            // It is part of a group.
            Kind::Rule => {}
        });
    }

    /// Time passes, and the controller follows the changes.
    async fn pause(&self) {
        self.fake.advance(PAUSE);
        let instances: Vec<_> = {
            let mut all = self.instances.lock().unwrap();
            all.retain(|one| one.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        for provider in instances {
            provider.look().await;
        }
    }
}

type Found = (String, Kind, Object);

fn object(tags: &BTreeMap<String, String>, state: String) -> Object {
    let mut tags = tags.clone();
    // It depends on IDs. Whether it is right shows in the calls of the next instance.
    if let Some(applied) = tags.get_mut(mark::APPLIED) {
        applied.clear();
    }
    Object {
        tags,
        addresses: Vec::new(),
        state,
    }
}

/// A security group without its random ID.
fn name_of(all: &Snapshot, group: &str) -> String {
    all.security_groups[group].name.clone()
}

fn load_balancers_of(all: &Snapshot) -> impl Iterator<Item = Found> {
    all.load_balancers.values().map(|one| {
        let listeners = all.listeners.values();
        let mut listeners: Vec<String> = listeners
            .filter(|listener| listener.load_balancer == one.arn)
            .map(|listener| {
                let to = listener.forward.iter();
                let to: Vec<&str> = to
                    .map(|(arn, _)| all.target_groups[arn].name.as_str())
                    .collect();
                format!("{} {} {to:?}", listener.protocol, listener.port)
            })
            .collect();
        listeners.sort();
        let groups = one.security_groups.iter().map(|id| name_of(all, id));
        let mut groups: Vec<String> = groups.collect();
        groups.sort();
        let subnets: Vec<&str> = one.zones.values().map(|it| it.subnet.as_str()).collect();
        let state = format!(
            "{} {} {subnets:?} {groups:?} {listeners:?} {:?}",
            one.scheme, one.ip_address_type, one.attributes
        );
        (
            one.name.clone(),
            Kind::LoadBalancer,
            object(&one.tags, state),
        )
    })
}

fn target_groups_of(all: &Snapshot) -> impl Iterator<Item = Found> {
    all.target_groups.values().map(|one| {
        let targets = one.targets.iter();
        let targets: Vec<_> = targets
            .filter(|(_, target)| target.drains.is_none())
            .map(|(id, _)| id)
            .collect();
        let state = format!(
            "{} {} {:?} {:?} {targets:?}",
            one.protocol, one.port, one.check, one.attributes
        );
        (
            one.name.clone(),
            Kind::TargetGroup,
            object(&one.tags, state),
        )
    })
}

fn security_groups_of(all: &Snapshot) -> impl Iterator<Item = Found> {
    let made = all.security_groups.values();
    made.filter(|one| one.id != NODE_GROUP).map(|one| {
        let rules = one.ingress.iter().map(|rule| &rule.permission);
        let mut rules: Vec<_> = rules.collect();
        rules.sort();
        (
            one.name.clone(),
            Kind::SecurityGroup,
            object(&one.tags, format!("{rules:?}")),
        )
    })
}

/// The rules that let load balancers reach the nodes. Each belongs to one class.
fn rules_of(all: &Snapshot) -> impl Iterator<Item = Found> {
    let nodes = all.security_groups.get(NODE_GROUP);
    let rules = nodes.into_iter().flat_map(|nodes| &nodes.ingress);
    rules.map(|rule| {
        let permission = &rule.permission;
        let Source::Group(group) = &permission.source else {
            panic!("{rule:?}");
        };
        let ports = (&permission.protocol, permission.from, permission.to);
        (
            format!("rule for {}", name_of(all, group)),
            Kind::Rule,
            object(&BTreeMap::new(), format!("{ports:?}")),
        )
    })
}

// === impl OnInstances ===

#[async_trait]
impl Provider for OnInstances {
    fn traits(&self) -> Traits {
        self.0.traits()
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        self.0.key(load_balancer)
    }

    fn uses_endpoints(&self, load_balancer: &LoadBalancer) -> bool {
        self.0.uses_endpoints(load_balancer)
    }

    fn validate(&self, balancer: &Balancer) -> Result<(), Refusal> {
        self.0.validate(balancer)
    }

    async fn restore(&self, published: Vec<Published>) -> Result<(), ProviderError> {
        self.0.restore(published).await
    }

    async fn ensure(
        &self,
        balancer: &Balancer,
    ) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        self.0.ensure(balancer).await
    }

    async fn retarget(&self, targets: &TargetSet, keys: &[Key]) -> Result<(), ProviderError> {
        let on_instance = |node: &Target| {
            let mut node = node.clone();
            node.provider_id = node.provider_id.map(|id| {
                let number = id.trim_start_matches("conformance:///node-").parse();
                let number: u16 = number.unwrap();
                // The suite's nodes have IPv4 alone, and dual-stack Services need more.
                let ipv6 = [0x2001, 0xdb8, 0, 0x64, 0, 0, 1, number];
                node.addresses.push(IpAddr::from(ipv6));
                format!("aws:///zone/{}", bed::instance(number))
            });
            node
        };
        let known = TargetSet {
            nodes: targets.nodes.iter().map(on_instance).collect(),
            addresses: targets.addresses.clone(),
        };
        self.0.retarget(&known, keys).await
    }

    async fn release(
        &self,
        id: &ServiceId,
        key: &Key,
        removal: Removal,
    ) -> Result<Released, ProviderError> {
        self.0.release(id, key, removal).await
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        self.0.inventory().await
    }

    async fn survey(&self) -> Result<Vec<Owned>, ProviderError> {
        self.0.survey().await
    }

    async fn tag(
        &self,
        objects: &[Owned],
        tags: &std::collections::BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        self.0.tag(objects, tags).await
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        self.0.changes()
    }
}
