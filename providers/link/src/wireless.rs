//! Whether wireless interfaces save power. A card that sleeps loses or delays broadcasts, ARP requests
//! among them. The announcer's checks call this; it changes no setting.
//!
//! The kernel answers through generic netlink (`nl80211` of `linux/nl80211.h`): a request for the number
//! of the family, then one for each interface. Reading needs no rights. A kernel without Wi-Fi has no such
//! family, and then no interface is wireless.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use socket2::SockRef;

/// The family of requests for families (`linux/genetlink.h`).
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `linux/nl80211.h`
const GET_POWER_SAVE: u8 = 62;
const IFINDEX: u16 = 3;
const PS_STATE: u16 = 93;
const PS_ENABLED: u32 = 1;
/// `linux/netlink.h`
const REQUEST: u16 = 1;
const ERROR: u16 = 2;
/// `struct nlmsghdr` and `struct genlmsghdr`
const HEADERS: usize = 20;
/// The kernel answers before the request returns.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longer than any answer.
const LONGEST: usize = 8 * 1024;

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// The number of the error, such as `ENOENT`.
    Kernel(i32),
    /// It is no message of the kernel.
    Unreadable,
}

/// For each of these interfaces (by index) that is wireless, whether it saves power. One whose driver does
/// not say is absent.
///
/// # Errors
/// The system refuses a socket, or the kernel does not answer.
pub fn power_save(interfaces: impl IntoIterator<Item = u32>) -> io::Result<BTreeMap<u32, bool>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
    let name = attribute(FAMILY_NAME, b"nl80211\0");
    let family = ask(&socket, CONTROL, GET_FAMILY, &name)?;
    let Some(family) = family.and_then(|answer| number_16(&answer, FAMILY_ID)) else {
        return Ok(BTreeMap::new());
    };
    let mut all = BTreeMap::new();
    for index in interfaces {
        let which = attribute(IFINDEX, &index.to_ne_bytes());
        let answer = ask(&socket, family, GET_POWER_SAVE, &which)?;
        if let Some(state) = answer.and_then(|answer| number_32(&answer, PS_STATE)) {
            all.insert(index, state == PS_ENABLED);
        }
    }
    Ok(all)
}

/// The attributes of the answer; `None` if the kernel refuses: it has no such family or interface, or the
/// interface is not wireless.
fn ask(socket: &Socket, family: u16, command: u8, body: &[u8]) -> io::Result<Option<Vec<u8>>> {
    socket.send(&request(family, command, body), 0)?;
    let mut answer = Vec::with_capacity(LONGEST);
    socket.recv(&mut answer, 0)?;
    match attributes(&answer) {
        Ok(body) => Ok(Some(body.to_vec())),
        Err(Refused::Kernel(_)) => Ok(None),
        Err(Refused::Unreadable) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel's answer about wireless interfaces is no netlink message",
        )),
    }
}

fn request(family: u16, command: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADERS + body.len()).unwrap_or_default();
    let mut message = Vec::with_capacity(HEADERS + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence and port: there is one request at a time.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(body);
    message
}

/// One attribute, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut all = Vec::with_capacity(length.next_multiple_of(4));
    all.extend(u16::try_from(length).unwrap_or_default().to_ne_bytes());
    all.extend(kind.to_ne_bytes());
    all.extend(value);
    all.resize(length.next_multiple_of(4), 0);
    all
}

/// The attributes of a message of the kernel.
fn attributes(message: &[u8]) -> Result<&[u8], Refused> {
    let length = u32_at(message, 0).and_then(|it| usize::try_from(it).ok());
    let kind = u16_at(message, 4).ok_or(Refused::Unreadable)?;
    let whole = length.and_then(|length| message.get(..length));
    let whole = whole.ok_or(Refused::Unreadable)?;
    if kind == ERROR {
        let code = u32_at(whole, 16).ok_or(Refused::Unreadable)?;
        return Err(Refused::Kernel(code.cast_signed().wrapping_neg()));
    }
    whole.get(HEADERS..).ok_or(Refused::Unreadable)
}

/// The value of the first attribute of this kind.
fn value(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let kind = u16_at(attributes, 2)?;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn number_16(attributes: &[u8], wanted: u16) -> Option<u16> {
    u16_at(value(attributes, wanted)?, 0)
}

fn number_32(attributes: &[u8], wanted: u16) -> Option<u32> {
    u32_at(value(attributes, wanted)?, 0)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, body: &[u8]) -> Vec<u8> {
        request(kind, GET_POWER_SAVE, body)
    }

    /// As the kernel answers, by `linux/nl80211.h`; this machine has no wireless card.
    #[test]
    fn the_state_is_read_from_the_answer() {
        for (state, expected) in [(0_u32, Some(0)), (1, Some(1))] {
            let mut body = attribute(4, b"wlan0\0");
            body.extend(attribute(PS_STATE, &state.to_ne_bytes()));
            let message = answer(0x1c, &body);
            let all = attributes(&message).unwrap();
            assert_eq!(number_32(all, PS_STATE), expected);
            assert_eq!(number_32(all, IFINDEX), None);
        }
    }

    #[test]
    fn a_refusal_is_told_from_an_answer() {
        let mut message = answer(ERROR, &[]);
        message.truncate(16);
        message.extend((-19_i32).to_ne_bytes());
        message[..4].copy_from_slice(&20_u32.to_ne_bytes());
        assert_eq!(attributes(&message), Err(Refused::Kernel(19)));
    }

    #[test]
    fn what_is_cut_off_is_unreadable() {
        let whole = answer(0x1c, &attribute(PS_STATE, &[1, 0, 0, 0]));
        for length in 0..whole.len() {
            assert_eq!(attributes(&whole[..length]), Err(Refused::Unreadable));
        }
        for length in 0..8 {
            let body = &attribute(PS_STATE, &[1, 0, 0, 0])[..length];
            assert_eq!(number_32(body, PS_STATE), None);
        }
    }

    /// The kernel's own family answers on every machine, so the messages are right.
    #[test]
    fn the_kernel_knows_the_family_of_families() {
        let socket = Socket::new(NETLINK_GENERIC).unwrap();
        socket.connect(&SocketAddr::new(0, 0)).unwrap();
        let name = attribute(FAMILY_NAME, b"nlctrl\0");
        let found = ask(&socket, CONTROL, GET_FAMILY, &name).unwrap();
        let id = found.and_then(|answer| number_16(&answer, FAMILY_ID));
        assert_eq!(id, Some(CONTROL));
        let name = attribute(FAMILY_NAME, b"no-such-family\0");
        assert_eq!(ask(&socket, CONTROL, GET_FAMILY, &name).unwrap(), None);
    }

    #[test]
    fn loopback_is_not_wireless() {
        assert_eq!(power_save([1]).unwrap(), BTreeMap::new());
    }
}
