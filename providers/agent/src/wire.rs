//! Messages between announcers as bytes.
//!
//! The first byte is the version of the format. The rest is postcard: a table of names, and the
//! message, which refers to names by their position in the table. A version that a process does
//! not know is an error, and the sender counts as not heard.
//!
//! Decoding checks every bound, so whoever holds the key still cannot make a node keep more than
//! the protocol allows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ballast_announce::NodeName;
use ballast_announce::claim::Claim;
use ballast_announce::io::{Body, Message, Method};
use ballast_announce::membership::Stamp;
use ballast_announce::timing::CLAIMS_PER_MESSAGE;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 16 * 1024;
/// The longest name of a Node object, in bytes: a DNS subdomain (RFC 1123).
pub const MAX_NAME: usize = 253;
/// The successors that a claim may name. More than
/// [`SUCCESSORS`](ballast_announce::timing::SUCCESSORS), so that a later version may record more.
pub const MAX_SUCCESSORS: usize = 8;

/// The version of the format.
const VERSION: u8 = 1;
/// The sender, and a host or the nodes of all claims.
const MAX_NAMES: usize = 1 + CLAIMS_PER_MESSAGE * (1 + MAX_SUCCESSORS);

/// Why bytes are no message, or a message cannot become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Another version of the format.
    #[error("version {0} of the format is unknown")]
    Version(u8),
    /// No message has these bytes.
    #[error("malformed message")]
    Malformed,
    /// More than [`MAX_MESSAGE`].
    #[error("the message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// Empty, or more than [`MAX_NAME`].
    #[error("a name is empty or longer than {MAX_NAME} bytes")]
    Name,
    /// More than [`CLAIMS_PER_MESSAGE`].
    #[error("the message names more than {CLAIMS_PER_MESSAGE} addresses")]
    Addresses,
    /// More than [`MAX_SUCCESSORS`].
    #[error("a claim names more than {MAX_SUCCESSORS} successors")]
    Successors,
}

#[derive(Serialize, Deserialize)]
struct Packet<'a> {
    /// The sender is the first one.
    #[serde(borrow)]
    names: Vec<&'a str>,
    incarnation: u64,
    sequence: u64,
    content: Content,
}

/// The position of a name in the table.
type Name = u16;

#[derive(Serialize, Deserialize)]
enum Content {
    Beat {
        claims: Vec<Entry>,
        received: u64,
    },
    Ask {
        addresses: Vec<IpAddr>,
    },
    Doubt {
        host: Name,
        echo: bool,
        unanswered_ms: u32,
    },
    Vouch {
        host: Name,
    },
    /// A beat of a node that is cut off. A former version does not know it, and takes the sender for
    /// silent: it is no proof there, either.
    CutOff {
        claims: Vec<Entry>,
        received: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Entry {
    address: IpAddr,
    epoch: u64,
    holder: Name,
    revision: u32,
    successors: Vec<Name>,
}

/// The names of a message, each once.
#[derive(Default)]
struct Table<'a> {
    names: Vec<&'a str>,
    positions: BTreeMap<&'a str, Name>,
}

/// The bytes of a message.
///
/// A beat names some of the claims that its sender knows. Those at the end that do not fit into
/// [`MAX_MESSAGE`] are left out: in a cluster with hundreds of nodes with long names. A doubt's
/// time is rounded down to milliseconds.
pub fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
    let mut count = addresses(&message.body);
    if count > CLAIMS_PER_MESSAGE {
        return Err(WireError::Addresses);
    }
    loop {
        let bytes = encode_some(message, count)?;
        if bytes.len() <= MAX_MESSAGE {
            return Ok(bytes);
        }
        if count == 0 {
            return Err(WireError::TooLong);
        }
        count /= 2;
    }
}

/// The message that these bytes are.
pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(WireError::TooLong);
    }
    let (&version, rest) = bytes.split_first().ok_or(WireError::Malformed)?;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    let (packet, rest) =
        postcard::take_from_bytes::<Packet<'_>>(rest).map_err(|_| WireError::Malformed)?;
    if !rest.is_empty() || packet.names.len() > MAX_NAMES {
        return Err(WireError::Malformed);
    }
    let names = packet
        .names
        .iter()
        .map(|name| checked(name).map(NodeName::new))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Message {
        from: named(&names, 0)?,
        stamp: Stamp {
            incarnation: packet.incarnation,
            sequence: packet.sequence,
        },
        body: body(packet.content, &names)?,
    })
}

fn addresses(body: &Body) -> usize {
    match body {
        Body::Beat { claims, .. } => claims.len(),
        Body::Ask { addresses } => addresses.len(),
        Body::Doubt { .. } | Body::Vouch { .. } => 0,
    }
}

/// The message with its first `count` addresses.
fn encode_some(message: &Message, count: usize) -> Result<Vec<u8>, WireError> {
    let mut table = Table::default();
    table.position(&message.from)?;
    let content = match &message.body {
        Body::Beat {
            claims,
            received,
            cut_off,
        } => {
            let claims = claims
                .iter()
                .take(count)
                .map(|(address, claim)| entry(*address, claim, &mut table))
                .collect::<Result<_, _>>()?;
            let received = *received;
            if *cut_off {
                Content::CutOff { claims, received }
            } else {
                Content::Beat { claims, received }
            }
        }
        Body::Ask { addresses } => Content::Ask {
            addresses: addresses.iter().take(count).copied().collect(),
        },
        Body::Doubt {
            host,
            method,
            unanswered,
        } => Content::Doubt {
            host: table.position(host)?,
            echo: *method == Method::Echo,
            unanswered_ms: u32::try_from(unanswered.as_millis()).unwrap_or(u32::MAX),
        },
        Body::Vouch { host } => Content::Vouch {
            host: table.position(host)?,
        },
    };
    let packet = Packet {
        names: table.names,
        incarnation: message.stamp.incarnation,
        sequence: message.stamp.sequence,
        content,
    };
    postcard::to_extend(&packet, vec![VERSION]).map_err(|_| WireError::Malformed)
}

fn entry<'a>(address: IpAddr, claim: &'a Claim, table: &mut Table<'a>) -> Result<Entry, WireError> {
    if claim.successors.len() > MAX_SUCCESSORS {
        return Err(WireError::Successors);
    }
    Ok(Entry {
        address,
        epoch: claim.epoch,
        holder: table.position(&claim.holder)?,
        revision: claim.revision,
        successors: claim
            .successors
            .iter()
            .map(|node| table.position(node))
            .collect::<Result<_, _>>()?,
    })
}

fn body(content: Content, names: &[NodeName]) -> Result<Body, WireError> {
    Ok(match content {
        Content::Beat { claims, received } => beat(claims, received, false, names)?,
        Content::CutOff { claims, received } => beat(claims, received, true, names)?,
        Content::Ask { addresses } => {
            if addresses.len() > CLAIMS_PER_MESSAGE {
                return Err(WireError::Addresses);
            }
            Body::Ask { addresses }
        }
        Content::Doubt {
            host,
            echo,
            unanswered_ms,
        } => Body::Doubt {
            host: named(names, host)?,
            method: if echo {
                Method::Echo
            } else {
                Method::Neighbour
            },
            unanswered: Duration::from_millis(unanswered_ms.into()),
        },
        Content::Vouch { host } => Body::Vouch {
            host: named(names, host)?,
        },
    })
}

fn beat(
    claims: Vec<Entry>,
    received: u64,
    cut_off: bool,
    names: &[NodeName],
) -> Result<Body, WireError> {
    if claims.len() > CLAIMS_PER_MESSAGE {
        return Err(WireError::Addresses);
    }
    let claims = claims.into_iter().map(|entry| claim(entry, names));
    Ok(Body::Beat {
        claims: claims.collect::<Result<_, _>>()?,
        received,
        cut_off,
    })
}

fn claim(entry: Entry, names: &[NodeName]) -> Result<(IpAddr, Claim), WireError> {
    if entry.successors.len() > MAX_SUCCESSORS {
        return Err(WireError::Successors);
    }
    let claim = Claim {
        epoch: entry.epoch,
        holder: named(names, entry.holder)?,
        revision: entry.revision,
        successors: entry
            .successors
            .into_iter()
            .map(|name| named(names, name))
            .collect::<Result<_, _>>()?,
    };
    Ok((entry.address, claim))
}

fn named(names: &[NodeName], position: Name) -> Result<NodeName, WireError> {
    let name = names.get(usize::from(position));
    name.cloned().ok_or(WireError::Malformed)
}

fn checked(name: &str) -> Result<&str, WireError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(WireError::Name);
    }
    Ok(name)
}

// === impl Table ===

impl<'a> Table<'a> {
    fn position(&mut self, name: &'a NodeName) -> Result<Name, WireError> {
        let name = checked(name.as_str())?;
        if let Some(position) = self.positions.get(name) {
            return Ok(*position);
        }
        let position = Name::try_from(self.names.len()).map_err(|_| WireError::TooLong)?;
        self.names.push(name);
        self.positions.insert(name, position);
        Ok(position)
    }
}

#[cfg(test)]
mod tests;
