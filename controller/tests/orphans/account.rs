//! A cloud account: strict about what it has, and it knows whose it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use ballast_provider::mark::{KEEP, RETAINED};
use ballast_provider::{
    Balancer, Billed, Change, Inventory, Key, Kind, Life, LoadBalancer, Mark, Observed, Owned,
    Provider, ProviderError, Published, Refusal, Released, Removal, ServiceId, TargetSet, Traits,
};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use jiff::Timestamp;

/// One object, with the truth.
#[derive(Clone, Debug)]
pub struct Object {
    pub kind: Kind,
    pub tags: BTreeMap<String, String>,
    /// The UID of the Service that it was made for; `None`: somebody else's.
    pub service: Option<String>,
    /// A target is healthy.
    pub healthy: bool,
}

/// The account.
#[derive(Clone, Default)]
pub struct Account(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pub objects: BTreeMap<String, Object>,
    /// What was deleted since somebody looked.
    pub deleted: Vec<(String, Object)>,
    /// So many calls fail.
    pub failing: u32,
    /// Lists end with an error.
    pub partial: bool,
    pub now: Timestamp,
    /// The process that makes calls dies after so many changes.
    pub fuse: Option<u32>,
}

/// The objects of one class.
pub struct AccountProvider {
    account: Account,
    mark: Mark,
}

/// The process has died.
fn dead() -> ProviderError {
    ProviderError::transient("the process died")
}

impl Account {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn call(&self) -> Result<(), ProviderError> {
        let mut state = self.state();
        if state.failing > 0 {
            state.failing -= 1;
            return Err(if state.failing.is_multiple_of(2) {
                ProviderError::Throttled {
                    retry_after: Duration::from_secs(1),
                }
            } else {
                ProviderError::transient("no credentials")
            });
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<Owned>, ProviderError> {
        self.call()?;
        let state = self.state();
        if state.partial {
            return Err(ProviderError::transient("the second page did not come"));
        }
        let ours = |object: &Object| object.tags.keys().any(|it| it.starts_with("ballast.dev/"));
        let all = state.objects.iter().filter(|(_, object)| ours(object));
        Ok(all.map(|(id, object)| owned(id, object)).collect())
    }

    pub fn provider_of(&self, mark: Mark) -> AccountProvider {
        AccountProvider {
            account: self.clone(),
            mark,
        }
    }
}

fn owned(id: &str, object: &Object) -> Owned {
    let is_balancer = object.kind == Kind::LoadBalancer;
    Owned {
        billed: Billed {
            load_balancers: u32::from(is_balancer),
            public_addresses: 0,
        },
        ..Owned::new(object.kind, id, id, object.tags.clone())
    }
}

impl State {
    /// Deletes an object that exists.
    pub fn delete(&mut self, id: &str) {
        let object = self.objects.remove(id).unwrap();
        self.deleted.push((id.to_owned(), object));
    }

    /// Burns the fuse. An error: the process is dead.
    pub fn change(&mut self) -> Result<(), ProviderError> {
        match &mut self.fuse {
            Some(0) => Err(dead()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Inventory for Account {
    async fn account(&self) -> Result<String, ProviderError> {
        Ok("account".to_owned())
    }

    async fn all(&self) -> Result<Vec<Owned>, ProviderError> {
        self.list()
    }

    async fn tags(
        &self,
        object: &Owned,
    ) -> Result<Option<BTreeMap<String, String>>, ProviderError> {
        self.call()?;
        let state = self.state();
        Ok(state.objects.get(&object.id).map(|it| it.tags.clone()))
    }

    async fn life(&self, object: &Owned) -> Result<Life, ProviderError> {
        self.call()?;
        let state = self.state();
        let serves = |it: &&Object| it.kind == Kind::LoadBalancer && it.healthy;
        Ok(match state.objects.get(&object.id).filter(serves) {
            Some(_) => Life::Serves("a target is healthy".to_owned()),
            None => Life::Silent,
        })
    }

    fn provider(&self, owner: Mark) -> Result<Arc<dyn Provider>, ProviderError> {
        Ok(Arc::new(self.provider_of(owner)))
    }
}

#[async_trait]
impl Provider for AccountProvider {
    fn traits(&self) -> Traits {
        Traits::CLOUD
    }

    fn key(&self, load_balancer: &LoadBalancer) -> Key {
        Key::alone(&load_balancer.id)
    }

    fn validate(&self, _: &Balancer) -> Result<(), Refusal> {
        Ok(())
    }

    async fn restore(&self, _: Vec<Published>) -> Result<(), ProviderError> {
        self.account.list().map(drop)
    }

    async fn ensure(&self, _: &Balancer) -> Result<Vec<(ServiceId, Observed)>, ProviderError> {
        Err(ProviderError::transient("the model creates objects itself"))
    }

    async fn retarget(&self, _: &TargetSet, _: &[Key]) -> Result<(), ProviderError> {
        Ok(())
    }

    /// The load balancer first, then what it used; each deletion may be the last thing that the
    /// process does.
    async fn release(
        &self,
        _: &ServiceId,
        key: &Key,
        _: Removal,
    ) -> Result<Released, ProviderError> {
        self.account.call()?;
        let mut state = self.account.state();
        let mine = |object: &Object| {
            let owned = owned("", object);
            self.mark.owns(&object.tags) && owned.key.as_ref() == Some(key)
        };
        let all = state.objects.iter().filter(|(_, object)| mine(object));
        let mut all: Vec<(Kind, String)> = all.map(|(id, it)| (it.kind, id.clone())).collect();
        all.sort();
        let kept = |state: &State, id: &String| state.objects[id].tags.contains_key(KEEP);
        if all.iter().any(|(_, id)| kept(&state, id)) {
            for (_, id) in all {
                state.change()?;
                let object = state.objects.get_mut(&id).unwrap();
                object.tags.insert(RETAINED.to_owned(), "yes".to_owned());
            }
            return Ok(Released::Gone);
        }
        for (_, id) in all {
            let object = &state.objects[&id];
            let balancer = object.service.as_ref().map(|uid| format!("{uid}-lb"));
            let used = balancer.is_some_and(|it| it != id && state.objects.contains_key(&it));
            if used {
                // As AWS: a load balancer that is somebody else's now still uses it.
                return Err(ProviderError::transient("it is in use by a load balancer"));
            }
            state.change()?;
            state.delete(&id);
        }
        Ok(Released::Gone)
    }

    async fn inventory(&self) -> Result<Vec<Owned>, ProviderError> {
        let all = self.account.list()?;
        let mine = all.into_iter().filter(|it| self.mark.owns(&it.tags));
        Ok(mine.collect())
    }

    async fn tag(
        &self,
        objects: &[Owned],
        tags: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ProviderError> {
        for object in objects {
            self.account.call()?;
            let mut state = self.account.state();
            state.change()?;
            let there = state.objects.get_mut(&object.id);
            let Some(there) = there.filter(|there| self.mark.owns(&there.tags)) else {
                continue;
            };
            for (key, value) in tags {
                match value {
                    Some(value) => there.tags.insert(key.clone(), value.clone()),
                    None => there.tags.remove(key),
                };
            }
        }
        Ok(())
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        futures::stream::pending().boxed()
    }
}
