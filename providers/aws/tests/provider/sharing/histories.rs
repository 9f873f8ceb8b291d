//! Random histories: eight workers at once let Services join, leave and move, while calls fail and the process dies.
//!
//! The workers follow the rules of the controller: work on one load balancer is serial, a Service has what it
//! moves to before it leaves what it had, and the members of a load balancer are those that have had a turn on it. At
//! the end of each history AWS has what the Services ask for and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use ballast_aws::provider::AwsProvider;
use ballast_aws_fake::{Config, Fault};
use ballast_provider::{Key, LoadBalancer, Provider, ProviderError};
use futures::StreamExt;
use tokio::task::JoinSet;

use super::{leave, member, turn};
use crate::bed::Bed;

/// Histories of a normal run; `SHARING_HISTORIES` sets another number.
const HISTORIES: u64 = 20;
const WORKERS: u64 = 8;
const SERVICES: u16 = 10;
/// Steps of one worker until the process dies, and how often it does.
const STEPS: usize = 3;
const LIVES: u64 = 2;

/// A small generator with a seed (`SplitMix64`).
struct Dice(u64);

/// The load balancer of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Home {
    Alone,
    /// With this share key.
    Shared(&'static str),
}

const HOMES: [Option<Home>; 4] = [
    Some(Home::Shared("one")),
    Some(Home::Shared("two")),
    Some(Home::Alone),
    None,
];

/// Where Services are, and what those that want a load balancer ask for.
#[derive(Default)]
struct World {
    on: BTreeMap<u16, BTreeSet<Home>>,
    wants: BTreeMap<u16, Home>,
}

/// What the workers of one process share.
struct Shop {
    bed: Bed,
    provider: AwsProvider,
    world: Arc<Mutex<World>>,
    /// One for each Service and each load balancer, as the controller has them.
    locks: BTreeMap<String, tokio::sync::Mutex<()>>,
}

fn shaped(number: u16, home: Home) -> LoadBalancer {
    LoadBalancer {
        share_key: match home {
            Home::Alone => None,
            Home::Shared(key) => Some(key.to_owned()),
        },
        ..member(&format!("web-{number}"), 8000 + number)
    }
}

// === impl Dice ===

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

// === impl Shop ===

impl Shop {
    /// A process starts.
    async fn start(bed: Bed, world: &Arc<Mutex<World>>) -> Self {
        let provider = bed.start().await.unwrap();
        let mut names: Vec<String> = ["one", "two"].map(str::to_owned).into();
        names.extend((0..SERVICES).flat_map(|it| [format!("alone-{it}"), format!("service-{it}")]));
        let locks = names.into_iter();
        Self {
            bed,
            provider,
            world: Arc::clone(world),
            locks: locks
                .map(|name| (name, tokio::sync::Mutex::default()))
                .collect(),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn lock(&self, number: u16, home: Home) -> &tokio::sync::Mutex<()> {
        match home {
            Home::Alone => &self.locks[&format!("alone-{number}")],
            Home::Shared(key) => &self.locks[key],
        }
    }

    /// The members of a load balancer: this one, and those that have had a turn on it and still want any. Whoever
    /// moves stays until its release.
    fn members(&self, number: u16, home: Home) -> Vec<LoadBalancer> {
        let world = self.world();
        let mut all = BTreeSet::from([number]);
        if home != Home::Alone {
            let on = world.on.iter().filter(|(_, homes)| homes.contains(&home));
            let on = on.map(|(other, _)| *other);
            all.extend(on.filter(|other| world.wants.contains_key(other)));
        }
        all.into_iter().map(|it| shaped(it, home)).collect()
    }

    /// One turn of a Service: what it asks for, and then its release from everything else.
    async fn step(&self, number: u16) -> Result<(), ProviderError> {
        let _serial = self.locks[&format!("service-{number}")].lock().await;
        let wants = self.world().wants.get(&number).copied();
        if let Some(home) = wants {
            let _held = self.lock(number, home).lock().await;
            self.world().on.entry(number).or_default().insert(home);
            turn(&self.provider, &self.members(number, home)).await?;
        }
        let former = self.world().on.get(&number).cloned().unwrap_or_default();
        for home in former.into_iter().filter(|home| Some(*home) != wants) {
            let _held = self.lock(number, home).lock().await;
            leave(&self.bed, &self.provider, &shaped(number, home)).await?;
            if let Some(on) = self.world().on.get_mut(&number) {
                on.remove(&home);
            }
        }
        Ok(())
    }
}

/// One process, from its start to its death.
async fn life(bed: Bed, world: &Arc<Mutex<World>>, seed: u64) -> Bed {
    let shop = Arc::new(Shop::start(bed, world).await);
    let failing = !seed.is_multiple_of(3);
    if failing {
        let mut dice = Dice(seed);
        for _ in 0..3 {
            let fault = Fault::any().nth(dice.below(60) as u64 + 1);
            shop.bed.fake.fault(fault.dropped(dice.below(2) == 0));
        }
    }
    let mut workers = JoinSet::new();
    for worker in 1..=WORKERS {
        let shop = Arc::clone(&shop);
        let mut dice = Dice(seed ^ worker.wrapping_mul(0x9E37_79B9));
        workers.spawn(async move {
            for _ in 0..STEPS {
                let number = u16::try_from(dice.below(SERVICES.into())).unwrap();
                match HOMES[dice.below(HOMES.len())] {
                    Some(home) => shop.world().wants.insert(number, home),
                    None => shop.world().wants.remove(&number),
                };
                let done = shop.step(number).await;
                assert!(failing || done.is_ok(), "{number}: {done:?}");
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
    shop.bed.fake.clear_faults();
    let Ok(shop) = Arc::try_unwrap(shop) else {
        panic!("a worker still runs")
    };
    shop.bed
}

async fn history(seed: u64) {
    let mut bed = Bed::with(Config::default()).await;
    bed.fake.remember_foreign();
    let world = Arc::new(Mutex::new(World::default()));
    for at in 0..LIVES {
        bed = life(bed, &world, seed * LIVES + at).await;
    }
    // Everybody has turns until nothing changes.
    let shop = Shop::start(bed, &world).await;
    for _ in 0..2 {
        for number in 0..SERVICES {
            shop.step(number).await.unwrap();
        }
    }
    let Shop { bed, provider, .. } = shop;
    let wants = world.lock().unwrap().wants.clone();
    let services: Vec<_> = wants
        .into_iter()
        .map(|(number, home)| shaped(number, home))
        .collect();
    let expected = services
        .iter()
        .map(|it| (provider.key(it), Arc::clone(&it.id.uid)));
    let expected: BTreeSet<(Key, Arc<str>)> = expected.collect();
    let owned = provider.inventory().await.unwrap();
    let listed = owned.iter().flat_map(|one| {
        let ids = one.services.iter().map(|id| Arc::clone(&id.uid));
        ids.map(|uid| (one.key.clone().unwrap(), uid))
    });
    assert_eq!(listed.collect::<BTreeSet<_>>(), expected, "seed {seed}");
    let keys: BTreeSet<&Key> = expected.iter().map(|(key, _)| key).collect();
    let all = bed.fake.snapshot();
    let found = (
        all.load_balancers.len(),
        all.listeners.len(),
        all.target_groups.len(),
    );
    assert_eq!(
        found,
        (keys.len(), services.len(), services.len()),
        "seed {seed}"
    );
    for service in &services {
        leave(&bed, &provider, service).await.unwrap();
    }
    assert!(bed.is_empty(), "seed {seed}: {:?}", bed.fake.snapshot());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_history_of_joins_and_leaves_ends_with_what_is_asked_for() {
    let number = std::env::var("SHARING_HISTORIES").ok();
    let number = number.map_or(HISTORIES, |it| it.parse().unwrap());
    // Each has a cloud of its own.
    futures::stream::iter(1..=number)
        .for_each_concurrent(2, |seed| async move {
            tokio::spawn(history(seed)).await.unwrap();
        })
        .await;
}
