//! The mock cloud as a separate process, and its harness.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ballast_mock::MockProvider;
use ballast_mock::api::{LoadBalancerPage, TargetSetBody};
use ballast_mock::server::{Server, ServerOptions};
use ballast_provider::conformance::{Crash, Field, Harness, Lab, Object, Support};
use ballast_provider::{Mark, Provider};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::proxy::Proxy;

const STATE: &str = "BALLAST_TEST_STATE";
const RANGE: &str = "BALLAST_TEST_RANGE";
const LATENCY: &str = "BALLAST_TEST_LATENCY_MS";
const READY: &str = "LISTENING ";
pub(crate) const TOKEN: &str = "conformance";

#[derive(Default)]
pub(crate) struct ServerLab {
    latency: Duration,
}

struct ServerHarness {
    state: tempfile::TempDir,
    kept: tempfile::TempDir,
    range: String,
    latency: Duration,
    proxy: Proxy,
    process: Mutex<Process>,
    http: Client<HttpConnector, Full<Bytes>>,
}

/// A child process that is killed with its owner, and reaped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// In the child process: serves until it is killed or its parent exits.
pub(crate) fn serve_if_asked() {
    let Ok(state) = std::env::var(STATE) else {
        return;
    };
    let latency = std::env::var(LATENCY).unwrap().parse().unwrap();
    let mut options = ServerOptions::new(state);
    options.listen = ([127, 0, 0, 1], 0).into();
    options.addresses = vec![std::env::var(RANGE).unwrap().parse().unwrap()];
    options.token = Some(TOKEN.to_owned());
    options.provisioning_latency = Duration::from_millis(latency);
    options.deletion_latency = Duration::from_millis(latency);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let server = Server::start(options, CancellationToken::new())
            .await
            .unwrap();
        println!("{READY}{}", server.address().unwrap());
        std::io::stdout().flush().unwrap();
        server.serve().await.unwrap();
    });
}

/// The addresses of one cloud, which no other cloud of this run uses.
pub(crate) fn range() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 250;
    format!("127.{}.{number}.0/24", 128 + std::process::id() % 120)
}

// === impl Process ===

impl Process {
    pub(crate) fn start(state: &Path, range: &str, latency: Duration) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "conformance::serve_for_another_test",
                "--nocapture",
            ])
            .env(STATE, state)
            .env(RANGE, range)
            .env(LATENCY, latency.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let address = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once(READY)?.1.trim().to_owned()))
            .unwrap_or_else(|| panic!("the server process ended before it listened"));
        Self {
            child,
            address: address.parse().unwrap(),
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl ServerLab ===

impl ServerLab {
    /// Load balancers take time to become active and to be deleted.
    pub(crate) fn slow() -> Self {
        Self {
            latency: Duration::from_millis(40),
        }
    }
}

#[async_trait]
impl Lab for ServerLab {
    async fn cloud(&self) -> Box<dyn Harness> {
        let range = range();
        let state = tempfile::tempdir().unwrap();
        let process = Process::start(state.path(), &range, self.latency);
        let proxy = Proxy::start().await;
        proxy.state().upstream = Some(process.address);
        Box::new(ServerHarness {
            state,
            kept: tempfile::tempdir().unwrap(),
            range,
            latency: self.latency,
            proxy,
            process: Mutex::new(process),
            http: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    fn support(&self, field: Field) -> Support {
        match field {
            Field::ShareKey | Field::Pool | Field::Settings => Support::Remark,
            Field::Created
            | Field::Endpoints
            | Field::Labels
            | Field::NamespaceLabels
            | Field::Pods
            | Field::TargetProviderId
            | Field::TargetLabels => Support::Unused,
            Field::Namespace
            | Field::Name
            | Field::Uid
            | Field::ListenerName
            | Field::Protocol
            | Field::Port
            | Field::NodePort
            | Field::Families
            | Field::FamilyPolicy
            | Field::TrafficPolicy
            | Field::HealthCheckNodePort
            | Field::Affinity
            | Field::AffinityTimeout
            | Field::SourceRanges
            | Field::RequestedAddresses
            | Field::Published
            | Field::TargetName
            | Field::TargetAddresses
            | Field::NodeAddresses => Support::Honoured,
        }
    }

    fn goes_back(&self) -> bool {
        true
    }
}

/// Replaces the files of one folder with those of another.
fn copy(from: &Path, to: &Path) {
    for old in std::fs::read_dir(to).unwrap() {
        std::fs::remove_file(old.unwrap().path()).unwrap();
    }
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

// === impl ServerHarness ===

impl ServerHarness {
    /// Kills the server and starts another one on the same state.
    fn restart(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill();
        *process = Process::start(self.state.path(), &self.range, self.latency);
        self.proxy.state().upstream = Some(process.address);
    }

    async fn call(&self, method: Method, path: &str, body: String) -> (u16, Bytes) {
        let address = self.process.lock().unwrap().address;
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"))
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let answer = self.http.request(request).await.unwrap();
        let status = answer.status().as_u16();
        (
            status,
            answer.into_body().collect().await.unwrap().to_bytes(),
        )
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let (status, body) = self.call(Method::GET, path, String::new()).await;
        (status == 200).then(|| serde_json::from_slice(&body).unwrap())
    }
}

#[async_trait]
impl Harness for ServerHarness {
    async fn provider(&self, mark: &Mark) -> Arc<dyn Provider> {
        let endpoint = format!("http://{}", self.proxy.address);
        let provider = MockProvider::new(&endpoint, Some(TOKEN.to_owned()), mark.clone());
        Arc::new(provider.unwrap())
    }

    async fn effects(&self) -> u64 {
        self.proxy.state().effects
    }

    /// In a crash the server dies, too.
    async fn set_crash(&self, crash: Option<Crash>) {
        let crashed = self.proxy.state().broken;
        if crashed {
            self.restart();
        }
        self.proxy.set_crash(crash);
    }

    async fn crashed(&self) -> bool {
        self.proxy.state().broken
    }

    async fn contents(&self) -> BTreeMap<String, Object> {
        let page: LoadBalancerPage = self.get("/v1/load-balancers").await.unwrap();
        assert!(page.next_page_token.is_none(), "the harness reads one page");
        let mut contents: BTreeMap<String, Object> = page
            .items
            .into_iter()
            .map(|mut view| {
                let object = Object {
                    tags: std::mem::take(&mut view.desired.tags),
                    addresses: view.addresses,
                    state: format!("{:?} {:?}", view.state, view.desired),
                };
                (view.name, object)
            })
            .collect();
        let sets = self.proxy.state().target_sets.clone();
        for name in sets {
            let set: Option<TargetSetBody> = self.get(&format!("/v1/target-sets/{name}")).await;
            if let Some(set) = set {
                let object = Object {
                    tags: set.tags,
                    addresses: Vec::new(),
                    state: format!("{:?} {:?}", set.targets, set.node_addresses),
                };
                contents.insert(name, object);
            }
        }
        contents
    }

    async fn plant(&self, name: &str, tags: BTreeMap<String, String>) {
        let (path, body) = if name.starts_with("ts-") {
            self.proxy.state().target_sets.insert(name.to_owned());
            let target = json!({"name": "planted", "addresses": ["127.0.11.1"]});
            ("target-sets", json!({"targets": [target], "tags": tags}))
        } else {
            let desired = json!({
                "listeners": [{"protocol": "TCP", "port": 29_999, "nodePort": 30_999}],
                "families": ["IPv4"],
                "trafficPolicy": "cluster",
                "affinity": "none",
                "targetSet": "planted",
                "tags": tags,
            });
            ("load-balancers", json!({"desired": desired}))
        };
        let path = format!("/v1/{path}/{name}");
        let (status, answer) = self.call(Method::PUT, &path, body.to_string()).await;
        assert!(status < 300, "{name} cannot be planted: {answer:?}");
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    /// Copies the files; nothing is written during the copy.
    async fn keep(&self) {
        copy(self.state.path(), self.kept.path());
    }

    async fn go_back(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill();
        copy(self.kept.path(), self.state.path());
        *process = Process::start(self.state.path(), &self.range, self.latency);
        self.proxy.state().upstream = Some(process.address);
    }
}
