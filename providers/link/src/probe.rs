//! Probes for an IPv4 address before it is used (RFC 5227). For IPv6 the kernel does so when
//! the address is added (RFC 4862 §5.4).

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::arp::Packet;
use crate::{Interface, Mac, PacketSocket};

/// The number of probes and the time for answers. RFC 5227 §1.1 has 3 probes in 1 to 2 s
/// each and then waits 2 s; on a bridge within one machine an answer takes less than a
/// millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The number of probes.
    pub probes: u32,
    /// The time to wait for an answer after each probe.
    pub interval: Duration,
}

/// Probes the network of an interface for an address. Returns the MAC address of a host that
/// uses it or probes for it, too.
pub async fn probe(
    interface: &Interface,
    address: Ipv4Addr,
    timing: Timing,
) -> io::Result<Option<Mac>> {
    let socket = PacketSocket::arp(interface.index)?;
    let question = Packet::probe(interface.mac, address).encode();
    for _ in 0..timing.probes {
        socket.send(Mac::BROADCAST, &question).await?;
        let until = Instant::now() + timing.interval;
        if let Some(mac) = conflict(&socket, interface.mac, address, until).await? {
            return Ok(Some(mac));
        }
    }
    Ok(None)
}

async fn conflict(
    socket: &PacketSocket,
    mac: Mac,
    address: Ipv4Addr,
    until: Instant,
) -> io::Result<Option<Mac>> {
    while let Ok(heard) = timeout_at(until, socket.receive()).await {
        let packet = match heard {
            Ok(bytes) => Packet::decode(&bytes),
            // The interface is down; it may come up again meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {
                sleep_until(until).await;
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(packet) = packet.filter(|packet| packet.conflicts(mac, address)) {
            return Ok(Some(packet.sender_mac));
        }
    }
    Ok(None)
}

// === impl Timing ===

impl Default for Timing {
    fn default() -> Self {
        Self {
            probes: 3,
            interval: Duration::from_millis(100),
        }
    }
}
