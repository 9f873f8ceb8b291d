//! The load balancer that a Service gets, in a few words. Pure.

use std::collections::BTreeSet;

use ballast_aws::desired::{Check, Groups, ListenerSpec, Source};
use ballast_aws::preview::Objects;
use ballast_aws::settings::{CheckPort, CheckProtocol};
use ballast_aws::target::TargetType;
use ballast_provider::{LoadBalancer, TrafficPolicy};
use serde::Serialize;

/// A Network Load Balancer. Whatever only AWS knows is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Balancer {
    /// `internal` or `internet-facing`
    pub scheme: &'static str,
    /// What the targets are.
    pub target_type: &'static str,
    /// In order of their ports.
    pub listeners: Vec<ListenerLine>,
    /// How AWS checks the targets.
    pub health_check: String,
    /// The groups that are named; none of them: one of its own.
    pub security_groups: Vec<String>,
    /// Who may connect, if it has a group of its own.
    pub clients: Vec<String>,
    /// Whether it also has the group through which it reaches the nodes.
    pub backend_group: bool,
    /// The subnets that are named; none of them: those that are found by tags and routes.
    pub subnets: Vec<String>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerLine {
    /// The port for clients.
    pub port: u16,
    /// `TCP`, `TLS`, `UDP` or `TCP_UDP`
    pub protocol: &'static str,
    /// The protocol of its target group.
    pub target_protocol: &'static str,
    /// The ARNs of its certificates, the default one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// Its security policy, if it ends TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

// === impl Balancer ===

impl Balancer {
    /// From the objects that the provider would make.
    pub fn of(asked: &LoadBalancer, objects: &Objects) -> Self {
        let desired = &objects.desired;
        let listeners = desired.listeners.iter().map(|(port, listener)| {
            let group = listener.forward.only();
            let group = group.and_then(|name| desired.target_groups.get(name));
            let to_targets = group.map_or("", |group| group.transport.protocol(group.tls));
            ListenerLine::of(*port, listener, to_targets)
        });
        let check = desired.target_groups.values().next();
        let named = objects.merged.health_check.port.as_ref();
        let (security_groups, clients) = match &desired.groups {
            Groups::Own { rules, .. } => {
                let sources = rules.iter().map(|rule| match &rule.source {
                    Source::Range(range) => range.to_string(),
                    Source::PrefixList(id) | Source::Group(id) => id.clone(),
                });
                let sources: BTreeSet<String> = sources.collect();
                (Vec::new(), sources.into_iter().collect())
            }
            Groups::Given(ids) => (ids.clone(), Vec::new()),
        };
        Self {
            scheme: desired.scheme.as_str(),
            target_type: objects.merged.target_type.unwrap_or_default().as_str(),
            listeners: listeners.collect(),
            health_check: check
                .map_or_else(String::new, |group| checked(&group.check, named, asked)),
            security_groups,
            clients,
            backend_group: desired.backend_group.is_some(),
            subnets: objects.merged.subnets.clone(),
        }
    }

    /// One line.
    pub fn text(&self) -> String {
        let listeners: Vec<String> = self.listeners.iter().map(ListenerLine::text).collect();
        let mut groups = if self.security_groups.is_empty() {
            format!("a group of its own, for {}", self.clients.join(", "))
        } else {
            self.security_groups.join(", ")
        };
        if self.backend_group {
            groups.push_str(", and the backend group");
        }
        let subnets = if self.subnets.is_empty() {
            String::new()
        } else {
            format!("; subnets: {}", self.subnets.join(", "))
        };
        let targets = if self.target_type == TargetType::Ip.as_str() {
            "pods"
        } else {
            "node ports"
        };
        format!(
            "{}; listeners: {}; targets: {targets}; health check: {}; security groups: {groups}{subnets}",
            self.scheme,
            listeners.join(", "),
            self.health_check
        )
    }
}

// === impl ListenerLine ===

impl ListenerLine {
    fn of(port: u16, listener: &ListenerSpec, target_protocol: &'static str) -> Self {
        let tls = listener.tls.as_ref();
        let first = tls.map(|tls| tls.certificate.clone());
        Self {
            port,
            protocol: listener.transport.protocol(tls.is_some()),
            target_protocol,
            certificates: first.into_iter().chain(listener.sni.clone()).collect(),
            policy: tls.map(|tls| tls.policy.clone()),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}/{}", self.port, self.protocol);
        if let Some(policy) = &self.policy {
            let count = self.certificates.len();
            let certificates = if count == 1 {
                "certificate"
            } else {
                "certificates"
            };
            text = format!(
                "{text} ({count} {certificates}, {policy}, {} to the targets)",
                self.target_protocol
            );
        }
        text
    }
}

/// The name of a protocol.
pub(super) const fn protocol(protocol: CheckProtocol) -> &'static str {
    match protocol {
        CheckProtocol::Tcp => "TCP",
        CheckProtocol::Http => "HTTP",
        CheckProtocol::Https => "HTTPS",
    }
}

/// The port of a check. Numbers that Kubernetes chooses are not named: the second Service has its own.
pub(super) fn port(check: &Check, named: Option<&CheckPort>, asked: &LoadBalancer) -> String {
    match (named, check.port) {
        (Some(CheckPort::Named(name)), _) => format!("port \"{name}\""),
        (None, Some(port)) if healthy_port(asked) == Some(port) => "healthCheckNodePort".to_owned(),
        (_, Some(port)) => format!("port {port}"),
        (_, None) => "the traffic port".to_owned(),
    }
}

/// `spec.healthCheckNodePort`, if the Service has one.
pub(super) const fn healthy_port(asked: &LoadBalancer) -> Option<u16> {
    match asked.traffic_policy {
        TrafficPolicy::Local {
            health_check_node_port,
        } => Some(health_check_node_port),
        TrafficPolicy::Cluster => None,
    }
}

fn checked(check: &Check, named: Option<&CheckPort>, asked: &LoadBalancer) -> String {
    let path = check.path.as_ref();
    let path = path.map_or(String::new(), |path| format!(", {path}"));
    format!(
        "{} on {}{path}, every {} s",
        protocol(check.protocol),
        port(check, named, asked),
        check.interval
    )
}
