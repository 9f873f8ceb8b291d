//! Access to the `ConfigMap`. One method is one step that can be repeated; it does not choose.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::Record;
use crate::process::REQUEST_TIMEOUT;
use crate::process::causes::causes;
use crate::process::identity::is_inherited;

/// The field manager of the `ConfigMap`.
const MANAGER: &str = "ballast-teardown";
/// Somebody else writes it at the same time only by chance.
const TRIES: u32 = 5;

/// The `ConfigMap` beside a Lease.
#[derive(Clone, Debug)]
pub struct Drains {
    api: Api<ConfigMap>,
    namespace: String,
    name: String,
    /// The account of the installation, if it is known. Another of the same name was that of an
    /// installation before, and the garbage collector is about to delete what it owns.
    owners: Vec<OwnerReference>,
}

/// Why it could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// A right is missing.
    #[error("{0}")]
    Forbidden(String),
    /// Somebody else keeps writing it.
    #[error("somebody else writes it at the same time")]
    Conflict,
    /// No answer in time.
    #[error("the API server did not answer in {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    /// Any other error.
    #[error("{}", causes(.0))]
    Failed(#[source] Box<kube::Error>),
}

// === impl Drains ===

impl Drains {
    /// That of the installation with this Lease (namespace, name).
    pub fn beside(client: Client, (namespace, lease): &(String, String)) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.clone(),
            name: format!("{lease}-drain"),
            owners: Vec::new(),
        }
    }

    /// With these owners: of a `ConfigMap` that is created, so that it goes with the
    /// installation. One of a former installation counts as none.
    #[must_use]
    pub fn owned_by(self, owners: Vec<OwnerReference>) -> Self {
        Self { owners, ..self }
    }

    /// What drains. Nothing, if there is no `ConfigMap`.
    pub async fn read(&self) -> Result<Record, DrainError> {
        let object = within(self.api.get_opt(&self.name)).await?;
        Ok(self.record(object.as_ref()))
    }

    /// Changes what drains. Returns what drained before, and what does now.
    pub async fn edit(
        &self,
        change: impl Fn(Record) -> Record,
    ) -> Result<(Record, Record), DrainError> {
        for _ in 0..TRIES {
            let object = within(self.api.get_opt(&self.name)).await?;
            let before = self.record(object.as_ref());
            let now = change(before.clone());
            if now == before {
                return Ok((before, now));
            }
            let written = match &object {
                Some(object) => self.replace(object, &now).await,
                None => self.create(&now).await,
            };
            match written {
                Ok(()) => return Ok((before, now)),
                Err(DrainError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(DrainError::Conflict)
    }

    fn record(&self, object: Option<&ConfigMap>) -> Record {
        let object = object.filter(|it| !self.is_inherited(it));
        object.map(Record::of).unwrap_or_default()
    }

    fn is_inherited(&self, object: &ConfigMap) -> bool {
        let mut owners = self.owners.iter();
        owners.any(|owner| is_inherited(&object.metadata, owner))
    }

    async fn replace(&self, object: &ConfigMap, record: &Record) -> Result<(), DrainError> {
        let now = record.data();
        let before = object.data.iter().flatten();
        let gone = before.filter(|(key, _)| !now.contains_key(*key));
        let gone = gone.map(|(key, _)| (key.clone(), Value::Null));
        let kept = now.iter().map(|(key, value)| (key.clone(), json!(value)));
        let data: serde_json::Map<String, Value> = gone.chain(kept).collect();
        let mut body = json!({
            "metadata": {"resourceVersion": object.metadata.resource_version},
            "data": data,
        });
        if self.is_inherited(object) {
            body["metadata"]["ownerReferences"] = json!(self.owners);
        }
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        within(self.api.patch(&self.name, &params, &Patch::Merge(&body))).await?;
        Ok(())
    }

    /// With an owner, it goes with the installation. Where only those who may delete an object
    /// may set its owner, it gets none.
    async fn create(&self, record: &Record) -> Result<(), DrainError> {
        match self.apply(&self.owners, record).await {
            Err(DrainError::Forbidden(_)) if !self.owners.is_empty() => {
                self.apply(&[], record).await
            }
            done => done,
        }
    }

    /// By server-side apply: then the right to create it can be limited to its name.
    async fn apply(&self, owners: &[OwnerReference], record: &Record) -> Result<(), DrainError> {
        let body = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name, "ownerReferences": owners},
            "data": record.data(),
        });
        let params = PatchParams::apply(MANAGER).force();
        within(self.api.patch(&self.name, &params, &Patch::Apply(&body))).await?;
        Ok(())
    }
}

impl std::fmt::Display for Drains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConfigMap {}/{}", self.namespace, self.name)
    }
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, DrainError> {
    const TIME: Duration = REQUEST_TIMEOUT;
    match tokio::time::timeout(TIME, call).await {
        Err(_) => Err(DrainError::Timeout),
        Ok(answer) => answer.map_err(DrainError::from),
    }
}

// === impl DrainError ===

impl From<kube::Error> for DrainError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_forbidden() => Self::Forbidden(status.message),
            kube::Error::Api(status) if status.is_conflict() => Self::Conflict,
            error => Self::Failed(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::class::Scope;
    use crate::fixtures::{client, failure, reply};

    /// An API server with this object, that refuses an owner; and what was sent to it.
    fn server(object: Option<Value>) -> (Drains, Arc<Mutex<Vec<Value>>>) {
        let sent: Arc<Mutex<Vec<Value>>> = Arc::default();
        let seen = Arc::clone(&sent);
        let client = client(move |parts, body| {
            let (object, seen) = (object.clone(), Arc::clone(&seen));
            async move {
                if parts.method == http::Method::GET {
                    return object.map_or_else(|| failure(404), |it| reply(200, &it));
                }
                let owned = body["metadata"]["ownerReferences"].get(0).is_some();
                seen.lock().unwrap().push(body.clone());
                if owned {
                    failure(403)
                } else {
                    reply(200, &json!({"metadata": {}}))
                }
            }
        });
        let lease = ("ballast-system".to_owned(), "ballast-controller".to_owned());
        (Drains::beside(client, &lease), sent)
    }

    #[tokio::test]
    async fn only_what_changes_is_written() {
        let none = |it: Record| it.without(&Scope::All);
        let (drains, sent) = server(None);
        assert_eq!(
            drains.to_string(),
            "ConfigMap ballast-system/ballast-controller-drain"
        );
        drains.edit(none).await.unwrap();
        assert!(sent.lock().unwrap().is_empty(), "there is nothing to end");

        let object = json!({
            "metadata": {"resourceVersion": "7"},
            "data": {"all": "{\"since\":\"2026-03-01T12:00:00Z\"}", "other": "x"},
        });
        let (drains, sent) = server(Some(object));
        drains.edit(none).await.unwrap();
        let expected = json!({
            "metadata": {"resourceVersion": "7"},
            "data": {"all": null, "other": null},
        });
        assert_eq!(*sent.lock().unwrap(), [expected]);
    }

    #[tokio::test]
    async fn an_owner_that_is_refused_is_left_out() {
        let (drains, sent) = server(None);
        let owner = OwnerReference {
            name: "ballast-controller".to_owned(),
            ..OwnerReference::default()
        };
        let draining = serde_json::from_value(json!({"since": "2026-03-01T12:00:00Z"})).unwrap();
        let all = |it: Record| it.with(&Scope::All, &draining);
        let drains = drains.owned_by(vec![owner]);
        let (before, now) = drains.edit(all).await.unwrap();
        assert!(before.covers("any").is_none() && now.covers("any").is_some());
        let owners = |body: &Value| {
            body["metadata"]["ownerReferences"]
                .as_array()
                .unwrap()
                .len()
        };
        let sent: Vec<usize> = sent.lock().unwrap().iter().map(owners).collect();
        assert_eq!(sent, [1, 0]);
    }

    /// Otherwise the classes of a new installation would drain, because the former one did.
    #[tokio::test]
    async fn that_of_a_former_installation_counts_as_none() {
        let owner = |uid: &str| OwnerReference {
            kind: "ServiceAccount".to_owned(),
            name: "ballast-controller".to_owned(),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        };
        let object = json!({
            "metadata": {"ownerReferences": [owner("before")]},
            "data": {"all": "{\"since\":\"2026-03-01T12:00:00Z\"}"},
        });
        for (owners, drains_now) in [
            (vec![], true),
            (vec![owner("before")], true),
            (vec![owner("now")], false),
        ] {
            let (drains, _) = server(Some(object.clone()));
            let record = drains.owned_by(owners).read().await.unwrap();
            assert_eq!(record.covers("any").is_some(), drains_now);
        }
    }
}
