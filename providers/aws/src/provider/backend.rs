//! The group through which load balancers reach the nodes.
//!
//! ```text
//!  every NLB ── has ──▶ backend group ◀── one rule for all its traffic ── groups of the nodes
//! ```
//!
//! It is made with the first load balancer and deleted after the last. `opening` is held while it is
//! made, opened or deleted; a Service for which it is there does not wait for that.
//!
//! A rule that AWS refuses holds up no load balancer: the Services and the class say it, and
//! [`super::follow`] tries again. The same holds for a deletion that AWS refuses for long: no Service
//! waits for what it does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ballast_provider::ProviderError;
use ballast_provider::mark::{CLASS, CLUSTER, CLUSTER_NAME, SERVICE, SERVICE_UID};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::execute::error;
use super::records::LAG;
use super::{Inner, PATIENCE};
use crate::call::{Call, Ref};
use crate::client::values::{Filter, Instance, SecurityGroup, Tags};
use crate::client::{CallError, Cause, Client, Ids, Manner};
use crate::desired::{NAMES, Rule, Source, Traffic};
use crate::network::{self, NodeGroups};
use crate::rate::Urgency;

mod close;
mod foresee;

/// The time between two tries to let load balancers in, if AWS has refused it.
const REOPEN: Duration = Duration::from_mins(1);
/// So many failures in a row are said, also if nobody knows whether the rules are there.
const DOUBTS: u32 = 3;
/// The time between two tries to delete the group: network interfaces of a load balancer stay for about
/// a minute after it.
pub(super) const CLOSING: Duration = Duration::from_secs(20);
/// A Service waits for so many of them. One more means that something else uses the group.
const PATIENT: u32 = 9;
/// A Service that cannot be made wants the group in each of its turns, and has nothing meanwhile.
const UNUSED: Duration = Duration::from_mins(10);

/// AWS's codes for a security group that does not exist: Elastic Load Balancing's and EC2's.
const UNKNOWN: [&str; 2] = ["InvalidSecurityGroup", "InvalidGroup.NotFound"];

/// The group, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Backend {
    /// Its ID, if it exists.
    id: Option<String>,
    /// The ID that it had, while nobody knows whether it is there.
    former: Option<String>,
    /// It may exist although its ID is not known: its creation or deletion had no answer, or AWS did not
    /// know its ID.
    tried: bool,
    /// The groups of nodes that have its rule; `None`: nobody knows.
    open: Option<BTreeSet<String>>,
    /// The tags of the groups of nodes with several groups.
    tags: BTreeMap<String, Tags>,
    /// Groups of nodes that cannot be told apart.
    ambiguous: BTreeSet<String>,
    /// Load balancers may not reach nodes.
    shut: Option<Shut>,
    /// When a Service asked for it last.
    wanted: Option<Instant>,
    /// When this process made or deleted it last: lists may lag behind that.
    changed: Option<Instant>,
    /// It is being deleted: groups of nodes may have lost its rule.
    closing: bool,
    /// How often AWS has refused to delete it, and why.
    stuck: Option<(u32, String)>,
}

/// Load balancers may not reach nodes.
#[derive(Debug)]
struct Shut {
    why: String,
    /// AWS has refused a rule. Otherwise nobody knows whether it is there.
    certain: bool,
    /// Failures in a row.
    times: u32,
    /// When to try again.
    again: Instant,
}

/// How a try to delete the group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It is gone, or a Service needs it.
    Done,
    /// A Service waits so long for it.
    Later(Duration),
    /// Something else uses it; no Service waits for it.
    Stuck,
}

// === impl Shut ===

impl Shut {
    /// A cloud that does not answer for a moment changes nothing.
    const fn counts(&self) -> bool {
        self.certain || self.times >= DOUBTS
    }
}

// === impl Backend ===

impl Backend {
    pub(super) fn known(id: Option<String>) -> Self {
        Self {
            id,
            ..Self::default()
        }
    }

    pub(super) fn id(&self) -> Option<String> {
        self.id.clone()
    }

    /// Its ID, or the one that it had.
    pub(super) fn last_id(&self) -> Option<String> {
        self.id.clone().or_else(|| self.former.clone())
    }

    /// It exists, or nobody knows whether it does.
    pub(super) const fn may_exist(&self) -> bool {
        self.id.is_some() || self.tried
    }

    /// Somebody may have changed the groups of nodes.
    pub(super) fn doubt(&mut self) {
        self.open = None;
        self.tags.clear();
    }

    /// A rule that AWS has refused is tried at the next look.
    pub(super) fn hurry(&mut self) {
        if let Some(shut) = &mut self.shut {
            shut.again = Instant::now();
        }
    }

    /// Whether it may be deleted if no Service has anything.
    pub(super) fn is_unused(&self, now: Instant) -> bool {
        let wanted = |at: Instant| now.saturating_duration_since(at) < UNUSED;
        self.may_exist() && (self.closing || !self.wanted.is_some_and(wanted))
    }

    /// AWS does not know it any more, or nobody knows whether it is there. Whoever wants it makes it: if
    /// it exists all the same, AWS says so, and it is found by its name.
    pub(super) fn lose(&mut self) {
        self.former = self.id.take().or_else(|| self.former.take());
        self.tried = true;
        self.open = None;
    }

    /// What a list says that was begun when its ID was `before`. What has changed since, or shortly before,
    /// is newer. True if it differs.
    pub(super) fn compare(
        &mut self,
        found: Option<&str>,
        before: Option<&str>,
        begun: Instant,
    ) -> bool {
        let newer = self.changed.is_some_and(|at| begun < at + LAG);
        if newer || self.id.as_deref() != before || self.id.as_deref() == found {
            return false;
        }
        self.lose();
        self.id = found.map(str::to_owned);
        true
    }

    /// AWS refuses something of a load balancer. The group may be what it does not know.
    pub(super) fn blame(&mut self, why: &CallError) {
        let names = |id: &String| why.message.contains(id) || !why.message.contains("sg-");
        if UNKNOWN.contains(&why.code.as_str()) && self.id.as_ref().is_some_and(names) {
            info!(id = ?self.id, "AWS does not know the security group of this class any more");
            self.lose();
        }
    }

    fn is_shut(&self, now: Instant) -> bool {
        self.shut.as_ref().is_some_and(|shut| shut.again > now)
    }

    fn close(&mut self) {
        *self = Self {
            wanted: self.wanted,
            changed: self.changed,
            ..Self::default()
        };
    }

    /// Load balancers could not be let in.
    fn shut(&mut self, why: String, certain: bool) {
        let again = Instant::now() + REOPEN;
        let times = self.shut.as_ref().map_or(0, |shut| shut.times);
        let times = times.saturating_add(1);
        if let Some(shut) = self.shut.as_mut().filter(|shut| shut.counts() && !certain) {
            // What is known stays said while nobody knows more.
            shut.times = times;
            shut.again = again;
            return;
        }
        let before = self.shut.as_ref();
        let said = before.is_some_and(|shut| shut.counts() && shut.why == why);
        let shut = Shut {
            why,
            certain,
            times,
            again,
        };
        if shut.counts() && !said {
            warn!("{}", shut.why);
        }
        self.shut = Some(shut);
    }

    /// Whether AWS refuses for so long to delete it that something else must use it.
    fn is_stuck(&self) -> bool {
        self.stuck
            .as_ref()
            .is_some_and(|(times, _)| *times > PATIENT)
    }

    /// AWS refuses to delete it.
    fn refused(&mut self, why: String) {
        let said = self.is_stuck() && self.stuck.as_ref().is_some_and(|(_, it)| *it == why);
        let times = self.stuck.as_ref().map_or(0, |(times, _)| *times);
        self.stuck = Some((times.saturating_add(1), why));
        if let Some((_, why)) = self.stuck.as_ref().filter(|_| self.is_stuck() && !said) {
            warn!("{why}");
        }
    }

    /// What is wrong with it, for whoever runs the cluster.
    fn remarks(&self) -> Vec<String> {
        let shut = self.shut.as_ref().filter(|shut| shut.counts());
        let stuck = self.stuck.as_ref().filter(|_| self.is_stuck());
        let shut = shut.map(|shut| shut.why.clone());
        shut.into_iter()
            .chain(stuck.map(|(_, why)| why.clone()))
            .collect()
    }
}

// === impl Inner ===

impl Inner {
    pub(super) fn backend_name(&self) -> String {
        self.mark.name_of(NAMES, "backend")
    }

    /// The group, which is made if it does not exist.
    pub(super) async fn backend_group(&self, client: &Client) -> Result<String, ProviderError> {
        {
            let backend = &mut self.network().backend;
            backend.wanted = Some(Instant::now());
            if let Some(id) = backend.id.as_ref().filter(|_| !backend.closing) {
                return Ok(id.clone());
            }
        }
        let vpc = self.vpc(client).await?;
        let _opening = self.opening.lock().await;
        let present = self.network().backend.id();
        let id = match present {
            Some(id) => id,
            None => self.make_backend_group(client, &vpc).await?,
        };
        {
            let backend = &mut self.network().backend;
            backend.id = Some(id.clone());
            backend.closing = false;
            backend.stuck = None;
        }
        if let Err(why) = self.open_nodes(client, Urgency::Service).await {
            debug!(error = %why, "cannot let load balancers in yet");
        }
        Ok(id)
    }

    async fn make_backend_group(
        &self,
        client: &Client,
        vpc: &str,
    ) -> Result<String, ProviderError> {
        let call = Call::CreateSecurityGroup {
            name: self.backend_name(),
            tags: self.class_tags(),
        };
        let ids = Ids {
            vpc: vpc.to_owned(),
            ..Ids::default()
        };
        // Whoever waits for the answer may be dropped.
        let tried = {
            let backend = &mut self.network().backend;
            backend.changed = Some(Instant::now());
            std::mem::replace(&mut backend.tried, true)
        };
        match client.call(&call, &ids, Urgency::Service, PATIENCE).await {
            Ok(answer) => {
                let backend = &mut self.network().backend;
                backend.tried = tried;
                backend.changed = Some(Instant::now());
                backend.open = Some(BTreeSet::new());
                Ok(answer.id.unwrap_or_default())
            }
            Err(why) if why.cause == Cause::Duplicate => {
                self.network().backend.open = None;
                // It is older than the lists that did not show it, and may have a tag.
                self.targets().unsettle();
                self.own_backend_group(client, vpc).await
            }
            Err(why) => {
                self.network().backend.tried = tried || why.cause.uncertain();
                Err(error(&why))
            }
        }
    }

    async fn own_backend_group(&self, client: &Client, vpc: &str) -> Result<String, ProviderError> {
        let found = self.listed_backend_group(client, vpc).await?;
        // It was deleted a moment ago.
        found.ok_or_else(|| {
            ProviderError::transient(format!(
                "the security group {} exists, and AWS does not list it yet",
                self.backend_name()
            ))
        })
    }

    /// The ID of the group with its name, if there is one. It must be Ballast's.
    async fn listed_backend_group(
        &self,
        client: &Client,
        vpc: &str,
    ) -> Result<Option<String>, ProviderError> {
        let name = self.backend_name();
        let filters = [
            Filter::new("vpc-id", [vpc]),
            Filter::new("group-name", [name.as_str()]),
        ];
        let found = client
            .security_groups(&filters, Manner::new(Urgency::Service, PATIENCE))
            .await
            .map_err(|why| error(&why))?;
        let mine = found.iter().find(|one| self.mark.owns(&one.tags));
        match (mine, found.first()) {
            (Some(mine), _) => Ok(Some(mine.id.clone())),
            (None, Some(foreign)) => Err(ProviderError::transient(format!(
                "the security group {} has the name {name} that this class needs, and not Ballast's tags of this cluster and class. Ballast does not touch it: delete it, or give it its tags back",
                foreign.id
            ))),
            (None, None) => Ok(None),
        }
    }

    /// Lets load balancers in: one rule in each group of nodes. The caller holds `opening`.
    pub(super) async fn open_nodes(
        &self,
        client: &Client,
        urgency: Urgency,
    ) -> Result<(), ProviderError> {
        let Some(id) = self.network().backend.id() else {
            return Ok(());
        };
        let mut refused = BTreeSet::new();
        let ended = self.open_each(client, &id, urgency, &mut refused).await;
        let backend = &mut self.network().backend;
        let why = match ended {
            Ok(()) => {
                backend.shut = None;
                return Ok(());
            }
            // It is no fault, and ends by itself.
            Err(why @ ProviderError::Throttled { .. }) => return Err(why),
            Err(why) => why,
        };
        let groups: Vec<String> = refused.into_iter().collect();
        let says = if groups.is_empty() {
            format!("Load balancers may not reach nodes: {why}")
        } else {
            format!(
                "Load balancers do not reach nodes with the security groups {}, because the rule that lets {id} in is missing: {why}",
                groups.join(", ")
            )
        };
        backend.shut(says, !groups.is_empty());
        Err(why)
    }

    /// Adds the rules that are missing. `refused`: the groups for which AWS refuses it.
    async fn open_each(
        &self,
        client: &Client,
        backend: &str,
        urgency: Urgency,
        refused: &mut BTreeSet<String>,
    ) -> Result<(), ProviderError> {
        self.learn_instances(client, urgency).await?;
        let groups = self.groups_of_nodes(client, urgency).await;
        let groups = groups.map_err(|why| error(&why))?;
        let known = self.network().backend.open.take();
        let mut open = match known {
            Some(open) => open,
            None => self
                .groups_with_rule(client, backend, urgency)
                .await
                .map_err(|why| error(&why))?,
        };
        let closed: Vec<String> = groups.difference(&open).cloned().collect();
        let mut failed = Ok(());
        let mut certain = true;
        for group in closed {
            let call = Call::AuthorizeSecurityGroupIngress {
                security_group: Ref::Known(group.clone()),
                rules: BTreeSet::from([from_backend(backend)]),
            };
            match client.call(&call, &Ids::default(), urgency, PATIENCE).await {
                Ok(_) => info!(group, "load balancers may reach the nodes of this group"),
                Err(why) if why.cause == Cause::Duplicate => {}
                // A group that AWS refuses holds up no other.
                Err(why) => {
                    self.network().backend.blame(&why);
                    let throttled = matches!(why.cause, Cause::Throttled { .. });
                    if why.cause.uncertain() {
                        certain = false;
                    } else if !throttled {
                        refused.insert(group);
                    }
                    if failed.is_ok() || !throttled {
                        failed = Err(error(&why));
                    }
                    continue;
                }
            }
            open.insert(group);
        }
        let mut network = self.network();
        if certain && network.backend.id.as_deref() == Some(backend) {
            network.backend.open = Some(open);
        }
        failed
    }

    /// The groups of nodes that get the rule.
    async fn groups_of_nodes(
        &self,
        client: &Client,
        urgency: Urgency,
    ) -> Result<BTreeSet<String>, CallError> {
        let (instances, clusters, known) = {
            let network = self.network();
            let instances: Vec<Instance> = network.instances.values().cloned().collect();
            (instances, network.clusters(), network.backend.tags.clone())
        };
        let choose =
            |tags: &BTreeMap<String, Tags>| network::node_groups(&instances, &clusters, Some(tags));
        let mut groups: NodeGroups = choose(&known);
        let new = |id: &&String| !known.contains_key(*id);
        let new: Vec<String> = groups.ambiguous.iter().filter(new).cloned().collect();
        if !new.is_empty() {
            let filters = [Filter::new("group-id", new.iter().cloned())];
            let manner = Manner::new(urgency, PATIENCE);
            let found = client.security_groups(&filters, manner).await?;
            let found = found.into_iter().map(|one| (one.id, one.tags));
            // One that AWS does not list is not asked for again.
            let new = new.into_iter().map(|id| (id, Tags::new()));
            let tags: BTreeMap<String, Tags> = known.into_iter().chain(new).chain(found).collect();
            groups = choose(&tags);
            self.network().backend.tags = tags;
        }
        let backend = &mut self.network().backend;
        if groups.ambiguous != backend.ambiguous && !groups.ambiguous.is_empty() {
            warn!(groups = ?groups.ambiguous, "cannot tell which security group of the nodes lets load balancers in");
        }
        backend.ambiguous = groups.ambiguous;
        Ok(groups.chosen)
    }

    /// The groups that have the rule of the backend group.
    async fn groups_with_rule(
        &self,
        client: &Client,
        backend: &str,
        urgency: Urgency,
    ) -> Result<BTreeSet<String>, CallError> {
        let rule = from_backend(backend);
        let found = groups_that_name(client, backend, urgency).await?;
        let with = found.into_iter().filter(|one| one.rules.contains(&rule));
        Ok(with.map(|one| one.id).collect())
    }

    /// Looks at nodes that came since, and lets load balancers reach them.
    pub(super) async fn look_at_new_nodes(&self, client: &Client) -> Result<(), ProviderError> {
        let waits = {
            let backend = &self.network().backend;
            backend.id.is_none() || backend.closing || backend.is_shut(Instant::now())
        };
        // A group that no Service needs is deleted soon.
        if waits || self.records.cells().is_empty() {
            return Ok(());
        }
        let _opening = self.opening.lock().await;
        if self.network().backend.closing {
            return Ok(());
        }
        self.open_nodes(client, Urgency::Background).await
    }

    /// The tags of what serves the whole class.
    fn class_tags(&self) -> BTreeMap<String, String> {
        let mut tags = self.class.settings.tags.clone();
        tags.insert(CLUSTER.into(), self.mark.cluster.clone());
        tags.insert(CLUSTER_NAME.into(), self.mark.cluster_name.clone());
        tags.insert(CLASS.into(), self.mark.class.clone());
        tags.remove(SERVICE);
        tags.remove(SERVICE_UID);
        tags
    }

    /// What people must do so that load balancers reach the nodes.
    pub(super) fn remarks_on_nodes(&self) -> Vec<String> {
        let network = self.network();
        let Backend {
            id,
            ambiguous,
            shut,
            ..
        } = &network.backend;
        let shut = shut.as_ref().filter(|shut| shut.counts());
        let mut remarks: Vec<String> = shut.map(|shut| shut.why.clone()).into_iter().collect();
        if !ambiguous.is_empty() {
            let groups: Vec<&str> = ambiguous.iter().map(String::as_str).collect();
            let clusters: Vec<String> = network.clusters().into_iter().collect();
            remarks.push(format!(
                "Nodes have the security groups {}, and not exactly one of them has the tag kubernetes.io/cluster/{}. Tag the one that lets load balancers in, or let in {}",
                groups.join(", "),
                clusters.first().map_or("NAME", String::as_str),
                id.as_deref().unwrap_or("the backend group"),
            ));
        }
        remarks
    }

    /// What people must do for the class.
    pub(super) fn remarks_on_class(&self) -> Vec<String> {
        self.network().backend.remarks()
    }
}

async fn groups_that_name(
    client: &Client,
    group: &str,
    urgency: Urgency,
) -> Result<Vec<SecurityGroup>, CallError> {
    let filters = [Filter::new("ip-permission.group-id", [group])];
    let manner = Manner::new(urgency, PATIENCE);
    client.security_groups(&filters, manner).await
}

/// All traffic of load balancers.
fn from_backend(backend: &str) -> Rule {
    Rule {
        traffic: Traffic::All,
        source: Source::Group(backend.to_owned()),
    }
}
