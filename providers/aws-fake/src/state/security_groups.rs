//! Security groups and their rules for incoming traffic.

use std::collections::BTreeSet;

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Cloud, Moment, Refusal, Result, Tags, tags};

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// The ID of its VPC.
    pub vpc: String,
    /// The account that owns it.
    pub owner: String,
    /// Its rules for incoming traffic.
    pub ingress: Vec<Rule>,
    /// Its tags.
    pub tags: Tags,
}

/// A rule with its ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its ID.
    pub id: String,
    /// What it permits.
    pub permission: Permission,
    /// Its description.
    pub description: Option<String>,
}

/// What a rule permits. Equal ones are one rule, whatever their descriptions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or `-1` for all.
    pub protocol: String,
    /// The first port, or the ICMP type.
    pub from: Option<i32>,
    /// The last port, or the ICMP code.
    pub to: Option<i32>,
    /// Who may connect.
    pub source: Source,
}

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A range of addresses.
    V4(Ipv4Net),
    /// A range of addresses.
    V6(Ipv6Net),
    /// Whatever is in a security group.
    Group(String),
    /// The addresses of a prefix list.
    PrefixList(String),
}

/// The arguments of `CreateSecurityGroup`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Create {
    /// The name.
    pub name: String,
    /// The description.
    pub description: String,
    /// The ID of the VPC.
    pub vpc: Option<String>,
    /// The tags.
    pub tags: Tags,
}

// === impl Cloud ===

impl Cloud {
    /// `CreateSecurityGroup`
    pub fn create_security_group(&mut self, now: Moment, create: Create) -> Result<SecurityGroup> {
        let Create {
            name,
            description,
            vpc,
            tags,
        } = create;
        check_text("GroupName", &name)?;
        check_text("GroupDescription", &description)?;
        if name.starts_with("sg-") {
            return Err(invalid(format!(
                "Invalid value '{name}' for GroupName. Group names may not be in the format sg-*."
            )));
        }
        tags::check_ec2(&tags)?;
        let Some(vpc) = vpc else {
            // There is no default VPC here.
            return Err(Refusal::new(
                "VPCIdNotSpecified",
                "No default VPC for this user",
            ));
        };
        if !self.vpcs.contains_key(&vpc) {
            let message = format!("The vpc ID '{vpc}' does not exist");
            return Err(Refusal::new("InvalidVpcID.NotFound", message));
        }
        let mut all = self.security_groups.values();
        if all.any(|one| one.vpc == vpc && one.name == name) {
            // \[seen\]
            let message = format!("The security group '{name}' already exists for VPC '{vpc}'");
            return Err(Refusal::new("InvalidGroup.Duplicate", message));
        }
        if self.security_groups.len() >= self.settings.quotas.security_groups {
            return Err(Refusal::new(
                "SecurityGroupLimitExceeded",
                "The maximum number of security groups has been reached.",
            ));
        }
        if tags.len() > self.settings.quotas.tags {
            return Err(Refusal::new("TagLimitExceeded", "Too many tags"));
        }
        let group = SecurityGroup {
            id: self.id("sg"),
            name,
            description,
            vpc,
            owner: self.settings.account.clone(),
            ingress: Vec::new(),
            tags,
        };
        self.security_groups
            .insert(group.id.clone(), group.clone(), now);
        Ok(group)
    }

    /// `AuthorizeSecurityGroupIngress`: all rules or none.
    pub fn authorize_ingress(
        &mut self,
        id: &str,
        rules: Vec<(Permission, Option<String>)>,
    ) -> Result<Vec<Rule>> {
        let group = self.security_group(id)?;
        check_some(&rules)?;
        let mut seen = BTreeSet::new();
        for (permission, description) in &rules {
            permission.check()?;
            if let Some(text) = description {
                check_text("Description", text)?;
            }
            self.check_source(&permission.source)?;
            if !seen.insert(permission) {
                // \[seen\]
                return Err(invalid(
                    "The same permission must not appear multiple times",
                ));
            }
            if group.has(permission) {
                return Err(duplicate(permission));
            }
        }
        let present = group.ingress.iter().map(|rule| &rule.permission);
        let all: Vec<_> = present.chain(rules.iter().map(|(it, _)| it)).collect();
        let most = self.settings.quotas.rules;
        // Each family of addresses on its own \[docs\].
        for six in [false, true] {
            let number: usize = all.iter().map(|it| self.weight(&it.source, six)).sum();
            if number > most {
                return Err(Refusal::new(
                    "RulesPerSecurityGroupLimitExceeded",
                    "The maximum number of rules per security group has been reached.",
                ));
            }
        }
        let rules: Vec<Rule> = rules
            .into_iter()
            .map(|(permission, description)| Rule {
                id: self.id("sgr"),
                permission,
                description,
            })
            .collect();
        if let Some(group) = self.security_groups.get_mut(id) {
            group.ingress.extend(rules.clone());
        }
        Ok(rules)
    }

    /// `RevokeSecurityGroupIngress`: all rules or none. Descriptions do not matter.
    pub fn revoke_ingress(&mut self, id: &str, rules: &[Permission]) -> Result<Vec<Rule>> {
        let group = self.security_group(id)?;
        check_some(rules)?;
        for permission in rules {
            permission.check()?;
            if !group.has(permission) {
                // \[seen\]
                return Err(Refusal::new(
                    "InvalidPermission.NotFound",
                    "The specified rule does not exist in this security group.",
                ));
            }
        }
        Ok(self.remove_rules(id, |rule| rules.contains(&rule.permission)))
    }

    /// `RevokeSecurityGroupIngress` by the IDs of rules.
    pub fn revoke_ingress_by_id(&mut self, id: &str, rules: &[String]) -> Result<Vec<Rule>> {
        let group = self.security_group(id)?;
        check_some(rules)?;
        for rule in rules {
            if !group.ingress.iter().any(|there| there.id == *rule) {
                let message = format!("The security group rule ID '{rule}' does not exist");
                return Err(Refusal::new("InvalidSecurityGroupRuleId.NotFound", message));
            }
        }
        Ok(self.remove_rules(id, |rule| rules.contains(&rule.id)))
    }

    fn remove_rules(&mut self, id: &str, which: impl Fn(&Rule) -> bool) -> Vec<Rule> {
        let Some(group) = self.security_groups.get_mut(id) else {
            return Vec::new();
        };
        let all = std::mem::take(&mut group.ingress);
        let (gone, stay) = all.into_iter().partition(which);
        group.ingress = stay;
        gone
    }

    /// `DeleteSecurityGroup`. It fails while an interface, an instance or a rule of another group
    /// uses it \[docs\].
    pub fn delete_security_group(&mut self, now: Moment, id: &str) -> Result<()> {
        let group = self.security_group(id)?;
        if group.name == "default" {
            return Err(Refusal::new(
                "CannotDelete",
                "the specified group: \"default\" name: \"default\" cannot be deleted by a user",
            ));
        }
        let mut others = self.security_groups.values().filter(|other| other.id != id);
        let used = self
            .interfaces
            .values()
            .any(|one| one.groups.iter().any(|it| it == id))
            || self
                .instances
                .values()
                .any(|one| one.groups.iter().any(|it| it == id))
            || others.any(|other| other.refers_to(id));
        if used {
            // \[seen\]
            let message = format!("resource {id} has a dependent object");
            return Err(Refusal::new("DependencyViolation", message));
        }
        self.security_groups.remove(id, now);
        Ok(())
    }

    /// One security group.
    pub fn security_group(&self, id: &str) -> Result<&SecurityGroup> {
        if !id.starts_with("sg-") {
            let message = format!("Invalid id: \"{id}\" (expecting \"sg-...\")");
            return Err(Refusal::new("InvalidGroupId.Malformed", message));
        }
        self.security_groups.get(id).ok_or_else(|| {
            // \[seen\]
            let message = format!("The security group '{id}' does not exist");
            Refusal::new("InvalidGroup.NotFound", message)
        })
    }

    fn check_source(&self, source: &Source) -> Result<()> {
        match source {
            Source::Group(id) => self.security_group(id).map(drop),
            Source::PrefixList(id) if !self.prefix_lists.contains_key(id) => {
                let message = format!("The prefix list ID '{id}' does not exist");
                Err(Refusal::new("InvalidPrefixListID.NotFound", message))
            }
            _ => Ok(()),
        }
    }

    /// For how many rules of one family a rule counts. A prefix list counts with its largest
    /// size, a group in both families \[docs\].
    fn weight(&self, source: &Source, six: bool) -> usize {
        match source {
            Source::V4(_) => usize::from(!six),
            Source::V6(_) => usize::from(six),
            Source::Group(_) => 1,
            Source::PrefixList(id) => {
                let list = self.prefix_lists.get(id);
                list.filter(|list| (list.family == "IPv6") == six)
                    .map_or(0, |list| list.max_entries)
            }
        }
    }
}

fn check_some<T>(rules: &[T]) -> Result<()> {
    if rules.is_empty() {
        let message = "Either 'ipPermissions' or 'securityGroupRuleIds' should be provided.";
        return Err(Refusal::new("MissingParameter", message));
    }
    Ok(())
}

/// The rules for names and descriptions \[model\].
fn check_text(what: &str, text: &str) -> Result<()> {
    let permitted = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
    if (1..=255).contains(&text.len()) && text.chars().all(permitted) {
        return Ok(());
    }
    Err(invalid(format!(
        "Invalid value '{text}' for {what}. It must have 1 to 255 of the permitted characters."
    )))
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("InvalidParameterValue", message)
}

/// \[seen\]
fn duplicate(permission: &Permission) -> Refusal {
    let Permission {
        protocol, from, to, ..
    } = permission;
    let peer = permission.source.to_string();
    let protocol = protocol.to_uppercase();
    let port = |port: &Option<i32>| port.unwrap_or(-1);
    Refusal::new(
        "InvalidPermission.Duplicate",
        format!(
            "the specified rule \"peer: {peer}, {protocol}, from port: {}, to port: {}, ALLOW\" already exists",
            port(from),
            port(to)
        ),
    )
}

// === impl SecurityGroup ===

impl SecurityGroup {
    /// Whether it has a rule that permits exactly this.
    pub fn has(&self, permission: &Permission) -> bool {
        self.ingress
            .iter()
            .any(|rule| rule.permission == *permission)
    }

    fn refers_to(&self, group: &str) -> bool {
        let mut sources = self.ingress.iter().map(|rule| &rule.permission.source);
        sources.any(|source| matches!(source, Source::Group(id) if id == group))
    }
}

// === impl Permission ===

impl Permission {
    fn check(&self) -> Result<()> {
        let ports = (self.from, self.to);
        match (self.protocol.as_str(), ports) {
            ("tcp" | "udp", (Some(from), Some(to))) => {
                if from < 0 || to > 65_535 || from > to {
                    return Err(invalid(format!(
                        "Invalid TCP/UDP port range ({from}, {to})"
                    )));
                }
            }
            ("icmp" | "icmpv6", (Some(_), Some(_))) | ("-1", (None, None)) => {}
            ("tcp" | "udp" | "icmp" | "icmpv6", _) => {
                let message = "The request must contain the parameters FromPort and ToPort";
                return Err(Refusal::new("MissingParameter", message));
            }
            (protocol, _) => {
                return Err(invalid(format!(
                    "Invalid value '{protocol}' for IP protocol, or ports that it does not have."
                )));
            }
        }
        Ok(())
    }
}

// === impl Source ===

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::V4(range) => range.fmt(f),
            Self::V6(range) => range.fmt(f),
            Self::Group(id) | Self::PrefixList(id) => id.fmt(f),
        }
    }
}
