//! The actions of Elastic Load Balancing, version 2.

use super::form::Form;
use super::xml::Xml;
use crate::state::load_balancers::Which;
use crate::state::{Cloud, Moment, Refusal, Result, Tags, tags};

mod listeners;
mod load_balancers;
mod rules;
mod target_groups;

/// The actions that this fake knows.
pub(crate) const ACTIONS: &[&str] = &[
    "AddListenerCertificates",
    "AddTags",
    "CreateListener",
    "CreateLoadBalancer",
    "CreateRule",
    "CreateTargetGroup",
    "DeleteListener",
    "DeleteLoadBalancer",
    "DeleteRule",
    "DeleteTargetGroup",
    "DeregisterTargets",
    "DescribeAccountLimits",
    "DescribeCapacityReservation",
    "DescribeListenerAttributes",
    "DescribeListenerCertificates",
    "DescribeListeners",
    "DescribeLoadBalancerAttributes",
    "DescribeLoadBalancers",
    "DescribeRules",
    "DescribeTags",
    "DescribeTargetGroupAttributes",
    "DescribeTargetGroups",
    "DescribeTargetHealth",
    "ModifyCapacityReservation",
    "ModifyListener",
    "ModifyListenerAttributes",
    "ModifyLoadBalancerAttributes",
    "ModifyRule",
    "ModifyTargetGroup",
    "ModifyTargetGroupAttributes",
    "RegisterTargets",
    "RemoveListenerCertificates",
    "RemoveTags",
    "SetIpAddressType",
    "SetSecurityGroups",
    "SetSubnets",
];

/// Makes one call.
pub(super) fn call(action: &str, mut form: Form, cloud: &mut Cloud, now: Moment) -> Result<Xml> {
    let form = &mut form;
    let mut xml = Xml::default();
    let out = &mut xml;
    match action {
        "CreateLoadBalancer" => load_balancers::create(form, out, cloud, now)?,
        "DescribeLoadBalancers" => load_balancers::describe(form, out, cloud, now)?,
        "DeleteLoadBalancer" => load_balancers::delete(form, cloud, now)?,
        "DescribeLoadBalancerAttributes" => load_balancers::attributes(form, out, cloud)?,
        "ModifyLoadBalancerAttributes" => load_balancers::modify_attributes(form, out, cloud)?,
        "SetSubnets" => load_balancers::set_subnets(form, out, cloud, now)?,
        "SetSecurityGroups" => load_balancers::set_security_groups(form, out, cloud)?,
        "ModifyCapacityReservation" => {
            load_balancers::modify_capacity(form, out, cloud, now)?;
        }
        "DescribeCapacityReservation" => load_balancers::capacity(form, out, cloud, now)?,
        "SetIpAddressType" => load_balancers::set_ip_address_type(form, out, cloud)?,
        "CreateTargetGroup" => target_groups::create(form, out, cloud, now)?,
        "DescribeTargetGroups" => target_groups::describe(form, out, cloud, now)?,
        "ModifyTargetGroup" => target_groups::modify(form, out, cloud)?,
        "DescribeTargetGroupAttributes" => target_groups::attributes(form, out, cloud)?,
        "ModifyTargetGroupAttributes" => target_groups::modify_attributes(form, out, cloud)?,
        "DeleteTargetGroup" => target_groups::delete(form, cloud, now)?,
        "RegisterTargets" => target_groups::register(form, cloud, now)?,
        "DeregisterTargets" => target_groups::deregister(form, cloud, now)?,
        "DescribeTargetHealth" => target_groups::health(form, out, cloud, now)?,
        "CreateListener" => listeners::create(form, out, cloud, now)?,
        "DescribeListeners" => listeners::describe(form, out, cloud, now)?,
        "ModifyListener" => listeners::modify(form, out, cloud, now)?,
        "DeleteListener" => listeners::delete(form, cloud, now)?,
        "DescribeListenerAttributes" => listeners::attributes(form, out, cloud)?,
        "ModifyListenerAttributes" => listeners::modify_attributes(form, out, cloud)?,
        "AddListenerCertificates" => listeners::add_certificates(form, out, cloud)?,
        "RemoveListenerCertificates" => listeners::remove_certificates(form, cloud)?,
        "DescribeListenerCertificates" => listeners::certificates(form, out, cloud)?,
        "CreateRule" => rules::create(form, out, cloud, now)?,
        "DescribeRules" => rules::describe(form, out, cloud, now)?,
        "ModifyRule" => rules::modify(form, out, cloud, now)?,
        "DeleteRule" => rules::delete(form, cloud, now)?,
        "AddTags" => add_tags(form, cloud)?,
        "RemoveTags" => remove_tags(form, cloud)?,
        "DescribeTags" => describe_tags(form, out, cloud)?,
        "DescribeAccountLimits" => account_limits(form, out, cloud)?,
        _ => return Err(Refusal::new("InvalidAction", "This action is not known")),
    }
    Ok(xml)
}

fn add_tags(form: &mut Form, cloud: &mut Cloud) -> Result<()> {
    let arns = form.list("ResourceArns")?;
    let tags = take_tags(form)?;
    finish(form)?;
    if tags.is_empty() {
        return Err(Refusal::validation("At least one tag must be specified"));
    }
    cloud.add_tags(&arns, &tags)
}

fn remove_tags(form: &mut Form, cloud: &mut Cloud) -> Result<()> {
    let arns = form.list("ResourceArns")?;
    let keys = form.list("TagKeys")?;
    finish(form)?;
    if keys.is_empty() {
        return Err(Refusal::validation(
            "At least one tag key must be specified",
        ));
    }
    cloud.remove_tags(&arns, &keys)
}

fn describe_tags(form: &mut Form, out: &mut Xml, cloud: &Cloud) -> Result<()> {
    let arns = form.list("ResourceArns")?;
    finish(form)?;
    let all = cloud.describe_tags(&arns)?;
    out.list("TagDescriptions", "member", all, |xml, (arn, tags)| {
        xml.text("ResourceArn", arn);
        xml.list("Tags", "member", tags, |xml, (key, value)| {
            xml.text("Key", key);
            xml.text("Value", value);
        });
    });
    Ok(())
}

fn account_limits(form: &mut Form, out: &mut Xml, cloud: &Cloud) -> Result<()> {
    finish(form)?;
    let quotas = &cloud.settings.quotas;
    let limits = [
        ("network-load-balancers", quotas.load_balancers),
        ("listeners-per-network-load-balancer", quotas.listeners),
        ("rules-per-network-load-balancer", quotas.listener_rules),
        ("target-groups", quotas.target_groups),
        (
            "targets-per-network-load-balancer",
            quotas.targets_per_load_balancer,
        ),
        (
            "targets-per-availability-zone-per-network-load-balancer",
            quotas.targets_per_zone,
        ),
    ];
    out.list("Limits", "member", limits, |xml, (name, most)| {
        xml.text("Name", name);
        xml.text("Max", most);
    });
    Ok(())
}

/// Refuses what is left of a form.
fn finish(form: &mut Form) -> Result<()> {
    form.clone().finish()
}

/// The tags of a call.
fn take_tags(form: &mut Form) -> Result<Tags> {
    let mut pairs = Vec::new();
    for mut one in form.structures("Tags")? {
        let key = one.need("Key")?;
        let value = one.take("Value").unwrap_or_default();
        one.finish()?;
        pairs.push((key, value));
    }
    tags::checked(pairs)
}

/// Attributes of a call.
fn take_attributes(form: &mut Form) -> Result<std::collections::BTreeMap<String, String>> {
    let mut all = std::collections::BTreeMap::new();
    for mut one in form.structures("Attributes")? {
        let key = one.need("Key")?;
        let value = one.take("Value").unwrap_or_default();
        one.finish()?;
        if all.insert(key.clone(), value).is_some() {
            let message = format!("The attribute key '{key}' occurs more than once");
            return Err(Refusal::validation(message));
        }
    }
    Ok(all)
}

fn write_attributes(
    out: &mut Xml,
    attributes: impl IntoIterator<Item = (impl ToString, impl ToString)>,
) {
    out.list("Attributes", "member", attributes, |xml, (key, value)| {
        xml.text("Key", key);
        xml.text("Value", value);
    });
}

/// By ARN, by name, or all of them.
fn which(arns: Vec<String>, names: Vec<String>) -> Result<Which> {
    match (arns.is_empty(), names.is_empty()) {
        (true, true) => Ok(Which::All),
        (false, true) => Ok(Which::Arns(arns)),
        (true, false) => Ok(Which::Names(names)),
        (false, false) => Err(Refusal::validation(
            "Names and ARNs cannot be specified at the same time",
        )),
    }
}

/// Which page of objects a call wants.
struct Page {
    after: Option<String>,
    size: usize,
}

// === impl Page ===

impl Page {
    fn take(form: &mut Form) -> Result<Self> {
        let size = form.number("PageSize", 1..=400)?.unwrap_or(400);
        let after = match form.take("Marker") {
            None => None,
            Some(marker) => match marker.strip_prefix("after:") {
                Some(after) => Some(after.to_owned()),
                None => return Err(form.wrong("Marker", &marker)),
            },
        };
        Ok(Self { after, size })
    }

    /// The page, and the marker of the next one. Pages follow the order of the keys, so that they
    /// are right even if objects come and go between two calls.
    fn cut<T>(self, mut all: Vec<&T>, key: impl Fn(&T) -> &str) -> (Vec<&T>, Option<String>) {
        all.sort_by(|a, b| key(a).cmp(key(b)));
        all.retain(|one| (self.after.as_deref()).is_none_or(|after| key(one) > after));
        let more = all.len() > self.size;
        all.truncate(self.size);
        let next = all.last().filter(|_| more);
        let next = next.map(|last| format!("after:{}", key(last)));
        (all, next)
    }
}
