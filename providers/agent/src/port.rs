//! Sockets on the announcers' port, which the old and the new process of a node share for a
//! moment.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

/// Asked for; the kernel allows as much as `net.core.rmem_max` says.
const RECEIVE_BUFFER: usize = 1024 * 1024;
/// Connections that the kernel holds for us.
const BACKLOG: i32 = 64;

/// A socket for datagrams, which says on which interface each arrived.
pub(crate) fn udp(port: u16) -> io::Result<UdpSocket> {
    let (socket, address) = socket(Type::DGRAM, port)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    if address.is_ipv6() {
        // Also for IPv4.
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    socket.bind(&address.into())?;
    prefer_the_newest(&socket)?;
    Ok(socket.into())
}

/// A socket that accepts connections.
pub(crate) fn tcp(port: u16) -> io::Result<TcpListener> {
    let (socket, address) = socket(Type::STREAM, port)?;
    // The connections of a process that ended do not keep the port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    prefer_the_newest(&socket)?;
    Ok(socket.into())
}

/// For IPv6 and IPv4, or for IPv4 alone where the kernel has no IPv6.
fn socket(kind: Type, port: u16) -> io::Result<(Socket, SocketAddr)> {
    let (socket, address) = match Socket::new(Domain::IPV6, kind, None) {
        Ok(socket) => {
            socket.set_only_v6(false)?;
            (socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
        }
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            let socket = Socket::new(Domain::IPV4, kind, None)?;
            (socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        Err(error) => return Err(error),
    };
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(true)?;
    Ok((socket, address))
}

/// Of two sockets that share the port, the second one receives everything. Without this the
/// kernel picks by a hash of the sender, and a new process hears half of its peers.
///
/// The program names the second socket. The kernel falls back to the hash if there is none.
fn prefer_the_newest(socket: &Socket) -> io::Result<()> {
    let mut second = libc::sock_filter {
        code: 0x06, // BPF_RET | BPF_K
        jt: 0,
        jf: 0,
        k: 1,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut second,
    };
    Ok(setsockopt(socket, sockopt::AttachReusePortCbpf, &program)?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

    /// The local port of a socket whose port the kernel chose.
    fn port_of(address: io::Result<SocketAddr>) -> u16 {
        address.unwrap().port()
    }

    /// Waits until one of them has a datagram: whether it is the first one.
    fn first_receives(one: &UdpSocket, other: &UdpSocket) -> bool {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            if one.recv_from(&mut [0; 8]).is_ok() {
                return true;
            }
            if other.recv_from(&mut [0; 8]).is_ok() {
                return false;
            }
            assert!(Instant::now() < until, "nothing arrives");
            thread::yield_now();
        }
    }

    #[test]
    fn the_newest_process_receives_every_datagram() {
        let old = udp(0).unwrap();
        let port = port_of(old.local_addr());
        let senders: Vec<_> = (0..16)
            .map(|_| UdpSocket::bind((LOCAL, 0)).unwrap())
            .collect();
        let reach = |one: &UdpSocket, other: &UdpSocket| {
            for sender in &senders {
                sender.send_to(b"m", (LOCAL, port)).unwrap();
                assert!(first_receives(one, other));
            }
        };
        let unrelated = udp(0).unwrap();
        reach(&old, &unrelated);
        let new = udp(port).unwrap();
        reach(&new, &old);
        drop(old);
        reach(&new, &unrelated);
    }

    /// Waits until one of them has a connection: whether it is the first one.
    fn first_accepts(one: &TcpListener, other: &TcpListener) -> bool {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            if one.accept().is_ok() {
                return true;
            }
            if other.accept().is_ok() {
                return false;
            }
            assert!(Instant::now() < until, "nobody accepts");
            thread::yield_now();
        }
    }

    #[test]
    fn the_newest_process_accepts_every_connection() {
        let old = tcp(0).unwrap();
        let port = port_of(old.local_addr());
        let new = tcp(port).unwrap();
        for _ in 0..16 {
            let _stream = TcpStream::connect((LOCAL, port)).unwrap();
            assert!(first_accepts(&new, &old));
        }
        drop(old);
        let _stream = TcpStream::connect((LOCAL, port)).unwrap();
        let newest = tcp(port).unwrap();
        assert!(first_accepts(&new, &newest));
    }
}
