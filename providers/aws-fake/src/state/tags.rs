//! Tags, and the calls that change them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cloud, Refusal, Result};

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// What a default rule has: calls that change tags do not know it, which is strict.
const NO_TAGS: &Tags = &Tags::new();

/// The most ARNs in one call \[model\].
const MOST_ARNS: usize = 20;

/// Checks the tags of one call of Elastic Load Balancing: lengths, keys that AWS keeps for
/// itself, and equal keys.
pub(crate) fn checked(pairs: Vec<(String, String)>) -> Result<Tags> {
    let mut tags = Tags::new();
    for (key, value) in pairs {
        check(&key, &value, permitted).map_err(Refusal::validation)?;
        if tags.insert(key.clone(), value).is_some() {
            let message = format!("Tag keys must be unique: '{key}' occurs more than once");
            return Err(Refusal::new("DuplicateTagKeys", message));
        }
    }
    Ok(tags)
}

/// The characters of tags of Elastic Load Balancing \[model\].
fn permitted(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c))
}

/// The rules for keys and values \[model\].
fn check(
    key: &str,
    value: &str,
    permitted: impl Fn(&str) -> bool,
) -> std::result::Result<(), String> {
    if !(1..=128).contains(&key.chars().count()) || !permitted(key) {
        return Err(format!("The tag key '{key}' is not valid"));
    }
    if value.chars().count() > 256 || !permitted(value) {
        return Err(format!("The value of the tag '{key}' is not valid"));
    }
    if key.to_lowercase().starts_with("aws:") {
        return Err(format!(
            "The tag key '{key}' is reserved: keys must not begin with aws:"
        ));
    }
    Ok(())
}

// === impl Cloud ===

impl Cloud {
    /// `AddTags`
    pub fn add_tags(&mut self, arns: &[String], tags: &Tags) -> Result<()> {
        self.check_arns(arns)?;
        let most = self.settings.quotas.tags;
        for arn in arns {
            self.check_changeable(arn)?;
            let present = self.elb_tags(arn)?;
            let keys: BTreeSet<_> = present.keys().chain(tags.keys()).collect();
            if keys.len() > most {
                return Err(too_many(most));
            }
        }
        for arn in arns {
            if let Some(present) = self.elb_tags_mut(arn) {
                present.extend(tags.clone());
            }
        }
        Ok(())
    }

    /// `RemoveTags`
    pub fn remove_tags(&mut self, arns: &[String], keys: &[String]) -> Result<()> {
        self.check_arns(arns)?;
        for arn in arns {
            self.check_changeable(arn)?;
            self.elb_tags(arn)?;
        }
        for arn in arns {
            if let Some(present) = self.elb_tags_mut(arn) {
                present.retain(|key, _| !keys.contains(key));
            }
        }
        Ok(())
    }

    /// `DescribeTags`: an unknown ARN is an error \[model\].
    pub fn describe_tags(&self, arns: &[String]) -> Result<Vec<(String, Tags)>> {
        self.check_arns(arns)?;
        let tags = |arn: &String| Ok((arn.clone(), self.elb_tags(arn)?.clone()));
        arns.iter().map(tags).collect()
    }

    /// Whether tags for a new object are too many.
    pub(super) fn check_number_of_tags(&self, tags: &Tags) -> Result<()> {
        let most = self.settings.quotas.tags;
        if tags.len() > most {
            return Err(too_many(most));
        }
        Ok(())
    }

    fn check_arns(&self, arns: &[String]) -> Result<()> {
        let _ = self;
        if arns.is_empty() {
            return Err(Refusal::validation("At least one resource ARN is needed"));
        }
        if arns.len() > MOST_ARNS {
            return Err(Refusal::validation(format!(
                "The number of resource ARNs, {}, exceeds the maximum of {MOST_ARNS}",
                arns.len()
            )));
        }
        Ok(())
    }

    /// A default rule is not a rule of its own.
    fn check_changeable(&self, arn: &str) -> Result<()> {
        match self.listener_of_default(arn) {
            Some(_) => self.rule(arn).map(drop),
            None => Ok(()),
        }
    }

    fn elb_tags(&self, arn: &str) -> Result<&Tags> {
        if arn.contains(":loadbalancer/") {
            Ok(&self.load_balancer(arn)?.tags)
        } else if arn.contains(":targetgroup/") {
            Ok(&self.target_group(arn)?.tags)
        } else if arn.contains(":listener/") {
            Ok(&self.listener(arn)?.tags)
        } else if self.listener_of_default(arn).is_some() {
            Ok(NO_TAGS)
        } else if arn.contains(":listener-rule/") {
            Ok(&self.rule(arn)?.tags)
        } else {
            Err(Refusal::validation(format!("'{arn}' is not a valid ARN")))
        }
    }

    fn elb_tags_mut(&mut self, arn: &str) -> Option<&mut Tags> {
        if let Some(one) = self.load_balancers.get_mut(arn) {
            return Some(&mut one.tags);
        }
        if let Some(one) = self.target_groups.get_mut(arn) {
            return Some(&mut one.tags);
        }
        if let Some(one) = self.rules.get_mut(arn) {
            return Some(&mut one.tags);
        }
        self.listeners.get_mut(arn).map(|one| &mut one.tags)
    }

    /// `CreateTags` of EC2. The last of equal keys wins.
    pub fn create_tags(&mut self, ids: &[String], tags: &Tags) -> Result<()> {
        let most = self.settings.quotas.tags;
        check_ec2(tags)?;
        for id in ids {
            let present = self.ec2_tags(id)?;
            let keys: BTreeSet<_> = present.keys().chain(tags.keys()).collect();
            if keys.len() > most {
                let message = format!("The maximum number of Tags for a resource is {most}.");
                return Err(Refusal::new("TagLimitExceeded", message));
            }
        }
        for id in ids {
            self.ec2_tags(id)?.extend(tags.clone());
        }
        Ok(())
    }

    /// `DeleteTags` of EC2. A key with a value is deleted only if it has that value; without keys
    /// all tags are deleted \[model\].
    pub fn delete_tags(&mut self, ids: &[String], tags: &[(String, Option<String>)]) -> Result<()> {
        for id in ids {
            self.ec2_tags(id)?;
        }
        for id in ids {
            let present = self.ec2_tags(id)?;
            if tags.is_empty() {
                present.clear();
            }
            for (key, value) in tags {
                if value.is_none() || present.get(key) == value.as_ref() {
                    present.remove(key);
                }
            }
        }
        Ok(())
    }

    fn ec2_tags(&mut self, id: &str) -> Result<&mut Tags> {
        let kind = id.split('-').next().unwrap_or_default();
        let (found, code) = match kind {
            "sg" => {
                let found = self.security_groups.get_mut(id).map(|one| &mut one.tags);
                (found, "InvalidGroup.NotFound")
            }
            "subnet" => {
                let found = self.subnets.get_mut(id).map(|one| &mut one.tags);
                (found, "InvalidSubnetID.NotFound")
            }
            "i" => {
                let found = self.instances.get_mut(id).map(|one| &mut one.tags);
                (found, "InvalidInstanceID.NotFound")
            }
            _ => (None, "InvalidID"),
        };
        found.ok_or_else(|| Refusal::new(code, format!("The ID '{id}' does not exist")))
    }
}

/// The rules for tags of EC2, which permits all characters \[docs\].
pub(crate) fn check_ec2(tags: &Tags) -> Result<()> {
    for (key, value) in tags {
        check(key, value, |_| true)
            .map_err(|message| Refusal::new("InvalidParameterValue", message))?;
    }
    Ok(())
}

fn too_many(most: usize) -> Refusal {
    let message = format!("The maximum number of tags, {most}, is reached");
    Refusal::new("TooManyTags", message)
}
