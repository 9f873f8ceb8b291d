//! The possible events, and how often each occurs.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::*;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Ask(Box<Claim>),
    Release(usize),
    Pools(Vec<Pool>),
    Hold(usize, Vec<IpAddr>),
    Skip(Vec<IpAddr>),
    Pass(i64),
    /// Like the others, with a Service whose status also names the address of another.
    Restart {
        doubt: bool,
        thief: Option<(usize, usize)>,
    },
}

/// For the Services below: an age order that differs from the order of names, and some equal
/// ages, so that names decide too.
const AGES: [i64; 9] = [3, 1, 3, 0, 4, 1, 2, 0, 4];
pub(super) const SERVICES: [&str; 9] = [
    "a", "b", "c", "d", "e", "f", "other/g", "other/h", "other/i",
];
const ADDRESSES: [&str; 8] = [
    "10.0.0.1", "10.0.0.3", "10.0.0.6", "10.0.1.1", "10.9.9.9", "fd00::1", "fd00::3", "fd00::9",
];

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => claims().prop_map(|claim| Step::Ask(Box::new(claim))),
        5 => (0..SERVICES.len()).prop_map(Step::Release),
        2 => pools().prop_map(Step::Pools),
        2 => (0..2_usize, addresses(3)).prop_map(|(agent, held)| Step::Hold(agent, held)),
        1 => addresses(2).prop_map(Step::Skip),
        3 => (-8..25_i64).prop_map(Step::Pass),
        1 => (any::<bool>(), thief()).prop_map(|(doubt, thief)| Step::Restart { doubt, thief }),
    ]
}

fn thief() -> impl Strategy<Value = Option<(usize, usize)>> {
    prop::option::of((0..SERVICES.len(), 0..SERVICES.len()))
}

fn addresses(most: usize) -> impl Strategy<Value = Vec<IpAddr>> {
    subsequence(ADDRESSES.to_vec(), 0..=most).prop_map(|addresses| ips(&addresses))
}

fn claims() -> impl Strategy<Value = Claim> {
    let families = select(vec![
        vec![Family::V4],
        vec![Family::V4],
        vec![Family::V6],
        vec![Family::V4, Family::V6],
        vec![Family::V6, Family::V4],
    ]);
    let policy = select(vec![
        FamilyPolicy::PreferDualStack,
        FamilyPolicy::RequireDualStack,
    ]);
    let requested = prop_oneof![3 => Just(vec![]), 1 => addresses(2)];
    let pool = prop_oneof![4 => Just(None), 1 => select(vec!["p", "q"]).prop_map(Some)];
    let key = select(vec![None, None, Some("k"), Some("l")]);
    let ports = subsequence(
        vec![
            (Protocol::Tcp, 80),
            (Protocol::Udp, 80),
            (Protocol::Tcp, 443),
        ],
        1..=2,
    );
    let backend = select(vec![
        Backend::Cluster,
        Backend::Cluster,
        Backend::Local("x".to_owned()),
    ]);
    let who = (0..SERVICES.len(), any::<bool>());
    (who, families, policy, requested, pool, key, ports, backend).prop_map(
        |((service, red), families, policy, requested, pool, key, ports, backend)| {
            let single = families.len() == 1;
            let age = AGES[service];
            Claim {
                labels: Arc::new(labels(if red { "team=red" } else { "" })),
                policy: if single {
                    FamilyPolicy::SingleStack
                } else {
                    policy
                },
                requested: requested
                    .into_iter()
                    .filter(|address| families.contains(&Family::of(*address)))
                    .collect(),
                families,
                pool: pool.map(str::to_owned),
                share_key: key.map(str::to_owned),
                ports: ports.into_iter().collect(),
                backend,
                ..claim(SERVICES[service], age)
            }
        },
    )
}

fn pools() -> impl Strategy<Value = Vec<Pool>> {
    let entries = |choices: &[&'static str]| subsequence(choices.to_vec(), 1..=2);
    (
        prop::option::weighted(
            0.9,
            shape(
                "p",
                entries(&["10.0.0.0/29", "fd00::1-fd00::4", "10.0.0.1-10.0.0.2"]),
            ),
        ),
        prop::option::of(shape(
            "q",
            entries(&["10.0.0.6-10.0.0.9", "10.0.1.0-10.0.1.2", "fd00::8/125"]),
        )),
        prop::option::of(shape("r", entries(&["10.0.1.1", "fd00::9", "10.0.2.1"]))),
    )
        .prop_map(|(p, q, r)| [p, q, r].into_iter().flatten().collect())
}

fn shape(
    name: &'static str,
    entries: impl Strategy<Value = Vec<&'static str>>,
) -> impl Strategy<Value = Pool> {
    let settings = (
        prop::bool::weighted(0.8),
        select(vec![None, Some(0), Some(1), Some(2)]),
        select(vec![None, None, Some("team=red")]),
        select(vec![0, 10, 30]),
        any::<bool>(),
        any::<bool>(),
        0..3_i64,
    );
    (entries, settings).prop_map(
        move |(entries, (auto_assign, priority, selector, rest, across, reallocate, created))| {
            Pool {
                auto_assign,
                priority,
                reuse_after: Duration::from_secs(rest),
                share_across_namespaces: across,
                reallocate,
                ..selecting(pool(name, created, &entries), None, selector)
            }
        },
    )
}
