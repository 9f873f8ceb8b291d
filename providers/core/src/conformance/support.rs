//! What a provider says that it does with each field is what it does, and a request that it
//! cannot meet blocks nothing else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::fields::{Field, Support};
use super::fixtures;
use super::run::{PATIENCE, Run, addresses, stable};
use super::{Failure, Lab, Object, Outcome};
use crate::error::{ProviderError, Refusal};
use crate::model::{Address, Balancer, Family, FamilyPolicy, IpMode, Member};
use crate::provider::{Observed, Provider, Removal};

/// An address that no cloud has (RFC 5737).
const OUTSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 77));

/// What a provider made of a Service, without what may differ between two clouds.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    answer: Result<Said, Refusal>,
    contents: BTreeMap<String, (usize, Object)>,
}

/// What it says about the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    families: Vec<Family>,
    /// Host names that it has instead of addresses.
    names: usize,
    ports: Vec<Vec<crate::PortStatus>>,
    vip: bool,
    objection: Option<Refusal>,
    remarks: Vec<String>,
    /// It has the address that it asked for.
    has_wanted: bool,
    /// It has an address of the other Service.
    shares: bool,
}

pub(super) async fn every_field_is_honoured_or_named(lab: &dyn Lab) -> Outcome {
    let check = "every_field_is_honoured_or_named";
    for field in lab.fields() {
        let support = lab.support(field);
        let run = Run::new(lab, check).await;
        if field == Field::Created && support == Support::Honoured {
            the_oldest_is_served_first(&run).await?;
            continue;
        }
        let base = see(&run, lab, field, false).await?;
        let run = Run::new(lab, check).await;
        let changed = see(&run, lab, field, true).await?;
        if let Err(wrong) = judge(field, support, &base, &changed) {
            return run.fail(format!(
                "{field} ({support:?}) {wrong}: {base:?} becomes {changed:?}"
            ));
        }
    }
    let run = Run::new(lab, check).await;
    pods_are_asked_for_where_they_are_targets(&run, lab).await
}

/// Why the answers do not fit what the provider says about the field.
fn judge(field: Field, support: Support, base: &Seen, changed: &Seen) -> Result<(), &'static str> {
    let said = match (&changed.answer, support) {
        (Err(refusal), Support::Refused(reason)) if refusal.reason == reason => return Ok(()),
        (Err(_), _) => return Err("is refused"),
        (Ok(said), _) => said,
    };
    let refused = said.objection.as_ref().map(|objection| objection.reason);
    match support {
        Support::Refused(reason) if refused == Some(reason) => Ok(()),
        Support::Refused(_) => Err("is not refused"),
        _ if refused.is_some() => Err("gets an objection"),
        Support::Honoured => honoured(field, base, changed, said),
        Support::Remark => {
            let before = base.answer.as_ref().map_or(0, |said| said.remarks.len());
            if said.remarks.len() > before {
                Ok(())
            } else {
                Err("gets no remark")
            }
        }
        Support::Nodes if !field.is_for_nodes() => Err("is nothing that nodes implement"),
        Support::Nodes if !said.vip => Err("is for the nodes, but the mode is not VIP"),
        // Nobody can assign a name again: the cloud makes it.
        Support::Unused if !(field.is_fact() || field == Field::Published && said.names > 0) => {
            Err("is a request")
        }
        Support::Unused if base != changed => Err("is used"),
        Support::Nodes | Support::Unused => Ok(()),
    }
}

fn honoured(field: Field, base: &Seen, changed: &Seen, said: &Said) -> Result<(), &'static str> {
    let met = match field {
        Field::RequestedAddresses | Field::Published => said.has_wanted,
        Field::ShareKey => said.shares,
        // A cloud with both families gives both, whatever the policy. Behind a name
        // the families do not show; `wishes.rs` asks for `RequireDualStack`.
        Field::FamilyPolicy if said.families.len() == 2 || said.names > 0 => true,
        _ => base != changed,
    };
    if met { Ok(()) } else { Err("is ignored") }
}

/// Runs one Service through a new cloud, before or after the change of one field.
async fn see(run: &Run, lab: &dyn Lab, field: Field, change: bool) -> Result<Seen, Failure> {
    let provider = run.start(&[]).await?;
    let mut member = if change {
        field.changed()
    } else {
        field.base()
    };
    let targets = if change {
        field.changed_targets()
    } else {
        Field::base_targets()
    };
    run.retarget(&provider, &targets, &[]).await?;
    let mut wanted = None;
    let mut others = Vec::new();
    match field {
        Field::RequestedAddresses | Field::Published => {
            wanted = Some(free_address(run, &provider).await?);
            let wanted = wanted.filter(|_| change);
            if field == Field::Published {
                member.published.extend(wanted);
            } else {
                member.load_balancer.requested_addresses.extend(wanted);
            }
        }
        Field::Settings if change => member.load_balancer.settings = [lab.setting()].into(),
        Field::Pods => member.load_balancer.settings = lab.pods(),
        Field::ShareKey | Field::Endpoints => {
            let mut other = fixtures::member(fixtures::sharing(2));
            if field == Field::Endpoints {
                other.load_balancer.traffic_policy = member.load_balancer.traffic_policy;
                other
                    .placement
                    .endpoints
                    .clone_from(&field.base().placement.endpoints);
            }
            others.push(other);
        }
        _ => {}
    }
    let mut theirs = Vec::new();
    for other in &others {
        let alone = balancer(provider.as_ref(), std::slice::from_ref(other));
        let observed = run.settle(&provider, &alone).await?;
        theirs.extend(
            observed
                .iter()
                .flat_map(|(_, observed)| addresses(observed)),
        );
    }
    let key = provider.key(&member.load_balancer);
    others.retain(|other| provider.key(&other.load_balancer) == key);
    others.push(member);
    let wish = balancer(provider.as_ref(), &others);
    let answer = match serve(run, provider.as_ref(), &wish).await? {
        Ok(observed) => Ok(Said::of(&observed, wanted, &theirs)),
        Err(refusal) => Err(refusal),
    };
    Ok(Seen {
        answer,
        contents: stable(run.harness.contents().await),
    })
}

/// An address that the cloud can assign. It is not the next one, so a provider does not
/// assign it by chance. If load balancers have names, some address that it cannot assign.
async fn free_address(run: &Run, provider: &Arc<dyn Provider>) -> Result<IpAddr, Failure> {
    let mut last = None;
    for number in 2..=4 {
        let service = fixtures::service(number);
        let got = run.ensure(provider, &service, &[]).await?;
        last = got.into_iter().next();
    }
    for number in 3..=4 {
        run.release(provider, &fixtures::service(number), Removal::Delete)
            .await?;
    }
    match last {
        Some(address) => Ok(address.ip().unwrap_or(OUTSIDE)),
        None => run.fail("a Service has no address"),
    }
}

fn balancer(provider: &dyn Provider, members: &[Member]) -> Balancer {
    Balancer {
        key: provider.key(&members[0].load_balancer),
        members: members.to_vec(),
        kept: std::collections::BTreeSet::new(),
        deletes_nothing: false,
    }
}

/// Ensures until the last member is served or refused.
async fn serve(
    run: &Run,
    provider: &dyn Provider,
    balancer: &Balancer,
) -> Result<Result<Observed, Refusal>, Failure> {
    if let Err(refusal) = provider.validate(balancer) {
        return Ok(Err(refusal));
    }
    let mut last = String::new();
    for _ in 0..PATIENCE {
        match provider.ensure(balancer).await {
            Ok(observed) => {
                run.complete(balancer, &observed)?;
                let subject = observed.into_iter().next_back();
                match subject {
                    Some((_, subject)) if run.harness.serves(&subject.state) => {
                        return Ok(Ok(subject));
                    }
                    subject => last = format!("{subject:?}"),
                }
            }
            Err(ProviderError::Refused(refusal)) => return Ok(Err(refusal)),
            Err(error) => last = error.to_string(),
        }
        run.harness.pause().await;
    }
    run.fail(format!("{} is never served: {last}", balancer.key))
}

/// Of two Services that wait for one address, the older gets it, although the younger asks
/// first.
async fn the_oldest_is_served_first(run: &Run) -> Outcome {
    let provider = run.start(&[]).await?;
    run.harness.leave_one_address().await;
    let [first, mut young, old] = [2, 1, 3].map(|it| fixtures::member(fixtures::service(it)));
    young.placement.created = Field::Created.changed().placement.created;
    run.ensure(&provider, &first.load_balancer, &[]).await?;
    for (who, waits) in [("the younger", &young), ("the older", &old)] {
        let wish = balancer(provider.as_ref(), std::slice::from_ref(waits));
        if serve(run, provider.as_ref(), &wish).await?.is_ok() {
            return run.fail(format!("{who} is served, and there was no address left"));
        }
    }
    run.release(&provider, &first.load_balancer, Removal::Delete)
        .await?;
    for (who, waits, served) in [("the younger", &young, false), ("the older", &old, true)] {
        let wish = balancer(provider.as_ref(), std::slice::from_ref(waits));
        let answer = serve(run, provider.as_ref(), &wish).await?;
        if answer.is_ok() != served {
            return run.fail(format!(
                "{} is ignored: {who} gets {answer:?}",
                Field::Created
            ));
        }
    }
    Ok(())
}

/// A provider whose targets can be pods says so in its traits, and of which load balancers.
async fn pods_are_asked_for_where_they_are_targets(run: &Run, lab: &dyn Lab) -> Outcome {
    let provider = run.start(&[]).await?;
    let can = provider.traits().endpoints;
    let support = lab.support(Field::Pods);
    if can != (support == Support::Honoured) {
        return run.fail(format!(
            "the trait `endpoints` is {can}, and pods are {}",
            support.as_str()
        ));
    }
    let mut service = fixtures::service(1);
    if provider.uses_endpoints(&service) {
        return run.fail("pods are targets of a Service that does not ask for it");
    }
    service.settings = lab.pods();
    if can && !provider.uses_endpoints(&service) {
        return run.fail("the pods of a Service whose targets they are are not asked for");
    }
    Ok(())
}

/// A served Service asks for something that it cannot get, and is edited meanwhile.
pub(super) async fn an_unmet_request_blocks_no_edit(lab: &dyn Lab) -> Outcome {
    let requests: [(&str, Request); 5] = [
        ("an address of another Service", |member, theirs| {
            member.load_balancer.requested_addresses = vec![theirs];
        }),
        ("an address that the cloud does not have", |member, _| {
            member.load_balancer.requested_addresses = vec![OUTSIDE];
        }),
        ("a second family", |member, _| {
            member.load_balancer.families = vec![Family::V4, Family::V6];
            member.placement.family_policy = FamilyPolicy::PreferDualStack;
        }),
        ("a pool that does not exist", |member, _| {
            member.placement.pool = Some("no-such-pool".to_owned());
        }),
        ("a setting that nobody knows", |member, _| {
            member.load_balancer.settings = Field::Settings.changed().load_balancer.settings;
        }),
    ];
    for (what, request) in requests {
        let run = Run::new(lab, "an_unmet_request_blocks_no_edit").await;
        let provider = run.start(&[]).await?;
        let theirs = run.ensure(&provider, &fixtures::service(2), &[]).await?;
        let mut member = fixtures::member(fixtures::service(1));
        let had = run.ensure(&provider, &member.load_balancer, &[]).await?;
        member.published = fixtures::ips(&had);
        let theirs = theirs.iter().find_map(Address::ip);
        request(&mut member, theirs.unwrap_or(OUTSIDE));
        let mut before = BTreeMap::new();
        for edit in 0..2 {
            let wish = balancer(provider.as_ref(), std::slice::from_ref(&member));
            let observed = match serve(&run, provider.as_ref(), &wish).await? {
                Ok(observed) => observed,
                Err(refusal) => {
                    return run.fail(format!("{what} blocks edit {edit}: {refusal}"));
                }
            };
            let now = addresses(&observed);
            if !had.iter().all(|address| now.contains(address)) {
                return run.fail(format!("{what}: the address was {had:?} and is {now:?}"));
            }
            let met = now.len() == member.load_balancer.families.len()
                && member
                    .load_balancer
                    .requested_addresses
                    .iter()
                    .all(|it| fixtures::ips(&now).contains(it))
                && member.placement.pool.is_none()
                && member.load_balancer.settings.is_empty();
            if !met && observed.objection.is_none() && observed.remarks.is_empty() {
                return run.fail(format!("{what} is not met, and nothing says so"));
            }
            let contents = stable(run.harness.contents().await);
            if edit > 0 && lab.support(Field::NodePort) == Support::Honoured && contents == before {
                return run.fail(format!("{what} blocks the change of a node port"));
            }
            before = contents;
            let effects = run.harness.effects().await;
            serve(&run, provider.as_ref(), &wish).await?.ok();
            run.unchanged_since(effects, &format!("{what}: the second ensure"))
                .await?;
            member.load_balancer.listeners[0].port += 5;
            member.load_balancer.listeners[0].node_port += 5;
        }
    }
    Ok(())
}

/// Makes a Service ask for something; it gets an address of another Service.
type Request = fn(&mut Member, IpAddr);

// === impl Said ===

impl Said {
    fn of(observed: &Observed, wanted: Option<IpAddr>, theirs: &[Address]) -> Self {
        let ips = fixtures::ips(&addresses(observed));
        let named = |it: &crate::Ingress| matches!(it.address, Address::Hostname(_));
        let vip = |ingress: &crate::Ingress| matches!(ingress.address, Address::Ip(_, IpMode::Vip));
        Self {
            families: ips.iter().map(|ip| Family::of(*ip)).collect(),
            names: observed.ingress.iter().filter(|it| named(it)).count(),
            ports: observed.ingress.iter().map(|it| it.ports.clone()).collect(),
            vip: observed.ingress.iter().all(vip),
            objection: observed.objection.clone(),
            remarks: observed.remarks.clone(),
            has_wanted: wanted.is_some_and(|wanted| ips.contains(&wanted)),
            shares: addresses(observed).iter().any(|it| theirs.contains(it)),
        }
    }
}
