//! The text of an error and everything that caused it, for the errors of kube and its
//! connectors, too. Pure.
//!
//! Logs, `/readyz`, conditions and commands all use it.

use std::error::Error;
use std::io;

use ballast_provider::causes::{Libraries, Wording, causes_by};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::SocksV5;
use kube::core::Status;
use tower::Service;

/// The error of a SOCKS proxy, whose type has no public name.
type SocksError = <SocksV5<HttpConnector> as Service<http::Uri>>::Error;

/// kube and what it connects with.
struct Kube;

/// The error and its causes in one bounded line, each cause once
/// ([`ballast_provider::causes::causes`]). An answer of the API server is quoted.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    causes_by(error, &Kube)
}

// === impl Kube ===

impl Libraries for Kube {
    fn wording(&self, error: &(dyn Error + 'static)) -> Wording {
        if let Some(status) = status(error) {
            return Wording::Instead(answer(status));
        }
        match downcast::<kube::Error>(error) {
            // These prefixes name an enum variant, which means nothing to a reader.
            Some(
                kube::Error::Service(_)
                | kube::Error::HyperError(_)
                | kube::Error::HttpError(_)
                | kube::Error::RustlsTls(_)
                | kube::Error::Auth(_),
            ) => Wording::OfCause,
            _ => Wording::Own,
        }
    }

    /// An error of SOCKS has causes and does not return them. An [`io::Error`] returns the cause
    /// of the error that it wraps, so that one is asked itself.
    fn source<'e>(&self, error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
        let wrapped = error.downcast_ref().and_then(io::Error::get_ref);
        let wrapped = wrapped.map(|it| it as &(dyn Error + 'static));
        match wrapped.unwrap_or(error).downcast_ref() {
            Some(SocksError::Inner(cause)) => Some(cause),
            Some(SocksError::Io(cause)) => Some(cause),
            _ => error.source(),
        }
    }
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
}
