//! The key file, read again while the process runs.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_announce::{NodeName, Time};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::object::{Content, ObjectSeal};
use super::{Key, KeyId, Keys, MAX_KEYS, OpenError, Purpose, SALT, SealError, Unique};

/// How often the file is read.
const REREAD: Duration = Duration::from_secs(10);
/// The file is not read more often, whoever sends messages that do not open.
const REREAD_AT_MOST: Duration = Duration::from_secs(1);
/// Of the file, in bytes: [`MAX_KEYS`] lines, and room for comments.
const MAX_FILE: u64 = 4096;

/// The shared keys of a process, from a file with one key per line.
#[derive(Debug)]
pub struct Keyring {
    path: PathBuf,
    start: Instant,
    keys: Mutex<Arc<Keys>>,
    /// Counts the changes of the keys in the file.
    changes: watch::Sender<u64>,
    /// A message did not open.
    unknown: Notify,
    sealed: AtomicU64,
    random: SystemRandom,
}

/// Why the key file cannot be used. The process keeps the keys that it has.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the key file")]
    Read(#[from] io::Error),
    /// A line is neither a key nor empty nor a comment.
    #[error(
        "line {0} of the key file is neither the base64 form nor the hexadecimal digits of 32 bytes"
    )]
    Line(usize),
    /// There is no key in it.
    #[error("the key file has no key")]
    Empty,
    /// More than [`MAX_KEYS`], or more than 4 KiB.
    #[error("the key file has more than {MAX_KEYS} keys, or is longer than 4 KiB")]
    TooLong,
}

/// The keys of a file. Empty lines, and lines that begin with `#`, count for nothing.
pub(super) fn parse(text: &str) -> Result<Vec<Key>, KeyFileError> {
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bytes = key(line).ok_or(KeyFileError::Line(number))?;
        keys.push(Key::new(bytes));
    }
    match keys.len() {
        0 => Err(KeyFileError::Empty),
        1..=MAX_KEYS => Ok(keys),
        _ => Err(KeyFileError::TooLong),
    }
}

/// The bytes of a key: 64 hexadecimal digits, as `ballast secrets` makes them, or base64.
fn key(line: &str) -> Option<[u8; 32]> {
    if line.len() == 64 {
        return hexadecimal(line);
    }
    STANDARD.decode(line).ok()?.try_into().ok()
}

/// The bytes of 64 hexadecimal digits.
pub(super) fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = digits
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok()?;
            // `from_str_radix` also takes a sign.
            let digits = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            u8::from_str_radix(pair, 16).ok().filter(|_| digits)
        })
        .collect();
    bytes?.try_into().ok()
}

// === impl Keyring ===

impl Keyring {
    /// Reads the file for the first time.
    pub fn open_file(path: impl Into<PathBuf>) -> Result<Self, KeyFileError> {
        let keyring = Self {
            path: path.into(),
            start: Instant::now(),
            keys: Mutex::default(),
            changes: watch::Sender::default(),
            unknown: Notify::new(),
            sealed: AtomicU64::new(0),
            random: SystemRandom::new(),
        };
        keyring.read()?;
        Ok(keyring)
    }

    /// Reads the file every 10 s, and within 1 s after a message that did not open. Never
    /// returns. A file that cannot be used changes nothing.
    pub async fn watch(&self) {
        let mut works = true;
        loop {
            sleep(REREAD_AT_MOST).await;
            // Either is a reason to read.
            let _ = timeout(
                REREAD.saturating_sub(REREAD_AT_MOST),
                self.unknown.notified(),
            )
            .await;
            let read = self.read();
            if works && let Err(error) = &read {
                tracing::warn!(%error, "keeping the former keys");
            }
            works = read.is_ok();
        }
    }

    fn read(&self) -> Result<(), KeyFileError> {
        let mut text = String::new();
        let file = File::open(&self.path)?;
        file.take(MAX_FILE + 1).read_to_string(&mut text)?;
        if u64::try_from(text.len()).is_ok_and(|length| length > MAX_FILE) {
            return Err(KeyFileError::TooLong);
        }
        let file = parse(&text)?;
        let now = self.now();
        let changed = {
            let mut keys = self.lock();
            let mut next = Keys::clone(&keys);
            next.update(&file, now);
            let changed = !next.in_file().eq(keys.in_file());
            *keys = Arc::new(next);
            changed
        };
        if changed {
            self.changes
                .send_modify(|count| *count = count.wrapping_add(1));
        }
        Ok(())
    }

    /// Changes of the keys in the file: an object may need other seals, and another object may open.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The seals of an object: one with each key that another node may have alone.
    pub fn seal_object(&self, content: &Content) -> Vec<ObjectSeal> {
        let keys = self.keys();
        let sealing = keys.sealing_objects(self.now());
        sealing.filter_map(|key| content.seal(key)).collect()
    }

    /// Whether these seals have all keys of the file. If not, the object must be sealed again.
    pub fn seals_object(&self, content: &Content, seals: &[ObjectSeal]) -> bool {
        let keys = self.keys();
        let mut file = keys.in_file();
        file.all(|key| content.is_sealed(key, seals))
    }

    /// Whether an announcer sealed this object: one of the seals is made with one of the keys.
    pub fn opens_object(&self, content: &Content, seals: &[ObjectSeal]) -> bool {
        let keys = self.keys();
        let mut opening = keys.opening(self.now());
        let opens = opening.any(|(_, key)| content.is_sealed(key, seals));
        if !opens {
            self.unknown.notify_one();
        }
        opens
    }

    /// Seals a message to a node. `heard` is the key with which its latest message was sealed.
    pub fn seal(
        &self,
        message: &[u8],
        to: &NodeName,
        purpose: Purpose,
        heard: Option<KeyId>,
    ) -> Result<Vec<u8>, SealError> {
        let unique = self.unique()?;
        let keys = self.keys();
        // There is one: the first file had one, and the keys of the latest file stay.
        let key = keys.sealing(heard, self.now()).ok_or(SealError::Limit)?;
        super::seal(key, unique, purpose, to, message)
    }

    /// Opens a message to the node `me`, and says with which key.
    pub fn open(
        &self,
        envelope: &[u8],
        me: &NodeName,
        purpose: Purpose,
    ) -> Result<(Vec<u8>, KeyId), OpenError> {
        for (id, key) in self.keys().opening(self.now()) {
            match super::open(key, purpose, me, envelope) {
                Ok(message) => return Ok((message, id)),
                Err(OpenError::Unauthentic) => {}
                Err(OpenError::Malformed) => return Err(OpenError::Malformed),
            }
        }
        self.unknown.notify_one();
        Err(OpenError::Unauthentic)
    }

    fn unique(&self) -> Result<Unique, SealError> {
        let mut salt = [0; SALT];
        self.random.fill(&mut salt).map_err(|_| SealError::Random)?;
        let counter = self
            .sealed
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |it| it.checked_add(1))
            .map_err(|_| SealError::Limit)?;
        Ok(Unique { salt, counter })
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Keys>> {
        // The keys are replaced as a whole, so no panic leaves half of them.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time::after_start(self.start.elapsed())
    }
}

#[cfg(test)]
mod tests;
