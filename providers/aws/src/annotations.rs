//! Every annotation that Services on AWS may have, and what Ballast does with it. Pure.
//!
//! The annotations are those of the AWS Load Balancer Controller (source: its "Service
//! annotations" page and `pkg/annotations/constants.go`), so that a Service can move to Ballast as
//! it is. A key that Ballast does not know is refused and not ignored: a misspelt setting would
//! otherwise have no effect, and nobody would notice. A wrong annotation harms only its own Service.

use ballast_provider::{Reason, Refusal};

/// All keys begin with this.
pub const PREFIX: &str = "service.beta.kubernetes.io/aws-load-balancer-";

/// Keys of another form, `actions.PROTOCOL-PORT`. With one of them a listener divides its connections.
pub const ACTIONS: &str = "service.beta.kubernetes.io/actions.";

/// All keys with [`ACTIONS`], where a class lists the annotations that it allows.
pub const WEIGHTS: &str = "actions";

/// What Ballast does with an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It has the effect that AWS's documentation describes.
    Supported,
    /// It has no effect, because something else decides; the text says what.
    NoEffect(&'static str),
    /// A Service with it is refused; the text says why, and what to do.
    Refused(&'static str),
    /// Ballast does what this value asks for anyway, and refuses others: why.
    Only(&'static str, &'static str),
}

/// A known annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// The key without [`PREFIX`].
    pub name: &'static str,
    /// Whether `.PORT` may follow, so that the value is for one port.
    pub per_port: bool,
    /// What Ballast does with it.
    pub support: Support,
}

const IDLE: &str = "it is for Classic Load Balancers. Set tcp.idle_timeout.seconds in service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP-PORT";
const EXTRA_GROUPS: &str = "it is for Classic Load Balancers. Name all security groups in service.beta.kubernetes.io/aws-load-balancer-security-groups";
const NAME: &str = "Ballast names load balancers itself, because two Services could ask for the same name. For people, set the tag Name in service.beta.kubernetes.io/aws-load-balancer-additional-resource-tags";
const QUIC: &str = "Ballast makes no QUIC listeners. UDP ports carry QUIC, too";
const NO_GROUPS: &str = "a load balancer that is made without security groups can never get any, and nodes would have to admit every client";
const IPV6_ADDRESSES: &str = "AWS chooses the IPv6 addresses, and Ballast names none. Clients use the hostname, which has them";
const NAT_PREFIXES: &str =
    "AWS chooses the ranges for source NAT out of the subnets (auto_assigned)";
const ONE_CLUSTER: &str = "each target group of a Service belongs to one cluster. To have the targets of several clusters in one, name a target group of yours in aws.ballast.dev/target-groups";

/// Refused and unknown keys are compared with the known ones only up to this length.
const LONGEST: usize = 128;
/// A key is taken for a misspelt one if it differs in at most this many letters.
const EDITS: usize = 3;

/// All known annotations, in alphabetical order.
pub const ANNOTATIONS: [Annotation; 50] = [
    supported("access-log-enabled"),
    supported("access-log-s3-bucket-name"),
    supported("access-log-s3-bucket-prefix"),
    supported("additional-resource-tags"),
    supported("alpn-policy"),
    supported("attributes"),
    supported("backend-protocol"),
    supported("connection-draining-enabled"),
    supported("connection-draining-timeout"),
    never("connection-idle-timeout", IDLE),
    supported("cross-zone-load-balancing-enabled"),
    only("disable-nlb-sg", "false", NO_GROUPS),
    supported("eip-allocations"),
    supported("enable-icmp-for-path-mtu-discovery"),
    supported("enable-prefix-for-ipv6-source-nat"),
    Annotation {
        support: Support::NoEffect("TCP and UDP on one port always share a listener"),
        ..supported("enable-tcp-udp-listener")
    },
    never("extra-security-groups", EXTRA_GROUPS),
    supported("healthcheck-healthy-threshold"),
    supported("healthcheck-interval"),
    supported("healthcheck-path"),
    supported("healthcheck-port"),
    supported("healthcheck-protocol"),
    supported("healthcheck-success-codes"),
    supported("healthcheck-timeout"),
    supported("healthcheck-unhealthy-threshold"),
    supported("inbound-sg-rules-on-private-link-traffic"),
    supported("internal"),
    supported("ip-address-type"),
    never("ipv6-addresses", IPV6_ADDRESSES),
    supported("listener-attributes"),
    supported("manage-backend-security-group-rules"),
    supported("minimum-load-balancer-capacity"),
    only("multi-cluster-target-group", "false", ONE_CLUSTER),
    never("name", NAME),
    supported("nlb-target-type"),
    supported("private-ipv4-addresses"),
    supported("proxy-protocol"),
    supported("proxy-protocol-per-target-group"),
    never("quic-enabled-ports", QUIC),
    supported("scheme"),
    supported("security-group-prefix-lists"),
    supported("security-groups"),
    only("source-nat-ipv6-prefixes", "auto_assigned", NAT_PREFIXES),
    supported("ssl-cert"),
    supported("ssl-negotiation-policy"),
    supported("ssl-ports"),
    supported("subnets"),
    Annotation {
        per_port: true,
        ..supported("target-group-attributes")
    },
    supported("target-node-labels"),
    supported("type"),
];

const fn supported(name: &'static str) -> Annotation {
    Annotation {
        name,
        per_port: false,
        support: Support::Supported,
    }
}

const fn never(name: &'static str, why: &'static str) -> Annotation {
    Annotation {
        name,
        per_port: false,
        support: Support::Refused(why),
    }
}

const fn only(name: &'static str, value: &'static str, why: &'static str) -> Annotation {
    Annotation {
        name,
        per_port: false,
        support: Support::Only(value, why),
    }
}

/// The annotation of a Service's key, and the port that the key names. The key must begin with
/// [`PREFIX`].
pub fn find(key: &str) -> Result<(&'static Annotation, Option<u16>), Refusal> {
    let name = key.strip_prefix(PREFIX).unwrap_or(key);
    if let Some(known) = exactly(name) {
        return Ok((known, None));
    }
    if let Some((name, port)) = name.rsplit_once('.')
        && let Some(known) = exactly(name).filter(|known| known.per_port)
    {
        return match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok((known, Some(port))),
            _ => Err(invalid(format!(
                "annotation {key}: a port from 1 to 65535 follows the last dot, not \"{port}\""
            ))),
        };
    }
    // These have the protocol and the port in the key: `listener-attributes.TCP-80`.
    let listener = name.split_once('.').map(|(first, _)| first);
    match listener
        .filter(|first| *first == "listener-attributes")
        .and_then(exactly)
    {
        Some(known) => Ok((known, None)),
        None => Err(unknown(key, name)),
    }
}

fn exactly(name: &str) -> Option<&'static Annotation> {
    let at = ANNOTATIONS.binary_search_by(|known| known.name.cmp(name));
    at.ok().and_then(|at| ANNOTATIONS.get(at))
}

fn unknown(key: &str, name: &str) -> Refusal {
    let message = match nearest(name) {
        Some(known) => format!("annotation {key} is unknown. Did you mean {PREFIX}{known}?"),
        None => format!("annotation {key} is unknown"),
    };
    Refusal::new(Reason::Unsupported, message)
}

/// The known name that differs least, if it differs little.
fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > LONGEST {
        return None;
    }
    ANNOTATIONS
        .iter()
        .map(|known| (strsim::levenshtein(name, known.name), known.name))
        .filter(|(edits, _)| *edits <= EDITS)
        .min()
        .map(|(_, known)| known)
}

pub(crate) fn invalid(message: impl AsRef<str>) -> Refusal {
    Refusal::new(Reason::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> String {
        format!("{PREFIX}{name}")
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(ANNOTATIONS.is_sorted_by(|one, two| one.name < two.name));
    }

    #[test]
    fn every_known_key_is_found() {
        for known in &ANNOTATIONS {
            assert_eq!(find(&key(known.name)), Ok((known, None)));
        }
    }

    #[test]
    fn a_port_may_follow_only_where_it_means_something() {
        let (known, port) = find(&key("target-group-attributes.443")).expect("known");
        assert_eq!((known.name, port), ("target-group-attributes", Some(443)));
        for bad in ["target-group-attributes.0", "target-group-attributes.web"] {
            let refusal = find(&key(bad)).expect_err(bad);
            assert_eq!(refusal.reason, Reason::Invalid, "{refusal}");
        }
        assert!(find(&key("subnets.443")).is_err());
    }

    #[test]
    fn a_misspelt_key_is_refused_with_the_nearest_one() {
        let table = [
            (
                "subnet",
                "Did you mean service.beta.kubernetes.io/aws-load-balancer-subnets?",
            ),
            (
                "shceme",
                "Did you mean service.beta.kubernetes.io/aws-load-balancer-scheme?",
            ),
            (
                "target-group-attribute",
                "Did you mean service.beta.kubernetes.io/aws-load-balancer-target-group-attributes?",
            ),
        ];
        for (misspelt, end) in table {
            let refusal = find(&key(misspelt)).expect_err(misspelt);
            assert_eq!(refusal.reason, Reason::Unsupported);
            assert!(refusal.message.ends_with(end), "{refusal}");
        }
        let refusal = find(&key("something-else-altogether")).expect_err("unknown");
        assert!(refusal.message.ends_with("is unknown"), "{refusal}");
        find(&key(&"x".repeat(10_000))).expect_err("unknown");
    }

    #[test]
    fn attributes_of_listeners_are_known_with_their_protocol_and_port() {
        let (known, _) = find(&key("listener-attributes.TCP-80")).expect("known");
        assert_eq!(known.support, Support::Supported);
    }

    /// docs/aws-annotations.md: each row is an annotation, what Ballast does with it, and remarks.
    fn documented() -> Vec<[String; 3]> {
        let page = include_str!("../../../docs/aws-annotations.md");
        let (tables, _) = page.split_once("## Other defaults").expect("a heading");
        let rows = tables.lines().filter(|line| line.starts_with("| `"));
        rows.map(|line| {
            let cells = line.trim_matches('|').split(" | ");
            let cells: Vec<String> = cells.map(|cell| cell.trim().to_owned()).collect();
            cells.try_into().expect("three cells")
        })
        .collect()
    }

    #[test]
    fn the_page_says_of_each_annotation_what_the_code_does() {
        let mut rows = documented();
        let elsewhere = rows.split_off(ANNOTATIONS.len().min(rows.len()));
        for (row, known) in rows.iter().zip(&ANNOTATIONS) {
            let [name, does, remarks] = row;
            assert_eq!(*name, format!("`{}`", known.name), "the order of the code");
            let fits = match known.support {
                Support::Supported => {
                    let own = (known.name == "type").then_some("no effect");
                    own.map_or(does == "supported" || does == "differs", |own| does == own)
                }
                Support::NoEffect(why) => does == "no effect" && remarks.contains(why),
                Support::Only(value, why) => {
                    *does == format!("only `{value}`") && remarks.contains(why)
                }
                Support::Refused(why) => does == "refused" && remarks.contains(why),
            };
            assert!(fits, "{row:?} is not {:?}", known.support);
            assert!(!remarks.is_empty(), "{name}");
        }
        assert_eq!(rows.len(), ANNOTATIONS.len());
        let other: Vec<&str> = elsewhere.iter().map(|row| row[0].as_str()).collect();
        let [ranges, actions, containers] = other[..] else {
            panic!("{other:?}")
        };
        assert!(ranges.contains("load-balancer-source-ranges"));
        assert!(containers.contains("quic-enabled-containers"));
        assert!(actions.contains(ACTIONS), "{actions}");
        assert_eq!(elsewhere[1][1], "differs");
    }
}
