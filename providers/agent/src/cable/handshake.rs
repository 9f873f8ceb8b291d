//! How both sides of a connection prove that they have the key, now.
//!
//! ```text
//! dialling side                                       accepting side
//!      ── 1: my name, process, nonce d ─────────────────────▶
//!      ◀─ 2: my name, process, nonce a; yours is d ──────────   the other side has the key, now
//!      ── 3: nonce d; yours is a ───────────────────────────▶   the other side has the key, now
//!      ◀─ 4: nonce a; yours is d ────────────────────────────   there is room: connected
//! ```
//!
//! Each hello is sealed for the receiver and has the number of its step, so none can be sent
//! back, in another step, or to another node. A recorded one has another nonce.

use std::io;
use std::sync::Arc;

use ballast_announce::NodeName;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::error::Elapsed;

use super::ledger::Process;
use crate::NoRandom;
use crate::seal::{KeyId, Keyring, Purpose, SealError};
use crate::wire::MAX_NAME;

/// The longest hello, sealed, in bytes.
const MAX_HELLO: usize = 1024;

/// This process.
#[derive(Debug)]
pub(super) struct Identity {
    process: Process,
    keyring: Arc<Keyring>,
    random: SystemRandom,
}

/// A peer dialled us and has proved the key.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) process: Process,
    /// The last step, which tells the peer that there is room for its cable.
    pub(super) welcome: Vec<u8>,
}

/// Why a connection is no cable.
#[derive(Debug, Error)]
pub(super) enum HandshakeError {
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    #[error("it took too long")]
    Late(#[from] Elapsed),
    #[error("the hello is longer than {MAX_HELLO} bytes")]
    TooLong,
    #[error("the hello was not sealed for this node with a known key")]
    NotOpened,
    #[error("not the hello of this step, or of another connection")]
    Unexpected,
    #[error("another host says that it is this node")]
    Elsewhere,
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// What each side sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    /// From 1 to 4.
    step: u8,
    from: String,
    incarnation: u64,
    mine: Nonce,
    /// 0 in the first step.
    yours: Nonce,
}

/// A random number that is drawn once per connection and side.
type Nonce = u128;

// === impl Identity ===

impl Identity {
    pub(super) fn new(node: NodeName, incarnation: u64, keyring: Arc<Keyring>) -> Self {
        Self {
            process: Process { node, incarnation },
            keyring,
            random: SystemRandom::new(),
        }
    }

    pub(super) fn me(&self) -> &NodeName {
        &self.process.node
    }

    /// The dialling side. Returns the peer's process when the peer has welcomed us.
    pub(super) async fn dial(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        peer: &NodeName,
    ) -> Result<Process, HandshakeError> {
        let mine = self.nonce()?;
        send(stream, &self.sealed(1, mine, 0, peer, None)?).await?;
        let (answer, key) = self.receive(stream).await?;
        let process = answer.process();
        let expected = Hello::new(2, &process, answer.mine, mine);
        if answer != expected || process.node != *peer {
            return Err(HandshakeError::Unexpected);
        }
        send(stream, &self.sealed(3, mine, answer.mine, peer, Some(key))?).await?;
        let (welcome, _) = self.receive(stream).await?;
        if welcome != Hello::new(4, &process, answer.mine, mine) {
            return Err(HandshakeError::Unexpected);
        }
        Ok(process)
    }

    /// The accepting side, but for the last step.
    pub(super) async fn accept(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<Accepted, HandshakeError> {
        let mine = self.nonce()?;
        let (first, key) = self.receive(stream).await?;
        let process = first.process();
        // Another process of this node may dial, but a connection never leads back.
        if first != Hello::new(1, &process, first.mine, 0) || process == self.process {
            return Err(HandshakeError::Unexpected);
        }
        let peer = &process.node;
        let sealed = |step| self.sealed(step, mine, first.mine, peer, Some(key));
        send(stream, &sealed(2)?).await?;
        let (proof, _) = self.receive(stream).await?;
        if proof != Hello::new(3, &process, first.mine, mine) {
            return Err(HandshakeError::Unexpected);
        }
        let welcome = sealed(4)?;
        Ok(Accepted { process, welcome })
    }

    /// A hello with its length.
    fn sealed(
        &self,
        step: u8,
        mine: Nonce,
        yours: Nonce,
        to: &NodeName,
        key: Option<KeyId>,
    ) -> Result<Vec<u8>, HandshakeError> {
        let hello = Hello::new(step, &self.process, mine, yours);
        let hello = postcard::to_extend(&hello, Vec::new());
        let hello = hello.map_err(|_| HandshakeError::TooLong)?;
        let sealed = self.keyring.seal(&hello, to, Purpose::Cable, key)?;
        if sealed.len() > MAX_HELLO {
            return Err(HandshakeError::TooLong);
        }
        let length = u16::try_from(sealed.len()).map_err(|_| HandshakeError::TooLong)?;
        Ok([&length.to_be_bytes()[..], &sealed].concat())
    }

    async fn receive(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<(Hello, KeyId), HandshakeError> {
        let length = usize::from(stream.read_u16().await?);
        if length > MAX_HELLO {
            return Err(HandshakeError::TooLong);
        }
        let mut sealed = vec![0; length];
        stream.read_exact(&mut sealed).await?;
        let opened = self.keyring.open(&sealed, self.me(), Purpose::Cable);
        let (hello, key) = opened.map_err(|_| HandshakeError::NotOpened)?;
        let (hello, rest) =
            postcard::take_from_bytes::<Hello>(&hello).map_err(|_| HandshakeError::Unexpected)?;
        let named = (1..=MAX_NAME).contains(&hello.from.len());
        if !named || !rest.is_empty() {
            return Err(HandshakeError::Unexpected);
        }
        Ok((hello, key))
    }

    fn nonce(&self) -> Result<Nonce, NoRandom> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).map_err(|_| NoRandom)?;
        Ok(Nonce::from_ne_bytes(bytes).max(1))
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), hello: &[u8]) -> io::Result<()> {
    stream.write_all(hello).await
}

// === impl Hello ===

impl Hello {
    fn new(step: u8, from: &Process, mine: Nonce, yours: Nonce) -> Self {
        Self {
            step,
            from: from.node.as_str().to_owned(),
            incarnation: from.incarnation,
            mine,
            yours,
        }
    }

    fn process(&self) -> Process {
        Process {
            node: NodeName::new(&self.from),
            incarnation: self.incarnation,
        }
    }
}

#[cfg(test)]
mod tests;
