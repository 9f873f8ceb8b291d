//! Requests of EC2's Query API, as AWS wants them: `Action=…&Version=…` and parameters with
//! numbered names, form-encoded. Pure.

use std::collections::BTreeSet;

use ballast_provider::Protocol;
use ipnet::IpNet;

use crate::client::actions::Action;
use crate::client::values::{Filter, Tags};
use crate::desired::{Rule, Source, Traffic};

/// The version of the API. AWS has had no other one since.
const VERSION: &str = "2016-11-15";
/// The most values of one filter.
pub(super) const MOST_VALUES: usize = 200;

/// The parameters of one request, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) struct Query(Vec<(String, String)>);

// === impl Query ===

impl Query {
    /// A request without parameters.
    pub(super) fn new(action: Action) -> Self {
        Self(vec![
            ("Action".into(), action.name().into()),
            ("Version".into(), VERSION.into()),
        ])
    }

    /// With one parameter more.
    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.into(), value.into()));
        self
    }

    /// With a list: `name.1`, `name.2` and so on.
    pub(super) fn list(mut self, name: &str, values: impl IntoIterator<Item = String>) -> Self {
        for (at, value) in (1..).zip(values) {
            self.0.push((format!("{name}.{at}"), value));
        }
        self
    }

    /// With filters.
    pub(super) fn filters(mut self, filters: &[Filter]) -> Self {
        for (at, filter) in (1..).zip(filters) {
            self.0
                .push((format!("Filter.{at}.Name"), filter.name.clone()));
            let prefix = format!("Filter.{at}.Value");
            self = self.list(&prefix, filter.values.iter().cloned());
        }
        self
    }

    /// With tags under `prefix`.
    pub(super) fn tags(mut self, prefix: &str, tags: &Tags) -> Self {
        for (at, (key, value)) in (1..).zip(tags) {
            self.0.push((format!("{prefix}.{at}.Key"), key.clone()));
            self.0.push((format!("{prefix}.{at}.Value"), value.clone()));
        }
        self
    }

    /// With the tags of an object that the request creates.
    pub(super) fn tagged(self, kind: &str, tags: &Tags) -> Self {
        if tags.is_empty() {
            return self;
        }
        self.with("TagSpecification.1.ResourceType", kind)
            .tags("TagSpecification.1.Tag", tags)
    }

    /// With the rules of a security group, each as a permission of its own.
    pub(super) fn permissions(mut self, rules: &BTreeSet<Rule>) -> Self {
        for (at, rule) in (1..).zip(rules) {
            let at = format!("IpPermissions.{at}");
            let (protocol, from, to) = match &rule.traffic {
                Traffic::All => ("-1", None, None),
                Traffic::Port(protocol, port) => {
                    let protocol = match protocol {
                        Protocol::Tcp => "tcp",
                        Protocol::Udp => "udp",
                    };
                    (protocol, Some((*port).into()), Some((*port).into()))
                }
                Traffic::Other { protocol, from, to } => (protocol.as_str(), *from, *to),
            };
            self = self.with(&format!("{at}.IpProtocol"), protocol);
            for (name, number) in [("FromPort", from), ("ToPort", to)] {
                if let Some(number) = number {
                    let number: i32 = number;
                    self = self.with(&format!("{at}.{name}"), number.to_string());
                }
            }
            let (name, value) = match &rule.source {
                Source::Range(range @ IpNet::V4(_)) => ("IpRanges.1.CidrIp", range.to_string()),
                Source::Range(range @ IpNet::V6(_)) => ("Ipv6Ranges.1.CidrIpv6", range.to_string()),
                Source::PrefixList(id) => ("PrefixListIds.1.PrefixListId", id.clone()),
                Source::Group(id) => ("Groups.1.GroupId", id.clone()),
            };
            self = self.with(&format!("{at}.{name}"), value);
        }
        self
    }

    /// The body of the request.
    pub(super) fn encode(&self) -> String {
        let mut body = String::new();
        for (name, value) in &self.0 {
            if !body.is_empty() {
                body.push('&');
            }
            escape(name, &mut body);
            body.push('=');
            escape(value, &mut body);
        }
        body
    }
}

/// Everything but unreserved characters (RFC 3986) as `%XX`.
fn escape(text: &str, into: &mut String) {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                into.push(char::from(byte));
            }
            _ => {
                into.push('%');
                into.push(HEX[usize::from(byte >> 4)]);
                into.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
