//! Network: this host's interfaces with their sockets, multicast groups and witnesses.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use ballast_announce::Time;
use ballast_announce::responder::Table;
use ballast_announce::view::Interface;
use ballast_link::{Groups, HostInterface, ndp};
use tracing::{info, warn};

use crate::frames::mac;
use crate::sockets::Sockets;
use crate::witnesses::Witnesses;

/// Multicast groups of all interfaces: one for each IPv6 address, unless two end alike.
const GROUPS: usize = ballast_announce::timing::CLAIMS;
/// Groups that are joined at once on an interface: the kernel needs 200 ms for 5,000, and the next
/// tick must not be late.
const JOINS: usize = 256;
/// How long after a failure the sockets of an interface are opened again, and groups joined.
const RETRY: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Network {
    ports: BTreeMap<u32, Open>,
    /// The interfaces that have sockets.
    interfaces: Vec<Interface>,
    /// They were listed.
    known: bool,
    witnesses: Witnesses,
    groups: Groups,
    /// Some interface has no sockets: try again with this list.
    failed: Option<(Time, Vec<HostInterface>)>,
    /// Some groups are not joined yet, or not left.
    behind: bool,
    /// A join failed: not before this time again.
    join_again: Option<Time>,
}

/// The sockets of an interface, and the groups that they have joined.
struct Open {
    port: Arc<Sockets>,
    joined: BTreeSet<Ipv6Addr>,
}

// === impl Network ===

impl Default for Network {
    fn default() -> Self {
        Self {
            ports: BTreeMap::new(),
            interfaces: Vec::new(),
            known: false,
            witnesses: Witnesses::default(),
            groups: Groups::new(GROUPS),
            failed: None,
            behind: false,
            join_again: None,
        }
    }
}

impl Network {
    /// The addresses in the table changed: groups must be joined or left.
    pub(super) fn table_changed(&mut self) {
        self.behind = true;
    }

    /// Whether [`Self::join`] has something to do now.
    pub(super) fn is_behind(&self, now: Time) -> bool {
        self.behind && self.join_again.is_none_or(|again| again <= now)
    }

    /// Whether the interfaces were listed.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    pub(super) fn witnesses(&self) -> &Witnesses {
        &self.witnesses
    }

    pub(super) fn witnesses_mut(&mut self) -> &mut Witnesses {
        &mut self.witnesses
    }

    pub(super) fn port(&self, interface: u32) -> Option<&Sockets> {
        self.ports.get(&interface).map(|open| &*open.port)
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = &Sockets> {
        self.ports.values().map(|open| &*open.port)
    }

    /// Replaces the interfaces, and opens and closes sockets. Returns the ports.
    pub(super) fn replace(&mut self, listed: Vec<HostInterface>, now: Time) -> Vec<Arc<Sockets>> {
        let mut former = std::mem::take(&mut self.ports);
        self.interfaces.clear();
        self.known = true;
        self.failed = None;
        let mut failed = false;
        for interface in &listed {
            let kept = former.remove(&interface.index);
            let same = |open: &Open| open.port.own == mac(interface.mac);
            let kept = kept.filter(|open| same(open) && open.port.divide(interface).is_ok());
            match kept.map_or_else(|| Open::new(interface), Ok) {
                Ok(open) => {
                    self.ports.insert(interface.index, open);
                    self.interfaces.push(described(interface));
                    self.witnesses
                        .set_gateways(interface.index, &interface.gateways);
                }
                Err(error) => {
                    let interface = &interface.name;
                    warn!(interface, %error, "cannot open packet sockets; addresses are not announced on this interface");
                    failed = true;
                }
            }
        }
        if failed {
            self.failed = Some((now + RETRY, listed));
        }
        let ports = &self.ports;
        self.witnesses.retain(|index| ports.contains_key(&index));
        for index in former.keys().filter(|index| !ports.contains_key(index)) {
            let _ = self.groups.set(*index, &BTreeSet::new());
        }
        ports.values().map(|open| Arc::clone(&open.port)).collect()
    }

    /// The list to open again, if some interface has no sockets and it is time.
    pub(super) fn retry(&mut self, now: Time) -> Option<Vec<HostInterface>> {
        let due = self.failed.as_ref().is_some_and(|(due, _)| *due <= now);
        self.failed.take_if(|_| due).map(|(_, listed)| listed)
    }

    /// Joins the solicited-node groups of the addresses in the table, and leaves others. Call it
    /// while it [is behind](Self::is_behind).
    pub(super) fn join(&mut self, table: &Table, now: Time) {
        self.behind = false;
        let failed_before = self.join_again.take().is_some();
        for (index, open) in &mut self.ports {
            let wanted = table.groups(*index);
            if wanted == open.joined {
                continue;
            }
            let mut next: BTreeSet<_> = wanted.intersection(&open.joined).copied().collect();
            next.extend(wanted.difference(&open.joined).take(JOINS));
            if let Err(error) = self.groups.set(*index, &next) {
                if !failed_before {
                    warn!(interface = index, %error, "cannot join solicited-node groups; a switch that snoops MLD may withhold solicitations");
                }
                self.join_again = Some(now + RETRY);
            }
            for group in next.difference(&open.joined) {
                let _ = open.port.neighbours.join(ndp::group_mac(*group));
            }
            for group in open.joined.difference(&next) {
                let _ = open.port.neighbours.leave(ndp::group_mac(*group));
            }
            open.joined = self.groups.of(*index);
            self.behind |= open.joined != wanted;
        }
    }
}

// === impl Open ===

impl Open {
    fn new(interface: &HostInterface) -> io::Result<Self> {
        let port = Sockets::open(interface)?;
        info!(interface = interface.name, mac = %interface.mac, "interface in use");
        Ok(Self {
            port: Arc::new(port),
            joined: BTreeSet::new(),
        })
    }
}

fn described(interface: &HostInterface) -> Interface {
    Interface {
        index: interface.index,
        name: interface.name.as_str().into(),
        mac: mac(interface.mac),
        nets: interface.nets.clone(),
        carrier: interface.carrier,
    }
}
