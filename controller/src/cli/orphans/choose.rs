//! Which load balancers a deletion may concern, as far as tags say. Pure. Just before each deletion
//! [`super::sweep`] reads what may have changed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::report::{Cluster, Item, Live, Report, State};

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// The cluster, by name or UID.
    pub cluster: Option<&'a str>,
    /// Signs of life do not matter.
    pub force_live: bool,
    /// Only what the current cluster has: its Services were read.
    pub compare: bool,
}

/// What will be deleted, if it does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The cluster that it belonged to.
    pub cluster: Cluster,
    /// What is deleted.
    pub items: Vec<Item>,
    /// What stays.
    pub stays: Vec<Item>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Several clusters are meant.
    #[error("{0}: several clusters are meant; choose one with --cluster: {1}")]
    Several(String, String),
    /// The cluster gives signs of life.
    #[error(
        "cluster {0} has given a sign of life at {1:.0} and may exist; nothing was deleted. Delete it first, or wait for --not-seen-for, or say --force-live if you know that it is gone"
    )]
    Alive(String, Timestamp),
    /// The kubeconfig reaches another cluster.
    #[error(
        "cluster {0} is not the one that --compare has read; nothing was deleted. Check the kubeconfig and its context"
    )]
    NotCurrent(String),
    /// Nothing of the cluster has ever had a sign of life.
    #[error(
        "nothing of cluster {0} has a sign of life in its tags: a controller of an older version made it, or somebody removed the tags. Nothing was deleted. Say --force-live if you know that the cluster is gone"
    )]
    NeverSeen(String),
    /// What has no Service in the current cluster gives signs of life.
    #[error(
        "{0} load balancers have no Service in cluster {1}, and somebody has given a sign of life on them recently: they have lost their Service only now, or a copy of the cluster has it. Wait for --not-seen-for, or say --force-live if you know that nothing uses them"
    )]
    Fresh(usize, String),
}

/// Whether a sign of life says that a cluster exists.
pub fn is_alive(last_seen: Option<Timestamp>, not_seen_for: Duration, now: Timestamp) -> bool {
    let limit = SignedDuration::try_from(not_seen_for).unwrap_or(SignedDuration::MAX);
    last_seen.is_some_and(|at| now.duration_since(at) < limit)
}

/// The plan for one cloud; `None` if there is nothing to delete.
pub fn choose(report: &Report, choice: &Choice<'_>) -> Result<Option<Plan>, ChoiceError> {
    let named = |one: &&Cluster| choice.cluster.is_none_or(|wanted| one.is_called(wanted));
    let mut clusters: Vec<&Cluster> = report.clusters.iter().filter(named).collect();
    if choice.compare {
        if let Some(other) = clusters.iter().find(|one| !one.is_current)
            && choice.cluster.is_some()
        {
            return Err(ChoiceError::NotCurrent(other.called().to_owned()));
        }
        clusters.retain(|one| one.is_current);
    } else if choice.cluster.is_none() && !choice.force_live {
        // Nobody means those that exist.
        clusters.retain(|one| !one.is_alive);
    }
    clusters.retain(|one| one.items.iter().any(|item| may_go(item, true)));
    let cluster = match clusters[..] {
        [] => return Ok(None),
        [one] => one,
        _ => {
            let uids = clusters.iter().map(|one| one.uid.as_str());
            let uids: Vec<&str> = uids.collect();
            let account = report.account.clone();
            return Err(ChoiceError::Several(account, uids.join(", ")));
        }
    };
    let called = || cluster.called().to_owned();
    if let Some(at) = cluster.last_seen
        && cluster.is_alive
        && !cluster.is_current
        && !choice.force_live
    {
        return Err(ChoiceError::Alive(called(), at));
    }
    if cluster.last_seen.is_none() && !cluster.is_current && !choice.force_live {
        return Err(ChoiceError::NeverSeen(called()));
    }
    let (items, stays): (Vec<Item>, Vec<Item>) = cluster
        .items
        .iter()
        .cloned()
        .partition(|item| may_go(item, choice.force_live));
    if items.is_empty() {
        return Err(ChoiceError::Fresh(stays.len(), called()));
    }
    Ok(Some(Plan {
        cluster: cluster.clone(),
        items,
        stays,
    }))
}

// === impl Plan ===

impl Plan {
    /// Without what has a Service now. `None`: nothing is left.
    pub fn without(&self, live: &Live) -> Option<Self> {
        let exists = |item: &Item| {
            let mut services = item.services.iter();
            services.any(|id| live.services.contains(&*id.uid))
        };
        let (stays, items): (Vec<Item>, Vec<Item>) =
            self.items.iter().cloned().partition(|item| exists(item));
        (!items.is_empty()).then(|| Self {
            cluster: self.cluster.clone(),
            items,
            stays: [self.stays.clone(), stays].concat(),
        })
    }
}

fn may_go(item: &Item, force_live: bool) -> bool {
    match item.state {
        State::Gone => true,
        State::NoService => force_live || !item.is_fresh,
        State::Alive => force_live,
        State::InUse | State::Retained | State::Kept | State::Unnamed => false,
    }
}
