//! Memberships in IPv6 multicast groups (RFC 3493 §5.2). The kernel reports them by MLD, so that
//! switches which snoop it (RFC 4541) forward neighbour solicitations, and it sets the filter of
//! the network card.
//!
//! A membership belongs to a socket, and the kernel limits the memory of a socket's memberships
//! (`net.core.optmem_max`), so they are spread over several sockets. They end with this object.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::Ipv6Addr;

use socket2::{Domain, Socket, Type};

/// `optmem_max` was 20,480 bytes until Linux 6.7, and a membership takes 64 of them.
const PER_SOCKET: usize = 256;

/// Memberships on any number of interfaces.
#[derive(Debug)]
pub struct Groups {
    members: Vec<Member>,
    limit: usize,
}

/// A socket and its memberships: the index of the interface, and the group.
#[derive(Debug)]
struct Member {
    socket: Socket,
    groups: BTreeSet<(u32, Ipv6Addr)>,
}

// === impl Groups ===

impl Groups {
    /// No memberships yet, and at most `limit` on all interfaces together.
    pub const fn new(limit: usize) -> Self {
        let members = Vec::new();
        Self { members, limit }
    }

    /// Joins these groups on an interface, by its index, and leaves all others there. After an
    /// error it has joined the groups that it could; the next call tries the others again.
    ///
    /// Fails with `ENODEV` if there is no such interface, and forgets its memberships: the kernel
    /// has ended them. Call it with no groups for an interface that has vanished. Fails with
    /// `QuotaExceeded` at the limit.
    ///
    /// The kernel searches all memberships for each change: 5,000 take it some 200 ms.
    pub fn set(&mut self, interface: u32, groups: &BTreeSet<Ipv6Addr>) -> io::Result<()> {
        self.leave(interface, |group| !groups.contains(&group));
        let joined = self.of(interface);
        let mut result = Ok(());
        for group in groups.difference(&joined) {
            match self.join(interface, *group) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                    self.leave(interface, |_| true);
                    return Err(error);
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// The groups that are joined on an interface.
    pub fn of(&self, interface: u32) -> BTreeSet<Ipv6Addr> {
        let all = self.members.iter().flat_map(|member| &member.groups);
        all.filter(|(index, _)| *index == interface)
            .map(|(_, group)| *group)
            .collect()
    }

    /// Also closes sockets without memberships.
    fn leave(&mut self, interface: u32, leaves: impl Fn(Ipv6Addr) -> bool) {
        for Member { socket, groups } in &mut self.members {
            groups.retain(|(index, group)| {
                let stays = *index != interface || !leaves(*group);
                if !stays {
                    // It fails only for a membership that has ended.
                    let _ = socket.leave_multicast_v6(group, interface);
                }
                stays
            });
        }
        self.members.retain(|member| !member.groups.is_empty());
    }

    fn join(&mut self, interface: u32, group: Ipv6Addr) -> io::Result<()> {
        let used: usize = self.members.iter().map(|it| it.groups.len()).sum();
        if used >= self.limit {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        let has_room = |member: &Member| member.groups.len() < PER_SOCKET;
        if let Some(member) = self.members.iter_mut().find(|member| has_room(member)) {
            return member.join(interface, group);
        }
        let mut member = Member {
            socket: Socket::new(Domain::IPV6, Type::DGRAM, None)?,
            groups: BTreeSet::new(),
        };
        member.join(interface, group)?;
        self.members.push(member);
        Ok(())
    }
}

// === impl Member ===

impl Member {
    fn join(&mut self, interface: u32, group: Ipv6Addr) -> io::Result<()> {
        self.socket.join_multicast_v6(&group, interface)?;
        self.groups.insert((interface, group));
        Ok(())
    }
}
