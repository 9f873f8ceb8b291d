use std::sync::{Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use serde_json::{Value, json};

use super::*;
use crate::process::admin::Health;

const PATH: &str = "/api/v1/namespaces/ballast-system/secrets";

/// An API server with one Secret at most, which refuses what it is told to.
#[derive(Default)]
struct Server {
    secret: Mutex<Option<Value>>,
    /// Verb and code of the next answers.
    refuse: Mutex<Vec<(&'static str, u16)>>,
    /// Somebody else creates it between our look and our try.
    race: Mutex<Option<Value>>,
    asked: Mutex<Vec<String>>,
}

impl Server {
    fn client(self: &Arc<Self>) -> Client {
        let server = Arc::clone(self);
        let router: Router = Router::new().fallback(move |request: Request| {
            let server = Arc::clone(&server);
            async move { server.answer(request).await }
        });
        Client::new(router, "default")
    }

    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let verb = if parts.method == "POST" {
            "create"
        } else {
            "get"
        };
        lock(&self.asked).push(format!("{verb} {}", parts.uri.path()));
        let refused = {
            let mut all = lock(&self.refuse);
            let at = all.iter().position(|(of, _)| *of == verb);
            at.map(|at| all.remove(at).1)
        };
        if let Some(code) = refused {
            return reply(code, &failure(code));
        }
        if parts.uri.path().contains("selfsubjectreviews") {
            let status = json!({"userInfo": {"username": "system:serviceaccount:ballast-system:ballast-controller", "uid": "uid-1"}});
            return reply(201, &json!({"metadata": {}, "status": status}));
        }
        let mut secret = lock(&self.secret);
        match (verb, secret.clone()) {
            ("get", Some(secret)) => reply(200, &secret),
            ("get", None) => {
                *secret = lock(&self.race).take();
                reply(404, &failure(404))
            }
            (_, Some(_)) => reply(409, &failure(409)),
            (_, None) => {
                assert_eq!(parts.uri.path(), PATH);
                *secret = Some(body.clone());
                reply(201, &body)
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failure(code: u16) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "AlreadyExists",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": format!("no: {code}"), "reason": reason})
}

fn reply(code: u16, body: &Value) -> Response {
    let body = Body::from(body.to_string());
    Response::builder().status(code).body(body).unwrap()
}

fn name() -> SecretName {
    SecretName {
        namespace: "ballast-system".into(),
        name: "mock-token".into(),
    }
}

fn user(username: &str, uid: &str) -> UserInfo {
    UserInfo {
        username: Some(username.into()),
        uid: Some(uid.into()),
        ..UserInfo::default()
    }
}

fn me() -> OwnerReference {
    let account = "system:serviceaccount:ballast-system:ballast-controller";
    owner(&user(account, "uid-1"), "ballast-system").unwrap()
}

fn secret_of(token: &str) -> Value {
    let data = ByteString(token.as_bytes().to_vec());
    json!({"metadata": {"name": "mock-token"}, "data": {"token": data}})
}

async fn learned(server: &Arc<Server>) -> (Option<String>, Health) {
    let (health, token) = (Health::default(), Token::default());
    let gate = health.gate("the token");
    let (client, name, me) = (server.client(), name(), me());
    let learning = learn(&client, &name, Some(&me), &token, &gate);
    let _ = tokio::time::timeout(RETRY * 3, learning).await;
    (token.get(), health)
}

#[test]
fn only_a_service_account_of_the_namespace_owns_what_is_there() {
    let mine = me();
    assert_eq!(
        (mine.kind.as_str(), mine.name.as_str(), mine.uid.as_str()),
        ("ServiceAccount", "ballast-controller", "uid-1")
    );
    assert_eq!(mine.block_owner_deletion, None);
    for (what, who, uid) in [
        ("a person", "kubernetes-admin", "u"),
        (
            "of another namespace",
            "system:serviceaccount:shop:ballast",
            "u",
        ),
        (
            "without an identity",
            "system:serviceaccount:ballast-system:x",
            "",
        ),
        ("torn", "system:serviceaccount:ballast-system", "u"),
    ] {
        assert_eq!(owner(&user(who, uid), "ballast-system"), None, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_token_is_made_once_and_owned() {
    let server = Arc::new(Server::default());
    let (made, health) = learned(&server).await;
    let made = made.unwrap();
    assert_eq!(made.len(), 64, "32 bytes as hex");
    assert_eq!(health.missing(), Vec::<String>::new());
    let secret: Secret = serde_json::from_value(lock(&server.secret).clone().unwrap()).unwrap();
    assert_eq!(read(&secret).unwrap(), made);
    assert_eq!(secret.metadata.owner_references, Some(vec![me()]));
    assert_eq!(learned(&server).await.0, Some(made), "the next replica");
    assert_eq!(lock(&server.asked).len(), 3, "get, create, get");
}

/// Installed again before the garbage collector was there.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_about_to_vanish_is_not_used() {
    let server = Arc::new(Server::default());
    let mut old = secret_of("old");
    let owner = OwnerReference {
        uid: "uid-0".into(),
        ..me()
    };
    old["metadata"]["ownerReferences"] = json!([owner]);
    *lock(&server.secret) = Some(old);
    let (token, health) = learned(&server).await;
    assert_eq!(token, None);
    assert!(
        health.missing()[0].contains("is gone"),
        "{:?}",
        health.missing()
    );
    *lock(&server.secret) = None;
    let made = learned(&server).await.0.unwrap();
    assert_ne!(made, "old");
}

#[tokio::test(start_paused = true)]
async fn of_two_replicas_one_makes_it_and_both_use_it() {
    let server = Arc::new(Server::default());
    *lock(&server.race) = Some(secret_of(" theirs\n"));
    assert_eq!(learned(&server).await.0.as_deref(), Some("theirs"));
}

#[tokio::test(start_paused = true)]
async fn trouble_is_retried_and_said() {
    for (verb, code) in [("get", 500), ("create", 500), ("get", 403)] {
        let server = Arc::new(Server::default());
        lock(&server.refuse).push((verb, code));
        let (token, health) = learned(&server).await;
        assert!(token.is_some(), "{verb} {code}");
        assert_eq!(health.missing(), Vec::<String>::new());
    }
    let server = Arc::new(Server::default());
    *lock(&server.refuse) = vec![("create", 403); 20];
    let (token, health) = learned(&server).await;
    assert_eq!(token, None);
    assert_eq!(
        health.missing(),
        ["waiting for: the token (the controller may not create it: no: 403)"]
    );
    *lock(&server.refuse) = vec![];
    *lock(&server.secret) = Some(json!({"metadata": {"name": "mock-token"}}));
    let (token, health) = learned(&server).await;
    assert_eq!(token, None);
    assert!(health.missing()[0].contains("no key \"token\""));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_may_name_an_owner_it_belongs_to_nobody() {
    let server = Arc::new(Server::default());
    lock(&server.refuse).push(("create", 403));
    assert!(learned(&server).await.0.is_some());
    let secret = lock(&server.secret).clone().unwrap();
    assert_eq!(secret["metadata"].get("ownerReferences"), None);
}

#[tokio::test(start_paused = true)]
async fn who_this_is_is_asked_until_there_is_an_answer() {
    for (codes, expected) in [
        (vec![], Some(me())),
        (vec![("create", 500), ("create", 503)], Some(me())),
        (vec![("create", 403)], None),
        (vec![("create", 404)], None),
    ] {
        let server = Arc::new(Server::default());
        *lock(&server.refuse) = codes.clone();
        let health = Health::default();
        let gate = health.gate("who this is");
        let owner = identify(&server.client(), "ballast-system", &gate).await;
        assert_eq!(owner, expected, "{codes:?}");
        assert_eq!(health.missing(), Vec::<String>::new());
    }
}

#[test]
fn a_token_is_never_printed() {
    let token = Token::default();
    assert_eq!(format!("{token:?}"), "Token(none)");
    token.set("secret".into());
    token.set("another".into());
    assert_eq!(format!("{token:?}"), "Token(known)");
    assert_eq!(token.get().as_deref(), Some("secret"));
}
