//! The only unsafe code of the workspace, a few lines: addresses and group memberships of packet
//! sockets (packet(7)), which the socket crates have no safe way to make.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;

use socket2::{SockAddr, SockAddrStorage, Socket};
use tokio::io::unix::AsyncFd;

use crate::Mac;

/// A socket for Tokio.
pub(crate) fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns one open file descriptor and returns no other.
    #[allow(unsafe_code)]
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// The address of a host on an interface, for frames of one `EtherType`.
pub(crate) fn link_address(interface: u32, ether_type: u16, to: Mac) -> io::Result<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    let length = length_of::<libc::sockaddr_ll>()?;
    // SAFETY: a zeroed storage is large enough and aligned for every address type, and
    // all of `sockaddr_ll` may be zero.
    #[allow(unsafe_code)]
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family =
        libc::sa_family_t::try_from(libc::AF_PACKET).map_err(|_| ErrorKind::InvalidInput)?;
    link.sll_protocol = ether_type.to_be();
    link.sll_ifindex = i32::try_from(interface).map_err(|_| ErrorKind::InvalidInput)?;
    link.sll_halen = 6;
    link.sll_addr[..6].copy_from_slice(&to.0);
    // SAFETY: the storage holds a `sockaddr_ll` of exactly this length.
    #[allow(unsafe_code)]
    Ok(unsafe { SockAddr::new(storage, length) })
}

/// Joins or leaves a group of an interface: the interface then receives frames to that MAC
/// address. The membership ends with the socket.
pub(crate) fn membership(
    socket: &Socket,
    interface: u32,
    group: Mac,
    join: bool,
) -> io::Result<()> {
    let mut address = [0; 8];
    address[..6].copy_from_slice(&group.0);
    let request = libc::packet_mreq {
        mr_ifindex: i32::try_from(interface).map_err(|_| ErrorKind::InvalidInput)?,
        mr_type: u16::try_from(libc::PACKET_MR_MULTICAST).map_err(|_| ErrorKind::InvalidInput)?,
        mr_alen: 6,
        mr_address: address,
    };
    let name = if join {
        libc::PACKET_ADD_MEMBERSHIP
    } else {
        libc::PACKET_DROP_MEMBERSHIP
    };
    let length = length_of::<libc::packet_mreq>()?;
    // SAFETY: the kernel reads `length` bytes of a `packet_mreq` that outlives the call, and
    // the file descriptor is open.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            name,
            (&raw const request).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn length_of<T>() -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(size_of::<T>()).map_err(|_| ErrorKind::InvalidInput.into())
}
