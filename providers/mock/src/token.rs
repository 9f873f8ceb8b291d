//! Reads a bearer token from a file. The mock cloud's server and its client use the same
//! rules: surrounding white space is ignored, and an empty file contains no token.

use std::io::Read as _;
use std::path::Path;

/// Longer files are refused.
const MAX_BYTES: u64 = 4096;

/// Why a file contains no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The system's error.
    #[error("cannot read it: {0}")]
    Unreadable(#[from] std::io::Error),
    /// An empty token would admit every client that sends an empty one.
    #[error("it is empty")]
    Empty,
    /// The file is longer than a token.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
}

/// Reads the token in a file.
pub fn read_token(path: &Path) -> Result<String, TokenError> {
    let mut text = String::new();
    let mut file = std::fs::File::open(path)?.take(MAX_BYTES + 1);
    file.read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(TokenError::TooLong);
    }
    match text.trim() {
        "" => Err(TokenError::Empty),
        token => Ok(token.to_owned()),
    }
}
