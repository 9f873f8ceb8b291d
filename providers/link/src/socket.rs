//! Packet sockets: one interface, one `EtherType`, payloads without the Ethernet header
//! (packet(7), `SOCK_DGRAM`).

use std::io::{self, Read as _};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::Mac;
use crate::ethernet::ARP;
use crate::sys::{link_address, register};

/// A socket that sends and receives ARP packets on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: AsyncFd<Socket>,
    interface: u32,
}

// === impl PacketSocket ===

impl PacketSocket {
    /// Opens a socket for the ARP of an interface, by its index. Needs `CAP_NET_RAW`.
    pub fn arp(interface: u32) -> io::Result<Self> {
        // With protocol 0 the socket receives nothing before it is bound, so no packet of
        // another interface gets in.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.bind(&link_address(interface, ARP, Mac::UNKNOWN)?)?;
        let socket = register(socket)?;
        Ok(Self { socket, interface })
    }

    /// Sends a payload to one host, or to all.
    pub async fn send(&self, to: Mac, payload: &[u8]) -> io::Result<()> {
        let to = link_address(self.interface, ARP, to)?;
        loop {
            let mut ready = self.socket.writable().await?;
            if let Ok(sent) = ready.try_io(|socket| socket.get_ref().send_to(payload, &to)) {
                return sent.map(drop);
            }
        }
    }

    /// Receives the next payload.
    pub async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 128];
        loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(length) = ready.try_io(|socket| socket.get_ref().read(&mut buffer)) {
                return Ok(buffer[..length?].to_vec());
            }
        }
    }
}
