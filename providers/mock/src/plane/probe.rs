//! Runs health checks. One task starts them, as many at a time as `health` allows; each check is
//! a task that ends with the check's time-out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::health::{Answer, Check, MAX_CHECKS, Question, node_of};
use super::plan::Config;
use super::{Plane, Shared, write};

/// Time until the schedule is read again when there are no checks.
const IDLE: Duration = Duration::from_mins(1);

/// Runs until shutdown.
pub(super) async fn run(plane: Plane, shutdown: CancellationToken) {
    let shared = Arc::clone(&plane.shared);
    loop {
        let now = Instant::now();
        let (due, next) = {
            let mut health = write(&shared.health);
            let due = health.start_due(now);
            (due, health.next_due().unwrap_or(now + IDLE))
        };
        for check in due {
            let (shared, stop) = (Arc::clone(&shared), shutdown.clone());
            tokio::spawn(async move {
                stop.run_until_cancelled(ask(shared, check)).await;
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = shared.rechecks.notified() => refresh(&plane),
            // The timer learns when that check is due again.
            () = shared.answered.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

/// Updates the set of checks from the load balancers and target sets.
fn refresh(plane: &Plane) {
    let configs: Vec<Arc<Config>> = plane
        .running()
        .values()
        .map(|running| running.balancer.config())
        .collect();
    let nodes = |set: &str| -> Vec<IpAddr> {
        plane
            .shared
            .targets(set)
            .iter()
            .filter_map(node_of)
            .collect()
    };
    let mut health = write(&plane.shared.health);
    let needed = health.needed(configs.iter().map(AsRef::as_ref), nodes);
    if needed.len() >= MAX_CHECKS {
        tracing::warn!(
            checks = MAX_CHECKS,
            "there are more health checks than possible; the health of some targets is unknown"
        );
    }
    health.keep(&needed, Instant::now());
}

async fn ask(shared: Arc<Shared>, check: Check) {
    let options = &shared.options;
    let answer = match check.question {
        Question::Shared => healthz(check.node, options.health_port, options.health_timeout).await,
        Question::Local(port) => healthz(check.node, port, options.health_timeout).await,
        Question::Accepts(port) => accepts(check.node, port, options.health_timeout).await,
    };
    if write(&shared.health).answer(check, answer) {
        tracing::info!(node = %check.node, question = ?check.question, ?answer, "a target's health changed");
        shared.bump();
        // A node without a shared health port needs other checks.
        shared.rechecks.notify_one();
    }
    shared.answered.notify_one();
}

async fn accepts(node: IpAddr, port: u16, limit: Duration) -> Answer {
    match timeout(limit, TcpStream::connect(SocketAddr::new(node, port))).await {
        Ok(Ok(_)) => Answer::Good,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Answer::Nothing,
        Ok(Err(_)) | Err(_) => Answer::Bad,
    }
}

async fn healthz(node: IpAddr, port: u16, limit: Duration) -> Answer {
    let address = SocketAddr::new(node, port);
    let asked = timeout(limit, async {
        let stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Answer::Nothing;
            }
            Err(_) => return Answer::Bad,
        };
        match get(stream, address).await {
            Ok(http::StatusCode::OK) => Answer::Good,
            Ok(_) | Err(_) => Answer::Bad,
        }
    });
    asked.await.unwrap_or(Answer::Bad)
}

async fn get(stream: TcpStream, address: SocketAddr) -> hyper::Result<http::StatusCode> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = hyper::Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static("/healthz");
    if let Ok(host) = http::HeaderValue::from_str(&address.to_string()) {
        request.headers_mut().insert(http::header::HOST, host);
    }
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    // The connection does the work of the request, and is dropped with it.
    tokio::select! {
        answer = &mut answer => Ok(answer?.status()),
        ended = &mut connection => {
            ended?;
            Ok(answer.await?.status())
        }
    }
}
