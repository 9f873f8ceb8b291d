//! Messages between announcers by UDP.
//!
//! ```text
//! Message ──wire──▶ bytes ─┐                             ┌─▶ Message ──▶ Mail
//!                          ├─▶ Letter ──seal──▶ datagram ─┤
//!                  tokens ─┘                             └─▶ tokens ──▶ sessions: fresh?
//! ```
//!
//! One socket for IPv4 and IPv6 sends and receives. Nothing waits: what the kernel does not take
//! is lost and counted, as on the network. A datagram that does not open, and one that is not
//! fresh ([`sessions`]), is dropped and counted. The source address proves nothing and is only
//! used for greetings.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_announce::io::Message;
use ballast_announce::{NodeName, Time};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

use crate::seal::{KeyId, Keyring, OVERHEAD, Purpose};
use crate::wire::{self, MAX_MESSAGE, MAX_NAME};
use crate::{NoRandom, port};

mod receive;
mod sessions;

use receive::Datagram;
use sessions::{Arrived, Sessions, Token, Tokens, Verdict};

/// The longest datagram: a message, two tokens, a name and their lengths, sealed.
const MAX_DATAGRAM: usize = MAX_MESSAGE + 2 * 10 + MAX_NAME + 2 * 3 + OVERHEAD;
/// Messages that a peer may have refused because it did not know us: sent again after its
/// greeting. Older ones are of no use.
const RECENT: Duration = Duration::from_millis(500);
const MAX_RECENT: usize = 64;
/// After an error of the socket.
const RECEIVE_AGAIN: Duration = Duration::from_millis(10);

/// Sends and receives messages. One per process.
#[derive(Debug)]
pub struct Post {
    me: NodeName,
    socket: UdpSocket,
    keyring: Arc<Keyring>,
    counters: Arc<Counters>,
    random: SystemRandom,
    start: Instant,
    state: Mutex<State>,
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The interface on which it arrived, if the kernel says it.
    pub via: Option<u32>,
    /// Where it came from. Nothing proves it.
    pub source: IpAddr,
    /// The message.
    pub message: Message,
}

/// What became of messages. Each counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages and greetings that were sent.
    pub sent: AtomicU64,
    /// Messages that were not sent: too long, or the kernel refused them.
    pub not_sent: AtomicU64,
    /// Messages that were delivered.
    pub received: AtomicU64,
    /// Datagrams that did not open: garbage, another key, for another node.
    pub not_opened: AtomicU64,
    /// Datagrams that opened and are no message: an announcer of another version.
    pub malformed: AtomicU64,
    /// Messages that were not fresh: copies, and the first ones of a process.
    pub not_fresh: AtomicU64,
    /// Messages that were dropped because the agent had too many events to handle.
    pub dropped: AtomicU64,
}

/// The content of a datagram.
#[derive(Debug, Serialize, Deserialize)]
struct Letter<'a> {
    from: &'a str,
    /// See [`Tokens`].
    mine: Token,
    yours: Token,
    /// Empty in a greeting.
    message: &'a [u8],
}

#[derive(Debug, Default)]
struct State {
    sessions: Sessions,
    recent: VecDeque<Recent>,
}

#[derive(Debug)]
struct Recent {
    sent: Time,
    to: NodeName,
    at: SocketAddr,
    message: Vec<u8>,
}

// === impl Post ===

impl Post {
    /// Opens the port, within a tokio runtime. Port 0 lets the kernel choose one.
    pub fn bind(
        me: NodeName,
        port: u16,
        keyring: Arc<Keyring>,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        Ok(Self {
            me,
            socket: UdpSocket::from_std(port::udp(port)?)?,
            keyring,
            counters,
            random: SystemRandom::new(),
            start: Instant::now(),
            state: Mutex::default(),
        })
    }

    /// The port.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Sends a message to a node, at one of its addresses. Returns at once; a message that
    /// cannot be sent is lost.
    pub fn send(&self, to: &NodeName, at: SocketAddr, message: &Message) {
        match wire::encode(message) {
            Ok(message) => {
                self.send_encoded(to, at, &message);
                self.remember(to, at, message);
            }
            Err(error) => {
                tracing::debug!(%to, %error, "not sent");
                count(&self.counters.not_sent);
            }
        }
    }

    /// Receives messages and passes them on. Never returns: an error of the socket is an error
    /// of some datagram.
    pub async fn run(&self, sink: impl Fn(Mail)) {
        let mut buffer = vec![0; MAX_DATAGRAM + 1];
        loop {
            match receive::next(&self.socket, &mut buffer).await {
                Ok(datagram) => {
                    if let Some(message) = self.open(&datagram) {
                        count(&self.counters.received);
                        sink(Mail {
                            via: datagram.via,
                            source: datagram.from.ip().to_canonical(),
                            message,
                        });
                    }
                }
                // No memory, or an error about something that was sent.
                Err(error) => {
                    tracing::debug!(%error, "nothing received");
                    sleep(RECEIVE_AGAIN).await;
                }
            }
        }
    }

    /// The message in a datagram, if it is fresh. Answers it if the peer needs a greeting.
    fn open(&self, datagram: &Datagram<'_>) -> Option<Message> {
        let opened = self.keyring.open(datagram.bytes, &self.me, Purpose::Post);
        let Ok((letter, key)) = opened else {
            count(&self.counters.not_opened);
            return None;
        };
        let Some((letter, message)) = Letter::read(&letter) else {
            count(&self.counters.malformed);
            return None;
        };
        let from = NodeName::new(letter.from);
        // A former process of this node.
        if from == self.me {
            return None;
        }
        let verdict = self.judge(&from, &letter, message.as_ref(), key).ok()?;
        match verdict {
            Verdict::Deliver => message,
            Verdict::DeliverAndGreet(tokens) => {
                self.greet(&from, datagram.from, tokens, key);
                message
            }
            Verdict::Greet(tokens) => {
                count(&self.counters.not_fresh);
                self.greet(&from, datagram.from, tokens, key);
                None
            }
            Verdict::Repeat => {
                self.repeat(&from);
                None
            }
            Verdict::Ignore => None,
        }
    }

    fn judge(
        &self,
        from: &NodeName,
        letter: &Letter<'_>,
        message: Option<&Message>,
        key: KeyId,
    ) -> Result<Verdict, NoRandom> {
        let arrived = message.map_or(Arrived::Greeting, |message| Arrived::Message {
            incarnation: message.stamp.incarnation,
        });
        let tokens = Tokens {
            mine: letter.mine,
            yours: letter.yours,
        };
        let token = self.token()?;
        let mut state = self.lock();
        let sessions = &mut state.sessions;
        Ok(sessions.incoming(from, tokens, arrived, key, self.now(), || token))
    }

    fn greet(&self, to: &NodeName, at: SocketAddr, tokens: Tokens, key: KeyId) {
        self.send_letter(to, at, tokens, Some(key), &[]);
    }

    /// The peer has told its token: it refused what was sent to it before.
    fn repeat(&self, to: &NodeName) {
        let now = self.now();
        let again: Vec<_> = {
            let state = self.lock();
            let recent = state.recent.iter();
            let recent = recent.filter(|it| it.to == *to && now.since(it.sent) < RECENT);
            recent.map(|it| (it.at, it.message.clone())).collect()
        };
        for (at, message) in again {
            self.send_encoded(to, at, &message);
        }
    }

    fn remember(&self, to: &NodeName, at: SocketAddr, message: Vec<u8>) {
        let now = self.now();
        let recent = &mut self.lock().recent;
        let old = |it: &Recent| now.since(it.sent) >= RECENT;
        while recent.len() >= MAX_RECENT || recent.front().is_some_and(old) {
            recent.pop_front();
        }
        recent.push_back(Recent {
            sent: now,
            to: to.clone(),
            at,
            message,
        });
    }

    fn send_encoded(&self, to: &NodeName, at: SocketAddr, message: &[u8]) {
        let Ok(token) = self.token() else {
            count(&self.counters.not_sent);
            return;
        };
        let now = self.now();
        let (tokens, key) = self.lock().sessions.outgoing(to, now, || token);
        self.send_letter(to, at, tokens, key, message);
    }

    fn send_letter(
        &self,
        to: &NodeName,
        at: SocketAddr,
        tokens: Tokens,
        key: Option<KeyId>,
        message: &[u8],
    ) {
        let letter = Letter {
            from: self.me.as_str(),
            mine: tokens.mine,
            yours: tokens.yours,
            message,
        };
        let sent = postcard::to_extend(&letter, Vec::new())
            .map_err(io::Error::other)
            .and_then(|letter| {
                let sealed = self.keyring.seal(&letter, to, Purpose::Post, key);
                sealed.map_err(io::Error::other)
            })
            .and_then(|datagram| self.transmit(&datagram, at));
        match sent {
            Ok(()) => count(&self.counters.sent),
            Err(error) => {
                tracing::debug!(%to, %at, %error, "not sent");
                count(&self.counters.not_sent);
            }
        }
    }

    fn transmit(&self, datagram: &[u8], at: SocketAddr) -> io::Result<()> {
        let at = match at {
            SocketAddr::V4(at) if self.socket.local_addr()?.is_ipv6() => {
                SocketAddr::from((at.ip().to_ipv6_mapped(), at.port()))
            }
            at => at,
        };
        // Not through tokio, which knows that the socket is writable only after its first turn.
        let socket = SockRef::from(&self.socket);
        socket.send_to(datagram, &at.into()).map(drop)
    }

    /// A random number other than 0.
    fn token(&self) -> Result<Token, NoRandom> {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes).map_err(|_| NoRandom)?;
        Ok(Token::from_ne_bytes(bytes).max(1))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whatever a panic left: sessions repair themselves.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time::after_start(self.start.elapsed())
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

// === impl Letter ===

impl<'a> Letter<'a> {
    /// A letter, and the message in it unless it is a greeting.
    fn read(bytes: &'a [u8]) -> Option<(Self, Option<Message>)> {
        let (letter, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        if !rest.is_empty() || letter.from.is_empty() || letter.from.len() > MAX_NAME {
            return None;
        }
        if letter.message.is_empty() {
            return Some((letter, None));
        }
        let message = wire::decode(letter.message).ok()?;
        (message.from.as_str() == letter.from).then_some((letter, Some(message)))
    }
}

#[cfg(test)]
mod tests;
