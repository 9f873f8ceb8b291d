//! Lists with consistent pages, and watches that can be cut, frozen and made too old.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::stream;
use http::request::Parts;
use rand::RngExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Api, Kind, Page, Past, Refused, answer, status};
use crate::support::journal::Link;

/// An open watch.
struct Watch {
    api: Arc<Api>,
    link: Link,
    kind: Kind,
    /// The version delivered so far.
    version: u64,
    generation: u64,
    number: u64,
    until: Instant,
    over: bool,
    changed: tokio::sync::watch::Receiver<u64>,
}

/// What a watch delivers next.
enum Look {
    Nothing,
    Event(Value),
    /// The server ends it.
    End,
}

// === impl Api ===

impl Api {
    pub(super) fn list_or_watch(
        self: &Arc<Self>,
        link: &Link,
        kind: Kind,
        parts: &Parts,
    ) -> Response {
        let query: HashMap<String, String> = pairs(parts.uri.query().unwrap_or_default());
        let number = |key: &str| query.get(key).and_then(|value| value.parse::<u64>().ok());
        if query.get("watch").is_some_and(|watch| watch == "true") {
            let version = number("resourceVersion");
            let seconds = number("timeoutSeconds");
            let (Some(version), Some(seconds)) = (version, seconds) else {
                self.journal.violation(format!(
                    "{} watches without a start or an end: {}",
                    link.name(),
                    parts.uri
                ));
                return answer(400, &Value::Null);
            };
            return self.watch(link, kind, version, seconds);
        }
        let known = ["limit", "continue"];
        if query.keys().any(|key| !known.contains(&key.as_str())) {
            self.journal
                .violation(format!("{} lists with {}", link.name(), parts.uri));
        }
        let limit = number("limit")
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| *limit > 0);
        match self.list(kind, limit, query.get("continue")) {
            Ok(list) => answer(200, &list),
            Err(refused) => answer(refused.0, &status(&refused)),
        }
    }

    fn list(
        &self,
        kind: Kind,
        limit: Option<usize>,
        token: Option<&String>,
    ) -> Result<Value, Refused> {
        let mut state = self.lock();
        let page = match token {
            None if kind == Kind::Service && state.past.is_some() => {
                let Past { version, services } = state.past.clone().unwrap();
                let rest = services;
                Page { version, rest }
            }
            None => {
                let all = state.objects.iter().filter(|((of, _), _)| *of == kind);
                Page {
                    rest: all.map(|(_, object)| object.clone()).collect(),
                    version: state.version,
                }
            }
            Some(token) => match state.pages.remove(token) {
                Some(page) if page.version >= state.compacted => page,
                _ => {
                    let why = "The provided continue parameter is too old to display a consistent list result.";
                    return Err((410, "Expired", why.to_owned()));
                }
            },
        };
        let Page { version, mut rest } = page;
        let limit = limit
            .unwrap_or(usize::MAX)
            .min(state.page_limit)
            .min(rest.len());
        let next = rest.split_off(limit);
        let mut meta = json!({"resourceVersion": version.to_string()});
        if !next.is_empty() {
            let token = format!("{}-{version}-{}", kind.name(), next.len());
            meta["continue"] = token.clone().into();
            state.pages.insert(
                token,
                Page {
                    version,
                    rest: next,
                },
            );
        }
        if !matches!(kind, Kind::Class | Kind::Pool | Kind::Announcer) {
            for object in &mut rest {
                let fields = object.as_object_mut().unwrap();
                fields.remove("kind");
                fields.remove("apiVersion");
            }
        }
        Ok(json!({
            "kind": format!("{}List", kind.name()), "apiVersion": kind.version(),
            "metadata": meta, "items": rest,
        }))
    }

    fn watch(self: &Arc<Self>, link: &Link, kind: Kind, version: u64, seconds: u64) -> Response {
        let (generation, number) = {
            let mut state = self.lock();
            state.watches += 1;
            (state.generation, state.watches)
        };
        let watch = Watch {
            api: Arc::clone(self),
            link: link.clone(),
            kind,
            version,
            generation,
            number,
            until: Instant::now() + Duration::from_secs(seconds),
            over: false,
            changed: self.journal.subscribe(),
        };
        let events = stream::unfold(watch, |mut watch| async move {
            let event = watch.next().await?;
            Some((
                Ok::<_, Infallible>(Bytes::from(format!("{event}\n"))),
                watch,
            ))
        });
        Response::builder()
            .status(200)
            .body(Body::from_stream(events))
            .unwrap()
    }
}

// === impl Watch ===

impl Watch {
    /// The next event, once there is one; `None`: the server ends the watch.
    async fn next(&mut self) -> Option<Value> {
        loop {
            self.link.to_api().await;
            if self.over {
                return None;
            }
            self.changed.mark_unchanged();
            match self.look() {
                Look::End => return None,
                Look::Nothing => {}
                Look::Event(event) => {
                    let millis = {
                        let mut state = self.api.lock();
                        let latency = state.latency * 4;
                        state.rng.random_range(0..=latency)
                    };
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    self.link.to_api().await;
                    return Some(event);
                }
            }
            tokio::select! {
                _ = self.changed.changed() => {}
                () = tokio::time::sleep_until(self.until) => return None,
            }
        }
    }

    /// What can be delivered now.
    fn look(&mut self) -> Look {
        let state = self.api.lock();
        if state.generation != self.generation {
            return Look::End;
        }
        if state.frozen || state.late.contains(&self.kind) || self.number <= state.silent {
            return Look::Nothing;
        }
        if self.version < state.compacted {
            self.over = true;
            let expired = (
                410,
                "Expired",
                format!(
                    "too old resource version: {} ({})",
                    self.version, state.compacted
                ),
            );
            return Look::Event(json!({"type": "ERROR", "object": status(&expired)}));
        }
        let first = state
            .history
            .partition_point(|change| change.version <= self.version);
        let change = state.history[first..]
            .iter()
            .find(|change| change.kind == self.kind);
        let Some(change) = change else {
            return Look::Nothing;
        };
        self.version = change.version;
        Look::Event(json!({"type": change.event, "object": change.object}))
    }
}

/// Query parameters; none of ours is escaped.
fn pairs(query: &str) -> HashMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
