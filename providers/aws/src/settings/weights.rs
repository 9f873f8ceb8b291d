//! `actions.PROTOCOL-PORT`: the weights with which a listener divides its connections among Services.
//!
//! The value is JSON as the AWS Load Balancer Controller has it, of which Ballast understands Services and weights:
//!
//! ```json
//! {"type": "forward", "forwardConfig": {"targetGroups": [
//!   {"serviceName": "web", "servicePort": 80, "weight": 90},
//!   {"serviceName": "web-next", "servicePort": 80, "weight": 10}
//! ]}}
//! ```

use std::collections::BTreeSet;
use std::fmt;

use ballast_provider::{Listener, Protocol, Reason, Refusal, text};
use serde::Deserialize;

use crate::annotations::{ACTIONS, invalid};
use crate::forward::{MOST_GROUPS, MOST_WEIGHT};

/// The longest name of a Service (RFC 1035).
const LONGEST: usize = 63;

/// How one listener divides its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// The protocol of the port.
    pub protocol: Protocol,
    /// The port of the listener.
    pub port: u16,
    /// Among whom.
    pub shares: Vec<Share>,
}

/// What one Service gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The name of the Service, in the same namespace.
    pub service: String,
    /// Its port.
    pub port: PortOf,
    /// Its weight.
    pub weight: u32,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(untagged)]
pub enum PortOf {
    /// By number.
    Number(u16),
    /// By name, or a number as text.
    Named(String),
}

/// The value of the annotation.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Action {
    r#type: String,
    forward_config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    target_groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Group {
    service_name: String,
    service_port: PortOf,
    #[serde(default = "one")]
    weight: u32,
}

const fn one() -> u32 {
    1
}

// === impl Weighted ===

impl Weighted {
    /// From the annotation with this key, which begins with [`ACTIONS`].
    pub(crate) fn parse(key: &str, value: &str) -> Result<Self, Refusal> {
        let (protocol, port) = key
            .strip_prefix(ACTIONS)
            .and_then(|rest| rest.split_once('-'))
            .and_then(|(protocol, port)| Some((named(protocol)?, port.parse().ok()?)))
            .ok_or_else(|| {
                invalid(format!(
                    "annotation {key}: the key ends with a protocol and a port, such as {ACTIONS}TCP-80"
                ))
            })?;
        for (field, instead) in UNSUPPORTED {
            if value.contains(field) {
                return Err(Refusal::new(
                    Reason::Unsupported,
                    format!("annotation {key}: {field}: {instead}"),
                ));
            }
        }
        let action: Action = serde_json::from_str(value).map_err(|why| {
            invalid(format!(
                "annotation {key} must be {{\"type\":\"forward\",\"forwardConfig\":{{\"targetGroups\":[{{\"serviceName\":…,\"servicePort\":…,\"weight\":…}}]}}}}: {}",
                text::shortened(&why.to_string(), 128)
            ))
        })?;
        if action.r#type != "forward" {
            return Err(invalid(format!(
                "annotation {key}: the type must be \"forward\", not \"{}\"",
                text::shortened(&action.r#type, 32)
            )));
        }
        let groups = action.forward_config.target_groups;
        if groups.is_empty() || groups.len() > MOST_GROUPS {
            return Err(invalid(format!(
                "annotation {key}: {} targetGroups; AWS permits 1 to {MOST_GROUPS}",
                groups.len()
            )));
        }
        if let Some(heavy) = groups.iter().find(|group| group.weight > MOST_WEIGHT) {
            return Err(invalid(format!(
                "annotation {key}: weight {} of {} must be a number from 0 to {MOST_WEIGHT}",
                heavy.weight,
                text::shortened(&heavy.service_name, LONGEST)
            )));
        }
        if groups.iter().all(|group| group.weight == 0) {
            return Err(invalid(format!(
                "annotation {key}: every weight is 0, so nobody would get connections"
            )));
        }
        if let Some(long) = groups.iter().find(|it| it.service_name.len() > LONGEST) {
            return Err(invalid(format!(
                "annotation {key}: serviceName \"{}\" is no name of a Service",
                text::shortened(&long.service_name, 32)
            )));
        }
        let mut seen = BTreeSet::new();
        let mut twice = groups.iter();
        if let Some(twice) = twice.find(|it| !seen.insert((&it.service_name, &it.service_port))) {
            return Err(invalid(format!(
                "annotation {key}: port {} of the Service {} is there twice",
                twice.service_port, twice.service_name
            )));
        }
        let shares = groups.into_iter().map(|group| Share {
            service: group.service_name,
            port: group.service_port,
            weight: group.weight,
        });
        Ok(Self {
            protocol,
            port,
            shares: shares.collect(),
        })
    }
}

/// What the AWS Load Balancer Controller understands and Ballast does not.
const UNSUPPORTED: [(&str, &str); 3] = [
    (
        "targetGroupARN",
        "Ballast divides connections among Services that share the load balancer only",
    ),
    (
        "targetGroupName",
        "Ballast divides connections among Services that share the load balancer only",
    ),
    (
        "targetGroupStickinessConfig",
        "connections stay in one target group by themselves; for the same target each time, set sessionAffinity: ClientIP",
    ),
];

fn named(protocol: &str) -> Option<Protocol> {
    match protocol {
        "TCP" | "TLS" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

// === impl PortOf ===

impl PortOf {
    /// Whether it is this port.
    pub(crate) fn is(&self, listener: &Listener) -> bool {
        match self {
            Self::Number(number) => listener.port == *number,
            Self::Named(name) => {
                listener.name.as_ref() == Some(name) || name.parse() == Ok(listener.port)
            }
        }
    }
}

impl fmt::Display for PortOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, value: &str) -> Result<Weighted, Refusal> {
        Weighted::parse(&format!("{ACTIONS}{key}"), value)
    }

    fn groups(all: &str) -> String {
        format!(r#"{{"type":"forward","forwardConfig":{{"targetGroups":[{all}]}}}}"#)
    }

    #[test]
    fn services_have_ports_and_weights() {
        let value = groups(
            r#"{"serviceName":"web","servicePort":80,"weight":0},{"serviceName":"next","servicePort":"http"}"#,
        );
        // The other controller has keys with TLS, too.
        assert_eq!(parse("TLS-443", &value), parse("TCP-443", &value));
        let weighted = parse("TCP-443", &value).unwrap();
        assert_eq!((weighted.protocol, weighted.port), (Protocol::Tcp, 443));
        let shares = weighted.shares.iter();
        let shares: Vec<_> = shares
            .map(|it| (it.service.as_str(), it.port.to_string(), it.weight))
            .collect();
        assert_eq!(
            shares,
            [("web", "80".to_owned(), 0), ("next", "http".to_owned(), 1)]
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let web = r#"{"serviceName":"web","servicePort":80,"weight":1}"#;
        let table = [
            ("TCP", groups(web), "a protocol and a port"),
            ("SCTP-80", groups(web), "a protocol and a port"),
            ("TCP-x", groups(web), "a protocol and a port"),
            ("TCP-80", "x".into(), "must be {"),
            ("TCP-80", groups(""), "0 targetGroups"),
            ("TCP-80", groups(&[web; 6].join(",")), "6 targetGroups"),
            ("TCP-80", groups(&[web; 2].join(",")), "is there twice"),
            (
                "TCP-80",
                groups(&web.replace(":1}", ":0}")),
                "every weight is 0",
            ),
            (
                "TCP-80",
                groups(&web.replace("web", &"x".repeat(64))),
                "is no name of a Service",
            ),
            (
                "TCP-80",
                groups(r#"{"targetGroupName":"x"}"#),
                "targetGroupName: Ballast divides",
            ),
            (
                "TCP-80",
                groups(web).replace(
                    "}]}",
                    r#"}],"targetGroupStickinessConfig":{"enabled":true}}"#,
                ),
                "targetGroupStickinessConfig: connections stay",
            ),
            (
                "TCP-80",
                groups(&web.replace(":1}", ":1000}")),
                "from 0 to 999",
            ),
            ("TCP-80", groups(&web.replace("weight", "wieght")), "wieght"),
            (
                "TCP-80",
                groups(r#"{"targetGroupARN":"arn:aws:x","weight":1}"#),
                "share the load balancer only",
            ),
            (
                "TCP-80",
                groups(web).replace("\"forward\"", "\"redirect\""),
                "not \"redirect\"",
            ),
        ];
        for (key, value, says) in table {
            let refusal = parse(key, &value).unwrap_err();
            assert!(refusal.message.contains(says), "{key} {value}: {refusal}");
            assert!(refusal.message.contains(ACTIONS), "{refusal}");
        }
    }
}
