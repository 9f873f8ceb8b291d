//! Deletes the backend group after the last Service.
//!
//! Its ID is forgotten before the call that deletes it: whoever waits for the answer may be dropped, and
//! then nobody would know that the group is gone.

use std::collections::BTreeSet;

use ballast_provider::mark::KEEP;
use tokio::time::Instant;

use super::{CLOSING, Closed, from_backend, groups_that_name};
use crate::call::{Call, Ref};
use crate::client::{CallError, Cause, Client, Ids};
use crate::provider::{Inner, PATIENCE};
use crate::rate::Urgency;

// === impl Inner ===

impl Inner {
    /// Deletes the group and its rules, if no Service is left.
    pub(in crate::provider) async fn close(&self, client: &Client) -> Closed {
        // Whoever has it comes to its end soon.
        let Ok(_opening) = self.opening.try_lock() else {
            return Closed::Later(CLOSING);
        };
        if !self.records.cells().is_empty() {
            return Closed::Done;
        }
        let before = std::mem::replace(&mut self.network().backend.closing, true);
        // A Service that came meanwhile sees this, or is seen here.
        if !self.records.cells().is_empty() {
            self.network().backend.closing = before;
            return Closed::Done;
        }
        let why = match self.delete_backend_group(client).await {
            Ok(()) => {
                self.network().backend.close();
                self.targets().lose_group();
                return Closed::Done;
            }
            Err(why) => why,
        };
        if let Cause::Throttled { retry_after } = why.cause {
            return Closed::Later(retry_after);
        }
        let (id, stuck) = {
            let backend = &self.network().backend;
            let id = backend.id().unwrap_or_else(|| self.backend_name());
            (id, backend.is_stuck())
        };
        let hint = if why.cause == Cause::InUse && stuck {
            self.hint(client, &id).await
        } else {
            String::new()
        };
        let backend = &mut self.network().backend;
        backend.refused(format!(
            "The security group {id} of this class is left over: {why}{hint}"
        ));
        if backend.is_stuck() {
            Closed::Stuck
        } else {
            Closed::Later(CLOSING)
        }
    }

    /// What still uses the group, as far as its rules say.
    async fn hint(&self, client: &Client, group: &str) -> String {
        match groups_that_name(client, group, Urgency::Background).await {
            Ok(found) if !found.is_empty() => {
                let ids: BTreeSet<String> = found.into_iter().map(|one| one.id).collect();
                let ids: Vec<String> = ids.into_iter().collect();
                format!(
                    ". Rules of the security groups {} name it: remove them",
                    ids.join(", ")
                )
            }
            _ => {
                ". Something else uses it: a network interface, or a rule of another security group"
                    .to_owned()
            }
        }
    }

    /// The ID of the group, as its tags are now: without Ballast's it is no longer this class's, and people may want to
    /// keep it.
    async fn group_to_delete(&self, client: &Client) -> Result<Option<String>, CallError> {
        let found = self.own_security_groups(client, None, Urgency::Background);
        let name = self.backend_name();
        let mut found = found.await?.into_iter();
        let group = found.find(|it| it.name == name);
        Ok(group
            .filter(|it| !it.tags.contains_key(KEEP))
            .map(|it| it.id))
    }

    async fn delete_backend_group(&self, client: &Client) -> Result<(), CallError> {
        let (tried, id) = {
            let backend = &self.network().backend;
            (backend.tried, backend.id())
        };
        if id.is_none() && !tried {
            return Ok(());
        }
        let Some(id) = self.group_to_delete(client).await? else {
            return Ok(());
        };
        self.network().backend.id = Some(id.clone());
        let known = self.network().backend.open.take();
        let mut open = match known {
            Some(open) => open,
            None => {
                self.groups_with_rule(client, &id, Urgency::Background)
                    .await?
            }
        };
        let call_of = |call: Call| async move {
            let urgency = Urgency::Background;
            match client.call(&call, &Ids::default(), urgency, PATIENCE).await {
                Ok(_) => Ok(()),
                Err(why) if why.cause == Cause::NotFound => Ok(()),
                Err(why) => Err(why),
            }
        };
        while let Some(group) = open.first().cloned() {
            call_of(Call::RevokeSecurityGroupIngress {
                security_group: Ref::Known(group.clone()),
                rules: BTreeSet::from([from_backend(&id)]),
            })
            .await?;
            open.remove(&group);
        }
        {
            let backend = &mut self.network().backend;
            backend.lose();
            backend.changed = Some(Instant::now());
        }
        let deleted = call_of(Call::DeleteSecurityGroup {
            security_group: id.clone(),
        })
        .await;
        if deleted.as_ref().is_err_and(|why| !why.cause.uncertain()) {
            let backend = &mut self.network().backend;
            backend.id = Some(id);
            backend.open = Some(open);
        }
        deleted
    }
}
