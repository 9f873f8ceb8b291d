//! The network interface on which the cloud's addresses live, where `--interface` says so.
//!
//! Owns which of the cloud's addresses are on it; [`claims`] is what it knows of each, and
//! [`choice`] finds the interface and the addresses to take. The handler of a `PUT` calls
//! [`Nic::propose`] before an address is promised to anybody, the follower [`Nic::claim`]
//! before ports are opened on it and [`Nic::keep`] when load balancers are gone; the server
//! runs [`Nic::tend`] and calls [`Nic::clear`] when it ends.
//!
//! Invariants: an address is put there only after the segment was asked and nobody had it
//! (RFC 5227; for IPv6 the kernel asks, RFC 4862 §5.4); no address without our mark is ever
//! removed; what a crash has left there is taken over if it is still promised, and removed
//! if not; and by the kernel, after [`LIFETIME`], if no life follows.

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

/// How long an address stays that nobody prolongs.
const LIFETIME: Duration = Duration::from_mins(1);
/// Two may fail.
const PROLONG: Duration = Duration::from_secs(20);
/// The kernel's question for an IPv6 address takes one to two seconds.
const DETECTION: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why there is no interface to use.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// Netlink.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// There is none of this name.
    #[error("--interface {wanted}: there is no such interface, only {present}")]
    Absent {
        /// What was asked for.
        wanted: String,
        /// Those that are there.
        present: String,
    },
    /// Several would do, or none.
    #[error("--interface auto: no default route, and {present} with addresses; name one of them")]
    Ambiguous {
        /// Those that might be meant.
        present: String,
    },
    /// It went away while it was in use.
    #[error("the network interface {0} is gone")]
    Gone(String),
    /// No subnet is large enough.
    #[error(
        "--interface {name}: its subnets ({subnets}) are too small to take addresses from; say which with --addresses"
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
    /// Of this cloud's addresses: there may be another cloud on the node.
    mark: Mark,
    /// The subnets of the node itself.
    subnets: Vec<IpNet>,
    claims: Mutex<Claims>,
    lost: Notify,
}

/// Why an address cannot be had.
pub(super) enum Denial {
    /// Another host, or another load balancer, has it or is about to; another address may do.
    Elsewhere(Problem),
    /// Another host has it, and may let it go soon.
    Wait(Problem),
    /// The kernel does not play along.
    Broken(Problem),
}

/// Why it could not be found out who has an address.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the network cannot be asked for it (CAP_NET_RAW is needed): {0}")]
    Probe(#[from] std::io::Error),
    #[error("the kernel has not finished to ask for it")]
    Slow,
}

// === impl Nic ===

impl Nic {
    /// Finds the interface, and what a former life of the cloud that listened there has
    /// left on it.
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
        let claims = Claims::left(ours.iter().map(|it| it.net.addr()));
        let nodes = nodes.into_iter();
        let nodes = nodes.filter(|address| address.global && address.mark.is_none());
        Ok(Self {
            links,
            interface,
            mark,
            subnets: nodes.map(|address| address.net).collect(),
            claims: Mutex::new(claims),
            lost: Notify::new(),
        })
    }

    /// The ranges to use where none are given: the top of each subnet.
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

    /// What is not to be proposed to anybody: others have it, or are about to.
    pub(super) fn avoided(&self) -> Vec<IpAddr> {
        self.claims().avoided(Instant::now())
    }

    /// Reserves an address for a load balancer that is not part of the state yet.
    /// `published`: its Service says that it has it.
    pub(super) async fn propose(&self, ip: IpAddr, published: bool) -> Result<(), Denial> {
        let next = self.claims().proposed(ip, Instant::now());
        self.act(next, ip, published).await
    }

    /// Sees to it that an address of the state is on the interface.
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

    /// Removes what is on the interface and neither part of the state nor about to be.
    pub(super) async fn keep(&self, held: &BTreeSet<IpAddr>) {
        let left = self.claims().settle(held);
        self.remove(left).await;
    }

    /// Takes back what was proposed in vain.
    pub(super) async fn give_up(&self, proposed: Vec<IpAddr>) {
        for ip in &proposed {
            self.claims().give_up(*ip);
        }
        self.remove(proposed).await;
    }

    /// Removes every address of ours.
    pub(super) async fn clear(&self) {
        let all = self.claims().present();
        self.remove(all).await;
    }

    /// Prolongs what is there, until the interface is gone.
    pub(super) async fn tend(&self) -> NicError {
        loop {
            sleep(PROLONG).await;
            match self.links.interfaces().await {
                Ok(all) if all.iter().all(|it| it.index != self.interface.index) => {
                    return NicError::Gone(self.interface.name.clone());
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the interfaces cannot be read"),
            }
            if let Err(error) = self.prolong().await {
                tracing::warn!(%error, "the addresses cannot be read, to prolong them");
            }
        }
    }

    /// Told when addresses are gone that should be there.
    pub(super) fn lost(&self) -> &Notify {
        &self.lost
    }

    async fn prolong(&self) -> Result<(), LinkError> {
        let all = self.links.addresses().await?;
        let ours = all.iter().filter(|it| it.mark == Some(self.mark));
        let there: BTreeSet<IpAddr> = ours.map(|it| it.net.addr()).collect();
        // Whoever was stopped for longer than they last must not put them back unasked.
        let missing = self.claims().missing(&there);
        if !missing.is_empty() {
            tracing::warn!(?missing, "addresses are gone from the interface");
            self.lost.notify_one();
        }
        for ip in there {
            // It may have been let go meanwhile.
            if self.claims().present().contains(&ip) {
                let index = self.interface.index;
                let prolonged = self.links.prolong(index, ip, self.mark, LIFETIME).await;
                // The others are not to end with it.
                if let Err(error) = prolonged {
                    tracing::warn!(%ip, %error, "the address could not be prolonged");
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
                    // Who has had it before, on another node say, is remembered by neighbours.
                    if let Err(error) = announce::announce(&self.interface, ip).await {
                        tracing::warn!(%ip, %error, "the address could not be announced");
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
        Err(if published && foreign.may_go_soon() {
            Denial::Wait(problem)
        } else {
            Denial::Elsewhere(problem)
        })
    }

    async fn remove(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        for ip in addresses {
            match self.links.remove(self.interface.index, ip).await {
                Ok(()) => self.claims().forget(ip),
                Err(error) => tracing::warn!(%ip, %error, "the address could not be removed"),
            }
        }
    }

    /// Who has the address; with nobody, it is on the interface afterwards.
    async fn ask(&self, ip: IpAddr) -> Result<Option<Mac>, AskError> {
        // The kernel answers nobody's probe for an address of its own.
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

    /// The kernel does not say who has an IPv6 address, only that somebody does.
    async fn try_out(&self, ip: IpAddr) -> Result<Option<Mac>, AskError> {
        if !self.add(ip).await? {
            return Ok(Some(self.interface.mac));
        }
        // No time-out around the loop: a listing that is cut short is still under way in the
        // kernel, which then refuses the next one.
        let until = Instant::now() + DETECTION;
        let taken = loop {
            let all = self.links.addresses().await?;
            match all.iter().find(|it| it.net.addr() == ip) {
                // With a lifetime, it vanishes if somebody has it.
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

    /// Whether it was not there before.
    async fn add(&self, ip: IpAddr) -> Result<bool, LinkError> {
        let (index, mark) = (self.interface.index, self.mark);
        self.links.add(index, ip, mark, LIFETIME).await
    }

    fn failed(&self, ip: IpAddr, error: &AskError) -> Problem {
        let name = &self.interface.name;
        Problem::new(
            // Not `Internal`: whoever waits for the address can mend most of it.
            Code::NoAddressAvailable,
            format!("{ip} cannot be put on interface {name}: {error}"),
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
            format!("{who} on the network of {name} has {ip} already"),
        )
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        // Each change is one insertion or removal: good after a panic too.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On one node no two clouds listen at one place, and a cloud that is started again does so
/// where it did before.
fn mark_of(listen: SocketAddr) -> Mark {
    let digest = Sha256::digest(listen.to_string());
    Mark::new(u32::from_be_bytes([0, digest[0], digest[1], digest[2]]))
}

fn busy(ip: IpAddr) -> Problem {
    Problem::new(
        Code::AddressInUse,
        format!("another load balancer is about to get {ip}"),
    )
}
