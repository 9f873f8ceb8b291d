//! Tests over a real socket on the loopback.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::Instant,
};

use super::*;

/// A running server, and the means to stop it.
struct Served {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

async fn start(health: &Health, metrics: Registry) -> Served {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let admin = Admin::bind(any, health.clone(), Arc::new(metrics))
        .await
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    Served {
        address: admin.local_addr(),
        stop,
        task: tokio::spawn(admin.run(async { drop(stopped.await) })),
    }
}

impl Served {
    /// The status line, the headers and the body.
    async fn get(&self, path: &str) -> (String, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let (status, headers) = head.split_once("\r\n").unwrap();
        (status.to_owned(), headers.to_lowercase(), body.to_owned())
    }

    async fn expect(&self, path: &str, code: u16, body: &str) {
        let (status, _, text) = self.get(path).await;
        assert_eq!(
            (status.contains(&code.to_string()), text.as_str()),
            (true, body),
            "{status}"
        );
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn readiness_names_every_gate_that_is_closed() {
    let health = Health::default();
    let served = start(&health, Registry::default()).await;
    served.expect("/readyz", 200, "ready\n").await;

    let classes = health.gate("LoadBalancerClass watch");
    let nodes = health.gate("Node watch");
    classes.not_ready("CRD not\ninstalled?");
    let both =
        "waiting for: LoadBalancerClass watch (CRD not installed?)\nwaiting for: Node watch\n";
    served.expect("/readyz", 503, both).await;

    classes.ready();
    served
        .expect("/readyz", 503, "waiting for: Node watch\n")
        .await;
    nodes.ready();
    served.expect("/readyz", 200, "ready\n").await;

    nodes.not_ready("relisting");
    drop(nodes);
    served
        .expect("/readyz", 503, "waiting for: Node watch (relisting)\n")
        .await;
    // Closed gates do not affect liveness.
    served.expect("/livez", 200, "alive\n").await;
    served.stop().await;
}

#[tokio::test]
async fn opened_waits_for_the_last_gate() {
    let health = Health::default();
    health.opened().await;
    let (first, second) = (health.gate("first"), health.gate("second"));
    let waiting = tokio::spawn({
        let health = health.clone();
        async move { health.opened().await }
    });
    for open in [&first, &second] {
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        open.ready();
    }
    waiting.await.unwrap();
    first.not_ready("gone");
    assert!(timeout(Duration::ZERO, health.opened()).await.is_err());
}

#[tokio::test]
async fn liveness_asks_the_checks_each_time() {
    let health = Health::default();
    let stuck = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stuck);
    health.liveness("election", move || {
        if seen.load(Ordering::SeqCst) {
            return Err("the task is gone".to_owned());
        }
        Ok(())
    });
    // A check may use the register itself.
    let gates = health.clone();
    health.liveness("gates", move || {
        drop(gates.missing());
        Ok(())
    });
    let served = start(&health, Registry::default()).await;
    served.expect("/livez", 200, "alive\n").await;
    stuck.store(true, Ordering::SeqCst);
    served
        .expect("/livez", 503, "failing: election (the task is gone)\n")
        .await;
    stuck.store(false, Ordering::SeqCst);
    served.expect("/livez", 200, "alive\n").await;
    served.stop().await;
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let mut registry = Registry::default();
    let counter: Counter = Counter::default();
    registry.register("ballast_syncs", "Syncs", counter.clone());
    let served = start(&Health::default(), registry).await;
    counter.inc();
    let (status, headers, body) = served.get("/metrics").await;
    assert!(status.contains("200"), "{status}");
    assert!(
        headers
            .contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{headers}"
    );
    assert_eq!(
        body,
        "# HELP ballast_syncs Syncs.\n# TYPE ballast_syncs counter\nballast_syncs_total 1\n# EOF\n"
    );
    served.stop().await;
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let served = start(&Health::default(), Registry::default()).await;
    let (status, _, _) = served.get("/debug").await;
    assert!(status.contains("404"), "{status}");
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream
        .write_all(
            b"POST /readyz HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("405"), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn a_taken_address_is_an_error() {
    let served = start(&Health::default(), Registry::default()).await;
    let second = Admin::bind(served.address, Health::default(), Arc::default()).await;
    assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    served.stop().await;
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_shutdown() {
    let served = start(&Health::default(), Registry::default()).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let start = Instant::now();
    let address = served.address;
    served.stop().await;
    assert!(start.elapsed() < GRACE / 2);
    assert!(TcpStream::connect(address).await.is_err());
}

/// Every pod of the cluster can connect.
#[tokio::test]
async fn clients_that_finish_no_request_keep_nobody_out() {
    let served = start(&Health::default(), Registry::default()).await;
    let mut stalled = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let half = format!("GET /livez HTTP/1.1\r\nx: {}", "x".repeat(4_000));
        // The server may have closed it already to make room.
        let _ = stream.write_all(half.as_bytes()).await;
        stalled.push(stream);
    }
    let start = Instant::now();
    served.expect("/livez", 200, "alive\n").await;
    assert!(start.elapsed() < Duration::from_secs(1));
    // The first connections were closed to make room.
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(5), stalled[0].read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "still connected");
    served.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let served = start(&Health::default(), Registry::default()).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let large = format!(
        "GET /livez HTTP/1.1\r\nx: {}\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    let _ = stream.write_all(large.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.contains("200 OK"), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_stalls_holds_up_the_shutdown_for_the_grace_at_most() {
    let served = start(&Health::default(), Registry::default()).await;
    let mut stalled = TcpStream::connect(served.address).await.unwrap();
    stalled.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    // After a complete exchange the server has seen the first half of the other one.
    served.expect("/livez", 200, "alive\n").await;
    let start = Instant::now();
    served.stop().await;
    assert!(start.elapsed() < GRACE * 2);
}
