//! Two hosts on one segment for tests, each in a network namespace of its own that nothing
//! leads out of and that is gone with it. Needs root. Used by the tests of this crate and of
//! those that build on it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests is a test"
)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures::TryStreamExt;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{LinkUnspec, LinkVeth};
use tokio::time::Instant;

use crate::{Interface, Links};

/// Longer than anything takes.
pub const LONG: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// One side of the cable.
pub struct Host {
    namespace: File,
}

/// A thread on one host, with a runtime of its own: sockets and netlink stay there. What
/// still runs when the work has ended is cut off, as by a crash.
pub fn on<T: Send>(host: &Host, work: impl AsyncFnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(&host.namespace, CloneFlags::CLONE_NEWNET).unwrap();
            runtime().block_on(work())
        });
        thread.join().unwrap()
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A namespace that lives as long as its file is open, and its threads.
fn namespace() -> Host {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let namespace = File::open("/proc/thread-self/ns/net").unwrap();
        Host { namespace }
    })
    .join()
    .unwrap()
}

/// Two hosts, `eth0` to `eth0`.
pub fn segment() -> (Host, Host) {
    let (one, two) = (namespace(), namespace());
    let other = two.namespace.as_raw_fd();
    on(&one, async || {
        let handle = netlink();
        let veth = LinkVeth::new("eth0", "peer").build();
        handle.link().add(veth).execute().await.unwrap();
        let peer = LinkUnspec::new_with_index(index_of(&handle, "peer").await);
        let peer = peer.name("eth0").setns_by_fd(other).build();
        handle.link().set(peer).execute().await.unwrap();
        switch_on(&handle).await;
    });
    on(&two, async || switch_on(&netlink()).await);
    (one, two)
}

/// A bare conversation with the kernel, for what a host is given that is not ours.
pub fn netlink() -> rtnetlink::Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

async fn index_of(handle: &rtnetlink::Handle, name: &str) -> u32 {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    links.try_next().await.unwrap().unwrap().header.index
}

async fn switch_on(handle: &rtnetlink::Handle) {
    for name in ["lo", "eth0"] {
        let up = LinkUnspec::new_with_index(index_of(handle, name).await).up();
        handle.link().set(up.build()).execute().await.unwrap();
    }
}

/// `eth0`, once its cable leads somewhere.
pub async fn eth0(links: &Links) -> Interface {
    eventually("eth0 is up", async || {
        let all = links.interfaces().await.unwrap();
        all.into_iter().find(|it| it.name == "eth0" && it.up)
    })
    .await
}

/// What a look finds at last. Looks are made one after the other and none is cut off: a
/// listing that is would still be under way in the kernel, which then refuses the next.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    panic!("not within {LONG:?}: {what}");
}
