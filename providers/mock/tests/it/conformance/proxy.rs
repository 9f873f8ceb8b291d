//! A proxy between client and server. It counts mutating calls and cuts the connection
//! before or after one of them.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use ballast_provider::conformance::Crash;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) effects: u64,
    pub(crate) broken: bool,
    /// The names of target sets that were put; the API cannot list them.
    pub(crate) target_sets: BTreeSet<String>,
    crash: Option<(Crash, u64)>,
}

/// What happens to one call.
enum CallFault {
    Pass,
    Vanish,
    LoseAnswer,
}

// === impl Proxy ===

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, client) = (Arc::clone(&shared), client.clone());
                tokio::spawn(async move {
                    let service = service_fn(|request| carry(request, &state, &client));
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    // Cut connections are expected: the proxy cuts them.
                    let _ = served.await;
                });
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set_crash(&self, crash: Option<Crash>) {
        let mut state = self.state();
        state.broken = false;
        state.crash = crash.map(|crash| (crash, 0));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl State ===

impl State {
    fn fate(&mut self, method: &Method, path: &str) -> CallFault {
        if self.broken {
            return CallFault::Vanish;
        }
        if *method == Method::GET {
            return CallFault::Pass;
        }
        self.effects += 1;
        if let Some(name) = path.strip_prefix("/v1/target-sets/") {
            self.target_sets.insert(name.to_owned());
        }
        let Some((crash, count)) = &mut self.crash else {
            return CallFault::Pass;
        };
        *count += 1;
        let fate = match *crash {
            Crash::Before(at) if at == *count => CallFault::Vanish,
            Crash::After(at) if at == *count => CallFault::LoseAnswer,
            Crash::Before(_) | Crash::After(_) => return CallFault::Pass,
        };
        self.broken = true;
        fate
    }
}

async fn carry(
    request: Request<Incoming>,
    state: &Mutex<State>,
    client: &Client<HttpConnector, Full<Bytes>>,
) -> io::Result<Response<Full<Bytes>>> {
    let cut = || io::Error::other("cut");
    let (fate, upstream) = {
        let mut state = state.lock().unwrap();
        (
            state.fate(request.method(), request.uri().path()),
            state.upstream,
        )
    };
    if matches!(fate, CallFault::Vanish) {
        return Err(cut());
    }
    let (mut head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path = head.uri.path_and_query().unwrap();
    head.uri = format!("http://{}{path}", upstream.unwrap())
        .parse()
        .unwrap();
    let request = Request::from_parts(head, Full::new(body));
    let answer = client.request(request).await.map_err(io::Error::other)?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    match fate {
        CallFault::Pass => Ok(Response::from_parts(head, Full::new(body))),
        CallFault::Vanish | CallFault::LoseAnswer => Err(cut()),
    }
}
