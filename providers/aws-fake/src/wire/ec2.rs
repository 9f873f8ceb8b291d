//! The actions of EC2.

use super::form::Form;
use super::xml::Xml;
use crate::state::{Cloud, Moment, Refusal, Result, Tags};

mod filters;
mod network;
mod security_groups;

/// The actions that this fake knows.
pub(crate) const ACTIONS: &[&str] = &[
    "AuthorizeSecurityGroupIngress",
    "CreateSecurityGroup",
    "CreateTags",
    "DeleteSecurityGroup",
    "DeleteTags",
    "DescribeAvailabilityZones",
    "DescribeInstances",
    "DescribeManagedPrefixLists",
    "DescribeNetworkInterfaces",
    "DescribeRouteTables",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "RevokeSecurityGroupIngress",
];

/// Makes one call.
pub(super) fn call(action: &str, mut form: Form, cloud: &mut Cloud, now: Moment) -> Result<Xml> {
    let form = &mut form;
    let mut xml = Xml::default();
    let out = &mut xml;
    match action {
        "CreateSecurityGroup" => security_groups::create(form, out, cloud, now)?,
        "DescribeSecurityGroups" => security_groups::describe(form, out, cloud, now)?,
        "AuthorizeSecurityGroupIngress" => security_groups::authorize(form, out, cloud)?,
        "RevokeSecurityGroupIngress" => security_groups::revoke(form, out, cloud)?,
        "DeleteSecurityGroup" => security_groups::delete(form, out, cloud, now)?,
        "CreateTags" => create_tags(form, out, cloud)?,
        "DeleteTags" => delete_tags(form, out, cloud)?,
        "DescribeSubnets" => network::subnets(form, out, cloud)?,
        "DescribeRouteTables" => network::route_tables(form, out, cloud)?,
        "DescribeAvailabilityZones" => network::zones(form, out, cloud)?,
        "DescribeInstances" => network::instances(form, out, cloud)?,
        "DescribeManagedPrefixLists" => network::prefix_lists(form, out, cloud)?,
        "DescribeNetworkInterfaces" => network::interfaces(form, out, cloud, now)?,
        _ => return Err(Refusal::new("InvalidAction", "This action is not known")),
    }
    Ok(xml)
}

fn create_tags(form: &mut Form, out: &mut Xml, cloud: &mut Cloud) -> Result<()> {
    let ids = take_ids(form)?;
    let tags = take_tags(form, "Tag")?;
    finish(form)?;
    if tags.is_empty() {
        let message = "The request must contain the parameter Tag";
        return Err(Refusal::new("MissingParameter", message));
    }
    cloud.create_tags(&ids, &tags)?;
    out.text("return", true);
    Ok(())
}

fn delete_tags(form: &mut Form, out: &mut Xml, cloud: &mut Cloud) -> Result<()> {
    let ids = take_ids(form)?;
    let mut tags = Vec::new();
    for mut one in form.structures("Tag")? {
        tags.push((one.need("Key")?, one.take("Value")));
        one.finish()?;
    }
    finish(form)?;
    cloud.delete_tags(&ids, &tags)?;
    out.text("return", true);
    Ok(())
}

fn take_ids(form: &mut Form) -> Result<Vec<String>> {
    let ids = form.list("ResourceId")?;
    if ids.is_empty() {
        let message = "The request must contain the parameter ResourceId";
        return Err(Refusal::new("MissingParameter", message));
    }
    Ok(ids)
}

/// Refuses what is left of a form.
fn finish(form: &mut Form) -> Result<()> {
    form.clone().finish()
}

fn take_tags(form: &mut Form, name: &str) -> Result<Tags> {
    let mut tags = Tags::new();
    for mut one in form.structures(name)? {
        let key = one.need("Key")?;
        let value = one.take("Value").unwrap_or_default();
        one.finish()?;
        if tags.insert(key.clone(), value).is_some() {
            let message = format!("Tag keys must be unique: '{key}' occurs more than once");
            return Err(Refusal::new("InvalidParameterValue", message));
        }
    }
    Ok(tags)
}

fn write_tags(out: &mut Xml, tags: &Tags) {
    if !tags.is_empty() {
        out.list("tagSet", "item", tags, |xml, (key, value)| {
            xml.text("key", key);
            xml.text("value", value);
        });
    }
}

/// Which page of objects a call wants. Without a size it gets all of them.
struct Page {
    after: Option<String>,
    size: Option<usize>,
}

// === impl Page ===

impl Page {
    /// `named` says whether the call names objects, which it cannot together with a size.
    fn take(form: &mut Form, sizes: std::ops::RangeInclusive<usize>, named: bool) -> Result<Self> {
        let size = form.number("MaxResults", sizes)?;
        let token = form.take("NextToken");
        if named && (size.is_some() || token.is_some()) {
            // \[docs\] of "Pagination" in the EC2 Developer Guide.
            return Err(Refusal::new(
                "InvalidParameterCombination",
                "IDs cannot be used with the parameter maxResults",
            ));
        }
        let after = match token {
            None => None,
            Some(token) => match token.strip_prefix("after:") {
                Some(after) => Some(after.to_owned()),
                None => return Err(form.wrong("NextToken", &token)),
            },
        };
        Ok(Self { after, size })
    }

    /// Writes a page as a list, and the token of the next one.
    fn write<'a, T: 'a>(
        self,
        out: &mut Xml,
        name: &str,
        all: impl IntoIterator<Item = (&'a str, &'a T)>,
        content: impl Fn(&mut Xml, &T),
    ) {
        let mut all: Vec<_> = all
            .into_iter()
            .filter(|(key, _)| (self.after.as_deref()).is_none_or(|after| *key > after))
            .collect();
        all.sort_by_key(|(key, _)| *key);
        let size = self.size.unwrap_or(usize::MAX);
        let more = all.len() > size;
        all.truncate(size);
        let next = all.last().filter(|_| more);
        let next = next.map(|(key, _)| format!("after:{key}"));
        out.list(name, "item", all, |xml, (_, one)| content(xml, one));
        out.optional("nextToken", next);
    }
}
