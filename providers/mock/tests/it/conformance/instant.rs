//! The instant provider's cloud as a harness.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use ballast_mock::InstantProvider;
use ballast_mock::instant::{Fault, InstantCloud};
use ballast_provider::conformance::{Crash, Field, Harness, Lab, Object, Support};
use ballast_provider::{
    Affinity, Balancer, Family, Listener, LoadBalancer, Mark, Member, Protocol, Provider,
    TrafficPolicy, mark,
};

pub(crate) struct InstantLab {
    pub(crate) seed: u64,
}

struct InstantHarness {
    cloud: Arc<InstantCloud>,
}

#[async_trait]
impl Lab for InstantLab {
    async fn cloud(&self) -> Box<dyn Harness> {
        Box::new(InstantHarness {
            cloud: Arc::default(),
        })
    }

    fn support(&self, field: Field) -> Support {
        match field {
            Field::Pool | Field::Settings => Support::Remark,
            Field::Created
            | Field::Endpoints
            | Field::Labels
            | Field::NamespaceLabels
            | Field::Pods
            | Field::NodeAddresses => Support::Unused,
            Field::Namespace
            | Field::Name
            | Field::Uid
            | Field::ListenerName
            | Field::Protocol
            | Field::Port
            | Field::NodePort
            | Field::Families
            | Field::FamilyPolicy
            | Field::TrafficPolicy
            | Field::HealthCheckNodePort
            | Field::Affinity
            | Field::AffinityTimeout
            | Field::SourceRanges
            | Field::RequestedAddresses
            | Field::ShareKey
            | Field::Published
            | Field::TargetName
            | Field::TargetAddresses
            | Field::TargetProviderId
            | Field::TargetLabels => Support::Honoured,
        }
    }

    fn shares(&self) -> bool {
        true
    }

    fn seed(&self) -> u64 {
        self.seed
    }
}

#[async_trait]
impl Harness for InstantHarness {
    async fn provider(&self, mark: &Mark) -> Arc<dyn Provider> {
        Arc::new(InstantProvider::on(Arc::clone(&self.cloud), mark.clone()))
    }

    async fn effects(&self) -> u64 {
        self.cloud.calls().effects
    }

    async fn set_crash(&self, crash: Option<Crash>) {
        self.cloud.set_fault(crash.map(|crash| match crash {
            Crash::Before(number) => Fault::Before(number),
            Crash::After(number) => Fault::After(number),
        }));
    }

    async fn crashed(&self) -> bool {
        self.cloud.is_broken()
    }

    async fn contents(&self) -> BTreeMap<String, Object> {
        let members = self.cloud.contents().into_iter().map(|member| {
            let object = Object {
                tags: member.owned.tags,
                addresses: vec![member.address],
                state: member.fingerprint.to_string(),
            };
            (member.owned.name, object)
        });
        let sets = self.cloud.target_sets().into_iter().map(|(mark, hash)| {
            let object = Object {
                tags: BTreeMap::new(),
                addresses: Vec::new(),
                state: hash.to_string(),
            };
            (
                format!("targets of {}/{}", mark.cluster, mark.class),
                object,
            )
        });
        members.chain(sets).collect()
    }

    /// Names depend on the owner here: a foreign object is another owner's balancer for the
    /// same Service. Without an owner there is nothing to plant.
    async fn plant(&self, _name: &str, tags: BTreeMap<String, String>) {
        let (Some(cluster), Some(class)) = (tags.get(mark::CLUSTER), tags.get(mark::CLASS)) else {
            return;
        };
        let provider = InstantProvider::on(
            Arc::clone(&self.cloud),
            Mark {
                cluster: cluster.clone(),
                cluster_name: "planted".into(),
                class: class.clone(),
                writer: "1".into(),
            },
        );
        let load_balancer = LoadBalancer {
            id: mark::service_of(&tags).unwrap(),
            listeners: vec![Listener {
                name: None,
                protocol: Protocol::Tcp,
                port: 1,
                node_port: 1,
            }],
            families: vec![Family::V4],
            traffic_policy: TrafficPolicy::Cluster,
            affinity: Affinity::None,
            source_ranges: Vec::new(),
            requested_addresses: Vec::new(),
            share_key: None,
            settings: ballast_provider::Settings::new(),
        };
        let balancer = Balancer {
            key: provider.key(&load_balancer),
            members: vec![Member {
                load_balancer,
                published: Vec::new(),
                placement: ballast_provider::Placement::default(),
                endpoints: None,
            }],
            kept: std::collections::BTreeSet::new(),
            deletes_nothing: false,
        };
        provider.ensure(&balancer).await.unwrap();
    }

    async fn pause(&self) {}
}
