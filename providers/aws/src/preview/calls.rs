//! The calls that a change of Services would take, worked out without AWS. Pure.
//!
//! It plans what the Services asked for before on nothing, takes each call as made, and plans what
//! they ask for now on the result. So the planner is the provider's, and what somebody else has
//! changed in AWS is not seen.

use std::sync::Arc;

use ballast_provider::{Key, Member, Refusal, TargetSet};

use super::{nobody, stand_ins};
use crate::call::Call;
use crate::client::{Answer, Ids};
use crate::desired::{Desired, Outcome, Part};
use crate::effect;
use crate::nodes::Nodes;
use crate::observed::{LoadBalancerState, Observed};
use crate::plan::{self, Situation};
use crate::pods::Pods;
use crate::settings::{ClassSettings, Settings};

/// The actions with which the first Service of a class makes what belongs to the class: its
/// security group, a rule in each security group of the nodes (here: one), and the tag that says
/// what all target groups have.
pub const OF_CLASS: [&str; 3] = [
    "CreateSecurityGroup",
    "AuthorizeSecurityGroupIngress",
    "CreateTags",
];

/// The changing calls, in order, that bring the load balancer of a key from what its Services asked
/// for to what they ask for now. `before` is empty if there is none. Reading calls are not in it.
pub fn calls(
    key: &Key,
    before: &[Member],
    after: &[Member],
    class: &ClassSettings,
    targets: &TargetSet,
) -> Result<Vec<Call>, Refusal> {
    let nodes = Arc::new(Nodes::of(&targets.nodes));
    let mut observed = Observed::default();
    if !before.is_empty() {
        // What AWS has was accepted once; what is not accepted any more is no state to start from.
        let Ok(plan) = planned(key, before, class, &nodes, &observed) else {
            return planned(key, after, class, &nodes, &observed);
        };
        made(&plan, &mut observed);
    }
    planned(key, after, class, &nodes, &observed)
}

/// The same if they are gone: the calls that delete it.
pub fn deletion(
    key: &Key,
    before: &[Member],
    class: &ClassSettings,
    targets: &TargetSet,
) -> Result<Vec<Call>, Refusal> {
    let nodes = Arc::new(Nodes::of(&targets.nodes));
    let mut observed = Observed::default();
    let plan = planned(key, before, class, &nodes, &observed)?;
    made(&plan, &mut observed);
    Ok(plan::release(&observed))
}

fn planned(
    key: &Key,
    members: &[Member],
    class: &ClassSettings,
    nodes: &Arc<Nodes>,
    observed: &Observed,
) -> Result<Vec<Call>, Refusal> {
    let settings = members.iter().map(|member| {
        let own = &member.load_balancer.settings;
        let parsed = Settings::of(own, class.allowed.as_ref())?;
        Ok(parsed.settings.over(&class.settings))
    });
    let settings: Vec<Settings> = settings.collect::<Result<_, Refusal>>()?;
    let Some(first) = settings.first() else {
        return Ok(Vec::new());
    };
    // Its targets go to target groups of others, of which only AWS knows anything.
    if !first.bound.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<Part<'_>> = members
        .iter()
        .zip(&settings)
        .map(|(member, settings)| Part {
            service: &member.load_balancer,
            settings,
            policy: member.placement.family_policy,
        })
        .collect();
    let found = stand_ins(first);
    let Outcome { desired, .. } = Desired::of(&nobody(), key, &parts, &found)?;
    let situation = Situation {
        nodes: Some(Arc::clone(nodes)),
        pods: Pods::of(members),
        successor_serves: true,
        prefix_lists: found.prefix_lists,
        reservation_waits: false,
    };
    let plan = plan::plan(&desired, &situation, observed);
    Ok([plan.calls, plan.cleanup].concat())
}

/// Takes the calls as made.
fn made(calls: &[Call], observed: &mut Observed) {
    let mut ids = Ids::default();
    for (number, call) in calls.iter().enumerate() {
        let id = call.makes().map(|name| {
            let id = format!("stand-in-{number}");
            ids.made.insert(name.to_owned(), id.clone());
            id
        });
        let answer = Answer {
            id,
            hostname: None,
            state: Some(LoadBalancerState::Active),
        };
        effect::apply(observed, call, &ids, &answer);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ballast_provider::{Protocol, Target};

    use super::super::tests::member;
    use super::*;
    use crate::desired::tests::WEB;

    fn targets(count: usize) -> TargetSet {
        let node = |number| Target {
            name: format!("node-{number}"),
            addresses: Vec::new(),
            provider_id: Some(format!("aws:///a/i-{number:04}")),
            labels: Arc::default(),
        };
        TargetSet {
            nodes: (0..count).map(node).collect(),
            ..TargetSet::default()
        }
    }

    fn counted(before: &[Member], after: &[Member]) -> BTreeMap<&'static str, usize> {
        let class = ClassSettings::default();
        let of = before.iter().chain(after).next();
        let key = Key::alone(&of.expect("a Service").load_balancer.id);
        let calls = calls(&key, before, after, &class, &targets(3)).expect("it is accepted");
        let mut all = BTreeMap::new();
        for call in calls {
            *all.entry(call.action()).or_default() += 1;
        }
        all
    }

    const TWO: &[(Protocol, u16, u16)] = &[WEB, (Protocol::Tcp, 443, 30_443)];

    #[test]
    fn a_new_service_takes_the_calls_of_the_planner() {
        let all = counted(&[], &[member(&[WEB], &[])]);
        assert_eq!(all.values().sum::<usize>(), 7, "{all:?}");
        assert_eq!(all["CreateLoadBalancer"], 1);
    }

    #[test]
    fn what_does_not_change_takes_no_call() {
        let one = || {
            [member(
                TWO,
                &[("attributes", "load_balancing.cross_zone.enabled=true")],
            )]
        };
        assert_eq!(counted(&one(), &one()), BTreeMap::new());
    }

    #[test]
    fn a_change_takes_only_what_differs() {
        let all = counted(&[member(&[WEB], &[])], &[member(TWO, &[])]);
        assert!(!all.contains_key("CreateLoadBalancer"), "{all:?}");
        assert_eq!(all["CreateListener"], 1, "{all:?}");
        let all = counted(&[member(TWO, &[])], &[member(&[WEB], &[])]);
        assert_eq!(
            (all["DeleteListener"], all["DeleteTargetGroup"]),
            (1, 1),
            "{all:?}"
        );
        // Another scheme is another load balancer.
        let public = [member(&[WEB], &[("scheme", "internet-facing")])];
        let all = counted(&[member(&[WEB], &[])], &public);
        assert_eq!(all["CreateLoadBalancer"], 1, "{all:?}");
        assert_eq!(all["DeleteLoadBalancer"], 1, "{all:?}");
    }

    #[test]
    fn a_deletion_deletes_everything() {
        let one = [member(&[WEB], &[])];
        let key = Key::alone(&one[0].load_balancer.id);
        let calls = deletion(&key, &one, &ClassSettings::default(), &targets(1));
        let actions: Vec<_> = calls.expect("accepted").iter().map(Call::action).collect();
        assert_eq!(
            actions,
            [
                "DeleteLoadBalancer",
                "DeleteTargetGroup",
                "DeleteSecurityGroup"
            ]
        );
    }
}
