//! The network interface that carries the cloud's addresses (`--interface`).
//!
//! Owns which of the cloud's addresses are on the interface. [`claims`] holds the state of
//! each address; [`choice`] finds the interface and the default address ranges. The handler
//! of a `PUT` calls [`Nic::propose`] before an address is assigned, the follower calls
//! [`Nic::claim`] before it opens ports and [`Nic::keep`] after load balancers are deleted,
//! and the server runs [`Nic::tend`] and calls [`Nic::clear`] at shutdown.
//!
//! Invariants: an address is added only after a probe of the network found no other holder
//! (RFC 5227; for IPv6 the kernel probes, RFC 4862 §5.4); an address without this cloud's
//! mark is never removed; after a crash, the next process takes over the addresses that are
//! still assigned and removes the others; if no process follows, the kernel removes them
//! after [`LIFETIME`].

mod choice;
mod claims;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_link::probe::{Timing, probe};
use ballast_link::{Interface, LinkError, Links, Mac, Mark, announce};
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::address::AddressRange;
use crate::api::{Code, Problem};

pub use self::choice::InterfaceChoice;
use choice::{choose, top};
use claims::{Claims, Foreign, Next};

/// The lifetime of an address, unless it is extended.
const LIFETIME: Duration = Duration::from_mins(1);
/// Time between two extensions; two of them may fail.
const PROLONG: Duration = Duration::from_secs(20);
/// Time-out for the kernel's duplicate address detection, which takes one to two seconds.
const DETECTION: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why there is no interface to use.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// Netlink.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// There is none of this name.
    #[error("--interface {wanted}: no such interface; this node has {present}")]
    Absent {
        /// What was asked for.
        wanted: String,
        /// The interfaces of the node.
        present: String,
    },
    /// The choice is not clear.
    #[error(
        "--interface auto: the node has no default route, and {present} with addresses; name the interface"
    )]
    Ambiguous {
        /// The candidates.
        present: String,
    },
    /// It was removed while in use.
    #[error("the network interface {0} is gone")]
    Gone(String),
    /// No subnet is large enough.
    #[error(
        "--interface {name}: its subnets ({subnets}) are too small to take addresses from; set --addresses"
    )]
    Small {
        /// The interface.
        name: String,
        /// What it has.
        subnets: String,
    },
}

/// The interface.
pub(super) struct Nic {
    links: Links,
    interface: Interface,
    /// Marks this cloud's addresses; another cloud may run on the same node.
    mark: Mark,
    /// The subnets of the node itself.
    subnets: Vec<IpNet>,
    claims: Mutex<Claims>,
    /// Held while an address is extended or removed: an extension that comes after the removal would add the
    /// address again.
    changing: tokio::sync::Mutex<()>,
    lost: Notify,
}

/// Why an address cannot be used.
pub(super) enum Denial {
    /// Another host or load balancer uses it or is about to; another address may work.
    Elsewhere(Problem),
    /// Another host uses it, and may release it soon.
    Wait(Problem),
    /// The system refused.
    Broken(Problem),
}

/// Why a probe for an address has failed.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("cannot probe the network for it (needs CAP_NET_RAW): {0}")]
    Probe(#[from] std::io::Error),
    #[error("duplicate address detection has not finished")]
    Slow,
}

// === impl Nic ===

impl Nic {
    /// Finds the interface, and the addresses that an earlier process with the same `listen`
    /// has left on it.
    pub(super) async fn open(
        choice: &InterfaceChoice,
        listen: SocketAddr,
    ) -> Result<Self, NicError> {
        let mark = mark_of(listen);
        let links = Links::connect()?;
        let addresses = links.addresses().await?;
        let own = addresses.iter().filter(|it| it.global && it.mark.is_none());
        let numbers = own.map(|it| it.interface).collect();
        let default = links.default_interface().await?;
        let interface = choose(links.interfaces().await?, choice, default, &numbers)?;
        let (ours, nodes): (Vec<_>, Vec<_>) = addresses
            .into_iter()
            .filter(|address| address.interface == interface.index)
            .partition(|address| address.mark == Some(mark));
        let claims = Claims::left_over(ours.iter().map(|it| it.net.addr()));
        let nodes = nodes.into_iter();
        let nodes = nodes.filter(|address| address.global && address.mark.is_none());
        Ok(Self {
            links,
            interface,
            mark,
            subnets: nodes.map(|address| address.net).collect(),
            claims: Mutex::new(claims),
            changing: tokio::sync::Mutex::default(),
            lost: Notify::new(),
        })
    }

    /// The default ranges: the top of each subnet.
    pub(super) fn ranges(&self) -> Result<Vec<AddressRange>, NicError> {
        let ranges: Vec<AddressRange> = self.subnets.iter().filter_map(top).collect();
        if ranges.is_empty() {
            let subnets: Vec<String> = self.subnets.iter().map(ToString::to_string).collect();
            return Err(NicError::Small {
                name: self.interface.name.clone(),
                subnets: subnets.join(", "),
            });
        }
        Ok(ranges)
    }

    /// `eth0`
    pub(super) fn name(&self) -> &str {
        &self.interface.name
    }

    /// Addresses that must not be proposed: others use them or are about to.
    pub(super) fn avoided(&self) -> Vec<IpAddr> {
        self.claims().avoided(Instant::now())
    }

    /// Reserves an address for a load balancer that is not part of the state yet.
    /// `published`: the status of its Service contains the address.
    pub(super) async fn propose(&self, ip: IpAddr, published: bool) -> Result<(), Denial> {
        let next = self.claims().proposed(ip, Instant::now());
        self.act(next, ip, published).await
    }

    /// Makes sure that an address of the state is on the interface.
    pub(super) async fn claim(&self, ip: IpAddr) -> Result<(), Problem> {
        let next = self.claims().promised(ip, Instant::now());
        match self.act(next, ip, false).await {
            Ok(()) => {
                self.claims().promised(ip, Instant::now());
                Ok(())
            }
            Err(Denial::Elsewhere(problem) | Denial::Wait(problem) | Denial::Broken(problem)) => {
                Err(problem)
            }
        }
    }

    /// Removes addresses that are neither part of the state nor about to be.
    pub(super) async fn keep(&self, held: &BTreeSet<IpAddr>) {
        let left = self.claims().settle(held);
        self.remove(left).await;
    }

    /// Releases addresses that were proposed and are not needed.
    pub(super) async fn give_up(&self, proposed: Vec<IpAddr>) {
        for ip in &proposed {
            self.claims().give_up(*ip);
        }
        self.remove(proposed).await;
    }

    /// Removes all addresses of this cloud.
    pub(super) async fn clear(&self) {
        let all = self.claims().present();
        self.remove(all).await;
    }

    /// Extends the lifetimes of all addresses, until the interface is gone.
    pub(super) async fn tend(&self) -> NicError {
        loop {
            sleep(PROLONG).await;
            match self.links.interfaces().await {
                Ok(all) if all.iter().all(|it| it.index != self.interface.index) => {
                    return NicError::Gone(self.interface.name.clone());
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot list interfaces"),
            }
            if let Err(error) = self.prolong().await {
                tracing::warn!(%error, "cannot list addresses to extend their lifetimes");
            }
        }
    }

    /// Notified when addresses are missing from the interface.
    pub(super) fn lost(&self) -> &Notify {
        &self.lost
    }

    async fn prolong(&self) -> Result<(), LinkError> {
        let all = self.links.addresses().await?;
        let ours = all.iter().filter(|it| it.mark == Some(self.mark));
        let there: BTreeSet<IpAddr> = ours.map(|it| it.net.addr()).collect();
        // A process that was stopped for longer than the lifetime must probe again.
        let missing = self.claims().missing(&there);
        if !missing.is_empty() {
            tracing::warn!(?missing, "addresses are missing from the interface");
            self.lost.notify_one();
        }
        for ip in there {
            let _changing = self.changing.lock().await;
            // It may have been released meanwhile.
            if self.claims().present().contains(&ip) {
                let index = self.interface.index;
                let prolonged = self.links.prolong(index, ip, self.mark, LIFETIME).await;
                // The others are still extended.
                if let Err(error) = prolonged {
                    tracing::warn!(%ip, %error, "cannot extend the lifetime of an address");
                }
            }
        }
        Ok(())
    }

    async fn act(&self, next: Next, ip: IpAddr, published: bool) -> Result<(), Denial> {
        let foreign = match next {
            Next::Have => return Ok(()),
            Next::Busy => return Err(Denial::Elsewhere(busy(ip))),
            Next::Taken(foreign) => foreign,
            Next::Ask => match self.ask(ip).await {
                Ok(None) => {
                    self.claims().reserve(ip);
                    // Neighbours may remember an earlier holder, such as another node.
                    if let Err(error) = announce::announce(&self.interface, ip).await {
                        tracing::warn!(%ip, %error, "cannot announce an address");
                    }
                    return Ok(());
                }
                Ok(Some(mac)) => {
                    let known = Some(mac).filter(|mac| *mac != Mac::UNKNOWN);
                    self.claims().foreign(ip, known, Instant::now())
                }
                Err(error) => {
                    self.claims().forget(ip);
                    return Err(Denial::Broken(self.failed(ip, &error)));
                }
            },
        };
        let problem = self.occupied(ip, foreign);
        Err(if published && foreign.may_be_released_soon() {
            Denial::Wait(problem)
        } else {
            Denial::Elsewhere(problem)
        })
    }

    async fn remove(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        for ip in addresses {
            let _changing = self.changing.lock().await;
            match self.links.remove(self.interface.index, ip).await {
                Ok(()) => self.claims().forget(ip),
                Err(error) => tracing::warn!(%ip, %error, "cannot remove an address"),
            }
        }
    }

    /// Returns the host that uses the address. If there is none, adds it to the interface.
    async fn ask(&self, ip: IpAddr) -> Result<Option<Mac>, AskError> {
        // The kernel does not answer this host's own probes.
        let own = self.links.addresses().await?;
        if own
            .iter()
            .any(|it| it.net.addr() == ip && it.mark != Some(self.mark))
        {
            return Ok(Some(self.interface.mac));
        }
        match ip {
            IpAddr::V4(v4) => {
                let holder = probe(&self.interface, v4, Timing::default()).await?;
                match holder {
                    None if !self.add(ip).await? => Ok(Some(self.interface.mac)),
                    holder => Ok(holder),
                }
            }
            IpAddr::V6(_) => self.try_out(ip).await,
        }
    }

    /// The kernel tells that an IPv6 address is in use, but not by whom.
    async fn try_out(&self, ip: IpAddr) -> Result<Option<Mac>, AskError> {
        if !self.add(ip).await? {
            return Ok(Some(self.interface.mac));
        }
        // No time-out around the loop: a listing that is dropped continues in the kernel,
        // which then refuses the next one.
        let until = Instant::now() + DETECTION;
        let taken = loop {
            let all = self.links.addresses().await?;
            match all.iter().find(|it| it.net.addr() == ip) {
                // The kernel removes a duplicate that has a lifetime.
                None => break Some(Mac::UNKNOWN),
                Some(it) if it.duplicate => break Some(Mac::UNKNOWN),
                Some(it) if !it.tentative => break None,
                Some(_) if Instant::now() >= until => {
                    self.links.remove(self.interface.index, ip).await?;
                    return Err(AskError::Slow);
                }
                Some(_) => sleep(LOOK_AGAIN).await,
            }
        };
        if taken.is_some() {
            self.links.remove(self.interface.index, ip).await?;
        }
        Ok(taken)
    }

    /// Returns whether it was not there before.
    async fn add(&self, ip: IpAddr) -> Result<bool, LinkError> {
        let (index, mark) = (self.interface.index, self.mark);
        self.links.add(index, ip, mark, LIFETIME).await
    }

    fn failed(&self, ip: IpAddr, error: &AskError) -> Problem {
        let name = &self.interface.name;
        Problem::new(
            // Not `Internal`: the operator can fix most causes.
            Code::NoAddressAvailable,
            format!("cannot add {ip} to interface {name}: {error}"),
        )
    }

    fn occupied(&self, ip: IpAddr, foreign: Foreign) -> Problem {
        let who = match foreign.mac {
            None => "another host".to_owned(),
            Some(mac) if mac == self.interface.mac => "the node itself".to_owned(),
            Some(mac) => format!("the host with the MAC address {mac}"),
        };
        let name = &self.interface.name;
        Problem::new(
            Code::AddressInUse,
            format!("{ip} is already in use on the network of {name}, by {who}"),
        )
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        // Each change is one insertion or removal: good after a panic too.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two clouds on one node listen on different addresses, and a restarted cloud listens on the
/// same address as before.
fn mark_of(listen: SocketAddr) -> Mark {
    let digest = Sha256::digest(listen.to_string());
    Mark::new(u32::from_be_bytes([0, digest[0], digest[1], digest[2]]))
}

fn busy(ip: IpAddr) -> Problem {
    Problem::new(
        Code::AddressInUse,
        format!("{ip} is being assigned to another load balancer"),
    )
}
