//! Helpers for the tests of the mock cloud: a server in this process, on loopback addresses
//! that no other test of the same run uses.
#![allow(unreachable_pub)] // one program

pub mod nodes;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use ballast_mock::MockProvider;
use ballast_mock::server::{Server, ServerOptions};
use ballast_provider::{
    Affinity, Balancer, Family, Key, Listener, LoadBalancer, Mark, Member, Protocol, ServiceId,
    TrafficPolicy,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A server that stops when this is dropped.
pub struct Cloud {
    pub address: SocketAddr,
    shutdown: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// The addresses of one test: its own /24 of 127.64.0.0/10.
pub fn range() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 512).unwrap();
    let next = NEXT.fetch_add(1, Ordering::Relaxed) % 32;
    let number = process * 32 + next;
    format!("127.{}.{}.0/24", 64 + number / 256, number % 256)
}

pub fn mark() -> Mark {
    Mark {
        cluster: "5d2f".into(),
        cluster_name: "lab".into(),
        class: "local".into(),
        writer: "1".into(),
    }
}

pub fn id(name: &str) -> ServiceId {
    ServiceId {
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid-{name}").into(),
    }
}

pub fn listener(protocol: Protocol, port: u16, node_port: u16) -> Listener {
    Listener {
        name: Some(format!("{}-{port}", protocol.as_str().to_lowercase())),
        protocol,
        port,
        node_port,
    }
}

pub fn load_balancer(name: &str, listeners: Vec<Listener>) -> LoadBalancer {
    LoadBalancer {
        id: id(name),
        listeners,
        families: vec![Family::V4],
        traffic_policy: TrafficPolicy::Cluster,
        affinity: Affinity::None,
        source_ranges: Vec::new(),
        requested_addresses: Vec::new(),
        share_key: None,
        settings: ballast_provider::Settings::new(),
    }
}

pub fn balancer(load_balancer: LoadBalancer) -> Balancer {
    Balancer {
        key: Key::alone(&load_balancer.id),
        members: vec![Member {
            load_balancer,
            published: Vec::new(),
            placement: ballast_provider::Placement::default(),
            endpoints: None,
        }],
        kept: std::collections::BTreeSet::new(),
        deletes_nothing: false,
    }
}

/// Runs the test of this name alone in a process of its own, for tests that measure their
/// whole process. Returns whether this is that process.
pub fn alone(test: &str) -> bool {
    const ALONE: &str = "BALLAST_TEST_ALONE";
    if std::env::var(ALONE).is_ok_and(|name| name == test) {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let [said, failed] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    println!("{said}");
    assert!(output.status.success(), "{failed}");
    assert!(said.contains("1 passed"), "{said}");
    false
}

/// Waits until a condition returns a value.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let looked = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    looked
        .await
        .unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// Options for a test: any API port, its own addresses, frequent health checks.
pub fn options(state: &tempfile::TempDir) -> ServerOptions {
    let mut options = ServerOptions::new(state.path());
    options.listen = ([127, 0, 0, 1], 0).into();
    options.addresses = vec![range().parse().unwrap()];
    options.plane.health_interval = Duration::from_millis(50);
    options.plane.bind_retry = Duration::from_millis(50);
    options
}

impl Cloud {
    pub async fn start(options: ServerOptions) -> Self {
        let shutdown = CancellationToken::new();
        let server = Server::start(options, shutdown.clone()).await.unwrap();
        let address = server.address().unwrap();
        let task = tokio::spawn(async move { server.serve().await.unwrap() });
        Self {
            address,
            shutdown,
            task: Some(task),
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn provider(&self) -> MockProvider {
        MockProvider::new(&self.endpoint(), None, mark()).unwrap()
    }

    pub async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(task) = self.task.take() {
            task.await.unwrap();
        }
    }
}

/// Calls the API without a token. Returns the status and the body (`null` if it is not
/// JSON).
pub async fn call(
    cloud: &Cloud,
    method: &str,
    path: &str,
    body: Option<serde_json::Value>,
) -> (u16, serde_json::Value) {
    use http_body_util::{BodyExt, Full};
    use hyper::body::Bytes;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let body = body.map_or_else(String::new, |body| body.to_string());
    let request = http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", cloud.endpoint()))
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let answer = client.request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// Reads one URI, for tests without the cloud at hand.
pub async fn fetch(uri: http::Uri) -> (u16, serde_json::Value) {
    use http_body_util::{BodyExt, Empty};
    use hyper::body::Bytes;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.get(uri).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

pub async fn get(cloud: &Cloud, path: &str) -> (u16, serde_json::Value) {
    call(cloud, "GET", path, None).await
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
