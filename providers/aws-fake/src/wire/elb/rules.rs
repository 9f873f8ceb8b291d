//! Calls about rules of listeners, and the actions that rules and listeners have.

use super::super::form::Form;
use super::super::xml::Xml;
use super::{Page, finish, take_tags};
use crate::state::forward::Forward;
use crate::state::rules::{Change, Described};
use crate::state::{Cloud, Moment, Refusal, Result};

pub(super) fn create(form: &mut Form, out: &mut Xml, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let listener = form.need("ListenerArn")?;
    let priority = form.need("Priority")?;
    let priority = (priority.parse()).map_err(|_| form.wrong("Priority", &priority))?;
    let change = take_change(form)?;
    let tags = take_tags(form)?;
    finish(form)?;
    let made = cloud.create_rule(now, &listener, priority, change, tags)?;
    write(out, &[&made]);
    Ok(())
}

pub(super) fn describe(form: &mut Form, out: &mut Xml, cloud: &Cloud, now: Moment) -> Result<()> {
    let listener = form.take("ListenerArn");
    let arns = form.list("RuleArns")?;
    let page = Page::take(form)?;
    finish(form)?;
    let all = match (listener, arns.as_slice()) {
        (Some(arn), []) => cloud.rules_of(now, &arn)?,
        (None, [_, ..]) => {
            let all = arns.iter().map(|arn| cloud.describe_rule(arn));
            all.collect::<Result<_>>()?
        }
        // \[model\]
        _ => {
            return Err(Refusal::validation(
                "You must specify either rule ARNs or a listener ARN",
            ));
        }
    };
    // By priority, and the default rule at the end.
    let key = |it: &Described| match it.priority {
        Some(priority) => format!("{priority:05} {}", it.arn),
        None => format!("default {}", it.arn),
    };
    let all: Vec<_> = all.into_iter().map(|it| (key(&it), it)).collect();
    let (all, next) = page.cut(all.iter().collect(), |(key, _)| key);
    let all: Vec<_> = all.into_iter().map(|(_, it)| it).collect();
    write(out, &all);
    out.optional("NextMarker", next);
    Ok(())
}

pub(super) fn modify(form: &mut Form, out: &mut Xml, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let arn = form.need("RuleArn")?;
    let change = take_change(form)?;
    finish(form)?;
    write(out, &[&cloud.modify_rule(now, &arn, change)?]);
    Ok(())
}

pub(super) fn delete(form: &mut Form, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let arn = form.need("RuleArn")?;
    finish(form)?;
    cloud.delete_rule(now, &arn)
}

fn take_change(form: &mut Form) -> Result<Change> {
    Ok(Change {
        family: take_family(form)?,
        forward: take_forward(form, "Actions")?,
    })
}

/// The one condition that a rule of a Network Load Balancer has \[docs\]. Ranges of addresses and all other conditions
/// belong to Application Load Balancers \[model\].
fn take_family(form: &mut Form) -> Result<Option<String>> {
    let mut conditions = form.structures("Conditions")?;
    let Some(mut condition) = conditions.pop() else {
        return Ok(None);
    };
    if !conditions.is_empty() {
        return Err(Refusal::validation(
            "A rule of a Network Load Balancer has exactly one condition",
        ));
    }
    let field = condition.need("Field")?;
    if field != "source-ip" {
        return Err(Refusal::validation(format!(
            "The condition field '{field}' is not valid with Network Load Balancer"
        )));
    }
    let Some(mut source) = condition.structure("SourceIpConfig") else {
        return Err(Refusal::validation(
            "A condition of the field 'source-ip' must have a SourceIpConfig",
        ));
    };
    let family = source.need("IpAddressType")?;
    source.finish()?;
    condition.finish()?;
    Ok(Some(family))
}

/// The target groups of the one action that a listener or a rule of a Network Load Balancer has. An action
/// names them in one way or in both, which then must agree \[model\].
pub(super) fn take_forward(form: &mut Form, name: &str) -> Result<Option<Forward>> {
    let mut actions = form.structures(name)?;
    let Some(mut action) = actions.pop() else {
        return Ok(None);
    };
    if !actions.is_empty() {
        return Err(Refusal::new(
            "TooManyActions",
            "A listener or a rule of a Network Load Balancer has exactly one action",
        ));
    }
    let kind = action.need("Type")?;
    if kind != "forward" {
        let message = format!("The action type '{kind}' is not valid with Network Load Balancer");
        return Err(Refusal::new("InvalidLoadBalancerAction", message));
    }
    action.number("Order", 1..=50_000)?;
    let single = action.take("TargetGroupArn");
    let mut groups = Vec::new();
    if let Some(mut config) = action.structure("ForwardConfig") {
        for mut one in config.structures("TargetGroups")? {
            groups.push((one.need("TargetGroupArn")?, one.parsed("Weight")?));
            one.finish()?;
        }
        config.finish()?;
    }
    action.finish()?;
    match (single, groups.as_slice()) {
        (Some(arn), []) => groups.push((arn, None)),
        (Some(arn), [(other, _)]) if arn == *other => {}
        (None, [_, ..]) => {}
        _ => {
            return Err(Refusal::validation(
                "A forward action must name its target group, in one way",
            ));
        }
    }
    Ok(Some(groups))
}

fn write(out: &mut Xml, all: &[&Described]) {
    out.list("Rules", "member", all, |xml, one| {
        xml.text("RuleArn", &one.arn);
        match one.priority {
            Some(priority) => xml.text("Priority", priority),
            None => xml.text("Priority", "default"),
        }
        xml.list("Conditions", "member", &one.family, |xml, family| {
            xml.text("Field", "source-ip");
            xml.node("SourceIpConfig", |xml| xml.text("IpAddressType", family));
        });
        write_action(xml, "Actions", &one.forward);
        xml.text("IsDefault", one.priority.is_none());
    });
}

/// An action. Only one that has a single target group names it in both ways.
pub(super) fn write_action(out: &mut Xml, name: &str, forward: &Forward) {
    out.list(name, "member", [forward], |xml, forward| {
        xml.text("Type", "forward");
        if let [(arn, _)] = forward.as_slice() {
            xml.text("TargetGroupArn", arn);
        }
        xml.text("Order", 1);
        xml.node("ForwardConfig", |xml| {
            xml.list("TargetGroups", "member", forward, |xml, (arn, weight)| {
                xml.text("TargetGroupArn", arn);
                xml.optional("Weight", *weight);
            });
        });
    });
}
