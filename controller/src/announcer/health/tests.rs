use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::*;

fn address(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

fn targets(all: &[(u8, &[u16])]) -> BTreeMap<IpAddr, BTreeSet<u16>> {
    let all = all.iter();
    all.map(|(n, ports)| (address(*n), ports.iter().copied().collect()))
        .collect()
}

/// All ports that are due, as if they were asked.
fn ask(checks: &mut Checks, now: Instant) -> Vec<(u16, Duration)> {
    std::iter::from_fn(|| checks.next(now, 0)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_port_is_asked_often_until_it_serves() {
    let mut checks = Checks::default();
    let start = Instant::now();
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    assert!(checks.set(&targets(&[(1, &[80])]), start).is_empty());
    assert_eq!(ask(&mut checks, start), [(80, WAITING.1)]);
    assert_eq!(checks.due(), None, "it is asked once at a time");
    assert!(checks.answered(80, false, at(10)).is_empty());
    assert_eq!(checks.due(), Some(at(260)));
    assert!(ask(&mut checks, at(259)).is_empty());
    assert_eq!(ask(&mut checks, at(260)), [(80, WAITING.1)]);
    assert_eq!(checks.answered(80, true, at(270)), [(address(1), true)]);
    assert_eq!(checks.due(), Some(at(2_270)));
    assert_eq!(ask(&mut checks, at(2_270)), [(80, SERVING.1)]);
    assert!(checks.answered(80, true, at(2_280)).is_empty(), "no news");
    ask(&mut checks, at(4_280));
    assert_eq!(checks.answered(80, false, at(4_290)), [(address(1), false)]);
    assert_eq!(checks.due(), Some(at(4_540)));
}

#[tokio::test(start_paused = true)]
async fn an_address_is_healthy_if_all_its_ports_are() {
    let mut checks = Checks::default();
    let now = Instant::now();
    let all = targets(&[(1, &[80]), (2, &[80, 81]), (3, &[])]);
    assert_eq!(
        checks.set(&all, now),
        [(address(3), true)],
        "nothing to ask"
    );
    assert_eq!(
        ask(&mut checks, now).len(),
        2,
        "a port is asked once for all addresses"
    );
    assert_eq!(checks.answered(80, true, now), [(address(1), true)]);
    assert_eq!(checks.answered(81, true, now), [(address(2), true)]);
    assert_eq!(checks.answered(81, false, now), [(address(2), false)]);
    // An address that leaves is checked anew when it comes back.
    let left = checks.set(&targets(&[(2, &[80, 81])]), now);
    assert_eq!(left, [(address(1), false), (address(3), false)]);
    assert_eq!(
        checks.set(&all, now),
        [(address(1), true), (address(3), true)],
        "its port is known"
    );
    assert_eq!(checks.set(&targets(&[]), now).len(), 2);
    assert!(checks.set(&targets(&[(1, &[80])]), now).is_empty());
    assert_eq!(ask(&mut checks, now), [(80, WAITING.1)]);
    assert!(
        checks.answered(99, true, now).is_empty(),
        "it left meanwhile"
    );
    // Another port of the same address.
    checks.answered(80, true, now);
    assert_eq!(
        checks.set(&targets(&[(1, &[81])]), now),
        [(address(1), false)]
    );
}

#[tokio::test(start_paused = true)]
async fn no_more_than_some_ports_are_asked_at_once() {
    let mut checks = Checks::default();
    let now = Instant::now();
    let ports: Vec<u16> = (1..=100).collect();
    checks.set(&targets(&[(1, &ports)]), now);
    assert_eq!(checks.next(now, AT_ONCE), None);
    assert!(checks.next(now, AT_ONCE - 1).is_some());
}

/// A server on loopback whose status the test sets, and the inputs that follow.
#[tokio::test]
async fn status_200_is_healthy() {
    let status = Arc::new(AtomicU16::new(503));
    let asked = Arc::new(AtomicU16::new(0));
    let answer = {
        let (status, asked) = (Arc::clone(&status), Arc::clone(&asked));
        move |request: Request<Body>| {
            asked.fetch_add(1, Ordering::Relaxed);
            let path = request.uri().path().to_owned();
            let status = status.load(Ordering::Relaxed);
            async move {
                let status = if path == "/healthz" { status } else { 404 };
                StatusCode::from_u16(status).unwrap()
            }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        axum::serve(listener, Router::new().fallback(answer))
            .await
            .unwrap();
    });
    let seen: Arc<Mutex<Vec<bool>>> = Arc::default();
    let sink = Sink::new({
        let seen = Arc::clone(&seen);
        move |input| match input {
            Input::Health { healthy, .. } => seen.lock().unwrap().push(healthy),
            other => panic!("{other:?}"),
        }
    });
    let (sender, receiver) = watch::channel(Targets::default());
    let task = tokio::spawn(run(receiver, sink));
    sender.send_replace(Targets {
        ports: targets(&[(1, &[port])]),
        hosts: vec![],
    });
    let until = async |expected: &[bool]| {
        let end = Instant::now() + Duration::from_mins(1);
        while *seen.lock().unwrap() != expected {
            assert!(Instant::now() < end, "{:?}", seen.lock().unwrap());
            sleep(Duration::from_millis(10)).await;
        }
    };
    while asked.load(Ordering::Relaxed) < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    // The first answer was 503, because the second question follows it.
    until(&[]).await;
    status.store(200, Ordering::Relaxed);
    until(&[true]).await;
    status.store(503, Ordering::Relaxed);
    until(&[true, false]).await;
    status.store(200, Ordering::Relaxed);
    until(&[true, false, true]).await;
    server.abort();
    until(&[true, false, true, false]).await;
    task.abort();
}

/// kube-proxy that listens only on the node's primary address.
#[tokio::test]
async fn the_nodes_own_addresses_are_asked_too() {
    let listener = TcpListener::bind("127.0.0.9:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ok = Router::new().fallback(|| async { StatusCode::OK });
    let server = tokio::spawn(async move { axum::serve(listener, ok).await.unwrap() });
    let asker = Asker::new();
    let other: IpAddr = "127.0.0.9".parse().unwrap();
    assert!(!asker.ask(&[], port).await);
    assert!(asker.ask(&[other], port).await);
    server.abort();
}
