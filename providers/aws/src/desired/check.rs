//! The health check of a target group. Pure.

use ballast_provider::{LoadBalancer, Refusal, TrafficPolicy};

use super::Check;
use crate::annotations::{PREFIX, invalid};
use crate::settings::{CheckPort, CheckProtocol, Settings};
use crate::target::TargetType;

/// kube-proxy's health check of a node (KEP-3836): fails as soon as the node is to be drained.
const KUBE_PROXY: u16 = 10_256;
/// What kube-proxy and `healthCheckNodePort` serve.
const HEALTHZ: &str = "/healthz";

/// The health check: what is set, and otherwise the default of the traffic policy. kube-proxy
/// serves one path on its port, so its check is the default only if nothing else is asked for.
/// With policy Local, `healthCheckNodePort` stays the one that is asked unless the port or TCP is
/// set: no other one knows which node has a pod. If the targets are pods, the default is a connection to the port
/// that gets the traffic, whatever the policy.
pub(super) fn of(
    service: &LoadBalancer,
    settings: &Settings,
    groupless: bool,
) -> Result<Check, Refusal> {
    let set = &settings.health_check;
    let tcp = set.protocol == Some(CheckProtocol::Tcp);
    let plain = set.protocol.is_none() && set.path.is_none() && set.success_codes.is_none();
    let pods = settings.target_type == Some(TargetType::Ip);
    let default = match service.traffic_policy {
        // A pod answers for itself only, on its own port.
        _ if pods || set.port.is_some() || tcp => None,
        // The nodes may admit clients to their node ports only.
        TrafficPolicy::Cluster if groupless => None,
        TrafficPolicy::Cluster => plain.then_some(KUBE_PROXY),
        TrafficPolicy::Local {
            health_check_node_port,
        } => Some(health_check_node_port),
    };
    let http = set.path.is_some() || set.success_codes.is_some() || default.is_some();
    let protocol = set.protocol.unwrap_or(if http {
        CheckProtocol::Http
    } else {
        CheckProtocol::Tcp
    });
    let http = protocol != CheckProtocol::Tcp;
    let (path, codes) = match default {
        Some(_) => (HEALTHZ, "200"),
        None => ("/", "200-399"),
    };
    let interval = set.interval.unwrap_or(10);
    Ok(Check {
        protocol,
        port: match &set.port {
            Some(CheckPort::Number(number)) => Some(*number),
            Some(CheckPort::Named(name)) if pods => {
                return Err(invalid(format!(
                    "annotation {PREFIX}healthcheck-port: \"{name}\" must be a number or traffic-port, because the targets are pods, and the port of this name may be another one on each pod"
                )));
            }
            Some(CheckPort::Named(name)) => Some(named(service, name)?),
            Some(CheckPort::Traffic) => None,
            None => default,
        },
        path: http.then(|| set.path.clone().unwrap_or_else(|| path.to_owned())),
        success_codes: http.then(|| {
            set.success_codes
                .clone()
                .unwrap_or_else(|| codes.to_owned())
        }),
        interval,
        timeout: set.timeout.unwrap_or(6).min(interval),
        healthy_threshold: set.healthy_threshold.unwrap_or(2),
        unhealthy_threshold: set.unhealthy_threshold.unwrap_or(2),
    })
}

/// The node port of a port of the Service.
fn named(service: &LoadBalancer, name: &str) -> Result<u16, Refusal> {
    let mut listeners = service.listeners.iter();
    listeners
        .find(|listener| listener.name.as_deref() == Some(name))
        .map(|listener| listener.node_port)
        .ok_or_else(|| {
            invalid(format!(
                "annotation {PREFIX}healthcheck-port: the Service has no port with the name \"{name}\""
            ))
        })
}
