//! A fake and a client of it, and calls as the planner makes them.

use std::collections::BTreeMap;
use std::time::Duration;

use ballast_aws::call::{Call, Ref};
use ballast_aws::client::{
    Answer, CallError, CallerIdentity, Cause, Client, Connection, Endpoints, Ids, Manner,
};
use ballast_aws::desired::{
    Addresses, Check, Rule, Source, Subnet, TargetGroup, Traffic, Transport,
};
use ballast_aws::forward::Forward;
use ballast_aws::nodes::Selector;
use ballast_aws::rate::{Limits, Urgency};
use ballast_aws::settings::{CheckProtocol, Scheme};
use ballast_aws::target::TargetId;
use ballast_aws_fake::state::seed::VPC;
use ballast_aws_fake::{Config, Fake};
use ballast_provider::Protocol;

pub(crate) type Tags = BTreeMap<String, String>;

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A fake, and a client of it.
pub(crate) struct Bed {
    pub(crate) fake: Fake,
    pub(crate) client: Client,
    pub(crate) ids: Ids,
}

impl Bed {
    pub(crate) async fn new(config: Config) -> Self {
        Self::limited(config, Limits::NONE).await
    }

    pub(crate) async fn limited(config: Config, limits: Limits) -> Self {
        let fake = Fake::start(config).await.unwrap();
        let client = Client::connect(&connection(&fake, limits)).await.unwrap();
        let ids = Ids {
            vpc: VPC.into(),
            ..Ids::default()
        };
        Self { fake, client, ids }
    }

    pub(crate) async fn call(&self, call: &Call) -> Result<Answer, CallError> {
        let urgency = call.urgency();
        self.client.call(call, &self.ids, urgency, PATIENCE).await
    }

    /// Makes a call that creates something, and remembers its ID under `name`.
    pub(crate) async fn make(&mut self, name: &str, call: &Call) -> Answer {
        let answer = self.call(call).await.unwrap();
        let id = answer.id.clone().unwrap();
        self.ids.made.insert(name.into(), id);
        answer
    }

    pub(crate) fn id(&self, name: &str) -> String {
        self.ids.made[name].clone()
    }

    /// The code that a call fails with, and what it means.
    pub(crate) async fn refused(&self, call: &Call) -> (String, Cause) {
        let error = self.call(call).await.unwrap_err();
        (error.code, error.cause)
    }
}

/// The client counts as many calls of each action as the fake has seen: what it calls an action
/// is what it sends.
impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut counted = BTreeMap::<String, u64>::new();
        for count in self.client.counts() {
            if count.result != "postponed" {
                *counted.entry(count.action.name().into()).or_default() += count.calls;
            }
        }
        assert_eq!(counted, self.fake.counts().actions);
    }
}

pub(crate) fn connection(fake: &Fake, limits: Limits) -> Connection {
    let credentials = &fake.credentials()[0];
    Connection {
        region: Some(fake.region()),
        endpoints: Endpoints {
            load_balancing: Some(fake.url()),
            ec2: Some(fake.url()),
        },
        identity: CallerIdentity::Fixed {
            key: credentials.access_key.clone(),
            secret: credentials.secret.clone(),
        },
        limits,
    }
}

pub(crate) fn manner() -> Manner {
    Manner::new(Urgency::Service, PATIENCE)
}

pub(crate) fn tags(pairs: &[(&str, &str)]) -> Tags {
    let all = pairs.iter();
    all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

pub(crate) fn made(name: &str) -> Ref {
    Ref::Made(name.into())
}

pub(crate) fn rule(port: u16, source: Source) -> Rule {
    let traffic = Traffic::Port(Protocol::Tcp, port);
    Rule { traffic, source }
}

pub(crate) fn subnet(id: &str) -> Subnet {
    let zone = id.rsplit('-').next().unwrap();
    Subnet {
        id: id.into(),
        zone: format!("eu-central-1{zone}"),
        elastic_address: None,
        private_address: None,
    }
}

pub(crate) fn http_check() -> Check {
    Check {
        protocol: CheckProtocol::Http,
        port: Some(10_256),
        path: Some("/healthz".into()),
        success_codes: Some("200".into()),
        interval: 10,
        timeout: 6,
        healthy_threshold: 2,
        unhealthy_threshold: 2,
    }
}

pub(crate) fn tcp_check() -> Check {
    Check {
        protocol: CheckProtocol::Tcp,
        port: None,
        path: None,
        success_codes: None,
        interval: 30,
        timeout: 10,
        healthy_threshold: 3,
        unhealthy_threshold: 3,
    }
}

pub(crate) fn target_group(name: &str, transport: Transport, check: Check) -> Call {
    Call::CreateTargetGroup {
        target_group: TargetGroup {
            target_type: ballast_aws::target::TargetType::Instance,
            family: ballast_provider::Family::V4,
            name: name.into(),
            transport,
            tls: false,
            port: 30_080,
            check,
            attributes: BTreeMap::new(),
            selector: Selector::default(),
            tags: BTreeMap::new(),
        },
        tags: tags(&[("owner", "test")]),
    }
}

pub(crate) fn security_group(name: &str) -> Call {
    Call::CreateSecurityGroup {
        name: name.into(),
        tags: tags(&[("owner", "test")]),
    }
}

pub(crate) fn load_balancer(name: &str, subnets: Vec<Subnet>) -> Call {
    Call::CreateLoadBalancer {
        name: name.into(),
        scheme: Scheme::Internal,
        addresses: Addresses::Ipv4,
        subnets,
        security_groups: vec![made("group")],
        tags: tags(&[("owner", "test")]),
    }
}

pub(crate) fn listener(port: u16, transport: Transport, group: &str) -> Call {
    Call::CreateListener {
        name: format!("port {port}"),
        load_balancer: made("balancer"),
        port,
        transport,
        tls: None,
        forward: Forward::to(made(group)),
        tags: tags(&[("owner", "test")]),
    }
}

pub(crate) fn targets(ids: &[&str]) -> Vec<TargetId> {
    let all = ids.iter().map(|id| TargetId::Instance((*id).to_owned()));
    all.collect()
}

/// A load balancer with one port and two targets.
pub(crate) async fn bed_with_a_load_balancer() -> Bed {
    let mut bed = Bed::new(Config::default()).await;
    bed.make("group", &security_group("clients")).await;
    bed.make("web", &target_group("web", Transport::Tcp, http_check()))
        .await;
    let subnets = vec![subnet("subnet-private-a"), subnet("subnet-private-b")];
    bed.make("balancer", &load_balancer("front", subnets)).await;
    bed.make("listener", &listener(80, Transport::Tcp, "web"))
        .await;
    bed
}
