//! Calls about security groups.

use ipnet::{Ipv4Net, Ipv6Net};

use super::super::form::Form;
use super::super::xml::Xml;
use super::filters::Filters;
use super::{Page, finish, take_tags, write_tags};
use crate::state::security_groups::{Create, Permission, Rule, SecurityGroup, Source};
use crate::state::{Cloud, Moment, Refusal, Result, Tags};

pub(super) fn create(form: &mut Form, out: &mut Xml, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let mut tags = Tags::new();
    for mut one in form.structures("TagSpecification")? {
        let kind = one.need("ResourceType")?;
        if kind != "security-group" {
            let message =
                format!("'{kind}' is not a valid taggable resource type for this operation.");
            return Err(Refusal::new("InvalidParameterValue", message));
        }
        tags.extend(take_tags(&mut one, "Tag")?);
        one.finish()?;
    }
    let create = Create {
        name: form.need("GroupName")?,
        description: form.need("GroupDescription")?,
        vpc: form.take("VpcId"),
        tags,
    };
    finish(form)?;
    let group = cloud.create_security_group(now, create)?;
    out.text("return", true);
    out.text("groupId", &group.id);
    write_tags(out, &group.tags);
    out.text("securityGroupArn", arn(cloud, &group.id));
    Ok(())
}

fn arn(cloud: &Cloud, id: &str) -> String {
    let settings = &cloud.settings;
    format!(
        "arn:aws:ec2:{}:{}:security-group/{id}",
        settings.region, settings.account
    )
}

const FILTERS: [&str; 9] = [
    "description",
    "group-id",
    "group-name",
    "ip-permission.cidr",
    "ip-permission.group-id",
    "ip-permission.prefix-list-id",
    "ip-permission.protocol",
    "owner-id",
    "vpc-id",
];

pub(super) fn describe(form: &mut Form, out: &mut Xml, cloud: &Cloud, now: Moment) -> Result<()> {
    let ids = form.list("GroupId")?;
    let filters = Filters::take(form, &FILTERS, true)?;
    let page = Page::take(form, 5..=1000, !ids.is_empty())?;
    finish(form)?;
    let mut all = cloud.security_groups.listed(now, cloud.settings.lag);
    if !ids.is_empty() {
        all.clear();
        for id in &ids {
            all.insert(id, cloud.security_group(id)?);
        }
    }
    all.retain(|_, group| filters.match_with(&group.tags, |name| fields(group, name)));
    page.write(out, "securityGroupInfo", all, |xml, group| {
        xml.text("ownerId", &group.owner);
        xml.text("groupId", &group.id);
        xml.text("groupName", &group.name);
        xml.text("groupDescription", &group.description);
        xml.text("vpcId", &group.vpc);
        xml.text("securityGroupArn", arn(cloud, &group.id));
        write_permissions(xml, "ipPermissions", &group.ingress, &group.owner);
        let everything = Rule {
            id: String::new(),
            permission: Permission {
                protocol: "-1".into(),
                from: None,
                to: None,
                source: Source::V4(Ipv4Net::default()),
            },
            description: None,
        };
        write_permissions(xml, "ipPermissionsEgress", &[everything], &group.owner);
        write_tags(xml, &group.tags);
    });
    Ok(())
}

fn fields(group: &SecurityGroup, name: &str) -> Vec<String> {
    let permissions = group.ingress.iter().map(|rule| &rule.permission);
    let sources = |wanted: fn(&Source) -> bool| {
        let sources = permissions.clone().map(|it| &it.source);
        sources
            .filter(|it| wanted(it))
            .map(Source::to_string)
            .collect()
    };
    match name {
        "description" => vec![group.description.clone()],
        "group-id" => vec![group.id.clone()],
        "group-name" => vec![group.name.clone()],
        "owner-id" => vec![group.owner.clone()],
        "vpc-id" => vec![group.vpc.clone()],
        "ip-permission.protocol" => permissions.map(|it| it.protocol.clone()).collect(),
        "ip-permission.cidr" => sources(|source| matches!(source, Source::V4(_))),
        "ip-permission.group-id" => sources(|source| matches!(source, Source::Group(_))),
        "ip-permission.prefix-list-id" => sources(|source| matches!(source, Source::PrefixList(_))),
        _ => Vec::new(),
    }
}

pub(super) fn authorize(form: &mut Form, out: &mut Xml, cloud: &mut Cloud) -> Result<()> {
    let id = form.need("GroupId")?;
    let rules = take_permissions(form)?;
    finish(form)?;
    let rules = cloud.authorize_ingress(&id, rules)?;
    out.text("return", true);
    let owner = &cloud.settings.account;
    out.list("securityGroupRuleSet", "item", &rules, |xml, rule| {
        write_rule(xml, &id, rule);
        xml.text("groupOwnerId", owner);
        if let Source::Group(source) = &rule.permission.source {
            xml.node("referencedGroupInfo", |xml| xml.text("groupId", source));
        }
    });
    Ok(())
}

pub(super) fn revoke(form: &mut Form, out: &mut Xml, cloud: &mut Cloud) -> Result<()> {
    let id = form.need("GroupId")?;
    let by_id = form.list("SecurityGroupRuleId")?;
    let rules = take_permissions(form)?;
    finish(form)?;
    if !by_id.is_empty() && !rules.is_empty() {
        let message = "IDs of rules cannot be used with permissions";
        return Err(Refusal::new("InvalidParameterCombination", message));
    }
    let gone = if by_id.is_empty() {
        let rules: Vec<Permission> = rules.into_iter().map(|(it, _)| it).collect();
        cloud.revoke_ingress(&id, &rules)?
    } else {
        cloud.revoke_ingress_by_id(&id, &by_id)?
    };
    out.text("return", true);
    out.list("revokedSecurityGroupRuleSet", "item", &gone, |xml, rule| {
        write_rule(xml, &id, rule);
        if let Source::Group(source) = &rule.permission.source {
            xml.text("referencedGroupId", source);
        }
    });
    Ok(())
}

pub(super) fn delete(form: &mut Form, out: &mut Xml, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let id = form.need("GroupId")?;
    finish(form)?;
    cloud.delete_security_group(now, &id)?;
    out.text("return", true);
    out.text("groupId", id);
    Ok(())
}

/// The rules of a call, one for each source.
fn take_permissions(form: &mut Form) -> Result<Vec<(Permission, Option<String>)>> {
    let mut all = Vec::new();
    for mut one in form.structures("IpPermissions")? {
        let protocol = match one.need("IpProtocol")?.as_str() {
            "6" => "tcp".to_owned(),
            "17" => "udp".to_owned(),
            "1" => "icmp".to_owned(),
            "58" => "icmpv6".to_owned(),
            other => other.to_lowercase(),
        };
        let (mut from, mut to) = (one.parsed("FromPort")?, one.parsed("ToPort")?);
        if protocol == "-1" {
            // With all protocols, ports are ignored \[model\].
            (from, to) = (None, None);
        }
        let before = all.len();
        let mut add = |source: Source, description: Option<String>| {
            let protocol = protocol.clone();
            let permission = Permission {
                protocol,
                from,
                to,
                source,
            };
            all.push((permission, description));
        };
        for mut range in one.structures("IpRanges")? {
            let text = range.need("CidrIp")?;
            let net: Ipv4Net = text.parse().map_err(|_| bad_range(&text))?;
            add(Source::V4(net.trunc()), range.take("Description"));
            range.finish()?;
        }
        for mut range in one.structures("Ipv6Ranges")? {
            let text = range.need("CidrIpv6")?;
            let net: Ipv6Net = text.parse().map_err(|_| bad_range(&text))?;
            add(Source::V6(net.trunc()), range.take("Description"));
            range.finish()?;
        }
        for mut list in one.structures("PrefixListIds")? {
            let id = list.need("PrefixListId")?;
            add(Source::PrefixList(id), list.take("Description"));
            list.finish()?;
        }
        for mut group in one.structures("Groups")? {
            let id = group.need("GroupId")?;
            // The account and the VPC may be said, too.
            group.take("UserId");
            group.take("VpcId");
            add(Source::Group(id), group.take("Description"));
            group.finish()?;
        }
        one.finish()?;
        if all.len() == before {
            let message = "A permission without a source";
            return Err(Refusal::new("InvalidParameterValue", message));
        }
    }
    Ok(all)
}

/// \[seen\]
fn bad_range(text: &str) -> Refusal {
    let message = format!("CIDR block {text} is malformed");
    Refusal::new("InvalidParameterValue", message)
}

/// Rules of the same protocol and ports are one permission.
fn write_permissions(out: &mut Xml, name: &str, rules: &[Rule], owner: &str) {
    type Ports<'a> = (&'a str, Option<i32>, Option<i32>);
    let mut ports: Vec<(Ports<'_>, Vec<&Rule>)> = Vec::new();
    for rule in rules {
        let it = &rule.permission;
        let key = (it.protocol.as_str(), it.from, it.to);
        match ports.iter_mut().find(|(there, _)| *there == key) {
            Some((_, rules)) => rules.push(rule),
            None => ports.push((key, vec![rule])),
        }
    }
    out.list(name, "item", ports, |xml, ((protocol, from, to), rules)| {
        xml.text("ipProtocol", protocol);
        xml.optional("fromPort", from);
        xml.optional("toPort", to);
        let sources = |wanted: fn(&Source) -> bool| {
            let rules = rules.iter();
            rules.filter(move |rule| wanted(&rule.permission.source))
        };
        let groups = sources(|source| matches!(source, Source::Group(_)));
        xml.list("groups", "item", groups, |xml, rule| {
            xml.text("userId", owner);
            xml.text("groupId", &rule.permission.source);
            xml.optional("description", rule.description.as_ref());
        });
        let four = sources(|source| matches!(source, Source::V4(_)));
        xml.list("ipRanges", "item", four, |xml, rule| {
            xml.text("cidrIp", &rule.permission.source);
            xml.optional("description", rule.description.as_ref());
        });
        let six = sources(|source| matches!(source, Source::V6(_)));
        xml.list("ipv6Ranges", "item", six, |xml, rule| {
            xml.text("cidrIpv6", &rule.permission.source);
            xml.optional("description", rule.description.as_ref());
        });
        let lists = sources(|source| matches!(source, Source::PrefixList(_)));
        xml.list("prefixListIds", "item", lists, |xml, rule| {
            xml.text("prefixListId", &rule.permission.source);
            xml.optional("description", rule.description.as_ref());
        });
    });
}

/// What answers about new and about revoked rules have in common.
fn write_rule(xml: &mut Xml, group: &str, rule: &Rule) {
    let it = &rule.permission;
    xml.text("securityGroupRuleId", &rule.id);
    xml.text("groupId", group);
    xml.text("isEgress", false);
    xml.text("ipProtocol", &it.protocol);
    xml.text("fromPort", it.from.unwrap_or(-1));
    xml.text("toPort", it.to.unwrap_or(-1));
    match &it.source {
        Source::V4(net) => xml.text("cidrIpv4", net),
        Source::V6(net) => xml.text("cidrIpv6", net),
        Source::PrefixList(id) => xml.text("prefixListId", id),
        Source::Group(_) => {}
    }
    xml.optional("description", rule.description.as_ref());
}
