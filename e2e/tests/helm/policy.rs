//! Enforces a `NetworkPolicy` with the nodes' packet filters, because the lab's CNI plug-ins do
//! not.
//!
//! The policy applies to every future pod, whatever its selector, so that it is in force before
//! the pods start. Existing pods and nodes are not affected. It supports the kinds of rules
//! that the chart renders, which are lists of ports; others fail the test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::{AGNHOST, Host, PODS_V4, PODS_V6, documents, pod_gateways};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::ListParams;

use super::cluster::Cluster;

/// The pod subnets of all nodes.
const PODS: [(&str, &str); 2] = [("ip", PODS_V4), ("ip6", PODS_V6)];

/// Applies a policy on all nodes, for future pods.
pub(crate) async fn enforce(cluster: &Cluster, policy: &NetworkPolicy) -> Result<()> {
    let pods: Api<Pod> = Api::all(cluster.lab.kube());
    let pods = pods.list(&ListParams::default()).await?.items;
    let status = pods.iter().filter_map(|pod| pod.status.as_ref());
    let spared = status.flat_map(|status| status.pod_ips.iter().flatten());
    let spared: Vec<&str> = spared.map(|it| it.ip.as_str()).collect();
    let gateways = gateways(cluster).into_iter();
    let gateways: Vec<String> = gateways.map(|(_, own)| own.to_string()).collect();
    let table = table(policy, &spared, &gateways)?;
    for node in cluster.lab.nodes().into_iter().map(Host::Node) {
        let script = ["sh", "-c", "echo \"$0\" | nft -f -", &table];
        cluster.lab.exec(node, script).await?.ok()?;
    }
    Ok(())
}

/// The number of dropped packets on all nodes.
async fn dropped(cluster: &Cluster) -> Result<u64> {
    let mut sum = 0;
    for text in tables(cluster).await? {
        for count in text.split("counter packets ").skip(1) {
            let count = count.split(' ').next().context("no count")?;
            sum += count.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// The filters work: a pod under the policy cannot reach a web server.
pub(crate) async fn a_stranger_is_kept_in(cluster: &Cluster) -> Result<()> {
    let image = format!("--image={AGNHOST}");
    let run = ["run", "stranger", &image, "--", "netexec"];
    cluster.lab.kubectl(&run).await?;
    let ready = [
        "wait",
        "--for=condition=Ready",
        "pod/stranger",
        "--timeout=100s",
    ];
    cluster.lab.kubectl(&ready).await?;
    let ip = [
        "get",
        "service",
        "web-0",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ];
    let url = format!("http://{}", cluster.lab.kubectl(&ip).await?);
    let curl = ["exec", "stranger", "--", "curl", "-sSm2", &url];
    let refused = cluster.lab.kubectl(&curl).await.err();
    let refused = refused.context("it reached a web server")?.to_string();
    ensure!(refused.contains("timed out"), "{refused}");
    ensure!(dropped(cluster).await? > 0, "nothing was dropped");
    Ok(())
}

/// A probe to a pod that is ending is lost, and does not count.
pub(crate) async fn probes_astray_are_spared(cluster: &Cluster) -> Result<()> {
    let before = astray(cluster).await?;
    for (node, own) in gateways(cluster) {
        let gone = match own {
            IpAddr::V4(own) => IpAddr::V4(Ipv4Addr::from_bits(own.to_bits() + 0xf9)),
            IpAddr::V6(own) => IpAddr::V6(Ipv6Addr::from_bits(own.to_bits() + 0xf9)),
        };
        let url = format!("http://{}", SocketAddr::from((gone, 9)));
        let own = own.to_string();
        let curl = ["curl", "-gsm", "1", "--interface", &own, &url];
        let came = cluster.lab.exec(Host::Node(node), curl).await?;
        // Refused, timed out, or not sent: a node without pods does not have the address.
        ensure!(
            matches!(came.exit.code, Some(7 | 28 | 45)),
            "{own} to {url}: {came:?}"
        );
    }
    let now = astray(cluster).await?;
    ensure!(now > before, "none came by");
    nothing_was_dropped(cluster).await
}

/// Packets from nodes' addresses on their pods' links, on all nodes.
async fn astray(cluster: &Cluster) -> Result<u64> {
    let mut sum = 0;
    for text in tables(cluster).await? {
        let counter = text
            .split("counter astray {")
            .nth(1)
            .context("no counter")?;
        let count = counter.split_whitespace().nth(1).context("no count")?;
        sum += count.parse::<u64>()?;
    }
    Ok(sum)
}

/// Checks that no packet was dropped.
pub(crate) async fn nothing_was_dropped(cluster: &Cluster) -> Result<()> {
    if dropped(cluster).await? > 0 {
        // The sets at the end show the senders.
        bail!("too narrow: {}", tables(cluster).await?.join("\n"));
    }
    Ok(())
}

/// The policy of that name among rendered objects.
pub(crate) fn rendered(manifest: &str, name: &str) -> Result<NetworkPolicy> {
    for object in documents(manifest)? {
        if object["kind"] == "NetworkPolicy" && object["metadata"]["name"] == name {
            return Ok(serde_json::from_value(object)?);
        }
    }
    bail!("the chart renders no NetworkPolicy {name}")
}

/// Whether it applies to a pod.
pub(crate) fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let spec = policy.spec.as_ref();
    let Some(selector) = spec.and_then(|spec| spec.pod_selector.as_ref()) else {
        return true;
    };
    let label = |key: &String| pod.metadata.labels.as_ref().and_then(|all| all.get(key));
    let mut labels = selector.match_labels.iter().flatten();
    let mut expressions = selector.match_expressions.iter().flatten();
    labels.all(|(key, value)| label(key) == Some(value))
        && expressions.all(|one| {
            let mut values = one.values.iter().flatten();
            one.operator == "In" && values.any(|value| label(&one.key) == Some(value))
        })
}

/// Each node, with its addresses as its pods' router.
fn gateways(cluster: &Cluster) -> Vec<(u8, IpAddr)> {
    let of = |node| pod_gateways(node, cluster.lab.families());
    let nodes = cluster.lab.nodes().into_iter();
    nodes
        .flat_map(|node| of(node).into_iter().map(move |own| (node, own)))
        .collect()
}

/// The rules as they are on each node.
async fn tables(cluster: &Cluster) -> Result<Vec<String>> {
    let mut texts = vec![];
    for node in cluster.lab.nodes().into_iter().map(Host::Node) {
        let list = ["nft", "list", "table", "inet", "allowed"];
        texts.push(cluster.lab.exec(node, list).await?.ok()?);
    }
    Ok(texts)
}

/// The rules apply after the translation of Services' addresses, as policies require, and for
/// TCP only to the start of a connection: connection tracking may treat a late packet as new.
/// No policy blocks what a node sends to its own pods (probes). Such a packet comes by here
/// only if the pod is gone: then the node's default route sends it to the router, and the
/// router sends it back. If it was sent on the pod's link, its source address is that of a
/// gateway; without the link it is the node's own. Either address is one of this node.
fn table(policy: &NetworkPolicy, spared: &[&str], gateways: &[String]) -> Result<String> {
    let spec = policy.spec.as_ref().context("no spec")?;
    let types = spec.policy_types.as_deref().unwrap_or_default();
    ensure!(types == ["Ingress", "Egress"], "not understood: {types:?}");
    let (mut out, mut into, mut all) = (vec![], vec![], vec![]);
    for rule in spec.egress.iter().flatten() {
        ensure!(rule.to.is_none(), "not understood: {rule:?}");
        out.extend(ports(rule.ports.as_deref())?);
    }
    for rule in spec.ingress.iter().flatten() {
        ensure!(rule.from.is_none(), "not understood: {rule:?}");
        into.extend(ports(rule.ports.as_deref())?);
    }
    for (family, subnet) in PODS {
        let own = |all: Vec<&str>| {
            let own = |ip: &&str| ip.contains(':') == (family == "ip6");
            let own: Vec<&str> = all.into_iter().filter(own).collect();
            own.join(", ")
        };
        let gateways = own(gateways.iter().map(String::as_str).collect());
        all.push(format!(
            "{family} saddr {{ {gateways} }} counter name astray accept"
        ));
        all.push(format!(
            "{family} daddr {subnet} fib saddr type local counter name astray accept"
        ));
        let own = own(spared.to_vec());
        for (side, chain) in [("saddr", "goes_out"), ("daddr", "comes_in")] {
            if !own.is_empty() {
                all.push(format!("{family} {side} {{ {own} }} accept"));
            }
            all.push(format!(
                "{family} {side} {subnet} ct state new jump {chain}"
            ));
        }
    }
    let (out, into, all) = (out.join("\n"), into.join("\n"), all.join("\n"));
    Ok(format!(
        "table inet allowed {{
counter astray {{ }}
set dropped_v4 {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic; }}
set dropped_v6 {{ type ipv6_addr . ipv6_addr . inet_proto . inet_service; flags dynamic; }}
chain goes_out {{
{out}
jump note
}}
chain comes_in {{
{into}
jump note
}}
chain note {{
meta l4proto {{ tcp, udp }} add @dropped_v4 {{ ip saddr . ip daddr . meta l4proto . th dport }}
meta l4proto {{ tcp, udp }} add @dropped_v6 {{ ip6 saddr . ip6 daddr . meta l4proto . th dport }}
counter drop
}}
chain pods {{
type filter hook prerouting priority -50; policy accept;
tcp flags & (fin | syn | rst | ack) != syn accept
{all}
}}
}}"
    ))
}

/// One line for each allowed port.
fn ports(ports: Option<&[NetworkPolicyPort]>) -> Result<Vec<String>> {
    let ports = ports.context("a rule without ports")?;
    let line = |port: &NetworkPolicyPort| {
        let Some(IntOrString::Int(number)) = port.port else {
            bail!("not understood: {port:?}")
        };
        ensure!(port.end_port.is_none(), "not understood: {port:?}");
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        Ok(format!("{protocol} dport {number} return"))
    };
    ports.iter().map(line).collect()
}
