use super::*;
use crate::api::Affinity;

const INTERVAL: Duration = Duration::from_secs(2);

fn node() -> IpAddr {
    IpAddr::from([10, 0, 0, 1])
}

fn target() -> Target {
    Target {
        name: "n".into(),
        addresses: vec![node()],
    }
}

fn listener(protocol: Protocol, node_port: u16) -> Listener {
    Listener {
        name: None,
        protocol,
        port: 80,
        node_port,
    }
}

fn config(policy: TrafficPolicy, listeners: Vec<Listener>) -> Config {
    Config {
        addresses: vec![IpAddr::from([127, 77, 0, 1])],
        listeners,
        policy,
        affinity: Affinity::None,
        source_ranges: Vec::new(),
        target_set: "nodes".into(),
    }
}

fn cluster() -> Config {
    config(
        TrafficPolicy::Cluster,
        vec![listener(Protocol::Tcp, 30_000)],
    )
}

fn refresh(table: &mut HealthTable, configs: &[Config], now: Instant) -> Vec<Question> {
    let needed = table.needed(configs.iter(), |_| vec![node()]);
    table.keep(&needed, now);
    needed.into_iter().map(|check| check.question).collect()
}

fn tell(table: &mut HealthTable, question: Question, answer: Answer) -> bool {
    let node = node();
    table.answer(Check { node, question }, answer)
}

#[test]
fn one_check_per_node_serves_all_cluster_load_balancers() {
    let mut table = HealthTable::new(INTERVAL);
    let listeners = |port| vec![listener(Protocol::Tcp, port)];
    let configs: Vec<Config> = (30_000..30_100)
        .map(|port| config(TrafficPolicy::Cluster, listeners(port)))
        .collect();
    let now = Instant::now();
    assert_eq!(refresh(&mut table, &configs, now), [Question::Shared]);
    assert_eq!(table.start_due(now).len(), 1);
    assert_eq!(table.start_due(now).len(), 0, "it is asked once");
    tell(&mut table, Question::Shared, Answer::Good);
    assert_eq!(table.next_due(), Some(now + INTERVAL));
}

#[test]
fn two_failures_make_it_unhealthy_and_one_success_healthy() {
    use TargetHealth::{Healthy, Initial, Unhealthy};
    let mut table = HealthTable::new(INTERVAL);
    let config = cluster();
    refresh(&mut table, std::slice::from_ref(&config), Instant::now());
    let seen = |table: &HealthTable| table.verdict(&config, &config.listeners[0], &target());
    let mut states = vec![seen(&table)];
    let (good, bad) = (Answer::Good, Answer::Bad);
    for answer in [bad, good, bad, good, bad, bad, good] {
        tell(&mut table, Question::Shared, answer);
        states.push(seen(&table));
    }
    let expected = [
        Initial, Initial, Healthy, Healthy, Healthy, Healthy, Unhealthy, Healthy,
    ];
    assert_eq!(states, expected);
}

#[test]
fn local_asks_its_own_port_and_never_the_node_port() {
    let mut table = HealthTable::new(INTERVAL);
    let policy = TrafficPolicy::Local {
        health_check_node_port: 32_000,
    };
    let config = config(policy, vec![listener(Protocol::Tcp, 30_000)]);
    let asked = refresh(&mut table, std::slice::from_ref(&config), Instant::now());
    assert_eq!(asked, [Question::Local(32_000)]);
    tell(&mut table, Question::Local(32_000), Answer::Nothing);
    tell(&mut table, Question::Local(32_000), Answer::Nothing);
    let verdict = table.verdict(&config, &config.listeners[0], &target());
    assert_eq!(verdict, TargetHealth::Unhealthy);
}

#[test]
fn where_nothing_listens_the_node_port_decides() {
    let mut table = HealthTable::new(INTERVAL);
    let (tcp, udp) = (
        listener(Protocol::Tcp, 30_000),
        listener(Protocol::Udp, 30_053),
    );
    let config = config(TrafficPolicy::Cluster, vec![tcp.clone(), udp.clone()]);
    let configs = [config.clone()];
    let now = Instant::now();
    refresh(&mut table, &configs, now);
    assert!(tell(&mut table, Question::Shared, Answer::Nothing));
    let asked = refresh(&mut table, &configs, now);
    assert_eq!(asked, [Question::Shared, Question::Accepts(30_000)]);
    let seen = |table: &HealthTable, listener| table.verdict(&config, listener, &target());
    assert_eq!(seen(&table, &tcp), TargetHealth::Initial);
    tell(&mut table, Question::Accepts(30_000), Answer::Good);
    assert_eq!(seen(&table, &tcp), TargetHealth::Healthy);
    assert_eq!(seen(&table, &udp), TargetHealth::Healthy);
    // kube-proxy comes: it decides again, and the fallback is no longer asked.
    tell(&mut table, Question::Shared, Answer::Bad);
    tell(&mut table, Question::Shared, Answer::Bad);
    assert_eq!(seen(&table, &tcp), TargetHealth::Unhealthy);
    assert_eq!(refresh(&mut table, &configs, now), [Question::Shared]);
}

#[test]
fn a_restart_of_kube_proxy_does_not_make_its_node_unknown() {
    let mut table = HealthTable::new(INTERVAL);
    let config = cluster();
    refresh(&mut table, std::slice::from_ref(&config), Instant::now());
    tell(&mut table, Question::Shared, Answer::Good);
    assert!(!tell(&mut table, Question::Shared, Answer::Nothing));
    let verdict = table.verdict(&config, &config.listeners[0], &target());
    assert_eq!(verdict, TargetHealth::Healthy);
}

#[test]
fn a_check_that_is_not_needed_is_removed() {
    let mut table = HealthTable::new(INTERVAL);
    refresh(&mut table, &[cluster()], Instant::now());
    assert!(refresh(&mut table, &[], Instant::now()).is_empty());
    assert_eq!(table.next_due(), None);
    assert!(!tell(&mut table, Question::Shared, Answer::Good));
}

#[test]
fn checks_are_bounded_and_start_in_turn() {
    let nodes: Vec<IpAddr> = (0..1_000_u32)
        .map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes()))
        .collect();
    let local = |number: u16| {
        let health_check_node_port = 30_000 + number;
        let policy = TrafficPolicy::Local {
            health_check_node_port,
        };
        config(policy, vec![listener(Protocol::Tcp, 30_000)])
    };
    let configs: Vec<Config> = (0..100).map(local).collect();
    let mut table = HealthTable::new(INTERVAL);
    let needed = table.needed(configs.iter(), |_| nodes.clone());
    assert_eq!(needed.len(), MAX_CHECKS, "of 100,000");
    let now = Instant::now();
    table.keep(&needed, now);
    let first = table.start_due(now);
    assert_eq!(first.len(), AT_ONCE);
    assert_eq!(table.start_due(now), []);
    assert_eq!(table.next_due(), None, "only an answer makes room");
    // A check that is no longer needed makes room, too.
    let mut fewer = needed.clone();
    fewer.remove(&first[0]);
    table.keep(&fewer, now);
    assert!(!table.answer(first[0], Answer::Good));
    assert!(table.answer(first[1], Answer::Good));
    let next = table.start_due(now);
    assert_eq!(next.len(), 2);
    assert!(!first.contains(&next[0]), "the others come first");
}
