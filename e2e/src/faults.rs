//! Faults of the segment: frames that are lost between hosts, hosts that freeze or lose power, a
//! switch that answers for others.
//!
//! The hub drops frames in nftables' bridge family, which ARP and packet sockets pass too. A
//! frozen host needs that as well as stopped processes: its kernel would still answer ARP.
//!
//! [`Faults`] is pure: it renders the rules. [`Lab::set_faults`] replaces all of them at once.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::control::{HUB, Request};
use crate::net::{BRIDGE, Host};
use crate::{Component, Lab, Signal};

/// The table of the rules.
const TABLE: &str = "bridge faults";

/// How long a change of the rules may take.
const TIME: Duration = Duration::from_secs(20);

/// The frames that are lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    rules: Vec<Rule>,
}

/// Frames between two ends; `None` is every host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    from: Option<Host>,
    to: Option<Host>,
    /// Lost frames of a thousand.
    per_mille: u16,
}

const ALL: u16 = 1000;

// === impl Faults ===

impl Faults {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// Nothing from or to this host passes: its uplink is dead, though it has a carrier.
    #[must_use]
    pub fn isolate(self, host: Host) -> Self {
        self.lose(None, Some(host), ALL).lose(Some(host), None, ALL)
    }

    /// Nothing reaches this host, and what it sends arrives: one fibre of its cable is broken.
    #[must_use]
    pub fn deafen(self, host: Host) -> Self {
        self.lose(None, Some(host), ALL)
    }

    /// Nothing from one host reaches the other; the other direction works.
    #[must_use]
    pub fn one_way(self, from: Host, to: Host) -> Self {
        self.lose(Some(from), Some(to), ALL)
    }

    /// Nothing passes between the two sides. A host on neither side reaches both.
    #[must_use]
    pub fn split(mut self, one: &[Host], other: &[Host]) -> Self {
        for &a in one {
            for &b in other {
                self = self.one_way(a, b).one_way(b, a);
            }
        }
        self
    }

    /// So many of a thousand frames to this host are lost at random.
    #[must_use]
    pub fn loss(self, host: Host, per_mille: u16) -> Self {
        self.lose(None, Some(host), per_mille)
    }

    fn lose(mut self, from: Option<Host>, to: Option<Host>, per_mille: u16) -> Self {
        self.rules.push(Rule {
            from,
            to,
            per_mille,
        });
        self
    }

    /// The rules as input for nft: they replace those of before in one transaction.
    fn ruleset(&self) -> Result<String> {
        let mut text = format!("table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
        for hook in Hook::ALL {
            let _ = writeln!(
                text,
                " chain {0} {{\n  type filter hook {0} priority 0",
                hook.name()
            );
            for rule in &self.rules {
                if let Some(line) = rule.line(hook)? {
                    let _ = writeln!(text, "  {line}");
                }
            }
            text.push_str(" }\n");
        }
        text.push_str("}\n");
        Ok(text)
    }
}

/// A place where the hub looks at frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hook {
    /// Every frame that arrives.
    Prerouting,
    /// A frame to the hub itself.
    Input,
    /// A frame between two cables; a broadcast once for each cable.
    Forward,
    /// A frame of the hub itself.
    Output,
    /// Every frame that leaves.
    Postrouting,
}

impl Hook {
    const ALL: [Self; 5] = [
        Self::Prerouting,
        Self::Input,
        Self::Forward,
        Self::Output,
        Self::Postrouting,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

impl Rule {
    /// The rule at a hook, if it belongs there.
    fn line(self, hook: Hook) -> Result<Option<String>> {
        if [self.from, self.to].contains(&Some(Host::FarClient)) {
            bail!("far-client is not on the segment");
        }
        let from = |host: Host| format!("iifname \"{}\"", host.cable());
        let to = |host: Host| format!("oifname \"{}\"", host.cable());
        let (place, which) = match (self.from, self.to) {
            (Some(Host::Hub), None) => (Hook::Output, String::new()),
            (None, Some(Host::Hub)) => (Hook::Input, String::new()),
            (Some(a), None) => (Hook::Prerouting, from(a)),
            (None, Some(b)) => (Hook::Postrouting, to(b)),
            (Some(a), Some(Host::Hub)) => (Hook::Input, from(a)),
            (Some(Host::Hub), Some(b)) => (Hook::Output, to(b)),
            (Some(a), Some(b)) => (Hook::Forward, format!("{} {}", from(a), to(b))),
            (None, None) => bail!("a rule for every frame"),
        };
        let share = if self.per_mille == ALL {
            String::new()
        } else {
            format!("numgen random mod {ALL} < {} ", self.per_mille)
        };
        Ok((place == hook).then(|| format!("{which} {share}drop")))
    }
}

impl Lab {
    /// Replaces the faults of the segment.
    pub async fn set_faults(&self, faults: &Faults) -> Result<()> {
        let rules = faults.ruleset()?;
        let argv = ["nft", "-f", "-"];
        let said = self.control.exec_with(HUB, &argv, &rules, TIME).await?;
        said.ok().map(drop)
    }

    /// Stops a host as a virtual machine is paused: its processes do not run, and no frame gets
    /// in or out. Replaces all other faults of the segment.
    pub async fn freeze(&self, host: Host) -> Result<()> {
        // Frames first: what it says in between would come from a host that has lost half of
        // its processes.
        self.set_faults(&Faults::none().isolate(host)).await?;
        self.signal_host(host, Signal::SIGSTOP).await
    }

    /// Ends [`Lab::freeze`].
    pub async fn thaw(&self, host: Host) -> Result<()> {
        let none = Faults::none();
        let (frames, processes) = tokio::join!(
            self.set_faults(&none),
            self.signal_host(host, Signal::SIGCONT)
        );
        frames.and(processes)
    }

    /// Turns a host off: no frame gets in or out, and its processes are killed. Its cable keeps
    /// the carrier. Replaces all other faults of the segment.
    pub async fn power_off(&self, host: Host) -> Result<()> {
        self.set_faults(&Faults::none().isolate(host)).await?;
        self.signal_host(host, Signal::SIGKILL).await
    }

    /// Destroys the cluster without warning, for good: every process of its control plane and of its
    /// nodes is killed, containers included, and no frame gets in or out. The other hosts stay, and
    /// with them a cloud. Replaces all other faults of the segment.
    pub async fn destroy_cluster(&self) -> Result<()> {
        let nodes = self.nodes().into_iter().map(Host::Node);
        let hosts: Vec<Host> = nodes.chain([Host::ControlPlane]).collect();
        let all = hosts.iter().copied().fold(Faults::none(), Faults::isolate);
        self.set_faults(&all).await?;
        for host in hosts {
            self.signal_host(host, Signal::SIGKILL).await?;
        }
        Ok(())
    }

    /// Turns a node on again, and waits until it is Ready. Processes of tests do not start again.
    pub async fn power_on(&self, node: Host) -> Result<()> {
        let Host::Node(number) = node else {
            bail!("{} is not a node", node.name())
        };
        self.set_faults(&Faults::none()).await?;
        for component in [
            Component::Containerd(number),
            Component::Kubelet(number),
            Component::Proxy(number),
        ] {
            self.start_component(component).await?;
        }
        Ok(())
    }

    /// Makes the switch answer ARP requests for the addresses of these hosts itself, whether they
    /// live or not, as switches with EVPN or proxy ARP do; or ends that. IPv4 only.
    pub async fn answer_for(&self, hosts: &[Host], on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        let mut lines = vec![];
        for &host in hosts {
            let (address, mac) = (host.v4(), self.mac(host).await?);
            // The bridge answers for hosts in its own neighbour table, on ports with the flag.
            lines.push(if on {
                format!("neighbour replace {address} lladdr {mac} dev {BRIDGE} nud permanent")
            } else {
                format!("neighbour delete {address} dev {BRIDGE}")
            });
        }
        for host in self.status().await?.hosts {
            if let Some(host) = Host::named(&host)
                && ![Host::Hub, Host::FarClient].contains(&host)
            {
                let cable = host.cable();
                lines.push(format!(
                    "link set {cable} type bridge_slave proxy_arp {state}"
                ));
            }
        }
        let batch = ["ip", "-batch", "-"];
        let lines = lines.join("\n") + "\n";
        let said = self.control.exec_with(HUB, &batch, &lines, TIME).await?;
        said.ok().map(drop)
    }

    async fn signal_host(&self, host: Host, signal: Signal) -> Result<()> {
        self.control
            .call(&Request::SignalHost {
                host: host.name(),
                signal: signal as i32,
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules that drop, as `HOOK: RULE`.
    fn drops(faults: &Faults) -> Vec<String> {
        let text = faults.ruleset().unwrap();
        let mut found = vec![];
        let mut hook = "";
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("chain ") {
                hook = rest.trim_end_matches(" {");
            } else if line.ends_with("drop") {
                found.push(format!("{hook}: {line}"));
            }
        }
        found
    }

    #[test]
    fn no_faults_leave_no_rule() {
        assert!(drops(&Faults::none()).is_empty());
    }

    #[test]
    fn an_isolated_host_is_cut_off_in_both_directions() {
        assert_eq!(
            drops(&Faults::none().isolate(Host::Node(1))),
            [
                "prerouting: iifname \"v-node1\" drop",
                "postrouting: oifname \"v-node1\" drop"
            ]
        );
    }

    #[test]
    fn the_hub_is_a_host_like_others() {
        assert_eq!(
            drops(&Faults::none().split(&[Host::Hub], &[Host::Node(1), Host::Node(2)])),
            [
                "input: iifname \"v-node1\" drop",
                "input: iifname \"v-node2\" drop",
                "output: oifname \"v-node1\" drop",
                "output: oifname \"v-node2\" drop"
            ]
        );
    }

    #[test]
    fn a_share_of_frames_is_lost_at_random() {
        assert_eq!(
            drops(&Faults::none().loss(Host::Client, 50)),
            ["postrouting: oifname \"v-client\" numgen random mod 1000 < 50 drop"]
        );
        assert_eq!(
            drops(&Faults::none().one_way(Host::Node(1), Host::Node(2))),
            ["forward: iifname \"v-node1\" oifname \"v-node2\" drop"]
        );
    }

    #[test]
    fn a_host_elsewhere_has_no_rules() {
        let faults = Faults::none().isolate(Host::FarClient);
        assert!(faults.ruleset().is_err());
    }
}
