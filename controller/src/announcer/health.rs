//! Health of addresses with policy Local: does kube-proxy on this node serve the Service?
//!
//! The API knows that a node has an endpoint a moment before kube-proxy forwards to it. Only
//! `healthCheckNodePort` tells: it responds with status 200 once this node forwards. So a node asks
//! every 250 ms until it does, and every 2 s after that. A node that claimed earlier would drop
//! connections.
//!
//! kube-proxy can listen on this port on all addresses or only on the node's primary one (its
//! `nodePortAddresses`), so loopback is tried first, and then the node's internal addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use ballast_announce::Input;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::publish::Targets;
use super::seam::Sink;

/// How often a port is asked before it responds with 200, and how long an answer may take.
const WAITING: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(200));
/// The same after that.
const SERVING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(1));
/// Requests at the same time.
const AT_ONCE: usize = 16;

/// What is known of each port, and what was passed on. Pure.
#[derive(Debug, Default)]
struct Checks {
    ports: BTreeMap<u16, Port>,
    addresses: BTreeMap<IpAddr, Address>,
}

#[derive(Debug)]
struct Port {
    healthy: bool,
    /// When it is asked next; `None` while it is asked.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Address {
    ports: BTreeSet<u16>,
    /// What was passed on last.
    healthy: bool,
}

/// Asks ports.
#[derive(Clone)]
struct Asker(Client<HttpConnector, Body>);

/// Checks the ports of the targets for ever, and passes on what changes.
pub async fn run(mut targets: watch::Receiver<Targets>, sink: Sink) {
    let asker = Asker::new();
    let mut checks = Checks::default();
    let mut answers = FuturesUnordered::new();
    targets.mark_changed();
    loop {
        let now = Instant::now();
        while let Some((port, patience)) = checks.next(now, answers.len()) {
            let (asker, hosts) = (asker.clone(), targets.borrow().hosts.clone());
            answers.push(async move {
                let answer = timeout(patience, asker.ask(&hosts, port)).await;
                (port, answer.unwrap_or(false))
            });
        }
        let due = checks.due().filter(|_| answers.len() < AT_ONCE);
        let news = tokio::select! {
            // The sender lives as long as this task.
            Ok(()) = targets.changed() => {
                let ports = targets.borrow_and_update().ports.clone();
                checks.set(&ports, Instant::now())
            }
            Some((port, healthy)) = answers.next() => checks.answered(port, healthy, Instant::now()),
            () = sleep_until(due.unwrap_or(now)), if due.is_some() => Vec::new(),
        };
        for (address, healthy) in news {
            sink.pass(Input::Health { address, healthy });
        }
    }
}

// === impl Checks ===

impl Checks {
    /// Other targets. Returns the addresses whose health changed: one that left is not healthy,
    /// so that it is checked anew when it comes back.
    fn set(
        &mut self,
        targets: &BTreeMap<IpAddr, BTreeSet<u16>>,
        now: Instant,
    ) -> Vec<(IpAddr, bool)> {
        let wanted: BTreeSet<u16> = targets.values().flatten().copied().collect();
        self.ports.retain(|port, _| wanted.contains(port));
        for port in wanted {
            self.ports.entry(port).or_insert(Port {
                healthy: false,
                due: Some(now),
            });
        }
        let gone = self.addresses.iter();
        let gone = gone.filter(|(address, entry)| entry.healthy && !targets.contains_key(address));
        let mut news: Vec<_> = gone.map(|(address, _)| (*address, false)).collect();
        self.addresses
            .retain(|address, _| targets.contains_key(address));
        for (address, ports) in targets {
            let entry = self.addresses.entry(*address).or_insert(Address {
                ports: BTreeSet::new(),
                healthy: false,
            });
            entry.ports.clone_from(ports);
        }
        news.extend(self.news());
        news
    }

    /// A port was asked. Returns the addresses whose health changed.
    fn answered(&mut self, port: u16, healthy: bool, now: Instant) -> Vec<(IpAddr, bool)> {
        // It may have left meanwhile.
        if let Some(port) = self.ports.get_mut(&port) {
            port.healthy = healthy;
            port.due = Some(now + port.times().0);
        }
        self.news()
    }

    fn news(&mut self) -> Vec<(IpAddr, bool)> {
        let mut news = Vec::new();
        for (address, entry) in &mut self.addresses {
            let mut ports = entry.ports.iter();
            let healthy = ports.all(|port| self.ports.get(port).is_some_and(|it| it.healthy));
            if entry.healthy != healthy {
                entry.healthy = healthy;
                news.push((*address, healthy));
            }
        }
        news
    }

    /// A port to ask now, with the time that its answer may take.
    fn next(&mut self, now: Instant, asked: usize) -> Option<(u16, Duration)> {
        let mut ports = self.ports.iter_mut().filter(|_| asked < AT_ONCE);
        let is_due = |port: &Port| port.due.is_some_and(|due| due <= now);
        let (number, port) = ports.find(|(_, port)| is_due(port))?;
        port.due = None;
        Some((*number, port.times().1))
    }

    /// When the next port is to be asked.
    fn due(&self) -> Option<Instant> {
        self.ports.values().filter_map(|port| port.due).min()
    }
}

// === impl Port ===

impl Port {
    fn times(&self) -> (Duration, Duration) {
        if self.healthy { SERVING } else { WAITING }
    }
}

// === impl Asker ===

impl Asker {
    fn new() -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        // A connection of its own for each request: one that is kept shows an old kube-proxy.
        builder.pool_max_idle_per_host(0);
        Self(builder.build(HttpConnector::new()))
    }

    /// Whether the first host that answers responds with 200.
    async fn ask(&self, hosts: &[IpAddr], port: u16) -> bool {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for host in [loopback].iter().chain(hosts) {
            let uri = format!("http://{}/healthz", SocketAddr::new(*host, port));
            let Ok(request) = Request::get(uri).body(Body::empty()) else {
                continue;
            };
            if let Ok(response) = self.0.request(request).await {
                return response.status() == StatusCode::OK;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
