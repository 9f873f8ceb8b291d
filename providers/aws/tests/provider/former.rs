//! What other controllers have made before Ballast comes, and a Service that takes it over. It makes things in the
//! fake cloud and looks at them; it asserts nothing.

use std::time::Duration;

use ballast_aws::adopt::ADOPT;
use ballast_aws_fake::state::Tags;
use ballast_aws_fake::state::listeners::Change;
use ballast_aws_fake::state::load_balancers::{Create, Mapping};
use ballast_aws_fake::state::seed::{NODE_GROUP, VPC};
use ballast_aws_fake::state::target_groups::Create as CreateTargetGroup;
use ballast_aws_fake::state::targets::Description;
use ballast_provider::{LoadBalancer, mark};

use crate::bed::{Bed, instance, service};

/// Who has made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// The AWS Load Balancer Controller: with a security group, and tags on everything.
    Lbc,
    /// cloud-provider-aws: without security groups, and listeners without tags.
    InTree,
}

/// A load balancer that another controller has made for a Service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Former<'a> {
    pub(crate) maker: Maker,
    /// By what name its maker knows the cluster.
    pub(crate) cluster: &'a str,
    /// `namespace/name` of the Service.
    pub(crate) service: &'a str,
    pub(crate) name: &'a str,
    /// The IDs of its security groups.
    pub(crate) groups: &'a [&'a str],
    /// Each has a listener and a target group, with a node port 30000 higher.
    pub(crate) ports: &'a [u16],
    /// The nodes that are targets of each port.
    pub(crate) nodes: &'a [u16],
}

/// The Service shop/web with these ports; it takes this load balancer over.
pub(crate) fn adopting(arn: &str, ports: &[u16]) -> LoadBalancer {
    let ports: Vec<(u16, u16)> = ports.iter().map(|&port| (port, 30_000 + port)).collect();
    let mut web = service("web", &ports);
    web.settings.insert(ADOPT.into(), arn.into());
    web
}

/// Whether it is there and has the mark of a cluster with Ballast.
pub(crate) fn marked(bed: &Bed, arn: &str) -> bool {
    let all = bed.fake.snapshot().load_balancers;
    all.get(arn)
        .is_some_and(|one| one.tags.contains_key(mark::CLUSTER))
}

// === impl Maker ===

impl Maker {
    pub(crate) const ALL: [Self; 2] = [Self::Lbc, Self::InTree];

    /// By which it knows what it has made for a Service.
    pub(crate) fn tags(self, cluster: &str, service: &str) -> Tags {
        let pairs = match self {
            Self::Lbc => vec![
                ("elbv2.k8s.aws/cluster".to_owned(), cluster),
                ("service.k8s.aws/stack".to_owned(), service),
                ("service.k8s.aws/resource".to_owned(), "LoadBalancer"),
            ],
            Self::InTree => vec![
                (format!("kubernetes.io/cluster/{cluster}"), "owned"),
                ("kubernetes.io/service-name".to_owned(), service),
            ],
        };
        let pairs = pairs.into_iter();
        pairs.map(|(key, value)| (key, value.to_owned())).collect()
    }
}

// === impl Former ===

impl Former<'static> {
    /// What serves port 80 of shop/web on all nodes of a bed.
    pub(crate) fn of(maker: Maker) -> Self {
        Self {
            maker,
            cluster: "prod",
            service: "shop/web",
            name: "k8s-shop-web-01",
            groups: match maker {
                Maker::Lbc => &[NODE_GROUP],
                Maker::InTree => &[],
            },
            ports: &[80],
            nodes: &[1, 2, 3],
        }
    }
}

impl Former<'_> {
    /// Makes it. Returns the ARN of the load balancer.
    pub(crate) fn make(&self, bed: &Bed) -> String {
        let tags = self.maker.tags(self.cluster, self.service);
        let subnets = ["subnet-private-a", "subnet-private-b"].map(|id| Mapping {
            subnet: id.into(),
            ..Mapping::default()
        });
        let load_balancer = Create {
            name: self.name.into(),
            kind: Some("network".into()),
            scheme: Some("internal".into()),
            ip_address_type: None,
            subnets: subnets.into(),
            security_groups: self.groups.iter().map(|&id| id.into()).collect(),
            tags: tags.clone(),
        };
        bed.fake.edit(|cloud, now| {
            let arn = cloud.create_load_balancer(now, load_balancer).unwrap().arn;
            for &port in self.ports {
                let create = CreateTargetGroup {
                    name: format!("{}-{port}", self.name),
                    protocol: Some("TCP".into()),
                    port: Some(30_000 + port),
                    vpc: Some(VPC.into()),
                    tags: tags.clone(),
                    ..CreateTargetGroup::default()
                };
                let group = cloud.create_target_group(now, create).unwrap().arn;
                let nodes = self.nodes.iter().map(|&number| Description {
                    id: instance(number),
                    port: None,
                    zone: None,
                });
                let nodes: Vec<Description> = nodes.collect();
                if !nodes.is_empty() {
                    cloud.register_targets(now, &group, &nodes).unwrap();
                }
                let listener = Change {
                    port: Some(port),
                    protocol: Some("TCP".into()),
                    forward: Some(vec![(group, None)]),
                    ..Change::default()
                };
                let tags = match self.maker {
                    Maker::Lbc => tags.clone(),
                    Maker::InTree => Tags::new(),
                };
                cloud.create_listener(now, &arn, listener, tags).unwrap();
            }
            arn
        })
    }

    /// A bed in which it is active and serves, and its ARN.
    pub(crate) async fn bed(&self) -> (Bed, String) {
        let bed = Bed::new().await;
        let arn = self.make(&bed);
        bed.fake.advance(Duration::from_mins(10));
        (bed, arn)
    }
}
