use std::sync::{Arc, Mutex, PoisonError};

use axum::response::Response;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{client, failure, reply};
use crate::process::admin::Health;

/// An API server that refuses the next calls with these codes.
#[derive(Default)]
struct Server {
    lease: Mutex<Option<Value>>,
    refuse: Mutex<Vec<u16>>,
}

impl Server {
    fn client(self: &Arc<Self>) -> Client {
        let server = Arc::clone(self);
        client(move |parts, body| {
            let answer = server.answer(&parts, &body);
            async move { answer }
        })
    }

    fn answer(&self, parts: &http::request::Parts, body: &Value) -> Response {
        assert_eq!(parts.method, "POST");
        let refused = lock(&self.refuse).pop();
        if let Some(code) = refused {
            return failure(code);
        }
        if parts.uri.path().contains("selfsubjectreviews") {
            let status = json!({"userInfo": {"username": "system:serviceaccount:ballast-system:ballast-controller", "uid": "uid-1"}});
            return reply(201, &json!({"metadata": {}, "status": status}));
        }
        *lock(&self.lease) = Some(body.clone());
        reply(201, body)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

#[test]
fn an_object_of_an_owner_from_before_an_uninstall_is_inherited() {
    let owned = |uid: &str, name: &str| ObjectMeta {
        owner_references: Some(vec![OwnerReference {
            uid: uid.into(),
            name: name.into(),
            ..me()
        }]),
        ..ObjectMeta::default()
    };
    for (object, inherited) in [
        (owned("uid-0", "ballast-controller"), true),
        (owned("uid-1", "ballast-controller"), false),
        (owned("uid-0", "another"), false),
        (ObjectMeta::default(), false),
    ] {
        assert_eq!(is_inherited(&object, &me()), inherited, "{object:?}");
    }
}

#[tokio::test]
async fn an_owner_that_may_not_be_set_is_left_out() {
    for (refuse, owners) in [(vec![], Some(vec![me()])), (vec![403], None)] {
        let server = Arc::new(Server::default());
        *lock(&server.refuse) = refuse;
        let api: Api<Lease> = Api::namespaced(server.client(), "ballast-system");
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some("ballast-controller".into()),
                owner_references: Some(vec![me()]),
                ..ObjectMeta::default()
            },
            ..Lease::default()
        };
        create(&api, lease).await.unwrap();
        let made: Lease = serde_json::from_value(lock(&server.lease).clone().unwrap()).unwrap();
        assert_eq!(made.metadata.owner_references, owners);
    }
    let server = Arc::new(Server::default());
    *lock(&server.refuse) = vec![403, 403];
    let api: Api<Lease> = Api::namespaced(server.client(), "ballast-system");
    assert!(create(&api, Lease::default()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_this_is_is_asked_until_there_is_an_answer() {
    for (codes, expected) in [
        (vec![], Some(me())),
        (vec![500, 503], Some(me())),
        (vec![403], None),
        (vec![404], None),
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
