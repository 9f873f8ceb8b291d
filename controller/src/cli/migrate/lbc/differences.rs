//! What the other controllers do with the same settings, where Ballast does something else. Pure.
//!
//! Sources: `pkg/service/model_build_*.go` and `pkg/annotations/constants.go` of the AWS Load Balancer Controller
//! (3.5), `pkg/providers/v1/aws_loadbalancer.go` of cloud-provider-aws. The flags of these controllers, which
//! change defaults, cannot be seen from a Service: their own defaults are assumed.

use std::collections::BTreeMap;

use ballast_aws::Scheme;
use ballast_aws::annotations::PREFIX;
use ballast_aws::desired::{Check, Groups, TargetGroup};
use ballast_aws::preview::Objects;
use ballast_aws::settings::{CheckPort, CheckProtocol, Settings, attributes, tls};
use ballast_aws::target::TargetType;
use ballast_provider::{Listener, LoadBalancer, Protocol};
use k8s_openapi::api::core::v1::ServiceSpec;

use super::balancer::{healthy_port, port, protocol};
use super::becomes::{Origin, Setting, Verdict, key, subject};

/// The default of AWS's API and of both controllers for the security policy of TLS listeners.
const POLICY_OF_2016: &str = "ELBSecurityPolicy-2016-08";
/// TCP and UDP on one port become one listener.
const BOTH: &str = "enable-tcp-udp-listener";

/// What the in-tree provider reads for a Network Load Balancer. Entries that end with a hyphen are prefixes.
const READ_IN_TREE: [&str; 14] = [
    "access-log-",
    "additional-resource-tags",
    "backend-protocol",
    "cross-zone-load-balancing-enabled",
    "eip-allocations",
    "healthcheck-",
    "internal",
    "proxy-protocol",
    "security-groups",
    "ssl-",
    "subnets",
    "target-group-attributes",
    "target-node-labels",
    "type",
];
/// What Ballast reads and the AWS Load Balancer Controller does not.
const NOT_READ_BY_LBC: [&str; 2] = ["connection-draining-enabled", "connection-draining-timeout"];

/// A Service as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Old<'a> {
    /// Who serves it.
    pub(super) from: Origin,
    /// Its spec.
    pub(super) spec: &'a ServiceSpec,
    /// Its annotations.
    pub(super) annotations: &'a BTreeMap<String, String>,
    /// What it asks for.
    pub(super) asked: &'a LoadBalancer,
}

/// Each setting that means something else. `remarks` are those of the provider.
pub(super) fn differences(old: &Old<'_>, new: &Objects, remarks: &[String]) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut differs = |setting: String, why: String| {
        all.push(Setting {
            setting,
            result: Verdict::Differs,
            why,
        });
    };
    if let Some(why) = scheme(old, new) {
        differs(key("scheme"), why);
    }
    for name in ignored(old, new) {
        differs(
            key(&name),
            format!("{} ignores it; Ballast does not", old.from.called()),
        );
    }
    if let Some(why) = health_check(old, new) {
        differs("health check".to_owned(), why);
    }
    if let Some(why) = policy(new) {
        differs(key("ssl-negotiation-policy"), why);
    }
    if let Some(why) = all_ports(old, new) {
        differs(key("ssl-ports"), why);
    }
    if let Some(why) = both(old) {
        differs("spec.ports".to_owned(), why);
    }
    if let Some(why) = sticky(old, new) {
        differs("spec.sessionAffinity".to_owned(), why);
    }
    for (setting, why) in in_tree(old, new) {
        differs(setting, why);
    }
    for (name, what) in addresses(&new.own) {
        differs(
            key(name),
            format!(
                "{what} belongs to one load balancer at a time: give the second Service others, or release those of the first one before"
            ),
        );
    }
    if old.spec.selector.as_ref().is_none_or(BTreeMap::is_empty) {
        differs(
            "spec.selector".to_owned(),
            "it has none: the second Service needs EndpointSlices of its own".to_owned(),
        );
    }
    for path in of_class(&new.own, &new.merged) {
        differs(
            path.to_owned(),
            "the class sets it, and the Service does not".to_owned(),
        );
    }
    // The other controller makes a listener for TCP and UDP only with it, Ballast always.
    let said = |remark: &&String| subject(remark) != key(BOTH);
    for remark in remarks.iter().filter(said) {
        differs(subject(remark), remark.clone());
    }
    all
}

fn scheme(old: &Old<'_>, new: &Objects) -> Option<String> {
    let (then, by) = match old.from {
        Origin::LoadBalancerController => {
            (new.own.scheme.unwrap_or_default(), new.own.scheme.is_some())
        }
        // It reads the older annotation only.
        Origin::InTree if !old.annotations.contains_key(&key("internal")) => {
            (Scheme::InternetFacing, false)
        }
        Origin::InTree => {
            let internal = old.annotations.get(&key("internal"));
            let public = internal.is_some_and(|value| value.trim() == "false");
            let scheme = if public {
                Scheme::InternetFacing
            } else {
                Scheme::Internal
            };
            (scheme, true)
        }
    };
    let now = new.desired.scheme;
    if then == now {
        return None;
    }
    let default = if by {
        String::new()
    } else {
        format!(" by default of {}", old.from.called())
    };
    Some(format!(
        "it is {}{default}, and becomes {}. To keep it, set the annotation {PREFIX}scheme: {}, or spec.aws.scheme of the class",
        then.as_str(),
        now.as_str(),
        then.as_str()
    ))
}

/// Annotations that the other controller does not read.
fn ignored(old: &Old<'_>, new: &Objects) -> Vec<String> {
    let names = old
        .annotations
        .keys()
        .filter_map(|key| key.strip_prefix(PREFIX));
    let unread = |name: &&str| match old.from {
        Origin::LoadBalancerController => NOT_READ_BY_LBC.contains(name),
        Origin::InTree => !READ_IN_TREE
            .iter()
            .any(|known| name == known || (known.ends_with('-') && name.starts_with(known))),
    };
    // The scheme and the targets differ in the result, or not at all.
    let pods = new.merged.target_type == Some(TargetType::Ip);
    let said = |name: &&str| match *name {
        "scheme" => scheme(old, new).is_some(),
        "nlb-target-type" => !pods,
        name => !old.asked.settings.contains_key(&key(name)),
    };
    names
        .filter(|name| unread(name) && !said(name))
        .map(str::to_owned)
        .collect()
}

/// What the check of the other controller would be.
fn check_of(old: &Old<'_>, own: &Settings) -> Check {
    let set = &own.health_check;
    let says = |name: &str, value: &str| {
        let said = old.annotations.get(&key(name));
        said.is_some_and(|said| said.trim() == value)
    };
    let ip = old.from == Origin::LoadBalancerController
        && (says("nlb-target-type", "ip") || says("type", "nlb-ip"));
    let local = healthy_port(old.asked).filter(|_| !ip);
    let protocol = set.protocol.unwrap_or(if local.is_some() {
        CheckProtocol::Http
    } else {
        CheckProtocol::Tcp
    });
    let http = protocol != CheckProtocol::Tcp;
    let path = if local.is_some() { "/healthz" } else { "/" };
    let (interval, timeout, threshold) = match (old.from, local) {
        (Origin::LoadBalancerController, None) => (10, 10, 3),
        (Origin::LoadBalancerController, Some(_)) => (10, 6, 2),
        (Origin::InTree, None) => (30, 10, 3),
        (Origin::InTree, Some(_)) => (10, 10, 2),
    };
    Check {
        protocol,
        port: match &set.port {
            Some(CheckPort::Number(number)) => Some(*number),
            Some(CheckPort::Named(name)) => named(old.asked, name),
            Some(CheckPort::Traffic) => None,
            None => local,
        },
        path: http.then(|| set.path.clone().unwrap_or_else(|| path.to_owned())),
        success_codes: http.then(|| {
            let codes = set.success_codes.clone();
            codes.unwrap_or_else(|| "200-399".to_owned())
        }),
        interval: set.interval.unwrap_or(interval),
        timeout: set.timeout.unwrap_or(timeout),
        healthy_threshold: set.healthy_threshold.unwrap_or(threshold),
        unhealthy_threshold: set.unhealthy_threshold.unwrap_or(threshold),
    }
}

fn named(service: &LoadBalancer, name: &str) -> Option<u16> {
    let mut listeners = service.listeners.iter();
    let found = listeners.find(|one| one.name.as_deref() == Some(name));
    found.map(|one| one.node_port)
}

fn health_check(old: &Old<'_>, new: &Objects) -> Option<String> {
    let now = &new.desired.target_groups.values().next()?.check;
    let then = check_of(old, &new.own);
    let mut parts = Vec::new();
    let mut part = |what: &str, then: Option<String>, now: Option<String>| match (then, now) {
        (then, now) if then == now => {}
        (Some(then), Some(now)) => parts.push(format!("{what}{now} instead of {then}")),
        (None, Some(now)) => parts.push(format!("{what}{now}")),
        (_, None) => parts.push(format!("no {}", what.trim())),
    };
    let names = (&new.own.health_check.port, &new.merged.health_check.port);
    let name = |check: &Check| Some(protocol(check.protocol).to_owned());
    part("", name(&then), name(now));
    let at = |check, name: &Option<CheckPort>| Some(port(check, name.as_ref(), old.asked));
    part("", at(&then, names.0), at(now, names.1));
    part("path ", then.path.clone(), now.path.clone());
    // healthCheckNodePort answers with 200 or 503.
    let kube_proxy = healthy_port(old.asked);
    let asks_kube_proxy = kube_proxy.is_some() && then.port == kube_proxy && now.port == kube_proxy;
    if !asks_kube_proxy {
        part("codes ", then.success_codes, now.success_codes.clone());
    }
    let seconds = |seconds: u32| Some(format!("{seconds} s"));
    part("interval ", seconds(then.interval), seconds(now.interval));
    part("timeout ", seconds(then.timeout), seconds(now.timeout));
    let times = |times: u32| Some(times.to_string());
    part(
        "healthy after ",
        times(then.healthy_threshold),
        times(now.healthy_threshold),
    );
    part(
        "unhealthy after ",
        times(then.unhealthy_threshold),
        times(now.unhealthy_threshold),
    );
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn policy(new: &Objects) -> Option<String> {
    let ends_tls = new.desired.listeners.values().any(|one| one.tls.is_some());
    let says = new.own.tls.policy.is_some();
    (ends_tls && !says).then(|| {
        format!(
            "{} by default, instead of {POLICY_OF_2016}: clients need TLS 1.2 or 1.3",
            tls::POLICY
        )
    })
}

/// `*` for all ports.
fn all_ports(old: &Old<'_>, new: &Objects) -> Option<String> {
    let value = old.annotations.get(&key("ssl-ports"))?;
    let ends_tls = new.desired.listeners.values().any(|one| one.tls.is_some());
    let lbc = old.from == Origin::LoadBalancerController;
    (lbc && ends_tls && value.trim() == "*").then(|| {
        "it means all TCP ports; for the AWS Load Balancer Controller it matches no port, so nothing has TLS"
            .to_owned()
    })
}

/// TCP and UDP on one port.
fn both(old: &Old<'_>) -> Option<String> {
    let on = old.annotations.get(&key(BOTH));
    let on = on.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    if on || old.from == Origin::InTree {
        return None;
    }
    let all = &old.asked.listeners;
    let udp = |one: &&Listener| {
        let same = |other: &Listener| other.port == one.port && other.protocol == Protocol::Tcp;
        one.protocol == Protocol::Udp && all.iter().any(same)
    };
    let one = all.iter().find(udp)?;
    Some(format!(
        "port {} is TCP and UDP: both get a listener; the AWS Load Balancer Controller makes one for only one of them without {PREFIX}{BOTH}",
        one.port
    ))
}

fn sticky(old: &Old<'_>, new: &Objects) -> Option<String> {
    let on = |attributes: &BTreeMap<String, String>| {
        attributes.get(attributes::STICKINESS).map(String::as_str) == Some("true")
    };
    let asks = old.spec.session_affinity.as_deref() == Some("ClientIP");
    let group = |port: &u16| -> Option<&TargetGroup> {
        let listener = new.desired.listeners.get(port)?;
        new.desired.target_groups.get(listener.forward.only()?)
    };
    let added = |port: &u16| {
        let now = group(port).is_some_and(|group| on(&group.attributes));
        now && !on(&new.merged.attributes_of(*port))
    };
    let lbc = old.from == Origin::LoadBalancerController;
    (lbc && asks && new.desired.listeners.keys().any(added)).then(|| {
        "clients stay with a target (stickiness.enabled); the AWS Load Balancer Controller ignores it"
            .to_owned()
    })
}

fn in_tree(old: &Old<'_>, new: &Objects) -> Vec<(String, String)> {
    let mut all = Vec::new();
    if old.from != Origin::InTree {
        return all;
    }
    if matches!(new.desired.groups, Groups::Own { .. }) {
        all.push((
            "security groups".to_owned(),
            "the load balancer has groups of its own, and those of the nodes get one rule for all; the in-tree provider makes a load balancer without groups, and rules of the nodes' group for each port and source".to_owned(),
        ));
    }
    if new.merged.subnets.is_empty() {
        all.push((
            "subnets".to_owned(),
            "found by the role tags or else by routes; the in-tree provider takes those with the tag of the cluster".to_owned(),
        ));
    }
    all
}

/// Addresses that the first Service still has.
fn addresses(own: &Settings) -> Vec<(&'static str, &'static str)> {
    let mut all = Vec::new();
    if !own.elastic_addresses.is_empty() {
        all.push(("eip-allocations", "an Elastic IP address"));
    }
    if !own.private_addresses.is_empty() {
        all.push(("private-ipv4-addresses", "a private address"));
    }
    all
}

/// The fields of the class that change something. Scheme and health check are compared by their results.
fn of_class(own: &Settings, merged: &Settings) -> Vec<&'static str> {
    let all = [
        ("spec.aws.subnets", own.subnets != merged.subnets),
        (
            "spec.aws.securityGroups",
            own.security_groups != merged.security_groups,
        ),
        (
            "spec.aws.manageBackendSecurityGroupRules",
            own.manage_backend_rules != merged.manage_backend_rules,
        ),
        (
            "spec.aws.securityGroupPrefixLists",
            own.prefix_lists != merged.prefix_lists,
        ),
        (
            "spec.aws.loadBalancerAttributes",
            own.attributes != merged.attributes,
        ),
        (
            "spec.aws.targetGroupAttributes",
            own.target_group_attributes != merged.target_group_attributes,
        ),
        (
            "spec.aws.proxyProtocol",
            own.proxy_protocol != merged.proxy_protocol,
        ),
        ("spec.aws.tags", own.tags != merged.tags),
        (
            "spec.aws.targetNodeLabels",
            own.node_labels != merged.node_labels,
        ),
    ];
    let differ = all.into_iter().filter(|(_, differs)| *differs);
    differ.map(|(path, _)| path).collect()
}
