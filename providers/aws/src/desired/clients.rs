//! Who may connect: the rules of a security group of our own, and how many AWS counts. Pure.

use std::collections::BTreeSet;

use ballast_provider::{Family, Reason, Refusal};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{LookedUp, Part, PrefixLists, Rule, Source, Traffic};
use crate::annotations::{PREFIX, invalid};
use crate::settings::Settings;

/// AWS's default limit for the rules of a security group ("Amazon VPC quotas"). An account can have
/// another one: `spec.aws.maxSecurityGroupRules`.
pub(crate) const MOST_RULES: usize = 60;

/// The rules for all ports of these Services, if AWS permits so many.
pub(crate) fn rules(
    parts: &[Part<'_>],
    lists: &PrefixLists,
    dualstack: bool,
) -> Result<BTreeSet<Rule>, Refusal> {
    let mut rules = BTreeSet::new();
    for part in parts {
        rules.extend(of(part, dualstack));
    }
    let settings = parts.iter().map(|part| part.settings);
    let most = settings.clone().find_map(|it| it.most_rules);
    let most = most.unwrap_or(MOST_RULES);
    let needed = weight(&rules, lists);
    if needed <= most {
        return Ok(rules);
    }
    let named: BTreeSet<&String> = settings.flat_map(|it| &it.prefix_lists).collect();
    let counts: Vec<String> = named
        .into_iter()
        .filter_map(|id| Some((id, lists.get(id)?)))
        .filter(|(_, entries)| **entries > 1)
        .map(|(id, entries)| format!("{id} counts as {entries} on each port"))
        .collect();
    let counts = match counts[..] {
        [] => String::new(),
        _ => format!(" (the prefix list {})", counts.join(", ")),
    };
    let each = parts.iter().map(|part| part.service.listeners.len());
    let listeners: usize = each.sum();
    let of = match parts.len() {
        0 | 1 => String::new(),
        several => format!(" of the {several} Services that share the load balancer"),
    };
    Err(Refusal::new(
        Reason::QuotaExceeded,
        format!(
            "{listeners} ports{of} and their sources need {needed} rules{counts}, and a security group has at most {most}. Use fewer source ranges or shorter prefix lists, or your own security groups; if AWS permits more in your account, set spec.aws.maxSecurityGroupRules of the class",
        ),
    ))
}

/// Every port for every source. Without source ranges and prefix lists, all clients may connect. A range of IPv6
/// addresses harms no load balancer that has none.
fn of(part: &Part<'_>, dualstack: bool) -> BTreeSet<Rule> {
    let Part {
        service, settings, ..
    } = *part;
    let mut sources: Vec<Source> = settings
        .prefix_lists
        .iter()
        .cloned()
        .map(Source::PrefixList)
        .collect();
    sources.extend(service.source_ranges.iter().copied().map(Source::Range));
    if sources.is_empty() {
        sources.push(Source::Range(IpNet::V4(Ipv4Net::default())));
        if dualstack {
            sources.push(Source::Range(IpNet::V6(Ipv6Net::default())));
        }
    }
    let ports = service.listeners.iter();
    let ports = ports.map(|listener| Traffic::Port(listener.protocol, listener.port));
    let asks = settings.path_mtu == Some(true);
    let too_large = [Family::V4, Family::V6].into_iter().filter(|_| asks);
    let too_large = too_large.flat_map(|family| {
        let mine = sources.iter().filter(move |source| match source {
            Source::Range(range) => matches!(range, IpNet::V4(_)) == (family == Family::V4),
            Source::PrefixList(_) | Source::Group(_) => family == Family::V4 || dualstack,
        });
        mine.map(move |source| Rule {
            traffic: Traffic::too_large(family),
            source: source.clone(),
        })
    });
    let rules = ports.flat_map(|traffic| {
        sources.iter().map(move |source| Rule {
            traffic: traffic.clone(),
            source: source.clone(),
        })
    });
    rules.chain(too_large).collect()
}

/// For how many rules of AWS's limit these count. It counts each family of addresses apart; of what Ballast does not
/// know the family of, it counts for both.
pub(crate) fn weight<'a>(rules: impl IntoIterator<Item = &'a Rule>, lists: &PrefixLists) -> usize {
    let (mut four, mut six) = (0, 0);
    for rule in rules {
        match &rule.source {
            Source::Range(IpNet::V4(_)) => four += 1,
            Source::Range(IpNet::V6(_)) => six += 1,
            Source::PrefixList(id) => {
                let entries = lists.get(id).copied().unwrap_or(1);
                four += entries;
                six += entries;
            }
            Source::Group(_) => {
                four += 1;
                six += 1;
            }
        }
    }
    four.max(six)
}

/// The security groups of the user. A load balancer without any could never get one.
pub(super) fn given(settings: &Settings, found: &LookedUp) -> Result<Vec<String>, Refusal> {
    let named = settings.security_groups.len();
    if found.security_groups.len() != named {
        return Err(invalid(format!(
            "annotation {PREFIX}security-groups: {named} groups are named, and {} were found",
            found.security_groups.len()
        )));
    }
    Ok(found.security_groups.clone())
}

/// What nobody does for a load balancer without security groups.
pub(super) fn groupless(part: &Part<'_>, remarks: &mut Vec<String>) {
    let Part {
        service, settings, ..
    } = *part;
    let restricted = !service.source_ranges.is_empty() || !settings.prefix_lists.is_empty();
    let ranges = if restricted {
        ", and the source ranges of the Service have no effect"
    } else {
        ""
    };
    remarks.push(format!(
        "the load balancer was made without security groups, and AWS adds none later: the security groups of the nodes decide which clients reach their node ports, and Ballast does not change them for it{ranges}"
    ));
}

/// What has no effect with security groups of the user.
pub(super) fn ignored(part: &Part<'_>, remarks: &mut Vec<String>) {
    let Part {
        service, settings, ..
    } = *part;
    if !service.source_ranges.is_empty()
        || !settings.prefix_lists.is_empty()
        || settings.path_mtu == Some(true)
    {
        remarks.push(format!(
            "source ranges, prefix lists and {PREFIX}enable-icmp-for-path-mtu-discovery have no effect: the security groups of {PREFIX}security-groups decide who may connect"
        ));
    }
}
