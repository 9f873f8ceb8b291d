//! Members move between balancers, as after a change of the share key: the new balancer is
//! ensured with them, then they are released from the old one. A crash happens at any point
//! in between, and the same step is repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fixtures::{self, Dice};
use super::run::{PATIENCE, Run, addresses, publishes};
use super::{Crash, Failure, Lab, Outcome};
use crate::error::ProviderError;
use crate::mark;
use crate::model::{Address, Balancer, Key, LoadBalancer, Member};
use crate::provider::{Provider, Released, Removal, State};

/// The number of steps.
const STEPS: usize = 80;
/// The Services that move.
const SERVICES: usize = 4;

/// The balancer of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Home {
    /// On a balancer of its own.
    Alone,
    /// On the balancer of this share key.
    Shared(&'static str),
}

/// The balancer of every Service, and what the Services publish.
#[derive(Clone, Default)]
struct World {
    homes: BTreeMap<u16, Home>,
    published: BTreeMap<u16, Vec<Address>>,
}

/// One Service moves from one balancer to another.
#[derive(Clone, Copy, Debug)]
struct Move {
    number: u16,
    from: Option<Home>,
    to: Option<Home>,
}

pub(super) async fn members_move_between_balancers(lab: &dyn Lab) -> Outcome {
    if !lab.shares() {
        return Ok(());
    }
    let run = Run::new(lab, "members_move_between_balancers").await;
    let empty = run.harness.contents().await;
    let mut dice = Dice(lab.seed());
    let mut world = World::default();
    let mut provider = run.start(&[]).await?;
    for step in 0..STEPS {
        let number = u16::try_from(dice.below(SERVICES) + 1).unwrap_or(1);
        let homes = [
            None,
            Some(Home::Alone),
            Some(Home::Shared("one")),
            Some(Home::Shared("two")),
        ];
        let step_is = Move {
            number,
            from: world.homes.get(&number).copied(),
            to: homes[dice.below(homes.len())],
        };
        let at = dice.below(6) as u64 + 1;
        let crash = match dice.below(3) {
            0 => Some(Crash::Before(at)),
            1 => Some(Crash::After(at)),
            _ => None,
        };
        provider = take(&run, provider, &mut world, step_is, crash).await?;
        inventory_is(
            &run,
            &provider,
            &world,
            &format!("step {step}, {step_is:?}"),
        )
        .await?;
    }
    for (number, home) in world.homes.clone() {
        let leave = Move {
            number,
            from: Some(home),
            to: None,
        };
        provider = take(&run, provider, &mut world, leave, None).await?;
    }
    run.expect_contents(&empty, "after all have left").await
}

/// A Service that moves to another balancer is served by the former one until it is released
/// from it: clients have its address.
pub(super) async fn a_member_stays_until_it_is_released(lab: &dyn Lab) -> Outcome {
    if !lab.shares() {
        return Ok(());
    }
    let run = Run::new(lab, "a_member_stays_until_it_is_released").await;
    let provider = run.start(&[]).await?;
    let homes = [Some("one"), None, Some("two")].map(|key| LoadBalancer {
        share_key: key.map(str::to_owned),
        ..fixtures::service(1)
    });
    let mut had: Vec<Address> = Vec::new();
    let mut expected = BTreeSet::new();
    for home in &homes {
        let now = run.ensure(&provider, home, &had).await?;
        expected.insert((provider.key(home), home.id.uid.clone()));
        let listed = keys(&run, &provider).await?;
        if listed != expected {
            return run.fail(format!("the inventory is {listed:?}, not {expected:?}"));
        }
        if let Some(both) = had.iter().find(|address| now.contains(address)) {
            return run.fail(format!("{both:?} is on two balancers at once"));
        }
        had.extend(now);
    }
    let provider = run.start(&[publishes(&homes[0].id, &had)]).await?;
    let other = run.ensure(&provider, &fixtures::service(2), &[]).await?;
    if other.iter().any(|address| had.contains(address)) {
        return run.fail(format!("{other:?} was assigned twice"));
    }
    run.release(&provider, &fixtures::service(2), Removal::Delete)
        .await?;
    for home in &homes {
        run.release(&provider, home, Removal::Delete).await?;
        expected.remove(&(provider.key(home), home.id.uid.clone()));
        let listed = keys(&run, &provider).await?;
        if listed != expected {
            return run.fail(format!("the inventory is {listed:?}, not {expected:?}"));
        }
    }
    Ok(())
}

/// The keys and UIDs in the inventory.
async fn keys(
    run: &Run,
    provider: &Arc<dyn Provider>,
) -> Result<BTreeSet<(Key, Arc<str>)>, Failure> {
    let inventory = match provider.inventory().await {
        Ok(inventory) => inventory,
        Err(error) => return run.fail(format!("cannot read the inventory: {error}")),
    };
    let keys = inventory.into_iter().flat_map(|owned| {
        let (key, services) = (owned.key, owned.services);
        services
            .into_iter()
            .filter_map(move |id| Some((key.clone()?, id.uid)))
    });
    Ok(keys.collect())
}

/// Repeats one step until it is done, with a crash and a new instance on the way.
async fn take(
    run: &Run,
    mut provider: Arc<dyn Provider>,
    world: &mut World,
    step: Move,
    crash: Option<Crash>,
) -> Result<Arc<dyn Provider>, Failure> {
    match step.to {
        Some(home) => world.homes.insert(step.number, home),
        None => world.homes.remove(&step.number),
    };
    run.harness.set_crash(crash).await;
    for _ in 0..PATIENCE {
        let done = attempt(provider.as_ref(), world, step).await;
        if run.harness.crashed().await {
            run.harness.set_crash(None).await;
            provider = run.start(&world.publishes()).await?;
            continue;
        }
        match done {
            Ok(true) => {
                run.harness.set_crash(None).await;
                return Ok(provider);
            }
            Ok(false) => run.harness.pause().await,
            Err(error) => return run.fail(format!("{step:?} fails without a crash: {error}")),
        }
    }
    run.fail(format!("{step:?} is never done"))
}

/// Tries once. Returns whether the step is done.
async fn attempt(
    provider: &dyn Provider,
    world: &mut World,
    step: Move,
) -> Result<bool, ProviderError> {
    if let Some(home) = step.to {
        let observed = provider
            .ensure(&world.balancer(provider, step.number, home))
            .await?;
        for (number, (_, observed)) in world.members(step.number, home).iter().zip(&observed) {
            world.published.insert(*number, addresses(observed));
        }
        let ready = |state: &State| *state == State::Programmed;
        if !observed.iter().all(|(_, observed)| ready(&observed.state)) {
            return Ok(false);
        }
    } else {
        world.published.remove(&step.number);
    }
    match step.from.filter(|from| Some(*from) != step.to) {
        None => Ok(true),
        Some(from) => {
            let service = service(step.number, from);
            let key = provider.key(&service);
            let released = provider.release(&service.id, &key, Removal::Delete).await?;
            Ok(released == Released::Gone)
        }
    }
}

/// The inventory names every member under the key of its balancer, and nothing else.
async fn inventory_is(
    run: &Run,
    provider: &Arc<dyn Provider>,
    world: &World,
    when: &str,
) -> Outcome {
    let expected: BTreeSet<(Key, Arc<str>)> = world
        .homes
        .iter()
        .map(|(number, home)| service(*number, *home))
        .map(|service| (provider.key(&service), service.id.uid))
        .collect();
    let inventory = match provider.inventory().await {
        Ok(inventory) => inventory,
        Err(error) => return run.fail(format!("{when}: cannot read the inventory: {error}")),
    };
    let mut listed = BTreeSet::new();
    for owned in inventory {
        if owned.tags.contains_key(mark::RETAINED) {
            continue;
        }
        let Some(key) = owned.key else {
            return run.fail(format!("{when}: {} is listed without a key", owned.name));
        };
        listed.extend(owned.services.into_iter().map(|id| (key.clone(), id.uid)));
    }
    if listed == expected {
        Ok(())
    } else {
        run.fail(format!(
            "{when}: the inventory is {listed:?}, not {expected:?}"
        ))
    }
}

fn service(number: u16, home: Home) -> LoadBalancer {
    LoadBalancer {
        share_key: match home {
            Home::Alone => None,
            Home::Shared(key) => Some(key.to_owned()),
        },
        ..fixtures::service(number)
    }
}

// === impl World ===

impl World {
    /// The members of this Service's balancer.
    fn members(&self, number: u16, home: Home) -> Vec<u16> {
        if home == Home::Alone {
            return vec![number];
        }
        let all = self.homes.iter().filter(|(_, at)| **at == home);
        all.map(|(number, _)| *number).collect()
    }

    fn balancer(&self, provider: &dyn Provider, number: u16, home: Home) -> Balancer {
        let member = |number: u16| Member {
            load_balancer: service(number, home),
            published: (self.published.get(&number)).map_or(Vec::new(), |it| fixtures::ips(it)),
            placement: crate::Placement::default(),
            endpoints: None,
        };
        let members: Vec<Member> = self.members(number, home).into_iter().map(member).collect();
        Balancer {
            key: provider.key(&members[0].load_balancer),
            members,
            kept: BTreeSet::new(),
            deletes_nothing: false,
        }
    }

    fn publishes(&self) -> Vec<crate::provider::Published> {
        let published = self.published.iter();
        published
            .map(|(number, addresses)| publishes(&fixtures::service(*number).id, addresses))
            .collect()
    }
}
