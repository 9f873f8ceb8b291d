//! Parses the values of annotations, as the AWS Load Balancer Controller does: lists are
//! separated by commas, maps are `key=value` with `\,` for a comma in a value, and booleans are
//! those of Go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ballast_provider::{Reason, Refusal};

use super::{CheckPort, CheckProtocol, Scheme};
use crate::annotations::invalid;
use crate::nodes::{LONGEST, Selector};
use crate::target::TargetType;

/// The most entries in one list or map: AWS's largest limit, for tags.
const MOST: usize = 50;
/// AWS reserves tags that begin with it.
const AWS: &str = "aws:";
/// Ballast's own tags begin with it.
const OWN: &str = "ballast.dev/";
/// AWS's limits for tags, in characters.
const TAG_KEY: usize = 128;
const TAG_VALUE: usize = 256;

pub(super) fn scheme(key: &str, value: &str) -> Result<Scheme, Refusal> {
    [Scheme::Internal, Scheme::InternetFacing]
        .into_iter()
        .find(|scheme| scheme.as_str() == value)
        .ok_or_else(|| must_be(key, "internal or internet-facing", value))
}

pub(super) fn boolean(key: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(must_be(key, "true or false", value)),
    }
}

pub(super) fn on_or_off(key: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(must_be(key, "on or off", value)),
    }
}

/// Whether it is `dualstack`.
pub(super) fn ip_address_type(key: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "dualstack" => Ok(true),
        "ipv4" => Ok(false),
        _ => Err(must_be(key, "ipv4 or dualstack", value)),
    }
}

pub(super) fn number(key: &str, value: &str, range: RangeInclusive<u32>) -> Result<u32, Refusal> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        let allowed = format!("a number from {} to {}", range.start(), range.end());
        must_be(key, &allowed, value)
    })
}

/// `CapacityUnits=N`, as AWS's command line has it.
pub(super) fn capacity(key: &str, value: &str) -> Result<u32, Refusal> {
    const UNITS: &str = "CapacityUnits";
    let all = map(key, value)?;
    let units = all.get(UNITS).filter(|_| all.len() == 1);
    let units = units.and_then(|units| units.parse().ok());
    // AWS's number has a sign.
    units
        .filter(|units| i32::try_from(*units).is_ok())
        .ok_or_else(|| {
            let allowed = format!("{UNITS}=N, such as {UNITS}=8250; {UNITS}=0 reserves nothing");
            must_be(key, &allowed, value)
        })
}

/// At least one entry, none twice.
pub(super) fn list(key: &str, value: &str) -> Result<Vec<String>, Refusal> {
    let entries = value.split(',').map(str::trim);
    let all: Vec<String> = entries
        .filter(|entry| !entry.is_empty())
        .map(ToOwned::to_owned)
        .collect();
    if all.is_empty() || all.len() > MOST {
        let allowed = format!("a list of 1 to {MOST} entries, separated by commas");
        return Err(must_be(key, &allowed, value));
    }
    let mut seen = BTreeSet::new();
    match all.iter().find(|entry| !seen.insert(*entry)) {
        Some(twice) => Err(invalid(format!("{key} names {twice} twice"))),
        None => Ok(all),
    }
}

/// A list of AWS's IDs of one kind.
pub(super) fn ids(key: &str, value: &str, prefix: &str) -> Result<Vec<String>, Refusal> {
    let all = list(key, value)?;
    match all.iter().find(|id| !id.starts_with(prefix)) {
        Some(bad) => Err(must_be(
            key,
            &format!("a list of IDs such as {prefix}0a1b2c3d"),
            bad,
        )),
        None => Ok(all),
    }
}

pub(super) fn addresses(key: &str, value: &str) -> Result<Vec<Ipv4Addr>, Refusal> {
    let parsed = list(key, value)?.into_iter().map(|entry| {
        let address = entry.parse();
        address.map_err(|_| must_be(key, "a list of IPv4 addresses", &entry))
    });
    parsed.collect()
}

pub(super) fn ports(key: &str, value: &str) -> Result<BTreeSet<u16>, Refusal> {
    let parsed = list(key, value)?.into_iter().map(|entry| {
        let port = entry.parse().ok().filter(|port| *port > 0);
        port.ok_or_else(|| must_be(key, "a list of ports from 1 to 65535", &entry))
    });
    parsed.collect()
}

/// The port of a key that ends with a protocol and a port, such as `listener-attributes.TCP-80`.
pub(super) fn tcp_port(key: &str) -> Result<u16, Refusal> {
    let end = key.rsplit_once('.').map_or("", |(_, end)| end);
    let port = match end.split_once('-') {
        Some(("TCP", port)) => port.parse().ok().filter(|port| *port > 0),
        Some(("TLS" | "UDP" | "TCP_UDP", _)) => {
            return Err(Refusal::new(
                Reason::Unsupported,
                format!("{key}: AWS has attributes only for TCP listeners without TLS"),
            ));
        }
        _ => None,
    };
    port.ok_or_else(|| invalid(format!("{key} must end with .TCP-PORT, such as .TCP-80")))
}

pub(super) fn every_port(key: &str, value: &str) -> Result<(), Refusal> {
    if value == "*" {
        return Ok(());
    }
    Err(must_be(key, "\"*\", for all ports", value))
}

pub(super) fn target_type(key: &str, value: &str) -> Result<TargetType, Refusal> {
    let all = [TargetType::Instance, TargetType::Ip];
    let named = all.into_iter().find(|one| one.as_str() == value);
    named.ok_or_else(|| must_be(key, "instance or ip", value))
}

/// A controller of Services that also stands for pods as targets.
pub(super) const NLB_IP: &str = "nlb-ip";

/// `key=value` entries; a comma in a value is written `\,`.
pub(super) fn map(key: &str, value: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let mut all = BTreeMap::new();
    for entry in unescaped(value) {
        let entry = entry.trim();
        if entry.is_empty() {
            continue;
        }
        let pair = entry.split_once('=');
        let Some((name, value)) = pair.filter(|(name, _)| !name.trim().is_empty()) else {
            return Err(must_be(
                key,
                "entries such as key=value, separated by commas",
                entry,
            ));
        };
        let name = name.trim().to_owned();
        if all.insert(name.clone(), value.trim().to_owned()).is_some() {
            return Err(invalid(format!("{key} names {name} twice")));
        }
        if all.len() > MOST {
            return Err(invalid(format!("{key} has more than {MOST} entries")));
        }
    }
    Ok(all)
}

/// The entries between commas that are not escaped.
fn unescaped(value: &str) -> Vec<String> {
    let mut entries = vec![String::new()];
    let mut letters = value.chars().peekable();
    while let Some(letter) = letters.next() {
        let escaped = letter == '\\' && letters.next_if_eq(&',').is_some();
        match (letter, entries.last_mut()) {
            (',', _) => entries.push(String::new()),
            (_, Some(entry)) => entry.push(if escaped { ',' } else { letter }),
            (_, None) => {}
        }
    }
    entries
}

/// Tags, and remarks about those that AWS does not accept from anybody.
pub(super) fn tags(
    key: &str,
    value: &str,
) -> Result<(BTreeMap<String, String>, Vec<String>), Refusal> {
    let mut tags = map(key, value)?;
    let mut remarks = Vec::new();
    tags.retain(|tag, _| {
        let reserved = tag.to_ascii_lowercase().starts_with(AWS);
        if reserved {
            remarks.push(format!("{key}: AWS reserves the tag {tag}; it is skipped"));
        }
        !reserved
    });
    for (tag, value) in &tags {
        if tag.starts_with(OWN) {
            return Err(invalid(format!(
                "{key}: tags that begin with {OWN} are Ballast's own, such as {tag}"
            )));
        }
        if tag.chars().count() > TAG_KEY || value.chars().count() > TAG_VALUE {
            return Err(invalid(format!(
                "{key}: the tag {tag} is too long; a key has at most {TAG_KEY} characters, and a value {TAG_VALUE}"
            )));
        }
    }
    Ok((tags, remarks))
}

/// Labels of nodes. They must fit into a tag of a target group.
pub(super) fn labels(key: &str, value: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let labels = map(key, value)?;
    let fits = |text: &str| {
        let mut letters = text.chars();
        letters.all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.' | '/'))
    };
    for (label, value) in &labels {
        if !fits(label) || !fits(value) || value.contains('/') {
            return Err(must_be(
                key,
                "labels of nodes such as pool=edge, separated by commas",
                &format!("{label}={value}"),
            ));
        }
    }
    let tag = Selector::new(labels.clone()).tag().unwrap_or_default();
    if tag.len() > LONGEST {
        return Err(invalid(format!(
            "{key} has {} characters; Ballast keeps it in a tag, which has at most {LONGEST}",
            tag.len()
        )));
    }
    Ok(labels)
}

pub(super) fn check_protocol(key: &str, value: &str) -> Result<CheckProtocol, Refusal> {
    match value.to_ascii_lowercase().as_str() {
        "tcp" => Ok(CheckProtocol::Tcp),
        "http" => Ok(CheckProtocol::Http),
        "https" => Ok(CheckProtocol::Https),
        _ => Err(must_be(key, "tcp, http or https", value)),
    }
}

pub(super) fn check_port(key: &str, value: &str) -> Result<CheckPort, Refusal> {
    if value == "traffic-port" {
        return Ok(CheckPort::Traffic);
    }
    if value.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
        let port = value.parse().ok().filter(|port| *port > 0);
        return port.map(CheckPort::Number).ok_or_else(|| {
            must_be(
                key,
                "traffic-port, a port from 1 to 65535, or the name of a port",
                value,
            )
        });
    }
    if value.is_empty() {
        return Err(must_be(
            key,
            "traffic-port, a port, or the name of a port",
            value,
        ));
    }
    Ok(CheckPort::Named(value.to_owned()))
}

pub(super) fn path(key: &str, value: &str) -> Result<String, Refusal> {
    let fits = value.starts_with('/')
        && value.len() <= 1_024
        && value.chars().all(|letter| letter.is_ascii_graphic());
    if fits {
        return Ok(value.to_owned());
    }
    Err(must_be(
        key,
        "a path that begins with /, of at most 1024 characters",
        value,
    ))
}

/// Codes and ranges of codes from 200 to 599, separated by commas.
pub(super) fn success_codes(key: &str, value: &str) -> Result<String, Refusal> {
    let code = |text: &str| {
        let code: Option<u16> = text.trim().parse().ok();
        code.filter(|code| (200..=599).contains(code))
    };
    let fits = value.split(',').all(|entry| match entry.split_once('-') {
        Some((first, last)) => code(first)
            .zip(code(last))
            .is_some_and(|(first, last)| first <= last),
        None => code(entry).is_some(),
    });
    if fits {
        return Ok(value.to_owned());
    }
    Err(must_be(
        key,
        "codes from 200 to 599, such as 200-399 or 200,204",
        value,
    ))
}

pub(super) fn must_be(key: &str, allowed: &str, value: &str) -> Refusal {
    invalid(format!("{key} must be {allowed}, not \"{value}\""))
}
