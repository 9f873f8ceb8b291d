//! A `NetworkPolicy`, enforced by the nodes' packet filters: the lab's CNI plug-ins enforce none.
//!
//! It holds for every pod that comes later, so that it is there before the pods are; pods that
//! are there already are left alone. Understood is what the chart renders, lists of ports, and
//! anything else fails the test.

use anyhow::{Context, Result, bail, ensure};
use ballast_e2e::Host;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::ListParams;

use crate::cluster::Cluster;

/// Of all nodes' pods, as the lab gives them out.
const PODS: [(&str, &str); 2] = [("ip", "10.90.0.0/16"), ("ip6", "fd90::/56")];

/// It is in force.
pub(crate) struct Enforced;

impl Enforced {
    /// Puts it in force on all nodes, for pods that come from now on.
    pub(crate) async fn on(cluster: &Cluster, policy: &NetworkPolicy) -> Result<Self> {
        let pods: Api<Pod> = Api::all(cluster.lab.kube());
        let pods = pods.list(&ListParams::default()).await?.items;
        let status = pods.iter().filter_map(|pod| pod.status.as_ref());
        let spared = status.flat_map(|status| status.pod_ips.iter().flatten());
        let spared: Vec<&str> = spared.map(|it| it.ip.as_str()).collect();
        let table = table(policy, &spared)?;
        for node in cluster.lab.nodes().into_iter().map(Host::Node) {
            let script = ["sh", "-c", "echo \"$0\" | nft -f -", &table];
            cluster.lab.exec(node, script).await?.ok()?;
        }
        Ok(Self)
    }

    /// Packets that it has kept from somewhere, on all nodes.
    pub(crate) async fn dropped(&self, cluster: &Cluster) -> Result<u64> {
        let mut sum = 0;
        for node in cluster.lab.nodes().into_iter().map(Host::Node) {
            let list = ["nft", "list", "table", "inet", "allowed"];
            let text = cluster.lab.exec(node, list).await?.ok()?;
            for count in text.split("counter packets ").skip(1) {
                let count = count.split(' ').next().context("no count")?;
                sum += count.parse::<u64>()?;
            }
        }
        Ok(sum)
    }
}

/// After the translation of Services' addresses, as policies are meant; what a node itself
/// sends to its pods (probes) does not come by here, and no policy keeps it out.
fn table(policy: &NetworkPolicy, spared: &[&str]) -> Result<String> {
    let spec = policy.spec.as_ref().context("no spec")?;
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
        let own = |ip: &&&str| ip.contains(':') == (family == "ip6");
        let own: Vec<&str> = spared.iter().filter(own).copied().collect();
        let own = own.join(", ");
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
chain goes_out {{
{out}
counter drop
}}
chain comes_in {{
{into}
counter drop
}}
chain pods {{
type filter hook prerouting priority -50; policy accept;
{all}
}}
}}"
    ))
}

/// A line for each port that is let through.
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
