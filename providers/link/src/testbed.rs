//! Hosts on one network for tests: two of them on a cable ([`segment`]), or several on a switch
//! ([`lan`]). Each is a network namespace without an uplink, which ends with the host. Needs
//! root. The tests of this crate and of the crates that build on it use it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests is a test"
)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{LinkBridge, LinkUnspec, LinkVeth};
use tokio::time::Instant;

use crate::{Interface, Links};

/// A time-out for anything that should happen.
pub const LONG: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A host, with `eth0` on the network. [`lan`] also has one for the switch.
pub struct Host {
    namespace: File,
}

/// Hosts on a switch.
pub struct Lan {
    /// The bridge `switch` with a port `port0`, `port1` and so on for each host.
    pub switch: Host,
    /// The hosts.
    pub hosts: Vec<Host>,
}

/// Runs `work` on a thread of one host with its own runtime. Tasks that still run at the end
/// are dropped, as in a crash.
pub fn on<T: Send>(host: &Host, work: impl AsyncFnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(&host.namespace, CloneFlags::CLONE_NEWNET).unwrap();
            runtime().block_on(work())
        });
        thread.join().unwrap()
    })
}

/// Starts a thread on a host, with a runtime of its own.
pub fn spawn_on<W: Future<Output = ()>>(
    host: &Host,
    work: impl FnOnce() -> W + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let namespace = host.namespace.try_clone().unwrap();
    std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
        runtime().block_on(work());
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

/// Hosts on a switch. Returns when all ports forward frames.
pub fn lan(count: usize) -> Lan {
    let hosts: Vec<Host> = (0..count).map(|_| namespace()).collect();
    let switch = namespace();
    let ends: Vec<_> = hosts.iter().map(|it| it.namespace.as_raw_fd()).collect();
    on(&switch, async || {
        let handle = netlink();
        let bridge = LinkBridge::new("switch").up().build();
        handle.link().add(bridge).execute().await.unwrap();
        let bridge = index_of(&handle, "switch").await;
        for (at, end) in ends.into_iter().enumerate() {
            let port = format!("port{at}");
            let veth = LinkVeth::new(&port, "peer").build();
            handle.link().add(veth).execute().await.unwrap();
            let peer = LinkUnspec::new_with_index(index_of(&handle, "peer").await);
            let peer = peer.name("eth0").setns_by_fd(end).build();
            handle.link().set(peer).execute().await.unwrap();
            let port = LinkUnspec::new_with_index(index_of(&handle, &port).await);
            let port = port.controller(bridge).up().build();
            handle.link().set(port).execute().await.unwrap();
        }
    });
    for host in &hosts {
        on(host, async || {
            switch_on(&netlink()).await;
            eth0(&Links::connect().unwrap()).await;
        });
    }
    let ports = Lan { switch, hosts };
    (0..count).for_each(|at| ports.wait(at, true));
    ports
}

// === impl Lan ===

impl Lan {
    /// Pulls out the cable of a host, or plugs it in: its `eth0` loses the carrier or has one.
    pub fn plug(&self, host: usize, carrier: bool) {
        on(&self.switch, async || {
            let handle = netlink();
            let port = LinkUnspec::new_with_index(index_of(&handle, &format!("port{host}")).await);
            let port = if carrier { port.up() } else { port.down() };
            handle.link().set(port.build()).execute().await.unwrap();
        });
        self.wait(host, carrier);
    }

    /// Takes the port of a host out of the switch, or puts it back: its `eth0` keeps the carrier.
    pub fn isolate(&self, host: usize, isolated: bool) {
        on(&self.switch, async || {
            let handle = netlink();
            let switch = index_of(&handle, "switch").await;
            let port = LinkUnspec::new_with_index(index_of(&handle, &format!("port{host}")).await);
            let port = if isolated {
                port.nocontroller()
            } else {
                port.controller(switch)
            };
            handle.link().set(port.build()).execute().await.unwrap();
        });
    }

    /// Connects all hosts to another switch, with one more interface each.
    pub fn add_network(&self, interface: &str) {
        let ends: Vec<_> = self
            .hosts
            .iter()
            .map(|it| it.namespace.as_raw_fd())
            .collect();
        on(&self.switch, async || {
            let handle = netlink();
            let name = format!("sw-{interface}");
            let bridge = LinkBridge::new(&name).up().build();
            handle.link().add(bridge).execute().await.unwrap();
            let bridge = index_of(&handle, &name).await;
            for (at, end) in ends.into_iter().enumerate() {
                let port = format!("{interface}-{at}");
                let veth = LinkVeth::new(&port, "peer").build();
                handle.link().add(veth).execute().await.unwrap();
                let peer = LinkUnspec::new_with_index(index_of(&handle, "peer").await);
                let peer = peer.name(interface).setns_by_fd(end).up().build();
                handle.link().set(peer).execute().await.unwrap();
                let port = LinkUnspec::new_with_index(index_of(&handle, &port).await);
                let port = port.controller(bridge).up().build();
                handle.link().set(port).execute().await.unwrap();
            }
        });
        for host in &self.hosts {
            on(host, async || {
                let handle = netlink();
                let up = LinkUnspec::new_with_index(index_of(&handle, interface).await).up();
                handle.link().set(up.build()).execute().await.unwrap();
            });
        }
    }

    fn wait(&self, host: usize, carrier: bool) {
        let port = format!("port{host}");
        on(&self.switch, async || {
            let links = Links::connect().unwrap();
            eventually("the port of the switch is in the new state", async || {
                let all = links.interfaces().await.unwrap();
                all.into_iter()
                    .find(|it| it.name == port && it.up == carrier)
            })
            .await
        });
    }
}

/// Adds an address to an interface. An IPv6 address works at once, without duplicate address
/// detection.
pub async fn add_address(interface: u32, net: IpNet) {
    let mut request = netlink()
        .address()
        .add(interface, net.addr(), net.prefix_len());
    if net.addr().is_ipv6() {
        let flags = AddressAttribute::Flags(AddressFlags::Nodad);
        request.message_mut().attributes.push(flags);
    }
    request.execute().await.unwrap();
}

/// Removes an address from an interface.
pub async fn remove_address(interface: u32, net: IpNet) {
    let handle = netlink();
    let mut request = handle
        .address()
        .add(interface, net.addr(), net.prefix_len());
    let message = request.message_mut().clone();
    handle.address().del(message).execute().await.unwrap();
}

/// A plain netlink connection, to configure a host.
pub fn netlink() -> rtnetlink::Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

/// The index of an interface.
pub async fn index_of(handle: &rtnetlink::Handle, name: &str) -> u32 {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    links.try_next().await.unwrap().unwrap().header.index
}

async fn switch_on(handle: &rtnetlink::Handle) {
    for name in ["lo", "eth0"] {
        let up = LinkUnspec::new_with_index(index_of(handle, name).await).up();
        handle.link().set(up.build()).execute().await.unwrap();
    }
}

/// `eth0`, once it has a carrier.
pub async fn eth0(links: &Links) -> Interface {
    eventually("eth0 is up", async || {
        let all = links.interfaces().await.unwrap();
        all.into_iter().find(|it| it.name == "eth0" && it.up)
    })
    .await
}

/// Calls `look` until it finds something. No call is dropped: a listing that is dropped
/// continues in the kernel, which then refuses the next one.
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

/// The same for a thread without a runtime.
pub fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("not within {LONG:?}: {what}");
}
