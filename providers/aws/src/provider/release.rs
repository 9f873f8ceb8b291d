//! Removes what a Service has.
//!
//! AWS refuses to delete a security group until the network interfaces of its load balancer are
//! gone, about a minute later. The controller asks again; nothing waits here.

use std::collections::BTreeMap;
use std::time::Duration;

use ballast_provider::mark::RETAINED;
use ballast_provider::{ProviderError, Released, ServiceId};
use jiff::Timestamp;

use super::execute::{Cleaned, Ended, error};
use super::records::Depth;
use super::{Inner, PATIENCE};
use crate::call::{Call, Ref};
use crate::client::Manner;
use crate::plan;
use crate::rate::Urgency;

/// The time between two tries to delete the backend group.
const CLOSING: Duration = Duration::from_secs(20);

// === impl Inner ===

impl Inner {
    pub(super) async fn delete(&self, id: &ServiceId) -> Result<Released, ProviderError> {
        let client = self.client().await?;
        let cell = self.records.of(&id.uid);
        let mut record = cell.lock().await;
        if record.depth == Depth::Doubtful {
            self.read(client, id, &mut record, Urgency::Service).await?;
        }
        let calls = plan::release(&record.observed);
        let (first, rest): (Vec<Call>, Vec<Call>) = calls
            .into_iter()
            .partition(|call| matches!(call, Call::DeleteLoadBalancer { .. }));
        match self.execute(client, &mut record, &first, "").await {
            Ended::Done => {}
            Ended::Stale => {
                return Ok(Released::InProgress {
                    retry_after: Duration::ZERO,
                });
            }
            Ended::Failed(why) => return Err(error(&why)),
        }
        if let Cleaned::InUse(retry_after) =
            self.clean_up(client, &mut record, &rest, false).await?
        {
            return Ok(Released::InProgress { retry_after });
        }
        drop(record);
        self.records.forget(&id.uid);
        if self.close(client).await? {
            Ok(Released::Gone)
        } else {
            Ok(Released::InProgress {
                retry_after: CLOSING,
            })
        }
    }

    /// Marks everything as kept on purpose.
    pub(super) async fn retain(&self, id: &ServiceId) -> Result<Released, ProviderError> {
        let client = self.client().await?;
        let cell = self.records.of(&id.uid);
        let mut record = cell.lock().await;
        if record.depth == Depth::Doubtful {
            self.read(client, id, &mut record, Urgency::Service).await?;
        }
        let tags = BTreeMap::from([(RETAINED.to_owned(), Timestamp::now().to_string())]);
        let observed = &record.observed;
        let balancers = observed.load_balancers.values().map(|one| one.arn.clone());
        let groups = observed.target_groups.values().map(|one| one.arn.clone());
        let of: Vec<Ref> = balancers.chain(groups).map(Ref::Known).collect();
        let security: Vec<String> = observed.groups.values().map(|one| one.id.clone()).collect();
        if !record.retained && !of.is_empty() {
            let calls = [Call::AddTags {
                of,
                tags: tags.clone(),
            }];
            match self.execute(client, &mut record, &calls, "").await {
                Ended::Done => {}
                Ended::Stale => {
                    return Ok(Released::InProgress {
                        retry_after: Duration::ZERO,
                    });
                }
                Ended::Failed(why) => return Err(error(&why)),
            }
        }
        if !record.retained && !security.is_empty() {
            let manner = Manner::new(Urgency::Service, PATIENCE);
            let tagged = client.create_tags(&security, &tags, manner).await;
            tagged.map_err(|why| error(&why))?;
        }
        record.retained = true;
        Ok(Released::Gone)
    }
}
