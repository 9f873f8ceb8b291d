//! The bearer token for a mock cloud: a fixed one, or the content of a file that may change.
//!
//! The file is usually a mounted Secret, and kubelet updates the copies of the cloud and of
//! the controller up to two minutes apart. If the cloud refuses a token, the client reads the
//! file again. Until the cloud accepts the new token, the client also tries the previous one,
//! so a rotation needs no restart and fails no call.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::token::{TokenError, read_token};

/// The age of the token after which a call reads the file again.
const READ_EVERY: Duration = Duration::from_secs(10);
/// The same after a refusal, however many calls are refused.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// The bearer token for a mock cloud. Clones share it. The default is no token.
#[derive(Clone, Default)]
pub struct Token(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// The file, if the token may change.
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    current: Option<String>,
    /// The previous content of the file, until the cloud accepts the current one.
    previous: Option<String>,
    read: Option<Instant>,
    /// Whether the last read failed, so that a problem is logged only once.
    failed: bool,
}

// === impl Token ===

impl Token {
    /// A token that never changes.
    pub fn fixed(token: String) -> Self {
        let known = Known {
            current: Some(token),
            ..Known::default()
        };
        Self(Arc::new(Shared {
            file: None,
            known: Mutex::new(known),
        }))
    }

    /// The content of a file, without surrounding white space. Reads the file once; a missing
    /// or empty file is read again later.
    pub fn file(path: PathBuf) -> Self {
        let found = read_token(&path);
        let token = Self(Arc::new(Shared {
            file: Some(path),
            known: Mutex::default(),
        }));
        token.learn(found, Instant::now());
        token
    }

    /// The path of the file, if there is one.
    pub(super) fn path(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// Whether a token is known.
    pub(super) fn is_known(&self) -> bool {
        self.known().current.is_some()
    }

    /// The token for the next call.
    pub(super) async fn current(&self) -> Option<String> {
        self.read_if_older(READ_EVERY).await;
        self.known().current.clone()
    }

    /// The token to send after the cloud refused `refused`; `None` if there is no other.
    pub(super) async fn other_than(&self, refused: Option<&str>) -> Option<String> {
        self.read_if_older(READ_AGAIN).await;
        let known = self.known();
        let mut candidates = [&known.current, &known.previous].into_iter().flatten();
        candidates
            .find(|token| Some(token.as_str()) != refused)
            .cloned()
    }

    /// The cloud accepted this token, so an older one is no longer needed.
    pub(super) fn accepted(&self, token: Option<&str>) {
        let mut known = self.known();
        if known.current.as_deref() == token {
            known.previous = None;
        }
    }

    async fn read_if_older(&self, age: Duration) {
        let Some(path) = self.0.file.clone() else {
            return;
        };
        let now = Instant::now();
        {
            let mut known = self.known();
            if known
                .read
                .is_some_and(|at| now.saturating_duration_since(at) < age)
            {
                return;
            }
            known.read = Some(now);
        }
        if let Ok(found) = tokio::task::spawn_blocking(move || read_token(&path)).await {
            self.learn(found, now);
        }
    }

    /// Stores the content of the file. A file that cannot be read changes nothing.
    fn learn(&self, found: Result<String, TokenError>, now: Instant) {
        let file = self.0.file.as_deref().unwrap_or_else(|| Path::new(""));
        let mut known = self.known();
        known.read = Some(now);
        match found {
            Ok(token) => {
                known.failed = false;
                if known.current.as_ref() != Some(&token) {
                    if known.current.is_some() {
                        info!(file = %file.display(), "the token for mock clouds has changed");
                    }
                    known.previous = known.current.replace(token);
                }
            }
            Err(error) => {
                if !known.failed {
                    warn!(file = %file.display(), %error, "no new token for mock clouds");
                }
                known.failed = true;
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is one assignment, so a panic leaves a valid state.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Option<String>> for Token {
    fn from(token: Option<String>) -> Self {
        token.map(Self::fixed).unwrap_or_default()
    }
}

/// Never prints the token, so that it does not appear in a log.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = if self.is_known() { "known" } else { "none" };
        write!(f, "Token({known})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_after_a_while_and_after_a_refusal() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let token = Token::file(file.clone());
        assert_eq!(token.current().await, None, "the file does not exist yet");
        std::fs::write(&file, "one\n").unwrap();
        assert_eq!(token.current().await, None, "not read at every call");
        tokio::time::advance(READ_EVERY).await;
        assert_eq!(token.current().await.as_deref(), Some("one"));
        std::fs::write(&file, "two\n").unwrap();
        assert_eq!(token.other_than(Some("one")).await, None);
        tokio::time::advance(READ_AGAIN).await;
        let other = token.other_than(Some("one")).await;
        assert_eq!(other.as_deref(), Some("two"), "a refusal reads sooner");
        // The cloud's copy is older: the previous token still works.
        let other = token.other_than(Some("two")).await;
        assert_eq!(other.as_deref(), Some("one"));
        token.accepted(Some("one"));
        assert_eq!(token.other_than(Some("two")).await.as_deref(), Some("one"));
        token.accepted(Some("two"));
        assert_eq!(token.other_than(Some("two")).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_without_a_token_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "one").unwrap();
        let token = Token::file(file.clone());
        for content in ["", " \n", &"x".repeat(5000)] {
            std::fs::write(&file, content).unwrap();
            tokio::time::advance(READ_EVERY).await;
            assert_eq!(token.current().await.as_deref(), Some("one"));
        }
        std::fs::remove_file(&file).unwrap();
        tokio::time::advance(READ_EVERY).await;
        assert_eq!(token.current().await.as_deref(), Some("one"));
    }

    #[test]
    fn a_token_is_never_printed() {
        assert_eq!(format!("{:?}", Token::default()), "Token(none)");
        let token = Token::fixed("secret".into());
        assert_eq!(format!("{token:?}"), "Token(known)");
    }
}
