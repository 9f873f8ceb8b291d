//! Records the ARP packets and the neighbour discovery that reach a host, with their times.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ballast_link::testbed::{self, Host};
use ballast_link::{Ethernet, FrameSocket, Links, arp, ndp};

const LOOK: Duration = Duration::from_millis(1);

/// A running capture. It ends when dropped.
pub(crate) struct Capture {
    frames: Arc<Mutex<Vec<(Instant, Frame)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Arp(Ethernet, arp::Packet),
    Neighbour(ndp::Message),
}

// === impl Capture ===

impl Capture {
    /// Begins. When it returns, no later frame is missed.
    pub(crate) fn start(host: &Host) -> Self {
        let (frames, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (ready, is_ready) = mpsc::channel();
        let (into, asked) = (Arc::clone(&frames), Arc::clone(&stop));
        let thread = testbed::spawn_on(host, move || async move {
            let eth0 = testbed::eth0(&Links::connect().unwrap()).await;
            let sockets = [
                FrameSocket::arp(eth0.index).unwrap(),
                FrameSocket::neighbour_discovery(eth0.index).unwrap(),
            ];
            ready.send(()).unwrap();
            while !asked.load(Ordering::Acquire) {
                for socket in &sockets {
                    record(socket, &into);
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        is_ready.recv().unwrap();
        Self {
            frames,
            stop,
            thread: Some(thread),
        }
    }

    /// What was captured so far and passes.
    pub(crate) fn frames<T>(&self, select: impl Fn(&Frame) -> Option<T>) -> Vec<(Instant, T)> {
        let frames = self.frames.lock().unwrap();
        let selected = frames
            .iter()
            .filter_map(|(at, frame)| Some((*at, select(frame)?)));
        selected.collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn record(socket: &FrameSocket, into: &Mutex<Vec<(Instant, Frame)>>) {
    let mut buffer = [0; 256];
    while let Ok(length) = socket.receive(&mut buffer) {
        let bytes = &buffer[..length];
        let arp = arp::parse(bytes).map(|(ethernet, packet)| Frame::Arp(ethernet, packet));
        let frame = arp.or_else(|| ndp::parse(bytes).map(Frame::Neighbour));
        let frame = frame.unwrap_or_else(|| panic!("a frame that cannot be read: {bytes:x?}"));
        into.lock().unwrap().push((Instant::now(), frame));
    }
}
