//! The packet thread: answers requests for addresses at once, and tells the core thread what the
//! segment shows.
//!
//! It decides nothing. [`frames::read`] says what a frame means from what the
//! core thread has published, so an answer never waits for a decision, a lock that is held for
//! long, or another task of the process. It does not answer while the core thread's last tick is
//! old: then the process was stopped, and another node may have taken over.
//!
//! Frames to this node's own addresses alone wait for a tick of the core thread ([`Sockets`]), unless
//! there are too many of them.
//!
//! A flood costs little: a kernel filter passes only ARP and neighbour discovery, and of each kind
//! of sighting only [`BUDGET`] reach the core thread within [`WINDOW`].

use std::io::{self, ErrorKind, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use ballast_announce::io::Method;
use ballast_announce::responder::Reply;
use ballast_announce::{Input, Time};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock;
use crate::event::Event;
use crate::frames::{self, Frame, Known, Sighting};
use crate::shared::Shared;
use crate::sockets::{FRAME, Sockets};

/// Frames that are read from one socket before the others get a turn.
const BATCH: usize = 64;
/// Sightings of one kind in one window. Answers have a budget of their own, so no flood of other
/// frames makes a live host look dead.
const BUDGET: u32 = 256;
/// The window of [`BUDGET`]: one tick.
const WINDOW: Duration = ballast_announce::timing::TICK;
/// The pause after an error of `poll` itself.
const PAUSE: Duration = Duration::from_millis(10);

/// The packet thread.
pub(crate) struct Packets {
    pub(crate) shared: Arc<Shared>,
    pub(crate) events: SyncSender<Event>,
    pub(crate) woken: UnixStream,
    pub(crate) budgets: Budgets,
}

/// What may still be passed on in this window.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    since: Time,
    used: [u32; 4],
}

/// What has a budget.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Answer,
    Probe,
    Claim,
    Client,
}

/// One of the sockets of a port.
#[derive(Clone, Copy, Debug)]
enum Socket {
    Arp,
    Neighbours,
    OwnArp,
    OwnNeighbours,
    Echo,
}

// === impl Packets ===

impl Packets {
    /// Runs until [`Shared::end`].
    pub(crate) fn run(mut self) {
        while !self.shared.has_ended() {
            let ports = self.shared.ports();
            let flooded = self.shared.is_flooded(clock::now());
            match wait(&self.woken, &ports, flooded) {
                Ok(ready) => {
                    self.drain_wakes();
                    for (port, socket) in ready {
                        if let Some(port) = ports.get(port) {
                            self.receive(port, socket);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot wait for frames");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    fn drain_wakes(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.woken.read(&mut bytes), Ok(count) if count > 0) {}
    }

    fn receive(&mut self, port: &Sockets, socket: Socket) {
        let known = self.shared.known();
        let mut buffer = [0; FRAME];
        for _ in 0..BATCH {
            let received = match socket {
                Socket::Arp => port.arp.receive(&mut buffer),
                Socket::Neighbours => port.neighbours.receive(&mut buffer),
                Socket::OwnArp => port.own_arp.receive(&mut buffer),
                Socket::OwnNeighbours => port.own_neighbours.receive(&mut buffer),
                Socket::Echo => match port.echo.receive() {
                    Ok(from) => {
                        self.echoed(&known, port, from);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match received {
                Ok(length) => self.frame(&known, port, buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Empty, or the interface went down, which netlink says, too.
                Err(_) => return,
            }
        }
    }

    fn frame(&mut self, known: &Known, port: &Sockets, bytes: &[u8]) {
        let Some(frame) = Frame::parse(bytes) else {
            return;
        };
        let reading = frames::read(known, port.index, &frame);
        if let Some(reply) = &reading.reply {
            self.reply(port, reply);
        }
        for sighting in reading.sightings {
            self.tell(port.index, sighting);
        }
    }

    fn reply(&self, port: &Sockets, reply: &Reply) {
        let counters = &self.shared.counters;
        if !self.shared.may_answer(clock::now()) {
            counters.stopped.add();
            return;
        }
        let (address, counter) = match reply {
            Reply::Arp { sender, .. } => ((*sender).into(), &counters.arp_replies),
            Reply::Advertisement { target, .. } => ((*target).into(), &counters.advertisements),
        };
        if port.send(address, &frames::reply(port.own, reply), counters) {
            counter.add();
        }
    }

    fn echoed(&mut self, known: &Known, port: &Sockets, from: std::net::IpAddr) {
        let Some(target) = known.directory.host(port.index, from) else {
            return;
        };
        if self.budgets.take(clock::now(), Kind::Answer) {
            self.pass(Event::Input(Input::Answer {
                interface: port.index,
                from: target,
                method: Method::Echo,
            }));
        }
    }

    fn tell(&mut self, interface: u32, sighting: Sighting) {
        let kind = match &sighting {
            Sighting::Answer { .. } => Kind::Answer,
            Sighting::Probed { .. } => Kind::Probe,
            Sighting::Heard { .. } => Kind::Claim,
            Sighting::Client { .. } => Kind::Client,
        };
        if !self.budgets.take(clock::now(), kind) {
            self.shared.counters.flood.add();
            return;
        }
        match sighting {
            // Somebody else has an address: at once.
            Sighting::Heard { .. } => self.pass(Event::Sighting {
                interface,
                sighting,
            }),
            // Waking the core thread for each of them would double its work.
            Sighting::Answer { .. } | Sighting::Probed { .. } | Sighting::Client { .. } => {
                self.shared.wait(interface, sighting);
            }
        }
    }

    fn pass(&self, event: Event) {
        // If the core thread has ended, this one will.
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            self.shared.counters.flood.add();
        }
    }
}

/// Waits until a socket has something, and says which ones. `own`: also those for own addresses.
fn wait(woken: &UnixStream, ports: &[Arc<Sockets>], own: bool) -> io::Result<Vec<(usize, Socket)>> {
    let mut fds = vec![PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
    let mut sockets = Vec::new();
    for (nth, port) in ports.iter().enumerate() {
        let frames = [
            (port.arp.as_fd(), Socket::Arp),
            (port.neighbours.as_fd(), Socket::Neighbours),
        ];
        let aside = [
            (port.own_arp.as_fd(), Socket::OwnArp),
            (port.own_neighbours.as_fd(), Socket::OwnNeighbours),
        ];
        let aside = aside.into_iter().filter(|_| own);
        let echo = port.echo.sockets().map(|fd| (fd, Socket::Echo));
        for (fd, socket) in frames.into_iter().chain(aside).chain(echo) {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
            sockets.push((nth, socket));
        }
    }
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = fds.iter().skip(1).map(|fd| fd.any().unwrap_or(true));
    let ready = ready.zip(sockets).filter(|(ready, _)| *ready);
    Ok(ready.map(|(_, socket)| socket).collect())
}

// === impl Budgets ===

impl Budgets {
    /// Whether one more may be passed on.
    fn take(&mut self, now: Time, kind: Kind) -> bool {
        if now.since(self.since) >= WINDOW {
            *self = Self {
                since: now,
                ..Self::default()
            };
        }
        let used = &mut self.used[kind as usize];
        *used = used.saturating_add(1);
        *used <= BUDGET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_leaves_the_others_alone() {
        let mut budgets = Budgets::default();
        let at = |ms| Time::after_start(Duration::from_millis(ms));
        let claims = |budgets: &mut Budgets, now| budgets.take(now, Kind::Claim);
        for _ in 0..BUDGET {
            assert!(claims(&mut budgets, at(1000)));
        }
        assert!(!claims(&mut budgets, at(1000)));
        assert!(budgets.take(at(1000), Kind::Answer));
        assert!(!claims(&mut budgets, at(1049)));
        assert!(claims(&mut budgets, at(1050)), "the next window");
    }
}
