//! Who this process is to the API server, and what it makes in its own namespace: the
//! owner of Lease and Secret, and the token of the mock clouds.
//!
//! Both belong to the controller's `ServiceAccount`, so that the garbage collector takes
//! them away after an uninstall. Every replica does this at its start, before it takes part
//! in the election; until it is done readiness says what is missing. A Secret that is
//! there is used as it is, whoever made it, unless it is about to vanish: what belonged to
//! an installation before this one goes with that.

use std::fmt::{self, Debug};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{info, warn};

use crate::process::REQUEST_TIMEOUT;
use crate::process::admin::Gate;
use crate::process::causes::causes;

const RETRY: Duration = Duration::from_secs(2);
/// The key of the Secret.
const KEY: &str = "token";
const ACCOUNT: &str = "system:serviceaccount:";

/// The bearer token of the mock clouds, once it is known. Clones share it.
#[derive(Clone, Default)]
pub struct Token(Arc<OnceLock<String>>);

/// Where the token is, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

/// Why the Secret is of no use yet.
#[derive(Debug, thiserror::Error)]
enum NoToken {
    #[error("the API server did not answer in {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("it belongs to a ServiceAccount of this name that is gone, and is about to follow it")]
    Doomed,
    #[error("it has no key \"{KEY}\": add it, or delete the Secret and it is made anew")]
    NoKey,
    #[error("the controller may not {0} it: {1}")]
    Forbidden(&'static str, String),
    #[error("cannot {0} it: {1}")]
    Api(&'static str, #[source] Box<kube::Error>),
}

/// The owner of what this process makes in a namespace: its own `ServiceAccount`, if it
/// has one there. Objects cannot belong to what is in another namespace.
pub fn owner(user: &UserInfo, namespace: &str) -> Option<OwnerReference> {
    let account = user.username.as_deref()?.strip_prefix(ACCOUNT)?;
    let (own, name) = account.split_once(':')?;
    let uid = user.uid.clone().filter(|uid| !uid.is_empty())?;
    (own == namespace).then(|| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        uid,
        ..OwnerReference::default()
    })
}

/// Whether an object belongs to a predecessor of its owner: of the same name, from before an
/// uninstall. The garbage collector takes such an object away, sooner or later.
pub fn is_inherited(object: &ObjectMeta, owner: &OwnerReference) -> bool {
    let owners = object.owner_references.iter().flatten();
    let mut alike = owners.filter(|it| it.kind == owner.kind && it.name == owner.name);
    alike.any(|it| it.uid != owner.uid)
}

/// Asks until there is an answer; an API server that knows no such question has one, too.
pub async fn identify(client: &Client, namespace: &str, gate: &Gate) -> Option<OwnerReference> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let question = SelfSubjectReview::default();
    loop {
        let why = match tokio::time::timeout(
            REQUEST_TIMEOUT,
            api.create(&PostParams::default(), &question),
        )
        .await
        {
            Ok(Ok(answer)) => {
                gate.ready();
                let user = answer.status.and_then(|status| status.user_info);
                return user.and_then(|user| owner(&user, namespace));
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 403..=405) => {
                warn!(error = %status.message, "cannot ask who this is; what is made here will belong to nobody");
                gate.ready();
                return None;
            }
            Ok(Err(error)) => causes(&error),
            Err(_) => NoToken::Timeout(REQUEST_TIMEOUT).to_string(),
        };
        warn!(error = why, "cannot ask who this is");
        gate.not_ready(&why);
        tokio::time::sleep(RETRY).await;
    }
}

/// Tries until the token is known: that of the Secret, or a new one in a new Secret.
pub async fn learn(
    client: &Client,
    secret: &SecretName,
    owner: Option<&OwnerReference>,
    token: &Token,
    gate: &Gate,
) {
    let api: Api<Secret> = Api::namespaced(client.clone(), &secret.namespace);
    loop {
        let limit = 3 * REQUEST_TIMEOUT;
        let known = tokio::time::timeout(limit, find_or_make(&api, secret, owner)).await;
        match known.unwrap_or(Err(NoToken::Timeout(limit))) {
            Ok(found) => {
                token.set(found);
                return gate.ready();
            }
            Err(error) => {
                let why = causes(&error);
                warn!(%secret, error = why, "no token for the mock clouds");
                gate.not_ready(&why);
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn find_or_make(
    api: &Api<Secret>,
    secret: &SecretName,
    owner: Option<&OwnerReference>,
) -> Result<String, NoToken> {
    if let Some(found) = get(api, secret).await? {
        return usable(&found, owner);
    }
    let fresh = hex(&rand::random::<[u8; 32]>());
    let object = Secret {
        metadata: ObjectMeta {
            name: Some(secret.name.clone()),
            owner_references: owner.map(|owner| vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some([(KEY.to_owned(), ByteString(fresh.clone().into_bytes()))].into()),
        ..Secret::default()
    };
    match create(api, object).await {
        Ok(_) => {
            info!(%secret, "made a token for the mock clouds");
            Ok(fresh)
        }
        // Another replica was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => match get(api, secret).await? {
            Some(found) => usable(&found, owner),
            None => Err(NoToken::Doomed),
        },
        Err(error) => Err(NoToken::of("create", error)),
    }
}

/// Creates an object that may have an owner. Some clusters
/// (`OwnerReferencesPermissionEnforcement`) let nobody name an owner who may not delete the
/// object: then it belongs to nobody.
pub async fn create<K>(api: &Api<K>, mut object: K) -> Result<K, kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status))
            if status.is_forbidden() && object.meta().owner_references.is_some() =>
        {
            object.meta_mut().owner_references = None;
            api.create(&PostParams::default(), &object).await
        }
        made => made,
    }
}

async fn get(api: &Api<Secret>, secret: &SecretName) -> Result<Option<Secret>, NoToken> {
    let found = api.get_opt(&secret.name).await;
    found.map_err(|error| NoToken::of("get", error))
}

fn usable(secret: &Secret, owner: Option<&OwnerReference>) -> Result<String, NoToken> {
    if owner.is_some_and(|owner| is_inherited(&secret.metadata, owner)) {
        return Err(NoToken::Doomed);
    }
    read(secret)
}

fn read(secret: &Secret) -> Result<String, NoToken> {
    let data = secret.data.as_ref().and_then(|data| data.get(KEY));
    let text = data.and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    text.map(str::to_owned).ok_or(NoToken::NoKey)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

// === impl Token ===

impl Token {
    /// The token, if it is known by now.
    pub fn get(&self) -> Option<String> {
        self.0.get().cloned()
    }

    /// Makes it known; the first one stays.
    pub fn set(&self, token: String) {
        let _ = self.0.set(token);
    }
}

/// Never the token itself: it would end up in a log.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = if self.0.get().is_some() {
            "known"
        } else {
            "none"
        };
        write!(f, "Token({known})")
    }
}

// === impl SecretName ===

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl NoToken ===

impl NoToken {
    fn of(verb: &'static str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 403 => Self::Forbidden(verb, status.message),
            error => Self::Api(verb, Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests;
