//! Tests with a real TLS server, real proxies, and the messages of all errors, on loopback
//! only.

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::ListParams;
use kube::config::Kubeconfig;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::*;
use crate::process::causes::causes;

mod broken;

/// Only the proxies of these tests can resolve this name.
const NAME: &str = "api.example.test";
const EMPTY: &str = r#"{"kind":"ServiceList","apiVersion":"v1","metadata":{},"items":[]}"#;
const EXPIRED: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#;

/// An API server that gives every request the same answer.
struct Server {
    address: SocketAddr,
    authority: String,
}

/// A proxy that connects every request to one address, and records what it was asked for.
struct Proxy {
    url: String,
    asked: mpsc::UnboundedReceiver<String>,
}

impl Server {
    async fn start(status: &'static str, body: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut params = CertificateParams::default();
        let name = format!("authority of {address}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = [NAME.to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    head(&mut stream).await;
                    let length = body.len();
                    let kind = if body.starts_with('<') {
                        "text/html; charset=utf-8"
                    } else {
                        "application/json"
                    };
                    let answer = format!(
                        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self {
            address,
            authority: issuer.pem(),
        }
    }

    /// A kubeconfig for the server, which is known by `name`.
    fn kubeconfig(&self, name: &str, more: &Value) -> Kubeconfig {
        kubeconfig(&format!("https://{name}"), &self.authority, more)
    }
}

impl Proxy {
    async fn start(scheme: &'static str, to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let request = match scheme {
                        "http" => connect(&mut client).await,
                        _ => socks(&mut client).await,
                    };
                    tell.send(request).unwrap();
                    let mut server = TcpStream::connect(to).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { url, asked }
    }
}

/// A tunnel by `CONNECT` (RFC 9110, 9.3.6).
async fn connect(client: &mut TcpStream) -> String {
    let request = head(client).await;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    request
}

/// A tunnel by SOCKS without a login (RFC 1928), to a host by name.
async fn socks(client: &mut TcpStream) -> String {
    let mut greeting = [0; 3];
    client.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting, [5, 1, 0]);
    client.write_all(&[5, 0]).await.unwrap();
    let mut request = [0; 5];
    client.read_exact(&mut request).await.unwrap();
    assert_eq!(request[..4], [5, 1, 0, 3], "connect to a name");
    let mut name = vec![0; usize::from(request[4])];
    client.read_exact(&mut name).await.unwrap();
    let port = client.read_u16().await.unwrap();
    let done = [5, 0, 0, 1, 127, 0, 0, 1, 0, 0];
    client.write_all(&done).await.unwrap();
    format!("CONNECT {}:{port} SOCKS", String::from_utf8(name).unwrap())
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(text).unwrap()
}

fn kubeconfig(server: &str, authority: &str, more: &Value) -> Kubeconfig {
    use k8s_openapi::ByteString;
    let mut cluster = json!({
        "server": server,
        "certificate-authority-data": ByteString(authority.as_bytes().to_vec()),
    });
    let more = more.as_object().cloned().unwrap_or_default();
    cluster.as_object_mut().unwrap().extend(more);
    serde_json::from_value(json!({
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "lab", "user": "me"}}],
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
    }))
    .unwrap()
}

/// The file of the kubeconfigs in these tests, if it matters.
const FILE: &str = "/etc/kubeconfig";

fn files(kubeconfig: &Kubeconfig) -> Files {
    Files::of(vec![(FILE.into(), kubeconfig.clone())]).unwrap()
}

/// The number of Services, or the full text of the error.
async fn services(kubeconfig: &Kubeconfig, environment: &Environment) -> Result<usize, String> {
    let access = of_kubeconfig(&files(kubeconfig), None, environment);
    let mut access = access.map_err(|it| causes(&it))?;
    access.config.default_retry = false;
    let client = access.client().map_err(|it| causes(&it))?;
    let list = Api::<Service>::all(client)
        .list(&ListParams::default())
        .await;
    list.map(|it| it.items.len()).map_err(|it| causes(&it))
}

#[tokio::test]
async fn requests_pass_the_proxy_of_the_kubeconfig() {
    let server = Server::start("200 OK", EMPTY).await;
    for scheme in ["http", "socks5"] {
        let mut proxy = Proxy::start(scheme, server.address).await;
        let more = json!({"proxy-url": proxy.url});
        let kubeconfig = server.kubeconfig(&format!("{NAME}:6443"), &more);
        let environment = Environment::default();
        assert_eq!(services(&kubeconfig, &environment).await, Ok(0), "{scheme}");
        let asked = proxy.asked.recv().await.unwrap();
        assert!(
            asked.starts_with(&format!("CONNECT {NAME}:6443 ")),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn requests_pass_the_proxy_of_the_environment_with_a_login() {
    let server = Server::start("200 OK", EMPTY).await;
    let mut proxy = Proxy::start("http", server.address).await;
    let environment = Environment {
        https_proxy: Some(proxy.url.replace("http://", "http://me:pass%40word@")),
        // The proxy itself is on loopback, which must not matter.
        no_proxy: Some("127.0.0.0/8,localhost".to_owned()),
        ..Environment::default()
    };
    let kubeconfig = server.kubeconfig(NAME, &json!({}));
    assert_eq!(services(&kubeconfig, &environment).await, Ok(0));
    let asked = proxy.asked.recv().await.unwrap();
    assert!(
        asked.starts_with(&format!("CONNECT {NAME}:443 ")),
        "{asked}"
    );
    // me:pass@word
    assert!(asked.contains("Basic bWU6cGFzc0B3b3Jk\r\n"), "{asked}");
}

#[tokio::test]
async fn exempt_servers_are_reached_without_the_proxy() {
    let server = Server::start("200 OK", EMPTY).await;
    let mut proxy = Proxy::start("http", server.address).await;
    let environment = Environment {
        https_proxy: Some(proxy.url.clone()),
        no_proxy: Some("other.test,".to_owned()),
        ..Environment::default()
    };
    // Loopback needs no entry.
    let kubeconfig = server.kubeconfig(&server.address.to_string(), &json!({}));
    assert_eq!(services(&kubeconfig, &environment).await, Ok(0));
    assert!(proxy.asked.try_recv().is_err(), "the proxy was used");
    let config = |no_proxy: &str| {
        let environment = Environment {
            no_proxy: Some(no_proxy.to_owned()),
            ..environment.clone()
        };
        let kubeconfig = server.kubeconfig("10.1.2.3:6443", &json!({}));
        of_kubeconfig(&files(&kubeconfig), None, &environment)
            .unwrap()
            .config
            .proxy_url
    };
    assert!(config("other.test").is_some());
    assert_eq!(config("10.0.0.0/8"), None);
}

#[tokio::test]
async fn errors_name_the_server_and_the_cause() {
    let nothing = Environment::default();
    // Refused.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let server = Server::start("401 Unauthorized", EXPIRED).await;
    let refused = services(
        &server.kubeconfig(&closed.to_string(), &json!({})),
        &nothing,
    )
    .await;
    assert_eq!(
        refused.unwrap_err(),
        format!(
            "cannot connect to the API server at https://{closed}: tcp connect error: Connection refused (os error 111)"
        )
    );
    // A certificate of another authority.
    let other = Server::start("200 OK", EMPTY).await;
    let url = format!("https://{}", server.address);
    let foreign = services(&kubeconfig(&url, &other.authority, &json!({})), &nothing).await;
    assert_eq!(
        foreign.unwrap_err(),
        format!(
            "cannot connect to the API server at {url}: invalid peer certificate: UnknownIssuer"
        )
    );
    // An expired token.
    let expired = services(
        &server.kubeconfig(&server.address.to_string(), &json!({})),
        &nothing,
    )
    .await;
    assert!(
        expired
            .unwrap_err()
            .contains("rejected the credentials (401 Unauthorized)")
    );
    // A proxy that is not there.
    for (proxy, step) in [
        (format!("http://me:secret@{closed}"), "tunnel error"),
        (format!("socks5://{closed}"), "SOCKS error"),
    ] {
        let more = json!({"proxy-url": proxy});
        let lost = services(&server.kubeconfig(NAME, &more), &nothing).await;
        let proxy = proxy.replace("me:secret@", "");
        assert_eq!(
            lost.unwrap_err(),
            format!(
                "cannot connect to the API server at https://{NAME} through the proxy {proxy}: {step}: failed to create underlying connection: tcp connect error: Connection refused (os error 111)"
            )
        );
    }
    // A SOCKS proxy that hangs up.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let more = json!({"proxy-url": format!("socks5://{}", listener.local_addr().unwrap())});
    let hangs_up = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut greeting = [0; 3];
            let _ = client.read_exact(&mut greeting).await;
        }
    });
    let cut = services(&server.kubeconfig(NAME, &more), &nothing).await;
    let cut = cut.unwrap_err();
    assert!(
        cut.ends_with("SOCKS error: io error during SOCKS handshake: unexpected eof"),
        "{cut}"
    );
    hangs_up.abort();
}

#[tokio::test]
async fn a_page_of_another_server_is_no_answer() {
    for (status, body, says) in [
        (
            "200 OK",
            "<html>login</html>",
            "status 200 OK and a web page;",
        ),
        (
            "502 Bad Gateway",
            "<html>",
            "status 502 Bad Gateway and a web page;",
        ),
        ("302 Found", "", "status 302 Found and a redirect;"),
    ] {
        let server = Server::start(status, body).await;
        let url = format!("{}/k8s/clusters/c-1", server.address);
        let told = services(
            &server.kubeconfig(&url, &json!({})),
            &Environment::default(),
        )
        .await;
        let start =
            format!("the answer is not from an API server: https://{url} responds with {says}");
        let told = told.unwrap_err();
        assert!(told.starts_with(&start), "{told}");
    }
}

#[test]
fn errors_name_what_is_wrong_in_the_file() {
    let of = |change: &dyn Fn(&mut Kubeconfig), context: Option<&str>| {
        let mut kubeconfig = kubeconfig("https://api:6443", "no certificate", &json!({}));
        change(&mut kubeconfig);
        let access = of_kubeconfig(&files(&kubeconfig), context, &Environment::default());
        causes(&access.err().unwrap())
    };
    let set = |change: fn(&mut kube::config::Cluster)| {
        move |it: &mut Kubeconfig| change(it.clusters[0].cluster.as_mut().unwrap())
    };
    let of = |change: &dyn Fn(&mut Kubeconfig), context| {
        let told = of(change, context);
        let start = format!("cannot use the kubeconfig {FILE}");
        assert!(told.starts_with(&start), "{told}");
        told[start.len()..].to_owned()
    };
    let known = " (context here, cluster lab, server https://api:6443)";
    for (told, text) in [
        (
            of(&|_| {}, None),
            format!("{known}: certificate-authority-data contains no certificate in PEM format"),
        ),
        (
            of(&|_| {}, Some("there")),
            " (context there): it has no context there".to_owned(),
        ),
        (
            of(&|it| it.current_context = None, None),
            ": it has no current-context; choose a context with --context".to_owned(),
        ),
        (
            of(&|it| it.clusters.clear(), None),
            " (context here): it has no cluster lab".to_owned(),
        ),
        (
            of(&set(|it| it.server = Some("api".to_owned())), None),
            " (context here, cluster lab): the server of cluster lab is not a valid URL: api".to_owned(),
        ),
        (
            of(
                &set(|it| it.server = Some("https://me:secret@api:99999".to_owned())),
                None,
            ),
            " (context here, cluster lab): the server of cluster lab is not a valid URL: https://api:99999".to_owned(),
        ),
        (
            of(
                &set(|it| it.certificate_authority_data = Some("*".to_owned())),
                None,
            ),
            format!("{known}: certificate-authority-data is not valid Base64"),
        ),
        (
            of(
                &set(|it| {
                    it.certificate_authority_data = None;
                    it.proxy_url = Some("ftp://p".to_owned());
                }),
                None,
            ),
            format!("{known}: proxy-url in the kubeconfig is not the URL of a proxy"),
        ),
    ] {
        assert!(told.starts_with(&text), "{told:?} is not {text:?}");
    }
    let missing = access(Some(Path::new("/nowhere/config")), None).unwrap_err();
    let told = causes(&missing);
    assert_eq!(told.matches("/nowhere/config").count(), 1, "{told}");
    assert!(told.contains("No such file"), "{told}");
}

/// Of two files, the one that has the entry.
#[test]
fn the_file_that_defines_the_entry_is_named() {
    let broken = kubeconfig("https://api:6443", "no certificate", &json!({}));
    let mut first = broken.clone();
    let mut second = Kubeconfig::default();
    std::mem::swap(&mut first.clusters, &mut second.clusters);
    let files = Files::of(vec![("/a".into(), first), ("/b".into(), second)]).unwrap();
    let of = |context| {
        let access = of_kubeconfig(&files, context, &Environment::default());
        causes(&access.unwrap_err())
    };
    assert!(
        of(None).starts_with("cannot use the kubeconfig /b ("),
        "{}",
        of(None)
    );
    let told = of(Some("there"));
    assert!(
        told.starts_with("cannot use the kubeconfig /a, /b ("),
        "{told}"
    );
}

#[test]
fn without_a_kubeconfig_the_service_account_is_named() {
    let told = |error: InClusterError| {
        let files = "/etc/ballast/config".to_owned();
        causes(&in_cluster(Err(error), files).unwrap_err())
    };
    assert_eq!(
        told(InClusterError::ReadEnvironmentVariable(
            std::env::VarError::NotPresent
        )),
        "cannot find an API server: there is no kubeconfig (/etc/ballast/config; KUBECONFIG names another one), and this process does not run in a cluster"
    );
    let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
    assert_eq!(
        told(InClusterError::ReadCertificateBundle(gone)),
        "cannot use the service account of this pod: cannot use the files in /var/run/secrets/kubernetes.io/serviceaccount: failed to read a certificate bundle: entity not found"
    );
}
