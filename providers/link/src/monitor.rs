//! Watches the interfaces of this host that can announce addresses, by netlink.
//!
//! ```text
//!  kernel ── an event, or a lost one ──▶ wait for the rest of a burst ──▶ list ──▶ changed? ──▶ next()
//! ```
//!
//! Events say only *that* something changed. What is true now comes from a new list, so neither
//! lost events nor their order matter. The subscription begins before the first list. A task
//! lists; [`Monitor::next`] takes the latest result, and can be cancelled at any time.
//!
//! Bounds: the kernel's buffer is the only queue of events; one list waits for [`Monitor::next`];
//! lists are at least [`LIST_EVERY`] apart and those of routes [`ROUTES_EVERY`], because a router
//! can have many routes that change all the time.

mod events;
mod hosts;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{LinkError, Links, Mac};
use events::Events;

/// The rest of a burst arrives within this time. A lost carrier must be known soon.
const BURST: Duration = Duration::from_millis(20);
const LIST_EVERY: Duration = Duration::from_millis(50);
const ROUTES_EVERY: Duration = Duration::from_secs(1);
/// The longest time that all lists of one look may take. The kernel answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// The wait after a list that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// An interface that can announce addresses to hosts on its network: Ethernet with broadcast
/// and ARP, and no port of a bond or bridge. The port of a VRF can. The end of a `veth` pair or
/// of a tunnel must have a network with other hosts; nodes have such interfaces for their pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    /// The interface index.
    pub index: u32,
    /// `eth0`
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Up, with a carrier.
    pub carrier: bool,
    /// Its global addresses, with the prefix lengths of their networks, in the order of the
    /// kernel. Without addresses that duplicate address detection has not approved, temporary
    /// ones (RFC 8981), and those with a [`Mark`](crate::Mark).
    pub nets: Vec<IpNet>,
    /// The gateways of routes through it, those of default routes first; at most 16.
    pub gateways: Vec<IpAddr>,
}

/// Lists the interfaces of the network namespace of the thread that started it, again after
/// each change. Stops when dropped.
#[derive(Debug)]
pub struct Monitor {
    news: Arc<News>,
    task: JoinHandle<()>,
}

/// The latest result that [`Monitor::next`] has not taken.
#[derive(Debug, Default)]
struct News {
    latest: Mutex<Option<Result<Vec<HostInterface>, LinkError>>>,
    arrived: Notify,
}

/// What the task knows.
struct Watch {
    links: Links,
    events: Events,
    /// The gateways of each interface.
    gateways: BTreeMap<u32, Vec<IpAddr>>,
    routes_listed: Option<Instant>,
    routes_changed: bool,
}

// === impl Monitor ===

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Monitor {
    /// Starts to watch. Must be called within a Tokio runtime.
    pub fn new() -> Result<Self, LinkError> {
        let watch = Watch {
            events: Events::subscribe().map_err(LinkError::Connect)?,
            links: Links::connect()?,
            gateways: BTreeMap::new(),
            routes_listed: None,
            routes_changed: true,
        };
        let news = Arc::new(News::default());
        let task = tokio::spawn(watch.run(news.clone()));
        Ok(Self { news, task })
    }

    /// All interfaces that can announce, by index. The first call returns at once, later ones
    /// when something has changed. After an error the next call tries again.
    pub async fn next(&mut self) -> Result<Vec<HostInterface>, LinkError> {
        loop {
            if let Some(latest) = self.news.latest.lock().await.take() {
                return latest;
            }
            self.news.arrived.notified().await;
        }
    }
}

// === impl Watch ===

impl Watch {
    async fn run(mut self, news: Arc<News>) {
        let mut known = None;
        loop {
            let next = Instant::now() + LIST_EVERY;
            match self.list().await {
                Ok(list) if known.as_ref() == Some(&list) => {}
                Ok(list) => {
                    known = Some(list.clone());
                    news.publish(Ok(list)).await;
                }
                Err(error) => {
                    known = None;
                    news.publish(Err(error)).await;
                    sleep(AGAIN).await;
                    self.restart();
                    continue;
                }
            }
            self.changed().await;
            sleep_until(next.max(Instant::now() + BURST)).await;
            self.events.drain();
        }
    }

    /// A connection that failed once may fail forever.
    fn restart(&mut self) {
        self.routes_changed = true;
        if let Ok(links) = Links::connect() {
            self.links = links;
        }
    }

    async fn list(&mut self) -> Result<Vec<HostInterface>, LinkError> {
        timeout(PATIENCE, self.list_all())
            .await
            .unwrap_or(Err(LinkError::NoAnswer))
    }

    async fn list_all(&mut self) -> Result<Vec<HostInterface>, LinkError> {
        if self.routes_changed && self.routes_due() <= Instant::now() {
            self.routes_listed = Some(Instant::now());
            self.gateways = hosts::gateways(&self.links.all_routes().await?);
            self.routes_changed = false;
        }
        let links = self.links.all_links().await?;
        let addresses = self.links.all_addresses().await?;
        Ok(hosts::hosts(&links, &addresses, &self.gateways))
    }

    fn routes_due(&self) -> Instant {
        self.routes_listed
            .map_or_else(Instant::now, |listed| listed + ROUTES_EVERY)
    }

    /// Waits for an event, or until changed routes may be listed. Routes also change with the
    /// state of their interface and with its addresses, for IPv4 without an event of their own.
    async fn changed(&mut self) {
        let due = self.routes_due();
        tokio::select! {
            () = self.events.next() => self.routes_changed = true,
            () = sleep_until(due), if self.routes_changed => {}
        }
    }
}

// === impl News ===

impl News {
    async fn publish(&self, result: Result<Vec<HostInterface>, LinkError>) {
        *self.latest.lock().await = Some(result);
        self.arrived.notify_one();
    }
}
