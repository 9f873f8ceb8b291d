//! The cluster for failures: three nodes with announcers, Services whose server is on a host that
//! never fails, and clients.
//!
//! The Services have no selector. Their `EndpointSlice`s name servers outside of the nodes, so
//! that a dead node takes no endpoint with it: how long Kubernetes keeps a dead endpoint is not
//! measured here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::announcers::Announcers;
use crate::installation::Installation;
use crate::segment::SERVER_PORT;
use crate::{Faults, Host, Lab, LabOptions, ProxyMode, eventually};

/// A client that knows the addresses.
pub const KNOWN: Host = Host::Client;
/// A client that asks for the MAC address before every connection.
pub const NEWCOMER: Host = Host::Guest(1);
/// The server behind the Services with the policy Cluster.
pub const SERVER: Host = Host::Guest(2);
/// A host without a part, for tests.
pub const STRANGER: Host = Host::Guest(3);

/// The Services with the policy Cluster. Several, because an address that moves often within a
/// minute moves more slowly.
const CLUSTER: usize = 4;
/// The successors that a holder records, at most.
const SUCCESSORS: usize = 3;
/// The Service with the policy Local.
pub const LOCAL: &str = "local";
/// The class of the Services.
const CLASS: &str = "lan";
/// The controller.
const CONTROLLER: &str = "ballast-1";
/// How long the cluster may need to recover from a failure.
const RECOVERY: Duration = Duration::from_mins(3);
/// How long other changes may take.
const SOON: Duration = Duration::from_mins(1);

/// The cluster.
#[derive(Debug)]
pub struct Bed<'a> {
    /// The lab underneath.
    pub lab: &'a Lab,
    /// The controller.
    pub ballast: Installation<'a>,
    /// The announcers.
    pub announcers: Announcers<'a>,
}

/// The node that holds each address.
pub type Holders = BTreeMap<IpAddr, Host>;

/// The options of the lab for [`Bed::make`].
pub fn options(name: &str, nodes: u8, proxy: ProxyMode) -> LabOptions {
    LabOptions {
        name: name.to_owned(),
        nodes,
        proxy,
        progress: false,
        ..LabOptions::default()
    }
}

// === impl Bed ===

impl<'a> Bed<'a> {
    /// Starts everything, and waits until every address has a holder.
    pub async fn make(lab: &'a Lab, flags: &[&str]) -> Result<Self> {
        let ballast = Installation::new(lab).await?;
        let announcers = Announcers::new(lab, flags)?;
        let bed = Self {
            lab,
            ballast,
            announcers,
        };
        bed.hosts().await?;
        bed.ballast.start_controller(CONTROLLER, &[]).await?;
        for node in bed.nodes() {
            bed.announcers.start(node).await?;
        }
        lab.apply(&bed.objects()).await?;
        for node in bed.nodes() {
            bed.announcers.ready(node).await?;
        }
        bed.settled().await?;
        for node in bed.nodes() {
            bed.forwards(node).await?;
        }
        Ok(bed)
    }

    /// The nodes.
    pub fn nodes(&self) -> Vec<Host> {
        self.lab.nodes().into_iter().map(Host::Node).collect()
    }

    async fn hosts(&self) -> Result<()> {
        for guest in [NEWCOMER, SERVER, STRANGER] {
            if let Host::Guest(number) = guest {
                self.lab.add_guest(number).await?;
            }
        }
        // The router keeps what it has learnt for longer than any failure lasts.
        for setting in ["ipv4", "ipv6"] {
            let file = format!("/proc/sys/net/{setting}/neigh/br0/base_reachable_time_ms");
            let argv = ["sh", "-c", "echo 1200000 >\"$0\"", &file];
            self.lab.exec(Host::Hub, argv).await?.ok()?;
        }
        self.lab.serve(SERVER, None).await?;
        for node in self.nodes() {
            self.lab.serve(node, Some(&node.name())).await?;
        }
        Ok(())
    }

    fn objects(&self) -> String {
        let mut all = vec![
            json!({
                "apiVersion": "ballast.dev/v1alpha1", "kind": "LoadBalancerClass",
                "metadata": {"name": CLASS}, "spec": {"l2": {}},
            }),
            json!({
                "apiVersion": "ballast.dev/v1alpha1", "kind": "AddressPool",
                "metadata": {"name": CLASS},
                "spec": {"addresses": ["10.89.0.120-10.89.0.249", "fd89::200-fd89::2ff"]},
            }),
        ];
        for number in 1..=CLUSTER {
            all.extend(cluster_service(&format!("web-{number}")));
        }
        let first = self.nodes()[0];
        all.extend(service(LOCAL, "Local", &[(first, Some(first))]));
        let text = all.iter().map(Value::to_string);
        text.collect::<Vec<String>>().join("\n---\n")
    }

    /// Moves the only endpoint of the Service with the policy Local to this node.
    pub async fn local_endpoint(&self, node: Host) -> Result<()> {
        let slices = service(LOCAL, "Local", &[(node, Some(node))]).split_off(1);
        let text: Vec<String> = slices.iter().map(Value::to_string).collect();
        self.lab.apply(&text.join("\n---\n")).await
    }

    /// A Service.
    pub async fn service(&self, name: &str) -> Result<Service> {
        let api: Api<Service> = Api::namespaced(self.lab.kube(), "default");
        Ok(api.get(name).await?)
    }

    /// The addresses of a Service, IPv4 first.
    pub async fn addresses_of(&self, name: &str) -> Result<Vec<IpAddr>> {
        let status = self.service(name).await?.status.unwrap_or_default();
        let entries = status.load_balancer.unwrap_or_default().ingress;
        let ips = entries.into_iter().flatten().filter_map(|it| it.ip);
        let ips: Result<Vec<IpAddr>, _> = ips.map(|it| it.parse()).collect();
        Ok(ips?)
    }

    /// An address with the policy Cluster: each number another one, IPv4 and IPv6 in turn.
    pub async fn address(&self, number: u32) -> Result<IpAddr> {
        let number = usize::try_from(number)?;
        let service = format!("web-{}", number / 2 % CLUSTER + 1);
        let all = self.addresses_of(&service).await?;
        let address = all.get(number % 2).copied();
        address.with_context(|| format!("{service} has {all:?}"))
    }

    /// The node that holds an address, as the Announcer objects say.
    pub async fn holder(&self, address: IpAddr) -> Result<Host> {
        eventually(SOON, || async {
            let held = self.announcers.held().await?;
            let first = held.get(&address).and_then(|all| all.first());
            Ok(first
                .with_context(|| format!("nobody holds {address}"))?
                .node)
        })
        .await
    }

    /// A node that does not hold the address.
    pub async fn another(&self, address: IpAddr) -> Result<Host> {
        let holder = self.holder(address).await?;
        let mut others = self.nodes().into_iter().filter(|&node| node != holder);
        others.next().context("there is one node only")
    }

    /// The first recorded successor: it probes the holder, whatever the number of nodes.
    pub async fn first_successor(&self, address: IpAddr) -> Result<Host> {
        eventually(SOON, || async {
            let held = self.announcers.held().await?;
            let first = held.get(&address).and_then(|all| all.first());
            let successors = first.map(|it| it.successors.as_slice());
            let first = successors.and_then(<[Host]>::first).copied();
            first.with_context(|| format!("{address} has no successor: {held:?}"))
        })
        .await
    }

    /// Waits until all is well: every node is Ready, every interface usable, every address has
    /// one holder with all the successors that there can be, and that node answers.
    pub async fn settled(&self) -> Result<Holders> {
        eventually(RECOVERY, || self.is_settled())
            .await
            .context("the cluster does not recover")
    }

    async fn is_settled(&self) -> Result<Holders> {
        let nodes: Api<Node> = Api::all(self.lab.kube());
        for node in nodes.list(&ListParams::default()).await? {
            let name = node.metadata.name.unwrap_or_default();
            let conditions = node.status.and_then(|it| it.conditions).unwrap_or_default();
            let ready = conditions
                .iter()
                .any(|it| it.type_ == "Ready" && it.status == "True");
            ensure!(ready, "{name} is not Ready");
        }
        let objects = self.announcers.objects().await?;
        let mut usable = BTreeSet::new();
        for object in objects {
            let status = object.status.unwrap_or_default();
            let good =
                !status.interfaces.is_empty() && status.interfaces.iter().all(|it| it.usable);
            let name = object.metadata.name.unwrap_or_default();
            ensure!(good, "{name}: {:?}", status.interfaces);
            usable.extend(Host::named(&name));
        }
        let expected: BTreeSet<Host> = self.nodes().into_iter().collect();
        ensure!(usable == expected, "Announcers of {usable:?}");
        let mut holders = Holders::new();
        for number in 1..=CLUSTER {
            let name = format!("web-{number}");
            let successors = SUCCESSORS.min(expected.len() - 1);
            holders.extend(self.holders_of(&name, successors).await?);
        }
        holders.extend(self.holders_of(LOCAL, 0).await?);
        Ok(holders)
    }

    async fn holders_of(&self, service: &str, successors: usize) -> Result<Holders> {
        let addresses = self.addresses_of(service).await?;
        ensure!(addresses.len() == 2, "{service} has {addresses:?}");
        let held = self.announcers.held().await?;
        let mut holders = Holders::new();
        for address in addresses {
            let all = held.get(&address).map_or(&[][..], Vec::as_slice);
            let [one] = all else {
                bail!("{address} is held by {all:?}");
            };
            ensure!(one.successors.len() >= successors, "{address}: {one:?}");
            holders.insert(address, one.node);
        }
        Ok(holders)
    }

    /// Lets a client connect to addresses, so that it knows their MAC addresses.
    pub async fn learns(&self, client: Host, addresses: &[IpAddr]) -> Result<()> {
        let script = "for to; do exec 3<>\"/dev/tcp/$to/80\" && head -n 1 <&3; done";
        let mut argv = vec!["bash".to_owned(), "-c".to_owned(), script.to_owned()];
        argv.push("bash".to_owned());
        argv.extend(addresses.iter().map(IpAddr::to_string));
        self.lab.exec(client, argv).await?.ok().map(drop)
    }

    /// The addresses for which a client's neighbour table names another node than the holder.
    pub async fn stale_entries(&self, client: Host) -> Result<usize> {
        let mut stale = 0;
        for (address, holders) in self.announcers.held().await? {
            let holder = holders.first().context("an address without a holder")?.node;
            let known = self.lab.neighbour(client, address).await?;
            let right = self.lab.mac(holder).await?;
            stale += usize::from(known.is_some_and(|known| known != right));
        }
        Ok(stale)
    }

    /// Changes a Node object by a merge patch.
    pub async fn patch_node(&self, node: Host, patch: Value) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.lab.kube());
        let params = PatchParams::default();
        nodes
            .patch(&node.name(), &params, &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// Turns a node on again, with its server and its announcer.
    pub async fn power_on(&self, node: Host) -> Result<()> {
        self.lab.power_on(node).await?;
        self.lab.serve(node, Some(&node.name())).await?;
        self.announcers.start_again(node).await?;
        self.forwards(node).await
    }

    /// Waits until a node forwards what reaches it, whether it holds the address or not.
    async fn forwards(&self, node: Host) -> Result<()> {
        for address in self.addresses_of("web-1").await? {
            let via = match address {
                IpAddr::V4(_) => IpAddr::from(node.v4()),
                IpAddr::V6(_) => IpAddr::from(node.v6()),
            };
            let script = "ip route replace $0 via $1 && exec 3<>/dev/tcp/$0/80 && head -n 1 <&3";
            let (to, via) = (address.to_string(), via.to_string());
            let found = eventually(SOON, || async {
                let argv = ["timeout", "3", "bash", "-c", script, &to, &via];
                let by = self.lab.exec(STRANGER, argv).await?.ok()?;
                ensure!(by.trim() == via, "{by} forwards, not {via}");
                Ok(())
            })
            .await;
            let argv = ["ip", "route", "delete", &to];
            self.lab.exec(STRANGER, argv).await?.ok()?;
            found.with_context(|| format!("{} does not forward", node.name()))?;
        }
        Ok(())
    }

    /// Undoes what a failed measurement has left, and waits until all is well.
    pub async fn recover(&self) -> Result<()> {
        for node in self.nodes() {
            // Each may be running already.
            let _ = self.lab.thaw(node).await;
            let _ = self.announcers.start_again(node).await;
            let patch = json!({
                "spec": {"unschedulable": false, "taints": null},
                "metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": null}},
            });
            self.patch_node(node, patch).await?;
        }
        self.heal().await.map(drop)
    }

    /// Ends all faults, and waits until all is well.
    pub async fn heal(&self) -> Result<Holders> {
        self.lab.set_faults(&Faults::none()).await?;
        for node in self.nodes() {
            self.lab.restore(node).await?;
        }
        self.settled().await
    }

    /// How many more moves all addresses have made since then.
    pub async fn moves_since(&self, epochs: &BTreeMap<IpAddr, i64>) -> Result<i64> {
        let now = self.epochs().await?;
        let moves = epochs.iter().map(|(address, before)| {
            let after = now.get(address);
            // A holder that is gone counts as a move.
            after.map_or(1, |after| (after - before).abs())
        });
        Ok(moves.sum())
    }

    /// The epoch of each address that a Service has. Announcers remember the others for a while.
    pub async fn epochs(&self) -> Result<BTreeMap<IpAddr, i64>> {
        let mut held = self.announcers.held().await?;
        let services: Api<Service> = Api::namespaced(self.lab.kube(), "default");
        let services = services.list(&ListParams::default()).await?;
        let ingress = services.iter().filter_map(|it| {
            let balancer = it.status.as_ref()?.load_balancer.as_ref()?;
            balancer.ingress.as_ref()
        });
        let addresses = ingress.flatten().filter_map(|it| it.ip.as_deref());
        let addresses: BTreeSet<IpAddr> = addresses.map(str::parse).collect::<Result<_, _>>()?;
        held.retain(|address, _| addresses.contains(address));
        let first = |(address, all): (IpAddr, Vec<super::announcers::Held>)| {
            Some((address, all.first()?.epoch))
        };
        Ok(held.into_iter().filter_map(first).collect())
    }
}

/// A Service with the policy Cluster and its `EndpointSlice`s.
pub(crate) fn cluster_service(name: &str) -> Vec<Value> {
    service(name, "Cluster", &[(SERVER, None)])
}

/// The port of every Service.
pub(crate) fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 80)
}

/// A Service and its `EndpointSlice`s: the hosts of the endpoints, each with the node that it
/// belongs to.
fn service(name: &str, policy: &str, endpoints: &[(Host, Option<Host>)]) -> Vec<Value> {
    let mut all = vec![json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": format!("ballast.dev/{CLASS}"),
            "allocateLoadBalancerNodePorts": false,
            "ipFamilyPolicy": "RequireDualStack",
            "externalTrafficPolicy": policy,
            "ports": [{"name": "echo", "port": 80, "targetPort": SERVER_PORT}],
        },
    })];
    for family in ["IPv4", "IPv6"] {
        let endpoint = |&(host, node): &(Host, Option<Host>)| {
            let address = match family {
                "IPv4" => host.v4().to_string(),
                _ => host.v6().to_string(),
            };
            json!({
                "addresses": [address],
                "nodeName": node.map(Host::name),
                "conditions": {"ready": true, "serving": true, "terminating": false},
            })
        };
        let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
        all.push(endpoint_slice(name, family, &endpoints));
    }
    all
}

/// An `EndpointSlice` of a Service without a selector, for the server of [`Lab::serve`].
pub fn endpoint_slice(service: &str, family: &str, endpoints: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{}", family.to_lowercase()), "namespace": "default",
            "labels": {
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "lab",
            },
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": "echo", "port": SERVER_PORT, "protocol": "TCP"}],
    })
}
