//! The listeners of one Service and their target groups. Pure.

use std::collections::BTreeMap;

use ballast_provider::{Affinity, Family, Key, Listener, Mark, Protocol, Reason, Refusal};

use super::families::Split;
use super::names::{scope, selector, tags};
use super::weights::Groups;
use super::{ListenerSpec, NAMES, Part, TargetGroup, Transport, check, tls};
use crate::annotations::{PREFIX, invalid};
use crate::forward::Forward;
use crate::nodes::NODE_LABELS;
use crate::pods::LISTENER_PORT;
use crate::settings::attributes;
use crate::target::{NODE_PORT, TargetType};

/// AWS's limit for the listeners of a load balancer.
pub(super) const MOST_LISTENERS: usize = 50;

/// What one Service has on a load balancer.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// By port.
    pub(super) listeners: BTreeMap<u16, ListenerSpec>,
    /// By name.
    pub(super) target_groups: BTreeMap<String, TargetGroup>,
    /// The target groups of each port.
    pub(super) groups: BTreeMap<u16, Groups>,
}

/// A listener of one Service, and how its target group is named and marked.
struct Front<'a> {
    part: &'a Part<'a>,
    mark: &'a Mark,
    /// What the names of target groups begin with before they are hashed.
    scope: &'a str,
    groupless: bool,
    /// The ports of the Service with the same number.
    same: &'a [&'a Listener],
    /// It ends TLS.
    secure: bool,
    tags: &'a BTreeMap<String, String>,
}

// === impl Served ===

impl Served {
    /// One listener per port. TCP and UDP share one, because AWS has at most one listener on a port.
    pub(super) fn of(
        (mark, key): (&Mark, &Key),
        part: &Part<'_>,
        split: Split,
        groupless: bool,
        remarks: &mut Vec<String>,
    ) -> Result<Self, Refusal> {
        let Part {
            service, settings, ..
        } = *part;
        let mut scope = scope(key, settings);
        if let Key::Shared(_) = key {
            // One Service may take over a port from another one: never its target group.
            scope = format!("{scope}/{}", service.id.uid);
        }
        let tags = tags(mark, key, service, settings)?;
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
        if settings.target_type == Some(TargetType::Ip) && settings.node_labels.is_some() {
            remarks.push(
                "target-node-labels has no effect: the targets are pods, on whichever node they run".to_owned(),
            );
        }
        let mut served = Self::default();
        for (port, same) in ports {
            let ends = tls::of(&settings.tls).filter(|_| secure.contains(&port));
            let front = Front {
                part,
                mark,
                scope: &scope,
                groupless,
                same: &same,
                secure: ends.is_some(),
                tags: &tags,
            };
            let tcp = front.transport() == Transport::Tcp;
            let family = if tcp { split.default } else { split.udp };
            let group = front.target_group(family, remarks)?;
            // What is to be said of it was said of the first one.
            let ipv6 = (split.ipv6 && tcp)
                .then(|| front.target_group(Family::V6, &mut Vec::new()))
                .transpose()?;
            let groups = Groups {
                default: group.name.clone(),
                ipv6: ipv6.as_ref().map(|it| it.name.clone()),
                family,
                transport: group.transport,
                tls: group.tls,
            };
            let (tls, sni) = ends.unzip();
            let listener = ListenerSpec {
                transport: group.transport,
                tls,
                sni: sni.unwrap_or_default(),
                forward: Forward::to(groups.default.clone()),
                ipv6: groups.ipv6.clone().map(Forward::to),
                attributes: settings
                    .listener_attributes
                    .get(&port)
                    .cloned()
                    .unwrap_or_default(),
                tags: tags.clone(),
            };
            if !listener.attributes.is_empty() && !listener.has_attributes() {
                return Err(invalid(format!(
                    "annotation {PREFIX}listener-attributes.TCP-{port}: AWS has attributes only for TCP listeners without TLS, and this one is {}",
                    listener.transport.protocol(listener.tls.is_some())
                )));
            }
            served.listeners.insert(port, listener);
            served.groups.insert(port, groups);
            let made = [group].into_iter().chain(ipv6);
            (served.target_groups).extend(made.map(|group| (group.name.clone(), group)));
        }
        Ok(served)
    }
}

// === impl Front ===

impl Front<'_> {
    /// That of all its listeners.
    fn transport(&self) -> Transport {
        let mut transports = self.same.iter().map(|listener| listener.protocol);
        let (first, second) = (transports.next(), transports.next());
        match (first, second) {
            (_, Some(_)) => Transport::TcpUdp,
            (Some(Protocol::Udp), None) => Transport::Udp,
            _ => Transport::Tcp,
        }
    }

    /// The target group of all listeners of one port, for clients of one family.
    fn target_group(
        &self,
        family: Family,
        remarks: &mut Vec<String>,
    ) -> Result<TargetGroup, Refusal> {
        let Part {
            service, settings, ..
        } = *self.part;
        let (same, secure) = (self.same, self.secure);
        let transport = self.transport();
        let backends = settings.target_type.unwrap_or_default();
        // For AWS, an instance has IPv4 only.
        let target_type = match (backends, family) {
            (TargetType::Instance, Family::V4) => TargetType::Instance,
            _ => TargetType::Ip,
        };
        let number = same.first().map_or(0, |listener| listener.port);
        let port = match backends {
            TargetType::Instance => same.first().map_or(0, |listener| listener.node_port),
            // AWS wants one, and each pod is registered with its own.
            TargetType::Ip => number,
        };
        if backends == TargetType::Instance
            && let Some(other) = same.iter().find(|listener| listener.node_port != port)
        {
            return Err(invalid(format!(
                "spec.ports: TCP and UDP on port {} share a listener, so they need the same nodePort, not {port} and {}",
                other.port, other.node_port
            )));
        }
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
        if target_type == TargetType::Ip && transport == Transport::Tcp {
            // AWS's default is another one than for instances, and nodes behave as these.
            let preserves = (backends == TargetType::Instance).to_string();
            all.entry(preserve.into()).or_insert(preserves);
        }
        let tls = secure && settings.tls.to_targets;
        if backends == TargetType::Ip
            && transport == Transport::Udp
            && settings.health_check.port.is_none()
        {
            remarks.push(format!(
                "port {number} is UDP, and AWS has no health check for UDP: it connects to the same port of each pod with TCP. If nothing listens there, set {PREFIX}healthcheck-port"
            ));
        }
        let selector = selector(settings);
        let mut tags = self.tags.clone();
        let protocol = transport.protocol(tls);
        let name = match backends {
            TargetType::Instance => {
                tags.extend(selector.tag().map(|tag| (NODE_LABELS.to_owned(), tag)));
                if target_type == TargetType::Ip {
                    tags.insert(NODE_PORT.to_owned(), port.to_string());
                }
                format!("{}/{number}/{protocol}/{port}", self.scope)
            }
            TargetType::Ip => {
                tags.insert(LISTENER_PORT.to_owned(), number.to_string());
                format!("{}/{number}/{protocol}/ip", self.scope)
            }
        };
        let name = match family {
            Family::V4 => name,
            Family::V6 => format!("{name}/ipv6"),
        };
        Ok(TargetGroup {
            name: self.mark.name_of(NAMES, &name),
            target_type,
            family,
            transport,
            tls,
            port,
            check: check::of(service, settings, self.groupless)?,
            attributes: all,
            selector,
            tags,
        })
    }
}
