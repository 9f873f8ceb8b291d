//! The listeners of one Service and their target groups. Pure.

use std::collections::BTreeMap;

use ballast_provider::{Affinity, Listener, LoadBalancer, Mark, Protocol, Reason, Refusal};

use super::{ListenerSpec, NAMES, TargetGroup, Transport, check, tls};
use crate::annotations::{PREFIX, invalid};
use crate::settings::{Settings, attributes};

/// AWS's limit for the listeners of a load balancer.
const MOST_LISTENERS: usize = 50;

/// The listeners and their target groups.
pub(super) type Served = (BTreeMap<u16, ListenerSpec>, BTreeMap<String, TargetGroup>);

/// One listener per port. TCP and UDP share one, because AWS has at most one listener on a port.
pub(super) fn listeners(
    mark: &Mark,
    key: &str,
    service: &LoadBalancer,
    settings: &Settings,
    remarks: &mut Vec<String>,
) -> Result<Served, Refusal> {
    let mut ports: BTreeMap<u16, Vec<&Listener>> = BTreeMap::new();
    for listener in &service.listeners {
        ports.entry(listener.port).or_default().push(listener);
    }
    if ports.len() > MOST_LISTENERS {
        return Err(Refusal::new(
            Reason::QuotaExceeded,
            format!(
                "spec.ports: {} ports; a Network Load Balancer has at most {MOST_LISTENERS}",
                ports.len()
            ),
        ));
    }
    if let Some(unused) = settings.unused_port(|port| ports.contains_key(&port)) {
        return Err(invalid(format!(
            "annotations {PREFIX}…: the Service has no port {unused}"
        )));
    }
    let secure = tls::ports(service, &settings.tls)?;
    if secure.is_empty() && !settings.tls.certificates.is_empty() {
        remarks.push(format!(
            "annotation {PREFIX}ssl-cert has no effect: the Service has no TCP port"
        ));
    }
    let (mut listeners, mut groups) = Served::default();
    for (port, same) in ports {
        let front = tls::of(&settings.tls).filter(|_| secure.contains(&port));
        let group = target_group(
            mark,
            key,
            service,
            settings,
            &same,
            front.is_some(),
            remarks,
        )?;
        let (tls, sni) = front.unzip();
        let listener = ListenerSpec {
            transport: group.transport,
            tls,
            sni: sni.unwrap_or_default(),
            target_group: group.name.clone(),
            attributes: settings
                .listener_attributes
                .get(&port)
                .cloned()
                .unwrap_or_default(),
        };
        if !listener.attributes.is_empty() && !listener.has_attributes() {
            return Err(invalid(format!(
                "annotation {PREFIX}listener-attributes.TCP-{port}: AWS has attributes only for TCP listeners without TLS, and this one is {}",
                listener.transport.protocol(listener.tls.is_some())
            )));
        }
        listeners.insert(port, listener);
        groups.insert(group.name.clone(), group);
    }
    Ok((listeners, groups))
}

/// The target group of all listeners of one port. `secure`: its listener ends TLS.
fn target_group(
    mark: &Mark,
    key: &str,
    service: &LoadBalancer,
    settings: &Settings,
    same: &[&Listener],
    secure: bool,
    remarks: &mut Vec<String>,
) -> Result<TargetGroup, Refusal> {
    let mut transports = same.iter().map(|listener| listener.protocol);
    let (first, second) = (transports.next(), transports.next());
    let transport = match (first, second) {
        (_, Some(_)) => Transport::TcpUdp,
        (Some(Protocol::Udp), None) => Transport::Udp,
        _ => Transport::Tcp,
    };
    let port = same.first().map_or(0, |listener| listener.node_port);
    if let Some(other) = same.iter().find(|listener| listener.node_port != port) {
        return Err(invalid(format!(
            "spec.ports: TCP and UDP on port {} share a listener, so they need the same nodePort, not {port} and {}",
            other.port, other.node_port
        )));
    }
    let number = same.first().map_or(0, |listener| listener.port);
    let mut all = settings.attributes_of(number);
    if matches!(service.affinity, Affinity::ClientIp { .. }) {
        all.entry(attributes::STICKINESS.into())
            .or_insert_with(|| "true".into());
    }
    let sticky = attributes::STICKINESS;
    if secure && all.remove(sticky).is_some_and(|it| it == "true") {
        remarks.push(format!(
            "{sticky}=true, also by sessionAffinity, has no effect on port {number}: AWS does not support it with TLS"
        ));
    }
    let preserve = attributes::PRESERVE_CLIENT_IP;
    if transport != Transport::Tcp && all.remove(preserve).is_some_and(|it| it == "false") {
        remarks.push(format!(
            "{preserve}=false has no effect on port {number}: AWS always keeps the addresses of UDP clients"
        ));
    }
    let tls = secure && settings.tls.to_targets;
    Ok(TargetGroup {
        name: mark.name_of(
            NAMES,
            &format!("{key}/{number}/{}/{port}", transport.protocol(tls)),
        ),
        transport,
        tls,
        port,
        check: check::of(service, settings)?,
        attributes: all,
    })
}
