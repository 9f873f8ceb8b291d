//! The instant provider must not affect a measurement of the controller.

use crate::support::{alone, balancer, id, listener, load_balancer, mark};
use ballast_mock::InstantProvider;
use ballast_provider::{Protocol, Provider, State};

/// The anonymous memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn wanted(number: u32) -> ballast_provider::Balancer {
    let mut load_balancer = load_balancer("web", vec![listener(Protocol::Tcp, 80, 30_080)]);
    load_balancer.id = id(&format!("{number}"));
    load_balancer.id.uid = format!("00000000-0000-4000-8000-{number:012}").into();
    balancer(load_balancer)
}

#[tokio::test]
async fn five_thousand_load_balancers_cost_less_than_two_megabytes() {
    if !alone("footprint::five_thousand_load_balancers_cost_less_than_two_megabytes") {
        return;
    }
    let provider = InstantProvider::new(mark());
    // The first pages of the memory allocator and the runtime do not count.
    for number in 0..10 {
        provider.ensure(&wanted(number)).await.unwrap();
    }
    let before = resident();
    for number in 10..5_010 {
        let observed = provider.ensure(&wanted(number)).await.unwrap();
        assert_eq!(observed[0].1.state, State::Programmed);
    }
    let grown = resident().saturating_sub(before);
    println!("5,000 load balancers: {grown} KiB");
    assert!(grown < 2_048, "{grown} KiB");
    assert_eq!(provider.calls().effects, 5_010);
    for number in 0..5_010 {
        provider.ensure(&wanted(number)).await.unwrap();
    }
    assert_eq!(provider.calls().effects, 5_010, "nothing changed");
}
