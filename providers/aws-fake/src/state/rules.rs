//! Rules of listeners. They tell clients of IPv4 and of IPv6 apart, and each listener also has a default rule, which is
//! its default action.
//!
//! Source: "Listener rules for your Network Load Balancer" \[docs\].
//!
//! Invariants: a rule has its listener, and its load balancer is dualstack. A priority has one rule of a listener.

use super::forward::Forward;
use super::listeners::Listener;
use super::load_balancers::check_arn;
use super::{Cloud, Moment, Refusal, Result, Tags};

/// A rule. Default rules are not among them: they are part of their listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its ARN.
    pub arn: String,
    /// The ARN of its listener.
    pub listener: String,
    /// Its priority. The lowest one that fits decides.
    pub priority: u32,
    /// `ipv4` or `ipv6`: the clients that it is for.
    pub family: String,
    /// The ARNs of its target groups with their weights.
    pub forward: Forward,
    /// Its tags.
    pub tags: Tags,
}

/// What a call sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The `IpAddressType` of its one condition, `source-ip`.
    pub family: Option<String>,
    /// The ARNs of target groups with their weights.
    pub forward: Option<Forward>,
}

/// A rule as calls show it, which may be a default rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its ARN.
    pub arn: String,
    /// Its priority; the default rule has none.
    pub priority: Option<u32>,
    /// The clients that it is for; the default rule is for all.
    pub family: Option<String>,
    /// The ARNs of its target groups with their weights.
    pub forward: Forward,
}

/// The greatest priority \[docs\]. The least is 1.
const MOST_PRIORITY: u32 = 50_000;

// === impl Described ===

impl Described {
    fn of(rule: &Rule) -> Self {
        Self {
            arn: rule.arn.clone(),
            priority: Some(rule.priority),
            family: Some(rule.family.clone()),
            forward: rule.forward.clone(),
        }
    }

    fn default_of(listener: &Listener) -> Self {
        Self {
            arn: default_arn(listener),
            priority: None,
            family: None,
            forward: listener.forward.clone(),
        }
    }
}

// === impl Cloud ===

impl Cloud {
    /// `CreateRule`. Repeated it finds its priority in use.
    pub fn create_rule(
        &mut self,
        now: Moment,
        listener: &str,
        priority: u32,
        change: Change,
        tags: Tags,
    ) -> Result<Described> {
        let there = self.listener(listener)?;
        if !(1..=MOST_PRIORITY).contains(&priority) {
            return Err(Refusal::validation(format!(
                "The priority {priority} is not between 1 and {MOST_PRIORITY}"
            )));
        }
        let needed = |what: &str| Refusal::validation(format!("A rule must have {what}"));
        let rule = Rule {
            arn: String::new(),
            listener: listener.to_owned(),
            priority,
            family: change.family.ok_or_else(|| needed("a condition"))?,
            forward: change.forward.ok_or_else(|| needed("an action"))?,
            tags,
        };
        self.check_number_of_tags(&rule.tags)?;
        self.check_rule(&rule)?;
        let mut all = self.rules.values();
        if all.any(|one| one.listener == listener && one.priority == priority) {
            return Err(Refusal::new(
                "PriorityInUse",
                format!("Priority '{priority}' is currently in use"),
            ));
        }
        let most = self.settings.quotas.listener_rules;
        if self.number_of_rules(&there.load_balancer) >= most {
            let message = format!("The maximum number of rules, {most}, is reached");
            return Err(Refusal::new("TooManyRules", message));
        }
        let rest = listener.split_once(":listener/");
        let rest = rest.map_or(listener, |(_, rest)| rest);
        let arn = self.arn(&format!("listener-rule/{rest}"));
        let rule = Rule { arn, ..rule };
        let described = Described::of(&rule);
        self.rules.insert(rule.arn.clone(), rule, now);
        self.note_use(now);
        Ok(described)
    }

    /// `ModifyRule`: what is absent does not change \[model\].
    pub fn modify_rule(&mut self, now: Moment, arn: &str, change: Change) -> Result<Described> {
        let there = self.rule(arn)?;
        if change == Change::default() {
            return Err(Refusal::validation(
                "A change of a rule must have conditions or actions",
            ));
        }
        let rule = Rule {
            family: change.family.unwrap_or_else(|| there.family.clone()),
            forward: change.forward.unwrap_or_else(|| there.forward.clone()),
            ..there.clone()
        };
        self.check_rule(&rule)?;
        let described = Described::of(&rule);
        if let Some(there) = self.rules.get_mut(arn) {
            *there = rule;
        }
        self.note_use(now);
        Ok(described)
    }

    /// `DeleteRule`
    pub fn delete_rule(&mut self, now: Moment, arn: &str) -> Result<()> {
        self.rule(arn)?;
        self.rules.remove(arn, now);
        self.note_use(now);
        Ok(())
    }

    /// `DescribeRules` of one listener, by priority, with the default rule at the end.
    pub fn rules_of(&self, now: Moment, listener: &str) -> Result<Vec<Described>> {
        let there = self.listener(listener)?;
        let listed = self.rules.listed(now, self.settings.lag);
        let mut all: Vec<_> = listed
            .into_values()
            .filter(|rule| rule.listener == listener)
            .collect();
        all.sort_by_key(|rule| rule.priority);
        let default = Described::default_of(there);
        Ok(all
            .into_iter()
            .map(Described::of)
            .chain([default])
            .collect())
    }

    /// `DescribeRules` of one rule.
    pub fn describe_rule(&self, arn: &str) -> Result<Described> {
        match self.listener_of_default(arn) {
            Some(listener) => Ok(Described::default_of(listener)),
            None => self.rule(arn).map(Described::of),
        }
    }

    /// One rule. The default rule changes and goes with its listener only.
    pub fn rule(&self, arn: &str) -> Result<&Rule> {
        check_arn("listener rule", ":listener-rule/", arn)?;
        if self.listener_of_default(arn).is_some() {
            // \[model\]: this code.
            return Err(Refusal::new(
                "OperationNotPermitted",
                format!("Default rule '{arn}' cannot be modified or deleted"),
            ));
        }
        self.rules.get(arn).ok_or_else(|| {
            let message = "One or more rules not found";
            Refusal::new("RuleNotFound", message)
        })
    }

    /// Deletes a listener with its rules.
    pub(super) fn drop_listener(&mut self, now: Moment, arn: &str) {
        let rules = self.rules.values().filter(|rule| rule.listener == arn);
        let rules: Vec<String> = rules.map(|rule| rule.arn.clone()).collect();
        for rule in rules {
            self.rules.remove(&rule, now);
        }
        self.listeners.remove(arn, now);
    }

    /// The rules of all listeners of a load balancer; default rules do not count \[docs\].
    pub(super) fn number_of_rules(&self, load_balancer: &str) -> usize {
        let of = |arn: &str| self.listeners.get(arn).map(|one| &one.load_balancer);
        let rules = self.rules.values();
        rules
            .filter(|rule| of(&rule.listener).is_some_and(|it| it == load_balancer))
            .count()
    }

    /// Whether the rules of a listener are right if it has this protocol.
    pub(super) fn check_rules_of(&self, listener: &Listener) -> Result<()> {
        let user = self.load_balancer(&listener.load_balancer)?;
        let mut rules = self.rules.values().filter(|it| it.listener == listener.arn);
        rules.try_for_each(|rule| self.check_forward(user, &listener.protocol, &rule.forward))
    }

    fn check_rule(&self, rule: &Rule) -> Result<()> {
        let listener = self.listener(&rule.listener)?;
        let user = self.load_balancer(&listener.load_balancer)?;
        if !["ipv4", "ipv6"].contains(&rule.family.as_str()) {
            return Err(Refusal::validation(format!(
                "The IP address type '{}' of the condition is not valid",
                rule.family
            )));
        }
        // \[docs\]
        if user.ip_address_type != "dualstack" {
            return Err(Refusal::new(
                "InvalidConfigurationRequest",
                "Only the listeners of a dualstack Network Load Balancer can have rules",
            ));
        }
        self.check_forward(user, &listener.protocol, &rule.forward)
    }

    /// The listener whose default rule this is.
    pub(super) fn listener_of_default(&self, arn: &str) -> Option<&Listener> {
        let (listener, _) = arn.rsplit_once('/')?;
        let listener = listener.replacen(":listener-rule/", ":listener/", 1);
        let listener = self.listeners.get(&listener)?;
        (default_arn(listener) == arn).then_some(listener)
    }
}

/// The ARN of the default rule of a listener.
fn default_arn(listener: &Listener) -> String {
    let arn = listener.arn.replacen(":listener/", ":listener-rule/", 1);
    let id = arn.rsplit('/').next().unwrap_or_default();
    let id = u64::from_str_radix(id, 16).unwrap_or_default();
    format!("{arn}/{:016x}", id.rotate_left(32))
}
