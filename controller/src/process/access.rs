//! How a process reaches the API server: the kubeconfig or the service account of the pod, the
//! proxy, and errors that name the file and the server. Commands and the controller use the
//! same code.
//!
//! kube's own loader reads `HTTPS_PROXY` and `NO_PROXY` while it reads a kubeconfig. It
//! compares `NO_PROXY` with the address of the proxy instead of the API server, and it
//! refuses lists that other programs accept. Its errors do not name the file, the user or the
//! plugin. So the `Config` is built here from the parts of the kubeconfig: [`files`] reads and
//! merges them, [`credentials`] loads what they name, and [`proxy`] decides about the proxy. In a
//! cluster there is no proxy: the API server is a Service.

pub mod credentials;
mod files;
pub mod proxy;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use http::{Request, Response, StatusCode, Uri, header};
use kube::client::{AuthError, Body, ClientBuilder, RustlsTlsError};
use kube::config::{AuthInfo, Cluster, Context, ExecAuthCluster, ExecConfig, InClusterError};
use kube::{Client, Config};
use tower::BoxError;
use tower::util::{MapRequestLayer, MapResultLayer};

use self::credentials::{
    CredentialError, PluginError, TokenFile, check_token, identity, load, plugin_error,
};
use self::files::{Chosen, Files};
use self::proxy::{Environment, ProxyError, redacted};

/// Why a process cannot reach an API server.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Neither a kubeconfig nor a service account.
    #[error(
        "cannot find an API server: there is no kubeconfig ({0}; KUBECONFIG names another one), and this process does not run in a cluster"
    )]
    Nowhere(String),
    /// No file exists.
    #[error("there is no kubeconfig ({0}; KUBECONFIG names another one)")]
    Missing(String),
    /// A file cannot be read.
    #[error("cannot read the kubeconfig {file}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The files were read, and what they contain cannot be used.
    #[error("cannot use {place}")]
    Content {
        /// The files and entries.
        place: Box<Place>,
        /// Why.
        #[source]
        source: Box<ContentError>,
    },
}

/// Why the content of a kubeconfig, or a service account, cannot be used.
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
    /// The cluster has no server, or its server is not a valid URL.
    #[error("the server of cluster {cluster} is not a valid URL: {server}")]
    Server {
        /// The name of the cluster.
        cluster: String,
        /// The value in the file without a login.
        server: String,
    },
    /// A certificate, key or token.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The plugin of the user.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The proxy cannot be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The files of the service account.
    #[error("cannot use the files in {SERVICE_ACCOUNT}")]
    ServiceAccount(#[from] InClusterError),
    /// The client's library refuses something.
    #[error("cannot use {what}")]
    Refused {
        /// The fields and files.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// The folder of a pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where the access is from, for messages. Fields are empty as long as they are not known.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The file that defines the entry in question; no file for a service account.
    file: String,
    context: String,
    cluster: String,
    user: String,
    server: String,
}

/// What a client needs.
#[derive(Debug)]
pub struct Access {
    /// Settings of the client, such as its time-outs.
    pub config: Config,
    place: Place,
    token: Option<TokenFile>,
    /// The places of the certificate authority and of the user's certificate.
    authority: String,
    identity: String,
}

/// A request without an answer.
#[derive(Debug)]
struct NoAnswer {
    server: String,
    connecting: bool,
    source: BoxError,
}

/// A login page or a gateway answered instead of the API server.
#[derive(Debug, thiserror::Error)]
#[error(
    "the answer is not from an API server: {server} responds with status {status} and {content}; check the server's URL and the proxies on the way"
)]
struct Foreign {
    server: String,
    status: StatusCode,
    content: &'static str,
}

/// Reads the kubeconfig, or the service account of the pod if there is none. `file` and
/// `context` are the user's choice.
pub fn access(file: Option<&Path>, context: Option<&str>) -> Result<Access, AccessError> {
    let files = Files::read(&Chosen::of_process(file));
    let read = files.and_then(|files| of_kubeconfig(&files, context, &Environment::of_process()));
    let mut access = match read {
        Err(AccessError::Missing(files)) if context.is_none() => {
            in_cluster(Config::incluster(), files)?
        }
        read => read?,
    };
    access.config.apply_debug_overrides();
    // The client's own retries hide an outage for minutes; callers retry visibly.
    access.config.default_retry = false;
    Ok(access)
}

fn in_cluster(read: Result<Config, InClusterError>, files: String) -> Result<Access, AccessError> {
    let mut place = Place::default();
    let failed = |place: &Place, source: ContentError| AccessError::Content {
        place: Box::new(place.clone()),
        source: Box::new(source),
    };
    let mut config = match read {
        Ok(config) => config,
        Err(InClusterError::ReadEnvironmentVariable(_)) => return Err(AccessError::Nowhere(files)),
        Err(error) => return Err(failed(&place, error.into())),
    };
    place.server = base(&config.cluster_url);
    let token = token(&mut config.auth_info);
    let token = token.map_err(|error| failed(&place, error.into()))?;
    Ok(Access {
        config,
        place,
        token,
        authority: format!("{SERVICE_ACCOUNT}/ca.crt"),
        identity: String::new(),
    })
}

/// Like kube's own loader, but without its choice of a proxy.
fn of_kubeconfig(
    files: &Files,
    context: Option<&str>,
    environment: &Environment,
) -> Result<Access, AccessError> {
    let mut place = Place::default();
    let built = build(files, context, environment, &mut place);
    built.map_err(|source| AccessError::Content {
        place: Box::new(place),
        source: Box::new(source),
    })
}

/// `place` becomes more exact with each step.
fn build(
    files: &Files,
    context: Option<&str>,
    environment: &Environment,
    place: &mut Place,
) -> Result<Access, ContentError> {
    let context = chosen(files, context, place)?;
    let (cluster, server) = cluster(files, &context.cluster, place)?;
    let fields = ["certificate-authority-data", "certificate-authority"];
    let data = cluster.certificate_authority_data.as_deref();
    let authority = load(fields, data, cluster.certificate_authority.as_deref())?;
    let root_cert = authority.as_ref().map(credentials::Pem::certificates);
    let root_cert = root_cert.transpose()?;
    let proxy_url = proxy::proxy(&server, cluster.proxy_url.as_deref(), environment)?;

    let name = context.user.clone().unwrap_or_default();
    let mut users = files.merged.auth_infos.iter();
    // kubectl also accepts a user that does not exist.
    let user = users.find(|it| it.name == name);
    let mut user = user.and_then(|it| it.auth_info.clone()).unwrap_or_default();
    place.file = files.with(|it| it.auth_infos.iter().any(|it| it.name == name));
    place.user = name;
    let identity = identity(&mut user)?;
    check_token(&user)?;
    let token = token(&mut user)?;
    if let Some(exec) = user.exec.as_mut().filter(|exec| exec.provide_cluster_info) {
        exec.cluster = Some(about(cluster, authority.as_ref()));
    }
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
    Ok(Access {
        config,
        place: place.clone(),
        token,
        authority: authority.map(|it| it.place).unwrap_or_default(),
        identity: identity.unwrap_or_default(),
    })
}

fn chosen<'k>(
    files: &'k Files,
    context: Option<&str>,
    place: &mut Place,
) -> Result<&'k Context, ContentError> {
    place.file = files.with(|it| context.is_none() && it.current_context.is_some());
    let current = files.merged.current_context.as_deref();
    let name = context.or(current).ok_or(ContentError::NoContext)?;
    name.clone_into(&mut place.context);
    let mut contexts = files.merged.contexts.iter();
    let found = contexts.find(|it| it.name == name);
    let found = found.and_then(|it| it.context.as_ref());
    place.file = files.with(|it| it.contexts.iter().any(|it| it.name == name));
    found.ok_or_else(|| ContentError::Context(name.to_owned()))
}

fn cluster<'k>(
    files: &'k Files,
    name: &str,
    place: &mut Place,
) -> Result<(&'k Cluster, Uri), ContentError> {
    let mut clusters = files.merged.clusters.iter();
    let found = clusters.find(|it| it.name == name);
    let found = found.and_then(|it| it.cluster.as_ref());
    let cluster = found.ok_or_else(|| ContentError::Cluster(name.to_owned()))?;
    place.file = files.with(|it| it.clusters.iter().any(|it| it.name == name));
    name.clone_into(&mut place.cluster);
    let text = cluster.server.clone().unwrap_or_default();
    let server: Uri = text.parse().unwrap_or_default();
    let authority = server.authority().map_or("", |it| it.as_str());
    if server.scheme().is_none() || server.host().is_none() || !proxy::is_port_valid(authority) {
        return Err(ContentError::Server {
            cluster: name.to_owned(),
            server: proxy::without_login(&text),
        });
    }
    place.server = base(&server);
    Ok((cluster, server))
}

/// The user's file with a token, unless another credential takes precedence. It is read here:
/// kube keeps the line break at its end.
fn token(user: &mut AuthInfo) -> Result<Option<TokenFile>, CredentialError> {
    let password = user.username.is_some() && user.password.is_some();
    if user.auth_provider.is_some() || password || user.token.is_some() {
        return Ok(None);
    }
    let Some(file) = user.token_file.take() else {
        return Ok(None);
    };
    user.exec = None;
    TokenFile::open(&file).map(Some)
}

/// The cluster for plugins that ask for it.
fn about(cluster: &Cluster, authority: Option<&credentials::Pem>) -> ExecAuthCluster {
    let mut extensions = cluster.extensions.iter().flatten();
    let config = extensions.find(|it| it.name == "client.authentication.k8s.io/exec");
    ExecAuthCluster {
        server: cluster.server.clone(),
        insecure_skip_tls_verify: cluster.insecure_skip_tls_verify,
        certificate_authority_data: authority.map(|it| it.bytes.clone()),
        proxy_url: cluster.proxy_url.clone(),
        tls_server_name: cluster.tls_server_name.clone(),
        config: config.map(|it| it.extension.clone()),
    }
}

/// A URL without its login.
fn base(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or_default();
    let authority = url.authority().map_or("", |it| it.as_str());
    // A login in the URL of a server has no effect; it must not appear in logs either.
    let place = authority.rsplit_once('@').map_or(authority, |(_, it)| it);
    format!("{scheme}://{place}{}", url.path().trim_end_matches('/'))
}

/// The server and the way to it, for messages.
fn server(config: &Config) -> String {
    let proxy = config.proxy_url.as_ref();
    let proxy = proxy.map(|it| format!(" through the proxy {}", redacted(it)));
    format!("{}{}", base(&config.cluster_url), proxy.unwrap_or_default())
}

/// Refuses web pages and redirects, which an API server does not send. Otherwise the error would
/// be about JSON, or nothing but the page.
fn recognised<B>(response: Response<B>, server: &str) -> Result<Response<B>, BoxError> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_page = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let content = match (is_page, status.is_redirection()) {
        (_, true) => "a redirect",
        (true, false) => "a web page",
        (false, false) => return Ok(response),
    };
    let server = server.to_owned();
    Err(Box::new(Foreign {
        server,
        status,
        content,
    }))
}

/// Adds the server to a connection error. The client recognises its own errors by type, so
/// those stay unchanged.
fn named(error: BoxError, server: &str, plugin: Option<&ExecConfig>) -> BoxError {
    if error.is::<kube::Error>() {
        return error;
    }
    let auth = error.downcast_ref::<AuthError>();
    if let Some(failed) = auth.and_then(|error| plugin_error(error, plugin?)) {
        return Box::new(failed);
    }
    let client = error.downcast_ref::<hyper_util::client::legacy::Error>();
    Box::new(NoAnswer {
        server: server.to_owned(),
        connecting: client.is_some_and(hyper_util::client::legacy::Error::is_connect),
        source: error,
    })
}

// === impl Access ===

impl Access {
    /// The name of the cluster in the kubeconfig, or the URL of its server.
    pub fn cluster_name(&self) -> String {
        let Place {
            cluster, server, ..
        } = &self.place;
        if cluster.is_empty() { server } else { cluster }.clone()
    }

    /// A client whose errors name the server. It sends no request yet, but it runs the user's
    /// credential plugin.
    pub fn client(self) -> Result<Client, AccessError> {
        let Self {
            config,
            place,
            token,
            authority,
            identity,
        } = self;
        let server = server(&config);
        let (plugin, name) = (
            config.auth_info.exec.clone(),
            config.tls_server_name.clone(),
        );
        let exec = plugin.clone();
        let builder = ClientBuilder::try_from(config).map_err(|error| {
            let what = match &error {
                kube::Error::RustlsTls(RustlsTlsError::AddRootCertificate(_)) => authority,
                kube::Error::RustlsTls(RustlsTlsError::InvalidServerName(_)) => {
                    format!("tls-server-name {}", name.unwrap_or_default())
                }
                kube::Error::RustlsTls(_) if plugin.is_none() => identity,
                _ => format!("the credentials of user {}", place.user),
            };
            let failed = match &error {
                kube::Error::Auth(error) => plugin.and_then(|plugin| plugin_error(error, &plugin)),
                _ => None,
            };
            let source = match failed {
                Some(failed) => failed.into(),
                None => ContentError::Refused {
                    what,
                    source: Box::new(error),
                },
            };
            AccessError::Content {
                place: Box::new(place),
                source: Box::new(source),
            }
        })?;
        let token = token.map(Arc::new);
        let authorize = MapRequestLayer::new(move |mut request: Request<Body>| {
            if let Some(token) = &token {
                token.authorize(&mut request);
            }
            request
        });
        let named = MapResultLayer::new(move |answer: Result<_, BoxError>| match answer {
            Ok(response) => recognised(response, &server),
            Err(error) => Err(named(error, &server, exec.as_ref())),
        });
        Ok(builder.with_layer(&authorize).with_layer(&named).build())
    }
}

// === impl Place ===

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.file.is_empty() {
            f.write_str("the service account of this pod")?;
        } else {
            write!(f, "the kubeconfig {}", self.file)?;
        }
        let known = [
            ("context", &self.context),
            ("cluster", &self.cluster),
            ("user", &self.user),
            ("server", &self.server),
        ];
        let known = known.iter().filter(|(_, value)| !value.is_empty());
        let known: Vec<String> = known.map(|(key, value)| format!("{key} {value}")).collect();
        if known.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", known.join(", "))
    }
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
