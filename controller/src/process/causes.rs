//! One text for an error and everything that caused it. Pure.
//!
//! Libraries differ on whether the text of an error contains the text of its cause: hyper omits
//! it, kube repeats it. [`causes`] walks the chain of causes and includes each one once. Logs,
//! `/readyz`, conditions and commands all use it.

use std::error::Error;
use std::io;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::SocksV5;
use kube::core::Status;
use tower::Service;

use super::text::{LONGEST, one_line, shortened};

/// The maximum number of causes; a longer chain is cut.
const DEEPEST: usize = 16;

/// The error of a SOCKS proxy, whose type has no public name.
type SocksError = <SocksV5<HttpConnector> as Service<http::Uri>>::Error;

/// The error and its causes in one line without control characters, at most [`LONGEST`]
/// characters long.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    shortened(&one_line(&told(error, DEEPEST)), LONGEST)
}

fn told(error: &(dyn Error + 'static), depth: usize) -> String {
    if let Some(status) = status(error) {
        return answer(status);
    }
    let own = error.to_string();
    let Some(source) = source(error).filter(|_| depth > 0) else {
        return own;
    };
    let cause = told(source, depth - 1);
    // These prefixes name an enum variant, which means nothing to a reader.
    if let Some(
        kube::Error::Service(_)
        | kube::Error::HyperError(_)
        | kube::Error::HttpError(_)
        | kube::Error::RustlsTls(_)
        | kube::Error::Auth(_),
    ) = downcast::<kube::Error>(error)
    {
        return cause;
    }
    let repeated = source.to_string();
    if !repeated.is_empty() && own.contains(&repeated) {
        own.replacen(&repeated, &cause, 1)
    } else if cause.is_empty() || own.contains(&cause) {
        own
    } else if has_part(&cause, &own) {
        cause
    } else {
        format!("{own}: {cause}")
    }
}

/// The cause of an error. An error of SOCKS has causes and does not return them. An
/// [`io::Error`] returns the cause of the error that it wraps, so that one is asked itself.
fn source<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    let wrapped = error.downcast_ref().and_then(io::Error::get_ref);
    let wrapped = wrapped.map(|it| it as &(dyn Error + 'static));
    match wrapped.unwrap_or(error).downcast_ref() {
        Some(SocksError::Inner(cause)) => Some(cause),
        Some(SocksError::Io(cause)) => Some(cause),
        _ => error.source(),
    }
}

/// Whether a text like "a: b: c" has this part. A part of a word does not count: a file can be
/// called "read".
fn has_part(text: &str, part: &str) -> bool {
    let around = |(before, after): (&str, &str)| {
        (before.is_empty() || before.ends_with(": "))
            && (after.is_empty() || after.starts_with(": "))
    };
    let mut found = text.match_indices(part);
    found.any(|(at, _)| around((&text[..at], &text[at + part.len()..])))
}

/// The API server's answer, if the error is one.
fn status<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Status> {
    match downcast::<kube::Error>(error) {
        Some(kube::Error::Api(status)) => Some(status),
        _ => downcast::<Status>(error),
    }
}

fn downcast<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let boxed = || error.downcast_ref::<Box<T>>().map(AsRef::as_ref);
    error.downcast_ref::<T>().or_else(boxed)
}

/// What the API server answered, and what to do about it.
pub fn answer(status: &Status) -> String {
    let said = [&status.message, &status.reason];
    let said = said.into_iter().find(|text| !text.is_empty());
    match (status.code, said) {
        (401, _) => "the API server rejected the credentials (401 Unauthorized); check whether the token or the client certificate has expired".to_owned(),
        (_, Some(text)) => text.clone(),
        (code, None) => format!("the API server answered with status {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error whose text may or may not contain the text of its cause.
    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: String,
        source: Option<Box<dyn Error + Send + Sync>>,
    }

    fn chain(texts: &[&str]) -> Layer {
        let (text, causes) = texts.split_first().unwrap();
        Layer {
            text: (*text).to_owned(),
            source: (!causes.is_empty()).then(|| chain(causes).into()),
        }
    }

    #[test]
    fn each_cause_is_said_once() {
        for (texts, told) in [
            (&["refused"][..], "refused"),
            (
                &["client error (Connect)", "tcp", "refused"],
                "client error (Connect): tcp: refused",
            ),
            (&["a: b: c", "b: c", "c"], "a: b: c"),
            (&["a: b", "b", "c"], "a: b: c"),
            (&["b", "a: b", "c"], "a: b: c"),
            (
                &["read", "cannot read the file", "none"],
                "read: cannot read the file: none",
            ),
            (&["a", ""], "a"),
            (&["a\nb", "c\u{1b}[2J"], "a b: c [2J"),
        ] {
            assert_eq!(causes(&chain(texts)), told, "{texts:?}");
        }
    }

    #[test]
    fn the_api_server_is_quoted_once() {
        let forbidden = Status::failure("nodes is forbidden: no", "Forbidden").with_code(403);
        let error = kube::Error::Api(forbidden.clone().boxed());
        assert_eq!(causes(&error), "nodes is forbidden: no");
        let watch = kube::runtime::watcher::Error::InitialListFailed(error);
        assert_eq!(
            causes(&watch),
            "failed to perform initial object list: nodes is forbidden: no"
        );
        let watch = kube::runtime::watcher::Error::WatchError(forbidden.boxed());
        assert_eq!(
            causes(&watch),
            "error returned by apiserver during watch: nodes is forbidden: no"
        );
        let expired = Status::failure("Unauthorized", "Unauthorized").with_code(401);
        assert!(causes(&kube::Error::Api(expired.boxed())).contains("has expired"));
        let silent = kube::Error::Api(Status::default().with_code(502).boxed());
        assert_eq!(causes(&silent), "the API server answered with status 502");
    }

    #[test]
    fn names_of_variants_are_left_out() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = kube::Error::Service(Box::new(refused));
        assert_eq!(causes(&error), "connection refused");
        let context = anyhow::Error::new(error).context("cannot list Services");
        assert_eq!(
            causes(context.as_ref()),
            "cannot list Services: connection refused"
        );
    }

    #[test]
    fn the_text_is_bounded() {
        let long = "x".repeat(40_000);
        assert_eq!(causes(&chain(&[&long, "y"])).chars().count(), LONGEST);
        let endless: Vec<String> = (0..100).map(|number| format!("cause {number}")).collect();
        let endless: Vec<&str> = endless.iter().map(String::as_str).collect();
        assert!(causes(&chain(&endless)).ends_with("cause 16"));
    }
}
