//! The job that answers ARP for one address and does nothing else: what an answer takes at least.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use ballast_link::arp::{self, Operation};
use ballast_link::{FrameSocket, Mac};
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd as _;

/// The interface of every host on the segment.
const INTERFACE: &str = "eth0";

/// What to answer for.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The address.
    #[arg(long)]
    address: Ipv4Addr,
}

/// Answers until it is killed.
pub(super) fn run(options: &Options) -> Result<()> {
    let socket = FrameSocket::arp(if_nametoindex(INTERFACE)?)?;
    let mac = own_mac()?;
    println!("ready");
    let mut buffer = [0; 128];
    loop {
        let mut wait = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, PollTimeout::NONE)?;
        while let Ok(length) = socket.receive(&mut buffer) {
            let Some((_, asked)) = arp::parse(&buffer[..length]) else {
                continue;
            };
            if asked.operation == Operation::Request && asked.target == options.address {
                let reply = arp::Packet {
                    operation: Operation::Reply,
                    sender_mac: mac,
                    sender: options.address,
                    target_mac: asked.sender_mac,
                    target: asked.sender,
                };
                socket.send(&arp::frame(asked.sender_mac, mac, &reply))?;
            }
        }
    }
}

fn own_mac() -> Result<Mac> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{INTERFACE}/address"))?;
    let octets: Option<Vec<u8>> = text
        .trim()
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).ok())
        .collect();
    let octets = octets.and_then(|octets| octets.try_into().ok());
    octets
        .map(Mac)
        .with_context(|| format!("{text} is no MAC address"))
}
