//! The HTTP API: parses requests, calls the state, and answers. It makes no decisions.
//!
//! Every call is logged and has a time-out; a mutating one needs the token and counts
//! towards the rate limit, and reads have a limit per client. With the query
//! `owner=CLUSTER/CLASS`, a call fails if the object's tags name another owner; the check and
//! the change are atomic. With the query `epoch=EPOCH`, a `PUT` fails if it was meant for an
//! earlier run of the cloud.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use ballast_http::Peer;
use ballast_provider::text::bounded;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Host;
use super::answer::{Answers, whole};
use super::calls::{CallLog, is_mutating};
use super::cloud::{Deletion, Owner};
use super::guard::{Guard, Limiter, Readers};
use super::put::{self, Put};
use super::writer::Writer;
use crate::api::{
    ChangesPage, Code, LoadBalancerPage, MAX_PAGE, MAX_WAIT_SECONDS, MeterView, Problem, TagPatch,
    TargetHealthView, TargetSetBody,
};

/// The maximum number of bytes of a body; a full target set of 5,000 nodes is below 1 MB.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// The time that a client may take to send the body.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// The maximum number of bodies that are received at the same time.
pub(super) const BODIES: usize = 16;

/// The maximum number of calls that wait for changes at the same time: half of the
/// connections.
pub(super) const WAITING: usize = 128;

/// When to retry if one of these limits is reached.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// The maximum number of entries of an answer about targets.
const MAX_HEALTH: usize = 10_000;

/// The time-out of every call, without the time to wait for changes.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// How long a `PUT` waits for its ports to be open before it answers without the outcome.
const PLANE_LIMIT: Duration = Duration::from_secs(2);

/// The number of changes per answer.
const CHANGES_PAGE: usize = 1_000;

/// The state that the handlers share.
pub(super) struct App {
    pub(super) writer: Writer,
    pub(super) host: Host,
    pub(super) applied: watch::Receiver<u64>,
    pub(super) calls: Mutex<CallLog>,
    pub(super) guard: Guard,
    pub(super) limiter: Mutex<Limiter>,
    pub(super) readers: Mutex<Readers>,
    pub(super) bodies: Semaphore,
    pub(super) waiting: Semaphore,
    pub(super) answers: Answers,
    /// Target sets of the same name reach the data plane in the order of their commits.
    pub(super) targets: tokio::sync::Mutex<()>,
    pub(super) shutdown: CancellationToken,
}

type Shared = State<Arc<App>>;
type Answer<T> = Result<T, Failure>;

/// An error answer.
pub(super) struct Failure {
    problem: Problem,
    retry_after: Option<Duration>,
}

/// All routes.
pub(super) fn router(app: Arc<App>) -> Router {
    let load_balancer = get(read_one).put(put_one).delete(delete_one);
    let tags = axum::routing::patch(patch_tags).put(patch_tags);
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/v1/load-balancers", get(list))
        .route("/v1/load-balancers/{name}", load_balancer)
        .route("/v1/load-balancers/{name}/tags", tags)
        .route("/v1/load-balancers/{name}/targets", get(target_health))
        .route("/v1/target-sets/{name}", get(read_targets).put(put_targets))
        .route("/v1/changes", get(changes))
        .route("/v1/calls", get(calls))
        .route("/v1/meter", get(meter))
        .fallback(|| async { Failure::from(Problem::new(Code::NotFound, "there is no such path")) })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Handles every call: the token, the rate limits, the time-out and the log.
async fn around(State(app): Shared, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request
        .uri()
        .path_and_query()
        .map_or_else(String::new, ToString::to_string);
    let limit = CALL_LIMIT + Duration::from_secs(MAX_WAIT_SECONDS);
    let answered = timeout(limit, answer(&app, request, next)).await;
    let response = answered.unwrap_or_else(|_| Err(late())).into_response();
    let status = response.status().as_u16();
    tracing::debug!(
        method = bounded(method.as_str()),
        path = bounded(&path),
        status,
        "call"
    );
    let mut calls = lock(&app.calls);
    calls.record(Timestamp::now(), &method, &path, status);
    drop(calls);
    response
}

/// Calls the route, with bounds on the received body and the answer.
async fn answer(app: &App, request: Request, next: Next) -> Answer<Response> {
    let (head, body) = request.into_parts();
    admit(app, &head).await?;
    let body = received(app, &head, body).await?;
    let request = Request::from_parts(head, body);
    let (head, body) = next.run(request).await.into_parts();
    let bytes = whole(body).await.ok_or_else(interrupted)?;
    let body = app.answers.send(bytes).ok_or_else(busy)?;
    Ok(Response::from_parts(head, body))
}

/// Receives the whole body of a mutating call; the number of bodies at the same time is
/// bounded.
async fn received(app: &App, head: &Parts, body: Body) -> Answer<Body> {
    if !is_mutating(&head.method) {
        return Ok(body);
    }
    let received = timeout(BODY_LIMIT, async {
        let _place = app.bodies.acquire().await;
        axum::body::to_bytes(body, MAX_BODY).await
    });
    let bytes = received.await.map_err(|_| late())?;
    let bytes = bytes.map_err(|error| invalid("body", &error.to_string()))?;
    Ok(Body::from(bytes))
}

async fn admit(app: &App, head: &Parts) -> Answer<()> {
    if !is_mutating(&head.method) {
        let peer = head.extensions.get::<Peer>();
        let probe = head.uri.path() == "/healthz";
        return match peer {
            Some(Peer(ip)) if !probe => lock(&app.readers)
                .take(*ip, Instant::now())
                .map_err(|wait| throttled("more reads than one client may make", wait)),
            _ => Ok(()),
        };
    }
    let header = head.headers.get(header::AUTHORIZATION);
    let header = header.and_then(|value| value.to_str().ok());
    if !app.guard.admits(header).await {
        return Err(Problem::new(
            Code::Unauthorized,
            "this call needs the header 'Authorization: Bearer TOKEN' with the token of --token-file",
        )
        .into());
    }
    lock(&app.limiter)
        .take(Instant::now())
        .map_err(|wait| throttled("more calls than --rate-limit allows", wait))
}

async fn read_one(State(app): Shared, Path(name): Path<String>) -> Answer<Response> {
    let view = app.writer.read().view(&name);
    view.map(|view| Json(view).into_response())
        .ok_or_else(|| missing("load balancer", &name))
}

async fn put_one(
    State(app): Shared,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Answer<Response> {
    let put = Put {
        name: name.clone(),
        owner: owner(&query)?,
        epoch: query.get("epoch").cloned(),
        body: parse(&body)?,
    };
    drop(body);
    // A separate task: a client that disconnects must not leave an address half claimed.
    let made = tokio::spawn({
        let app = Arc::clone(&app);
        async move { put::put(&app.writer, &app.host, put).await }
    });
    let made = made.await.unwrap_or_else(|_| Err(interrupted()))?;
    let view = app
        .settled(&name)
        .await
        .ok_or_else(|| missing("load balancer", &name))?;
    let status = if made {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(view)).into_response())
}

async fn delete_one(
    State(app): Shared,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer<StatusCode> {
    let owner = owner(&query)?;
    let key = name.clone();
    let deletion = app
        .writer
        .change(move |cloud, now| cloud.delete(now, &key, owner.as_ref()))
        .await?;
    app.settled(&name).await;
    Ok(match deletion {
        Deletion::Gone => StatusCode::NO_CONTENT,
        Deletion::Deleting => StatusCode::ACCEPTED,
    })
}

async fn patch_tags(
    State(app): Shared,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Answer<Response> {
    let owner = owner(&query)?;
    let patch: TagPatch = parse(&body)?;
    let key = name.clone();
    app.writer
        .change(move |cloud, _| Ok((cloud.patch_tags(&key, owner.as_ref(), &patch.tags)?, ())))
        .await?;
    read_one(State(app), Path(name)).await
}

async fn list(
    State(app): Shared,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Answer<Json<LoadBalancerPage>> {
    let (mut tags, mut token, mut limit) = (Vec::new(), None, MAX_PAGE);
    for (key, value) in pairs {
        match key.as_str() {
            "tag" => match value.split_once('=') {
                Some((key, value)) => tags.push((key.to_owned(), value.to_owned())),
                None => return Err(invalid("tag", &format!("{value:?} is not KEY=VALUE"))),
            },
            "pageToken" | "page_token" => token = Some(value),
            "limit" => match value.parse() {
                Ok(wanted @ 1..) => limit = MAX_PAGE.min(wanted),
                _ => return Err(invalid("limit", &format!("{value:?} is no number above 0"))),
            },
            _ => {
                return Err(invalid(
                    "query",
                    &format!("{key:?} is none of tag, limit and pageToken"),
                ));
            }
        }
    }
    let cloud = app.writer.read();
    let (items, next_page_token) = cloud.page(&tags, token.as_deref(), limit);
    Ok(Json(LoadBalancerPage {
        items,
        next_page_token,
        position: cloud.position(),
        cloud: cloud.identity().to_owned(),
    }))
}

async fn target_health(
    State(app): Shared,
    Path(name): Path<String>,
) -> Answer<Json<Vec<TargetHealthView>>> {
    if app.writer.read().record(&name).is_none() {
        return Err(missing("load balancer", &name));
    }
    let mut health = app.host.plane.health(&name);
    health.truncate(MAX_HEALTH);
    Ok(Json(health))
}

async fn read_targets(State(app): Shared, Path(name): Path<String>) -> Answer<Json<TargetSetBody>> {
    let set = app.writer.read().target_set(&name).cloned();
    set.map(Json).ok_or_else(|| missing("target set", &name))
}

async fn put_targets(
    State(app): Shared,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Answer<Json<TargetSetBody>> {
    let owner = owner(&query)?;
    let body: TargetSetBody = parse(&body)?;
    // A separate task: if the client disconnects, the handler ends, and targets that are
    // stored but not applied would stay so until the next change.
    let put = tokio::spawn(async move {
        let key = name.clone();
        let _order = app.targets.lock().await;
        app.writer
            .change(move |cloud, _| Ok((cloud.put_targets(&key, owner.as_ref(), body)?, ())))
            .await?;
        let set = app.writer.read().target_set(&name).cloned();
        let set = set.ok_or_else(|| missing("target set", &name))?;
        app.host.plane.set_targets(&name, set.targets.clone());
        Ok(Json(set))
    });
    put.await.unwrap_or_else(|_| Err(interrupted().into()))
}

async fn changes(
    State(app): Shared,
    Query(query): Query<HashMap<String, String>>,
) -> Answer<Json<ChangesPage>> {
    let number = |key: &'static str, default: u64| match query.get(key) {
        None => Ok(default),
        Some(text) => text
            .parse::<u64>()
            .map_err(|_| invalid(key, &format!("{text:?} is no number"))),
    };
    let since = number("since", 0)?;
    let wait = number("wait", 0)?.min(MAX_WAIT_SECONDS);
    let until = Instant::now() + Duration::from_secs(wait);
    let place = (wait > 0).then(|| app.waiting.try_acquire());
    let _place = place.transpose().map_err(|_| busy())?;
    let mut latest = app.writer.seq();
    loop {
        latest.borrow_and_update();
        let page = app.changes_page(since, query.get("epoch"))?;
        if !page.items.is_empty() || Instant::now() >= until {
            return Ok(Json(page));
        }
        tokio::select! {
            // Waiting clients must not delay the shutdown.
            () = app.shutdown.cancelled() => return Ok(Json(page)),
            _ = timeout_at(until, latest.changed()) => {}
        }
    }
}

async fn calls(
    State(app): Shared,
    Query(query): Query<HashMap<String, String>>,
) -> Answer<Response> {
    let since = query.get("since").map_or(Ok(0), |text| text.parse());
    let since = since.map_err(|_| invalid("since", "it is no number"))?;
    let page = lock(&app.calls).since(since);
    Ok(Json(page).into_response())
}

async fn meter(State(app): Shared) -> Json<MeterView> {
    Json(app.writer.read().meter(Timestamp::now()))
}

// === impl App ===

impl App {
    /// The load balancer after the data plane has applied all changes committed so far.
    async fn settled(&self, name: &str) -> Option<crate::api::LoadBalancerView> {
        let seq = self.writer.read().position().seq;
        let mut applied = self.applied.clone();
        // If this takes too long, the answer says that the load balancer is still
        // provisioning.
        let _ = timeout(PLANE_LIMIT, applied.wait_for(|applied| *applied >= seq)).await;
        self.writer.read().view(name)
    }

    fn changes_page(&self, since: u64, epoch: Option<&String>) -> Answer<ChangesPage> {
        let cloud = self.writer.read();
        let mut position = cloud.position();
        let same_life = epoch.is_none_or(|epoch| *epoch == position.epoch);
        let items = cloud
            .changes_since(since, CHANGES_PAGE)
            .filter(|_| same_life);
        let Some(items) = items else {
            return Err(Problem::new(
                Code::SequenceUnknown,
                format!("since: the changes after {since} are not known (the last one is {}); list again", position.seq),
            )
            .into());
        };
        if let Some(last) = items.last() {
            position.seq = last.seq;
        }
        Ok(ChangesPage { items, position })
    }
}

// === impl Failure ===

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            retry_after: None,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = self.problem.code.status();
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.problem)).into_response();
        if let Some(wait) = self.retry_after {
            // Whole seconds, at least one.
            let seconds = wait.as_secs() + 1;
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn owner(query: &HashMap<String, String>) -> Answer<Option<Owner>> {
    let Some(text) = query.get("owner") else {
        return Ok(None);
    };
    match text.rsplit_once('/') {
        Some((cluster, class)) => Ok(Some(Owner {
            cluster: cluster.to_owned(),
            class: class.to_owned(),
        })),
        None => Err(invalid("owner", &format!("{text:?} is not CLUSTER/CLASS"))),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    serde_json::from_slice(body).map_err(|error| invalid("body", &error.to_string()))
}

fn invalid(field: &str, message: &str) -> Failure {
    Problem::new(Code::Invalid, format!("{field}: {message}")).into()
}

fn throttled(message: &str, wait: Duration) -> Failure {
    Failure {
        problem: Problem::new(Code::Throttled, message),
        retry_after: Some(wait),
    }
}

fn busy() -> Failure {
    throttled("too many calls are being answered", BUSY_RETRY)
}

fn late() -> Failure {
    Problem::new(Code::Internal, "the call took too long").into()
}

fn interrupted() -> Problem {
    Problem::new(Code::Internal, "the change was interrupted")
}

fn missing(kind: &str, name: &str) -> Failure {
    Problem::new(Code::NotFound, format!("there is no {kind} {name}")).into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters and a ring: a panic cannot leave them incomplete.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
