//! Listeners.

use std::collections::BTreeSet;

use super::attributes::{self, Attributes};
pub use super::forward::Forward;
use super::forward::is_udp;
use super::load_balancers::{LoadBalancer, check_arn};
use super::target_groups::PROTOCOLS;
use super::{Cloud, Moment, Refusal, Result, Tags};

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its ARN.
    pub arn: String,
    /// The ARN of its load balancer.
    pub load_balancer: String,
    /// Its port.
    pub port: u16,
    /// Its protocol.
    pub protocol: String,
    /// The ARNs of its target groups with their weights.
    pub forward: Forward,
    /// The ARN of its default certificate.
    pub certificate: Option<String>,
    /// The ARNs in its list of certificates. The default one is in it only if it was added.
    pub certificates: BTreeSet<String>,
    /// Its TLS policy.
    pub ssl_policy: Option<String>,
    /// Its ALPN policy.
    pub alpn: Option<String>,
    /// All attributes with their values.
    pub attributes: Attributes,
    /// Its tags.
    pub tags: Tags,
}

/// What a call sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The port.
    pub port: Option<u16>,
    /// The protocol.
    pub protocol: Option<String>,
    /// The ARNs of target groups with their weights.
    pub forward: Option<Forward>,
    /// The ARN of the certificate.
    pub certificate: Option<String>,
    /// The TLS policy.
    pub ssl_policy: Option<String>,
    /// The ALPN policy.
    pub alpn: Option<String>,
}

/// The names of ALPN policies \[model\].
const ALPN: [&str; 5] = [
    "HTTP1Only",
    "HTTP2Only",
    "HTTP2Optional",
    "HTTP2Preferred",
    "None",
];

// === impl Listener ===

impl Listener {
    /// Whether it sends traffic to this target group.
    pub fn forwards_to(&self, target_group: &str) -> bool {
        self.forward.iter().any(|(arn, _)| arn == target_group)
    }

    fn changed(&self, change: Change) -> Self {
        let protocol = change.protocol.unwrap_or_else(|| self.protocol.clone());
        // A change from TLS to TCP removes what belongs to TLS \[model\].
        let kept = |old: &Option<String>| old.clone().filter(|_| protocol == "TLS");
        Self {
            arn: self.arn.clone(),
            load_balancer: self.load_balancer.clone(),
            port: change.port.unwrap_or(self.port),
            forward: change.forward.unwrap_or_else(|| self.forward.clone()),
            certificate: change.certificate.or_else(|| kept(&self.certificate)),
            certificates: if protocol == "TLS" {
                self.certificates.clone()
            } else {
                BTreeSet::new()
            },
            ssl_policy: change.ssl_policy.or_else(|| kept(&self.ssl_policy)),
            alpn: change.alpn.or_else(|| kept(&self.alpn)),
            attributes: if protocol == self.protocol && !self.arn.is_empty() {
                self.attributes.clone()
            } else {
                attributes::listener_defaults(&protocol)
            },
            tags: self.tags.clone(),
            protocol,
        }
    }
}

// === impl Cloud ===

impl Cloud {
    /// `CreateListener`. Repeated with equal settings it returns what there is \[model\].
    pub fn create_listener(
        &mut self,
        now: Moment,
        load_balancer: &str,
        change: Change,
        tags: Tags,
    ) -> Result<Listener> {
        let there = self.load_balancer(load_balancer)?;
        let needed =
            |what: &str| Refusal::validation(format!("A listener {what} must be specified"));
        let empty = Listener {
            arn: String::new(),
            load_balancer: load_balancer.to_owned(),
            port: change.port.ok_or_else(|| needed("port"))?,
            protocol: (change.protocol.clone()).ok_or_else(|| needed("protocol"))?,
            forward: Vec::new(),
            certificate: None,
            certificates: BTreeSet::new(),
            ssl_policy: None,
            alpn: None,
            attributes: Attributes::new(),
            tags,
        };
        self.check_number_of_tags(&empty.tags)?;
        let mut listener = empty.changed(change);
        if listener.protocol == "TLS" && listener.ssl_policy.is_none() {
            listener.ssl_policy = Some("ELBSecurityPolicy-2016-08".into());
        }
        self.check_listener(there, &listener)?;
        if let Some(present) = self.on_port(&listener) {
            let same = Listener {
                arn: present.arn.clone(),
                certificates: present.certificates.clone(),
                attributes: present.attributes.clone(),
                tags: if self.settings.tags_are_settings {
                    listener.tags.clone()
                } else {
                    present.tags.clone()
                },
                ..listener
            };
            return if same == *present {
                Ok(present.clone())
            } else {
                Err(duplicate(load_balancer))
            };
        }
        let listeners = self.listeners.values();
        let number = listeners.filter(|one| one.load_balancer == load_balancer);
        let most = self.settings.quotas.listeners;
        if number.count() >= most {
            let message = format!("The maximum number of listeners, {most}, is reached");
            return Err(Refusal::new("TooManyListeners", message));
        }
        let rest = load_balancer.split_once("loadbalancer/");
        let rest = rest.map_or(load_balancer, |(_, rest)| rest);
        listener.arn = self.arn(&format!("listener/{rest}"));
        self.listeners
            .insert(listener.arn.clone(), listener.clone(), now);
        self.note_use(now);
        Ok(listener)
    }

    /// `ModifyListener`: what is absent does not change \[model\].
    pub fn modify_listener(&mut self, now: Moment, arn: &str, change: Change) -> Result<Listener> {
        let there = self.listener(arn)?;
        let listener = there.changed(change);
        self.check_listener(self.load_balancer(&listener.load_balancer)?, &listener)?;
        if (self.on_port(&listener)).is_some_and(|present| present.arn != arn) {
            return Err(duplicate(&listener.load_balancer));
        }
        if let Some(there) = self.listeners.get_mut(arn) {
            *there = listener.clone();
        }
        self.note_use(now);
        Ok(listener)
    }

    /// `AddListenerCertificates`: one at a time \[model\]. One that is in the list stays there \[model\].
    pub fn add_listener_certificates(
        &mut self,
        arn: &str,
        certificates: &[String],
    ) -> Result<Vec<String>> {
        self.tls_listener(arn)?;
        let certificate = only(certificates)?;
        self.check_certificate(certificate)?;
        let most = self.settings.quotas.certificates;
        let there = self.listener(arn)?;
        let same = |one: &&Listener| one.load_balancer == there.load_balancer;
        let all = self.listeners.values().filter(same);
        let number: usize = all.map(|one| one.certificates.len()).sum();
        if number >= most && !there.certificates.contains(certificate) {
            let message = format!(
                "The maximum number of certificates of a load balancer, {most}, is reached"
            );
            return Err(Refusal::new("TooManyCertificates", message));
        }
        if let Some(there) = self.listeners.get_mut(arn) {
            there.certificates.insert(certificate.clone());
        }
        Ok(certificates.to_vec())
    }

    /// `RemoveListenerCertificates`: one at a time \[model\], and never the default one, unless the list
    /// has it, too.
    pub fn remove_listener_certificates(
        &mut self,
        arn: &str,
        certificates: &[String],
    ) -> Result<()> {
        let there = self.tls_listener(arn)?;
        let certificate = only(certificates)?;
        if !there.certificates.contains(certificate) {
            return Err(if there.certificate.as_ref() == Some(certificate) {
                let message = "The default certificate of a listener cannot be removed";
                Refusal::new("OperationNotPermitted", message)
            } else {
                let message = format!("Certificate '{certificate}' not found");
                Refusal::new("CertificateNotFound", message)
            });
        }
        if let Some(there) = self.listeners.get_mut(arn) {
            there.certificates.remove(certificate);
        }
        Ok(())
    }

    /// `DescribeListenerCertificates`: the default one, and the list, each with whether it is the default
    /// one. One that is both occurs twice \[model\].
    pub fn listener_certificates(&self, arn: &str) -> Result<Vec<(&str, bool)>> {
        let there = self.tls_listener(arn)?;
        let default = there.certificate.iter().map(|it| (it.as_str(), true));
        let list = there.certificates.iter().map(|it| (it.as_str(), false));
        Ok(default.chain(list).collect())
    }

    /// `ModifyListenerAttributes`
    pub fn modify_listener_attributes(
        &mut self,
        arn: &str,
        changes: &Attributes,
    ) -> Result<&Attributes> {
        let there = self.listener(arn)?;
        let mut all = there.attributes.clone();
        attributes::change_listener(&there.protocol, &mut all, changes)?;
        if let Some(there) = self.listeners.get_mut(arn) {
            there.attributes = all;
        }
        Ok(&self.listener(arn)?.attributes)
    }

    fn tls_listener(&self, arn: &str) -> Result<&Listener> {
        let there = self.listener(arn)?;
        if there.protocol == "TLS" {
            return Ok(there);
        }
        Err(Refusal::validation(format!(
            "The listener '{arn}' has the protocol {} and no certificates",
            there.protocol
        )))
    }

    /// `DeleteListener`. It deletes the rules, too.
    pub fn delete_listener(&mut self, now: Moment, arn: &str) -> Result<()> {
        self.listener(arn)?;
        self.drop_listener(now, arn);
        self.note_use(now);
        Ok(())
    }

    /// `DescribeListeners` of one load balancer, by port.
    pub fn listeners_of(&self, now: Moment, load_balancer: &str) -> Result<Vec<&Listener>> {
        self.load_balancer(load_balancer)?;
        let listed = self.listeners.listed(now, self.settings.lag);
        let mut all: Vec<_> = listed
            .into_values()
            .filter(|listener| listener.load_balancer == load_balancer)
            .collect();
        all.sort_by_key(|listener| listener.port);
        Ok(all)
    }

    /// One listener.
    pub fn listener(&self, arn: &str) -> Result<&Listener> {
        check_arn("listener", ":listener/", arn)?;
        self.listeners.get(arn).ok_or_else(|| {
            let message = "One or more listeners not found";
            Refusal::new("ListenerNotFound", message)
        })
    }

    /// The listener of the same load balancer on the same port. A port has one listener, whatever
    /// its protocol.
    fn on_port(&self, listener: &Listener) -> Option<&Listener> {
        self.listeners
            .values()
            .find(|one| one.load_balancer == listener.load_balancer && one.port == listener.port)
    }

    fn check_listener(&self, user: &LoadBalancer, listener: &Listener) -> Result<()> {
        let protocol = listener.protocol.as_str();
        if !PROTOCOLS.contains(&protocol) {
            let message = format!("The protocol '{protocol}' is not supported for this listener");
            return Err(Refusal::new("UnsupportedProtocol", message));
        }
        // Strict: AWS documents it the other way round.
        if protocol == "TLS" && user.capacity.is_some() {
            let message = "A load balancer with reserved capacity cannot have TLS listeners";
            return Err(Refusal::new("InvalidConfigurationRequest", message));
        }
        // \[docs\]
        if is_udp(protocol) && user.ip_address_type == "dualstack" && !user.source_nat {
            return Err(Refusal::new(
                "InvalidConfigurationRequest",
                format!(
                    "A {protocol} listener of a dualstack load balancer needs a prefix for IPv6 source NAT"
                ),
            ));
        }
        self.check_forward(user, protocol, &listener.forward)?;
        self.check_rules_of(listener)?;
        self.check_tls(listener)
    }

    fn check_certificate(&self, certificate: &str) -> Result<()> {
        if self.certificates.iter().any(|one| one == certificate) {
            return Ok(());
        }
        let message = format!("Certificate '{certificate}' not found");
        Err(Refusal::new("CertificateNotFound", message))
    }

    fn check_tls(&self, listener: &Listener) -> Result<()> {
        let tls = [&listener.certificate, &listener.ssl_policy, &listener.alpn];
        if listener.protocol != "TLS" {
            if tls.iter().any(|it| it.is_some()) {
                return Err(Refusal::validation(
                    "Certificates and policies can be specified only for TLS listeners",
                ));
            }
            return Ok(());
        }
        let Some(certificate) = &listener.certificate else {
            return Err(Refusal::validation(
                "A certificate must be specified for TLS listeners",
            ));
        };
        self.check_certificate(certificate)?;
        let policy = listener.ssl_policy.as_deref().unwrap_or_default();
        if !policy.starts_with("ELBSecurityPolicy-") {
            let message = format!("SSL policy '{policy}' not found");
            return Err(Refusal::new("SSLPolicyNotFound", message));
        }
        if let Some(alpn) = &listener.alpn
            && !ALPN.contains(&alpn.as_str())
        {
            let message = format!("ALPN policy '{alpn}' not found");
            return Err(Refusal::new("ALPNPolicyNotFound", message));
        }
        Ok(())
    }
}

/// The only one of a list.
fn only(certificates: &[String]) -> Result<&String> {
    match certificates {
        [one] => Ok(one),
        _ => Err(Refusal::validation("Exactly one certificate is permitted")),
    }
}

fn duplicate(load_balancer: &str) -> Refusal {
    // \[seen\]
    let message =
        format!("A listener already exists on this port for this load balancer '{load_balancer}'");
    Refusal::new("DuplicateListener", message)
}
