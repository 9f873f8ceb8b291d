//! What is known of the health of a load balancer's targets: of which target groups AWS is asked, and what its answers
//! say of each Service. No I/O.

use std::collections::BTreeSet;

use ballast_provider::mark::SERVICE_UID;
use tokio::time::Instant;

use super::{Answers, Depth, REPLACING, Record};
use crate::client::values::TargetHealth;
use crate::observed::{Arn, ObservedListener, ObservedTargetGroup};
use crate::provider::decode::{named_in, registered};
use crate::provider::health::{Heard, Needs, Summary};

// === impl Record ===

impl Record {
    /// The target groups that the load balancer sends to. What lists say does not include listeners.
    pub(in crate::provider) fn groups(&self) -> Vec<Arn> {
        let Some(present) = self.present() else {
            let bound = self.observed.target_groups.values();
            let bound = bound.filter(|group| group.bound.is_some());
            return bound.map(|group| group.served().clone()).collect();
        };
        let listed = self.depth == Depth::Names && self.observed.load_balancers.len() == 1;
        let listeners = present.listeners.values();
        let used: BTreeSet<&Arn> = listeners.flat_map(ObservedListener::groups).collect();
        let all = self.observed.target_groups.values().map(|group| &group.arn);
        all.filter(|arn| listed || used.contains(arn))
            .cloned()
            .collect()
    }

    /// When to ask how its targets are. Nothing is healthy before the load balancer is active.
    pub(in crate::provider) fn health_due(&self) -> Option<Instant> {
        let asks = !self.retained && self.serving().is_some() && !self.groups().is_empty();
        self.health.due().filter(|_| asks)
    }

    /// Whether nobody has asked how its targets are since this process started, and nobody is about to.
    pub(in crate::provider) fn is_unheard(&self) -> bool {
        let asks = !self.retained && self.depth == Depth::Names && self.serving().is_some();
        asks && self.wanted.is_some() && self.health.is_unheard() && !self.groups().is_empty()
    }

    /// What AWS says of its targets. True if there is news.
    pub(in crate::provider) fn heard(&mut self, answers: &Answers, now: Instant) -> bool {
        let groups = self.groups();
        let Some(arn) = self.serving() else {
            return false;
        };
        // Without any answer nobody has asked.
        if !groups.iter().any(|arn| answers.contains_key(arn)) {
            return false;
        }
        let Some(heard) = self.by_member(&arn, answers, &groups) else {
            return false;
        };
        let news = self.health.heard(&arn, heard, now);
        if self.former().next().is_some()
            && let Some(at) = self.health.replaces_at().filter(|at| *at > now)
        {
            let (least, most) = REPLACING;
            self.health.ask_at(at.clamp(now + least, now + most));
        }
        news
    }

    /// Whether AWS has targets that are not known.
    pub(in crate::provider) fn misses(&self, answers: &Answers) -> bool {
        let mut all = self.observed.target_groups.values();
        let misses = |group: &ObservedTargetGroup| {
            let targets = answers.get(&group.arn).map(|all| registered(group, all));
            targets.is_some_and(|targets| !targets.is_subset(&group.targets))
        };
        self.targets_known && self.depth != Depth::Doubtful && all.any(misses)
    }

    /// Those of them of which AWS is asked how their targets are.
    pub(in crate::provider) fn groups_to_ask(&self) -> Vec<Arn> {
        let Some(arn) = self.serving() else {
            return Vec::new();
        };
        let groups = self.groups();
        let all = self.observed.target_groups.values();
        let asked = all.filter(|group| {
            groups.contains(group.served()) && self.health.asks_about(&arn, uid_of(group))
        });
        let asked: Vec<Arn> = asked.map(|group| group.served().clone()).collect();
        // All have enough, and somebody wants to know that it is still so.
        if asked.is_empty() { groups } else { asked }
    }

    /// How the targets of each Service are. What was not asked is as it was. `None`: it is not known of all.
    fn by_member(&self, of: &str, answers: &Answers, groups: &[Arn]) -> Option<Heard> {
        let mut heard = Heard::new();
        let all = self.observed.target_groups.values();
        let mine: Vec<&ObservedTargetGroup> = all
            .filter(|group| groups.contains(group.served()))
            .collect();
        for group in &mine {
            let uid = uid_of(group);
            let mut own = mine.iter().filter(|one| uid_of(one) == uid);
            if !own.all(|one| answers.contains_key(one.served())) {
                let last = self.health.last_of(of, uid)?.clone();
                heard.insert(uid.into(), last);
                continue;
            }
            let needs = self.needs(uid);
            let (_, summary) = heard
                .entry(uid.into())
                .or_insert((needs, Summary::default()));
            let all = answers.get(group.served()).into_iter().flatten();
            // Others have targets there, too.
            let own = |one: &&TargetHealth| {
                group.bound.is_none() || group.targets.contains(&named_in(group, one))
            };
            for target in all.filter(own) {
                summary.add(target);
            }
        }
        Some(heard)
    }

    /// How many targets of a Service must be healthy.
    pub(in crate::provider) fn needs(&self, uid: &str) -> Needs {
        let wanted = self.wanted.as_ref();
        let needs = wanted.and_then(|wanted| wanted.needs.get(uid));
        needs.copied().unwrap_or_default()
    }
}

/// The UID of the Service that a target group serves.
fn uid_of(group: &ObservedTargetGroup) -> &str {
    group.tags.get(SERVICE_UID).map_or("", String::as_str)
}
