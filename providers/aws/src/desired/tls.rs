//! Which listeners end TLS, and with which certificates. Pure.

use std::collections::BTreeSet;

use ballast_provider::{LoadBalancer, Protocol, Refusal};

use super::Tls;
use crate::annotations::{PREFIX, invalid};
use crate::settings::tls::{POLICY, TlsSettings};

/// The ports whose listeners end TLS: those that the settings name, or all TCP ports.
pub(super) fn ports(
    service: &LoadBalancer,
    settings: &TlsSettings,
) -> Result<BTreeSet<u16>, Refusal> {
    let mut ports = BTreeSet::new();
    if settings.certificates.is_empty() {
        return Ok(ports);
    }
    let all_named = settings.ports.as_deref().unwrap_or_default();
    for named in all_named {
        let same = service.listeners.iter().filter(|one| named.is(one));
        let same: Vec<_> = same.collect();
        match same.iter().find(|one| one.protocol == Protocol::Tcp) {
            Some(tcp) => ports.insert(tcp.port),
            None if same.is_empty() => {
                return Err(invalid(format!(
                    "annotation {PREFIX}ssl-ports: the Service has no port {named}"
                )));
            }
            None => {
                return Err(invalid(format!(
                    "annotation {PREFIX}ssl-ports: port {named} is UDP, and TLS needs TCP"
                )));
            }
        };
    }
    if all_named.is_empty() {
        let all = service.listeners.iter();
        let tcp = all.filter(|one| one.protocol == Protocol::Tcp);
        ports.extend(tcp.map(|one| one.port));
    }
    let mut udp = service.listeners.iter();
    match udp.find(|one| one.protocol == Protocol::Udp && ports.contains(&one.port)) {
        Some(one) => Err(invalid(format!(
            "spec.ports: port {} is TCP and UDP. AWS has one listener on a port, which cannot be TLS then: list the ports with TLS in annotation {PREFIX}ssl-ports",
            one.port
        ))),
        None => Ok(ports),
    }
}

/// What a listener that ends TLS has, and the certificates beside its default one.
pub(super) fn of(settings: &TlsSettings) -> Option<(Tls, BTreeSet<String>)> {
    let (first, others) = settings.certificates.split_first()?;
    let tls = Tls {
        certificate: first.clone(),
        policy: settings.policy.clone().unwrap_or_else(|| POLICY.into()),
        alpn: settings.alpn.unwrap_or_default(),
    };
    Some((tls, others.iter().cloned().collect()))
}
