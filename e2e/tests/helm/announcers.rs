//! Bare metal: the announcers of a release answer on the nodes' network for the address of a
//! Service, with the rights and the capability that the chart grants and no others, and nothing of
//! them is left after an uninstall.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_crds::Announcer;
use ballast_e2e::segment::{Attempt, Conversation, Moment, Visitor, Visits, judge};
use ballast_e2e::{Host, eventually};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use super::cluster::{Cluster, Release, SOON, WEB};
use super::{kernel, stolen};
use crate::common::{addresses, load_balancer, told};
use crate::common::{grants, outside};

const METAL: Release = Release {
    name: "ballast",
    namespace: "ballast-system",
};
const FLAGS: [&str; 4] = [
    "--set",
    "classes.local=null,classes.metal.default=true,classes.metal.l2.addressPools={metal}",
    "--set",
    "pools.metal.addresses={10.89.0.200-10.89.0.203},controller.replicas=1",
];
const NODES: u8 = 2;
/// A Service for established connections.
const TALK: &str = "talk";
/// A client that asks for the MAC address before every connection.
const NEWCOMER: Host = Host::Guest(2);
/// How long newcomers wait at most for the next process of the node.
const GAP: Duration = Duration::from_millis(500);
/// How long the clients go on after a change, and must be answered before it.
const WATCH: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_release_on_bare_metal() -> Result<()> {
    Cluster::run("t-announcers", NODES, async |cluster| {
        cluster.web_servers().await?;
        cluster.lab.apply(&load_balancer("web", WEB)).await?;
        cluster.helm_to("install", METAL, &FLAGS).await?;
        let pods = cluster.pods(METAL, "announcer").await?;
        ensure!(pods.len() == usize::from(NODES), "{} pods", pods.len());
        pods.iter().try_for_each(kernel::is_as_written)?;
        pods.iter().try_for_each(memory)?;
        the_key_is_random(cluster).await?;
        let address = cluster.address("web").await?;
        cluster.answers(&address).await?;
        stolen::a_token_writes_what_is_its_nodes(cluster, METAL).await?;
        stolen::a_token_takes_no_address(cluster, METAL, &address).await?;
        pods_are_replaced(cluster).await?;
        a_second_release_is_refused(cluster).await?;
        cluster.uninstall(METAL, &[]).await?;
        let services = ["web", TALK].map(str::to_owned);
        cluster.services_are_released(&services).await?;
        cluster.nothing_is_left(METAL).await?;
        rights_fit(cluster)
    })
    .await
}

/// What `ballast announcer` needs, for the limits of the chart. Only a report: this is a debug build.
fn memory(pod: &Pod) -> Result<()> {
    let status = kernel::process(pod).context("no process")?;
    println!("announcer: {:?} resident", status.get("VmRSS"));
    Ok(())
}

async fn the_key_is_random(cluster: &Cluster) -> Result<()> {
    let api: Api<Secret> = Api::namespaced(cluster.lab.kube(), METAL.namespace);
    let secret = api.get("ballast-gossip-key").await?;
    let data = secret.data.unwrap_or_default();
    let keys: Vec<&String> = data.keys().collect();
    ensure!(keys == ["keys"], "{keys:?}");
    let key = std::str::from_utf8(&data["keys"].0)?;
    let digits = key.chars().all(|it| it.is_ascii_hexdigit());
    ensure!(digits && key.len() == 64, "{} characters", key.len());
    Ok(())
}

/// The address of the Service, whether it is announced already or not.
async fn assigned(cluster: &Cluster, service: &str) -> Result<String> {
    eventually(SOON, || async {
        let service = cluster.services().get(service).await?;
        let first = addresses(&service).first().copied();
        Ok(first.with_context(|| told(&service))?.to_string())
    })
    .await
}

/// The node that announces the address, as the Announcers say.
async fn holder(cluster: &Cluster, address: &str) -> Result<String> {
    let api: Api<Announcer> = Api::all(cluster.lab.kube());
    eventually(SOON, || async {
        let all = api.list(&ListParams::default()).await?.items;
        let holds = |it: &&Announcer| {
            let mut holdings = it.status.iter().flat_map(|it| &it.holdings);
            holdings.any(|it| it.address == address)
        };
        let nodes: Vec<_> = all.iter().filter(holds).collect();
        ensure!(nodes.len() == 1, "{} of {} nodes", nodes.len(), all.len());
        nodes[0].metadata.name.clone().context("no name")
    })
    .await
}

/// The pod of the node that announces an address is deleted, then an upgrade replaces the pods of all nodes:
/// clients that know the MAC address lose nothing, others wait for half a second at most, and nothing moves.
async fn pods_are_replaced(cluster: &Cluster) -> Result<()> {
    let clients = Clients::start(cluster).await?;
    let node = holder(cluster, &clients.address).await?;
    let epochs = epochs(cluster).await?;
    let pods = cluster.pods(METAL, "announcer").await?;
    let on_node =
        |pod: &&Pod| pod.spec.as_ref().and_then(|it| it.node_name.as_ref()) == Some(&node);
    let pod = pods.iter().find(on_node).context("no pod on the node")?;
    let name = pod.metadata.name.as_deref().context("no name")?;
    let since = Moment::now();
    let delete = ["delete", "pod", "-n", METAL.namespace, name];
    cluster.lab.kubectl(&delete).await?;
    let daemons = "daemonset/ballast-announcer";
    let ready = [
        "rollout",
        "status",
        daemons,
        "-n",
        METAL.namespace,
        "--timeout=60s",
    ];
    cluster.lab.kubectl(&ready).await?;
    clients.are_answered("a pod was deleted", since).await?;
    let since = Moment::now();
    let changed = ["--set", "announcer.podAnnotations.changed=yes"];
    let flags = [&FLAGS[..], &changed].concat();
    cluster.helm_to("upgrade", METAL, &flags).await?;
    let all_are_new = || async {
        let pods = cluster.pods(METAL, "announcer").await?;
        let changed = |pod: &&Pod| {
            pod.metadata
                .annotations
                .iter()
                .flatten()
                .any(|it| it.0 == "changed")
        };
        let new = pods.iter().filter(changed).count();
        ensure!(
            new == usize::from(NODES) && new == pods.len(),
            "{new} of {} pods",
            pods.len()
        );
        Ok(())
    };
    eventually(SOON, all_are_new).await?;
    clients.are_answered("all were replaced", since).await?;
    let now = holder(cluster, &clients.address).await?;
    ensure!(now == node, "{node} announced it, {now} does");
    ensure!(self::epochs(cluster).await? == epochs, "addresses moved");
    clients.stop().await
}

/// Clients of the address of a Service whose server is on a host of its own.
struct Clients<'a> {
    address: String,
    known: Visits<'a>,
    newcomer: Visits<'a>,
    conversation: Conversation<'a>,
    /// At the very beginning no node answered yet.
    lost: usize,
}

impl<'a> Clients<'a> {
    async fn start(cluster: &'a Cluster) -> Result<Self> {
        let lab = &cluster.lab;
        let server = outside::serve(lab, 1).await?;
        lab.add_guest(2).await?;
        lab.apply(&outside::service(TALK, &["IPv4"], server, &json!({})))
            .await?;
        let address = assigned(cluster, TALK).await?;
        holder(cluster, &address).await?;
        let to = SocketAddr::new(address.parse()?, 80);
        let conversation = lab.converse(Host::Client, to).await?;
        let mut clients = Self {
            address,
            known: lab.visit(Host::Client, to, Visitor::Regular).await?,
            newcomer: lab.visit(NEWCOMER, to, Visitor::Newcomer).await?,
            lost: conversation.lost().await?,
            conversation,
        };
        eventually(SOON, || async {
            let (from, until) = (Moment::now(), Moment::now() + WATCH);
            for visits in [&clients.known, &clients.newcomer] {
                let seen = judge::reachability(&visits.until(until).await?, from, until);
                ensure!(seen.failed == 0 && seen.attempts > 0, "{seen:?}");
            }
            Ok(())
        })
        .await?;
        clients.lost = clients.conversation.lost().await?;
        Ok(clients)
    }

    /// Judges what they saw since a moment, and for a while from now on.
    async fn are_answered(&self, after: &str, since: Moment) -> Result<()> {
        let until = Moment::now() + WATCH;
        let seen = |attempts: Vec<Attempt>| judge::reachability(&attempts, since, until);
        let known = seen(self.known.until(until).await?);
        let newcomer = seen(self.newcomer.until(until).await?);
        let lost = self.conversation.lost().await? - self.lost;
        println!("{after}: known {known:?}, newcomer {newcomer:?}, {lost} lost");
        ensure!(known.failed == 0, "{after}: {known:?}");
        ensure!(newcomer.failed == 0, "{after}: {newcomer:?}");
        ensure!(newcomer.outage <= GAP, "{after}: {newcomer:?}");
        ensure!(lost == 0, "{after}: an established connection was lost");
        Ok(())
    }

    async fn stop(self) -> Result<()> {
        self.known.stop().await?;
        self.newcomer.stop().await?;
        self.conversation.stop().await
    }
}

/// How often each address has moved, as the Announcers say.
async fn epochs(cluster: &Cluster) -> Result<BTreeMap<String, i64>> {
    let api: Api<Announcer> = Api::all(cluster.lab.kube());
    let all = api.list(&ListParams::default()).await?.items;
    let holdings = all
        .into_iter()
        .flat_map(|it| it.status.unwrap_or_default().holdings);
    Ok(holdings.map(|it| (it.address, it.epoch)).collect())
}

/// Announcers serve the classes of all releases, and two on one node would write the same objects.
async fn a_second_release_is_refused(cluster: &Cluster) -> Result<()> {
    let other = Release {
        name: "other",
        namespace: "default",
    };
    let dry = ["--dry-run=server", "--wait=hookOnly"];
    let flags = [&FLAGS[..], &dry].concat();
    let said = cluster.helm_to("install", other, &flags).await;
    let error = said.err().context("it is let through")?.to_string();
    let names =
        "the announcers of release ballast in namespace ballast-system serve all l2 classes";
    ensure!(error.contains(names), "{error}");
    Ok(())
}

/// The chart grants exactly the rights that were used.
fn rights_fit(cluster: &Cluster) -> Result<()> {
    let chart = &cluster.helm;
    let manifest = chart.template(METAL.name, METAL.namespace, &FLAGS)?;
    let audit = cluster.lab.audit_with_reads()?;
    for (role, least) in [("announcer", 17), ("secrets", 1), ("cleanup", 3)] {
        let name = format!("ballast-{role}");
        let user = format!("system:serviceaccount:{}:{name}", METAL.namespace);
        let granted = grants::fit_of(&manifest, &user, &audit, Some(&name))?;
        ensure!(
            granted >= least,
            "only {granted} rights of {name} were found"
        );
    }
    Ok(())
}
