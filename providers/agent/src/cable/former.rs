//! Two processes of one node, as during an update: the newer one tells the former one.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ballast_announce::{Input, NodeName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::handshake::{Accepted, HandshakeError, Identity};
use super::{PATIENCE, Shared, Sink};
use crate::seal::Keyring;

/// A connection to the former process of this node.
#[derive(Debug)]
pub struct Former(#[expect(dead_code, reason = "it ends when dropped")] TcpStream);

// === impl Former ===

impl Former {
    /// Tells the process of this node that has the port, if there is one, that this one takes its
    /// place. Call it before anything opens the port, and keep the result.
    pub async fn find(
        me: NodeName,
        incarnation: u64,
        port: u16,
        keyring: Arc<Keyring>,
    ) -> Option<Self> {
        let identity = Identity::new(me.clone(), incarnation, keyring);
        let former = async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            PATIENCE.apply(&stream)?;
            identity.dial(&mut stream, &me).await?;
            Ok::<_, HandshakeError>(Self(stream))
        };
        let found = timeout(PATIENCE.handshake, former).await;
        let found = found.map_err(HandshakeError::from).flatten();
        // Usually there is none.
        let found = found.inspect_err(|error| tracing::debug!(%error, "no former process"));
        found.ok()
    }
}

// === impl Shared ===

impl Shared {
    /// A newer process of this node has started. Waits until it ends.
    pub(super) async fn give_way<S: Sink>(
        self: Arc<Self>,
        mut stream: TcpStream,
        accepted: Accepted,
        sink: Arc<S>,
    ) {
        // Before it opens the port.
        self.count_newer(|newer| newer + 1, &*sink);
        let welcomed = timeout(self.patience.handshake, stream.write_all(&accepted.welcome)).await;
        if let Ok(Ok(())) = welcomed {
            // It sends nothing.
            let _ = stream.read(&mut [0]).await;
        }
        self.count_newer(|newer| newer - 1, &*sink);
    }

    fn count_newer(&self, change: impl Fn(usize) -> usize, sink: &impl Sink) {
        let mut state = self.lock();
        let before = state.newer > 0;
        state.newer = change(state.newer);
        let replaced = state.newer > 0;
        if replaced {
            // Their next connections reach the newer process.
            state.accepted.values().for_each(|end| end.notify_one());
        }
        if before != replaced {
            tracing::info!(replaced, "another announcer of this node started or ended");
            sink(Input::Replaced { replaced });
        }
    }
}
