//! Converts the domain model to the mock cloud's wire format and back. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ballast_provider::mark::{self, digest};
use ballast_provider::{
    Family, FamilyPolicy, IpMode, Key, Mark, Member, Observed, Reason, Refusal, ServiceId, State,
};

use super::client::reason;
use super::remarks::{self, SHARE_KEY};
use crate::api::{
    self, Desired, LifecycleState, Listener, LoadBalancerView, Target, TargetSetBody,
};

/// The time between two checks. The stream of changes usually reports earlier.
const SAFETY_RETRY: Duration = Duration::from_mins(1);

/// The maximum number of addresses in [`REPLACED`]: a tag has at most 256 bytes.
const NAMED: usize = 4;

/// Far longer than a list takes.
const LATER: Duration = Duration::from_secs(1);

/// The tag with the addresses that the Service published when its load balancer was created,
/// and that it could not get because nodes have them. It keeps the reason for the owner.
pub(super) const REPLACED: &str = "ballast.dev/replaced-addresses";

/// The tags that this provider sets and compares. Other tags do not concern it.
const OWN_TAGS: [&str; 6] = [
    mark::CLUSTER,
    mark::CLUSTER_NAME,
    mark::CLASS,
    mark::SERVICE,
    mark::SERVICE_UID,
    mark::RETAINED,
];

/// The name of a Service's load balancer in the cloud.
pub(super) fn name_of(mark: &Mark, id: &ServiceId) -> String {
    mark.name("bl", &Key::alone(id))
}

/// The name of the class's one target set.
pub(super) fn target_set_name(mark: &Mark) -> String {
    mark.name_of("ts", "nodes")
}

/// The desired state of a Service's load balancer.
pub(super) fn desired(mark: &Mark, member: &Member) -> Desired {
    let load_balancer = &member.load_balancer;
    Desired {
        listeners: load_balancer.listeners.iter().map(Listener::from).collect(),
        families: load_balancer
            .families
            .iter()
            .map(|family| (*family).into())
            .collect(),
        any_family: load_balancer.families.len() > 1
            && member.placement.family_policy == FamilyPolicy::PreferDualStack,
        traffic_policy: load_balancer.traffic_policy.into(),
        affinity: load_balancer.affinity.into(),
        source_ranges: load_balancer.source_ranges.clone(),
        target_set: target_set_name(mark),
        requested_addresses: load_balancer.requested_addresses.clone(),
        tags: mark.tags(&load_balancer.id),
    }
}

/// The tags that say when something happened or what people wish. They stay in every change.
pub(super) fn notes(tags: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let notes = tags.iter();
    let notes = notes.filter(|(key, _)| mark::NOTES.contains(&key.as_str()));
    notes
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Equal for equal desired states, whatever other tags the object has.
pub(super) fn fingerprint(desired: &Desired) -> String {
    let mut own = desired.clone();
    own.tags.retain(|key, _| OWN_TAGS.contains(&key.as_str()));
    // Plain values with string keys can always be serialised.
    let text = serde_json::to_string(&own).unwrap_or_default();
    digest([text.as_str()])
}

/// The class's target set.
pub(super) fn target_set(
    mark: &Mark,
    nodes: &BTreeSet<ballast_provider::Target>,
    node_addresses: &BTreeSet<IpAddr>,
) -> TargetSetBody {
    let tags = [
        (mark::CLUSTER, &mark.cluster),
        (mark::CLUSTER_NAME, &mark.cluster_name),
        (mark::CLASS, &mark.class),
    ];
    let own = |(key, value): (&str, &String)| (key.to_owned(), value.clone());
    TargetSetBody {
        targets: nodes.iter().map(Target::from).collect(),
        node_addresses: node_addresses.clone(),
        tags: tags.into_iter().map(own).collect::<BTreeMap<_, _>>(),
    }
}

/// What the controller sees of a load balancer. `nodes` are the addresses of all nodes.
pub(super) fn observed(
    member: &Member,
    view: &LoadBalancerView,
    nodes: &BTreeSet<IpAddr>,
) -> Observed {
    let wanted = &member.load_balancer;
    let ingress = wanted.ingress(view.addresses.iter().copied(), IpMode::Proxy);
    let pending = |reason, message: &str| State::Pending {
        reason,
        message: message.to_owned(),
        retry_after: Some(SAFETY_RETRY),
    };
    let state = match (view.state, &view.problem) {
        (LifecycleState::Active, _) => State::Programmed,
        (LifecycleState::Provisioning, Some(problem)) => {
            pending(reason(problem.code), &problem.message)
        }
        (LifecycleState::Provisioning, None) => pending(
            Reason::Provisioning,
            "the mock cloud is provisioning the load balancer",
        ),
        (LifecycleState::Deleting, _) => return going(),
    };
    let mut observed = Observed::new(ingress, state);
    let shares = member.load_balancer.share_key.is_some();
    observed.remarks = remarks::of(member, if shares { &[SHARE_KEY] } else { &[] });
    observed.remarks.extend(missing(view));
    for address in replaced(view) {
        let what = format!("{address} in the status cannot be used: it is the address of a node");
        // First an objection, which causes an event, and then only a remark as soon as the
        // status has the new address.
        if member.published.contains(&address) {
            object(&mut observed, Refusal::new(Reason::AddressInUse, what));
        } else {
            observed.remarks.push(what);
        }
    }
    for address in view.addresses.iter().filter(|ip| nodes.contains(ip)) {
        let what = format!(
            "{address} is also the address of a node; the Service keeps it (to move the Service, request another address)"
        );
        object(&mut observed, Refusal::new(Reason::AddressInUse, what));
    }
    observed
}

/// Adds an objection to those that are there.
pub(super) fn object(observed: &mut Observed, objection: Refusal) {
    observed.objection = Some(match observed.objection.take() {
        None => objection,
        Some(first) => {
            let both = format!("{}; {}", first.message, objection.message);
            Refusal::new(first.reason, both)
        }
    });
}

/// The value of [`REPLACED`] for a load balancer that is created or gets a missing address;
/// `None` if no node has a published address.
pub(super) fn replaces(
    member: &Member,
    present: Option<&LoadBalancerView>,
    nodes: &BTreeSet<IpAddr>,
) -> Option<String> {
    let wanted = &member.load_balancer;
    let has = |ip: &IpAddr| present.is_some_and(|view| view.addresses.contains(ip));
    let published = member
        .published
        .iter()
        .filter(|ip| nodes.contains(ip) && !has(ip) && wanted.families.contains(&Family::of(**ip)));
    let named: Vec<String> = published.take(NAMED).map(IpAddr::to_string).collect();
    (!named.is_empty()).then(|| named.join(","))
}

/// The addresses of [`REPLACED`].
fn replaced(view: &LoadBalancerView) -> Vec<IpAddr> {
    let value = view.desired.tags.get(REPLACED);
    let texts = value.into_iter().flat_map(|value| value.split(','));
    let addresses = texts.filter_map(|text| text.parse().ok());
    addresses.take(NAMED).collect()
}

/// The families that should have an address and have none.
fn missing(view: &LoadBalancerView) -> Vec<String> {
    let has = |family: api::Family| {
        let mut addresses = view.addresses.iter();
        addresses.any(|ip| api::Family::of(*ip) == family)
    };
    let families = view.desired.families.iter();
    families
        .filter(|family| !has(**family))
        .map(|family| {
            format!(
                "no {family} address: the mock cloud has none available; Ballast tries again when the cloud restarts or the Service changes"
            )
        })
        .collect()
}

/// Whether it lacks an address that it should have.
pub(super) fn lacks_address(view: &LoadBalancerView) -> bool {
    view.addresses.len() < view.desired.families.len()
}

/// The load balancer cannot be put yet; the controller retries after a moment.
pub(super) fn later() -> Observed {
    Observed::new(
        Vec::new(),
        State::Pending {
            reason: Reason::Provisioning,
            message: "the mock cloud has restarted; Ballast is comparing its state".to_owned(),
            retry_after: Some(LATER),
        },
    )
}

/// The previous load balancer of the same Service is still being deleted.
pub(super) fn going() -> Observed {
    Observed::new(
        Vec::new(),
        State::Pending {
            reason: Reason::Releasing,
            message: "the Service's former load balancer is still being deleted".to_owned(),
            retry_after: Some(SAFETY_RETRY),
        },
    )
}
