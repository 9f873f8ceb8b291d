//! Seals of objects that others can read and, with a stolen token, write.
//!
//! ```text
//! subkey:  HKDF-SHA256(key, "ballast announcer object")        RFC 5869
//! seal:    HMAC-SHA256(subkey, SHA-256(content))               RFC 2104
//! ```
//!
//! A seal proves that an announcer made the content. It says nothing about *when*: the content must
//! have a number by which a reader recognises an old one. The writer adds one seal for each of its
//! keys, and a reader accepts a seal with any of its own keys, so they need to have only one in common.
//!
//! The labels of both kinds of subkeys have different lengths (that of messages ends with a salt), so
//! none is used for both.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use ring::hmac::{self, HMAC_SHA256};

use super::Key;

const LABEL: &[u8] = b"ballast announcer object";
const LENGTH: usize = 32;

/// What is sealed, as its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content([u8; LENGTH]);

/// A seal, as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ObjectSeal([u8; LENGTH]);

/// The text is no seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 64 hexadecimal digits")]
pub struct NoSeal;

// === impl Content ===

impl Content {
    /// The content with this encoding. Different contents must have different encodings.
    pub fn new(encoded: &[u8]) -> Self {
        let mut content = [0; LENGTH];
        content.copy_from_slice(digest(&SHA256, encoded).as_ref());
        Self(content)
    }

    pub(super) fn seal(&self, key: &Key) -> Option<ObjectSeal> {
        let mut seal = [0; LENGTH];
        let tag = hmac::sign(&key.object_key()?, &self.0);
        seal.copy_from_slice(tag.as_ref());
        Some(ObjectSeal(seal))
    }

    /// Whether one of the seals is made with this key.
    pub(super) fn is_sealed(&self, key: &Key, seals: &[ObjectSeal]) -> bool {
        let Some(key) = key.object_key() else {
            return false;
        };
        seals
            .iter()
            .any(|seal| hmac::verify(&key, &self.0, &seal.0).is_ok())
    }
}

// === impl Key ===

impl Key {
    fn object_key(&self) -> Option<hmac::Key> {
        let okm = self.root.expand(&[LABEL], HMAC_SHA256).ok()?;
        Some(hmac::Key::from(okm))
    }
}

// === impl ObjectSeal ===

impl fmt::Display for ObjectSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectSeal({self})")
    }
}

impl FromStr for ObjectSeal {
    type Err = NoSeal;

    fn from_str(text: &str) -> Result<Self, NoSeal> {
        super::keyring::hexadecimal(text).map(Self).ok_or(NoSeal)
    }
}

#[cfg(test)]
mod tests;
