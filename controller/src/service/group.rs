//! Services that share one balancer, and which of them gets a port that several want. Pure.
//!
//! The members of a balancer are the Services that have had a turn on it, and the Service
//! whose turn it is. So no Service is added before it has its finalizer. A member that is
//! refused, or is moving to another balancer, stays with what it publishes until its own
//! release. A member that is being deleted, or that asks for no load balancer any more, is
//! left out by the next turn of any member.
//!
//! A port belongs to the Service that publishes it. If several Services want a port that
//! nobody publishes, a member comes before a newcomer, and then the older one. A newcomer that
//! can have no place, and a member that the provider refuses, do not count.
//!
//! A member that publishes ports and of which nothing is accepted is [`Balancer::kept`]: its settings
//! have changed to something that the provider refuses, and a restarted process does not know the
//! former ones. What it has stays as it is, until it is accepted again, leaves or is deleted.
//!
//! One member must not harm the others. So each member is validated alone first. If the
//! balancer is then refused as a whole, there are [`Group::fallbacks`] with less of the others.

use std::collections::{BTreeSet, HashMap};

use ballast_provider::{Balancer, Key, LoadBalancer, Member, Protocol, Reason, Refusal, ServiceId};

use crate::cluster::ledger::Port;
use crate::cluster::view::ServiceView;

/// A Service that is on a balancer or wants to be.
#[derive(Clone, Debug)]
pub struct Sharer<'a> {
    /// Which.
    pub service: &'a ServiceView,
    /// How far it is.
    pub stage: Stage,
    /// What it asks for, if it asks for this balancer.
    pub wanted: Option<LoadBalancer>,
    /// The part that its status already publishes through this balancer.
    pub published: Option<LoadBalancer>,
    /// The ports that its status publishes through this balancer.
    pub ports: Vec<Port>,
}

/// How far a Service is on its way to a balancer. The earlier stages get ports first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It has had a turn on this balancer.
    Placed,
    /// The same, and it may publish through another balancer: this process does not know.
    Unclear,
    /// It has had no turn yet, and can have a place.
    Next,
    /// It has had a turn, publishes nothing, and the provider refuses it.
    Stuck,
}

/// The desired balancer, in the turn of one of its Services.
#[derive(Clone, Debug)]
pub struct Group {
    /// The balancer with its members.
    pub balancer: Balancer,
    /// The same with less of the other members, in this order, if the provider refuses it.
    pub fallbacks: Vec<Balancer>,
}

/// The Service whose turn it is is refused.
#[derive(Clone, Debug)]
pub struct Declined {
    /// Why.
    pub refusal: Refusal,
    /// The other Service may not get what it was preferred for.
    pub provisional: bool,
}

/// Makes and checks members. Both are pure.
pub struct Rules<'a> {
    /// Makes a member of a Service and its load balancer.
    pub member: &'a dyn Fn(&ServiceView, &LoadBalancer) -> Member,
    /// What the provider says of a balancer.
    pub validate: &'a dyn Fn(&Balancer) -> Result<(), Refusal>,
    /// Whether TCP and UDP of different Services exclude each other on one port.
    pub one_listener_per_port: bool,
    /// A copy of this cluster may use the same balancers ([`Balancer::deletes_nothing`]).
    pub deletes_nothing: bool,
}

/// What another Service may have on the balancer.
struct Part {
    /// All that it asks for.
    whole: Option<Member>,
    /// What it publishes.
    published: Option<Member>,
    /// Its name, if its status publishes ports: what it has stays where nothing of it is accepted.
    publisher: Option<ServiceId>,
}

/// How much of the others a choice has.
#[derive(Clone, Copy)]
enum Others {
    Whole,
    /// What they publish; a member that publishes nothing yet has all that it asks for.
    Published,
    OnlyPublished,
}

/// The balancer `key` in the turn of `own`, one of the sharers.
pub fn group(
    key: &Key,
    own: &ServiceView,
    mut sharers: Vec<Sharer<'_>>,
    rules: &Rules<'_>,
) -> Result<Group, Declined> {
    let age = |sharer: &Sharer<'_>| (sharer.service.created, sharer.service.id.uid.clone());
    let alone = |service: &ServiceView, shape: &LoadBalancer| {
        let member = (rules.member)(service, shape);
        let balancer = Balancer {
            key: key.clone(),
            members: vec![member.clone()],
            kept: BTreeSet::new(),
            deletes_nothing: false,
        };
        (rules.validate)(&balancer).map(|()| member)
    };
    sharers.sort_by_key(|sharer| (sharer.stage, age(sharer)));
    let slot = |port| rules.slot(port);
    let mut taken = published_ports(&sharers, slot);
    let (mut mine, mut others) = (None, Vec::new());
    for sharer in &sharers {
        let service = sharer.service;
        let is_own = service.id == own.id;
        let clash = sharer.clash(&taken, slot);
        let whole = match (&sharer.wanted, clash) {
            (Some(_), Some((port, winner))) if is_own => {
                return Err(Declined {
                    refusal: port_in_use(key, port, own, winner.service),
                    provisional: !winner.ports.iter().any(|it| slot(*it) == slot(port)),
                });
            }
            (Some(wanted), None) => match alone(service, wanted) {
                Err(refusal) if is_own => return Err(refusal.into()),
                checked => checked.ok(),
            },
            _ => None,
        };
        let published = match &sharer.published {
            Some(shape) if sharer.is_member() => match alone(service, shape) {
                Err(refusal) if is_own && whole.is_none() => return Err(refusal.into()),
                checked => checked.ok(),
            },
            _ => None,
        };
        let part = Part {
            whole,
            published,
            publisher: sharer.publishes().then(|| service.id.clone()),
        };
        for port in part.ports() {
            taken.entry(slot(port)).or_insert(sharer);
        }
        if is_own {
            mine = part
                .whole
                .or(part.published)
                .map(|member| (age(sharer), member));
        } else if sharer.is_member() {
            others.push((age(sharer), part));
        }
    }
    let Some(mine) = mine else {
        return Err(nothing_left(&own.id).into());
    };
    choices(key, &mine, &others, rules)
}

/// The ports that members publish.
fn published_ports<'a, 'b>(
    sharers: &'a [Sharer<'b>],
    slot: impl Fn(Port) -> Port,
) -> HashMap<Port, &'a Sharer<'b>> {
    let mut taken = HashMap::new();
    for sharer in sharers.iter().filter(|sharer| sharer.is_member()) {
        for port in &sharer.ports {
            taken.entry(slot(*port)).or_insert(sharer);
        }
    }
    taken
}

/// The choices that the provider does not refuse, most of the others first.
fn choices<A: Ord>(
    key: &Key,
    mine: &(A, Member),
    others: &[(A, Part)],
    rules: &Rules<'_>,
) -> Result<Group, Declined> {
    let with = |share: Others| {
        let mut members: Vec<(&A, &Member)> = (others.iter())
            .filter_map(|(age, part)| Some((age, part.of(share)?)))
            .collect();
        let kept = (others.iter()).filter_map(|(_, part)| part.kept(share));
        members.push((&mine.0, &mine.1));
        members.sort_by_key(|(age, _)| *age);
        Balancer {
            key: key.clone(),
            members: members.into_iter().map(|(_, it)| it.clone()).collect(),
            kept: kept.cloned().collect(),
            deletes_nothing: rules.deletes_nothing,
        }
    };
    let (mut choices, mut refused) = (Vec::new(), None);
    for share in [Others::Whole, Others::Published, Others::OnlyPublished] {
        let balancer = with(share);
        if choices.last() == Some(&balancer) {
            continue;
        }
        match (rules.validate)(&balancer) {
            Ok(()) => choices.push(balancer),
            Err(refusal) => refused = Some(refusal),
        }
    }
    let mut choices = choices.into_iter();
    match (choices.next(), refused) {
        (Some(balancer), _) => Ok(Group {
            balancer,
            fallbacks: choices.collect(),
        }),
        (None, Some(refusal)) => Err(refusal.into()),
        (None, None) => Err(nothing_left(&mine.1.load_balancer.id).into()),
    }
}

fn ports(wanted: &LoadBalancer) -> impl Iterator<Item = Port> {
    let listeners = wanted.listeners.iter();
    listeners.map(|listener| (listener.protocol, listener.port))
}

fn port_in_use(
    key: &Key,
    (protocol, port): Port,
    own: &ServiceView,
    winner: &ServiceView,
) -> Refusal {
    let name = match key {
        Key::Shared(name) | Key::Service(name) => name,
    };
    // The message must not name Services of other namespaces.
    let winner = if winner.id.namespace == own.id.namespace {
        format!("Service {}", winner.id)
    } else {
        "another Service".to_owned()
    };
    Refusal::new(
        Reason::PortInUse,
        format!(
            "port {port}/{protocol} of the shared load balancer \"{name}\" is already used by {winner}"
        ),
    )
}

/// The Service asks for nothing on this balancer and publishes nothing through it.
fn nothing_left(own: &ServiceId) -> Refusal {
    Refusal::new(
        Reason::Invalid,
        format!("Service {own} has nothing on this load balancer"),
    )
}

// === impl Rules ===

impl Rules<'_> {
    /// What only one Service can have of this port.
    const fn slot(&self, (protocol, port): Port) -> Port {
        if self.one_listener_per_port {
            (Protocol::Tcp, port)
        } else {
            (protocol, port)
        }
    }
}

// === impl Sharer ===

impl Sharer<'_> {
    /// Whether it is on the balancer. (The Service whose turn it is becomes a member anyway.)
    const fn is_member(&self) -> bool {
        matches!(self.stage, Stage::Placed | Stage::Unclear | Stage::Stuck)
    }

    /// Whether its status publishes ports through this balancer that it still has.
    const fn publishes(&self) -> bool {
        self.published.is_some() && !self.ports.is_empty()
    }

    /// The first port that it wants and another Service has.
    fn clash<'a, 'b>(
        &self,
        taken: &HashMap<Port, &'a Sharer<'b>>,
        slot: impl Fn(Port) -> Port,
    ) -> Option<(Port, &'a Sharer<'b>)> {
        let mut wanted = self.wanted.iter().flat_map(ports);
        wanted.find_map(|port| {
            let winner = taken.get(&slot(port))?;
            (winner.service.id != self.service.id).then_some((port, *winner))
        })
    }
}

// === impl Part ===

impl Part {
    fn of(&self, share: Others) -> Option<&Member> {
        let (whole, published) = (self.whole.as_ref(), self.published.as_ref());
        match share {
            Others::Whole => whole.or(published),
            Others::Published => published.or(whole),
            Others::OnlyPublished => published,
        }
    }

    /// The Service, if it keeps what it has because nothing of it is in this choice.
    fn kept(&self, share: Others) -> Option<&ServiceId> {
        self.publisher.as_ref().filter(|_| self.of(share).is_none())
    }

    fn ports(&self) -> Vec<Port> {
        let members = self.of(Others::Whole).into_iter();
        members.flat_map(|it| ports(&it.load_balancer)).collect()
    }
}

// === impl Declined ===

impl From<Refusal> for Declined {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            provisional: false,
        }
    }
}

#[cfg(test)]
mod tests;
