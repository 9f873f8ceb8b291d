//! The network interface on which the cloud's addresses live, where `--interface` says so.
//!
//! Owns which of the cloud's addresses are on it. The handler of a `PUT` calls
//! [`Nic::claim`] before an address is promised to anybody, the follower before ports are
//! opened on it; the follower calls [`Nic::keep`] when load balancers are gone, the server
//! [`Nic::clear`] when it ends.
//!
//! Invariants: an address is put there only after the segment was asked and nobody had it
//! (RFC 5227; for IPv6 the kernel asks, RFC 4862 §5.4); no address without our mark is ever
//! removed; what a crash has left there is taken over if it is still promised, and removed
//! if not.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_link::probe::{Timing, probe};
use ballast_link::{Interface, LinkError, Links, Mac, Mark, announce};
use ipnet::IpNet;
use tokio::time::{Instant, sleep, timeout};

use crate::address::AddressRange;
use crate::api::{Code, Problem};

/// Addresses of ours bear this number.
const MARK: Mark = Mark(77);
/// The most addresses of one family that are taken unasked, from the top of the subnet.
const MOST: u128 = 254;
/// How long somebody is remembered who had an address that we wanted.
const REMEMBERED: Duration = Duration::from_mins(5);
/// The kernel's question for an IPv6 address takes one to two seconds.
const DETECTION: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Which interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceChoice {
    /// That of the default route; without one, the only one with an address.
    Auto,
    /// By name.
    Named(String),
}

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
    /// No subnet is large enough.
    #[error("--interface {name}: its subnets ({subnets}) are too small to take addresses from; say which with --addresses")]
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
    /// The subnets of the node itself.
    subnets: Vec<IpNet>,
    claims: Mutex<HashMap<IpAddr, Claim>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Somebody is about to find out.
    Asked,
    /// It is on the interface.
    Ours,
    /// Somebody else had it then.
    Foreign(Option<Mac>, Instant),
}

// === impl Nic ===

impl Nic {
    /// Finds the interface, and what a former life has left on it.
    pub(super) async fn open(choice: &InterfaceChoice) -> Result<Self, NicError> {
        let links = Links::connect()?;
        let addresses = links.addresses().await?;
        let interface = choose(&links, choice, |index| {
            let mut own = addresses.iter();
            own.any(|it| it.interface == index && it.global && it.mark != Some(MARK))
        })
        .await?;
        let (ours, nodes): (Vec<_>, Vec<_>) = addresses
            .into_iter()
            .filter(|address| address.interface == interface.index)
            .partition(|address| address.mark == Some(MARK));
        let claims = ours.iter().map(|it| (it.net.addr(), Claim::Ours)).collect();
        let nodes = nodes.into_iter().filter(|address| address.global);
        Ok(Self {
            links,
            interface,
            subnets: nodes.map(|address| address.net).collect(),
            claims: Mutex::new(claims),
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

    /// What is not to be proposed to anybody: others have it, or it is being asked for.
    pub(super) fn taken(&self) -> Vec<IpAddr> {
        let now = Instant::now();
        let mut claims = self.claims();
        claims.retain(|_, claim| match claim {
            Claim::Foreign(_, at) => now.duration_since(*at) < REMEMBERED,
            Claim::Asked | Claim::Ours => true,
        });
        let taken = claims.iter().filter(|(_, claim)| **claim != Claim::Ours);
        taken.map(|(ip, _)| *ip).collect()
    }

    /// Puts an address on the interface unless somebody else has it; the problem says who.
    /// At once if it is there already.
    pub(super) async fn claim(&self, ip: IpAddr) -> Result<(), Problem> {
        if self.claims().get(&ip) == Some(&Claim::Ours) {
            return Ok(());
        }
        self.claims().insert(ip, Claim::Asked);
        let asked = match ip {
            IpAddr::V4(v4) => self.ask(v4).await,
            IpAddr::V6(_) => self.try_out(ip).await,
        };
        match asked {
            Ok(None) => {
                self.claims().insert(ip, Claim::Ours);
                // Who has had it before, on another node say, is remembered by nobody.
                if let Err(error) = announce::announce(&self.interface, ip).await {
                    tracing::warn!(%ip, %error, "the address could not be announced");
                }
                Ok(())
            }
            Ok(Some(mac)) => {
                let claim = Claim::Foreign(Some(mac).filter(|mac| *mac != Mac::UNKNOWN), Instant::now());
                self.claims().insert(ip, claim);
                Err(self.occupied(ip, mac))
            }
            Err(problem) => {
                self.claims().remove(&ip);
                Err(problem)
            }
        }
    }

    /// Removes every address of ours but these and those that are being asked for.
    pub(super) async fn keep(&self, wanted: &BTreeSet<IpAddr>) {
        let left: Vec<IpAddr> = {
            let claims = self.claims();
            let ours = claims.iter().filter(|(_, claim)| **claim == Claim::Ours);
            ours.map(|(ip, _)| *ip).filter(|ip| !wanted.contains(ip)).collect()
        };
        for ip in left {
            match self.links.remove(self.interface.index, ip).await {
                Ok(()) => {
                    self.claims().remove(&ip);
                }
                Err(error) => tracing::warn!(%ip, %error, "the address could not be removed"),
            }
        }
    }

    /// Removes every address of ours.
    pub(super) async fn clear(&self) {
        self.keep(&BTreeSet::new()).await;
    }

    async fn ask(&self, ip: Ipv4Addr) -> Result<Option<Mac>, Problem> {
        let asked = probe(&self.interface, ip, Timing::default()).await;
        let holder = asked.map_err(|error| self.failed(ip.into(), &error))?;
        if holder.is_none() {
            self.add(ip.into()).await?;
        }
        Ok(holder)
    }

    /// The kernel does not say who has an IPv6 address, only that somebody does.
    async fn try_out(&self, ip: IpAddr) -> Result<Option<Mac>, Problem> {
        self.add(ip).await?;
        let settled = timeout(DETECTION, async {
            loop {
                let all = self.links.addresses().await?;
                match all.iter().find(|it| it.net.addr() == ip) {
                    Some(it) if it.duplicate => return Ok::<_, LinkError>(true),
                    Some(it) if !it.tentative => return Ok(false),
                    _ => sleep(LOOK_AGAIN).await,
                }
            }
        });
        let outcome = settled.await;
        if !matches!(outcome, Ok(Ok(false))) {
            let removed = self.links.remove(self.interface.index, ip).await;
            removed.map_err(|error| self.failed(ip, &error))?;
        }
        match outcome {
            Ok(Ok(true)) => Ok(Some(Mac::UNKNOWN)),
            Ok(Ok(false)) => Ok(None),
            Ok(Err(error)) => Err(self.failed(ip, &error)),
            Err(_) => Err(self.failed(ip, &"the kernel has not finished to ask for it")),
        }
    }

    async fn add(&self, ip: IpAddr) -> Result<(), Problem> {
        let added = self.links.add(self.interface.index, ip, MARK).await;
        added.map_err(|error| self.failed(ip, &error))
    }

    fn failed(&self, ip: IpAddr, error: &dyn std::fmt::Display) -> Problem {
        Problem::new(
            Code::Internal,
            format!("{ip} cannot be put on interface {}: {error}", self.interface.name),
        )
    }

    fn occupied(&self, ip: IpAddr, mac: Mac) -> Problem {
        let who = if mac == Mac::UNKNOWN {
            "another host".to_owned()
        } else {
            format!("the host with the MAC address {mac}")
        };
        let name = &self.interface.name;
        Problem::new(
            Code::AddressInUse,
            format!("{who} on the network of {name} has {ip} already"),
        )
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<IpAddr, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn choose(
    links: &Links,
    choice: &InterfaceChoice,
    addressed: impl Fn(u32) -> bool,
) -> Result<Interface, NicError> {
    let all = links.interfaces().await?;
    let names = |some: &[Interface]| {
        let names: Vec<&str> = some.iter().map(|it| it.name.as_str()).collect();
        names.join(", ")
    };
    if let InterfaceChoice::Named(wanted) = choice {
        let present = names(&all);
        let found = all.into_iter().find(|it| it.name == *wanted);
        return found.ok_or_else(|| NicError::Absent {
            wanted: wanted.clone(),
            present,
        });
    }
    let default = links.default_interface().await?;
    if let Some(found) = all.iter().find(|it| Some(it.index) == default) {
        return Ok(found.clone());
    }
    let candidates: Vec<Interface> = all
        .into_iter()
        .filter(|it| !it.loopback && addressed(it.index))
        .collect();
    match candidates.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(NicError::Ambiguous {
            present: "no interface".to_owned(),
        }),
        several => Err(NicError::Ambiguous {
            present: format!("several interfaces ({})", names(several)),
        }),
    }
}

/// The top of a subnet: a quarter of it, at most [`MOST`] addresses, without the broadcast
/// address; nothing if that is none.
fn top(subnet: &IpNet) -> Option<AddressRange> {
    let host_bits = u32::from(subnet.max_prefix_len() - subnet.prefix_len());
    let size = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX);
    let count = Some((size / 4).min(MOST)).filter(|count| *count > 1)?;
    let (first, last) = match subnet.broadcast() {
        IpAddr::V4(end) => {
            let last = u32::from(end) - 1;
            let first = last - u32::try_from(count).ok()? + 1;
            (IpAddr::V4(first.into()), IpAddr::V4(last.into()))
        }
        IpAddr::V6(end) => {
            let first = u128::from(end) - count + 1;
            (IpAddr::V6(first.into()), IpAddr::V6(end))
        }
    };
    format!("{first}-{last}").parse().ok()
}

// === impl InterfaceChoice ===

impl std::str::FromStr for InterfaceChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            name => Self::Named(name.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_from(subnet: &str) -> Option<String> {
        top(&subnet.parse().unwrap()).map(|range| range.to_string())
    }

    #[test]
    fn the_top_of_a_subnet() {
        for (subnet, range) in [
            ("172.18.0.2/16", Some("172.18.255.1-172.18.255.254")),
            ("192.0.2.1/24", Some("192.0.2.191-192.0.2.254")),
            ("192.0.2.1/29", Some("192.0.2.5-192.0.2.6")),
            ("192.0.2.1/30", None),
            ("192.0.2.1/32", None),
            (
                "fc00:f853:ccd:e793::2/64",
                Some("fc00:f853:ccd:e793:ffff:ffff:ffff:ff02-fc00:f853:ccd:e793:ffff:ffff:ffff:ffff"),
            ),
            ("2001:db8::1/128", None),
        ] {
            assert_eq!(taken_from(subnet).as_deref(), range, "{subnet}");
        }
    }
}
