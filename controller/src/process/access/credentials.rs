//! The certificates, keys, tokens and plugins that a kubeconfig names. An error names the
//! field and the file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, header};
use k8s_openapi::ByteString;
use kube::client::AuthError;
use kube::config::{AuthInfo, ExecConfig};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::time::Instant;

/// Tokens are replaced on disk; client-go also reads them again each minute.
const RELOAD: Duration = Duration::from_mins(1);

/// Why a credential cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("cannot read {field} {file}")]
    Read {
        /// The field of the kubeconfig.
        field: &'static str,
        /// Its value.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The data is not Base64.
    #[error("{0} is not valid Base64")]
    Base64(&'static str),
    /// The PEM text is damaged.
    #[error("{place} is not valid PEM")]
    Pem {
        /// The field, and the file if it names one.
        place: String,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// The PEM text contains other things.
    #[error("{place} contains no {what} in PEM format")]
    Nothing {
        /// The field, and the file if it names one.
        place: String,
        /// What it should contain.
        what: &'static str,
    },
    /// A certificate and its key belong together.
    #[error("the user has a {has} and no {lacks}")]
    Half {
        /// The field that is set.
        has: &'static str,
        /// The field that is not set.
        lacks: &'static str,
    },
    /// The file contains something else.
    #[error("tokenFile {0} does not contain a token")]
    Token(String),
    /// The value of a field is something else.
    #[error("the user's {0} contains a line break or another control character")]
    Characters(&'static str),
    /// kubectl removed all of them except `oidc`.
    #[error("the auth-provider {0} is not supported; use a credential plugin (exec)")]
    Provider(String),
}

/// Why a credential plugin returned no credentials. kube's error quotes the environment of the
/// plugin, which can contain secrets, and it does not always name the plugin.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// It does not start.
    #[error("the credential plugin {command} does not start{hint}")]
    Start {
        /// The command in the kubeconfig.
        command: String,
        /// The kubeconfig's advice how to install it.
        hint: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("the credential plugin {command} failed with {status}{said}")]
    Failed {
        /// The command in the kubeconfig.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// Its standard error.
        said: String,
    },
    /// Its output is something else. The text can contain a token, so it is not quoted.
    #[error("the credential plugin {0} did not print an ExecCredential with credentials")]
    Output(String),
}

/// PEM text and where it is from.
#[derive(Debug)]
pub(super) struct Pem {
    /// The text.
    pub(super) bytes: Vec<u8>,
    /// The field, and the file if it names one.
    pub(super) place: String,
}

/// A file with a token, which is read again each minute.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    last: Mutex<(HeaderValue, Instant)>,
}

/// The value of a field, from the kubeconfig itself or from the file that it names. Line breaks
/// in Base64 are not an error in kubectl.
pub(super) fn load(
    [data_field, file_field]: [&'static str; 2],
    data: Option<&str>,
    file: Option<&str>,
) -> Result<Option<Pem>, CredentialError> {
    if let Some(data) = data {
        let text: String = data.split_ascii_whitespace().collect();
        let bytes = serde_json::from_value::<ByteString>(Value::String(text));
        let bytes = bytes.map_err(|_| CredentialError::Base64(data_field))?.0;
        let place = data_field.to_owned();
        return Ok(Some(Pem { bytes, place }));
    }
    let Some(file) = file else { return Ok(None) };
    let read = std::fs::read(file);
    let bytes = read.map_err(|source| CredentialError::Read {
        field: file_field,
        file: file.to_owned(),
        source,
    })?;
    let place = format!("{file_field} {file}");
    Ok(Some(Pem { bytes, place }))
}

/// Loads the user's certificate and key. Returns where they are from.
pub(super) fn identity(user: &mut AuthInfo) -> Result<Option<String>, CredentialError> {
    let fields = ["client-certificate-data", "client-certificate"];
    let data = user.client_certificate_data.as_deref();
    let certificate = load(fields, data, user.client_certificate.as_deref())?;
    let fields = ["client-key-data", "client-key"];
    // The type of the field hides its value, except from serde.
    let secret = serde_json::to_value(&*user).unwrap_or_default();
    let data = secret["client-key-data"].as_str();
    let key = load(fields, data, user.client_key.as_deref())?;
    let (certificate, key) = match (certificate, key) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(half("client-certificate", "client-key")),
        (None, Some(_)) => return Err(half("client-key", "client-certificate")),
        (Some(certificate), Some(key)) => (certificate, key),
    };
    certificate.certificates()?;
    key.key()?;
    // kube would read the files once more.
    user.client_certificate = None;
    user.client_key = None;
    user.client_certificate_data = Some(base64(certificate.bytes));
    user.client_key_data = Some(base64(key.bytes).into());
    Ok(Some(format!("{} and {}", certificate.place, key.place)))
}

fn half(has: &'static str, lacks: &'static str) -> CredentialError {
    CredentialError::Half { has, lacks }
}

fn base64(bytes: Vec<u8>) -> String {
    let value = serde_json::to_value(ByteString(bytes)).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// Checks the token that the kubeconfig itself contains. kube panics if a header cannot contain it.
pub(super) fn check_token(user: &AuthInfo) -> Result<(), CredentialError> {
    // The type of the field hides its value, except from serde.
    let secret = serde_json::to_value(user).unwrap_or_default();
    let (field, token) = if let Some(provider) = &user.auth_provider {
        let token = provider.config.get("id-token");
        let token = token.filter(|_| provider.name == "oidc");
        let token = token.ok_or_else(|| CredentialError::Provider(provider.name.clone()))?;
        ("id-token", token.as_str())
    } else {
        ("token", secret["token"].as_str().unwrap_or_default())
    };
    match HeaderValue::try_from(token) {
        Ok(_) => Ok(()),
        Err(_) => Err(CredentialError::Characters(field)),
    }
}

/// The error of kube's authentication, without secrets and with the name of the plugin.
pub(super) fn plugin_error(error: &AuthError, plugin: &ExecConfig) -> Option<PluginError> {
    let command = plugin.command.clone().unwrap_or_default();
    Some(match error {
        AuthError::AuthExecStart(source) => {
            let hint = plugin.install_hint.as_deref().map(str::trim);
            let hint = hint.filter(|hint| !hint.is_empty());
            PluginError::Start {
                command,
                hint: hint.map(|hint| format!(" ({hint})")).unwrap_or_default(),
                source: io::Error::new(source.kind(), source.to_string()),
            }
        }
        AuthError::AuthExecRun { out, .. } => {
            let said = String::from_utf8_lossy(&out.stderr);
            let said = said.trim();
            PluginError::Failed {
                command,
                status: out.status,
                said: if said.is_empty() {
                    String::new()
                } else {
                    format!(": {said}")
                },
            }
        }
        AuthError::AuthExecParse(_)
        | AuthError::ExecPluginFailed
        | AuthError::UnrefreshableTokenResponse
        | AuthError::MalformedTokenExpirationDate(_) => PluginError::Output(command),
        _ => return None,
    })
}

// === impl Pem ===

impl Pem {
    /// The certificates in DER; at least one.
    pub(super) fn certificates(&self) -> Result<Vec<Vec<u8>>, CredentialError> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let read = read.map_err(|source| self.damaged(source))?;
        if read.is_empty() {
            return Err(self.without("certificate"));
        }
        Ok(read.iter().map(|it| it.to_vec()).collect())
    }

    fn key(&self) -> Result<(), CredentialError> {
        match PrivateKeyDer::from_pem_slice(&self.bytes) {
            Ok(_) => Ok(()),
            Err(pem::Error::NoItemsFound) => Err(self.without("private key without a password")),
            Err(source) => Err(self.damaged(source)),
        }
    }

    fn damaged(&self, source: pem::Error) -> CredentialError {
        let place = self.place.clone();
        CredentialError::Pem { place, source }
    }

    fn without(&self, what: &'static str) -> CredentialError {
        let place = self.place.clone();
        CredentialError::Nothing { place, what }
    }
}

// === impl TokenFile ===

impl TokenFile {
    /// Reads the token.
    pub(super) fn open(path: &str) -> Result<Self, CredentialError> {
        let header = header(Path::new(path))?;
        Ok(Self {
            path: path.into(),
            last: Mutex::new((header, Instant::now())),
        })
    }

    /// Adds the token to a request.
    pub(super) fn authorize<B>(&self, request: &mut http::Request<B>) {
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, self.current());
    }

    /// The token. If the file cannot be read any more, the last one counts: a program may
    /// delete the file after its start.
    fn current(&self) -> HeaderValue {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.1.elapsed() >= RELOAD {
            last.0 = header(&self.path).unwrap_or_else(|_| last.0.clone());
            last.1 = Instant::now();
        }
        last.0.clone()
    }
}

/// The value of `Authorization`. Editors and shells end a file with a line break, which is not
/// part of the token.
fn header(path: &Path) -> Result<HeaderValue, CredentialError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| CredentialError::Read {
        field: "tokenFile",
        file: name.clone(),
        source,
    })?;
    let token = text.trim();
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .ok()
        .filter(|_| !token.is_empty())
        .ok_or(CredentialError::Token(name))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_read_again_each_minute() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        std::fs::write(&path, "one\n").unwrap();
        let token = TokenFile::open(&path).unwrap();
        let sent = || {
            let mut request = http::Request::new(());
            token.authorize(&mut request);
            request.headers()["authorization"]
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(sent(), "Bearer one");
        std::fs::write(&path, "two\r\n").unwrap();
        tokio::time::advance(RELOAD / 2).await;
        assert_eq!(sent(), "Bearer one");
        tokio::time::advance(RELOAD / 2).await;
        assert_eq!(sent(), "Bearer two");
        drop(file);
        tokio::time::advance(RELOAD).await;
        assert_eq!(sent(), "Bearer two");
    }
}
