//! Environment checks: settings of this node and its network that break the announcement of addresses,
//! each with the fix. [`judge`] is pure; [`Proc`] reads `/proc`, and the kernel says which wireless
//! interfaces save power. Neither needs rights.
//!
//! | condition | true if |
//! |---|---|
//! | `ArpNotStrict` | kube-proxy runs in IPVS mode without `strictARP`: every node answers for every address |
//! | `ReversePathFiltered` | an interface drops requests of clients whose route leads to another interface |
//! | `RedirectsSent` | the node tells clients of its own subnet to use another node |
//! | `NoInterface` | an address that this node may announce is in the subnet of no interface, here or on another node |
//! | `Wireless` | a wireless interface saves power, or its driver does not say: power save loses requests |
//! | `KubeProxyMissing` | nothing answers on the health port of kube-proxy or what replaces it, neither on localhost nor on an address of the node |
//! | `NetRawMissing` | the announcer has not the capability `NET_RAW`. A process that runs has it; one that does not start says so ([`super::unfit`]) |
//!
//! The checks run soon after the first report, when it or the view changes, and every minute. A finding
//! that is new is logged once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ballast_announce::NodeName;
use ballast_announce::view::{Interface, View};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::object::listed;
use super::seam::{Report, ReportedInterface};
use crate::cluster::conditions::condition;

/// Between two checks, if nothing changes.
const EVERY: Duration = Duration::from_mins(1);
/// Between two checks at least.
const SPACING: Duration = Duration::from_secs(2);
/// The health port of kube-proxy (`--healthz-bind-address`). Replacements such as Cilium serve it, too.
const KUBE_PROXY: u16 = 10256;
/// How long a check waits for the first view.
const MOMENT: Duration = Duration::from_millis(500);
/// How long kube-proxy's port may take to accept.
const PATIENCE: Duration = Duration::from_secs(1);
/// Addresses of the node that are asked.
const MOST_ADDRESSES: usize = 8;
/// The interface that kube-proxy makes in IPVS mode.
const IPVS: &str = "kube-ipvs0";
/// Longer than any of the files that are read.
const LONGEST: u64 = 1024 * 1024;

/// The conditions of all checks.
pub(super) fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, _, _)| *kind)
}

/// What is known of this node. `None` is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The interfaces that can announce addresses.
    pub interfaces: BTreeMap<Arc<str>, Sysctls>,
    /// `net.ipv4.conf.all`
    pub all: Sysctls,
    /// All interfaces of the host, by name.
    pub names: BTreeSet<String>,
    /// Wireless interfaces, and whether they save power.
    pub wireless: BTreeMap<String, Option<bool>>,
    /// The interfaces with a default route.
    pub default_routes: BTreeSet<String>,
    /// Something listens on the health port of kube-proxy.
    pub kube_proxy: Option<bool>,
    /// Addresses that this node may announce, and is in the subnet of none.
    pub unreachable: Vec<IpAddr>,
}

/// Settings of an interface, or of all of them; see `ip-sysctl.rst` of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sysctls {
    /// `rp_filter`: 1 is strict. The higher one of `all` and the interface counts.
    pub rp_filter: Option<u8>,
    /// `send_redirects`: either one is enough.
    pub send_redirects: Option<u8>,
    /// `arp_ignore`: the higher one counts.
    pub arp_ignore: Option<u8>,
    /// `arp_announce`: the higher one counts.
    pub arp_announce: Option<u8>,
}

/// Something that should be different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The type of the condition.
    pub kind: &'static str,
    /// The reason of the condition.
    pub reason: &'static str,
    /// What is wrong, and the fix.
    pub message: String,
}

/// The conditions, each with its reason and message while nothing is wrong.
const KINDS: [(&str, &str, &str); 7] = [
    (
        ARP_NOT_STRICT,
        "NoIPVS",
        "kube-proxy does not make nodes answer for addresses of Services",
    ),
    (
        REVERSE_PATH_FILTERED,
        "NotFiltered",
        "No interface drops requests of clients in other networks",
    ),
    (
        REDIRECTS_SENT,
        "NoRedirects",
        "The node sends no ICMP redirects on interfaces that announce addresses",
    ),
    (
        NO_INTERFACE,
        "InSubnet",
        "Each address that this node may announce is in the subnet of an interface, here or on another node",
    ),
    (WIRELESS, "NoPowerSave", "No wireless interface saves power"),
    (
        KUBE_PROXY_MISSING,
        "KubeProxyRuns",
        "kube-proxy, or what replaces it, runs on the node",
    ),
    (
        NET_RAW_MISSING,
        "Permitted",
        "The announcer has the capability NET_RAW",
    ),
];

const ARP_NOT_STRICT: &str = "ArpNotStrict";
const REVERSE_PATH_FILTERED: &str = "ReversePathFiltered";
const REDIRECTS_SENT: &str = "RedirectsSent";
const NO_INTERFACE: &str = "NoInterface";
const WIRELESS: &str = "Wireless";
const KUBE_PROXY_MISSING: &str = "KubeProxyMissing";
/// A condition: the announcer cannot open packet sockets.
pub const NET_RAW_MISSING: &str = "NetRawMissing";

/// What should be different.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let findings = [
        strict_arp(facts),
        reverse_path(facts),
        redirects(facts),
        subnets(facts),
        wireless(facts),
        kube_proxy(facts),
    ];
    findings.into_iter().flatten().collect()
}

/// The announcer cannot open packet sockets. The message names the fix.
pub fn net_raw(message: String) -> Finding {
    Finding {
        kind: NET_RAW_MISSING,
        reason: "NotPermitted",
        message,
    }
}

/// All conditions, without times.
pub fn conditions(findings: &[Finding]) -> Vec<Condition> {
    let conditions = KINDS.iter().map(|(kind, reason, fine)| {
        let found = findings.iter().find(|it| it.kind == *kind);
        match found {
            Some(found) => condition(kind, true, found.reason, found.message.clone()),
            None => condition(kind, false, reason, (*fine).to_owned()),
        }
    });
    conditions.collect()
}

fn strict_arp(facts: &Facts) -> Option<Finding> {
    let effective = |of: fn(&Sysctls) -> Option<u8>| {
        let each = facts.interfaces.values();
        let each = each.map(|it| of(it).unwrap_or(0).max(of(&facts.all).unwrap_or(0)));
        each.min().unwrap_or_else(|| of(&facts.all).unwrap_or(0))
    };
    let strict = effective(|it| it.arp_ignore) >= 1 && effective(|it| it.arp_announce) >= 2;
    (facts.names.contains(IPVS) && !strict).then(|| Finding {
        kind: ARP_NOT_STRICT,
        reason: "IPVSWithoutStrictARP",
        message: "kube-proxy runs in IPVS mode without strictARP, so every node answers for every address. Set ipvs.strictARP: true in the configuration of kube-proxy and restart it".to_owned(),
    })
}

fn reverse_path(facts: &Facts) -> Option<Finding> {
    let strict = |it: &Sysctls| it.rp_filter.max(facts.all.rp_filter) == Some(1);
    let elsewhere =
        |name: &str| !facts.default_routes.is_empty() && !facts.default_routes.contains(name);
    let found = facts.interfaces.iter();
    let found = found.filter(|(name, it)| strict(it) && elsewhere(name));
    let names: Vec<_> = found.map(|(name, _)| name).collect();
    (!names.is_empty()).then(|| Finding {
        kind: REVERSE_PATH_FILTERED,
        reason: "StrictFilter",
        message: format!(
            "rp_filter is strict on {}, and the default route leads to another interface, so requests of clients in other networks are dropped there. Set net.ipv4.conf.<interface>.rp_filter and net.ipv4.conf.all.rp_filter to 2 (loose), or 0",
            listed(&names)
        ),
    })
}

fn redirects(facts: &Facts) -> Option<Finding> {
    let sends = |it: &Sysctls| it.send_redirects.max(facts.all.send_redirects) >= Some(1);
    let found = facts.interfaces.iter().filter(|(_, it)| sends(it));
    let names: Vec<_> = found.map(|(name, _)| name).collect();
    (!names.is_empty()).then(|| Finding {
        kind: REDIRECTS_SENT,
        reason: "SendRedirects",
        message: format!(
            "The node may send ICMP redirects on {} when it forwards a request to a node in the same subnet. Clients need not follow them; to avoid them set net.ipv4.conf.<interface>.send_redirects and net.ipv4.conf.all.send_redirects to 0",
            listed(&names)
        ),
    })
}

fn subnets(facts: &Facts) -> Option<Finding> {
    (!facts.unreachable.is_empty()).then(|| Finding {
        kind: NO_INTERFACE,
        reason: "NoSubnet",
        message: format!(
            "Neither this node nor another one has an interface in the subnet of {} that the class allows. Add one, or correct the pool or spec.l2.interfaces and spec.l2.nodeSelector of the class",
            listed(&facts.unreachable)
        ),
    })
}

fn wireless(facts: &Facts) -> Option<Finding> {
    let with = |state: Option<bool>| -> Vec<&Arc<str>> {
        let names = facts.interfaces.keys();
        names
            .filter(|name| facts.wireless.get(&***name) == Some(&state))
            .collect()
    };
    let (saving, unknown) = (with(Some(true)), with(None));
    let (reason, what) = match (&saving[..], &unknown[..]) {
        ([], []) => return None,
        ([], names) => (
            "PowerSaveUnknown",
            format!(
                "{} is wireless, and its driver does not say whether it saves power",
                listed(names)
            ),
        ),
        (names, _) => (
            "PowerSave",
            format!("{} is wireless and saves power", listed(names)),
        ),
    };
    Some(Finding {
        kind: WIRELESS,
        reason,
        message: format!(
            "{what}. Power save delays or loses ARP requests: turn it off (iw dev <interface> set power_save off)"
        ),
    })
}

fn kube_proxy(facts: &Facts) -> Option<Finding> {
    (facts.kube_proxy == Some(false)).then(|| Finding {
        kind: KUBE_PROXY_MISSING,
        reason: "NoHealthPort",
        message: format!(
            "Nothing listens on port {KUBE_PROXY} of this node, on localhost or on an address of the node, where kube-proxy reports its health. Without kube-proxy, or a replacement, the node forwards nothing for the addresses that it announces"
        ),
    })
}

/// Where facts are read.
#[derive(Clone, Debug)]
pub struct Proc(PathBuf);

/// The checks of this node.
pub struct Checks {
    /// Where facts are read.
    pub proc: Proc,
    /// This node.
    pub me: NodeName,
    /// What the agent reports.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// What the API server says.
    pub views: watch::Receiver<Option<Arc<View>>>,
    /// Where findings go; `None` before the first check.
    pub findings: watch::Sender<Option<Arc<Vec<Finding>>>>,
}

// === impl Checks ===

impl Checks {
    /// Checks for ever.
    pub async fn run(mut self) {
        loop {
            // Without a pause: the Announcer object waits for the first check, and the former process of
            // the node for the object.
            let report = self.reports.wait_for(Option::is_some).await;
            let Some(report) = report.ok().and_then(|report| report.clone()) else {
                // The agent has ended, because the process is about to.
                return std::future::pending().await;
            };
            // Usually both come together: with the view, the first check knows everything.
            let _ = timeout(MOMENT, self.views.wait_for(Option::is_some)).await;
            let view = self.views.borrow_and_update().clone();
            self.check(&report, view.as_deref()).await;
            sleep(SPACING).await;
            tokio::select! {
                // The senders live as long as this task.
                Ok(()) = self.reports.changed() => {}
                Ok(()) = self.views.changed() => {}
                () = sleep(EVERY) => {}
            }
        }
    }

    async fn check(&self, report: &Report, view: Option<&View>) {
        let mut facts = self.proc.read(&report.interfaces);
        ask_wireless(&mut facts, &report.interfaces);
        let own = view.and_then(|view| view.nodes.get(&self.me));
        let own = own.map(|node| node.addresses.as_slice());
        facts.kube_proxy = kube_proxy_runs(own, KUBE_PROXY).await;
        if let Some(view) = view {
            facts.unreachable = unreachable(&self.me, &report.interfaces, view);
        }
        let found = judge(&facts);
        self.findings.send_if_modified(|findings| {
            let before = findings.as_deref().map_or(&[][..], Vec::as_slice);
            for new in found.iter().filter(|it| !before.contains(it)) {
                warn!(condition = new.kind, "{}", new.message);
            }
            let differs = findings.as_deref() != Some(&found);
            if differs {
                *findings = Some(Arc::new(found));
            }
            differs
        });
    }
}

/// Whether something listens on the port of kube-proxy: on localhost, or on an address of the node, as
/// `--healthz-bind-address` may say. `None` if only the latter could still be.
async fn kube_proxy_runs(own: Option<&[IpAddr]>, port: u16) -> Option<bool> {
    let local = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let known = own.unwrap_or_default().iter().take(MOST_ADDRESSES);
    let asked = local.iter().chain(known);
    let mut asked: JoinSet<bool> = asked.map(|at| listens((*at, port).into())).collect();
    while let Some(answer) = asked.join_next().await {
        if answer.is_ok_and(|listens| listens) {
            return Some(true);
        }
    }
    own.map(|_| false)
}

/// Not every kernel lists wireless interfaces in `/proc`.
fn ask_wireless(facts: &mut Facts, interfaces: &[ReportedInterface]) {
    match ballast_link::power_save(interfaces.iter().map(|it| it.index)) {
        Ok(answers) => {
            let all = interfaces.iter();
            let said = all.filter_map(|it| Some((it.name.to_string(), answers.get(&it.index)?)));
            let said = said.map(|(name, saves)| (name, Some(*saves)));
            facts.wireless.extend(said);
        }
        Err(error) => debug!(%error, "cannot ask about wireless interfaces"),
    }
}

async fn listens(at: SocketAddr) -> bool {
    matches!(timeout(PATIENCE, TcpStream::connect(at)).await, Ok(Ok(_)))
}

/// The addresses that a node may announce as far as its labels say, and is in the subnet of none,
/// and neither is another node. In a cluster with several networks each node serves its own.
fn unreachable(me: &NodeName, interfaces: &[ReportedInterface], view: &View) -> Vec<IpAddr> {
    let interfaces: Vec<Interface> = interfaces.iter().map(Interface::from).collect();
    let wanted = view.wanted.iter().filter(|(address, wanted)| {
        let selected = wanted.nodes.as_ref().is_none_or(|nodes| nodes.contains(me));
        let others = view.nodes.iter().filter(|(node, _)| *node != me);
        let elsewhere = others.filter(|(node, _)| {
            let nodes = wanted.nodes.as_ref();
            nodes.is_none_or(|nodes| nodes.contains(*node))
        });
        selected
            && !interfaces.iter().any(|it| it.serves(address, wanted))
            && elsewhere
                .into_iter()
                .all(|(_, facts)| facts.serving(address, wanted).is_none())
    });
    wanted.map(|(address, _)| *address).collect()
}

// === impl Proc ===

impl Default for Proc {
    fn default() -> Self {
        Self(PathBuf::from("/proc"))
    }
}

impl Proc {
    /// What the files say.
    pub fn read(&self, interfaces: &[ReportedInterface]) -> Facts {
        let first = |line: &str| {
            line.split([' ', '\t', ':'])
                .find(|it| !it.is_empty())
                .map(str::to_owned)
        };
        // Both have two lines of headings.
        let names = self.lines("thread-self/net/dev").skip(2);
        let wireless = self.lines("thread-self/net/wireless").skip(2);
        let routes = self.lines("thread-self/net/route").skip(1);
        let default_routes = routes.filter(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let destination = fields.next();
            destination == Some("00000000") && fields.nth(5) == Some("00000000")
        });
        Facts {
            interfaces: interfaces
                .iter()
                .map(|it| (Arc::clone(&it.name), self.sysctls(&it.name)))
                .collect(),
            all: self.sysctls("all"),
            names: names.filter_map(|line| first(&line)).collect(),
            wireless: wireless
                .filter_map(|line| Some((first(&line)?, None)))
                .collect(),
            default_routes: default_routes.filter_map(|line| first(&line)).collect(),
            kube_proxy: None,
            unreachable: Vec::new(),
        }
    }

    fn sysctls(&self, interface: &str) -> Sysctls {
        let number = |name: &str| {
            let path = format!("sys/net/ipv4/conf/{interface}/{name}");
            self.text(&path).trim().parse().ok()
        };
        Sysctls {
            rp_filter: number("rp_filter"),
            send_redirects: number("send_redirects"),
            arp_ignore: number("arp_ignore"),
            arp_announce: number("arp_announce"),
        }
    }

    fn lines(&self, path: &str) -> impl Iterator<Item = String> + use<> {
        let text = self.text(path);
        text.lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// The content of a file; empty if it cannot be read.
    fn text(&self, path: &str) -> String {
        use std::io::Read as _;
        let mut text = String::new();
        if let Ok(file) = std::fs::File::open(self.0.join(path)) {
            let _ = file.take(LONGEST).read_to_string(&mut text);
        }
        text
    }
}

#[cfg(test)]
mod tests;
