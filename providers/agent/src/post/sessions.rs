//! Which messages are fresh, without clocks.
//!
//! Whoever is on the network can record sealed messages and send them again. Within the life of
//! a process the node drops copies by their sequence. Messages of a former process it cannot
//! tell from those of a new one: a recorded message could revive a claim that ended long ago, or
//! make a live process look like a former one, which is ignored.
//!
//! So each process draws a random *token* per peer, and each message of that peer must show it.
//! A message without it is not delivered; it is answered with a greeting, which tells the token
//! and proves its own freshness by the peer's token:
//!
//! ```text
//! A (started a moment ago)                                    B
//!    ── message: my token is a, yours is unknown ───────────▶   not fresh
//!    ◀─ greeting: my token is b, yours is a ─────────────────
//!   a is ours: the greeting is fresh
//!    ── the same message: my token is a, yours is b ────────▶   fresh: delivered
//! ```
//!
//! When the first message of a process was delivered, the receiver draws another token and
//! sends a greeting. So no recorded message of a former process shows it.

use std::collections::BTreeMap;

use ballast_announce::timing::PEERS;
use ballast_announce::{NodeName, Time};

use crate::seal::KeyId;

/// What this process knows of its peers: at most [`PEERS`], those of the latest messages.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    peers: BTreeMap<NodeName, Peer>,
}

#[derive(Debug)]
struct Peer {
    /// A message of the peer must show it.
    token: Token,
    /// Our messages show it.
    theirs: Token,
    incarnation: Option<u64>,
    /// The key of the latest fresh message.
    key: Option<KeyId>,
    used: Time,
}

/// A random number; 0 stands for an unknown one.
pub(super) type Token = u64;

/// The tokens in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    /// The sender's.
    pub(super) mine: Token,
    /// The receiver's, as far as the sender knows.
    pub(super) yours: Token,
}

/// What arrived.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arrived {
    /// A greeting.
    Greeting,
    /// A message of a process.
    Message {
        /// Which process.
        incarnation: u64,
    },
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Deliver the message.
    Deliver,
    /// Deliver the message, and send a greeting with these tokens: there is a new one.
    DeliverAndGreet(Tokens),
    /// Not fresh, or the peer did not know the token. Send a greeting with these tokens.
    Greet(Tokens),
    /// A fresh greeting with a new token. Send the latest messages again.
    Repeat,
    /// Nothing.
    Ignore,
}

// === impl Sessions ===

impl Sessions {
    /// The tokens of a message to a peer, and the key that the peer used. `draw` returns a
    /// random number other than 0.
    pub(super) fn outgoing(
        &mut self,
        to: &NodeName,
        now: Time,
        draw: impl FnOnce() -> Token,
    ) -> (Tokens, Option<KeyId>) {
        let peer = self.peer(to, now, draw);
        (peer.tokens(peer.theirs), peer.key)
    }

    /// Something authentic arrived.
    pub(super) fn incoming(
        &mut self,
        from: &NodeName,
        tokens: Tokens,
        arrived: Arrived,
        key: KeyId,
        now: Time,
        mut draw: impl FnMut() -> Token,
    ) -> Verdict {
        let peer = self.peer(from, now, &mut draw);
        let fresh = tokens.yours == peer.token;
        if fresh {
            peer.key = Some(key);
        }
        match arrived {
            Arrived::Greeting if fresh && peer.theirs != tokens.mine => {
                peer.theirs = tokens.mine;
                Verdict::Repeat
            }
            // Never answered, so that two processes do not greet each other forever.
            Arrived::Greeting => Verdict::Ignore,
            Arrived::Message { .. } if !fresh => Verdict::Greet(peer.tokens(tokens.mine)),
            Arrived::Message { incarnation } => {
                peer.theirs = tokens.mine;
                if peer.incarnation.replace(incarnation) == Some(incarnation) {
                    return Verdict::Deliver;
                }
                peer.token = draw();
                Verdict::DeliverAndGreet(peer.tokens(tokens.mine))
            }
        }
    }

    fn peer(&mut self, name: &NodeName, now: Time, draw: impl FnOnce() -> Token) -> &mut Peer {
        if self.peers.len() >= PEERS && !self.peers.contains_key(name) {
            let oldest = self.peers.iter().min_by_key(|(_, peer)| peer.used);
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.and_then(|oldest| self.peers.remove(&oldest));
        }
        let peer = self.peers.entry(name.clone()).or_insert_with(|| Peer {
            token: draw(),
            theirs: 0,
            incarnation: None,
            key: None,
            used: now,
        });
        peer.used = now;
        peer
    }
}

// === impl Peer ===

impl Peer {
    fn tokens(&self, yours: Token) -> Tokens {
        Tokens {
            mine: self.token,
            yours,
        }
    }
}

#[cfg(test)]
mod tests;
