//! The job that captures ARP and neighbour discovery on the hub: one packet socket for all
//! cables, with a filter in the kernel.

use std::collections::BTreeMap;
use std::io::{IoSliceMut, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::cmsg_space;
use nix::net::if_::if_nameindex;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
    recvmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use socket2::{SockFilter, SockRef};

use super::frame::{self, Frame, Way};
use super::moment::Moment;
use crate::net::Host;

/// Room for the frames of a few seconds in which this process does not run.
const BUFFER: usize = 8 << 20;
/// Enough for every neighbour message; longer frames are cut.
const LONGEST: usize = 256;

/// What to capture: frames that hosts send, and those that these hosts get.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// A host whose frames are captured when it gets them.
    #[arg(long)]
    delivered_to: Vec<String>,
}

/// Captures until it is killed.
pub(super) fn run(options: &Options) -> Result<()> {
    let socket = open()?;
    let mut cables = Cables::read()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready")?;
    let mut buffer = [0; LONGEST];
    loop {
        let Some((length, at, interface, outgoing)) = receive(&socket, &mut buffer)? else {
            continue;
        };
        let Some(host) = cables.host(interface)? else {
            continue;
        };
        // The hub is at its own end of its interface, other hosts are at the far end of theirs.
        let way = if outgoing == (host == Host::Hub) {
            Way::Sent
        } else {
            Way::Delivered
        };
        let host = host.name();
        if way == Way::Delivered && !options.delivered_to.contains(&host) {
            continue;
        }
        if let Some(said) = frame::parse(&buffer[..length]) {
            let frame = Frame {
                at,
                host,
                way,
                said,
            };
            serde_json::to_writer(&mut out, &frame)?;
            writeln!(out)?;
        }
    }
}

fn open() -> Result<OwnedFd> {
    // Of all protocols: only so it sees outgoing frames, and those that a bridge forwards.
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .context("no packet socket")?;
    // Frames that arrived before are harmless: the parser ignores others.
    SockRef::from(&socket).attach_filter(&filter())?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    Ok(socket)
}

/// Passes ARP, neighbour solicitations and neighbour advertisements.
fn filter() -> [SockFilter; 10] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(EQUAL, 6, 0, 0x0806),
        SockFilter::new(EQUAL, 0, 6, 0x86dd),
        SockFilter::new(LOAD_BYTE, 0, 0, 14 + 6),
        SockFilter::new(EQUAL, 0, 4, 58),
        SockFilter::new(LOAD_BYTE, 0, 0, 14 + 40),
        SockFilter::new(EQUAL, 1, 0, 135),
        SockFilter::new(EQUAL, 0, 1, 136),
        SockFilter::new(RETURN, 0, 0, 0xffff),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// The next frame: its length, time, interface, and whether it goes out there.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Option<(usize, Moment, u32, bool)>> {
    let mut control = cmsg_space!(TimeSpec);
    let mut into = [IoSliceMut::new(buffer)];
    let message = recvmsg::<LinkAddr>(
        socket.as_raw_fd(),
        &mut into,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let at = message.cmsgs()?.find_map(|item| match item {
        ControlMessageOwned::ScmTimestampns(time) => {
            Some(Moment::after_epoch(Duration::from(time)))
        }
        _ => None,
    });
    let Some(link) = message.address else {
        return Ok(None);
    };
    let interface = u32::try_from(link.ifindex())?;
    let outgoing = link.pkttype() == libc::PACKET_OUTGOING;
    // Without a stamp it was received before stamps were on.
    Ok(at.map(|at| (message.bytes, at, interface, outgoing)))
}

/// The hosts by the hub's interfaces.
struct Cables {
    hosts: BTreeMap<u32, Option<Host>>,
}

impl Cables {
    fn read() -> Result<Self> {
        let list = if_nameindex().context("cannot list interfaces")?;
        let host = |name: &std::ffi::CStr| Host::at_cable(name.to_str().ok()?);
        let hosts = list
            .iter()
            .map(|it| (it.index(), host(it.name())))
            .collect();
        Ok(Self { hosts })
    }

    /// An index that is not known belongs to a host that was just added.
    fn host(&mut self, interface: u32) -> Result<Option<Host>> {
        if !self.hosts.contains_key(&interface) {
            *self = Self::read()?;
            self.hosts.entry(interface).or_default();
        }
        Ok(self.hosts.get(&interface).copied().flatten())
    }
}
