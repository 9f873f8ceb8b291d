//! Calls about listeners.

use super::super::form::Form;
use super::super::xml::Xml;
use super::rules::{take_forward, write_action};
use super::{Page, finish, take_attributes, take_tags, write_attributes};
use crate::state::listeners::{Change, Listener};
use crate::state::{Cloud, Moment, Refusal, Result};

pub(super) fn create(form: &mut Form, out: &mut Xml, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let load_balancer = form.need("LoadBalancerArn")?;
    let change = take_change(form)?;
    let tags = take_tags(form)?;
    finish(form)?;
    let made = cloud.create_listener(now, &load_balancer, change, tags)?;
    write(out, &[&made]);
    Ok(())
}

pub(super) fn describe(form: &mut Form, out: &mut Xml, cloud: &Cloud, now: Moment) -> Result<()> {
    let load_balancer = form.take("LoadBalancerArn");
    let arns = form.list("ListenerArns")?;
    let page = Page::take(form)?;
    finish(form)?;
    let all = match (load_balancer, arns.as_slice()) {
        (Some(arn), []) => cloud.listeners_of(now, &arn)?,
        (None, [_, ..]) => {
            let all = arns.iter().map(|arn| cloud.listener(arn));
            all.collect::<Result<_>>()?
        }
        // \[model\]
        _ => {
            return Err(Refusal::validation(
                "You must specify either listener ARNs or a load balancer ARN",
            ));
        }
    };
    let (all, next) = page.cut(all, |one| &one.arn);
    write(out, &all);
    out.optional("NextMarker", next);
    Ok(())
}

pub(super) fn modify(form: &mut Form, out: &mut Xml, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let arn = form.need("ListenerArn")?;
    let change = take_change(form)?;
    finish(form)?;
    write(out, &[&cloud.modify_listener(now, &arn, change)?]);
    Ok(())
}

pub(super) fn delete(form: &mut Form, cloud: &mut Cloud, now: Moment) -> Result<()> {
    let arn = form.need("ListenerArn")?;
    finish(form)?;
    cloud.delete_listener(now, &arn)
}

pub(super) fn add_certificates(form: &mut Form, out: &mut Xml, cloud: &mut Cloud) -> Result<()> {
    let arn = form.need("ListenerArn")?;
    let certificates = take_certificates(form)?;
    finish(form)?;
    let added = cloud.add_listener_certificates(&arn, &certificates)?;
    out.list("Certificates", "member", added, |xml, arn| {
        xml.text("CertificateArn", arn);
        xml.text("IsDefault", false);
    });
    Ok(())
}

pub(super) fn remove_certificates(form: &mut Form, cloud: &mut Cloud) -> Result<()> {
    let arn = form.need("ListenerArn")?;
    let certificates = take_certificates(form)?;
    finish(form)?;
    cloud.remove_listener_certificates(&arn, &certificates)
}

pub(super) fn attributes(form: &mut Form, out: &mut Xml, cloud: &Cloud) -> Result<()> {
    let arn = form.need("ListenerArn")?;
    finish(form)?;
    write_attributes(out, &cloud.listener(&arn)?.attributes);
    Ok(())
}

pub(super) fn modify_attributes(form: &mut Form, out: &mut Xml, cloud: &mut Cloud) -> Result<()> {
    let arn = form.need("ListenerArn")?;
    let changes = take_attributes(form)?;
    finish(form)?;
    write_attributes(out, cloud.modify_listener_attributes(&arn, &changes)?);
    Ok(())
}

/// Pages are counted: a certificate that is both default and in the list occurs twice.
pub(super) fn certificates(form: &mut Form, out: &mut Xml, cloud: &Cloud) -> Result<()> {
    let arn = form.need("ListenerArn")?;
    let size: usize = form.number("PageSize", 1..=400)?.unwrap_or(400);
    let from: usize = form.number("Marker", 1..=400)?.unwrap_or(0);
    finish(form)?;
    let all = cloud.listener_certificates(&arn)?;
    let next = Some(from + size).filter(|next| *next < all.len());
    let page = all.into_iter().skip(from).take(size);
    out.list("Certificates", "member", page, |xml, (arn, default)| {
        xml.text("CertificateArn", arn);
        xml.text("IsDefault", default);
    });
    out.optional("NextMarker", next);
    Ok(())
}

/// The certificates of a call. AWS sets `IsDefault` itself \[model\].
fn take_certificates(form: &mut Form) -> Result<Vec<String>> {
    let mut certificates = Vec::new();
    for mut one in form.structures("Certificates")? {
        certificates.push(one.need("CertificateArn")?);
        one.finish()?;
    }
    Ok(certificates)
}

fn take_change(form: &mut Form) -> Result<Change> {
    let mut certificates = take_certificates(form)?;
    if certificates.len() > 1 {
        return Err(Refusal::validation("Exactly one certificate is permitted"));
    }
    let mut alpn = form.list("AlpnPolicy")?;
    if alpn.len() > 1 {
        return Err(Refusal::validation("Exactly one ALPN policy is permitted"));
    }
    Ok(Change {
        port: form.number("Port", 1..=65_535)?,
        protocol: form.take("Protocol"),
        forward: take_forward(form, "DefaultActions")?,
        certificate: certificates.pop(),
        ssl_policy: form.take("SslPolicy"),
        alpn: alpn.pop(),
    })
}

fn write(out: &mut Xml, all: &[&Listener]) {
    out.list("Listeners", "member", all, |xml, one| {
        xml.text("ListenerArn", &one.arn);
        xml.text("LoadBalancerArn", &one.load_balancer);
        xml.text("Port", one.port);
        xml.text("Protocol", &one.protocol);
        if let Some(arn) = &one.certificate {
            xml.list("Certificates", "member", [arn], |xml, arn| {
                xml.text("CertificateArn", arn);
            });
        }
        xml.optional("SslPolicy", one.ssl_policy.as_ref());
        write_action(xml, "DefaultActions", &one.forward);
        if let Some(alpn) = &one.alpn {
            xml.texts("AlpnPolicy", "member", [alpn]);
        }
    });
}
