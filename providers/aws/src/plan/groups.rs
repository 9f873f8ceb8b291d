//! The security groups of a load balancer and their rules.

use std::collections::BTreeSet;

use super::Plan;
use crate::call::{Call, Ref};
use crate::desired::{Desired, Groups, PrefixLists, Rule, weight};
use crate::observed::Observed;

// === impl Plan ===

impl Plan {
    /// The security groups of the load balancer, after the calls that make them.
    pub(super) fn security_groups(
        &mut self,
        desired: &Desired,
        observed: &Observed,
        lists: &PrefixLists,
    ) -> Vec<Ref> {
        let mut all = match &desired.groups {
            Groups::Given(ids) => ids.iter().cloned().map(Ref::Known).collect(),
            Groups::Own { name, rules, most } => {
                let there = observed.groups.get(name);
                let together = there.map_or(0, |there| weight(rules.union(&there.rules), lists));
                let fits = together <= *most;
                vec![self.own_group(desired, observed, name, rules, fits)]
            }
        };
        all.extend(desired.backend_group.clone().map(Ref::Known));
        all
    }

    fn own_group(
        &mut self,
        desired: &Desired,
        observed: &Observed,
        name: &str,
        rules: &BTreeSet<Rule>,
        fits: bool,
    ) -> Ref {
        let there = observed.groups.get(name);
        let security_group = match there {
            Some(there) => Ref::Known(there.id.clone()),
            None => Ref::Made(name.to_owned()),
        };
        if there.is_none() {
            self.calls.push(Call::CreateSecurityGroup {
                name: name.to_owned(),
                tags: desired.tags.clone(),
            });
        }
        let none = BTreeSet::new();
        let present = there.map_or(&none, |there| &there.rules);
        // Old and new rules together may be more than AWS permits. Then the old ones go first.
        if !fits {
            self.revoke(&security_group, rules, present);
        }
        let new: BTreeSet<Rule> = rules.difference(present).cloned().collect();
        if !new.is_empty() {
            self.calls.push(Call::AuthorizeSecurityGroupIngress {
                security_group: security_group.clone(),
                rules: new,
            });
        }
        security_group
    }

    /// Rules that are not wanted any more go last, so that no client is cut off before the rule
    /// that replaces its own is there.
    pub(super) fn obsolete_rules(
        &mut self,
        desired: &Desired,
        observed: &Observed,
        lists: &PrefixLists,
    ) {
        let Groups::Own { name, rules, most } = &desired.groups else {
            return;
        };
        if let Some(there) = observed.groups.get(name)
            && weight(rules.union(&there.rules), lists) <= *most
        {
            self.revoke(&Ref::Known(there.id.clone()), rules, &there.rules);
        }
    }

    fn revoke(&mut self, group: &Ref, wanted: &BTreeSet<Rule>, present: &BTreeSet<Rule>) {
        let rules: BTreeSet<Rule> = present.difference(wanted).cloned().collect();
        if !rules.is_empty() {
            let security_group = group.clone();
            self.calls.push(Call::RevokeSecurityGroupIngress {
                security_group,
                rules,
            });
        }
    }
}
