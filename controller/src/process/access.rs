//! How a process reaches the API server: the kubeconfig or the service account of the pod, the
//! proxy, and errors that name the server. Commands and the controller use the same code.
//!
//! kube's own loader reads `HTTPS_PROXY` and `NO_PROXY` while it reads a kubeconfig. It
//! compares `NO_PROXY` with the address of the proxy instead of the API server, and it
//! refuses lists that other programs accept. So the `Config` is built here from the parts of
//! the kubeconfig, and [`proxy`] decides about the proxy. In a cluster there is no proxy: the
//! API server is a Service.

pub mod proxy;

use std::error::Error;
use std::path::Path;

use http::Uri;
use kube::client::ClientBuilder;
use kube::config::{Context, ExecAuthCluster, InClusterError, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tower::BoxError;
use tower::util::MapErrLayer;

use self::proxy::{Environment, ProxyError, redacted};

/// Why a process cannot reach an API server.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Neither a kubeconfig nor a service account.
    #[error(
        "cannot find an API server: no usable kubeconfig (KUBECONFIG, ~/.kube/config), and not running in a cluster"
    )]
    Nowhere(#[source] Box<AccessError>),
    /// A file cannot be read.
    #[error("cannot read the kubeconfig {file}")]
    Read {
        /// The file, or the files of `KUBECONFIG`.
        file: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A file was read and its content is invalid.
    #[error("cannot use the kubeconfig {file}")]
    Content {
        /// The file, or the files of `KUBECONFIG`.
        file: String,
        /// Why.
        #[source]
        source: Box<ContentError>,
    },
}

/// Why the content of a kubeconfig is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// No context is selected.
    #[error("it has no current-context; choose a context with --context")]
    NoContext,
    /// The context does not exist.
    #[error("it has no context {0}")]
    Context(String),
    /// The cluster of the context does not exist.
    #[error("it has no cluster {0}")]
    Cluster(String),
    /// The cluster has no server, or its server is not a URL.
    #[error("the server of cluster {cluster} is not a URL: {server}")]
    Server {
        /// The name of the cluster.
        cluster: String,
        /// The value in the file.
        server: String,
    },
    /// The certificates of the cluster cannot be read.
    #[error("cannot read the certificate authority of cluster {cluster}")]
    Authority {
        /// The name of the cluster.
        cluster: String,
        /// Why.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// The data contains no certificate.
    #[error("the certificate authority of cluster {0} contains no certificate in PEM format")]
    NoCertificate(String),
    /// The proxy cannot be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

/// A request without an answer.
#[derive(Debug)]
struct NoAnswer {
    server: String,
    connecting: bool,
    source: BoxError,
}

/// Reads the kubeconfig, or the service account of the pod if there is none. `file` and
/// `context` are the user's choice.
pub fn config(file: Option<&Path>, context: Option<&str>) -> Result<Config, AccessError> {
    let environment = Environment::of_process();
    let origin = origin(file);
    let read = match file {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let read = read.map_err(|error| match error {
        // Of several files, the one that cannot be read.
        KubeconfigError::ReadConfig(source, file) => AccessError::Read {
            file: file.display().to_string(),
            source: source.into(),
        },
        source => AccessError::Read {
            file: origin.clone(),
            source: source.into(),
        },
    });
    let config = read.and_then(|kubeconfig| {
        of_kubeconfig(&kubeconfig, context, &environment).map_err(|source| AccessError::Content {
            file: origin,
            source: Box::new(source),
        })
    });
    let mut config = match config {
        Err(error) if file.is_none() && context.is_none() => in_cluster(error)?,
        config => config?,
    };
    config.apply_debug_overrides();
    // The client's own retries hide an outage for minutes; callers retry visibly.
    config.default_retry = false;
    Ok(config)
}

/// A client whose errors name the server.
pub fn client(config: Config) -> Result<Client, kube::Error> {
    let server = server(&config);
    let layer = MapErrLayer::new(move |error| named(error, &server));
    let builder = ClientBuilder::try_from(config)?;
    Ok(builder.with_layer(&layer).build())
}

/// The file, the files or the default, for messages.
fn origin(file: Option<&Path>) -> String {
    let named = file.map(|file| file.display().to_string());
    let listed = || std::env::var("KUBECONFIG").ok().filter(|it| !it.is_empty());
    named
        .or_else(listed)
        .unwrap_or_else(|| "~/.kube/config".to_owned())
}

fn in_cluster(error: AccessError) -> Result<Config, AccessError> {
    Config::incluster().map_err(|_: InClusterError| AccessError::Nowhere(Box::new(error)))
}

/// Like kube's own loader, but without its choice of a proxy.
fn of_kubeconfig(
    kubeconfig: &Kubeconfig,
    context: Option<&str>,
    environment: &Environment,
) -> Result<Config, ContentError> {
    let context = chosen(kubeconfig, context)?;
    let name = context.cluster.as_str();
    let missing = || ContentError::Cluster(name.to_owned());
    let mut clusters = kubeconfig.clusters.iter();
    let cluster = clusters.find(|it| it.name == name);
    let cluster = cluster
        .and_then(|it| it.cluster.as_ref())
        .ok_or_else(missing)?;
    let text = cluster.server.clone().unwrap_or_default();
    let server: Uri = text.parse().unwrap_or_default();
    if server.scheme().is_none() || server.host().is_none() {
        return Err(ContentError::Server {
            cluster: name.to_owned(),
            server: text,
        });
    }
    let unreadable = |source| ContentError::Authority {
        cluster: name.to_owned(),
        source: Box::new(source),
    };
    let about = ExecAuthCluster::try_from(cluster).map_err(unreadable)?;
    // kubectl also accepts a user that does not exist.
    let mut users = kubeconfig.auth_infos.iter();
    let user = users.find(|it| Some(&it.name) == context.user.as_ref());
    let mut user = user.and_then(|it| it.auth_info.clone()).unwrap_or_default();
    let root_cert = certificates(name, about.certificate_authority_data.as_deref())?;
    if let Some(exec) = user.exec.as_mut().filter(|exec| exec.provide_cluster_info) {
        exec.cluster = Some(about);
    }
    let proxy_url = proxy::proxy(&server, cluster.proxy_url.as_deref(), environment)?;
    let mut config = Config::new(server);
    if let Some(namespace) = &context.namespace {
        config.default_namespace.clone_from(namespace);
    }
    config.root_cert = root_cert;
    config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or(false);
    config.disable_compression = cluster.disable_compression.unwrap_or(false);
    config.tls_server_name.clone_from(&cluster.tls_server_name);
    config.proxy_url = proxy_url;
    config.auth_info = user;
    Ok(config)
}

fn chosen<'k>(
    kubeconfig: &'k Kubeconfig,
    context: Option<&str>,
) -> Result<&'k Context, ContentError> {
    let current = kubeconfig.current_context.as_deref();
    let current = current.filter(|name| !name.is_empty());
    let name = context.or(current).ok_or(ContentError::NoContext)?;
    let mut contexts = kubeconfig.contexts.iter();
    let found = contexts.find(|it| it.name == name);
    let found = found.and_then(|it| it.context.as_ref());
    found.ok_or_else(|| ContentError::Context(name.to_owned()))
}

/// The certificates of the authority in DER, if the kubeconfig names one.
fn certificates(cluster: &str, pem: Option<&[u8]>) -> Result<Option<Vec<Vec<u8>>>, ContentError> {
    let Some(pem) = pem else { return Ok(None) };
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.unwrap_or_default();
    if read.is_empty() {
        return Err(ContentError::NoCertificate(cluster.to_owned()));
    }
    Ok(Some(read.iter().map(|it| it.to_vec()).collect()))
}

/// The server and the way to it, for messages.
fn server(config: &Config) -> String {
    let url = &config.cluster_url;
    let scheme = url.scheme_str().unwrap_or_default();
    let authority = url.authority().map_or("", |it| it.as_str());
    let proxy = config.proxy_url.as_ref();
    let proxy = proxy.map(|it| format!(" through the proxy {}", redacted(it)));
    format!("{scheme}://{authority}{}", proxy.unwrap_or_default())
}

/// Adds the server to a connection error. The client recognises its own errors by type, so
/// those stay unchanged.
fn named(error: BoxError, server: &str) -> BoxError {
    if error.is::<kube::Error>() {
        return error;
    }
    let client = error.downcast_ref::<hyper_util::client::legacy::Error>();
    Box::new(NoAnswer {
        server: server.to_owned(),
        connecting: client.is_some_and(hyper_util::client::legacy::Error::is_connect),
        source: error,
    })
}

// === impl NoAnswer ===

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { server, .. } = self;
        if self.connecting {
            write!(f, "cannot connect to the API server at {server}")
        } else {
            write!(f, "no answer from the API server at {server}")
        }
    }
}

impl Error for NoAnswer {
    /// The client's own error names only the step that failed; its cause says why.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let cause = self.source.source().filter(|_| self.connecting);
        Some(cause.unwrap_or(&*self.source))
    }
}

#[cfg(test)]
mod tests;
