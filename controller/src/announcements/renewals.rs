//! Which announcers have ended: those whose Lease is not renewed any more.
//!
//! [`Renewals`] is pure, with the time as an argument. [`Leases`] lists the metadata of the Leases while
//! there are Announcer objects: each renewal changes the version. No clock of another machine is compared.
//! What cannot be read ends nobody.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::Announcers;
use crate::announcer::lease::{LABELS, node_of};
use crate::cluster::texts;
use crate::process::REQUEST_TIMEOUT;

/// How often the Leases are listed. An announcer renews its own every 5 s.
const EVERY: Duration = Duration::from_secs(10);
/// A Lease that was not renewed for this long is that of an announcer that ended, or that cannot reach the
/// API server. Longer than a restart takes, and than the duration of a Lease (15 s) plus two lists.
const ENDED: Duration = Duration::from_secs(40);

/// The last renewal of each announcer, as observed.
#[derive(Debug, Default)]
pub(super) struct Renewals(HashMap<Arc<str>, (Box<str>, Instant)>);

/// The Leases in the API server.
#[derive(Clone, Debug)]
pub struct Leases {
    /// In the namespace of the announcers.
    pub api: Api<Lease>,
    /// While there are none, nothing is listed.
    pub announcers: Arc<Announcers>,
}

// === impl Renewals ===

impl Renewals {
    /// Records the versions of all Leases, by node. Returns the nodes whose announcers have ended.
    pub(super) fn observe(
        &mut self,
        leases: impl IntoIterator<Item = (Arc<str>, Box<str>)>,
        now: Instant,
    ) -> BTreeSet<Arc<str>> {
        let mut before = std::mem::take(&mut self.0);
        for (node, version) in leases {
            let known = before.remove(&node);
            let since = known.filter(|(known, _)| *known == version);
            let since = since.map_or(now, |(_, since)| since);
            self.0.insert(node, (version, since));
        }
        let ended = self.0.iter();
        let ended = ended.filter(|(_, (_, since))| now.duration_since(*since) >= ENDED);
        ended.map(|(node, _)| Arc::clone(node)).collect()
    }
}

// === impl Leases ===

impl Leases {
    /// Looks for ever.
    pub async fn watch(self, ended: watch::Sender<BTreeSet<Arc<str>>>) {
        let mut renewals = Renewals::default();
        let mut refused = false;
        loop {
            if !self.announcers.store.all().is_empty() {
                let params = ListParams::default().labels(LABELS).match_any();
                match timeout(REQUEST_TIMEOUT, self.api.list_metadata(&params)).await {
                    Ok(Ok(all)) => {
                        let leases = all.items.into_iter().filter_map(|it| {
                            let node = node_of(it.metadata.name.as_deref()?)?;
                            let version = it.metadata.resource_version?;
                            Some((texts::shared(node), version.into_boxed_str()))
                        });
                        let now_ended = renewals.observe(leases, Instant::now());
                        ended.send_if_modified(|known| {
                            let differs = *known != now_ended;
                            *known = now_ended;
                            differs
                        });
                    }
                    Ok(Err(kube::Error::Api(status))) if status.code == 403 && !refused => {
                        refused = true;
                        warn!(
                            "may not list the Leases of announcers, so Services cannot say that an announcer ended: {status}"
                        );
                    }
                    Ok(Err(error)) => debug!(%error, "the Leases of announcers were not listed"),
                    Err(_) => {
                        debug!("the API server did not list the Leases of announcers in time");
                    }
                }
            }
            sleep(EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_announcer_that_renews_nothing_has_ended() {
        let start = Instant::now();
        let mut renewals = Renewals::default();
        let mut at = |second: u64, leases: &[(&str, &str)]| {
            let leases = leases
                .iter()
                .map(|(node, version)| ((*node).into(), (*version).into()));
            let ended = renewals.observe(leases, start + Duration::from_secs(second));
            ended.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            at(0, &[("a", "1"), ("b", "2")]),
            [""; 0],
            "known for no time"
        );
        assert_eq!(at(10, &[("a", "3"), ("b", "2")]), [""; 0]);
        assert_eq!(at(39, &[("a", "4"), ("b", "2")]), [""; 0]);
        assert_eq!(at(40, &[("a", "5"), ("b", "2")]), ["b"]);
        // No list came for a while.
        assert_eq!(at(900, &[("a", "90"), ("b", "2")]), ["b"]);
        assert_eq!(at(910, &[("a", "91"), ("b", "92")]), [""; 0], "it is back");
        assert_eq!(
            at(960, &[("a", "91")]),
            ["a"],
            "without a Lease nothing is known"
        );
        assert_eq!(at(961, &[("a", "91"), ("b", "92")]), ["a"]);
    }
}
