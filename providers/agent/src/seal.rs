//! Authenticated encryption between announcers.
//!
//! All announcers of a cluster share a key, from a Secret that is mounted into their Pods. Whoever
//! has it can speak for every node; nobody else can read a message, change one or make one.
//!
//! ```text
//! envelope:  version (1) ‖ salt (16) ‖ counter (8) ‖ ciphertext ‖ tag (16)
//! subkey:    HKDF-SHA256(key, "ballast announcer" ‖ salt)         RFC 5869
//! sealed:    ChaCha20-Poly1305(subkey, nonce = 0 (4) ‖ counter)    RFC 8439
//! together with: version, purpose, name of the receiver's node
//! ```
//!
//! No nonce is used twice with a subkey. The kernel draws a new salt for each message, also in a
//! virtual machine that was restored from a snapshot twice. Should it draw one again within a
//! process, the counter differs.
//!
//! The receiver and the purpose are authenticated: a message to another node, or a greeting of a
//! cable as a message, does not open. An envelope says nothing about *when* it was sealed: who
//! can be harmed by an old one must ask for a fresh number in it ([`post`](crate::post),
//! [`cable`](crate::cable)).
//!
//! What an announcer writes into its object in the API server is authenticated, not encrypted: see
//! [`object`].
//!
//! [`Keys`] decides which key seals and which ones open while the key changes, and [`Keyring`]
//! reads the file.

use std::fmt;

use ballast_announce::NodeName;
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use thiserror::Error;

mod keyring;
mod keys;
pub mod object;

pub use keyring::{KeyFileError, Keyring};
pub use keys::{KeyId, Keys, MAX_KEYS, MAX_KNOWN};

/// The bytes that an envelope adds.
pub const OVERHEAD: usize = HEADER + TAG;

/// The version of the envelope.
const VERSION: u8 = 1;
const SALT: usize = 16;
const COUNTER: usize = 8;
const TAG: usize = 16;
const HEADER: usize = 1 + SALT + COUNTER;
const LABEL: &[u8] = b"ballast announcer";

/// A key that all announcers of a cluster share.
#[derive(Clone)]
pub struct Key {
    bytes: [u8; 32],
    /// From which the subkeys are made.
    root: Prk,
}

/// What a sealed message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A datagram.
    Post,
    /// The greeting of a cable.
    Cable,
}

/// Why a message cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// The kernel has no random numbers.
    #[error("the kernel returns no random numbers")]
    Random,
    /// The process has sealed 2^64 messages, or one is longer than 256 GiB.
    #[error("the limit of the cipher is reached")]
    Limit,
}

/// Why a message does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// It is too short, or has another version.
    #[error("not a sealed message")]
    Malformed,
    /// It was changed, sealed with another key, or is for another node or purpose.
    #[error("not sealed for this node with a known key")]
    Unauthentic,
}

/// Makes the nonce unique.
#[derive(Clone, Copy)]
struct Unique {
    salt: [u8; SALT],
    counter: u64,
}

/// Seals a message with one key.
fn seal(
    key: &Key,
    unique: Unique,
    purpose: Purpose,
    to: &NodeName,
    message: &[u8],
) -> Result<Vec<u8>, SealError> {
    let mut envelope = Vec::with_capacity(message.len() + OVERHEAD);
    envelope.push(VERSION);
    envelope.extend_from_slice(&unique.salt);
    envelope.extend_from_slice(&unique.counter.to_be_bytes());
    envelope.extend_from_slice(message);
    let (_, message) = envelope.split_at_mut(HEADER);
    let tag = key
        .subkey(&unique.salt)
        .and_then(|subkey| {
            let about = about(purpose, to);
            subkey.seal_in_place_separate_tag(nonce(unique.counter), about, message)
        })
        .map_err(|_| SealError::Limit)?;
    envelope.extend_from_slice(tag.as_ref());
    Ok(envelope)
}

/// Opens an envelope that was sealed with one key.
fn open(key: &Key, purpose: Purpose, to: &NodeName, envelope: &[u8]) -> Result<Vec<u8>, OpenError> {
    if envelope.len() < OVERHEAD || envelope.first() != Some(&VERSION) {
        return Err(OpenError::Malformed);
    }
    let (header, sealed) = envelope.split_at(HEADER);
    let (salt, counter) = header[1..].split_at(SALT);
    let counter = counter.try_into().map_err(|_| OpenError::Malformed)?;
    let counter = u64::from_be_bytes(counter);
    let mut message = sealed.to_vec();
    let length = key
        .subkey(salt)
        .and_then(|subkey| subkey.open_in_place(nonce(counter), about(purpose, to), &mut message))
        .map(|message| message.len())
        .map_err(|_| OpenError::Unauthentic)?;
    message.truncate(length);
    Ok(message)
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; aead::NONCE_LEN];
    nonce[aead::NONCE_LEN - COUNTER..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// What is authenticated and not sent.
fn about(purpose: Purpose, to: &NodeName) -> Aad<Vec<u8>> {
    let purpose = match purpose {
        Purpose::Post => 1,
        Purpose::Cable => 2,
    };
    let mut about = vec![VERSION, purpose];
    about.extend_from_slice(to.as_str().as_bytes());
    Aad::from(about)
}

// === impl Key ===

impl Key {
    /// A key of 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        // The bytes are random already, so that extraction needs no salt of its own.
        let root = Salt::new(HKDF_SHA256, &[]).extract(&bytes);
        Self { bytes, root }
    }

    fn subkey(&self, salt: &[u8]) -> Result<LessSafeKey, ring::error::Unspecified> {
        let info = [LABEL, salt];
        let subkey = self.root.expand(&info, &aead::CHACHA20_POLY1305)?;
        Ok(LessSafeKey::new(UnboundKey::from(subkey)))
    }
}

impl PartialEq for Key {
    /// Both keys are our own: the time that this takes tells nobody anything.
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests;
