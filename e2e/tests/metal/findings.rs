//! What is wrong with a node is said where people look: in the object of its announcer with the fix, in the
//! log, and in the metrics.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use ballast_e2e::failover::announcers::Announcers;
use ballast_e2e::failover::bed::Bed;
use ballast_e2e::{Component, Faults, Host, eventually};

use super::says;
use crate::common::SOON;

/// Conditions, each with a part of the fix that its message names.
const FINDINGS: [(&str, &str); 4] = [
    ("RedirectsSent", "send_redirects to 0"),
    ("KubeProxyMissing", "kube-proxy"),
    ("ArpNotStrict", "strictARP: true"),
    ("ReversePathFiltered", "rp_filter to 2"),
];

/// kube-proxy in IPVS mode is recognised by the name of its interface. The second interface has a network
/// without the default route, and filters strictly. New interfaces are noticed at once, and so is the rest.
const BREAK: &str = "
set -e
for it in all eth0; do echo 1 >/proc/sys/net/ipv4/conf/$it/send_redirects; done
ip link add other0 type bridge
echo 1 >/proc/sys/net/ipv4/conf/other0/rp_filter
ip address add 10.87.0.1/24 dev other0
ip link set other0 up
ip link add kube-ipvs0 type bridge
";
const MEND: &str = "
set -e
for it in all eth0; do echo 0 >/proc/sys/net/ipv4/conf/$it/send_redirects; done
ip link delete kube-ipvs0
ip link delete other0
";

pub(crate) async fn what_is_wrong_with_a_node_is_said(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    let node = bed.nodes()[1];
    let Host::Node(number) = node else {
        anyhow::bail!("{node:?} is no node");
    };
    let sh = |script| bed.lab.exec(node, ["sh", "-c", script]);
    let log = || bed.lab.log(&Announcers::process(node));
    let logged = log()?.len();
    bed.lab.stop_component(Component::Proxy(number)).await?;
    sh(BREAK).await?.ok()?;
    for (kind, fix) in FINDINGS {
        says(bed, node, kind, Some(fix)).await?;
        warned(&log()?, logged, kind)?;
        let metrics = bed.announcers.admin(node, "/metrics").await?;
        let line = format!("ballast_announcer_findings{{condition=\"{kind}\"}} 1");
        ensure!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    sh(MEND).await?.ok()?;
    bed.lab.start_component(Component::Proxy(number)).await?;
    for (kind, _) in FINDINGS {
        says(bed, node, kind, None).await?;
    }
    Ok(())
}

/// A node that is cut off cannot write its object. It says so in its metrics and in its log.
pub(crate) async fn a_node_that_is_cut_off_says_so(bed: &Bed<'_>, _: IpAddr) -> Result<()> {
    let node = bed.nodes()[2];
    let cut_off = |count: u8| {
        let line = format!("ballast_announcer_problems{{condition=\"CutOff\"}} {count}");
        eventually(SOON, move || {
            let line = line.clone();
            async move {
                let metrics = bed.announcers.admin(node, "/metrics").await?;
                ensure!(metrics.contains(&line), "{line} is not in {metrics}");
                Ok(())
            }
        })
    };
    let log = || bed.lab.log(&Announcers::process(node));
    let logged = log()?.len();
    cut_off(0).await?;
    bed.lab.set_faults(&Faults::none().isolate(node)).await?;
    let reported = cut_off(1).await;
    bed.heal().await?;
    reported?;
    cut_off(0).await?;
    warned(&log()?, logged, "CutOff")?;
    says(bed, node, "CutOff", None).await
}

/// Checks that the log has a warning with this condition, after so many bytes.
fn warned(log: &str, after: usize, kind: &str) -> Result<()> {
    let new = log.get(after..).unwrap_or_default();
    let mut lines = new.lines();
    let said = lines.any(|line| line.contains("WARN") && line.contains(kind));
    ensure!(said, "{kind} is not in the log: {new}");
    Ok(())
}
