//! A client that asks the segment who has an address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ballast_link::testbed::{self, Host};
use ballast_link::{FrameSocket, Links, Mac, arp, ndp};

/// How long the first answer is awaited, and further ones after it.
const FIRST: Duration = Duration::from_secs(1);
/// The same if there must be one. A question waits in the socket of an agent until the kernel lets that run,
/// so one that is not answered within this time was refused.
const FIRST_PATIENT: Duration = Duration::from_secs(10);
const MORE: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(1);

/// Asks once. Returns the MACs in the answers, and the Ethernet sources of these.
pub(crate) fn ask(host: &Host, address: IpAddr) -> BTreeSet<(Mac, Mac)> {
    ask_on(host, "eth0", address)
}

/// The same on another interface.
pub(crate) fn ask_on(host: &Host, interface: &str, address: IpAddr) -> BTreeSet<(Mac, Mac)> {
    ask_for(FIRST, host, interface, address)
}

/// Asks once for an address for which somebody answers at all times, however busy this machine is.
pub(crate) fn ask_patiently(host: &Host, address: IpAddr) -> BTreeSet<(Mac, Mac)> {
    ask_for(FIRST_PATIENT, host, "eth0", address)
}

fn ask_for(first: Duration, host: &Host, interface: &str, address: IpAddr) -> BTreeSet<(Mac, Mac)> {
    testbed::on(host, async || {
        let links = Links::connect().unwrap();
        let eth0 = testbed::eventually("the interface is up", async || {
            let all = links.interfaces().await.unwrap();
            all.into_iter().find(|it| it.name == interface && it.up)
        });
        let eth0 = eth0.await;
        let own = links.addresses().await.unwrap().into_iter();
        let mut own = own.filter(|own| own.interface == eth0.index && own.global);
        let own = own.find(|own| own.net.addr().is_ipv4() == address.is_ipv4());
        let own = own.unwrap().net.addr();
        let socket = match address {
            IpAddr::V4(_) => FrameSocket::arp(eth0.index),
            IpAddr::V6(_) => FrameSocket::neighbour_discovery(eth0.index),
        };
        let socket = socket.unwrap();
        let question = match (address, own) {
            (IpAddr::V4(address), IpAddr::V4(own)) => {
                let packet = arp::Packet::request(eth0.mac, own, address);
                arp::frame(Mac::BROADCAST, eth0.mac, &packet).to_vec()
            }
            (IpAddr::V6(address), IpAddr::V6(own)) => {
                ndp::Solicitation::multicast(eth0.mac, own, address).encode()
            }
            _ => panic!("no address of this family"),
        };
        socket.send(&question).unwrap();
        let mut until = Instant::now() + first;
        let mut answers = BTreeSet::new();
        let mut buffer = [0; 256];
        loop {
            // Looked at first: this thread may have been stopped while answers came.
            let over = Instant::now() >= until;
            match socket.receive(&mut buffer) {
                Ok(length) => {
                    if let Some(owner) = owner(&buffer[..length], address) {
                        if answers.is_empty() {
                            until = Instant::now() + MORE;
                        }
                        answers.insert(owner);
                    }
                }
                Err(_) if over => return answers,
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    })
}

/// The MAC that an answer names for an address, and its Ethernet source.
fn owner(frame: &[u8], address: IpAddr) -> Option<(Mac, Mac)> {
    match address {
        IpAddr::V4(address) => {
            let (ethernet, packet) = arp::parse(frame)?;
            let reply = packet.operation == arp::Operation::Reply && packet.sender == address;
            (reply && ethernet.to != Mac::BROADCAST).then_some((packet.sender_mac, ethernet.from))
        }
        IpAddr::V6(address) => match ndp::parse(frame)? {
            ndp::Message::Advertisement(said) if said.target == address && said.solicited => {
                Some((said.target_mac?, said.ethernet.from))
            }
            _ => None,
        },
    }
}
