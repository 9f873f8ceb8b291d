//! The API server, and what each agent has read from it. An agent polls every 100 ms: that is the
//! delay of its watches. It notices an outage after up to 8 s, as the driver must.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ballast_announce::NodeName;
use ballast_announce::claim::Claim;
use ballast_announce::io::Input;
use ballast_announce::view::View;

use crate::world::{ETH0, Event, Micros, World, ms, node};

/// What an agent has read from the API server.
#[derive(Default)]
pub struct ApiClient {
    connected: bool,
    /// When the outage is noticed.
    notices: Option<Micros>,
    view: u64,
    leases: BTreeMap<NodeName, u64>,
    holdings: BTreeMap<NodeName, u64>,
    renews: Micros,
    /// A write that waits for the API server.
    write: Option<Vec<(IpAddr, Claim)>>,
    /// Since when the interface has not been usable.
    unusable: Option<Micros>,
    /// The addresses whose `healthCheckNodePort` answered 200 when the agent asked last.
    pub healthy: BTreeSet<IpAddr>,
}

/// The API server.
#[derive(Default)]
pub struct ApiServer {
    pub away: bool,
    pub view: View,
    pub version: u64,
    pub leases: BTreeMap<NodeName, u64>,
    pub holdings: BTreeMap<NodeName, (u64, Vec<(IpAddr, Claim)>)>,
    /// Writes of Announcer objects that changed something about an address of a Service.
    pub writes: u64,
}

// === impl ApiServer ===

impl ApiServer {
    pub fn recorded<'a>(&'a self, address: &'a IpAddr) -> impl Iterator<Item = &'a Claim> {
        // A node records its claims in the order of addresses.
        self.holdings.values().filter_map(move |(_, claims)| {
            let found = claims.binary_search_by_key(address, |(other, _)| *other);
            claims.get(found.ok()?).map(|(_, claim)| claim)
        })
    }
}

impl World {
    fn api_reachable(&self, host: usize) -> bool {
        let gateway = self.network.gateway();
        let reachable = !self.shape.api_on_segment
            || (self.reaches(host, gateway) && self.reaches(gateway, host));
        !self.api.away && reachable
    }

    pub fn record(&mut self, host: usize, claims: Vec<(IpAddr, Claim)>) {
        self.hosts[host].api.write = Some(claims);
    }

    /// Every 100 ms: Leases, views, holdings, cables, health.
    pub fn poll(&mut self, host: usize) {
        self.after(ms(100), Event::Poll(host));
        if !self.runs(host) {
            return;
        }
        self.dial(host);
        if !self.api_reachable(host) {
            self.traces += 1;
            self.lose_api(host);
            return;
        }
        self.hosts[host].api.notices = None;
        if !std::mem::replace(&mut self.hosts[host].api.connected, true) {
            self.input(host, Input::Api { connected: true });
        }
        if self.hosts[host].api.renews <= self.now {
            self.hosts[host].api.renews = self.now + ms(5000);
            let wall = self.now / 1000 + self.hosts[host].skew * 1000;
            self.api.leases.insert(node(host), wall);
        }
        if let Some(claims) = self.hosts[host].api.write.take() {
            let name = self.hosts[host].name.clone();
            // The claim on an address of a deleted Service is forgotten a minute later.
            let wanted = self.api.view.wanted.clone();
            let of_services = |claims: &[(IpAddr, Claim)]| -> Vec<(IpAddr, Claim)> {
                let kept = claims.iter().filter(|(at, _)| wanted.contains_key(at));
                kept.cloned().collect()
            };
            let entry = self.api.holdings.entry(name).or_default();
            self.api.writes += u64::from(of_services(&entry.1) != of_services(&claims));
            *entry = (entry.0 + 1, claims);
        }
        self.publish(host);
        self.read(host);
    }

    /// The driver publishes after 2 s that an interface is not usable, and at once that it is.
    fn publish(&mut self, host: usize) {
        let clock = self.clock(host);
        let now = self.now;
        let entry = &mut self.hosts[host];
        let usable = entry
            .agent
            .as_ref()
            .is_some_and(|agent| agent.usable(ETH0, clock));
        let since = entry.api.unusable.get_or_insert(now);
        let published = usable || now - *since < ms(2000);
        if usable {
            entry.api.unusable = None;
        }
        let facts = self.api.view.nodes.get_mut(&entry.name).unwrap();
        if facts.interfaces[0].carrier != published {
            facts.interfaces[0].carrier = published;
            self.api.version += 1;
        }
    }

    fn lose_api(&mut self, host: usize) {
        if !self.hosts[host].api.connected {
            return;
        }
        let notices = self.now + self.up_to(ms(8000));
        let client = &mut self.hosts[host].api;
        if *client.notices.get_or_insert(notices) <= self.now {
            client.connected = false;
            client.notices = None;
            self.input(host, Input::Api { connected: false });
        }
    }

    fn read(&mut self, host: usize) {
        let mut inputs = Vec::new();
        let client = &mut self.hosts[host].api;
        for (name, stamp) in &self.api.leases {
            if client.leases.insert(name.clone(), *stamp) != Some(*stamp) {
                inputs.push(Input::Lease {
                    node: name.clone(),
                    stamp: *stamp,
                });
            }
        }
        for (name, (version, claims)) in &self.api.holdings {
            if client.holdings.insert(name.clone(), *version) != Some(*version) {
                inputs.push(Input::Holdings(claims.clone()));
            }
        }
        if client.view != self.api.version {
            client.view = self.api.version;
            inputs.push(Input::View(Arc::new(self.api.view.clone())));
        }
        let answers = self
            .addresses()
            .map(|address| (address, self.healthy(host, &address)));
        let answers: Vec<_> = answers.collect();
        for (address, healthy) in answers {
            let known = &mut self.hosts[host].api.healthy;
            let changed = if healthy {
                known.insert(address)
            } else {
                known.remove(&address)
            };
            if changed {
                inputs.push(Input::Health { address, healthy });
            }
        }
        for input in inputs {
            self.input(host, input);
        }
    }

    fn dial(&mut self, host: usize) {
        let Some(agent) = &self.hosts[host].agent else {
            return;
        };
        let wanted: Vec<NodeName> = agent.cables().iter().cloned().collect();
        self.hosts[host].cables.retain(|peer| wanted.contains(peer));
        for peer in wanted {
            let other = self.index(&peer);
            let reached = self.reaches(host, other) && self.reaches(other, host);
            if self.hosts[host].cables.contains(&peer) || !reached || !self.runs(other) {
                continue;
            }
            self.hosts[host].cables.insert(peer.clone());
            let me = node(host);
            let connected = true;
            self.input(host, Input::Cable { peer, connected });
            self.input(
                other,
                Input::Cable {
                    peer: me,
                    connected,
                },
            );
        }
    }
}
