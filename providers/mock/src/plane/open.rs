//! Opens one port of a load balancer, and says why one cannot be opened.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::balancer::{Balancer, Frontend};
use super::plan::Socket;
use super::ports::{Refusal, Wildcard};
use super::{node, tcp, udp};
use crate::api::{Code, Family, Problem};

/// Why some ports of a load balancer are closed.
pub(crate) struct ClosedPorts {
    /// Of the first of them.
    pub(crate) problem: Problem,
    /// Whether one of them may be opened later.
    pub(crate) retry: bool,
}

/// Why one port is closed.
pub(super) enum CannotOpen {
    /// The node needs it.
    Refused(Refusal),
    /// The system refused.
    Failed(std::io::Error),
}

/// Opens a port and starts to serve it, unless the node needs it.
pub(super) fn open(
    socket: Socket,
    balancer: &Arc<Balancer>,
    closed: &CancellationToken,
) -> Result<(), CannotOpen> {
    let shared = &balancer.shared;
    if let Some(refusal) = shared.node_ports().refusal(socket) {
        return Err(CannotOpen::Refused(refusal));
    }
    match bind(socket, balancer, closed) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            if node::has_wildcard(socket) {
                let listener = Wildcard {
                    protocol: socket.protocol,
                    family: Family::of(socket.ip),
                    port: socket.port,
                };
                let mut ports = shared.node_ports();
                ports.observe(listener, Instant::now());
                shared.seen.notify_one();
                if let Some(refusal) = ports.refusal(socket) {
                    return Err(CannotOpen::Refused(refusal));
                }
            }
            Err(CannotOpen::Failed(error))
        }
        other => other.map_err(CannotOpen::Failed),
    }
}

fn bind(
    socket: Socket,
    balancer: &Arc<Balancer>,
    closed: &CancellationToken,
) -> std::io::Result<()> {
    use crate::api::Protocol::{Tcp, Udp};
    let frontend = Frontend::new(socket, Arc::clone(balancer));
    let closed = closed.clone();
    match socket.protocol {
        Tcp => {
            let listener = tcp::bind(socket.address())?;
            tokio::spawn(tcp::serve(listener, Arc::new(frontend), closed));
        }
        Udp => {
            let bound = udp::bind(socket.address())?;
            tokio::spawn(udp::serve(bound, frontend, closed));
        }
    }
    Ok(())
}

/// Why a port is closed, for people.
pub(super) fn cannot_open(socket: Socket, error: &CannotOpen) -> Problem {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let (code, why) = match error {
        CannotOpen::Refused(Refusal::Reserved) => (
            Code::PortInUse,
            "the port is reserved for programs of the mock cloud's node (--reserved-ports); choose another port",
        ),
        CannotOpen::Refused(Refusal::Listener) => (
            Code::PortInUse,
            "a program on the mock cloud's node listens on this port on all addresses, and could not restart while the load balancer uses the port; choose another port, or remove the program and the state of the mock cloud (in a cluster: delete its pod)",
        ),
        CannotOpen::Failed(error) => match error.kind() {
            AddrInUse => (
                Code::PortInUse,
                "another program on the mock cloud's node uses it",
            ),
            PermissionDenied => (
                Code::PortInUse,
                "the mock cloud may not open ports below 1024 (it needs NET_BIND_SERVICE)",
            ),
            AddrNotAvailable => (
                Code::NoAddressAvailable,
                "the address is on none of the interfaces of the mock cloud's node",
            ),
            _ => (Code::Internal, "see the mock cloud's log"),
        },
    };
    let (protocol, address) = (socket.protocol, socket.address());
    Problem::new(
        code,
        format!("{protocol} port {address} cannot be opened: {why}"),
    )
}

/// The port is open, and clients do not reach it.
pub(super) fn intercepted(socket: Socket) -> Problem {
    Problem::new(
        Code::PortInUse,
        format!(
            "{} port {} is open, but clients do not reach it: a rule on the mock cloud's node takes their packets first, most likely because {} is the node port of a Service; choose another port",
            socket.protocol,
            socket.address(),
            socket.port
        ),
    )
}
