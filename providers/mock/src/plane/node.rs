//! Finds the wildcard listeners of this node, which `ports` remembers.
//!
//! There are two ways. [`watch`] reads the kernel's lists of sockets (proc(5), `/proc/net/tcp`) every
//! few seconds, so that listeners are known before a load balancer needs their ports.
//! [`has_wildcard`] checks one port at once, after it could not be opened.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket as RawSocket, Type};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::plan::Socket;
use super::ports::Wildcard;
use crate::api::{Family, Protocol};

/// Time between two readings.
const INTERVAL: Duration = Duration::from_secs(5);

/// A reading may take this part of the time, where the lists are long.
const SHARE: u32 = 50;

/// The states that matter (`include/net/tcp_states.h`), in hexadecimal digits.
const LISTEN: &str = "0A";
/// How the kernel shows a UDP socket that is not connected.
const UNCONNECTED: &str = "07";

/// Linux's default, for where it cannot be read.
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// One line of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row<'a> {
    wildcard: bool,
    port: u16,
    state: &'a str,
}

/// Reads the lists until shutdown.
pub(super) async fn watch(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut pause = INTERVAL;
    while shutdown.run_until_cancelled(sleep(pause)).await.is_some() {
        let begun = Instant::now();
        let reading = Arc::clone(&shared);
        let read = tokio::task::spawn_blocking(move || observe(&reading));
        if read.await.is_err() {
            tracing::error!("reading the listeners of the node has failed");
        }
        pause = INTERVAL.max(begun.elapsed() * SHARE);
    }
}

/// Reads the lists once.
pub(super) fn observe(shared: &Shared) {
    match wildcards() {
        Ok(listeners) => {
            let listeners: Vec<Wildcard> = listeners.into_iter().collect();
            shared.node_ports().observe_all(&listeners, Instant::now());
            shared.seen.notify_one();
        }
        Err(error) => {
            tracing::warn!(%error, "the listeners of the node cannot be read; only --reserved-ports protects them");
        }
    }
}

/// All wildcard listeners of this network namespace.
fn wildcards() -> io::Result<BTreeSet<Wildcard>> {
    let mut all = BTreeSet::new();
    for (file, protocol, families) in [
        ("tcp", Protocol::Tcp, &[Family::V4][..]),
        // `[::]` usually takes connections of both families, and the list does not show it.
        ("tcp6", Protocol::Tcp, &[Family::V4, Family::V6]),
        ("udp", Protocol::Udp, &[Family::V4]),
        ("udp6", Protocol::Udp, &[Family::V4, Family::V6]),
    ] {
        // Not `/proc/net`: that is the namespace of the process's first thread.
        let file = match File::open(format!("/proc/thread-self/net/{file}")) {
            Ok(file) => file,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for port in ports_of(BufReader::new(file), protocol)? {
            let wildcard = |family: &Family| Wildcard {
                protocol,
                family: *family,
                port,
            };
            all.extend(families.iter().map(wildcard));
        }
    }
    Ok(all)
}

/// The ports of the wildcard listeners in one list.
fn ports_of(list: impl io::BufRead, protocol: Protocol) -> io::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for line in list.lines().skip(1) {
        let line = line?;
        let Some(row) = Row::parse(&line) else {
            continue;
        };
        let listens = match protocol {
            // Listeners come first; there may be very many connections after them.
            Protocol::Tcp if row.state != LISTEN => break,
            Protocol::Tcp => true,
            Protocol::Udp => row.state == UNCONNECTED,
        };
        if listens && row.wildcard {
            ports.insert(row.port);
        }
    }
    Ok(ports)
}

/// Whether a program uses the port of this socket on all addresses. Binds a second socket to
/// the same port on an unused address, which only a wildcard listener prevents.
pub(super) fn has_wildcard(socket: Socket) -> bool {
    let bound = || -> io::Result<()> {
        let (domain, unused) = match socket.ip {
            // A loopback address is every host's own.
            IpAddr::V4(_) => (Domain::IPV4, IpAddr::V4(Ipv4Addr::new(127, 254, 209, 83))),
            // From the documentation prefix (RFC 3849), which no host uses.
            IpAddr::V6(_) => {
                let unused = Ipv6Addr::new(0x2001, 0xdb8, 0xba11, 0xa57, 0, 0, 0, 1);
                (Domain::IPV6, IpAddr::V6(unused))
            }
        };
        let kind = match socket.protocol {
            Protocol::Tcp => Type::STREAM,
            Protocol::Udp => Type::DGRAM,
        };
        let probe = RawSocket::new(domain, kind, None)?;
        match domain {
            Domain::IPV6 => {
                probe.set_only_v6(true)?;
                probe.set_freebind_v6(true)?;
            }
            _ => probe.set_freebind_v4(true)?,
        }
        if socket.protocol == Protocol::Tcp {
            probe.set_reuse_address(true)?;
        }
        probe.bind(&SocketAddr::new(unused, socket.port).into())
    };
    bound().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// The range of ports that the kernel assigns to clients.
pub(super) fn ephemeral() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    text.ok()
        .and_then(|text| parse_range(&text))
        .unwrap_or(EPHEMERAL)
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split_whitespace().map(str::parse);
    let (first, last) = (ports.next()?.ok()?, ports.next()?.ok()?);
    Some(first..=last)
}

// === impl Row ===

impl<'a> Row<'a> {
    /// `sl local_address rem_address st …`, as in `0: 00000000:0016 00000000:0000 0A …`
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (address, port) = fields.next()?.split_once(':')?;
        let state = fields.nth(1)?;
        Some(Self {
            wildcard: address.bytes().all(|byte| byte == b'0'),
            port: u16::from_str_radix(port, 16).ok()?,
            state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1062 1 0000000097382623 100 0 0 10 0
   1: 0100007F:2808 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1063 1 0000000097382623 100 0 0 10 0
   2: 00000000:9652 507100CB:01BB 01 00000000:00000000 02:00000A12 00000000     0        0 98669 2 00000000b18aa82b 20 4 14 125 -1
   3: 00000000:2710 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1062 1 0000000097382623 100 0 0 10 0
";
    const UDP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 2411: 00000000000000000000000000000000:2118 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 000000006e3cb9f8 0
 2412: B80D0120000000000000000001000000:2119 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 000000006e3cb9f8 0
 2413: 00000000000000000000000000000000:211A B80D0120000000000000000001000000:0035 01 00000000:00000000 00:00000000 00000000     0        0 0 2 000000006e3cb9f8 0
";

    #[test]
    fn wildcard_listeners_are_found_and_nothing_else() {
        let found = |text: &str, protocol| ports_of(text.as_bytes(), protocol).unwrap();
        // The list of TCP ends with its first connection.
        assert_eq!(found(TCP, Protocol::Tcp), BTreeSet::from([22]));
        assert_eq!(found(UDP6, Protocol::Udp), BTreeSet::from([8472]));
        assert_eq!(found("", Protocol::Tcp), BTreeSet::new());
    }

    #[test]
    fn what_is_no_row_is_skipped() {
        for line in [
            "",
            "0:",
            "0: 00000000 0:0 0A",
            "0: 00000000:GG 0:0 0A",
            "0: 0:0016 0:0",
        ] {
            assert_eq!(Row::parse(line), None, "{line:?}");
        }
        assert_eq!(parse_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(parse_range("1"), None);
    }

    /// Both ways agree with the kernel.
    #[test]
    fn a_real_listener_is_seen_while_it_is_there() {
        for (protocol, family, address) in [
            (Protocol::Tcp, Family::V4, "0.0.0.0:0"),
            (Protocol::Tcp, Family::V6, "[::]:0"),
            (Protocol::Udp, Family::V4, "0.0.0.0:0"),
            (Protocol::Udp, Family::V6, "[::]:0"),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            let kind = match protocol {
                Protocol::Tcp => Type::STREAM,
                Protocol::Udp => Type::DGRAM,
            };
            let listener = RawSocket::new(Domain::for_address(address), kind, None).unwrap();
            listener.bind(&address.into()).unwrap();
            if protocol == Protocol::Tcp {
                listener.listen(1).unwrap();
            }
            let port = listener.local_addr().unwrap().as_socket().unwrap().port();
            let ip = match family {
                Family::V4 => IpAddr::from([127, 0, 0, 9]),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            };
            let socket = Socket { ip, protocol, port };
            let wildcard = Wildcard {
                protocol,
                family,
                port,
            };
            assert!(wildcards().unwrap().contains(&wildcard), "{address}");
            assert!(has_wildcard(socket), "{address}");
            drop(listener);
            assert!(!wildcards().unwrap().contains(&wildcard), "{address}");
            assert!(!has_wildcard(socket), "{address}");
        }
        // Somebody has the port on one address.
        let one = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = Socket {
            ip: [127, 0, 0, 1].into(),
            protocol: Protocol::Tcp,
            port: one.local_addr().unwrap().port(),
        };
        assert!(!has_wildcard(socket));
    }
}
