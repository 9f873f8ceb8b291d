//! From real `MetalLB` to Ballast and back, as docs/migrate.md describes it: addresses stay, and
//! clients that connect all the time are answered all the time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballast_crds::Announcer;
use ballast_e2e::metallb::MetalLb;
use ballast_e2e::segment::{
    Attempt, Capture, Conversation, Moment, Outcome, Visitor, Visits, judge,
};
use ballast_e2e::{Host, Lab, Progress, eventually};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::cluster::{Cluster, Release};
use crate::common::command::Ballast;
use crate::common::judges::judged;
use crate::common::{ACCEPTED, addresses, outside, status_of, told};

const METAL: Release = Release {
    name: "ballast",
    namespace: "ballast-system",
};
const NODES: u8 = 3;
const SERVICES: [(&str, &[&str]); 4] = [
    ("one", &["IPv4"]),
    ("two", &["IPv4"]),
    ("three", &["IPv4"]),
    ("dual", &["IPv4", "IPv6"]),
];
/// Their settings.
const SETTINGS: &str = "
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: lan, namespace: metallb-system}, spec: {addresses: [10.89.0.200-10.89.0.219, 'fd89::1000-fd89::100f']}}
---
{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: lan, namespace: metallb-system}, spec: {ipAddressPools: [lan]}}
";
const APPLY: [&str; 3] = ["migrate", "metallb", "--apply"];
/// A client that asks for the MAC address before every connection.
const NEWCOMER: Host = Host::Guest(2);
/// One connection after the other: a client that connects more often than `MetalLB` answers ARP requests
/// on a busy machine would lose its own packets.
const CONNECT: &str = "while :; do ip neigh flush to $0; \
    timeout 3 bash -c 'exec 3<>/dev/tcp/$0/80 && head -n 1 <&3' $0 >/dev/null && echo answered || echo FAILED; done";
/// How far apart connections may be reset when another node announces an address: those that were established
/// on the former one.
const TURN: Duration = Duration::from_millis(50);
/// A client with one connection.
const TALKER: Host = Host::Guest(3);
/// On the way back one in so many of the newcomer's connections may fail at most: two nodes answer each of its
/// requests, so packets of one connection can reach both.
const ONE_IN: usize = 100;
/// Images must be unpacked and pods must start, and another lab may run at the same time.
const SOON: Duration = Duration::from_mins(2);
/// How long the clients go on after each step.
const WATCH: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn from_metallb_and_back() -> Result<()> {
    let metallb = tokio::task::spawn_blocking(|| MetalLb::ensure(Progress::new(true))).await??;
    Cluster::run("t-metallb", NODES, async |cluster| {
        let given = served_by_metallb(cluster, &metallb).await?;
        let mut clients = Clients::start(cluster, &given).await?;
        taken_over(cluster, &mut clients, &given).await?;
        and_back(cluster, &metallb, &mut clients, &given).await?;
        clients.stop().await
    })
    .await
}

/// Each Service's addresses.
type Given = BTreeMap<String, Vec<IpAddr>>;

/// Installs `MetalLB` with its own manifests; it gives every Service its addresses.
async fn served_by_metallb(cluster: &Cluster, metallb: &MetalLb) -> Result<Given> {
    let lab = &cluster.lab;
    lab.import_images(&metallb.images()).await?;
    let text: Vec<String> = metallb.manifests().iter().map(Value::to_string).collect();
    lab.apply(&text.join("\n---\n")).await?;
    for workload in ["deployment/controller", "daemonset/speaker"] {
        runs(cluster, workload).await?;
    }
    lab.apply(SETTINGS).await?;
    let server = outside::serve(lab, 1).await?;
    for (name, families) in SERVICES {
        lab.apply(&outside::service(name, families, server, &json!({})))
            .await?;
    }
    let given = eventually(SOON, || async {
        let given = given(cluster).await?;
        for (name, families) in SERVICES {
            let has = given.get(name).map_or(0, Vec::len);
            ensure!(has == families.len(), "{name} has {has} addresses");
        }
        Ok(given)
    })
    .await?;
    println!("MetalLB gave {given:?}");
    Ok(given)
}

async fn runs(cluster: &Cluster, workload: &str) -> Result<()> {
    let flags = ["-n", "metallb-system", "--timeout=110s"];
    let status = [&["rollout", "status", workload], &flags[..]].concat();
    cluster.lab.kubectl(&status).await.map(drop)
}

async fn given(cluster: &Cluster) -> Result<Given> {
    let all = cluster.services().list(&ListParams::default()).await?.items;
    let with_addresses = all.iter().filter_map(|service: &Service| {
        let addresses = addresses(service);
        let name = service.metadata.name.clone()?;
        (!addresses.is_empty()).then_some((name, addresses))
    });
    Ok(with_addresses.collect())
}

/// As the README describes it.
async fn taken_over(cluster: &Cluster, clients: &mut Clients<'_>, given: &Given) -> Result<()> {
    let flags = "classes.local=null,announcer.enabled=true,controller.replicas=1";
    cluster.helm_to("install", METAL, &["--set", flags]).await?;
    let admin = Ballast::of(&cluster.lab.kubeconfig());
    let said = admin.run(&APPLY).await?;
    ensure!(said.code == Some(5), "beside MetalLB: {said:?}");
    clients.are_answered("Ballast runs beside MetalLB").await?;

    scale(cluster, "metallb-system", "controller", 0).await?;
    eventually(SOON, || async {
        let said = admin.run(&APPLY).await?;
        ensure!(said.code == Some(0), "{said:?}");
        Ok(())
    })
    .await?;
    eventually(SOON, || async {
        for (name, _) in SERVICES {
            let service = cluster.services().get(name).await?;
            ensure!(status_of(&service, ACCEPTED) == "True", told(&service));
        }
        Ok(())
    })
    .await?;
    clients
        .are_answered("Ballast's controller has taken over")
        .await?;

    // They do not end at once: one that is still there may announce what another one has announced.
    clients.nodes_change().await?;
    let speaker = ["delete", "daemonset", "speaker", "-n", "metallb-system"];
    cluster.lab.kubectl(&speaker).await?;
    let announced = || async {
        let api: Api<Announcer> = Api::all(cluster.lab.kube());
        let mut holders = BTreeMap::new();
        for object in api.list(&ListParams::default()).await? {
            let node = object.metadata.name.unwrap_or_default();
            for holding in object.status.unwrap_or_default().holdings {
                holders.insert(holding.address.parse::<IpAddr>()?, node.clone());
            }
        }
        let all: Vec<&IpAddr> = given.values().flatten().collect();
        ensure!(
            all.iter().all(|it| holders.contains_key(it)),
            "{holders:?}, not all of {all:?}"
        );
        Ok(holders)
    };
    let holders = eventually(SOON, announced).await?;
    clients.are_answered("MetalLB's speakers have gone").await?;
    for address in holders.into_keys() {
        // One request, whose answer may come late on a busy machine. The node that found the address in use
        // may have named another one meanwhile.
        eventually(SOON, || async {
            let node = announced().await?.remove(&address);
            let node = node.and_then(|it| Host::named(&it)).context("no host")?;
            let mac = cluster.lab.mac(node).await?;
            let answers = judged(&cluster.lab, NEWCOMER, address).await?;
            ensure!(
                answers.iter().eq([&mac]),
                "{address}: {answers:?}, not {mac}"
            );
            Ok(())
        })
        .await?;
    }
    ensure!(self::given(cluster).await? == *given, "addresses changed");
    Ok(())
}

async fn scale(cluster: &Cluster, namespace: &str, deployment: &str, replicas: u8) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    let scale = [
        "scale",
        "deployment",
        deployment,
        "-n",
        namespace,
        &replicas,
    ];
    cluster.lab.kubectl(&scale).await.map(drop)
}

/// The way back: without the teardown, which would take the addresses from the Services.
async fn and_back(
    cluster: &Cluster,
    metallb: &MetalLb,
    clients: &mut Clients<'_>,
    given: &Given,
) -> Result<()> {
    let lab = &cluster.lab;
    clients.nodes_change().await?;
    clients.two_answer = true;
    scale(cluster, METAL.namespace, "ballast-controller", 0).await?;
    cluster.controllers_are_gone(METAL).await?;
    for (name, _) in SERVICES {
        let free = json!({"metadata": {"finalizers": null}}).to_string();
        let patch = ["patch", "service", name, "--type=merge", "-p", &free];
        lab.kubectl(&patch).await?;
    }
    for object in metallb.manifests() {
        if object["kind"] == "DaemonSet" {
            lab.apply(&object.to_string()).await?;
        }
    }
    scale(cluster, "metallb-system", "controller", 1).await?;
    for workload in ["deployment/controller", "daemonset/speaker"] {
        runs(cluster, workload).await?;
    }
    clients
        .are_answered("MetalLB runs beside the announcers")
        .await?;
    cluster.uninstall(METAL, &["--no-hooks"]).await?;
    let gone = || async {
        let pods = cluster.pods(METAL, "announcer").await?;
        ensure!(pods.is_empty(), "{} announcers", pods.len());
        Ok(())
    };
    eventually(SOON, gone).await?;
    clients.are_answered("MetalLB alone").await?;
    nothing_of_ballast_is_left(cluster).await?;
    clients.are_answered("Ballast has gone").await?;
    let now = self::given(cluster).await?;
    ensure!(now == *given, "addresses changed: {now:?}");
    Ok(())
}

/// The last commands of the way back.
async fn nothing_of_ballast_is_left(cluster: &Cluster) -> Result<()> {
    let lab = &cluster.lab;
    let cleanup = [
        "cleanup",
        "--secrets",
        "ballast-gossip-key",
        "--announcers",
        "-n",
        METAL.namespace,
    ];
    let said = Ballast::of(&lab.kubeconfig()).run(&cleanup).await?;
    ensure!(said.code == Some(0), "{said:?}");
    let names = async |what: &str| {
        let listed = lab.kubectl(&["get", what, "-A", "-o", "name"]).await?;
        anyhow::Ok(listed.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    let classes = names("lbclass").await?;
    ensure!(!classes.is_empty(), "no class was left to delete");
    for class in classes {
        lab.kubectl(&["patch", &class, "--type=merge", "-p", &free])
            .await?;
    }
    lab.kubectl(&["delete", "lbclass,lbpool", "--all", "--timeout=60s"])
        .await?;
    for what in ["lbclass", "lbpool", "announcers"] {
        let left = names(what).await?;
        ensure!(left.is_empty(), "{left:?}");
    }
    let ours = |name: &String| name.contains("ballast") || name.contains("/announcer-");
    for what in ["secrets", "leases", "pods"] {
        let flags = ["get", what, "-n", METAL.namespace, "-o", "name"];
        let listed = lab.kubectl(&flags).await?;
        let left: Vec<_> = listed.lines().map(str::to_owned).filter(ours).collect();
        ensure!(left.is_empty(), "{left:?}");
    }
    for (name, _) in SERVICES {
        let service = cluster.services().get(name).await?;
        let finalizers = service.metadata.finalizers.unwrap_or_default();
        ensure!(
            !finalizers.iter().any(|it| it.starts_with("ballast.dev/")),
            "{name}: {finalizers:?}"
        );
    }
    Ok(())
}

/// Clients of the addresses, each with its own way to connect.
struct Clients<'a> {
    visits: Vec<(String, Visits<'a>)>,
    lab: &'a Lab,
    conversation: Conversation<'a>,
    talks_to: IpAddr,
    lost: usize,
    newcomer: (usize, usize),
    since: Moment,
    failures: Vec<(String, Attempt)>,
    /// What the talker is told since nodes change. `MetalLB` chooses nodes anew, and announces each address for
    /// five seconds. Ballast takes each address on the node that announced it.
    told: Option<Capture<'a>>,
    /// The MAC address that the talker knew before that.
    had: Option<String>,
    /// Two nodes answer requests for an address.
    two_answer: bool,
}

impl<'a> Clients<'a> {
    async fn start(cluster: &'a Cluster, given: &Given) -> Result<Self> {
        let lab = &cluster.lab;
        for guest in [NEWCOMER, TALKER] {
            if let Host::Guest(number) = guest {
                lab.add_guest(number).await?;
            }
        }
        let at = |service: &str, number: usize| {
            let address = given.get(service).and_then(|all| all.get(number));
            anyhow::Ok(SocketAddr::new(*address.context("no address")?, 80))
        };
        let three = at("three", 0)?;
        let conversation = lab.converse(TALKER, three).await?;
        let mut visits = vec![];
        for (from, to, how) in [
            (Host::Client, at("one", 0)?, Visitor::Regular),
            (Host::Client, at("dual", 1)?, Visitor::Regular),
        ] {
            let name = format!("{how:?} client of {to}");
            visits.push((name, lab.visit(from, to, how).await?));
        }
        let two = at("two", 0)?.ip().to_string();
        let connect = ["bash", "-c", CONNECT, &two];
        lab.spawn("newcomer", NEWCOMER, connect, &[]).await?;
        let mut clients = Self {
            visits,
            lab,
            conversation,
            talks_to: three.ip(),
            lost: 0,
            newcomer: (0, 0),
            since: Moment::now(),
            failures: vec![],
            told: None,
            had: None,
            two_answer: false,
        };
        // Nobody may have been answered at the very beginning.
        eventually(SOON, || async {
            let (from, until) = (Moment::now(), Moment::now() + WATCH / 8);
            for (name, visits) in &clients.visits {
                let seen = judge::reachability(&visits.until(until).await?, from, until);
                ensure!(seen.failed == 0 && seen.attempts > 0, "{name}: {seen:?}");
            }
            Ok(())
        })
        .await?;
        clients.since = Moment::now();
        clients.lost = clients.conversation.lost().await?;
        clients.newcomer = clients.newcomer()?;
        Ok(clients)
    }

    /// From now on another node may announce an address, which ends connections.
    async fn nodes_change(&mut self) -> Result<()> {
        self.told = Some(self.lab.capture(&[TALKER]).await?);
        let address = self.talks_to.to_string();
        let known = self
            .lab
            .exec(TALKER, ["ip", "neigh", "show", &address])
            .await?;
        // Such as `10.89.0.202 dev eth0 lladdr 02:00:00:00:00:01 REACHABLE`.
        let known = known.ok()?;
        let mut words = known
            .split_whitespace()
            .skip_while(|word| *word != "lladdr");
        self.had = words.nth(1).map(str::to_owned);
        ensure!(
            self.had.is_some(),
            "the talker knows no MAC address: {known:?}"
        );
        Ok(())
    }

    /// How often the talker's packets may have gone to another node since the last report.
    async fn changes(&self, until: Moment) -> Result<usize> {
        let Some(told) = &self.told else {
            return Ok(0);
        };
        let frames = told.frames().await?;
        let talker = TALKER.name();
        Ok(judge::changes(
            &frames,
            &talker,
            self.talks_to,
            self.had.as_deref(),
            (self.since, until),
        ))
    }

    /// Reports what happened since the last time, and adds it up.
    async fn are_answered(&mut self, step: &str) -> Result<()> {
        let until = Moment::now() + WATCH;
        println!("{step}:");
        for (name, visits) in &self.visits {
            let attempts = visits.until(until).await?;
            let seen = judge::reachability(&attempts, self.since, until);
            println!("  {name}: {seen:?}");
            let mine = judge::failures(&attempts, self.since, until)
                .into_iter()
                .cloned();
            let (reset, failed): (Vec<_>, Vec<_>) =
                mine.partition(|it| self.told.is_some() && it.outcome == Outcome::Reset);
            if let (Some(first), Some(last)) = (reset.first(), reset.last()) {
                println!("    {} were reset", reset.len());
                let apart = last.start.since(first.start);
                ensure!(apart < TURN, "{step}: {name} was reset for {apart:?}");
            }
            self.failures
                .extend(failed.into_iter().map(|it| (name.clone(), it)));
        }
        let newcomer = self.newcomer()?;
        let before = std::mem::replace(&mut self.newcomer, newcomer);
        let (answered, failed) = (newcomer.0 - before.0, newcomer.1 - before.1);
        println!(
            "  a client that does not know the MAC address: {answered} answers, {failed} failures"
        );
        let all = self.conversation.lost().await?;
        let lost = all - std::mem::replace(&mut self.lost, all);
        let changes = self.changes(until).await?;
        println!("  established connections lost: {lost}; the node changed {changes} times");
        self.since = until;
        let at_most = if self.two_answer {
            1 + answered / ONE_IN
        } else {
            0
        };
        ensure!(failed <= at_most, "{step}: {failed} newcomers failed");
        ensure!(
            lost <= changes,
            "{step}: {lost} established connections were lost, but the node changed {changes} times"
        );
        ensure!(
            self.failures.is_empty(),
            "{step}: these connections failed: {:#?}",
            self.failures
        );
        Ok(())
    }

    /// How many connections of the client that asks for the MAC address were answered, and failed.
    fn newcomer(&self) -> Result<(usize, usize)> {
        let log = self.lab.log("newcomer")?;
        let count = |word: &str| log.lines().filter(|line| *line == word).count();
        Ok((count("answered"), count("FAILED")))
    }

    async fn stop(self) -> Result<()> {
        self.lab.stop("newcomer").await?;
        if let Some(told) = self.told {
            told.stop().await?;
        }
        for (_, visits) in self.visits {
            visits.stop().await?;
        }
        self.conversation.stop().await
    }
}
