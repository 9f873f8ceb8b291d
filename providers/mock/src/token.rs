//! Reads a file with a bearer token. The mock cloud's server and its client use the same
//! rules: surrounding white space is ignored, and an empty file is not a token.

use std::io::Read as _;
use std::path::Path;

/// Longer content is not a token.
const MAX_BYTES: u64 = 4096;

/// Why a file holds no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The system's answer.
    #[error("cannot read it: {0}")]
    Unreadable(#[from] std::io::Error),
    /// An empty token would admit everybody who sends an empty one.
    #[error("it is empty")]
    Empty,
    /// More than a token.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
}

/// The token in a file.
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
