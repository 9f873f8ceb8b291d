//! Targets and their health, which is a function of the time.
//!
//! ```text
//!             a listener uses the group     registration     interval × threshold
//!  registered ──────────────────────────▶ initial ────────▶ initial ───────────▶ healthy
//!       │ unused, while none does                                              or unhealthy
//!       ▼ deregistered
//!   draining, for deregistration_delay.timeout_seconds ─▶ gone; at once if nothing uses the group
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::attributes::{self, DEREGISTRATION_DELAY};
use super::target_groups::TargetGroup;
use super::{Cloud, Moment, Refusal, Result};

/// A target of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// When it was registered.
    pub registered: Moment,
    /// When it was deregistered.
    pub drains: Option<Moment>,
}

/// A target as a call names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Description {
    /// The ID of an instance, or an address.
    pub id: String,
    /// Its port, if that differs from the group's.
    pub port: Option<u16>,
    /// Its zone, for an address; `all` is any.
    pub zone: Option<String>,
}

/// The health of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its ID.
    pub id: String,
    /// Its port.
    pub port: u16,
    /// The port of its health checks.
    pub check_port: String,
    /// `initial`, `healthy`, `unhealthy`, `unused` or `draining`.
    pub state: &'static str,
    /// The code of the reason, unless it is healthy.
    pub reason: Option<&'static str>,
    /// The reason in words.
    pub description: Option<&'static str>,
}

type State = (&'static str, Option<(&'static str, &'static str)>);

const NOT_IN_USE: State = (
    "unused",
    Some((
        "Target.NotInUse",
        "Target group is not configured to receive traffic from the load balancer",
    )),
);
const WRONG_ZONE: State = (
    "unused",
    Some((
        "Target.NotInUse",
        "Target is in an Availability Zone that is not enabled for the load balancer",
    )),
);
const STOPPED: State = (
    "unused",
    Some((
        "Target.InvalidState",
        "Target is in the stopped or terminated state",
    )),
);
const DRAINING: State = (
    "draining",
    Some((
        "Target.DeregistrationInProgress",
        "Target deregistration is in progress",
    )),
);
const REGISTERING: State = (
    "initial",
    Some((
        "Elb.RegistrationInProgress",
        "Target registration is in progress",
    )),
);
const CHECKING: State = (
    "initial",
    Some((
        "Elb.InitialHealthChecking",
        "Initial health checks in progress",
    )),
);
const FAILED: State = (
    "unhealthy",
    Some(("Target.FailedHealthChecks", "Health checks failed")),
);
const NOT_REGISTERED: State = (
    "unused",
    Some((
        "Target.NotRegistered",
        "Target is not registered to the target group",
    )),
);

// === impl Cloud ===

impl Cloud {
    /// `RegisterTargets`. Instances must be `running` \[model\]. What is registered stays so.
    pub fn register_targets(
        &mut self,
        now: Moment,
        arn: &str,
        targets: &[Description],
    ) -> Result<()> {
        let group = self.target_group(arn)?;
        if targets.is_empty() {
            return Err(Refusal::validation("At least one target must be specified"));
        }
        for target in targets {
            self.check_target(group, target)?;
        }
        let mut all = group.targets.clone();
        for target in targets {
            let key = (target.id.clone(), target.port.unwrap_or(group.port));
            let there = all.entry(key).or_insert(Target {
                registered: now,
                drains: None,
            });
            if there.drains.take().is_some() {
                there.registered = now;
            }
        }
        self.check_number_of_targets(group, &all)?;
        if let Some(group) = self.target_groups.get_mut(arn) {
            group.targets = all;
        }
        Ok(())
    }

    /// `DeregisterTargets`. What is not registered is ignored \[model\].
    pub fn deregister_targets(
        &mut self,
        now: Moment,
        arn: &str,
        targets: &[Description],
    ) -> Result<()> {
        self.target_group(arn)?;
        if targets.is_empty() {
            return Err(Refusal::validation("At least one target must be specified"));
        }
        let Some(group) = self.target_groups.get_mut(arn) else {
            return Ok(());
        };
        for target in targets {
            let key = (target.id.clone(), target.port.unwrap_or(group.port));
            if let Some(there) = group.targets.get_mut(&key) {
                there.drains.get_or_insert(now);
            }
        }
        self.drain(now);
        Ok(())
    }

    /// `DescribeTargetHealth` of some targets, or of all with an empty list.
    pub fn describe_target_health(
        &self,
        now: Moment,
        arn: &str,
        targets: &[Description],
    ) -> Result<Vec<Health>> {
        let group = self.target_group(arn)?;
        let health = |id: &str, port: u16, (state, why): State| Health {
            id: id.to_owned(),
            port,
            check_port: match group.check.port.as_str() {
                "traffic-port" => port.to_string(),
                port => port.to_owned(),
            },
            state,
            reason: why.map(|(reason, _)| reason),
            description: why.map(|(_, description)| description),
        };
        if targets.is_empty() {
            let all = group.targets.iter();
            return Ok(all
                .map(|((id, port), target)| {
                    health(id, *port, self.state_of(now, group, id, target))
                })
                .collect());
        }
        let named = targets.iter().map(|target| {
            let port = target.port.unwrap_or(group.port);
            let there = group.targets.get(&(target.id.clone(), port));
            let state = there.map_or(NOT_REGISTERED, |there| {
                self.state_of(now, group, &target.id, there)
            });
            health(&target.id, port, state)
        });
        Ok(named.collect())
    }

    fn state_of(&self, now: Moment, group: &TargetGroup, id: &str, target: &Target) -> State {
        if target.drains.is_some() {
            return DRAINING;
        }
        let instance = self.instances.get(id);
        if instance.is_some_and(|one| one.state != "running") {
            return STOPPED;
        }
        let (Some(since), Some(arn)) = (group.used, self.user_of(&group.arn)) else {
            return NOT_IN_USE;
        };
        let user = self.load_balancers.get(arn);
        let zone = self.zone_of(id);
        let cross = |user: &super::load_balancers::LoadBalancer| match group
            .attributes
            .get(attributes::CROSS_ZONE)
            .map(String::as_str)
        {
            Some("true") => true,
            Some("false") => false,
            _ => user.has(attributes::CROSS_ZONE),
        };
        if let (Some(user), Some(zone)) = (user, zone)
            && !user.zones.contains_key(zone)
            && !cross(user)
        {
            return WRONG_ZONE;
        }
        let ready = user.map_or(now, |user| user.active);
        let from = target.registered.max(since).max(ready);
        let checked = from + self.settings.registration;
        let needed = Duration::from_secs(u64::from(group.check.interval * group.check.healthy));
        if now < checked {
            REGISTERING
        } else if now < checked + needed {
            CHECKING
        } else if instance.is_some_and(|one| !one.healthy)
            || id.parse().is_ok_and(|address| self.sick.contains(&address))
        {
            FAILED
        } else {
            ("healthy", None)
        }
    }

    fn zone_of(&self, target: &str) -> Option<&str> {
        if let Ok(address) = target.parse::<IpAddr>() {
            let mut subnets = self.subnets.values();
            let subnet = subnets.find(|subnet| subnet.contains(address))?;
            return Some(&subnet.zone);
        }
        let instance = self.instances.get(target)?;
        Some(&self.subnets.get(&instance.subnet)?.zone)
    }

    fn check_target(&self, group: &TargetGroup, target: &Description) -> Result<()> {
        let id = target.id.as_str();
        let problem = if group.target_type == "ip" {
            let Ok(address) = id.parse() else {
                let message = format!("The IP address '{id}' is not a valid address");
                return Err(Refusal::new("InvalidTarget", message));
            };
            self.check_address(group, address, target.zone.as_deref())?
        } else {
            match self.instances.get(id) {
                None => Some(format!("Instance ID '{id}' is not valid")),
                // \[seen\]
                Some(one) if one.state != "running" => Some(format!(
                    "The following targets are not in a running state and cannot be registered: '{id}'"
                )),
                Some(one) => {
                    let vpc = self.subnets.get(&one.subnet).map(|subnet| &subnet.vpc);
                    (vpc != Some(&group.vpc)).then(|| {
                        format!("The following targets are not in the target group VPC: '{id}'")
                    })
                }
            }
        };
        problem.map_or(Ok(()), |problem| {
            Err(Refusal::new("InvalidTarget", problem))
        })
    }

    /// Addresses are those of subnets of the VPC, whose zone is known, or private ones elsewhere, which have the zone
    /// `all` \[docs\].
    fn check_address(
        &self,
        group: &TargetGroup,
        address: IpAddr,
        zone: Option<&str>,
    ) -> Result<Option<String>> {
        let family = group.ip_address_type.as_str();
        if address.is_ipv4() != (family == "ipv4") {
            return Ok(Some(format!(
                "The IP address '{address}' is not of the family {family}"
            )));
        }
        let mut subnets = self.subnets.values().filter(|one| one.vpc == group.vpc);
        if subnets.any(|subnet| subnet.contains(address)) {
            return Ok(None);
        }
        if !is_permitted_outside(address) {
            return Ok(Some(format!(
                "The IP address '{address}' is not within a range that targets may have"
            )));
        }
        if zone == Some("all") {
            return Ok(None);
        }
        Err(Refusal::validation(format!(
            "You must specify an Availability Zone for the IP address '{address}', which is outside the VPC"
        )))
    }

    /// The quotas of a group, and of the load balancer that uses it.
    fn check_number_of_targets(
        &self,
        group: &TargetGroup,
        all: &BTreeMap<(String, u16), Target>,
    ) -> Result<()> {
        let quotas = &self.settings.quotas;
        let too_many = |what: &str, most: usize| {
            let message = format!("The maximum number of targets of a {what}, {most}, is reached");
            Err(Refusal::new("TooManyTargets", message))
        };
        if all.len() > quotas.targets {
            return too_many("target group", quotas.targets);
        }
        let Some(user) = self.user_of(&group.arn) else {
            return Ok(());
        };
        let groups = self.target_groups_of(user)?;
        let others = groups.iter().filter(|one| one.arn != group.arn);
        let targets = others.flat_map(|one| one.targets.keys()).chain(all.keys());
        let mut zones: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        for (id, _) in targets {
            *zones.entry(self.zone_of(id)).or_default() += 1;
        }
        let total: usize = zones.values().sum();
        let cross = self.load_balancer(user)?.has(attributes::CROSS_ZONE);
        if total > quotas.targets_per_load_balancer {
            return too_many("load balancer", quotas.targets_per_load_balancer);
        }
        if cross && total > quotas.targets_per_zone {
            let what = "load balancer with cross-zone load balancing";
            return too_many(what, quotas.targets_per_zone);
        }
        if zones
            .values()
            .any(|number| *number > quotas.targets_per_zone)
        {
            return too_many("load balancer in one zone", quotas.targets_per_zone);
        }
        Ok(())
    }

    /// Deletes the targets that have drained. What no listener uses has no connections.
    pub(super) fn drain(&mut self, now: Moment) {
        for group in self.target_groups.values_mut() {
            let delay = attributes::number(&group.attributes, DEREGISTRATION_DELAY);
            let delay = Duration::from_secs(u64::from(delay));
            let used = group.used.is_some();
            group.targets.retain(|_, target| {
                (target.drains).is_none_or(|drains| used && drains + delay > now)
            });
        }
    }
}

/// Whether a target outside the subnets may have the address: for IPv4 the private ranges and that of RFC 6598 \[docs\],
/// for IPv6 what packets can be sent to from afar.
fn is_permitted_outside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [one, two, ..] = v4.octets();
            v4.is_private() || one == 100 && (64..128).contains(&two)
        }
        IpAddr::V6(v6) => {
            !(v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_multicast()
                || v6.is_unicast_link_local())
        }
    }
}
