//! The mock cloud on a node, as it runs in a cluster: its addresses are on the node's network
//! interface, and machines on the segment reach them like the node. kube-proxy runs in iptables
//! mode here, which accepts node ports on every address of a node.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ballast_e2e::installation::CLOUD;
use ballast_e2e::{Host, ProxyMode, eventually};

use crate::common::{
    OF_CLASS, PROGRAMMED, Plan, SOON, Site, addresses, condition, load_balancer, web,
};

const NODE: Host = Host::Node(1);
/// The capabilities that the chart grants, and no others.
const CAPABILITIES: &str = "net_admin,net_bind_service,net_raw";
/// The mark of a cloud in the output of `ip`: a number that begins with 0x62.
const MARK: &str = " metric 16";

fn plan(name: &str) -> Plan<'_> {
    Plan {
        cloud_on: NODE,
        proxy: ProxyMode::Iptables,
        ..Plan::new(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_reach_what_outlives_everything() -> Result<()> {
    plan("t-in-cluster")
        .run(async |site| {
            site.pods("web", 2).await?;
            let spec = format!("{}, ipFamilyPolicy: RequireDualStack", web("web"));
            site.apply(&load_balancer("web", &spec)).await?;
            let ips = addresses(&site.programmed("web").await?);
            let expected: [IpAddr; 2] =
                ["10.89.0.191".parse()?, "fd89::ffff:ffff:ffff:ff02".parse()?];
            ensure!(ips == expected, "the top of the nodes' network: {ips:?}");
            reached(site, &ips).await?;
            killed(site, &ips).await?;
            moved(site, &ips).await?;
            killed_for_good(site).await
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_the_node_has() -> Result<()> {
    plan("t-in-cluster-ports")
        .run(async |site| {
            site.pods("web", 2).await?;
            wildcard_listeners(site).await?;
            node_port_of_another(site).await?;
            own_node_port(site).await
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_capability_is_needed_and_no_other() -> Result<()> {
    plan("t-in-cluster-caps")
        .run(async |site| {
            site.pods("web", 1).await?;
            site.ballast.stop(CLOUD).await?;
            for missing in CAPABILITIES.split(',') {
                without(site, missing)
                    .await
                    .with_context(|| missing.to_owned())?;
            }
            with_capabilities(site, CAPABILITIES).await?;
            let ip = site.address("web").await?;
            site.answers(Host::Client, ip, 80).await.map(drop)
        })
        .await
}

/// From a machine on the nodes' segment, from nodes, and from the node with the address.
async fn reached(site: &Site<'_>, ips: &[IpAddr]) -> Result<()> {
    for ip in ips {
        for from in [Host::Client, Host::Node(2), NODE] {
            let answer = site.answers(from, *ip, 80).await;
            answer.with_context(|| format!("{ip} from {}", from.name()))?;
        }
    }
    Ok(())
}

/// After a crash, the next start finds the addresses on the interface.
async fn killed(site: &Site<'_>, ips: &[IpAddr]) -> Result<()> {
    site.ballast.kill(CLOUD).await?;
    let left = on_interface(site, NODE).await?;
    ensure!(left.len() == ips.len(), "after a kill: {left:?}");
    let start = Instant::now();
    site.lab.start_again(CLOUD).await?;
    for ip in ips {
        site.answers(Host::Client, *ip, 80).await?;
    }
    // `long::kind` checks how long connections fail.
    println!(
        "after a kill, both families answer {:.2?} after the start",
        start.elapsed()
    );
    // Forever: addresses that nothing renews expire.
    for address in on_interface(site, NODE).await? {
        ensure!(!address.contains("valid_lft forever"), "{address}");
    }
    Ok(())
}

/// Without a restart, the kernel removes the addresses when nothing renews them.
async fn killed_for_good(site: &Site<'_>) -> Result<()> {
    site.ballast.kill(CLOUD).await?;
    let start = Instant::now();
    eventually(3 * SOON, || nothing_left(site, Host::Node(2))).await?;
    println!(
        "after a kill for good, no address is left after {:.1?}",
        start.elapsed()
    );
    Ok(())
}

/// On another node, and without its state: the Services' status records the addresses.
async fn moved(site: &Site<'_>, ips: &[IpAddr]) -> Result<()> {
    site.ballast.stop(CLOUD).await?;
    nothing_left(site, NODE).await?;
    // The class's endpoint is the old node's address, so a relay there leads to the new one.
    let other = site.ballast.clone().with_cloud_on(Host::Node(2));
    other.start_cloud(&[]).await?;
    relay(site).await?;
    for ip in ips {
        site.answers(Host::Client, *ip, 80).await?;
    }
    let service = site.programmed("web").await?;
    ensure!(
        addresses(&service) == ips,
        "moved: {:?}",
        addresses(&service)
    );
    let there = on_interface(site, Host::Node(2)).await?;
    ensure!(there.len() == ips.len(), "{there:?}");
    Ok(())
}

/// In a cluster, the Service for the pod does this.
async fn relay(site: &Site<'_>) -> Result<()> {
    let (from, to) = (
        site.lab.addresses(NODE)[0],
        site.lab.addresses(Host::Node(2))[0],
    );
    for chain in ["PREROUTING", "OUTPUT"] {
        let rule = format!(
            "iptables -w -t nat -I {chain} -p tcp -d {from} --dport 8111 -j DNAT --to-destination {to}:8111"
        );
        sh(site, NODE, &rule).await?;
    }
    sh(
        site,
        NODE,
        "iptables -w -t nat -I POSTROUTING -p tcp --dport 8111 -j MASQUERADE",
    )
    .await
    .map(drop)
}

/// kubelet and kube-proxy run; the test starts substitutes for other daemons.
async fn wildcard_listeners(site: &Site<'_>) -> Result<()> {
    let daemon = async |port: &str| {
        let name = format!("daemon-{port}");
        site.lab.spawn(&name, NODE, ["nc", "-lk", port], &[]).await
    };
    daemon("22").await?;
    daemon("9200").await?;
    for port in [22, 9_200, 10_250, 10_256] {
        let ports = format!("[{{port: {port}, targetPort: 8080}}]");
        let spec = format!("{OF_CLASS}, selector: {{app: web}}, ports: {ports}");
        let name = format!("taken-{port}");
        site.apply(&load_balancer(&name, &spec)).await?;
        let said = site.says(&name, PROGRAMMED, "False", "PortInUse").await?;
        ensure!(said.contains(&port.to_string()), "{said}");
        site.delete(&name).await?;
    }
    // The daemon keeps the port even while it does not run.
    site.lab.stop("daemon-9200").await?;
    let spec =
        format!("{OF_CLASS}, selector: {{app: web}}, ports: [{{port: 9200, targetPort: 8080}}]");
    site.apply(&load_balancer("left", &spec)).await?;
    site.says("left", PROGRAMMED, "False", "PortInUse").await?;
    daemon("9200").await?;
    site.delete("left").await
}

/// The node port of another Service: it appears, conflicts, and is deleted.
async fn node_port_of_another(site: &Site<'_>) -> Result<()> {
    let both = "{name: t, port: 30123, targetPort: 8080}, {name: u, protocol: UDP, port: 30124, targetPort: 8081}";
    let spec = format!("{OF_CLASS}, selector: {{app: web}}, ports: [{both}]");
    site.apply(&load_balancer("web", &spec)).await?;
    let ip = site.address("web").await?;
    site.answers(Host::Client, ip, 30_123).await?;
    for (protocol, port) in [("TCP", 30_123), ("UDP", 30_124)] {
        let ports = format!("[{{protocol: {protocol}, port: 80, nodePort: {port}}}]");
        let spec = format!("type: NodePort, selector: {{app: web}}, ports: {ports}");
        site.apply(&crate::common::service_yaml("other", "", &spec))
            .await?;
        let said = says(site, "web", "False").await?;
        ensure!(
            said.contains("PortInUse") && said.contains(&port.to_string()),
            "{said}"
        );
        site.delete("other").await?;
        says(site, "web", "True").await?;
    }
    site.answers(Host::Client, ip, 30_123).await?;
    site.delete("web").await
}

/// The mock cloud checks every 30 s whether clients arrive.
async fn says(site: &Site<'_>, name: &str, status: &str) -> Result<String> {
    eventually(2 * SOON, || async {
        let service = site.get(name).await?;
        let now = condition(&service, PROGRAMMED).context("no condition")?;
        ensure!(now.status == status, "{now:?}");
        Ok(format!("{} {}", now.reason, now.message))
    })
    .await
}

async fn own_node_port(site: &Site<'_>) -> Result<()> {
    let ports = "[{port: 30125, nodePort: 30125, targetPort: 8080}]";
    let spec = format!("{OF_CLASS}, selector: {{app: web}}, ports: {ports}");
    site.apply(&load_balancer("same", &spec)).await?;
    let said = site.says("same", PROGRAMMED, "False", "PortInUse").await?;
    ensure!(said.contains("30125"), "{said}");
    site.delete("same").await
}

/// Without one of the capabilities, the message says what does not work and how to fix it.
async fn without(site: &Site<'_>, missing: &str) -> Result<()> {
    let left: Vec<&str> = CAPABILITIES
        .split(',')
        .filter(|it| *it != missing)
        .collect();
    with_capabilities(site, &left.join(",")).await?;
    site.apply(&load_balancer("web", &web("web"))).await?;
    let wanted = format!("CAP_{}", missing.to_uppercase());
    let short = missing.to_uppercase();
    let said = eventually(SOON, || async {
        let service = site.get("web").await?;
        let now = condition(&service, PROGRAMMED).context("no condition")?;
        let named = now.message.contains(&wanted) || now.message.contains(&short);
        ensure!(now.status == "False" && named, "{now:?}");
        Ok(now.message.clone())
    })
    .await?;
    println!("without {missing}: {said}");
    site.delete("web").await?;
    site.ballast.stop(CLOUD).await?;
    Ok(())
}

/// As in a container: uid 0, and a bounding set.
async fn with_capabilities(site: &Site<'_>, capabilities: &str) -> Result<()> {
    let list: Vec<String> = capabilities.split(',').map(|it| format!("+{it}")).collect();
    let set = format!("--bounding-set=-all,{}", list.join(","));
    site.ballast
        .start_cloud_through(
            &["setpriv", &set, "--inh-caps=-all", "--no-new-privs", "--"],
            &[],
        )
        .await?;
    if capabilities == CAPABILITIES {
        site.apply(&load_balancer("web", &web("web"))).await?;
    }
    Ok(())
}

async fn nothing_left(site: &Site<'_>, node: Host) -> Result<()> {
    let left = on_interface(site, node).await?;
    ensure!(left.is_empty(), "left on {}: {left:?}", node.name());
    Ok(())
}

/// The cloud's addresses on a node, one line each.
async fn on_interface(site: &Site<'_>, node: Host) -> Result<Vec<String>> {
    let argv = ["ip", "-oneline", "address", "show", "dev", "eth0"];
    let text = site.lab.exec(node, argv).await?.ok()?;
    let ours = text.lines().filter(|line| line.contains(MARK));
    Ok(ours.map(str::to_owned).collect())
}

async fn sh(site: &Site<'_>, host: Host, script: &str) -> Result<String> {
    site.lab.exec(host, ["sh", "-c", script]).await?.ok()
}
