//! What is said of each Service after a turn. It makes no call.

use ballast_provider::mark::SERVICE_UID;
use ballast_provider::{Member, Refusal, ServiceId};
use tokio::time::Instant;

use super::Inner;
use super::records::Record;
use super::status::Words;
use crate::desired::{Desired, Part};
use crate::plan::Situation;
use crate::pods::Pods;
use crate::settings::Settings;
use crate::target::{Reached, TargetType};

/// What the owners of the Services should know of a plan.
#[derive(Clone, Default)]
pub(super) struct Said {
    /// Each of them, in the order of the Services.
    pub(super) of_each: Vec<Vec<String>>,
    /// All of them.
    pub(super) of_all: Vec<String>,
    /// Why the load balancer keeps something that they do not want any more.
    pub(super) objection: Option<Refusal>,
}

/// One Service of a load balancer, and what it asks for.
pub(super) struct Asked<'a> {
    pub(super) member: &'a Member,
    /// Merged with those of the class.
    pub(super) settings: Settings,
    /// What its owner should know, whatever is done.
    pub(super) remarks: Vec<String>,
}

// === impl Asked ===

impl Asked<'_> {
    pub(super) const fn part(&self) -> Part<'_> {
        Part {
            service: &self.member.load_balancer,
            settings: &self.settings,
            policy: self.member.placement.family_policy,
        }
    }

    pub(super) fn id(&self) -> &ServiceId {
        &self.member.load_balancer.id
    }
}

// === impl Inner ===

impl Inner {
    /// What is said of one Service: with what is said whatever a plan did.
    pub(super) fn words(&self, said: &Said, at: usize, one: &Asked<'_>, record: &Record) -> Words {
        let now = Instant::now();
        let mut remarks = said.of_each.get(at).cloned().unwrap_or_default();
        remarks.extend(said.of_all.iter().cloned());
        remarks.extend(one.remarks.iter().cloned());
        match one.settings.target_type.unwrap_or_default() {
            TargetType::Instance => remarks.extend(self.remarks_on_nodes()),
            TargetType::Ip => {
                let endpoints = one.member.endpoints.as_ref();
                remarks.extend(endpoints.and_then(|all| record.refused.remark(all)));
            }
        }
        remarks.extend(record.capacity.remark());
        if let Some(left) = &record.cleanup {
            remarks.extend(left.refused.iter().cloned());
        }
        if !record.is_replaced(now) {
            remarks.extend(remarks_on_former(record));
        }
        let settles = record.health.settles(now);
        // It is said together with the end of the wait.
        let serving = record.serving().filter(|_| !settles);
        let uid = &one.id().uid;
        Words {
            remarks,
            objection: (said.objection.clone())
                .or_else(|| record.capacity.objection(record.present())),
            healthy: (serving.as_ref())
                .filter(|_| one.settings.target_type == Some(TargetType::Ip))
                .and_then(|of| record.health.healthy_pods(of, uid)),
            health: serving.and_then(|of| record.health.condition(&of, uid)),
            stand_in: record.stand_in(now).map(|it| it.hostname.clone()),
            settles,
        }
    }
}

/// What to say if the labels that a Service asks for select no node, or it has no pod that can be a target.
pub(super) fn no_target(
    part: &Part<'_>,
    desired: &Desired,
    situation: &Situation,
    ready: &Pods,
) -> Option<String> {
    let group = desired.target_groups.values().find(|group| {
        let uid = group.tags.get(SERVICE_UID).map(String::as_str);
        uid == Some(&*part.service.id.uid)
    })?;
    if !group.backends().are_nodes() {
        let none = ready.has_none(&part.service.id.uid);
        return none.then(|| "no pod of the Service is ready, so there is no target".to_owned());
    }
    let labels = group.selector.tag()?;
    let nodes = situation.nodes.as_ref()?;
    let none = nodes
        .selected(&group.selector, Reached::Instance)
        .is_empty();
    none.then(|| format!("target-node-labels: no node has {labels}, so there is no target"))
}

/// What its owner should know of load balancers that another one replaces.
fn remarks_on_former(record: &Record) -> impl Iterator<Item = String> {
    record.former().map(|(name, one)| {
        format!(
            "the former load balancer {name} ({}) stays until the new one has had a healthy target for 3 minutes, and for a day at most",
            one.hostname
        )
    })
}
