//! Target groups and their health checks.

use std::collections::{BTreeMap, BTreeSet};

use super::attributes::{self, Attributes};
use super::forward::not_sticky;
use super::load_balancers::{Which, check_arn, check_name, check_named, duplicate};
use super::targets::Target;
use super::{Cloud, Moment, Refusal, Result, Tags};

/// A target group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: String,
    /// The port of targets that are registered without one.
    pub port: u16,
    /// The ID of its VPC.
    pub vpc: String,
    /// `instance` or `ip`.
    pub target_type: String,
    /// `ipv4` or `ipv6`.
    pub ip_address_type: String,
    /// How targets are checked.
    pub check: Check,
    /// All attributes with their values.
    pub attributes: Attributes,
    /// Its tags.
    pub tags: Tags,
    /// Its targets by ID and port.
    pub targets: BTreeMap<(String, u16), Target>,
    /// Since when a listener or a rule uses it.
    pub used: Option<Moment>,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// `TCP`, `HTTP` or `HTTPS`.
    pub protocol: String,
    /// A number or `traffic-port`.
    pub port: String,
    /// The path; not for TCP.
    pub path: Option<String>,
    /// The accepted status codes; not for TCP.
    pub matcher: Option<String>,
    /// Seconds.
    pub interval: u32,
    /// Seconds.
    pub timeout: u32,
    /// Checks in a row.
    pub healthy: u32,
    /// Checks in a row.
    pub unhealthy: u32,
}

/// The part of a health check that a call sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckChange {
    /// The protocol.
    pub protocol: Option<String>,
    /// The port.
    pub port: Option<String>,
    /// The path.
    pub path: Option<String>,
    /// The accepted status codes.
    pub matcher: Option<String>,
    /// Seconds, 5 to 300.
    pub interval: Option<u32>,
    /// Seconds, 2 to 120.
    pub timeout: Option<u32>,
    /// 2 to 10.
    pub healthy: Option<u32>,
    /// 2 to 10.
    pub unhealthy: Option<u32>,
    /// It cannot be switched off.
    pub enabled: Option<bool>,
}

/// The arguments of `CreateTargetGroup`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Create {
    /// The name.
    pub name: String,
    /// The protocol.
    pub protocol: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The ID of the VPC.
    pub vpc: Option<String>,
    /// `instance` or `ip`; AWS's default is `instance`.
    pub target_type: Option<String>,
    /// `ipv4` or `ipv6`.
    pub ip_address_type: Option<String>,
    /// How targets are checked.
    pub check: CheckChange,
    /// The tags.
    pub tags: Tags,
}

/// The protocols of Network Load Balancers that this fake knows.
pub(super) const PROTOCOLS: [&str; 4] = ["TCP", "UDP", "TCP_UDP", "TLS"];

// === impl Cloud ===

impl Cloud {
    /// `CreateTargetGroup`. Repeated with equal settings it returns what there is \[model\].
    pub fn create_target_group(&mut self, now: Moment, create: Create) -> Result<TargetGroup> {
        check_name("target group", &create.name)?;
        let needed = |what: &str| Refusal::validation(format!("A {what} must be specified"));
        let protocol = create.protocol.ok_or_else(|| needed("protocol"))?;
        if !PROTOCOLS.contains(&protocol.as_str()) {
            return Err(Refusal::validation(format!(
                "The protocol '{protocol}' is not one of {PROTOCOLS:?}, which this fake knows"
            )));
        }
        let port = create.port.ok_or_else(|| needed("port"))?;
        let vpc = create.vpc.ok_or_else(|| needed("VPC ID"))?;
        if !self.vpcs.contains_key(&vpc) {
            // \[seen\]
            return Err(Refusal::validation(format!(
                "The VPC ID '{vpc}' is not found"
            )));
        }
        let target_type = create.target_type.unwrap_or_else(|| "instance".into());
        if !["instance", "ip"].contains(&target_type.as_str()) {
            return Err(Refusal::validation(format!(
                "The target type '{target_type}' is not one that this fake knows"
            )));
        }
        let ip_address_type = create.ip_address_type.unwrap_or_else(|| "ipv4".into());
        if !["ipv4", "ipv6"].contains(&ip_address_type.as_str()) {
            return Err(Refusal::validation(format!(
                "The IP address type '{ip_address_type}' is not valid"
            )));
        }
        // \[docs\]: the table of client IP preservation knows targets of IPv6 by address only.
        if target_type == "instance" && ip_address_type == "ipv6" {
            return Err(Refusal::new(
                "InvalidConfigurationRequest",
                "A target group of the IP address type ipv6 must have the target type ip",
            ));
        }
        self.check_number_of_tags(&create.tags)?;
        let check = Check::of(&create.check)?;
        let group = TargetGroup {
            arn: String::new(),
            attributes: attributes::target_group_defaults(&protocol, &target_type),
            name: create.name,
            protocol,
            port,
            vpc,
            target_type,
            ip_address_type,
            check,
            tags: create.tags,
            targets: BTreeMap::new(),
            used: None,
        };
        let same_name = (self.target_groups.values()).find(|one| one.name == group.name);
        if let Some(there) = same_name {
            let same = TargetGroup {
                arn: there.arn.clone(),
                attributes: there.attributes.clone(),
                targets: there.targets.clone(),
                used: there.used,
                tags: if self.settings.tags_are_settings {
                    group.tags.clone()
                } else {
                    there.tags.clone()
                },
                ..group.clone()
            };
            return if same == *there {
                Ok(there.clone())
            } else {
                Err(duplicate("TargetGroup", "target group", &group.name))
            };
        }
        let most = self.settings.quotas.target_groups;
        if self.target_groups.len() >= most {
            let message = format!("The maximum number of target groups, {most}, is reached");
            return Err(Refusal::new("TooManyTargetGroups", message));
        }
        let arn = self.arn(&format!("targetgroup/{}", group.name));
        let group = TargetGroup {
            arn: arn.clone(),
            ..group
        };
        self.target_groups.insert(arn, group.clone(), now);
        Ok(group)
    }

    /// `DescribeTargetGroups` by ARN or name, or all of them.
    pub fn describe_target_groups(&self, now: Moment, which: &Which) -> Result<Vec<&TargetGroup>> {
        match which {
            Which::All => {
                let all = self.target_groups.listed(now, self.settings.lag);
                Ok(all.into_values().collect())
            }
            Which::Arns(arns) => {
                check_named(arns)?;
                arns.iter().map(|arn| self.target_group(arn)).collect()
            }
            Which::Names(names) => {
                check_named(names)?;
                let find = |name: &String| {
                    let mut all = self.target_groups.values();
                    all.find(|one| one.name == *name).ok_or_else(not_found)
                };
                names.iter().map(find).collect()
            }
        }
    }

    /// `DescribeTargetGroups` of one load balancer; it may have none.
    pub fn target_groups_of(&self, load_balancer: &str) -> Result<Vec<&TargetGroup>> {
        self.load_balancer(load_balancer)?;
        let used: BTreeSet<&str> = (self.uses_of_groups())
            .filter(|(listener, _)| listener.load_balancer == load_balancer)
            .map(|(_, arn)| arn)
            .collect();
        used.into_iter().map(|arn| self.target_group(arn)).collect()
    }

    /// `ModifyTargetGroup`
    pub fn modify_target_group(&mut self, arn: &str, change: &CheckChange) -> Result<TargetGroup> {
        let check = self.target_group(arn)?.check.changed(change)?;
        if let Some(there) = self.target_groups.get_mut(arn) {
            there.check = check;
        }
        self.target_group(arn).cloned()
    }

    /// `ModifyTargetGroupAttributes`
    pub fn modify_target_group_attributes(
        &mut self,
        arn: &str,
        changes: &Attributes,
    ) -> Result<Attributes> {
        let there = self.target_group(arn)?;
        let mut all = there.attributes.clone();
        attributes::change_target_group(&there.protocol, &mut all, changes)?;
        if attributes::is_sticky(&all)
            && (self.uses_of_groups()).any(|(one, used)| one.protocol == "TLS" && used == arn)
        {
            return Err(not_sticky(arn));
        }
        if let Some(there) = self.target_groups.get_mut(arn) {
            there.attributes.clone_from(&all);
        }
        Ok(all)
    }

    /// `DeleteTargetGroup`. Its only error is `ResourceInUse` \[model\], so what does not exist is
    /// deleted.
    pub fn delete_target_group(&mut self, now: Moment, arn: &str) -> Result<()> {
        check_arn("target group", ":targetgroup/", arn)?;
        if self.user_of(arn).is_some() {
            // \[seen\]
            return Err(Refusal::new(
                "ResourceInUse",
                format!("Target group '{arn}' is currently in use by a listener or a rule"),
            ));
        }
        self.target_groups.remove(arn, now);
        Ok(())
    }

    /// One target group.
    pub fn target_group(&self, arn: &str) -> Result<&TargetGroup> {
        check_arn("target group", ":targetgroup/", arn)?;
        self.target_groups.get(arn).ok_or_else(not_found)
    }

    /// Notes since when each target group is used. To be called when listeners, rules or zones
    /// have changed.
    pub(super) fn note_use(&mut self, now: Moment) {
        let used = self.uses_of_groups().map(|(_, arn)| arn.to_owned());
        let used: BTreeSet<String> = used.collect();
        for group in self.target_groups.values_mut() {
            if !used.contains(&group.arn) {
                group.used = None;
            } else if group.used.is_none() {
                group.used = Some(now);
            }
        }
    }
}

/// \[seen\]
fn not_found() -> Refusal {
    Refusal::new("TargetGroupNotFound", "One or more target groups not found")
}

// === impl Check ===

impl Check {
    /// A new health check: AWS's defaults \[model\] where the call says nothing.
    fn of(change: &CheckChange) -> Result<Self> {
        let http = change.protocol.as_ref().is_some_and(|it| it != "TCP");
        let defaults = Self {
            protocol: "TCP".into(),
            port: "traffic-port".into(),
            path: None,
            matcher: None,
            interval: 30,
            timeout: if change.protocol.as_deref() == Some("HTTP") {
                6
            } else {
                10
            },
            healthy: 5,
            unhealthy: 2,
        };
        let defaults = Self {
            path: http.then(|| "/".into()),
            matcher: http.then(|| "200-399".into()),
            ..defaults
        };
        defaults.changed(change)
    }

    fn changed(&self, change: &CheckChange) -> Result<Self> {
        let or = |new: &Option<String>, old: &String| new.clone().unwrap_or_else(|| old.clone());
        let protocol = or(&change.protocol, &self.protocol);
        // Not UDP, TCP_UDP or TLS \[model\].
        if !["TCP", "HTTP", "HTTPS"].contains(&protocol.as_str()) {
            return Err(Refusal::validation(format!(
                "Health check protocol '{protocol}' must be one of HTTP, HTTPS or TCP"
            )));
        }
        if change.enabled == Some(false) {
            return Err(Refusal::validation(
                "Health check enabled must be true for target groups with target type 'instance' or 'ip'",
            ));
        }
        let http = protocol != "TCP";
        if !http && (change.path.is_some() || change.matcher.is_some()) {
            return Err(Refusal::validation(
                "Health check path and matcher cannot be set for health checks with the TCP protocol",
            ));
        }
        let fallback = |old: &Option<String>, default: &str| {
            http.then(|| old.clone().unwrap_or_else(|| default.to_owned()))
        };
        let check = Self {
            path: change.path.clone().or_else(|| fallback(&self.path, "/")),
            matcher: (change.matcher.clone()).or_else(|| fallback(&self.matcher, "200-399")),
            protocol,
            port: or(&change.port, &self.port),
            interval: change.interval.unwrap_or(self.interval),
            timeout: change.timeout.unwrap_or(self.timeout),
            healthy: change.healthy.unwrap_or(self.healthy),
            unhealthy: change.unhealthy.unwrap_or(self.unhealthy),
        };
        check.validate()?;
        Ok(check)
    }

    fn validate(&self) -> Result<()> {
        let port = self.port.parse::<u16>().is_ok_and(|port| port > 0);
        let path = (self.path.as_ref()).is_none_or(|it| it.starts_with('/') && it.len() <= 1024);
        let problem = if self.port != "traffic-port" && !port {
            format!("Health check port '{}' is not valid", self.port)
        } else if !path {
            "Health check path must begin with a '/' and have at most 1024 characters".into()
        } else if !self.matcher.as_deref().is_none_or(is_matcher) {
            "Health check matcher HTTP code must be codes or ranges of codes within '200-599'"
                .into()
        } else if !(5..=300).contains(&self.interval) {
            "Health check interval must be between 5 and 300 seconds".into()
        } else if !(2..=120).contains(&self.timeout) {
            "Health check timeout must be between 2 and 120 seconds".into()
        } else if self.timeout > self.interval {
            "Health check timeout cannot be greater than the interval".into()
        } else if !(2..=10).contains(&self.healthy) || !(2..=10).contains(&self.unhealthy) {
            "Health check thresholds must be between 2 and 10".into()
        } else {
            return Ok(());
        };
        Err(Refusal::validation(problem))
    }
}

/// Whether a text is like `200`, `200,202` or `200-399`, from 200 to 599 \[model\].
fn is_matcher(text: &str) -> bool {
    let code = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|it| (200..600).contains(it))
    };
    text.split(',').all(|part| match part.split_once('-') {
        None => code(part).is_some(),
        Some((from, to)) => code(from)
            .zip(code(to))
            .is_some_and(|(from, to)| from <= to),
    })
}
