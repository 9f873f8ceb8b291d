//! Load balancers. Only Network Load Balancers can be made.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::forward::is_udp;
use super::network::{Interface, not_enough_space};
use super::{Cloud, Moment, Refusal, Result, Tags, attributes};

mod capacity;
mod placement;
mod stack;

pub use self::capacity::Reservation;
pub use self::placement::Mapping;
use self::stack::Settled;
pub use self::stack::{Ipv6, Stack};

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// Its host name.
    pub dns_name: String,
    /// `internal` or `internet-facing`.
    pub scheme: String,
    /// `ipv4` or `dualstack`.
    pub ip_address_type: String,
    /// The ID of its VPC.
    pub vpc: String,
    /// What it has in each zone.
    pub zones: BTreeMap<String, Mapping>,
    /// Whether it uses a prefix of each subnet for IPv6 source NAT.
    pub source_nat: bool,
    /// What it has of IPv6, by the ID of the subnet.
    pub ipv6: BTreeMap<String, Ipv6>,
    /// The IDs of its security groups.
    pub security_groups: Vec<String>,
    /// Whether the rules of its groups hold for traffic of `PrivateLink`.
    pub private_link_rules: Option<String>,
    /// All attributes with their values.
    pub attributes: BTreeMap<String, String>,
    /// Its tags.
    pub tags: Tags,
    /// When it was made.
    pub created: Moment,
    /// When it is or was ready.
    pub active: Moment,
    /// The capacity that is reserved.
    pub capacity: Option<Reservation>,
    /// When its reserved capacity was decreased.
    pub decreases: Vec<Moment>,
    /// Its state and the reason, if a test has set them.
    pub trouble: Option<(String, String)>,
}

/// The arguments of `CreateLoadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Create {
    /// The name.
    pub name: String,
    /// `network`; AWS's default is `application`.
    pub kind: Option<String>,
    /// The scheme; AWS's default is `internet-facing`.
    pub scheme: Option<String>,
    /// `ipv4` or `dualstack`.
    pub ip_address_type: Option<String>,
    /// The subnets, whichever way they were given.
    pub subnets: Vec<Mapping>,
    /// The IDs of security groups.
    pub security_groups: Vec<String>,
    /// The tags.
    pub tags: Tags,
}

/// Which objects a call describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them, as far as lists show them.
    All,
    /// Those with these ARNs.
    Arns(Vec<String>),
    /// Those with these names.
    Names(Vec<String>),
}

/// The most ARNs or names in one call \[docs\].
pub(super) const MOST_NAMED: usize = 20;

// === impl LoadBalancer ===

impl LoadBalancer {
    /// Its state.
    pub fn state(&self, now: Moment) -> &str {
        match &self.trouble {
            Some((state, _)) => state,
            None if self.active <= now => "active",
            None => "provisioning",
        }
    }

    /// Whether an attribute is `true`.
    pub fn has(&self, attribute: &str) -> bool {
        self.attributes
            .get(attribute)
            .is_some_and(|it| it == "true")
    }
}

// === impl Cloud ===

impl Cloud {
    /// `CreateLoadBalancer`. Repeated with equal settings it returns what there is \[model\].
    pub fn create_load_balancer(&mut self, now: Moment, create: Create) -> Result<LoadBalancer> {
        self.create_load_balancer_with(now, create, Stack::default())
    }

    /// The same with what only dual stack has. The IP address type may be said in either place.
    pub fn create_load_balancer_with(
        &mut self,
        now: Moment,
        create: Create,
        stack: Stack,
    ) -> Result<LoadBalancer> {
        check_name("load balancer", &create.name)?;
        // \[model\]
        if create.name.starts_with("internal-") {
            return Err(Refusal::validation(format!(
                "The load balancer name '{}' cannot begin with 'internal-'",
                create.name
            )));
        }
        if create.kind.as_deref() != Some("network") {
            return Err(Refusal::validation(
                "This fake makes only load balancers of the type network",
            ));
        }
        let scheme = create.scheme.unwrap_or_else(|| "internet-facing".into());
        if !["internal", "internet-facing"].contains(&scheme.as_str()) {
            let message = format!("The scheme '{scheme}' is not valid");
            return Err(Refusal::new("InvalidScheme", message));
        }
        self.check_number_of_tags(&create.tags)?;
        let zones = self.zones_of(&create.subnets)?;
        let vpc = self.vpc_of(&zones)?;
        let stack = Stack {
            ip_address_type: create.ip_address_type.or(stack.ip_address_type),
            ..stack
        };
        let settled = Settled::new(stack, &zones);
        let mut security_groups = create.security_groups;
        security_groups.sort();
        self.check_groups(&vpc, &security_groups)?;

        let same_name = (self.load_balancers.values()).find(|one| one.name == create.name);
        if let Some(there) = same_name {
            let same = there.scheme == scheme
                && there.ip_address_type == settled.ip_address_type
                && there.source_nat == settled.source_nat
                && there.ipv6 == settled.ipv6
                && there.security_groups == security_groups
                && placement::same(&there.zones, &zones)
                && (there.tags == create.tags || !self.settings.tags_are_settings);
            return if same {
                Ok(there.clone())
            } else {
                Err(duplicate("LoadBalancer", "load balancer", &create.name))
            };
        }

        let most = self.settings.quotas.load_balancers;
        if self.load_balancers.len() >= most {
            let message = format!("The maximum number of load balancers, {most}, is reached");
            return Err(Refusal::new("TooManyLoadBalancers", message));
        }
        self.check_mappings(&scheme, &vpc, &zones)?;
        self.check_stack(None, &zones, &settled)?;
        let arn = self.arn(&format!("loadbalancer/net/{}", create.name));
        let suffix = arn.rsplit('/').next().unwrap_or_default();
        let region = &self.settings.region;
        let private_link_rules = (!security_groups.is_empty()).then(|| "on".into());
        let load_balancer = LoadBalancer {
            dns_name: format!("{}-{suffix}.elb.{region}.amazonaws.com", create.name),
            name: create.name,
            attributes: attributes::load_balancer_defaults(&scheme),
            scheme,
            ip_address_type: settled.ip_address_type.clone(),
            vpc,
            zones: BTreeMap::new(),
            source_nat: false,
            ipv6: BTreeMap::new(),
            security_groups,
            private_link_rules,
            tags: create.tags,
            created: now,
            active: now + self.settings.provisioning,
            capacity: None,
            decreases: Vec::new(),
            trouble: None,
            arn: arn.clone(),
        };
        self.load_balancers.insert(arn.clone(), load_balancer, now);
        self.enable_zones(&arn, zones, now)?;
        self.settle(&arn, settled);
        self.load_balancer(&arn).cloned()
    }

    /// `DescribeLoadBalancers`
    pub fn describe_load_balancers(
        &self,
        now: Moment,
        which: &Which,
    ) -> Result<Vec<&LoadBalancer>> {
        let not_found = |what: &str| {
            let message = format!("Load balancers '[{what}]' not found");
            Refusal::new("LoadBalancerNotFound", message)
        };
        match which {
            Which::All => {
                let all = self.load_balancers.listed(now, self.settings.lag);
                Ok(all.into_values().collect())
            }
            Which::Arns(arns) => {
                check_named(arns)?;
                arns.iter().map(|arn| self.load_balancer(arn)).collect()
            }
            Which::Names(names) => {
                check_named(names)?;
                let find = |name: &String| {
                    let mut all = self.load_balancers.values();
                    all.find(|one| one.name == *name)
                        .ok_or_else(|| not_found(name))
                };
                names.iter().map(find).collect()
            }
        }
    }

    /// `DeleteLoadBalancer`. It deletes the listeners with their rules, too. What does not exist is deleted
    /// \[model\].
    pub fn delete_load_balancer(&mut self, now: Moment, arn: &str) -> Result<()> {
        check_arn("load balancer", ":loadbalancer/", arn)?;
        let Some(there) = self.load_balancers.get(arn) else {
            return Ok(());
        };
        if there.has(attributes::DELETION_PROTECTION) {
            return Err(Refusal::new(
                "OperationNotPermitted",
                format!(
                    "Load balancer '{arn}' cannot be deleted because deletion protection is enabled"
                ),
            ));
        }
        let listeners = self.listeners.values();
        let listeners: Vec<String> = listeners
            .filter(|listener| listener.load_balancer == arn)
            .map(|listener| listener.arn.clone())
            .collect();
        for listener in listeners {
            self.drop_listener(now, &listener);
        }
        self.disable_zones(arn, now, |_| true);
        self.load_balancers.remove(arn, now);
        self.note_use(now);
        Ok(())
    }

    /// `ModifyLoadBalancerAttributes`
    pub fn modify_load_balancer_attributes(
        &mut self,
        arn: &str,
        changes: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>> {
        let mut all = self.load_balancer(arn)?.attributes.clone();
        attributes::change_load_balancer(&mut all, changes)?;
        if let Some(there) = self.load_balancers.get_mut(arn) {
            there.attributes.clone_from(&all);
        }
        Ok(all)
    }

    /// `SetSecurityGroups`. A load balancer that was made without groups gets none \[model\].
    pub fn set_security_groups(
        &mut self,
        arn: &str,
        mut groups: Vec<String>,
        private_link_rules: Option<String>,
    ) -> Result<LoadBalancer> {
        let there = self.load_balancer(arn)?;
        if there.security_groups.is_empty() {
            // \[seen\]
            return Err(Refusal::new(
                "InvalidConfigurationRequest",
                "You cannot set security groups on a Network Load Balancer which was created without any security groups.",
            ));
        }
        if groups.is_empty() {
            // \[seen\]: this code.
            return Err(Refusal::validation(
                "A load balancer that has security groups must keep at least one",
            ));
        }
        groups.sort();
        self.check_groups(&there.vpc.clone(), &groups)?;
        let interfaces = self.interfaces.values_mut();
        for one in interfaces.filter(|one| one.load_balancer == arn && one.gone.is_none()) {
            one.groups.clone_from(&groups);
        }
        if let Some(there) = self.load_balancers.get_mut(arn) {
            there.security_groups = groups;
            if private_link_rules.is_some() {
                there.private_link_rules = private_link_rules;
            }
        }
        self.load_balancer(arn).cloned()
    }

    /// One load balancer.
    pub fn load_balancer(&self, arn: &str) -> Result<&LoadBalancer> {
        check_arn("load balancer", ":loadbalancer/", arn)?;
        self.load_balancers.get(arn).ok_or_else(|| {
            let message = format!("Load balancers '[{arn}]' not found");
            Refusal::new("LoadBalancerNotFound", message)
        })
    }

    fn check_groups(&self, vpc: &str, groups: &[String]) -> Result<()> {
        let most = self.settings.quotas.groups_per_interface;
        if groups.len() > most {
            let message = format!("A load balancer can have at most {most} security groups");
            return Err(Refusal::new("InvalidConfigurationRequest", message));
        }
        let mut seen = BTreeSet::new();
        for id in groups {
            let there = self.security_groups.get(id);
            let message = match there {
                None => format!("One or more security groups are invalid: {id} does not exist"),
                Some(there) if there.vpc != vpc => {
                    format!("One or more security groups are invalid: {id} is not in {vpc}")
                }
                Some(_) if !seen.insert(id) => format!("The security group {id} occurs twice"),
                Some(_) => continue,
            };
            return Err(Refusal::new("InvalidSecurityGroup", message));
        }
        Ok(())
    }

    /// Makes the interfaces of new zones.
    fn enable_zones(
        &mut self,
        arn: &str,
        zones: BTreeMap<String, Mapping>,
        now: Moment,
    ) -> Result<()> {
        for (zone, mapping) in zones {
            let there = self.load_balancer(arn)?;
            let groups = there.security_groups.clone();
            let rest = arn.split_once("loadbalancer/");
            let description = format!("ELB {}", rest.map_or(arn, |(_, rest)| rest));
            let address = self.address_for(&mapping)?;
            let interface = Interface {
                id: self.id("eni"),
                load_balancer: arn.to_owned(),
                description,
                subnet: mapping.subnet.clone(),
                address,
                ipv6: None,
                allocation: mapping.allocation.clone(),
                groups,
                gone: None,
            };
            self.interfaces.insert(interface.id.clone(), interface, now);
            if let Some(there) = self.load_balancers.get_mut(arn) {
                there.zones.insert(zone, mapping);
            }
        }
        Ok(())
    }

    fn address_for(&self, mapping: &Mapping) -> Result<Ipv4Addr> {
        if let Some(address) = mapping.private_address {
            return Ok(address);
        }
        let subnet = self.subnets.get(&mapping.subnet);
        let subnet = subnet.ok_or_else(|| not_enough_space(&mapping.subnet))?;
        self.unused_address(subnet)
    }

    /// Lets go of zones. Their interfaces stay for a while.
    fn disable_zones(&mut self, arn: &str, now: Moment, which: impl Fn(&Mapping) -> bool) {
        let gone = now + self.settings.interfaces_linger;
        let Some(there) = self.load_balancers.get_mut(arn) else {
            return;
        };
        let subnets: BTreeSet<String> = (there.zones.values())
            .filter(|mapping| which(mapping))
            .map(|mapping| mapping.subnet.clone())
            .collect();
        there.zones.retain(|_, mapping| !which(mapping));
        for one in self.interfaces.values_mut() {
            if one.load_balancer == arn && subnets.contains(&one.subnet) {
                one.gone.get_or_insert(gone);
            }
        }
    }
}

/// The rules for names \[model\].
pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    let permitted = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let problem = if name.is_empty() || name.len() > 32 {
        "must have 1 to 32 characters"
    } else if !permitted {
        "can only contain characters that are alphanumeric characters and hyphens(-)"
    } else if name.starts_with('-') || name.ends_with('-') {
        "cannot begin or end with a hyphen"
    } else {
        return Ok(());
    };
    Err(Refusal::validation(format!(
        "The {what} name '{name}' {problem}"
    )))
}

/// \[seen\]
pub(super) fn duplicate(code: &str, what: &str, name: &str) -> Refusal {
    Refusal::new(
        format!("Duplicate{code}Name"),
        format!("A {what} with the same name '{name}' exists, but with different settings"),
    )
}

pub(super) fn check_arn(what: &str, part: &str, arn: &str) -> Result<()> {
    if arn.starts_with("arn:aws:elasticloadbalancing:") && arn.contains(part) {
        return Ok(());
    }
    Err(Refusal::validation(format!(
        "'{arn}' is not a valid {what} ARN"
    )))
}

pub(super) fn check_named(named: &[String]) -> Result<()> {
    if named.len() > MOST_NAMED {
        return Err(Refusal::validation(format!(
            "Up to {MOST_NAMED} names or ARNs can be specified at a time, not {}",
            named.len()
        )));
    }
    Ok(())
}
