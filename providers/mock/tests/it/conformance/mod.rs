//! The conformance suite on the instant provider, and on the client with a real server process
//! that is killed (SIGKILL) and restarted at every crash.

mod instant;
mod process;
mod proxy;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_mock::MockProvider;
use ballast_provider::conformance::{CHECKS, Deaf, Field, Lab, Support, documented, run};
use ballast_provider::{Balancer, Mark, Protocol, Provider, State};
use process::Process;
use tokio::task::JoinSet;

use crate::support::{balancer, listener, load_balancer};

/// Runs all checks and shows every failure.
async fn pass(lab: &dyn Lab) {
    let mut failures = Vec::new();
    for (name, _) in CHECKS {
        failures.extend(
            run(lab, name)
                .await
                .err()
                .map(|failure| failure.to_string()),
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test]
async fn the_instant_provider_conforms() {
    for seed in 1..=20 {
        pass(&instant::InstantLab { seed }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_conforms_with_a_server_that_is_killed() {
    pass(&process::ServerLab::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_conforms_with_a_slow_cloud() {
    let lab = process::ServerLab::slow();
    for name in [
        "ensure_twice_is_ensure_once",
        "a_restart_changes_nothing",
        "a_crash_in_create_converges",
        "a_crash_in_release_converges",
        "anything_can_be_released",
    ] {
        if let Err(failure) = run(&lab, name).await {
            panic!("{failure}");
        }
    }
}

/// A provider that ignores a field in silence does not pass.
#[tokio::test]
async fn every_field_that_the_instant_provider_ignored_would_be_found() {
    let lab = instant::InstantLab { seed: 1 };
    for field in Field::ALL {
        // It has both families, so the policy makes no difference.
        if lab.support(field) == Support::Unused || field == Field::FamilyPolicy {
            continue;
        }
        let deaf = Deaf { lab: &lab, field };
        let found = run(&deaf, "every_field_is_honoured_or_named").await;
        println!("{}", found.expect_err(field.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_the_client_ignored_would_be_found() {
    let lab = process::ServerLab::default();
    for field in [Field::NodePort, Field::Published, Field::Pool] {
        let deaf = Deaf { lab: &lab, field };
        let found = run(&deaf, "every_field_is_honoured_or_named").await;
        println!("{}", found.expect_err(field.as_str()));
    }
}

/// The table for people says what the labs say, and the suite checks the labs.
#[test]
fn the_documented_table_of_fields_is_true() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/providers.md");
    let page = std::fs::read_to_string(page).unwrap();
    let server = process::ServerLab::default();
    let instant = instant::InstantLab { seed: 1 };
    let columns: [(&str, &dyn Lab); 2] = [("mock", &server), ("instant", &instant)];
    for (column, lab) in columns {
        documented(&page, column, lab).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

/// After a SIGKILL, everything that the server has answered exists with the same address. A
/// call without an answer has taken effect completely or not at all. No address is assigned
/// twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_kill() {
    for answers in [1, 5, 17, 40] {
        killed_after(answers).await;
    }
}

async fn killed_after(answers: usize) {
    let state = tempfile::tempdir().unwrap();
    let range = process::range();
    let mut server = Process::start(state.path(), &range, Duration::ZERO);
    let client = |address: SocketAddr| {
        let mark = Mark {
            cluster: "c".into(),
            cluster_name: "kill".into(),
            class: "local".into(),
            writer: "1".into(),
        };
        let endpoint = format!("http://{address}");
        Arc::new(MockProvider::new(&endpoint, Some(process::TOKEN.to_owned()), mark).unwrap())
    };
    let provider = client(server.address);
    provider.restore(Vec::new()).await.unwrap();
    let (answered, mut done) = tokio::sync::mpsc::channel(256);
    let mut tasks = JoinSet::new();
    for worker in 0..4_u16 {
        let (provider, answered) = (Arc::clone(&provider), answered.clone());
        tasks.spawn(async move {
            for number in 0..50 {
                let wanted = service(worker * 50 + number);
                let Ok(observed) = provider.ensure(&wanted).await else {
                    return;
                };
                let _ = answered.send((wanted, observed)).await;
            }
        });
    }
    drop(answered);
    let mut kept = Vec::new();
    while kept.len() < answers {
        kept.push(done.recv().await.unwrap());
    }
    server.kill();
    while let Some(more) = done.recv().await {
        kept.push(more);
    }
    let server = Process::start(state.path(), &range, Duration::ZERO);
    let provider = client(server.address);
    provider.restore(Vec::new()).await.unwrap();
    let mut addresses = BTreeSet::new();
    for (wanted, observed) in kept {
        let again = provider.ensure(&wanted).await.unwrap();
        assert_eq!(again, observed, "after {answers} answers");
        assert!(
            addresses.insert(again[0].1.ingress[0].ip()),
            "assigned twice"
        );
    }
    let inventory = provider.inventory().await.unwrap();
    for owned in inventory {
        let number = owned.services[0].name.parse().unwrap();
        let observed = provider.ensure(&service(number)).await.unwrap();
        addresses.insert(observed[0].1.ingress[0].ip());
        assert_eq!(observed[0].1.state, State::Programmed);
    }
    assert_eq!(addresses.len(), provider.inventory().await.unwrap().len());
}

fn service(number: u16) -> Balancer {
    let listener = listener(Protocol::Tcp, 20_999, 30_999);
    balancer(load_balancer(&number.to_string(), vec![listener]))
}

/// Not a test: the server process of the tests above, which run this binary again.
#[test]
fn serve_for_another_test() {
    process::serve_if_asked();
}
