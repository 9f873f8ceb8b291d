//! A class for AWS on the real controller. The cloud is the strict fake, where time runs faster; nodes
//! are its instances.

mod guards;
mod pods;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_e2e::installation::{Installation, USER, aws_fake};
use ballast_e2e::{Host, Signal, eventually};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::common::crowd::QUICK;
use crate::common::{
    PROGRAMMED, Plan, SOON, Site, annotated, condition, load_balancer, status_of, told,
};

const FAKE: &str = "aws-fake";
const PORT: u16 = 5055;
const REPORT: u16 = 5056;
const TARGETS_HEALTHY: &str = "ballast.dev/TargetsHealthy";
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// The polls of the controller take most of the time.
const PATIENCE: Duration = Duration::from_mins(2);

/// Ballast with a class `aws`, and the fake.
pub(crate) struct Aws<'a> {
    site: &'a Site<'a>,
    ballast: Installation<'a>,
}

// === impl Aws ===

impl<'a> Aws<'a> {
    /// Starts the fake with so many instances, tells the nodes theirs, and makes the class.
    pub(crate) async fn start(site: &'a Site<'a>, instances: u16) -> Result<Self> {
        let address = site.lab.addresses(Host::Cloud)[0];
        let program = aws_fake()?.display().to_string();
        let (listen, report) = (format!("{address}:{PORT}"), format!("{address}:{REPORT}"));
        let nodes = instances.to_string();
        let argv = [
            &program, &listen, "--report", &report, "--nodes", &nodes, "--speed", "20",
        ];
        site.lab.spawn(FAKE, Host::Cloud, argv, &[]).await?;
        let environment = eventually(SOON, || async { Self::environment(site) }).await?;
        for number in 1..=2 {
            identify(site, &Host::Node(number).name(), u16::from(number)).await?;
        }
        site.apply("apiVersion: ballast.dev/v1alpha1\nkind: LoadBalancerClass\nmetadata: {name: aws}\nspec: {aws: {region: eu-central-1, scheme: internal}}\n")
            .await?;
        Ok(Self {
            site,
            ballast: site.ballast.clone().with_environment(environment),
        })
    }

    /// The variables that the fake prints for its clients.
    fn environment(site: &Site<'_>) -> Result<Vec<(String, String)>> {
        let log = site.lab.dir().join(format!("logs/{FAKE}.log"));
        let log = std::fs::read_to_string(log)?;
        let lines = log.lines().filter_map(|line| line.strip_prefix("export "));
        let variables: Vec<_> = lines
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        ensure!(variables.len() == 5, "{log}");
        Ok(variables)
    }

    pub(crate) async fn start_controller(&self, replica: &str) -> Result<()> {
        self.ballast.start_controller(replica, QUICK).await
    }

    /// What exists in the cloud.
    pub(crate) async fn report(&self) -> Result<Value> {
        let address = self.site.lab.addresses(Host::Cloud)[0];
        let url = format!("http://{address}:{REPORT}/");
        let text = self.site.curl(Host::ControlPlane, &url).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The one load balancer.
    async fn balancer(&self) -> Result<Value> {
        let report = self.report().await?;
        let all = report["loadBalancers"].as_array().context("no list")?;
        ensure!(all.len() == 1, "{report}");
        Ok(all[0].clone())
    }

    /// The one of a Service in `default`.
    async fn balancer_of(&self, service: &str) -> Result<Value> {
        let report = self.report().await?;
        let wanted = format!("default/{service}");
        let mut all = report["loadBalancers"].as_array().into_iter().flatten();
        let found = all.find(|it| it["tags"]["ballast.dev/service"] == wanted.as_str());
        found
            .cloned()
            .with_context(|| format!("none of {wanted}: {report}"))
    }

    /// The ports of its listeners.
    async fn ports(&self) -> Result<BTreeSet<u64>> {
        let balancer = self.balancer().await?;
        let listeners = balancer["listeners"].as_array().context("no listeners")?;
        let ports = listeners.iter().filter_map(|it| it["port"].as_u64());
        Ok(ports.collect())
    }

    async fn mutating(&self) -> Result<u64> {
        let report = self.report().await?;
        report["mutating"].as_u64().context("no count")
    }

    /// Waits until every target group has these instances on its node port.
    async fn has_targets(&self, service: &str, instances: &[u16]) -> Result<()> {
        eventually(SOON, || async {
            let ports = node_ports(&self.site.get(service).await?);
            let expected: BTreeSet<(String, u64)> = ports
                .iter()
                .flat_map(|port| instances.iter().map(|it| (instance(*it), *port)))
                .collect();
            let balancer = self.balancer().await?;
            let now = targets(&balancer)?;
            ensure!(
                now == expected,
                "targets are {now:?}, not {expected:?}: {balancer}"
            );
            Ok(())
        })
        .await
    }

    /// Runs a change of the nodes, waits until these are the targets, and prints what it cost.
    async fn follows(
        &self,
        what: &str,
        instances: &[u16],
        act: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let before = self.mutating().await?;
        act.await.with_context(|| what.to_owned())?;
        let followed = self.has_targets("web", instances).await;
        followed.with_context(|| what.to_owned())?;
        let calls = self.mutating().await? - before;
        println!("{what}: {calls} calls that change something");
        Ok(())
    }

    async fn is_empty(&self) -> Result<()> {
        let report = self.report().await?;
        let security = report["securityGroups"].as_array().context("no groups")?;
        let rest: Vec<_> = security
            .iter()
            .filter(|it| it["name"] != "nodes" || it["rules"] != 0)
            .collect();
        ensure!(
            report["loadBalancers"] == json!([]) && report["targetGroups"] == 0 && rest.is_empty(),
            "left in the cloud: {report}"
        );
        Ok(())
    }
}

fn instance(number: u16) -> String {
    format!("i-{number:08}")
}

/// The targets of a load balancer with their ports.
fn targets(balancer: &Value) -> Result<BTreeSet<(String, u64)>> {
    let groups = balancer["targetGroups"].as_array().context("no groups")?;
    let targets = groups.iter().filter_map(|it| it["targets"].as_array());
    let targets = targets.flatten();
    let named =
        targets.filter_map(|it| Some((it["id"].as_str()?.to_owned(), it["port"].as_u64()?)));
    Ok(named.collect())
}

/// Says which instance a node is, as a cloud provider does.
async fn identify(site: &Site<'_>, node: &str, number: u16) -> Result<()> {
    let zone = ["c", "a", "b"][usize::from(number % 3)];
    let id = format!("aws:///eu-central-1{zone}/{}", instance(number));
    let patch = json!({"spec": {"providerID": id}}).to_string();
    let argv = ["patch", "node", node, "--type=merge", "-p", &patch];
    site.lab.kubectl(&argv).await.map(drop)
}

fn node_ports(service: &Service) -> Vec<u64> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let ports = ports
        .into_iter()
        .flatten()
        .filter_map(|port| port.node_port);
    ports.filter_map(|port| u64::try_from(port).ok()).collect()
}

fn hostnames(service: &Service) -> Vec<&str> {
    let status = service.status.as_ref();
    let status = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|it| it.ingress.as_deref()).unwrap_or(&[]);
    ingress
        .iter()
        .filter_map(|it| it.hostname.as_deref())
        .collect()
}

/// A Service with these ports.
fn web(ports: &str) -> String {
    load_balancer(
        "web",
        &format!("loadBalancerClass: ballast.dev/aws, selector: {{app: web}}, ports: [{ports}]"),
    )
}

/// A lab whose controllers start when the cloud is there.
pub(crate) fn plan(name: &str) -> Plan<'_> {
    Plan {
        controllers: 0,
        class: None,
        ..Plan::new(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_gets_a_network_load_balancer() -> Result<()> {
    plan("t-aws")
        .run(async |site| {
            let aws = Aws::start(site, 3).await?;
            aws.start_controller("ballast-1").await?;
            created(&aws).await?;
            nodes_come_and_go(&aws).await?;
            a_node_without_an_instance_is_named(&aws).await?;
            edited(&aws).await?;
            restarted(&aws).await?;
            site.delete("web").await?;
            aws.is_empty().await?;
            shared(&aws).await?;
            aws.is_empty().await
        })
        .await
}

/// Services join and leave one load balancer; its hostname stays, and a port goes to the next that wants it.
async fn shared(aws: &Aws<'_>) -> Result<()> {
    let site = aws.site;
    let service = |name: &str, port: u16| {
        annotated(
            name,
            "ballast.dev/share-key: front",
            &format!(
                "loadBalancerClass: ballast.dev/aws, selector: {{app: web}}, ports: [{{port: {port}, targetPort: 8080}}]"
            ),
        )
    };
    let listens = async |expected: &[u64]| {
        eventually(PATIENCE, || async {
            let ports = aws.ports().await?;
            ensure!(ports == expected.iter().copied().collect(), "{ports:?}");
            Ok(())
        })
        .await
    };
    let hostname = async |name: &str| {
        let service = site
            .service(name, |service| {
                ensure!(!hostnames(service).is_empty(), "no hostname");
                Ok(())
            })
            .await?;
        anyhow::Ok(hostnames(&service)[0].to_owned())
    };
    site.apply(&service("one", 80)).await?;
    let name = hostname("one").await?;
    site.apply(&service("two", 443)).await?;
    ensure!(hostname("two").await? == name, "two load balancers");
    listens(&[80, 443]).await?;
    site.apply(&service("late", 443)).await?;
    let refused = site
        .says("late", "ballast.dev/Accepted", "False", "PortInUse")
        .await?;
    ensure!(refused.contains("default/two"), "{refused}");
    site.delete("one").await?;
    listens(&[443]).await?;
    let balancer = aws.balancer().await?;
    ensure!(balancer["hostname"] == name.as_str(), "{balancer}");
    site.delete("two").await?;
    hostname("late").await?;
    listens(&[443]).await?;
    site.delete("late").await
}

/// A hostname, then traffic, then healthy targets; and what that writes.
async fn created(aws: &Aws<'_>) -> Result<()> {
    let site = aws.site;
    let since = site.audited()?;
    site.apply(&web("{name: http, port: 80, targetPort: 8080}"))
        .await?;
    let service = site
        .service("web", |service| {
            ensure!(!hostnames(service).is_empty(), "no hostname");
            Ok(())
        })
        .await?;
    let balancer = aws.balancer().await?;
    ensure!(hostnames(&service) == [balancer["hostname"].as_str().unwrap_or_default()]);
    ensure!(balancer["scheme"] == "internal", "{balancer}");
    ensure!(
        balancer["tags"]["ballast.dev/service"] == "default/web",
        "{balancer}"
    );
    let service = healthy(site, 2).await?;
    ensure!(
        status_of(&service, PROGRAMMED) == "True",
        "{}",
        told(&service)
    );
    aws.has_targets("web", &[1, 2]).await?;
    let writes: Vec<String> = site
        .writes_since(since, USER)?
        .iter()
        .filter(|it| it.resource != "loadbalancerclasses")
        .map(|it| format!("{} {}", it.verb, it.resource))
        .collect();
    println!("API writes of a creation: {writes:?}");
    let of = |what: &str| writes.iter().filter(|it| *it == what).count();
    // The finalizer, the hostname, and that it is active.
    ensure!(of("patch services") == 3, "{writes:?}");
    ensure!(of("create events") == 1, "{writes:?}");
    ensure!(writes.len() == 4, "{writes:?}");
    Ok(())
}

/// Waits until this many targets are healthy, and no others are there.
async fn healthy(site: &Site<'_>, count: usize) -> Result<Service> {
    let expected = format!("{count} of {count} targets are healthy");
    eventually(PATIENCE, || async {
        let service = site.get("web").await?;
        let now = condition(&service, TARGETS_HEALTHY);
        let fits = now.is_some_and(|now| now.status == "True" && now.message == expected);
        ensure!(fits, "not {expected:?}: {}", told(&service));
        Ok(service)
    })
    .await
}

async fn nodes_come_and_go(aws: &Aws<'_>) -> Result<()> {
    let site = aws.site;
    let kubectl = async |argv: &[&str]| site.lab.kubectl(argv).await.map(drop);
    let label = format!("{EXCLUDE}=");
    aws.follows("a node is excluded", &[1], async {
        kubectl(&["label", "node", "node2", &label]).await
    })
    .await?;
    let unlabel = format!("{EXCLUDE}-");
    aws.follows("it is back", &[1, 2], async {
        kubectl(&["label", "node", "node2", &unlabel]).await
    })
    .await?;
    aws.follows("a node is added", &[1, 2, 3], async {
        site.paper_node("paper", "10.89.0.33").await?;
        identify(site, "paper", 3).await
    })
    .await?;
    healthy(site, 3).await?;
    aws.follows("it is deleted", &[1, 2], async {
        kubectl(&["delete", "node", "paper"]).await
    })
    .await?;
    healthy(site, 2).await.map(drop)
}

/// Its pods get traffic through other nodes; whoever runs the cluster must be able to see why.
async fn a_node_without_an_instance_is_named(aws: &Aws<'_>) -> Result<()> {
    let site = aws.site;
    let kind = GroupVersionKind::gvk("ballast.dev", "v1alpha1", "LoadBalancerClass");
    let api: Api<DynamicObject> = Api::all_with(site.lab.kube(), &ApiResource::from_gvk(&kind));
    let says = async |expected: &str| {
        eventually(SOON, || async {
            let class = api.get("aws").await?;
            let all = class.data["status"]["conditions"].as_array();
            let mut all = all.context("no conditions")?.iter();
            let ready = all.find(|it| it["type"] == "Ready").context("not Ready")?;
            ensure!(
                ready["status"] == "True" && ready["message"] == expected,
                "{ready}"
            );
            Ok(())
        })
        .await
    };
    says("The provider is ready").await?;
    site.paper_node("stranger", "10.89.0.34").await?;
    says("The provider is ready. 1 node is no target because its spec.providerID names no instance of AWS: stranger").await?;
    site.lab.kubectl(&["delete", "node", "stranger"]).await?;
    says("The provider is ready").await?;
    aws.has_targets("web", &[1, 2]).await
}

async fn edited(aws: &Aws<'_>) -> Result<()> {
    let ports = json!({"spec": {"ports": [
        {"name": "http", "port": 80, "targetPort": 8080},
        {"name": "more", "port": 443, "targetPort": 8080},
    ]}});
    aws.site.patch("web", ports).await?;
    eventually(SOON, || async {
        let ports = aws.ports().await?;
        ensure!(ports == BTreeSet::from([80, 443]), "{ports:?}");
        Ok(())
    })
    .await?;
    aws.has_targets("web", &[1, 2]).await?;
    healthy(aws.site, 4).await.map(drop)
}

/// A process that starts changes nothing in AWS. An edit that it carries out shows that it has looked
/// at everything.
async fn restarted(aws: &Aws<'_>) -> Result<()> {
    let site = aws.site;
    let before = aws.mutating().await?;
    site.lab.kill("ballast-1", Signal::SIGKILL).await?;
    aws.start_controller("ballast-2").await?;
    aws.ballast.leader(&["ballast-2"]).await?;
    site.apply(&load_balancer(
        "late",
        "loadBalancerClass: ballast.dev/aws, selector: {app: web}, ports: [{port: 80, protocol: SCTP}]",
    ))
    .await?;
    site.says("late", "ballast.dev/Accepted", "False", "Unsupported")
        .await?;
    site.delete("late").await?;
    healthy(site, 4).await?;
    let now = aws.report().await?;
    ensure!(now["mutating"] == before, "{before} calls before: {now}");
    Ok(())
}
