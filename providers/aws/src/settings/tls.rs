//! TLS at the listeners of a load balancer: what annotations say of it. Pure.
//!
//! Sources: "TLS listeners for your Network Load Balancer" and "Server certificates" in the Network
//! Load Balancers Guide, `CreateListener` in the Elastic Load Balancing API Reference (2015-12-01).

use ballast_provider::{Listener, Refusal};

use super::values;
use crate::annotations::{PREFIX, invalid};

/// The security policy of listeners for which nobody names one: TLS 1.2 and 1.3, with key exchange
/// that quantum computers do not break. AWS's own default, of 2016, still permits TLS 1.0.
pub const POLICY: &str = "ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09";

/// What the names of all security policies begin with.
const POLICIES: &str = "ELBSecurityPolicy-";

/// The ALPN policy of a listener: which version of HTTP it offers to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alpn {
    /// HTTP/1.1 and 1.0.
    Http1Only,
    /// HTTP/2.
    Http2Only,
    /// HTTP/1.1 before HTTP/2.
    Http2Optional,
    /// HTTP/2 before HTTP/1.1.
    Http2Preferred,
    /// The listener negotiates nothing.
    #[default]
    None,
}

/// A port that an annotation names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// By its number.
    Number(u16),
    /// By its name.
    Named(String),
}

/// What a Service says of TLS. Without certificates no listener ends TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// ARNs of certificates in ACM or IAM. The first is for clients that name no host, or one for
    /// which there is none.
    pub certificates: Vec<String>,
    /// The ports that speak TLS, if anybody says so; none of them means all TCP ports.
    pub ports: Option<Vec<Port>>,
    /// The security policy; `None` is [`POLICY`].
    pub policy: Option<String>,
    /// The ALPN policy.
    pub alpn: Option<Alpn>,
    /// Whether the load balancer speaks TLS to the targets, too.
    pub to_targets: bool,
}

// === impl Alpn ===

impl Alpn {
    const ALL: [Self; 5] = [
        Self::Http1Only,
        Self::Http2Only,
        Self::Http2Optional,
        Self::Http2Preferred,
        Self::None,
    ];

    /// The spelling of AWS.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1Only => "HTTP1Only",
            Self::Http2Only => "HTTP2Only",
            Self::Http2Optional => "HTTP2Optional",
            Self::Http2Preferred => "HTTP2Preferred",
            Self::None => "None",
        }
    }

    /// The policy of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

// === impl Port ===

impl Port {
    /// Whether it means this port of a Service. A number may mean two: TCP and UDP.
    pub(crate) fn is(&self, listener: &Listener) -> bool {
        match self {
            Self::Number(number) => listener.port == *number,
            Self::Named(name) => listener.name.as_deref() == Some(name),
        }
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Named(name) => write!(f, "\"{name}\""),
        }
    }
}

// === impl TlsSettings ===

impl TlsSettings {
    /// Sets what one annotation says.
    pub(super) fn set(&mut self, name: &str, key: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "ssl-cert" => self.certificates = certificates(key, value)?,
            "ssl-ports" => self.ports = Some(ports(key, value)?),
            "ssl-negotiation-policy" => self.policy = Some(policy(key, value)?),
            "alpn-policy" => self.alpn = Some(alpn(key, value)?),
            "backend-protocol" => self.to_targets = to_targets(key, value)?,
            _ => {}
        }
        Ok(())
    }

    /// Whoever asks for TLS and names no certificate would otherwise get none, silently.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if !self.certificates.is_empty() {
            return Ok(());
        }
        let all = [
            ("ssl-ports", self.ports.is_some()),
            ("ssl-negotiation-policy", self.policy.is_some()),
            ("alpn-policy", self.alpn.is_some_and(|it| it != Alpn::None)),
            ("backend-protocol", self.to_targets),
        ];
        match all.iter().find(|(_, set)| *set) {
            Some((name, _)) => Err(invalid(format!(
                "annotation {PREFIX}{name} needs {PREFIX}ssl-cert"
            ))),
            None => Ok(()),
        }
    }
}

fn certificates(key: &str, value: &str) -> Result<Vec<String>, Refusal> {
    let all = values::list(key, value)?;
    match all.iter().find(|arn| !is_certificate(arn)) {
        Some(bad) => Err(values::must_be(
            key,
            "a list of ARNs of certificates, such as arn:aws:acm:REGION:ACCOUNT:certificate/ID or arn:aws:iam::ACCOUNT:server-certificate/NAME",
            bad,
        )),
        None => Ok(all),
    }
}

/// Whether it has the form of an ARN of ACM or IAM. Whether there is such a certificate AWS says.
fn is_certificate(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let [first, partition, service, _, _, resource] = parts[..] else {
        return false;
    };
    let kind = match service {
        "acm" => "certificate/",
        "iam" => "server-certificate/",
        _ => return false,
    };
    let name = resource.strip_prefix(kind).unwrap_or_default();
    let plain = arn.bytes().all(|byte| byte.is_ascii_graphic());
    first == "arn" && partition.starts_with("aws") && !name.is_empty() && plain
}

/// `*` is what the in-tree provider takes for all ports.
fn ports(key: &str, value: &str) -> Result<Vec<Port>, Refusal> {
    if value == "*" {
        return Ok(Vec::new());
    }
    let all = values::list(key, value)?.into_iter().map(|entry| {
        if !entry.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Port::Named(entry));
        }
        let number = entry.parse().ok().filter(|number| *number > 0);
        number.map(Port::Number).ok_or_else(|| {
            let allowed = "a list of ports from 1 to 65535, or of their names";
            values::must_be(key, allowed, &entry)
        })
    });
    all.collect()
}

fn policy(key: &str, value: &str) -> Result<String, Refusal> {
    let plain = value.bytes().all(|byte| byte.is_ascii_graphic());
    if value.starts_with(POLICIES) && plain && value.len() <= 128 {
        return Ok(value.to_owned());
    }
    let allowed = format!("the name of a security policy such as {POLICY}");
    Err(values::must_be(key, &allowed, value))
}

fn alpn(key: &str, value: &str) -> Result<Alpn, Refusal> {
    Alpn::named(value).ok_or_else(|| {
        let all = Alpn::ALL.map(Alpn::as_str).join(", ");
        values::must_be(key, &format!("one of {all}"), value)
    })
}

fn to_targets(key: &str, value: &str) -> Result<bool, Refusal> {
    match value.to_ascii_lowercase().as_str() {
        "ssl" => Ok(true),
        "tcp" => Ok(false),
        _ => Err(values::must_be(key, "ssl or tcp", value)),
    }
}
