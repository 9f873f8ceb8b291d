//! Calls about target groups and targets.

use super::super::form::Form;
use super::super::xml::Xml;
use super::{Page, finish, take_attributes, take_tags, which, write_attributes};
use crate::state::load_balancers::Which;
use crate::state::target_groups::{CheckChange, Create, TargetGroup};
use crate::state::targets::Description;
use crate::state::{Cloud, Moment, Refusal, Result};

pub(super) fn create(form: &mut Form, out: &mut Xml, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let create = Create {
        name: form.need("Name")?,
        protocol: form.take("Protocol"),
        port: form.number("Port", 1..=65_535)?,
        vpc: form.take("VpcId"),
        target_type: form.take("TargetType"),
        ip_address_type: form.take("IpAddressType"),
        check: take_check(form)?,
        tags: take_tags(form)?,
    };
    finish(form)?;
    let made = cloud.create_target_group(now, create)?;
    write(out, &[&made], cloud);
    Ok(())
}

pub(super) fn describe(form: &mut Form, out: &mut Xml, cloud: &Cloud, now: Moment) -> Result<()> {
    let load_balancer = form.take("LoadBalancerArn");
    let which = which(form.list("TargetGroupArns")?, form.list("Names")?)?;
    let page = Page::take(form)?;
    finish(form)?;
    let all = match load_balancer {
        None => cloud.describe_target_groups(now, &which)?,
        Some(arn) if which == Which::All => cloud.target_groups_of(&arn)?,
        Some(_) => {
            return Err(Refusal::validation(
                "A load balancer ARN cannot be specified with target groups",
            ));
        }
    };
    let (all, next) = page.cut(all, |one| &one.arn);
    write(out, &all, cloud);
    out.optional("NextMarker", next);
    Ok(())
}

pub(super) fn modify(form: &mut Form, out: &mut Xml, cloud: &mut Cloud) -> Result<()> {
    let arn = form.need("TargetGroupArn")?;
    let change = take_check(form)?;
    finish(form)?;
    let there = cloud.modify_target_group(&arn, &change)?;
    write(out, &[&there], cloud);
    Ok(())
}

pub(super) fn attributes(form: &mut Form, out: &mut Xml, cloud: &Cloud) -> Result<()> {
    let arn = form.need("TargetGroupArn")?;
    finish(form)?;
    write_attributes(out, &cloud.target_group(&arn)?.attributes);
    Ok(())
}

pub(super) fn modify_attributes(form: &mut Form, out: &mut Xml, cloud: &mut Cloud) -> Result<()> {
    let arn = form.need("TargetGroupArn")?;
    let changes = take_attributes(form)?;
    finish(form)?;
    write_attributes(out, cloud.modify_target_group_attributes(&arn, &changes)?);
    Ok(())
}

pub(super) fn delete(form: &mut Form, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let arn = form.need("TargetGroupArn")?;
    finish(form)?;
    cloud.delete_target_group(now, &arn)
}

pub(super) fn register(form: &mut Form, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let arn = form.need("TargetGroupArn")?;
    let targets = take_targets(form)?;
    finish(form)?;
    cloud.register_targets(now, &arn, &targets)
}

pub(super) fn deregister(form: &mut Form, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let arn = form.need("TargetGroupArn")?;
    let targets = take_targets(form)?;
    finish(form)?;
    cloud.deregister_targets(now, &arn, &targets)
}

pub(super) fn health(form: &mut Form, out: &mut Xml, cloud: &Cloud, now: Moment) -> Result<()> {
    let arn = form.need("TargetGroupArn")?;
    let targets = take_targets(form)?;
    finish(form)?;
    let all = cloud.describe_target_health(now, &arn, &targets)?;
    out.list("TargetHealthDescriptions", "member", all, |xml, one| {
        xml.node("Target", |xml| {
            xml.text("Id", one.id);
            xml.text("Port", one.port);
        });
        xml.text("HealthCheckPort", one.check_port);
        xml.node("TargetHealth", |xml| {
            xml.text("State", one.state);
            xml.optional("Reason", one.reason);
            xml.optional("Description", one.description);
        });
    });
    Ok(())
}

fn take_targets(form: &mut Form) -> Result<Vec<Description>> {
    let mut targets = Vec::new();
    for mut one in form.structures("Targets")? {
        targets.push(Description {
            id: one.need("Id")?,
            port: one.number("Port", 1..=65_535)?,
            zone: one.take("AvailabilityZone"),
        });
        one.finish()?;
    }
    Ok(targets)
}

fn take_check(form: &mut Form) -> Result<CheckChange> {
    let matcher = match form.structure("Matcher") {
        None => None,
        Some(mut matcher) => {
            let codes = matcher.need("HttpCode")?;
            matcher.finish()?;
            Some(codes)
        }
    };
    Ok(CheckChange {
        protocol: form.take("HealthCheckProtocol"),
        port: form.take("HealthCheckPort"),
        path: form.take("HealthCheckPath"),
        matcher,
        interval: form.parsed("HealthCheckIntervalSeconds")?,
        timeout: form.parsed("HealthCheckTimeoutSeconds")?,
        healthy: form.parsed("HealthyThresholdCount")?,
        unhealthy: form.parsed("UnhealthyThresholdCount")?,
        enabled: form.parsed("HealthCheckEnabled")?,
    })
}

fn write(out: &mut Xml, all: &[&TargetGroup], cloud: &Cloud) {
    out.list("TargetGroups", "member", all, |xml, one| {
        xml.text("TargetGroupArn", &one.arn);
        xml.text("TargetGroupName", &one.name);
        xml.text("Protocol", &one.protocol);
        xml.text("Port", one.port);
        xml.text("VpcId", &one.vpc);
        xml.text("HealthCheckProtocol", &one.check.protocol);
        xml.text("HealthCheckPort", &one.check.port);
        xml.text("HealthCheckEnabled", true);
        xml.text("HealthCheckIntervalSeconds", one.check.interval);
        xml.text("HealthCheckTimeoutSeconds", one.check.timeout);
        xml.text("HealthyThresholdCount", one.check.healthy);
        xml.text("UnhealthyThresholdCount", one.check.unhealthy);
        xml.optional("HealthCheckPath", one.check.path.as_ref());
        if let Some(codes) = &one.check.matcher {
            xml.node("Matcher", |xml| xml.text("HttpCode", codes));
        }
        xml.texts("LoadBalancerArns", "member", cloud.user_of(&one.arn));
        xml.text("TargetType", &one.target_type);
        xml.text("IpAddressType", &one.ip_address_type);
    });
}
