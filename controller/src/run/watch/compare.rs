//! Finds what a watch has missed without an error, by comparing the store with a list.
//!
//! A watch can be wrong in silence. If etcd is restored from a backup, resource versions go
//! back; the API server then delivers nothing to a watch that asks for changes after a version
//! that does not exist yet, and reports no error. A connection that is dead at one end, or a
//! proxy that holds events back, has the same effect.
//!
//! Every few minutes the metadata of all objects is listed and compared with the store. An
//! object counts as missed only if two lists, some seconds apart, agree on it and the store
//! disagrees with both: then the watch had the time to deliver it. If any is missed, the watch
//! begins again with a full list, which corrects the store.
//!
//! A comparison that fails finds nothing, so it is reported: each different error once in the
//! log, and the time of the last comparison as a metric, with an alert.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::ListParams;
use kube::core::Request;
use rand::RngExt;
use rand::rngs::SmallRng;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::{PAGE, Watch};
use crate::cluster::store::{Key, Store};
use crate::process::causes::causes;

/// Between two comparisons, in milliseconds. With [`DELIVERY`], two lists and the list that
/// corrects the store, what was missed is corrected within five minutes. The range spreads the
/// lists of several kinds and replicas.
const PAUSE: RangeInclusive<u64> = 150_000..=210_000;
/// A watch that works delivers a change within this time.
const DELIVERY: Duration = Duration::from_secs(10);
/// For one page of a list. It is longer than the time-out of other requests, because a page of
/// 100 objects can have 50 MB: 256 KiB of annotations per object, and who manages each of them.
/// No work waits for it, and a leader renews its Lease meanwhile.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Versions by key; `None`: the object does not exist.
type Versions<K> = HashMap<K, Option<u64>>;

/// The list that contains the objects of a watch.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<'a> {
    /// The path.
    pub(super) url: &'a str,
    /// Only objects with these labels.
    pub(super) labels: Option<&'a str>,
}

/// A page of a list, as far as it matters here.
#[derive(Deserialize)]
struct Page {
    metadata: PageMeta,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct PageMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    metadata: ItemMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemMeta {
    namespace: Option<String>,
    name: Option<String>,
    resource_version: Option<String>,
}

/// Why a list failed.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error("the API server did not answer in {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error(transparent)]
    Request(#[from] kube::core::request::Error),
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("the API server sends versions that are no numbers")]
    Version,
}

/// The last error of the comparisons of one kind, if the last one failed.
#[derive(Debug, Default)]
struct Trouble(Option<String>);

/// Compares for ever; asks for a `relist` where the watch has missed something.
pub(super) async fn run<K: Key, V: PartialEq>(
    watch: &Watch,
    list: List<'_>,
    store: &Store<K, V>,
    relist: &Notify,
) {
    let mut rng: SmallRng = rand::make_rng();
    let mut trouble = Trouble::default();
    // A counter that does not exist before its first count shows no increase to an alert, and
    // a time that does not exist shows no age.
    watch.metrics.missed(watch.kind, 0);
    watch.metrics.compared(watch.kind, Timestamp::now());
    loop {
        sleep(Duration::from_millis(rng.random_range(PAUSE))).await;
        if !store.is_ready() {
            continue;
        }
        let compared = missed(watch, list, store).await;
        trouble.note(watch.kind, compared.as_ref().err());
        let Ok(objects) = compared else { continue };
        watch.metrics.compared(watch.kind, Timestamp::now());
        if objects > 0 {
            watch.metrics.missed(watch.kind, objects);
            warn!(
                kind = watch.kind,
                objects,
                "the watch has missed changes (was etcd restored from a backup?); listing all objects again"
            );
            relist.notify_one();
        }
    }
}

/// How many objects differ from what the watch has delivered.
async fn missed<K: Key, V: PartialEq>(
    watch: &Watch,
    list: List<'_>,
    store: &Store<K, V>,
) -> Result<usize, ListError> {
    let suspects = differences(watch, list, store).await?;
    if suspects.is_empty() {
        return Ok(0);
    }
    sleep(DELIVERY).await;
    let late = |(key, version): (&K, &Option<u64>)| store.version(key) != *version;
    if !suspects.iter().any(late) {
        return Ok(0);
    }
    let again = differences(watch, list, store).await?;
    let agreed = again
        .iter()
        .filter(|(key, version)| suspects.get(key) == Some(version));
    Ok(agreed.count())
}

/// The objects whose version in a list is not that in the store, with the list's.
async fn differences<K: Key, V: PartialEq>(
    watch: &Watch,
    list: List<'_>,
    store: &Store<K, V>,
) -> Result<Versions<K>, ListError> {
    let mut different = Versions::new();
    let mut listed: HashSet<K> = HashSet::new();
    let mut params = ListParams::default().limit(PAGE);
    params.label_selector = list.labels.map(str::to_owned);
    loop {
        let request = Request::new(list.url).list_metadata(&params)?;
        let answer = watch.client.request::<Page>(request);
        let page = timeout(TIMEOUT, answer)
            .await
            .map_err(|_| ListError::Timeout)??;
        for Item { metadata } in page.items {
            let key = K::named(metadata.namespace.as_deref(), metadata.name.as_deref());
            let version = metadata.resource_version.and_then(|text| text.parse().ok());
            let version = Some(version.ok_or(ListError::Version)?);
            if store.version(&key) != version {
                different.insert(key.clone(), version);
            }
            listed.insert(key);
        }
        params.continue_token = page.metadata.next.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            break;
        }
    }
    let gone = store.keys().into_iter().filter(|key| !listed.contains(key));
    different.extend(gone.map(|key| (key, None)));
    Ok(different)
}

// === impl Trouble ===

impl Trouble {
    /// Logs an error that is not the last one, and the end of errors. Returns whether it did.
    fn note(&mut self, kind: &'static str, error: Option<&ListError>) -> bool {
        let now = error.map(|error| causes(error));
        if self.0 == now {
            if let Some(error) = now {
                debug!(kind, error, "still cannot compare the watch with a list");
            }
            return false;
        }
        if let Some(error) = &now {
            warn!(
                kind,
                error,
                "cannot compare the watch with a list; changes that the watch misses are not found"
            );
        } else {
            info!(kind, "the watch is compared with a list again");
        }
        self.0 = now;
        true
    }
}

#[cfg(test)]
mod tests;
